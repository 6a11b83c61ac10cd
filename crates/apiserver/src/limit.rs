//! How many requests are served at once. Streams and watches are not counted, nor those of `system:masters`.
//!
//! The cluster's own components have places apart, and of the others nobody can have more than half: whoever floods the
//! server with writes, or holds requests open by not sending their bodies, keeps neither nodes from renewing their leases
//! nor other users from theirs. Who finds no place waits a little for one, in order.

use crate::request::RequestInfo;
use crate::user::{MASTERS, UserInfo};
use api::Status;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Seconds after which a refused client should try again.
const RETRY_AFTER: u32 = 1;
/// How long a request waits for a place: upstream's quarter of the time that a request may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many may wait for each place that there is.
const WAITING: usize = 8;
/// Nodes and the cluster's components have three of ten places.
const SYSTEM_SHARE: (usize, usize) = (3, 10);
const NODES: &str = "system:nodes";
const SYSTEM_ACCOUNTS: &str = "system:serviceaccounts:kube-system";
const SYSTEM_USERS: &str = "system:kube-";

/// Limits the requests in flight: those that only read apart from those that write.
pub struct MaxInFlight {
    reading: Option<Split>,
    writing: Option<Split>,
}

/// The places of one sort of requests.
struct Split {
    system: Arc<Pool>,
    others: Arc<Pool>,
}

struct Pool {
    size: usize,
    places: Arc<Semaphore>,
    /// With those that wait.
    asking: Arc<Semaphore>,
    /// How many places one user may have, and who has how many.
    share: Option<usize>,
    users: Mutex<HashMap<String, usize>>,
}

/// The place of one request; dropping it frees the place.
#[must_use]
#[derive(Default)]
pub struct Place {
    _held: Option<Held>,
}

struct Held {
    _place: OwnedSemaphorePermit,
    _asking: OwnedSemaphorePermit,
    _share: Share,
}

/// A user's count, which goes down with this.
struct Share(Option<(Arc<Pool>, String)>);

impl Drop for Share {
    fn drop(&mut self) {
        let Some((pool, user)) = self.0.take() else { return };
        let mut users = pool.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = users.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                users.remove(&user);
            }
        }
    }
}

impl Pool {
    fn new(places: usize, share: Option<usize>) -> Arc<Self> {
        let places = places.clamp(1, Semaphore::MAX_PERMITS / (1 + WAITING));
        Arc::new(Pool {
            size: places,
            places: Arc::new(Semaphore::new(places)),
            asking: Arc::new(Semaphore::new(places * (1 + WAITING))),
            share,
            users: Mutex::default(),
        })
    }

    /// Counts a request of a user, unless that has its share.
    fn share(self: &Arc<Self>, user: &str) -> Option<Share> {
        let Some(share) = self.share else { return Some(Share(None)) };
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        match users.get_mut(user) {
            Some(count) if *count >= share => return None,
            Some(count) => *count += 1,
            None => {
                users.insert(user.to_owned(), 1);
            }
        }
        Some(Share(Some((self.clone(), user.to_owned()))))
    }

    async fn place(self: &Arc<Self>, user: &str, patience: Duration) -> Option<Held> {
        let share = self.share(user)?;
        let asking = self.asking.clone().try_acquire_owned().ok()?;
        let place = match self.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => tokio::time::timeout(patience, self.places.clone().acquire_owned()).await.ok()?.ok()?,
        };
        Some(Held { _place: place, _asking: asking, _share: share })
    }
}

impl Split {
    fn new(places: usize) -> Option<Self> {
        let system = places * SYSTEM_SHARE.0 / SYSTEM_SHARE.1;
        let others = places - system;
        (places > 0)
            .then(|| Split { system: Pool::new(system, None), others: Pool::new(others, Some(others.div_ceil(2))) })
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
        MaxInFlight { reading: Split::new(reading), writing: Split::new(writing) }
    }

    /// How many requests are in flight: those that read, those that write.
    pub fn in_flight(&self) -> (usize, usize) {
        let taken = |split: &Option<Split>| {
            let pools = split.iter().flat_map(|split| [&split.system, &split.others]);
            pools.map(|pool| pool.size.saturating_sub(pool.places.available_permits())).sum()
        };
        (taken(&self.reading), taken(&self.writing))
    }

    /// A place for the request, as soon as there is one.
    ///
    /// # Errors
    /// 429 when there is none for too long, too many wait already, or the user has all that one may have.
    pub async fn admit(&self, info: &RequestInfo, user: &UserInfo) -> Result<Place, Status> {
        self.admit_within(info, user, PATIENCE).await
    }

    async fn admit_within(&self, info: &RequestInfo, user: &UserInfo, patience: Duration) -> Result<Place, Status> {
        let reads = info.read_only() || !info.is_resource && info.verb == "head";
        let Some(split) = (if reads { &self.reading } else { &self.writing }) else { return Ok(Place::default()) };
        if info.long_running() || user.in_group(MASTERS) {
            return Ok(Place::default());
        }
        let pool = if is_system(user) { &split.system } else { &split.others };
        match pool.place(&user.name, patience).await {
            Some(held) => Ok(Place { _held: Some(held) }),
            None => Err(Status::too_many_requests("Too many requests, please try again later.", RETRY_AFTER)),
        }
    }
}

/// Whether somebody is a node or a component of the cluster.
fn is_system(user: &UserInfo) -> bool {
    user.in_group(NODES) || user.in_group(SYSTEM_ACCOUNTS) || user.name.starts_with(SYSTEM_USERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(method, path, query).expect("a path")
    }

    async fn now(limit: &MaxInFlight, info: &RequestInfo, user: &UserInfo) -> Result<Place, Status> {
        limit.admit_within(info, user, Duration::ZERO).await
    }

    #[tokio::test]
    async fn places_are_limited_apart_and_freed() {
        let limit = MaxInFlight::new(1, 1);
        let jane = UserInfo::new("jane", ["g"]);
        let list = info("GET", "/api/v1/pods");
        let held = now(&limit, &list, &jane).await.ok();
        assert!(held.is_some());
        let Err(refused) = now(&limit, &list, &jane).await else { panic!("more places than there are") };
        assert_eq!((refused.code, refused.retry_after()), (429, Some(1)));
        let write = info("POST", "/api/v1/namespaces/a/pods");
        assert!(now(&limit, &write, &jane).await.is_ok(), "writes have places of their own");
        assert!(now(&limit, &info("GET", "/api/v1/pods?watch=1"), &jane).await.is_ok(), "watches take none");
        assert!(now(&limit, &list, &UserInfo::new("root", [MASTERS])).await.is_ok());
        drop(held);
        assert!(now(&limit, &list, &jane).await.is_ok());
    }

    #[tokio::test]
    async fn a_flood_of_one_user_leaves_places_to_others_and_to_nodes() {
        let limit = MaxInFlight::new(0, 20);
        let write = info("POST", "/api/v1/namespaces/a/pods");
        let (flood, jane) = (UserInfo::new("flood", ["g"]), UserInfo::new("jane", ["g"]));
        let mut held = Vec::new();
        while let Ok(place) = now(&limit, &write, &flood).await {
            held.push(place);
            assert!(held.len() < 20, "nobody has all places");
        }
        let Ok(place) = now(&limit, &write, &jane).await else { panic!("no place for jane") };
        held.push(place);
        for user in ["other", "another"] {
            let user = UserInfo::new(user, ["g"]);
            while let Ok(place) = now(&limit, &write, &user).await {
                held.push(place);
            }
        }
        let node = UserInfo::new("system:node:n", [NODES]);
        assert!(now(&limit, &write, &node).await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_that_is_freed() {
        let limit = Arc::new(MaxInFlight::new(0, 1));
        let write = info("POST", "/api/v1/namespaces/a/pods");
        let node = UserInfo::new("system:node:n", [NODES]);
        let held = now(&limit, &write, &node).await.ok();
        let waiting = tokio::spawn({
            let (limit, write, node) = (limit.clone(), write.clone(), node.clone());
            async move { limit.admit(&write, &node).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.expect("no panic"));
    }
}
