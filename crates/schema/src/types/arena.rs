//! Rows, and the handles that read them.

use super::rows::{code, flag};
use crate::tree::{Key, Value, order};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A name is looked for among so many fields before the search begins in the middle of all.
const NEAR: usize = 8;

/// In the built-in arena an offset and a length in its text (`offset << 8 | length`), otherwise the number of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) u32);

#[derive(Clone, Copy, Debug)]
pub(crate) struct TypeRow {
    pub(crate) code: u8,
    /// The struct's number, or the type of the elements.
    pub(crate) of: u32,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct StructRow {
    pub(crate) name: Text,
    pub(crate) first: u32,
    pub(crate) fields: u32,
    pub(crate) groups: u16,
    pub(crate) group_count: u8,
    pub(crate) flags: u16,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct FieldRow {
    pub(crate) name: Text,
    pub(crate) ty: u32,
    pub(crate) flags: u16,
    pub(crate) number: u16,
    pub(crate) topology: u16,
    /// One more than the number of the default; 0: none.
    pub(crate) default: u16,
    /// One more than the number of the inline group among the struct's; 0: the struct itself.
    pub(crate) group: u8,
}

/// Fields that are the struct's own in JSON, and in protobuf a message of their own: Go's embedded structs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InlineGroup {
    /// The protobuf number of the message.
    pub number: u16,
    /// The group that the message is a field of: one more than its number among the struct's; 0: the struct itself.
    pub parent: u8,
    /// Embedded by pointer: absent when none of its fields is present.
    pub pointer: bool,
}

#[derive(Debug)]
pub(crate) enum Names {
    /// All names in one text, named by offset and length.
    Text(&'static str),
    /// Names that live for ever, by number.
    Interned(Vec<&'static str>),
}

/// A type graph.
#[derive(Debug)]
pub struct Arena {
    pub(crate) names: Names,
    pub(crate) types: Cow<'static, [TypeRow]>,
    pub(crate) structs: Cow<'static, [StructRow]>,
    pub(crate) fields: Cow<'static, [FieldRow]>,
    pub(crate) groups: Cow<'static, [InlineGroup]>,
    /// The first is what a field has that says nothing.
    pub(crate) topologies: Cow<'static, [Topology]>,
    pub(crate) defaults: Cow<'static, [Value]>,
}

impl Arena {
    fn name(&self, text: Text) -> &'static str {
        match &self.names {
            Names::Text(all) => {
                let start = (text.0 >> 8) as usize;
                &all[start..start + (text.0 & 255) as usize]
            }
            Names::Interned(names) => names[text.0 as usize],
        }
    }

    /// The bytes of a name: cheaper to look at than its text.
    fn name_bytes(&self, text: Text) -> &[u8] {
        match &self.names {
            Names::Text(all) => {
                let start = (text.0 >> 8) as usize;
                &all.as_bytes()[start..start + (text.0 & 255) as usize]
            }
            Names::Interned(names) => names[text.0 as usize].as_bytes(),
        }
    }
}

/// A type of an arena.
#[derive(Clone, Copy)]
pub struct TypeRef<'s> {
    pub(crate) arena: &'s Arena,
    pub(crate) id: u32,
}

/// What a type is.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'s> {
    String,
    Bool,
    Int32,
    Int64,
    Float,
    Quantity,
    IntOrString,
    /// RFC 3339 with seconds.
    Time,
    /// RFC 3339 with microseconds.
    MicroTime,
    /// `metav1.Duration`: Go's notation, e.g. `1m30s`.
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

impl<'s> TypeRef<'s> {
    /// What this type is.
    pub fn kind(self) -> Kind<'s> {
        let row = &self.arena.types[self.id as usize];
        let of = || TypeRef { arena: self.arena, id: row.of };
        match row.code {
            code::STRING => Kind::String,
            code::BOOL => Kind::Bool,
            code::INT32 => Kind::Int32,
            code::INT64 => Kind::Int64,
            code::FLOAT => Kind::Float,
            code::QUANTITY => Kind::Quantity,
            code::INT_OR_STRING => Kind::IntOrString,
            code::TIME => Kind::Time,
            code::MICRO_TIME => Kind::MicroTime,
            code::DURATION => Kind::Duration,
            code::BYTES => Kind::Bytes,
            code::RAW => Kind::Raw,
            code::JSON => Kind::Json,
            code::FIELDS => Kind::Fields,
            code::LIST => Kind::List(of()),
            code::MAP => Kind::Map(of()),
            code::OR_BOOL => Kind::OrBool(of()),
            code::OR_LIST => Kind::OrList(of()),
            code::OR_STRINGS => Kind::OrStrings(of()),
            _ => Kind::Struct(Struct { arena: self.arena, row: &self.arena.structs[row.of as usize] }),
        }
    }

    /// The struct, if it is one.
    pub fn as_struct(self) -> Option<Struct<'s>> {
        match self.kind() {
            Kind::Struct(s) => Some(s),
            _ => None,
        }
    }

    /// The type of the elements of a list or map.
    pub fn element(self) -> Option<TypeRef<'s>> {
        match self.kind() {
            Kind::List(of) | Kind::Map(of) => Some(of),
            _ => None,
        }
    }

    /// Follows field names, through lists and maps to their elements: `["spec", "containers", "resources"]`.
    pub fn at(self, path: &[&str]) -> Option<TypeRef<'s>> {
        path.iter().try_fold(self, |ty, name| {
            let mut ty = ty;
            while let Some(of) = ty.element() {
                ty = of;
            }
            Some(ty.as_struct()?.field(name)?.ty())
        })
    }

    /// The type of any JSON, in the same arena.
    pub fn json(self) -> TypeRef<'s> {
        TypeRef { arena: self.arena, id: u32::from(code::JSON) }
    }

    /// The type of strings, in the same arena.
    pub(crate) fn string(self) -> TypeRef<'s> {
        TypeRef { arena: self.arena, id: u32::from(code::STRING) }
    }

    /// The type as Go would write it, for messages: `[]v1.Container`, `map[string]string`.
    pub fn go_name(self) -> String {
        match self.kind() {
            Kind::String => "string".into(),
            Kind::Bool => "bool".into(),
            Kind::Int32 => "int32".into(),
            Kind::Int64 => "int64".into(),
            Kind::Float => "float64".into(),
            Kind::Quantity => "resource.Quantity".into(),
            Kind::IntOrString => "intstr.IntOrString".into(),
            Kind::Time => "v1.Time".into(),
            Kind::MicroTime => "v1.MicroTime".into(),
            Kind::Duration => "v1.Duration".into(),
            Kind::Bytes => "[]uint8".into(),
            Kind::Raw => "runtime.RawExtension".into(),
            Kind::Json => "v1.JSON".into(),
            Kind::Fields => "v1.FieldsV1".into(),
            Kind::List(of) => format!("[]{}", of.go_name()),
            Kind::Map(of) => format!("map[string]{}", of.go_name()),
            Kind::Struct(s) => format!("{}.{}", s.version(), s.short_name()),
            Kind::OrBool(of) => format!("{}OrBool", of.go_name()),
            Kind::OrList(of) => format!("{}OrArray", of.go_name()),
            Kind::OrStrings(of) => format!("{}OrStringArray", of.go_name()),
        }
    }
}

impl PartialEq for TypeRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.arena, other.arena) && self.id == other.id
    }
}

impl fmt::Debug for TypeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.go_name())
    }
}

/// A struct type: named, with fields sorted by name.
#[derive(Clone, Copy)]
pub struct Struct<'s> {
    pub(crate) arena: &'s Arena,
    pub(crate) row: &'s StructRow,
}

impl<'s> Struct<'s> {
    /// The definition's name: `io.k8s.api.core.v1.Pod`.
    pub fn name(self) -> &'static str {
        self.arena.name(self.row.name)
    }
    /// `Pod`.
    pub fn short_name(self) -> &'static str {
        let name = self.name();
        name.rsplit_once('.').map_or(name, |(_, last)| last)
    }
    /// `v1`.
    pub fn version(self) -> &'static str {
        self.name().rsplit('.').nth(1).unwrap_or("")
    }
    /// Fields, sorted by name.
    pub fn fields(self) -> impl DoubleEndedIterator<Item = Field<'s>> + ExactSizeIterator {
        self.rows().iter().map(move |row| Field { arena: self.arena, row })
    }
    /// The field of a name (as JSON spells it).
    pub fn field(self, name: &str) -> Option<Field<'s>> {
        self.position(name).map(|at| self.field_at(at))
    }
    /// Groups of fields that are messages of their own in protobuf.
    pub fn groups(self) -> &'s [InlineGroup] {
        &self.arena.groups[usize::from(self.row.groups)..][..usize::from(self.row.group_count)]
    }
    /// `x-kubernetes-map-type: atomic`: server-side apply owns it as a whole.
    pub fn atomic(self) -> bool {
        self.row.flags & flag::ATOMIC != 0
    }
    /// Undeclared fields are kept (`x-kubernetes-preserve-unknown-fields`).
    pub fn open(self) -> bool {
        self.row.flags & flag::OPEN != 0
    }

    /// The name by which rules know it: for a version that repeats the GA one, that of the GA version.
    pub(crate) fn ruled_as(self) -> Cow<'static, str> {
        let name = self.name();
        if self.row.flags & flag::ALIAS != 0
            && let Some((package, kind)) = name.rsplit_once('.')
            && let Some((package, _)) = package.rsplit_once('.')
        {
            return format!("{package}.v1.{kind}").into();
        }
        name.into()
    }

    pub(crate) fn always(self) -> bool {
        self.row.flags & flag::ALWAYS != 0
    }
    pub(crate) fn len(self) -> usize {
        self.row.fields as usize
    }
    pub(crate) fn rows(self) -> &'s [FieldRow] {
        &self.arena.fields[self.row.first as usize..][..self.row.fields as usize]
    }
    pub(crate) fn position(self, name: &str) -> Option<usize> {
        self.rows().binary_search_by(|row| order(self.arena.name_bytes(row.name), name.as_bytes())).ok()
    }
    /// The same, for a name that is likely one of the next after a place, as names mostly come in their order.
    pub(crate) fn position_near(self, from: usize, name: &str) -> Option<usize> {
        for (at, row) in self.rows().iter().enumerate().skip(from).take(NEAR) {
            match order(self.arena.name_bytes(row.name), name.as_bytes()) {
                Ordering::Less => {}
                Ordering::Equal => return Some(at),
                Ordering::Greater => break,
            }
        }
        self.position(name)
    }
    pub(crate) fn field_at(self, at: usize) -> Field<'s> {
        Field { arena: self.arena, row: &self.rows()[at] }
    }
}

impl fmt::Debug for Struct<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A field of a struct.
#[derive(Clone, Copy)]
pub struct Field<'s> {
    pub(crate) arena: &'s Arena,
    pub(crate) row: &'s FieldRow,
}

impl<'s> Field<'s> {
    /// The JSON name; a key of a [`crate::Map`] made of it costs nothing.
    pub fn name(self) -> &'static str {
        self.arena.name(self.row.name)
    }
    pub(crate) fn key(self) -> Key {
        Cow::Borrowed(self.name())
    }
    /// Whether it is sorted before a name.
    pub(crate) fn comes_before(self, name: &str) -> bool {
        let own = self.arena.name_bytes(self.row.name);
        !std::ptr::eq(own, name.as_bytes()) && order(own, name.as_bytes()).is_lt()
    }
    /// Whether it has a name.
    pub(crate) fn is_named(self, name: &str) -> bool {
        self.arena.name_bytes(self.row.name) == name.as_bytes()
    }
    pub fn ty(self) -> TypeRef<'s> {
        TypeRef { arena: self.arena, id: self.row.ty }
    }
    /// The Go field is a pointer: a zero or empty value that was given stays.
    pub fn pointer(self) -> bool {
        self.has(flag::POINTER)
    }
    pub fn omit_empty(self) -> bool {
        self.has(flag::OMIT_EMPTY)
    }
    pub fn omit_zero(self) -> bool {
        self.has(flag::OMIT_ZERO)
    }
    /// Listed in OpenAPI's `required`.
    pub fn required(self) -> bool {
        self.has(flag::REQUIRED)
    }
    pub fn nullable(self) -> bool {
        self.has(flag::NULLABLE)
    }
    /// The protobuf number; 0: not in protobuf.
    pub fn number(self) -> u32 {
        u32::from(self.row.number)
    }
    /// How lists and maps merge.
    pub fn topology(self) -> &'s Topology {
        &self.arena.topologies[usize::from(self.row.topology)]
    }
    /// The default that OpenAPI documents state.
    pub fn default(self) -> Option<&'s Value> {
        self.row.default.checked_sub(1).map(|at| &self.arena.defaults[usize::from(at)])
    }
    /// One more than the number of its [`InlineGroup`] among [`Struct::groups`]; 0: a field of the struct itself.
    pub fn group(self) -> u8 {
        self.row.group
    }
    pub(crate) fn has(self, flag: u16) -> bool {
        self.row.flags & flag != 0
    }
}

impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.name(), self.ty())
    }
}

/// How the list or map of a field merges, in server-side apply and in strategic merge patches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    pub list: ListType,
    /// Keys of a list of type map.
    pub keys: Cow<'static, [&'static str]>,
    /// `x-kubernetes-map-type: atomic` on a map or struct field.
    pub atomic_map: bool,
    /// `x-kubernetes-map-type: granular` is said, not only implied.
    pub granular_map: bool,
    /// Strategic: `merge`.
    pub merge: bool,
    /// Strategic: the merge key, `""` for lists of scalars.
    pub merge_key: Cow<'static, str>,
    /// Strategic: `retainKeys`.
    pub retain_keys: bool,
    /// Strategic: `replace` is said, not only implied.
    pub replace: bool,
}

/// `x-kubernetes-list-type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// Nothing is said: as atomic.
    #[default]
    Unset,
    Atomic,
    Set,
    Map,
}

/// Owns (or names, when built in) the arena of a type. Cheap to clone.
#[derive(Clone)]
pub struct Schema {
    pub(crate) arena: Source,
    pub(crate) id: u32,
}

#[derive(Clone)]
pub(crate) enum Source {
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
    /// The schema of another type of the same arena.
    pub(crate) fn of(&self, ty: TypeRef<'_>) -> Schema {
        Schema { arena: self.arena.clone(), id: ty.id }
    }
    /// The same as [`Schema::root`] of a built-in type, for as long as the process runs.
    pub fn built_in(&self) -> Option<TypeRef<'static>> {
        match self.arena {
            Source::BuiltIn(arena) => Some(TypeRef { arena, id: self.id }),
            Source::Made(_) => None,
        }
    }
}

impl From<TypeRef<'static>> for Schema {
    fn from(ty: TypeRef<'static>) -> Self {
        Schema { arena: Source::BuiltIn(ty.arena), id: ty.id }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root().fmt(f)
    }
}
