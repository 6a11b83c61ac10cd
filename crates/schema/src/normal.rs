//! The normal form of objects: what Go's encoding of a decoded object keeps, drops and adds.
//!
//! A zero or empty value vanishes when its field has `omitempty` and is no pointer; what has neither is written even when
//! it was not given: `null` for lists and maps, `{}` for structs, the zero of scalars.

use crate::builder::Builder;
use crate::decode::{DecodeError, Decoded};
use crate::scalar::Scalar;
use crate::tree::{Map, Value};
use crate::types::{Field, Kind, TypeRef, flag};
use std::borrow::Cow;

/// Checks a tree (made by patching, say) against a type: unknown fields, types, normal form.
///
/// # Errors
/// [`DecodeError::Type`] when a value is not of its field's type, [`DecodeError::TooDeep`].
pub fn typed(ty: TypeRef<'_>, value: Value) -> Result<Decoded, DecodeError> {
    let mut builder = Builder::new(ty);
    feed(&mut builder, value)?;
    builder.finish()
}

/// Brings an object into its normal form after it was changed in place.
///
/// # Errors
/// As [`typed`]; the object is empty then.
pub fn normalise(ty: TypeRef<'_>, object: &mut Map) -> Result<(), DecodeError> {
    *object = typed(ty, Value::Map(std::mem::take(object)))?.object;
    Ok(())
}

/// The object of a type to which nothing was given, e.g. `{"metadata":{},"spec":{"containers":null},"status":{}}`.
pub fn zero(ty: TypeRef<'_>) -> Value {
    match ty.kind() {
        Kind::String => Value::Str("".into()),
        Kind::Bool | Kind::OrBool(_) => Value::Bool(false),
        Kind::Int32 | Kind::Int64 | Kind::IntOrString => Value::Int(0),
        Kind::Float => Value::Float(0.0),
        Kind::Quantity => Value::Str("0".into()),
        Kind::Duration => Value::Str("0s".into()),
        Kind::Fields => Value::Raw("{}".into()),
        Kind::Struct(s) => {
            Value::Map(Map::from_sorted(s.fields().filter_map(|field| Some((field.key(), absent(field)?))).collect()))
        }
        _ => Value::Null,
    }
}

/// Go counts these as structs: `omitempty` does nothing to them.
fn struct_like(kind: Kind<'_>) -> bool {
    !matches!(
        kind,
        Kind::String
            | Kind::Bool
            | Kind::Int32
            | Kind::Int64
            | Kind::Float
            | Kind::Bytes
            | Kind::List(_)
            | Kind::Map(_)
    )
}

/// What a field that wasn't given is written as, if at all.
pub(crate) fn absent(field: Field<'_>) -> Option<Value> {
    if field.pointer() {
        return (!field.omit_empty()).then_some(Value::Null);
    }
    let omit = if struct_like(field.ty().kind()) { flag::OMIT_ZERO } else { flag::OMIT_EMPTY | flag::OMIT_ZERO };
    (!field.has(omit)).then(|| zero(field.ty()))
}

/// Whether a value stays in its field, or is as if it wasn't given.
pub(crate) fn keep(field: Field<'_>, value: &Value) -> bool {
    if value.is_null() {
        return field.nullable();
    }
    if field.pointer() {
        return true;
    }
    let empty = || match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Int(i) => *i == 0,
        Value::Float(f) => *f == 0.0,
        Value::Str(s) => s.is_empty(),
        Value::List(l) => l.is_empty(),
        Value::Map(m) => m.is_empty(),
        Value::Raw(_) => false,
    };
    // Protobuf, which is what upstream keeps, can't tell an empty list or map from none: it comes back as `null`.
    if field.number() > 0
        && matches!(value, Value::List(_) | Value::Map(_))
        && matches!(field.ty().kind(), Kind::List(_) | Kind::Map(_))
        && empty()
    {
        return false;
    }
    let dropped = field.omit_empty() && empty() && !struct_like(field.ty().kind())
        || field.omit_zero() && (empty() || *value == zero(field.ty()));
    !dropped
}

/// What a `null` means as an element of a list or map.
pub(crate) fn null(ty: TypeRef<'_>) -> Value {
    zero(ty)
}

/// Replays a tree as events.
pub(crate) fn feed(builder: &mut Builder<'_>, value: Value) -> Result<(), DecodeError> {
    enum Open {
        Map(std::vec::IntoIter<(crate::tree::Key, Value)>),
        List(std::vec::IntoIter<Value>),
    }
    let mut open: Vec<Open> = Vec::new();
    let mut next = Some(value);
    loop {
        match next.take() {
            None => {}
            Some(Value::Map(map)) => {
                builder.begin_map()?;
                open.push(Open::Map(map.into_entries().into_iter()));
            }
            Some(Value::List(list)) => {
                builder.begin_list()?;
                open.push(Open::List(list.into_iter()));
            }
            Some(Value::Null) => builder.scalar(Scalar::Null)?,
            Some(Value::Bool(b)) => builder.scalar(Scalar::Bool(b))?,
            Some(Value::Int(i)) => builder.scalar(Scalar::Int(i))?,
            Some(Value::Float(f)) => builder.scalar(Scalar::Float(f))?,
            Some(Value::Str(s)) => builder.scalar(Scalar::Owned(s))?,
            Some(Value::Raw(text)) => builder.raw(text)?,
        }
        match open.last_mut() {
            None => return Ok(()),
            Some(Open::Map(entries)) => match entries.next() {
                Some((key, value)) => {
                    builder.key(Cow::Borrowed(&key));
                    next = Some(value);
                }
                None => {
                    builder.end();
                    open.pop();
                }
            },
            Some(Open::List(items)) => match items.next() {
                Some(value) => next = Some(value),
                None => {
                    builder.end();
                    open.pop();
                }
            },
        }
        if open.is_empty() && next.is_none() {
            return Ok(());
        }
    }
}
