//! What a pod's status may say.

use super::super::fields::{Errors, immutable, ip, parse_ip, problems, shape, supported_of};
use super::{Options, annotations};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::core_v1::{Container, Pod, PodSpec, PodStatus, ResourceClaim, ResourceStatus};
use api::field::Raw;
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const STATUS: Path<'static> = Path::root("status");
static EMPTY: Map = Map::new();

// The spec is that of the pod before, which nobody may have read yet: it is asked only where the status says what depends on it.
pub(super) fn status(errors: &mut Errors, new: Pod<'_>, old: Pod<'_>, options: Options<'_>) {
    annotations::update(errors, new, old, options);
    let (status, was) = (new.status().unwrap_or(PodStatus(&EMPTY)), old.status().unwrap_or(PodStatus(&EMPTY)));
    let (spec, old_spec) = (new.spec().unwrap_or(PodSpec(&EMPTY)), old.spec().unwrap_or(PodSpec(&EMPTY)));
    conditions(errors, status);
    if !spec.0.is(old_spec.0) && spec.node_name().unwrap_or("") != old_spec.node_name().unwrap_or("") {
        errors.push(FieldError::forbidden(&STATUS.child("nodeName"), "may not be changed directly"));
    }
    let nominated = status.nominated_node_name().unwrap_or("");
    if !nominated.is_empty() && was.nominated_node_name() != Some(nominated) {
        problems(errors, &STATUS.child("nominatedNodeName"), nominated, names::dns1123_subdomain(nominated));
    }
    immutable(errors, &STATUS.child("qosClass"), status.0.get("qosClass"), was.0.get("qosClass"));
    transitions(errors, status, was, old_spec);
    claims(errors, status, spec);
    addresses(errors, status, was);
    users(errors, status, spec);
    health(errors, status, spec);
}

/// Containers of one kind that a pod has.
type Containers = for<'a> fn(PodSpec<'a>) -> List<'a, Container<'a>>;

/// Resources whose health is told are those that a container asks for, each device once. Ephemeral containers ask for none.
fn health(errors: &mut Errors, status: PodStatus<'_>, spec: PodSpec<'_>) {
    let kinds: [(_, _, Containers); 2] = [
        ("containerStatuses", status.container_statuses(), |spec| spec.containers()),
        ("initContainerStatuses", status.init_container_statuses(), |spec| spec.init_containers()),
    ];
    for (field, statuses, containers) in kinds {
        let lists = STATUS.child(field);
        for (i, one) in statuses.iter().enumerate().filter(|(_, one)| !one.allocated_resources_status().is_empty()) {
            let container = containers(spec).iter().find(|container| container.name() == one.name());
            let path = lists.index(i);
            let path = path.child("allocatedResourcesStatus");
            for (i, told) in one.allocated_resources_status().iter().enumerate() {
                resource_health(errors, &path.index(i), told, container);
            }
        }
    }
    let lists = STATUS.child("ephemeralContainerStatuses");
    for (i, one) in status.ephemeral_container_statuses().iter().enumerate() {
        if !one.allocated_resources_status().is_empty() {
            let path = lists.index(i);
            let why = "must not be specified in container status";
            errors.push(FieldError::forbidden(&path.child("allocatedResourcesStatus"), why));
        }
    }
}

/// A container that is not there is of a pod that changed meanwhile.
fn resource_health(errors: &mut Errors, path: &Path<'_>, told: ResourceStatus<'_>, container: Option<Container<'_>>) {
    let name = told.name().unwrap_or("");
    if let Some(container) = container {
        let asked = container.resources();
        let (asked, why) = if name.starts_with("claim:") {
            let is = |claim: ResourceClaim<'_>| {
                let (claim, request) = (claim.name().unwrap_or(""), claim.request().unwrap_or(""));
                name == if request.is_empty() { format!("claim:{claim}") } else { format!("claim:{claim}/{request}") }
            };
            (
                asked.is_some_and(|asked| asked.claims().iter().any(is)),
                "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
            )
        } else {
            let asked = asked.is_some_and(|asked| asked.requests().contains_key(name));
            (asked, "must match one of the container's resource requests")
        };
        if !asked {
            errors.push(FieldError::invalid(&path.child("name"), name, why));
        }
    }
    let mut seen = BTreeSet::new();
    let resources = path.child("resources");
    for (i, device) in told.resources().iter().enumerate() {
        let path = resources.index(i);
        let health = ["Healthy", "Unhealthy", "Unknown"];
        supported_of(errors, &path.child("health"), Some(device.health().unwrap_or("")), &health);
        let id = device.resource_id().unwrap_or("");
        if !seen.insert(id) {
            errors.push(FieldError::duplicate(&path.child("resourceID"), id));
        }
    }
}

/// Conditions of others have qualified names. Their path is upstream's.
fn conditions(errors: &mut Errors, status: PodStatus<'_>) {
    let metadata = Path::root("metadata");
    let path = metadata.child("conditions");
    for (i, condition) in status.conditions().iter().enumerate() {
        let kind = condition.type_().unwrap_or("");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            problems(errors, &path.index(i).child("Type"), kind, names::qualified_name(kind));
        }
    }
}

/// Containers that are over and may not start again stay over.
fn transitions(errors: &mut Errors, status: PodStatus<'_>, was: PodStatus<'_>, spec: PodSpec<'_>) {
    let kinds: [(_, Option<Containers>); 3] = [
        ("containerStatuses", Some(|spec| spec.containers())),
        ("initContainerStatuses", Some(|spec| spec.init_containers())),
        ("ephemeralContainerStatuses", None),
    ];
    for (field, own) in kinds {
        let list = |status: PodStatus<'_>| status.0.get(field).and_then(Value::as_list).unwrap_or_default().to_vec();
        let now = list(status);
        for (i, was) in list(was).iter().filter_map(Value::as_map).enumerate() {
            let name = was.str_at(&["name"]);
            let Some(over) = was.at(&["state", "terminated"]).and_then(Value::as_map) else { continue };
            // Ephemeral containers never start again.
            let restart = if own.is_some() { spec.restart_policy().unwrap_or("") } else { "Never" };
            if restart == "Always" {
                break;
            }
            let failed = over.get("exitCode").and_then(Value::as_i64).unwrap_or(0) != 0;
            let container = own.and_then(|own| own(spec).iter().find(|container| container.name() == Some(name)));
            let may_restart = container.is_some_and(|container| {
                !container.restart_policy_rules().is_empty()
                    || match container.restart_policy() {
                        Some("Always") => true,
                        Some("OnFailure") => failed,
                        _ => false,
                    }
            });
            if may_restart || failed && restart == "OnFailure" {
                continue;
            }
            let again = |now: &Map| now.str_at(&["name"]) == name && now.at(&["state", "terminated"]).is_none();
            if now.iter().filter_map(Value::as_map).any(again) {
                let path = STATUS.child(field);
                let why = "may not be transitioned to non-terminated state";
                errors.push(FieldError::forbidden(&path.index(i).child("state"), why));
            }
        }
    }
}

fn claims(errors: &mut Errors, status: PodStatus<'_>, spec: PodSpec<'_>) {
    let path = STATUS.child("resourceClaimStatuses");
    let mut seen = BTreeSet::new();
    for (i, claim) in status.resource_claim_statuses().iter().enumerate() {
        let path = path.index(i);
        let path = path.child("name");
        let name = claim.name().unwrap_or("");
        if !spec.resource_claims().iter().any(|own| own.name() == Some(name)) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            errors.push(FieldError::invalid(&path, name, why));
        }
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path, name));
        }
        if let Some(made) = claim.resource_claim_name() {
            problems(errors, &path, made, names::dns1123_subdomain(made));
        }
    }
}

fn addresses(errors: &mut Errors, status: PodStatus<'_>, was: PodStatus<'_>) {
    let pods: Vec<&str> = status.pod_ips().iter().map(|one| one.ip().unwrap_or("")).collect();
    let hosts: Vec<&str> = status.host_ips().iter().map(|one| one.ip().unwrap_or("")).collect();
    let known: Vec<&str> = was.pod_ips().iter().filter_map(|one| one.ip()).collect();
    let known_hosts: Vec<&str> = was.host_ips().iter().filter_map(|one| one.ip()).collect();
    family_pair(errors, &STATUS.child("podIPs"), &pods, &known);
    let path = STATUS.child("hostIPs");
    if let Some(first) = hosts.first()
        && status.host_ip().unwrap_or("") != *first
    {
        errors.push(FieldError::invalid(&path.index(0).child("ip"), *first, "must be equal to `hostIP`"));
    }
    family_pair(errors, &path, &hosts, &known_hosts);
}

/// Addresses: at most one of each family. Those that were there before are not looked at.
fn family_pair(errors: &mut Errors, path: &Path<'_>, list: &[&str], known: &[&str]) {
    for (i, address) in list.iter().enumerate().filter(|(_, address)| !known.contains(address)) {
        ip(errors, &path.index(i), address);
    }
    if list.len() < 2 {
        return;
    }
    let families: Vec<bool> = list.iter().filter_map(|address| parse_ip(address)).map(|ip| ip.is_ipv4()).collect();
    if list.len() > 2 || families.len() == 2 && families[0] == families[1] {
        let shown: Vec<String> =
            list.iter().map(|address| shape(&[("IP", Raw(api::field::go_quote(address)))]).0).collect();
        let why = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid(path, Raw(format!("[{}]", shown.join(","))), why));
    }
}

/// Users of containers, as the runtime tells them.
fn users(errors: &mut Errors, status: PodStatus<'_>, spec: PodSpec<'_>) {
    const ID: &str = "must be between 0 and 2147483647, inclusive";
    let is_windows = || spec.os().and_then(|os| os.name()) == Some("windows");
    for (field, list) in [
        ("containerStatuses", status.container_statuses()),
        ("initContainerStatuses", status.init_container_statuses()),
        ("ephemeralContainerStatuses", status.ephemeral_container_statuses()),
    ] {
        for (i, one) in list.iter().enumerate() {
            let Some(linux) = one.user().and_then(|user| user.linux()) else { continue };
            let lists = STATUS.child(field);
            let path = lists.index(i);
            let path = path.child("user.linux");
            if is_windows() {
                errors.push(FieldError::forbidden(&path, "cannot be set for a windows pod"));
                continue;
            }
            let bad = |id: i64| !(0..=i64::from(i32::MAX)).contains(&id);
            for (name, id) in [("uid", linux.uid()), ("gid", linux.gid())] {
                if let Some(id) = id.filter(|id| bad(*id)) {
                    errors.push(FieldError::invalid(&path.child(name), id, ID));
                }
            }
            for (i, id) in List::iter(linux.supplemental_groups()).enumerate().filter(|(_, id)| bad(*id)) {
                let path = path.child("supplementalGroups");
                errors.push(FieldError::invalid(&path.index(i), id, ID));
            }
        }
    }
}
