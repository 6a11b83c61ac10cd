//! Label and field selectors: parsed once, matched without allocation.

use crate::names;
use std::fmt;
use thiserror::Error;

/// A parsed label selector: requirements joined by "and". Empty matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Matches nothing, whatever the labels (a null `metav1.LabelSelector`).
    nothing: bool,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without duplicates.
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// Only in node affinity and in the string form: integers.
    GreaterThan,
    LessThan,
}

/// Why a selector is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

/// Something that has labels (or fields).
pub trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for std::collections::BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}
impl Labels for std::collections::HashMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}
/// Sorted or not: found by a scan, as labels are few.
impl Labels for [(String, String)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl Requirement {
    /// A requirement whose key, operator and values fit together.
    ///
    /// # Errors
    /// Upstream's message for a bad key, a bad value or a wrong number of values.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        let mut values = values;
        values.sort();
        values.dedup();
        let quote = crate::field::go_quote;
        let mut errors = Vec::new();
        let problems = names::qualified_name(key);
        if !problems.is_empty() {
            errors.push(format!("key: Invalid value: {}: {}", quote(key), problems.join("; ")));
        }
        let listed = || {
            let values: Vec<String> = values.iter().map(|value| quote(value)).collect();
            format!("[{}]", values.join(","))
        };
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                errors.push("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into());
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => errors.push(format!(
                "values: Invalid value: {}: values set must be empty for exists and does not exist",
                listed()
            )),
            Operator::GreaterThan | Operator::LessThan => {
                if values.len() != 1 {
                    errors.push(format!(
                        "values: Invalid value: {}: for 'Gt', 'Lt' operators, exactly one value is required",
                        listed()
                    ));
                }
                for (i, value) in values.iter().enumerate().filter(|(_, value)| value.parse::<i64>().is_err()) {
                    errors.push(format!(
                        "values[{i}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                        quote(value)
                    ));
                }
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            let problems = names::label_value(value);
            if !problems.is_empty() {
                errors.push(format!("values[{i}][{key}]: Invalid value: {}: {}", quote(value), problems.join("; ")));
            }
        }
        match errors.as_slice() {
            [] => {}
            [one] => return Err(SelectorError(one.clone())),
            several => return Err(SelectorError(format!("[{}]", several.join(", ")))),
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    }

    /// Whether labels meet it. `NotIn` and `DoesNotExist` are met by an absent label.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.label(&self.key);
        let holds = |v: &str| self.values.iter().any(|want| want == v);
        let compare = |v: &str| Some((v.parse::<i64>().ok()?, self.values.first()?.parse::<i64>().ok()?));
        match self.operator {
            Operator::In => value.is_some_and(holds),
            Operator::NotIn => !value.is_some_and(holds),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => value.and_then(compare).is_some_and(|(have, want)| have > want),
            Operator::LessThan => value.and_then(compare).is_some_and(|(have, want)| have < want),
        }
    }
}

impl LabelSelector {
    /// Matches everything.
    pub const fn everything() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: false }
    }
    /// Matches nothing.
    pub const fn nothing() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }
    pub fn from_requirements(requirements: Vec<Requirement>) -> Self {
        LabelSelector { requirements, nothing: false }
    }
    /// The selector of a `matchLabels`-like map, taken as it is (already validated).
    pub fn from_map<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let requirements = labels
            .into_iter()
            .map(|(k, v)| Requirement { key: k.to_owned(), operator: Operator::In, values: vec![v.to_owned()] })
            .collect();
        LabelSelector { requirements, nothing: false }
    }
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// Parses the query parameter: `a=b,c!=d,e in (f,g),h notin (i),j,!k,n>1`.
    ///
    /// # Errors
    /// What was found where something else was expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Parser { rest: text }.selector()
    }
}

/// A piece of a label selector as text; `in` and `notin` are keywords only where an operator may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// A key, a value, or a keyword.
    Word(&'a str),
    /// `!`, `=`, `==`, `!=`, `<`, `>`, `(`, `)` or `,`.
    Symbol(&'a str),
    End,
}

impl<'a> Token<'a> {
    /// The first token of a text, and what comes after it.
    fn first(text: &'a str) -> (Self, &'a str) {
        const SPACES: [char; 4] = [' ', '\t', '\r', '\n'];
        const SYMBOLS: [&str; 9] = ["==", "!=", "=", "!", "(", ")", ",", ">", "<"];
        let text = text.trim_start_matches(SPACES);
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| text.starts_with(**symbol)) {
            let (symbol, rest) = text.split_at(symbol.len());
            return (Token::Symbol(symbol), rest);
        }
        let end = text.find(|c: char| SPACES.contains(&c) || "=!,()<>".contains(c)).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        (if word.is_empty() { Token::End } else { Token::Word(word) }, rest)
    }

    fn text(self) -> &'a str {
        match self {
            Token::Word(text) | Token::Symbol(text) => text,
            Token::End => "",
        }
    }

    fn expected(self, what: &str) -> SelectorError {
        SelectorError(format!("found '{}', expected: {what}", self.text()))
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn look(&self) -> Token<'a> {
        Token::first(self.rest).0
    }

    fn take(&mut self) -> Token<'a> {
        let (token, rest) = Token::first(self.rest);
        self.rest = rest;
        token
    }

    fn selector(mut self) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        let begins = |token| matches!(token, Token::Word(_) | Token::Symbol("!"));
        match self.look() {
            Token::End => return Ok(LabelSelector::everything()),
            token if begins(token) => {}
            token => return Err(token.expected("!, identifier, or 'end of string'")),
        }
        loop {
            let requirement = self.requirement();
            requirements.push(
                requirement
                    .map_err(|SelectorError(why)| SelectorError(format!("unable to parse requirement: {why}")))?,
            );
            match self.take() {
                Token::End => break,
                Token::Symbol(",") if begins(self.look()) => {}
                Token::Symbol(",") => return Err(self.look().expected("identifier after ','")),
                token => return Err(token.expected("',' or 'end of string'")),
            }
        }
        requirements.sort_by(|a: &Requirement, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let mut token = self.take();
        let absent = token == Token::Symbol("!");
        if absent {
            token = self.take();
        }
        let Token::Word(key) = token else { return Err(token.expected("identifier")) };
        let problems = names::qualified_name(key);
        if !problems.is_empty() {
            // A key that is looked at before its requirement has no path.
            let key = crate::field::go_quote(key);
            return Err(SelectorError(format!("<nil>: Invalid value: {key}: {}", problems.join("; "))));
        }
        if absent {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.look(), Token::End | Token::Symbol(",")) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let token = self.take();
        let operator = match token {
            Token::Word("in") | Token::Symbol("=" | "==") => Operator::In,
            Token::Word("notin") | Token::Symbol("!=") => Operator::NotIn,
            Token::Symbol(">") => Operator::GreaterThan,
            Token::Symbol("<") => Operator::LessThan,
            token => return Err(token.expected("in, notin, =, ==, !=, gt, lt")),
        };
        let values = if matches!(token, Token::Word(_)) { self.values()? } else { vec![self.value()?.to_owned()] };
        Requirement::new(key, operator, values)
    }

    /// What follows `=` and the like: nothing is the empty value.
    fn value(&mut self) -> Result<&'a str, SelectorError> {
        match self.look() {
            Token::End | Token::Symbol(",") => Ok(""),
            Token::Word(value) => {
                self.take();
                Ok(value)
            }
            token @ Token::Symbol(_) => Err(token.expected("identifier")),
        }
    }

    /// What follows `in` and `notin`: `(a,b)`, where an empty place is the empty value.
    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        match self.take() {
            Token::Symbol("(") => {}
            token => return Err(SelectorError(format!("found '{}' expected: '('", token.text()))),
        }
        if !matches!(self.look(), Token::Word(_) | Token::Symbol("," | ")")) {
            return Err(self.look().expected("',', ')' or identifier"));
        }
        let mut values = Vec::new();
        loop {
            values.push(match self.look() {
                Token::Word(value) => {
                    self.take();
                    value.to_owned()
                }
                Token::Symbol("," | ")") => String::new(),
                token => return Err(token.expected("',', or identifier")),
            });
            match self.take() {
                Token::Symbol(")") => return Ok(values),
                Token::Symbol(",") => {}
                token => return Err(token.expected("',' or ')'")),
            }
        }
    }
}

impl fmt::Display for LabelSelector {
    /// The canonical string form, which parses back to the same selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match (r.operator, r.values.as_slice()) {
                (Operator::Exists, _) => write!(f, "{}", r.key)?,
                (Operator::DoesNotExist, _) => write!(f, "!{}", r.key)?,
                (Operator::In, [one]) => write!(f, "{}={one}", r.key)?,
                (Operator::NotIn, [one]) => write!(f, "{}!={one}", r.key)?,
                (Operator::In, many) => write!(f, "{} in ({})", r.key, many.join(","))?,
                (Operator::NotIn, many) => write!(f, "{} notin ({})", r.key, many.join(","))?,
                (Operator::GreaterThan, v) => write!(f, "{}>{}", r.key, v.join(","))?,
                (Operator::LessThan, v) => write!(f, "{}<{}", r.key, v.join(","))?,
            }
        }
        Ok(())
    }
}

/// A parsed field selector: `metadata.name=x,status.phase!=Running`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    pub field: String,
    pub equal: bool,
    pub value: String,
}

impl FieldSelector {
    /// Parses the query parameter; `\`, `,` and `=` are escaped by a backslash in values.
    ///
    /// # Errors
    /// A term without `=`, `==` or `!=`, or a bad escape.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut terms: Vec<&str> = split_terms(text).filter(|term| !term.is_empty()).collect();
        terms.sort_unstable();
        let mut requirements = Vec::new();
        for term in terms {
            let (field, equal, value) = split_term(term)
                .ok_or_else(|| SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")))?;
            let value = unescape(value).map_err(|why| SelectorError(format!("invalid field selector: {why}")))?;
            requirements.push(FieldRequirement { field: field.to_owned(), equal, value });
        }
        Ok(FieldSelector { requirements })
    }
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }
    /// Whether fields meet it; an absent field is the empty string.
    pub fn matches(&self, fields: &(impl Labels + ?Sized)) -> bool {
        self.requirements.iter().all(|r| (fields.label(&r.field).unwrap_or("") == r.value) == r.equal)
    }
    /// The value that a field must equal, if the selector says one.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }
}

fn split_terms(text: &str) -> impl Iterator<Item = &str> {
    let mut escaped = false;
    text.split(move |c| {
        let cut = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        cut
    })
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let bytes = term.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            b'!' if bytes.get(i + 1) == Some(&b'=') => return Some((&term[..i], false, &term[i + 2..])),
            b'=' if bytes.get(i + 1) == Some(&b'=') => return Some((&term[..i], true, &term[i + 2..])),
            b'=' => return Some((&term[..i], true, &term[i + 1..])),
            _ => {}
        }
        i += 1;
    }
    None
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                Some(c) => return Err(format!("invalid escape sequence: \\{c}")),
                None => return Err("invalid escape sequence: \\".to_owned()),
            },
            // Go shows the character as the number that it is.
            ',' | '=' => return Err(format!("unescaped character in value: {}", u32::from(c))),
            c => out.push(c),
        }
    }
    Ok(out)
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let value = r.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{}{value}", r.field, if r.equal { "=" } else { "!=" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn label_selectors_match() -> Result<(), SelectorError> {
        let have = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
        for (text, expect) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (web, api),tier", true),
            ("app notin (web)", false),
            ("!app", false),
            ("!other", true),
            ("other notin (x)", true),
            ("other!=x", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app=", false),
            ("x in (,a)", false),
        ] {
            assert_eq!(LabelSelector::parse(text)?.matches(&have), expect, "{text}");
        }
        for bad in ["=", "a in", "a in (b", "a b", "a,", "a=b=c", "a in ()b", "-x"] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
        assert!(!LabelSelector::nothing().matches(&have));
        Ok(())
    }

    #[test]
    fn refusals_say_what_was_found() {
        for (text, why) in [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            ("=", "found '=', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a in (b,", "unable to parse requirement: found '', expected: ',', or identifier"),
            ("a=!b", "unable to parse requirement: found '!', expected: identifier"),
            (
                "a>b",
                "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(LabelSelector::parse(text), Err(SelectorError(why.to_owned())), "{text}");
        }
        for (text, begin) in [
            ("-x", "unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist of"),
            ("a=-b", "unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be"),
        ] {
            let why = LabelSelector::parse(text).expect_err("refused").0;
            assert!(why.starts_with(begin), "{why}");
        }
        for (text, why) in [
            ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
            ("metadata.name=a\\", "invalid field selector: invalid escape sequence: \\"),
            ("metadata.name=a\\b", "invalid field selector: invalid escape sequence: \\b"),
            ("metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(FieldSelector::parse(text), Err(SelectorError(why.to_owned())), "{text}");
        }
        assert!(LabelSelector::parse("in in (in,notin,),notin").is_ok());
    }

    #[test]
    fn field_selectors_match() -> Result<(), SelectorError> {
        let selector = FieldSelector::parse("metadata.name=a\\,b,spec.nodeName!=n1")?;
        assert!(selector.matches(&labels(&[("metadata.name", "a,b")])));
        assert!(!selector.matches(&labels(&[("metadata.name", "a,b"), ("spec.nodeName", "n1")])));
        assert_eq!(selector.exact("metadata.name"), Some("a,b"));
        assert!(FieldSelector::parse("nonsense").is_err());
        assert_eq!(FieldSelector::parse(&selector.to_string())?, selector);
        Ok(())
    }

    proptest! {
        #[test]
        fn what_parses_prints_and_parses_again(text in "[a-c=!,() <>in0-9]{0,24}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
        #[test]
        fn no_input_panics(text in ".{0,64}") {
            prop_assert!(LabelSelector::parse(&text).is_ok() || LabelSelector::parse(&text).is_err());
            prop_assert!(FieldSelector::parse(&text).is_ok() || FieldSelector::parse(&text).is_err());
        }
    }
}
