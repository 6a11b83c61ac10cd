//! Image references: what people write (`nginx`, `quay.io/a/b:v1`, `busybox@sha256:…`) and the full
//! form that it stands for, by Docker's rules.

use std::{fmt, str::FromStr};

use crate::content::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DOMAIN: &str = "index.docker.io";
const OFFICIAL: &str = "library";
const DEFAULT_TAG: &str = "latest";
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// A normalised reference: registry, repository, and a tag or a digest.
///
/// Given both, the digest is what counts, and the tag is dropped, as containerd does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    version: Version,
}

/// Which of a repository's images.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// Whatever the tag points to.
    Tag(String),
    /// Exactly this content.
    Digest(Digest),
}

/// Why a string is no reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidReference {
    /// It does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// It would, were it in lower case.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// The repository's name is over 255 characters long.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// It could be mistaken for an image's ID.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
}

impl Reference {
    /// The registry's host, with a port if one was given; Docker Hub is `docker.io`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository in that registry.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Registry and repository: the reference without its version.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// Tag or digest.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The same repository at a digest.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self { version: Version::Digest(digest), ..self.clone() }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        if text.len() == 64 && text.bytes().all(is_hex) {
            return Err(InvalidReference::LooksLikeId(text.into()));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|_| InvalidReference::Format)?)),
            None => (text, None),
        };
        let (domain, rest) = split_domain(name);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let path = match path.contains('/') {
            false if domain == DEFAULT_DOMAIN => format!("{OFFICIAL}/{path}"),
            _ => path.to_owned(),
        };
        if !is_domain(domain) || tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(InvalidReference::Format);
        }
        if !path.split('/').all(is_component) {
            let lower = path.to_ascii_lowercase();
            return Err(match lower != path && lower.split('/').all(is_component) {
                true => InvalidReference::UpperCase(path),
                false => InvalidReference::Format,
            });
        }
        if path.len() > MAX_REPOSITORY {
            return Err(InvalidReference::TooLong);
        }
        let version = match (digest, tag) {
            (Some(digest), _) => Version::Digest(digest),
            (None, tag) => Version::Tag(tag.unwrap_or(DEFAULT_TAG).into()),
        };
        Ok(Self { domain: domain.into(), path, version })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

/// The first component is a registry only if it cannot be part of a Docker Hub repository.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((LEGACY_DOMAIN, rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if host.bytes().all(|b| is_hex(b.to_ascii_lowercase()) || b == b':') => (host, port),
            _ => return false,
        },
        None => {
            let end = domain.find(':').unwrap_or(domain.len());
            let (host, port) = domain.split_at(end);
            if !host.split('.').all(is_host_label) {
                return false;
            }
            (host, port)
        }
    };
    let port_ok = match port.strip_prefix(':') {
        Some(port) => port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => port.is_empty(),
    };
    !host.is_empty() && port_ok
}

fn is_host_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
}

/// Runs of lower-case letters and digits, between them one dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends_well = bytes.first().copied().is_some_and(is_word) && bytes.last().copied().is_some_and(is_word);
    ends_well
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{InvalidReference, Reference};

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap_or_else(|error| panic!("{text}: {error}")).to_string()
    }

    #[test]
    fn short_names_stand_for_docker_hub() {
        for (short, long) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.7.9", "docker.io/library/nginx:1.7.9"),
            ("library/nginx", "docker.io/library/nginx:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            ("grafana/grafana:9", "docker.io/grafana/grafana:9"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x:v1", "localhost:5000/x:v1"),
            ("foo:5000", "docker.io/library/foo:5000"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("quay.io/a/b/c-d__e.f", "quay.io/a/b/c-d__e.f:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("127.0.0.1:5000/library/x", "127.0.0.1:5000/library/x:latest"),
            ("Registry/x", "Registry/x:latest"),
            ("a---b", "docker.io/library/a---b:latest"),
        ] {
            assert_eq!(full(short), long);
        }
        assert_eq!(full(&format!("nginx:1.7.9@{DIGEST}")), format!("docker.io/library/nginx@{DIGEST}"));
    }

    #[test]
    fn what_is_no_reference_is_refused_with_a_reason() {
        for bad in [
            "",
            ":",
            "/",
            "nginx:",
            "nginx:.x",
            "nginx@",
            "nginx@sha256:abc",
            "a//b",
            "/a",
            "a/",
            "a_.b",
            "a___b",
            "a..b",
            "-a",
            "a-",
            "nginx:a b",
            "nginx:x:y",
            "host:99999/x",
            "a/.b",
            ".example/x",
            "-x.example/y",
            "[::1/x",
            "[zz]/x",
            "a:b:c/d",
            "nginx\n",
            "http://x/y",
            "../../etc/passwd",
            "localhost/../x",
            "ex ample.com/x",
            &format!("x:{}", "t".repeat(129)),
        ] {
            assert_eq!(bad.parse::<Reference>(), Err(InvalidReference::Format), "{bad:?}");
        }
        assert!(matches!("Nginx".parse::<Reference>(), Err(InvalidReference::UpperCase(_))));
        assert!(matches!("a/Nginx:x".parse::<Reference>(), Err(InvalidReference::UpperCase(_))));
        let id = "a".repeat(64);
        assert!(matches!(id.parse::<Reference>(), Err(InvalidReference::LooksLikeId(_))));
        assert_eq!("a".repeat(300).parse::<Reference>(), Err(InvalidReference::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_what_parses_is_canonical(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn likely_text_is_canonical_once_parsed(
            text in "([a-zA-Z0-9.:-]{1,12}/)?[a-z0-9._/-]{1,20}(:[a-zA-Z0-9._-]{0,10})?"
        ) {
            if let Ok(reference) = text.parse::<Reference>() {
                let canonical = reference.to_string();
                let again: Reference = canonical.parse().unwrap();
                prop_assert_eq!(&again, &reference);
                prop_assert_eq!(again.to_string(), canonical);
                prop_assert!(!reference.path().split('/').any(|part| matches!(part, "" | "." | "..")));
            }
        }
    }
}
