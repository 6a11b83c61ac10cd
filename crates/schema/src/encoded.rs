//! The bytes of an object with a place for its resourceVersion, so that it is encoded once, before its revision is known.
//!
//! An object is kept as an *item*: its JSON without `kind` and `apiVersion`, which lists leave out of their items and
//! which differ where a kind is served in two versions. What a client gets is a [`head`] and the item behind its first
//! byte; a list is a concatenation of items.

use crate::json;
use crate::tree::{Map, Value};
use bytes::Bytes;
use std::ops::Range;

/// An object, encoded but for its resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// Behind the opening brace of `metadata`.
    at: usize,
    /// `metadata` has nothing else.
    alone: bool,
}

/// Told where values come to stand in an object's JSON as it is written: what is known then need not be looked for in the text.
pub trait Marks {
    /// A place in the object at or below which something is wanted.
    type Place: Copy;

    /// A member of the object itself.
    fn top(&mut self, key: &str) -> Option<Self::Place>;
    /// A member of a map at a place.
    fn below(&mut self, place: Self::Place, key: &str) -> Option<Self::Place>;
    /// The value of a place of which nothing is wanted below; where it stands in the JSON without `kind` and `apiVersion`, and where
    /// its key does, without the quotes.
    fn mark(&mut self, place: Self::Place, key: (&str, Range<usize>), value: &Value, at: Range<usize>);
    /// Whether the members of a map at this place are asked for one by one.
    fn opens(&self, place: Self::Place) -> bool;
    /// A map at a place that opens comes as the text that it was read from, and begins at `at`. Whether what is wanted of it is known
    /// by that; otherwise it is told as any other.
    fn copied(&mut self, place: Self::Place, text: &[u8], at: usize) -> bool {
        let _ = (place, text, at);
        false
    }
    /// Where the value of a member of the object itself stands that is a map, and not `metadata`.
    fn member(&mut self, at: Range<usize>) {
        let _ = at;
    }
}

/// Nothing is wanted.
impl Marks for () {
    type Place = ();

    fn top(&mut self, _: &str) -> Option<()> {
        None
    }
    fn below(&mut self, (): (), _: &str) -> Option<()> {
        None
    }
    fn mark(&mut self, (): (), _: (&str, Range<usize>), _: &Value, _: Range<usize>) {}
    fn opens(&self, (): ()) -> bool {
        false
    }
}

/// Appends a member; where its value begins.
fn encode_member<M: Marks>(
    key: &str,
    value: &Value,
    place: Option<M::Place>,
    out: &mut Vec<u8>,
    marks: &mut M,
) -> usize {
    let name = out.len() + 1;
    json::encode_str(key, out);
    let name = name..out.len() - 1;
    out.push(b':');
    let start = out.len();
    match (value, place) {
        (_, None) => json::encode_value(value, out),
        (Value::Map(map), Some(place)) if marks.opens(place) => {
            if let Some(text) = map.text()
                && marks.copied(place, text, start)
            {
                out.extend_from_slice(text);
                return start;
            }
            out.push(b'{');
            for (n, (key, value)) in map.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                let below = marks.below(place, key);
                encode_member(key, value, below, out, marks);
            }
            out.push(b'}');
        }
        (_, Some(place)) => {
            json::encode_value(value, out);
            marks.mark(place, (key, name), value, start..out.len());
        }
    }
    start
}

impl Encoded {
    /// Encodes an object, but for `kind`, `apiVersion` and `metadata.resourceVersion`.
    pub fn new(object: &Map) -> Encoded {
        Encoded::marked(object, &mut ())
    }

    /// The same, telling where what is wanted stands in [`Encoded::bare`].
    pub fn marked<M: Marks>(object: &Map, marks: &mut M) -> Encoded {
        // Most objects fit; it is given back soon.
        let mut out = Vec::with_capacity(6 << 10);
        let (mut at, mut alone) = (None, true);
        out.push(b'{');
        for (key, value) in object.iter().filter(|(key, _)| !matches!(*key, "apiVersion" | "kind")) {
            if out.len() > 1 {
                out.push(b',');
            }
            let place = marks.top(key);
            let metadata = match value {
                Value::Map(metadata) if key == "metadata" => metadata,
                _ => {
                    let start = encode_member(key, value, place, &mut out, marks);
                    if value.as_map().is_some() {
                        marks.member(start..out.len());
                    }
                    continue;
                }
            };
            out.extend_from_slice(b"\"metadata\":{");
            at = Some(out.len());
            for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
                if !alone {
                    out.push(b',');
                }
                alone = false;
                let below = place.and_then(|place| marks.below(place, key));
                encode_member(key, value, below, &mut out, marks);
            }
            out.push(b'}');
        }
        let at = at.unwrap_or_else(|| {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(b"\"metadata\":{");
            let at = out.len();
            out.push(b'}');
            at
        });
        out.push(b'}');
        Encoded { bytes: out, at, alone }
    }

    /// Where in [`Encoded::bare`] the members of `metadata` begin, and whether there are none.
    pub fn metadata(&self) -> (usize, bool) {
        (self.at, self.alone)
    }

    /// The item, with its resourceVersion.
    pub fn item(&self, revision: u64) -> Bytes {
        // Exactly as long as needed: items are kept for long.
        let version = version(revision, self.alone);
        let mut out = Vec::with_capacity(self.bytes.len() + version.len());
        out.extend_from_slice(&self.bytes[..self.at]);
        out.extend_from_slice(&version);
        out.extend_from_slice(&self.bytes[self.at..]);
        debug_assert_eq!(out.len(), out.capacity());
        out.into()
    }

    /// Whether this is the item of a revision.
    pub fn is(&self, revision: u64, item: &[u8]) -> bool {
        let (before, after) = self.bytes.split_at(self.at);
        let rest = item.strip_prefix(before);
        let rest = rest.and_then(|rest| rest.strip_prefix(&version(revision, self.alone)[..]));
        rest == Some(after)
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

/// The member of `metadata` that tells the revision, and a comma where others follow.
pub fn version(revision: u64, alone: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(42);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    json::encode_int(i64::try_from(revision).unwrap_or(i64::MAX), &mut out);
    out.extend_from_slice(if alone { b"\"" } else { b"\"," });
    out
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
        assert!(pod.is(42, &item) && !pod.is(4, &item) && !pod.is(42, &item[..item.len() - 1]));
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
