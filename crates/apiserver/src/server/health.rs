//! `/healthz`, `/livez`, `/readyz`: how the server is, check by check.

use super::chain::plain;
use crate::http::{Body, Response};
use crate::registry::Registry;
use crate::request::all_parameters;
use futures::future::BoxFuture;
use http::StatusCode;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// One thing that is looked at.
#[derive(Clone)]
pub struct Check {
    pub name: &'static str,
    /// Looked at for liveness too: a failure means that only a restart helps.
    pub live: bool,
    /// What is wrong, if anything.
    pub look: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
}

/// All checks.
pub struct Health {
    checks: RwLock<Vec<Check>>,
    stopping: Arc<AtomicBool>,
}

fn check<F>(name: &'static str, live: bool, look: F) -> Check
where
    F: Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
{
    Check { name, live, look: Arc::new(look) }
}

/// Whether the store answers, and takes writes.
fn answers(registry: &Arc<Registry>) -> impl Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static {
    let store = Arc::downgrade(registry);
    move || {
        let registry = store.upgrade();
        Box::pin(async move {
            let Some(registry) = registry else { return Err("the server is gone".to_owned()) };
            match registry.store().health().await {
                Ok(read_only) => read_only.map_or(Ok(()), Err),
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

impl Health {
    pub(super) fn new(registry: &Arc<Registry>) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let caches = Arc::downgrade(registry);
        let stops = stopping.clone();
        let mut checks = vec![
            check("ping", true, || Box::pin(async { Ok(()) })),
            check("log", true, || Box::pin(async { Ok(()) })),
            check("etcd", false, answers(registry)),
            check("etcd-readiness", false, answers(registry)),
            check("informer-sync", false, move || {
                let following = caches.upgrade().is_some_and(|registry| registry.caches().following());
                Box::pin(async move {
                    if following { Ok(()) } else { Err("the caches do not follow the store".to_owned()) }
                })
            }),
            check("shutdown", false, move || {
                let stopping = stops.load(Ordering::Acquire);
                Box::pin(async move { if stopping { Err("process is shutting down".to_owned()) } else { Ok(()) } })
            }),
        ];
        checks.extend(registry.encryption().and_then(|encryption| encryption.check()));
        Health { checks: RwLock::new(checks), stopping }
    }

    /// Adds a check.
    pub fn add(&self, check: Check) {
        self.checks.write().unwrap_or_else(PoisonError::into_inner).push(check);
    }

    /// From now on the server is not ready.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// What fails of readiness; empty: ready.
    pub async fn failing(&self) -> Vec<(&'static str, String)> {
        let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut failing = Vec::new();
        for check in checks {
            if let Err(why) = (check.look)().await {
                failing.push((check.name, why));
            }
        }
        failing
    }

    pub(super) async fn answer(&self, root: &str, path: &str, query: &str) -> Response<Body> {
        let mut checks = self.checks.read().unwrap_or_else(PoisonError::into_inner).clone();
        match root {
            "livez" => checks.retain(|check| check.live),
            "healthz" => checks.retain(|check| !matches!(check.name, "shutdown" | "etcd-readiness")),
            _ => {}
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
            match (check.look)().await {
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
