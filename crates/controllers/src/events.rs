//! Events: what the controllers tell people, as core/v1 Events.

pub use api::events::{Kind, Source};

use api::events::Reference;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use tokio_util::sync::CancellationToken;

/// Writes events about objects in the name of a component; never waits and never fails its caller.
#[derive(Clone, Debug)]
pub struct Recorder(client::events::Recorder);

/// The reference to an object as others carry it.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl Recorder {
    /// What it is told is sent as long as the runtime runs that this is called in, also when all its copies are gone.
    pub fn new(client: Client, component: &'static str) -> Self {
        Self::of(client, Source { component: component.to_owned(), host: String::new() })
    }

    /// The same, of whoever is on a node.
    pub fn of(client: Client, source: Source) -> Self {
        let (recorder, sending) = client::events::Recorder::new(client, source, CancellationToken::new());
        tokio::spawn(sending);
        Recorder(recorder)
    }

    /// Says something about an object.
    pub fn event<K: Resource<DynamicType = ()>>(&self, object: &K, kind: Kind, reason: &str, message: String) {
        let meta = object.meta();
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let about = Reference {
            kind: K::kind(&()).into_owned(),
            namespace: text(&meta.namespace),
            name: text(&meta.name),
            uid: text(&meta.uid),
            api_version: K::api_version(&()).into_owned(),
            resource_version: text(&meta.resource_version),
            field_path: String::new(),
        };
        self.0.tell(about, kind, reason, message);
    }
}
