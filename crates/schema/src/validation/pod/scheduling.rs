//! Where a pod may run: affinities, tolerations, spreading, gates.

use super::super::fields::{Errors, label_selector, problems, required, required_of, supported_of};
use crate::view::List;
use crate::view::core_v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSchedulingGate,
    PodSchedulingGroup, Taint, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use crate::view::meta_v1::LabelSelector;
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// The group that a pod is scheduled with.
pub(super) fn group(errors: &mut Errors, path: &Path<'_>, group: Option<PodSchedulingGroup<'_>>) {
    let Some(group) = group else { return };
    match group.pod_group_name() {
        None => errors.push(FieldError::invalid(path, "", "must specify one of: `podGroupName`")),
        Some(name) => problems(errors, &path.child("podGroupName"), name, names::dns1123_subdomain(name)),
    }
}

pub(super) fn affinity(errors: &mut Errors, path: &Path<'_>, affinity: Option<Affinity<'_>>) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = affinity.node_affinity() {
        let path = path.child("nodeAffinity");
        if let Some(selector) = node.required_during_scheduling_ignored_during_execution() {
            node_selector(errors, &path.child(REQUIRED), selector);
        }
        for (i, term) in node.preferred_during_scheduling_ignored_during_execution().iter().enumerate() {
            let terms = path.child(PREFERRED);
            let path = terms.index(i);
            weight(errors, &path, term.weight());
            if let Some(preference) = term.preference() {
                node_term(errors, &path.child("preference"), preference, false);
            }
        }
    }
    let parts = [
        (
            "podAffinity",
            affinity.pod_affinity().map(|a| {
                (
                    a.0,
                    a.required_during_scheduling_ignored_during_execution(),
                    a.preferred_during_scheduling_ignored_during_execution(),
                )
            }),
        ),
        (
            "podAntiAffinity",
            affinity.pod_anti_affinity().map(|a| {
                (
                    a.0,
                    a.required_during_scheduling_ignored_during_execution(),
                    a.preferred_during_scheduling_ignored_during_execution(),
                )
            }),
        ),
    ];
    for (field, part) in parts {
        let Some((_, required, preferred)) = part else { continue };
        let path = path.child(field);
        for (i, term) in required.iter().enumerate() {
            pod_term(errors, &path.child(REQUIRED).index(i), term);
        }
        weighted(errors, &path.child(PREFERRED), preferred);
    }
}

fn weighted(errors: &mut Errors, path: &Path<'_>, terms: List<'_, WeightedPodAffinityTerm<'_>>) {
    for (i, term) in terms.iter().enumerate() {
        let path = path.index(i);
        weight(errors, &path, term.weight());
        if let Some(term) = term.pod_affinity_term() {
            pod_term(errors, &path.child("podAffinityTerm"), term);
        }
    }
}

fn weight(errors: &mut Errors, path: &Path<'_>, weight: Option<i64>) {
    let weight = weight.unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// A node selector: at least one term.
pub(in crate::validation) fn node_selector(errors: &mut Errors, path: &Path<'_>, selector: NodeSelector<'_>) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms().is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms().iter().enumerate() {
        node_term(errors, &path.index(i), term, true);
    }
}

fn node_term(errors: &mut Errors, path: &Path<'_>, term: NodeSelectorTerm<'_>, strict: bool) {
    for (i, requirement) in term.match_expressions().iter().enumerate() {
        let list = path.child("matchExpressions");
        let path = list.index(i);
        node_requirement(errors, &path, requirement);
        let key = requirement.key().unwrap_or("");
        problems(errors, &path.child("key"), key, names::qualified_name(key));
        for (i, value) in requirement.values().iter().enumerate().filter(|_| strict) {
            problems(errors, &path.child("values").index(i), value, names::label_value(value));
        }
    }
    for (i, requirement) in term.match_fields().iter().enumerate() {
        let list = path.child("matchFields");
        let path = list.index(i);
        let values = path.child("values");
        match requirement.operator().unwrap_or("") {
            "In" | "NotIn" => {
                if requirement.values().len() != 1 {
                    let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                    errors.push(FieldError::required(&values, why));
                }
            }
            other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
        }
        let key = requirement.key().unwrap_or("");
        if key == "metadata.name" {
            for (i, value) in requirement.values().iter().enumerate() {
                problems(errors, &values.index(i), value, names::dns1123_subdomain(value));
            }
        } else {
            errors.push(FieldError::invalid(&path.child("key"), key, "not a valid field selector key"));
        }
    }
}

fn node_requirement(errors: &mut Errors, path: &Path<'_>, requirement: NodeSelectorRequirement<'_>) {
    let values = requirement.values().len();
    let path_values = path.child("values");
    match requirement.operator().unwrap_or("") {
        "In" | "NotIn" => {
            if values == 0 {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&path_values, why));
            }
        }
        "Exists" | "DoesNotExist" => {
            if values > 0 {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&path_values, why));
            }
        }
        "Gt" | "Lt" => {
            if values != 1 {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(FieldError::required(&path_values, why));
            }
        }
        other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
}

fn pod_term(errors: &mut Errors, path: &Path<'_>, term: PodAffinityTerm<'_>) {
    label_selector(errors, &path.child("labelSelector"), term.label_selector());
    label_selector(errors, &path.child("namespaceSelector"), term.namespace_selector());
    for name in term.namespaces().iter() {
        problems(errors, &path.child("namespace"), name, names::dns1123_label(name));
    }
    for (field, keys) in
        [("matchLabelKeys", term.match_label_keys()), ("mismatchLabelKeys", term.mismatch_label_keys())]
    {
        label_keys(errors, &path.child(field), field, keys, term.label_selector());
    }
    let key = term.topology_key().unwrap_or("");
    if key.is_empty() {
        errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
    }
    problems(errors, &path.child("topologyKey"), key, names::qualified_name(key));
}

fn label_keys(
    errors: &mut Errors,
    path: &Path<'_>,
    field: &str,
    keys: List<'_, &str>,
    selector: Option<LabelSelector<'_>>,
) {
    if keys.is_empty() {
        return;
    }
    let Some(selector) = selector else {
        errors.push(FieldError::forbidden(path, "must not be specified when labelSelector is not set"));
        return;
    };
    for (i, key) in keys.iter().enumerate() {
        problems(errors, &path.index(i), key, names::qualified_name(key));
        // A pod's own keys are merged into the selector when it is made, so only what a person wrote counts.
        if field == "topology" && selector.match_labels().contains_key(key) {
            let why = "exists in both matchLabelKeys and labelSelector";
            errors.push(FieldError::invalid(&path.index(i), key, why));
        }
    }
}

pub(in crate::validation) fn tolerations(errors: &mut Errors, path: &Path<'_>, tolerations: List<'_, Toleration<'_>>) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let path = path.index(i);
        let key = toleration.key().unwrap_or("");
        let operator = toleration.operator().unwrap_or("");
        let effect = toleration.effect().unwrap_or("");
        let value = toleration.value().unwrap_or("");
        if !key.is_empty() {
            problems(errors, &path.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(FieldError::invalid(&path.child("operator"), operator, why));
        }
        if toleration.toleration_seconds().is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(FieldError::invalid(&path.child("effect"), effect, why));
        }
        match operator {
            "" | "Equal" => {
                let bad = names::label_value(value);
                if !bad.is_empty() {
                    errors.push(FieldError::invalid(&path.child("operator"), value, bad.join(";")));
                }
            }
            "Exists" => {
                if !value.is_empty() {
                    let why = "value must be empty when `operator` is 'Exists'";
                    errors.push(FieldError::invalid(&path.child("operator"), value, why));
                }
            }
            other => supported_of(errors, &path.child("operator"), Some(other), &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            supported_of(errors, &path.child("effect"), Some(effect), &EFFECTS);
        }
    }
}

/// The taints of a node.
pub(in crate::validation) fn taints(errors: &mut Errors, path: &Path<'_>, taints: List<'_, Taint<'_>>) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        let (key, value) = (taint.key().unwrap_or(""), taint.value().unwrap_or(""));
        problems(errors, &path.child("key"), key, names::qualified_name(key));
        let bad = names::label_value(value);
        if !bad.is_empty() {
            errors.push(FieldError::invalid(&path.child("value"), value, bad.join(";")));
        }
        required_of(errors, &path.child("effect"), taint.effect(), &EFFECTS);
        if !seen.insert((taint.effect(), key)) {
            let mut error = FieldError::duplicate(&path, super::super::fields::json_map(taint.0));
            "taints must be unique by key and effect pair".clone_into(&mut error.detail);
            errors.push(error);
        }
    }
}

pub(super) fn spread(errors: &mut Errors, path: &Path<'_>, list: List<'_, TopologySpreadConstraint<'_>>) {
    for (i, constraint) in list.iter().enumerate() {
        let path = path.index(i);
        let skew = constraint.max_skew().unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(&path.child("maxSkew"), skew, "must be greater than zero"));
        }
        let key = constraint.topology_key().unwrap_or("");
        if key.is_empty() {
            errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
        } else {
            problems(errors, &path.child("topologyKey"), key, names::qualified_name(key));
        }
        let action = constraint.when_unsatisfiable().unwrap_or("");
        supported_of(errors, &path.child("whenUnsatisfiable"), Some(action), &["DoNotSchedule", "ScheduleAnyway"]);
        let again = list.iter().skip(i + 1);
        if again.clone().any(|other| {
            other.topology_key().unwrap_or("") == key && other.when_unsatisfiable().unwrap_or("") == action
        }) {
            let shown = format!("{{{key}, {action}}}");
            errors.push(FieldError::duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), shown));
        }
        if let Some(domains) = constraint.min_domains() {
            if domains <= 0 {
                errors.push(FieldError::invalid(&path.child("minDomains"), domains, "must be greater than zero"));
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(&path.child("minDomains"), domains, why));
            }
        }
        let policies = ["Honor", "Ignore"];
        supported_of(errors, &path.child("nodeAffinityPolicy"), constraint.node_affinity_policy(), &policies);
        supported_of(errors, &path.child("nodeTaintsPolicy"), constraint.node_taints_policy(), &policies);
        let keys = constraint.match_label_keys();
        label_keys(errors, &path.child("matchLabelKeys"), "topology", keys, constraint.label_selector());
        label_selector(errors, &path.child("labelSelector"), constraint.label_selector());
    }
}

pub(super) fn gates(errors: &mut Errors, path: &Path<'_>, gates: List<'_, PodSchedulingGate<'_>>) {
    let mut seen = BTreeSet::new();
    for (i, gate) in gates.iter().enumerate() {
        let name = gate.name().unwrap_or("");
        problems(errors, &path.index(i), name, names::qualified_name(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.index(i), name));
        }
    }
}

/// The claims of a pod, by name.
pub(super) fn claims<'a>(
    errors: &mut Errors,
    path: &Path<'_>,
    list: List<'a, crate::view::core_v1::PodResourceClaim<'a>>,
) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (i, claim) in list.iter().enumerate() {
        let path = path.index(i);
        let name = claim.name().unwrap_or("");
        if required(errors, &path.child("name"), Some(name)) {
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            } else {
                problems(errors, &path.child("name"), name, names::dns1123_label(name));
            }
        }
        let (own, template) = (claim.resource_claim_name(), claim.resource_claim_template_name());
        let shown = || super::super::fields::json_map(claim.0);
        match (own, template) {
            (None, None) => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(FieldError::invalid(&path, shown(), why));
            }
            (Some(_), Some(_)) => {
                let why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(FieldError::invalid(&path, shown(), why));
            }
            _ => {}
        }
        for (field, name) in [("resourceClaimName", own), ("resourceClaimTemplateName", template)] {
            if let Some(name) = name {
                problems(errors, &path.child(field), name, names::dns1123_subdomain(name));
            }
        }
    }
    seen
}
