//! Decoding: a message of a known type to a tree, which is normalised afterwards.

use super::wire::{Field as Wire, Fields, varint};
use super::{Envelope, MAGIC, MAX_NESTED, text_of};
use crate::builder::sort;
use crate::decode::DecodeError;
use crate::json;
use crate::scalar::{Instant, base64_text, duration_text};
use crate::tree::{Key, Map, Value};
use crate::types::{self, Field, Kind, Struct, TypeRef, flag};

/// The object of a message.
pub(super) fn message(ty: TypeRef<'_>, bytes: &[u8], depth: usize) -> Result<Map, DecodeError> {
    match ty.as_struct() {
        Some(s) => structure(s, bytes, depth),
        None => Err(DecodeError::syntax(format!("{ty:?} is no message"), 0)),
    }
}

fn structure(ty: Struct<'_>, bytes: &[u8], depth: usize) -> Result<Map, DecodeError> {
    if depth > MAX_NESTED {
        return Err(DecodeError::TooDeep);
    }
    // By position: fields are sorted by name, and so is the map.
    let mut slots: Vec<Slot> = ty.fields().map(|_| Slot::Empty).collect();
    group(ty, 0, bytes, &mut slots, depth)?;
    let entries: Vec<(Key, Value)> =
        ty.fields().zip(slots).filter_map(|(field, slot)| Some((field.key(), slot.value()?))).collect();
    Ok(Map::from_sorted(entries))
}

/// What a field has so far.
enum Slot {
    Empty,
    One(Value),
    List(Vec<Value>),
    /// In the order of the wire.
    Map(Vec<(Key, Value)>),
}

impl Slot {
    fn value(self) -> Option<Value> {
        match self {
            Slot::Empty => None,
            Slot::One(value) => Some(value),
            Slot::List(items) => Some(Value::List(items)),
            Slot::Map(mut entries) => {
                sort(&mut entries);
                Some(Value::Map(Map::from_sorted(entries)))
            }
        }
    }

    fn items(&mut self) -> &mut Vec<Value> {
        if !matches!(self, Slot::List(_)) {
            *self = Slot::List(Vec::new());
        }
        match self {
            Slot::List(items) => items,
            _ => unreachable!("it has just been made a list"),
        }
    }
}

/// Reads one of a struct's groups (0: the struct itself).
fn group(ty: Struct<'_>, group_number: u8, bytes: &[u8], slots: &mut [Slot], depth: usize) -> Result<(), DecodeError> {
    for field in Fields::new(bytes) {
        let (number, wire) = field?;
        let found = ty.fields().position(|field| field.number() == number && field.group() == group_number);
        if let Some(at) = found {
            let field = ty.field_at(at);
            one(field, wire, &mut slots[at], depth).map_err(|error| within(field.name(), error))?;
            continue;
        }
        let inner = ty.groups().iter().position(|g| u32::from(g.number) == number && g.parent == group_number);
        if let (Some(at), Wire::Bytes(bytes)) = (inner, wire) {
            group(ty, at as u8 + 1, bytes, slots, depth)?;
        }
    }
    Ok(())
}

fn within(name: &str, error: DecodeError) -> DecodeError {
    match error {
        DecodeError::Syntax { message, offset } => {
            DecodeError::Syntax { message: format!("{name}: {message}"), offset }
        }
        other => other,
    }
}

/// One occurrence of a field.
fn one(field: Field<'_>, wire: Wire<'_>, slot: &mut Slot, depth: usize) -> Result<(), DecodeError> {
    match field.ty().kind() {
        Kind::List(of) if field.has(flag::WRAPPED) => {
            let list = slot.items();
            for field in Fields::new(bytes(wire)?) {
                if let (1, wire) = field? {
                    element(of, wire, list, depth)?;
                }
            }
        }
        Kind::List(of) => element(of, wire, slot.items(), depth)?,
        Kind::Map(of) => {
            let (mut key, mut entry) = (String::new(), None);
            for field in Fields::new(bytes(wire)?) {
                match field? {
                    (1, Wire::Bytes(text)) => key = text_of(text),
                    (2, wire) => {
                        entry = Some(match of.kind() {
                            Kind::List(of) => {
                                let mut list = Vec::new();
                                for field in Fields::new(bytes(wire)?) {
                                    if let (1, wire) = field? {
                                        element(of, wire, &mut list, depth)?;
                                    }
                                }
                                Value::List(list)
                            }
                            _ => single(of, wire, depth)?,
                        });
                    }
                    _ => {}
                }
            }
            let entry = entry.unwrap_or_else(|| match of.kind() {
                Kind::Bytes => Value::Str("".into()),
                _ => crate::normal::zero(of),
            });
            match slot {
                Slot::Map(entries) => entries.push((key.into(), entry)),
                _ => *slot = Slot::Map(vec![(key.into(), entry)]),
            }
        }
        _ => *slot = Slot::One(single(field.ty(), wire, depth)?),
    }
    Ok(())
}

fn bytes(wire: Wire<'_>) -> Result<&[u8], DecodeError> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err(wrong()),
    }
}

fn wrong() -> DecodeError {
    DecodeError::syntax("proto: wrong wireType", 0)
}

/// One element of a list, or several when numbers are packed.
fn element(of: TypeRef<'_>, wire: Wire<'_>, list: &mut Vec<Value>, depth: usize) -> Result<(), DecodeError> {
    match (of.kind(), wire) {
        (Kind::Int32 | Kind::Int64 | Kind::Bool, Wire::Bytes(mut packed)) => {
            while !packed.is_empty() {
                let (value, len) =
                    varint(packed).map_err(|message| DecodeError::syntax(format!("proto: {message}"), 0))?;
                packed = &packed[len..];
                list.push(single(of, Wire::Varint(value), depth)?);
            }
        }
        _ => list.push(single(of, wire, depth)?),
    }
    Ok(())
}

fn single(ty: TypeRef<'_>, wire: Wire<'_>, depth: usize) -> Result<Value, DecodeError> {
    Ok(match (ty.kind(), wire) {
        (Kind::String, Wire::Bytes(text)) => Value::Str(String::from_utf8_lossy(text).into()),
        (Kind::Bool, Wire::Varint(v)) => Value::Bool(v != 0),
        (Kind::Int32, Wire::Varint(v)) => Value::Int(i64::from(v as i32)),
        (Kind::Int64, Wire::Varint(v)) => Value::Int(v as i64),
        (Kind::Float, Wire::Fixed64(v)) => Value::Float(f64::from_bits(v)),
        (Kind::Float, Wire::Fixed32(v)) => Value::Float(f64::from(f32::from_bits(v))),
        (Kind::Bytes, Wire::Bytes(b)) => Value::Str(base64_text(b)),
        (Kind::Struct(s), Wire::Bytes(b)) => Value::Map(structure(s, b, depth + 1)?),
        (kind, Wire::Bytes(b)) => special(ty, kind, b, depth)?,
        _ => return Err(wrong()),
    })
}

/// The messages of scalar kinds and unions.
fn special(ty: TypeRef<'_>, kind: Kind<'_>, message: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let (mut ints, mut texts) = ([0i64; 4], [None::<&[u8]>; 4]);
    let mut list = Vec::new();
    for field in Fields::new(message) {
        match (field?, kind) {
            ((2, wire), Kind::OrList(of)) => list.push(single(of, wire, depth)?),
            ((2, wire), Kind::OrStrings(_)) => list.push(single(ty.string(), wire, depth)?),
            ((number @ 1..4, Wire::Varint(v)), _) => ints[number as usize] = v as i64,
            ((number @ 1..4, Wire::Bytes(b)), _) => texts[number as usize] = Some(b),
            _ => {}
        }
    }
    let instant = || {
        let nanos = u32::try_from(ints[2]).ok().filter(|nanos| *nanos < 1_000_000_000);
        let instant = Instant { seconds: ints[1], nanos: nanos.unwrap_or(0) };
        instant.in_range().then_some(instant)
    };
    Ok(match kind {
        Kind::Quantity => match texts[1] {
            Some(text) => Value::Str(String::from_utf8_lossy(text).into()),
            None => Value::Str("0".into()),
        },
        Kind::IntOrString if ints[1] == 1 => Value::Str(text_of(texts[3].unwrap_or(b"")).into()),
        Kind::IntOrString => Value::Int(ints[2]),
        Kind::Time | Kind::MicroTime if message.is_empty() => Value::Null,
        Kind::Time | Kind::MicroTime => match instant() {
            Some(instant) => Value::Str(instant.text(matches!(kind, Kind::MicroTime))),
            None => return Err(DecodeError::syntax("proto: time out of range", 0)),
        },
        Kind::Duration => Value::Str(duration_text(ints[1])),
        Kind::Raw | Kind::Json | Kind::Fields => match texts[1] {
            None | Some([]) => Value::Null,
            Some(raw) if matches!(kind, Kind::Fields) => crate::fields::value(raw)?,
            Some(raw) if raw.starts_with(MAGIC) => embedded(raw, depth + 1)?,
            Some(raw) => json::parse(raw)?,
        },
        Kind::OrBool(of) => match texts[2] {
            Some(schema) => single(of, Wire::Bytes(schema), depth)?,
            None => Value::Bool(ints[1] != 0),
        },
        Kind::OrList(of) | Kind::OrStrings(of) => match texts[1] {
            Some(schema) => single(of, Wire::Bytes(schema), depth)?,
            None => Value::List(list),
        },
        _ => return Err(wrong()),
    })
}

/// An enveloped object inside another.
fn embedded(bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let envelope = Envelope::read(bytes)?;
    let (group, version) = envelope.api_version.split_once('/').unwrap_or(("", &envelope.api_version));
    let Some(ty) = types::of_kind(group, version, &envelope.kind) else {
        let message = format!("no kind {:?} is registered for version {:?}", envelope.kind, envelope.api_version);
        return Err(DecodeError::syntax(message, 0));
    };
    let mut object = message(ty, envelope.raw, depth)?;
    crate::normal::normalise(ty, &mut object, None)?;
    object.insert("apiVersion", envelope.api_version);
    object.insert("kind", envelope.kind);
    Ok(Value::Map(object))
}
