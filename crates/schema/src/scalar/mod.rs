//! Scalars: what a leaf of any format becomes as a value of its type, in canonical form.

pub(crate) mod duration;
mod time;

pub(crate) use duration::duration_text;
pub(crate) use time::Instant;

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
    /// A float with the digits it was written in.
    Number(f64, &'a str),
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
            Scalar::Float(f) | Scalar::Number(f, _) => Value::Float(f),
            Scalar::Str(s) => Value::Str(s.into()),
            Scalar::Owned(s) => Value::Str(s),
        }
    }

    fn mismatch(&self) -> Unfit {
        Unfit::Type(match self {
            Scalar::Null => "null".into(),
            Scalar::Bool(_) => "bool".into(),
            Scalar::Int(_) | Scalar::Float(_) | Scalar::Number(..) => "number".into(),
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
        (Kind::Int32 | Kind::Int64 | Kind::IntOrString, Scalar::Number(_, text)) => Err(number(text)),
        (Kind::Float, Scalar::Int(i)) => Ok(Value::Float(*i as f64)),
        (Kind::Float, Scalar::Float(f) | Scalar::Number(f, _)) => Ok(Value::Float(*f)),
        (Kind::Quantity, Scalar::Int(i)) => quantity(&format_compact!("{i}")),
        (Kind::Quantity, Scalar::Float(f)) => quantity(&float(*f)),
        (Kind::Quantity, Scalar::Number(_, text)) => quantity(text),
        _ => {
            let Some(text) = scalar.text() else { return Err(scalar.mismatch()) };
            match ty.kind() {
                Kind::Quantity => quantity(text),
                Kind::Time => time(text, false),
                Kind::MicroTime => time(text, true),
                Kind::Bytes => bytes(text),
                Kind::Duration => match api::duration::parse(text) {
                    Ok(nanos) => Ok(Value::Str(duration_text(nanos))),
                    Err(why) => Err(Unfit::Value(why)),
                },
                _ => Err(scalar.mismatch()),
            }
        }
    }
}

fn quantity(text: &str) -> Result<Value, Unfit> {
    let text = text.trim();
    if is_canonical(text) {
        return Ok(Value::Str(text.into()));
    }
    Quantity::rewritten(text).map(|text| Value::Str(text.into())).map_err(|e| Unfit::Value(e.to_string()))
}

/// Most quantities are a few digits and one of these suffixes, and no whole number of the next larger one: nothing to do.
fn is_canonical(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 9 || bytes[0] == b'0' {
        return text == "0";
    }
    let number = bytes[..digits].iter().fold(0u64, |n, b| n * 10 + u64::from(b - b'0'));
    match &bytes[digits..] {
        b"" | b"m" | b"k" | b"M" | b"G" => number % 1000 != 0,
        b"Ki" | b"Mi" | b"Gi" => number % 1024 != 0,
        _ => false,
    }
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

/// What is wrong with a text that should be a time of RFC 3339, in Go's words; `None`: nothing.
pub fn time_problem(text: &str) -> Option<String> {
    time(text, false).err().map(|_| time::refusal(text, false))
}

fn time(text: &str, micro: bool) -> Result<Value, Unfit> {
    let plain = text.len() == 20 && text.ends_with('Z');
    match Instant::parse(text, micro).filter(|instant| instant.in_range()) {
        // Go writes its zero time as null.
        Some(instant) if instant.is_zero() => Ok(Value::Null),
        Some(_) if plain && !micro => Ok(Value::Str(text.into())),
        Some(instant) => Ok(Value::Str(instant.text(micro))),
        None => Err(Unfit::Value(time::refusal(text, micro))),
    }
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
    fn what_is_taken_for_canonical_is() {
        for number in [1u64, 5, 10, 100, 128, 256, 999, 1000, 1001, 1023, 1024, 1536, 2048, 1_000_000, 123_456_789] {
            for suffix in ["", "m", "k", "M", "G", "T", "u", "Ki", "Mi", "Gi", "Ti"] {
                let text = format!("{number}{suffix}");
                let canonical = Quantity::rewritten(&text).expect("a quantity");
                assert!(!is_canonical(&text) || canonical == text, "{text} is {canonical}");
            }
        }
        assert!(is_canonical("500m") && is_canonical("256Mi") && is_canonical("2") && is_canonical("0"));
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
