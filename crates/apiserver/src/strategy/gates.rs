//! Fields whose feature is off in this version: they are dropped, unless the stored object has them from a time when it was on.

use schema::{Map, Resource, Value};

/// Where a field is; `*` is any element of a list or value of a map.
type At = &'static [&'static str];

const GROUP: &str = "schedulingGroup";

/// Group, kind, the gate, and the fields that go with it.
const OFF: &[(&str, &str, &str, &[At])] = &[
    ("", "Node", "DynamicKubeletConfig", &[&["spec", "configSource"]]),
    ("", "Pod", "GenericWorkload", &[&["spec", GROUP]]),
    ("", "PodTemplate", "GenericWorkload", &[&["template", "spec", GROUP]]),
    ("", "ReplicationController", "GenericWorkload", &[&["spec", "template", "spec", GROUP]]),
    ("apps", "DaemonSet", "GenericWorkload", &[&["spec", "template", "spec", GROUP]]),
    ("apps", "Deployment", "GenericWorkload", &[&["spec", "template", "spec", GROUP]]),
    ("apps", "ReplicaSet", "GenericWorkload", &[&["spec", "template", "spec", GROUP]]),
    ("apps", "StatefulSet", "GenericWorkload", &[&["spec", "template", "spec", GROUP]]),
    (
        "apps",
        "StatefulSet",
        "MaxUnavailableStatefulSet",
        &[&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]],
    ),
    ("batch", "CronJob", "GenericWorkload", &[&["spec", "jobTemplate", "spec", "template", "spec", GROUP]]),
    ("batch", "Job", "GenericWorkload", &[&["spec", "template", "spec", GROUP]]),
    (
        "coordination.k8s.io",
        "Lease",
        "CoordinatedLeaderElection",
        &[&["spec", "strategy"], &["spec", "preferredHolder"]],
    ),
    (
        "resource.k8s.io",
        "ResourceSlice",
        "DRAListTypeAttributes",
        &[
            &["spec", "devices", "*", "attributes", "*", "bools"],
            &["spec", "devices", "*", "attributes", "*", "ints"],
            &["spec", "devices", "*", "attributes", "*", "strings"],
            &["spec", "devices", "*", "attributes", "*", "versions"],
        ],
    ),
    (
        "resource.k8s.io",
        "ResourceSlice",
        "DRANodeAllocatableResources",
        &[&["spec", "devices", "*", "nodeAllocatableResourceMappings"]],
    ),
    ("storage.k8s.io", "CSIDriver", "VolumeLimitScaling", &[&["spec", "preventPodSchedulingIfMissing"]]),
];

/// Drops from a new or updated object what belongs to features that are off and that the old one does not use.
pub fn drop_disabled(row: &Resource, object: &mut Map, old: Option<&Map>) {
    let of_kind = |(group, kind, ..): &&(&str, &str, &str, &[At])| *group == row.group && *kind == row.kind;
    for (.., fields) in OFF.iter().filter(of_kind) {
        if !old.is_some_and(|old| fields.iter().any(|at| uses(old, at))) {
            fields.iter().for_each(|at| remove(object, at));
        }
    }
}

fn uses(map: &Map, at: &[&str]) -> bool {
    let Some((first, rest)) = at.split_first() else { return false };
    let below = |value: &Value| match value {
        value if rest.is_empty() => !value.is_null(),
        Value::Map(map) if rest[0] == "*" => map.iter().any(|(_, value)| uses_value(value, &rest[1..])),
        Value::List(list) if rest[0] == "*" => list.iter().any(|value| uses_value(value, &rest[1..])),
        Value::Map(map) => uses(map, rest),
        _ => false,
    };
    map.get(first).is_some_and(below)
}

fn uses_value(value: &Value, at: &[&str]) -> bool {
    value.as_map().is_some_and(|map| uses(map, at))
}

fn remove(map: &mut Map, at: &[&str]) {
    let Some((first, rest)) = at.split_first() else { return };
    if rest.is_empty() {
        map.remove(first);
        return;
    }
    match map.get_mut(first) {
        Some(Value::Map(map)) if rest[0] == "*" => {
            map.iter_mut().filter_map(|(_, value)| value.as_map_mut()).for_each(|map| remove(map, &rest[1..]));
        }
        Some(Value::List(list)) if rest[0] == "*" => {
            list.iter_mut().filter_map(Value::as_map_mut).for_each(|map| remove(map, &rest[1..]));
        }
        Some(Value::Map(map)) => remove(map, rest),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map {
        match schema::json::parse(text.as_bytes()) {
            Ok(Value::Map(map)) => map,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unused_fields_of_features_that_are_off_are_dropped() {
        let row = schema::resource::of_kind("resource.k8s.io", "v1", "ResourceSlice").expect("a row");
        let given = r#"{"spec":{"devices":[{"name":"a","attributes":{"x":{"ints":[1]},"y":{"int":1}}}]}}"#;
        let mut object = map(given);
        drop_disabled(row, &mut object, None);
        assert_eq!(object, map(r#"{"spec":{"devices":[{"name":"a","attributes":{"x":{},"y":{"int":1}}}]}}"#));
        let mut object = map(given);
        drop_disabled(row, &mut object, Some(&map(given)));
        assert_eq!(object, map(given));
    }

    #[test]
    fn the_table_names_fields_that_exist() {
        for (group, kind, gate, fields) in OFF {
            let row = schema::resource::of_kind(group, "v1", kind).unwrap_or_else(|| panic!("{kind}"));
            for at in *fields {
                let mut ty = row.schema.root();
                for name in *at {
                    ty = match ty.kind() {
                        schema::Kind::Struct(s) => s.field(name).unwrap_or_else(|| panic!("{gate}: {at:?}")).ty(),
                        schema::Kind::List(of) | schema::Kind::Map(of) => of,
                        _ => panic!("{gate}: {at:?}"),
                    };
                }
            }
        }
    }
}
