//! The objects of one storage at one revision: a persistent tree, so that a snapshot costs nothing to take or keep.

use super::entry::Entry;
use super::fields::Paths;
use imbl::OrdSet;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// An entry, ordered by its key as the store orders keys.
#[derive(Clone, Debug)]
struct ByKey(Arc<Entry>);

impl Borrow<str> for ByKey {
    fn borrow(&self) -> &str {
        self.0.key()
    }
}
impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}
impl Eq for ByKey {}
impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}

/// Which objects of a storage: as far as tree and indexes can tell without looking at one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    All,
    Namespace(String),
    /// `namespace/name`, or `name`.
    Key(String),
    /// Of the indexed field of a number, one value.
    Field(usize, String),
}

impl Scope {
    /// Whether an object is in it.
    pub fn holds(&self, entry: &Entry, paths: &Paths) -> bool {
        match self {
            Scope::All => true,
            Scope::Namespace(namespace) => entry.namespace() == namespace,
            Scope::Key(key) => entry.key() == key,
            Scope::Field(number, value) => entry.field(paths, *number) == value,
        }
    }
}

/// The objects by value of one field.
#[derive(Clone, Debug)]
struct Index {
    field: usize,
    terms: imbl::HashMap<String, OrdSet<ByKey>>,
}

/// The objects of one storage. Clones share everything.
#[derive(Clone, Debug)]
pub struct State {
    /// The last revision that changed anything here.
    revision: u64,
    all: OrdSet<ByKey>,
    indexes: Vec<Index>,
    bytes: usize,
}

impl State {
    pub fn new(revision: u64, paths: &Paths) -> Self {
        let indexed = paths.fields().iter().enumerate().filter(|(_, field)| field.indexed);
        let indexes = indexed.map(|(field, _)| Index { field, terms: imbl::HashMap::new() }).collect();
        State { revision, all: OrdSet::new(), indexes, bytes: 0 }
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }
    pub fn len(&self) -> usize {
        self.all.len()
    }
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
    /// What the objects take in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    pub fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.all.get(key).map(|by_key| &by_key.0)
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>, paths: &Paths) -> Option<Arc<Entry>> {
        self.bytes += entry.size();
        let previous = self.all.insert(ByKey(entry.clone())).map(|by_key| by_key.0);
        if let Some(previous) = &previous {
            self.bytes -= previous.size();
        }
        for index in &mut self.indexes {
            let term = entry.field(paths, index.field);
            if let Some(previous) = &previous {
                let before = previous.field(paths, index.field);
                if before != term {
                    index.remove(before, previous.key());
                }
            }
            match index.terms.get_mut(term) {
                Some(set) => {
                    set.insert(ByKey(entry.clone()));
                }
                None => {
                    index.terms.insert(term.to_owned(), OrdSet::unit(ByKey(entry.clone())));
                }
            }
        }
        previous
    }

    pub(super) fn remove(&mut self, key: &str, paths: &Paths) -> Option<Arc<Entry>> {
        let removed = self.all.remove(key)?.0;
        self.bytes -= removed.size();
        for index in &mut self.indexes {
            index.remove(removed.field(paths, index.field), key);
        }
        Some(removed)
    }

    pub(super) fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// The objects of a scope in the order of their keys, those after a key if one is given.
    pub fn range<'a>(
        &'a self,
        scope: &'a Scope,
        after: Option<&str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + Send + 'a> {
        let after = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.to_owned()));
        let lower = |floor: Bound<String>| match (&after, floor) {
            (Bound::Excluded(key), Bound::Included(floor)) if *key < floor => Bound::Included(floor),
            (Bound::Unbounded, floor) => floor,
            (after, _) => after.clone(),
        };
        fn borrowed(bound: &Bound<String>) -> Bound<&str> {
            bound.as_ref().map(String::as_str)
        }
        match scope {
            Scope::All => Box::new(self.all.range::<_, str>((borrowed(&after), Bound::Unbounded)).map(|e| &e.0)),
            Scope::Namespace(namespace) => {
                let from = lower(Bound::Included(format!("{namespace}/")));
                // '0' follows '/'.
                let to = format!("{namespace}0");
                if matches!(&from, Bound::Excluded(key) if *key >= to) {
                    return Box::new(std::iter::empty());
                }
                Box::new(self.all.range::<_, str>((borrowed(&from), Bound::Excluded(to.as_str()))).map(|e| &e.0))
            }
            Scope::Key(key) => {
                let past = matches!(&after, Bound::Excluded(after) if after >= key);
                Box::new(self.get(key).filter(|_| !past).into_iter())
            }
            Scope::Field(field, value) => {
                let index = self.indexes.iter().find(|index| index.field == *field);
                match index.and_then(|index| index.terms.get(value)) {
                    Some(set) => Box::new(set.range::<_, str>((borrowed(&after), Bound::Unbounded)).map(|e| &e.0)),
                    None => Box::new(std::iter::empty()),
                }
            }
        }
    }
}

impl Index {
    fn remove(&mut self, term: &str, key: &str) {
        if let Some(set) = self.terms.get_mut(term) {
            set.remove(key);
            if set.is_empty() {
                self.terms.remove(term);
            }
        }
    }
}
