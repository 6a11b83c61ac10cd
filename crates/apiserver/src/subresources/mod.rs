//! Subresources with rules of their own: binding a pod to a node, evicting it.

mod binding;
mod eviction;

pub use binding::Binding;
pub use eviction::Eviction;

use schema::Map;

/// What such subresources answer: `Status` of success.
fn success() -> Map {
    let mut status = Map::new();
    status.insert("apiVersion", "v1");
    status.insert("kind", "Status");
    status.insert("metadata", Map::new());
    status.insert("status", "Success");
    status.insert("code", 201);
    status
}
