//! Moments as people write them.

use crate::cli::values::GoDuration;
use jiff::{Timestamp, Unit};
use std::str::FromStr;

/// A moment: `now`, a resource version, a time, or how long ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    Now,
    Revision(u64),
    Time(Timestamp),
    Ago(GoDuration),
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" {
            return Ok(Self::Now);
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let revision = text.parse().ok().filter(|revision| (1..=i64::MAX.cast_unsigned()).contains(revision));
            return revision.map(Self::Revision).ok_or_else(|| format!("{text} is no resource version"));
        }
        if let Ok(ago) = text.parse() {
            return Ok(Self::Ago(ago));
        }
        let wrong = "write a resource version, a time such as 2026-01-31T08:00:00Z, how long ago such as 10m, or now";
        text.parse().map(Self::Time).map_err(|_| format!("{text:?} is no moment: {wrong}"))
    }
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::Revision(revision) => write!(f, "{revision}"),
            Self::Time(time) => write!(f, "{time}"),
            Self::Ago(GoDuration(ago)) => write!(f, "{}s ago", ago.as_secs_f64()),
        }
    }
}

impl Moment {
    /// How the API server is asked for it, what is relative being fixed by this machine's clock: nothing for the present.
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Now => None,
            Self::Revision(revision) => Some(revision.to_string()),
            Self::Time(time) => Some(time.to_string()),
            Self::Ago(GoDuration(ago)) => {
                let then =
                    jiff::SignedDuration::try_from(*ago).ok().and_then(|ago| Timestamp::now().checked_sub(ago).ok());
                // The server counts in seconds.
                let then = then.unwrap_or(Timestamp::UNIX_EPOCH);
                Some(then.round(Unit::Second).unwrap_or(then).to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        let read = |text: &str| text.parse::<Moment>();
        assert_eq!(read("now"), Ok(Moment::Now));
        assert_eq!(read("17"), Ok(Moment::Revision(17)));
        assert_eq!(read("10m"), Ok(Moment::Ago(GoDuration(std::time::Duration::from_secs(600)))));
        let time = read("2026-01-31T09:00:00+01:00").expect("a time");
        assert_eq!(time.fix().as_deref(), Some("2026-01-31T08:00:00Z"));
        for bad in ["", "0", "yesterday", "99999999999999999999", "-5m"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
