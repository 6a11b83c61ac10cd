//! Changes that came together, as watchers who asked for the same see them.

use super::change::{Change, ChangeKind, ViewId};
use super::hooks;
use crate::measure::Histogram;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Objects of so many bytes go together at most; one that is larger goes alone.
const MOST: usize = hooks::bound(64 * 1024, 2_000);

/// A change, and what it is to the one who gets it.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub change: Arc<Change>,
    pub kind: ChangeKind,
}

/// What is sent of a batch.
#[derive(Debug)]
pub struct Told {
    pub bytes: Bytes,
    /// How large its events are.
    pub sizes: Histogram,
}

/// Changes that came together, as one group of watchers sees them: at least one, in their order. The watchers of the group share
/// it, and what the first of each view made of it, so that each has one thing to do for many changes.
#[derive(Debug)]
pub struct Batch {
    deliveries: Vec<Delivery>,
    size: usize,
    told: Mutex<Vec<(ViewId, Arc<Told>)>>,
}

impl Batch {
    /// The batches of changes in their order.
    pub(super) fn of(deliveries: Vec<Delivery>) -> Vec<Arc<Batch>> {
        let mut batches = Vec::new();
        let (mut gathered, mut size) = (Vec::new(), 0);
        for delivery in deliveries {
            let more = delivery.change.entry.size();
            if size + more > MOST && !gathered.is_empty() {
                batches.push(Self::made(std::mem::take(&mut gathered), std::mem::take(&mut size)));
            }
            size += more;
            gathered.push(delivery);
        }
        if !gathered.is_empty() {
            batches.push(Self::made(gathered, size));
        }
        batches
    }

    fn made(deliveries: Vec<Delivery>, size: usize) -> Arc<Self> {
        Arc::new(Batch { deliveries, size, told: Mutex::default() })
    }

    /// The changes, in their order.
    pub fn deliveries(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// What its objects take in memory, about.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// What of it is younger than a revision.
    pub(super) fn after(self: &Arc<Self>, revision: u64) -> Option<Arc<Self>> {
        let old = self.deliveries.iter().take_while(|delivery| delivery.change.revision() <= revision).count();
        if old == 0 {
            return Some(self.clone());
        }
        let rest = self.deliveries[old..].to_vec();
        let size = rest.iter().map(|delivery| delivery.change.entry.size()).sum();
        (!rest.is_empty()).then(|| Self::made(rest, size))
    }

    /// What is sent of the batch in a view, made once for all that share it.
    ///
    /// # Errors
    /// Those of `make`, which the next who asks tries again.
    pub fn told<E>(&self, view: ViewId, make: impl FnOnce(&[Delivery]) -> Result<Told, E>) -> Result<Arc<Told>, E> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = told.iter().find(|(other, _)| *other == view) {
            return Ok(made.clone());
        }
        let made = Arc::new(make(&self.deliveries)?);
        told.push((view, made.clone()));
        Ok(made)
    }
}
