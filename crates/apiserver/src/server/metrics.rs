//! `/metrics`, with upstream's names and labels.

use crate::registry::Registry;
use crate::request::RequestInfo;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upstream's buckets of `apiserver_request_duration_seconds`.
const BUCKETS: [f64; 24] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0, 120.0,
];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

#[derive(Clone, Debug, Default)]
struct Counted {
    by_code: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

/// What was served.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Series, Counted>>,
}

fn verb_of(info: &RequestInfo) -> &'static str {
    match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        _ => "other",
    }
}

fn scope_of(info: &RequestInfo) -> &'static str {
    if !info.is_resource {
        ""
    } else if !info.name.is_empty() || info.verb == "create" {
        "resource"
    } else if !info.namespace.is_empty() {
        "namespace"
    } else {
        "cluster"
    }
}

impl Metrics {
    pub(super) fn request(&self, info: &RequestInfo, code: u16, took: Duration) {
        // Names that clients invent make no series.
        let known = code != 404 && info.is_resource;
        let of = |text: &str| if known { text.to_owned() } else { String::new() };
        let series = Series {
            verb: verb_of(info),
            group: of(&info.group),
            version: of(&info.version),
            resource: of(&info.resource),
            subresource: of(&info.subresource),
            scope: scope_of(info),
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = requests.entry(series).or_default();
        *counted.by_code.entry(code).or_default() += 1;
        if info.long_running() {
            return;
        }
        let seconds = took.as_secs_f64();
        counted.count += 1;
        counted.sum += seconds;
        if let Some(at) = BUCKETS.iter().position(|bucket| seconds <= *bucket) {
            counted.buckets[at] += 1;
        }
    }

    pub(super) fn render(&self, registry: &Registry) -> String {
        let mut out = String::with_capacity(16 * 1024);
        // A String takes every write.
        self.render_to(&mut out, registry).unwrap_or(());
        out
    }

    fn render_to(&self, out: &mut String, registry: &Registry) -> std::fmt::Result {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        head(
            out,
            "apiserver_request_total",
            "counter",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        )?;
        for (series, counted) in &requests {
            for (code, count) in &counted.by_code {
                let labels = labels(series);
                writeln!(
                    out,
                    "apiserver_request_total{{code=\"{code}\",component=\"apiserver\",dry_run=\"\",{labels}}} {count}"
                )?;
            }
        }
        head(
            out,
            "apiserver_request_duration_seconds",
            "histogram",
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        )?;
        for (series, counted) in requests.iter().filter(|(_, counted)| counted.count > 0) {
            let labels = format!("component=\"apiserver\",dry_run=\"\",{}", labels(series));
            let mut total = 0;
            for (bucket, count) in BUCKETS.iter().zip(counted.buckets) {
                total += count;
                writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"{bucket}\"}} {total}")?;
            }
            writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"+Inf\"}} {}", counted.count)?;
            writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {}", counted.sum)?;
            writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {}", counted.count)?;
        }
        head(
            out,
            "apiserver_storage_objects",
            "gauge",
            "Number of stored objects at the time of last check split by kind.",
        )?;
        let table = registry.table();
        let mut told: Vec<&str> = Vec::new();
        let mut watchers = String::new();
        for served in table.all() {
            let (Some(cacher), row) = (&served.cacher, &served.resource) else { continue };
            if told.contains(&cacher.layout.prefix.as_str()) {
                continue;
            }
            told.push(&cacher.layout.prefix);
            writeln!(
                out,
                "apiserver_storage_objects{{resource=\"{}\"}} {}",
                row.group_resource(),
                cacher.now().0.len()
            )?;
            let (count, resource) = (cacher.watchers(), row.group_resource());
            if count > 0 {
                writeln!(
                    watchers,
                    "apiserver_longrunning_requests{{component=\"apiserver\",group=\"{}\",resource=\"{resource}\",verb=\"WATCH\",version=\"{}\"}} {count}",
                    row.group, row.version
                )?;
            }
        }
        head(
            out,
            "apiserver_longrunning_requests",
            "gauge",
            "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component.",
        )?;
        out.push_str(&watchers);
        head(
            out,
            "apiserver_watch_cache_resource_version",
            "gauge",
            "Current resource version of watch cache broken by resource type.",
        )?;
        writeln!(out, "apiserver_watch_cache_resource_version {}", registry.caches().progress().revision())
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn labels(series: &Series) -> String {
    format!(
        "group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
        escaped(&series.group),
        escaped(&series.resource),
        series.scope,
        escaped(&series.subresource),
        series.verb,
        escaped(&series.version)
    )
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
