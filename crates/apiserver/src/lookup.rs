//! What security decisions read: stored objects, out of memory.

use api::Status;
use async_trait::async_trait;
use schema::Map;
use std::sync::Arc;

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
pub const INGRESS_CLASSES: Stored = Stored { group: "networking.k8s.io", plural: "ingressclasses" };
pub const IP_ADDRESSES: Stored = Stored { group: "networking.k8s.io", plural: "ipaddresses" };
pub const RUNTIME_CLASSES: Stored = Stored { group: "node.k8s.io", plural: "runtimeclasses" };
pub const DISRUPTION_BUDGETS: Stored = Stored { group: "policy", plural: "poddisruptionbudgets" };

/// Reads stored objects.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// An object as memory has it; the store may be a moment ahead.
    fn get(&self, kind: Stored, namespace: &str, name: &str) -> Option<Arc<Map>>;

    /// The objects of a namespace (of all, when `None`) as memory has them.
    fn list(&self, kind: Stored, namespace: Option<&str>) -> Vec<Arc<Map>>;

    /// An object as the store has it.
    ///
    /// # Errors
    /// The store cannot be asked.
    async fn fresh(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, Status>;

    /// An object out of memory, or else out of the store: for what may have been made a moment ago, by another server.
    ///
    /// # Errors
    /// The store cannot be asked.
    async fn find(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, Status> {
        match self.get(kind, namespace, name) {
            Some(object) => Ok(Some(object)),
            None => self.fresh(kind, namespace, name).await,
        }
    }
}
