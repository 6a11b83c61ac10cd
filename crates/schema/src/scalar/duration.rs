//! Durations in Go's notation.

use compact_str::{CompactString, format_compact};

/// Nanoseconds of a duration in Go's notation (`1h2m3.5s`, `-10ms`).
pub(crate) fn duration_nanos(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        rest = after;
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || whole.len() > 19 {
            return None;
        }
        total += whole.parse::<i128>().unwrap_or(0) * unit;
        let mut place = unit;
        for digit in fraction.bytes() {
            place /= 10;
            total += i128::from(digit - b'0') * place;
        }
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

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
            assert_eq!(duration_nanos(text).map(duration_text).as_deref(), Some(canonical), "{text}");
        }
        for wrong in ["", "1", "s", "1x", "1..5s", "--1s"] {
            assert_eq!(duration_nanos(wrong), None, "{wrong}");
        }
    }
}
