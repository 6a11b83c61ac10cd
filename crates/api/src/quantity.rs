//! Quantities: fixed-point numbers with a suffix (`500m`, `1Gi`, `1e3`), as apimachinery `resource.Quantity` reads,
//! compares and writes them.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use thiserror::Error;

/// A quantity, exact to a billionth; anything finer is rounded up, as upstream does. What is beyond [`MAX`] is that.
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
pub enum ParseError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
/// What is computed with is no more than this, in billionths: two of them can be added. Texts have no such limit.
const MAX: i128 = 10i128.pow(37);
/// Upstream caps quantities with a binary suffix at so many units, and no others.
const MAX_BINARY: &str = "9223372036854775807";
const NANO_SCALE: i64 = -9;
const MILLI_SCALE: i64 = -3;
/// As many digits as upstream reads into an integer; of those it keeps the text.
const FAST_DIGITS: i64 = 18;

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
        let parts = Parts::of(text)?;
        let format = parts.suffix.format;
        Ok(Quantity { nanos: parts.nanos().unwrap_or_else(|| parts.decimal().nanos()), format })
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
    /// Whether it has no fraction.
    pub const fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
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

    /// A quantity's text as upstream writes it again: as it was given when it takes few digits and its exponent is a multiple of
    /// three (`1.234`, `01`, `1E3`), otherwise in canonical form (`1500m` for `1.5`).
    ///
    /// # Errors
    /// As [`Quantity::parse`].
    pub fn rewritten(text: &str) -> Result<Cow<'_, str>, ParseError> {
        let parts = Parts::of(text)?;
        Ok(if parts.kept() { text.into() } else { parts.decimal().to_string().into() })
    }

    /// Whether two texts are quantities of the same value, of any size.
    pub fn same_value(one: &str, other: &str) -> bool {
        let of = |text| Parts::of(text).ok().map(|parts| parts.decimal());
        match (of(one), of(other)) {
            // Digits have no zeros at their ends, so a value has one form. Zero has no sign.
            (Some(one), Some(other)) => {
                let zero = one.digits.is_empty();
                one.digits == other.digits && one.exponent == other.exponent && (zero || one.negative == other.negative)
            }
            _ => false,
        }
    }

    /// The text of a quantity, rounded up to thousandths; `None` when it has nothing finer, or is no quantity.
    pub fn rounded_to_milli(text: &str) -> Option<String> {
        // Only these can make something finer, and few quantities have one.
        if !text.bytes().any(|byte| matches!(byte, b'.' | b'n' | b'u' | b'm' | b'e' | b'E')) {
            return None;
        }
        let mut decimal = Parts::of(text).ok()?.decimal();
        decimal.round_up(MILLI_SCALE).then(|| decimal.to_string())
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

/// What a suffix means: so many times `base` to the power of `exponent`.
#[derive(Clone, Copy)]
struct Suffix {
    base: u32,
    exponent: i32,
    format: Format,
}

impl Suffix {
    fn of(suffix: &str) -> Result<Suffix, ParseError> {
        let (base, exponent, format) = match suffix {
            "" => (10, 0, Format::DecimalSi),
            "n" => (10, -9, Format::DecimalSi),
            "u" => (10, -6, Format::DecimalSi),
            "m" => (10, -3, Format::DecimalSi),
            "k" => (10, 3, Format::DecimalSi),
            "M" => (10, 6, Format::DecimalSi),
            "G" => (10, 9, Format::DecimalSi),
            "T" => (10, 12, Format::DecimalSi),
            "P" => (10, 15, Format::DecimalSi),
            "E" => (10, 18, Format::DecimalSi),
            "Ki" => (2, 10, Format::BinarySi),
            "Mi" => (2, 20, Format::BinarySi),
            "Gi" => (2, 30, Format::BinarySi),
            "Ti" => (2, 40, Format::BinarySi),
            "Pi" => (2, 50, Format::BinarySi),
            "Ei" => (2, 60, Format::BinarySi),
            other => {
                let digits = other.strip_prefix(['e', 'E']).ok_or(ParseError::Suffix)?;
                let exponent: i64 = digits.parse().map_err(|_| ParseError::Suffix)?;
                #[expect(clippy::cast_possible_truncation, reason = "upstream's conversion drops the upper half, too")]
                (10, exponent as i32, Format::DecimalExponent)
            }
        };
        Ok(Suffix { base, exponent, format })
    }
}

/// The pieces of a quantity's text.
struct Parts<'t> {
    negative: bool,
    /// Digits before the point without leading zeros, and after it.
    whole: &'t str,
    fraction: &'t str,
    suffix: Suffix,
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Result<Self, ParseError> {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(ParseError::Format),
        };
        let (number, mut rest) = unsigned.split_at(digits(unsigned));
        let mut fraction = "";
        if let Some(after) = rest.strip_prefix('.') {
            (fraction, rest) = after.split_at(digits(after));
        }
        let letters = rest.bytes().take_while(|byte| b"eEinumkKMGTP".contains(byte)).count();
        let exponent = rest[letters..].strip_prefix(['+', '-']).unwrap_or(&rest[letters..]);
        if digits(exponent) != exponent.len() {
            return Err(ParseError::Format);
        }
        let parts = Parts { negative, whole: number.trim_start_matches('0'), fraction, suffix: Suffix::of(rest)? };
        // Without any digit it is zero, if upstream takes its fast path.
        if number.is_empty() && fraction.is_empty() && !parts.fast() {
            return Err(ParseError::Numeric);
        }
        Ok(parts)
    }

    /// How many digits there are, as upstream counts them.
    fn places(&self) -> (i64, i64) {
        let count = |digits: &str| i64::try_from(digits.len()).unwrap_or(i64::MAX / 4);
        (count(self.whole).max(1), count(self.fraction))
    }

    /// The exponent of the last digit.
    fn scale(&self) -> i64 {
        let exponent = if self.suffix.base == 10 { i64::from(self.suffix.exponent) } else { 0 };
        exponent - self.places().1
    }

    /// Whether upstream reads it into an integer of 64 bits and an exponent.
    fn fast(&self) -> bool {
        let (whole, fraction) = self.places();
        let fits = match self.suffix.base {
            10 => whole + fraction <= FAST_DIGITS,
            _ => fraction == 0 && whole + i64::from(self.suffix.exponent) * 3 / 10 <= 14,
        };
        fits && self.scale() >= NANO_SCALE
    }

    /// Whether upstream keeps the text as it is.
    fn kept(&self) -> bool {
        if !self.fast() {
            return false;
        }
        if self.suffix.base == 2 {
            return self.whole.parse::<u64>().is_ok_and(|number| number % 8 != 0);
        }
        let zeros = |digits: &str| digits.bytes().rev().take_while(|digit| *digit == b'0').count();
        let mut trailing = zeros(self.fraction);
        if trailing == self.fraction.len() {
            trailing += zeros(self.whole);
        }
        self.scale() % 3 == 0 && trailing < 3 && !self.whole.is_empty()
    }

    /// The value in billionths, where that is easily told.
    fn nanos(&self) -> Option<i128> {
        let (whole, fraction) = self.places();
        if whole + fraction > FAST_DIGITS {
            return None;
        }
        let digits = self.whole.bytes().chain(self.fraction.bytes());
        let mut value = digits.fold(0, |number, digit| number * 10 + i128::from(digit - b'0'));
        let mut scale = self.scale() - NANO_SCALE;
        if self.suffix.base == 2 {
            value = value.checked_mul(1i128 << self.suffix.exponent)?;
        }
        if value != 0 && scale > 28 {
            return None;
        }
        if scale >= 0 && value != 0 {
            value = value.checked_mul(10i128.pow(u32::try_from(scale).ok()?))?;
            scale = 0;
        }
        if scale < 0 {
            let divisor = u32::try_from(-scale).ok().and_then(|scale| 10i128.checked_pow(scale));
            value = divisor.map_or(value.signum(), |divisor| div_up(value, divisor));
        }
        let most = if self.suffix.base == 2 { i128::from(i64::MAX) * NANO } else { MAX };
        let value = value.min(most);
        Some(if self.negative { -value } else { value })
    }

    /// The exact value, rounded up to billionths.
    fn decimal(&self) -> Decimal {
        let mut digits: Vec<u8> = self.whole.bytes().chain(self.fraction.bytes()).map(|digit| digit - b'0').collect();
        if self.suffix.base == 2 {
            multiply(&mut digits, 1 << self.suffix.exponent);
        }
        let mut decimal =
            Decimal { negative: self.negative, digits, exponent: self.scale(), format: self.suffix.format };
        decimal.trim();
        decimal.round_up(NANO_SCALE);
        if self.suffix.base == 2 {
            decimal.cap();
        }
        decimal
    }
}

/// Multiplies a number, whose digits these are.
fn multiply(digits: &mut Vec<u8>, by: u64) {
    let mut carry = 0u128;
    for digit in digits.iter_mut().rev() {
        carry += u128::from(*digit) * u128::from(by);
        *digit = (carry % 10) as u8;
        carry /= 10;
    }
    let mut more = Vec::new();
    while carry > 0 {
        more.push((carry % 10) as u8);
        carry /= 10;
    }
    more.reverse();
    digits.splice(0..0, more);
}

/// A number of any size: its digits, without zeros at the beginning or end, times ten to the power of `exponent`.
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
    format: Format,
}

impl Decimal {
    fn trim(&mut self) {
        let first = self.digits.iter().position(|digit| *digit != 0).unwrap_or(self.digits.len());
        self.digits.drain(..first);
        while self.digits.last() == Some(&0) {
            self.digits.pop();
            self.exponent += 1;
        }
        if self.digits.is_empty() {
            self.exponent = 0;
        }
    }

    /// Rounds up (away from zero) what is finer than ten to the power of `scale`; whether there was any.
    fn round_up(&mut self, scale: i64) -> bool {
        // The last digit is none that is zero: if it goes, so does some of the value.
        if self.digits.is_empty() || self.exponent >= scale {
            return false;
        }
        let finer = usize::try_from(scale - self.exponent).unwrap_or(usize::MAX);
        self.digits.truncate(self.digits.len().saturating_sub(finer));
        self.exponent = scale;
        match self.digits.iter().rposition(|digit| *digit != 9) {
            Some(at) => {
                self.digits[at] += 1;
                self.digits[at + 1..].fill(0);
            }
            None => {
                self.digits.fill(0);
                self.digits.insert(0, 1);
            }
        }
        self.trim();
        true
    }

    /// Its digits as of an integer of ten to the power of `exponent`, which is no larger than its own, when they are not more
    /// than that.
    fn shifted(&self, exponent: i64, most: usize) -> Option<String> {
        let zeros = usize::try_from(self.exponent - exponent).ok()?;
        if zeros + self.digits.len() > most {
            return None;
        }
        let digits = self.digits.iter().map(|digit| char::from(b'0' + digit));
        Some(digits.chain(std::iter::repeat_n('0', zeros)).collect())
    }

    /// Upstream's cap.
    fn cap(&mut self) {
        let most = MAX_BINARY.len();
        let size = i64::try_from(self.digits.len()).unwrap_or(i64::MAX / 4) + self.exponent;
        let size = usize::try_from(size).unwrap_or(0);
        let (whole, fraction) = self.digits.split_at(size.min(self.digits.len()));
        let mut whole: Vec<u8> = whole.iter().map(|digit| b'0' + digit).collect();
        whole.resize(size.min(most + 1), b'0');
        let over = match size.cmp(&most) {
            Ordering::Equal => match whole.as_slice().cmp(MAX_BINARY.as_bytes()) {
                Ordering::Equal => !fraction.is_empty(),
                other => other == Ordering::Greater,
            },
            other => other == Ordering::Greater,
        };
        if over {
            self.digits = MAX_BINARY.bytes().map(|digit| digit - b'0').collect();
            self.exponent = 0;
        }
    }

    /// In billionths, as far as that goes.
    fn nanos(&self) -> i128 {
        if self.digits.is_empty() {
            return 0;
        }
        let size = self.shifted(NANO_SCALE, 38).and_then(|digits| digits.parse::<i128>().ok());
        let size = size.map_or(MAX, |size| size.min(MAX));
        if self.negative { -size } else { size }
    }
}

impl fmt::Display for Decimal {
    /// The canonical form: no fraction, the largest suffix that leaves none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        let sign = if self.negative { "-" } else { "" };
        // Upstream writes binary quantities below 1024, or with a fraction, in decimal.
        if self.format == Format::BinarySi
            && self.exponent >= 0
            && let Some(mut value) = self.shifted(0, 19).and_then(|digits| digits.parse::<u64>().ok())
            && value >= 1024
        {
            let mut power = 0;
            while value % 1024 == 0 && power < 6 {
                value /= 1024;
                power += 1;
            }
            return write!(f, "{sign}{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let mut exponent = self.exponent.div_euclid(3) * 3;
        if self.format != Format::DecimalExponent {
            // There is no larger suffix.
            exponent = exponent.min(18);
        }
        let digits = self.shifted(exponent, usize::MAX).unwrap_or_default();
        let suffix = usize::try_from((exponent + 9) / 3).unwrap_or(0);
        match (self.format, exponent) {
            (_, 0) => write!(f, "{sign}{digits}"),
            (Format::DecimalExponent, exponent) => write!(f, "{sign}{digits}e{exponent}"),
            _ => write!(f, "{sign}{digits}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][suffix]),
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
        let digits = self.nanos.unsigned_abs().to_string().bytes().map(|digit| digit - b'0').collect();
        let mut decimal = Decimal { negative: self.nanos < 0, digits, exponent: NANO_SCALE, format: self.format };
        decimal.trim();
        decimal.fmt(f)
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
    fn texts_of_one_value_are_the_same_and_others_are_not() {
        for (one, other) in [
            ("1.234", "1234m"),
            ("1", "1e0"),
            ("1000m", "1"),
            ("0.5Gi", "512Mi"),
            ("1024", "1Ki"),
            ("0", "-0"),
            ("0", "0Mi"),
            ("1e3", "1k"),
            ("1n", "0.1n"),
            ("9E", "9000P"),
        ] {
            assert!(Quantity::same_value(one, other) && Quantity::same_value(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("1", "2"),
            ("1", "-1"),
            ("1Gi", "1G"),
            ("1", "1m"),
            // What is computed with ends before these do.
            ("1e30", "2e30"),
            ("1", "x"),
            ("x", "x"),
            ("", ""),
        ] {
            assert!(!Quantity::same_value(one, other) && !Quantity::same_value(other, one), "{one} {other}");
        }
    }

    #[test]
    fn what_upstream_keeps_is_kept_and_the_rest_is_canonical() {
        for (text, written) in [
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
            // The text is kept.
            ("1E3", "1E3"),
            ("1e+3", "1e+3"),
            ("1.234", "1.234"),
            ("1.500", "1.500"),
            ("10.001u", "10.001u"),
            ("+1", "+1"),
            ("01", "01"),
            ("5.", "5."),
            ("+1Ki", "+1Ki"),
            ("-007Mi", "-007Mi"),
            ("12E", "12E"),
            // It is not: it ends in three zeros, begins with none, its exponent is no multiple of three, or it is long.
            ("1.000", "1"),
            ("0.001", "1m"),
            ("+8Ki", "8Ki"),
            ("1e1", "10"),
            ("1E4", "10e3"),
            ("1e20", "100e18"),
            ("-0", "0"),
            ("0.000000000000000001", "1n"),
            ("9223372036854775808", "9223372036854775808"),
            ("+9223372036854775808", "9223372036854775808"),
            ("123456789012345678901", "123456789012345678901"),
            ("1234567890123456789000", "1234567890123456789k"),
            ("1000E", "1000E"),
            ("1234567890123456789e2000000000", "123456789012345678900e1999999998"),
            ("1e-2000000000", "1e-9"),
            // Only what is binary has a limit.
            ("8Ei", "9223372036854775807"),
            ("-123456789012345678901Ki", "-9223372036854775807"),
            ("7Ei", "7Ei"),
            ("1.00000000000000000000001Ei", "1152921504606846976000011530n"),
            ("0.0000000000000000001Ei", "115292151n"),
            // Without digits it is nothing.
            ("m", "0"),
            (".", "0"),
            ("e3", "0"),
        ] {
            assert_eq!(Quantity::rewritten(text).as_deref(), Ok(written), "{text}");
            assert_eq!(Quantity::rewritten(written).as_deref(), Ok(written), "{text} again");
        }
        for (bad, why) in [
            ("", ParseError::Format),
            ("1x", ParseError::Format),
            ("1.2.3", ParseError::Format),
            ("1 Gi", ParseError::Format),
            ("1GiB", ParseError::Format),
            ("--1", ParseError::Suffix),
            ("1e", ParseError::Suffix),
            ("1ki", ParseError::Suffix),
            ("1k3", ParseError::Suffix),
            ("3.01e-", ParseError::Suffix),
            ("Ei", ParseError::Numeric),
            (".Ei", ParseError::Numeric),
        ] {
            assert_eq!(Quantity::parse(bad).err(), Some(why), "{bad}");
        }
    }

    #[test]
    fn rounding_to_thousandths_is_up_and_told_only_where_it_does_something() {
        for (text, rounded) in [
            ("0.0001", Some("1m")),
            ("100u", Some("1m")),
            ("2222200u", Some("2223m")),
            ("1n", Some("1m")),
            ("1e-9", Some("1e-3")),
            ("-1n", Some("-1m")),
            ("999999u", Some("1")),
            ("1024102400u", Some("1024103m")),
            ("1.234", None),
            ("1.500", None),
            ("1m", None),
            ("12E", None),
            ("256Mi", None),
            ("no", None),
        ] {
            assert_eq!(Quantity::rounded_to_milli(text).as_deref(), rounded, "{text}");
        }
    }

    #[test]
    fn values_round_up() -> Result<(), ParseError> {
        assert_eq!(Quantity::parse("1500m")?.value(), 2);
        assert_eq!(Quantity::parse("0.5")?.milli_value(), 500);
        assert_eq!(Quantity::parse("1u")?.milli_value(), 1);
        assert_eq!(Quantity::parse("99999999999999999999E")?.value(), i64::MAX);
        assert!(
            Quantity::parse("12E")? > Quantity::parse("9223372036854775808")? && Quantity::parse("12E")?.is_whole()
        );
        assert_eq!(Quantity::parse("12E")?.add(&Quantity::parse("12E")?).to_string(), "24E");
        assert!(Quantity::parse("1e2000000000")?.is_whole());
        assert_eq!(Quantity::parse("8Ei")?.nanos(), i128::from(i64::MAX) * NANO);
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
            let written = Quantity::rewritten(&text).map_err(|e| TestCaseError::fail(e.to_string()))?.into_owned();
            prop_assert_eq!(Quantity::parse(&written), Ok(first));
            let twice = Quantity::rewritten(&written).map(Cow::into_owned);
            prop_assert_eq!(twice.as_ref(), Ok(&written));
            let exact = Parts::of(&text).map(|parts| parts.decimal().nanos());
            prop_assert_eq!(exact, Ok(first.nanos()));
        }

        #[test]
        fn no_input_panics(text in ".{0,40}") {
            prop_assert!(Quantity::parse(&text).is_ok_and(|q| !q.to_string().is_empty()) || Quantity::parse(&text).is_err());
        }
    }
}
