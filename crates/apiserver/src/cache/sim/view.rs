//! Objects, and what someone sees of them, as the judge understands both: read and selected without the cache's own means.

use crate::options::ListOptions;
use serde_json::Value;
use std::collections::BTreeMap;
use std::rc::Rc;
use store::testing::random::Random;

/// Where objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Storage {
    Pods,
    ConfigMaps,
}

pub(super) const STORAGES: [Storage; 2] = [Storage::Pods, Storage::ConfigMaps];

impl Storage {
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Storage::Pods => "/registry/pods/",
            Storage::ConfigMaps => "/registry/configmaps/",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Storage::Pods => "pods",
            Storage::ConfigMaps => "configmaps",
        }
    }

    pub(super) fn kind(self) -> &'static str {
        match self {
            Storage::Pods => "Pod",
            Storage::ConfigMaps => "ConfigMap",
        }
    }

    /// What the registry serves there.
    pub(super) fn row(self) -> &'static schema::Resource {
        schema::resource::get("", "v1", self.plural()).expect("a built-in resource")
    }

    pub(super) fn has_status(self) -> bool {
        self == Storage::Pods
    }

    /// The storage of a key of the store, and the rest of the key.
    pub(super) fn of(key: &str) -> Option<(Storage, &str)> {
        STORAGES.into_iter().find_map(|storage| Some((storage, key.strip_prefix(storage.prefix())?)))
    }
}

/// One version of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Object {
    /// `namespace/name`.
    pub(super) key: String,
    /// That it is told with.
    pub(super) revision: i64,
    pub(super) uid: String,
    pub(super) created: String,
    /// When it is removed at the latest, and how long that was put off.
    pub(super) deletion: Option<(String, i64)>,
    pub(super) finalizers: Vec<String>,
    pub(super) node: String,
    pub(super) phase: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) data: BTreeMap<String, String>,
}

impl Object {
    /// What is stored, or told, under a revision.
    ///
    /// # Errors
    /// When it is no object.
    pub(super) fn read(text: &[u8], revision: Option<i64>) -> Result<Object, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
        Self::of(&value, revision)
    }

    pub(super) fn of(value: &Value, revision: Option<i64>) -> Result<Object, String> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let texts = |path: &str| {
            let map = value.pointer(path).and_then(Value::as_object).into_iter().flatten();
            map.map(|(key, text)| (key.clone(), text.as_str().unwrap_or_default().to_owned())).collect()
        };
        let finalizers = value.pointer("/metadata/finalizers").and_then(Value::as_array).into_iter().flatten();
        let grace = value.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_i64);
        let deletion = Some(text("/metadata/deletionTimestamp")).filter(|end| !end.is_empty());
        let told = text("/metadata/resourceVersion");
        let revision = match revision {
            Some(revision) => revision,
            None => told.parse().map_err(|_| format!("the resourceVersion is {told:?}: {value}"))?,
        };
        Ok(Object {
            key: format!("{}/{}", text("/metadata/namespace"), text("/metadata/name")),
            revision,
            uid: text("/metadata/uid"),
            created: text("/metadata/creationTimestamp"),
            deletion: deletion.map(|end| (end, grace.unwrap_or(-1))),
            finalizers: finalizers.map(|name| name.as_str().unwrap_or_default().to_owned()).collect(),
            node: text("/spec/nodeName"),
            phase: text("/status/phase"),
            labels: texts("/metadata/labels"),
            annotations: texts("/metadata/annotations"),
            data: texts("/data"),
        })
    }

    /// Whether it can only be read with the key.
    pub(super) fn is_sealed(&self) -> bool {
        self.labels.contains_key("sealed")
    }

    pub(super) fn at(&self, revision: i64) -> Object {
        Object { revision, ..self.clone() }
    }
}

/// A requirement on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Labels {
    Any,
    Is(&'static str, &'static str),
    IsNot(&'static str, &'static str),
    In(&'static str, [&'static str; 2]),
    Has(&'static str),
    HasNot(&'static str),
}

/// A requirement on fields.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fields {
    Any,
    Node(String),
    Phase(bool, &'static str),
    Name(String),
    NodeAndPhase(String, &'static str),
}

/// What someone sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) storage: Storage,
    /// Empty: all.
    pub(super) namespace: &'static str,
    labels: Labels,
    fields: Fields,
}

pub(super) const NAMESPACES: [&str; 2] = ["a", "b"];
pub(super) const NODES: [&str; 3] = ["", "n1", "n2"];
pub(super) const PHASES: [&str; 2] = ["Pending", "Running"];

pub(super) fn name(number: u64) -> String {
    format!("o{number}")
}

impl View {
    pub(super) fn all(storage: Storage) -> View {
        View { storage, namespace: "", labels: Labels::Any, fields: Fields::Any }
    }

    pub(super) fn any(random: &mut Random, keys: u64) -> View {
        let storage = if random.chance(80) { Storage::Pods } else { Storage::ConfigMaps };
        let namespace = *random.pick(&["", "", "a", "b"]);
        let labels = match random.below(10) {
            0 | 1 => Labels::Is("l", "1"),
            2 => Labels::Is("t", "x"),
            3 => Labels::IsNot("l", "1"),
            4 => Labels::In("l", ["0", "1"]),
            5 => Labels::Has("t"),
            6 => Labels::HasNot("t"),
            _ => Labels::Any,
        };
        let phase = PHASES[random.index(PHASES.len())];
        let fields = match random.below(10) {
            _ if storage == Storage::ConfigMaps => Fields::Any,
            0..3 => Fields::Node((*random.pick(&NODES)).to_owned()),
            3 => Fields::Phase(true, phase),
            4 => Fields::Phase(false, phase),
            5 => Fields::Name(name(random.below(keys))),
            6 => Fields::NodeAndPhase((*random.pick(&NODES)).to_owned(), phase),
            _ => Fields::Any,
        };
        View { storage, namespace, labels, fields }
    }

    pub(super) fn label_selector(&self) -> String {
        match &self.labels {
            Labels::Any => String::new(),
            Labels::Is(key, value) => format!("{key}={value}"),
            Labels::IsNot(key, value) => format!("{key}!={value}"),
            Labels::In(key, values) => format!("{key} in ({})", values.join(",")),
            Labels::Has(key) => (*key).to_owned(),
            Labels::HasNot(key) => format!("!{key}"),
        }
    }

    pub(super) fn field_selector(&self) -> String {
        match &self.fields {
            Fields::Any => String::new(),
            Fields::Node(node) => format!("spec.nodeName={node}"),
            Fields::Phase(true, phase) => format!("status.phase={phase}"),
            Fields::Phase(false, phase) => format!("status.phase!={phase}"),
            Fields::Name(name) => format!("metadata.name={name}"),
            Fields::NodeAndPhase(node, phase) => format!("spec.nodeName={node},status.phase={phase}"),
        }
    }

    /// Options of a request that selects so.
    pub(super) fn options(&self) -> ListOptions {
        ListOptions {
            label_selector: self.label_selector(),
            field_selector: self.field_selector(),
            ..ListOptions::default()
        }
    }

    /// Whether it selects beyond a namespace.
    pub(super) fn selects(&self) -> bool {
        self.labels != Labels::Any || self.fields != Fields::Any
    }

    /// Whether who reads it has to know what a key is. Of an object that can't be read it is not known what fields it has.
    pub(super) fn reaches(&self, key: &str) -> bool {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        let named = match &self.fields {
            Fields::Name(wanted) => name == wanted,
            _ => true,
        };
        (self.namespace.is_empty() || namespace == self.namespace) && named
    }

    pub(super) fn sees(&self, object: &Object) -> bool {
        let (namespace, name) = object.key.split_once('/').unwrap_or_default();
        let label = |key: &str| object.labels.get(key).map(String::as_str);
        let labels = match &self.labels {
            Labels::Any => true,
            Labels::Is(key, value) => label(key) == Some(value),
            Labels::IsNot(key, value) => label(key) != Some(value),
            Labels::In(key, values) => label(key).is_some_and(|label| values.contains(&label)),
            Labels::Has(key) => label(key).is_some(),
            Labels::HasNot(key) => label(key).is_none(),
        };
        let fields = match &self.fields {
            Fields::Any => true,
            Fields::Node(node) => object.node == *node,
            Fields::Phase(equal, phase) => (object.phase == *phase) == *equal,
            Fields::Name(wanted) => name == wanted,
            Fields::NodeAndPhase(node, phase) => object.node == *node && object.phase == *phase,
        };
        (self.namespace.is_empty() || namespace == self.namespace) && labels && fields
    }
}

/// What happened to an object.
#[derive(Clone, Debug)]
pub(super) struct Happened {
    pub(super) revision: i64,
    pub(super) before: Option<Rc<Object>>,
    pub(super) now: Option<Rc<Object>>,
    /// More than it takes in the cache.
    pub(super) size: usize,
}

/// What a change is to who sees only some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) kind: String,
    pub(super) object: Object,
}

impl Happened {
    /// Of what.
    pub(super) fn key(&self) -> &str {
        self.now.as_ref().or(self.before.as_ref()).map_or("", |object| &object.key)
    }

    /// What is told of it to who has a view.
    pub(super) fn to(&self, view: &View) -> Option<Told> {
        let before = self.before.as_ref().filter(|object| view.sees(object));
        let now = self.now.as_ref().filter(|object| view.sees(object));
        let (kind, object) = match (before, now) {
            (None, None) => return None,
            (None, Some(now)) => ("ADDED", now),
            (Some(_), Some(now)) => ("MODIFIED", now),
            (Some(before), None) => ("DELETED", before),
        };
        Some(Told { kind: kind.to_owned(), object: object.at(self.revision) })
    }
}
