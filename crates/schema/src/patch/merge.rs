//! JSON merge patch (RFC 7386).

use crate::tree::{Map, Value};

/// Applies a merge patch: nulls delete, maps merge, everything else replaces.
///
/// The depth of the recursion is bounded by the decoder's limit on the patch.
pub fn apply(target: &mut Value, patch: Value) {
    let Value::Map(patch) = patch else {
        *target = patch;
        return;
    };
    if target.as_map().is_none() {
        *target = Value::Map(Map::new());
    }
    let Value::Map(target) = target else { return };
    for (key, value) in patch.into_entries() {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            value @ Value::Map(_) => apply(target.entry(key, || Value::Map(Map::new())), value),
            value => {
                target.insert(key, value);
            }
        }
    }
}

/// The merge patch that turns one object into another: the inverse of [`apply`].
pub fn diff(from: &Map, to: &Map) -> Map {
    let mut patch = Map::new();
    for (key, _) in from.iter() {
        if !to.contains_key(key) {
            patch.insert(key.to_owned(), Value::Null);
        }
    }
    for (key, new) in to.iter() {
        match (from.get(key), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Map(old)), Value::Map(new)) => {
                patch.insert(key.to_owned(), diff(old, new));
            }
            (_, new) => {
                patch.insert(key.to_owned(), new.clone());
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::tests_support::value;

    #[test]
    fn the_examples_of_the_rfc() {
        // RFC 7386, appendix A.
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r"{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r"{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let mut got = value(target);
            apply(&mut got, value(patch));
            assert_eq!(got, value(result), "{target} patched by {patch}");
        }
    }
}
