//! JSON patch (RFC 6902) with JSON pointers (RFC 6901).

use super::PatchError;
use crate::decode::MAX_DEPTH;
use crate::json::mismatch;
use crate::tree::{Map, Value};

/// Upstream's limit on the operations of one patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// Copies may grow an object; together they may not add more bytes of JSON than this, as upstream.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// One operation, read.
enum Operation {
    Add(Pointer, Value),
    Remove(Pointer),
    Replace(Pointer, Value),
    Move { from: Pointer, to: Pointer },
    Copy { from: Pointer, to: Pointer },
    Test(Pointer, Value),
}

/// The unescaped tokens of a JSON pointer, and its text for messages.
struct Pointer {
    text: String,
    tokens: Vec<String>,
}

/// Applies a patch (a list of operations) to an object; all or nothing.
///
/// # Errors
/// [`PatchError::Malformed`] when the patch is no JSON patch, [`PatchError::Rejected`] when it doesn't fit the object.
pub fn apply(target: &mut Value, patch: Value) -> Result<(), PatchError> {
    let operations = match patch {
        Value::List(operations) => operations,
        Value::Null => Vec::new(),
        other => return Err(malformed(&other, "value of type []handlers.jsonPatchOp")),
    };
    operations.iter().try_for_each(check)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooMany { limit: MAX_OPERATIONS, got: operations.len() });
    }
    let operations: Vec<Operation> = operations.into_iter().map(read).collect::<Result<_, _>>()?;
    let mut work = target.clone();
    let mut copied = 0;
    for operation in operations {
        run(&mut work, operation, &mut copied)?;
    }
    *target = work;
    Ok(())
}

/// A part of the patch that is of another type than it must be, in the words of Go's decoder.
fn malformed(value: &Value, wanted: &str) -> PatchError {
    PatchError::Malformed(format!("error decoding patch: {}", mismatch(value, wanted)))
}

/// Whether an operation has the shape of one. `null` is one that says nothing.
fn check(operation: &Value) -> Result<(), PatchError> {
    let operation = match operation {
        Value::Map(operation) => operation,
        Value::Null => return Ok(()),
        other => return Err(malformed(other, "value of type handlers.jsonPatchOp")),
    };
    for member in ["op", "path", "from"] {
        if let Some(value) = operation.get(member).filter(|value| !matches!(value, Value::Str(_) | Value::Null)) {
            return Err(malformed(value, &format!("struct field jsonPatchOp.{member} of type string")));
        }
    }
    Ok(())
}

fn read(operation: Value) -> Result<Operation, PatchError> {
    let Value::Map(mut operation) = operation else {
        return Err(PatchError::Rejected("Unexpected kind: unknown".to_owned()));
    };
    let name = operation.get("op").and_then(Value::as_str).unwrap_or("").to_owned();
    let path = pointer(operation.get("path"), "path")?;
    // What is not given is null.
    let value = |operation: &mut Map| operation.remove("value").unwrap_or_default();
    Ok(match name.as_str() {
        "add" => Operation::Add(path, value(&mut operation)),
        "remove" => Operation::Remove(path),
        "replace" => Operation::Replace(path, value(&mut operation)),
        "test" => Operation::Test(path, value(&mut operation)),
        "move" => Operation::Move { from: pointer(operation.get("from"), "from")?, to: path },
        "copy" => Operation::Copy { from: pointer(operation.get("from"), "from")?, to: path },
        other => return Err(PatchError::Rejected(format!("Unexpected kind: {other}"))),
    })
}

fn pointer(value: Option<&Value>, member: &str) -> Result<Pointer, PatchError> {
    // Upstream looks for these only when it comes to the operation, and then knows no better than that it does not fit.
    let text = value
        .and_then(Value::as_str)
        .ok_or_else(|| PatchError::Rejected(format!("an operation of a JSON patch needs the member {member:?}")))?;
    if text.is_empty() {
        return Ok(Pointer { text: String::new(), tokens: Vec::new() });
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err(PatchError::Rejected(format!("the JSON pointer {text:?} must start with a slash")));
    };
    let tokens = rest.split('/').map(|t| t.replace("~1", "/").replace("~0", "~")).collect();
    Ok(Pointer { text: text.to_owned(), tokens })
}

fn missing(operation: &str, pointer: &Pointer) -> PatchError {
    PatchError::Rejected(format!(
        "{operation} operation does not apply: doc is missing path: {:?}: missing value",
        pointer.text
    ))
}

fn run(target: &mut Value, operation: Operation, copied: &mut usize) -> Result<(), PatchError> {
    match operation {
        Operation::Add(at, value) => add(target, &at, value, "add"),
        Operation::Remove(at) => remove(target, &at, "remove").map(drop),
        Operation::Replace(at, value) => {
            check_depth(&at, &value)?;
            *find_mut(target, &at.tokens).ok_or_else(|| missing("replace", &at))? = value;
            Ok(())
        }
        Operation::Move { from, to } => {
            if to.tokens.len() > from.tokens.len() && to.tokens.starts_with(&from.tokens) {
                return Err(PatchError::Rejected(format!("cannot move {:?} into itself at {:?}", from.text, to.text)));
            }
            let value = remove(target, &from, "move")?;
            add(target, &to, value, "move")
        }
        Operation::Copy { from, to } => {
            let value = find(target, &from.tokens).ok_or_else(|| missing("copy", &from))?.clone();
            *copied += size(&value);
            if *copied > MAX_COPIED {
                return Err(PatchError::Rejected(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                )));
            }
            add(target, &to, value, "copy")
        }
        Operation::Test(at, value) => match find(target, &at.tokens) {
            Some(found) if *found == value => Ok(()),
            None if value.is_null() => Ok(()),
            _ => Err(PatchError::Rejected(format!("testing value {} failed", at.text))),
        },
    }
}

/// How long the JSON of a value is, about.
fn size(value: &Value) -> usize {
    match value {
        Value::List(list) => 2 + list.iter().map(|item| 1 + size(item)).sum::<usize>(),
        Value::Map(map) => 2 + map.iter().map(|(key, value)| key.len() + 4 + size(value)).sum::<usize>(),
        Value::Str(text) => text.len() + 2,
        Value::Raw(text) => text.len(),
        _ => 5,
    }
}

/// The index that a token names in a list of this length; negative ones count from the end, as upstream's library has it.
fn index(token: &str, len: usize) -> Option<usize> {
    let well_formed = token == "0" || !token.starts_with(['0', '+']);
    let n: i64 = token.parse().ok().filter(|_| well_formed)?;
    let n = if n < 0 { n + i64::try_from(len).ok()? } else { n };
    usize::try_from(n).ok()
}

fn find<'v>(value: &'v Value, tokens: &[String]) -> Option<&'v Value> {
    tokens.iter().try_fold(value, |value, token| match value {
        Value::Map(map) => map.get(token),
        Value::List(list) => list.get(index(token, list.len())?),
        _ => None,
    })
}

fn find_mut<'v>(value: &'v mut Value, tokens: &[String]) -> Option<&'v mut Value> {
    tokens.iter().try_fold(value, |value, token| match value {
        Value::Map(map) => map.get_mut(token),
        Value::List(list) => {
            let i = index(token, list.len())?;
            list.get_mut(i)
        }
        _ => None,
    })
}

/// How deep a value is nested; a scalar is not.
fn depth(value: &Value) -> usize {
    match value {
        Value::List(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Map(map) => 1 + map.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
        _ => 0,
    }
}

/// Refuses what would make the document deeper than one that is decoded can be: copies of what contains their place double it.
fn check_depth(at: &Pointer, value: &Value) -> Result<(), PatchError> {
    if at.tokens.len() + depth(value) > MAX_DEPTH {
        return Err(PatchError::Rejected(format!(
            "the value at {} characters of a path would make the object deeper than {MAX_DEPTH}",
            at.text.len()
        )));
    }
    Ok(())
}

fn add(target: &mut Value, at: &Pointer, value: Value, operation: &str) -> Result<(), PatchError> {
    check_depth(at, &value)?;
    let Some((last, parents)) = at.tokens.split_last() else {
        *target = value;
        return Ok(());
    };
    match find_mut(target, parents).ok_or_else(|| missing(operation, at))? {
        Value::Map(map) => {
            map.insert(last.clone(), value);
        }
        Value::List(list) => {
            let i = if last == "-" {
                list.len()
            } else {
                // For an insertion -1 is the end of the list.
                index(last, list.len() + usize::from(last.starts_with('-'))).filter(|i| *i <= list.len()).ok_or_else(
                    || {
                        PatchError::Rejected(format!(
                            "{operation} operation does not apply: doc is missing path: {:?}: index out of bounds",
                            at.text
                        ))
                    },
                )?
            };
            list.insert(i, value);
        }
        _ => return Err(missing(operation, at)),
    }
    Ok(())
}

fn remove(target: &mut Value, at: &Pointer, operation: &str) -> Result<Value, PatchError> {
    let (last, parents) = at.tokens.split_last().ok_or_else(|| missing(operation, at))?;
    let removed = match find_mut(target, parents).ok_or_else(|| missing(operation, at))? {
        Value::Map(map) => map.remove(last),
        Value::List(list) => index(last, list.len()).filter(|i| *i < list.len()).map(|i| list.remove(i)),
        _ => None,
    };
    removed.ok_or_else(|| {
        PatchError::Rejected(format!(
            "{operation} operation does not apply: Unable to remove nonexistent key: {last}: missing value"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::tests_support::value;

    fn patched(target: &str, patch: &str) -> Result<Value, PatchError> {
        let mut target = value(target);
        apply(&mut target, value(patch)).map(|()| target)
    }

    #[test]
    fn no_copy_makes_what_could_not_be_decoded() {
        let deep = format!("{}1{}", r#"{"x":"#.repeat(400), "}".repeat(400));
        // The whole into its own deepest place, once and once more.
        let copy = |key: &str| format!(r#"{{"op":"copy","from":"/x","path":"{}/{key}"}}"#, "/x".repeat(399));
        assert!(patched(&deep, &format!("[{}]", copy("y"))).is_ok());
        let refused = patched(&deep, &format!("[{},{}]", copy("y"), copy("z")));
        assert!(matches!(&refused, Err(PatchError::Rejected(why)) if why.contains("deeper than 1000")), "{refused:?}");
    }

    #[test]
    fn the_operations() {
        for (target, patch, result) in [
            (r#"{"foo":"bar"}"#, r#"[{"op":"add","path":"/baz","value":"qux"}]"#, r#"{"baz":"qux","foo":"bar"}"#),
            (
                r#"{"foo":["bar","baz"]}"#,
                r#"[{"op":"add","path":"/foo/1","value":"qux"}]"#,
                r#"{"foo":["bar","qux","baz"]}"#,
            ),
            (r#"{"a":1}"#, r#"[{"op":"add","path":"/b"}]"#, r#"{"a":1,"b":null}"#),
            (r#"{"foo":["bar"]}"#, r#"[{"op":"add","path":"/foo/-","value":["abc"]}]"#, r#"{"foo":["bar",["abc"]]}"#),
            (r#"{"foo":["bar","qux","baz"]}"#, r#"[{"op":"remove","path":"/foo/1"}]"#, r#"{"foo":["bar","baz"]}"#),
            (r#"{"a/b":{"m~n":1}}"#, r#"[{"op":"replace","path":"/a~1b/m~0n","value":2}]"#, r#"{"a/b":{"m~n":2}}"#),
            (r#"{"a":{"x":1},"b":{}}"#, r#"[{"op":"move","from":"/a/x","path":"/b/y"}]"#, r#"{"a":{},"b":{"y":1}}"#),
            (
                r#"{"a":[1,2]}"#,
                r#"[{"op":"copy","from":"/a","path":"/b"},{"op":"test","path":"/b/0","value":1}]"#,
                r#"{"a":[1,2],"b":[1,2]}"#,
            ),
        ] {
            assert_eq!(patched(target, patch), Ok(value(result)), "{patch}");
        }
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        for (target, patch) in [
            (r#"{"a":1}"#, r#"[{"op":"add","path":"/x","value":1},{"op":"test","path":"/a","value":2}]"#),
            (r#"{"a":1}"#, r#"[{"op":"remove","path":"/b"}]"#),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"/b","value":1}]"#),
            (r#"{"a":[]}"#, r#"[{"op":"add","path":"/a/1","value":1}]"#),
            (r#"{"a":[1]}"#, r#"[{"op":"remove","path":"/a/01"}]"#),
            (r#"{"a":{"b":1}}"#, r#"[{"op":"move","from":"/a","path":"/a/b"}]"#),
            // Only when it comes to an operation is it looked at.
            (r#"{"a":1}"#, r#"[{"op":"fly","path":"/a"}]"#),
            (r#"{"a":1}"#, r#"[{"path":"/a"}]"#),
            (r#"{"a":1}"#, r#"[{"op":"remove"}]"#),
            (r#"{"a":1}"#, r#"[{"op":"add","path":"a","value":1}]"#),
        ] {
            let mut object = value(target);
            let result = apply(&mut object, value(patch));
            assert!(matches!(result, Err(PatchError::Rejected(_))), "{patch}: {result:?}");
            assert_eq!(object, value(target));
        }
        for (patch, what) in [
            ("{}", "object into Go value of type []handlers.jsonPatchOp"),
            ("[1]", "number into Go value of type handlers.jsonPatchOp"),
            (r#"[{"op":1,"path":"/a"}]"#, "number into Go struct field jsonPatchOp.op of type string"),
            (r#"[{"op":"add","path":{},"value":1}]"#, "object into Go struct field jsonPatchOp.path of type string"),
        ] {
            let why = format!("error decoding patch: json: cannot unmarshal {what}");
            assert_eq!(patched("{}", patch), Err(PatchError::Malformed(why)), "{patch}");
        }
        assert_eq!(patched("{}", "null"), Ok(value("{}")), "no operation at all");
        assert!(matches!(patched("{}", "[null]"), Err(PatchError::Rejected(_))));
    }
}
