//! The checks of the Pod Security Standards, each from the version that brought it, and which run for a standard.

mod baseline;
mod restricted;

use super::policy::{Level, Standard, Version};
use crate::admission::walk;
use api::field::go_quote;
use schema::{Map, Value};
use std::collections::BTreeSet;

/// What is checked: a pod, or a template of pods.
#[derive(Clone, Copy)]
pub(super) struct Pod<'a> {
    pub(super) metadata: &'a Map,
    pub(super) spec: &'a Map,
}

/// What a check found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

fn refuse(reason: &'static str, detail: String) -> Option<Refusal> {
    Some(Refusal { reason, detail })
}

type Run = fn(&Pod<'_>) -> Option<Refusal>;

/// A row: a check of a level, and what it is from each minor version on.
struct Check {
    id: &'static str,
    level: Level,
    /// Oldest first.
    versions: &'static [(u32, Run)],
    /// The baseline check that this one makes superfluous.
    overrides: &'static str,
}

const fn baseline(id: &'static str, versions: &'static [(u32, Run)]) -> Check {
    Check { id, level: Level::Baseline, versions, overrides: "" }
}

const fn restricted(id: &'static str, versions: &'static [(u32, Run)], overrides: &'static str) -> Check {
    Check { id, level: Level::Restricted, versions, overrides }
}

/// Every check, in the order of upstream's messages: by level, then by identifier.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[(0, baseline::apparmor)]),
    baseline("capabilities_baseline", &[(0, baseline::capabilities)]),
    baseline("hostNamespaces", &[(0, baseline::host_namespaces)]),
    baseline("hostPathVolumes", &[(0, baseline::host_path)]),
    baseline("hostPorts", &[(0, baseline::host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, baseline::probe_hosts)]),
    baseline("privileged", &[(0, baseline::privileged)]),
    baseline("procMount_baseline", &[(0, baseline::proc_mount), (35, baseline::proc_mount_unless_own_users)]),
    baseline("seLinuxOptions", &[(0, baseline::selinux_0), (31, baseline::selinux_31)]),
    baseline("seccompProfile_baseline", &[(0, baseline::seccomp_annotations), (19, baseline::seccomp)]),
    baseline(
        "sysctls",
        &[(0, baseline::sysctls_0), (27, baseline::sysctls_27), (29, baseline::sysctls_29), (32, baseline::sysctls_32)],
    ),
    baseline("windowsHostProcess", &[(0, baseline::host_process)]),
    restricted("allowPrivilegeEscalation", &[(8, restricted::escalation), (25, restricted::escalation_on_linux)], ""),
    restricted(
        "capabilities_restricted",
        &[(22, restricted::capabilities), (25, restricted::capabilities_on_linux)],
        "capabilities_baseline",
    ),
    restricted("procMount_restricted", &[(35, baseline::proc_mount)], ""),
    restricted("restrictedVolumes", &[(0, restricted::volumes)], "hostPathVolumes"),
    restricted("runAsNonRoot", &[(0, restricted::non_root), (35, restricted::non_root_unless_own_users)], ""),
    restricted("runAsUser", &[(23, restricted::user), (35, restricted::user_unless_own_users)], ""),
    restricted(
        "seccompProfile_restricted",
        &[(19, restricted::seccomp), (25, restricted::seccomp_on_linux)],
        "seccompProfile_baseline",
    ),
];

/// What the checks of a standard find wrong with a pod.
pub(super) fn run(standard: Standard, pod: &Pod<'_>) -> Vec<Refusal> {
    let minor = match standard.version {
        Version::Minor(minor) => minor,
        Version::Latest => u32::MAX,
    };
    let at = |check: &Check| check.versions.iter().rev().find(|(since, _)| *since <= minor).map(|(_, run)| *run);
    let on = |check: &&Check| check.level <= standard.level && at(check).is_some();
    let overridden = |id: &str| CHECKS.iter().filter(on).any(|c| c.overrides == id);
    CHECKS.iter().filter(on).filter(|c| !overridden(c.id)).filter_map(|c| at(c)?(pod)).collect()
}

impl<'a> Pod<'a> {
    /// All containers: init, regular, ephemeral.
    fn containers(&self) -> impl Iterator<Item = &'a Map> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| walk::items(spec, &[list]))
    }
    /// The names of the containers of which something holds.
    fn containers_that(&self, mut holds: impl FnMut(&'a Map) -> bool) -> Vec<&'a str> {
        self.containers().filter(|c| holds(c)).map(|c| c.str_at(&["name"])).collect()
    }
    fn annotations(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let map = self.metadata.get("annotations").and_then(Value::as_map);
        map.into_iter().flat_map(Map::iter).filter_map(|(k, v)| Some((k, v.as_str()?)))
    }
    fn is_windows(&self) -> bool {
        self.spec.str_at(&["os", "name"]) == "windows"
    }
    /// Users inside are nobody outside.
    fn has_own_users(&self) -> bool {
        self.spec.get("hostUsers").and_then(Value::as_bool) == Some(false)
    }
    /// Who sets something bad in a security context: `pod and container "a"`; empty: nobody.
    fn setters(&self, mut bad: impl FnMut(&'a Map) -> bool) -> Vec<String> {
        let mut setters = Vec::new();
        if context(self.spec).is_some_and(&mut bad) {
            setters.push("pod".to_owned());
        }
        let names = self.containers_that(|c| context(c).is_some_and(&mut bad));
        if !names.is_empty() {
            setters.push(containers(&names));
        }
        setters
    }
}

/// The security context of a pod's spec or of a container.
fn context(of: &Map) -> Option<&Map> {
    of.get("securityContext").and_then(Value::as_map)
}

fn flag(map: &Map, path: &[&str]) -> Option<bool> {
    map.at(path).and_then(Value::as_bool)
}

/// `container "a"`, `containers "a", "b"`
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

fn quoted<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    texts.into_iter().map(|t| go_quote(t.as_ref())).collect::<Vec<_>>().join(", ")
}

/// The strings of a list.
fn strings<'a>(map: &'a Map, path: &[&str]) -> impl Iterator<Item = &'a str> + use<'a> {
    map.at(path).and_then(Value::as_list).unwrap_or_default().iter().filter_map(Value::as_str)
}

type Names<'a> = BTreeSet<&'a str>;

#[cfg(test)]
mod tests;
