//! Typed read accessors over trees: a view is a `&Map` that knows its type, and costs nothing.
//!
//! Every built-in type has one, in a module named by group and version: `view::core_v1::Pod(&map)`. Methods have the
//! field's name in snake case (`type_`, `continue_`, `enum_` where Rust keeps the word) and read, by type:
//! structs `Option<View>`, lists [`List`], maps [`Entries`] ([`StrMap`] for labels and the like), strings, quantities and
//! times `Option<&str>`, integers `Option<i64>`, [`IntOrString`] by its own enum, arbitrary JSON `Option<&Value>`.
//! Lists and maps that are absent read as empty ones.
//!
//! To change an object, use [`Map`]'s path functions with the field's names, e.g. `map.set_at(&["spec", "nodeName"], "a")`.

use crate::tree::{Map, Value};
use std::marker::PhantomData;

/// A typed view of a map.
pub trait View<'a>: Copy {
    fn of(map: &'a Map) -> Self;
}

/// What can be read from a value, when the value is of its kind.
pub trait FromValue<'a>: Sized {
    fn from_value(value: &'a Value) -> Option<Self>;
}

/// A number or a name, as ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntOrString<'a> {
    Int(i64),
    Str(&'a str),
}

/// A list field; empty when absent.
pub struct List<'a, T> {
    items: &'a [Value],
    of: PhantomData<T>,
}

/// A map field; empty when absent.
pub struct Entries<'a, T> {
    map: Option<&'a Map>,
    of: PhantomData<T>,
}

/// Labels, annotations, selectors.
pub type StrMap<'a> = Entries<'a, &'a str>;

impl<'a> FromValue<'a> for &'a str {
    fn from_value(value: &'a Value) -> Option<Self> {
        value.as_str()
    }
}
impl<'a> FromValue<'a> for i64 {
    fn from_value(value: &'a Value) -> Option<Self> {
        value.as_i64()
    }
}
impl<'a> FromValue<'a> for f64 {
    fn from_value(value: &'a Value) -> Option<Self> {
        value.as_f64()
    }
}
impl<'a> FromValue<'a> for bool {
    fn from_value(value: &'a Value) -> Option<Self> {
        value.as_bool()
    }
}
impl<'a> FromValue<'a> for &'a Value {
    fn from_value(value: &'a Value) -> Option<Self> {
        Some(value)
    }
}
impl<'a> FromValue<'a> for &'a Map {
    fn from_value(value: &'a Value) -> Option<Self> {
        value.as_map()
    }
}
impl<'a> FromValue<'a> for IntOrString<'a> {
    fn from_value(value: &'a Value) -> Option<Self> {
        match value {
            Value::Int(i) => Some(IntOrString::Int(*i)),
            Value::Str(s) => Some(IntOrString::Str(s)),
            _ => None,
        }
    }
}
impl<'a, T> FromValue<'a> for List<'a, T> {
    fn from_value(value: &'a Value) -> Option<Self> {
        value.as_list().map(List::new)
    }
}
impl<'a, T> FromValue<'a> for Entries<'a, T> {
    fn from_value(value: &'a Value) -> Option<Self> {
        value.as_map().map(|map| Entries { map: Some(map), of: PhantomData })
    }
}

impl<T> Clone for List<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for List<'_, T> {}
impl<T> Clone for Entries<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Entries<'_, T> {}

impl<'a, T> List<'a, T> {
    pub fn new(items: &'a [Value]) -> Self {
        List { items, of: PhantomData }
    }
    pub fn len(self) -> usize {
        self.items.len()
    }
    pub fn is_empty(self) -> bool {
        self.items.is_empty()
    }
    /// The values themselves.
    pub fn values(self) -> &'a [Value] {
        self.items
    }
}

impl<'a, T: FromValue<'a>> List<'a, T> {
    /// The elements (of a tree that has been decoded by its type, all of them).
    pub fn iter(self) -> impl DoubleEndedIterator<Item = T> + Clone {
        self.items.iter().filter_map(T::from_value)
    }
    pub fn get(self, at: usize) -> Option<T> {
        T::from_value(self.items.get(at)?)
    }
    pub fn first(self) -> Option<T> {
        self.get(0)
    }
}

impl<'a, T: FromValue<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = std::iter::FilterMap<std::slice::Iter<'a, Value>, fn(&'a Value) -> Option<T>>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter().filter_map(T::from_value)
    }
}

impl<'a, T> Entries<'a, T> {
    pub fn len(self) -> usize {
        self.map.map_or(0, Map::len)
    }
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
    /// The map itself, if it is there.
    pub fn map(self) -> Option<&'a Map> {
        self.map
    }
    pub fn contains_key(self, key: &str) -> bool {
        self.map.is_some_and(|map| map.contains_key(key))
    }
}

impl<'a, T: FromValue<'a>> Entries<'a, T> {
    pub fn get(self, key: &str) -> Option<T> {
        T::from_value(self.map?.get(key)?)
    }
    /// Sorted by key.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = (&'a str, T)> {
        self.map.into_iter().flat_map(Map::iter).filter_map(|(key, value)| Some((key, T::from_value(value)?)))
    }
}

#[inline]
fn get<'a, T: FromValue<'a>>(map: &'a Map, key: &str) -> Option<T> {
    T::from_value(map.get(key)?)
}

#[inline]
fn list<'a, T>(map: &'a Map, key: &str) -> List<'a, T> {
    List::new(map.get(key).and_then(Value::as_list).unwrap_or(&[]))
}

#[inline]
fn entries<'a, T>(map: &'a Map, key: &str) -> Entries<'a, T> {
    Entries { map: map.get(key).and_then(Value::as_map), of: PhantomData }
}

include!(concat!(env!("OUT_DIR"), "/views.rs"));
