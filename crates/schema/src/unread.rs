//! Maps that stay text until somebody reads them: what a write leaves as it is need not be decoded, compared and encoded again.

use crate::json;
use crate::tree::Entries;
use crate::types::Schema;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Who keeps the text of an object.
pub type Text = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A map that is still text, as [`json::encode`] writes one of its type in normal form. It has members.
pub(crate) struct Unread {
    text: Text,
    at: Range<usize>,
    schema: Schema,
    entries: OnceLock<Arc<Entries>>,
}

impl Unread {
    /// `text[at]` is the map, of the type `schema`.
    pub(crate) fn new(text: Text, at: Range<usize>, schema: Schema) -> Self {
        debug_assert!(at.len() > 2, "an empty map needs no text");
        Unread { text, at, schema, entries: OnceLock::new() }
    }

    /// Its JSON.
    pub(crate) fn text(&self) -> &[u8] {
        &(*self.text).as_ref()[self.at.clone()]
    }

    /// What it is as a tree; read the first time that this is asked.
    pub(crate) fn entries(&self) -> &Arc<Entries> {
        self.entries.get_or_init(|| {
            // Whoever leaves a text unread knows that it was written of a tree of this type.
            let read = json::decode(self.schema.root(), self.text()).expect("what was encoded can be decoded");
            Arc::new(read.object.into_entries())
        })
    }

    /// The same, if somebody has asked.
    pub(crate) fn known(&self) -> Option<&Arc<Entries>> {
        self.entries.get()
    }
}

#[cfg(test)]
mod tests {
    use crate::tree::{Map, Value};
    use crate::{Encoded, Marks, Schema, json, types};
    use std::ops::Range;
    use std::sync::Arc;

    /// Notes the members of the object, and whether the text of one was taken over.
    #[derive(Default)]
    struct Members {
        at: Vec<Range<usize>>,
        copied: Vec<Range<usize>>,
    }

    impl Marks for Members {
        type Place = ();

        fn top(&mut self, key: &str) -> Option<()> {
            (key == "spec").then_some(())
        }
        fn below(&mut self, (): (), _: &str) -> Option<()> {
            Some(())
        }
        fn mark(&mut self, (): (), _: (&str, Range<usize>), _: &Value, _: Range<usize>) {}
        fn opens(&self, (): ()) -> bool {
            true
        }
        fn member(&mut self, at: Range<usize>) {
            self.at.push(at);
        }
        fn copied(&mut self, (): (), text: &[u8], at: usize) -> bool {
            self.copied.push(at..at + text.len());
            true
        }
    }

    const POD: &str = r#"{"metadata":{"name":"a","labels":{"x":"y"}},
        "spec":{"nodeName":"n\"é","containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1"}}}]},
        "status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;

    fn schema() -> Schema {
        types::of_kind("", "v1", "Pod").expect("a kind").into()
    }

    fn whole() -> Map {
        json::decode(schema().root(), POD.as_bytes()).expect("a pod").object
    }

    /// The pod with its members left as text, and that text.
    fn left() -> (Map, Vec<u8>) {
        let mut members = Members::default();
        let bytes = Encoded::marked(&whole(), &mut members).bare().to_vec();
        assert_eq!(members.at.len(), 2, "{:?}", members.at);
        let object = json::decode_leaving(&schema(), Arc::new(bytes.clone()), &members.at).expect("a pod");
        (object, bytes)
    }

    fn is_text(object: &Map, key: &str) -> bool {
        object.get(key).and_then(Value::as_map).expect("a map").text().is_some()
    }

    fn is_unread(object: &Map, key: &str) -> bool {
        object.get(key).and_then(Value::as_map).expect("a map").is_unread()
    }

    #[test]
    fn it_is_the_same_object_read_or_unread() {
        let (object, bytes) = left();
        assert!(is_unread(&object, "spec") && is_unread(&object, "status") && !is_text(&object, "metadata"));
        assert_eq!(Encoded::new(&object).bare(), bytes);
        assert!(is_unread(&object, "spec"), "text is written as it is");
        assert_eq!(object, whole(), "compared with a tree, it is read");
        assert!(!is_unread(&object, "spec") && is_text(&object, "spec"));
        assert_eq!(Encoded::new(&object).bare(), bytes);
        assert_eq!(object.str_at(&["spec", "nodeName"]), "n\"é");
        assert_eq!(format!("{object:?}"), format!("{:?}", left().0));
    }

    #[test]
    fn copies_are_known_to_be_the_same_unread() {
        let ((object, _), (other, _)) = (left(), left());
        let copy = object.clone();
        assert_eq!(copy, object);
        assert_eq!(other, object, "the texts are the same");
        assert!(is_unread(&object, "spec") && is_unread(&other, "spec"));
        let spec = |object: &Map| object.get("spec").and_then(Value::as_map).cloned().expect("a map");
        assert!(spec(&copy).is(&spec(&object)));
        assert!(!spec(&object).is_empty() && is_unread(&object, "spec"));
    }

    #[test]
    fn what_is_changed_is_no_text_any_more() {
        let (mut object, _) = left();
        let before = object.clone();
        object.set_at(&["spec", "nodeName"], "m");
        assert!(!is_text(&object, "spec") && is_text(&object, "status"));
        assert_eq!(before.str_at(&["spec", "nodeName"]), "n\"é");
        assert_eq!(object.str_at(&["spec", "nodeName"]), "m");
        assert_ne!(object, before);
        let Some(Value::Map(status)) = object.remove("status") else { panic!("a map") };
        assert_eq!(Some(&Value::Map(status.into_iter().collect())), whole().get("status"));
    }

    #[test]
    fn marks_are_told_of_texts_that_are_taken_over() {
        let (object, bytes) = left();
        let mut members = Members::default();
        Encoded::marked(&object, &mut members);
        let [spec] = &members.copied[..] else { panic!("{:?}", members.copied) };
        assert!(bytes[spec.clone()].starts_with(br#"{"containers""#));
        assert_eq!(members.at.len(), 2);
    }

    #[test]
    fn places_that_are_no_maps_are_read() {
        let bytes = Arc::new(br#"{"metadata":{"name":"a"},"spec":{"nodeName":"n"}}"#.to_vec());
        let object = json::decode_leaving(&schema(), bytes, &[0..1, 24..25, 40..41]).expect("a pod");
        assert_eq!(object.str_at(&["spec", "nodeName"]), "n");
    }
}
