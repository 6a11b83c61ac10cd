//! Which objects a quota is about.

use crate::admission::walk;
use schema::{Map, Value};

/// Whether all scopes of the quota hold for the object. Scopes are about pods; a quota that has any is about nothing else.
pub(super) fn holds(quota: &Map, is_pod: bool, object: &Map) -> bool {
    let scopes = quota.at(&["spec", "scopes"]).and_then(Value::as_list).unwrap_or_default();
    let plain = scopes.iter().filter_map(Value::as_str).map(|scope| (scope, "Exists", Vec::new()));
    let selected = walk::items(quota, &["spec", "scopeSelector", "matchExpressions"]).map(|e| {
        let values = e.get("values").and_then(Value::as_list).unwrap_or_default();
        (e.str_at(&["scopeName"]), e.str_at(&["operator"]), values.iter().filter_map(Value::as_str).collect())
    });
    plain.chain(selected).all(|(scope, operator, values)| {
        if scope == "VolumeAttributesClass" {
            return !is_pod && matches(object.str_at(&["spec", "volumeAttributesClassName"]), operator, &values);
        }
        is_pod && pod_scope(object, scope, operator, &values)
    })
}

fn pod_scope(pod: &Map, scope: &str, operator: &str, values: &[&str]) -> bool {
    let deadline = || pod.at(&["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64).is_some_and(|s| s >= 0);
    match scope {
        "Terminating" => deadline(),
        "NotTerminating" => !deadline(),
        "BestEffort" => best_effort(pod),
        "NotBestEffort" => !best_effort(pod),
        "PriorityClass" => matches(pod.str_at(&["spec", "priorityClassName"]), operator, values),
        "CrossNamespacePodAffinity" => cross_namespace_affinity(pod),
        _ => false,
    }
}

fn matches(value: &str, operator: &str, values: &[&str]) -> bool {
    match operator {
        "In" => values.contains(&value),
        "NotIn" => !values.contains(&value),
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        _ => false,
    }
}

/// Whether no container asks for, or is bounded in, processor or memory.
fn best_effort(pod: &Map) -> bool {
    let nothing = |quantity: Option<&Value>| match quantity {
        Some(Value::Str(text)) => text.parse::<api::Quantity>().is_ok_and(|q| q.is_zero()),
        Some(Value::Int(number)) => *number == 0,
        _ => true,
    };
    let mut containers = ["containers", "initContainers"].into_iter().flat_map(|l| walk::items(pod, &["spec", l]));
    containers.all(|c| {
        ["requests", "limits"].iter().all(|w| ["cpu", "memory"].iter().all(|r| nothing(c.at(&["resources", w, r]))))
    })
}

fn cross_namespace_affinity(pod: &Map) -> bool {
    let crosses = |term: &Map| {
        term.get("namespaces").and_then(Value::as_list).is_some_and(|l| !l.is_empty())
            || term.get("namespaceSelector").is_some_and(|s| !s.is_null())
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let path = |list| ["spec", "affinity", kind, list];
        walk::items(pod, &path("requiredDuringSchedulingIgnoredDuringExecution")).any(crosses)
            || walk::items(pod, &path("preferredDuringSchedulingIgnoredDuringExecution"))
                .filter_map(|w| w.get("podAffinityTerm").and_then(Value::as_map))
                .any(crosses)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn scopes_select_pods() {
        let effortless = map("{spec: {containers: [{name: a}]}}");
        let weighty = map("{spec: {priorityClassName: high, containers: [{resources: {requests: {cpu: 1}}}]}}");
        let quota = |spec: &str| map(&format!("{{spec: {{{spec}}}}}"));
        assert!(holds(&quota("hard: {}"), false, &effortless));
        assert!(holds(&quota("scopes: [BestEffort, NotTerminating]"), true, &effortless));
        assert!(!holds(&quota("scopes: [BestEffort]"), true, &weighty));
        assert!(!holds(&quota("scopes: [BestEffort]"), false, &effortless), "a service is in no scope of pods");
        let high =
            quota("scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [high]}]}");
        assert!(holds(&high, true, &weighty) && !holds(&high, true, &effortless));
    }
}
