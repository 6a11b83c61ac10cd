//! Rows of the catalogue: what is served, as data. A custom resource makes the same rows.

use crate::types::Schema;
use std::borrow::Cow;

pub type Str = Cow<'static, str>;
pub type Strs = Cow<'static, [Str]>;

/// A served resource.
#[derive(Clone)]
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
pub struct Verbs(pub u16);
