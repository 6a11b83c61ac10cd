//! Versions of one kind: what a manager owns is said in the version that it wrote through, and is compared there.

use super::manager::{UNOWNED, owned_part};
use super::merge;
use super::path::Element;
use super::set::Set;
use super::walk::{Comparison, compare, set_of};
use crate::tree::Map;
use crate::types::TypeRef;
use std::collections::BTreeMap;
use std::fmt;

/// How the versions of a kind show its objects.
pub trait Versions: fmt::Debug + Sync {
    /// The type of a version that has another shape than the request's; `None`: it has the same, or nothing is known of it.
    fn other(&self, api_version: &str) -> Option<TypeRef<'_>>;

    /// An object of the request's version as one of another shape shows it.
    fn there(&self, object: &Map, api_version: &str) -> Map;

    /// An object of another shape as the request's version shows it.
    fn back(&self, object: &Map, api_version: &str) -> Map;
}

/// All versions look the same.
#[derive(Clone, Copy, Debug)]
pub struct OneShape;

impl Versions for OneShape {
    fn other(&self, _: &str) -> Option<TypeRef<'_>> {
        None
    }
    fn there(&self, object: &Map, _: &str) -> Map {
        object.clone()
    }
    fn back(&self, object: &Map, _: &str) -> Map {
        object.clone()
    }
}

/// What a write does, as one version shows it.
pub(super) struct Change {
    /// What is other than it was, or new.
    pub changed: Set,
    pub removed: Set,
}

impl From<Comparison> for Change {
    fn from(found: Comparison) -> Self {
        let changed = if found.modified.is_empty() { found.added } else { found.modified.union(&found.added) };
        Change { changed, removed: found.removed }
    }
}

/// What a write does, as each version shows it; compared when it is asked for.
pub(super) struct Changes<'a> {
    versions: &'a dyn Versions,
    old: &'a Map,
    new: &'a Map,
    reset: &'a Set,
    pub own: Change,
    others: BTreeMap<String, Change>,
}

impl<'a> Changes<'a> {
    /// `own`: what was found in the request's version, in which both objects are.
    pub fn new(versions: &'a dyn Versions, old: &'a Map, new: &'a Map, reset: &'a Set, own: Comparison) -> Self {
        Changes { versions, old, new, reset, own: own.into(), others: BTreeMap::new() }
    }

    /// The change as a version shows it, and whether that has the shape of the request's.
    pub fn seen_by(&mut self, api_version: &str) -> (&Change, bool) {
        let Some(ty) = self.versions.other(api_version) else { return (&self.own, true) };
        if !self.others.contains_key(api_version) {
            let old = self.versions.there(self.old, api_version);
            let new = self.versions.there(self.new, api_version);
            let change = compare(ty, &old, &new, &UNOWNED).without(self.reset).into();
            self.others.insert(api_version.to_owned(), change);
        }
        (&self.others[api_version], false)
    }
}

/// Takes out of an object what its applier said before (`last`) and nobody says or owns now. `owned` are all sets that are said now,
/// each in its version.
pub(super) fn prune<'s>(
    versions: &dyn Versions,
    ty: TypeRef<'_>,
    object: &mut Map,
    last: (&str, &Set),
    owned: impl Iterator<Item = (&'s str, &'s Set)>,
) {
    // By shape: the request's is without a name.
    let shape = |version| versions.other(version).map(|_| version);
    let mut kept: BTreeMap<Option<&str>, Set> = BTreeMap::new();
    for (version, set) in owned {
        let all = kept.entry(shape(version)).or_default();
        *all = all.union(set);
    }
    let there = |object: &Map, at: Option<&str>| at.map_or_else(|| object.clone(), |at| versions.there(object, at));
    let back = |object: &Map, at: Option<&str>| at.map_or_else(|| object.clone(), |at| versions.back(object, at));
    let type_at = |at: Option<&str>| at.and_then(|at| versions.other(at)).unwrap_or(ty);

    let (at, last) = (shape(last.0), last.1);
    let own = kept.remove(&at).unwrap_or_default();
    let mut gone = last.difference(&own);
    // As such it is nobody's, whatever an entry of an earlier version says.
    gone.unmark(&Element::Field("metadata".into()));
    if at.is_none() && kept.is_empty() {
        return merge::prune(ty, object, &gone, &own);
    }
    let merged = object.clone();
    let mut pruned = there(&merged, at);
    merge::prune(type_at(at), &mut pruned, &gone, &own);
    let mut pruned = back(&pruned, at);
    // What others own is put back as their version shows it.
    for (at, own) in kept {
        let ty = type_at(at);
        let (mut whole, rest) = (there(&merged, at), there(&pruned, at));
        let gone = set_of(ty, &owned_part(&whole)).difference(&set_of(ty, &owned_part(&rest)));
        merge::prune(ty, &mut whole, &gone, &own);
        pruned = back(&whole, at);
    }
    *object = pruned;
}
