//! How often service account tokens are used, by what kind of token they are. What is remembered is not counted again, as
//! upstream counts behind its cache.

use crate::measure::head;
use crate::registry::measures::Tells;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Of a Secret.
    Legacy,
    /// Of a Secret that controllers made.
    Generated,
    /// Of one that somebody made.
    Manual,
    /// Of one that controllers made and that was marked invalid.
    Invalid,
    /// Of a token that lives longer than was asked for, past what was asked for.
    Stale,
    /// Of such a token before that.
    Valid,
}

const METRICS: [(Use, &str, &str); 6] = [
    (Use::Legacy, "legacy_tokens_total", "Cumulative legacy service account tokens used"),
    (Use::Stale, "stale_tokens_total", "Cumulative stale projected service account tokens used"),
    (Use::Valid, "valid_tokens_total", "Cumulative valid projected service account tokens used"),
    (Use::Generated, "legacy_auto_token_uses_total", "Cumulative auto-generated legacy tokens used"),
    (Use::Manual, "legacy_manual_token_uses_total", "Cumulative manually created legacy tokens used"),
    (Use::Invalid, "invalid_legacy_auto_token_uses_total", "Cumulative invalid auto-generated legacy tokens used"),
];

/// The counts.
#[derive(Debug, Default)]
pub struct Uses([AtomicU64; METRICS.len()]);

impl Tells for Uses {
    fn render(&self, out: &mut String) -> fmt::Result {
        for ((_, name, help), count) in METRICS.iter().zip(&self.0) {
            let name = format!("serviceaccount_{name}");
            head(out, &name, "counter", &format!("[ALPHA] {help}"))?;
            writeln!(out, "{name} {}", count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

impl Uses {
    pub fn count(&self, of: Use) {
        let places = METRICS.iter().zip(&self.0).find(|((kind, ..), _)| *kind == of);
        if let Some((_, count)) = places {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}
