//! `/healthz`, `/livez`, `/readyz`: how the server is, check by check.

use super::chain::plain;
use crate::http::{Body, Response};
use crate::registry::Registry;
use crate::request::all_parameters;
use futures::future::BoxFuture;
use http::StatusCode;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// What a check is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Liveness too.
    All,
    /// A restart would not help: of liveness it is a name that passes, for who asks for it or excludes it.
    NotLiveness,
    /// A restart would not help, and liveness does not know it.
    HealthAndReadiness,
    Readiness,
}

/// One thing that is looked at.
#[derive(Clone)]
pub struct Check {
    pub name: &'static str,
    pub of: Of,
    /// What is wrong, if anything.
    pub look: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

/// All checks.
pub struct Health {
    checks: RwLock<Vec<Check>>,
    stopping: Arc<AtomicBool>,
    /// By check and kind of health: how often it passed and failed, and whether it passed the last time.
    seen: Mutex<BTreeMap<(&'static str, &'static str), Seen>>,
}

#[derive(Clone, Copy, Default)]
struct Seen {
    passed: u64,
    failed: u64,
    passes: bool,
}

fn check<F>(name: &'static str, of: Of, look: F) -> Check
where
    F: Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
{
    Check { name, of, look: Arc::new(look) }
}

fn passes() -> BoxFuture<'static, Result<(), String>> {
    Box::pin(async { Ok(()) })
}

/// How long the store may take to say how it is (upstream: `--etcd-healthcheck-timeout` and `--etcd-readycheck-timeout`).
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the store answers, and takes writes.
fn answers(registry: &Arc<Registry>) -> impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static {
    let store = Arc::downgrade(registry);
    move || {
        let registry = store.upgrade();
        Box::pin(async move {
            let Some(registry) = registry else { return Err("the server is gone".to_owned()) };
            match tokio::time::timeout(PATIENCE, registry.store().health()).await {
                Ok(Ok(read_only)) => read_only.map_or(Ok(()), Err),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            }
        })
    }
}

/// Whether what a server does once at its start is done.
fn finished(
    registry: &Arc<Registry>,
    hook: &'static str,
) -> impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static {
    let registry = Arc::downgrade(registry);
    move || {
        let done = registry.upgrade().is_some_and(|registry| registry.started().is_done(hook));
        Box::pin(async move { if done { Ok(()) } else { Err("not finished".to_owned()) } })
    }
}

impl Health {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let caches = Arc::downgrade(registry);
        let stops = stopping.clone();
        let mut checks = vec![
            check("ping", Of::All, || Box::pin(async { Ok(()) })),
            check("log", Of::All, || Box::pin(async { Ok(()) })),
            check("etcd", Of::NotLiveness, answers(registry)),
            check("etcd-readiness", Of::Readiness, answers(registry)),
            check("informer-sync", Of::Readiness, move || {
                let following = caches.upgrade().is_some_and(|registry| registry.caches().following());
                Box::pin(async move {
                    if following { Ok(()) } else { Err("the caches do not follow the store".to_owned()) }
                })
            }),
            check("shutdown", Of::Readiness, move || {
                let stopping = stops.load(Ordering::Acquire);
                Box::pin(async move { if stopping { Err("process is shutting down".to_owned()) } else { Ok(()) } })
            }),
        ];
        let end = checks.len() - 1;
        let hooks = registry.started().hooks().into_iter();
        checks.splice(end..end, hooks.map(|hook| check(hook, Of::All, finished(registry, hook))));
        checks.extend(registry.encryption().into_iter().flat_map(|encryption| encryption.checks()));
        Health { checks: RwLock::new(checks), stopping, seen: Mutex::default() }
    }

    /// Adds a check.
    pub fn add(&self, check: Check) {
        self.checks.write().unwrap_or_else(PoisonError::into_inner).push(check);
    }

    fn all(&self) -> Vec<Check> {
        self.checks.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, name: &'static str, root: &'static str, passes: bool) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry((name, root)).or_default();
        seen.passes = passes;
        *(if passes { &mut seen.passed } else { &mut seen.failed }) += 1;
    }

    /// `/metrics/slis`: what came of the checks.
    pub(super) fn slis(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::from(
            "# HELP kubernetes_healthcheck [STABLE] This metric records the result of a single healthcheck.\n\
             # TYPE kubernetes_healthcheck gauge\n",
        );
        // A String takes every write.
        for ((name, root), seen) in seen.iter() {
            let passes = u8::from(seen.passes);
            writeln!(text, "kubernetes_healthcheck{{name=\"{name}\",type=\"{root}\"}} {passes}").unwrap_or(());
        }
        text.push_str(
            "# HELP kubernetes_healthchecks_total [STABLE] This metric records the results of all healthcheck.\n\
             # TYPE kubernetes_healthchecks_total counter\n",
        );
        for ((name, root), seen) in seen.iter() {
            for (status, count) in [("error", seen.failed), ("success", seen.passed)] {
                if count > 0 {
                    let labels = format!("name=\"{name}\",status=\"{status}\",type=\"{root}\"");
                    writeln!(text, "kubernetes_healthchecks_total{{{labels}}} {count}").unwrap_or(());
                }
            }
        }
        text
    }

    /// From now on the server is not ready.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// What fails of readiness; empty: ready.
    pub async fn failing(&self) -> Vec<(&'static str, String)> {
        let mut failing = Vec::new();
        for check in self.all() {
            if let Err(why) = (check.look)().await {
                failing.push((check.name, why));
            }
        }
        failing
    }

    pub(super) async fn answer(&self, root: &str, path: &str, query: &str) -> Response<Body> {
        let mut checks = self.all();
        let (root, alive) = match root {
            "livez" => ("livez", true),
            "healthz" => ("healthz", false),
            _ => ("readyz", false),
        };
        if root != "readyz" {
            checks.retain(|check| check.of != Of::Readiness);
        }
        if alive {
            checks.retain(|check| check.of != Of::HealthAndReadiness);
        }
        for check in checks.iter_mut().filter(|check| alive && check.of == Of::NotLiveness) {
            check.look = Arc::new(passes);
        }
        if let Some((_, one)) = path.trim_start_matches('/').split_once('/') {
            let Some(check) = checks.iter().find(|check| check.name == one) else { return super::paths::not_found() };
            return match (check.look)().await {
                Ok(()) => plain(StatusCode::OK, "ok"),
                Err(why) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
            };
        }
        let mut excluded: Vec<String> =
            all_parameters(query).filter(|(key, _)| key == "exclude").map(|(_, value)| value).collect();
        let verbose = all_parameters(query).any(|(key, _)| key == "verbose");
        let mut text = String::new();
        let mut failed = Vec::new();
        for check in checks {
            // A String takes every write.
            if let Some(at) = excluded.iter().position(|name| name == check.name) {
                excluded.swap_remove(at);
                writeln!(text, "[+]{} excluded: ok", check.name).unwrap_or(());
                continue;
            }
            let looked = (check.look)().await;
            self.note(check.name, root, looked.is_ok());
            match looked {
                Ok(()) => writeln!(text, "[+]{} ok", check.name).unwrap_or(()),
                Err(why) => {
                    tracing::warn!(check = check.name, why, "{root} check failed");
                    writeln!(text, "[-]{} failed: reason withheld", check.name).unwrap_or(());
                    failed.push(check.name);
                }
            }
        }
        if !excluded.is_empty() {
            let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
            writeln!(text, "warn: some health checks cannot be excluded: no matches for {}", names.join(", "))
                .unwrap_or(());
        }
        if failed.is_empty() {
            if !verbose {
                return plain(StatusCode::OK, "ok");
            }
            writeln!(text, "{root} check passed").unwrap_or(());
            return plain(StatusCode::OK, text);
        }
        writeln!(text, "{root} check failed").unwrap_or(());
        plain(StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}
