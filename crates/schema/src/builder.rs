//! The schema-guided builder: events of any format in, a checked and normalised tree out, in one pass.

use crate::decode::{DecodeError, Decoded, MAX_DEPTH, MAX_PROBLEMS, Problem};
use crate::normal::{absent, keep, null};
use crate::scalar::{self, Scalar};
use crate::tree::{Key, Map, Value};
use crate::types::{Kind, Schema, Struct, TypeRef};
use crate::unread::{Text, Unread};
use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Range;

pub(crate) struct Builder<'s> {
    root: TypeRef<'s>,
    stack: Vec<Frame<'s>>,
    /// The entries and elements of all open containers, the innermost last: a container is allocated once, at its end.
    entries: Vec<(Key, Value)>,
    items: Vec<Value>,
    /// Containers that are open below a field that is left out.
    skipped: usize,
    skip_next: bool,
    problems: Vec<Problem>,
    done: Option<Value>,
}

enum Frame<'s> {
    Struct(StructFrame<'s>),
    Map { of: TypeRef<'s>, start: usize, key: Key, sorted: bool },
    List { of: TypeRef<'s>, start: usize },
}

struct StructFrame<'s> {
    ty: Struct<'s>,
    /// Where its entries begin.
    start: usize,
    fields: Seen,
    current: usize,
    /// The name of an undeclared field that is kept.
    open: Option<Key>,
    sorted: bool,
}

impl<'s> Builder<'s> {
    pub(crate) fn new(root: TypeRef<'s>) -> Self {
        Builder {
            root,
            stack: Vec::with_capacity(16),
            entries: Vec::with_capacity(32),
            items: Vec::new(),
            skipped: 0,
            skip_next: false,
            problems: Vec::new(),
            done: None,
        }
    }

    /// The tree and its problems, once the root value has ended.
    pub(crate) fn finish(self) -> Result<Decoded, DecodeError> {
        match self.done {
            Some(Value::Map(object)) => Ok(Decoded { object, problems: self.problems }),
            _ => Err(DecodeError::syntax("unexpected end of JSON input", 0)),
        }
    }

    /// As [`Builder::finish`], of any value.
    pub(crate) fn finish_value(self) -> Result<Value, DecodeError> {
        self.done.ok_or_else(|| DecodeError::syntax("unexpected end of JSON input", 0))
    }

    /// The same with the problems.
    pub(crate) fn finish_judged(self) -> Result<(Value, Vec<Problem>), DecodeError> {
        let value = self.done.ok_or_else(|| DecodeError::syntax("unexpected end of JSON input", 0))?;
        Ok((value, self.problems))
    }

    pub(crate) fn key(&mut self, name: Cow<'_, str>) {
        if self.skipped > 0 {
            return;
        }
        let problem = match self.stack.last_mut() {
            Some(Frame::Struct(frame)) => match frame.position(&name) {
                Some(at) => {
                    frame.open = None;
                    frame.current = at;
                    if !frame.fields.give(at) {
                        return;
                    }
                    Problem::Duplicate(self.path_to(None))
                }
                None if frame.ty.open() => {
                    frame.open = Some(Cow::Owned(name.into_owned()));
                    return;
                }
                None => {
                    self.skip_next = true;
                    Problem::Unknown(self.path_to(Some(&name)))
                }
            },
            // Duplicates are noticed at the end, when the keys are sorted.
            Some(Frame::Map { key, .. }) => {
                *key = Cow::Owned(name.into_owned());
                return;
            }
            Some(Frame::List { .. }) | None => return,
        };
        self.report(problem);
    }

    pub(crate) fn scalar(&mut self, scalar: Scalar<'_>) -> Result<(), DecodeError> {
        if self.skipped > 0 {
            return Ok(());
        }
        if std::mem::take(&mut self.skip_next) {
            return Ok(());
        }
        let ty = self.expected();
        let value = match scalar {
            Scalar::Null => match self.stack.last() {
                Some(Frame::Struct(frame)) if frame.open.is_none() => Value::Null,
                Some(_) => null(ty),
                None if matches!(ty.kind(), Kind::Json | Kind::Raw) => Value::Null,
                None => return Err(self.mismatch("null", ty)),
            },
            scalar => match scalar::convert(ty, scalar) {
                Ok(value) => value,
                Err(scalar::Unfit::Type(got)) => return Err(self.mismatch(&got, ty)),
                Err(scalar::Unfit::Value(message)) => return Err(self.unreadable(&message)),
            },
        };
        self.put(value);
        Ok(())
    }

    pub(crate) fn begin_map(&mut self) -> Result<(), DecodeError> {
        if self.begin()? {
            return Ok(());
        }
        let ty = self.expected();
        let frame = match ty.kind() {
            Kind::Struct(s) => Frame::structure(s, self.entries.len()),
            Kind::Map(of) => Frame::map(of, self.entries.len()),
            Kind::Json | Kind::Raw | Kind::Fields => Frame::map(ty.json(), self.entries.len()),
            Kind::OrBool(of) | Kind::OrList(of) | Kind::OrStrings(of) => match of.kind() {
                Kind::Struct(s) => Frame::structure(s, self.entries.len()),
                _ => return Err(self.mismatch("object", ty)),
            },
            _ => return Err(self.mismatch("object", ty)),
        };
        self.stack.push(frame);
        Ok(())
    }

    pub(crate) fn begin_list(&mut self) -> Result<(), DecodeError> {
        if self.begin()? {
            return Ok(());
        }
        let ty = self.expected();
        let of = match ty.kind() {
            Kind::List(of) | Kind::OrList(of) => of,
            Kind::Json | Kind::Raw => ty.json(),
            Kind::OrStrings(_) => ty.string(),
            _ => return Err(self.mismatch("array", ty)),
        };
        self.stack.push(Frame::List { of, start: self.items.len() });
        Ok(())
    }

    /// Whether a set of owned fields comes next, and is not left out.
    pub(crate) fn expects_fields(&self) -> bool {
        let Some(Frame::Struct(frame)) = self.stack.last() else { return false };
        self.skipped == 0
            && !self.skip_next
            && frame.open.is_none()
            && matches!(frame.ty.field_at(frame.current).ty().kind(), Kind::Fields)
    }

    /// A map that stays text; `false` when it can't, as it is no struct, or is left out. `schema` has the type of what is built.
    pub(crate) fn unread(&mut self, text: &Text, at: Range<usize>, schema: &Schema) -> bool {
        if self.skipped > 0 || self.skip_next {
            return false;
        }
        let ty = self.expected();
        if ty.as_struct().is_none() {
            return false;
        }
        self.put(Value::Map(Map::unread(Unread::new(text.clone(), at, schema.of(ty)))));
        true
    }

    /// The set of owned fields that was expected.
    pub(crate) fn fields(&mut self, text: &str) {
        self.put(Value::Raw(text.into()));
    }

    /// The same, where it may come unexpected: out of a tree.
    pub(crate) fn raw(&mut self, text: Box<str>) -> Result<(), DecodeError> {
        if self.skipped > 0 || std::mem::take(&mut self.skip_next) {
            return Ok(());
        }
        let ty = self.expected();
        match ty.kind() {
            Kind::Fields | Kind::Json | Kind::Raw => {
                self.put(Value::Raw(text));
                Ok(())
            }
            _ => Err(self.mismatch("object", ty)),
        }
    }

    /// Ends the container that began last.
    pub(crate) fn end(&mut self) {
        if self.skipped > 0 {
            self.skipped -= 1;
            return;
        }
        let value = match self.stack.pop() {
            Some(Frame::Struct(frame)) => {
                let sorted = frame.finish(&mut self.entries);
                self.map(frame.start, sorted)
            }
            Some(Frame::Map { start, sorted, .. }) => self.map(start, sorted),
            Some(Frame::List { start, .. }) => Value::List(self.items.drain(start..).collect()),
            None => return,
        };
        self.put(value);
    }

    /// The map of a container that has been closed.
    fn map(&mut self, start: usize, sorted: bool) -> Value {
        let mut entries: Vec<(Key, Value)> = self.entries.drain(start..).collect();
        if !sorted {
            for key in sort(&mut entries) {
                let path = self.path_to(None);
                self.report(Problem::Duplicate(if path.is_empty() {
                    key.into_owned()
                } else {
                    format!("{path}.{key}")
                }));
            }
        }
        Value::Map(Map::from_sorted(entries))
    }

    /// Whether the container is part of what is left out.
    fn begin(&mut self) -> Result<bool, DecodeError> {
        if self.stack.len() + self.skipped >= MAX_DEPTH {
            return Err(DecodeError::TooDeep);
        }
        if self.skipped > 0 || std::mem::take(&mut self.skip_next) {
            self.skipped += 1;
            return Ok(true);
        }
        Ok(false)
    }

    fn expected(&self) -> TypeRef<'s> {
        match self.stack.last() {
            None => self.root,
            Some(Frame::Struct(frame)) if frame.open.is_some() => self.root.json(),
            Some(Frame::Struct(frame)) => frame.ty.field_at(frame.current).ty(),
            Some(Frame::Map { of, .. } | Frame::List { of, .. }) => *of,
        }
    }

    fn put(&mut self, mut value: Value) {
        let entries = &mut self.entries;
        let (start, sorted, key) = match self.stack.last_mut() {
            None => {
                self.done = Some(value);
                return;
            }
            Some(Frame::List { .. }) => {
                self.items.push(value);
                return;
            }
            Some(Frame::Struct(frame)) if frame.open.is_none() => {
                let field = frame.ty.field_at(frame.current);
                if let Value::Map(map) = &value
                    && matches!(field.ty().kind(), Kind::Fields)
                {
                    value = Value::Raw(crate::json::to_string(map).into());
                }
                // Of duplicates the last counts, also when it is empty.
                if frame.fields.drop(frame.current)
                    && let Some(at) = entries[frame.start..].iter().position(|(key, _)| *key == field.name())
                {
                    entries.remove(frame.start + at);
                }
                if !keep(field, &value) {
                    return;
                }
                frame.fields.keep(frame.current);
                (frame.start, &mut frame.sorted, field.key())
            }
            Some(Frame::Struct(frame)) => (frame.start, &mut frame.sorted, frame.open.take().unwrap_or_default()),
            Some(Frame::Map { key, start, sorted, .. }) => (*start, sorted, std::mem::take(key)),
        };
        *sorted &= entries[start..].last().is_none_or(|(last, _)| *last < key);
        entries.push((key, value));
    }

    fn report(&mut self, problem: Problem) {
        if self.problems.len() < MAX_PROBLEMS && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Where the builder is, with indexes; `name` instead of the current key of the innermost container, or below it.
    fn path_to(&self, name: Option<&str>) -> String {
        let mut path = String::new();
        let step = |path: &mut String, name: &str| {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        };
        let last = self.stack.len().wrapping_sub(1);
        for (at, frame) in self.stack.iter().enumerate() {
            match frame {
                _ if at == last && name.is_some() && !matches!(frame, Frame::List { .. }) => {}
                Frame::Struct(frame) => step(&mut path, frame.current_name()),
                Frame::Map { key, .. } => step(&mut path, key),
                Frame::List { start, .. } => {
                    write!(path, "[{}]", self.elements(at, *start)).expect("writing to a string")
                }
            }
        }
        if let Some(name) = name {
            step(&mut path, name);
        }
        path
    }

    /// How many elements the list of a frame has so far.
    fn elements(&self, at: usize, start: usize) -> usize {
        let next = self.stack[at + 1..].iter().find_map(|frame| match frame {
            Frame::List { start, .. } => Some(*start),
            _ => None,
        });
        next.unwrap_or(self.items.len()) - start
    }

    /// A value of the wrong kind, in Go's words.
    fn mismatch(&self, got: &str, ty: TypeRef<'s>) -> DecodeError {
        let fields: Vec<&str> = self
            .stack
            .iter()
            .filter_map(|frame| match frame {
                Frame::Struct(frame) => Some(frame.current_name()),
                _ => None,
            })
            .collect();
        let innermost = self.stack.iter().rev().find_map(|frame| match frame {
            Frame::Struct(frame) => Some(frame.ty.short_name()),
            _ => None,
        });
        let expected = match ty.kind() {
            // These read themselves, from one of these; a quantity, from whatever is written.
            Kind::IntOrString => "int32".to_owned(),
            Kind::Time | Kind::MicroTime | Kind::Duration => "string".to_owned(),
            Kind::Quantity => return self.unreadable(&api::quantity::ParseError::Format.to_string()),
            _ => ty.go_name(),
        };
        let message = match innermost {
            Some(name) => {
                format!(
                    "json: cannot unmarshal {got} into Go struct field {name}.{} of type {expected}",
                    fields.join(".")
                )
            }
            None => format!("json: cannot unmarshal {got} into Go value of type {expected}"),
        };
        DecodeError::Type { path: self.path_to(None), message }
    }

    /// A value of the right kind that can't be read.
    fn unreadable(&self, message: &str) -> DecodeError {
        DecodeError::Type { path: self.path_to(None), message: message.to_owned() }
    }
}

/// Sorts entries; of equal keys the last stays. Returns the keys that were there more than once.
pub(crate) fn sort(entries: &mut Vec<(Key, Value)>) -> Vec<Key> {
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut again: Vec<Key> = Vec::new();
    entries.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            std::mem::swap(later, earlier);
            if again.last() != Some(&earlier.0) {
                again.push(earlier.0.clone());
            }
        }
        same
    });
    again
}

/// Which fields of a struct were given, and which of them are kept.
#[derive(Default)]
struct Seen {
    first: Marks,
    more: Vec<Marks>,
}

/// A bit for each of 64 fields.
#[derive(Clone, Copy, Default)]
struct Marks {
    given: u64,
    kept: u64,
}

impl Seen {
    #[inline]
    fn marks(&mut self, at: usize) -> &mut Marks {
        if at < 64 {
            return &mut self.first;
        }
        let word = at / 64;
        if self.more.len() < word {
            self.more.resize(word, Marks::default());
        }
        &mut self.more[word - 1]
    }
    /// Notes that a field is given; whether it was before.
    fn give(&mut self, at: usize) -> bool {
        let given = &mut self.marks(at).given;
        let was = *given >> (at % 64) & 1 != 0;
        *given |= 1 << (at % 64);
        was
    }
    fn keep(&mut self, at: usize) {
        self.marks(at).kept |= 1 << (at % 64);
    }
    /// Notes that a field is not kept; whether it was before.
    fn drop(&mut self, at: usize) -> bool {
        let was = self.kept(at);
        if was {
            self.marks(at).kept &= !(1 << (at % 64));
        }
        was
    }
    fn kept(&self, at: usize) -> bool {
        let kept = if at < 64 { self.first.kept } else { self.more.get(at / 64 - 1).map_or(0, |marks| marks.kept) };
        kept >> (at % 64) & 1 != 0
    }
}

impl<'s> Frame<'s> {
    fn structure(ty: Struct<'s>, start: usize) -> Self {
        Frame::Struct(StructFrame { ty, start, fields: Seen::default(), current: usize::MAX, open: None, sorted: true })
    }

    fn map(of: TypeRef<'s>, start: usize) -> Self {
        Frame::Map { of, start, key: Cow::Borrowed(""), sorted: true }
    }
}

impl StructFrame<'_> {
    /// Where the field of a name is: mostly soon after the last one, because fields mostly come sorted.
    fn position(&self, name: &str) -> Option<usize> {
        self.ty.position_near(self.current.wrapping_add(1), name)
    }

    fn current_name(&self) -> &str {
        match &self.open {
            Some(name) => name,
            None if self.current < self.ty.len() => self.ty.field_at(self.current).name(),
            None => "",
        }
    }

    /// Adds what is written even when it was not given; whether the entries are sorted then.
    fn finish(&self, entries: &mut Vec<(Key, Value)>) -> bool {
        let mut sorted = self.sorted;
        if self.ty.always() {
            for (at, field) in self.ty.fields().enumerate() {
                if !self.fields.kept(at)
                    && let Some(value) = absent(field)
                {
                    sorted = false;
                    entries.push((field.key(), value));
                }
            }
        }
        sorted
    }
}
