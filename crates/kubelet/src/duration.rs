//! Durations as Go prints them, because upstream's messages carry them.

use std::{fmt::Write as _, time::Duration};

/// The text of Go's `time.Duration.String`: `1m2.5s`, `350ms`, `0s`.
#[must_use]
pub(crate) fn go(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    if nanos < 1_000 {
        return format!("{nanos}ns");
    }
    if nanos < 1_000_000 {
        return format!("{}µs", fraction(nanos, 1_000));
    }
    if nanos < 1_000_000_000 {
        return format!("{}ms", fraction(nanos, 1_000_000));
    }
    let seconds = nanos / 1_000_000_000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let mut text = String::new();
    // Writing to a String cannot fail.
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if hours > 0 || minutes > 0 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = write!(text, "{}s", fraction(nanos - (seconds - seconds % 60) * 1_000_000_000, 1_000_000_000));
    text
}

/// [`go`] after dropping what is below a millisecond, as upstream prints pull times.
#[must_use]
pub(crate) fn go_millis(duration: Duration) -> String {
    go(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

fn fraction(nanos: u128, unit: u128) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let digits = unit.ilog10() as usize;
    let rest = format!("{rest:0digits$}");
    format!("{whole}.{}", rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (350_000_000, "350ms"),
            (1_000_000_000, "1s"),
            (10_000_000_000, "10s"),
            (62_500_000_000, "1m2.5s"),
            (60_000_000_000, "1m0s"),
            (300_000_000_000, "5m0s"),
            (3_661_001_000_000, "1h1m1.001s"),
        ] {
            assert_eq!(go(Duration::from_nanos(nanos)), text);
        }
        assert_eq!(go_millis(Duration::from_micros(1_203_456)), "1.203s");
    }
}
