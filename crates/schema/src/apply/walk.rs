//! The set of paths of an object, and what differs between two objects of one type.

use super::path::{Element, Shape};
use super::set::Set;
use crate::tree::{Map, Value};
use crate::types::TypeRef;
use std::collections::BTreeMap;

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
        let element = Element::Field(key.to_owned());
        let child = shape.child(&element);
        let mut below = Set::new();
        value(child, item, &mut below);
        let empty = item.is_null() || item.as_map().is_some_and(Map::is_empty);
        let declared = matches!(shape, Shape::Struct(s) if s.field(key).is_some());
        if empty || !declared {
            below.insert_here();
        }
        set.put(element, below);
    }
}

/// What differs between two objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub added: Set,
    pub modified: Set,
    pub removed: Set,
}

/// Compares two objects of one type.
pub fn compare(ty: TypeRef<'_>, old: &Map, new: &Map) -> Comparison {
    let mut result = Comparison::default();
    compare_maps(Shape::of(ty, None), Some(old), Some(new), &mut result);
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
    let leaf = matches!(shape, Shape::Leaf) || is_nothing(old) && is_nothing(new);
    if leaf {
        match (old, new) {
            (None, Some(_)) => result.added.insert_here(),
            (Some(_), None) => result.removed.insert_here(),
            (Some(old), Some(new)) if old != new => result.modified.insert_here(),
            _ => {}
        }
        return result;
    }
    match shape {
        Shape::Keyed { .. } | Shape::Set => {
            compare_items(shape, old.and_then(Value::as_list), new.and_then(Value::as_list), &mut result);
        }
        _ => compare_maps(shape, old.and_then(Value::as_map), new.and_then(Value::as_map), &mut result),
    }
    // A container that comes or goes is itself added or removed.
    match (old, new) {
        (None, Some(_)) => result.added.insert_here(),
        (Some(_), None) => result.removed.insert_here(),
        _ => {}
    }
    result
}

fn put(result: &mut Comparison, element: Element, child: Comparison) {
    result.added.put(element.clone(), child.added);
    result.modified.put(element.clone(), child.modified);
    result.removed.put(element, child.removed);
}

fn compare_maps(shape: Shape<'_>, old: Option<&Map>, new: Option<&Map>, result: &mut Comparison) {
    let keys_of =
        |map: Option<&Map>| map.into_iter().flat_map(Map::iter).map(|(k, _)| k.to_owned()).collect::<Vec<_>>();
    let mut keys = keys_of(old);
    keys.extend(keys_of(new));
    keys.sort();
    keys.dedup();
    for key in keys {
        let (old, new) = (old.and_then(|m| m.get(&key)), new.and_then(|m| m.get(&key)));
        if old == new {
            continue;
        }
        let element = Element::Field(key);
        let child = compare_values(shape.child(&element), old, new);
        put(result, element, child);
    }
}

fn compare_items(shape: Shape<'_>, old: Option<&[Value]>, new: Option<&[Value]>, result: &mut Comparison) {
    let by_element = |items: Option<&[Value]>| {
        let mut map: BTreeMap<Element, Vec<Value>> = BTreeMap::new();
        for (i, item) in items.into_iter().flatten().enumerate() {
            map.entry(shape.element(i, item)).or_default().push(item.clone());
        }
        map
    };
    let (old, new) = (by_element(old), by_element(new));
    let mut elements: Vec<&Element> = old.keys().chain(new.keys()).collect();
    elements.sort();
    elements.dedup();
    for element in elements {
        let (old, new) = (old.get(element), new.get(element));
        if old == new {
            continue;
        }
        let several = old.is_some_and(|o| o.len() > 1) || new.is_some_and(|n| n.len() > 1);
        let child = if several {
            // Items that share their keys can't be told apart: they are one.
            let mut child = Comparison::default();
            match (old, new) {
                (None, _) => child.added.insert_here(),
                (_, None) => child.removed.insert_here(),
                _ => child.modified.insert_here(),
            }
            child
        } else {
            compare_values(shape.child(element), old.and_then(|o| o.first()), new.and_then(|n| n.first()))
        };
        put(result, element.clone(), child);
    }
}
