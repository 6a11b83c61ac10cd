//! The names of resource.k8s.io: drivers, pools, attributes, versions, shares.

use crate::validation::fields::{Errors, problems, required};
use crate::validation::pod::volume;
use api::{FieldError, Path, names};

const MAX_POOL: usize = 253;
const MAX_ID: usize = 32;
const BAD_IDENTIFIER: &str = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";

pub(super) fn driver(errors: &mut Errors, path: &Path<'_>, name: &str) {
    volume::driver_name(errors, path, name);
}

/// Subdomains joined by slashes.
pub(super) fn pool(errors: &mut Errors, path: &Path<'_>, name: &str) {
    if !required(errors, path, Some(name)) {
        return;
    }
    if name.len() > MAX_POOL {
        errors.push(FieldError::too_long(path, MAX_POOL));
    }
    for part in name.split('/') {
        problems(errors, path, part, names::dns1123_subdomain(part));
    }
}

/// An identifier, with the domain of its owner or without.
pub(super) fn qualified(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        [id] => identifier(errors, path, id),
        [domain, id] => {
            if domain.is_empty() {
                errors.push(FieldError::invalid(path, "", "the domain must not be empty"));
            } else {
                driver(errors, path, domain);
            }
            if id.is_empty() {
                errors.push(FieldError::invalid(path, "", "the name must not be empty"));
            } else {
                identifier(errors, path, id);
            }
        }
        _ => {}
    }
}

pub(super) fn fully_qualified(errors: &mut Errors, path: &Path<'_>, name: &str) {
    qualified(errors, path, name);
    if !name.contains('/') {
        let why = "a fully qualified name must be a domain and a name separated by a slash";
        errors.push(FieldError::invalid(path, name, why));
    }
}

fn identifier(errors: &mut Errors, path: &Path<'_>, id: &str) {
    if id.len() > MAX_ID {
        errors.push(FieldError::too_long(path, MAX_ID));
    }
    let bytes = id.as_bytes();
    let good = bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if !good {
        errors.push(FieldError::invalid(path, id, BAD_IDENTIFIER));
    }
}

/// A version as semver.org has it, all three numbers.
pub(super) fn is_semver(text: &str) -> bool {
    let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
    let is_id = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_number = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) && (part.len() == 1 || !part.starts_with('0'))
    };
    let is_pre = |part: &str| is_id(part) && (!part.bytes().all(|b| b.is_ascii_digit()) || is_number(part));
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_pre))
        && build.is_none_or(|build| build.split('.').all(is_id))
}

/// A UUID as it is written normally.
pub(super) fn uid(errors: &mut Errors, path: &Path<'_>, text: &str) {
    let shaped = text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    if !shaped {
        let why = match text.len() {
            36 => "error validating uid: invalid UUID format".to_owned(),
            n => format!("error validating uid: invalid UUID length: {n}"),
        };
        errors.push(FieldError::invalid(path, text, why));
    } else if text.bytes().any(|b| b.is_ascii_uppercase()) {
        let why = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters";
        errors.push(FieldError::invalid(path, text, why));
    }
}

#[cfg(test)]
mod tests {
    use super::is_semver;

    #[test]
    fn versions() {
        for good in ["0.0.1", "1.2.3-alpha.1+build.5", "1.0.0--x", "10.20.30"] {
            assert!(is_semver(good), "{good}");
        }
        for bad in ["", "1", "1.2", "01.2.3", "1.2.3-01", "1.2.3+", "v1.2.3", "1.2.3.4"] {
            assert!(!is_semver(bad), "{bad}");
        }
    }
}
