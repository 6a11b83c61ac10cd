//! Cells of what governs requests: roles, admission policies, flow control.

use super::{NONE, UNSET, maps, shown};
use jiff::Timestamp;
use schema::{Map, Value};

pub(super) fn role(object: &Map, _: Timestamp) -> Value {
    format!("{}/{}", object.str_at(&["roleRef", "kind"]), object.str_at(&["roleRef", "name"])).into()
}

pub(super) fn subjects(object: &Map, kind: &str) -> Value {
    let of = |s: &Map| {
        let (namespace, name) = (s.str_at(&["namespace"]), s.str_at(&["name"]));
        if kind == "ServiceAccount" { format!("{namespace}/{name}") } else { name.to_owned() }
    };
    maps(object, &["subjects"]).filter(|s| s.str_at(&["kind"]) == kind).map(of).collect::<Vec<_>>().join(", ").into()
}

pub(super) fn param_kind(object: &Map, _: Timestamp) -> Value {
    match object.at(&["spec", "paramKind"]).and_then(Value::as_map) {
        Some(kind) => format!("{}/{}", kind.str_at(&["apiVersion"]), kind.str_at(&["kind"])).into(),
        None => UNSET.into(),
    }
}

/// The parameters of a binding: by name, or by a selector as Go prints one.
pub(super) fn param_ref(object: &Map, _: Timestamp) -> Value {
    let Some(parameters) = object.at(&["spec", "paramRef"]).and_then(Value::as_map) else { return UNSET.into() };
    match (parameters.str_at(&["namespace"]), parameters.str_at(&["name"])) {
        (_, "") => match parameters.get("selector").and_then(Value::as_map) {
            Some(selector) => printed(selector).into(),
            None => UNSET.into(),
        },
        // Whether they are in namespaces can't be told from here.
        ("", name) => format!("*/{name}").into(),
        (namespace, name) => format!("{namespace}/{name}").into(),
    }
}

/// A selector as Go prints the struct.
fn printed(selector: &Map) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_map);
    let mut labels: Vec<(&str, String)> =
        labels.into_iter().flat_map(Map::iter).map(|(key, value)| (key, shown(value))).collect();
    labels.sort();
    let labels: String = labels.into_iter().map(|(key, value)| format!("{key}: {value},")).collect();
    let expression = |of: &Map| {
        let values = super::joined(of, &["values"], " ");
        let (key, operator) = (of.str_at(&["key"]), of.str_at(&["operator"]));
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    };
    let expressions: String = maps(selector, &["matchExpressions"]).map(expression).collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

pub(super) fn missing_level(object: &Map, _: Timestamp) -> Value {
    let dangling = maps(object, &["status", "conditions"]).find(|c| c.str_at(&["type"]) == "Dangling");
    dangling.map_or("?", |c| c.str_at(&["status"])).into()
}

/// A number of a limited level.
pub(super) fn level(object: &Map, path: &[&str]) -> Value {
    let limited = object.at(&["spec", "limited"]).and_then(Value::as_map);
    limited
        .and_then(|limited| limited.at(path))
        .filter(|value| !value.is_null())
        .cloned()
        .unwrap_or_else(|| NONE.into())
}
