//! What a request is thought to cost, before it is known: seats by what a list loads, and by how many watch what is written.

use super::queueset::{Estimate, work};
use crate::registry::Registry;
use crate::request::RequestInfo;
use api::features::parse_bool;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError, RwLock};

const BYTES_PER_SEAT: f64 = 100_000.0;
/// A list is answered in pieces: more than this of it is not in the way of others at once.
const BYTES_AT_ONCE: f64 = 1_000_000.0;
const OBJECTS_PER_SEAT: f64 = 100.0;
const WIDEST_LIST: u32 = 100;
/// The widest where lists are estimated by how many objects there are.
const WIDEST_BY_COUNT: u32 = 10;
const WIDEST_WRITE: u32 = 10;
const WATCHERS_PER_SEAT: u64 = 10;
/// How long telling watchers of a write keeps a seat busy.
const TELLING: u64 = 5_000_000;

/// Estimates requests.
pub(super) struct Estimator {
    registry: Arc<Registry>,
    by_size: bool,
    pub(super) watches: Arc<Watches>,
}

impl Estimator {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        Estimator {
            by_size: registry.gates().enabled("SizeBasedListCostEstimate"),
            registry: registry.clone(),
            watches: Arc::default(),
        }
    }

    /// What a request costs, where one is estimated to need `widest` seats at most. `noted` is told how many watch what is
    /// written.
    pub(super) fn estimate(
        &self,
        info: &RequestInfo,
        query: &str,
        widest: Option<u32>,
        noted: impl FnOnce(u64),
    ) -> Estimate {
        match info.verb.as_str() {
            "list" | "watch" if info.is_resource => Estimate::seats(self.list(info, query, widest)),
            "create" | "update" | "patch" | "delete" if info.is_resource => {
                // A token is no object: nobody is told of it.
                if info.resource == "serviceaccounts" && info.subresource == "token" {
                    return Estimate::seats(1);
                }
                let watchers = self.watches.interested(info);
                noted(watchers);
                write(watchers, widest)
            }
            _ => Estimate::seats(1),
        }
    }

    fn list(&self, info: &RequestInfo, query: &str, widest: Option<u32>) -> u32 {
        let parameter = |name: &str| raw(query, name);
        // A watch may begin with all objects anyway, but costs more only where its client asks for them by name, as upstream.
        let begins = || parameter("sendInitialEvents").and_then(parse_bool) == Some(true);
        if info.verb == "watch" && !begins() {
            return 1;
        }
        let most = if self.by_size { WIDEST_LIST } else { WIDEST_BY_COUNT };
        let most = widest.map_or(most, |widest| widest.min(most));
        let served = self.registry.served(&info.group, &info.version, &info.resource);
        let Some((count, bytes)) = served.and_then(|served| Some(served.cacher.as_ref()?.size())) else { return 1 };
        let limit = parameter("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
        let single = !info.name.is_empty();
        let seats = if self.by_size {
            seats_by_size(count, bytes, limit, single)
        } else {
            let looked_at = if single { 1 } else { count };
            looked_at as f64 / OBJECTS_PER_SEAT
        };
        (seats.ceil() as u32).clamp(1, most.max(1))
    }
}

fn seats_by_size(count: usize, bytes: usize, limit: Option<usize>, single: bool) -> f64 {
    let loaded = if single { 1 } else { limit.map_or(count, |limit| limit.min(count)) };
    let average = bytes as f64 / count.max(1) as f64;
    (loaded as f64 * average).min(BYTES_AT_ONCE) / BYTES_PER_SEAT
}

fn write(watchers: u64, widest: Option<u32>) -> Estimate {
    if watchers < WATCHERS_PER_SEAT {
        return Estimate::seats(1);
    }
    let wanted = u32::try_from(watchers.div_ceil(WATCHERS_PER_SEAT)).unwrap_or(u32::MAX);
    // Narrower and longer it is the same work, and blocks others less.
    let finally = wanted.min(widest.unwrap_or(WIDEST_WRITE)).clamp(1, WIDEST_WRITE);
    let lingering = u64::try_from(work(wanted, TELLING) / i128::from(finally)).unwrap_or(u64::MAX);
    Estimate { initial: 1, finally, lingering }
}

/// A parameter of a query as it stands there: to estimate, no more is needed.
fn raw<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// How many watch what, by the hash of resource, namespace and name.
#[derive(Default)]
pub(super) struct Watches {
    counts: RwLock<HashMap<u64, u64>>,
    hasher: RandomState,
}

/// A watch, counted as long as this lives.
pub(super) struct Watched {
    watches: Arc<Watches>,
    key: u64,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut counts = self.watches.counts.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

impl Watches {
    fn key(&self, info: &RequestInfo, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((info.group.as_str(), info.resource.as_str(), namespace, name))
    }

    /// Counts a watch. `None`: it is one of many of which a change reaches one, as a node's of its pods.
    pub(super) fn begin(self: &Arc<Self>, info: &RequestInfo) -> Option<Watched> {
        let of_a_node =
            info.group.is_empty() && info.resource == "pods" && info.field_selector.contains("spec.nodeName=");
        if !info.is_resource || of_a_node {
            return None;
        }
        let key = self.key(info, &info.namespace, &info.name);
        *self.counts.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
        Some(Watched { watches: self.clone(), key })
    }

    /// How many watch what a request writes.
    fn interested(&self, info: &RequestInfo) -> u64 {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        if counts.is_empty() {
            return 0;
        }
        let (namespace, name) = (info.namespace.as_str(), info.name.as_str());
        let (in_namespace, named) = (!namespace.is_empty(), !name.is_empty());
        let places = [
            ("", "", true),
            (namespace, "", in_namespace),
            ("", name, named),
            (namespace, name, in_namespace && named),
        ];
        let asked = places.into_iter().filter(|(.., there)| *there);
        asked.filter_map(|(namespace, name, _)| counts.get(&self.key(info, namespace, name))).sum()
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
    fn a_list_costs_what_it_loads() {
        for (count, bytes, limit, single, seats) in [
            (0, 0, None, false, 0.0),
            (1_000, 500_000, None, false, 5.0),
            (1_000, 500_000, Some(100), false, 0.5),
            (1_000, 500_000, Some(5_000), false, 5.0),
            (100_000, 200_000_000, None, false, 10.0),
            (100_000, 200_000_000, None, true, 0.02),
        ] {
            assert!((seats_by_size(count, bytes, limit, single) - seats).abs() < 1e-9, "{count} {bytes} {limit:?}");
        }
    }

    #[test]
    fn a_write_costs_more_the_more_watch() {
        assert_eq!(write(9, None), Estimate::seats(1));
        assert_eq!(write(10, None), Estimate { initial: 1, finally: 1, lingering: 5_000_000 });
        assert_eq!(write(95, None), Estimate { initial: 1, finally: 10, lingering: 5_000_000 });
        assert_eq!(write(1_000, None), Estimate { initial: 1, finally: 10, lingering: 50_000_000 });
        assert_eq!(write(40, Some(2)), Estimate { initial: 1, finally: 2, lingering: 10_000_000 });
    }

    #[test]
    fn watches_are_counted_for_what_they_see() {
        let watches = Arc::new(Watches::default());
        let begin = |target: &str| watches.begin(&info("GET", target));
        let held = [
            begin("/api/v1/pods?watch=1"),
            begin("/api/v1/namespaces/a/pods?watch=1"),
            begin("/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Dx"),
            begin("/api/v1/secrets?watch=1"),
        ];
        assert!(begin("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn").is_none());
        let interested = |method: &str, target: &str| watches.interested(&info(method, target));
        assert_eq!(interested("PUT", "/api/v1/namespaces/a/pods/x"), 3);
        assert_eq!(interested("PUT", "/api/v1/namespaces/a/pods/y"), 2);
        assert_eq!(interested("POST", "/api/v1/namespaces/a/pods"), 2);
        assert_eq!(interested("PUT", "/api/v1/namespaces/b/pods/x"), 1);
        drop(held);
        assert_eq!(interested("PUT", "/api/v1/namespaces/a/pods/x"), 0);
    }

    #[test]
    fn parameters_are_found_as_they_stand() {
        assert_eq!(raw("a=1&limit=5&b", "limit"), Some("5"));
        assert_eq!((raw("a=1&b", "b"), raw("a=1", "limit"), raw("", "limit")), (Some(""), None, None));
    }
}
