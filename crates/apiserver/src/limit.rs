//! How many requests are served at once where there are no priority levels: two limits, of those that only read and of those
//! that write. What lasts as long as its client likes is not asked here, and `system:masters` are never refused. Nobody waits.

use crate::flowcontrol::in_flight::InFlight;
use crate::flowcontrol::{Marks, Refused, kind};
use crate::request::RequestInfo;
use crate::user::{MASTERS, UserInfo};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Seconds after which a refused client should try again.
const RETRY_AFTER: i64 = 1;

/// Limits the requests in flight.
pub struct MaxInFlight {
    /// Of those that write, of those that read; `None`: no limit.
    limits: [Option<Arc<Semaphore>>; 2],
    in_flight: Arc<[InFlight; 2]>,
}

/// The place of one request; dropping it frees the place.
pub(crate) struct Held {
    _permit: Option<OwnedSemaphorePermit>,
    in_flight: Arc<[InFlight; 2]>,
    kind: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.in_flight[self.kind].leave();
    }
}

impl Default for MaxInFlight {
    /// Upstream's numbers.
    fn default() -> Self {
        Self::new(400, 200)
    }
}

impl MaxInFlight {
    /// `--max-requests-inflight` and `--max-mutating-requests-inflight`; 0 is no limit.
    pub fn new(reading: usize, writing: usize) -> Self {
        let limits = [writing, reading]
            .map(|limit| (limit > 0).then(|| Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)))));
        let in_flight: Arc<[InFlight; 2]> = Arc::default();
        for (requests, limit) in in_flight.iter().zip([writing, reading]).filter(|(_, limit)| *limit > 0) {
            requests.of(limit as u64);
        }
        MaxInFlight { limits, in_flight }
    }

    /// Those that write, those that read.
    pub(crate) fn in_flight(&self) -> &[InFlight; 2] {
        &self.in_flight
    }

    /// A place for a request that came in a second, and does not last as long as its client likes.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn admit(&self, info: &RequestInfo, user: &UserInfo, second: i64) -> Result<Held, Refused> {
        let kind = kind(info);
        let permit = match &self.limits[kind] {
            None => None,
            Some(limit) => match limit.clone().try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) if user.in_group(MASTERS) => None,
                Err(_) => return Err(Refused { marks: Marks::default(), retry_after: RETRY_AFTER }),
            },
        };
        self.in_flight[kind].enter(second);
        Ok(Held { _permit: permit, in_flight: self.in_flight.clone(), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(method, path, query).expect("a path")
    }

    #[test]
    fn places_are_limited_apart_and_freed() {
        let limit = MaxInFlight::new(1, 1);
        let jane = UserInfo::new("jane", ["g"]);
        let list = info("GET", "/api/v1/pods");
        let held = limit.admit(&list, &jane, 7).ok();
        assert!(held.is_some());
        let Err(refused) = limit.admit(&list, &jane, 7) else { panic!("more places than there are") };
        assert_eq!(refused.retry_after, 1);
        assert!(limit.admit(&info("POST", "/api/v1/namespaces/a/pods"), &jane, 7).is_ok(), "writes have their own");
        assert!(limit.admit(&list, &UserInfo::new("root", [MASTERS]), 7).is_ok());
        assert_eq!(limit.in_flight().each_ref().map(|one| one.most(7)), [1, 2]);
        drop(held);
        assert!(limit.admit(&list, &jane, 7).is_ok());
    }
}
