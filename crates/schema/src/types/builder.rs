//! Type graphs made at run time, for custom resources.

use super::arena::{Arena, FieldRow, Names, Source, StructRow, Text, Topology, TypeRow};
use super::rows::{code, flag};
use super::{Kind, Schema, TypeRef, find};
use crate::tree::Value;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Makes an arena. Types are named by number while it is built.
#[derive(Default)]
pub struct Builder {
    names: Vec<&'static str>,
    types: Vec<TypeRow>,
    structs: Vec<StructRow>,
    fields: Vec<FieldRow>,
    topologies: Vec<Topology>,
    defaults: Vec<Value>,
    by_name: HashMap<&'static str, u32>,
    copied: HashMap<u32, u32>,
}

/// A graph has more rows than its numbers can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schema is too large: it has more than {0} defaults or list types")]
pub struct TooLarge(usize);

/// A field of a struct that is being made.
pub struct NewField {
    pub name: String,
    pub ty: u32,
    /// See [`flag`].
    pub flags: u16,
    pub topology: Topology,
    pub default: Option<Value>,
}

impl Builder {
    pub fn new() -> Builder {
        let mut builder = Builder { topologies: vec![Topology::default()], ..Builder::default() };
        for code in 0..code::SCALARS {
            builder.types.push(TypeRow { code, of: 0 });
        }
        builder
    }

    /// The number of a scalar kind. Panics on a kind that is not scalar.
    pub fn scalar(&self, kind: Kind<'_>) -> u32 {
        u32::from(match kind {
            Kind::String => code::STRING,
            Kind::Bool => code::BOOL,
            Kind::Int32 => code::INT32,
            Kind::Int64 => code::INT64,
            Kind::Float => code::FLOAT,
            Kind::Quantity => code::QUANTITY,
            Kind::IntOrString => code::INT_OR_STRING,
            Kind::Time => code::TIME,
            Kind::MicroTime => code::MICRO_TIME,
            Kind::Duration => code::DURATION,
            Kind::Bytes => code::BYTES,
            Kind::Raw => code::RAW,
            Kind::Json => code::JSON,
            Kind::Fields => code::FIELDS,
            other => panic!("{other:?} is not a scalar kind"),
        })
    }

    pub fn list(&mut self, of: u32) -> u32 {
        self.push(code::LIST, of)
    }

    pub fn map(&mut self, of: u32) -> u32 {
        self.push(code::MAP, of)
    }

    fn push(&mut self, code: u8, of: u32) -> u32 {
        self.types.push(TypeRow { code, of });
        self.types.len() as u32 - 1
    }

    fn name(&mut self, name: &str) -> Text {
        let name = intern(name);
        let next = self.names.len() as u32;
        let number = *self.by_name.entry(name).or_insert(next);
        if number == next {
            self.names.push(name);
        }
        Text(number)
    }

    /// A struct. `struct_flags`: [`flag::ATOMIC`], [`flag::OPEN`].
    ///
    /// # Errors
    /// [`TooLarge`] when the graph has more than 65,534 defaults or kinds of list.
    pub fn structure(&mut self, name: &str, struct_flags: u16, mut fields: Vec<NewField>) -> Result<u32, TooLarge> {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        fields.dedup_by(|a, b| a.name == b.name);
        let first = self.fields.len() as u32;
        let mut always = 0;
        for field in fields {
            if field.flags & (flag::POINTER | flag::OMIT_EMPTY) == 0 {
                always = flag::ALWAYS;
            }
            let topology = match self.topologies.iter().position(|t| *t == field.topology) {
                Some(at) => at,
                None => {
                    self.topologies.push(field.topology);
                    self.topologies.len() - 1
                }
            };
            let default = match field.default {
                None => 0,
                Some(value) => {
                    self.defaults.push(value);
                    self.defaults.len()
                }
            };
            let number = |n: usize| u16::try_from(n).map_err(|_| TooLarge(usize::from(u16::MAX)));
            let row = FieldRow {
                name: self.name(&field.name),
                ty: field.ty,
                flags: field.flags,
                number: 0,
                topology: number(topology)?,
                default: number(default)?,
                group: 0,
            };
            self.fields.push(row);
        }
        let fields = self.fields.len() as u32 - first;
        let name = self.name(name);
        self.structs.push(StructRow { name, first, fields, groups: 0, group_count: 0, flags: struct_flags | always });
        let number = self.structs.len() as u32 - 1;
        Ok(self.push(code::STRUCT, number))
    }

    /// Copies a built-in type (ObjectMeta …) and what it reaches. Panics on a name that is not built in.
    ///
    /// # Errors
    /// As [`Builder::structure`].
    pub fn built_in(&mut self, name: &str) -> Result<u32, TooLarge> {
        let ty = find(name).unwrap_or_else(|| panic!("{name} is not a built-in type"));
        self.copy(ty)
    }

    fn copy(&mut self, ty: TypeRef<'static>) -> Result<u32, TooLarge> {
        if ty.id < u32::from(code::SCALARS) {
            return Ok(ty.id);
        }
        if let Some(number) = self.copied.get(&ty.id) {
            return Ok(*number);
        }
        let number = match ty.kind() {
            Kind::List(of) => {
                let of = self.copy(of)?;
                self.list(of)
            }
            Kind::Map(of) => {
                let of = self.copy(of)?;
                self.map(of)
            }
            Kind::Struct(s) => {
                let mut fields = Vec::new();
                for field in s.fields() {
                    fields.push(NewField {
                        name: field.name().to_owned(),
                        ty: self.copy(field.ty())?,
                        flags: field.row.flags,
                        topology: field.topology().clone(),
                        default: field.default().cloned(),
                    });
                }
                self.structure(s.name(), s.row.flags, fields)?
            }
            // Only the types of CustomResourceDefinition itself are of these kinds, and they are recursive.
            other => panic!("{other:?} can't be copied"),
        };
        self.copied.insert(ty.id, number);
        Ok(number)
    }

    /// The graph, with `root` as its type.
    pub fn build(self, root: u32) -> Schema {
        let arena = Arena {
            names: Names::Interned(self.names),
            types: Cow::Owned(self.types),
            structs: Cow::Owned(self.structs),
            fields: Cow::Owned(self.fields),
            groups: Cow::Borrowed(&[]),
            topologies: Cow::Owned(self.topologies),
            defaults: Cow::Owned(self.defaults),
        };
        Schema { arena: Source::Made(Arc::new(arena)), id: root }
    }
}

/// The one copy of a name that lives for ever, so that keys of trees cost nothing.
///
/// Names are never given back: what is kept grows with the distinct field names of custom resource definitions,
/// which only administrators write, not with objects.
fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_with(HashSet::new);
    match names.get(name) {
        Some(name) => name,
        None => {
            let name: &'static str = Box::leak(name.into());
            names.insert(name);
            name
        }
    }
}
