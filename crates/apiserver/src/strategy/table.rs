//! Which kind has which strategy.

use super::{Strategy, kinds};
use schema::Resource;
use std::sync::Arc;

/// The strategy of a row; [`kinds::Standard`] where it needs none of its own.
pub fn of(row: &Resource) -> Arc<dyn Strategy> {
    let stored = row.storage.as_ref();
    let group = stored.map_or(row.group.as_ref(), |s| s.group.as_ref());
    let kind = stored.map_or(row.kind.as_ref(), |s| s.kind.as_ref());
    match (group, kind) {
        ("", "Pod") => Arc::new(kinds::Pods),
        ("", "Namespace") => Arc::new(kinds::Namespaces),
        ("", "Event") => Arc::new(kinds::Events::default()),
        ("", "Service") => Arc::new(kinds::Services),
        ("", "Node") => Arc::new(kinds::Nodes),
        ("", "PersistentVolume" | "PersistentVolumeClaim") => Arc::new(kinds::Volumes),
        ("", "ServiceAccount" | "PodTemplate" | "ResourceQuota") => Arc::new(kinds::Returned),
        ("", "ReplicationController") | ("batch", "Job") => Arc::new(kinds::Orphaning),
        ("", "Endpoints" | "LimitRange") => Arc::new(kinds::CreatedByUpdate),
        ("rbac.authorization.k8s.io", _) | ("coordination.k8s.io", "Lease") => Arc::new(kinds::CreatedByUpdate),
        _ => Arc::new(kinds::Standard),
    }
}
