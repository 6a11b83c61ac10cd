//! What unit tests of several modules need.

use crate::admission::quota::QuotaWriter;
use crate::authz::{Attributes, Authorizer, Decision, Rules};
use crate::lookup::{Lookup, RESOURCE_QUOTAS, Stored};
use crate::registry::Registry;
use crate::user::UserInfo;
use api::{GroupResource, Status};
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
    fn get(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, Status> {
        let key = (kind.plural.to_owned(), namespace.to_owned(), name.to_owned());
        Ok(self.0.lock().expect("no panic").get(&key).cloned())
    }
    fn list(&self, kind: Stored, namespace: Option<&str>) -> Result<Vec<Arc<Map>>, Status> {
        let held = self.0.lock().expect("no panic");
        let wanted =
            |(plural, ns, _): &(String, String, String)| plural == kind.plural && namespace.is_none_or(|n| n == ns);
        Ok(held.iter().filter(|(key, _)| wanted(key)).map(|(_, object)| object.clone()).collect())
    }
    async fn consistent(&self) -> Result<(), Status> {
        Ok(())
    }
}

/// Allows everything.
pub(crate) struct MayAll;

#[async_trait]
impl Authorizer for MayAll {
    async fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }
    async fn rules_for(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

#[async_trait]
impl QuotaWriter for Held {
    async fn write_status(&self, quota: &Map) -> Result<(), Status> {
        let text = |key| quota.str_at(&["metadata", key]).to_owned();
        let (namespace, name, version) = (text("namespace"), text("name"), text("resourceVersion"));
        let mut held = self.0.lock().expect("no panic");
        let key = (RESOURCE_QUOTAS.plural.to_owned(), namespace, name.clone());
        let present = held.get(&key).map(|q| q.str_at(&["metadata", "resourceVersion"]).to_owned());
        if present.as_deref() != Some(&version) {
            return Err(Status::modified(&GroupResource::new("", "resourcequotas"), &name));
        }
        let mut written = quota.clone();
        let next = version.parse::<u64>().unwrap_or(0) + 1;
        written.set_at(&["metadata", "resourceVersion"], next.to_string());
        held.insert(key, Arc::new(written));
        Ok(())
    }
}

#[async_trait]
impl crate::admission::namespace::NamespaceMaker for Held {
    async fn make(&self, name: &str) -> Result<(), Status> {
        self.put(crate::lookup::NAMESPACES, map(&format!("{{metadata: {{name: {name}}}}}")));
        Ok(())
    }
}

/// A real store in a directory that goes with it, and the registry over it.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn store::Store>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) _directory: tempfile::TempDir,
}

pub(crate) async fn opened() -> Opened {
    let directory = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn store::Store> =
        store::embedded::Embedded::open(directory.path(), store::embedded::Options::default()).expect("a store");
    let registry = Registry::open(store.clone()).await.expect("a registry");
    Opened { store, registry, _directory: directory }
}
