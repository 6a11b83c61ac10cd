//! Rows of the catalogue: what is served, as data. A custom resource makes the same rows.

use crate::types::{self, Schema, TypeRef};
use std::borrow::Cow;

pub type Str = Cow<'static, str>;
pub type Strs = Cow<'static, [Str]>;

/// A served resource.
#[derive(Clone, Debug)]
pub struct Resource {
    /// `""` for the core group.
    pub group: Str,
    pub version: Str,
    pub kind: Str,
    /// `PodList`; empty if it can't be listed.
    pub list_kind: Str,
    pub plural: Str,
    pub singular: Str,
    pub short_names: Strs,
    pub categories: Strs,
    pub namespaced: bool,
    pub verbs: Verbs,
    pub subresources: Cow<'static, [Subresource]>,
    pub schema: Schema,
    pub columns: Cow<'static, [Column]>,
    /// `None` for virtual resources (SubjectAccessReview …).
    pub storage: Option<Storage>,
    pub flags: Flags,
    /// The feature that it is a part of: while that is off, it is not served. Empty: none.
    pub gate: Str,
    /// Clients are told that the version of the kind goes away; `None`: it stays.
    pub deprecation: Option<Deprecation>,
}

/// The end of a version of a kind (upstream's `prerelease-lifecycle-gen` tags).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deprecation {
    /// The release that deprecated it: `1.19`.
    pub since: Str,
    /// The release that will serve it no more; empty: none is known.
    pub removed: Str,
    /// What to use: `discovery.k8s.io/v1 EndpointSlice`; empty: nothing.
    pub replacement: Str,
}

/// Where objects are kept, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Upstream's key prefix, with both slashes: `/registry/services/specs/`.
    pub prefix: Str,
    /// The version objects are stored in: it differs from the resource's own where two resources share a storage.
    pub group: Str,
    pub version: Str,
    pub kind: Str,
}

/// Behaviour that is data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `status` is written through its subresource only, and ignored elsewhere.
    pub status: bool,
    /// `metadata.generation` counts changes of the spec.
    pub generation: bool,
    /// Strategic merge patches are accepted.
    pub strategic: bool,
    pub protobuf: bool,
    /// A delete is answered with the object instead of a `Status`.
    pub returns_deleted: bool,
    pub inert: Inert,
}

/// Whether objects are stored and nothing more, because what upstream does with them is not done here (yet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inert {
    #[default]
    No,
    /// The API server itself would have to act on them.
    Server,
    /// A controller, the scheduler, or what runs on nodes would have to, which may be another's than ours.
    Cluster,
}

/// A subresource: `pods/exec`.
#[derive(Clone, Debug)]
pub struct Subresource {
    pub name: Str,
    /// What it takes and gives.
    pub group: Str,
    pub version: Str,
    pub kind: Str,
    pub verbs: Verbs,
}

/// A column of a Table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Str,
    pub kind: Str,
    pub format: Str,
    pub description: Str,
    /// 1: shown with `-o wide`.
    pub priority: i32,
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verbs(pub(crate) u16);

impl Verbs {
    pub const CREATE: Verbs = Verbs(1);
    pub const DELETE: Verbs = Verbs(1 << 1);
    pub const DELETE_COLLECTION: Verbs = Verbs(1 << 2);
    pub const GET: Verbs = Verbs(1 << 3);
    pub const LIST: Verbs = Verbs(1 << 4);
    pub const PATCH: Verbs = Verbs(1 << 5);
    pub const UPDATE: Verbs = Verbs(1 << 6);
    pub const WATCH: Verbs = Verbs(1 << 7);
    pub const ALL: Verbs = Verbs(255);

    /// Whether all of `other` are in it.
    pub const fn contains(self, other: Verbs) -> bool {
        self.0 & other.0 == other.0
    }
    pub const fn union(self, other: Verbs) -> Verbs {
        Verbs(self.0 | other.0)
    }
    /// As discovery writes them, in alphabetical order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name)
    }
}

/// In the order of their bits.
const NAMES: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

const fn b(text: &'static str) -> Str {
    Cow::Borrowed(text)
}

include!(concat!(env!("OUT_DIR"), "/resources.rs"));

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
    /// The type of what is stored; its own, unless another version is stored. `None` for virtual resources.
    pub fn stored_type(&self) -> Option<TypeRef<'_>> {
        let stored = self.storage.as_ref()?;
        if stored.group == self.group && stored.version == self.version {
            return Some(self.schema.root());
        }
        types::of_kind(&stored.group, &stored.version, &stored.kind)
    }
    /// What clients are told of a deprecated version, in upstream's words.
    pub fn deprecation_warning(&self) -> Option<String> {
        let deprecation = self.deprecation.as_ref()?;
        let mut text = format!("{} {} is deprecated in v{}+", self.api_version(), self.kind, deprecation.since);
        if !deprecation.removed.is_empty() {
            text.push_str(&format!(", unavailable in v{}+", deprecation.removed));
        }
        if !deprecation.replacement.is_empty() {
            text.push_str(&format!("; use {}", deprecation.replacement));
        }
        Some(text)
    }
    /// What is said of an object that nothing comes of; `whole`: the cluster's other components are ours.
    pub fn inert_note(&self, whole: bool) -> Option<String> {
        let why = match self.flags.inert {
            Inert::Server => "this server does not act on it yet",
            Inert::Cluster if whole => "nothing in this cluster acts on it yet",
            Inert::Cluster | Inert::No => return None,
        };
        Some(format!("{} {} is stored, but {why}", self.api_version(), self.kind))
    }
    pub fn subresource(&self, name: &str) -> Option<&Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
    /// `pods`, `deployments.apps`: how messages and RBAC's documents name it.
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_string() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// Every built-in resource that is served when nobody asks; groups in the order of discovery, versions by priority.
pub fn all() -> &'static [Resource] {
    &RESOURCES
}

/// The built-in resources of alpha and beta versions, which are served when they are asked for; versions by priority.
pub fn optional() -> &'static [Resource] {
    &OPTIONAL
}

fn known() -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().chain(&OPTIONAL)
}

/// The built-in resource of a path: `get("apps", "v1", "deployments")`.
pub fn get(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    known().find(|r| r.plural == plural && r.group == group && r.version == version)
}

/// The columns of kinds that have none of their own: name and time of creation.
pub fn usual_columns() -> &'static [Column] {
    &USUAL_COLUMNS
}

/// The built-in resource of a kind: `of_kind("apps", "v1", "Deployment")`.
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    known().find(|r| r.kind == kind && r.group == group && r.version == version)
}

/// The built-in groups in the order of discovery (the core group is `""`), each with its versions, preferred first.
pub fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for resource in &RESOURCES {
        match groups.iter_mut().find(|(group, _)| *group == resource.group) {
            Some((_, versions)) => {
                if !versions.contains(&resource.version.as_ref()) {
                    versions.push(&resource.version);
                }
            }
            None => groups.push((&resource.group, vec![&resource.version])),
        }
    }
    groups
}
