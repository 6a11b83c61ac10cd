//! What trees ask for: they are seen by the one set of rules that counts resources ([`api::quota`]).

use crate::tree::{Map, Value};
use api::quota::{Amounts, View};

/// An object of a tree, or a part of it.
#[derive(Clone, Copy, Debug)]
pub enum Node<'a> {
    Object(&'a Map),
    Other(&'a Value),
}

impl<'a> From<&'a Value> for Node<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Map(map) => Node::Object(map),
            other => Node::Other(other),
        }
    }
}

impl<'a> View<'a> for Node<'a> {
    fn get(self, key: &str) -> Option<Self> {
        match self {
            Node::Object(map) => map.get(key).filter(|value| !value.is_null()).map(Node::from),
            Node::Other(_) => None,
        }
    }
    fn text(self) -> Option<&'a str> {
        match self {
            Node::Object(_) => None,
            Node::Other(value) => value.as_str(),
        }
    }
    fn int(self) -> Option<i64> {
        match self {
            Node::Object(_) => None,
            Node::Other(value) => value.as_i64(),
        }
    }
    fn flag(self) -> Option<bool> {
        match self {
            Node::Object(_) => None,
            Node::Other(value) => value.as_bool(),
        }
    }
    fn items(self) -> impl Iterator<Item = Self> {
        let list = match self {
            Node::Other(value) => value.as_list(),
            Node::Object(_) => None,
        };
        list.into_iter().flatten().map(Node::from)
    }
    fn members(self) -> impl Iterator<Item = (&'a str, Self)> {
        let map = match self {
            Node::Object(map) => Some(map),
            Node::Other(_) => None,
        };
        map.into_iter().flat_map(Map::iter).map(|(key, value)| (key, Node::from(value)))
    }
}

/// What the containers of a pod's spec ask for altogether; `which` is `requests` or `limits`.
pub fn of_containers(spec: &Map, which: &str) -> Amounts {
    api::quota::of_containers(Node::Object(spec), which)
}

/// Resources of which a pod gets whole pages of a size, never more than it asked for.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Resources that can be asked for by a pod as a whole.
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}
