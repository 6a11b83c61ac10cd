//! scheduling.k8s.io: workloads and the groups of pods that are scheduled together.
//!
//! Upstream declares these rules beside the types: an update judges only what it changes, and of what may not change it says
//! no more than that.

use super::Features;
use super::conditions::conditions;
use super::fields::{
    Errors, MAX_INT32, at_least, at_most, json, problems, required, same, shape, supported_of, unchangeable,
};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::scheduling_v1alpha2::{
    PodGroup, PodGroupResourceClaim, PodGroupSchedulingConstraints, PodGroupSchedulingPolicy, PodGroupSpec,
    PodGroupTemplate, TypedLocalObjectReference, Workload,
};
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const MAX_TEMPLATES: usize = 8;
const MAX_CLAIMS: usize = 4;
/// Constraints of the topology.
const MAX_TOPOLOGY: usize = 1;
const MODES: [&str; 2] = ["Pod", "PodGroup"];
/// Of priorities: higher ones are the system's.
const HIGHEST: i64 = 1_000_000_000;
const LOWEST: i64 = -MAX_INT32 - 1;

pub(super) fn workload(object: &Map, features: Features) -> Errors {
    let mut errors = Errors::new();
    let spec = Workload(object).spec();
    if let Some(reference) = spec.and_then(|spec| spec.controller_ref()) {
        controller(&mut errors, &SPEC.child("controllerRef"), reference);
    }
    let list = spec.map_or(List::new(&[]), |spec| spec.pod_group_templates());
    let path = SPEC.child("podGroupTemplates");
    if !fits(&mut errors, &path, list) {
        return errors;
    }
    repeated(&mut errors, &path, list.iter().map(|one| (one.name(), template_shown(one))));
    for (i, one) in list.iter().enumerate() {
        template(&mut errors, &path.index(i), one, features);
    }
    errors
}

/// Whether there are templates, and not too many.
fn fits(errors: &mut Errors, path: &Path<'_>, list: List<'_, PodGroupTemplate<'_>>) -> bool {
    let few = at_most(errors, path, list.len(), MAX_TEMPLATES);
    if list.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    few && !list.is_empty()
}

/// All of it stays as it was.
pub(super) fn workload_update(_: &str, new: &Map, old: &Map, _: Features) -> Errors {
    let mut errors = Errors::new();
    unchangeable(
        &mut errors,
        &SPEC.child("controllerRef"),
        new.at(&["spec", "controllerRef"]),
        old.at(&["spec", "controllerRef"]),
    );
    let templates = ["spec", "podGroupTemplates"];
    if unchangeable(&mut errors, &SPEC.child("podGroupTemplates"), new.at(&templates), old.at(&templates)) {
        let list = new.at(&templates).and_then(Value::as_list).unwrap_or_default();
        fits(&mut errors, &SPEC.child("podGroupTemplates"), List::new(list));
    }
    errors
}

fn controller(errors: &mut Errors, path: &Path<'_>, reference: TypedLocalObjectReference<'_>) {
    if let Some(group) = reference.api_group().filter(|group| !group.is_empty()) {
        problems(errors, &path.child("apiGroup"), group, names::dns1123_subdomain(group));
    }
    named(errors, &path.child("kind"), reference.kind(), names::path_segment);
    named(errors, &path.child("name"), reference.name(), names::path_segment);
}

fn named(errors: &mut Errors, path: &Path<'_>, name: Option<&str>, rule: fn(&str) -> Vec<String>) {
    if required(errors, path, name) {
        let name = name.unwrap_or("");
        problems(errors, path, name, rule(name));
    }
}

/// Items whose name another one before them has; they are shown whole.
fn repeated<'a>(errors: &mut Errors, path: &Path<'_>, items: impl Iterator<Item = (Option<&'a str>, api::field::Raw)>) {
    let mut seen = BTreeSet::new();
    for (i, (name, shown)) in items.enumerate() {
        if !seen.insert(name.unwrap_or("")) {
            errors.push(FieldError::duplicate(&path.index(i), shown));
        }
    }
}

/// As Go's JSON has it.
fn template_shown(template: PodGroupTemplate<'_>) -> api::field::Raw {
    let part = |field: &'static str| (field, json(template.0.get(field)));
    let mut shown = vec![part("name"), part("schedulingPolicy"), part("schedulingConstraints")];
    let optional = ["resourceClaims", "disruptionMode", "priorityClassName", "priority"];
    shown.extend(optional.into_iter().filter(|field| template.0.contains_key(field)).map(part));
    shape(&shown)
}

fn claim_shown(claim: &Map) -> api::field::Raw {
    let fields = ["name", "resourceClaimName", "resourceClaimTemplateName"];
    let shown: Vec<_> = fields
        .into_iter()
        .filter(|field| claim.contains_key(field))
        .map(|field| (field, json(claim.get(field))))
        .collect();
    shape(&shown)
}

fn template(errors: &mut Errors, path: &Path<'_>, template: PodGroupTemplate<'_>, features: Features) {
    named(errors, &path.child("name"), template.name(), names::dns1123_label);
    policy(errors, &path.child("schedulingPolicy"), template.scheduling_policy());
    let here = path.child("schedulingConstraints");
    gated(errors, &here, features.workload_topology, template.scheduling_constraints(), constraints);
    claims(errors, &path.child("resourceClaims"), template.resource_claims());
    let rest = Disruption {
        mode: template.disruption_mode(),
        class: template.priority_class_name(),
        priority: template.priority(),
    };
    disruption(errors, path, rest, features);
}

/// What a feature that is off has no place for, and otherwise a rule.
fn gated<T>(errors: &mut Errors, path: &Path<'_>, on: bool, value: Option<T>, rule: fn(&mut Errors, &Path<'_>, T)) {
    match value {
        Some(value) if on => rule(errors, path, value),
        Some(_) => errors.push(FieldError::forbidden(path, "")),
        None => {}
    }
}

/// Exactly one member of a union.
fn one_of(errors: &mut Errors, path: &Path<'_>, members: &[(&str, bool)]) {
    let set: Vec<&str> = members.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    let all: Vec<String> = members.iter().map(|(name, _)| format!("`{name}`")).collect();
    match set.len() {
        1 => {}
        0 => errors.push(FieldError::invalid(path, "", format!("must specify one of: {}", all.join(", ")))),
        _ => {
            let why = format!("must specify exactly one of: {}", all.join(", "));
            errors.push(FieldError::invalid(path, format!("{{{}}}", set.join(", ")), why));
        }
    }
}

fn policy(errors: &mut Errors, path: &Path<'_>, policy: Option<PodGroupSchedulingPolicy<'_>>) {
    let empty = Map::new();
    let policy = policy.unwrap_or(PodGroupSchedulingPolicy(&empty));
    one_of(errors, path, &[("basic", policy.basic().is_some()), ("gang", policy.gang().is_some())]);
    let Some(gang) = policy.gang() else { return };
    let path = path.child("gang");
    match gang.min_count().unwrap_or(0) {
        0 => errors.push(FieldError::required(&path.child("minCount"), "")),
        count => at_least(errors, &path.child("minCount"), count, 1),
    }
}

fn constraints(errors: &mut Errors, path: &Path<'_>, constraints: PodGroupSchedulingConstraints<'_>) {
    let path = path.child("topology");
    if !at_most(errors, &path, constraints.topology().len(), MAX_TOPOLOGY) {
        return;
    }
    for (i, one) in constraints.topology().iter().enumerate() {
        named(errors, &path.index(i).child("key"), one.key(), names::qualified_name);
    }
}

fn claims(errors: &mut Errors, path: &Path<'_>, list: List<'_, PodGroupResourceClaim<'_>>) {
    if !at_most(errors, path, list.len(), MAX_CLAIMS) {
        return;
    }
    repeated(errors, path, list.iter().map(|claim| (claim.name(), claim_shown(claim.0))));
    for (i, claim) in list.iter().enumerate() {
        let path = path.index(i);
        let sources = [
            ("resourceClaimName", claim.resource_claim_name()),
            ("resourceClaimTemplateName", claim.resource_claim_template_name()),
        ];
        one_of(errors, &path, &sources.map(|(field, name)| (field, name.is_some())));
        named(errors, &path.child("name"), claim.name(), names::dns1123_label);
        for (field, name) in sources {
            if let Some(name) = name {
                problems(errors, &path.child(field), name, names::dns1123_subdomain(name));
            }
        }
    }
}

/// How a group is disturbed, and by whom.
struct Disruption<'a> {
    mode: Option<&'a str>,
    class: Option<&'a str>,
    priority: Option<i64>,
}

fn disruption(errors: &mut Errors, path: &Path<'_>, of: Disruption<'_>, features: Features) {
    let on = features.workload_preemption;
    gated(errors, &path.child("disruptionMode"), on, of.mode, |errors, path, mode| {
        supported_of(errors, path, Some(mode), &MODES);
    });
    let class = of.class.filter(|class| !class.is_empty());
    gated(errors, &path.child("priorityClassName"), on, class, |errors, path, class| {
        problems(errors, path, class, names::dns1123_subdomain(class));
    });
    gated(errors, &path.child("priority"), on, of.priority, |errors, path, priority| {
        if priority > HIGHEST {
            let why = format!("must be less than or equal to {HIGHEST}");
            errors.push(FieldError::invalid(path, priority, why));
        }
        at_least(errors, path, priority, LOWEST);
    });
}

pub(super) fn group(object: &Map, features: Features) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = PodGroup(object).spec().unwrap_or(PodGroupSpec(&empty));
    if let Some(reference) = spec.pod_group_template_ref() {
        let path = SPEC.child("podGroupTemplateRef");
        one_of(&mut errors, &path, &[("workload", reference.workload().is_some())]);
        if let Some(workload) = reference.workload() {
            let path = path.child("workload");
            named(&mut errors, &path.child("workloadName"), workload.workload_name(), names::dns1123_subdomain);
            let template = workload.pod_group_template_name();
            named(&mut errors, &path.child("podGroupTemplateName"), template, names::dns1123_label);
        }
    }
    policy(&mut errors, &SPEC.child("schedulingPolicy"), spec.scheduling_policy());
    let here = SPEC.child("schedulingConstraints");
    gated(&mut errors, &here, features.workload_topology, spec.scheduling_constraints(), constraints);
    claims(&mut errors, &SPEC.child("resourceClaims"), spec.resource_claims());
    if features.workload_preemption {
        // It has a default.
        required(&mut errors, &SPEC.child("disruptionMode"), spec.disruption_mode());
    }
    let rest =
        Disruption { mode: spec.disruption_mode(), class: spec.priority_class_name(), priority: spec.priority() };
    disruption(&mut errors, &SPEC, rest, features);
    errors
}

pub(super) fn group_update(subresource: &str, new: &Map, old: &Map, features: Features) -> Errors {
    if subresource == "status" {
        return group_status(new, old);
    }
    let mut errors = Errors::new();
    for (field, gate) in [
        ("podGroupTemplateRef", true),
        ("schedulingPolicy", true),
        ("schedulingConstraints", features.workload_topology),
        ("resourceClaims", true),
        ("disruptionMode", features.workload_preemption),
        ("priorityClassName", features.workload_preemption),
        ("priority", features.workload_preemption),
    ] {
        let (now, was) = (new.at(&["spec", field]), old.at(&["spec", field]));
        let path = SPEC.child(field);
        if !gate {
            // What belongs to a feature that is off may go, but not become something else.
            if now.is_some() && !same(now, was) {
                errors.push(FieldError::forbidden(&path, ""));
            }
        } else if unchangeable(&mut errors, &path, now, was) && field == "resourceClaims" {
            at_most(&mut errors, &path, now.and_then(Value::as_list).map_or(0, <[Value]>::len), MAX_CLAIMS);
        }
    }
    errors
}

fn group_status(new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    let Some(status) = PodGroup(new).status() else { return errors };
    conditions(&mut errors, &STATUS.child("conditions"), status.conditions());
    let claims = PodGroup(new).spec().map_or(List::new(&[]), |spec| spec.resource_claims());
    let path = STATUS.child("resourceClaimStatuses");
    let list = status.resource_claim_statuses();
    for (i, one) in list.iter().enumerate() {
        let name = one.name().unwrap_or("");
        if !claims.iter().any(|claim| claim.name() == Some(name)) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&path.index(i).child("name"), name, why));
        }
    }
    let at = ["status", "resourceClaimStatuses"];
    if same(new.at(&at), old.at(&at)) || !at_most(&mut errors, &path, list.len(), MAX_CLAIMS) {
        return errors;
    }
    repeated(&mut errors, &path, list.iter().map(|one| (one.name(), claim_shown(one.0))));
    for (i, one) in list.iter().enumerate() {
        if let Some(name) = one.resource_claim_name() {
            problems(&mut errors, &path.index(i).child("resourceClaimName"), name, names::dns1123_subdomain(name));
        }
    }
    errors
}
