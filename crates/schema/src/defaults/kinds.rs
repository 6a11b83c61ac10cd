//! Defaults that take more than a constant: of jobs, claims, limits and autoscalers.

use super::rules::set;
use crate::tree::{Map, Value};

fn map_of<'m>(map: &'m mut Map, key: &'static str) -> Option<&'m mut Map> {
    map.entry(key, || Value::Map(Map::new())).as_map_mut()
}

fn list_is_empty(map: &Map, key: &str) -> bool {
    map.get(key).and_then(Value::as_list).is_none_or(<[Value]>::is_empty)
}

/// An object without labels is labelled as its pods.
fn labels_of_template(object: &mut Map) {
    let labels = object.at(&["spec", "template", "metadata", "labels"]).and_then(Value::as_map).cloned();
    let has = object.at(&["metadata", "labels"]).and_then(Value::as_map).is_some_and(|labels| !labels.is_empty());
    if let Some(labels) = labels.filter(|labels| !has && !labels.is_empty()) {
        object.set_at(&["metadata", "labels"], labels);
    }
}

/// A job, but not the template of one.
pub(super) fn job(object: &mut Map) {
    labels_of_template(object);
    let Some(spec) = object.get_mut("spec").and_then(Value::as_map_mut) else { return };
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        spec.insert("completions", 1);
    }
    set(spec, "parallelism", 1);
    let per_index = spec.contains_key("backoffLimitPerIndex");
    set(spec, "backoffLimit", if per_index { i64::from(i32::MAX) } else { 6 });
    set(spec, "completionMode", "NonIndexed");
    set(spec, "suspend", false);
    let policy = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    set(spec, "podReplacementPolicy", policy);
    set(spec, "manualSelector", false);
    let rules = spec.at_mut(&["podFailurePolicy", "rules"]).and_then(Value::as_list_mut);
    for rule in rules.into_iter().flatten().filter_map(Value::as_map_mut) {
        let patterns = rule.get_mut("onPodConditions").and_then(Value::as_list_mut);
        for pattern in patterns.into_iter().flatten().filter_map(Value::as_map_mut) {
            if pattern.get("status").and_then(Value::as_str).unwrap_or("").is_empty() {
                pattern.insert("status", "True");
            }
        }
    }
}

pub(super) fn replication_controller(object: &mut Map) {
    labels_of_template(object);
    let labels = object.at(&["spec", "template", "metadata", "labels"]).and_then(Value::as_map).cloned();
    let selects = object.at(&["spec", "selector"]).and_then(Value::as_map).is_some_and(|labels| !labels.is_empty());
    if let Some(labels) = labels.filter(|labels| !selects && !labels.is_empty()) {
        object.set_at(&["spec", "selector"], labels);
    }
}

/// Volumes and claims wait for each other.
pub(super) fn pending(object: &mut Map) {
    if let Some(status) = map_of(object, "status") {
        set(status, "phase", "Pending");
    }
}

/// The claims that a StatefulSet makes say what they are.
pub(super) fn stateful_set(spec: &mut Map) {
    let claims = spec.get_mut("volumeClaimTemplates").and_then(Value::as_list_mut);
    for claim in claims.into_iter().flatten().filter_map(Value::as_map_mut) {
        claim.insert("apiVersion", "v1");
        claim.insert("kind", "PersistentVolumeClaim");
    }
}

/// An earlier version told all pods and none apart by a label that no pod has. Beside other requirements it means nothing;
/// alone and asked for, it still means none.
pub(super) fn disruption_budget(spec: &mut Map) {
    const LABEL: &str = "pdb.kubernetes.io/deprecated-v1beta1-empty-selector-match";
    let Some(selector) = spec.get_mut("selector").and_then(Value::as_map_mut) else { return };
    let others = !selector.get("matchLabels").and_then(Value::as_map).is_none_or(Map::is_empty);
    let Some(list) = selector.get_mut("matchExpressions").and_then(Value::as_list_mut) else { return };
    let text = |one: &Value, key: &str| one.as_map().map_or("", |one| one.str_at(&[key])).to_owned();
    let old = |one: &Value| text(one, "key") == LABEL;
    let none = |one: &Value| {
        let values = one.as_map().and_then(|one| one.get("values")).and_then(Value::as_list).unwrap_or_default();
        old(one) && text(one, "operator") == "Exists" && values.is_empty()
    };
    if !others && list.len() == 1 && list.first().is_some_and(none) {
        return;
    }
    list.retain(|one| !old(one));
    if list.is_empty() {
        selector.remove("matchExpressions");
    }
}

/// What a container may have at most is what it is given, and what it is given is what it asks for.
pub(super) fn limit_range_item(item: &mut Map) {
    if item.get("type").and_then(Value::as_str) != Some("Container") {
        return;
    }
    for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
        let Some(source) = item.get(from).and_then(Value::as_map).filter(|map| !map.is_empty()).cloned() else {
            continue;
        };
        let Some(target) = map_of(item, to) else { continue };
        for (key, value) in source.into_entries() {
            if !target.contains_key(&key) {
                target.insert(key, value);
            }
        }
    }
}

pub(super) fn autoscaler(spec: &mut Map) {
    if list_is_empty(spec, "metrics") {
        let mut cpu = Map::new();
        cpu.insert("type", "Resource");
        cpu.set_at(&["resource", "name"], "cpu");
        cpu.set_at(&["resource", "target", "type"], "Utilization");
        cpu.set_at(&["resource", "target", "averageUtilization"], 80);
        spec.insert("metrics", vec![Value::Map(cpu)]);
    }
    let Some(behavior) = spec.get_mut("behavior").and_then(Value::as_map_mut) else { return };
    if let Some(up) = map_of(behavior, "scaleUp") {
        set(up, "stabilizationWindowSeconds", 0);
        scaling_rules(up, &[("Pods", 4), ("Percent", 100)]);
    }
    if let Some(down) = map_of(behavior, "scaleDown") {
        scaling_rules(down, &[("Percent", 100)]);
    }
}

fn scaling_rules(rules: &mut Map, policies: &[(&'static str, i64)]) {
    set(rules, "selectPolicy", "Max");
    if !rules.contains_key("policies") {
        let policy = |(kind, value): &(&'static str, i64)| {
            let mut policy = Map::new();
            policy.insert("type", *kind);
            policy.insert("value", *value);
            policy.insert("periodSeconds", 15);
            Value::Map(policy)
        };
        rules.insert("policies", policies.iter().map(policy).collect::<Vec<_>>());
    }
}
