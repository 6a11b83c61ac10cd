//! What is counted of the audit log.

use super::policy::Level;
use super::sink::Lost;
use crate::measure::{head, series};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted of it.
#[derive(Debug, Default)]
pub struct Counts {
    pub(super) events: AtomicU64,
    /// Those that were not written; the sink counts its own.
    pub(super) lost: Arc<Lost>,
    /// Requests that were refused because their events could not be stored.
    pub(super) rejected: AtomicU64,
    /// Requests by the level that the policy gave them.
    levels: [AtomicU64; 4],
}

const LEVELS: [Level; 4] = [Level::Metadata, Level::None, Level::Request, Level::RequestResponse];

impl Counts {
    /// Nothing yet; what the sink counts itself is in `lost`.
    pub(super) fn of(lost: Arc<Lost>) -> Self {
        Counts { lost, ..Counts::default() }
    }

    pub(super) fn level(&self, level: Level) {
        let place = LEVELS.iter().zip(&self.levels).find(|(own, _)| **own == level);
        place.map(|(_, count)| count.fetch_add(1, Ordering::Relaxed));
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn render(&self, out: &mut String) -> fmt::Result {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let name = "apiserver_audit_event_total";
        head(out, name, "counter", "[ALPHA] Counter of audit events generated and sent to the audit backend.")?;
        series(out, name, "", number(&self.events))?;
        let name = "apiserver_audit_error_total";
        head(
            out,
            name,
            "counter",
            "[ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
        )?;
        let Lost { log, buffered, truncate, .. } = &*self.lost;
        for (plugin, lost) in [("buffered", buffered), ("log", log), ("truncate", truncate)] {
            if number(lost) > 0 {
                series(out, name, &format!("plugin=\"{plugin}\""), number(lost))?;
            }
        }
        let name = "apiserver_audit_level_total";
        head(out, name, "counter", "[ALPHA] Counter of policy levels for audit events (1 per request).")?;
        for (level, count) in LEVELS.iter().zip(&self.levels).filter(|(_, count)| number(count) > 0) {
            series(out, name, &format!("level=\"{}\"", level.as_str()), number(count))?;
        }
        let name = "apiserver_audit_requests_rejected_total";
        head(
            out,
            name,
            "counter",
            "[ALPHA] Counter of apiserver requests rejected due to an error in audit logging backend.",
        )?;
        series(out, name, "", number(&self.rejected))
    }
}
