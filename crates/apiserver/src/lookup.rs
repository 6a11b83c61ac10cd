//! What security decisions read: stored objects, out of memory.

use crate::cache::{Cacher, Caches, Entry, Scope};
use crate::registry::check_all_readable;
use api::{GroupResource, Status};
use async_trait::async_trait;
use schema::Map;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A stored kind of object, in the version that it is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    pub group: &'static str,
    pub plural: &'static str,
}

const fn core(plural: &'static str) -> Stored {
    Stored { group: "", plural }
}

pub const NAMESPACES: Stored = core("namespaces");
pub const NODES: Stored = core("nodes");
pub const PODS: Stored = core("pods");
pub const SECRETS: Stored = core("secrets");
pub const SERVICES: Stored = core("services");
pub const SERVICE_ACCOUNTS: Stored = core("serviceaccounts");
pub const LIMIT_RANGES: Stored = core("limitranges");
pub const RESOURCE_QUOTAS: Stored = core("resourcequotas");
pub const CLAIMS: Stored = core("persistentvolumeclaims");
pub const VOLUMES: Stored = core("persistentvolumes");
pub const PRIORITY_CLASSES: Stored = Stored { group: "scheduling.k8s.io", plural: "priorityclasses" };
pub const STORAGE_CLASSES: Stored = Stored { group: "storage.k8s.io", plural: "storageclasses" };
pub const CSI_DRIVERS: Stored = Stored { group: "storage.k8s.io", plural: "csidrivers" };
pub const INGRESS_CLASSES: Stored = Stored { group: "networking.k8s.io", plural: "ingressclasses" };
pub const ENDPOINT_SLICES: Stored = Stored { group: "discovery.k8s.io", plural: "endpointslices" };
pub const IP_ADDRESSES: Stored = Stored { group: "networking.k8s.io", plural: "ipaddresses" };
pub const SERVICE_CIDRS: Stored = Stored { group: "networking.k8s.io", plural: "servicecidrs" };
pub const LEASES: Stored = Stored { group: "coordination.k8s.io", plural: "leases" };
pub const RUNTIME_CLASSES: Stored = Stored { group: "node.k8s.io", plural: "runtimeclasses" };
pub const WORKLOADS: Stored = Stored { group: "scheduling.k8s.io", plural: "workloads" };
pub const DISRUPTION_BUDGETS: Stored = Stored { group: "policy", plural: "poddisruptionbudgets" };

/// Reads stored objects.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// An object as memory has it; the store may be a moment ahead.
    ///
    /// # Errors
    /// 500 for one that is there and cannot be read: it must not pass for absent.
    fn get(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, Status>;

    /// The objects of a namespace (of all, when `None`) as memory has them.
    ///
    /// # Errors
    /// 500 when one of them cannot be read: a decision without it could be another one.
    fn list(&self, kind: Stored, namespace: Option<&str>) -> Result<Vec<Arc<Map>>, Status>;

    /// Waits until memory has all that the store has now.
    ///
    /// # Errors
    /// The store cannot be asked.
    async fn consistent(&self) -> Result<(), Status>;

    /// An object as the store has it.
    ///
    /// # Errors
    /// The store cannot be asked, or the object cannot be read.
    async fn fresh(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, Status> {
        self.consistent().await?;
        self.get(kind, namespace, name)
    }

    /// An object out of memory, or else out of the store: for what may have been made a moment ago, by another server.
    ///
    /// # Errors
    /// The store cannot be asked, or the object cannot be read.
    async fn find(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, Status> {
        match self.get(kind, namespace, name) {
            Ok(Some(object)) => Ok(Some(object)),
            Ok(None) | Err(_) => self.fresh(kind, namespace, name).await,
        }
    }
}

/// Objects out of the watch caches.
///
/// Small objects that many decisions ask for (namespaces, classes, accounts, limits) are kept decoded as long as they stay
/// as they are.
pub struct FromCaches {
    caches: Arc<Caches>,
    decoded: Mutex<HashMap<(&'static str, String), (u64, Arc<Map>)>>,
}

/// Above this many, those that are kept decoded are forgotten rather than grow.
const MOST_DECODED: usize = 512;

/// Kinds whose objects are small, many-times asked for and seldom changed.
const KEPT: [Stored; 9] = [
    NAMESPACES,
    SERVICE_ACCOUNTS,
    LIMIT_RANGES,
    RESOURCE_QUOTAS,
    PRIORITY_CLASSES,
    STORAGE_CLASSES,
    INGRESS_CLASSES,
    RUNTIME_CLASSES,
    SERVICE_CIDRS,
];

impl FromCaches {
    pub fn new(caches: Arc<Caches>) -> Self {
        FromCaches { caches, decoded: Mutex::default() }
    }

    fn cacher(&self, kind: Stored) -> Option<Arc<Cacher>> {
        let mut rows = schema::resource::all().iter().chain(schema::resource::optional());
        let row = rows.find(|r| r.plural == kind.plural && r.group == kind.group)?;
        self.caches.get(&row.storage.as_ref()?.prefix)
    }

    fn decode(&self, kind: Stored, cacher: &Cacher, entry: &Entry) -> Result<Arc<Map>, Status> {
        if !KEPT.contains(&kind) {
            return decode(kind, cacher, entry);
        }
        let key = (kind.plural, entry.key().to_owned());
        {
            let decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((revision, object)) = decoded.get(&key)
                && *revision == entry.revision()
            {
                return Ok(object.clone());
            }
        }
        let object = decode(kind, cacher, entry)?;
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if decoded.len() >= MOST_DECODED {
            decoded.clear();
        }
        decoded.insert(key, (entry.revision(), object.clone()));
        Ok(object)
    }
}

fn decode(kind: Stored, cacher: &Cacher, entry: &Entry) -> Result<Arc<Map>, Status> {
    cacher.decode(entry).map(Arc::new).map_err(|error| {
        let resource = GroupResource::new(kind.group, kind.plural);
        Status::internal(format!("the stored {resource} {:?} cannot be read: {error}", entry.name()))
    })
}

#[async_trait]
impl Lookup for FromCaches {
    fn get(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, Status> {
        let Some(cacher) = self.cacher(kind) else { return Ok(None) };
        let entry = cacher.get(&Cacher::key(namespace, name))?;
        entry.map(|entry| self.decode(kind, &cacher, &entry)).transpose()
    }

    fn list(&self, kind: Stored, namespace: Option<&str>) -> Result<Vec<Arc<Map>>, Status> {
        let Some(cacher) = self.cacher(kind) else { return Ok(Vec::new()) };
        let scope = namespace.map_or(Scope::All, |namespace| Scope::Namespace(namespace.to_owned()));
        let (state, _) = cacher.now();
        check_all_readable(&cacher, &state, &scope)?;
        state.range(&scope, None).map(|entry| self.decode(kind, &cacher, entry)).collect()
    }

    async fn consistent(&self) -> Result<(), Status> {
        self.caches.consistent().await.map(drop).map_err(Status::from)
    }
}
