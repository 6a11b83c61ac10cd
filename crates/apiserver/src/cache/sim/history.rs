//! All that ever was, by revision: what the judge compares with.

use super::view::{Happened, Object, Storage, Told, View};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::rc::Rc;
use store::Event;

/// All versions of one object; `None`: it is not there.
type Versions = Vec<(i64, Option<Rc<Object>>)>;

#[derive(Default)]
struct Shelf {
    versions: BTreeMap<String, Versions>,
    /// The same as they are stored, but for removals.
    texts: BTreeMap<String, Vec<(i64, Bytes)>>,
    /// In the order of revisions.
    happened: Vec<Happened>,
}

#[derive(Default)]
pub(super) struct History {
    /// Up to here all is known.
    pub(super) revision: i64,
    /// When each revision was made known.
    times: Vec<(i64, u64)>,
    shelves: BTreeMap<Storage, Shelf>,
}

impl History {
    pub(super) fn new() -> Self {
        History { revision: 1, ..Self::default() }
    }

    /// The store tells what happened next.
    pub(super) fn add(&mut self, events: &[Event], now: u64) -> Result<(), String> {
        for event in events {
            let revision = event.revision();
            if revision != self.revision && revision != self.revision + 1 {
                return Err(format!("revision {revision} was made known, and {} was the present", self.revision));
            }
            if revision != self.revision {
                self.revision = revision;
                self.times.push((revision, now));
            }
            let key = std::str::from_utf8(event.key()).map_err(|error| error.to_string())?;
            let Some((storage, key)) = Storage::of(key) else { continue };
            let (object, size) = match event {
                Event::Put { kv, .. } => {
                    (Some(Rc::new(Object::read(&kv.value, Some(revision))?)), kv.value.len() + 800)
                }
                Event::Delete { .. } => (None, 0),
            };
            let shelf = self.shelves.entry(storage).or_default();
            let versions = shelf.versions.entry(key.to_owned()).or_default();
            let before = versions.last().and_then(|(_, object)| object.clone());
            versions.push((revision, object.clone()));
            if let Event::Put { kv, .. } = event {
                shelf.texts.entry(key.to_owned()).or_default().push((revision, kv.value.clone()));
            }
            // What is removed is told with what it was.
            let size = if object.is_some() { size } else { 2000 };
            shelf.happened.push(Happened { revision, before, now: object, size });
        }
        Ok(())
    }

    /// An object as it was at a revision.
    pub(super) fn at(&self, storage: Storage, key: &str, revision: i64) -> Option<&Rc<Object>> {
        let versions = self.shelves.get(&storage)?.versions.get(key)?;
        versions.iter().rev().find(|(made, _)| *made <= revision)?.1.as_ref()
    }

    /// All that an object was, as it is stored.
    pub(super) fn texts(&self, storage: Storage, key: &str) -> &[(i64, Bytes)] {
        self.shelves.get(&storage).and_then(|shelf| shelf.texts.get(key)).map_or(&[], Vec::as_slice)
    }

    /// The keys of all objects that ever were.
    pub(super) fn keys(&self, storage: Storage) -> Vec<&str> {
        self.shelves.get(&storage).into_iter().flat_map(|shelf| shelf.versions.keys().map(String::as_str)).collect()
    }

    /// What happened to an object at a revision.
    pub(super) fn happened(&self, storage: Storage, key: &str, revision: i64) -> Option<&Happened> {
        let since = self.since(storage, revision).iter();
        since.take_while(|happened| happened.revision == revision).find(|happened| happened.key() == key)
    }

    /// What someone saw at a revision, in the order of keys.
    pub(super) fn seen(&self, view: &View, revision: i64) -> Vec<&Rc<Object>> {
        let keys = self.shelves.get(&view.storage).into_iter().flat_map(|shelf| shelf.versions.keys());
        keys.filter_map(|key| self.at(view.storage, key, revision)).filter(|object| view.sees(object)).collect()
    }

    /// What someone is told of what happened from a revision on.
    pub(super) fn told<'a>(&'a self, view: &'a View, from: i64) -> impl Iterator<Item = Told> + 'a {
        self.since(view.storage, from).iter().filter_map(|happened| happened.to(view))
    }

    /// What happened in a storage from a revision on.
    pub(super) fn since(&self, storage: Storage, from: i64) -> &[Happened] {
        let happened = self.shelves.get(&storage).map_or(&[][..], |shelf| &shelf.happened);
        &happened[happened.partition_point(|happened| happened.revision < from)..]
    }

    /// The last revision that is so old.
    pub(super) fn aged(&self, age: u64, now: u64) -> i64 {
        let old = self.times.partition_point(|(_, time)| time + age <= now);
        old.checked_sub(1).map_or(0, |last| self.times[last].0)
    }
}
