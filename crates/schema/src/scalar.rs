//! Scalars: what a leaf of any format becomes as a value of its type, in canonical form.

use crate::tree::Value;
use crate::types::{Kind, TypeRef};
use api::quantity::Quantity;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use compact_str::{CompactString, format_compact};

/// A leaf as a format has it.
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Owned(CompactString),
}

/// Why a leaf is not of its type.
#[derive(Debug)]
pub(crate) enum Unfit {
    /// It is of another kind: what it is, in Go's words.
    Type(String),
    /// It is of the right kind, and can't be read: why.
    Value(String),
}

impl Scalar<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Scalar::Str(s) => Some(s),
            Scalar::Owned(s) => Some(s),
            _ => None,
        }
    }

    fn into_value(self) -> Value {
        match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(b) => Value::Bool(b),
            Scalar::Int(i) => Value::Int(i),
            Scalar::Float(f) => Value::Float(f),
            Scalar::Str(s) => Value::Str(s.into()),
            Scalar::Owned(s) => Value::Str(s),
        }
    }

    fn mismatch(&self) -> Unfit {
        Unfit::Type(match self {
            Scalar::Null => "null".into(),
            Scalar::Bool(_) => "bool".into(),
            Scalar::Int(_) | Scalar::Float(_) => "number".into(),
            Scalar::Str(_) | Scalar::Owned(_) => "string".into(),
        })
    }
}

/// A leaf that is not null as a value of a type.
pub(crate) fn convert(ty: TypeRef<'_>, scalar: Scalar<'_>) -> Result<Value, Unfit> {
    let number = |what: &dyn std::fmt::Display| Unfit::Type(format!("number {what}"));
    match (ty.kind(), &scalar) {
        (Kind::String, Scalar::Str(_) | Scalar::Owned(_))
        | (Kind::Bool | Kind::OrBool(_), Scalar::Bool(_))
        | (Kind::Int64, Scalar::Int(_))
        | (Kind::Json | Kind::Raw, _) => Ok(scalar.into_value()),
        (Kind::Int32 | Kind::IntOrString, Scalar::Int(i)) => match i32::try_from(*i) {
            Ok(_) => Ok(Value::Int(*i)),
            Err(_) => Err(number(i)),
        },
        (Kind::IntOrString, Scalar::Str(_) | Scalar::Owned(_)) => Ok(scalar.into_value()),
        (Kind::Int32 | Kind::Int64 | Kind::IntOrString, Scalar::Float(f)) => Err(number(&float(*f))),
        (Kind::Float, Scalar::Int(i)) => Ok(Value::Float(*i as f64)),
        (Kind::Float, Scalar::Float(f)) => Ok(Value::Float(*f)),
        (Kind::Quantity, Scalar::Int(i)) => quantity(&format_compact!("{i}")),
        (Kind::Quantity, Scalar::Float(f)) => quantity(&float(*f)),
        _ => {
            let Some(text) = scalar.text() else { return Err(scalar.mismatch()) };
            match ty.kind() {
                Kind::Quantity => quantity(text),
                Kind::Time => time(text, false),
                Kind::MicroTime => time(text, true),
                Kind::Bytes => bytes(text),
                Kind::Duration => match duration_nanos(text) {
                    Some(nanos) => Ok(Value::Str(duration_text(nanos))),
                    None => Err(Unfit::Value(format!("time: invalid duration {text:?}"))),
                },
                _ => Err(scalar.mismatch()),
            }
        }
    }
}

fn quantity(text: &str) -> Result<Value, Unfit> {
    // Most are digits with one of these suffixes, and below the next larger suffix: canonical already.
    let text = text.trim();
    Quantity::canonical(text).map(|text| Value::Str(text.into())).map_err(|e| Unfit::Value(e.to_string()))
}

/// Padding may be missing nowhere, but bits behind the last byte may be anything: as Go reads.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

fn bytes(text: &str) -> Result<Value, Unfit> {
    let decoded = if text.bytes().any(|b| b == b'\n' || b == b'\r') {
        LENIENT.decode(text.bytes().filter(|b| *b != b'\n' && *b != b'\r').collect::<Vec<u8>>())
    } else {
        LENIENT.decode(text)
    };
    match decoded {
        Ok(bytes) => Ok(Value::Str(base64_text(&bytes))),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(Unfit::Value(format!("illegal base64 data at input byte {at}")))
        }
        Err(_) => Err(Unfit::Value(format!("illegal base64 data at input byte {}", text.len()))),
    }
}

/// Bytes as the tree has them.
pub(crate) fn base64_text(bytes: &[u8]) -> CompactString {
    base64::engine::general_purpose::STANDARD.encode(bytes).into()
}

/// The bytes that a text of the tree stands for.
pub(crate) fn base64_bytes(text: &str) -> Vec<u8> {
    LENIENT.decode(text).unwrap_or_default()
}

/// A point in time: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instant {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

fn time(text: &str, micro: bool) -> Result<Value, Unfit> {
    let plain = text.len() == 20 && text.ends_with('Z');
    match Instant::parse(text).filter(|instant| instant.in_range()) {
        // Go writes its zero time as null.
        Some(instant) if instant.is_zero() => Ok(Value::Null),
        Some(_) if plain && !micro => Ok(Value::Str(text.into())),
        Some(instant) => Ok(Value::Str(instant.text(micro))),
        None => {
            let layout = if micro { "2006-01-02T15:04:05.000000Z07:00" } else { "2006-01-02T15:04:05Z07:00" };
            Err(Unfit::Value(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?}")))
        }
    }
}

impl Instant {
    /// Reads RFC 3339, strictly.
    pub(crate) fn parse(text: &str) -> Option<Instant> {
        let b = text.as_bytes();
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
            if places == 0 {
                return None;
            }
            nanos *= 10u32.pow(9 - places);
        }
        let offset = match b.get(at)? {
            b'Z' if b.len() == at + 1 => 0,
            sign @ (b'+' | b'-') if b.len() == at + 6 && b[at + 3] == b':' => {
                let (hours, minutes) = (digits(at + 1, at + 3)?, digits(at + 4, at + 6)?);
                if hours > 24 || minutes > 59 {
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
}

/// The years that RFC 3339 can write.
const YEARS: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;
/// Go's zero time: the first second of the year 1.
const ZERO_TIME: i64 = -62_135_596_800;

impl Instant {
    pub(crate) fn in_range(self) -> bool {
        YEARS.contains(&self.seconds)
    }
    pub(crate) fn is_zero(self) -> bool {
        self.seconds == ZERO_TIME && self.nanos == 0
    }
}

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

/// A float as Go's JSON writes it: plain, or with an exponent when it is very small or very large.
pub(crate) fn float(f: f64) -> String {
    if !f.is_finite() {
        return "null".into();
    }
    let size = f.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{f:e}");
        match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
            _ => text,
        }
    } else {
        format!("{f}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let seconds = |text: &str| Instant::parse(text).map(|i| i.text(false).to_string());
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
        let micro = Instant::parse("2024-01-01T00:00:00.1234567Z").map(|i| i.text(true).to_string());
        assert_eq!(micro.as_deref(), Some("2024-01-01T00:00:00.123456Z"));
    }

    #[test]
    fn days_count_both_ways() {
        for days in (-800_000..800_000).step_by(97) {
            let (y, m, d) = civil_from_days(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }

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

    #[test]
    fn floats_are_written_as_go_does() {
        for (f, text) in
            [(1.0, "1"), (0.1, "0.1"), (1e21, "1e+21"), (1e-7, "1e-7"), (123456789.5, "123456789.5"), (-0.5, "-0.5")]
        {
            assert_eq!(float(f), text);
        }
    }
}
