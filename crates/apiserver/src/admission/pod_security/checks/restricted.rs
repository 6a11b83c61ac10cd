//! Restricted: a pod is hardened as best practice says.

use super::baseline::{is_confining, seccomp_type};
use super::{Names, Pod, Refusal, containers, context, flag, plural, quoted, refuse, strings};
use crate::admission::walk;
use schema::{Map, Value};

/// Windows has none of what some checks are about.
fn on_linux(pod: &Pod<'_>, check: fn(&Pod<'_>) -> Option<Refusal>) -> Option<Refusal> {
    if pod.is_windows() { None } else { check(pod) }
}

fn unless_own_users(pod: &Pod<'_>, check: fn(&Pod<'_>) -> Option<Refusal>) -> Option<Refusal> {
    if pod.has_own_users() { None } else { check(pod) }
}

pub(super) fn escalation(pod: &Pod<'_>) -> Option<Refusal> {
    let bad = pod.containers_that(|c| flag(c, &["securityContext", "allowPrivilegeEscalation"]) != Some(false));
    if bad.is_empty() {
        return None;
    }
    refuse(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad)),
    )
}

pub(super) fn escalation_on_linux(pod: &Pod<'_>) -> Option<Refusal> {
    on_linux(pod, escalation)
}

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Refusal> {
    let path = |which| ["securityContext", "capabilities", which];
    let keeping = pod.containers_that(|c| !strings(c, &path("drop")).any(|c| c == "ALL"));
    let mut added = Names::new();
    let adding = pod.containers_that(|c| {
        let own: Vec<&str> = strings(c, &path("add")).filter(|c| *c != "NET_BIND_SERVICE").collect();
        added.extend(&own);
        !own.is_empty()
    });
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        let (who, what) = (containers(&adding), quoted(added));
        details.push(format!("{who} must not include {what} in securityContext.capabilities.add"));
    }
    if details.is_empty() { None } else { refuse("unrestricted capabilities", details.join("; ")) }
}

pub(super) fn capabilities_on_linux(pod: &Pod<'_>) -> Option<Refusal> {
    on_linux(pod, capabilities)
}

const VOLUMES: [&str; 8] =
    ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

pub(super) fn volumes(pod: &Pod<'_>) -> Option<Refusal> {
    let (mut names, mut kinds) = (Vec::new(), Names::new());
    for volume in walk::items(pod.spec, &["volumes"]) {
        let kind = volume.iter().find(|(key, value)| *key != "name" && !value.is_null()).map_or("unknown", |(k, _)| k);
        if !VOLUMES.contains(&kind) {
            names.push(volume.str_at(&["name"]));
            kinds.insert(kind);
        }
    }
    if names.is_empty() {
        return None;
    }
    let (volumes, uses) = (plural("volume", "volumes", names.len()), plural("uses", "use", names.len()));
    let types = plural("restricted volume type", "restricted volume types", kinds.len());
    refuse("restricted volume types", format!("{volumes} {} {uses} {types} {}", quoted(names), quoted(kinds)))
}

pub(super) fn non_root(pod: &Pod<'_>) -> Option<Refusal> {
    let own = |c: &Map| flag(c, &["runAsNonRoot"]);
    let setters = pod.setters(|c| own(c) == Some(false));
    let reason = "runAsNonRoot != true";
    if !setters.is_empty() {
        return refuse(reason, format!("{} must not set securityContext.runAsNonRoot=false", setters.join(" and ")));
    }
    if context(pod.spec).and_then(own) == Some(true) {
        return None;
    }
    let silent = pod.containers_that(|c| context(c).and_then(own).is_none());
    if silent.is_empty() {
        return None;
    }
    refuse(reason, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent)))
}

pub(super) fn non_root_unless_own_users(pod: &Pod<'_>) -> Option<Refusal> {
    unless_own_users(pod, non_root)
}

pub(super) fn user(pod: &Pod<'_>) -> Option<Refusal> {
    let setters = pod.setters(|c| c.get("runAsUser").and_then(Value::as_i64) == Some(0));
    if setters.is_empty() {
        return None;
    }
    refuse("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and ")))
}

pub(super) fn user_unless_own_users(pod: &Pod<'_>) -> Option<Refusal> {
    unless_own_users(pod, user)
}

/// Every container has a profile that confines, of its own or of the pod.
pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Refusal> {
    if let Some(refusal) = super::baseline::seccomp(pod) {
        return Some(refusal);
    }
    if context(pod.spec).and_then(seccomp_type).is_some_and(is_confining) {
        return None;
    }
    let silent = pod.containers_that(|c| context(c).and_then(seccomp_type).is_none());
    if silent.is_empty() {
        return None;
    }
    let who = containers(&silent);
    refuse(
        "seccompProfile",
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""),
    )
}

pub(super) fn seccomp_on_linux(pod: &Pod<'_>) -> Option<Refusal> {
    on_linux(pod, seccomp)
}
