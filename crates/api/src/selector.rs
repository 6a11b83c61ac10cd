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
        if let Some(problem) = names::qualified_name(key).into_iter().next() {
            return Err(SelectorError(format!("key: Invalid value: {}: {problem}", crate::field::go_quote(key))));
        }
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return Err(SelectorError(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into(),
                ));
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(SelectorError(
                    "values: Invalid value: values set must be empty for exists and does not exist".into(),
                ));
            }
            Operator::GreaterThan | Operator::LessThan if !(values.len() == 1 && values[0].parse::<i64>().is_ok()) => {
                return Err(SelectorError(
                    "values: Invalid value: for 'Gt', 'Lt' operators, exactly one integer value is required".into(),
                ));
            }
            _ => {}
        }
        for value in &values {
            if let Some(problem) = names::label_value(value).into_iter().next() {
                return Err(SelectorError(format!(
                    "values[0][{key}]: Invalid value: {}: {problem}",
                    crate::field::go_quote(value)
                )));
            }
        }
        let mut values = values;
        values.sort();
        values.dedup();
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
        Parser { rest: text, whole: text }.selector()
    }
}

struct Parser<'a> {
    rest: &'a str,
    whole: &'a str,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }
    fn eat(&mut self, token: &str) -> bool {
        self.space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
    fn word(&mut self) -> &'a str {
        self.space();
        let end = self.rest.find(|c: char| c.is_whitespace() || "=!,()<>".contains(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }
    fn found(&self, expected: &str) -> SelectorError {
        let found = self.rest.trim_start().chars().next().map(String::from).unwrap_or_default();
        SelectorError(format!("unable to parse requirement: found '{found}', expected: {expected}"))
    }

    fn selector(mut self) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        self.space();
        if self.rest.is_empty() {
            return Ok(LabelSelector::everything());
        }
        loop {
            requirements.push(self.requirement()?);
            self.space();
            if self.rest.is_empty() {
                break;
            }
            if !self.eat(",") {
                return Err(self.found("',' or 'end of string'"));
            }
            self.space();
            if self.rest.is_empty() {
                return Err(SelectorError(format!(
                    "unable to parse requirement: found '', expected: identifier after ',' (in {})",
                    crate::field::go_quote(self.whole)
                )));
            }
        }
        requirements.sort_by(|a: &Requirement, b| a.key.cmp(&b.key));
        Ok(LabelSelector { requirements, nothing: false })
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        if self.eat("!") {
            let key = self.word();
            return self.make(key, Operator::DoesNotExist, Vec::new());
        }
        let key = self.word();
        if key.is_empty() {
            return Err(self.found("!, identifier, or 'end of string'"));
        }
        self.space();
        if self.rest.is_empty() || self.rest.starts_with(',') {
            return self.make(key, Operator::Exists, Vec::new());
        }
        for (token, operator) in [("==", Operator::In), ("=", Operator::In), ("!=", Operator::NotIn)] {
            if self.eat(token) {
                let value = self.word().to_owned();
                return self.make(key, operator, vec![value]);
            }
        }
        for (token, operator) in [(">", Operator::GreaterThan), ("<", Operator::LessThan)] {
            if self.eat(token) {
                let value = self.word().to_owned();
                return self.make(key, operator, vec![value]);
            }
        }
        let operator = match self.word() {
            "in" => Operator::In,
            "notin" => Operator::NotIn,
            other => {
                return Err(SelectorError(format!(
                    "unable to parse requirement: found '{other}', expected: in, notin, =, ==, !=, gt, lt"
                )));
            }
        };
        if !self.eat("(") {
            return Err(self.found("'('"));
        }
        let mut values = Vec::new();
        loop {
            values.push(self.word().to_owned());
            if self.eat(")") {
                break;
            }
            if !self.eat(",") {
                return Err(self.found("',', or ')'"));
            }
        }
        self.make(key, operator, values)
    }

    fn make(&self, key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, SelectorError> {
        Requirement::new(key, operator, values)
            .map_err(|SelectorError(why)| SelectorError(format!("unable to parse requirement: {why}")))
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
        let invalid = |term: &str| {
            SelectorError(format!(
                "invalid selector: {}; can't understand {}",
                crate::field::go_quote(text),
                crate::field::go_quote(term)
            ))
        };
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let (field, equal, value) = split_term(term).ok_or_else(|| invalid(term))?;
            let value = unescape(value).ok_or_else(|| invalid(term))?;
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

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => out.push(c),
        }
    }
    Some(out)
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
