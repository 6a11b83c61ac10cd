//! Untyped trees as upstream's converter makes objects of them: it goes from a tree to an object without text between, so that
//! it takes other values than decoding does, and words what it does not take in its own way.

use crate::scalar::{self, Scalar, Unfit};
use crate::tree::{Map, Value};
use crate::types::{Kind, TypeRef};
use compact_str::CompactString;

/// Makes of the values of a tree what the converter makes of them, where that is not what decoding would: whole floats are
/// integers, and integers that are too large for their field lose what does not fit. Unknown fields stay.
///
/// # Errors
/// Why the tree can't be converted, in upstream's words, which do not say where.
pub fn restore(ty: TypeRef<'_>, value: &mut Value) -> Result<(), String> {
    if value.is_null() {
        return Ok(());
    }
    match (ty.kind(), &mut *value) {
        (Kind::Struct(s), Value::Map(map)) => each(map, |key| s.field(key).map(|field| field.ty())),
        (Kind::Map(of), Value::Map(map)) => each(map, |_| Some(of)),
        (Kind::List(of), Value::List(items)) => items.iter_mut().try_for_each(|item| restore(of, item)),
        (Kind::Struct(_), other) => Err(format!("cannot restore struct from: {}", go_kind(other))),
        (Kind::Map(_), other) => Err(format!("cannot restore map from {}", go_kind(other))),
        (Kind::Bytes, Value::Str(text)) => {
            unmarshalled(ty, text).map_err(|why| format!("error decoding from json: {why}"))
        }
        (Kind::List(_) | Kind::Bytes, other) => Err(format!("cannot restore slice from {}", go_kind(other))),
        (Kind::String | Kind::Bool | Kind::Int32 | Kind::Int64 | Kind::Float, _) => plain(ty, value),
        // These have decoders of their own, to which the converter gives the value as JSON.
        (Kind::Quantity | Kind::Time | Kind::MicroTime | Kind::Duration, Value::Str(text)) => unmarshalled(ty, text),
        (Kind::Quantity, Value::Int(_) | Value::Float(_)) => Ok(()),
        (Kind::Quantity, _) => unmarshalled(ty, &CompactString::const_new("{}")),
        (Kind::Time | Kind::MicroTime | Kind::Duration, other) => {
            Err(format!("json: cannot unmarshal {} into Go value of type string", json_kind(other)))
        }
        (Kind::IntOrString, Value::Float(number)) => {
            Err(format!("json: cannot unmarshal number {} into Go value of type int32", scalar::float(*number)))
        }
        (Kind::IntOrString, other @ (Value::Bool(_) | Value::List(_) | Value::Map(_) | Value::Raw(_))) => {
            Err(format!("json: cannot unmarshal {} into Go value of type int32", json_kind(other)))
        }
        _ => Ok(()),
    }
}

fn each<'s>(map: &mut Map, ty: impl Fn(&str) -> Option<TypeRef<'s>>) -> Result<(), String> {
    map.iter_mut().try_for_each(|(key, value)| ty(key).map_or(Ok(()), |ty| restore(ty, value)))
}

fn unmarshalled(ty: TypeRef<'_>, text: &CompactString) -> Result<(), String> {
    match scalar::convert(ty, Scalar::Str(text)) {
        Ok(_) => Ok(()),
        Err(Unfit::Value(why) | Unfit::Type(why)) => Err(why),
    }
}

/// A field of one of Go's plain types: numbers become one another as far as JSON would have it.
fn plain(ty: TypeRef<'_>, value: &mut Value) -> Result<(), String> {
    match (ty.kind(), &*value) {
        (Kind::String, Value::Str(_)) | (Kind::Bool, Value::Bool(_)) => {}
        (Kind::Int64, Value::Int(_)) | (Kind::Float, Value::Float(_) | Value::Int(_)) => {}
        #[expect(clippy::cast_possible_truncation, reason = "Go's conversion drops the upper half, too")]
        (Kind::Int32, Value::Int(number)) => *value = Value::Int(i64::from(*number as i32)),
        #[expect(clippy::cast_possible_truncation, reason = "it is whole")]
        (Kind::Int32, Value::Float(number)) if number.trunc() == *number => {
            *value = Value::Int(i64::from(go_int(*number) as i32));
        }
        (Kind::Int64, Value::Float(number)) if number.trunc() == *number => *value = Value::Int(go_int(*number)),
        // Go could convert these, though not to what JSON means.
        (Kind::String, Value::Int(_)) | (Kind::Int32 | Kind::Int64, Value::Float(_)) => {
            return Err(format!("cannot convert {} to {}", go_kind(value), ty.go_name()));
        }
        _ => return Err(format!("unrecognized type: {}", ty.go_name())),
    }
    Ok(())
}

/// Go's conversion of a whole number; of what is out of range it makes the smallest (on amd64).
fn go_int(number: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
    if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&number) { number as i64 } else { i64::MIN }
}

/// What Go's `reflect` calls a value of a tree.
fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Float(_) => "float64",
        Value::Str(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) | Value::Raw(_) => "map",
    }
}

/// What Go's JSON decoder calls it.
fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Int(_) | Value::Float(_) => "number",
        Value::Str(_) => "string",
        Value::List(_) => "array",
        Value::Map(_) | Value::Raw(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use crate::patch::tests_support::value;

    #[test]
    fn trees_are_converted_as_upstream_converts_them() {
        let pod = |spec: &str| format!(r#"{{"spec":{{{spec}}}}}"#);
        for (object, wanted) in [
            (pod(r#""priority":1.0"#), Ok(pod(r#""priority":1"#))),
            (pod(r#""priority":4294967297,"unknown":{}"#), Ok(pod(r#""priority":1,"unknown":{}"#))),
            (pod(r#""priority":1.5"#), Err("cannot convert float64 to int32")),
            (pod(r#""priority":"1""#), Err("unrecognized type: int32")),
            (pod(r#""hostNetwork":"x""#), Err("unrecognized type: bool")),
            (pod(r#""nodeName":1"#), Err("cannot convert int64 to string")),
            (pod(r#""nodeName":true"#), Err("unrecognized type: string")),
            (pod(r#""containers":"x""#), Err("cannot restore slice from string")),
            (pod(r#""containers":[1]"#), Err("cannot restore struct from: int64")),
            (pod(r#""nodeSelector":[]"#), Err("cannot restore map from slice")),
            (
                pod(r#""overhead":{"cpu":"x"}"#),
                Err(r"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
            ),
            (
                r#"{"metadata":{"creationTimestamp":1}}"#.to_owned(),
                Err("json: cannot unmarshal number into Go value of type string"),
            ),
        ] {
            let ty = crate::types::of_kind("", "v1", "Pod").expect("pods are known");
            let mut tree = value(&object);
            let result = super::restore(ty, &mut tree).map(|()| tree);
            assert_eq!(result, wanted.map(|json| value(&json)).map_err(str::to_owned), "{object}");
        }
    }
}
