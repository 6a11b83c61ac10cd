//! Pods begin as pending, have a quality of service, and end with grace. What may change goes through subresources.

use super::{Rules, Strategy, keep, keep_at, keep_other_side};
use crate::context::Context;
use crate::options::DeleteOptions;
use schema::{Map, Resource, Value};

#[derive(Debug)]
pub struct Pods(pub Rules);

impl Strategy for Pods {
    fn prepare_for_create(&self, _: &Context, _: &Resource, object: &mut Map) {
        let class = schema::qos::of(object);
        let gated =
            object.at(&["spec", "schedulingGates"]).and_then(Value::as_list).is_some_and(|gates| !gates.is_empty());
        let mut status = Map::new();
        status.insert("phase", "Pending");
        status.insert("qosClass", class);
        if gated {
            let mut condition = Map::new();
            condition.insert("type", "PodScheduled");
            condition.insert("status", "False");
            condition.insert("reason", "SchedulingGated");
            condition.insert("message", "Scheduling is blocked due to non-empty scheduling gates");
            status.insert("conditions", vec![Value::Map(condition)]);
        }
        object.insert("status", status);
    }

    fn prepare_for_update(&self, _: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        match subresource {
            "ephemeralcontainers" => only(object, old, |kept, object| {
                take(kept, object, &["spec", "ephemeralContainers"]);
            }),
            "resize" => only(object, old, resources),
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

    fn rules(&self) -> Rules {
        self.0
    }
}

fn take(kept: &mut Map, object: &Map, path: &[&'static str]) {
    keep_at(kept, object, path);
}

/// Leaves the pod as it was but for what `change` takes over; a spec that changes so counts as a change.
fn only(object: &mut Map, old: &Map, change: impl FnOnce(&mut Map, &Map)) {
    let mut kept = old.clone();
    for key in ["resourceVersion", "managedFields"] {
        take(&mut kept, object, &["metadata", key]);
    }
    change(&mut kept, object);
    if kept.get("spec") != old.get("spec") {
        let generation = old.at(&["metadata", "generation"]).and_then(Value::as_i64).unwrap_or(0);
        kept.set_at(&["metadata", "generation"], generation + 1);
    }
    *object = kept;
}

/// What a resize may change: what the pod and its containers ask for, and how they take a change of it.
fn resources(kept: &mut Map, object: &Map) {
    take(kept, object, &["spec", "resources"]);
    for field in ["containers", "initContainers"] {
        let asked = object.at(&["spec", field]).and_then(Value::as_list).unwrap_or_default();
        let list = kept.at_mut(&["spec", field]).and_then(Value::as_list_mut);
        for (container, asked) in list.into_iter().flatten().zip(asked) {
            let (Some(container), Some(asked)) = (container.as_map_mut(), asked.as_map()) else { continue };
            if container.str_at(&["name"]) == asked.str_at(&["name"]) {
                keep(container, asked, "resources");
                keep(container, asked, "resizePolicy");
            }
        }
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

    #[test]
    fn a_resize_changes_what_is_asked_for_and_nothing_else() {
        let old = map("{metadata: {name: p, generation: 3}, spec: {nodeName: n, containers: [{name: a, image: i}]}}");
        let mut new = map(
            "{metadata: {name: p, labels: {x: y}}, spec: {containers: [{name: a, image: j, resources: {requests: {cpu: '1'}}}]}}",
        );
        only(&mut new, &old, resources);
        let expected = map(
            "{metadata: {name: p, generation: 4}, spec: {nodeName: n, containers: [{name: a, image: i, resources: {requests: {cpu: '1'}}}]}}",
        );
        assert_eq!(new, expected);
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
