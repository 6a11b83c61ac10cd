//! Containers of all three kinds.

use super::super::fields::{Errors, port_num, problems, required, required_of, supported_of};
use super::probe::{Role, lifecycle, probe};
use super::{Volumes, env, mount, resources, security};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::core_v1::{Container, ContainerPort, EphemeralContainer, PodSpec};
use api::{FieldError, Path, names};
use std::collections::{BTreeMap, BTreeSet};

/// What of its pod a container's rules look at.
pub(super) struct Pod<'a> {
    pub volumes: Volumes<'a>,
    pub claims: BTreeSet<&'a str>,
    pub grace: Option<i64>,
    pub restart: &'a str,
    pub os: &'a str,
    pub host_users: Option<bool>,
    /// Parts of huge pages are let pass.
    pub split: bool,
    /// The spec is the one before: [`super::Options::keeps_spec`].
    pub keeps_spec: bool,
}

/// Containers of all three kinds, each with the name of its list and its place there, in upstream's order.
pub(super) fn of_all_kinds<'a>(spec: PodSpec<'a>) -> impl Iterator<Item = (&'static str, usize, Container<'a>)> {
    let lists = [("initContainers", spec.init_containers()), ("containers", spec.containers())];
    let lists = lists
        .into_iter()
        .flat_map(|(field, list)| list.iter().enumerate().map(move |(i, container)| (field, i, container)));
    let ephemeral = spec.ephemeral_containers().iter().enumerate();
    lists.chain(ephemeral.map(|(i, EphemeralContainer(map))| ("ephemeralContainers", i, Container(map))))
}

pub(super) fn all(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, pod: &Pod<'_>) {
    regular(errors, &path.child("containers"), spec.containers(), pod);
    init(errors, &path.child("initContainers"), spec, pod);
    ephemeral(errors, &path.child("ephemeralContainers"), spec, pod);
}

fn regular(errors: &mut Errors, path: &Path<'_>, containers: List<'_, Container<'_>>, pod: &Pod<'_>) {
    if containers.is_empty() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        common(errors, &path, container, pod);
        let name = container.name().unwrap_or("");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        lives(errors, &path, container, pod);
        restart_policy(errors, &path, container);
    }
    host_port_conflicts(errors, path, containers);
}

/// What regular containers and sidecars have, init containers not.
fn lives(errors: &mut Errors, path: &Path<'_>, container: Container<'_>, pod: &Pod<'_>) {
    lifecycle(errors, &path.child("lifecycle"), container.lifecycle(), pod.grace, pod.os);
    probe(errors, &path.child("livenessProbe"), container.liveness_probe(), Role::Liveness);
    probe(errors, &path.child("readinessProbe"), container.readiness_probe(), Role::Readiness);
    probe(errors, &path.child("startupProbe"), container.startup_probe(), Role::Startup);
}

fn init(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, pod: &Pod<'_>) {
    let mut seen: BTreeSet<&str> = spec.containers().iter().filter_map(|c| c.name()).collect();
    for (i, container) in spec.init_containers().iter().enumerate() {
        let here = path.index(i);
        common(errors, &here, container, pod);
        restart_policy(errors, &here, container);
        let sidecar = container.restart_policy() == Some("Always");
        let name = container.name().unwrap_or("");
        if !seen.insert(name) && !name.is_empty() {
            errors.push(FieldError::duplicate(&here.child("name"), name));
        }
        let alone = spec.init_containers().values().get(i..=i).unwrap_or_default();
        host_port_conflicts(errors, path, List::new(alone));
        if sidecar {
            lives(errors, &here, container, pod);
        } else {
            for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if container.0.contains_key(field) {
                    let why = "may not be set for init containers without restartPolicy=Always";
                    errors.push(FieldError::forbidden(&here.child(field), why));
                }
            }
        }
    }
}

/// In the order of upstream's struct.
const NOT_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

fn ephemeral(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, pod: &Pod<'_>) {
    const WHY: &str = "cannot be set for an Ephemeral Container";
    let others: BTreeSet<&str> =
        spec.containers().iter().chain(spec.init_containers().iter()).filter_map(|c| c.name()).collect();
    let mut seen = others.clone();
    for (i, container) in spec.ephemeral_containers().iter().enumerate() {
        let path = path.index(i);
        let EphemeralContainer(map) = container;
        common(errors, &path, Container(map), pod);
        only_for_pods(errors, &path, Container(map));
        let name = container.name().unwrap_or("");
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        let target = container.target_container_name().unwrap_or("");
        if !target.is_empty() && !others.contains(target) {
            errors.push(FieldError::not_found(&path.child("targetContainerName"), target));
        }
        for field in NOT_EPHEMERAL {
            if map.get(field).is_some_and(|value| !is_zero(field, value)) {
                errors.push(FieldError::forbidden(&path.child(field), WHY));
            }
        }
        for (i, mount) in container.volume_mounts().iter().enumerate() {
            let mounts = path.child("volumeMounts");
            for (field, value) in [("subPath", mount.sub_path()), ("subPathExpr", mount.sub_path_expr())] {
                if !value.unwrap_or("").is_empty() {
                    errors.push(FieldError::forbidden(&mounts.index(i).child(field), WHY));
                }
            }
        }
    }
}

/// Whether a field is as if it was not set. All structs but the resources are behind pointers, which are set then.
fn is_zero(field: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Str(text) => text.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => field == "resources" && map.is_empty(),
        _ => false,
    }
}

fn common(errors: &mut Errors, path: &Path<'_>, container: Container<'_>, pod: &Pod<'_>) {
    let name = container.name().unwrap_or("");
    if required(errors, &path.child("name"), Some(name)) {
        problems(errors, &path.child("name"), name, names::dns1123_label(name));
    }
    required(errors, &path.child("image"), container.image());
    let policies = ["File", "FallbackToLogsOnError"];
    required_of(errors, &path.child("terminationMessagePolicy"), container.termination_message_policy(), &policies);
    ports(errors, &path.child("ports"), container.ports());
    env::env(errors, &path.child("env"), container.env());
    env::env_from(errors, &path.child("envFrom"), container.env_from());
    mount::mounts(errors, &path.child("volumeMounts"), container, &pod.volumes);
    mount::devices(errors, &path.child("volumeDevices"), container, &pod.volumes);
    let pulls = ["Always", "IfNotPresent", "Never"];
    required_of(errors, &path.child("imagePullPolicy"), container.image_pull_policy(), &pulls);
    let asked = resources::Asked { name: resources::container_resource_name, claims: &pod.claims, split: pod.split };
    resources::requirements(errors, &path.child("resources"), container.resources(), asked);
    resources::resize_policy(errors, &path.child("resizePolicy"), container.resize_policy(), pod.restart);
    security::container(errors, &path.child("securityContext"), container.security_context(), pod);
}

fn ports(errors: &mut Errors, path: &Path<'_>, ports: List<'_, ContainerPort<'_>>) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = port.name().unwrap_or("");
        if !name.is_empty() {
            let bad = names::port_name(name);
            if bad.is_empty() {
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(&path.child("name"), name));
                }
            } else {
                problems(errors, &path.child("name"), name, bad);
            }
        }
        match port.container_port().unwrap_or(0) {
            0 => errors.push(FieldError::required(&path.child("containerPort"), "")),
            number => port_num(errors, &path.child("containerPort"), number),
        }
        let host = port.host_port().unwrap_or(0);
        if host != 0 {
            port_num(errors, &path.child("hostPort"), host);
        }
        required_of(errors, &path.child("protocol"), port.protocol(), &["SCTP", "TCP", "UDP"]);
    }
}

fn host_port_conflicts(errors: &mut Errors, path: &Path<'_>, containers: List<'_, Container<'_>>) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        for (p, port) in container.ports().iter().enumerate() {
            let number = port.host_port().unwrap_or(0);
            if number == 0 {
                continue;
            }
            let key = format!("{}/{}/{number}", port.protocol().unwrap_or(""), port.host_ip().unwrap_or(""));
            if !seen.insert(key.clone()) {
                errors.push(FieldError::duplicate(&path.child("ports").index(p).child("hostPort"), key));
            }
        }
    }
}

fn restart_policy(errors: &mut Errors, path: &Path<'_>, container: Container<'_>) {
    let rules = container.restart_policy_rules();
    let here = path.child("restartPolicy");
    match container.restart_policy() {
        None if !rules.is_empty() => {
            let why = "must specify restartPolicy when restart rules are used";
            errors.push(FieldError::required(&here, why));
        }
        policy => supported_of(errors, &here, policy, &["Always", "Never", "OnFailure"]),
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.push(FieldError::too_many(&path, rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let action = rule.action().unwrap_or("");
        supported_of(errors, &path.child("action"), Some(action), &["Restart", "RestartAllContainers"]);
        let codes_path = path.child("exitCodes");
        let Some(codes) = rule.exit_codes() else {
            errors.push(FieldError::required(&codes_path, "must be specified"));
            continue;
        };
        let operator = codes.operator().unwrap_or("");
        supported_of(errors, &codes_path.child("operator"), Some(operator), &["In", "NotIn"]);
        if codes.values().len() > 255 {
            errors.push(FieldError::too_many(&codes_path.child("values"), codes.values().len(), 255));
        }
    }
}

/// What only a pod's containers, not a template's, are asked.
pub(super) fn only_for_pods(errors: &mut Errors, path: &Path<'_>, container: Container<'_>) {
    let image = container.image().unwrap_or("");
    if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&path.child("image"), image, why));
    }
}

/// Mount paths (or device paths) by volume name.
pub(super) fn by_name<'a>(list: &'a [Value], field: &str) -> BTreeMap<&'a str, &'a str> {
    let maps = list.iter().filter_map(Value::as_map);
    maps.map(|map: &Map| (map.str_at(&["name"]), map.str_at(&[field]))).collect()
}
