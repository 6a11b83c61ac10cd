//! The escape hatch for resources without storage: reviews, bindings, component statuses.

use super::Served;
use crate::context::Context;
use crate::options::Options;
use api::{GroupResource, Status};
use async_trait::async_trait;
use schema::Map;
use std::sync::Arc;

fn unsupported(served: &Served, verb: &str) -> Status {
    let row = &served.resource;
    Status::method_not_supported(&GroupResource::new(row.group.clone(), row.plural.clone()), verb)
}

/// A resource that is answered, not stored. Which verbs it takes is said by its row; only those reach it.
#[async_trait]
pub trait Virtual: Send + Sync + 'static {
    /// Whether a create passes admission. Upstream's reviews do not.
    fn admission(&self) -> bool {
        false
    }

    /// Answers a POST of the decoded, defaulted object. What it returns is answered with 201.
    ///
    /// # Errors
    /// The refusal.
    async fn create(
        &self,
        cx: &Context,
        served: &Arc<Served>,
        namespace: &str,
        object: Map,
        options: &Options,
    ) -> Result<Map, Status> {
        let _ = (cx, namespace, object, options);
        Err(unsupported(served, "create"))
    }

    /// # Errors
    /// 404, or another refusal.
    async fn get(&self, cx: &Context, served: &Arc<Served>, namespace: &str, name: &str) -> Result<Map, Status> {
        let _ = (cx, namespace, name);
        Err(unsupported(served, "get"))
    }

    /// The items, which are then filtered and shown as those of any list.
    ///
    /// # Errors
    /// The refusal.
    async fn list(&self, cx: &Context, served: &Arc<Served>, namespace: &str) -> Result<Vec<Map>, Status> {
        let _ = (cx, namespace);
        Err(unsupported(served, "list"))
    }
}
