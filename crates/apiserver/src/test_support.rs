//! What unit tests of several modules need.

use crate::lookup::{Lookup, Stored};
use api::Status;
use async_trait::async_trait;
use schema::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// A value written in YAML's flow style: `{a: b, c: [d, 1]}`.
pub(crate) fn tree(text: &str) -> Value {
    schema::yaml::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// An object written so.
pub(crate) fn map(text: &str) -> Map {
    match tree(text) {
        Value::Map(map) => map,
        other => panic!("{text}: not an object but {other:?}"),
    }
}

/// Objects held in a map, instead of in a store.
#[derive(Default)]
pub(crate) struct Held(Mutex<BTreeMap<(String, String, String), Arc<Map>>>);

impl Held {
    pub(crate) fn put(&self, kind: Stored, object: Map) {
        let text = |key| object.str_at(&["metadata", key]).to_owned();
        let key = (kind.plural.to_owned(), text("namespace"), text("name"));
        self.0.lock().expect("no panic").insert(key, Arc::new(object));
    }
    pub(crate) fn remove(&self, kind: Stored, namespace: &str, name: &str) {
        self.0.lock().expect("no panic").remove(&(kind.plural.to_owned(), namespace.to_owned(), name.to_owned()));
    }
}

#[async_trait]
impl Lookup for Held {
    fn get(&self, kind: Stored, namespace: &str, name: &str) -> Option<Arc<Map>> {
        self.0.lock().expect("no panic").get(&(kind.plural.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }
    fn list(&self, kind: Stored, namespace: Option<&str>) -> Vec<Arc<Map>> {
        let held = self.0.lock().expect("no panic");
        let wanted = |(plural, ns, _): &(String, String, String)| plural == kind.plural && namespace.is_none_or(|n| n == ns);
        held.iter().filter(|(key, _)| wanted(key)).map(|(_, object)| object.clone()).collect()
    }
    async fn fresh(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, Status> {
        Ok(self.get(kind, namespace, name))
    }
}
