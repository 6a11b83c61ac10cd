//! Requests and limits.

use super::super::fields::{Errors, NEGATIVE, problems, quantity};
use crate::view::List;
use crate::view::StrMap;
use crate::view::core_v1::{ContainerResizePolicy, ResourceRequirements};
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

pub(in crate::validation) fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

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
    if (INTEGERS.contains(&name) || is_extended(name)) && amount.milli_value() % 1000 != 0 {
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

fn huge_page(errors: &mut Errors, path: &Path<'_>, name: &str, value: &str) {
    let size = quantity(name.trim_start_matches("hugepages-"));
    let amount = quantity(value);
    if size.signum() <= 0 || amount.signum() < 0 || amount.nanos() % size.nanos() != 0 {
        let why = format!("{value} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(path, value, why));
    }
}

/// Requests and limits of a container; `claims` are the names of the pod's resource claims.
pub(in crate::validation) fn requirements(
    errors: &mut Errors,
    path: &Path<'_>,
    resources: Option<ResourceRequirements<'_>>,
    claims: &BTreeSet<&str>,
) {
    let Some(resources) = resources else { return };
    let (limits, requests) = (path.child("limits"), path.child("requests"));
    let (mut huge, mut compute) = (false, false);
    for (name, value) in resources.limits().iter() {
        let path = limits.key(name);
        container_resource_name(errors, &path, name);
        amount(errors, &path, name, value);
        if is_huge_page(name) {
            huge = true;
            huge_page(errors, &path, name, value);
        }
        compute |= matches!(name, "cpu" | "memory");
    }
    for (name, value) in resources.requests().iter() {
        let path = requests.key(name);
        container_resource_name(errors, &path, name);
        amount(errors, &path, name, value);
        match resources.limits().get(name) {
            Some(limit) => within(errors, &requests, name, value, limit),
            None if !overcommit_allowed(name) => {
                errors.push(FieldError::required(&limits, "Limit must be set for non overcommitable resources"));
            }
            None => {}
        }
        if is_huge_page(name) {
            huge = true;
            huge_page(errors, &path, name, value);
        }
        compute |= matches!(name, "cpu" | "memory");
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
        if !claims.contains(name) {
            let mut error = FieldError::not_found(&path.child("name"), name);
            "must be one of the names in pod.spec.resourceClaims".clone_into(&mut error.detail);
            if claims.is_empty() {
                error.detail.push_str(" which is empty");
            } else {
                let names: Vec<&str> = claims.iter().copied().collect();
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

/// Requests and limits of a whole pod.
pub(super) fn of_pod(errors: &mut Errors, path: &Path<'_>, resources: Option<ResourceRequirements<'_>>) {
    let Some(resources) = resources else { return };
    for (i, _) in resources.claims().iter().enumerate() {
        let claims = path.child("claims");
        let why = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(&claims.index(i), why));
    }
    let check = |errors: &mut Errors, path: &Path<'_>, list: StrMap<'_>| {
        for (name, value) in list.iter() {
            let path = path.key(name);
            if !matches!(name, "cpu" | "memory") && !is_huge_page(name) {
                let supported = ["cpu", "hugepages-", "memory"];
                errors.push(FieldError::not_supported(&path, name, &supported));
            }
            amount(errors, &path, name, value);
        }
    };
    check(errors, &path.child("limits"), resources.limits());
    check(errors, &path.child("requests"), resources.requests());
    for (name, value) in resources.requests().iter() {
        if let Some(limit) = resources.limits().get(name) {
            within(errors, &path.child("requests"), name, value, limit);
        }
    }
}

/// What is added for the pod itself.
pub(super) fn overhead(errors: &mut Errors, path: &Path<'_>, overhead: StrMap<'_>) {
    for (name, value) in overhead.iter() {
        let path = path.key(name);
        container_resource_name(errors, &path, name);
        amount(errors, &path, name, value);
    }
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
