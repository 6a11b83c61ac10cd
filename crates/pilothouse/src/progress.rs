//! Ticking off the steps of a start: for a person, or as lines of JSON.

use std::io::Write;
use std::time::{Duration, Instant};

/// Says what has been reached, with its time since the start.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    started: Instant,
    json: bool,
}

impl Progress {
    pub fn start(json: bool) -> Self {
        Progress { started: Instant::now(), json }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// One step is done.
    pub fn done(&self, step: &str, detail: &str) {
        let ms = self.elapsed().as_millis();
        if self.json {
            self.line(&serde_json::json!({"step": step, "detail": detail, "ms": ms}).to_string());
        } else {
            self.line(&format!("  ✓ {step:<28} {detail:<40} {ms:>6} ms"));
        }
    }

    /// Something to know that is no step.
    pub fn note(&self, text: &str) {
        if self.json {
            self.line(&serde_json::json!({"note": text}).to_string());
        } else {
            self.line(text);
        }
    }

    /// The cluster is ready.
    pub fn ready(&self, fields: &serde_json::Value, text: &str) {
        if self.json {
            let mut fields = fields.clone();
            fields["ready"] = true.into();
            fields["ms"] = u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX).into();
            self.line(&fields.to_string());
        } else {
            self.line(text);
        }
    }

    fn line(&self, text: &str) {
        // A closed standard output (a pipe whose reader went) must not end the cluster.
        let mut out = std::io::stdout().lock();
        if let Err(e) = writeln!(out, "{text}").and_then(|()| out.flush()) {
            tracing::debug!("cannot print progress: {e}");
        }
    }
}
