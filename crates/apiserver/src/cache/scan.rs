//! Reads what selectors, indexes and splicing need from an object's stored JSON, in one pass and without decoding it.
//!
//! It understands the compact JSON that this server and upstream write (`{"kind":…,"apiVersion":…,` first, no white space).
//! Anything else is `None`: the caller then decodes and encodes it anew.

use super::fields::Paths;
use super::skip;
use std::ops::Range;

/// A piece of the item's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// The value of a selectable field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum FieldText {
    #[default]
    Absent,
    At(Span),
    /// With escapes resolved.
    Owned(Box<str>),
}

/// What a pass over the JSON finds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scanned {
    /// Behind the opening brace of `metadata`.
    pub(super) metadata: usize,
    /// `metadata` has nothing in it.
    pub(super) alone: bool,
    pub(super) uid: Span,
    pub(super) deleting: bool,
    pub(super) labels: Vec<(Span, Span)>,
    pub(super) fields: Vec<FieldText>,
    /// Maps of some length that are the object's own members, in their order, but for `metadata`. Only who writes the text tells.
    pub(super) members: Vec<Span>,
}

/// Scans the members of an object that begin at `from`. Offsets are those of `text`.
pub(super) fn scan(text: &[u8], from: usize, paths: &Paths) -> Option<Scanned> {
    let mut scanned = Scanned { fields: vec![FieldText::Absent; paths.slots()], ..Scanned::default() };
    let mut found = false;
    let mut scanner = Scanner { text, at: from };
    let end = scanner.members(&mut |scanner, key| {
        match &text[key.start as usize..key.end as usize] {
            b"metadata" => {
                found = true;
                scanner.metadata(&mut scanned)?;
            }
            // They differ from what the head says, or come twice.
            b"kind" | b"apiVersion" => return None,
            name => scanner.paths(paths.child(name), &mut scanned.fields)?,
        }
        Some(())
    });
    end?;
    // Nothing but the end of a line may follow.
    let rest = &text[scanner.at..];
    (found && (rest.is_empty() || rest == b"\n")).then_some(scanned)
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// The members of an object, whose opening brace is behind us, and its closing brace.
    fn members(&mut self, each: &mut dyn FnMut(&mut Self, Span) -> Option<()>) -> Option<()> {
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let (key, escaped) = self.string()?;
            if escaped {
                return None;
            }
            self.eat(b':')?;
            each(self, key)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// A string: where its content is, and whether it has escapes.
    fn string(&mut self) -> Option<(Span, bool)> {
        self.eat(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += schema::json::plain(self.text.get(self.at..)?);
            match self.peek()? {
                b'"' => {
                    let span = Span { start: u32::try_from(start).ok()?, end: u32::try_from(self.at).ok()? };
                    self.at += 1;
                    return Some((span, escaped));
                }
                b'\\' => {
                    escaped = true;
                    self.at += 2;
                }
                _ => return None,
            }
        }
    }

    /// Any value, looked at no further.
    fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => self.string().map(|_| ()),
            b'{' | b'[' => {
                self.at = skip::container(self.text, self.at)?;
                Some(())
            }
            _ => loop {
                match self.peek()? {
                    b',' | b'}' | b']' => return Some(()),
                    b'"' | b'{' | b'[' | b' ' | b'\n' | b'\t' | b'\r' => return None,
                    _ => self.at += 1,
                }
            },
        }
    }

    fn metadata(&mut self, scanned: &mut Scanned) -> Option<()> {
        let text = self.text;
        self.eat(b'{')?;
        scanned.metadata = self.at;
        scanned.alone = true;
        self.members(&mut |scanner, key| {
            scanned.alone = false;
            match &text[key.start as usize..key.end as usize] {
                b"uid" => scanned.uid = scanner.string()?.0,
                b"deletionTimestamp" => {
                    scanned.deleting = scanner.peek()? == b'"';
                    scanner.skip()?;
                }
                b"labels" if scanner.peek()? == b'{' => {
                    scanner.at += 1;
                    scanner.members(&mut |scanner, key| {
                        let (value, escaped) = scanner.string()?;
                        if escaped {
                            return None;
                        }
                        scanned.labels.push((key, value));
                        Some(())
                    })?;
                }
                // It would be there twice.
                b"resourceVersion" => return None,
                _ => scanner.skip()?,
            }
            Some(())
        })
    }

    fn paths(&mut self, paths: Option<&super::fields::Node>, fields: &mut [FieldText]) -> Option<()> {
        let Some(node) = paths else { return self.skip() };
        if self.peek()? == b'{' && !node.children.is_empty() {
            let text = self.text;
            self.at += 1;
            return self.members(&mut |scanner, key| {
                let name = &text[key.start as usize..key.end as usize];
                scanner.paths(node.child(name), fields)
            });
        }
        let start = self.at;
        let found = match self.peek()? {
            b'"' => match self.string()? {
                (span, false) => FieldText::At(span),
                (span, true) => {
                    let quoted = &self.text[span.start as usize - 1..=span.end as usize];
                    FieldText::Owned(schema::json::parse(quoted).ok()?.as_str()?.into())
                }
            },
            b'{' | b'[' | b'n' => {
                self.skip()?;
                FieldText::Absent
            }
            _ => {
                self.skip()?;
                FieldText::At(Span { start: u32::try_from(start).ok()?, end: u32::try_from(self.at).ok()? })
            }
        };
        for slot in &node.slots {
            fields[*slot] = found.clone();
        }
        Some(())
    }
}
