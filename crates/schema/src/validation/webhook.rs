//! Where a webhook is called: a URL, or a service of the cluster. Shared by admission and conversion.

use super::fields::{Errors, json_list};
use crate::view::List;
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const FORM: &str = "; desired format: https://host[/path]";

/// A service as both kinds of webhooks name it.
pub(super) struct Service<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub path: Option<&'a str>,
    pub port: i64,
}

/// Exactly one of the two, and well-formed.
pub(super) fn client(errors: &mut Errors, path: &Path<'_>, url: Option<&str>, service: Option<Service<'_>>) {
    match (url, service) {
        (Some(at), None) => self::url(errors, &path.child("url"), at),
        (None, Some(service)) => self::service(errors, &path.child("service"), &service),
        _ => errors.push(FieldError::required(path, "exactly one of url or service is required")),
    }
}

/// The parts of a URL that are looked at.
#[derive(Debug, Default, PartialEq)]
struct Parts<'a> {
    scheme: String,
    host: &'a str,
    user: Option<&'a str>,
    query: &'a str,
    fragment: &'a str,
}

fn url(errors: &mut Errors, path: &Path<'_>, text: &str) {
    let parts = match parse(text) {
        Ok(parts) => parts,
        Err(why) => {
            let why = format!("url must be a valid URL: parse {}: {why}{FORM}", api::field::go_quote(text));
            errors.push(FieldError::required(path, why));
            return;
        }
    };
    let mut refuse = |value: &str, why: String| errors.push(FieldError::invalid(path, value, why));
    if parts.scheme != "https" {
        refuse(&parts.scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if parts.host.is_empty() {
        refuse(parts.host, format!("host must be provided{FORM}"));
    }
    if let Some(user) = parts.user {
        refuse(user, "user information is not permitted in the URL".to_owned());
    }
    if !parts.fragment.is_empty() {
        refuse(parts.fragment, "fragments are not permitted in the URL".to_owned());
    }
    if !parts.query.is_empty() {
        refuse(parts.query, "query parameters are not permitted in the URL".to_owned());
    }
}

/// Takes a URL apart as Go does; the error is what Go says of it.
fn parse(text: &str) -> Result<Parts<'_>, String> {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return Err("net/url: invalid control character in URL".to_owned());
    }
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (scheme, rest) = scheme(text)?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut parts = Parts { scheme: scheme.to_ascii_lowercase(), query, fragment, ..Parts::default() };
    let Some(authority) = rest.strip_prefix("//") else {
        let first = rest.split('/').next().unwrap_or("");
        if scheme.is_empty() && !rest.starts_with('/') && first.contains(':') {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
        escapes(rest)?;
        return Ok(parts);
    };
    let (authority, path) = authority.find('/').map_or((authority, ""), |at| authority.split_at(at));
    let host = match authority.rsplit_once('@') {
        Some((user, host)) => {
            parts.user = Some(user);
            host
        }
        None => authority,
    };
    if let Some(bad) = host.chars().find(|c| matches!(c, ' ' | '"' | '\\' | '^' | '`' | '{' | '|' | '}')) {
        return Err(format!("invalid character {} in host name", api::field::go_quote(&bad.to_string())));
    }
    let port = host.rfind(']').map_or(host, |at| &host[at + 1..]);
    if let Some(at) = port.find(':')
        && !port[at + 1..].bytes().all(|b| b.is_ascii_digit())
    {
        return Err(format!("invalid port {} after host", api::field::go_quote(&port[at..])));
    }
    escapes(path)?;
    parts.host = host;
    Ok(parts)
}

fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at > 0 => return Ok((&text[..at], &text[at + 1..])),
            b':' => return Err("missing protocol scheme".to_owned()),
            _ => break,
        }
    }
    Ok(("", text))
}

fn escapes(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    for at in bytes.iter().enumerate().filter(|(_, b)| **b == b'%').map(|(at, _)| at) {
        let good = bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if !good {
            let end = (at + 3).min(bytes.len());
            let shown = String::from_utf8_lossy(&bytes[at..end]);
            return Err(format!("invalid URL escape {}", api::field::go_quote(&shown)));
        }
    }
    Ok(())
}

fn service(errors: &mut Errors, path: &Path<'_>, service: &Service<'_>) {
    // Upstream's callers hand over name and namespace the other way around than its check takes them, so that it names
    // the field beside the one that is missing; clients know it so.
    if service.namespace.is_empty() {
        errors.push(FieldError::required(&path.child("name"), "service name is required"));
    }
    if service.name.is_empty() {
        errors.push(FieldError::required(&path.child("namespace"), "service namespace is required"));
    }
    let bad = names::port_number(service.port);
    if !bad.is_empty() {
        let why = format!("port is not valid: {}", bad.join(", "));
        errors.push(FieldError::invalid(&path.child("port"), service.port, why));
    }
    let at = service.path.unwrap_or("");
    if matches!(at, "" | "/") {
        return;
    }
    let path = path.child("path");
    let mut refuse = |why: String| errors.push(FieldError::invalid(&path, at, why));
    if at == "//" {
        refuse("segment[0] may not be empty".to_owned());
        return;
    }
    if !at.starts_with('/') {
        refuse("must start with a '/'".to_owned());
    }
    // The first byte is taken for the slash, whatever it is.
    let steps = (1..=at.len()).find(|end| at.is_char_boundary(*end)).map_or("", |end| &at[end..]);
    let steps = steps.strip_suffix('/').unwrap_or(steps);
    for (i, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            refuse(format!("segment[{i}] may not be empty"));
            continue;
        }
        for problem in names::dns1123_subdomain(step) {
            refuse(format!("segment[{i}]: {problem}"));
        }
    }
}

/// The versions of reviews that a webhook understands; one of them must be one that is spoken here.
pub(super) fn review_versions(
    errors: &mut Errors,
    path: &Path<'_>,
    versions: List<'_, &str>,
    recognized: bool,
    missing: &str,
) {
    if versions.is_empty() {
        errors.push(FieldError::required(path, missing));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, version) in versions.iter().enumerate() {
        if !seen.insert(version) {
            errors.push(FieldError::invalid(&path.index(i), version, "duplicate version"));
            continue;
        }
        super::fields::problems(errors, &path.index(i), version, names::dns1035_label(version));
    }
    if recognized && !seen.iter().any(|version| speaks(version)) {
        let why = "must include at least one of v1, v1beta1";
        errors.push(FieldError::invalid(path, json_list(versions), why));
    }
}

/// Whether reviews of this version are understood.
pub(super) fn speaks(version: &str) -> bool {
    matches!(version, "v1" | "v1beta1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart_as_go_does() {
        let https = |host| Parts { scheme: "https".into(), host, ..Parts::default() };
        assert_eq!(parse("https://a.b:1/c"), Ok(https("a.b:1")));
        assert_eq!(
            parse("HTTPS://u:p@[::1]:8/c?q#f"),
            Ok(Parts { user: Some("u:p"), query: "q", fragment: "f", ..https("[::1]:8") })
        );
        assert_eq!(parse("a.b/c"), Ok(Parts::default()));
        for (text, why) in [
            (":x", "missing protocol scheme"),
            ("1a:80/x", "first path segment in URL cannot contain colon"),
            ("https://a b/", "invalid character \" \" in host name"),
            ("https://a:x/", "invalid port \":x\" after host"),
            ("https://a/%zz", "invalid URL escape \"%zz\""),
            ("https://a/\n", "net/url: invalid control character in URL"),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
    }
}
