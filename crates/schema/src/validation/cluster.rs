//! Namespaces, nodes and leases.

use super::fields::{Errors, cidr, json_list, non_negative, problems, same};
use super::leader;
use super::pod::{resources, scheduling};
use super::shown::{NODE_ADDRESS, shown};
use crate::tree::{Map, Value};
use crate::view::coordination_v1::Lease;
use crate::view::core_v1::{Namespace, Node, NodeSpec};
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");

/// A finalizer: one of upstream's own, or one with a domain.
pub(super) fn finalizer(errors: &mut Errors, path: &Path<'_>, name: &str) {
    problems(errors, path, name, names::qualified_name(name));
    if !name.contains('/') && !matches!(name, "kubernetes" | "orphan" | "foregroundDeletion") {
        let why = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(FieldError::invalid(path, name, why));
    }
}

pub(super) fn namespace(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let spec = Namespace(object).spec();
    for name in spec.iter().flat_map(|spec| spec.finalizers().iter()) {
        finalizer(&mut errors, &SPEC.child("finalizers"), name);
    }
    errors
}

pub(super) fn namespace_update(subresource: &str, new: &Map, _: &Map) -> Errors {
    let mut errors = Errors::new();
    match subresource {
        "finalize" => {
            let spec = Namespace(new).spec();
            for (i, name) in spec.iter().flat_map(|spec| spec.finalizers().iter()).enumerate() {
                let path = SPEC.child("finalizers");
                finalizer(&mut errors, &path.index(i), name);
            }
        }
        "status" => {
            let going = !new.str_at(&["metadata", "deletionTimestamp"]).is_empty();
            let phase = new.str_at(&["status", "phase"]);
            let path = STATUS.child("Phase");
            if !going && phase != "Active" {
                let why = "may only be 'Active' if `deletionTimestamp` is empty";
                errors.push(FieldError::invalid(&path, phase, why));
            } else if going && phase != "Terminating" {
                let why = "may only be 'Terminating' if `deletionTimestamp` is not empty";
                errors.push(FieldError::invalid(&path, phase, why));
            }
        }
        _ => {}
    }
    errors
}

fn node_resources(errors: &mut Errors, object: &Map) {
    for field in ["capacity", "allocatable"] {
        let path = STATUS.child(field);
        let list = object.at(&["status", field]).and_then(Value::as_map);
        for (name, value) in list.into_iter().flat_map(Map::iter) {
            resources::amount(errors, &path.child(name), name, value.as_str().unwrap_or("0"));
        }
    }
}

pub(super) fn node(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let Some(spec) = Node(object).spec() else {
        node_resources(&mut errors, object);
        return errors;
    };
    let metadata = Path::root("metadata");
    scheduling::taints(&mut errors, &metadata.child("taints"), spec.taints());
    node_resources(&mut errors, object);
    pod_cidrs(&mut errors, spec);
    errors
}

fn pod_cidrs(errors: &mut Errors, spec: NodeSpec<'_>) {
    let path = SPEC.child("podCIDRs");
    let ranges = spec.pod_cidrs();
    let parsed: Vec<_> =
        ranges.iter().enumerate().filter_map(|(i, range)| cidr(errors, &path.index(i), range)).collect();
    if ranges.len() > 1 {
        let dual = parsed.iter().any(|(ip, _)| ip.is_ipv4()) && parsed.iter().any(|(ip, _)| ip.is_ipv6());
        if !dual || ranges.len() > 2 {
            let why = "may specify no more than one CIDR for each IP family";
            errors.push(FieldError::invalid(&path, json_list(ranges), why));
        }
    }
}

pub(super) fn node_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    node_resources(&mut errors, new);
    let mut seen = BTreeSet::new();
    let addresses = new.at(&["status", "addresses"]).and_then(Value::as_list).unwrap_or_default();
    for (i, address) in addresses.iter().filter_map(Value::as_map).enumerate() {
        if !seen.insert((address.str_at(&["type"]), address.str_at(&["address"]))) {
            let path = STATUS.child("addresses");
            errors.push(FieldError::duplicate(&path.index(i), shown(address, NODE_ADDRESS)));
        }
    }
    let empty = Map::new();
    let of = |map: &Map| map.get("spec").and_then(Value::as_map).cloned().unwrap_or_default();
    let (mut now, mut was) = (of(new), of(old));
    let spec = Node(new).spec().unwrap_or(NodeSpec(&empty));
    let set = |value: Option<&Value>| match value {
        Some(Value::List(list)) => !list.is_empty(),
        Some(Value::Str(text)) => !text.is_empty(),
        _ => false,
    };
    for (field, what) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        if set(was.get(field)) && !same(now.get(field), was.get(field)) {
            let why = format!("node updates may not change {what} except from \"\" to valid");
            errors.push(FieldError::forbidden(&SPEC.child(field), why));
        } else if !set(was.get(field)) && field == "podCIDRs" && set(now.get(field)) {
            pod_cidrs(&mut errors, spec);
        }
    }
    let metadata = Path::root("metadata");
    scheduling::taints(&mut errors, &metadata.child("taints"), spec.taints());
    for field in ["podCIDR", "podCIDRs", "providerID", "unschedulable", "taints"] {
        now.remove(field);
        was.remove(field);
    }
    if !same(Some(&Value::Map(now)), Some(&Value::Map(was))) {
        let why = "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)";
        errors.push(FieldError::forbidden(&Path::root(""), why));
    }
    errors
}

pub(super) fn lease(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let Some(spec) = Lease(object).spec() else { return errors };
    if let Some(seconds) = spec.lease_duration_seconds().filter(|seconds| *seconds <= 0) {
        errors.push(FieldError::invalid(&SPEC.child("leaseDurationSeconds"), seconds, "must be greater than 0"));
    }
    non_negative(&mut errors, &SPEC.child("leaseTransitions"), spec.lease_transitions());
    if let Some(strategy) = spec.strategy() {
        leader::strategy(&mut errors, &SPEC.child("strategy"), strategy);
    }
    let preferred = spec.preferred_holder().unwrap_or("");
    if !preferred.is_empty() && spec.strategy().unwrap_or("").is_empty() {
        let path = SPEC.child("preferredHolder");
        errors.push(FieldError::forbidden(&path, "may only be specified if `strategy` is defined"));
    }
    errors
}
