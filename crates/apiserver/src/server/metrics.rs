//! `/metrics`, with upstream's names and labels.

use super::Config;
use crate::measure::{Counters, Gauges, Histograms, Labels, escaped, head};
use crate::registry::Registry;
use crate::request::{RequestInfo, parameters};
use schema::resource::Deprecation;
use std::fmt::{self, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Upstream's buckets of `apiserver_request_duration_seconds`.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SLI_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// What of a request its labels say, beside its path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    verb: &'static str,
    dry_run: bool,
}

impl Asked {
    pub(super) fn of(info: &RequestInfo, query: &str, content_type: String) -> Self {
        let connects = matches!(info.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy");
        let verb = match info.verb.as_str() {
            _ if info.is_resource && connects => "CONNECT",
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" if content_type.starts_with("application/apply-patch") => "APPLY",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        let dry_run = !info.read_only() && parameters(query).any(|(key, value)| key == "dryRun" && value == "All");
        Asked { verb, dry_run }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    verb: &'static str,
    dry_run: bool,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

impl Series {
    fn labels(&self, dry_run: bool, out: &mut String) -> fmt::Result {
        out.push_str("component=\"apiserver\",");
        if dry_run {
            write!(out, "dry_run=\"{}\",", if self.dry_run { "All" } else { "" })?;
        }
        write!(
            out,
            "group=\"{}\",resource=\"{}\",scope=\"{}\",subresource=\"{}\",verb=\"{}\",version=\"{}\"",
            escaped(&self.group),
            escaped(&self.resource),
            self.scope,
            escaped(&self.subresource),
            self.verb,
            escaped(&self.version)
        )
    }
}

impl Labels for Series {
    fn write(&self, out: &mut String) -> fmt::Result {
        self.labels(true, out)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answered(u16, Series);

impl Labels for Answered {
    fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, "code=\"{}\",", self.0)?;
        self.1.labels(true, out)
    }
}

/// The same without `dry_run`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Plain(Series);

impl Labels for Plain {
    fn write(&self, out: &mut String) -> fmt::Result {
        self.0.labels(false, out)
    }
}

/// A version that goes away, which somebody still asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Deprecated {
    group: String,
    removed: String,
    resource: String,
    subresource: String,
    version: String,
}

impl Labels for Deprecated {
    fn write(&self, out: &mut String) -> fmt::Result {
        write!(
            out,
            "group=\"{}\",removed_release=\"{}\",resource=\"{}\",subresource=\"{}\",version=\"{}\"",
            self.group, self.removed, self.resource, self.subresource, self.version
        )
    }
}

/// What was served.
#[derive(Debug)]
pub struct Metrics {
    deprecated: Gauges<Deprecated>,
    requests: Counters<Answered>,
    times: Histograms<Series>,
    sli: Histograms<Plain>,
    sizes: Histograms<Plain>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            deprecated: Gauges::new(),
            requests: Counters::new(),
            times: Histograms::new(SECONDS),
            sli: Histograms::new(SLI_SECONDS),
            sizes: Histograms::new(BYTES),
        }
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
    /// Notes that a resource in a version that goes away was asked for.
    pub(super) fn deprecated(&self, info: &RequestInfo, deprecation: &Deprecation) {
        let asked = Deprecated {
            group: info.group.clone(),
            removed: deprecation.removed.to_string(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            version: info.version.clone(),
        };
        self.deprecated.set(&asked, 1);
    }

    pub(super) fn request(&self, info: &RequestInfo, asked: Asked, code: u16, took: Duration, size: Option<u64>) {
        // Names that clients invent make no series.
        let known = code != 404;
        let of = |text: &str| if known && info.is_resource { text.to_owned() } else { String::new() };
        let series = Series {
            verb: asked.verb,
            dry_run: asked.dry_run,
            group: of(&info.group),
            version: of(&info.version),
            resource: of(&info.resource),
            subresource: match info.path.as_str() {
                path @ ("/healthz" | "/livez" | "/readyz" | "/metrics" | "/version") => path.to_owned(),
                _ => of(&info.subresource),
            },
            scope: scope_of(info),
        };
        if !info.long_running() {
            self.times.took(&series, took);
            self.sli.took(&Plain(series.clone()), took);
            if let (Some(size), "GET" | "LIST") = (size, asked.verb) {
                self.sizes.observe(&Plain(series.clone()), size as f64);
            }
        }
        self.requests.add(&Answered(code, series), 1);
    }

    pub(super) fn render(&self, registry: &Registry, config: &Config, in_flight: (usize, usize)) -> String {
        let mut out = String::with_capacity(64 * 1024);
        // A String takes every write.
        self.render_to(&mut out, registry, config, in_flight).unwrap_or(());
        out
    }

    fn render_to(
        &self,
        out: &mut String,
        registry: &Registry,
        config: &Config,
        (reading, writing): (usize, usize),
    ) -> fmt::Result {
        self.requests.render(
            out,
            "apiserver_request_total",
            "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        )?;
        self.deprecated.render(
            out,
            "apiserver_requested_deprecated_apis",
            "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
        )?;
        self.times.render(
            out,
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        )?;
        self.sli.render(
            out,
            "apiserver_request_sli_duration_seconds",
            "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
        )?;
        self.sizes.render(
            out,
            "apiserver_response_sizes",
            "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
        )?;
        head(
            out,
            "apiserver_current_inflight_requests",
            "gauge",
            "Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
        )?;
        writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"mutating\"}} {writing}")?;
        writeln!(out, "apiserver_current_inflight_requests{{request_kind=\"readOnly\"}} {reading}")?;
        registry.measures().render(out)?;
        storages(out, registry)?;
        head(
            out,
            "kubernetes_build_info",
            "gauge",
            "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        )?;
        writeln!(
            out,
            "kubernetes_build_info{{build_date=\"{}\",compiler=\"rustc\",git_commit=\"{}\",git_tree_state=\"clean\",git_version=\"{}\",go_version=\"\",major=\"1\",minor=\"36\",platform=\"{}\"}} 1",
            escaped(&config.build_date),
            escaped(&config.git_commit),
            escaped(&config.git_version),
            super::paths::PLATFORM
        )?;
        out.push_str(&registry.gates().metric());
        process(out)
    }
}

/// What is stored and watched, storage by storage.
fn storages(out: &mut String, registry: &Registry) -> fmt::Result {
    let table = registry.table();
    let mut told: Vec<&str> = Vec::new();
    let [mut objects, mut resources, mut watchers, mut events, mut initial] = [const { String::new() }; 5];
    for served in table.all() {
        let (Some(cacher), row) = (&served.cacher, &served.resource) else { continue };
        if told.contains(&cacher.layout.prefix.as_str()) {
            continue;
        }
        told.push(&cacher.layout.prefix);
        let (group, resource, count) = (&row.group, &row.plural, cacher.now().0.len());
        writeln!(objects, "apiserver_storage_objects{{resource=\"{}\"}} {count}", row.group_resource())?;
        writeln!(resources, "apiserver_resource_objects{{group=\"{group}\",resource=\"{resource}\"}} {count}")?;
        let labels = format!("group=\"{group}\",resource=\"{resource}\"");
        if cacher.watchers() > 0 {
            writeln!(
                watchers,
                "apiserver_longrunning_requests{{component=\"apiserver\",{labels},scope=\"cluster\",subresource=\"\",verb=\"WATCH\",version=\"{}\"}} {}",
                row.version,
                cacher.watchers()
            )?;
        }
        let sent = cacher.events.load(Ordering::Relaxed);
        if sent > 0 {
            writeln!(events, "apiserver_watch_events_total{{{labels},version=\"{}\"}} {sent}", row.version)?;
            let first = cacher.initial_events.load(Ordering::Relaxed);
            writeln!(initial, "apiserver_init_events_total{{{labels}}} {first}")?;
        }
    }
    for (name, kind, help, series) in [
        (
            "apiserver_storage_objects",
            "gauge",
            "Number of stored objects at the time of last check split by kind.",
            objects,
        ),
        (
            "apiserver_resource_objects",
            "gauge",
            "Number of stored objects at the time of last check split by kind.",
            resources,
        ),
        (
            "apiserver_longrunning_requests",
            "gauge",
            "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
            watchers,
        ),
        ("apiserver_watch_events_total", "counter", "Number of events sent in watch clients", events),
        (
            "apiserver_init_events_total",
            "counter",
            "Counter of init events processed in watch cache broken by resource type.",
            initial,
        ),
    ] {
        head(out, name, kind, help)?;
        out.push_str(&series);
    }
    head(
        out,
        "apiserver_watch_cache_resource_version",
        "gauge",
        "Current resource version of watch cache broken by resource type.",
    )?;
    writeln!(out, "apiserver_watch_cache_resource_version {}", registry.caches().progress().revision())
}

/// What Prometheus' clients tell of their process, as far as the system tells it.
fn process(out: &mut String) -> fmt::Result {
    const PAGE: u64 = 4096;
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name may have spaces; it ends with the last parenthesis.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    let mut gauge = |name: &str, kind: &str, help: &str, value: Option<f64>| match value {
        Some(value) => head(out, name, kind, help).and_then(|()| writeln!(out, "{name} {value}")),
        None => Ok(()),
    };
    let cpu = field(11).zip(field(12)).map(|(user, system)| (user + system) as f64 / TICKS);
    gauge("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds.", cpu)?;
    let resident = field(21).map(|pages| (pages * PAGE) as f64);
    gauge("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident)?;
    let memory = field(20).map(|bytes| bytes as f64);
    gauge("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", memory)?;
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    gauge("process_open_fds", "gauge", "Number of open file descriptors.", open)?;
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<f64>().ok());
    let started = boot.zip(field(19)).map(|(boot, ticks)| boot + ticks as f64 / TICKS);
    gauge("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds.", started)
}
