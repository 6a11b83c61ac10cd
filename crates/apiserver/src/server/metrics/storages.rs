//! What is told of storages and their caches.

use super::some;
use crate::cache::Cacher;
use crate::measure::{head, series};
use crate::registry::Registry;
use schema::Resource;
use std::fmt;
use std::sync::Arc;

/// A metric of each storage: name, type, help, a label between group and resource, and the number, if it is told.
type OfStorage = (&'static str, &'static str, &'static str, &'static str, fn(&Cacher) -> Option<u64>);

/// Lists are told by the index that they were read from; there is none but of all objects.
const INDEX: &str = "index=\"\",";

/// Those that are labelled with group and resource.
const STORAGES: &[OfStorage] = &[
    (
        "apiserver_resource_objects",
        "gauge",
        "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
        "",
        |cacher| Some(cacher.size().0 as u64),
    ),
    (
        "apiserver_resource_size_estimate_bytes",
        "gauge",
        "[ALPHA] Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.",
        "",
        |cacher| Some(cacher.size().1 as u64),
    ),
    (
        "apiserver_init_events_total",
        "counter",
        "[ALPHA] Counter of init events processed in watch cache broken by resource type.",
        "",
        |cacher| some(&cacher.counts.initial),
    ),
    (
        "apiserver_watch_cache_events_received_total",
        "counter",
        "[ALPHA] Counter of events received in watch cache broken by resource type.",
        "",
        |cacher| some(&cacher.counts.received),
    ),
    (
        "apiserver_watch_cache_events_dispatched_total",
        "counter",
        "[ALPHA] Counter of events dispatched in watch cache broken by resource type.",
        "",
        |cacher| some(&cacher.counts.dispatched),
    ),
    (
        "apiserver_watch_cache_initializations_total",
        "counter",
        "[ALPHA] Counter of watch cache initializations broken by resource type.",
        "",
        |cacher| some(&cacher.counts.loads),
    ),
    (
        "apiserver_watch_cache_resource_version",
        "gauge",
        "[ALPHA] Current resource version of watch cache broken by resource type.",
        "",
        |cacher| Some(cacher.now().1),
    ),
    (
        "apiserver_terminated_watchers_total",
        "counter",
        "[ALPHA] Counter of watchers closed due to unresponsiveness broken by resource type.",
        "",
        |cacher| some(&cacher.counts.slow),
    ),
    (
        "apiserver_storage_events_received_total",
        "counter",
        "[ALPHA] Number of etcd events received split by kind.",
        "",
        |cacher| some(&cacher.counts.received),
    ),
    (
        "apiserver_storage_decode_errors_total",
        "counter",
        "[ALPHA] Number of stored object decode errors split by object type",
        "",
        |cacher| some(&cacher.counts.unreadable),
    ),
    (
        "apiserver_cache_list_returned_objects_total",
        "counter",
        "[ALPHA] Number of objects returned for a LIST request from watch cache",
        "",
        |cacher| some(&cacher.counts.listed),
    ),
    (
        "apiserver_cache_list_total",
        "counter",
        "[ALPHA] Number of LIST requests served from watch cache",
        INDEX,
        |cacher| some(&cacher.counts.lists),
    ),
    (
        "apiserver_cache_list_fetched_objects_total",
        "counter",
        "[ALPHA] Number of objects read from watch cache in the course of serving a LIST request",
        INDEX,
        |cacher| some(&cacher.counts.looked_at),
    ),
];

/// A storage, by the first resource that is kept in it.
struct Stored<'a> {
    row: &'a Resource,
    cacher: &'a Arc<Cacher>,
}

impl Stored<'_> {
    /// Group and resource, and what stands between them.
    fn labels(&self, between: &str) -> String {
        format!("group=\"{}\",{between}resource=\"{}\"", self.row.group, self.row.plural)
    }

    /// The same with the version, before which something stands.
    fn of_version(&self, before: &str) -> String {
        format!("{},{before}version=\"{}\"", self.labels(""), self.row.version)
    }
}

/// What is stored and watched, storage by storage.
pub(super) fn render(out: &mut String, registry: &Registry) -> fmt::Result {
    let table = registry.table();
    let mut all: Vec<Stored<'_>> = Vec::new();
    for served in table.all() {
        let (Some(cacher), row) = (&served.cacher, &served.resource) else { continue };
        if !all.iter().any(|other| Arc::ptr_eq(other.cacher, cacher)) {
            all.push(Stored { row, cacher });
        }
    }
    let name = "apiserver_storage_objects";
    head(
        out,
        name,
        "gauge",
        "[STABLE] [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.",
    )?;
    for Stored { row, cacher } in &all {
        series(out, name, &format!("resource=\"{}\"", row.group_resource()), cacher.size().0)?;
    }
    for (name, kind, help, between, number) in STORAGES {
        head(out, name, kind, help)?;
        for stored in &all {
            if let Some(number) = number(stored.cacher) {
                series(out, name, &stored.labels(between), number)?;
            }
        }
    }
    let name = "apiserver_watch_cache_read_wait_seconds";
    head(out, name, "histogram", "[ALPHA] Histogram of time spent waiting for a watch cache to become fresh.")?;
    for stored in all.iter().filter(|stored| !stored.cacher.counts.read_waits.is_empty()) {
        stored.cacher.counts.read_waits.write(out, name, &stored.labels(""))?;
    }
    let name = "apiserver_watch_cache_consistent_read_total";
    head(out, name, "counter", "[ALPHA] Counter for consistent reads from cache.")?;
    for stored in &all {
        // Nothing else than the cache is read instead when it can't be as new as the store.
        for (success, count) in [false, true].into_iter().zip(&stored.cacher.counts.consistent) {
            if let Some(count) = some(count) {
                let labels = format!("fallback=\"false\",{},success=\"{success}\"", stored.labels(""));
                series(out, name, &labels, count)?;
            }
        }
    }
    let name = "apiserver_watch_events_total";
    head(out, name, "counter", "[ALPHA] Number of events sent in watch clients")?;
    for stored in &all {
        if let Some(count) = some(&stored.cacher.counts.events) {
            series(out, name, &stored.of_version(""), count)?;
        }
    }
    let name = "apiserver_watch_events_sizes";
    head(out, name, "histogram", "[ALPHA] Watch event size distribution in bytes")?;
    for stored in all.iter().filter(|stored| !stored.cacher.counts.sizes.is_empty()) {
        stored.cacher.counts.sizes.write(out, name, &stored.of_version(""))?;
    }
    let name = "apiserver_watch_list_duration_seconds";
    head(
        out,
        name,
        "histogram",
        "[ALPHA] Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
    )?;
    for stored in &all {
        for (scope, histogram) in stored.cacher.counts.watch_lists.sorted() {
            histogram.write(out, name, &stored.of_version(&format!("scope=\"{scope}\",")))?;
        }
    }
    Ok(())
}
