//! What a scan of an object's stored text finds, noted by who writes the text; and its way to the task that feeds the cache.
//!
//! A change comes back from the store as the very bytes that were given to it, if the store is this process' own. They are known by
//! where they are in memory. Whatever comes otherwise (from disk, from etcd, decrypted) is scanned.

use super::entry::Entry;
use super::fields::{Node, Paths};
use super::hooks::{self, Mutant};
use super::scan::{FieldText, Scanned, Span};
use bytes::Bytes;
use schema::{Encoded, Map, Marks, Value};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Members that are shorter are quickly read.
const LONG: usize = 128;

/// Encodes an object, and notes what a scan would find; `None` where only a scan can tell. `from`: what the object was made from.
pub(super) fn encode(object: &Map, from: Option<&Entry>, paths: &Paths) -> (Encoded, Option<Scanned>) {
    let scanned = Scanned { fields: vec![FieldText::Absent; paths.slots()], ..Scanned::default() };
    let mut marked = Marked { paths, from, scanned, odd: false };
    let encoded = Encoded::marked(object, &mut marked);
    let Marked { mut scanned, odd, .. } = marked;
    (scanned.metadata, scanned.alone) = encoded.metadata();
    let fits = !odd && u32::try_from(encoded.bare().len()).is_ok();
    (encoded, fits.then_some(scanned))
}

struct Marked<'p> {
    paths: &'p Paths,
    from: Option<&'p Entry>,
    scanned: Scanned,
    /// A text has escapes, or is none.
    odd: bool,
}

#[derive(Clone, Copy)]
enum Place<'p> {
    Metadata,
    Uid,
    Deletion,
    Labels,
    Label,
    Path(&'p Node),
}

fn span(at: Range<usize>) -> Span {
    // Larger texts are left to the scan.
    Span { start: at.start as u32, end: at.end as u32 }
}

/// Where the content of a string stands that is written as it is.
fn plain(value: &Value, at: &Range<usize>) -> Option<Span> {
    let text = value.as_str()?;
    (at.len() == text.len() + 2).then(|| span(at.start + 1..at.end - 1))
}

impl<'p> Marks for Marked<'p> {
    type Place = Place<'p>;

    fn top(&mut self, key: &str) -> Option<Place<'p>> {
        if key == "metadata" { Some(Place::Metadata) } else { self.paths.child(key.as_bytes()).map(Place::Path) }
    }

    fn below(&mut self, place: Place<'p>, key: &str) -> Option<Place<'p>> {
        match (place, key) {
            (Place::Metadata, "uid") => Some(Place::Uid),
            (Place::Metadata, "deletionTimestamp") => Some(Place::Deletion),
            (Place::Metadata, "labels") => Some(Place::Labels),
            (Place::Labels, _) => Some(Place::Label),
            (Place::Path(node), _) => node.child(key.as_bytes()).map(Place::Path),
            _ => None,
        }
    }

    fn opens(&self, place: Place<'p>) -> bool {
        match place {
            Place::Labels => true,
            Place::Path(node) => !node.children.is_empty(),
            _ => false,
        }
    }

    fn mark(&mut self, place: Place<'p>, (key, name): (&str, Range<usize>), value: &Value, at: Range<usize>) {
        match place {
            Place::Uid => match plain(value, &at) {
                Some(uid) => self.scanned.uid = uid,
                None => self.odd = true,
            },
            Place::Deletion => self.scanned.deleting = value.as_str().is_some(),
            Place::Label => match plain(value, &at) {
                Some(value) if name.len() == key.len() => {
                    let short = u32::from(hooks::is(Mutant::MarksMisplaced) && value.end > value.start);
                    self.scanned.labels.push((span(name), Span { end: value.end - short, ..value }));
                }
                _ => self.odd = true,
            },
            Place::Path(node) => {
                let found = match (value, plain(value, &at)) {
                    (_, Some(span)) => FieldText::At(span),
                    (Value::Str(text), None) => FieldText::Owned(text.as_str().into()),
                    (Value::Null | Value::List(_) | Value::Map(_) | Value::Raw(_), _) => FieldText::Absent,
                    (Value::Bool(_) | Value::Int(_) | Value::Float(_), _) => FieldText::At(span(at)),
                };
                for slot in &node.slots {
                    self.scanned.fields[*slot] = found.clone();
                }
            }
            Place::Metadata | Place::Labels => {}
        }
    }

    fn copied(&mut self, place: Place<'p>, text: &[u8], at: usize) -> bool {
        let (Place::Path(node), Some(from)) = (place, self.from) else { return false };
        // The very text of the entry, of which all is known.
        let item = from.item().as_ptr_range();
        let old = text.as_ptr_range();
        if !(item.start <= old.start && old.end <= item.end) {
            return false;
        }
        let old = old.start.addr() - item.start.addr();
        node.below(&mut |slot| {
            self.scanned.fields[slot] = match from.text_of(slot) {
                FieldText::At(span) => {
                    let moved = |place: u32| place as usize - old + at;
                    FieldText::At(self::span(moved(span.start)..moved(span.end)))
                }
                other => other.clone(),
            };
        });
        true
    }

    fn member(&mut self, at: Range<usize>) {
        if at.len() >= LONG {
            self.scanned.members.push(span(at));
        }
    }
}

/// What is known of values that are on their way to the store, by where they are in memory.
#[derive(Debug, Default)]
pub(super) struct Underway(Mutex<BTreeMap<usize, Scanned>>);

impl Underway {
    fn held(&self) -> MutexGuard<'_, BTreeMap<usize, Scanned>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is known of a value, as long as the answer is held.
    pub(super) fn note(&self, value: Bytes, scanned: Scanned) -> Noted<'_> {
        self.held().insert(value.as_ptr().addr(), scanned);
        Noted { underway: self, value }
    }

    /// What is known of a value, for the one who builds its entry.
    pub(super) fn take(&self, value: &Bytes) -> Option<Scanned> {
        let mut held = self.held();
        let known = held.remove(&value.as_ptr().addr());
        if hooks::is(Mutant::MarksOfAnother) { held.pop_first().map(|(_, other)| other).or(known) } else { known }
    }
}

/// Keeps the value, so that its place in memory is no other's, and what is known of it.
#[derive(Debug)]
pub(crate) struct Noted<'u> {
    underway: &'u Underway,
    value: Bytes,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.underway.take(&self.value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Entry;
    use super::*;
    use proptest::prelude::*;

    fn paths() -> Paths {
        Paths::of(schema::resource::of_kind("", "v1", "Pod").expect("a kind"))
    }

    /// What is noted of an object's text is what a scan of it finds.
    fn is_found(json: &str) {
        let Ok(Value::Map(object)) = schema::json::parse(json.as_bytes()) else { panic!("{json}") };
        let paths = paths();
        let (encoded, noted) = encode(&object, None, &paths);
        let found = super::super::scan::scan(encoded.bare(), 1, &paths);
        match noted {
            Some(noted) => assert_eq!(format!("{noted:?}"), format!("{:?}", found.expect("a scan finds it")), "{json}"),
            None => assert!(json.contains('\\') || json.contains("uid"), "{json}"),
        }
    }

    #[test]
    fn it_is_what_a_scan_finds() {
        for json in [
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"name":"a","uid":"u","labels":{}},"spec":{},"status":{"phase":"Running"}}"#,
            r#"{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z","labels":{"b":"","a":"x"}},"spec":{"hostNetwork":true,"nodeName":"n"}}"#,
            r#"{"metadata":{"labels":{"a":"\n"}},"spec":{"nodeName":"a\"b","containers":[{"name":"}"}]},"status":{"phase":null}}"#,
            r#"{"kind":"Pod","spec":{"nodeName":{"a":1},"restartPolicy":7},"status":"x"}"#,
            r#"{"metadata":{"uid":7,"deletionTimestamp":null}}"#,
        ] {
            is_found(json);
        }
    }

    proptest! {
        #[test]
        fn it_is_what_a_scan_finds_of_any_text(
            labels in proptest::collection::btree_map("[a-c\"\\\\ü]{0,3}", "[a-c\"ü\n]{0,3}", 0..4),
            node in "[a-c\"\\\\]{0,4}",
            network in any::<bool>(),
        ) {
            let object = serde_json::json!({"metadata": {"name": "a", "labels": labels, "uid": "u"},
                "spec": {"nodeName": node, "hostNetwork": network, "volumes": [{"name": node}]}, "status": {}});
            is_found(&object.to_string());
        }
    }

    #[test]
    fn what_is_noted_is_known_by_its_place_and_while_it_is_held() {
        let underway = Underway::default();
        let paths = paths();
        let Ok(Value::Map(object)) = schema::json::parse(br#"{"metadata":{"name":"a"},"spec":{"nodeName":"n"}}"#)
        else {
            panic!("an object")
        };
        let (encoded, scanned) = encode(&object, None, &paths);
        let value = encoded.stored("v1", "Pod");
        let head = schema::encoded::head("v1", "Pod");
        let noted = underway.note(value.clone(), scanned.clone().expect("noted"));
        assert!(underway.take(&Bytes::copy_from_slice(&value)).is_none(), "another copy is another value");
        let known = underway.take(&value).expect("the value itself");
        let entry = Entry::from_known("a", 7, &value, &head, known);
        assert_eq!(entry.item(), encoded.item(7));
        assert_eq!(entry.field(&paths, paths.position("spec.nodeName").expect("a field")), "n");
        drop(noted);
        drop(underway.note(value.clone(), scanned.expect("noted")));
        assert!(underway.take(&value).is_none());
    }
}
