//! `/metrics`, with upstream's names and labels.

mod process;
mod storages;

pub use process::process;

use super::{Config, Security};
use crate::authz::Decision;
use crate::measure::{Asks, Family, Gauges, HeldGauge, Histogram, Labels, escaped, head, series};
use crate::registry::Registry;
use crate::request::{RequestInfo, parameters};
use crate::user::UserInfo;
use schema::resource::Deprecation;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Upstream's buckets of `apiserver_request_duration_seconds`.
const SECONDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
const SLI_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const BYTES: &[f64] = &[1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// From a millisecond to a quarter of a minute, doubling: what authentication and authorization take.
const AUTH_SECONDS: &[f64] =
    &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];

/// Upstream's buckets of `apiserver_request_filter_duration_seconds`.
const FILTER_SECONDS: &[f64] = &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0];

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

/// The labels of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Series {
    verb: &'static str,
    dry_run: bool,
    group: Box<str>,
    version: Box<str>,
    resource: Box<str>,
    subresource: Box<str>,
    scope: &'static str,
}

/// The same as the request has them. It hashes as they do.
#[derive(Clone, Copy, Hash)]
struct Shown<'a> {
    verb: &'static str,
    dry_run: bool,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
}

impl<'a> Shown<'a> {
    fn of(info: &'a RequestInfo, asked: Asked) -> Self {
        let of = |text: &'a str| if info.is_resource { text } else { "" };
        Shown {
            verb: asked.verb,
            dry_run: asked.dry_run,
            group: of(&info.group),
            version: of(&info.version),
            resource: of(&info.resource),
            subresource: match info.path.as_str() {
                path @ ("/healthz" | "/livez" | "/readyz" | "/metrics" | "/version") => path,
                _ => of(&info.subresource),
            },
            scope: scope_of(info),
        }
    }

    /// Without what clients invent: it makes no series.
    fn without_inventions(self, registry: &Registry, info: &RequestInfo) -> Self {
        if info.is_resource && !is_known(registry, info) {
            Shown { group: "", version: "", resource: "", subresource: "", ..self }
        } else {
            self
        }
    }
}

impl Asks<Series> for Shown<'_> {
    fn is(&self, key: &Series) -> bool {
        self.verb == key.verb
            && self.dry_run == key.dry_run
            && *self.group == *key.group
            && *self.version == *key.version
            && *self.resource == *key.resource
            && *self.subresource == *key.subresource
            && self.scope == key.scope
    }

    fn own(&self) -> Series {
        Series {
            verb: self.verb,
            dry_run: self.dry_run,
            group: self.group.into(),
            version: self.version.into(),
            resource: self.resource.into(),
            subresource: self.subresource.into(),
            scope: self.scope,
        }
    }
}

impl Series {
    /// `dry_run`: whether that is a label; `component`: likewise.
    fn labels(&self, component: bool, dry_run: bool) -> String {
        let mut out = String::new();
        if component {
            out.push_str("component=\"apiserver\",");
        }
        if dry_run {
            out.push_str(if self.dry_run { "dry_run=\"All\"," } else { "dry_run=\"\"," });
        }
        out + &format!(
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
        out.push_str(&self.labels(true, false));
        Ok(())
    }
}

/// The codes that are counted without a lock, in their order.
const CODES: [u16; 22] =
    [101, 200, 201, 202, 204, 301, 304, 400, 401, 403, 404, 405, 406, 409, 410, 413, 415, 422, 429, 500, 503, 504];

/// Answers by their code.
#[derive(Debug, Default)]
struct Codes {
    known: [AtomicU64; CODES.len()],
    others: Mutex<BTreeMap<u16, u64>>,
}

impl Codes {
    fn count(&self, code: u16) {
        match CODES.binary_search(&code) {
            Ok(at) => {
                self.known[at].fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => *self.others.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1,
        }
    }

    fn all(&self) -> BTreeMap<u16, u64> {
        let known = CODES.iter().zip(&self.known).map(|(code, count)| (*code, count.load(Ordering::Relaxed)));
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner).clone();
        known.filter(|(_, count)| *count > 0).chain(others).collect()
    }
}

/// What is counted of requests with the same labels.
#[derive(Debug)]
struct Counted {
    codes: Codes,
    times: Histogram,
    sli: Histogram,
    sizes: Histogram,
    terminated: Codes,
    aborted: AtomicU64,
    /// Those that the server made itself.
    own: AtomicU64,
}

impl Default for Counted {
    fn default() -> Self {
        Counted {
            codes: Codes::default(),
            times: Histogram::of_times(SECONDS),
            sli: Histogram::of_times(SLI_SECONDS),
            sizes: Histogram::of_counts(BYTES),
            terminated: Codes::default(),
            aborted: AtomicU64::default(),
            own: AtomicU64::default(),
        }
    }
}

/// A version that goes away, which somebody still asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// What authentication and authorization come to, and upstream's few words for users: each in the order of its names.
const AUTHENTICATED: [&str; 3] = ["error", "failure", "success"];
const AUTHORIZED: [&str; 3] = ["allowed", "denied", "no-opinion"];
const USERS: [&str; 7] =
    ["admin", "client", "email_id", "kube_proxy", "kubelet", "other", "system:serviceaccount:kube-system:default"];

/// The filters whose time is told, of requests that they let pass: in the order of their names.
#[derive(Clone, Copy, Debug)]
pub(super) enum Passed {
    Authentication,
    Authorization,
    Fairness,
}

const FILTERS: [&str; 3] = ["authentication", "authorization", "priorityandfairness"];

/// Writes a counter of results and the histogram of how long they took.
fn results(
    out: &mut String,
    (counter, counter_help): (&str, &str),
    (name, help): (&str, &str),
    all: &[(&str, &Histogram)],
) -> fmt::Result {
    let told = || all.iter().filter(|(_, histogram)| !histogram.is_empty());
    head(out, counter, "counter", counter_help)?;
    for (result, histogram) in told() {
        series(out, counter, &format!("result=\"{result}\""), histogram.count())?;
    }
    head(out, name, "histogram", help)?;
    for (result, histogram) in told() {
        histogram.write(out, name, &format!("result=\"{result}\""))?;
    }
    Ok(())
}

/// Writes a counter of numbers by their labels: several of the same labels are one series.
fn summed(out: &mut String, name: &str, help: &str, all: impl Iterator<Item = (String, u64)>) -> fmt::Result {
    head(out, name, "counter", help)?;
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (labels, count) in all {
        *sums.entry(labels).or_default() += count;
    }
    sums.into_iter().try_for_each(|(labels, count)| series(out, name, &labels, count))
}

/// What was served.
#[derive(Debug)]
pub struct Metrics {
    deprecated: Gauges<Deprecated>,
    requests: Family<Series, Counted>,
    long: Gauges<Series>,
    authentications: [Histogram; AUTHENTICATED.len()],
    authorizations: [Histogram; AUTHORIZED.len()],
    users: [AtomicU64; USERS.len()],
    filters: [Histogram; FILTERS.len()],
    handshakes_failed: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            deprecated: Gauges::default(),
            requests: Family::default(),
            long: Gauges::default(),
            authentications: AUTHENTICATED.map(|_| Histogram::of_times(AUTH_SECONDS)),
            authorizations: AUTHORIZED.map(|_| Histogram::of_times(AUTH_SECONDS)),
            users: Default::default(),
            filters: FILTERS.map(|_| Histogram::of_times(FILTER_SECONDS)),
            handshakes_failed: AtomicU64::default(),
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

/// Whether what a request names is served: names that clients invent make no series.
fn is_known(registry: &Registry, info: &RequestInfo) -> bool {
    let served = registry.served(&info.group, &info.version, &info.resource);
    served.is_some_and(|served| {
        info.subresource.is_empty()
            || served.resource.subresource(&info.subresource).is_some()
            || served.subresources.contains_key(&info.subresource)
    })
}

/// Which of upstream's words for users one has.
fn kind_of_user(name: &str) -> usize {
    let word = if name.contains('@') { "email_id" } else { "other" };
    let of = |word: &str| USERS.iter().position(|known| *known == word);
    let own = of(name).filter(|_| !matches!(name, "email_id" | "other"));
    own.or_else(|| of(word)).unwrap_or(0)
}

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) code: u16,
    pub(super) took: Duration,
    /// How much of that it waited for a seat.
    pub(super) waited: Duration,
    pub(super) size: Option<u64>,
    /// The server defended itself: there was no time or no seat.
    pub(super) terminated: bool,
    /// The server itself asked.
    pub(super) own: bool,
}

/// A request that has no answer yet: when it never gets one, that is counted.
pub(super) struct Unanswered<'a> {
    metrics: &'a Metrics,
    registry: &'a Registry,
    info: Arc<RequestInfo>,
    asked: Asked,
    answered: bool,
}

impl Unanswered<'_> {
    /// It has one; `panicked`: not what it should be.
    pub(super) fn answered(mut self, outcome: Outcome, panicked: bool) {
        self.answered = !panicked;
        self.metrics.request(self.registry, &self.info, self.asked, outcome);
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.metrics.with(self.registry, &self.info, self.asked, |counted| {
                counted.aborted.fetch_add(1, Ordering::Relaxed);
            });
        }
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

    /// Begins to measure a request.
    pub(super) fn begin<'a>(&'a self, registry: &'a Registry, info: &Arc<RequestInfo>, asked: Asked) -> Unanswered<'a> {
        Unanswered { metrics: self, registry, info: info.clone(), asked, answered: false }
    }

    fn with(&self, registry: &Registry, info: &RequestInfo, asked: Asked, count: impl Fn(&Counted)) {
        let shown = Shown::of(info, asked);
        if self.requests.find(&shown, |counted| count(counted)).is_some() {
            return;
        }
        // Asked once for each series that there is, and every time for what is not.
        self.requests.with(&shown.without_inventions(registry, info), Counted::default, |counted| count(counted));
    }

    fn request(&self, registry: &Registry, info: &RequestInfo, asked: Asked, outcome: Outcome) {
        self.with(registry, info, asked, |counted| {
            counted.codes.count(outcome.code);
            if outcome.own {
                counted.own.fetch_add(1, Ordering::Relaxed);
            }
            if outcome.terminated {
                counted.terminated.count(outcome.code);
            }
            if info.long_running() {
                return;
            }
            counted.times.took(outcome.took);
            counted.sli.took(outcome.took.saturating_sub(outcome.waited));
            if let (Some(size), "GET" | "LIST") = (outcome.size, asked.verb) {
                counted.sizes.observe(size);
            }
        });
    }

    /// Counts a request that lasts as long as its client likes, for as long as what is returned lives.
    pub(super) fn long_running(&self, registry: &Registry, info: &RequestInfo) -> HeldGauge {
        let shown = Shown::of(info, Asked::of(info, "", String::new()));
        self.long.hold(&shown.without_inventions(registry, info))
    }

    pub(super) fn authenticated<E>(&self, result: &Result<Option<UserInfo>, E>, took: Duration) {
        let place = match result {
            Err(_) => 0,
            Ok(None) => 1,
            Ok(Some(user)) => {
                self.users[kind_of_user(&user.name)].fetch_add(1, Ordering::Relaxed);
                self.passed(Passed::Authentication, took);
                2
            }
        };
        self.authentications[place].took(took);
    }

    pub(super) fn authorized(&self, decision: &Decision, took: Duration) {
        let place = match decision {
            Decision::Allow(_) => {
                self.passed(Passed::Authorization, took);
                0
            }
            Decision::Deny(_) => 1,
            Decision::NoOpinion(_) => 2,
        };
        self.authorizations[place].took(took);
    }

    /// Notes how long a filter had a request that it let pass.
    pub(super) fn passed(&self, filter: Passed, took: Duration) {
        self.filters[filter as usize].took(took);
    }

    pub(super) fn handshake_failed(&self) {
        self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) async fn render(&self, registry: &Registry, config: &Config, security: &Security) -> String {
        let size = registry.store().status().await.map(|status| status.size);
        let mut out = String::with_capacity(256 * 1024);
        // A String takes every write.
        self.render_to(&mut out, registry, config, security, size.ok()).unwrap_or(());
        out
    }

    fn render_to(
        &self,
        out: &mut String,
        registry: &Registry,
        config: &Config,
        security: &Security,
        size: Option<u64>,
    ) -> fmt::Result {
        self.requests(out)?;
        self.deprecated.render(
            out,
            "apiserver_requested_deprecated_apis",
            "[STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
        )?;
        self.long.render(
            out,
            "apiserver_longrunning_requests",
            "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
        )?;
        security.limit.render(out)?;
        let name = "authenticated_user_requests";
        head(out, name, "counter", "[ALPHA] Counter of authenticated requests broken out by username.")?;
        for (user, count) in USERS.iter().zip(&self.users) {
            if let Some(count) = some(count) {
                series(out, name, &format!("username=\"{user}\""), count)?;
            }
        }
        let authenticated: Vec<_> = AUTHENTICATED.into_iter().zip(&self.authentications).collect();
        results(
            out,
            ("authentication_attempts", "[ALPHA] Counter of authenticated attempts."),
            ("authentication_duration_seconds", "[ALPHA] Authentication duration in seconds broken out by result."),
            &authenticated,
        )?;
        let authorized: Vec<_> = AUTHORIZED.into_iter().zip(&self.authorizations).collect();
        results(
            out,
            (
                "authorization_attempts_total",
                "[ALPHA] Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' or 'error'.",
            ),
            ("authorization_duration_seconds", "[ALPHA] Authorization duration in seconds broken out by result."),
            &authorized,
        )?;
        if let Some(audit) = &security.audit {
            audit.counts().render(out)?;
        }
        let name = "apiserver_request_filter_duration_seconds";
        head(out, name, "histogram", "[ALPHA] Request filter latency distribution in seconds, for each filter type")?;
        for (filter, times) in FILTERS.iter().zip(&self.filters).filter(|(_, times)| !times.is_empty()) {
            times.write(out, name, &format!("filter=\"{filter}\""))?;
        }
        let name = "apiserver_tls_handshake_errors_total";
        head(out, name, "counter", "[ALPHA] Number of requests dropped with 'TLS handshake error from' error")?;
        series(out, name, "", self.handshakes_failed.load(Ordering::Relaxed))?;
        registry.measures().render(out)?;
        storages::render(out, registry)?;
        if let Some(size) = size {
            let name = "apiserver_storage_size_bytes";
            head(out, name, "gauge", "[STABLE] Size of the storage database file physically allocated in bytes.")?;
            series(out, name, "storage_cluster_id=\"etcd-0\"", size)?;
        }
        head(
            out,
            "kubernetes_build_info",
            "gauge",
            "[ALPHA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.",
        )?;
        writeln!(
            out,
            "kubernetes_build_info{{build_date=\"{}\",compiler=\"rustc\",git_commit=\"{}\",git_tree_state=\"clean\",git_version=\"{}\",go_version=\"{}\",major=\"1\",minor=\"36\",platform=\"{}\"}} 1",
            escaped(&config.build_date),
            escaped(&config.git_commit),
            escaped(&config.git_version),
            super::paths::GO_VERSION,
            super::paths::PLATFORM
        )?;
        out.push_str(&registry.gates().metric());
        process(out)?;
        process::registered(out)
    }

    fn requests(&self, out: &mut String) -> fmt::Result {
        let all = self.requests.sorted();
        let name = "apiserver_request_total";
        head(
            out,
            name,
            "counter",
            "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
        )?;
        for (key, counted) in &all {
            for (code, count) in counted.codes.all() {
                series(out, name, &format!("code=\"{code}\",{}", key.labels(true, true)), count)?;
            }
        }
        let name = "apiserver_request_duration_seconds";
        head(
            out,
            name,
            "histogram",
            "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
        )?;
        for (key, counted) in all.iter().filter(|(_, counted)| !counted.times.is_empty()) {
            counted.times.write(out, name, &key.labels(true, true))?;
        }
        let of: [(&str, &str, fn(&Counted) -> &Histogram, fn() -> Histogram); 2] = [
            (
                "apiserver_request_sli_duration_seconds",
                "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
                |counted| &counted.sli,
                || Histogram::of_times(SLI_SECONDS),
            ),
            (
                "apiserver_response_sizes",
                "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
                |counted| &counted.sizes,
                || Histogram::of_counts(BYTES),
            ),
        ];
        for (name, help, histogram, empty) in of {
            head(out, name, "histogram", help)?;
            // Dry runs are not told apart here.
            let mut sums: BTreeMap<String, Histogram> = BTreeMap::new();
            for (key, counted) in all.iter().filter(|(_, counted)| !histogram(counted).is_empty()) {
                sums.entry(key.labels(true, false)).or_insert_with(empty).add(histogram(counted));
            }
            for (labels, sum) in sums {
                sum.write(out, name, &labels)?;
            }
        }
        summed(
            out,
            "apiserver_request_terminations_total",
            "[ALPHA] Number of requests which apiserver terminated in self-defense.",
            all.iter().flat_map(|(key, counted)| {
                let labels = |code: u16| format!("code=\"{code}\",{}", key.labels(true, false));
                counted.terminated.all().into_iter().map(move |(code, count)| (labels(code), count)).collect::<Vec<_>>()
            }),
        )?;
        summed(
            out,
            "apiserver_selfrequest_total",
            "[ALPHA] Counter of apiserver self-requests broken out for each verb, API resource and subresource.",
            all.iter().filter_map(|(key, counted)| {
                let (resource, subresource) = (escaped(&key.resource), escaped(&key.subresource));
                let labels = format!("resource=\"{resource}\",subresource=\"{subresource}\",verb=\"{}\"", key.verb);
                Some((labels, some(&counted.own)?))
            }),
        )?;
        summed(
            out,
            "apiserver_request_aborts_total",
            "[ALPHA] Number of requests which apiserver aborted possibly due to a timeout, for each group, version, verb, resource, subresource and scope",
            all.iter().filter_map(|(key, counted)| Some((key.labels(false, false), some(&counted.aborted)?))),
        )
    }
}

fn some(counter: &AtomicU64) -> Option<u64> {
    Some(counter.load(Ordering::Relaxed)).filter(|count| *count > 0)
}
