//! A resource as it is served: its row, its rules, its hatches, and where its objects are.

use super::convert::{self, Conversion};
use super::{Allocator, Subresource, Virtual};
use crate::cache::{Cacher, Entry};
use crate::strategy::{self, Closed, Kind, Strategy};
use crate::surface::Surface;
use api::{GroupKind, GroupResource, GroupVersionKind, Status};
use bytes::Bytes;
use schema::validation::Features;
use schema::{Map, Resource};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Something that is logged once.
#[derive(Debug)]
pub(super) struct Note {
    text: String,
    logged: AtomicBool,
}

impl Note {
    fn new(text: String) -> Arc<Self> {
        Arc::new(Note { text, logged: AtomicBool::new(false) })
    }

    /// Logs it, the first time; whether it was that.
    pub(super) fn log(&self) -> bool {
        let first = !self.logged.swap(true, Ordering::Relaxed);
        if first {
            tracing::warn!("{}", self.text);
        }
        first
    }
}

/// A served resource. Built-in ones live as long as the server, custom ones as long as their definition is as it is.
#[derive(Clone)]
pub struct Served {
    pub resource: Arc<Resource>,
    pub strategy: Arc<dyn Strategy>,
    /// `None` for virtual resources.
    pub cacher: Option<Arc<Cacher>>,
    /// By name; those that are the strategy's are not here.
    pub subresources: HashMap<String, Arc<dyn Subresource>>,
    pub virtual_resource: Option<Arc<dyn Virtual>>,
    pub allocator: Option<Arc<dyn Allocator>>,
    /// What belongs to features that are off.
    pub(crate) closed: Closed,
    /// The features that change what is allowed.
    features: Features,
    /// Between this version and the stored one, where they differ.
    pub(crate) conversion: Option<&'static Conversion>,
    /// Tells apart what is shown of one storage: 0 for the version that is stored, for each other one a number of its own.
    pub(crate) view: u32,
    /// What is logged when an object is made that nothing comes of. Clients are told nothing: upstream's are not.
    pub(super) inert: Option<Arc<Note>>,
    /// What objects of this version begin with.
    head: Bytes,
    api_version: String,
}

impl Served {
    pub(super) fn new(resource: Arc<Resource>, cacher: Option<Arc<Cacher>>, surface: &Surface) -> Self {
        static VIEWS: AtomicU32 = AtomicU32::new(1);
        let api_version = resource.api_version();
        let conversion = convert::of(&resource);
        Served {
            view: conversion.map_or(0, |_| VIEWS.fetch_add(1, Ordering::Relaxed)),
            head: schema::encoded::head(&api_version, &resource.kind).into(),
            conversion,
            api_version,
            strategy: strategy::of(&resource, surface),
            closed: Closed::of(&resource, &surface.gates),
            features: Features::of(&surface.gates),
            inert: resource.inert_note(surface.whole).map(Note::new),
            resource,
            cacher,
            subresources: HashMap::new(),
            virtual_resource: None,
            allocator: None,
        }
    }

    /// As it is judged.
    pub(super) fn judged(&self) -> Kind<'_> {
        Kind { row: &self.resource, features: self.features }
    }

    /// As messages name it: `deployments.apps`.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.resource.group.clone(), self.resource.plural.clone())
    }
    /// As messages name its kind: `Deployment.apps`.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(self.resource.group.clone(), self.resource.kind.clone())
    }
    pub fn kind(&self) -> GroupVersionKind {
        GroupVersionKind::new(self.resource.group.clone(), self.resource.version.clone(), self.resource.kind.clone())
    }
    /// `apps/v1`.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }
    /// What objects of this version begin with: `{"kind":"Pod","apiVersion":"v1",`.
    pub fn head(&self) -> &Bytes {
        &self.head
    }
    /// The objects of it.
    ///
    /// # Errors
    /// 405 for a virtual resource.
    pub fn storage(&self, verb: &str) -> Result<&Arc<Cacher>, Status> {
        self.cacher.as_ref().ok_or_else(|| Status::method_not_supported(&self.group_resource(), verb))
    }

    /// The tree of an entry in this version.
    ///
    /// # Errors
    /// 500 when what is stored is no object of its kind any more.
    pub fn decode(&self, entry: &Entry) -> Result<Map, Status> {
        let cacher = self.storage("get")?;
        let mut object = cacher.decode(entry).map_err(|error| {
            cacher.counts.unread();
            Status::internal(format!("the stored {} {:?} cannot be read: {error}", self.group_resource(), entry.key()))
        })?;
        self.from_stored(&mut object);
        Ok(object)
    }

    /// Brings a tree of the stored version into this one.
    pub fn from_stored(&self, object: &mut Map) {
        if let Some(conversion) = self.conversion {
            (conversion.from_stored)(object);
            self.stamp(object);
            if let Err(error) = schema::normal::normalise(self.resource.schema.root(), object, None) {
                tracing::error!(resource = %self.group_resource(), %error, "an object does not fit the version it was converted to");
            }
        }
    }

    /// Brings a tree of this version into the stored one.
    pub fn to_stored(&self, object: &mut Map) {
        if let (Some(conversion), Some(cacher)) = (self.conversion, &self.cacher) {
            (conversion.to_stored)(object);
            object.insert("apiVersion", cacher.layout.api_version.as_str());
            object.insert("kind", cacher.layout.kind.as_str());
        }
    }

    /// Gives an object this version's `apiVersion` and `kind`.
    pub fn stamp(&self, object: &mut Map) {
        object.insert("apiVersion", self.api_version.as_str());
        object.insert("kind", self.resource.kind.as_ref());
    }

    /// The JSON of an entry, as this resource serves it.
    ///
    /// # Errors
    /// 500 when a conversion is needed and what is stored can't be read.
    pub fn json(&self, entry: &Entry) -> Result<Bytes, Status> {
        if self.conversion.is_none() {
            return Ok(schema::encoded::object(&self.head, entry.item()));
        }
        let mut out = Vec::with_capacity(entry.item().len() + 64);
        schema::json::encode(&self.decode(entry)?, &mut out);
        Ok(out.into())
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Served({})", self.group_resource())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_comes_of_is_logged_once() {
        let policies = schema::resource::get("networking.k8s.io", "v1", "networkpolicies").expect("a row");
        let note = |whole: bool| {
            let surface = Surface { whole, ..Surface::default() };
            Served::new(Arc::new(policies.clone()), None, &surface).inert
        };
        assert!(note(false).is_none(), "other components may act on it");
        let note = note(true).expect("a note");
        assert_eq!(
            note.text,
            "networking.k8s.io/v1 NetworkPolicy is stored, but nothing in this cluster acts on it yet"
        );
        assert!(note.log());
        assert!(!note.log());
    }
}
