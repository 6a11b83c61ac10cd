//! Points in time, as RFC 3339 has them.

use compact_str::{CompactString, format_compact};

/// A point in time: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instant {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// The years that RFC 3339 can write.
const YEARS: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;
/// Go's zero time: the first second of the year 1.
const ZERO_TIME: i64 = -62_135_596_800;

impl Instant {
    /// Reads RFC 3339; `micro`: with six digits of a second, no more and no less. As Go, it takes an hour of one digit too.
    pub(crate) fn parse(text: &str, micro: bool) -> Option<Instant> {
        let mut b = text.as_bytes();
        let padded;
        if let Some((before, hour @ [b'0'..=b'9', b':', ..])) = b.split_at_checked(11) {
            padded = [before, b"0", hour].concat();
            b = &padded;
        }
        if b.len() < 20 || b[4] != b'-' || b[7] != b'-' || b[10] != b'T' || b[13] != b':' || b[16] != b':' {
            return None;
        }
        let digits = |from: usize, to: usize| {
            b.get(from..to)?.iter().try_fold(0i64, |n, d| d.is_ascii_digit().then(|| n * 10 + i64::from(d - b'0')))
        };
        let (year, month, day) = (digits(0, 4)?, digits(5, 7)?, digits(8, 10)?);
        let (hour, minute, second) = (digits(11, 13)?, digits(14, 16)?, digits(17, 19)?);
        if !(1..=12).contains(&month)
            || day < 1
            || day > days_in(year, month)
            || hour > 23
            || minute > 59
            || second > 59
        {
            return None;
        }
        let mut at = 19;
        let mut nanos = 0u32;
        if b[at] == b'.' || b[at] == b',' {
            let start = at + 1;
            at = start;
            while b.get(at)?.is_ascii_digit() {
                if at - start < 9 {
                    nanos = nanos * 10 + u32::from(b[at] - b'0');
                }
                at += 1;
            }
            let places = (at - start).min(9) as u32;
            if places == 0 || micro && at - start != 6 {
                return None;
            }
            nanos *= 10u32.pow(9 - places);
        } else if micro {
            return None;
        }
        let offset = match b.get(at)? {
            b'Z' if b.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if b.len() == at + 6 && b[at + 3] == b':' => {
                let (hours, minutes) = (digits(at + 1, at + 3)?, digits(at + 4, at + 6)?);
                if hours > 24 || minutes > 60 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
            }
            _ => return None,
        };
        let seconds = days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
        Some(Instant { seconds, nanos })
    }

    /// RFC 3339 in UTC, with seconds or with microseconds.
    pub(crate) fn text(self, micro: bool) -> CompactString {
        let (days, rest) = (self.seconds.div_euclid(86400), self.seconds.rem_euclid(86400));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
        if micro {
            let micros = self.nanos / 1000;
            format_compact!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
        } else {
            format_compact!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
        }
    }

    pub(crate) fn in_range(self) -> bool {
        YEARS.contains(&self.seconds)
    }
    pub(crate) fn is_zero(self) -> bool {
        self.seconds == ZERO_TIME && self.nanos == 0
    }
}

/// Why a text is no time, in Go's words: what its parser, which follows a layout piece by piece, stops at.
pub(crate) fn refusal(text: &str, micro: bool) -> String {
    let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
    let whole = quoted(text);
    match stop(text.as_bytes(), micro) {
        Stop::At(rest, element) => {
            let rest = quoted_bytes(rest);
            format!("parsing time {whole} as {}: cannot parse {rest} as {}", quoted(layout), quoted(element))
        }
        Stop::Range(what) => format!("parsing time {whole}: {what} out of range"),
        Stop::Extra(rest) => format!("parsing time {whole}: extra text: {}", quoted_bytes(rest)),
    }
}

/// Where Go's parser stops.
enum Stop<'t> {
    /// The rest of the text does not begin as this piece of the layout.
    At(&'t [u8], &'static str),
    Range(&'static str),
    Extra(&'t [u8]),
}

/// A number of two digits, or of one where that may be, and what comes after it.
fn number(text: &[u8], fixed: bool) -> Option<(i64, &[u8])> {
    match text {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9', rest @ ..] => {
            Some((i64::from(tens - b'0') * 10 + i64::from(ones - b'0'), rest))
        }
        [ones @ b'0'..=b'9', rest @ ..] if !fixed => Some((i64::from(ones - b'0'), rest)),
        _ => None,
    }
}

fn stop(text: &[u8], micro: bool) -> Stop<'_> {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits(text) < 4 {
        return Stop::At(text, "2006");
    }
    let (year, mut rest) = text.split_at(4);
    let year = year.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    let (mut month, mut day) = (1, 1);
    for (before, element, what, range) in [
        ("-", "01", "month", 1..13),
        ("-", "02", "day", 0..100),
        ("T", "15", "hour", 0..24),
        (":", "04", "minute", 0..60),
        (":", "05", "second", 0..60),
    ] {
        let Some(after) = rest.strip_prefix(before.as_bytes()) else { return Stop::At(rest, before) };
        let Some((number, after)) = number(after, what != "hour") else { return Stop::At(after, element) };
        if !range.contains(&number) {
            return Stop::Range(what);
        }
        match what {
            "month" => month = number,
            "day" => day = number,
            _ => {}
        }
        rest = after;
    }
    if let [b'.' | b',', fraction @ ..] = rest {
        let places = digits(fraction);
        if micro && places >= 6 {
            rest = &fraction[6..];
        } else if !micro && places > 0 {
            rest = &fraction[places..];
        } else if micro {
            return Stop::At(rest, ".000000");
        }
    } else if micro {
        return Stop::At(rest, ".000000");
    }
    rest = match rest {
        [b'Z', rest @ ..] => rest,
        [b'+' | b'-', _, _, b':', _, _, after @ ..] => {
            let (Some((hours, _)), Some((minutes, _))) = (number(&rest[1..3], true), number(&rest[4..6], true)) else {
                return Stop::At(rest, "Z07:00");
            };
            if minutes > 60 {
                return Stop::Range("time zone offset minute");
            }
            if hours > 24 {
                return Stop::Range("time zone offset hour");
            }
            after
        }
        _ => return Stop::At(rest, "Z07:00"),
    };
    if !rest.is_empty() {
        Stop::Extra(rest)
    } else if day < 1 || day > days_in(year, month) {
        Stop::Range("day")
    } else {
        // Nothing is wrong to Go: only the year, once it is written in UTC.
        Stop::Range("year")
    }
}

fn quoted(text: &str) -> String {
    quoted_bytes(text.as_bytes())
}

/// As Go's package `time` quotes: every byte beyond ASCII on its own.
fn quoted_bytes(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for byte in text {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(*byte)]),
            b' '..0x80 => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let seconds = |text: &str| Instant::parse(text, false).map(|i| i.text(false).to_string());
        assert_eq!(seconds("2024-02-29T23:30:00+01:00").as_deref(), Some("2024-02-29T22:30:00Z"));
        assert_eq!(seconds("1969-12-31T23:59:59.5Z").as_deref(), Some("1969-12-31T23:59:59Z"));
        assert_eq!(seconds("0001-01-01T00:00:00Z").as_deref(), Some("0001-01-01T00:00:00Z"));
        for wrong in [
            "2023-02-29T00:00:00Z",
            "2024-01-01",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00",
            "2024-01-01T00:00:00.Z",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        assert_eq!(seconds("2020-01-01T1:02:03Z").as_deref(), Some("2020-01-01T01:02:03Z"));
        assert_eq!(seconds("2020-01-01T00:00:00-00:60").as_deref(), Some("2020-01-01T01:00:00Z"));
        assert_eq!(seconds("2020-01-01T00:00:00,123456789123Z").as_deref(), Some("2020-01-01T00:00:00Z"));
    }

    #[test]
    fn what_is_no_time_is_refused_in_gos_words() {
        let layout = "\"2006-01-02T15:04:05Z07:00\"";
        for (text, rest, element) in [
            ("bad", "bad", "2006"),
            ("", "", "2006"),
            ("2020", "", "-"),
            ("2020-1-01T00:00:00Z", "1-01T00:00:00Z", "01"),
            ("2020-01-01", "", "T"),
            ("2020-01-01 00:00:00Z", " 00:00:00Z", "T"),
            ("2020-01-01T00:00:00", "", "Z07:00"),
            ("2020-01-01T00:00:00+0100", "+0100", "Z07:00"),
        ] {
            let why = format!("parsing time \"{text}\" as {layout}: cannot parse \"{rest}\" as \"{element}\"");
            assert_eq!(refusal(text, false), why);
        }
        for (text, what) in [
            ("2020-13-01T00:00:00Z", "month out of range"),
            ("2023-02-29T00:00:00Z", "day out of range"),
            ("2020-01-01T24:00:00Z", "hour out of range"),
            ("2020-01-01T00:00:00+25:00", "time zone offset hour out of range"),
            ("2020-01-01T00:00:00Zü", "extra text: \"\\xc3\\xbc\""),
        ] {
            let why = format!(": {what}");
            assert!(refusal(text, false).ends_with(&why), "{}", refusal(text, false));
            assert!(Instant::parse(text, false).is_none());
        }
    }

    #[test]
    fn microseconds_take_six_digits() {
        let micro = |text: &str| Instant::parse(text, true).map(|i| i.text(true).to_string());
        for text in ["2024-01-01T00:00:00.123456Z", "2024-01-01T01:00:00.123456+01:00", "2024-01-01T0:00:00,123456Z"] {
            assert_eq!(micro(text).as_deref(), Some("2024-01-01T00:00:00.123456Z"), "{text}");
        }
        for (fraction, rest, element) in [
            ("", "Z", ".000000"),
            (".1", ".1Z", ".000000"),
            (".123", ".123Z", ".000000"),
            (".12345", ".12345Z", ".000000"),
            (".123456789", "789Z", "Z07:00"),
        ] {
            let text = format!("2020-01-01T00:00:00{fraction}Z");
            assert_eq!(micro(&text), None);
            let why = format!(
                "parsing time \"{text}\" as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse \"{rest}\" as \"{element}\""
            );
            assert_eq!(refusal(&text, true), why);
        }
    }

    #[test]
    fn days_count_both_ways() {
        for days in (-800_000..800_000).step_by(97) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }
}
