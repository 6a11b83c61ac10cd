//! Where a pod may run: affinities, tolerations, spreading, gates.

use super::super::fields::{
    Errors, Values, label_selector, label_selector_with, problems, required, required_of, supported_of,
};
use super::Options;
use super::options::LabelKeys;
use crate::validation::shown::{POD_RESOURCE_CLAIM, TAINT, shown};
use crate::view::List;
use crate::view::core_v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodResourceClaim,
    PodSchedulingGate, PodSchedulingGroup, Taint, Toleration, TopologySpreadConstraint, WeightedPodAffinityTerm,
};
use crate::view::meta_v1::LabelSelector;
use api::{FieldError, Path, names};
use std::collections::{BTreeMap, BTreeSet};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";
const IN_SELECTOR: &str = "exists in both matchLabelKeys and labelSelector";
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

pub(super) fn affinity(errors: &mut Errors, path: &Path<'_>, affinity: Option<Affinity<'_>>, options: Options<'_>) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = affinity.node_affinity() {
        let path = path.child("nodeAffinity");
        if let Some(selector) = node.required_during_scheduling_ignored_during_execution() {
            node_selector_with(errors, &path.child(REQUIRED), selector, options.node_values());
        }
        for (i, term) in node.preferred_during_scheduling_ignored_during_execution().iter().enumerate() {
            let terms = path.child(PREFERRED);
            let path = terms.index(i);
            weight(errors, &path, term.weight());
            if let Some(preference) = term.preference() {
                node_term(errors, &path.child("preference"), preference, Values::Any);
            }
        }
    }
    let values = options.affinity_values();
    for (field, required, preferred) in pod_terms(affinity) {
        let path = path.child(field);
        for (i, term) in required.iter().enumerate() {
            pod_term(errors, &path.child(REQUIRED).index(i), term, values);
        }
        let path = path.child(PREFERRED);
        for (i, term) in preferred.iter().enumerate() {
            let path = path.index(i);
            weight(errors, &path, term.weight());
            if let Some(term) = term.pod_affinity_term() {
                pod_term(errors, &path.child("podAffinityTerm"), term, values);
            }
        }
    }
}

type PodTerms<'a> = (&'static str, List<'a, PodAffinityTerm<'a>>, List<'a, WeightedPodAffinityTerm<'a>>);

/// The terms by which a pod is drawn to others and away from them, each with the name of their field.
pub(super) fn pod_terms<'a>(affinity: Affinity<'a>) -> impl Iterator<Item = PodTerms<'a>> {
    let to = affinity.pod_affinity().map(|affinity| {
        let required = affinity.required_during_scheduling_ignored_during_execution();
        ("podAffinity", required, affinity.preferred_during_scheduling_ignored_during_execution())
    });
    let away = affinity.pod_anti_affinity().map(|affinity| {
        let required = affinity.required_during_scheduling_ignored_during_execution();
        ("podAntiAffinity", required, affinity.preferred_during_scheduling_ignored_during_execution())
    });
    to.into_iter().chain(away)
}

/// Whether selectors of other pods are such that they are refused today.
pub(super) fn has_bad_selectors(affinity: Affinity<'_>) -> bool {
    let mut errors = Errors::new();
    let path = Path::root("affinity");
    for (_, required, preferred) in pod_terms(affinity) {
        let preferred = preferred.iter().filter_map(|term| term.pod_affinity_term());
        for term in required.iter().chain(preferred) {
            selectors(&mut errors, &path, term, Values::Checked);
        }
    }
    !errors.is_empty()
}

/// Whether the nodes that are required have labels of values that labels can't have.
pub(super) fn has_bad_node_values(affinity: Affinity<'_>) -> bool {
    let required =
        affinity.node_affinity().and_then(|nodes| nodes.required_during_scheduling_ignored_during_execution());
    required.is_some_and(has_bad_values)
}

/// Whether a node selector has values that labels can't have.
pub(in crate::validation) fn has_bad_values(selector: NodeSelector<'_>) -> bool {
    let mut values = selector
        .node_selector_terms()
        .iter()
        .flat_map(|term| term.match_expressions().iter().collect::<Vec<_>>())
        .flat_map(|requirement| requirement.values().iter().collect::<Vec<_>>());
    values.any(|value| !names::label_value(value).is_empty())
}

fn weight(errors: &mut Errors, path: &Path<'_>, weight: Option<i64>) {
    let weight = weight.unwrap_or(0);
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&path.child("weight"), weight, "must be in the range 1-100"));
    }
}

/// A node selector: at least one term.
pub(in crate::validation) fn node_selector(errors: &mut Errors, path: &Path<'_>, selector: NodeSelector<'_>) {
    node_selector_with(errors, path, selector, Values::Checked);
}

/// The same; `values`: those of its expressions.
pub(in crate::validation) fn node_selector_with(
    errors: &mut Errors,
    path: &Path<'_>,
    selector: NodeSelector<'_>,
    values: Values,
) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms().is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms().iter().enumerate() {
        node_term(errors, &path.index(i), term, values);
    }
}

fn node_term(errors: &mut Errors, path: &Path<'_>, term: NodeSelectorTerm<'_>, values: Values) {
    for (i, requirement) in term.match_expressions().iter().enumerate() {
        let list = path.child("matchExpressions");
        let path = list.index(i);
        node_requirement(errors, &path, requirement);
        let key = requirement.key().unwrap_or("");
        problems(errors, &path.child("key"), key, names::qualified_name(key));
        for (i, value) in requirement.values().iter().enumerate().filter(|_| values == Values::Checked) {
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

fn selectors(errors: &mut Errors, path: &Path<'_>, term: PodAffinityTerm<'_>, values: Values) {
    label_selector_with(errors, &path.child("labelSelector"), term.label_selector(), values);
    label_selector_with(errors, &path.child("namespaceSelector"), term.namespace_selector(), values);
}

fn pod_term(errors: &mut Errors, path: &Path<'_>, term: PodAffinityTerm<'_>, values: Values) {
    selectors(errors, path, term, values);
    for name in term.namespaces().iter() {
        problems(errors, &path.child("namespace"), name, names::dns1123_label(name));
    }
    merged_keys(errors, path, term.match_label_keys(), term.mismatch_label_keys(), term.label_selector());
    let key = term.topology_key().unwrap_or("");
    if key.is_empty() {
        errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
    }
    problems(errors, &path.child("topologyKey"), key, names::qualified_name(key));
}

/// Keys of labels that become requirements of the selector when a pod is made: that has been done by now. So a key that is
/// required again was in the selector before. `path` is of what has the keys, and upstream's place is one of it.
fn merged_keys(
    errors: &mut Errors,
    path: &Path<'_>,
    keys: List<'_, &str>,
    others: List<'_, &str>,
    selector: Option<LabelSelector<'_>>,
) {
    label_keys(errors, &path.child("matchLabelKeys"), keys, selector);
    label_keys(errors, &path.child("mismatchLabelKeys"), others, selector);
    if keys.is_empty() {
        return;
    }
    if let Some(selector) = selector {
        // The last of a key is its place.
        let places: BTreeMap<&str, usize> = keys.iter().enumerate().map(|(i, key)| (key, i)).collect();
        let mut seen: BTreeSet<&str> = selector.match_labels().iter().map(|(key, _)| key).collect();
        for requirement in selector.match_expressions().iter() {
            let required = requirement.key().unwrap_or("");
            if let Some(i) = places.get(required).filter(|_| seen.contains(required)) {
                errors.push(FieldError::invalid(&path.index(*i), required, IN_SELECTOR));
            }
            seen.insert(required);
        }
    }
    let others: BTreeSet<&str> = others.iter().collect();
    for (i, key) in keys.iter().enumerate().filter(|(_, key)| others.contains(key)) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        errors.push(FieldError::invalid(&path.child("matchLabelKeys").index(i), key, why));
    }
}

fn label_keys(errors: &mut Errors, path: &Path<'_>, keys: List<'_, &str>, selector: Option<LabelSelector<'_>>) {
    if !keys.is_empty() && selector.is_none() {
        errors.push(FieldError::forbidden(path, NO_SELECTOR));
        return;
    }
    for (i, key) in keys.iter().enumerate() {
        problems(errors, &path.index(i), key, names::qualified_name(key));
    }
}

/// Keys of labels that stay beside the selector, which so may not have them.
fn keys_beside(errors: &mut Errors, path: &Path<'_>, keys: List<'_, &str>, selector: Option<LabelSelector<'_>>) {
    if !keys.is_empty() && selector.is_none() {
        errors.push(FieldError::forbidden(path, NO_SELECTOR));
    }
    if keys.is_empty() {
        return;
    }
    let expressions = selector.into_iter().flat_map(|selector| selector.match_expressions().iter());
    let required: BTreeSet<&str> = expressions.filter_map(|requirement| requirement.key()).collect();
    let has = |key: &str| {
        required.contains(key) || selector.is_some_and(|selector| selector.match_labels().contains_key(key))
    };
    for (i, key) in keys.iter().enumerate() {
        problems(errors, &path.index(i), key, names::qualified_name(key));
        if has(key) {
            errors.push(FieldError::invalid(&path.index(i), key, IN_SELECTOR));
        }
    }
}

/// Tolerations; `compares`: they may compare numbers.
pub(in crate::validation) fn tolerations(
    errors: &mut Errors,
    path: &Path<'_>,
    tolerations: List<'_, Toleration<'_>>,
    compares: bool,
) {
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
            "Lt" | "Gt" if compares => {
                let path = path.child("value");
                errors.extend(number_problems(value).into_iter().map(|why| FieldError::invalid(&path, value, why)));
            }
            "Lt" | "Gt" => {
                let supported = ["Equal", "Exists", "Lt", "Gt"];
                errors.push(FieldError::not_supported(&path.child("operator"), operator, &supported));
            }
            other => supported_of(errors, &path.child("operator"), Some(other), &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            supported_of(errors, &path.child("effect"), Some(effect), &EFFECTS);
        }
    }
}

/// What is wrong with a number that taints are compared with.
fn number_problems(text: &str) -> Vec<String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let mut out = Vec::new();
    if text != "0" && (!all_digits || digits.starts_with('0')) {
        out.push("must be a valid decimal integer in canonical form".to_owned());
    }
    out.extend(api::number::int(text).err());
    out
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
            let mut error = FieldError::duplicate(&path, shown(taint.0, TAINT));
            "taints must be unique by key and effect pair".clone_into(&mut error.detail);
            errors.push(error);
        }
    }
}

/// Whether a spread has a selector that is refused today.
pub(super) fn has_bad_spread_selectors(list: List<'_, TopologySpreadConstraint<'_>>) -> bool {
    let mut errors = Errors::new();
    let path = Path::root("labelSelector");
    list.iter().for_each(|constraint| label_selector(&mut errors, &path, constraint.label_selector()));
    !errors.is_empty()
}

/// Whether the keys of labels of a spread are wrong in this way of looking at them.
pub(super) fn has_bad_spread_keys(list: List<'_, TopologySpreadConstraint<'_>>, way: LabelKeys) -> bool {
    let mut errors = Errors::new();
    let path = Path::root("topologySpreadConstraints");
    list.iter().for_each(|constraint| spread_keys(&mut errors, &path, constraint, way));
    !errors.is_empty()
}

fn spread_keys(errors: &mut Errors, path: &Path<'_>, constraint: TopologySpreadConstraint<'_>, way: LabelKeys) {
    let (keys, selector) = (constraint.match_label_keys(), constraint.label_selector());
    match way {
        LabelKeys::Merged => merged_keys(errors, path, keys, List::new(&[]), selector),
        LabelKeys::Beside => keys_beside(errors, &path.child("matchLabelKeys"), keys, selector),
    }
}

pub(super) fn spread(
    errors: &mut Errors,
    path: &Path<'_>,
    list: List<'_, TopologySpreadConstraint<'_>>,
    options: Options<'_>,
) {
    if list.is_empty() {
        return;
    }
    let (way, checks_selectors) = (options.spread_keys(), options.checks_spread_selectors());
    fn pair<'a>(constraint: TopologySpreadConstraint<'a>) -> (&'a str, &'a str) {
        (constraint.topology_key().unwrap_or(""), constraint.when_unsatisfiable().unwrap_or(""))
    }
    // The last of a pair is no repetition for upstream, all before it are.
    let last: BTreeMap<_, usize> = list.iter().map(pair).enumerate().map(|(i, pair)| (pair, i)).collect();
    for (i, constraint) in list.iter().enumerate() {
        let path = path.index(i);
        let skew = constraint.max_skew().unwrap_or(0);
        if skew <= 0 {
            errors.push(FieldError::invalid(&path.child("maxSkew"), skew, "must be greater than zero"));
        }
        let key = constraint.topology_key().unwrap_or("");
        if key.is_empty() {
            errors.push(FieldError::required(&path.child("topologyKey"), "can not be empty"));
        }
        let action = constraint.when_unsatisfiable().unwrap_or("");
        supported_of(errors, &path.child("whenUnsatisfiable"), Some(action), &["DoNotSchedule", "ScheduleAnyway"]);
        if last.get(&(key, action)).is_some_and(|last| *last > i) {
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
        spread_keys(errors, &path, constraint, way);
        if checks_selectors {
            label_selector(errors, &path.child("labelSelector"), constraint.label_selector());
        }
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
    list: List<'a, PodResourceClaim<'a>>,
    is_static: bool,
) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    for (i, claim) in list.iter().enumerate() {
        if is_static {
            errors.push(FieldError::forbidden(&Path::root(""), "static pods do not support resource claims"));
            continue;
        }
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
        let shown = || shown(claim.0, POD_RESOURCE_CLAIM);
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
    list.iter().filter_map(|claim| claim.name()).filter(|name| !name.is_empty()).collect()
}
