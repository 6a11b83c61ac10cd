//! Merging an applied configuration into an object, and taking out what nobody owns any more.

use super::path::{Element, Shape};
use super::set::Set;
use crate::tree::{Map, Value};
use crate::types::TypeRef;
use std::collections::{BTreeMap, BTreeSet};

/// The object with everything that the configuration says.
pub fn merged(ty: TypeRef<'_>, live: &Map, config: &Map) -> Map {
    merge_maps(Shape::of(ty, None), live, config)
}

fn merge_maps(shape: Shape<'_>, live: &Map, config: &Map) -> Map {
    let mut result = live.clone();
    for (key, new) in config.iter() {
        let child = shape.child(&Element::Field(key.into()));
        let value = match live.get(key) {
            Some(old) => merge_values(child, old, new),
            None => new.clone(),
        };
        result.insert(key.to_owned(), value);
    }
    result
}

fn merge_values(shape: Shape<'_>, live: &Value, config: &Value) -> Value {
    match (shape, live, config) {
        (Shape::Struct(_) | Shape::Map(_), Value::Map(live), Value::Map(config)) => {
            Value::Map(merge_maps(shape, live, config))
        }
        (Shape::Keyed { .. } | Shape::Set, Value::List(live), Value::List(config)) => {
            Value::List(merge_items(shape, live, config))
        }
        // A list or map that is not given takes nothing away.
        (Shape::Struct(_) | Shape::Map(_) | Shape::Keyed { .. } | Shape::Set, live, Value::Null) if !is_empty(live) => {
            live.clone()
        }
        (_, _, config) => config.clone(),
    }
}

/// The items of both. Those of the configuration come in its order; live ones that it does not name stay before what they stood
/// before, and what is new comes behind them.
fn merge_items(shape: Shape<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let elements =
        |items: &[Value]| -> Vec<Element> { items.iter().enumerate().map(|(i, v)| shape.element(i, v)).collect() };
    let (ours, theirs) = (elements(live), elements(config));
    // Live items that share their keys can't be told apart, and so not be merged with: these are none.
    let mut known: BTreeMap<&Element, Option<&Value>> = BTreeMap::new();
    for (element, value) in ours.iter().zip(live) {
        known.entry(element).and_modify(|value| *value = None).or_insert(Some(value));
    }
    let named: BTreeSet<&Element> = theirs.iter().collect();
    let merged = |element: &Element, new: &Value| match known.get(element) {
        Some(Some(old)) => merge_values(shape.child(element), old, new),
        _ => new.clone(),
    };
    // Those that both have, in the order in which they will come.
    let mut shared = theirs.iter().filter(|element| known.contains_key(element)).peekable();
    let mut taken: BTreeSet<&Element> = BTreeSet::new();
    let mut result = Vec::with_capacity(live.len().max(config.len()));
    let (mut left, mut right) = (0, 0);
    while left < ours.len() || right < theirs.len() {
        if let (Some(element), true) = (ours.get(left), right < theirs.len()) {
            // It stands elsewhere in the configuration than it did, and comes when that comes to it.
            let moved = *element != theirs[right] && shared.peek().is_some_and(|next| *next != element);
            if moved && named.contains(element) {
                left += 1;
                continue;
            }
        }
        if let Some(element) = ours.get(left) {
            if !named.contains(element) {
                result.push(live[left].clone());
                left += 1;
                continue;
            }
            if taken.contains(element) || theirs.get(right) == Some(element) {
                left += 1;
            }
        }
        if let Some(element) = theirs.get(right) {
            result.push(merged(element, &config[right]));
            taken.insert(element);
            shared.next_if_eq(&element);
            right += 1;
        }
    }
    result
}

/// Takes the members of `gone` out of an object, unless something below them is kept.
///
/// `kept` are the paths that someone owns: what contains one stays.
pub fn prune(ty: TypeRef<'_>, object: &mut Map, gone: &Set, kept: &Set) {
    prune_map(Shape::of(ty, None), object, gone, Some(kept));
}

fn holds(kept: Option<&Set>) -> bool {
    kept.is_some_and(|k| !k.is_empty())
}

fn prune_map(shape: Shape<'_>, map: &mut Map, gone: &Set, kept: Option<&Set>) {
    map.retain(|key, value| {
        let element = Element::Field(key.into());
        let Some(gone) = gone.get(&element) else { return true };
        let kept = kept.and_then(|k| k.get(&element));
        prune_value(shape.child(&element), value, gone, kept)
    });
}

/// Whether the value stays.
fn prune_value(shape: Shape<'_>, value: &mut Value, gone: &Set, kept: Option<&Set>) -> bool {
    if gone.is_member() && !holds(kept) {
        return false;
    }
    let had = !is_empty(value);
    match (shape, &mut *value) {
        (Shape::Struct(_) | Shape::Map(_), Value::Map(map)) => prune_map(shape, map, gone, kept),
        (Shape::Keyed { .. } | Shape::Set, Value::List(items)) => {
            let mut index = 0;
            items.retain_mut(|item| {
                let element = shape.element(index, item);
                index += 1;
                let Some(gone) = gone.get(&element) else { return true };
                let kept = kept.and_then(|k| k.get(&element));
                prune_value(shape.child(&element), item, gone, kept)
            });
        }
        _ => {}
    }
    // A container whose last part was taken goes with it, unless someone owns it as such.
    !(had && is_empty(value) && !holds(kept))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Map(map) => map.is_empty(),
        Value::List(list) => list.is_empty(),
        _ => false,
    }
}
