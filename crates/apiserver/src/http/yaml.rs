//! YAML of a tree, in block style with sorted keys, as upstream's serializer writes it.

use schema::{Map, Value};

/// Appends an object.
pub fn encode(object: &Map, out: &mut String) {
    if object.is_empty() {
        out.push_str("{}\n");
    } else {
        map(object, 0, out);
    }
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn map(map: &Map, depth: usize, out: &mut String) {
    for (n, (key, value)) in map.iter().enumerate() {
        if n > 0 {
            indent(depth, out);
        }
        text(key, depth, out);
        out.push(':');
        member(value, depth, out);
    }
}

/// What follows a key.
fn member(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Map(inner) if !inner.is_empty() => {
            out.push('\n');
            indent(depth + 1, out);
            map(inner, depth + 1, out);
        }
        // Lists are not indented below their key.
        Value::List(items) if !items.is_empty() => {
            out.push('\n');
            list(items, depth, out);
        }
        scalar => {
            out.push(' ');
            self::scalar(scalar, depth + 1, out);
            out.push('\n');
        }
    }
}

fn list(items: &[Value], depth: usize, out: &mut String) {
    for item in items {
        indent(depth, out);
        out.push('-');
        match item {
            Value::Map(inner) if !inner.is_empty() => {
                out.push(' ');
                map(inner, depth + 1, out);
            }
            Value::List(inner) if !inner.is_empty() => {
                out.push('\n');
                list(inner, depth + 1, out);
            }
            scalar => {
                out.push(' ');
                self::scalar(scalar, depth + 1, out);
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::Str(s) => text(s, depth, out),
        Value::Map(_) => out.push_str("{}"),
        Value::List(_) => out.push_str("[]"),
        other => {
            let mut json = Vec::new();
            schema::json::encode_value(other, &mut json);
            out.push_str(&String::from_utf8_lossy(&json));
        }
    }
}

fn text(s: &str, depth: usize, out: &mut String) {
    let printable = s.chars().all(|c| c == '\n' || printable(c));
    let lines = s.contains('\n') && printable && !s.starts_with([' ', '\n']) && !s.lines().any(|l| l.ends_with(' '));
    if lines {
        out.push('|');
        match s.len() - s.trim_end_matches('\n').len() {
            0 => out.push('-'),
            1 => {}
            _ => out.push('+'),
        }
        for line in s.strip_suffix('\n').unwrap_or(s).split('\n') {
            out.push('\n');
            if !line.is_empty() {
                indent(depth, out);
                out.push_str(line);
            }
        }
    } else if plain(s) {
        out.push_str(s);
    } else {
        quoted(s, out);
    }
}

fn quoted(s: &str, out: &mut String) {
    out.push('"');
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if printable(c) => out.push(c),
            c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02X}", c as u32)),
            c if (c as u32) < 0x1_0000 => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push_str(&format!("\\U{:08X}", c as u32)),
        }
    }
    out.push('"');
}

/// What YAML lets stand as it is on one line.
fn printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a string, written as it is, is read as that string.
fn plain(s: &str) -> bool {
    const RESERVED: [&str; 22] = [
        "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "y", "Y", "n", "N", "yes",
        "Yes", "YES", "no", "No", "NO", "=", "<<",
    ];
    let Some(first) = s.chars().next() else { return false };
    if RESERVED.contains(&s) || matches!(s.to_ascii_lowercase().as_str(), "on" | "off") {
        return false;
    }
    // Numbers, dates, infinities and what could be taken for them.
    if first.is_ascii_digit()
        || matches!(first, '-' | '+' | '.') && s[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.')
    {
        return false;
    }
    if matches!(s.to_ascii_lowercase().trim_start_matches(['-', '+']), ".inf" | ".nan") {
        return false;
    }
    if "-?:,[]{}#&*!|>'\"%@`".contains(first)
        && !(matches!(first, '-' | '?' | ':') && s.len() > 1 && !s[1..].starts_with(' '))
    {
        return false;
    }
    !s.starts_with("---")
        && !s.starts_with("...")
        && !s.starts_with(' ')
        && !s.ends_with([' ', ':'])
        && !s.contains(": ")
        && !s.contains(" #")
        && s.chars().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            ".{0,12}".prop_map(Value::from),
            "[-a-z0-9: #\\n'\"{}.]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map("[a-z0-9/.: -]{1,8}", inner, 0..4)
                    .prop_map(|map| { Value::Map(map.into_iter().map(|(k, v)| (k.into(), v)).collect()) }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in value()) {
            let mut object = Map::new();
            object.insert("a", value);
            let mut text = String::new();
            encode(&object, &mut text);
            let read = schema::yaml::parse(text.as_bytes());
            prop_assert_eq!(read.as_ref().ok(), Some(&Value::Map(object)), "{}", text);
        }
    }
}
