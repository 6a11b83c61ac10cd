//! The set of paths of an object, and what differs between two objects of one type.

use super::path::{Element, Shape};
use super::set::{Collect, Set, Text};
use crate::tree::{Map, Value};
use crate::types::TypeRef;
use std::cmp::Ordering;

/// The paths that an object has: its leaves, its items, the keys of its maps, its empty maps.
pub fn set_of(ty: TypeRef<'_>, object: &Map) -> Set {
    let mut set = Set::new();
    fields(Shape::of(ty, None), object, &mut set);
    set
}

fn value(shape: Shape<'_>, value: &Value, set: &mut Set) {
    match (shape, value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Map(map)) => fields(shape, map, set),
        (Shape::Keyed { .. } | Shape::Set, Value::List(items)) => {
            for (i, item) in items.iter().enumerate() {
                let element = shape.element(i, item);
                let child = shape.child(&element);
                let below = set.below(element);
                self::value(child, item, below);
                below.insert_here();
            }
        }
        (Shape::Leaf, _) | (_, _) => set.insert_here(),
    }
}

fn fields(shape: Shape<'_>, map: &Map, set: &mut Set) {
    for (key, item) in map.iter() {
        let child = shape.field(key);
        let mut below = Set::new();
        value(child, item, &mut below);
        let empty = item.is_null() || item.as_map().is_some_and(Map::is_empty);
        let declared = matches!(shape, Shape::Struct(s) if s.field(key).is_some());
        if empty || !declared {
            below.insert_here();
        }
        set.put(Element::Field(key.into()), below);
    }
}

/// What differs between two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

impl Comparison {
    /// All of it but what is below the members of a set.
    pub fn without(mut self, reset: &Set) -> Self {
        for part in [&mut self.added, &mut self.modified, &mut self.removed] {
            if part.intersects_below(reset) {
                *part = part.recursive_difference(reset);
            }
        }
        self
    }

    /// What is other than it was, or new.
    pub fn changed(&self) -> Set {
        self.modified.union(&self.added)
    }
}

/// Compares two objects of one type, but for their kinds and the metadata of these names.
pub fn compare(ty: TypeRef<'_>, old: &Map, new: &Map, but: &[&str]) -> Comparison {
    let mut result = Comparison::default();
    let shape = Shape::of(ty, None);
    each_key(Some(old), Some(new), |key, old, new| {
        if old == new || matches!(key, "apiVersion" | "kind") {
            return;
        }
        let child = match (key, shape.field(key)) {
            ("metadata", shape @ Shape::Struct(_)) => {
                let mut child = Comparison::default();
                each_key(old.and_then(Value::as_map), new.and_then(Value::as_map), |key, old, new| {
                    if old != new && !but.contains(&key) {
                        put(&mut child, &Element::Field(key.into()), compare_values(shape.field(key), old, new));
                    }
                });
                child
            }
            (_, shape) => compare_values(shape, old, new),
        };
        put(&mut result, &Element::Field(key.into()), child);
    });
    result
}

fn is_nothing(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Map(map)) => map.is_empty(),
        Some(Value::List(list)) => list.is_empty(),
        _ => false,
    }
}

fn compare_values(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    let mut result = Comparison::default();
    match (old, new) {
        (None, Some(new)) => {
            whole(shape, new, &mut result.added);
            return result;
        }
        (Some(old), None) => {
            whole(shape, old, &mut result.removed);
            return result;
        }
        _ => {}
    }
    let leaf = matches!(shape, Shape::Leaf) || is_nothing(old) && is_nothing(new);
    if leaf {
        if old != new {
            result.modified.insert_here();
        }
        return result;
    }
    match shape {
        Shape::Keyed { .. } | Shape::Set => {
            compare_items(shape, old.and_then(Value::as_list), new.and_then(Value::as_list), &mut result);
        }
        _ => compare_maps(shape, old.and_then(Value::as_map), new.and_then(Value::as_map), &mut result),
    }
    result
}

/// All of a value that comes or goes: its leaves, and every container.
fn whole(shape: Shape<'_>, value: &Value, into: &mut impl Collect) {
    into.member();
    match (shape, value) {
        (Shape::Leaf, _) => {}
        (Shape::Keyed { .. } | Shape::Set, Value::List(list)) => items(shape, list, into),
        (_, Value::Map(map)) => {
            into.reserve(map.len());
            for (key, value) in map.iter() {
                into.field(key, |below| whole(shape.field(key), value, below));
            }
        }
        _ => {}
    }
}

/// All items of a list.
fn items(shape: Shape<'_>, list: &[Value], into: &mut impl Collect) {
    let mut items: Vec<(Element, &Value)> =
        list.iter().enumerate().map(|(i, item)| (shape.element(i, item), item)).collect();
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    into.reserve(items.len());
    let mut rest = items.into_iter().peekable();
    while let Some((element, item)) = rest.next() {
        let child = shape.child(&element);
        // Items that share their keys can't be told apart: they are one.
        let mut alone = true;
        while rest.next_if(|(other, _)| *other == element).is_some() {
            alone = false;
        }
        into.item(element, |below| if alone { whole(child, item, below) } else { below.member() });
    }
}

/// What a new object of a type has beyond what an empty one has, but for its kind and the metadata of these names: what
/// [`compare`] finds added or modified, as `fieldsV1`. Fields of the object that are members of `reset` are left out.
pub fn created(ty: TypeRef<'_>, empty: &Map, object: &Map, but: &[&str], reset: &Set) -> Value {
    debug_assert!(reset.children().all(|(_, below)| below.is_member()), "only whole fields are left out here");
    let mut text = Text::default();
    let shape = Shape::of(ty, None);
    each_key(Some(empty), Some(object), |key, old, new| {
        let is_reset = || reset.get(&Element::Field(key.into())).is_some_and(Set::is_member);
        if matches!(key, "apiVersion" | "kind") || is_reset() {
            return;
        }
        text.field(key, |text| match (key, shape.field(key)) {
            ("metadata", shape @ Shape::Struct(_)) => {
                each_key(old.and_then(Value::as_map), new.and_then(Value::as_map), |key, old, new| {
                    if !but.contains(&key) {
                        text.field(key, |text| news(shape.field(key), old, new, text));
                    }
                });
            }
            (_, shape) => news(shape, old, new, text),
        });
    });
    text.finish()
}

/// What is new of a value, or other than it was.
fn news(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>, into: &mut impl Collect) {
    let Some(value) = new.filter(|_| old != new) else { return };
    if old.is_none() {
        return whole(shape, value, into);
    }
    if matches!(shape, Shape::Leaf) || is_nothing(old) && is_nothing(new) {
        return into.member();
    }
    match (shape, old) {
        (Shape::Keyed { .. } | Shape::Set, _) => items(shape, value.as_list().unwrap_or_default(), into),
        _ => each_key(old.and_then(Value::as_map), new.and_then(Value::as_map), |key, old, new| {
            into.field(key, |into| news(shape.field(key), old, new, into));
        }),
    }
}

fn put(result: &mut Comparison, element: &Element, child: Comparison) {
    for (into, set) in
        [(&mut result.added, child.added), (&mut result.modified, child.modified), (&mut result.removed, child.removed)]
    {
        if !set.is_empty() {
            into.put(element.clone(), set);
        }
    }
}

fn compare_maps(shape: Shape<'_>, old: Option<&Map>, new: Option<&Map>, result: &mut Comparison) {
    each_key(old, new, |key, old, new| {
        if old != new {
            put(result, &Element::Field(key.into()), compare_values(shape.field(key), old, new));
        }
    });
}

/// Goes through the keys of both maps, in order.
fn each_key<'m>(
    old: Option<&'m Map>,
    new: Option<&'m Map>,
    mut each: impl FnMut(&'m str, Option<&'m Value>, Option<&'m Value>),
) {
    let entries = |map: Option<&'m Map>| map.map(Map::iter).into_iter().flatten().peekable();
    let (mut old, mut new) = (entries(old), entries(new));
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        if let Some((key, _)) = before.or(after) {
            each(key, before.map(|(_, value)| value), after.map(|(_, value)| value));
        }
    }
}

fn compare_items(shape: Shape<'_>, old: Option<&[Value]>, new: Option<&[Value]>, result: &mut Comparison) {
    // The lists' items by element: those of the old one, those of the new one.
    let mut items: Vec<(Element, Vec<&Value>, Vec<&Value>)> = Vec::new();
    for (is_new, list) in [(false, old), (true, new)] {
        for (i, item) in list.into_iter().flatten().enumerate() {
            let element = shape.element(i, item);
            // Items mostly stand where they stood.
            let at = match items.get(i) {
                Some((there, ..)) if *there == element => Some(i),
                _ => items.iter().position(|(there, ..)| *there == element),
            };
            let at = at.unwrap_or_else(|| {
                items.push((element, Vec::new(), Vec::new()));
                items.len() - 1
            });
            if is_new { items[at].2.push(item) } else { items[at].1.push(item) }
        }
    }
    for (element, old, new) in &items {
        if old == new {
            continue;
        }
        let child = if old.len() > 1 || new.len() > 1 {
            // Items that share their keys can't be told apart: they are one.
            let mut child = Comparison::default();
            match (old.is_empty(), new.is_empty()) {
                (true, _) => child.added.insert_here(),
                (_, true) => child.removed.insert_here(),
                _ => child.modified.insert_here(),
            }
            child
        } else {
            compare_values(shape.child(element), old.first().copied(), new.first().copied())
        };
        put(result, element, child);
    }
}
