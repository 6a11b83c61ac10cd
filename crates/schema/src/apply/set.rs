//! Sets of paths, and their algebra; written as `fieldsV1`.

use super::path::{Element, write_field};
use crate::json;
use crate::tree::{Map, Value};
use std::borrow::Cow;
use std::cmp::Ordering;

/// A set of paths below one place. The place itself is a member or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    member: bool,
    /// Sorted, each element once.
    children: Vec<(Element, Set)>,
}

/// Takes the members of a set in the order of their paths, each place before what is below it.
pub(super) trait Collect: Sized {
    /// The place itself is a member.
    fn member(&mut self);
    /// What is below a field.
    fn field(&mut self, name: &str, below: impl FnOnce(&mut Self));
    /// What is below an item.
    fn item(&mut self, element: Element, below: impl FnOnce(&mut Self));
    /// So many fields or items come.
    fn reserve(&mut self, _: usize) {}
}

impl Collect for Set {
    fn member(&mut self) {
        self.member = true;
    }
    fn field(&mut self, name: &str, below: impl FnOnce(&mut Self)) {
        below(self.below(Element::Field(name.into())));
    }
    fn item(&mut self, element: Element, below: impl FnOnce(&mut Self)) {
        below(self.below(element));
    }
    fn reserve(&mut self, more: usize) {
        self.children.reserve_exact(more);
    }
}

/// A set that is only written: as `fieldsV1`, while its members come.
#[derive(Default)]
pub(super) struct Text {
    out: Vec<u8>,
    /// Whether the place that is being written is a member, and has parts.
    member: bool,
    parts: bool,
}

impl Text {
    pub(super) fn finish(mut self) -> Value {
        if self.out.is_empty() {
            self.out.push(b'{');
        }
        self.out.push(b'}');
        // Text of the tree and ASCII.
        Value::Raw(String::from_utf8(self.out).unwrap_or_default().into())
    }

    fn part(&mut self, name: impl FnOnce(&mut Vec<u8>), below: impl FnOnce(&mut Self)) {
        if self.out.is_empty() {
            self.out.reserve(1024);
            self.out.push(b'{');
        }
        let start = self.out.len();
        let (member, parts) = (std::mem::take(&mut self.member), std::mem::take(&mut self.parts));
        match (parts, member) {
            (true, _) => self.out.push(b','),
            (false, true) => self.out.extend_from_slice(b"\".\":{},"),
            (false, false) => {}
        }
        name(&mut self.out);
        self.out.extend_from_slice(b":{");
        below(self);
        self.out.push(b'}');
        let something = self.member || self.parts;
        if !something {
            self.out.truncate(start);
        }
        (self.member, self.parts) = (member, parts || something);
    }
}

impl Collect for Text {
    fn member(&mut self) {
        debug_assert!(!self.parts, "a place is told before what is below it");
        self.member = true;
    }
    fn field(&mut self, name: &str, below: impl FnOnce(&mut Self)) {
        self.part(|out| write_field(name, out), below);
    }
    fn item(&mut self, element: Element, below: impl FnOnce(&mut Self)) {
        self.part(|out| element.write(out), below);
    }
}

impl Set {
    pub fn new() -> Self {
        Set::default()
    }
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.iter().all(|(_, set)| set.is_empty())
    }
    /// Whether the place itself is a member.
    pub fn is_member(&self) -> bool {
        self.member
    }
    pub fn insert_here(&mut self) {
        self.member = true;
    }
    fn find(&self, element: &Element) -> Result<usize, usize> {
        // Mostly what is added comes in order.
        match self.children.last() {
            None => Err(0),
            Some((last, _)) if last < element => Err(self.children.len()),
            _ => self.children.binary_search_by(|(e, _)| e.cmp(element)),
        }
    }
    /// The set below an element, made when there was none.
    pub fn below(&mut self, element: Element) -> &mut Set {
        let at = match self.find(&element) {
            Ok(at) => at,
            Err(at) => {
                self.children.insert(at, (element, Set::default()));
                at
            }
        };
        &mut self.children[at].1
    }
    /// Puts a set below an element, unless it is empty.
    pub fn put(&mut self, element: Element, set: Set) {
        if !set.is_empty() {
            *self.below(element) = set;
        }
    }
    /// An element is no member any more; what is below it stays.
    pub fn unmark(&mut self, element: &Element) {
        if let Ok(at) = self.find(element) {
            self.children[at].1.member = false;
        }
    }
    pub fn get(&self, element: &Element) -> Option<&Set> {
        self.find(element).ok().map(|at| &self.children[at].1)
    }
    pub fn children(&self) -> impl Iterator<Item = (&Element, &Set)> {
        self.children.iter().map(|(element, set)| (element, set))
    }

    /// Goes through the children of both, in order.
    fn zip<'a>(&'a self, other: &'a Set, mut each: impl FnMut(&'a Element, Option<&'a Set>, Option<&'a Set>)) {
        let (mut ours, mut theirs) = (self.children.iter().peekable(), other.children.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let our = if order.is_le() { ours.next() } else { None };
            let their = if order.is_ge() { theirs.next() } else { None };
            if let Some((element, _)) = our.or(their) {
                each(element, our.map(|(_, set)| set), their.map(|(_, set)| set));
            }
        }
    }

    #[must_use]
    pub fn union(&self, other: &Set) -> Set {
        let member = self.member || other.member;
        match (self.children.is_empty(), other.children.is_empty()) {
            (_, true) => return Set { member, children: self.children.clone() },
            (true, _) => return Set { member, children: other.children.clone() },
            _ => {}
        }
        let mut result = Set { member: self.member || other.member, ..Set::default() };
        result.children.reserve(self.children.len().max(other.children.len()));
        self.zip(other, |element, ours, theirs| {
            let set = match (ours, theirs) {
                (Some(ours), Some(theirs)) => ours.union(theirs),
                (Some(one), None) | (None, Some(one)) => one.clone(),
                (None, None) => return,
            };
            result.children.push((element.clone(), set));
        });
        result
    }

    #[must_use]
    pub fn intersection(&self, other: &Set) -> Set {
        let mut result = Set { member: self.member && other.member, ..Set::default() };
        self.zip(other, |element, ours, theirs| {
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                result.put(element.clone(), ours.intersection(theirs));
            }
        });
        result
    }

    /// Whether they have a member in common.
    pub fn intersects(&self, other: &Set) -> bool {
        let mut found = self.member && other.member;
        self.zip(other, |_, ours, theirs| {
            if let (false, Some(ours), Some(theirs)) = (found, ours, theirs) {
                found = ours.intersects(theirs);
            }
        });
        found
    }

    /// Whether a member of it is a member of the other, or below one.
    pub fn intersects_below(&self, other: &Set) -> bool {
        if other.member {
            return !self.is_empty();
        }
        let mut found = false;
        self.zip(other, |_, ours, theirs| {
            if let (false, Some(ours), Some(theirs)) = (found, ours, theirs) {
                found = ours.intersects_below(theirs);
            }
        });
        found
    }

    /// The members that are no members of the other.
    #[must_use]
    pub fn difference(&self, other: &Set) -> Set {
        let mut result = Set { member: self.member && !other.member, ..Set::default() };
        self.zip(other, |element, ours, theirs| {
            if let Some(ours) = ours {
                result.put(element.clone(), theirs.map_or_else(|| ours.clone(), |theirs| ours.difference(theirs)));
            }
        });
        result
    }

    /// The members that are neither members of the other nor below one.
    #[must_use]
    pub fn recursive_difference(&self, other: &Set) -> Set {
        if other.member {
            return Set::default();
        }
        let mut result = Set { member: self.member, ..Set::default() };
        self.zip(other, |element, ours, theirs| {
            if let Some(ours) = ours {
                let left = theirs.map_or_else(|| ours.clone(), |theirs| ours.recursive_difference(theirs));
                result.put(element.clone(), left);
            }
        });
        result
    }

    /// The paths of all members, as messages show them.
    pub fn paths(&self) -> Vec<String> {
        fn collect(set: &Set, prefix: &str, out: &mut Vec<String>) {
            if set.member {
                out.push(prefix.to_owned());
            }
            for (element, child) in &set.children {
                collect(child, &format!("{prefix}{element}"), out);
            }
        }
        let mut out = Vec::new();
        collect(self, "", &mut out);
        out
    }

    /// As `fieldsV1`.
    pub fn to_fields(&self) -> Value {
        let mut out = Vec::with_capacity(256);
        self.write(false, &mut out);
        // Text of the tree and ASCII.
        Value::Raw(String::from_utf8(out).unwrap_or_default().into())
    }

    fn write(&self, member: bool, out: &mut Vec<u8>) {
        out.push(b'{');
        let start = out.len();
        for (element, set) in self.children.iter().filter(|(_, set)| !set.is_empty()) {
            if out.len() > start {
                out.push(b',');
            } else if member {
                out.extend_from_slice(b"\".\":{},");
            }
            element.write(out);
            out.push(b':');
            set.write(set.member, out);
        }
        out.push(b'}');
    }

    /// Reads `fieldsV1`, as text or as a tree.
    ///
    /// # Errors
    /// The key that is no path element.
    pub fn from_fields(fields: &Value) -> Result<Set, String> {
        match fields {
            Value::Map(map) => Set::from_map(map),
            Value::Raw(text) => {
                let mut reader = Reader { text, at: 0 };
                let mut set = reader.set(0)?;
                // The root has no name of its own, and is no member because it has no parts.
                set.member &= !set.children.is_empty();
                Ok(set)
            }
            _ => Err("a set of fields must be an object".to_owned()),
        }
    }

    /// Whether a set that is written as `text` can have something in common with this one, or with what is below its members. Told
    /// from the text, of which only what this one has too is taken apart; text that is malformed may.
    pub fn may_meet(&self, text: &str) -> bool {
        self.is_spelled_in(text) && Reader { text, at: 0 }.meets(self, 0).unwrap_or(true)
    }

    /// Whether the first step to a member occurs in a text at all, which takes no reading: most writers keep to a part of the
    /// object that no other owns anything of.
    fn is_spelled_in(&self, text: &str) -> bool {
        // A name of letters alone is spelled in one way, unless something is escaped by number.
        if self.member || memchr::memmem::find(text.as_bytes(), b"\\u").is_some() {
            return true;
        }
        let mut spelled = Vec::with_capacity(32);
        self.children.iter().any(|(element, _)| match element {
            Element::Field(name) if name.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                spelled.clear();
                element.write(&mut spelled);
                memchr::memmem::find(text.as_bytes(), &spelled).is_some()
            }
            _ => true,
        })
    }

    fn from_map(fields: &Map) -> Result<Set, String> {
        let mut set = Set::default();
        set.children.reserve(fields.len());
        for (key, value) in fields.iter() {
            if key == "." {
                set.member = true;
                continue;
            }
            let element = Element::parse(key).ok_or_else(|| format!("{key:?} is no path element"))?;
            let child = match value {
                Value::Map(map) if map.is_empty() => Set { member: true, ..Set::default() },
                Value::Map(map) => Set::from_map(map)?,
                _ => return Err(format!("the value of {key:?} is no object")),
            };
            *set.below(element) = child;
        }
        Ok(set)
    }
}

/// No type is as deep.
const MAX_DEPTH: usize = 256;

/// Reads the text of a set. It was found well-formed when it came in; what is not is refused here, too.
struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> u8 {
        let byte = self.text.as_bytes().get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    fn malformed(&self) -> String {
        format!("the set of fields is malformed at offset {}", self.at)
    }

    /// An object; an empty one is a member.
    fn set(&mut self, depth: usize) -> Result<Set, String> {
        if depth > MAX_DEPTH {
            return Err(format!("the set of fields is deeper than {MAX_DEPTH}"));
        }
        if self.next() != b'{' {
            return Err(self.malformed());
        }
        let mut set = Set::default();
        if self.text.as_bytes().get(self.at) == Some(&b'}') {
            self.at += 1;
            set.member = true;
            return Ok(set);
        }
        loop {
            let key = self.key()?;
            if self.next() != b':' {
                return Err(self.malformed());
            }
            let child = self.set(depth + 1)?;
            if key == "." {
                set.member = true;
            } else {
                let element = Element::parse(&key).ok_or_else(|| format!("{key:?} is no path element"))?;
                *set.below(element) = child;
            }
            match self.next() {
                b',' => {}
                b'}' => return Ok(set),
                _ => return Err(self.malformed()),
            }
        }
    }

    /// [`Set::may_meet`] of the object that is next.
    fn meets(&mut self, set: &Set, depth: usize) -> Result<bool, String> {
        if set.member {
            return Ok(true);
        }
        if depth > MAX_DEPTH || self.next() != b'{' {
            return Err(self.malformed());
        }
        if self.text.as_bytes().get(self.at) == Some(&b'}') {
            self.at += 1;
            return Ok(false);
        }
        loop {
            let key = self.key()?;
            if self.next() != b':' {
                return Err(self.malformed());
            }
            let element = if key == "." { None } else { Element::parse(&key) };
            match element.and_then(|element| set.get(&element)) {
                Some(below) if self.meets(below, depth + 1)? => return Ok(true),
                Some(_) => {}
                None => self.skip()?,
            }
            match self.next() {
                b',' => {}
                b'}' => return Ok(false),
                _ => return Err(self.malformed()),
            }
        }
    }

    /// Goes behind the object that is next.
    fn skip(&mut self) -> Result<(), String> {
        let mut open = 0_usize;
        loop {
            match self.next() {
                b'{' => open += 1,
                b'}' if open <= 1 => return Ok(()),
                b'}' => open -= 1,
                b'"' => {
                    self.at -= 1;
                    self.quoted()?;
                }
                0 => return Err(self.malformed()),
                _ => {}
            }
        }
    }

    fn key(&mut self) -> Result<Cow<'t, str>, String> {
        let (quoted, escaped) = self.quoted()?;
        if !escaped {
            return Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]));
        }
        match json::parse(quoted.as_bytes()) {
            Ok(Value::Str(text)) => Ok(Cow::Owned(text.into())),
            _ => Err(self.malformed()),
        }
    }

    /// The string that is next with its quotes, and whether something in it is escaped.
    fn quoted(&mut self) -> Result<(&'t str, bool), String> {
        let start = self.at;
        if self.next() != b'"' {
            return Err(self.malformed());
        }
        let text: &'t str = self.text;
        let mut escaped = false;
        loop {
            self.at += json::plain(text.as_bytes().get(self.at..).unwrap_or_default());
            match self.next() {
                b'"' => return Ok((&text[start..self.at], escaped)),
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                }
                _ => return Err(self.malformed()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set() -> impl Strategy<Value = Set> {
        let leaf = any::<bool>().prop_map(|member| Set { member, ..Set::default() });
        leaf.prop_recursive(3, 24, 4, |inner| {
            let element = prop_oneof![
                "[a-c]".prop_map(|name| Element::Field(name.into())),
                (0..3_usize).prop_map(Element::Index),
                "[a-c\"]".prop_map(|text| Element::Value(text.into())),
            ];
            (any::<bool>(), proptest::collection::btree_map(element, inner, 0..4))
                .prop_map(|(member, children)| Set { member, children: children.into_iter().collect() })
        })
    }

    fn members(set: &Set) -> std::collections::BTreeSet<String> {
        set.paths().into_iter().collect()
    }

    proptest! {
        #[test]
        fn the_algebra_is_that_of_sets(a in set(), b in set()) {
            let (ma, mb) = (members(&a), members(&b));
            prop_assert_eq!(members(&a.union(&b)), &ma | &mb);
            prop_assert_eq!(members(&a.intersection(&b)), &ma & &mb);
            prop_assert_eq!(members(&a.difference(&b)), &ma - &mb);
            prop_assert_eq!(a.intersects(&b), !(&ma & &mb).is_empty());
            prop_assert_eq!(a.intersects_below(&b), members(&a.recursive_difference(&b)) != ma);
        }

        #[test]
        fn fields_are_read_as_they_are_written(a in set()) {
            let mut a = a;
            // The root has no name of its own in fieldsV1.
            a.member = false;
            let back = Set::from_fields(&a.to_fields()).map_err(TestCaseError::fail)?;
            prop_assert_eq!(members(&back), members(&a));
        }

        #[test]
        fn what_meets_is_told_from_the_text(a in set(), b in set()) {
            let (mut a, mut b) = (a, b);
            (a.member, b.member) = (false, false);
            let Value::Raw(text) = a.to_fields() else { return Err(TestCaseError::fail("no text")) };
            let meets = a.intersects(&b) || a.intersects_below(&b);
            prop_assert_eq!(b.may_meet(&text), meets, "{} and {:?}", text, b);
        }
    }
}
