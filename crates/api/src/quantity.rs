//! Quantities: fixed-point numbers with a suffix (`500m`, `1Gi`, `1e3`), as apimachinery `resource.Quantity` reads,
//! compares and writes them.

use std::cmp::Ordering;
use std::fmt;
use thiserror::Error;

/// A quantity, exact to a billionth; anything finer is rounded up, as upstream does.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    /// In billionths of the unit.
    nanos: i128,
    format: Format,
}

/// How the suffix was written; it decides how the quantity is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `Ki`, `Mi`, `Gi`, ….
    BinarySi,
    /// `n`, `u`, `m`, none, `k`, `M`, `G`, ….
    DecimalSi,
    /// `e3`, `E6`.
    DecimalExponent,
}

/// Why a text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
pub struct ParseError;

const NANO: i128 = 1_000_000_000;
/// Upstream caps at 2^63-1 units.
const MAX: i128 = (i64::MAX as i128) * NANO;

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    pub const fn from_units(units: i64, format: Format) -> Self {
        Quantity { nanos: units as i128 * NANO, format }
    }
    pub const fn from_milli(milli: i64) -> Self {
        Quantity { nanos: milli as i128 * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Reads a quantity.
    ///
    /// # Errors
    /// [`ParseError`] when the number or suffix is malformed.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(ParseError),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(ParseError);
        }
        let (base, exponent, format) = parse_suffix(suffix)?;
        let nanos = scale(whole, fraction, base, exponent);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// The value rounded up to whole units.
    pub fn value(&self) -> i64 {
        clamp(div_up(self.nanos, NANO))
    }
    /// The value in thousandths, rounded up.
    pub fn milli_value(&self) -> i64 {
        clamp(div_up(self.nanos, NANO / 1000))
    }
    /// The value in billionths, exact.
    pub const fn nanos(&self) -> i128 {
        self.nanos
    }
    pub const fn format(&self) -> Format {
        self.format
    }
    pub const fn is_zero(&self) -> bool {
        self.nanos == 0
    }
    /// -1, 0 or 1.
    pub const fn signum(&self) -> i128 {
        self.nanos.signum()
    }
    /// The sum, in the format of `self` (of `other` when `self` is zero).
    #[must_use]
    pub fn add(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
    /// The difference, in the format of `self` (of `other` when `self` is zero).
    #[must_use]
    pub fn sub(&self, other: &Quantity) -> Quantity {
        self.add(&Quantity { nanos: -other.nanos, format: other.format })
    }
    /// The canonical text of a quantity's text, or the text's problem.
    ///
    /// # Errors
    /// As [`Quantity::parse`].
    pub fn canonical(text: &str) -> Result<String, ParseError> {
        Ok(Quantity::parse(text)?.to_string())
    }
}

fn clamp(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

/// Division that rounds away from zero, as upstream rounds quantities.
fn div_up(n: i128, d: i128) -> i128 {
    let q = n / d;
    if n % d == 0 { q } else { q + n.signum() }
}

/// Base (2 or 10), exponent of the base, format.
fn parse_suffix(suffix: &str) -> Result<(u32, i32, Format), ParseError> {
    let plain = match suffix {
        "" => Some((10, 0, Format::DecimalSi)),
        "n" => Some((10, -9, Format::DecimalSi)),
        "u" => Some((10, -6, Format::DecimalSi)),
        "m" => Some((10, -3, Format::DecimalSi)),
        "k" => Some((10, 3, Format::DecimalSi)),
        "M" => Some((10, 6, Format::DecimalSi)),
        "G" => Some((10, 9, Format::DecimalSi)),
        "T" => Some((10, 12, Format::DecimalSi)),
        "P" => Some((10, 15, Format::DecimalSi)),
        "E" => Some((10, 18, Format::DecimalSi)),
        "Ki" => Some((2, 10, Format::BinarySi)),
        "Mi" => Some((2, 20, Format::BinarySi)),
        "Gi" => Some((2, 30, Format::BinarySi)),
        "Ti" => Some((2, 40, Format::BinarySi)),
        "Pi" => Some((2, 50, Format::BinarySi)),
        "Ei" => Some((2, 60, Format::BinarySi)),
        _ => None,
    };
    if let Some(found) = plain {
        return Ok(found);
    }
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(ParseError)?;
    let exponent: i32 = digits.parse().map_err(|_| ParseError)?;
    Ok((10, exponent, Format::DecimalExponent))
}

/// `whole.fraction × base^exponent` in billionths, rounded up, saturating at [`MAX`].
fn scale(whole: &str, fraction: &str, base: u32, exponent: i32) -> i128 {
    // Digits beyond these can't change the result except by rounding up.
    let mut mantissa: i128 = 0;
    let mut dropped_whole = 0u32;
    let mut inexact = false;
    let mut places = 0i32;
    let mut take = |digit: u8, is_fraction: bool| {
        let d = i128::from(digit - b'0');
        if mantissa < 10i128.pow(28) {
            mantissa = mantissa * 10 + d;
            places += i32::from(is_fraction);
        } else {
            inexact |= d != 0;
            dropped_whole += u32::from(!is_fraction);
        }
    };
    for b in whole.bytes() {
        take(b, false);
    }
    for b in fraction.bytes() {
        take(b, true);
    }
    if mantissa == 0 && !inexact {
        return 0;
    }
    let mut decimal = 9 - places + i32::try_from(dropped_whole).unwrap_or(i32::MAX / 4);
    let mut value = mantissa;
    if base == 2 {
        let Some(shifted) = u32::try_from(exponent).ok().and_then(|e| value.checked_mul(1i128 << e)) else {
            return MAX;
        };
        value = shifted;
    } else {
        decimal = decimal.saturating_add(exponent);
    }
    if decimal >= 0 {
        match 10i128.checked_pow(u32::try_from(decimal).unwrap_or(u32::MAX)).and_then(|p| value.checked_mul(p)) {
            Some(v) => (v + i128::from(inexact)).min(MAX),
            None => MAX,
        }
    } else {
        match 10i128.checked_pow(decimal.unsigned_abs()) {
            Some(p) => (div_up(value, p) + i128::from(inexact && value % p == 0)).min(MAX),
            // Smaller than a billionth, but not zero: rounded up.
            None => 1,
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that leaves none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Upstream writes binary quantities below 1024, or with a fraction, in decimal.
        let binary = self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANO && self.nanos % NANO == 0;
        if binary {
            let mut value = self.nanos / NANO;
            let mut power = 0;
            while value % 1024 == 0 && power < 6 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let mut value = self.nanos;
        let mut exponent = -9i32;
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        match (self.format, exponent) {
            (_, 0) => write!(f, "{value}"),
            (Format::DecimalExponent, e) => write!(f, "{value}e{e}"),
            (_, e) => {
                let index = usize::try_from((e + 9) / 3).unwrap_or(0);
                write!(f, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][index])
            }
        }
    }
}

impl std::str::FromStr for Quantity {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        Quantity::parse(s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_forms() {
        for (text, canonical) in [
            ("0", "0"),
            ("500m", "500m"),
            ("0.5", "500m"),
            ("1.0", "1"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("1E3", "1e3"),
            ("100k", "100k"),
            ("1000k", "1M"),
            ("123456789", "123456789"),
            ("-1500m", "-1500m"),
            ("1.5", "1500m"),
            ("0.1n", "1n"),
            ("12Mi", "12Mi"),
            ("4Gi", "4Gi"),
            ("1500", "1500"),
            ("1e-3", "1e-3"),
            (".5", "500m"),
            ("5.", "5"),
        ] {
            assert_eq!(Quantity::canonical(text).as_deref(), Ok(canonical), "{text}");
        }
        for bad in ["", "m", "1x", "1.2.3", "1 Gi", "1GiB", "--1", "e3", "1e", "1ki"] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_round_up() -> Result<(), ParseError> {
        assert_eq!(Quantity::parse("1500m")?.value(), 2);
        assert_eq!(Quantity::parse("0.5")?.milli_value(), 500);
        assert_eq!(Quantity::parse("1u")?.milli_value(), 1);
        assert_eq!(Quantity::parse("99999999999999999999E")?.value(), i64::MAX);
        assert!(Quantity::parse("1Gi")? > Quantity::parse("1G")?);
        Ok(())
    }

    proptest! {
        #[test]
        fn canonical_is_a_fixed_point(text in "[+-]?[0-9]{1,20}(\\.[0-9]{0,12})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]|E-[0-9])?") {
            let first = Quantity::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
            let again = Quantity::parse(&first.to_string()).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(first, again);
            prop_assert_eq!(first.to_string(), again.to_string());
        }

        #[test]
        fn no_input_panics(text in ".{0,40}") {
            prop_assert!(Quantity::parse(&text).is_ok_and(|q| !q.to_string().is_empty()) || Quantity::parse(&text).is_err());
        }
    }
}
