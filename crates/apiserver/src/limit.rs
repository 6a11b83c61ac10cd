//! How many requests are served at once. Streams and watches are not counted, nor those of `system:masters`.

use crate::request::RequestInfo;
use crate::user::{MASTERS, UserInfo};
use api::Status;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Seconds after which a refused client should try again.
const RETRY_AFTER: u32 = 1;

/// Limits the requests in flight: those that only read apart from those that write.
pub struct MaxInFlight {
    reading: Option<Arc<Semaphore>>,
    writing: Option<Arc<Semaphore>>,
}

/// The place of one request; dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    _permit: Option<OwnedSemaphorePermit>,
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
        let limit = |n: usize| (n > 0).then(|| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS))));
        MaxInFlight { reading: limit(reading), writing: limit(writing) }
    }

    /// A place for the request.
    ///
    /// # Errors
    /// 429 when all places are taken.
    pub fn admit(&self, info: &RequestInfo, user: &UserInfo) -> Result<Place, Status> {
        let limit =
            if info.read_only() || !info.is_resource && info.verb == "head" { &self.reading } else { &self.writing };
        let free = Place { _permit: None };
        let Some(limit) = limit else { return Ok(free) };
        if info.long_running() || user.in_group(MASTERS) {
            return Ok(free);
        }
        match limit.clone().try_acquire_owned() {
            Ok(permit) => Ok(Place { _permit: Some(permit) }),
            Err(_) => Err(Status::too_many_requests("Too many requests, please try again later.", RETRY_AFTER)),
        }
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
        let held = limit.admit(&list, &jane).expect("a place");
        let refused = limit.admit(&list, &jane).expect_err("full");
        assert_eq!((refused.code, refused.retry_after()), (429, Some(1)));
        assert!(
            limit.admit(&info("POST", "/api/v1/namespaces/a/pods"), &jane).is_ok(),
            "writes have places of their own"
        );
        assert!(limit.admit(&info("GET", "/api/v1/pods?watch=1"), &jane).is_ok(), "watches take none");
        assert!(limit.admit(&list, &UserInfo::new("root", [MASTERS])).is_ok());
        drop(held);
        assert!(limit.admit(&list, &jane).is_ok());
    }
}
