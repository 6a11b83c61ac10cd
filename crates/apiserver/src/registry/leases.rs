//! Store leases for objects that end by themselves. One lease serves many objects, so that a flood of events does not make a
//! flood of leases.

use std::sync::Arc;
use std::time::{Duration, Instant};
use store::{LeaseId, Store};
use tokio::sync::Mutex;

/// Objects made within this time share a lease, and live that much longer at most.
const SHARED_FOR: Duration = Duration::from_secs(60);
const SHARED_BY: usize = 1_000;

#[derive(Debug)]
struct Shared {
    time_to_live: Duration,
    lease: LeaseId,
    granted: Instant,
    objects: usize,
}

pub(super) struct Leases {
    store: Arc<dyn Store>,
    shared: Mutex<Vec<Shared>>,
}

impl Leases {
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Leases { store, shared: Mutex::new(Vec::new()) }
    }

    /// A lease under which an object lives at least as long as asked; 0 for one that does not end.
    pub(super) async fn lease(&self, time_to_live: Option<Duration>) -> Result<LeaseId, store::Error> {
        let Some(time_to_live) = time_to_live else { return Ok(0) };
        let mut shared = self.shared.lock().await;
        let fits = |lease: &&mut Shared| {
            lease.time_to_live == time_to_live && lease.granted.elapsed() < SHARED_FOR && lease.objects < SHARED_BY
        };
        if let Some(lease) = shared.iter_mut().find(fits) {
            lease.objects += 1;
            return Ok(lease.lease);
        }
        let lease = self.store.lease_grant(time_to_live + SHARED_FOR).await?;
        shared.retain(|lease| lease.time_to_live != time_to_live);
        shared.push(Shared { time_to_live, lease, granted: Instant::now(), objects: 1 });
        Ok(lease)
    }
}
