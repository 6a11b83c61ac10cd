//! Pods begin as pending, have a quality of service, and end with grace. What may change goes through subresources.

use super::{Kind, Rules, Strategy, app_armor, keep, keep_at, keep_other_side, validation};
use crate::admission::walk;
use crate::context::Context;
use crate::options::DeleteOptions;
use api::features::Gates;
use api::{FieldError, Path};
use schema::{Map, Resource, TypeRef, Value};

#[derive(Debug)]
pub struct Pods {
    pub rules: Rules,
    /// Label keys of spread constraints are merged into the constraints' selectors.
    pub merges_spread: bool,
    /// What a pod asks for as a whole may be changed by a resize.
    pub resizes_whole: bool,
}

impl Pods {
    pub fn new(rules: Rules, gates: &Gates) -> Self {
        let merge = ["MatchLabelKeysInPodTopologySpread", "MatchLabelKeysInPodTopologySpreadSelectorMerge"];
        Pods {
            rules,
            merges_spread: merge.iter().all(|gate| gates.enabled(gate)),
            resizes_whole: gates.enabled("InPlacePodLevelResourcesVerticalScaling"),
        }
    }
}

impl Strategy for Pods {
    fn prepare_for_create(&self, cx: &Context, _: &Resource, object: &mut Map) {
        merge_label_keys(object, self.merges_spread);
        let class = schema::qos::of(object);
        let gated =
            object.at(&["spec", "schedulingGates"]).and_then(Value::as_list).is_some_and(|gates| !gates.is_empty());
        let mut status = Map::new();
        status.insert("phase", "Pending");
        status.insert("qosClass", class);
        if gated {
            let mut condition = Map::new();
            condition.insert("type", "PodScheduled");
            if let Some(generation) = object.at(&["metadata", "generation"]) {
                condition.insert("observedGeneration", generation.clone());
            }
            condition.insert("status", "False");
            condition.insert("reason", "SchedulingGated");
            condition.insert("message", "Scheduling is blocked due to non-empty scheduling gates");
            status.insert("conditions", vec![Value::Map(condition)]);
        }
        object.insert("status", status);
        app_armor::from_annotations(cx, object);
    }

    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        let ty = row.schema.root();
        match subresource {
            "ephemeralcontainers" => only(ty, object, old, |kept, object| {
                take(kept, object, &["spec", "ephemeralContainers"]);
            }),
            "resize" => only(ty, object, old, |kept, object| resources(kept, object, self.resizes_whole)),
            _ => keep_other_side(row, subresource, object, old),
        }
        if subresource == "status" {
            keep_status(object, old);
        }
    }

    fn check_graceful_delete(&self, object: &Map, options: &mut DeleteOptions) -> bool {
        let own = object.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
        let mut period = options.grace_period_seconds.or(own).unwrap_or(0);
        let on_a_node = !object.str_at(&["spec", "nodeName"]).is_empty();
        let over = matches!(object.str_at(&["status", "phase"]), "Failed" | "Succeeded");
        if !on_a_node || over {
            period = 0;
        }
        if period < 0 {
            period = 1;
        }
        options.grace_period_seconds = Some(period);
        true
    }

    fn validate_update(
        &self,
        _: &Context,
        kind: Kind<'_>,
        subresource: &str,
        object: &Map,
        old: &Map,
    ) -> Vec<FieldError> {
        if subresource == "resize" && !self.resizes_whole && asks_as_a_whole(old) {
            let why = "pods with pod-level resources cannot be resized";
            return vec![FieldError::forbidden(&Path::root(""), why)];
        }
        validation::update(kind, subresource, object, old)
    }

    fn rules(&self) -> Rules {
        self.rules
    }
}

fn take(kept: &mut Map, object: &Map, path: &[&'static str]) {
    keep_at(kept, object, path);
}

/// Leaves the pod as it was but for what `change` takes over; a spec that changes so counts as a change.
fn only(ty: TypeRef<'_>, object: &mut Map, old: &Map, change: impl FnOnce(&mut Map, &Map)) {
    let mut kept = old.clone();
    for key in ["resourceVersion", "managedFields"] {
        take(&mut kept, object, &["metadata", key]);
    }
    change(&mut kept, object);
    if !schema::semantic::same_at(ty, &["spec"], &kept, old) {
        let generation = old.at(&["metadata", "generation"]).and_then(Value::as_i64).unwrap_or(0);
        kept.set_at(&["metadata", "generation"], generation + 1);
    }
    *object = kept;
}

fn asks_as_a_whole(pod: &Map) -> bool {
    let list = |name| pod.at(&["spec", "resources", name]).and_then(Value::as_map);
    ["requests", "limits"].into_iter().filter_map(list).any(|amounts| !amounts.is_empty())
}

/// What a resize may change: what the pod and its containers ask for, and how they take a change of it.
///
/// Containers that are others, or in another order, are taken over as they are, so that validation sees and refuses them.
fn resources(kept: &mut Map, object: &Map, whole: bool) {
    const LISTS: [&str; 2] = ["containers", "initContainers"];
    let names = |pod: &Map, field| -> Vec<String> {
        walk::items(pod, &["spec", field]).map(|container| container.str_at(&["name"]).to_owned()).collect()
    };
    if LISTS.iter().any(|field| names(kept, field).len() != names(object, field).len()) {
        *kept = object.clone();
        return;
    }
    if whole {
        take(kept, object, &["spec", "resources"]);
    }
    for field in LISTS {
        if names(kept, field) != names(object, field) {
            take(kept, object, &["spec", field]);
            continue;
        }
        let asked = walk::items(object, &["spec", field]);
        for (container, asked) in walk::items_mut(kept, &["spec", field]).zip(asked) {
            keep(container, asked, "resources");
            keep(container, asked, "resizePolicy");
        }
    }
}

/// Keys of labels whose values the pod shares, or does not share, with those that a term or constraint is about: with the pod's
/// values they become part of the selector. One that selects nothing stays so.
fn merge_label_keys(pod: &mut Map, spread: bool) {
    const WHEN: [&str; 2] =
        ["preferredDuringSchedulingIgnoredDuringExecution", "requiredDuringSchedulingIgnoredDuringExecution"];
    let Some(labels) = pod.at(&["metadata", "labels"]).and_then(Value::as_map).cloned() else { return };
    for affinity in ["podAffinity", "podAntiAffinity"] {
        for when in WHEN {
            for term in walk::items_mut(pod, &["spec", "affinity", affinity, when]) {
                let term = if when == WHEN[0] {
                    term.get_mut("podAffinityTerm").and_then(Value::as_map_mut)
                } else {
                    Some(term)
                };
                if let Some(term) = term {
                    merge(term, "matchLabelKeys", "In", &labels);
                    merge(term, "mismatchLabelKeys", "NotIn", &labels);
                }
            }
        }
    }
    if spread {
        for constraint in walk::items_mut(pod, &["spec", "topologySpreadConstraints"]) {
            merge(constraint, "matchLabelKeys", "In", &labels);
        }
    }
}

/// Adds to the selector what the keys of a list ask for.
fn merge(term: &mut Map, keys: &str, operator: &str, labels: &Map) {
    let keys = term.get(keys).and_then(Value::as_list).unwrap_or_default();
    let asked: Vec<Value> = keys
        .iter()
        .filter_map(Value::as_str)
        .filter_map(|key| Some((key, labels.get(key).and_then(Value::as_str)?)))
        .map(|(key, value)| {
            let mut requirement = Map::new();
            requirement.insert("key", key);
            requirement.insert("operator", operator);
            requirement.insert("values", vec![Value::from(value)]);
            requirement.into()
        })
        .collect();
    if asked.is_empty() {
        return;
    }
    if let Some(selector) = term.get_mut("labelSelector").and_then(Value::as_map_mut)
        && let Some(all) = selector.entry("matchExpressions", || Value::List(Vec::new())).as_list_mut()
    {
        all.extend(asked);
    }
}

/// A kubelet that does not know of the class, or of what generation it speaks, may leave them out: they stay.
fn keep_status(object: &mut Map, old: &Map) {
    for field in ["qosClass", "observedGeneration"] {
        if object.at(&["status", field]).is_none() {
            take(object, old, &["status", field]);
        }
    }
    let conditions =
        |map: &Map| map.at(&["status", "conditions"]).and_then(Value::as_list).unwrap_or_default().to_vec();
    // Upstream lets several conditions of a type be: they are paired in order.
    let mut before = conditions(old);
    let list = object.at_mut(&["status", "conditions"]).and_then(Value::as_list_mut);
    for condition in list.into_iter().flatten().filter_map(Value::as_map_mut) {
        let kind = condition.str_at(&["type"]).to_owned();
        let pair = before.iter().position(|old| old.as_map().is_some_and(|old| old.str_at(&["type"]) == kind));
        let Some(Value::Map(old)) = pair.map(|at| before.remove(at)) else { continue };
        if !condition.contains_key("observedGeneration") {
            keep(condition, &old, "observedGeneration");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn pod_type() -> TypeRef<'static> {
        schema::types::of_kind("", "v1", "Pod").expect("a kind")
    }

    #[test]
    fn a_resize_to_what_is_the_same_makes_no_generation() {
        let pod = |cpu: &str| {
            map(&format!(
                "{{metadata: {{name: p, generation: 3}}, spec: {{containers: [{{name: a, resources: {{requests: {{cpu: '{cpu}'}}}}}}]}}}}"
            ))
        };
        let mut new = pod("1234m");
        only(pod_type(), &mut new, &pod("1.234"), |kept, object| resources(kept, object, true));
        assert_eq!(new, pod("1234m"));
    }

    #[test]
    fn a_resize_changes_what_is_asked_for_and_nothing_else() {
        let old = map("{metadata: {name: p, generation: 3}, spec: {nodeName: n, containers: [{name: a, image: i}]}}");
        let mut new = map(
            "{metadata: {name: p, labels: {x: y}}, spec: {containers: [{name: a, image: j, resources: {requests: {cpu: '1'}}}]}}",
        );
        only(pod_type(), &mut new, &old, |kept, object| resources(kept, object, true));
        let expected = map(
            "{metadata: {name: p, generation: 4}, spec: {nodeName: n, containers: [{name: a, image: i, resources: {requests: {cpu: '1'}}}]}}",
        );
        assert_eq!(new, expected);
    }

    #[test]
    fn a_resize_of_other_containers_is_left_for_validation_to_refuse() {
        let old =
            map("{metadata: {name: p}, spec: {nodeName: n, containers: [{name: a, image: i}, {name: b, image: i}]}}");
        for (asked, kept) in [
            ("[{name: a, image: i}]", "{containers: [{name: a, image: i}]}"),
            (
                "[{name: b, image: i}, {name: a, image: j}]",
                "{nodeName: n, containers: [{name: b, image: i}, {name: a, image: j}]}",
            ),
        ] {
            let mut new = map(&format!("{{metadata: {{name: p}}, spec: {{containers: {asked}}}}}"));
            only(pod_type(), &mut new, &old, |kept, object| resources(kept, object, true));
            assert_eq!(new.get("spec"), Some(&map(kept).into()));
        }
    }

    #[test]
    fn label_keys_become_part_of_selectors() {
        let text = "{metadata: {labels: {app: web, hash: x}}, spec: {
            affinity: {
                podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [
                    {matchLabelKeys: [hash, none], labelSelector: {matchExpressions: [{key: a, operator: Exists}]}},
                    {matchLabelKeys: [hash]}]},
                podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [
                    {weight: 1, podAffinityTerm: {mismatchLabelKeys: [app], labelSelector: {}}}]}},
            topologySpreadConstraints: [{matchLabelKeys: [hash], labelSelector: {}}]}}";
        let mut pod = map(text);
        merge_label_keys(&mut pod, false);
        let expected = text
            .replace("{key: a, operator: Exists}", "{key: a, operator: Exists}, {key: hash, operator: In, values: [x]}")
            .replace(
                "[app], labelSelector: {}",
                "[app], labelSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}",
            );
        assert_eq!(pod, map(&expected));
        let mut pod = map(text);
        merge_label_keys(&mut pod, true);
        let spread = "[hash], labelSelector: {matchExpressions: [{key: hash, operator: In, values: [x]}]}}]}}";
        assert_eq!(pod, map(&expected.replace("[hash], labelSelector: {}}]}}", spread)));
    }

    #[test]
    fn observed_generations_stay() {
        let old = map("{status: {observedGeneration: 2, conditions: [{type: Ready, observedGeneration: 2}]}}");
        let mut new = map("{status: {conditions: [{type: Ready}, {type: Other}]}}");
        keep_status(&mut new, &old);
        let expected =
            map("{status: {observedGeneration: 2, conditions: [{type: Ready, observedGeneration: 2}, {type: Other}]}}");
        assert_eq!(new, expected);
    }
}
