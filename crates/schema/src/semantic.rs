//! Semantic equality: whether two objects say the same, however their quantities are written.
//!
//! A stored quantity keeps its text (`1.234`, `1234m`), and upstream compares it by its value
//! (`apiequality.Semantic.DeepEqual`). What else that compares by value (times, and that an empty list or map is as none) has one
//! text in normal form.
//!
//! Rules of updates need know nothing of this: they are given the old object with its quantities written as the new one writes
//! them ([`reworded`]), and differences that remain are differences. Most updates write no quantity anew: that is found by a look
//! at the fields that have quantities in them, which the catalogue knows ([`flag::QUANTITIES`]), where old and new share nothing.

use crate::tree::{Map, Value};
use crate::types::{Kind, TypeRef, flag};
use api::quantity::Quantity;
use std::borrow::Cow;
use std::collections::HashMap;

/// An object of a type with its quantities written as another of the type writes those that are at the same place and have the same
/// value. Items of a list are at the same place when their keys are the same, or their position where the type knows no keys.
pub fn reworded<'a>(ty: TypeRef<'_>, object: &'a Map, like: &Map) -> Cow<'a, Map> {
    map(ty, object, like).map_or(Cow::Borrowed(object), Cow::Owned)
}

/// Whether two objects of a type are the same, however their quantities are written.
pub fn same(ty: TypeRef<'_>, one: &Map, other: &Map) -> bool {
    one == other || map(ty, one, other).is_some_and(|one| one == *other)
}

/// Whether two objects of a type have the same at a path of fields, however its quantities are written.
pub fn same_at(ty: TypeRef<'_>, path: &[&str], one: &Map, other: &Map) -> bool {
    let (one, other) = (one.at(path), other.at(path));
    one == other || ty.at(path).is_some_and(|ty| same_values(ty, one, other))
}

/// Whether two values of a type are the same, or both absent, however their quantities are written.
pub fn same_values(ty: TypeRef<'_>, one: Option<&Value>, other: Option<&Value>) -> bool {
    one == other
        || match (one, other) {
            (Some(one), Some(other)) => value(ty, &[], one, other).is_some_and(|one| one == *other),
            _ => false,
        }
}

/// A value reworded, if there is something to it. `keys`: what tells its items from each other, if it is a list.
fn value(ty: TypeRef<'_>, keys: &[&str], old: &Value, like: &Value) -> Option<Value> {
    match (ty.kind(), old, like) {
        (Kind::Quantity, Value::Str(text), Value::Str(other)) => {
            (text != other && Quantity::same_value(text, other)).then(|| like.clone())
        }
        (Kind::List(of), Value::List(items), Value::List(like)) => list(of, keys, items, like).map(Value::List),
        (_, Value::Map(old), Value::Map(like)) => map(ty, old, like).map(Value::Map),
        _ => None,
    }
}

fn map(ty: TypeRef<'_>, old: &Map, like: &Map) -> Option<Map> {
    let mut made: Option<Map> = None;
    match ty.kind() {
        Kind::Struct(s) => {
            // What has no quantities is not even read.
            let mut fields = s.fields().filter(|field| field.has(flag::QUANTITIES)).peekable();
            if fields.peek().is_none() || old.is_plainly(like) {
                return None;
            }
            for field in fields {
                if let (Some(was), Some(now)) = (old.get(field.name()), like.get(field.name()))
                    && let Some(reworded) = value(field.ty(), &field.topology().keys, was, now)
                {
                    made.get_or_insert_with(|| old.clone()).insert(field.name(), reworded);
                }
            }
        }
        Kind::Map(of) => {
            if old.is_plainly(like) {
                return None;
            }
            for (key, was) in old.iter() {
                if let Some(now) = like.get(key)
                    && let Some(reworded) = value(of, &[], was, now)
                {
                    made.get_or_insert_with(|| old.clone()).insert(key.to_owned(), reworded);
                }
            }
        }
        _ => {}
    }
    made
}

fn list(of: TypeRef<'_>, keys: &[&str], items: &[Value], like: &[Value]) -> Option<Vec<Value>> {
    let mut made: Option<Vec<Value>> = None;
    // Made when an item is not where it was: a list can be long.
    let mut places: Option<HashMap<Vec<&str>, &Value>> = None;
    for (at, item) in items.iter().enumerate() {
        let here = like.get(at);
        let beside = if here.is_some_and(|here| keys.iter().all(|key| part(here, key) == part(item, key))) {
            here
        } else if keys.is_empty() {
            None
        } else {
            let places =
                places.get_or_insert_with(|| like.iter().filter_map(|item| Some((named(keys, item)?, item))).collect());
            named(keys, item).and_then(|name| places.get(&name).copied())
        };
        if let Some(beside) = beside
            && let Some(reworded) = value(of, &[], item, beside)
        {
            made.get_or_insert_with(|| items.to_vec())[at] = reworded;
        }
    }
    made
}

/// What tells an item from others, if that is text: it is, of all lists that have quantities in them.
fn named<'v>(keys: &[&str], item: &'v Value) -> Option<Vec<&'v str>> {
    keys.iter().map(|key| part(item, key).and_then(Value::as_str)).collect()
}

fn part<'v>(item: &'v Value, key: &str) -> Option<&'v Value> {
    item.as_map()?.get(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types;

    fn pod(text: &str) -> Map {
        let ty = types::of_kind("", "v1", "Pod").expect("a kind");
        crate::yaml::decode(ty, text.as_bytes()).expect("a pod").object
    }

    fn ty() -> TypeRef<'static> {
        types::of_kind("", "v1", "Pod").expect("a kind")
    }

    #[test]
    fn quantities_are_equal_by_value_and_nothing_else_is() {
        let made = |cpu: &str, text: &str| {
            pod(&format!(
                "{{metadata: {{annotations: {{a: '{text}'}}}}, spec: {{containers: [{{name: a, env: [{{name: e, value: '{text}'}}], resources: {{limits: {{cpu: '{cpu}'}}}}}}]}}}}"
            ))
        };
        let old = made("1.234", "1.234");
        let new = made("1234m", "1.234");
        assert_ne!(old, new);
        assert!(same(ty(), &old, &new) && same(ty(), &new, &old));
        assert!(same_at(ty(), &["spec"], &old, &new));
        assert_eq!(*reworded(ty(), &old, &new), new);
        assert!(!same(ty(), &old, &made("1235m", "1.234")));
        let other = made("1234m", "1234m");
        assert!(!same(ty(), &old, &other), "an annotation and a variable are no quantities");
        assert!(!same_at(ty(), &["spec"], &old, &other));
        // Only these are what differs.
        let limits = |pod: &Map| format!("{:?}", pod.at(&["spec", "containers"]));
        assert_eq!(limits(&reworded(ty(), &old, &other)), limits(&new));
    }

    #[test]
    fn what_is_shared_and_what_has_no_quantities_is_not_looked_at() {
        let old =
            pod("{spec: {containers: [{name: a, resources: {limits: {cpu: '1.234'}}}]}, status: {phase: Running}}");
        let mut new = old.clone();
        new.set_at(&["status", "phase"], "Failed");
        assert!(matches!(reworded(ty(), &old, &new), Cow::Borrowed(_)));
        let mut new = pod("{spec: {containers: [{name: a, resources: {limits: {cpu: '1234m'}}}]}}");
        new.insert("status", old.get("status").cloned().unwrap_or_default());
        let reworded = reworded(ty(), &old, &new);
        assert_eq!(*reworded, new);
        assert!(reworded.shares(&old, "status"));
        let secret = types::of_kind("", "v1", "Secret").and_then(TypeRef::as_struct).expect("a struct");
        assert!(!secret.fields().any(|field| field.has(flag::QUANTITIES)));
    }

    /// Who compares templates without the catalogue goes by a list of them.
    #[test]
    fn the_quantities_of_pod_templates_are_listed() {
        fn walk(ty: TypeRef<'_>, path: &mut Vec<&'static str>, found: &mut Vec<Vec<&'static str>>) {
            match ty.kind() {
                Kind::Quantity => found.push(path.clone()),
                Kind::List(of) | Kind::Map(of) => {
                    path.push("*");
                    walk(of, path, found);
                    path.pop();
                }
                Kind::Struct(s) => {
                    for field in s.fields() {
                        path.push(field.name());
                        walk(field.ty(), path, found);
                        path.pop();
                    }
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        walk(types::find("io.k8s.api.core.v1.PodTemplateSpec").expect("a type"), &mut Vec::new(), &mut found);
        assert_eq!(found, api::pod_template::QUANTITIES);
    }

    #[test]
    fn items_are_found_by_their_keys() {
        let one = pod("{spec: {containers: [{name: a, resources: {limits: {cpu: '1.234'}}}, {name: b}]}}");
        let moved = pod("{spec: {containers: [{name: b}, {name: a, resources: {limits: {cpu: '1234m'}}}]}}");
        assert!(!same(ty(), &one, &moved));
        let expected = pod("{spec: {containers: [{name: a, resources: {limits: {cpu: '1234m'}}}, {name: b}]}}");
        assert_eq!(*reworded(ty(), &one, &moved), expected);
        // Those of a limit range have no keys.
        let range = |text: &str| {
            let ty = types::of_kind("", "v1", "LimitRange").expect("a kind");
            (ty, crate::yaml::decode(ty, text.as_bytes()).expect("a range").object)
        };
        let (ty, one) =
            range("{spec: {limits: [{type: Pod, max: {cpu: '1.234'}}, {type: Container, max: {cpu: '2'}}]}}");
        let (_, other) =
            range("{spec: {limits: [{type: Pod, max: {cpu: 1234m}}, {type: Container, max: {cpu: 2e0}}]}}");
        assert!(same(ty, &one, &other));
        let (_, shorter) = range("{spec: {limits: [{type: Pod, max: {cpu: 1234m}}]}}");
        assert!(!same(ty, &one, &shorter) && !same(ty, &shorter, &one));
    }
}
