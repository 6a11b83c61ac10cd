//! The built-in type graph, written by the build script.

use super::arena::{Arena, FieldRow, InlineGroup, ListType, Names, Source, Struct, StructRow, Text, Topology, TypeRow};
use super::{Schema, TypeRef};
use crate::tree::Value;
use compact_str::CompactString;
use std::borrow::Cow;

/// Short names keep the generated rows small.
const fn t(code: u8, of: u32) -> TypeRow {
    TypeRow { code, of }
}
const fn s(name: u32, first: u32, fields: u32, groups: u16, group_count: u8, flags: u16) -> StructRow {
    StructRow { name: Text(name), first, fields, groups, group_count, flags }
}
const fn f(name: u32, ty: u32, flags: u16, number: u16, topology: u16, default: u16, group: u8) -> FieldRow {
    FieldRow { name: Text(name), ty, flags, number, topology, default, group }
}
const fn g(number: u16, parent: u8, pointer: bool) -> InlineGroup {
    InlineGroup { number, parent, pointer }
}

include!(concat!(env!("OUT_DIR"), "/types.rs"));

pub(crate) static BUILT_IN: Arena = Arena {
    names: Names::Text(TEXT),
    types: Cow::Borrowed(&TYPES),
    structs: Cow::Borrowed(&STRUCTS),
    fields: Cow::Borrowed(&FIELDS),
    groups: Cow::Borrowed(&GROUPS),
    topologies: Cow::Borrowed(&TOPOLOGIES),
    defaults: Cow::Borrowed(&DEFAULTS),
};

impl Schema {
    pub(crate) const fn of_struct(number: u32) -> Schema {
        Schema { arena: Source::BuiltIn(&BUILT_IN), id: FIRST_STRUCT + number }
    }
}

impl TypeRef<'_> {
    /// The number of a built-in type, which is its own as long as the process runs.
    pub(crate) fn built_in_number(self) -> Option<u32> {
        std::ptr::eq(self.arena, &raw const BUILT_IN).then_some(self.id)
    }
}

fn struct_ref(number: usize) -> TypeRef<'static> {
    TypeRef { arena: &BUILT_IN, id: FIRST_STRUCT + number as u32 }
}

/// The type of any JSON.
pub fn any() -> TypeRef<'static> {
    TypeRef { arena: &BUILT_IN, id: u32::from(super::rows::code::JSON) }
}

/// The built-in struct of a definition's name, e.g. `io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions`.
pub fn find(name: &str) -> Option<TypeRef<'static>> {
    STRUCTS.binary_search_by(|row| Struct { arena: &BUILT_IN, row }.name().cmp(name)).ok().map(struct_ref)
}

/// Every built-in struct, sorted by name.
pub fn structs() -> impl ExactSizeIterator<Item = Struct<'static>> {
    STRUCTS.iter().map(|row| Struct { arena: &BUILT_IN, row })
}

/// The type of a kind as a client names it: resources, their lists (`PodList`), what subresources take (`Scale`,
/// `Eviction`, `TokenRequest` …) and the kinds of every group (`Status`, `DeleteOptions`).
pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<TypeRef<'static>> {
    KINDS
        .binary_search_by(|(g, v, k, _)| (*g, *v, *k).cmp(&(group, version, kind)))
        .ok()
        .map(|at| struct_ref(KINDS[at].3 as usize))
        .or_else(|| match kind {
            "DeleteOptions" | "Status" | "WatchEvent" => find(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")),
            _ => None,
        })
}
