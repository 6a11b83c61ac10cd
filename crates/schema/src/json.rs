//! JSON: schema-guided decoding, untyped parsing, encoding.

use crate::builder::Builder;
use crate::decode::{DecodeError, Decoded, Problem};
use crate::scalar::{self, Scalar};
use crate::tree::{Map, Value};
use crate::types::{Schema, TypeRef, any};
use crate::unread::Text;
use std::borrow::Cow;
use std::ops::Range;

/// Decodes an object of a type. Unknown and duplicate fields are reported beside the tree, not in it.
///
/// # Errors
/// [`DecodeError`] when the bytes are not JSON, or a value is not of its field's type.
pub fn decode(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let mut builder = Builder::new(ty);
    read(bytes, &mut builder)?;
    builder.finish()
}

/// The same of a text that [`encode`] wrote of an object in normal form: maps at the places of `left`, which are in their order, stay
/// text until they are read. A place where no map begins makes no difference.
///
/// # Errors
/// As [`decode`], of what is not left.
pub fn decode_leaving(schema: &Schema, text: Text, left: &[Range<usize>]) -> Result<Map, DecodeError> {
    let mut builder = Builder::new(schema.root());
    let owner = Owner { text: &text, schema };
    let bytes = (*text).as_ref();
    let read = str::from_utf8(bytes).map_err(|_| DecodeError::syntax("the text is no UTF-8", 0))?;
    Reader { text: read, bytes, at: 0, left: Some((owner, left)) }.document(&mut builder)?;
    Ok(builder.finish()?.object)
}

/// Parses any JSON, keeping everything as it is (nulls too). Of duplicate keys the last counts.
///
/// # Errors
/// [`DecodeError::Syntax`], [`DecodeError::TooDeep`].
pub fn parse(bytes: &[u8]) -> Result<Value, DecodeError> {
    let mut builder = Builder::new(any());
    read(bytes, &mut builder)?;
    builder.finish_value()
}

/// The same, and what is given twice.
///
/// # Errors
/// As [`parse`].
pub fn parse_strict(bytes: &[u8]) -> Result<(Value, Vec<Problem>), DecodeError> {
    let mut builder = Builder::new(any());
    read(bytes, &mut builder)?;
    builder.finish_judged()
}

/// Appends the JSON of an object; keys come sorted, so that equal objects give equal bytes.
pub fn encode(object: &Map, out: &mut Vec<u8>) {
    if let Some(text) = object.text() {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'{');
    for (n, (key, value)) in object.iter().enumerate() {
        if n > 0 {
            out.push(b',');
        }
        encode_str(key, out);
        out.push(b':');
        encode_value(value, out);
    }
    out.push(b'}');
}

/// Appends the JSON of a value.
pub fn encode_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(i) => encode_int(*i, out),
        Value::Float(f) => out.extend_from_slice(scalar::float(*f).as_bytes()),
        Value::Str(s) => encode_str(s, out),
        Value::List(items) => {
            out.push(b'[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(b',');
                }
                encode_value(item, out);
            }
            out.push(b']');
        }
        Value::Map(map) => encode(map, out),
        Value::Raw(text) => out.extend_from_slice(text.as_bytes()),
    }
}

/// The JSON of an object as text.
pub fn to_string(object: &Map) -> String {
    let mut out = Vec::with_capacity(512);
    encode(object, &mut out);
    // Everything written is text of the tree or ASCII.
    String::from_utf8(out).unwrap_or_default()
}

/// That a value is not of the type that is wanted (`value of type …`, `struct field …`), in the words of Go's decoder.
pub fn mismatch(value: &Value, wanted: &str) -> String {
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Int(n) if wanted.ends_with("int64") => &format!("number {n}"),
        Value::Float(f) if wanted.ends_with("int64") => &format!("number {}", scalar::float(*f)),
        Value::Int(_) | Value::Float(_) => "number",
        Value::Str(_) => "string",
        Value::List(_) => "array",
        Value::Map(_) | Value::Raw(_) => "object",
    };
    format!("json: cannot unmarshal {got} into Go {wanted}")
}

/// Appends an integer.
pub fn encode_int(value: i64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

/// Appends a string with its quotes.
#[inline]
pub fn encode_str(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    encode_text(text, out);
    out.push(b'"');
}

/// Appends what stands between a string's quotes.
pub(crate) fn encode_text(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain(rest));
        out.extend_from_slice(plain);
        let Some((&b, after)) = special.split_first() else { break };
        match b {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]),
        }
        rest = after;
    }
}

/// How many bytes come before the first that a JSON string can't have as it is: a quote, a backslash, a control character. Quick
/// for short strings, which most are: eight bytes at a time, without setting anything up.
#[inline]
pub fn plain(bytes: &[u8]) -> usize {
    /// A byte in all eight places.
    const fn all(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    // Marks the bytes of a word that are less than `n`, and maybe some above (in value of place) the first such.
    const fn less(word: u64, n: u8) -> u64 {
        word.wrapping_sub(all(n)) & !word & all(0x80)
    }
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let special = less(word, 0x20) | less(word ^ all(b'"'), 1) | less(word ^ all(b'\\'), 1);
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let rest = bytes[at..].iter().position(|b| matches!(b, 0..0x20 | b'"' | b'\\'));
    rest.map_or(bytes.len(), |rest| at + rest)
}

/// Reads JSON and tells the builder what comes.
fn read(bytes: &[u8], builder: &mut Builder<'_>) -> Result<(), DecodeError> {
    // As Go: what is not UTF-8 becomes the replacement character.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    };
    Reader { text: &text, bytes: text.as_bytes(), at: 0, left: None }.document(builder)
}

/// Who has a text, and what it is of.
#[derive(Clone, Copy)]
struct Owner<'t> {
    text: &'t Text,
    schema: &'t Schema,
}

struct Reader<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    /// Maps that stay text, in their order.
    left: Option<(Owner<'t>, &'t [Range<usize>])>,
}

impl<'t> Reader<'t> {
    fn document(&mut self, builder: &mut Builder<'_>) -> Result<(), DecodeError> {
        // Whether each open container is a map.
        let mut open: Vec<bool> = Vec::new();
        'value: loop {
            match self.peek("looking for beginning of value")? {
                b'{' if self.left.is_some() && self.leave(builder) => {}
                b'{' if builder.expects_fields() && self.fields(builder) => {}
                b'{' => {
                    self.at += 1;
                    builder.begin_map()?;
                    if self.peek("looking for beginning of object key string")? == b'}' {
                        self.at += 1;
                        builder.end();
                    } else {
                        open.push(true);
                        self.key(builder)?;
                        continue 'value;
                    }
                }
                b'[' => {
                    self.at += 1;
                    builder.begin_list()?;
                    if self.peek("looking for beginning of value")? == b']' {
                        self.at += 1;
                        builder.end();
                    } else {
                        open.push(false);
                        continue 'value;
                    }
                }
                b'"' => match self.string()? {
                    Cow::Borrowed(text) => builder.scalar(Scalar::Str(text))?,
                    Cow::Owned(text) => builder.scalar(Scalar::Owned(text.into()))?,
                },
                b't' => self.word("true", Scalar::Bool(true), builder)?,
                b'f' => self.word("false", Scalar::Bool(false), builder)?,
                b'n' => self.word("null", Scalar::Null, builder)?,
                _ => {
                    let number = self.number()?;
                    builder.scalar(number)?;
                }
            }
            loop {
                match open.last() {
                    None => {
                        self.space();
                        return match self.bytes.get(self.at) {
                            None => Ok(()),
                            Some(_) => Err(self.unexpected("after top-level value")),
                        };
                    }
                    Some(true) => match self.peek("after object key:value pair")? {
                        b',' => {
                            self.at += 1;
                            self.key(builder)?;
                            continue 'value;
                        }
                        b'}' => {}
                        _ => return Err(self.unexpected("after object key:value pair")),
                    },
                    Some(false) => match self.peek("after array element")? {
                        b',' => {
                            self.at += 1;
                            continue 'value;
                        }
                        b']' => {}
                        _ => return Err(self.unexpected("after array element")),
                    },
                }
                self.at += 1;
                open.pop();
                builder.end();
            }
        }
    }

    /// A set of owned fields, taken as text; `false` when it is not as they are written, and nothing was taken.
    fn fields(&mut self, builder: &mut Builder<'_>) -> bool {
        let Some(length) = crate::fields::length(&self.text[self.at..]) else { return false };
        builder.fields(&self.text[self.at..self.at + length]);
        self.at += length;
        true
    }

    /// A map that is to stay text; `false` when it is not, and nothing was taken.
    fn leave(&mut self, builder: &mut Builder<'_>) -> bool {
        let Some((owner, left)) = &mut self.left else { return false };
        while let Some((first, rest)) = left.split_first() {
            if first.start > self.at {
                return false;
            }
            *left = rest;
            if first.start == self.at
                && first.len() > 2
                && self.bytes.get(first.end - 1) == Some(&b'}')
                && builder.unread(owner.text, first.clone(), owner.schema)
            {
                self.at = first.end;
                return true;
            }
        }
        self.left = None;
        false
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// The next byte that is not space.
    fn peek(&mut self, place: &str) -> Result<u8, DecodeError> {
        self.space();
        self.bytes.get(self.at).copied().ok_or_else(|| self.unexpected(place))
    }

    fn unexpected(&self, place: &str) -> DecodeError {
        let Some(&byte) = self.bytes.get(self.at) else {
            return DecodeError::syntax("unexpected end of JSON input", self.at);
        };
        // As Go shows a byte: as the character of its number.
        let shown = match byte {
            b'\'' => "'\\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            b'\\' => "'\\\\'".to_owned(),
            7..=13 => format!("'\\{}'", char::from(b"abtnvfr"[usize::from(byte - 7)])),
            0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
            0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
            byte => format!("'{}'", char::from(byte)),
        };
        DecodeError::syntax(format!("invalid character {shown} {place}"), self.at)
    }

    fn key(&mut self, builder: &mut Builder<'_>) -> Result<(), DecodeError> {
        if self.peek("looking for beginning of object key string")? != b'"' {
            return Err(self.unexpected("looking for beginning of object key string"));
        }
        let key = self.string()?;
        if self.peek("after object key")? != b':' {
            return Err(self.unexpected("after object key"));
        }
        self.at += 1;
        builder.key(key);
        Ok(())
    }

    fn word(&mut self, word: &str, scalar: Scalar<'_>, builder: &mut Builder<'_>) -> Result<(), DecodeError> {
        for (n, expected) in word.bytes().enumerate() {
            if self.bytes.get(self.at) != Some(&expected) {
                let place = format!("in literal {word} (expecting '{}')", char::from(word.as_bytes()[n]));
                return Err(self.unexpected(&place));
            }
            self.at += 1;
        }
        builder.scalar(scalar)
    }

    fn number(&mut self) -> Result<Scalar<'t>, DecodeError> {
        let start = self.at;
        let negative = self.bytes[self.at] == b'-';
        if negative {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => {
                self.digits();
            }
            _ if negative => return Err(self.unexpected("in numeric literal")),
            _ => return Err(self.unexpected("looking for beginning of value")),
        }
        let mut integer = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            integer = false;
            self.at += 1;
            if !self.digits() {
                return Err(self.unexpected("after decimal point in numeric literal"));
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            if !self.digits() {
                return Err(self.unexpected("in exponent of numeric literal"));
            }
        }
        let text = &self.text[start..self.at];
        if integer && let Ok(i) = text.parse() {
            return Ok(Scalar::Int(i));
        }
        match text.parse::<f64>() {
            Ok(f) if f.is_finite() => Ok(Scalar::Number(f, text)),
            _ => Err(DecodeError::syntax(
                format!("json: cannot unmarshal number {text} into Go value of type float64"),
                start,
            )),
        }
    }

    fn digits(&mut self) -> bool {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        self.at > start
    }

    /// A string, its opening quote being next.
    fn string(&mut self) -> Result<Cow<'t, str>, DecodeError> {
        self.at += 1;
        let start = self.at;
        self.at += plain(&self.bytes[start..]);
        match self.bytes.get(self.at) {
            Some(b'"') => {
                let text = &self.text[start..self.at];
                self.at += 1;
                Ok(Cow::Borrowed(text))
            }
            Some(b'\\') => self.escaped(start).map(Cow::Owned),
            _ => Err(self.unexpected("in string literal")),
        }
    }

    /// The rest of a string from its first backslash on.
    fn escaped(&mut self, start: usize) -> Result<String, DecodeError> {
        let mut out = self.text[start..self.at].to_owned();
        let mut plain = self.at;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    out.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => {
                    out.push_str(&self.text[plain..self.at]);
                    self.at += 1;
                    let c = match self.bytes.get(self.at) {
                        Some(c @ (b'"' | b'\\' | b'/')) => char::from(*c),
                        Some(b'b') => '\u{8}',
                        Some(b'f') => '\u{c}',
                        Some(b'n') => '\n',
                        Some(b'r') => '\r',
                        Some(b't') => '\t',
                        Some(b'u') => {
                            self.at += 1;
                            out.push(self.unicode()?);
                            plain = self.at;
                            continue;
                        }
                        _ => return Err(self.unexpected("in string escape code")),
                    };
                    out.push(c);
                    self.at += 1;
                    plain = self.at;
                }
                Some(0..0x20) | None => return Err(self.unexpected("in string literal")),
                Some(_) => self.at += 1,
            }
        }
    }

    /// The character of `\uXXXX` (or of two, when they are a surrogate pair), behind the `u`.
    fn unicode(&mut self) -> Result<char, DecodeError> {
        let high = self.hex()?;
        if (0xD800..0xDC00).contains(&high) && self.bytes[self.at..].starts_with(b"\\u") {
            let back = self.at;
            self.at += 2;
            let low = self.hex()?;
            if (0xDC00..0xE000).contains(&low) {
                let c = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                return Ok(char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = back;
        }
        Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn hex(&mut self) -> Result<u32, DecodeError> {
        let mut n = 0;
        for _ in 0..4 {
            let digit = self.bytes.get(self.at).and_then(|b| char::from(*b).to_digit(16));
            n = n * 16 + digit.ok_or_else(|| self.unexpected("in \\u hexadecimal character escape"))?;
            self.at += 1;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn the_first_byte_that_needs_an_escape_is_found() {
        for length in 0..20 {
            for at in 0..=length {
                for byte in 0..=255_u8 {
                    // What comes behind it makes no difference, nor what is just no special byte before it.
                    for (before, behind) in [(0x20, 0xff), (0x7f, 0x00), (0xff, b'"'), (b'#', b'\\'), (b'[', 0x1f)] {
                        let mut bytes = vec![before; length];
                        bytes[at..].fill(behind);
                        if let Some(place) = bytes.get_mut(at) {
                            *place = byte;
                        }
                        let special = |b: &u8| *b < 0x20 || *b == b'"' || *b == b'\\';
                        let first = bytes.iter().position(special).unwrap_or(length);
                        assert_eq!(plain(&bytes), first, "{bytes:?}");
                    }
                }
            }
        }
    }
}
