//! The normal form of objects: what Go's encoding of a decoded object keeps, drops and adds.
//!
//! A zero or empty value vanishes when its field has `omitempty` and is no pointer; what has neither is written even when
//! it was not given: `null` for lists and maps, `{}` for structs, the zero of scalars.

use crate::builder::Builder;
use crate::decode::{DecodeError, Decoded};
use crate::scalar::{self, Scalar};
use crate::tree::{Beside, Map, Value};
use crate::types::{Field, Kind, Struct, TypeRef, flag};
use std::borrow::Cow;

/// Checks a tree (made by patching, say) against a type: unknown fields, types, normal form.
///
/// # Errors
/// [`DecodeError::Type`] when a value is not of its field's type, [`DecodeError::TooDeep`].
pub fn typed(ty: TypeRef<'_>, value: Value) -> Result<Decoded, DecodeError> {
    changed(ty, value, None)
}

/// The same for a tree that was made from another of the type, which is in normal form: what they share is not looked at.
///
/// # Errors
/// As [`typed`].
pub fn changed(ty: TypeRef<'_>, mut value: Value, from: Option<&Map>) -> Result<Decoded, DecodeError> {
    if let Value::Map(object) = &mut value
        && mend_map(ty, object, from, MENDED)
    {
        return Ok(Decoded { object: std::mem::take(object), problems: Vec::new() });
    }
    let mut builder = Builder::new(ty);
    feed(&mut builder, value)?;
    builder.finish()
}

/// Brings an object into its normal form after it was changed in place. `from`: the object of normal form that it was made from,
/// if it was.
///
/// # Errors
/// As [`typed`]; the object is empty then.
pub fn normalise(ty: TypeRef<'_>, object: &mut Map, from: Option<&Map>) -> Result<(), DecodeError> {
    *object = changed(ty, Value::Map(std::mem::take(object)), from)?.object;
    Ok(())
}

/// How deep values are mended where they are; the mending recurses, so what is deeper is made anew.
const MENDED: usize = 64;

/// Brings a value of a type into normal form where it is, which costs a fraction of making it anew by a [`Builder`]. `false`: it
/// has problems (it is of another type, has unknown fields, is too deep), which the builder is to find. What is mended until then
/// makes no difference to it. `from`: a value of the type in normal form that this may share parts with.
fn mend(ty: TypeRef<'_>, value: &mut Value, from: Option<&Value>, depth: usize) -> bool {
    if depth == 0 {
        return false;
    }
    let element = |of: TypeRef<'_>, value: &mut Value, from: Option<&Value>| {
        if value.is_null() {
            *value = null(of);
            return true;
        }
        mend(of, value, from, depth - 1)
    };
    let from_map = from.and_then(Value::as_map);
    let from_list = || from.and_then(Value::as_list).unwrap_or_default();
    match (ty.kind(), &mut *value) {
        (_, Value::Map(map)) if from_map.is_some_and(|from| from.is(map)) => true,
        (Kind::Json | Kind::Raw, Value::Map(map)) => {
            let mut beside = Beside::new(from_map);
            map.iter_mut().all(|(key, value)| mend(ty.json(), value, beside.value(key), depth - 1))
        }
        (Kind::Json | Kind::Raw, Value::List(items)) => {
            paired(items, from_list()).all(|(item, from)| mend(ty.json(), item, from, depth - 1))
        }
        (Kind::Json | Kind::Raw, _)
        | (Kind::String | Kind::IntOrString, Value::Str(_))
        | (Kind::Bool | Kind::OrBool(_), Value::Bool(_))
        | (Kind::Int64, Value::Int(_))
        | (Kind::Float, Value::Float(_))
        | (Kind::Fields, Value::Raw(_)) => true,
        (Kind::Int32 | Kind::IntOrString, Value::Int(number)) => i32::try_from(*number).is_ok(),
        (Kind::Quantity | Kind::Time | Kind::MicroTime | Kind::Bytes | Kind::Duration, Value::Str(text)) => {
            if from.and_then(Value::as_str) == Some(text) {
                return true;
            }
            match scalar::convert(ty, Scalar::Str(text)) {
                Ok(canonical) => {
                    *value = canonical;
                    true
                }
                Err(_) => false,
            }
        }
        (Kind::List(of) | Kind::OrList(of), Value::List(items)) => {
            paired(items, from_list()).all(|(item, from)| element(of, item, from))
        }
        (Kind::OrStrings(_), Value::List(items)) => {
            paired(items, from_list()).all(|(item, from)| element(ty.string(), item, from))
        }
        (Kind::Map(of), Value::Map(map)) => {
            let mut beside = Beside::new(from_map);
            map.iter_mut().all(|(key, value)| element(of, value, beside.value(key)))
        }
        (_, Value::Map(map)) => mend_map(ty, map, from_map, depth),
        _ => false,
    }
}

/// The items of a list, each with that of the same place in another.
fn paired<'a>(items: &'a mut [Value], from: &'a [Value]) -> impl Iterator<Item = (&'a mut Value, Option<&'a Value>)> {
    items.iter_mut().enumerate().map(|(n, item)| (item, from.get(n)))
}

/// The same for an object.
fn mend_map(ty: TypeRef<'_>, map: &mut Map, from: Option<&Map>, depth: usize) -> bool {
    match ty.kind() {
        Kind::Struct(s) => mend_struct(s, ty.json(), map, from, depth),
        Kind::OrBool(of) | Kind::OrList(of) | Kind::OrStrings(of) => {
            of.as_struct().is_some_and(|s| mend_struct(s, ty.json(), map, from, depth))
        }
        _ => false,
    }
}

/// Fields and entries are both sorted by name: one walk over both. `json` is the type of undeclared fields.
fn mend_struct(s: Struct<'_>, json: TypeRef<'_>, map: &mut Map, from: Option<&Map>, depth: usize) -> bool {
    if from.is_some_and(|from| from.is(map)) {
        return true;
    }
    let mut fields = s.fields().peekable();
    let mut beside = Beside::new(from);
    let written_anyway = |field: Field<'_>| if s.always() { absent(field) } else { None };
    let mut added: Vec<(&'static str, Value)> = Vec::new();
    let mut dropped: Vec<&'static str> = Vec::new();
    for (key, value) in map.iter_mut() {
        while let Some(field) = fields.next_if(|field| field.comes_before(key)) {
            added.extend(written_anyway(field).map(|value| (field.name(), value)));
        }
        let from = beside.value(key);
        match fields.next_if(|field| field.is_named(key)) {
            Some(field) => {
                if !value.is_null() && !mend(field.ty(), value, from, depth - 1) {
                    return false;
                }
                if !keep(field, value) {
                    match written_anyway(field) {
                        Some(absent) => *value = absent,
                        None => dropped.push(field.name()),
                    }
                }
            }
            None if s.open() => {
                if !mend(json, value, from, depth - 1) {
                    return false;
                }
            }
            None => return false,
        }
    }
    for field in fields {
        added.extend(written_anyway(field).map(|value| (field.name(), value)));
    }
    for name in dropped {
        map.remove(name);
    }
    for (name, value) in added {
        map.insert(name, value);
    }
    true
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
