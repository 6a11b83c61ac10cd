//! The bytes of an object with a place for its resourceVersion, so that it is encoded once, before its revision is known.
//!
//! An object is kept as an *item*: its JSON without `kind` and `apiVersion`, which lists leave out of their items and
//! which differ where a kind is served in two versions. What a client gets is a [`head`] and the item behind its first
//! byte; a list is a concatenation of items.

use crate::json;
use crate::tree::{Map, Value};
use bytes::Bytes;

/// An object, encoded but for its resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// Behind the opening brace of `metadata`.
    at: usize,
    /// `metadata` has nothing else.
    alone: bool,
}

impl Encoded {
    /// Encodes an object, but for `kind`, `apiVersion` and `metadata.resourceVersion`.
    pub fn new(object: &Map) -> Encoded {
        let mut out = Vec::with_capacity(2048);
        let (mut at, mut alone) = (None, true);
        out.push(b'{');
        let member = |key: &str, out: &mut Vec<u8>| {
            if out.len() > 1 {
                out.push(b',');
            }
            json::encode_str(key, out);
            out.push(b':');
        };
        for (key, value) in object.iter() {
            match (key, value) {
                ("apiVersion" | "kind", _) => {}
                ("metadata", Value::Map(metadata)) => {
                    member(key, &mut out);
                    out.push(b'{');
                    at = Some(out.len());
                    for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
                        if !alone {
                            out.push(b',');
                        }
                        alone = false;
                        json::encode_str(key, &mut out);
                        out.push(b':');
                        json::encode_value(value, &mut out);
                    }
                    out.push(b'}');
                }
                _ => {
                    member(key, &mut out);
                    json::encode_value(value, &mut out);
                }
            }
        }
        let at = at.unwrap_or_else(|| {
            member("metadata", &mut out);
            out.push(b'{');
            let at = out.len();
            out.push(b'}');
            at
        });
        out.push(b'}');
        Encoded { bytes: out, at, alone }
    }

    /// The item, with its resourceVersion.
    pub fn item(&self, revision: u64) -> Bytes {
        // Exactly as long as needed: items are kept for long.
        let digits = revision.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut out = Vec::with_capacity(self.bytes.len() + 20 + digits + usize::from(!self.alone));
        out.extend_from_slice(&self.bytes[..self.at]);
        out.extend_from_slice(b"\"resourceVersion\":\"");
        json::encode_int(i64::try_from(revision).unwrap_or(i64::MAX), &mut out);
        out.extend_from_slice(if self.alone { b"\"" } else { b"\"," });
        out.extend_from_slice(&self.bytes[self.at..]);
        debug_assert_eq!(out.len(), out.capacity());
        out.into()
    }

    /// What is stored: the object with its kind, as upstream stores it, without a resourceVersion.
    pub fn stored(&self, api_version: &str, kind: &str) -> Bytes {
        object(&head(api_version, kind), &self.bytes)
    }

    /// The item without its resourceVersion, for objects that have none (what virtual resources answer).
    pub fn bare(&self) -> &[u8] {
        &self.bytes
    }
}

/// What an object begins with: `{"kind":"Pod","apiVersion":"v1",`.
pub fn head(api_version: &str, kind: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(api_version.len() + kind.len() + 28);
    out.extend_from_slice(b"{\"kind\":");
    json::encode_str(kind, &mut out);
    out.extend_from_slice(b",\"apiVersion\":");
    json::encode_str(api_version, &mut out);
    out.push(b',');
    out
}

/// An object as a client gets it: a [`head`] and an item.
pub fn object(head: &[u8], item: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(head.len() + item.len());
    out.extend_from_slice(head);
    out.extend_from_slice(item.get(1..).unwrap_or_default());
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> Encoded {
        let value = json::parse(text.as_bytes()).expect("JSON");
        Encoded::new(value.as_map().expect("an object"))
    }

    #[test]
    fn the_revision_is_put_in_its_place() {
        let pod = encoded(
            r#"{"apiVersion":"v1","kind":"Pod","data":1,"metadata":{"name":"a","resourceVersion":"7"},"spec":{}}"#,
        );
        let item = pod.item(42);
        assert_eq!(item, r#"{"data":1,"metadata":{"resourceVersion":"42","name":"a"},"spec":{}}"#);
        assert_eq!(
            object(&head("v1", "Pod"), &item),
            r#"{"kind":"Pod","apiVersion":"v1","data":1,"metadata":{"resourceVersion":"42","name":"a"},"spec":{}}"#
        );
        assert_eq!(
            pod.stored("v1", "Pod"),
            r#"{"kind":"Pod","apiVersion":"v1","data":1,"metadata":{"name":"a"},"spec":{}}"#
        );
    }

    #[test]
    fn metadata_may_be_empty_or_missing() {
        assert_eq!(encoded(r#"{"metadata":{}}"#).item(1), r#"{"metadata":{"resourceVersion":"1"}}"#);
        assert_eq!(encoded(r#"{"kind":"X"}"#).item(1), r#"{"metadata":{"resourceVersion":"1"}}"#);
        assert_eq!(encoded(r#"{"kind":"X","a":2}"#).bare(), br#"{"a":2,"metadata":{}}"#);
    }
}
