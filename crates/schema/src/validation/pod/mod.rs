//! Pods and their templates.

mod container;
mod env;
mod mount;
mod network;
mod probe;
mod resize;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
mod status;
mod update;
pub(super) mod volume;
mod warnings;

pub(super) use update::{diff, update};
pub(super) use warnings::{final_label, node_selector_warnings, old_label, template_warnings, warnings};

use super::fields::{Errors, labels, problems, required_of, supported_of};
use super::metadata;
use crate::tree::Map;
use crate::view::List;
use crate::view::core_v1::{Pod, PodSpec, PodTemplate, PodTemplateSpec, Volume};
use crate::view::meta_v1::ObjectMeta;
use api::{FieldError, Path, names};
use std::collections::BTreeMap;

/// The volumes that may be mounted, by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, Volume<'a>>;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn create(object: &Map) -> Errors {
    let mut errors = Errors::new();
    pod(&mut errors, Pod(object));
    let Some(spec) = Pod(object).spec() else { return errors };
    let path = Path::root("spec");
    if !spec.ephemeral_containers().is_empty() {
        errors.push(FieldError::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !spec.scheduling_gates().is_empty() && !spec.node_name().unwrap_or("").is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&path.child("nodeName"), why));
    }
    errors
}

pub(super) fn pod_template(object: &Map) -> Errors {
    let mut errors = Errors::new();
    template(&mut errors, &Path::root("template"), PodTemplate(object).template());
    errors
}

pub(super) fn pod_template_update(_: &str, new: &Map, _: &Map) -> Errors {
    pod_template(new)
}

pub(super) fn pod_template_warnings(new: &Map, old: Option<&Map>) -> Vec<String> {
    let mut out = Vec::new();
    if old.is_none_or(|old| old.get("template") != new.get("template")) {
        template_warnings(&mut out, &Path::root("template"), PodTemplate(new).template());
    }
    out
}

fn pod(errors: &mut Errors, pod: Pod<'_>) {
    let path = Path::root("spec");
    let Some(spec) = pod.spec() else {
        errors.push(FieldError::required(&path.child("containers"), ""));
        return;
    };
    let annotations = pod.metadata().map(|metadata| metadata.annotations());
    if let Some(value) = annotations.and_then(|annotations| annotations.get(MIRROR))
        && spec.node_name().unwrap_or("").is_empty()
    {
        let metadata = Path::root("metadata");
        let why = "must set spec.nodeName if mirror pod annotation is set";
        errors.push(FieldError::invalid(&metadata.child("annotations").key(MIRROR), value, why));
    }
    pod_spec(errors, &path, spec, pod.metadata());
    if spec.service_account_name().unwrap_or("").is_empty() {
        for (i, volume) in spec.volumes().iter().enumerate() {
            let sources = volume.projected().map(|projected| projected.sources());
            for (s, source) in sources.into_iter().flat_map(List::iter).enumerate() {
                if source.service_account_token().is_some() {
                    let why = "must not be specified when serviceAccountName is not set";
                    let volumes = path.child("volumes");
                    let volume = volumes.index(i);
                    let projected = volume.child("projected");
                    let sources = projected.child("sources");
                    errors.push(FieldError::forbidden(&sources.index(s).child("serviceAccountToken"), why));
                }
            }
        }
    }
    container::only_for_pods(errors, &path.child("containers"), spec.containers());
    container::only_for_pods(errors, &path.child("initContainers"), spec.init_containers());
}

/// A template: the pods of a controller.
pub(super) fn template(errors: &mut Errors, path: &Path<'_>, template: Option<PodTemplateSpec<'_>>) {
    let Some(template) = template else {
        errors.push(FieldError::required(&path.child("spec").child("containers"), ""));
        return;
    };
    metadata::template(errors, path, template.metadata());
    match template.spec() {
        Some(spec) => pod_spec(errors, &path.child("spec"), spec, template.metadata()),
        None => errors.push(FieldError::required(&path.child("spec").child("containers"), "")),
    }
    if let Some(spec) = template.spec()
        && !spec.ephemeral_containers().is_empty()
    {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(&path.child("spec").child("ephemeralContainers"), why));
    }
}

/// The spec of a pod or of a template.
pub(super) fn pod_spec(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, metadata: Option<ObjectMeta<'_>>) {
    let name = metadata.and_then(|metadata| metadata.name()).unwrap_or("");
    let volumes = volume::volumes(errors, &path.child("volumes"), spec.volumes(), name);
    let claims = scheduling::claims(errors, &path.child("resourceClaims"), spec.resource_claims());
    let pod = container::Pod {
        volumes,
        claims,
        grace: spec.termination_grace_period_seconds(),
        restart: spec.restart_policy().unwrap_or(""),
        os: spec.os().and_then(|os| os.name()).unwrap_or(""),
        host_users: spec.host_users(),
    };
    container::all(errors, path, spec, &pod);
    resources::of_pod(errors, &path.child("resources"), spec.resources());
    network::host_network(errors, path, spec);
    let restarts = ["Always", "OnFailure", "Never"];
    required_of(errors, &path.child("restartPolicy"), spec.restart_policy(), &restarts);
    network::dns_policy(errors, &path.child("dnsPolicy"), spec.dns_policy());
    labels(errors, &path.child("nodeSelector"), spec.node_selector());
    security::pod(errors, &path.child("securityContext"), spec);
    scheduling::affinity(errors, &path.child("affinity"), spec.affinity());
    network::dns_config(errors, &path.child("dnsConfig"), spec);
    for (i, gate) in spec.readiness_gates().iter().enumerate() {
        let kind = gate.condition_type().unwrap_or("");
        problems(
            errors,
            &path.child("readinessGates").index(i).child("conditionType"),
            kind,
            names::qualified_name(kind),
        );
    }
    scheduling::gates(errors, &path.child("schedulingGates"), spec.scheduling_gates());
    scheduling::group(errors, &path.child("schedulingGroup"), spec.scheduling_group());
    let spread = path.child("topologySpreadConstraints");
    scheduling::spread(errors, &spread, spec.topology_spread_constraints());
    host_users(errors, path, spec);
    names_of(errors, path, spec);
    resources::overhead(errors, &path.child("overhead"), spec.overhead());
    security::os(errors, path, spec);
}

fn host_users(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
    if spec.host_users() != Some(false) {
        return;
    }
    for (field, set) in
        [("hostNetwork", spec.host_network()), ("hostPID", spec.host_pid()), ("hostIPC", spec.host_ipc())]
    {
        if set.unwrap_or(false) {
            errors.push(FieldError::forbidden(&path.child(field), "when `hostUsers` is false"));
        }
    }
}

fn names_of(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
    type Rule = fn(&str) -> Vec<String>;
    let check = |errors: &mut Errors, field: &str, value: Option<&str>, rule: Rule| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            problems(errors, &path.child(field), value, rule(value));
        }
    };
    check(errors, "serviceAccountName", spec.service_account_name(), names::dns1123_subdomain);
    check(errors, "nodeName", spec.node_name(), names::dns1123_subdomain);
    probe::deadline(errors, &path.child("activeDeadlineSeconds"), spec.active_deadline_seconds(), 1);
    check(errors, "hostname", spec.hostname(), names::dns1123_label);
    check(errors, "subdomain", spec.subdomain(), names::dns1123_label);
    network::hostname_override(errors, path, spec);
    scheduling::tolerations(errors, &path.child("tolerations"), spec.tolerations());
    network::host_aliases(errors, &path.child("hostAliases"), spec.host_aliases());
    check(errors, "priorityClassName", spec.priority_class_name(), names::dns1123_subdomain);
    check(errors, "runtimeClassName", spec.runtime_class_name(), names::dns1123_subdomain);
    let policies = ["PreemptLowerPriority", "Never"];
    supported_of(errors, &path.child("preemptionPolicy"), spec.preemption_policy(), &policies);
}
