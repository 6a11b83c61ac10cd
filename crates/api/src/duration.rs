//! Durations as people read them: upstream's `duration.HumanDuration` (table ages, restart times) and Go's own form.

use crate::field::go_quote;

/// `5s`, `2m30s`, `3h12m`, `2d4h`, `400d`, `2y35d`: two units while they matter.
pub fn human(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
    };
    let minutes = seconds / 60;
    if minutes < 10 {
        return pair(minutes, "m", seconds % 60, "s");
    }
    if minutes < 180 {
        return format!("{minutes}m");
    }
    let hours = minutes / 60;
    if hours < 8 {
        return pair(hours, "h", minutes % 60, "m");
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    let days = hours / 24;
    if hours < 192 {
        return pair(days, "d", hours % 24, "h");
    }
    if days < 365 * 2 {
        return format!("{days}d");
    }
    if days < 365 * 8 {
        return pair(days / 365, "y", days % 365, "d");
    }
    format!("{}y", days / 365)
}

/// Nanoseconds of a duration in Go's notation (`1h2m3.5s`, `-10ms`), as `time.ParseDuration` reads it.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", go_quote(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let split = |text: &'_ str, digits: bool| {
        let ends = |c: char| if digits { !c.is_ascii_digit() } else { c.is_ascii_digit() || c == '.' };
        text.find(ends).unwrap_or(text.len())
    };
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = rest.split_at(split(rest, true));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(split(after, true)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() || whole.len() > 19 {
            return Err(invalid());
        }
        let (unit, after) = after.split_at(split(after, false));
        rest = after;
        let unit: i128 = match unit {
            "" => return Err(format!("time: missing unit in duration {}", go_quote(text))),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => {
                return Err(format!("time: unknown unit {} in duration {}", go_quote(other), go_quote(text)));
            }
        };
        total += whole.parse::<i128>().unwrap_or(0) * unit;
        let mut place = unit;
        for digit in fraction.bytes() {
            place /= 10;
            total += i128::from(digit - b'0') * place;
        }
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::{human, parse};

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("1h", 3_600_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("-1m3s", -63_000_000_000),
            ("+10ms", 10_000_000),
            ("1500us", 1_500_000),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
        for (text, why) in [
            ("", r#"time: invalid duration """#),
            ("s", r#"time: invalid duration "s""#),
            ("--1s", r#"time: invalid duration "--1s""#),
            (".s", r#"time: invalid duration ".s""#),
            ("99999999999h", r#"time: invalid duration "99999999999h""#),
            ("1", r#"time: missing unit in duration "1""#),
            ("1..5s", r#"time: missing unit in duration "1..5s""#),
            ("1w", r#"time: unknown unit "w" in duration "1w""#),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()));
        }
    }

    #[test]
    fn as_upstream() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_520, "3h12m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (187_200, "2d4h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }
}
