//! Pods and their templates.

mod annotations;
mod container;
mod env;
mod mount;
mod network;
mod options;
mod probe;
mod projected;
mod resize;
pub(super) mod resources;
pub(super) mod scheduling;
mod security;
mod status;
mod update;
pub(super) mod volume;
mod warnings;
mod windows;

pub(super) use options::Options;
pub(super) use update::update;
pub(super) use warnings::{final_label, node_selector_warnings, old_label, template_warnings, warnings};

use super::fields::{Errors, labels, problems, required_of, supported_of};
use super::warnings::Warnings;
use super::{Features, metadata};
use crate::tree::Map;
use crate::view::List;
use crate::view::core_v1::{Pod, PodSpec, PodTemplate, PodTemplateSpec, Volume};
use crate::view::meta_v1::ObjectMeta;
use api::{FieldError, Path, names};
use std::collections::BTreeMap;

/// The volumes that may be mounted, by name.
pub(super) type Volumes<'a> = BTreeMap<&'a str, Volume<'a>>;

const MIRROR: &str = "kubernetes.io/config.mirror";

pub(super) fn create(object: &Map, features: Features) -> Errors {
    let mut errors = Errors::new();
    pod(&mut errors, Pod(object), Options::of_pod(features, None));
    let Some(spec) = Pod(object).spec() else { return errors };
    let path = Path::root("spec");
    if !spec.ephemeral_containers().is_empty() {
        errors.push(FieldError::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
    }
    if !spec.scheduling_gates().is_empty() && !spec.node_name().unwrap_or("").is_empty() {
        let why = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden(&path.child("nodeName"), why));
    }
    if let Some(metadata) = Pod(object).metadata() {
        annotations::seccomp_fields(&mut errors, &path, metadata.annotations(), spec);
        annotations::app_armor_fields(&mut errors, &path, metadata.annotations(), spec);
    }
    errors
}

pub(super) fn pod_template(object: &Map, old: Option<&Map>, features: Features) -> Errors {
    let mut errors = Errors::new();
    let options = Options::at(features, old, &["template"]);
    template(&mut errors, &Path::root("template"), PodTemplate(object).template(), options);
    errors
}

pub(super) fn pod_template_update(_: &str, new: &Map, old: &Map, features: Features) -> Errors {
    pod_template(new, Some(old), features)
}

pub(super) fn pod_template_warnings(new: &Map, old: Option<&Map>, features: Features) -> Warnings {
    let mut out = Warnings::new();
    if old.is_none_or(|old| old.get("template") != new.get("template")) {
        template_warnings(&mut out, &Path::root("template"), PodTemplate(new).template(), features);
    }
    out
}

fn pod(errors: &mut Errors, pod: Pod<'_>, options: Options<'_>) {
    let path = Path::root("spec");
    let Some(spec) = pod.spec() else {
        errors.push(FieldError::required(&path.child("containers"), ""));
        return;
    };
    let options = options.looking_at(spec);
    if let Some(metadata) = pod.metadata() {
        let path = Path::root("metadata");
        annotations::check(errors, &path.child("annotations"), metadata.annotations(), spec, options);
    }
    pod_spec(errors, &path, spec, pod.metadata(), options);
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
    for (field, list) in [("containers", spec.containers()), ("initContainers", spec.init_containers())] {
        let path = path.child(field);
        for (i, container) in list.iter().enumerate() {
            container::only_for_pods(errors, &path.index(i), container);
        }
    }
}

/// A template: the pods of a controller.
pub(super) fn template(
    errors: &mut Errors,
    path: &Path<'_>,
    template: Option<PodTemplateSpec<'_>>,
    options: Options<'_>,
) {
    let spec_path = path.child("spec");
    let Some(template) = template else {
        errors.push(FieldError::required(&spec_path.child("containers"), ""));
        return;
    };
    metadata::template(errors, path, template.metadata());
    let Some(spec) = template.spec() else {
        errors.push(FieldError::required(&spec_path.child("containers"), ""));
        return;
    };
    let options = options.looking_at(spec);
    if let Some(metadata) = template.metadata() {
        annotations::check(errors, &path.child("annotations"), metadata.annotations(), spec, options);
    }
    pod_spec(errors, &spec_path, spec, None, options);
    if let Some(annotations) = template.metadata().map(|metadata| metadata.annotations())
        && !(options.keeps_spec() && options.keeps_annotations(annotations, spec))
    {
        annotations::seccomp_fields(errors, &spec_path, annotations, spec);
        annotations::app_armor_fields(errors, &spec_path, annotations, spec);
    }
    if !spec.ephemeral_containers().is_empty() {
        let why = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(&spec_path.child("ephemeralContainers"), why));
    }
}

/// The spec of a pod, which has metadata, or of a template.
fn pod_spec(
    errors: &mut Errors,
    path: &Path<'_>,
    spec: PodSpec<'_>,
    metadata: Option<ObjectMeta<'_>>,
    options: Options<'_>,
) {
    let name = metadata.and_then(|metadata| metadata.name()).unwrap_or("");
    let volumes = volume::volumes(errors, &path.child("volumes"), spec.volumes(), name, options);
    let is_static = metadata.is_some_and(|metadata| metadata.annotations().contains_key(MIRROR));
    let claims = scheduling::claims(errors, &path.child("resourceClaims"), spec.resource_claims(), is_static);
    let pod = container::Pod {
        volumes,
        claims,
        grace: spec.termination_grace_period_seconds(),
        restart: spec.restart_policy().unwrap_or(""),
        os: spec.os().and_then(|os| os.name()).unwrap_or(""),
        host_users: spec.host_users(),
        split: options.splits_huge_pages(),
        keeps_spec: options.keeps_spec(),
    };
    container::all(errors, path, spec, &pod);
    resources::of_pod(errors, &path.child("resources"), spec, &pod.claims, options);
    network::host_network(errors, path, spec, options.is_pod);
    let restarts = ["Always", "OnFailure", "Never"];
    required_of(errors, &path.child("restartPolicy"), spec.restart_policy(), &restarts);
    network::dns_policy(errors, &path.child("dnsPolicy"), spec.dns_policy());
    labels(errors, &path.child("nodeSelector"), spec.node_selector());
    security::pod(errors, &path.child("securityContext"), spec, options);
    scheduling::affinity(errors, &path.child("affinity"), spec.affinity(), options);
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
    let spread = path.child("topologySpreadConstraints");
    scheduling::spread(errors, &spread, spec.topology_spread_constraints(), options);
    if !options.keeps_spec() {
        windows::host_processes(errors, path, spec);
    }
    host_users(errors, path, spec, options);
    network::hostname_override(errors, path, spec);
    names_of(errors, path, spec, options);
    if !spec.overhead().is_empty() {
        resources::overhead(errors, &path.child("overhead"), spec.overhead(), pod.split);
    }
    security::os(errors, path, spec);
    scheduling::group(errors, &path.child("schedulingGroup"), spec.scheduling_group());
    if !options.keeps_spec() {
        env::file_volumes(errors, path, spec);
    }
}

/// What does not go with users of a pod's own. How upstream writes two of the fields is its own.
fn host_users(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, options: Options<'_>) {
    const WHY: &str = "when `hostUsers` is false";
    if spec.host_users() != Some(false) {
        return;
    }
    let host_network = spec.host_network() == Some(true) && !options.own_users_on_host_network();
    let host_pid = spec.host_pid() == Some(true);
    for (field, set) in
        [("hostNetwork", host_network), ("HostPID", host_pid), ("HostIPC", spec.host_ipc() == Some(true))]
    {
        if set {
            errors.push(FieldError::forbidden(&path.child(field), WHY));
        }
    }
    if options.own_users_with_devices() {
        return;
    }
    for (field, i, container) in container::of_all_kinds(spec) {
        if !container.volume_devices().is_empty() {
            let list = path.child(field);
            errors.push(FieldError::forbidden(&list.index(i).child("volumeDevices"), WHY));
        }
    }
}

fn names_of(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, options: Options<'_>) {
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
    scheduling::tolerations(errors, &path.child("tolerations"), spec.tolerations(), options.compares_taints());
    network::host_aliases(errors, &path.child("hostAliases"), spec.host_aliases());
    check(errors, "priorityClassName", spec.priority_class_name(), names::dns1123_subdomain);
    check(errors, "runtimeClassName", spec.runtime_class_name(), names::dns1123_subdomain);
    let policies = ["PreemptLowerPriority", "Never"];
    supported_of(errors, &path.child("preemptionPolicy"), spec.preemption_policy(), &policies);
}
