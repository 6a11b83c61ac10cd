//! The tree: any object of any kind, decoded once and worked on in place.
//!
//! Maps are sorted by key (bytewise), so that encoding is deterministic, lookup is a search and equality is structural.
//! Keys that the catalogue knows are `&'static str` and cost nothing; short strings live inline.
//!
//! A copy of a map shares its entries until either is changed, and then only the maps on the way to the change are copied. So an
//! object that is changed in a few places is mostly the one that it was made from, and [`Map::is`] tells where: what is known of
//! the old one need not be found out again of those parts. Parts of an object that the server itself wrote may stay text until they
//! are read ([`json::decode_leaving`](crate::json::decode_leaving)).

use crate::unread::Unread;
use compact_str::CompactString;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// A key of a [`Map`].
pub type Key = Cow<'static, str>;

/// A value of the tree. `Null` is kept only where an absent list or map must be written as `null`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(CompactString),
    List(Vec<Value>),
    Map(Map),
    /// The JSON of an object, as text: a set of owned fields (`metav1.FieldsV1`), which only apply takes apart.
    Raw(Box<str>),
}

pub(crate) type Entries = Vec<(Key, Value)>;

/// A map sorted by key; keys are unique. Cloning it costs nothing.
#[derive(Clone, Default)]
pub struct Map(Held);

#[derive(Clone, Default)]
enum Held {
    #[default]
    Nothing,
    Entries(Arc<Entries>),
    /// Not changed since it was text, and maybe not read.
    Text(Arc<Unread>),
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Map) -> bool {
        self.is_plainly(other) || self.entries() == other.entries()
    }
}

/// The entries of a map, by which those of another with about the same keys are found, in their order.
pub(crate) struct Beside<'a>(&'a [(Key, Value)]);

impl<'a> Beside<'a> {
    pub(crate) fn new(map: Option<&'a Map>) -> Self {
        Beside(map.map_or(&[], Map::entries))
    }
    /// The value of a key; keys must be asked for in their order.
    pub(crate) fn value(&mut self, key: &str) -> Option<&'a Value> {
        while let Some(((first, value), rest)) = self.0.split_first() {
            if is_same(first.as_bytes(), key.as_bytes()) {
                self.0 = rest;
                return Some(value);
            }
            if order(first.as_bytes(), key.as_bytes()).is_gt() {
                return None;
            }
            self.0 = rest;
        }
        None
    }
}

/// Maps of at most so many entries are searched from their beginning.
const SMALL: usize = 24;

/// The order of two names. Most differ in their first byte, which is cheaper to see than to call for.
pub(crate) fn order(a: &[u8], b: &[u8]) -> Ordering {
    match (a.first(), b.first()) {
        (Some(first), Some(other)) if first != other => first.cmp(other),
        _ => a.cmp(b),
    }
}

fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && (std::ptr::eq(a, b) || a.last() == b.last() && a == b)
}

impl Map {
    pub const fn new() -> Self {
        Map(Held::Nothing)
    }
    /// Entries that are sorted by key, without duplicates.
    pub(crate) fn from_sorted(entries: Entries) -> Self {
        debug_assert!(entries.is_sorted_by(|(a, _), (b, _)| a < b));
        if entries.is_empty() { Map::new() } else { Map(Held::Entries(Arc::new(entries))) }
    }
    pub(crate) fn unread(unread: Unread) -> Self {
        Map(Held::Text(Arc::new(unread)))
    }
    /// The JSON that it was read from, or can be, if it was not changed since.
    pub(crate) fn text(&self) -> Option<&[u8]> {
        match &self.0 {
            Held::Text(unread) => Some(unread.text()),
            Held::Nothing | Held::Entries(_) => None,
        }
    }
    /// Whether it is text that nobody has asked for anything: see [`json::decode_leaving`](crate::json::decode_leaving).
    pub fn is_unread(&self) -> bool {
        matches!(&self.0, Held::Text(unread) if unread.known().is_none())
    }
    fn entries(&self) -> &[(Key, Value)] {
        match &self.0 {
            Held::Nothing => &[],
            Held::Entries(entries) => entries,
            Held::Text(unread) => unread.entries(),
        }
    }
    /// The entries for change, copied if they are shared.
    fn entries_mut(&mut self) -> &mut Entries {
        match &self.0 {
            Held::Entries(_) => {}
            Held::Nothing => self.0 = Held::Entries(Arc::default()),
            Held::Text(unread) => self.0 = Held::Entries(unread.entries().clone()),
        }
        match &mut self.0 {
            Held::Entries(entries) => Arc::make_mut(entries),
            Held::Nothing | Held::Text(_) => unreachable!("it has entries now"),
        }
    }
    /// Whether this is the other, not changed since it was copied. `false` says nothing; empty maps are the same.
    pub fn is(&self, other: &Map) -> bool {
        match (&self.0, &other.0) {
            (Held::Nothing, Held::Nothing) => true,
            (Held::Entries(one), Held::Entries(other)) => Arc::ptr_eq(one, other),
            (Held::Text(one), Held::Text(other)) => Arc::ptr_eq(one, other),
            (Held::Entries(read), Held::Text(unread)) | (Held::Text(unread), Held::Entries(read)) => {
                unread.known().is_some_and(|known| Arc::ptr_eq(known, read))
            }
            _ => false,
        }
    }
    /// Whether this equals the other, as far as that can be told without reading either.
    pub(crate) fn is_plainly(&self, other: &Map) -> bool {
        self.is(other) || self.text().is_some_and(|text| other.text() == Some(text))
    }
    /// Whether this has of a key what the other has, as far as that can be told without a look into it: neither has any, or this has
    /// the other's, not changed since it was copied.
    pub fn shares(&self, other: &Map, key: &str) -> bool {
        match (self.get(key), other.get(key)) {
            (None, None) => true,
            (Some(Value::Map(map)), Some(Value::Map(other))) => map.is(other),
            _ => false,
        }
    }
    /// Where a key is, or belongs.
    fn find(&self, key: &str) -> Result<usize, usize> {
        self.entries().binary_search_by(|(k, _)| order(k.as_bytes(), key.as_bytes()))
    }
    /// Where a key is. Most maps are small, and few of their keys have the length of another: looking at all lengths is quicker
    /// than comparing the bytes of some.
    fn place(&self, key: &str) -> Option<usize> {
        let entries = self.entries();
        if entries.len() <= SMALL {
            entries.iter().position(|(k, _)| is_same(k.as_bytes(), key.as_bytes()))
        } else {
            self.find(key).ok()
        }
    }
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.place(key).map(|i| &self.entries()[i].1)
    }
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.place(key).map(|i| &mut self.entries_mut()[i].1)
    }
    /// Sets a key, returning what it had.
    pub fn insert(&mut self, key: impl Into<Key>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        match self.find(&key) {
            Ok(i) => Some(std::mem::replace(&mut self.entries_mut()[i].1, value)),
            Err(i) => {
                self.entries_mut().insert(i, (key, value));
                None
            }
        }
    }
    /// The value of a key, made by `make` when it is absent or null.
    pub fn entry(&mut self, key: impl Into<Key>, make: impl FnOnce() -> Value) -> &mut Value {
        let key = key.into();
        let found = self.find(&key);
        let entries = self.entries_mut();
        let i = match found {
            Ok(i) => {
                if entries[i].1 == Value::Null {
                    entries[i].1 = make();
                }
                i
            }
            Err(i) => {
                entries.insert(i, (key, make()));
                i
            }
        };
        &mut entries[i].1
    }
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.place(key).map(|i| self.entries_mut().remove(i).1)
    }
    pub fn contains_key(&self, key: &str) -> bool {
        self.place(key).is_some()
    }
    pub fn len(&self) -> usize {
        self.entries().len()
    }
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Held::Nothing => true,
            Held::Entries(entries) => entries.is_empty(),
            Held::Text(_) => false,
        }
    }
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &Value)> + ExactSizeIterator {
        self.entries().iter().map(|(k, v)| (k.as_ref(), v))
    }
    pub fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (&str, &mut Value)> + ExactSizeIterator {
        let entries = if self.is_empty() { &mut [] } else { self.entries_mut().as_mut_slice() };
        entries.iter_mut().map(|entry| (&*entry.0, &mut entry.1))
    }
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Value) -> bool) {
        if !self.is_empty() {
            self.entries_mut().retain_mut(|(k, v)| keep(k, v));
        }
    }
    pub fn into_entries(self) -> Vec<(Key, Value)> {
        match self.0 {
            Held::Nothing => Vec::new(),
            Held::Entries(entries) => Arc::unwrap_or_clone(entries),
            Held::Text(unread) => unread.entries().to_vec(),
        }
    }

    /// The string at a path of keys, or `""`.
    pub fn str_at(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or("")
    }
    /// The value at a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.get(first)?;
        for key in rest {
            value = value.as_map()?.get(key)?;
        }
        Some(value)
    }
    /// The value at a path of keys, for change.
    pub fn at_mut(&mut self, path: &[&str]) -> Option<&mut Value> {
        let (first, rest) = path.split_first()?;
        let mut value = self.get_mut(first)?;
        for key in rest {
            value = value.as_map_mut()?.get_mut(key)?;
        }
        Some(value)
    }
    /// Sets the value at a path, making maps on the way (a scalar on the way is replaced).
    pub fn set_at(&mut self, path: &[&'static str], value: impl Into<Value>) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut map = self;
        for key in parents {
            let next = map.entry(*key, || Value::Map(Map::new()));
            if next.as_map().is_none() {
                *next = Value::Map(Map::new());
            }
            match next {
                Value::Map(inner) => map = inner,
                _ => return,
            }
        }
        map.insert(*last, value);
    }
    /// Removes the value at a path, returning it.
    pub fn remove_at(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        if parents.is_empty() {
            return self.remove(last);
        }
        self.at_mut(parents)?.as_map_mut()?.remove(last)
    }
}

impl Extend<(Key, Value)> for Map {
    fn extend<T: IntoIterator<Item = (Key, Value)>>(&mut self, entries: T) {
        for (k, v) in entries {
            self.insert(k, v);
        }
    }
}

impl IntoIterator for Map {
    type Item = (Key, Value);
    type IntoIter = std::vec::IntoIter<(Key, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_entries().into_iter()
    }
}

impl FromIterator<(Key, Value)> for Map {
    /// Later duplicates win.
    fn from_iter<T: IntoIterator<Item = (Key, Value)>>(entries: T) -> Self {
        let mut map = Map::new();
        map.extend(entries);
        map
    }
}

impl Value {
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(s) => Some(s),
            _ => None,
        }
    }
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Int(i) => Some(*i),
            _ => None,
        }
    }
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(l) => Some(l),
            _ => None,
        }
    }
    pub fn as_list_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::List(l) => Some(l),
            _ => None,
        }
    }
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Value::Map(m) => Some(m),
            _ => None,
        }
    }
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        match self {
            Value::Map(m) => Some(m),
            _ => None,
        }
    }
    /// A number of either kind.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Float(f) => Some(*f),
            Value::Int(i) => Some(*i as f64),
            _ => None,
        }
    }
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Self {
        Value::Str(s.into())
    }
}
impl From<String> for Value {
    fn from(s: String) -> Self {
        Value::Str(s.into())
    }
}
impl From<CompactString> for Value {
    fn from(s: CompactString) -> Self {
        Value::Str(s)
    }
}
impl From<i64> for Value {
    fn from(i: i64) -> Self {
        Value::Int(i)
    }
}
impl From<i32> for Value {
    fn from(i: i32) -> Self {
        Value::Int(i.into())
    }
}
impl From<bool> for Value {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}
impl From<Map> for Value {
    fn from(m: Map) -> Self {
        Value::Map(m)
    }
}
impl From<Vec<Value>> for Value {
    fn from(l: Vec<Value>) -> Self {
        Value::List(l)
    }
}
