//! The rules for names, labels and keys (RFC 1123, RFC 1035, apimachinery `validation`): each check gives the messages
//! that upstream gives, none when the name is well-formed.

/// Messages of what is wrong; empty when nothing is.
pub type Problems = Vec<String>;

const DNS1123_LABEL_MAX: usize = 63;
const DNS1123_SUBDOMAIN_MAX: usize = 253;
const QUALIFIED_NAME_MAX: usize = 63;
const LABEL_VALUE_MAX: usize = 63;

fn max_len(n: usize) -> String {
    format!("must be no more than {n} bytes")
}

fn regex_message(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let mut text = format!("{message} (e.g. ");
    for (i, example) in examples.iter().enumerate() {
        if i > 0 {
            text.push_str(" or ");
        }
        text.push_str(&format!("'{example}', "));
    }
    text.push_str(&format!("regex used for validation is '{regex}')"));
    text
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn dns1123_label_shape(s: &str) -> bool {
    let b = s.as_bytes();
    match (b.first(), b.last()) {
        (Some(&first), Some(&last)) => {
            lower_alnum(first) && lower_alnum(last) && b.iter().all(|&c| lower_alnum(c) || c == b'-')
        }
        _ => false,
    }
}

const LABEL_MESSAGE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const LABEL_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const SUBDOMAIN_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// A DNS label as RFC 1123 has it, lower case.
pub fn dns1123_label(s: &str) -> Problems {
    let mut problems = Vec::new();
    if s.len() > DNS1123_LABEL_MAX {
        problems.push(max_len(DNS1123_LABEL_MAX));
    }
    if !dns1123_label_shape(s) {
        if s.split('.').all(dns1123_label_shape) && s.contains('.') {
            problems.push("must not contain dots".to_owned());
        } else {
            problems.push(regex_message(LABEL_MESSAGE, LABEL_REGEX, &["my-name", "123-abc"]));
        }
    }
    problems
}

/// DNS labels joined by dots, lower case.
pub fn dns1123_subdomain(s: &str) -> Problems {
    let mut problems = Vec::new();
    if s.len() > DNS1123_SUBDOMAIN_MAX {
        problems.push(max_len(DNS1123_SUBDOMAIN_MAX));
    }
    if !s.split('.').all(dns1123_label_shape) {
        problems.push(regex_message(SUBDOMAIN_MESSAGE, SUBDOMAIN_REGEX, &["example.com"]));
    }
    problems
}

/// A DNS label as RFC 1035 has it: starts with a letter. The rule for Service names.
pub fn dns1035_label(s: &str) -> Problems {
    let mut problems = Vec::new();
    if s.len() > DNS1123_LABEL_MAX {
        problems.push(max_len(DNS1123_LABEL_MAX));
    }
    if !(dns1123_label_shape(s) && s.as_bytes().first().is_some_and(u8::is_ascii_lowercase)) {
        problems.push(regex_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    problems
}

/// A subdomain whose first label may be `*`.
pub fn wildcard_dns1123_subdomain(s: &str) -> Problems {
    match s.strip_prefix("*.") {
        Some(rest) if s.len() <= DNS1123_SUBDOMAIN_MAX && rest.split('.').all(dns1123_label_shape) => Vec::new(),
        _ => {
            let mut problems = Vec::new();
            if s.len() > DNS1123_SUBDOMAIN_MAX {
                problems.push(max_len(DNS1123_SUBDOMAIN_MAX));
            }
            problems.push(regex_message(
                "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
                "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
                &["*.example.com"],
            ));
            problems
        }
    }
}

fn qualified_name_shape(s: &str) -> bool {
    let b = s.as_bytes();
    match (b.first(), b.last()) {
        (Some(first), Some(last)) => {
            first.is_ascii_alphanumeric()
                && last.is_ascii_alphanumeric()
                && b.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
        }
        _ => false,
    }
}

/// The key of a label, annotation or extended resource: an optional DNS subdomain, a slash, a name.
pub fn qualified_name(s: &str) -> Problems {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
    const EXAMPLES: [&str; 3] = ["MyName", "my.name", "123-abc"];
    let mut problems = Vec::new();
    let mut parts = s.split('/');
    let (first, second, third) = (parts.next().unwrap_or(""), parts.next(), parts.next());
    let name = match (second, third) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                problems.push("prefix part must be non-empty".to_owned());
            } else {
                problems.extend(dns1123_subdomain(first).into_iter().map(|p| format!("prefix part {p}")));
            }
            name
        }
        _ => {
            problems.push(format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                regex_message(MESSAGE, REGEX, &EXAMPLES)
            ));
            return problems;
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > QUALIFIED_NAME_MAX {
        problems.push(format!("name part {}", max_len(QUALIFIED_NAME_MAX)));
    }
    if !qualified_name_shape(name) {
        problems.push(format!("name part {}", regex_message(MESSAGE, REGEX, &EXAMPLES)));
    }
    problems
}

/// The value of a label: empty, or shaped as the name part of a qualified name.
pub fn label_value(s: &str) -> Problems {
    let mut problems = Vec::new();
    if s.len() > LABEL_VALUE_MAX {
        problems.push(max_len(LABEL_VALUE_MAX));
    }
    if !s.is_empty() && !qualified_name_shape(s) {
        problems.push(regex_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    problems
}

/// The name of an environment variable, relaxed as of 1.34: printable ASCII without `=`.
pub fn env_var_name(s: &str) -> Problems {
    let mut problems = Vec::new();
    if s.is_empty() {
        problems.push("environment variable name must be non-empty".to_owned());
    }
    if !s.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=') {
        problems.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    problems
}

/// The key of a ConfigMap or Secret.
pub fn config_map_key(s: &str) -> Problems {
    let mut problems = Vec::new();
    if s.len() > DNS1123_SUBDOMAIN_MAX {
        problems.push(max_len(DNS1123_SUBDOMAIN_MAX));
    }
    if s.is_empty() || !s.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.')) {
        problems.push(regex_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if s == "." {
        problems.push("must not be '.'".to_owned());
    }
    if s == ".." {
        problems.push("must not be '..'".to_owned());
    } else if s.starts_with("..") {
        problems.push("must not start with '..'".to_owned());
    }
    problems
}

/// The name of a port: at most 15 characters, a letter among them (RFC 6335).
pub fn port_name(s: &str) -> Problems {
    let b = s.as_bytes();
    let mut problems = Vec::new();
    if s.len() > 15 {
        problems.push("must be no more than 15 characters".to_owned());
    }
    if !b.iter().all(|&c| lower_alnum(c) || c == b'-') {
        problems.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !b.iter().any(u8::is_ascii_lowercase) {
        problems.push("must contain at least one letter (a-z)".to_owned());
    }
    if s.contains("--") {
        problems.push("must not contain consecutive hyphens".to_owned());
    }
    if b.first() == Some(&b'-') || b.last() == Some(&b'-') {
        problems.push("must not begin or end with a hyphen".to_owned());
    }
    problems
}

/// A port number.
pub fn port_number(n: i64) -> Problems {
    if (1..=65535).contains(&n) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".to_owned()] }
}

/// A name that becomes one segment of a path (the rule for RBAC names).
pub fn path_segment(s: &str) -> Problems {
    if s == "." || s == ".." {
        return vec![format!("may not be '{s}'")];
    }
    ['/', '%'].iter().filter(|c| s.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert!(dns1123_label("a-1").is_empty());
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert!(dns1123_subdomain("a.b-c.d").is_empty());
        assert_eq!(
            dns1123_subdomain("A"),
            [
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert!(dns1035_label("1a").len() == 1 && dns1035_label("a1").is_empty());
        assert!(
            qualified_name("example.com/My_Name").is_empty()
                && qualified_name("/x").len() == 1
                && qualified_name("a/b/c").len() == 1
        );
        assert!(label_value("").is_empty() && label_value("-").len() == 1);
        assert!(port_name("http").is_empty() && port_name("80").len() == 1);
        assert!(config_map_key("..a").len() == 1);
        assert!(path_segment("a:b").is_empty() && path_segment("a/b").len() == 1);
    }
}
