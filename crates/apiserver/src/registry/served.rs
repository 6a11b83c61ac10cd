//! A resource as it is served: its row, its rules and its hatches.

use super::{Allocator, Subresource, Virtual};
use crate::strategy::Strategy;
use api::{GroupKind, GroupResource, GroupVersionKind};
use schema::Resource;
use std::collections::HashMap;
use std::sync::Arc;

/// A served resource. Built-in ones live as long as the server, custom ones as long as their definition is as it is.
pub struct Served {
    pub resource: Arc<Resource>,
    pub strategy: Arc<dyn Strategy>,
    /// By name; those that are the strategy's are not here.
    pub subresources: HashMap<String, Arc<dyn Subresource>>,
    pub virtual_resource: Option<Arc<dyn Virtual>>,
    pub allocator: Option<Arc<dyn Allocator>>,
}

impl Served {
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
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Served({})", self.group_resource())
    }
}
