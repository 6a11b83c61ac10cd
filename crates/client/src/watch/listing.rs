//! Which of somebody's objects a list has not brought.

use super::Event;
use kube::Resource;
use kube::core::ObjectMeta;
use std::collections::BTreeSet;

/// The lists of a watch, for who keeps something by the objects' names: what is not in a list when it ends is gone.
#[derive(Debug)]
pub struct Listing<N> {
    missing: BTreeSet<N>,
    complete: bool,
}

impl<N> Default for Listing<N> {
    fn default() -> Self {
        Listing { missing: BTreeSet::new(), complete: false }
    }
}

impl<N: Ord> Listing<N> {
    /// Whether a list has ended: since then all objects are known.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Which object an event brings, and the names of those that it says are gone. `name` names an object, and `known` are those
    /// that are kept.
    pub fn take<K: Resource>(
        &mut self,
        event: Event<K>,
        name: impl FnOnce(&ObjectMeta) -> N,
        known: impl FnOnce() -> BTreeSet<N>,
    ) -> (Option<K>, BTreeSet<N>) {
        match event {
            Event::Init => {
                self.missing = known();
                (None, BTreeSet::new())
            }
            Event::InitApply(object) | Event::Apply(object) => {
                self.missing.remove(&name(object.meta()));
                (Some(object), BTreeSet::new())
            }
            Event::Delete(object) => (None, BTreeSet::from([name(object.meta())])),
            Event::InitDone => {
                self.complete = true;
                (None, std::mem::take(&mut self.missing))
            }
        }
    }
}
