//! Which objects the API server can't read, and when it may still, or already, act on that.

use super::view::Storage;
use super::wire::Veils;
use std::collections::{BTreeMap, BTreeSet};

/// Objects that can't be read, by what the API server was told of them.
#[derive(Debug, Default)]
pub(super) struct Dark {
    /// At which look each could be read again; `None`: not yet.
    objects: BTreeMap<(Storage, String), Option<u64>>,
    /// How often something turned dark or light in each storage, as far as it was looked at.
    turns: BTreeMap<Storage, u64>,
    /// The API server may not have done yet what comes of that.
    turning: BTreeSet<Storage>,
    /// The last look at which it had not.
    turned: BTreeMap<Storage, u64>,
}

impl Dark {
    /// Another API server begins, which was told of nothing yet.
    pub(super) fn started(&mut self) {
        self.objects.clear();
        self.turning.clear();
        self.turned.clear();
    }

    /// Looks at what it was told; tells in which storages it may act on something that turned. It is done with that when it
    /// is `at_rest`.
    pub(super) fn see(&mut self, veils: &BTreeMap<Storage, Veils>, at_rest: bool, look: u64) -> BTreeSet<Storage> {
        for (storage, veils) in veils {
            if self.turns.insert(*storage, veils.turns).unwrap_or(0) < veils.turns {
                self.turning.insert(*storage);
            }
            self.objects.extend(veils.keys.keys().map(|key| ((*storage, key.clone()), None)));
        }
        let is_dark = |storage, key| veils.get(storage).is_some_and(|veils: &Veils| veils.keys.contains_key(key));
        for ((storage, key), light) in self.objects.iter_mut().filter(|(_, light)| light.is_none()) {
            if !is_dark(storage, key.as_str()) && !self.turning.contains(storage) {
                *light = Some(look);
            }
        }
        self.turned.extend(self.turning.iter().map(|storage| (*storage, look)));
        if at_rest { std::mem::take(&mut self.turning) } else { self.turning.clone() }
    }

    /// Whether one of these objects could not be read at some time since a look.
    pub(super) fn was(&self, storage: Storage, seen: impl Fn(&str) -> bool, look: u64) -> bool {
        let of_it = self.objects.iter().filter(|((of, key), _)| *of == storage && seen(key));
        of_it.map(|(_, light)| light).any(|light| light.is_none_or(|light| light >= look))
    }

    /// Whether an object of a storage turned dark or light since a look, and that may not have been done with before.
    pub(super) fn turned_since(&self, storage: Storage, look: u64) -> bool {
        self.turned.get(&storage).is_some_and(|turned| *turned >= look)
    }
}
