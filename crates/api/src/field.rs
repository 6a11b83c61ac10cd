//! Field paths and field errors, in upstream's words (apimachinery `field.Error`).

use std::fmt;

/// The path of a field, built on the stack while walking: `spec.containers[0].ports[1].hostPort`.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    segment: Segment<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Segment<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A first segment, such as `metadata` or `spec`; empty for the object as a whole.
    pub const fn root(field: &'a str) -> Self {
        Path { parent: None, segment: Segment::Field(field) }
    }
    /// A field below this one; the text may itself be dotted.
    pub const fn child<'b>(&'b self, field: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), segment: Segment::Field(field) }
    }
    /// An element of a list.
    pub const fn index<'b>(&'b self, index: usize) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), segment: Segment::Index(index) }
    }
    /// An entry of a map: `metadata.labels[app]`.
    pub const fn key<'b>(&'b self, key: &'b str) -> Path<'b>
    where
        'a: 'b,
    {
        Path { parent: Some(self), segment: Segment::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.segment {
            // As upstream shows a path without a name.
            Segment::Field("") => f.write_str("[]"),
            Segment::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Segment::Field(name) => f.write_str(name),
            Segment::Index(i) => write!(f, "[{i}]"),
            Segment::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// Why a field is refused; the wire name is the `reason` of a status cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl FieldErrorKind {
    /// The reason in a status cause: `FieldValueRequired`, ….
    pub const fn reason(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Invalid => "FieldValueInvalid",
            FieldErrorKind::NotSupported => "FieldValueNotSupported",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::TooLong => "FieldValueTooLong",
            FieldErrorKind::TooMany => "FieldValueTooMany",
            FieldErrorKind::Internal => "InternalError",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Invalid => "Invalid value",
            FieldErrorKind::NotSupported => "Unsupported value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::TooLong => "Too long",
            FieldErrorKind::TooMany => "Too many",
            FieldErrorKind::Internal => "Internal error",
            FieldErrorKind::TypeInvalid => "Invalid value",
        }
    }
}

/// One refused field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    /// The whole path.
    pub field: String,
    /// The refused value as it is shown: strings quoted, composite values as JSON. Empty where upstream shows none.
    pub value: String,
    pub detail: String,
}

/// Something that can be shown as the refused value of a field error.
pub trait Shown {
    fn shown(&self) -> String;
}

impl Shown for &str {
    fn shown(&self) -> String {
        go_quote(self)
    }
}
impl Shown for String {
    fn shown(&self) -> String {
        go_quote(self)
    }
}
impl Shown for &String {
    fn shown(&self) -> String {
        go_quote(self)
    }
}
impl Shown for i64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}
impl Shown for bool {
    fn shown(&self) -> String {
        self.to_string()
    }
}

/// A value shown as it is, such as the JSON of a composite one.
pub struct Raw(pub String);

impl Shown for Raw {
    fn shown(&self) -> String {
        self.0.clone()
    }
}

/// Quotes as Go's `%q`: backslash escapes for quotes, backslashes and what cannot be seen.
pub fn go_quote(s: &str) -> String {
    use fmt::Write;
    let mut out = String::with_capacity(s.len() + 2);
    out.push('"');
    for c in s.chars() {
        let written = match (c, c as u32) {
            ('"', _) => out.write_str("\\\""),
            ('\\', _) => out.write_str("\\\\"),
            ('\n', _) => out.write_str("\\n"),
            ('\t', _) => out.write_str("\\t"),
            ('\r', _) => out.write_str("\\r"),
            ('\x07', _) => out.write_str("\\a"),
            ('\x08', _) => out.write_str("\\b"),
            ('\x0b', _) => out.write_str("\\v"),
            ('\x0c', _) => out.write_str("\\f"),
            (c, _) if printable(c) => out.write_char(c),
            (_, code) if code < 0x80 => write!(out, "\\x{code:02x}"),
            (_, code) if code < 0x10000 => write!(out, "\\u{code:04x}"),
            (_, code) => write!(out, "\\U{code:08x}"),
        };
        if written.is_err() {
            unreachable!("a String takes every write");
        }
    }
    out.push('"');
    out
}

/// Whether Go has a character for printable (`unicode.IsPrint`): a letter, mark, number, punctuation mark, symbol or plain
/// space.
///
/// Those that the standard library escapes are the same categories: controls, format characters, surrogates, private use,
/// what is not assigned, and all separators but the space. Only what Unicode assigned between the versions of both differs.
pub fn printable(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // Marks that follow another character are seen, but would be escaped at the beginning of a text.
    let escaped = || {
        let mut bytes = [b'a'; 5];
        let length = 1 + c.encode_utf8(&mut bytes[1..]).len();
        std::str::from_utf8(&bytes[..length]).is_ok_and(|text| text.escape_debug().nth(1) == Some('\\'))
    };
    !c.is_control() && !c.is_whitespace() && !escaped()
}

impl FieldError {
    fn new(kind: FieldErrorKind, field: &dyn fmt::Display, value: String, detail: impl Into<String>) -> Self {
        FieldError { kind, field: field.to_string(), value, detail: detail.into() }
    }
    /// `spec.x: Required value: detail`
    pub fn required(field: &dyn fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, field, String::new(), detail)
    }
    /// `spec.x: Invalid value: "v": detail`
    pub fn invalid(field: &dyn fmt::Display, value: impl Shown, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, field, value.shown(), detail)
    }
    /// `spec.x: Invalid value: detail`, where the value would say nothing.
    pub fn invalid_unshown(field: &dyn fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, field, String::new(), detail)
    }
    /// `spec.x: Invalid value: "v": detail`, of the wrong type.
    pub fn type_invalid(field: &dyn fmt::Display, value: impl Shown, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, field, value.shown(), detail)
    }
    /// `spec.x: Unsupported value: "v": supported values: "a", "b"` (in the order given, as upstream sorts them).
    pub fn not_supported(field: &dyn fmt::Display, value: impl Shown, supported: &[&str]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|s| go_quote(s)).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::new(FieldErrorKind::NotSupported, field, value.shown(), detail)
    }
    /// `spec.x: Duplicate value: "v"`
    pub fn duplicate(field: &dyn fmt::Display, value: impl Shown) -> Self {
        Self::new(FieldErrorKind::Duplicate, field, value.shown(), "")
    }
    /// `spec.x: Not found: "v"`
    pub fn not_found(field: &dyn fmt::Display, value: impl Shown) -> Self {
        Self::new(FieldErrorKind::NotFound, field, value.shown(), "")
    }
    /// `spec.x: Forbidden: detail`
    pub fn forbidden(field: &dyn fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, String::new(), detail)
    }
    /// `spec.x: Too long: may not be more than N bytes`
    pub fn too_long(field: &dyn fmt::Display, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::new(FieldErrorKind::TooLong, field, String::new(), format!("may not be more than {max} {unit}"))
    }
    /// `spec.x: Too many: A: must have at most N items`
    pub fn too_many(field: &dyn fmt::Display, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::new(FieldErrorKind::TooMany, field, actual.to_string(), format!("must have at most {max} {unit}"))
    }
    /// `spec.x: Internal error: detail`
    pub fn internal(field: &dyn fmt::Display, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Internal, field, String::new(), detail)
    }
    /// Everything but the field: the `message` of a status cause.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        let shows_value = !matches!(
            self.kind,
            FieldErrorKind::Required | FieldErrorKind::Forbidden | FieldErrorKind::TooLong | FieldErrorKind::Internal
        );
        if shows_value && !self.value.is_empty() {
            text.push_str(": ");
            text.push_str(&self.value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

/// Several errors as one text: the only one, or `[one, other]`, each text once.
pub fn aggregate(errors: &[FieldError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let mut seen = std::collections::BTreeSet::new();
    let texts: Vec<&str> = texts.iter().map(String::as_str).filter(|text| seen.insert(*text)).collect();
    match texts.as_slice() {
        [one] => (*one).to_owned(),
        many => format!("[{}]", many.join(", ")),
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for FieldError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_as_go_quotes() {
        for (text, expected) in [
            ("a \"b\" \\ é", r#""a \"b\" \\ é""#),
            ("\n\t\r\x07\x08\x0b\x0c\0\x7f", r#""\n\t\r\a\b\v\f\x00\x7f""#),
            ("\u{85}\u{a0}\u{ad}\u{200b}\u{feff}\u{e0001}", r#""\u0085\u00a0\u00ad\u200b\ufeff\U000e0001""#),
            ("\u{301}e\u{301}🦀", "\"\u{301}e\u{301}🦀\""),
        ] {
            assert_eq!(go_quote(text), expected);
        }
    }

    #[test]
    fn words_are_upstreams() {
        let spec = Path::root("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        assert_eq!(
            FieldError::required(&first.child("image"), "").to_string(),
            "spec.containers[0].image: Required value"
        );
        assert_eq!(
            FieldError::not_supported(&spec.child("restartPolicy"), "x", &["Always", "Never"]).to_string(),
            "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"Never\""
        );
        let meta = Path::root("metadata");
        let labels = meta.child("labels");
        assert_eq!(
            FieldError::invalid(&labels.key("a b"), "a\"b", "bad").to_string(),
            "metadata.labels[a b]: Invalid value: \"a\\\"b\": bad"
        );
        assert_eq!(
            FieldError::too_long(&meta.child("name"), 63).to_string(),
            "metadata.name: Too long: may not be more than 63 bytes"
        );
        assert_eq!(FieldError::invalid_unshown(&spec, "no").to_string(), "spec: Invalid value: no");
    }
}
