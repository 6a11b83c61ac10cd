//! Rules as their users meet them: JSON in, defaulted, messages out.

use schema::{Map, defaults, json, resource, validation};

pub(crate) fn object(group: &str, version: &str, kind: &str, text: &str) -> Map {
    let row = resource::of_kind(group, version, kind).unwrap_or_else(|| panic!("{kind} is served"));
    let decoded = json::decode(row.schema.root(), text.as_bytes()).unwrap_or_else(|e| panic!("{kind}: {e}\n{text}"));
    assert!(decoded.problems.is_empty(), "{kind}: {:?}", decoded.problems);
    let mut map = decoded.object;
    defaults::apply(row.schema.root(), &mut map);
    map
}

fn shown(errors: &[api::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

pub(crate) fn created(group: &str, version: &str, kind: &str, text: &str) -> Vec<String> {
    created_with("", group, version, kind, text)
}

/// With feature gates.
pub(crate) fn created_with(gates: &str, group: &str, version: &str, kind: &str, text: &str) -> Vec<String> {
    shown(&validation::create(group, kind, &object(group, version, kind, text), features(gates)))
}

pub(crate) fn updated(group: &str, version: &str, kind: &str, sub: &str, new: &str, old: &str) -> Vec<String> {
    updated_with("", group, version, kind, sub, new, old)
}

/// With feature gates.
pub(crate) fn updated_with(
    gates: &str,
    group: &str,
    version: &str,
    kind: &str,
    sub: &str,
    new: &str,
    old: &str,
) -> Vec<String> {
    let (new, old) = (object(group, version, kind, new), object(group, version, kind, old));
    shown(&validation::update(group, kind, sub, &new, &old, features(gates)))
}

pub(crate) fn features(gates: &str) -> validation::Features {
    let asked: api::features::Asked = gates.parse().expect(gates);
    validation::Features::of(&asked.gates().expect(gates).0)
}
