//! The graph of owners and dependents: events in, keys to look at out. No IO.

use std::collections::{BTreeSet, HashMap};

/// The unique id of an object.
pub type Uid = String;

/// Which resource, as the API names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    pub api_version: String,
    pub kind: String,
}

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub resource: ResourceId,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
    pub uid: Uid,
}

/// A reference to an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub resource: ResourceId,
    pub name: String,
    pub uid: Uid,
    pub block: bool,
}

/// What is known of one object.
#[derive(Clone, Debug)]
pub struct Node {
    pub identity: Identity,
    pub owners: Vec<Owner>,
    pub dependents: BTreeSet<Uid>,
    pub being_deleted: bool,
    /// Waits until its blocking dependents are gone (`foregroundDeletion`).
    pub deleting_dependents: bool,
    /// Known only because others refer to it.
    pub virtual_: bool,
}

/// What an informer said of an object.
#[derive(Clone, Debug)]
pub struct Observed {
    pub identity: Identity,
    pub owners: Vec<Owner>,
    pub being_deleted: bool,
    /// Has the finalizer `foregroundDeletion`.
    pub foreground: bool,
    /// Has the finalizer `orphan`.
    pub orphan: bool,
}

/// What is to be looked at after an event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Todo {
    pub delete: Vec<Uid>,
    pub orphan: Vec<Uid>,
}

/// All known objects.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: HashMap<Uid, Node>,
}

impl Graph {
    pub fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub fn dependents(&self, uid: &str) -> Vec<Node> {
        let dependents = self.nodes.get(uid).into_iter().flat_map(|n| &n.dependents);
        dependents.filter_map(|d| self.nodes.get(d)).cloned().collect()
    }

    /// An object was added or changed.
    pub fn upsert(&mut self, seen: Observed) -> Todo {
        let mut todo = Todo::default();
        let uid = seen.identity.uid.clone();
        let (before, dependents, was_deleting) = match self.nodes.get(&uid) {
            Some(node) => (node.owners.clone(), node.dependents.clone(), node.deleting_dependents),
            None => (Vec::new(), BTreeSet::new(), false),
        };
        let deleting_dependents = seen.being_deleted && seen.foreground;
        for owner in before.iter().filter(|o| !seen.owners.iter().any(|n| n.uid == o.uid)) {
            if let Some(node) = self.nodes.get_mut(&owner.uid) {
                node.dependents.remove(&uid);
                // It may have waited for this one.
                if node.deleting_dependents {
                    todo.delete.push(owner.uid.clone());
                }
            }
        }
        for owner in before.iter().filter(|o| o.block) {
            let unblocked = seen.owners.iter().any(|n| n.uid == owner.uid && !n.block);
            if unblocked && self.nodes.get(&owner.uid).is_some_and(|n| n.deleting_dependents) {
                todo.delete.push(owner.uid.clone());
            }
        }
        for owner in &seen.owners {
            let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| {
                // Perhaps not seen yet, perhaps gone: to be looked at.
                todo.delete.push(owner.uid.clone());
                Node {
                    identity: Identity {
                        resource: owner.resource.clone(),
                        namespace: seen.identity.namespace.clone(),
                        name: owner.name.clone(),
                        uid: owner.uid.clone(),
                    },
                    owners: Vec::new(),
                    dependents: BTreeSet::new(),
                    being_deleted: false,
                    deleting_dependents: false,
                    virtual_: true,
                }
            });
            node.dependents.insert(uid.clone());
            let claims_another = node.identity.name != owner.name
                || node.identity.resource.kind != owner.resource.kind
                || !node.identity.namespace.is_empty() && node.identity.namespace != seen.identity.namespace;
            // A reference that doesn't fit what it names, or whose owner goes away, is looked at on its own.
            if claims_another || node.deleting_dependents {
                todo.delete.push(uid.clone());
            }
        }
        if deleting_dependents && !was_deleting {
            todo.delete.extend(dependents.iter().cloned());
            todo.delete.push(uid.clone());
        } else if before != seen.owners && !seen.owners.is_empty() {
            todo.delete.push(uid.clone());
        }
        if seen.being_deleted && seen.orphan {
            todo.orphan.push(uid.clone());
        }
        self.nodes.insert(
            uid,
            Node {
                identity: seen.identity,
                owners: seen.owners,
                dependents,
                being_deleted: seen.being_deleted,
                deleting_dependents,
                virtual_: false,
            },
        );
        todo.delete.dedup();
        todo
    }

    /// An object is gone.
    pub fn remove(&mut self, uid: &str) -> Todo {
        let mut todo = Todo::default();
        let Some(node) = self.nodes.remove(uid) else { return todo };
        for owner in &node.owners {
            let Some(known) = self.nodes.get_mut(&owner.uid) else { continue };
            known.dependents.remove(uid);
            if known.deleting_dependents {
                todo.delete.push(owner.uid.clone());
            }
            if known.virtual_ && known.dependents.is_empty() {
                self.nodes.remove(&owner.uid);
            }
        }
        todo.delete.extend(node.dependents);
        todo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(uid: &str, owners: &[&str]) -> Observed {
        let resource = ResourceId { api_version: "v1".into(), kind: "ConfigMap".into() };
        Observed {
            identity: Identity { resource: resource.clone(), namespace: "n".into(), name: uid.into(), uid: uid.into() },
            owners: owners
                .iter()
                .map(|o| Owner { resource: resource.clone(), name: (*o).into(), uid: (*o).into(), block: true })
                .collect(),
            being_deleted: false,
            foreground: false,
            orphan: false,
        }
    }

    #[test]
    fn dependents_are_looked_at_when_their_owner_goes() {
        let mut graph = Graph::default();
        graph.upsert(observed("owner", &[]));
        graph.upsert(observed("a", &["owner"]));
        graph.upsert(observed("b", &["owner"]));
        assert_eq!(graph.remove("owner").delete, ["a", "b"]);
    }

    #[test]
    fn an_owner_never_seen_is_looked_at_before_anything_is_deleted() {
        let mut graph = Graph::default();
        let todo = graph.upsert(observed("a", &["unknown"]));
        assert_eq!(todo.delete, ["unknown", "a"]);
        assert!(graph.get("unknown").is_some_and(|n| n.virtual_));
        // It turns out to exist.
        graph.upsert(observed("unknown", &[]));
        assert!(graph.get("unknown").is_some_and(|n| !n.virtual_ && n.dependents.contains("a")));
    }

    #[test]
    fn a_foreground_deletion_asks_for_dependents_and_ends_when_they_are_gone() {
        let mut graph = Graph::default();
        graph.upsert(observed("owner", &[]));
        graph.upsert(observed("a", &["owner"]));
        let mut deleted = observed("owner", &[]);
        (deleted.being_deleted, deleted.foreground) = (true, true);
        assert_eq!(graph.upsert(deleted).delete, ["a", "owner"]);
        assert_eq!(graph.remove("a").delete, ["owner"]);
    }

    #[test]
    fn orphaning_is_asked_for_once_the_object_is_being_deleted() {
        let mut graph = Graph::default();
        let mut deleted = observed("owner", &[]);
        (deleted.being_deleted, deleted.orphan) = (true, true);
        assert_eq!(graph.upsert(deleted).orphan, ["owner"]);
    }

    #[test]
    fn a_reference_that_does_not_fit_is_looked_at_alone() {
        let mut graph = Graph::default();
        graph.upsert(observed("owner", &[]));
        let mut other_namespace = observed("a", &["owner"]);
        other_namespace.identity.namespace = "m".into();
        assert_eq!(graph.upsert(other_namespace).delete, ["a"]);
    }
}
