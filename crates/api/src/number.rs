//! Numbers as clients write them, and why they are none, in the words of Go's `strconv`.

use crate::field::go_quote;

/// A decimal integer of 64 bits.
///
/// # Errors
/// Why it is none, as Go says it.
pub fn int(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    text.parse().map_err(|_| refused("ParseInt", text, digits))
}

/// The same without a sign.
///
/// # Errors
/// Why it is none, as Go says it.
pub fn uint(text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|_| !text.starts_with('+')).ok_or_else(|| refused("ParseUint", text, text))
}

fn refused(function: &str, text: &str, digits: &str) -> String {
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let why = if is_number { "value out of range" } else { "invalid syntax" };
    format!("strconv.{function}: parsing {}: {why}", go_quote(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        assert_eq!((int("-5"), int("+5"), uint("7")), (Ok(-5), Ok(5), Ok(7)));
        for (text, why) in [
            ("", r#"strconv.ParseInt: parsing "": invalid syntax"#),
            ("1.5", r#"strconv.ParseInt: parsing "1.5": invalid syntax"#),
            ("+-1", r#"strconv.ParseInt: parsing "+-1": invalid syntax"#),
            ("99999999999999999999", r#"strconv.ParseInt: parsing "99999999999999999999": value out of range"#),
        ] {
            assert_eq!(int(text), Err(why.to_owned()));
        }
        for (text, why) in [
            ("+1", r#"strconv.ParseUint: parsing "+1": invalid syntax"#),
            ("-1", r#"strconv.ParseUint: parsing "-1": invalid syntax"#),
            ("18446744073709551616", r#"strconv.ParseUint: parsing "18446744073709551616": value out of range"#),
        ] {
            assert_eq!(uint(text), Err(why.to_owned()));
        }
    }
}
