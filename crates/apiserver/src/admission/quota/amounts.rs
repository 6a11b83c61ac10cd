//! Trees as the rules of quotas see them, and amounts read from them.

use api::quota::View;
use schema::{Map, Value};

pub(crate) use api::quota::{Amounts, add, shown};

/// An object of a tree, or a part of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Node<'a> {
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

/// Reads a resource list.
pub(crate) fn amounts(map: &Map, path: &[&str]) -> Amounts {
    api::quota::amounts(Node::Object(map), path)
}

/// What a pod asks for altogether; `which` is `requests` or `limits`.
pub(crate) fn of_pod(pod: &Map, which: &str) -> Amounts {
    api::quota::of_pod(Node::Object(pod), which)
}
