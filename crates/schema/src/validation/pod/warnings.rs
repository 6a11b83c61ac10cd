//! What is allowed in a pod but surely not meant, or soon gone.

use super::super::fields::quantity;
use crate::tree::{Map, Value};
use crate::view::core_v1::{Container, NodeSelector, Pod, PodSpec, PodTemplateSpec};
use crate::view::meta_v1::ObjectMeta;
use api::{Path, names};
use std::collections::BTreeMap;

const OLD_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/instance-type", "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    ("failure-domain.beta.kubernetes.io/zone", "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
];

const OLD_VOLUMES: [(&str, &str); 9] = [
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
];

/// Labels of old, and the names that they have got for good.
const FINAL_LABELS: [(&str, &str); 5] = [
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
];

/// The final name of a label of old.
pub(in crate::validation) fn final_label(key: &str) -> Option<&'static str> {
    FINAL_LABELS.iter().find(|(old, _)| *old == key).map(|(_, name)| *name)
}

/// Labels of old in the terms of a node selector.
pub(in crate::validation) fn node_selector_warnings(
    out: &mut Vec<String>,
    path: &Path<'_>,
    selector: NodeSelector<'_>,
) {
    for (t, term) in selector.node_selector_terms().iter().enumerate() {
        for (e, expression) in term.match_expressions().iter().enumerate() {
            let key = expression.key().unwrap_or("");
            if let Some(why) = old_label(key) {
                let place = format!("nodeSelectorTerms[{t}].matchExpressions[{e}].key");
                out.push(format!("{}: {key} is {why}", path.child(&place)));
            }
        }
    }
}

/// Why a label of nodes is a former one.
pub(in crate::validation) fn old_label(key: &str) -> Option<&'static str> {
    OLD_LABELS.iter().find(|(name, _)| *name == key).map(|(_, why)| *why)
}

/// What the maker of a pod should know.
pub(in crate::validation) fn warnings(new: &Map, old: Option<&Map>) -> Vec<String> {
    let mut out = Vec::new();
    let pod = Pod(new);
    if old.is_some_and(|old| old.get("spec") == new.get("spec")) {
        return out;
    }
    if old.is_none() {
        let name = pod.metadata().and_then(|metadata| metadata.name()).unwrap_or("");
        let bad = names::dns1123_label(name);
        if !bad.is_empty() {
            out.push(format!(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
                bad.join(" ")
            ));
        }
    }
    if let Some(spec) = pod.spec() {
        let metadata = Path::root("metadata");
        of_spec(&mut out, &Path::root("spec"), &metadata, spec, pod.metadata());
    }
    out
}

/// What the maker of a template should know.
pub(in crate::validation) fn template_warnings(
    out: &mut Vec<String>,
    path: &Path<'_>,
    template: Option<PodTemplateSpec<'_>>,
) {
    let Some(template) = template else { return };
    if let Some(spec) = template.spec() {
        of_spec(out, &path.child("spec"), &path.child("metadata"), spec, template.metadata());
    }
}

fn of_spec(
    out: &mut Vec<String>,
    path: &Path<'_>,
    metadata: &Path<'_>,
    spec: PodSpec<'_>,
    meta: Option<ObjectMeta<'_>>,
) {
    for (key, _) in spec.node_selector().iter() {
        if let Some(why) = old_label(key) {
            out.push(format!("{}: {why}", path.child("nodeSelector").key(key)));
        }
    }
    if let Some(selector) = spec
        .affinity()
        .and_then(|affinity| affinity.node_affinity())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution())
    {
        let place = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution";
        node_selector_warnings(out, &path.child(place), selector);
    }
    for (i, constraint) in spec.topology_spread_constraints().iter().enumerate() {
        let key = constraint.topology_key().unwrap_or("");
        if let Some(why) = old_label(key) {
            out.push(format!(
                "{}: {key} is {why}",
                path.child("topologySpreadConstraints").index(i).child("topologyKey")
            ));
        }
    }
    volumes(out, path, spec);
    for (i, secret) in spec.image_pull_secrets().iter().enumerate() {
        if secret.name().unwrap_or("").is_empty() {
            out.push(format!("{}: invalid empty name \"\"", path.child("imagePullSecrets").index(i).child("name")));
        }
    }
    for (field, list) in [("initContainers", spec.init_containers()), ("containers", spec.containers())] {
        for (i, container) in list.iter().enumerate() {
            let lists = path.child(field);
            of_container(out, &lists.index(i), container);
        }
    }
    for (key, value) in spec.overhead().iter() {
        fractional(out, &path.child("overhead"), key, value);
    }
    if spec.termination_grace_period_seconds().is_some_and(|seconds| seconds < 0) {
        let place = path.child("terminationGracePeriodSeconds");
        out.push(format!("{place}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    for (key, _) in meta.iter().flat_map(|meta| meta.annotations().iter()) {
        let place = metadata.child("annotations");
        if key == "seccomp.security.alpha.kubernetes.io/pod"
            || key.starts_with("container.seccomp.security.alpha.kubernetes.io/")
        {
            out.push(format!("{}: non-functional in v1.27+; use the \"seccompProfile\" field instead", place.key(key)));
        }
        if key.starts_with("container.apparmor.security.beta.kubernetes.io/") {
            out.push(format!("{}: deprecated since v1.30; use the \"appArmorProfile\" field instead", place.key(key)));
        }
    }
}

fn volumes(out: &mut Vec<String>, path: &Path<'_>, spec: PodSpec<'_>) {
    for (i, volume) in spec.volumes().iter().enumerate() {
        for (field, why) in OLD_VOLUMES {
            if volume.0.contains_key(field) {
                out.push(format!("{}: {why}", path.child("volumes").index(i).child(field)));
            }
        }
        let limit = volume.0.at(&["emptyDir", "sizeLimit"]).and_then(Value::as_str);
        if let Some(limit) = limit.filter(|limit| quantity(limit).milli_value() % 1000 != 0) {
            let place = path.child("volumes");
            let place = place.index(i);
            out.push(format!(
                "{}: fractional byte value \"{limit}\" is invalid, must be an integer",
                place.child("emptyDir").child("sizeLimit")
            ));
        }
    }
}

fn of_container(out: &mut Vec<String>, path: &Path<'_>, container: Container<'_>) {
    if let Some(resources) = container.resources() {
        let resources_path = path.child("resources");
        for (field, list) in [("limits", resources.limits()), ("requests", resources.requests())] {
            for (key, value) in list.iter() {
                fractional(out, &resources_path.child(field), key, value);
            }
        }
    }
    let mut seen = BTreeMap::new();
    for (i, var) in container.env().iter().enumerate() {
        let name = var.name().unwrap_or("");
        let value = var.value().unwrap_or("");
        // A variable made of its own former value hides nothing.
        if let Some(()) = seen.insert(name, ())
            && !value.contains(&format!("$({name})"))
        {
            out.push(format!(
                "{}: hides previous definition of \"{name}\", which may be dropped when using apply",
                path.child("env").index(i)
            ));
        }
    }
    let mut ports: BTreeMap<(i64, &str), usize> = BTreeMap::new();
    for (i, port) in container.ports().iter().enumerate() {
        let key = (port.container_port().unwrap_or(0), port.protocol().unwrap_or(""));
        match ports.get(&key) {
            Some(first) if port.host_port().unwrap_or(0) == 0 => {
                let list = path.child("ports");
                out.push(format!("{}: duplicate port definition with {}", list.index(i), list.index(*first)));
            }
            Some(_) => {}
            None => {
                ports.insert(key, i);
            }
        }
    }
}

fn fractional(out: &mut Vec<String>, path: &Path<'_>, name: &str, value: &str) {
    if matches!(name, "memory" | "ephemeral-storage") && quantity(value).milli_value() % 1000 != 0 {
        out.push(format!("{}: fractional byte value \"{value}\" is invalid, must be an integer", path.key(name)));
    }
}
