//! Names of images.

/// `nginx` as `nginx:latest`; a name with a tag or digest as it is.
///
/// # Errors
/// Why it is no name of an image.
pub(crate) fn with_default_tag(image: &str) -> Result<String, String> {
    let parsed = parse(image).map_err(|why| format!("couldn't parse image name {image:?}: {why}"))?;
    if parsed.tag.is_none() && parsed.digest.is_none() {
        return Ok(format!("{image}:latest"));
    }
    Ok(image.to_owned())
}

/// The parts of an image's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name<'a> {
    /// Registry and path, as written.
    pub(crate) repository: &'a str,
    pub(crate) tag: Option<&'a str>,
    pub(crate) digest: Option<&'a str>,
}

/// Splits a name.
pub(crate) fn parse(image: &str) -> Result<Name<'_>, &'static str> {
    const INVALID: &str = "invalid reference format";
    if image.is_empty() {
        return Err(INVALID);
    }
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|digest| !is_digest(digest)) {
        return Err(INVALID);
    }
    // A colon after the last slash begins a tag; one before it, a port.
    let last = rest.rfind('/').map_or(0, |at| at + 1);
    let (repository, tag) = match rest[last..].split_once(':') {
        Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
        None => (rest, None),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(INVALID);
    }
    let (registry, path) = registry_and_path(repository);
    if path.chars().any(|c| c.is_ascii_uppercase()) {
        return Err("invalid reference format: repository name must be lowercase");
    }
    if registry.is_some_and(|registry| !is_registry(registry)) || !path.split('/').all(is_component) {
        return Err(INVALID);
    }
    Ok(Name { repository, tag, digest })
}

/// The first part is a registry if it looks like a host.
pub(crate) fn registry_and_path(repository: &str) -> (Option<&str>, &str) {
    match repository.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase()) =>
        {
            (Some(first), rest)
        }
        _ => (None, repository),
    }
}

fn is_registry(text: &str) -> bool {
    let bracketed = text.starts_with('[');
    !text.is_empty()
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':') || (bracketed && matches!(c, '[' | ']')))
}

fn is_component(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(text.chars().next())
        && edge(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
}

fn is_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.len() <= 128
        && text.chars().next().is_some_and(word)
        && text.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(text: &str) -> bool {
    match text.split_once(':') {
        Some((algorithm, hex)) => {
            algorithm.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
                && hex.len() >= 32
                && hex.chars().all(|c| c.is_ascii_hexdigit())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag_unless_they_say_which() {
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        for (image, expected) in [
            ("nginx", "nginx:latest"),
            ("nginx:1.7.9", "nginx:1.7.9"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("registry.example.com:5000/a/b:v1", "registry.example.com:5000/a/b:v1"),
            (digest.as_str(), digest.as_str()),
        ] {
            assert_eq!(with_default_tag(image).unwrap(), expected);
        }
        for bad in ["", "a/B", "a:b:c", "nginx:", "nginx@sha256:zz", "-a", "a//b", "a b"] {
            assert!(with_default_tag(bad).is_err(), "{bad}");
        }
        assert_eq!(
            with_default_tag("Nginx").unwrap_err(),
            "couldn't parse image name \"Nginx\": invalid reference format: repository name must be lowercase"
        );
    }
}
