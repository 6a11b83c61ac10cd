//! Requests and limits.

use super::super::fields::{Errors, NEGATIVE, problems, quantity};
use super::Options;
use super::container::of_all_kinds;
use crate::amounts::{is_huge_page, is_pod_level, of_containers};
use crate::tree::Map;
use crate::view::List;
use crate::view::StrMap;
use crate::view::core_v1::{ContainerResizePolicy, PodSpec, ResourceRequirements};
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

/// Resources that need no domain in their name.
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
const INTEGERS: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

pub(in crate::validation) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(in crate::validation) fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

pub(in crate::validation) fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !is_huge_page(name)
}

/// A resource's amount: not negative, and whole where only whole ones exist.
pub(in crate::validation) fn amount(errors: &mut Errors, path: &Path<'_>, name: &str, value: &str) {
    let amount = quantity(value);
    if amount.signum() < 0 {
        errors.push(FieldError::invalid(path, value, NEGATIVE));
    }
    if (INTEGERS.contains(&name) || is_extended(name)) && !amount.is_whole() {
        errors.push(FieldError::invalid(path, value, "must be an integer"));
    }
}

/// The name of a resource anywhere.
pub(in crate::validation) fn resource_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let bad = names::qualified_name(name);
    if !bad.is_empty() {
        problems(errors, path, name, bad);
        return;
    }
    let huge = is_huge_page(name) || name.starts_with("requests.hugepages-");
    if !name.contains('/') && !STANDARD.contains(&name) && !huge {
        let why = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(path, name, why));
    }
}

pub(in crate::validation) fn container_resource_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    resource_name(errors, path, name);
    if !name.contains('/') {
        if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
            errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// Whether an amount is no multiple of the size of its pages.
fn is_split(name: &str, value: &str) -> bool {
    let size = quantity(name.strip_prefix("hugepages-").unwrap_or(name));
    let amount = quantity(value);
    size.signum() <= 0 || amount.signum() < 0 || amount.nanos() % size.nanos() != 0
}

/// Whether something in a spec asks for a part of a huge page, as was allowed before.
pub(super) fn splits_huge_pages(spec: PodSpec<'_>) -> bool {
    let split = |list: StrMap<'_>| list.iter().any(|(name, value)| is_huge_page(name) && is_split(name, value));
    let asked = |resources: ResourceRequirements<'_>| split(resources.limits()) || split(resources.requests());
    of_all_kinds(spec).any(|(.., container)| container.resources().is_some_and(asked))
        || spec.resources().is_some_and(asked)
        || split(spec.overhead())
}

fn huge_page(errors: &mut Errors, path: &Path<'_>, name: &str, value: &str) {
    if is_split(name, value) {
        let why = format!("{value} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(path, value, why));
    }
}

/// How requests and limits are looked at.
#[derive(Clone, Copy)]
pub(in crate::validation) struct Asked<'a> {
    /// What may be asked for.
    pub name: fn(&mut Errors, &Path<'_>, &str),
    /// The names of the pod's resource claims.
    pub claims: &'a BTreeSet<&'a str>,
    /// Parts of huge pages are let pass.
    pub split: bool,
}

/// Requests and limits.
pub(in crate::validation) fn requirements(
    errors: &mut Errors,
    path: &Path<'_>,
    resources: Option<ResourceRequirements<'_>>,
    asked: Asked<'_>,
) {
    let Some(resources) = resources else { return };
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    let (mut huge, mut compute) = (false, false);
    let mut one = |errors: &mut Errors, path: &Path<'_>, name: &str, value: &str| {
        (asked.name)(errors, path, name);
        amount(errors, path, name, value);
        huge |= is_huge_page(name);
        compute |= matches!(name, "cpu" | "memory");
    };
    let whole = |errors: &mut Errors, path: &Path<'_>, name: &str, value: &str| {
        if is_huge_page(name) && !asked.split {
            huge_page(errors, path, name, value);
        }
    };
    for (name, value) in resources.limits().iter() {
        let path = limits.key(name);
        one(errors, &path, name, value);
        whole(errors, &path, name, value);
    }
    for (name, value) in resources.requests().iter() {
        let path = requests.key(name);
        one(errors, &path, name, value);
        match resources.limits().get(name) {
            Some(limit) => within(errors, &requests, name, value, limit),
            None if !overcommit_allowed(name) => {
                errors.push(FieldError::required(&limits, "Limit must be set for non overcommitable resources"));
            }
            None => {}
        }
        whole(errors, &path, name, value);
    }
    if huge && !compute {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    let mut seen = BTreeSet::new();
    for (i, claim) in resources.claims().iter().enumerate() {
        let path = path.child("claims");
        let path = path.index(i);
        let name = claim.name().unwrap_or("");
        if name.is_empty() {
            errors.push(FieldError::required(&path.child("name"), ""));
            continue;
        }
        let request = claim.request().unwrap_or("");
        if !seen.insert((name, request)) {
            let shown = if request.is_empty() { name.to_owned() } else { format!("{name}/{request}") };
            errors.push(FieldError::duplicate(&path, shown));
        }
        if !asked.claims.contains(name) {
            let mut error = FieldError::not_found(&path.child("name"), name);
            "must be one of the names in pod.spec.resourceClaims".clone_into(&mut error.detail);
            if asked.claims.is_empty() {
                error.detail.push_str(" which is empty");
            } else {
                let names: Vec<&str> = asked.claims.iter().copied().collect();
                error.detail.push_str(&format!(": {}", names.join(", ")));
            }
            errors.push(error);
        }
    }
}

fn within(errors: &mut Errors, path: &Path<'_>, name: &str, value: &str, limit: &str) {
    let (asked, allowed) = (quantity(value).nanos(), quantity(limit).nanos());
    let relation = if asked != allowed && !overcommit_allowed(name) {
        "equal to"
    } else if asked > allowed {
        "less than or equal to"
    } else {
        return;
    };
    errors.push(FieldError::invalid(path, value, format!("must be {relation} {name} limit of {limit}")));
}

fn pod_resource_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let before = errors.len();
    resource_name(errors, path, name);
    if errors.len() == before && !is_pod_level(name) {
        errors.push(FieldError::not_supported(path, name, &["cpu", "hugepages-", "memory"]));
    }
}

/// Requests and limits of a whole pod.
pub(super) fn of_pod(
    errors: &mut Errors,
    path: &Path<'_>,
    spec: PodSpec<'_>,
    claims: &BTreeSet<&str>,
    options: Options<'_>,
) {
    let Some(resources) = spec.resources() else { return };
    if spec.os().and_then(|os| os.name()) == Some("windows") {
        errors.push(FieldError::forbidden(path, "may not be set for a windows pod"));
        return;
    }
    if !resources.claims().is_empty() {
        let why = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(&path.child("claims"), why));
    }
    if options.keeps_spec() {
        return;
    }
    let asked = Asked { name: pod_resource_name, claims, split: options.splits_huge_pages() };
    requirements(errors, path, Some(resources), asked);
    consistent(errors, path, spec, resources);
}

/// A pod asks for no less than its containers do, and none of them is allowed more than it.
fn consistent(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, whole: ResourceRequirements<'_>) {
    let requests = path.child("requests");
    for (name, asked) in of_containers(spec.0, "requests") {
        if let Some(value) = whole.requests().get(&name).filter(|value| asked > quantity(value)) {
            let why = format!("must be greater than or equal to aggregate container requests of {asked}");
            errors.push(FieldError::invalid(&requests.key(&name), value, why));
        }
    }
    let limits = path.child("limits");
    for (name, allowed) in of_containers(spec.0, "limits").into_iter().filter(|(name, _)| is_huge_page(name)) {
        if let Some(value) = whole.limits().get(&name).filter(|value| allowed > quantity(value)) {
            let why = format!("must be greater than or equal to aggregate container limits of {allowed}");
            errors.push(FieldError::invalid(&limits.key(&name), value, why));
        }
    }
    // The path is upstream's.
    let containers = path.child("containers");
    for (i, container) in spec.containers().iter().enumerate() {
        let path = containers.index(i);
        for (name, value) in container.resources().into_iter().flat_map(|resources| resources.limits().iter()) {
            if let Some(limit) = whole.limits().get(name).filter(|limit| quantity(value) > quantity(limit)) {
                let path = path.key(name);
                let why = format!("must be less than or equal to pod limits of {limit}");
                errors.push(FieldError::invalid(&path.child("limits"), value, why));
            }
        }
    }
}

/// What is added for the pod itself, judged as the limits of a container.
pub(in crate::validation) fn overhead(errors: &mut Errors, path: &Path<'_>, overhead: StrMap<'_>, split: bool) {
    let mut requirements = Map::new();
    if let Some(overhead) = overhead.map() {
        requirements.insert("limits", overhead.clone());
    }
    let asked = Asked { name: container_resource_name, claims: &BTreeSet::new(), split };
    self::requirements(errors, path, Some(ResourceRequirements(&requirements)), asked);
}

pub(super) fn resize_policy(
    errors: &mut Errors,
    path: &Path<'_>,
    policies: List<'_, ContainerResizePolicy<'_>>,
    restart: &str,
) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        let name = policy.resource_name().unwrap_or("");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.index(i), name));
        }
        super::super::fields::required_of(errors, path, Some(name), &["cpu", "memory"]);
        let kind = policy.restart_policy().unwrap_or("");
        super::super::fields::required_of(errors, path, Some(kind), &["NotRequired", "RestartContainer"]);
        if restart == "Never" && kind != "NotRequired" {
            let why = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, kind, why));
        }
    }
}
