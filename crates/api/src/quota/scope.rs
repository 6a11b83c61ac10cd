//! Which objects a quota is about.

use super::{View, amounts};

/// Whether all scopes of the quota hold for the object. Scopes are about pods, or about claims (`VolumeAttributesClass`);
/// a quota that has any is about nothing else.
pub fn holds<'a, V: View<'a>>(quota: V, group: &str, plural: &str, object: V) -> bool {
    of(quota).all(|(scope, operator, values)| selects(scope, operator, &values, group, plural, object))
}

/// The scopes of a quota: name, operator, values.
pub fn of<'a, V: View<'a>>(quota: V) -> impl Iterator<Item = (&'a str, &'a str, Vec<&'a str>)> {
    let plain = quota.items_at(&["spec", "scopes"]).filter_map(V::text).map(|scope| (scope, "Exists", Vec::new()));
    let selected = quota.items_at(&["spec", "scopeSelector", "matchExpressions"]).map(|e| {
        let values = e.items_at(&["values"]).filter_map(V::text).collect();
        (e.text_at(&["scopeName"]), e.text_at(&["operator"]), values)
    });
    plain.chain(selected)
}

/// Whether an object is in a scope.
pub fn selects<'a, V: View<'a>>(
    scope: &str,
    operator: &str,
    values: &[&str],
    group: &str,
    plural: &str,
    object: V,
) -> bool {
    if scope == "VolumeAttributesClass" {
        return group.is_empty() && plural == "persistentvolumeclaims" && of_class(object, operator, values);
    }
    group.is_empty() && plural == "pods" && of_pod(object, scope, operator, values)
}

/// A claim is of the class that it asks for, of the one it has, and of the one it is being given.
fn of_class<'a, V: View<'a>>(claim: V, operator: &str, values: &[&str]) -> bool {
    let classes = [
        claim.text_at(&["spec", "volumeAttributesClassName"]),
        claim.text_at(&["status", "currentVolumeAttributesClassName"]),
        claim.text_at(&["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"]),
    ];
    let mut named = classes.into_iter().filter(|class| !class.is_empty()).peekable();
    if named.peek().is_none() {
        return matches("", operator, values);
    }
    named.any(|class| matches(class, operator, values))
}

fn of_pod<'a, V: View<'a>>(pod: V, scope: &str, operator: &str, values: &[&str]) -> bool {
    let deadline = || pod.at(&["spec", "activeDeadlineSeconds"]).and_then(V::int).is_some_and(|s| s >= 0);
    match scope {
        "Terminating" => deadline(),
        "NotTerminating" => !deadline(),
        "BestEffort" => best_effort(pod),
        "NotBestEffort" => !best_effort(pod),
        "PriorityClass" => matches(pod.text_at(&["spec", "priorityClassName"]), operator, values),
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

/// Whether nothing in the pod asks for, or is bounded in, processor or memory.
fn best_effort<'a, V: View<'a>>(pod: V) -> bool {
    let says_nothing = |of: V| {
        ["requests", "limits"].iter().all(|which| {
            let list = amounts(of, &["resources", which]);
            ["cpu", "memory"].iter().all(|name| list.get(*name).is_none_or(crate::Quantity::is_zero))
        })
    };
    let mut containers =
        ["containers", "initContainers"].into_iter().flat_map(|list| pod.at(&["spec", list])).flat_map(V::items);
    containers.all(says_nothing) && pod.get("spec").is_none_or(says_nothing)
}

fn cross_namespace_affinity<'a, V: View<'a>>(pod: V) -> bool {
    let crosses = |term: V| term.items_at(&["namespaces"]).next().is_some() || term.get("namespaceSelector").is_some();
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let path = |list| ["spec", "affinity", kind, list];
        pod.items_at(&path("requiredDuringSchedulingIgnoredDuringExecution")).any(crosses)
            || pod
                .items_at(&path("preferredDuringSchedulingIgnoredDuringExecution"))
                .filter_map(|weighted| weighted.get("podAffinityTerm"))
                .any(crosses)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn holds_for(quota: &Value, plural: &str, object: &Value) -> bool {
        holds(&json!({"spec": quota}), "", plural, object)
    }

    #[test]
    fn scopes_select_pods() {
        let effortless = json!({"spec": {"containers": [{"name": "a"}]}});
        let weighty = json!({"spec": {"priorityClassName": "high",
            "containers": [{"resources": {"requests": {"cpu": 1}}}]}});
        assert!(holds_for(&json!({"hard": {}}), "services", &effortless));
        assert!(holds_for(&json!({"scopes": ["BestEffort", "NotTerminating"]}), "pods", &effortless));
        assert!(!holds_for(&json!({"scopes": ["BestEffort"]}), "pods", &weighty));
        assert!(
            !holds_for(&json!({"scopes": ["BestEffort"]}), "services", &effortless),
            "a service is in no scope of pods"
        );
        let high = json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}});
        assert!(holds_for(&high, "pods", &weighty) && !holds_for(&high, "pods", &effortless));
        let far = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            [{"namespaceSelector": {}}]}}}});
        assert!(holds_for(&json!({"scopes": ["CrossNamespacePodAffinity"]}), "pods", &far));
    }

    #[test]
    fn a_claim_is_of_every_class_that_it_has_to_do_with() {
        let gold = json!({"scopeSelector": {"matchExpressions": [
            {"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["gold"]}]}});
        let claim = json!({"spec": {"volumeAttributesClassName": "silver"}, "status": {"currentVolumeAttributesClassName": "gold"}});
        assert!(holds_for(&gold, "persistentvolumeclaims", &claim));
        assert!(!holds_for(&gold, "persistentvolumeclaims", &json!({"spec": {}})));
        assert!(!holds_for(&gold, "pods", &claim));
    }
}
