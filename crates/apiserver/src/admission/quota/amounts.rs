//! Trees as the rules of quotas see them, and amounts read from them.

use schema::Map;

pub(crate) use api::quota::{Amounts, add, shown};
pub(crate) use schema::amounts::Node;

/// Reads a resource list.
pub(crate) fn amounts(map: &Map, path: &[&str]) -> Amounts {
    api::quota::amounts(Node::Object(map), path)
}

/// What a pod asks for altogether; `which` is `requests` or `limits`.
pub(crate) fn of_pod(pod: &Map, which: &str) -> Amounts {
    api::quota::of_pod(Node::Object(pod), which)
}
