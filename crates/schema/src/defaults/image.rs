//! Whether an image has the tag `latest`: its name is read as a registry's client reads it.

/// Whether an image has the tag `latest`, said or implied. What is no name of an image has no tag.
pub(super) fn is_latest(image: &str) -> bool {
    tag(image) == Some("latest")
}

/// The tag of an image's name, `latest` when it has neither tag nor digest; `None` when it has only a digest or is no such name.
fn tag(image: &str) -> Option<&str> {
    const LONGEST: usize = 255;
    if image.len() == 64 && image.bytes().all(is_lower_hex) {
        return None;
    }
    let (domain, rest) = match image.split_once('/') {
        Some((first, rest)) if is_domain_like(first) => (Some(first), rest),
        _ => (None, image),
    };
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (rest, None),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    let valid = domain.is_none_or(|domain| is_domain(domain) || is_component(domain))
        && path.len() <= LONGEST
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest);
    match (valid, tag, digest) {
        (true, Some(tag), _) => Some(tag),
        (true, None, None) => Some("latest"),
        _ => None,
    }
}

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Whether what comes before the first slash is a registry, and not the first part of a path.
fn is_domain_like(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let label = |label: &str| {
        label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match address {
        Some(address) => !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':'),
        None => host.split('.').all(label),
    };
    host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, between which there may be a dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let alphanumeric = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let bytes = component.as_bytes();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let mut separators = separators.filter(|separator| !separator.is_empty());
    ends && separators.all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().enumerate().all(|(at, b)| word(b) || at > 0 && matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let length = match digest.split_once(':') {
        Some(("sha256", _)) => 64,
        Some(("sha384", _)) => 96,
        Some(("sha512", _)) => 128,
        _ => return false,
    };
    let hash = digest.split_once(':').map_or("", |(_, hash)| hash);
    hash.len() == length && hash.bytes().all(is_lower_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_those_of_names_of_images() {
        let hash = "0123456789abcdef".repeat(4);
        let digest = format!("a@sha256:{hash}");
        let both = format!("a:1@sha256:{hash}");
        for (image, expected) in [
            ("a", Some("latest")),
            ("a:1.2_3-x", Some("1.2_3-x")),
            ("a:latest", Some("latest")),
            ("library/a__b/c-d", Some("latest")),
            ("localhost:5000/a:1", Some("1")),
            ("localhost/a", Some("latest")),
            ("[::1]:5000/a", Some("latest")),
            ("Registry.Example/a", Some("latest")),
            ("my_registry.example/a", Some("latest")),
            (&both, Some("1")),
            (&digest, None),
            ("", None),
            ("UPPER", None),
            ("a b", None),
            ("a/B", None),
            ("a:", None),
            ("a:-1", None),
            ("a//b", None),
            ("-a", None),
            ("a___b", None),
            ("a@sha256:12", None),
            ("a@md5:0123456789abcdef0123456789abcdef", None),
            ("https://example.com/a", None),
            (&hash, None),
        ] {
            assert_eq!(tag(image), expected, "{image}");
        }
        assert!(is_latest("a") && is_latest("a:latest") && !is_latest("UPPER") && !is_latest("a:1"));
    }
}
