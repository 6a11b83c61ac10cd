//! Strategic merge patch: a merge patch that knows, from the type, which lists are merged and by what key.
//!
//! Directives: `$patch` (replace, delete, merge), `$retainKeys`, `$deleteFromPrimitiveList/FIELD`, `$setElementOrder/FIELD`
//! (sig-api-machinery, strategic-merge-patch.md).

use super::{PatchError, shown};
use crate::tree::{Map, Value};
use crate::types::{Kind, TypeRef};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const SET_ELEMENT_ORDER: &str = "$setElementOrder/";

/// How a field's value is merged, and its type where it is known.
#[derive(Clone, Copy, Default)]
struct Rule<'s> {
    ty: Option<TypeRef<'s>>,
    /// Lists are merged rather than replaced.
    merge: bool,
    /// The key of merged lists of maps; empty for scalars.
    merge_key: &'s str,
    /// A given map replaces what was there, but for the keys it shares.
    replace: bool,
}

/// Applies a strategic merge patch to an object of a type.
///
/// # Errors
/// [`PatchError::Malformed`] when a directive is malformed, [`PatchError::Rejected`] when a list item lacks its merge key.
pub fn apply(ty: TypeRef<'_>, target: &mut Map, patch: Map) -> Result<(), PatchError> {
    merge_map(Some(ty), target, patch)
}

/// 400, in upstream's words.
fn malformed(why: &str) -> PatchError {
    PatchError::Malformed(why.to_owned())
}

fn unknown_directive(directive: Value, mut patch: Map) -> PatchError {
    // As Go shows by `%s` what is no string.
    let named = match &directive {
        Value::Str(text) => text.to_string(),
        Value::Null => "%!s(<nil>)".to_owned(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
            format!("%!s({}={})", super::go_type(&directive), shown(&directive))
        }
        other => shown(other).to_string(),
    };
    patch.insert(DIRECTIVE, directive);
    PatchError::Failed(format!("unknown patch type: {named} in map: {}", shown(&Value::Map(patch))))
}

fn rule<'s>(ty: Option<TypeRef<'s>>, key: &str) -> Rule<'s> {
    match ty.map(|t| t.kind()) {
        Some(Kind::Struct(s)) => s.field(key).map_or_else(Rule::default, |field| {
            let topology = field.topology();
            Rule {
                ty: Some(field.ty()),
                merge: topology.merge,
                merge_key: &topology.merge_key,
                replace: topology.replace,
            }
        }),
        Some(Kind::Map(of)) => Rule { ty: Some(of), ..Rule::default() },
        _ => Rule::default(),
    }
}

fn element<'s>(ty: Option<TypeRef<'s>>) -> Option<TypeRef<'s>> {
    match ty?.kind() {
        Kind::List(of) => Some(of),
        _ => None,
    }
}

fn merge_map(ty: Option<TypeRef<'_>>, target: &mut Map, mut patch: Map) -> Result<(), PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        match directive.as_str() {
            Some("replace") => {
                *target = patch;
                strip(target);
                return Ok(());
            }
            Some("delete") => {
                *target = Map::new();
                return Ok(());
            }
            _ => return Err(unknown_directive(directive, patch)),
        }
    }
    if let Some(keep) = patch.remove(RETAIN_KEYS) {
        retain_keys(target, &keep, &patch)?;
    }
    let entries = patch.into_entries();
    let mut orders: Vec<(String, Vec<Value>)> = Vec::new();
    let mut deletions: Vec<(String, Vec<Value>)> = Vec::new();
    let mut plain = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        if let Some(field) = key.strip_prefix(SET_ELEMENT_ORDER) {
            orders.push((field.to_owned(), list(value, "invalid patch format of setElementOrder list")?));
        } else if let Some(field) = key.strip_prefix(DELETE_FROM_PRIMITIVES) {
            deletions.push((field.to_owned(), list(value, "invalid patch format of primitive list")?));
        } else {
            plain.push((key, value));
        }
    }
    for (field, values) in deletions {
        if let Some(list) = target.get_mut(&field).and_then(Value::as_list_mut) {
            list.retain(|item| !values.contains(item));
        }
    }
    for (key, value) in plain {
        let rule = rule(ty, &key);
        let order = orders.iter().position(|(field, _)| *field == *key).map(|i| orders.swap_remove(i).1);
        match (target.get_mut(&key), value) {
            (_, Value::Null) => {
                target.remove(&key);
            }
            (Some(Value::Map(inner)), Value::Map(patch)) => {
                if rule.replace && !patch.contains_key(DIRECTIVE) {
                    *inner = Map::new();
                }
                merge_map(rule.ty, inner, patch)?;
            }
            (Some(Value::List(items)), Value::List(patch)) if rule.merge => {
                merge_list(&key, rule, items, patch, order)?;
            }
            // What there is nothing to be merged with is taken as it is, but for what has a directive, whichever that is.
            (_, mut value) => {
                if strip_value(&mut value) {
                    if let (Value::List(items), Some(order)) = (&mut value, order) {
                        agrees(items, &order, rule.merge_key)?;
                        reorder(items, &[], &order, rule.merge_key);
                    }
                    target.insert(key, value);
                } else {
                    target.remove(&key);
                }
            }
        }
    }
    // An order given for a list that the patch itself leaves alone.
    for (field, order) in orders {
        let rule = rule(ty, &field);
        if let Some(Value::List(items)) = target.get_mut(&field) {
            let before = items.clone();
            reorder(items, &before, &order, rule.merge_key);
        }
    }
    Ok(())
}

fn list(value: Value, otherwise: &str) -> Result<Vec<Value>, PatchError> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(malformed(otherwise)),
    }
}

fn retain_keys(target: &mut Map, keep: &Value, patch: &Map) -> Result<(), PatchError> {
    let keep = keep
        .as_list()
        .and_then(|l| l.iter().map(Value::as_str).collect::<Option<Vec<_>>>())
        .ok_or_else(|| malformed("invalid patch format of retainKeys"))?;
    for (key, _) in patch.iter() {
        if !key.starts_with('$') && !keep.contains(&key) && !patch.get(key).is_some_and(Value::is_null) {
            return Err(malformed("invalid patch format of retainKeys"));
        }
    }
    target.retain(|key, _| keep.contains(&key));
    Ok(())
}

fn merge_list(
    field: &str,
    rule: Rule<'_>,
    items: &mut Vec<Value>,
    patch: Vec<Value>,
    order: Option<Vec<Value>>,
) -> Result<(), PatchError> {
    let before = order.is_some().then(|| items.clone());
    if let Some(order) = &order {
        agrees(&patch, order, rule.merge_key)?;
    }
    if patch.iter().any(|p| p.as_map().is_some()) {
        merge_maps(field, rule, items, patch)?;
    } else {
        if patch.iter().any(|value| value.as_list().is_some()) {
            return Err(PatchError::Rejected("lists of lists are not supported".to_owned()));
        }
        let before = (!in_order(items, &patch, "")).then(|| items.clone());
        for value in &patch {
            if !items.contains(value) {
                items.push(value.clone());
            }
        }
        if let Some(before) = before {
            reorder(items, &before, &patch, "");
        }
    }
    if let (Some(order), Some(before)) = (order, before) {
        reorder(items, &before, &order, rule.merge_key);
    }
    Ok(())
}

fn merge_maps(field: &str, rule: Rule<'_>, items: &mut Vec<Value>, patch: Vec<Value>) -> Result<(), PatchError> {
    let key = rule.merge_key;
    let mut replace = false;
    let mut merged = Vec::with_capacity(patch.len());
    for item in patch {
        let mut item = match item {
            Value::Map(item) => item,
            other => {
                return Err(PatchError::Failed(format!(
                    "the list {field} of the patch mixes maps with other values: {}",
                    shown(&other)
                )));
            }
        };
        match item.get(DIRECTIVE).map(|d| d.as_str().unwrap_or("").to_owned()).as_deref() {
            None => merged.push(Value::Map(item)),
            Some("merge") => {
                return Err(PatchError::Failed("merging lists cannot yet be specified in the patch".to_owned()));
            }
            Some("replace") => {
                replace = true;
                item.remove(DIRECTIVE);
                if !item.is_empty() {
                    merged.push(Value::Map(item));
                }
            }
            Some("delete") => {
                let value = item.get(key).ok_or_else(|| no_key(&item, key))?;
                items.retain(|existing| existing.as_map().and_then(|m| m.get(key)) != Some(value));
            }
            Some(_) => {
                let directive = item.remove(DIRECTIVE).unwrap_or_default();
                return Err(unknown_directive(directive, item));
            }
        }
    }
    if replace {
        items.clear();
        for mut item in merged {
            strip_value(&mut item);
            items.push(item);
        }
        return Ok(());
    }
    let order = (!in_order(items, &merged, key)).then(|| (identities(items, key), identities(&merged, key)));
    let element = element(rule.ty);
    for item in merged {
        let Value::Map(item) = item else { continue };
        let value = item.get(key).ok_or_else(|| no_key(&item, key))?;
        let found = items.iter_mut().filter_map(Value::as_map_mut).find(|m| m.get(key) == Some(value));
        match found {
            Some(existing) => merge_map(element, existing, item)?,
            None => {
                let mut fresh = Map::new();
                merge_map(element, &mut fresh, item)?;
                items.push(Value::Map(fresh));
            }
        }
    }
    if let Some((before, patch)) = order {
        reorder(items, &before, &patch, key);
    }
    Ok(())
}

fn no_key(item: &Map, key: &str) -> PatchError {
    let item = Value::Map(item.clone());
    PatchError::Failed(format!("map: {} does not contain declared merge key: {key}", shown(&item)))
}

/// What two items have in common when they are the same item.
fn identity<'v>(item: &'v Value, key: &str) -> Option<&'v Value> {
    match item {
        Value::Map(map) => map.get(key),
        scalar => Some(scalar),
    }
}

fn position(list: &[Value], item: &Value, key: &str) -> Option<usize> {
    let wanted = identity(item, key)?;
    list.iter().position(|other| identity(other, key) == Some(wanted))
}

/// What the items of a list are the same by: as good as the list itself to tell positions from.
fn identities(list: &[Value], key: &str) -> Vec<Value> {
    list.iter().map(|item| identity(item, key).cloned().unwrap_or_default()).collect()
}

/// Whether a list that a patch is merged into needs no new order: the patch only has items of the list, as they stand there.
fn in_order(items: &[Value], patch: &[Value], key: &str) -> bool {
    let positions = || patch.iter().map(|item| position(items, item, key));
    items.is_empty() || positions().all(|p| p.is_some()) && positions().is_sorted()
}

/// Refuses a patch whose own items are not in the order that it asks for.
fn agrees(patch: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    let mut left = order.iter();
    let mut own = patch.iter().filter(|item| item.as_map().is_none_or(|map| !map.contains_key(DIRECTIVE)));
    let found = |item: &Value| left.any(|other| identity(other, key) == identity(item, key));
    if order.is_empty() || own.all(found) {
        return Ok(());
    }
    let (patch, order) = (Value::List(patch.to_vec()), Value::List(order.to_vec()));
    let (patch, order) = (shown(&patch), shown(&order));
    Err(PatchError::Failed(format!(
        "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
    )))
}

/// Puts the items that the order names into that order, and the server's own items where they stood relative to them.
fn reorder(items: &mut Vec<Value>, before: &[Value], order: &[Value], key: &str) {
    let (mut named, own): (Vec<Value>, Vec<Value>) =
        std::mem::take(items).into_iter().partition(|item| position(order, item, key).is_some());
    named.sort_by_key(|item| position(order, item, key));
    let mut named = named.into_iter().peekable();
    let mut own = own.into_iter().peekable();
    loop {
        let take_own = match (own.peek(), named.peek()) {
            (Some(left), Some(right)) => {
                matches!((position(before, left, key), position(before, right, key)), (Some(l), Some(r)) if l < r)
            }
            (left, _) => left.is_some(),
        };
        match if take_own { own.next() } else { named.next() } {
            Some(item) => items.push(item),
            None => return,
        }
    }
}

/// Takes nulls, and what directives are about, out of a map that is put in whole.
fn strip(map: &mut Map) {
    map.retain(|key, value| {
        !value.is_null()
            && key != RETAIN_KEYS
            && !key.starts_with(SET_ELEMENT_ORDER)
            && !key.starts_with(DELETE_FROM_PRIMITIVES)
            && strip_value(value)
    });
}

/// The same of any value; whether it stays: what has a directive itself does not.
fn strip_value(value: &mut Value) -> bool {
    match value {
        Value::Map(map) if map.contains_key(DIRECTIVE) => return false,
        Value::Map(map) => strip(map),
        Value::List(items) => items.retain_mut(strip_value),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::tests_support::value;

    fn patched(target: &str, patch: &str) -> Result<Value, PatchError> {
        let deployment =
            crate::resource::get("apps", "v1", "deployments").unwrap_or_else(|| panic!("deployments are served"));
        let (Value::Map(mut target), Value::Map(patch)) = (value(target), value(patch)) else { panic!("objects") };
        apply(deployment.schema.root(), &mut target, patch).map(|()| Value::Map(target))
    }

    fn containers(list: &str) -> String {
        format!(r#"{{"spec":{{"template":{{"spec":{{"containers":{list}}}}}}}}}"#)
    }

    fn with_order(list: &str, order: &str) -> String {
        format!(r#"{{"spec":{{"template":{{"spec":{{"containers":{list},"$setElementOrder/containers":{order}}}}}}}}}"#)
    }

    #[test]
    fn lists_of_maps_merge_by_key() {
        let target =
            containers(r#"[{"name":"a","image":"x","env":[{"name":"E","value":"1"}]},{"name":"b","image":"y"}]"#);
        let patch = containers(r#"[{"name":"a","image":"z","env":[{"name":"F","value":"2"}]},{"name":"c"}]"#);
        let expect = containers(
            r#"[{"name":"a","image":"z","env":[{"name":"F","value":"2"},{"name":"E","value":"1"}]},{"name":"c"},{"name":"b","image":"y"}]"#,
        );
        assert_eq!(patched(&target, &patch), Ok(value(&expect)));
    }

    #[test]
    fn directives() {
        let target = containers(r#"[{"name":"a","image":"x"},{"name":"b"}]"#);
        for (patch, expect) in [
            (r#"[{"name":"a","$patch":"delete"}]"#, r#"[{"name":"b"}]"#),
            (r#"[{"name":"z"},{"$patch":"replace"}]"#, r#"[{"name":"z"}]"#),
            (r#"[{"name":"a","image":null}]"#, r#"[{"name":"a"},{"name":"b"}]"#),
        ] {
            assert_eq!(patched(&target, &containers(patch)), Ok(value(&containers(expect))), "{patch}");
        }
        let strategy = r#"{"spec":{"strategy":{"type":"RollingUpdate","rollingUpdate":{"maxSurge":1}}}}"#;
        let recreate = r#"{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}"#;
        assert_eq!(patched(strategy, recreate), Ok(value(r#"{"spec":{"strategy":{"type":"Recreate"}}}"#)));
        assert_eq!(
            patched(
                r#"{"metadata":{"finalizers":["a","b","c"]}}"#,
                r#"{"metadata":{"$deleteFromPrimitiveList/finalizers":["b"],"finalizers":["d"]}}"#
            ),
            Ok(value(r#"{"metadata":{"finalizers":["d","a","c"]}}"#))
        );
        let failed = |patch: &str| match patched(&target, patch) {
            Err(PatchError::Failed(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            failed(r#"{"$patch":"explode","a":1}"#),
            "unknown patch type: explode in map: map[$patch:explode a:1]"
        );
        assert_eq!(
            failed(&containers(r#"[{"name":"a","$patch":"merge"}]"#)),
            "merging lists cannot yet be specified in the patch"
        );
        assert_eq!(failed(r#"{"$patch":"merge","a":1}"#), "unknown patch type: merge in map: map[$patch:merge a:1]");
        assert_eq!(failed(r#"{"$patch":1}"#), "unknown patch type: %!s(int64=1) in map: map[$patch:1]");
        let item = containers(r#"[{"name":"a","$patch":"bogus"}]"#);
        assert_eq!(failed(&item), "unknown patch type: bogus in map: map[$patch:bogus name:a]");
        // Where there is nothing yet, what has a directive is dropped, whichever that is.
        for patch in [
            r#"{"spec":{"strategy":{"$patch":"bogus","type":"Recreate"}}}"#,
            r#"{"spec":{"strategy":{"$patch":"replace","type":"Recreate"}}}"#,
            r#"{"spec":{"template":{"spec":{"initContainers":[{"$patch":"bogus"},{"$patch":"delete","name":"x"}]}}}}"#,
        ] {
            let result = patched(&target, patch).expect("it is applied");
            let text = format!("{result:?}");
            assert!(!text.contains("$patch") && !text.contains("strategy"), "{text}");
        }
        let unkeyed = r#"{"spec":{"template":{"spec":{"initContainers":[{"image":"x","args":null}]}}}}"#;
        let result = patched(&target, unkeyed).expect("it is applied");
        let Value::Map(result) = result else { panic!("an object") };
        let init = result.at(&["spec", "template", "spec", "initContainers"]);
        assert_eq!(init, Some(&value(r#"[{"image":"x"}]"#)));
        let no_key = "map: map[image:x] does not contain declared merge key: name";
        assert_eq!(failed(&containers(r#"[{"image":"x"}]"#)), no_key);
        let retain = r#"{"spec":{"$retainKeys":["a"],"b":1}}"#;
        assert_eq!(patched(&target, retain), Err(PatchError::Malformed("invalid patch format of retainKeys".into())));
    }

    #[test]
    fn the_order_asked_for_is_kept_and_the_servers_own_items_stay_in_place() {
        let target = containers(r#"[{"name":"a"},{"name":"own"},{"name":"b"}]"#);
        let patch = with_order(r#"[{"name":"c"}]"#, r#"[{"name":"b"},{"name":"c"},{"name":"a"}]"#);
        let expect = containers(r#"[{"name":"own"},{"name":"b"},{"name":"c"},{"name":"a"}]"#);
        assert_eq!(patched(&target, &patch), Ok(value(&expect)));
    }

    #[test]
    fn without_an_order_asked_for_the_patchs_own_is_kept() {
        let target = containers(r#"[{"name":"a"},{"name":"own"},{"name":"b"}]"#);
        for (patch, expect) in [
            (r#"[{"name":"new"}]"#, r#"[{"name":"new"},{"name":"a"},{"name":"own"},{"name":"b"}]"#),
            (r#"[{"name":"b"},{"name":"a"}]"#, r#"[{"name":"own"},{"name":"b"},{"name":"a"}]"#),
            (r#"[{"name":"a"},{"name":"b"}]"#, r#"[{"name":"a"},{"name":"own"},{"name":"b"}]"#),
        ] {
            assert_eq!(patched(&target, &containers(patch)), Ok(value(&containers(expect))), "{patch}");
        }
        let disordered = with_order(r#"[{"name":"a"},{"name":"b"}]"#, r#"[{"name":"b"},{"name":"a"}]"#);
        let PatchError::Failed(why) = patched(&target, &disordered).unwrap_err() else { panic!("another error") };
        assert_eq!(
            why,
            "The order in patch list:\n[map[name:a] map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:b] map[name:a]]\n"
        );
    }

    #[test]
    fn atomic_lists_and_unknown_fields() {
        assert_eq!(
            patched(&containers(r#"[{"name":"a","args":["1","2"]}]"#), &containers(r#"[{"name":"a","args":["3"]}]"#)),
            Ok(value(&containers(r#"[{"name":"a","args":["3"]}]"#)))
        );
        assert_eq!(
            patched(r#"{"metadata":{"labels":{"a":"1","b":"2"}}}"#, r#"{"metadata":{"labels":{"a":null,"c":"3"}}}"#),
            Ok(value(r#"{"metadata":{"labels":{"b":"2","c":"3"}}}"#))
        );
    }
}
