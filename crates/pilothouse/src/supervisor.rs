//! The supervisor: each component runs on its own thread and runtime; one that fails is started again alone.

use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

const FIRST_BACK_OFF: Duration = Duration::from_millis(200);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(30);
/// A component that ran this long starts again at the first back-off.
const STEADY: Duration = Duration::from_secs(60);

/// Makes a run of a component; called again for each restart.
pub type Component = Arc<dyn Fn(CancellationToken) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// Told when a component ended before it was asked to: its name and why.
pub type OnFailure = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Starts components and stops them.
pub struct Supervisor {
    shutdown: CancellationToken,
    threads: Vec<(String, JoinHandle<()>)>,
    on_failure: OnFailure,
}

impl Supervisor {
    pub fn new(shutdown: CancellationToken, on_failure: OnFailure) -> Self {
        Supervisor { shutdown, threads: Vec::new(), on_failure }
    }

    /// Starts a component on a thread of its own with a single-threaded runtime.
    pub fn start(&mut self, name: &str, component: Component) -> Result<()> {
        let shutdown = self.shutdown.child_token();
        let on_failure = self.on_failure.clone();
        let owned = name.to_owned();
        let thread = std::thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || keep_running(&owned, &component, &shutdown, &on_failure))
            .with_context(|| format!("cannot start a thread for {name}"))?;
        self.threads.push((name.to_owned(), thread));
        Ok(())
    }

    /// Stops every component and waits for it.
    pub fn stop(self) {
        self.shutdown.cancel();
        self.join();
    }

    /// Waits for every component after the shutdown was asked for, the last started first.
    pub fn join(self) {
        for (name, thread) in self.threads.into_iter().rev() {
            if thread.join().is_err() {
                error!(component = %name, "the component's supervisor thread panicked");
            }
        }
    }
}

fn keep_running(name: &str, component: &Component, shutdown: &CancellationToken, on_failure: &OnFailure) {
    let mut back_off = FIRST_BACK_OFF;
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let Err(why) = run_once(component, shutdown) else {
            if shutdown.is_cancelled() {
                return;
            }
            restart_after(name, "it ended by itself", back_off, shutdown, on_failure);
            continue;
        };
        if shutdown.is_cancelled() {
            info!(component = name, "stopped: {why}");
            return;
        }
        if started.elapsed() > STEADY {
            back_off = FIRST_BACK_OFF;
        }
        restart_after(name, &why, back_off, shutdown, on_failure);
        back_off = (back_off * 2).min(LONGEST_BACK_OFF);
    }
}

fn restart_after(name: &str, why: &str, wait: Duration, shutdown: &CancellationToken, on_failure: &OnFailure) {
    error!(component = name, "the component failed and is started again in {wait:?}: {why}");
    on_failure(name, why);
    let deadline = Instant::now() + wait;
    // The thread has nothing else to do; it looks for the shutdown while it waits.
    while !shutdown.is_cancelled() && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(50).min(wait));
    }
}

/// One run on a fresh runtime; a panic is an error like others.
fn run_once(component: &Component, shutdown: &CancellationToken) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(|e| format!("cannot start a runtime: {e}"))?;
    let run = std::panic::AssertUnwindSafe(async { component(shutdown.clone()).await }).catch_unwind();
    let outcome = runtime.block_on(run);
    runtime.shutdown_timeout(Duration::from_secs(2));
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!("{e:#}")),
        Err(panic) => Err(format!("it panicked: {}", api::panic::text(&*panic))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn a_panic_restarts_that_component_alone() -> Result<()> {
        let shutdown = CancellationToken::new();
        let (failed, failures) = mpsc::channel();
        let (ran, runs) = mpsc::channel();
        let on_failure: OnFailure = Arc::new(move |name: &str, why: &str| {
            failed.send(format!("{name}: {why}")).unwrap_or_else(|e| panic!("{e}"));
        });
        let mut supervisor = Supervisor::new(shutdown.clone(), on_failure);
        let count = Arc::new(AtomicUsize::new(0));
        supervisor.start(
            "fragile",
            Arc::new(move |shutdown| {
                let (count, ran) = (count.clone(), ran.clone());
                async move {
                    if count.fetch_add(1, Ordering::SeqCst) == 0 {
                        panic!("first run");
                    }
                    ran.send(()).context("the test has ended")?;
                    shutdown.cancelled().await;
                    Ok(())
                }
                .boxed()
            }),
        )?;
        assert_eq!(failures.recv()?, "fragile: it panicked: first run");
        runs.recv()?;
        shutdown.cancel();
        supervisor.join();
        Ok(())
    }
}
