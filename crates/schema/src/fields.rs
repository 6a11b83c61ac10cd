//! Sets of owned fields (`metav1.FieldsV1`) as text: objects in objects, and nothing else.

use crate::decode::DecodeError;
use crate::json;
use crate::tree::Value;

/// Deeper ones are left to the decoder, which refuses what is too deep.
const MAX_DEPTH: usize = 128;

/// The length of the set that a text begins with, if it is JSON as sets are written: objects alone, without white space.
pub(crate) fn length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut depth = 0_usize;
    loop {
        // A value.
        if bytes.get(at) != Some(&b'{') {
            return None;
        }
        at += 1;
        depth += 1;
        if depth > MAX_DEPTH {
            return None;
        }
        if bytes.get(at) != Some(&b'}') {
            at = key(bytes, at)?;
            continue;
        }
        // The ends of objects, until another member comes.
        loop {
            at += 1;
            depth -= 1;
            if depth == 0 {
                return Some(at);
            }
            match bytes.get(at)? {
                b'}' => {}
                b',' => {
                    at = key(bytes, at + 1)?;
                    break;
                }
                _ => return None,
            }
        }
    }
}

/// Behind a key and its colon.
fn key(bytes: &[u8], at: usize) -> Option<usize> {
    let at = string(bytes, at)?;
    (bytes.get(at) == Some(&b':')).then_some(at + 1)
}

/// Behind a string.
fn string(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => {
                at += 2;
                match bytes.get(at - 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' if bytes.get(at..at + 4)?.iter().all(u8::is_ascii_hexdigit) => at += 4,
                    _ => return None,
                }
            }
            0..0x20 => return None,
            _ => at += 1,
        }
    }
}

/// The value of a set's JSON, whatever it looks like.
pub(crate) fn value(bytes: &[u8]) -> Result<Value, DecodeError> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && length(text) == Some(text.len())
    {
        return Ok(Value::Raw(text.into()));
    }
    Ok(match json::parse(bytes)? {
        Value::Map(map) => Value::Raw(json::to_string(&map).into()),
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_objects_in_objects_are_taken() {
        for text in ["{}", r#"{"f:a":{}}"#, r#"{"f:a":{".":{},"k:{\"name\":\"x\"}":{"f:b":{}}},"v:\u00e9":{}}"#] {
            assert_eq!(length(text), Some(text.len()), "{text}");
            assert_eq!(length(&format!("{text},rest")), Some(text.len()), "{text}");
        }
        for text in [
            "",
            "{",
            "[]",
            "{ }",
            r#"{"a":1}"#,
            r#"{"a":{}"#,
            r#"{"a"}"#,
            r#"{"a":{},}"#,
            r#"{"\x":{}}"#,
            r#"{"a":{}{}}"#,
        ] {
            assert_eq!(length(text), None, "{text}");
        }
        let deep = format!("{}{}", r#"{"a":"#.repeat(200), "}".repeat(200));
        assert_eq!(length(&deep), None);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_json(text in r#"[{}:,"a\\]{0,24}"#) {
            if let Some(length) = length(&text) {
                prop_assert!(json::parse(&text.as_bytes()[..length]).is_ok(), "{}", text);
            }
        }
    }
}
