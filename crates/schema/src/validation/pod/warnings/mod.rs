//! What is allowed in a pod but surely not meant, or soon gone.

mod labels;
mod overlaps;
mod ports;

pub(in crate::validation) use labels::{final_label, node_selector_warnings, old_label};

use super::annotations::{APP_ARMOR_OF, SECCOMP, SECCOMP_OF, has_any};
use super::container::of_all_kinds;
use super::scheduling::pod_terms;
use crate::tree::Map;
use crate::validation::fields::quantity;
use crate::validation::warnings::{Warnings, address};
use crate::validation::{Features, claim};
use crate::view::StrMap;
use crate::view::core_v1::{Affinity, Container, Pod, PodSpec, PodTemplateSpec};
use crate::view::meta_v1::ObjectMeta;
use api::field::go_quote;
use api::{Path, names};
use std::collections::{BTreeSet, HashSet};

/// Volumes of old, by their fields and as upstream names these.
const OLD_VOLUMES: [(&str, &str, &str); 8] = [
    ("photonPersistentDisk", "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("scaleIO", "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "rbd", "deprecated in v1.28, non-functional in v1.31+"),
];

const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        "non-functional in v1.16+; use the \"priorityClassName\" field instead",
    ),
    ("security.alpha.kubernetes.io/sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
    ("security.alpha.kubernetes.io/unsafe-sysctls", "non-functional in v1.11+; use the \"sysctls\" field instead"),
];

const OLD_SECCOMP: &str = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
const OLD_APP_ARMOR: &str = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
const NO_SELECTOR: &str = "a null labelSelector results in matching no pod";

/// What the maker of a pod should know. Who changes one is told nothing, but of odd addresses in its status.
pub(in crate::validation) fn warnings(subresource: &str, new: &Map, old: Option<&Map>, features: Features) -> Warnings {
    let mut out = Warnings::new();
    let pod = Pod(new);
    if old.is_some() {
        if subresource == "status" {
            addresses(&mut out, pod);
        }
        return out;
    }
    let name = pod.metadata().and_then(|metadata| metadata.name()).unwrap_or("");
    let bad = names::dns1123_label(name);
    if !bad.is_empty() {
        out.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: [{}]",
            bad.join(" ")
        ));
    }
    if let Some(spec) = pod.spec() {
        let metadata = Path::root("metadata");
        of_spec(&mut out, &Path::root("spec"), &metadata, spec, pod.metadata(), false, features);
    }
    out
}

fn addresses(out: &mut Warnings, pod: Pod<'_>) {
    let Some(status) = pod.status() else { return };
    let pods: Vec<&str> = status.pod_ips().iter().map(|one| one.ip().unwrap_or("")).collect();
    let hosts: Vec<&str> = status.host_ips().iter().map(|one| one.ip().unwrap_or("")).collect();
    let root = Path::root("status");
    for (field, list) in [("podIPs", pods), ("hostIPs", hosts)] {
        let path = root.child(field);
        for (i, text) in list.into_iter().enumerate() {
            address(out, &path.index(i).child("ip"), text);
        }
    }
}

/// What the maker of a template should know.
pub(in crate::validation) fn template_warnings(
    out: &mut Warnings,
    path: &Path<'_>,
    template: Option<PodTemplateSpec<'_>>,
    features: Features,
) {
    let Some(template) = template else { return };
    if let Some(spec) = template.spec() {
        let metadata = path.child("metadata");
        of_spec(out, &path.child("spec"), &metadata, spec, template.metadata(), true, features);
    }
}

fn of_spec(
    out: &mut Warnings,
    path: &Path<'_>,
    metadata: &Path<'_>,
    spec: PodSpec<'_>,
    meta: Option<ObjectMeta<'_>>,
    is_template: bool,
    features: Features,
) {
    for (key, _) in spec.node_selector().iter() {
        if let Some(why) = old_label(key) {
            out.push(format!("{}: {why}", path.child("nodeSelector").key(key)));
        }
    }
    nodes(out, &path.child("affinity"), spec.affinity());
    let spread = path.child("topologySpreadConstraints");
    for (i, constraint) in spec.topology_spread_constraints().iter().enumerate() {
        let path = spread.index(i);
        let key = constraint.topology_key().unwrap_or("");
        if let Some(why) = old_label(key) {
            out.push(format!("{}: {key} is {why}", path.child("topologyKey")));
        }
        if constraint.label_selector().is_none() {
            out.push(format!("{}: {NO_SELECTOR}", path.child("labelSelector")));
        }
    }
    let annotations = meta.map(|meta| meta.annotations());
    let has = |key: &str| annotations.is_some_and(|annotations| annotations.contains_key(key));
    let annotations_path = metadata.child("annotations");
    for (key, why) in OLD_ANNOTATIONS.iter().filter(|(key, _)| has(key)) {
        out.push(format!("{}: {why}", annotations_path.key(key)));
    }
    volumes(out, &path.child("volumes"), spec, features);
    overlaps::of(out, spec.volumes());
    repeated(out, &path.child("hostAliases"), "ip", spec.host_aliases().iter().map(|alias| alias.ip()));
    let secrets = path.child("imagePullSecrets");
    repeated(out, &secrets, "name", spec.image_pull_secrets().iter().map(|secret| secret.name()));
    for (i, secret) in spec.image_pull_secrets().iter().enumerate() {
        if secret.name().unwrap_or("").is_empty() {
            out.push(format!("{}: invalid empty name \"\"", secrets.index(i).child("name")));
        }
    }
    fractions(out, &path.child("overhead"), spec.overhead());
    let whole = spec.security_context().and_then(|context| context.seccomp_profile());
    if whole.is_none() && has(SECCOMP) {
        out.push(format!("{}: {OLD_SECCOMP}", annotations_path.key(SECCOMP)));
    }
    let confined = spec.security_context().is_some_and(|context| context.app_armor_profile().is_some());
    // This is on the way of every new pod, and few have such annotations: only for those the keys are made.
    let any = |prefix: &str| annotations.is_some_and(|annotations| has_any(annotations, prefix));
    let seccomp = any(SECCOMP_OF);
    // Of a pod it is told when the annotation becomes the field.
    let app_armor = is_template && !confined && any(APP_ARMOR_OF);
    let mut seen = HashSet::new();
    for (field, i, container) in of_all_kinds(spec) {
        let context = container.security_context();
        if seccomp && context.and_then(|context| context.seccomp_profile()).is_none() {
            let key = format!("{SECCOMP_OF}{}", container.name().unwrap_or(""));
            if has(&key) {
                out.push(format!("{}: {OLD_SECCOMP}", annotations_path.key(&key)));
            }
        }
        if app_armor && context.and_then(|context| context.app_armor_profile()).is_none() {
            let key = format!("{APP_ARMOR_OF}{}", container.name().unwrap_or(""));
            if has(&key) {
                out.push(format!("{}: {OLD_APP_ARMOR}", annotations_path.key(&key)));
            }
        }
        let lists = path.child(field);
        of_container(out, &lists.index(i), container, &mut seen);
    }
    ports::repeated(out, path, spec);
    ports::names(out, path, spec);
    if spec.termination_grace_period_seconds().is_some_and(|seconds| seconds < 0) {
        let place = path.child("terminationGracePeriodSeconds");
        out.push(format!("{place}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    pods(out, &path.child("affinity"), spec.affinity());
    let servers = path.child("dnsConfig.nameservers");
    for (i, text) in spec.dns_config().into_iter().flat_map(|config| config.nameservers().iter()).enumerate() {
        address(out, &servers.index(i), text);
    }
    for (i, alias) in spec.host_aliases().iter().enumerate() {
        address(out, &path.child("hostAliases").index(i).child("ip"), alias.ip().unwrap_or(""));
    }
}

fn nodes(out: &mut Warnings, path: &Path<'_>, affinity: Option<Affinity<'_>>) {
    let Some(nodes) = affinity.and_then(|affinity| affinity.node_affinity()) else { return };
    let path = path.child("nodeAffinity");
    if let Some(selector) = nodes.required_during_scheduling_ignored_during_execution() {
        node_selector_warnings(out, &path.child("requiredDuringSchedulingIgnoredDuringExecution"), selector);
    }
    let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (i, term) in nodes.preferred_during_scheduling_ignored_during_execution().iter().enumerate() {
        if let Some(preference) = term.preference() {
            labels::node_term(out, &path.index(i).child("preference"), preference, true);
        }
    }
}

/// Selectors of other pods that pick none.
fn pods(out: &mut Warnings, path: &Path<'_>, affinity: Option<Affinity<'_>>) {
    for (field, required, preferred) in affinity.into_iter().flat_map(pod_terms) {
        let path = path.child(field);
        for (i, term) in required.iter().enumerate() {
            if term.label_selector().is_none() {
                let path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
                out.push(format!("{}: {NO_SELECTOR}", path.index(i).child("labelSelector")));
            }
        }
        for (i, term) in preferred.iter().enumerate() {
            if term.pod_affinity_term().and_then(|term| term.label_selector()).is_none() {
                let path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
                out.push(format!("{}: {NO_SELECTOR}", path.index(i).child("podAffinityTerm.labelSelector")));
            }
        }
    }
}

fn volumes(out: &mut Warnings, path: &Path<'_>, spec: PodSpec<'_>, features: Features) {
    for (i, volume) in spec.volumes().iter().enumerate() {
        let path = path.index(i);
        for (_, shown, why) in OLD_VOLUMES.iter().filter(|(field, ..)| volume.0.contains_key(field)) {
            out.push(format!("{}: {why}", path.child(shown)));
        }
        if volume.git_repo().is_some() {
            let disabled = if features.git_repo_volumes { "" } else { ", and disabled by default in v1.33+" };
            out.push(format!("{}: deprecated in v1.11{disabled}", path.child("gitRepo")));
        }
        let claim = volume.ephemeral().and_then(|ephemeral| ephemeral.volume_claim_template());
        if let Some(claim) = claim.and_then(|template| template.spec()) {
            claim::spec_warnings(out, &path.child("ephemeral.volumeClaimTemplate.spec"), claim);
        }
    }
}

/// Values of a list's field that were there before.
fn repeated<'a>(out: &mut Warnings, path: &Path<'_>, field: &str, values: impl Iterator<Item = Option<&'a str>>) {
    let mut seen = BTreeSet::new();
    for (i, value) in values.map(|value| value.unwrap_or("")).enumerate() {
        if !seen.insert(value) {
            out.push(format!("{}: duplicate {field} {}", path.index(i).child(field), go_quote(value)));
        }
    }
}

/// `seen` is room for names of variables.
fn of_container<'a>(out: &mut Warnings, path: &Path<'_>, container: Container<'a>, seen: &mut HashSet<&'a str>) {
    if let Some(resources) = container.resources() {
        let path = path.child("resources");
        fractions(out, &path.child("limits"), resources.limits());
        fractions(out, &path.child("requests"), resources.requests());
    }
    seen.clear();
    for (i, var) in container.env().iter().enumerate() {
        let name = var.name().unwrap_or("");
        if seen.insert(name) {
            continue;
        }
        let value = var.value().unwrap_or("");
        let former = format!("$({name})");
        // A variable made of its own former value and something more hides nothing.
        if var.value_from().is_some() || value == former || !value.contains(&former) {
            out.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                path.child("env").index(i),
                go_quote(name)
            ));
        }
    }
}

/// Amounts that are no whole bytes.
fn fractions(out: &mut Warnings, path: &Path<'_>, list: StrMap<'_>) {
    for name in ["memory", "ephemeral-storage"] {
        if let Some(value) = list.get(name).filter(|value| !quantity(value).is_whole()) {
            out.push(format!("{}: fractional byte value \"{value}\" is invalid, must be an integer", path.key(name)));
        }
    }
}
