//! OpenAPI documents as protobuf: the messages of gnostic's `openapi.v2` and `openapi.v3`, which clients without JSON
//! support ask for.
//!
//! They are made from the JSON documents, so that the two say the same.

pub(super) mod v2;
pub(super) mod v3;

use crate::json;
use crate::tree::{Map, Value};

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.number(u64::from(field) << 3 | 2);
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u32, make: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        make(&mut inner);
        self.bytes(field, &inner.0);
    }

    fn text(&mut self, field: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u32, value: &Value) {
        for item in value.as_list().unwrap_or_default() {
            self.text(field, item);
        }
    }

    fn flag(&mut self, field: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            self.number(u64::from(field) << 3);
            self.number(1);
        }
    }

    fn whole(&mut self, field: u32, value: &Value) {
        if let Some(value) = value.as_i64() {
            self.number(u64::from(field) << 3);
            self.number(value.cast_unsigned());
        }
    }

    fn double(&mut self, field: u32, value: &Value) {
        if let Some(value) = value.as_f64() {
            self.number(u64::from(field) << 3 | 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// `Any`: YAML text, of which JSON is a part.
    fn any(&mut self, field: u32, value: &Value) {
        let mut text = Vec::new();
        json::encode_value(value, &mut text);
        text.push(b'\n');
        self.message(field, |any| any.bytes(2, &text));
    }

    /// A map as repeated messages of a name and a value.
    fn named(&mut self, field: u32, map: &Map, mut each: impl FnMut(&mut Message, u32, &Value)) {
        for (name, value) in map.iter() {
            self.message(field, |entry| {
                entry.bytes(1, name.as_bytes());
                each(entry, 2, value);
            });
        }
    }

    /// An extension, among the repeated ones of a field.
    fn extension(&mut self, field: u32, name: &str, value: &Value) {
        self.message(field, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.any(2, value);
        });
    }

    /// A message made of a map by its members.
    fn of(&mut self, field: u32, value: &Value, member: impl Fn(&mut Message, &str, &Value)) {
        if let Value::Map(map) = value {
            self.message(field, |inner| map.iter().for_each(|(key, value)| member(inner, key, value)));
        }
    }
}
