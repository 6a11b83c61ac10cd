//! What is measured of work queues, under upstream's names.

use api::measure::{Histogram, Tells, head, series};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

const SECONDS: &[f64] = &[1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0];

/// The queues of a process by their names, and what is counted of each; those of one name are counted together. Clones are the
/// same.
#[derive(Clone, Debug, Default)]
pub struct Queues(Arc<Mutex<BTreeMap<&'static str, Arc<Counts>>>>);

/// What is counted of one.
#[derive(Debug)]
pub(super) struct Counts {
    depth: AtomicI64,
    adds: AtomicU64,
    retries: AtomicU64,
    waited: Histogram,
    worked: Histogram,
    /// Since when each key is worked on that is.
    running: Mutex<Vec<Instant>>,
}

impl Default for Counts {
    fn default() -> Self {
        Counts {
            depth: AtomicI64::new(0),
            adds: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            waited: Histogram::of_times(SECONDS),
            worked: Histogram::of_times(SECONDS),
            running: Mutex::default(),
        }
    }
}

impl Counts {
    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key is asked for that was not.
    pub(super) fn added(&self) {
        self.adds.fetch_add(1, Ordering::Relaxed);
        self.depth.fetch_add(1, Ordering::Relaxed);
    }

    /// A key is asked for after a while.
    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A key is worked on from now on, which has waited so long.
    pub(super) fn begun(&self, now: Instant, waited: Duration) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
        self.waited.took(waited);
        self.running().push(now);
    }

    /// What was begun then is done.
    pub(super) fn done(&self, since: Instant, took: Duration) {
        self.worked.took(took);
        self.ended(since);
    }

    fn ended(&self, since: Instant) {
        let mut running = self.running();
        if let Some(at) = running.iter().position(|began| *began == since) {
            running.swap_remove(at);
        }
    }

    /// A queue goes with so many keys that were asked for, and those that were worked on.
    pub(super) fn dropped<'a>(&self, asked: usize, running: impl Iterator<Item = &'a Instant>) {
        self.depth.fetch_sub(i64::try_from(asked).unwrap_or(i64::MAX), Ordering::Relaxed);
        running.for_each(|since| self.ended(*since));
    }

    /// How long what is worked on has been, together and at most.
    fn unfinished(&self) -> (f64, f64) {
        let seconds = self.running().iter().map(|since| since.elapsed().as_secs_f64()).collect::<Vec<_>>();
        (seconds.iter().fold(0.0, |sum, one| sum + one), seconds.iter().copied().fold(0.0, f64::max))
    }
}

/// A number of a queue: name, type, help.
type Number = (&'static str, &'static str, &'static str, fn(&Counts) -> f64);

#[allow(clippy::cast_precision_loss, reason = "metrics are floating point")]
const NUMBERS: &[Number] = &[
    ("workqueue_adds_total", "counter", "[BETA] Total number of adds handled by workqueue", |counts| {
        counts.adds.load(Ordering::Relaxed) as f64
    }),
    ("workqueue_depth", "gauge", "[BETA] Current depth of workqueue", |counts| {
        counts.depth.load(Ordering::Relaxed) as f64
    }),
    (
        "workqueue_longest_running_processor_seconds",
        "gauge",
        "[BETA] How many seconds has the longest running processor for workqueue been running.",
        |counts| counts.unfinished().1,
    ),
    ("workqueue_retries_total", "counter", "[BETA] Total number of retries handled by workqueue", |counts| {
        counts.retries.load(Ordering::Relaxed) as f64
    }),
    (
        "workqueue_unfinished_work_seconds",
        "gauge",
        "[BETA] How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.",
        |counts| counts.unfinished().0,
    ),
];

/// A histogram of a queue: name, help.
type Times = (&'static str, &'static str, fn(&Counts) -> &Histogram);

const TIMES: &[Times] = &[
    (
        "workqueue_queue_duration_seconds",
        "[BETA] How long in seconds an item stays in workqueue before being requested.",
        |counts| &counts.waited,
    ),
    (
        "workqueue_work_duration_seconds",
        "[BETA] How long in seconds processing an item from workqueue takes.",
        |counts| &counts.worked,
    ),
];

impl Queues {
    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Arc<Counts>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn of(&self, name: &'static str) -> Arc<Counts> {
        self.all().entry(name).or_default().clone()
    }
}

impl Tells for Queues {
    fn render(&self, out: &mut String) -> fmt::Result {
        let all = self.all();
        for (name, kind, help, number) in NUMBERS {
            head(out, name, kind, help)?;
            for (queue, counts) in &*all {
                series(out, name, &format!("name=\"{queue}\""), number(counts))?;
            }
        }
        for (name, help, times) in TIMES {
            head(out, name, "histogram", help)?;
            for (queue, counts) in &*all {
                times(counts).write(out, name, &format!("name=\"{queue}\""))?;
            }
        }
        Ok(())
    }
}
