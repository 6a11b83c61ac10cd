//! Durations in Go's notation.

use compact_str::{CompactString, format_compact};

/// A duration in Go's notation.
pub(crate) fn duration_text(nanos: i64) -> CompactString {
    let size = nanos.unsigned_abs();
    let sign = if nanos < 0 { "-" } else { "" };
    let decimal = |unit: u64, name: &str, size: u64| {
        let fraction = format!("{:0width$}", size % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() || unit == 1 { "" } else { "." };
        let fraction = if unit == 1 { "" } else { fraction };
        format_compact!("{}{point}{fraction}{name}", size / unit)
    };
    match size {
        0 => "0s".into(),
        1..1_000 => format_compact!("{sign}{size}ns"),
        1_000..1_000_000 => format_compact!("{sign}{}", decimal(1_000, "µs", size)),
        1_000_000..1_000_000_000 => format_compact!("{sign}{}", decimal(1_000_000, "ms", size)),
        _ => {
            let minutes = size / 60_000_000_000;
            let seconds = decimal(1_000_000_000, "s", size % 60_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format_compact!("{sign}{seconds}"),
                (0, minutes) => format_compact!("{sign}{minutes}m{seconds}"),
                (hours, minutes) => format_compact!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (text, canonical) in [
            ("1h", "1h0m0s"),
            ("90s", "1m30s"),
            ("1.5s", "1.5s"),
            ("10ms", "10ms"),
            ("0", "0s"),
            ("-1h2m3.5s", "-1h2m3.5s"),
            ("1500us", "1.5ms"),
        ] {
            assert_eq!(api::duration::parse(text).map(duration_text).as_deref(), Ok(canonical), "{text}");
        }
    }
}
