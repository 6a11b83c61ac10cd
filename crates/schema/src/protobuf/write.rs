//! Encoding, from the last byte to the first, so that lengths are known when they are written (as Go's generated code does).

use super::MAX_NESTED;
use super::wire::varint_bytes;
use crate::decode::DecodeError;
use crate::json;
use crate::scalar::{Instant, base64_bytes};
use crate::tree::{Map, Value};
use crate::types::{Field, Kind, Struct, TypeRef, flag};

/// A buffer that grows at its front.
pub(super) struct Back {
    bytes: Vec<u8>,
    start: usize,
    depth: usize,
}

impl Back {
    pub(super) fn new() -> Back {
        Back { bytes: vec![0; 1024], start: 1024, depth: 0 }
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.drain(..self.start);
        self.bytes
    }

    fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > self.start {
            let used = self.len();
            let mut grown = vec![0; (self.bytes.len() * 2).max(used + bytes.len() + 1024)];
            let start = grown.len() - used;
            grown[start..].copy_from_slice(&self.bytes[self.start..]);
            self.bytes = grown;
            self.start = start;
        }
        let start = self.start - bytes.len();
        self.bytes[start..self.start].copy_from_slice(bytes);
        self.start = start;
    }

    fn varint(&mut self, value: u64) {
        let (bytes, len) = varint_bytes(value);
        self.put(&bytes[..len]);
    }

    fn tag(&mut self, number: u32, wire_type: u32) {
        self.varint(u64::from(number << 3 | wire_type));
    }

    fn int(&mut self, number: u32, value: i64) {
        self.varint(value as u64);
        self.tag(number, 0);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.put(bytes);
        self.varint(bytes.len() as u64);
        self.tag(number, 2);
    }

    /// A message field, whose content `write` puts.
    fn message(
        &mut self,
        number: u32,
        write: impl FnOnce(&mut Back) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let before = self.len();
        write(self)?;
        self.varint((self.len() - before) as u64);
        self.tag(number, 2);
        Ok(())
    }
}

/// The fields of a struct, without tag and length.
pub(super) fn structure(out: &mut Back, ty: Struct<'_>, map: &Map) -> Result<(), DecodeError> {
    if out.depth > MAX_NESTED {
        return Err(DecodeError::TooDeep);
    }
    out.depth += 1;
    group(out, ty, 0, map)?;
    out.depth -= 1;
    Ok(())
}

/// The fields of one of a struct's groups (0: the struct itself), the highest number first.
fn group(out: &mut Back, ty: Struct<'_>, group_number: u8, map: &Map) -> Result<(), DecodeError> {
    enum Part<'s> {
        Field(Field<'s>),
        Group(u8, bool),
    }
    let mut parts: Vec<(u32, Part<'_>)> = ty
        .fields()
        .filter(|field| field.group() == group_number && field.number() > 0)
        .map(|field| (field.number(), Part::Field(field)))
        .collect();
    for (at, inner) in ty.groups().iter().enumerate() {
        if inner.parent == group_number {
            parts.push((u32::from(inner.number), Part::Group(at as u8 + 1, inner.pointer)));
        }
    }
    parts.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
    for (number, part) in parts {
        match part {
            Part::Field(field) => whole_field(out, field, map.get(field.name()))?,
            Part::Group(at, pointer) => {
                if pointer && !ty.fields().any(|field| field.group() == at && map.contains_key(field.name())) {
                    continue;
                }
                out.message(number, |out| group(out, ty, at, map))?;
            }
        }
    }
    Ok(())
}

fn whole_field(out: &mut Back, field: Field<'_>, value: Option<&Value>) -> Result<(), DecodeError> {
    let value = value.filter(|value| !value.is_null());
    let number = field.number();
    let result = match (field.ty().kind(), value) {
        (_, None) if field.pointer() => Ok(()),
        (Kind::List(of), Some(Value::List(items))) if field.has(flag::WRAPPED) => {
            out.message(number, |out| elements(out, 1, of, items))
        }
        (Kind::List(of), Some(Value::List(items))) => elements(out, number, of, items),
        (Kind::Map(of), Some(Value::Map(entries))) => entries.iter().rev().try_for_each(|(key, value)| {
            out.message(number, |out| {
                match of.kind() {
                    Kind::List(of) => {
                        let items = value.as_list().unwrap_or(&[]);
                        out.message(2, |out| elements(out, 1, of, items))?;
                    }
                    _ => single(out, 2, of, Some(value))?,
                }
                out.bytes(1, key.as_bytes());
                Ok(())
            })
        }),
        (Kind::List(_) | Kind::Map(_) | Kind::Bytes, None) => Ok(()),
        (_, value) => single(out, number, field.ty(), value),
    };
    result.map_err(|error| within(field.name(), error))
}

/// The elements of a list, each a field; the last first.
fn elements(out: &mut Back, number: u32, of: TypeRef<'_>, items: &[Value]) -> Result<(), DecodeError> {
    items.iter().rev().try_for_each(|item| single(out, number, of, Some(item)))
}

/// Puts the name of a field before an error's path.
fn within(name: &str, error: DecodeError) -> DecodeError {
    match error {
        DecodeError::Type { path, message } => {
            let path = if path.is_empty() { name.to_owned() } else { format!("{name}.{path}") };
            DecodeError::Type { path, message }
        }
        other => other,
    }
}

/// One field that is neither list nor map; a value that isn't there is the zero value.
fn single(out: &mut Back, number: u32, ty: TypeRef<'_>, value: Option<&Value>) -> Result<(), DecodeError> {
    let wrong = || DecodeError::Type { path: String::new(), message: format!("is not of type {ty:?}") };
    let value = value.filter(|value| !value.is_null());
    let text = || match value {
        None => Ok(""),
        Some(value) => value.as_str().ok_or_else(wrong),
    };
    match ty.kind() {
        Kind::String => out.bytes(number, text()?.as_bytes()),
        Kind::Bool => out.int(number, value.map_or(Some(false), Value::as_bool).ok_or_else(wrong)?.into()),
        Kind::Int32 | Kind::Int64 => out.int(number, value.map_or(Some(0), Value::as_i64).ok_or_else(wrong)?),
        Kind::Float => {
            let value = value.map_or(Some(0.0), Value::as_f64).ok_or_else(wrong)?;
            out.put(&value.to_le_bytes());
            out.tag(number, 1);
        }
        Kind::Bytes => {
            if value.is_some() {
                out.bytes(number, &base64_bytes(text()?));
            }
        }
        Kind::Quantity => {
            let text = match text()? {
                "" => "0",
                text => text,
            };
            out.message(number, |out| {
                out.bytes(1, text.as_bytes());
                Ok(())
            })?;
        }
        Kind::IntOrString => {
            let (kind, int, text) = match value {
                None => (0, 0, ""),
                Some(Value::Int(i)) => (0, *i, ""),
                Some(Value::Str(s)) => (1, 0, s.as_str()),
                Some(_) => return Err(wrong()),
            };
            out.message(number, |out| {
                out.bytes(3, text.as_bytes());
                out.int(2, int);
                out.int(1, kind);
                Ok(())
            })?;
        }
        Kind::Time | Kind::MicroTime => {
            let instant = match text()? {
                "" => None,
                text => Some(Instant::parse(text, false).ok_or_else(wrong)?),
            };
            let micro = matches!(ty.kind(), Kind::MicroTime);
            out.message(number, |out| {
                // Go's zero time is an empty message.
                if let Some(instant) = instant.filter(|instant| !instant.is_zero()) {
                    out.int(2, if micro { i64::from(instant.nanos / 1000 * 1000) } else { 0 });
                    out.int(1, instant.seconds);
                }
                Ok(())
            })?;
        }
        Kind::Duration => {
            let nanos = match text()? {
                "" => 0,
                text => api::duration::parse(text).map_err(|_| wrong())?,
            };
            out.message(number, |out| {
                out.int(1, nanos);
                Ok(())
            })?;
        }
        Kind::Raw | Kind::Json | Kind::Fields => {
            let mut raw = Vec::new();
            if let Some(value) = value {
                json::encode_value(value, &mut raw);
            }
            out.message(number, |out| {
                if value.is_some() {
                    out.bytes(1, &raw);
                }
                Ok(())
            })?;
        }
        Kind::Struct(s) => {
            const EMPTY: &Map = &Map::new();
            let map = value.map_or(Some(EMPTY), Value::as_map).ok_or_else(wrong)?;
            out.message(number, |out| structure(out, s, map))?;
        }
        Kind::OrBool(of) => out.message(number, |out| match value {
            None => {
                out.int(1, 0);
                Ok(())
            }
            Some(Value::Bool(allows)) => {
                out.int(1, i64::from(*allows));
                Ok(())
            }
            Some(_) => {
                single(out, 2, of, value)?;
                out.int(1, 1);
                Ok(())
            }
        })?,
        Kind::OrList(of) => out.message(number, |out| match value {
            None => Ok(()),
            Some(Value::List(items)) => elements(out, 2, of, items),
            Some(_) => single(out, 1, of, value),
        })?,
        Kind::OrStrings(of) => out.message(number, |out| match value {
            None => Ok(()),
            Some(Value::List(items)) => elements(out, 2, ty.string(), items),
            Some(_) => single(out, 1, of, value),
        })?,
        Kind::List(_) | Kind::Map(_) => return Err(wrong()),
    }
    Ok(())
}
