//! admissionregistration.k8s.io: webhooks. Policies are in [`super::policies`], with which they share rules and conditions.
//!
//! The expressions themselves are checked where they are compiled.

use super::fields::{Errors, Values, json_list, label_selector_with, problems, required, same, supported_of};
use super::webhook::{Service, client, review_versions, speaks};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::admissionregistration_v1::{
    MatchCondition, MutatingWebhook, NamedRuleWithOperations, RuleWithOperations, ValidatingWebhook,
};
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const WEBHOOKS: Path<'static> = Path::root("webhooks");
pub(super) const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
pub(super) const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const MAX_CONDITIONS: usize = 64;

/// What is demanded of webhooks; an update demands no more than what the stored object fulfils.
struct Demands {
    match_conditions: bool,
    no_side_effects: bool,
    recognized_versions: bool,
    unique_names: bool,
    values_of_selectors: Values,
}

fn hooks(object: &Map) -> &[Value] {
    object.get("webhooks").and_then(Value::as_list).unwrap_or_default()
}

impl Demands {
    const ALL: Demands = Demands {
        match_conditions: true,
        no_side_effects: true,
        recognized_versions: true,
        unique_names: true,
        values_of_selectors: Values::Checked,
    };

    fn of_update(new: &Map, old: &Map) -> Self {
        let were: Vec<ValidatingWebhook<'_>> = List::new(hooks(old)).iter().collect();
        let conditions = |object: &Map| -> Vec<Option<Value>> {
            hooks(object)
                .iter()
                .map(|hook| hook.as_map().and_then(|hook| hook.get("matchConditions")).cloned())
                .collect()
        };
        let (now, was) = (conditions(new), conditions(old));
        let unchanged =
            now.len() == was.len() && now.iter().zip(&was).all(|(now, was)| same(now.as_ref(), was.as_ref()));
        let mut names = BTreeSet::new();
        Demands {
            match_conditions: !unchanged,
            no_side_effects: were.iter().all(|hook| NO_SIDE_EFFECTS.contains(&hook.side_effects().unwrap_or(""))),
            recognized_versions: were.iter().all(|hook| {
                let versions = hook.admission_review_versions();
                versions.is_empty() || versions.iter().any(speaks)
            }),
            unique_names: were.iter().all(|hook| names.insert(hook.name().unwrap_or(""))),
            values_of_selectors: were
                .iter()
                .flat_map(|hook| [hook.namespace_selector(), hook.object_selector()])
                .map(Values::after)
                .find(|values| *values == Values::Any)
                .unwrap_or(Values::Checked),
        }
    }
}

fn selectors(errors: &mut Errors, path: &Path<'_>, hook: ValidatingWebhook<'_>, values: Values) {
    label_selector_with(errors, &path.child("namespaceSelector"), hook.namespace_selector(), values);
    label_selector_with(errors, &path.child("objectSelector"), hook.object_selector(), values);
}

pub(super) fn validating(object: &Map) -> Errors {
    configuration(object, &Demands::ALL, false)
}

pub(super) fn validating_update(_: &str, new: &Map, old: &Map) -> Errors {
    configuration(new, &Demands::of_update(new, old), false)
}

pub(super) fn mutating(object: &Map) -> Errors {
    configuration(object, &Demands::ALL, true)
}

pub(super) fn mutating_update(_: &str, new: &Map, old: &Map) -> Errors {
    configuration(new, &Demands::of_update(new, old), true)
}

fn configuration(object: &Map, demands: &Demands, mutating: bool) -> Errors {
    let mut errors = Errors::new();
    let mut seen = BTreeSet::new();
    // A mutating webhook has all that a validating one has, and a policy more.
    for (i, map) in hooks(object).iter().enumerate().filter_map(|(i, hook)| Some((i, hook.as_map()?))) {
        let path = WEBHOOKS.index(i);
        let hook = ValidatingWebhook(map);
        let reinvocation = MutatingWebhook(map).reinvocation_policy().filter(|_| mutating);
        webhook(&mut errors, &path, hook, demands, reinvocation);
        let path_versions = path.child("admissionReviewVersions");
        let missing = "must specify one of v1, v1beta1";
        let versions = hook.admission_review_versions();
        review_versions(&mut errors, &path_versions, versions, demands.recognized_versions, missing);
        let name = hook.name().unwrap_or("");
        if demands.unique_names && !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
    }
    errors
}

fn webhook(
    errors: &mut Errors,
    path: &Path<'_>,
    hook: ValidatingWebhook<'_>,
    demands: &Demands,
    reinvocation: Option<&str>,
) {
    fully_qualified(errors, &path.child("name"), hook.name().unwrap_or(""));
    for (i, rule) in hook.rules().iter().enumerate() {
        rule_with_operations(errors, &path.child("rules").index(i), rule);
    }
    supported_of(errors, &path.child("failurePolicy"), hook.failure_policy(), &FAILURE_POLICIES);
    supported_of(errors, &path.child("matchPolicy"), hook.match_policy(), &MATCH_POLICIES);
    let effects: &[&str] = if demands.no_side_effects { &NO_SIDE_EFFECTS } else { &SIDE_EFFECTS };
    if hook.side_effects().is_none() {
        let why = format!("must specify one of {}", effects.join(", "));
        errors.push(FieldError::required(&path.child("sideEffects"), why));
    }
    supported_of(errors, &path.child("sideEffects"), hook.side_effects(), effects);
    if let Some(seconds) = hook.timeout_seconds().filter(|seconds| !(1..=30).contains(seconds)) {
        let why = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(&path.child("timeoutSeconds"), seconds, why));
    }
    selectors(errors, path, hook, demands.values_of_selectors);
    supported_of(errors, &path.child("reinvocationPolicy"), reinvocation, &REINVOCATION_POLICIES);
    let config = hook.client_config();
    let service = config.and_then(|config| config.service()).map(|service| Service {
        name: service.name().unwrap_or(""),
        namespace: service.namespace().unwrap_or(""),
        path: service.path(),
        port: service.port().unwrap_or(0),
    });
    client(errors, &path.child("clientConfig"), config.and_then(|config| config.url()), service);
    if demands.match_conditions {
        match_conditions(errors, &path.child("matchConditions"), hook.match_conditions());
    }
}

/// A name of at least three parts.
fn fully_qualified(errors: &mut Errors, path: &Path<'_>, name: &str) {
    if !required(errors, path, Some(name)) {
        return;
    }
    let bad = names::dns1123_subdomain(name);
    if !bad.is_empty() {
        errors.push(FieldError::invalid(path, name, bad.join(",")));
    } else if name.split('.').count() < 3 {
        let why = "should be a domain with at least three segments separated by dots";
        errors.push(FieldError::invalid(path, name, why));
    }
}

pub(super) fn match_conditions(errors: &mut Errors, path: &Path<'_>, list: List<'_, MatchCondition<'_>>) {
    if list.len() > MAX_CONDITIONS {
        errors.push(FieldError::too_many(path, list.len(), MAX_CONDITIONS));
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in list.iter().enumerate() {
        let path = path.index(i);
        required(errors, &path.child("expression"), condition.expression().map(str::trim));
        let name = condition.name().unwrap_or("");
        if required(errors, &path.child("name"), Some(name)) {
            problems(errors, &path.child("name"), name, names::qualified_name(name));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&path.child("name"), name));
            }
        }
    }
}

/// Whether a list says `*`.
fn has_wildcard(list: List<'_, &str>) -> bool {
    list.iter().any(|item| item == "*")
}

/// `*` stands alone.
fn lonely_wildcard(errors: &mut Errors, path: &Path<'_>, list: List<'_, &str>, what: &str) {
    if list.len() > 1 && has_wildcard(list) {
        let why = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(path, json_list(list), why));
    }
}

pub(super) fn named_rule(errors: &mut Errors, path: &Path<'_>, rule: NamedRuleWithOperations<'_>) {
    let names_path = path.child("resourceNames");
    let mut seen = BTreeSet::new();
    for (i, name) in rule.resource_names().iter().enumerate() {
        problems(errors, &names_path.index(i), name, names::path_segment(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&names_path.index(i), name));
        }
    }
    rule_with_operations(errors, path, RuleWithOperations(rule.0));
}

fn rule_with_operations(errors: &mut Errors, path: &Path<'_>, rule: RuleWithOperations<'_>) {
    let operations = path.child("operations");
    if rule.operations().is_empty() {
        errors.push(FieldError::required(&operations, ""));
    }
    lonely_wildcard(errors, &operations, rule.operations(), "operations");
    for (i, operation) in rule.operations().iter().enumerate() {
        supported_of(errors, &operations.index(i), Some(operation), &OPERATIONS);
    }
    let groups = path.child("apiGroups");
    if rule.api_groups().is_empty() {
        errors.push(FieldError::required(&groups, ""));
    }
    lonely_wildcard(errors, &groups, rule.api_groups(), "API groups");
    let versions = path.child("apiVersions");
    if rule.api_versions().is_empty() {
        errors.push(FieldError::required(&versions, ""));
    }
    lonely_wildcard(errors, &versions, rule.api_versions(), "API versions");
    for (i, _) in rule.api_versions().iter().enumerate().filter(|(_, version)| version.is_empty()) {
        errors.push(FieldError::required(&versions.index(i), ""));
    }
    resources(errors, &path.child("resources"), rule.resources());
    supported_of(errors, &path.child("scope"), rule.scope(), &["*", "Cluster", "Namespaced"]);
}

/// Resources and subresources, none of which another one covers.
fn resources(errors: &mut Errors, path: &Path<'_>, list: List<'_, &str>) {
    if list.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut all_of_resource, mut all_of_subresource) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for (i, item) in list.iter().enumerate() {
        if item.is_empty() {
            errors.push(FieldError::required(&path.index(i), ""));
            continue;
        }
        let Some((resource, subresource)) = item.split_once('/') else {
            plain = item != "*";
            continue;
        };
        if all_of_resource.contains(resource) {
            let why = format!("if '{resource}/*' is present, must not specify {item}");
            errors.push(FieldError::invalid(&path.index(i), item, why));
        }
        if all_of_subresource.contains(subresource) {
            let why = format!("if '*/{subresource}' is present, must not specify {item}");
            errors.push(FieldError::invalid(&path.index(i), item, why));
        }
        if subresource == "*" {
            all_of_resource.insert(resource);
        }
        if resource == "*" {
            all_of_subresource.insert(subresource);
        }
    }
    if list.len() > 1 && list.iter().any(|item| item == "*/*") {
        let why = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, json_list(list), why));
    }
    if plain && has_wildcard(list) {
        let why = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, json_list(list), why));
    }
}
