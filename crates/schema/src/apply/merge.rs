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
        (_, _, config) => config.clone(),
    }
}

/// The items of both, as upstream orders them: the configuration's in its order; a live one that it does not name stays before
/// what followed it, so that those at the end of the live list come before what is new at the end of the configuration.
fn merge_items(shape: Shape<'_>, live: &[Value], config: &[Value]) -> Vec<Value> {
    let elements =
        |items: &[Value]| -> Vec<Element> { items.iter().enumerate().map(|(i, v)| shape.element(i, v)).collect() };
    let (live_elements, config_elements) = (elements(live), elements(config));
    let there: BTreeMap<&Element, &Value> = live_elements.iter().zip(live).collect();
    let named: BTreeSet<&Element> = config_elements.iter().collect();
    // What both have, in the order of the configuration: the one that is to come next stops at its live place, others are passed.
    let mut shared = config_elements.iter().filter(|element| there.contains_key(element)).peekable();
    let mut result = Vec::with_capacity(live.len() + config.len());
    let mut old = live_elements.iter().zip(live).peekable();
    let mut new = config_elements.iter().zip(config).peekable();
    let mut merged: BTreeSet<&Element> = BTreeSet::new();
    loop {
        if let Some((element, value)) = old.peek().copied() {
            if !named.contains(element) {
                result.push(value.clone());
                old.next();
                continue;
            }
            let is_next = new.peek().is_some_and(|(next, _)| *next == element);
            if merged.contains(element) || !is_next && shared.peek().is_some_and(|next| *next != element) {
                old.next();
                continue;
            }
            if is_next {
                old.next();
            }
        }
        let Some((element, value)) = new.next() else { break };
        merged.insert(element);
        result.push(match there.get(element) {
            Some(live) => merge_values(shape.child(element), live, value),
            None => value.clone(),
        });
        shared.next_if(|next| *next == element);
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
