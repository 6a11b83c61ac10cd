//! The objects of one storage at one revision: a persistent tree, so that a snapshot costs nothing to take or keep.

use super::entry::Entry;
use super::fields::Paths;
use super::hooks::{self, Mutant};
use api::selector::Labels as _;
use imbl::{OrdMap, OrdSet};
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
    /// Of a label, one value; in one namespace, or in all.
    Label {
        key: String,
        value: String,
        namespace: Option<String>,
    },
}

impl Scope {
    /// Whether an object is in it.
    pub fn holds(&self, entry: &Entry, paths: &Paths) -> bool {
        match self {
            Scope::All => true,
            Scope::Namespace(namespace) => entry.namespace() == namespace,
            Scope::Key(key) => entry.key() == key,
            Scope::Field(number, value) => entry.field(paths, *number) == value,
            Scope::Label { key, value, namespace } => {
                entry.label(key) == Some(value)
                    && namespace.as_deref().is_none_or(|namespace| entry.namespace() == namespace)
            }
        }
    }

    /// Whether it is an index's: objects come and go in it while they stay what they are.
    pub fn is_indexed(&self) -> bool {
        matches!(self, Scope::Field(..) | Scope::Label { .. })
    }
}

/// An object that is there and cannot be read.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Behind the storage's prefix.
    pub key: String,
    /// The version that cannot be read.
    pub revision: u64,
    /// Why, in upstream's words if there are any.
    pub why: String,
}

/// A set of keys in their order. Only a change of the term itself touches it, not each change of an object that has the term.
type Keys = OrdSet<Arc<str>>;

/// How an indexed field's value, and a label, are spelled among the terms. No label begins with NUL.
fn field_term(number: usize, value: &str) -> String {
    ["\0", number.to_string().as_str(), "=", value].concat()
}
fn label_term(key: &str, value: &str) -> String {
    [key, "=", value].concat()
}

/// The objects of one storage. Clones share everything.
#[derive(Clone, Debug)]
pub struct State {
    /// The last revision that changed anything here.
    revision: u64,
    all: OrdSet<ByKey>,
    /// The objects by value of indexed fields and by labels.
    terms: imbl::HashMap<String, Keys>,
    /// How many objects there are in each namespace.
    namespaces: imbl::HashMap<String, usize>,
    /// What is there, too, but cannot be read: it is in none of the above, and must not pass for absent.
    unreadable: OrdMap<Arc<str>, Arc<Unreadable>>,
    bytes: usize,
}

impl State {
    pub fn new(revision: u64) -> Self {
        let (terms, namespaces) = (imbl::HashMap::new(), imbl::HashMap::new());
        State { revision, all: OrdSet::new(), terms, namespaces, unreadable: OrdMap::new(), bytes: 0 }
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
    /// How many objects there are in a namespace.
    pub fn len_of_namespace(&self, namespace: &str) -> usize {
        self.namespaces.get(namespace).copied().unwrap_or(0)
    }
    /// How many objects have a label with this value.
    pub fn len_of_label(&self, key: &str, value: &str) -> usize {
        self.terms.get(&label_term(key, value)).map_or(0, OrdSet::len)
    }
    /// What the objects take in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
    pub fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.all.get(key).map(|by_key| &by_key.0)
    }

    /// The object of a key; `None` when there is none.
    ///
    /// # Errors
    /// There is one that cannot be read.
    pub fn find(&self, key: &str) -> Result<Option<&Arc<Entry>>, Unreadable> {
        match self.unreadable(key) {
            Some(unreadable) => Err(unreadable.clone()),
            None => Ok(self.get(key)),
        }
    }

    /// What cannot be read of a key.
    pub(super) fn unreadable(&self, key: &str) -> Option<&Unreadable> {
        self.unreadable.get(key).map(|unreadable| &**unreadable)
    }

    /// All that cannot be read, in the order of keys.
    pub(super) fn unreadables(&self) -> impl Iterator<Item = &Unreadable> {
        self.unreadable.values().map(|unreadable| &**unreadable)
    }

    /// Whether a range of a scope tells all there is.
    ///
    /// # Errors
    /// The first object of the scope that cannot be read; in doubt, any.
    pub fn check(&self, scope: &Scope) -> Result<(), Unreadable> {
        self.check_named(scope, |_, _| true)
    }

    /// The same of those objects only whose namespace and name are wanted.
    pub(super) fn check_named(&self, scope: &Scope, wanted: impl Fn(&str, &str) -> bool) -> Result<(), Unreadable> {
        let within = |key: &str| match scope {
            Scope::Namespace(namespace) | Scope::Label { namespace: Some(namespace), .. } => {
                key.split_once('/').is_some_and(|(own, _)| own == namespace)
            }
            Scope::Key(one) => key == one,
            Scope::All | Scope::Field(..) | Scope::Label { namespace: None, .. } => true,
        };
        let seen = |key: &str| {
            let (namespace, name) = key.split_once('/').unwrap_or(("", key));
            within(key) && wanted(namespace, name)
        };
        match self.unreadables().find(|unreadable| seen(&unreadable.key)) {
            Some(_) if hooks::is(Mutant::UnreadableTakenForAbsent) => Ok(()),
            Some(unreadable) => Err(unreadable.clone()),
            None => Ok(()),
        }
    }

    /// Takes note that a key has a value that cannot be read, in the place of what it had.
    pub(super) fn lose(&mut self, unreadable: Unreadable, paths: &Paths) -> Option<Arc<Entry>> {
        let removed = self.remove(&unreadable.key, paths);
        self.unreadable.insert(unreadable.key.as_str().into(), Arc::new(unreadable));
        removed
    }

    fn regain(&mut self, key: &str) {
        // Mostly there is nothing to look for.
        if !self.unreadable.is_empty() {
            self.unreadable.remove(key);
        }
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>, paths: &Paths) -> Option<Arc<Entry>> {
        self.regain(entry.key());
        self.bytes += entry.size();
        let previous = self.all.insert(ByKey(entry.clone())).map(|by_key| by_key.0);
        match &previous {
            Some(previous) => self.bytes -= previous.size(),
            None => *self.namespaces.entry(entry.namespace().to_owned()).or_default() += 1,
        }
        let previous_of = previous.as_deref();
        for (number, _) in paths.fields().iter().enumerate().filter(|(_, field)| field.indexed) {
            let (before, now) = (previous_of.map(|p| p.field(paths, number)), entry.field(paths, number));
            if before != Some(now) {
                if let Some(before) = before
                    && !hooks::is(Mutant::StaleFieldIndex)
                {
                    self.forget(field_term(number, before), entry.key());
                }
                self.note(field_term(number, now), &entry);
            }
        }
        if previous_of.is_none_or(|previous| !previous.labels().eq(entry.labels())) {
            for (key, before) in previous_of.into_iter().flat_map(Entry::labels) {
                if entry.label(key) != Some(before) {
                    self.forget(label_term(key, before), entry.key());
                }
            }
            let stale = previous_of.is_some() && hooks::is(Mutant::StaleLabelIndex);
            for (key, now) in entry.labels().filter(|_| !stale) {
                if previous_of.and_then(|previous| previous.label(key)) != Some(now) {
                    self.note(label_term(key, now), &entry);
                }
            }
        }
        previous
    }

    pub(super) fn remove(&mut self, key: &str, paths: &Paths) -> Option<Arc<Entry>> {
        self.regain(key);
        let removed = self.all.remove(key)?.0;
        self.bytes -= removed.size();
        if let Some(count) = self.namespaces.get_mut(removed.namespace()) {
            *count -= 1;
            if *count == 0 {
                self.namespaces.remove(removed.namespace());
            }
        }
        for (number, _) in paths.fields().iter().enumerate().filter(|(_, field)| field.indexed) {
            self.forget(field_term(number, removed.field(paths, number)), key);
        }
        for (label, value) in removed.labels() {
            self.forget(label_term(label, value), key);
        }
        Some(removed)
    }

    fn note(&mut self, term: String, entry: &Entry) {
        self.terms.entry(term).or_default().insert(entry.shared_key());
    }

    fn forget(&mut self, term: String, key: &str) {
        if let Some(keys) = self.terms.get_mut(&term) {
            keys.remove(key);
            if keys.is_empty() {
                self.terms.remove(&term);
            }
        }
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
        match scope {
            Scope::All => Box::new(self.all.range::<_, str>(bounds(None, after).as_ref()).map(|e| &e.0)),
            Scope::Namespace(namespace) => {
                let bounds = bounds(Some(namespace), after);
                if bounds.is_empty() {
                    return Box::new(std::iter::empty());
                }
                Box::new(self.all.range::<_, str>(bounds.as_ref()).map(|e| &e.0))
            }
            Scope::Key(key) => {
                let past = after.is_some_and(|after| after >= key.as_str());
                Box::new(self.get(key).filter(|_| !past).into_iter())
            }
            Scope::Field(number, value) => self.having(&field_term(*number, value), None, after),
            Scope::Label { key, value, namespace } => self.having(&label_term(key, value), namespace.as_deref(), after),
        }
    }

    fn having<'a>(
        &'a self,
        term: &str,
        namespace: Option<&str>,
        after: Option<&str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + Send + 'a> {
        let bounds = bounds(namespace, after);
        match self.terms.get(term) {
            Some(keys) if !bounds.is_empty() => {
                Box::new(keys.range::<_, str>(bounds.as_ref()).filter_map(|key| self.get(key)))
            }
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// Between which keys something is.
struct Bounds(Bound<String>, Bound<String>);

/// Those of a namespace, or all; after a key, or from the first.
fn bounds(namespace: Option<&str>, after: Option<&str>) -> Bounds {
    // '0' follows '/'.
    let floor = namespace.map(|namespace| [namespace, "/"].concat());
    let end = namespace.map_or(Bound::Unbounded, |namespace| Bound::Excluded([namespace, "0"].concat()));
    let start = match (after, floor) {
        (Some(after), Some(floor)) if *after < *floor => Bound::Included(floor),
        (Some(after), _) => Bound::Excluded(after.to_owned()),
        (None, Some(floor)) => Bound::Included(floor),
        (None, None) => Bound::Unbounded,
    };
    Bounds(start, end)
}

impl Bounds {
    /// Trees refuse ranges that end before they begin.
    fn is_empty(&self) -> bool {
        matches!((&self.0, &self.1), (Bound::Excluded(start), Bound::Excluded(end)) if start >= end)
    }

    fn as_ref(&self) -> (Bound<&str>, Bound<&str>) {
        (self.0.as_ref().map(String::as_str), self.1.as_ref().map(String::as_str))
    }
}
