//! The type graph: structs and their fields, lists, maps and the scalar kinds, behind handles that are cheap to copy.
//!
//! A graph is an [`Arena`]: plain rows that name each other by number. The built-in one is a constant of the binary;
//! others (custom resources) are made by a [`Builder`]. Handles borrow the arena, so that nothing that walks types knows
//! which of the two it has.

use std::borrow::Cow;
use std::sync::Arc;

/// What Go and OpenAPI know about a field beyond its type.
pub mod flag {
    /// The Go field is a pointer: a zero or empty value that was given stays.
    pub const POINTER: u16 = 1;
    /// `omitempty`: a zero scalar, an empty list or map vanishes (a struct does not, as in Go).
    pub const OMIT_EMPTY: u16 = 2;
    /// `omitzero`: a zero value vanishes, whatever its type.
    pub const OMIT_ZERO: u16 = 4;
    /// Listed in OpenAPI's `required`.
    pub const REQUIRED: u16 = 8;
    /// `null` is a value of its own (custom resources).
    pub const NULLABLE: u16 = 16;
}

/// An offset and a length in the arena's text: `offset << 8 | length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text(pub(crate) u32);

#[derive(Clone, Copy, Debug)]
pub(crate) struct TypeRow {
    pub(crate) code: u8,
    /// The struct's number, or the element's type.
    pub(crate) of: u16,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct StructRow {
    pub(crate) name: Text,
    pub(crate) first: u16,
    pub(crate) fields: u16,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldRow {
    pub(crate) name: Text,
    pub(crate) ty: u16,
    pub(crate) flags: u16,
    pub(crate) number: u16,
}

/// A type graph.
#[derive(Debug)]
pub struct Arena {
    text: Cow<'static, str>,
    types: Cow<'static, [TypeRow]>,
    structs: Cow<'static, [StructRow]>,
    fields: Cow<'static, [FieldRow]>,
}

/// A type of an arena.
#[derive(Clone, Copy)]
pub struct TypeRef<'s> {
    arena: &'s Arena,
    id: u16,
}

/// What a type is.
#[derive(Clone, Copy)]
pub enum Kind<'s> {
    String,
    Bool,
    Int32,
    Int64,
    Float,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Duration,
    /// Base64 in JSON and in the tree.
    Bytes,
    /// `runtime.RawExtension`: any object, kept as it is.
    Raw,
    /// `apiextensions.JSON`: any JSON value.
    Json,
    /// `metav1.FieldsV1`.
    Fields,
    List(TypeRef<'s>),
    Map(TypeRef<'s>),
    Struct(Struct<'s>),
    /// `JSONSchemaPropsOrBool`: an object of this type or a bool.
    OrBool(TypeRef<'s>),
    /// `JSONSchemaPropsOrArray`: an object of this type or a list of them.
    OrList(TypeRef<'s>),
    /// `JSONSchemaPropsOrStringArray`: an object of this type or a list of strings.
    OrStrings(TypeRef<'s>),
}

/// A struct type: named, with fields sorted by name.
#[derive(Clone, Copy)]
pub struct Struct<'s> {
    arena: &'s Arena,
    row: &'s StructRow,
}

/// A field of a struct.
#[derive(Clone, Copy)]
pub struct Field<'s> {
    arena: &'s Arena,
    row: &'s FieldRow,
}

/// Owns (or names, when built in) the arena of a type. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    arena: Source,
    id: u16,
}

#[derive(Clone)]
enum Source {
    BuiltIn(&'static Arena),
    Made(Arc<Arena>),
}

impl Schema {
    /// The type, borrowed.
    pub fn root(&self) -> TypeRef<'_> {
        match &self.arena {
            Source::BuiltIn(arena) => TypeRef { arena, id: self.id },
            Source::Made(arena) => TypeRef { arena, id: self.id },
        }
    }
}
