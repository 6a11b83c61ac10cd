//! Lines that are lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often is told that lines are lost.
const COMPLAINT: Duration = Duration::from_secs(1);

/// Lines that were not written, by upstream's names of who failed.
#[derive(Debug, Default)]
pub struct Lost {
    /// The log could not be written.
    pub log: AtomicU64,
    /// There was no room to let them wait.
    pub buffered: AtomicU64,
    /// They were too large, even without their objects.
    pub truncate: AtomicU64,
    complaint: Mutex<Complaint>,
}

/// What goes wrong again and again: how often that was not told yet, and when it was last.
#[derive(Debug, Default)]
pub(in crate::audit) struct Complaint {
    untold: u64,
    last: Option<Instant>,
}

impl Complaint {
    /// It happened once more. How often is to be told, if that is to be now.
    pub(in crate::audit) fn due(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < COMPLAINT) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Lost {
    /// Counts a line that is lost, and tells why, but not of each when there are many.
    pub(in crate::audit) fn count(&self, counter: &AtomicU64, why: &dyn std::fmt::Display) {
        counter.fetch_add(1, Ordering::Relaxed);
        let due = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now());
        if let Some(events) = due {
            tracing::error!(events, "audit events are lost: {why}");
        }
    }
}
