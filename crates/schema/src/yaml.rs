//! YAML: the same trees, checks and messages as from JSON.
//!
//! Plain scalars mean what they mean to upstream's YAML library: `yes` and `on` are booleans, `0644` is octal, dates are
//! strings. Aliases and merge keys (`<<`) are followed; what they expand to is bounded, so that no small document becomes
//! a large tree.

use crate::builder::Builder;
use crate::decode::{DecodeError, Decoded, MAX_DEPTH, MAX_PROBLEMS, Problem};
use crate::normal::feed;
use crate::scalar::{self, Scalar};
use crate::tree::Value;
use crate::types::{TypeRef, any};
use compact_str::CompactString;
use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, StrInput, Tag};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// How much anchors may remember and aliases may bring in, in one document: nodes, and text in pieces of [`PIECE`].
const MAX_ALIASED: usize = 100_000;
/// So many bytes of a text count as a node.
const PIECE: usize = 64;

/// Decodes an object of a type from the first document. Unknown and duplicate fields are reported beside the tree.
///
/// # Errors
/// [`DecodeError`] when the text is not YAML, or a value is not of its field's type.
pub fn decode(ty: TypeRef<'_>, bytes: &[u8]) -> Result<Decoded, DecodeError> {
    let text = String::from_utf8_lossy(bytes);
    match Documents::new(&text).next_document(ty)? {
        Some(driver) => {
            let decoded = driver.builder.finish()?;
            Ok(Decoded { problems: problems(driver.repeated, decoded.problems), ..decoded })
        }
        None => Err(DecodeError::syntax("error converting YAML to JSON: yaml: there is no document", 0)),
    }
}

/// Parses the first document, keeping everything as it is; `Null` when there is none.
///
/// # Errors
/// [`DecodeError::Syntax`], [`DecodeError::TooDeep`].
pub fn parse(bytes: &[u8]) -> Result<Value, DecodeError> {
    let text = String::from_utf8_lossy(bytes);
    match Documents::new(&text).next_document(any())? {
        Some(driver) => driver.builder.finish_value(),
        None => Ok(Value::Null),
    }
}

/// The same, and what is given twice.
///
/// # Errors
/// As [`parse`].
pub fn parse_strict(bytes: &[u8]) -> Result<(Value, Vec<Problem>), DecodeError> {
    let text = String::from_utf8_lossy(bytes);
    match Documents::new(&text).next_document(any())? {
        Some(driver) => {
            let (value, found) = driver.builder.finish_judged()?;
            Ok((value, problems(driver.repeated, found)))
        }
        None => Ok((Value::Null, Vec::new())),
    }
}

/// Parses every document of a stream; empty documents are left out.
///
/// # Errors
/// As [`parse`].
pub fn parse_all(bytes: &[u8]) -> Result<Vec<Value>, DecodeError> {
    let text = String::from_utf8_lossy(bytes);
    let mut documents = Documents::new(&text);
    let mut all = Vec::new();
    while let Some(driver) = documents.next_document(any())? {
        let value = driver.builder.finish_value()?;
        if !value.is_null() {
            all.push(value);
        }
    }
    Ok(all)
}

/// What strict validation finds in a document: the keys that it repeats, told all at once as upstream's YAML library does, and
/// what its JSON has beyond the type. Upstream makes that JSON first, which has every key once and its keys sorted.
fn problems(repeated: Vec<String>, mut found: Vec<Problem>) -> Vec<Problem> {
    found.retain(|problem| !matches!(problem, Problem::Duplicate(_)));
    found.sort_by(|a, b| match (a, b) {
        (Problem::Unknown(a), Problem::Unknown(b)) => by_path(a, b),
        _ => Ordering::Equal,
    });
    if !repeated.is_empty() {
        found.insert(0, Problem::Repeated(repeated));
    }
    found
}

/// The order of two paths such as `spec.containers[10].x` in a walk that sorts its keys.
fn by_path(a: &str, b: &str) -> Ordering {
    // An index by its number, a key by its text, even if that is a number.
    let steps = |path| {
        str::split(path, ['.', '['])
            .map(|step: &str| (step.strip_suffix(']').and_then(|i| i.parse::<usize>().ok()), step))
    };
    steps(a).cmp(steps(b))
}

struct Documents<'t> {
    text: &'t str,
    parser: Parser<'t, StrInput<'t>>,
    /// Whether merge keys can occur.
    merging: bool,
}

/// A node as it is driven into a builder, recorded under an anchor, and replayed by an alias.
#[derive(Clone)]
enum Node {
    /// Never a list or map.
    Leaf(Value),
    /// A plain `<<`.
    Merge,
    Map,
    List,
    End,
}

impl Node {
    /// What it counts where it is copied.
    fn weight(&self) -> usize {
        match self {
            Node::Leaf(Value::Str(text)) => 1 + text.len() / PIECE,
            _ => 1,
        }
    }
}

/// What is remembered under an anchor.
struct Recording {
    anchor: usize,
    nodes: Vec<Node>,
    depth: usize,
}

impl<'t> Documents<'t> {
    fn new(text: &'t str) -> Self {
        let mut options = Options::default();
        options.flow_nesting_limit = MAX_DEPTH;
        options.block_nesting_limit = MAX_DEPTH;
        Documents { text, parser: Parser::new_from_str_with_options(text, options), merging: text.contains("<<") }
    }

    /// What drove the next document, which has ended; `None` at the end of the stream.
    fn next_document<'s>(&mut self, ty: TypeRef<'s>) -> Result<Option<Driver<'s>>, DecodeError> {
        let mut driver = Driver::new(ty, self.merging);
        let mut anchors: HashMap<usize, Rc<Vec<Node>>> = HashMap::new();
        let mut recordings: Vec<Recording> = Vec::new();
        let mut budget = MAX_ALIASED;
        let mut begun = false;
        let mut open: Vec<Collection> = Vec::new();
        while let Some(event) = self.parser.next_event() {
            let (event, span) = event.map_err(|error| failed(&error, self.text, open.last().copied()))?;
            let line = span.start.line();
            match event {
                Event::SequenceStart(..) => open.push(Collection { line, list: true }),
                Event::MappingStart(..) => open.push(Collection { line, list: false }),
                Event::SequenceEnd | Event::MappingEnd => drop(open.pop()),
                _ => {}
            }
            let (node, anchor) = match event {
                Event::StreamEnd => return Ok(None),
                Event::DocumentStart(..) => {
                    begun = true;
                    continue;
                }
                Event::DocumentEnd if begun => return Ok(Some(driver)),
                Event::Alias(id) => {
                    let Some(nodes) = anchors.get(&id).cloned() else {
                        return Err(at(line, "an anchor contains itself"));
                    };
                    for node in nodes.iter() {
                        spend(&mut budget, node.weight() * (1 + recordings.len()), line)?;
                        record(&mut recordings, &mut anchors, node);
                        driver.node(node.clone(), line)?;
                    }
                    continue;
                }
                Event::Scalar(text, style, anchor, tag) => (leaf(&text, style, tag.as_deref()), anchor),
                Event::SequenceStart(_, anchor, _) => (Node::List, anchor),
                Event::MappingStart(_, anchor, _) => (Node::Map, anchor),
                Event::SequenceEnd | Event::MappingEnd => (Node::End, 0),
                _ => continue,
            };
            if anchor != 0 {
                recordings.push(Recording { anchor, nodes: Vec::new(), depth: 0 });
            }
            spend(&mut budget, node.weight() * recordings.len(), line)?;
            record(&mut recordings, &mut anchors, &node);
            driver.node(node, line)?;
        }
        Ok(None)
    }
}

fn spend(budget: &mut usize, nodes: usize, line: usize) -> Result<(), DecodeError> {
    *budget = budget.checked_sub(nodes).ok_or_else(|| at(line, "document contains excessive aliasing"))?;
    Ok(())
}

/// Adds a node to what is being recorded; a recording that is complete becomes the anchor's.
fn record(recordings: &mut Vec<Recording>, anchors: &mut HashMap<usize, Rc<Vec<Node>>>, node: &Node) {
    for recording in recordings.iter_mut() {
        recording.nodes.push(node.clone());
        match node {
            Node::Map | Node::List => recording.depth += 1,
            Node::End => recording.depth -= 1,
            Node::Leaf(_) | Node::Merge => {}
        }
    }
    while recordings.last().is_some_and(|recording| recording.depth == 0) {
        if let Some(recording) = recordings.pop() {
            anchors.insert(recording.anchor, Rc::new(recording.nodes));
        }
    }
}

/// A collection that has not ended.
#[derive(Clone, Copy)]
struct Collection {
    /// The line that it begins in.
    line: usize,
    list: bool,
}

/// How upstream's YAML library numbers the line of a fault. It counts from 0 and tells no 0.
#[derive(Clone, Copy)]
enum Place {
    /// Its scanner: the line itself.
    Scanner,
    /// Its parser: the line before.
    Parser,
    /// Its parser in a collection: the line before the one where that begins, or before its own when that is the first.
    Collection,
}

/// A fault as upstream's YAML library tells it. `open`: the innermost collection.
fn failed(error: &ScanError, text: &str, open: Option<Collection>) -> DecodeError {
    use ErrorKind as K;
    const NO_KEY: &str = "did not find expected key";
    let (line, index) = (error.marker().line(), error.marker().index());
    let flow = |list: bool| if list { "did not find expected ',' or ']'" } else { "did not find expected ',' or '}'" };
    let place = |place: Place| match (place, open.map_or(0, |open| open.line.saturating_sub(1))) {
        (Place::Scanner, _) if line > 1 => line,
        (Place::Scanner, _) => 0,
        (Place::Collection, before @ 1..) => before,
        (Place::Parser | Place::Collection, _) => line.saturating_sub(1),
    };
    match error.kind() {
        K::UnknownAnchor => {
            let behind = text.chars().skip(index).skip_while(|c| *c == '*');
            let name: String = behind.take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).collect();
            at(0, &format!("unknown anchor '{name}' referenced"))
        }
        // What has no end is noticed at the end of the text: that is told when it begins in the first line.
        K::UnclosedFlowCollection { open } => {
            at(if line > 1 { line - 1 } else { text.lines().count() }, flow(*open == '['))
        }
        K::UnclosedQuotedScalar => {
            let last = text.bytes().filter(|b| *b == b'\n').count();
            let line = if line > 1 || last == 0 { place(Place::Scanner) } else { last + 1 };
            at(line, "found unexpected end of stream")
        }
        K::MismatchedFlowCollectionEnd { open, .. } => at(place(Place::Parser), flow(*open == '[')),
        K::InvalidColonPlacement => at(place(Place::Collection), flow(open.is_some_and(|open| open.list))),
        // Where a key could be, it is missed; behind one, its value.
        K::MisplacedFlowCollectionEnd => {
            let before: Vec<char> = text.chars().take(index).collect();
            match before.iter().rfind(|c| !matches!(c, ' ' | '\t')) {
                None | Some('\n') => at(place(Place::Collection), NO_KEY),
                Some(_) => at(place(Place::Parser), "did not find expected node content"),
            }
        }
        K::TabAtBlockScalarStart => at(line.max(2), "found a tab character where an indentation space is expected"),
        K::TabInPlainScalar => at(line.max(2), "found a tab character that violates indentation"),
        kind => match words(kind) {
            Some((found, problem)) => at(place(found), problem),
            None => at(line, &kind.to_string()),
        },
    }
}

/// How upstream's YAML library words a fault, where it knows such.
fn words(kind: &ErrorKind) -> Option<(Place, &'static str)> {
    use ErrorKind as K;
    use Place::{Collection, Parser, Scanner};
    Some(match kind {
        K::UnexpectedCharacter { .. } | K::TabNotAllowed | K::TabInBlockIndentation | K::TabInIndentation => {
            (Scanner, "found character that cannot start any token")
        }
        K::MappingValueNotAllowed => (Scanner, "mapping values are not allowed in this context"),
        K::MappingKeyNotAllowed => (Scanner, "mapping keys are not allowed in this context"),
        K::BlockSequenceEntryNotAllowed => (Scanner, "block sequence entries are not allowed in this context"),
        K::SimpleKeyExpected | K::InvalidSimpleKey => (Scanner, "could not find expected ':'"),
        K::DocumentIndicatorInQuotedScalar => (Scanner, "found unexpected document indicator"),
        K::UnknownQuotedScalarEscape => (Scanner, "found unknown escape character"),
        K::InvalidQuotedScalarHexEscape => (Scanner, "did not find expected hexdecimal number"),
        K::InvalidUnicodeEscape => (Scanner, "found invalid Unicode character escape code"),
        K::MissingAnchorOrAliasName => (Scanner, "did not find expected alphabetic or numeric character"),
        K::ZeroBlockScalarIndent => (Scanner, "found an indentation indicator equal to 0"),
        K::InvalidBlockScalarHeader => (Scanner, "did not find expected comment or line break"),
        K::ExpectedBlockMappingKey
        | K::UnexpectedEofBlockMapping
        | K::InvalidTrailingSingleQuotedScalar
        | K::InvalidTrailingDoubleQuotedScalar => (Collection, "did not find expected key"),
        K::ExpectedBlockSequenceEntry | K::UnexpectedEofBlockSequence => {
            (Collection, "did not find expected '-' indicator")
        }
        K::ExpectedFlowMappingSeparator | K::UnexpectedEofFlowMapping => {
            (Collection, "did not find expected ',' or '}'")
        }
        K::ExpectedFlowSequenceSeparator | K::UnexpectedEofFlowSequence => {
            (Collection, "did not find expected ',' or ']'")
        }
        K::ExpectedNodeContent => (Parser, "did not find expected node content"),
        K::ExpectedDocumentStart => (Parser, "did not find expected <document start>"),
        K::UndeclaredTagHandle => (Parser, "found undefined tag handle"),
        K::DuplicateVersionDirective => (Parser, "found duplicate %YAML directive"),
        K::DuplicateTagDirective => (Parser, "found duplicate %TAG directive"),
        K::UnsupportedYamlMajorVersion => (Parser, "found incompatible YAML document"),
        _ => return None,
    })
}

/// A fault of a line; 0 is none.
fn at(line: usize, message: &str) -> DecodeError {
    let place = if line == 0 { String::new() } else { format!("line {line}: ") };
    DecodeError::syntax(format!("error converting YAML to JSON: yaml: {place}{message}"), 0)
}

/// Tells keys from values, notes keys that are repeated, and brings merged maps in.
struct Driver<'s> {
    builder: Builder<'s>,
    open: Vec<Open>,
    /// What is to be told of repeated keys, as upstream's YAML library words it.
    repeated: Vec<String>,
    merging: bool,
    /// The value of a merge key, as long as it comes.
    merge: Option<Box<Driver<'static>>>,
}

/// A container that has not ended.
struct Open {
    /// What is to be told at its end of the key that it is the value of.
    repeats: Option<String>,
    map: Option<OpenMap>,
}

#[derive(Default)]
struct OpenMap {
    /// A key has come, and its value has not.
    keyed: bool,
    /// The keys so far, as messages show them: by text and type.
    seen: HashSet<String>,
    /// The key whose value comes next, when it was there before.
    repeats: Option<String>,
    /// The keys so far, when merge keys can occur.
    keys: HashSet<String>,
    merged: Vec<Value>,
}

impl<'s> Driver<'s> {
    fn new(ty: TypeRef<'s>, merging: bool) -> Self {
        Driver { builder: Builder::new(ty), open: Vec::new(), repeated: Vec::new(), merging, merge: None }
    }

    fn node(&mut self, node: Node, line: usize) -> Result<(), DecodeError> {
        match self.merge.take() {
            Some(merge) => self.merge(merge, node, line),
            None => self.own(node, line),
        }
    }

    /// A node of what is merged in. Merges lie in merges, as deep as anything: what is only needed at their end is apart.
    fn merge(&mut self, mut merge: Box<Driver<'static>>, node: Node, line: usize) -> Result<(), DecodeError> {
        merge.node(node, line)?;
        if !merge.open.is_empty() || merge.merge.is_some() {
            self.merge = Some(merge);
            return Ok(());
        }
        self.end_merge(merge, line)
    }

    fn end_merge(&mut self, merge: Box<Driver<'static>>, line: usize) -> Result<(), DecodeError> {
        let merge = *merge;
        merge.repeated.into_iter().for_each(|told| self.repeats(told));
        let value = merge.builder.finish_value()?;
        if let Some(OpenMap { merged, .. }) = self.open.last_mut().and_then(|open| open.map.as_mut()) {
            match value {
                Value::Map(_) => merged.push(value),
                Value::List(maps) if maps.iter().all(|map| map.as_map().is_some()) => merged.extend(maps),
                _ => return Err(at(line, "map merge requires map or sequence of maps as the value")),
            }
        }
        Ok(())
    }

    fn own(&mut self, node: Node, line: usize) -> Result<(), DecodeError> {
        let mut repeats = None;
        if let Some(map) = self.open.last_mut().and_then(|open| open.map.as_mut()) {
            if !map.keyed {
                let key = match node {
                    Node::End => return self.end_map(),
                    Node::Merge => {
                        if self.open.len() >= MAX_DEPTH {
                            return Err(DecodeError::TooDeep);
                        }
                        self.merge = Some(Box::new(Driver::new(any(), true)));
                        return Ok(());
                    }
                    Node::Leaf(value) => value,
                    Node::Map | Node::List => return Err(at(line, "invalid map key")),
                };
                let shown = match &key {
                    Value::Str(text) => api::field::go_quote(text),
                    other => key_text(other.clone()),
                };
                if map.seen.contains(&shown) {
                    map.repeats = Some(shown);
                } else {
                    map.seen.insert(shown);
                }
                let key = key_text(key);
                map.keyed = true;
                if self.merging {
                    map.keys.insert(key.clone());
                }
                self.builder.key(Cow::Owned(key));
                return Ok(());
            }
            map.keyed = false;
            // Upstream's library names the line of the value.
            repeats = map.repeats.take().map(|key| format!("line {line}: key {key} already set in map"));
        }
        match node {
            Node::Map => {
                self.open.push(Open { repeats, map: Some(OpenMap::default()) });
                return self.builder.begin_map();
            }
            Node::List => {
                self.open.push(Open { repeats, map: None });
                return self.builder.begin_list();
            }
            Node::End => {
                self.end();
                return Ok(());
            }
            Node::Leaf(value) => feed(&mut self.builder, value)?,
            Node::Merge => self.builder.scalar(Scalar::Str("<<"))?,
        }
        repeats.into_iter().for_each(|told| self.repeats(told));
        Ok(())
    }

    fn repeats(&mut self, told: String) {
        if self.repeated.len() < MAX_PROBLEMS {
            self.repeated.push(told);
        }
    }

    /// Ends the container that began last.
    fn end(&mut self) {
        self.builder.end();
        let told = self.open.pop().and_then(|open| open.repeats);
        told.into_iter().for_each(|told| self.repeats(told));
    }

    /// Ends a map, after adding what was merged into it and is not its own.
    fn end_map(&mut self) -> Result<(), DecodeError> {
        if let Some(OpenMap { keys, merged, .. }) = self.open.last_mut().and_then(|open| open.map.as_mut()) {
            for map in merged.drain(..) {
                let Value::Map(map) = map else { continue };
                for (key, value) in map.into_entries() {
                    if !keys.contains(key.as_ref()) {
                        self.builder.key(Cow::Borrowed(&key));
                        feed(&mut self.builder, value)?;
                        keys.insert(key.into_owned());
                    }
                }
            }
        }
        self.end();
        Ok(())
    }
}

fn key_text(value: Value) -> String {
    match value {
        Value::Str(text) => text.into(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Float(f) => scalar::float(f),
        _ => "null".into(),
    }
}

fn leaf(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Node {
    let string = || Node::Leaf(Value::Str(CompactString::from(text)));
    match tag.and_then(Tag::core_suffix) {
        Some("str" | "binary") => return string(),
        Some("int" | "float" | "bool" | "null") => return Node::Leaf(resolve(text)),
        _ => {}
    }
    match style {
        ScalarStyle::Plain if text == "<<" => Node::Merge,
        ScalarStyle::Plain if tag.is_none() => Node::Leaf(resolve(text)),
        _ => string(),
    }
}

/// What a plain scalar means.
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let string = || Value::Str(text.into());
    let Some(first) = text.bytes().next() else { return string() };
    if !first.is_ascii_digit() && !matches!(first, b'+' | b'-' | b'.') {
        return string();
    }
    let plain = text.replace('_', "");
    if let Some(i) = integer(&plain) {
        return Value::Int(i);
    }
    if is_float(&plain)
        && let Ok(f) = plain.parse::<f64>()
        && f.is_finite()
    {
        // A float without fraction is written, and read again, as an integer.
        return if f.fract() == 0.0 && f.abs() < 1e15 { Value::Int(f as i64) } else { Value::Float(f) };
    }
    string()
}

/// As Go's `ParseInt` with base 0: `0x`, `0o`, `0b`, a leading zero for octal.
fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match lower.as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        _ if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let size = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -size } else { size }).ok()
}

/// `^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let whole = digits(rest);
    rest = &rest[whole..];
    let mut fraction = 0;
    if let Some(after) = rest.strip_prefix('.') {
        fraction = digits(after);
        rest = &after[fraction..];
    }
    if whole == 0 && fraction == 0 {
        return false;
    }
    if let Some(after) = rest.strip_prefix(['e', 'E']) {
        let after = after.strip_prefix(['-', '+']).unwrap_or(after);
        return !after.is_empty() && digits(after) == after.len();
    }
    rest.is_empty()
}
