//! ResourceQuotas: what a namespace may use.

use super::fields::{Errors, json, shape, shown_list};
use super::pod::resources::{amount, resource_name};
use crate::amounts::is_huge_page;
use crate::tree::Map;
use crate::view::StrMap;
use crate::view::core_v1::{ResourceQuota, ResourceQuotaSpec, ScopeSelector, ScopedResourceSelectorRequirement};
use api::field::Raw;
use api::{FieldError, Path};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const STANDARD: [&str; 19] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
];
const COMPUTE: [&str; 6] = ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const CONFLICTS: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["NotTerminating", "Terminating"]];
static EMPTY: Map = Map::new();

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_huge_page(name) || name.starts_with("requests.hugepages-")
}

fn is_scope(scope: &str) -> bool {
    matches!(
        scope,
        "Terminating"
            | "NotTerminating"
            | "BestEffort"
            | "NotBestEffort"
            | "PriorityClass"
            | "CrossNamespacePodAffinity"
            | "VolumeAttributesClass"
    )
}

/// Whether a scope can count a resource.
fn counts(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || COMPUTE.contains(&resource)
        }
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn amounts(errors: &mut Errors, path: &Path<'_>, list: StrMap<'_>) {
    for (name, value) in list.iter() {
        let path = path.key(name);
        resource_name(errors, &path, name);
        if !name.contains('/') && !is_standard(name) {
            errors.push(FieldError::invalid(&path, name, "must be a standard resource for quota"));
        }
        amount(errors, &path, name, value);
    }
}

fn spec_of(object: &Map) -> ResourceQuotaSpec<'_> {
    ResourceQuota(object).spec().unwrap_or(ResourceQuotaSpec(&EMPTY))
}

fn spec_rules(errors: &mut Errors, spec: ResourceQuotaSpec<'_>) {
    amounts(errors, &SPEC.child("hard"), spec.hard());
    let scopes: BTreeSet<&str> = spec.scopes().iter().collect();
    let path = SPEC.child("scopes");
    let shown = || json(spec.0.get("scopes"));
    let unfit = |scope: &str| spec.hard().iter().filter(|(name, _)| is_standard(name) && !counts(scope, name)).count();
    for scope in spec.scopes().iter() {
        if !is_scope(scope) {
            errors.push(FieldError::invalid(&path, shown(), "unsupported scope"));
        }
        for _ in 0..unfit(scope) {
            errors.push(FieldError::invalid(&path, shown(), "unsupported scope applied to resource"));
        }
    }
    conflicts(errors, &path, spec, &scopes);
    let Some(selector) = spec.scope_selector() else { return };
    let path = SPEC.child("scopeSelector");
    let path = path.child("matchExpressions");
    for requirement in selector.match_expressions().iter() {
        let scope = requirement.scope_name().unwrap_or("");
        if !is_scope(scope) {
            errors.push(FieldError::invalid(&path.child("scopeName"), scope, "unsupported scope"));
        }
        for _ in 0..unfit(scope) {
            errors.push(FieldError::invalid(&path, shown_selector(selector), "unsupported scope applied to resource"));
        }
        requirement_rules(errors, &path, scope, requirement);
    }
    let scopes = selector.match_expressions().iter().filter_map(|requirement| requirement.scope_name()).collect();
    conflicts(errors, &path, spec, &scopes);
}

/// A selector as Go writes it.
fn shown_selector(selector: ScopeSelector<'_>) -> Raw {
    let text = |text: Option<&str>| json(Some(&text.unwrap_or("").into()));
    let expressions = selector.match_expressions();
    let expressions = expressions.iter().map(|one| {
        let values = json(one.0.get("values"));
        shape(&[("ScopeName", text(one.scope_name())), ("Operator", text(one.operator())), ("Values", values)])
    });
    shape(&[("MatchExpressions", shown_list(expressions.collect()))])
}

fn conflicts(errors: &mut Errors, path: &Path<'_>, spec: ResourceQuotaSpec<'_>, scopes: &BTreeSet<&str>) {
    for pair in CONFLICTS {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            errors.push(FieldError::invalid(path, json(spec.0.get("scopes")), "conflicting scopes"));
        }
    }
}

fn requirement_rules(
    errors: &mut Errors,
    path: &Path<'_>,
    scope: &str,
    requirement: ScopedResourceSelectorRequirement<'_>,
) {
    let operator = requirement.operator().unwrap_or("");
    let exists_only = matches!(
        scope,
        "BestEffort" | "NotBestEffort" | "Terminating" | "NotTerminating" | "CrossNamespacePodAffinity"
    );
    if exists_only && operator != "Exists" {
        let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(&path.child("operator"), operator, why));
    }
    match operator {
        "In" | "NotIn" if requirement.values().is_empty() => {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(&path.child("values"), why));
        }
        "Exists" | "DoesNotExist" if !requirement.values().is_empty() => {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(&path.child("values"), json(requirement.0.get("values")), why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(FieldError::invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
}

fn status_rules(errors: &mut Errors, object: &Map) {
    let Some(status) = ResourceQuota(object).status() else { return };
    amounts(errors, &STATUS.child("hard"), status.hard());
    amounts(errors, &STATUS.child("used"), status.used());
}

pub(super) fn create(object: &Map) -> Errors {
    let mut errors = Errors::new();
    spec_rules(&mut errors, spec_of(object));
    status_rules(&mut errors, object);
    errors
}

pub(super) fn update(subresource: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    if subresource == "status" {
        status_rules(&mut errors, new);
        return errors;
    }
    spec_rules(&mut errors, spec_of(new));
    let scopes = |map| spec_of(map).scopes().iter().collect::<BTreeSet<&str>>();
    if scopes(new) != scopes(old) {
        let shown = json(new.at(&["spec", "scopes"]));
        errors.push(FieldError::invalid(&SPEC.child("scopes"), shown, super::fields::IMMUTABLE));
    }
    errors
}
