//! The baseline: known ways out of a container are closed.

use super::{Names, Pod, Refusal, containers, context, flag, plural, quoted, refuse, strings};
use crate::admission::walk;
use api::field::go_quote;
use schema::{Map, Value};
use std::collections::BTreeSet;

const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

pub(super) fn apparmor(pod: &Pod<'_>) -> Option<Refusal> {
    let mut types = Names::new();
    let mut setters = pod.setters(|c| {
        let Some(profile) = c.get("appArmorProfile").and_then(Value::as_map) else { return false };
        let kind = profile.str_at(&["type"]);
        let bad = !matches!(kind, "RuntimeDefault" | "Localhost");
        if bad {
            types.insert(kind);
        }
        bad
    });
    let allowed = |profile: &str| matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/");
    let annotations: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| key.starts_with(APPARMOR) && !allowed(value))
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect();
    if !annotations.is_empty() {
        setters.push(plural("annotation", "annotations", annotations.len()).to_owned());
    }
    let values: Vec<&str> = types.into_iter().chain(annotations.iter().map(String::as_str)).collect();
    if setters.is_empty() {
        return None;
    }
    refuse(
        plural("forbidden AppArmor profile", "forbidden AppArmor profiles", values.len()),
        format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(values)),
    )
}

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

pub(super) fn capabilities(pod: &Pod<'_>) -> Option<Refusal> {
    let mut added = Names::new();
    let bad = pod.containers_that(|c| {
        let own: Vec<&str> =
            strings(c, &["securityContext", "capabilities", "add"]).filter(|c| !CAPABILITIES.contains(c)).collect();
        added.extend(&own);
        !own.is_empty()
    });
    if bad.is_empty() {
        return None;
    }
    refuse(
        "non-default capabilities",
        format!("{} must not include {} in securityContext.capabilities.add", containers(&bad), quoted(added)),
    )
}

pub(super) fn host_namespaces(pod: &Pod<'_>) -> Option<Refusal> {
    let shared: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|key| flag(pod.spec, &[key]) == Some(true))
        .map(|key| format!("{key}=true"))
        .collect();
    if shared.is_empty() { None } else { refuse("host namespaces", shared.join(", ")) }
}

pub(super) fn host_path(pod: &Pod<'_>) -> Option<Refusal> {
    let volumes: Vec<&str> = walk::items(pod.spec, &["volumes"])
        .filter(|v| v.get("hostPath").is_some_and(|p| !p.is_null()))
        .map(|v| v.str_at(&["name"]))
        .collect();
    if volumes.is_empty() {
        return None;
    }
    refuse("hostPath volumes", format!("{} {}", plural("volume", "volumes", volumes.len()), quoted(volumes)))
}

pub(super) fn host_ports(pod: &Pod<'_>) -> Option<Refusal> {
    let mut ports = BTreeSet::new();
    let bad = pod.containers_that(|c| {
        let own: Vec<String> = walk::items(c, &["ports"])
            .filter_map(|p| p.get("hostPort").and_then(Value::as_i64))
            .filter(|p| *p != 0)
            .map(|p| p.to_string())
            .collect();
        let any = !own.is_empty();
        ports.extend(own);
        any
    });
    if bad.is_empty() {
        return None;
    }
    let (uses, what) = (plural("uses", "use", bad.len()), plural("hostPort", "hostPorts", ports.len()));
    let ports: Vec<String> = ports.into_iter().collect();
    refuse("hostPort", format!("{} {uses} {what} {}", containers(&bad), ports.join(", ")))
}

/// Probes and lifecycle handlers that name a host reach others from the node.
pub(super) fn probe_hosts(pod: &Pod<'_>) -> Option<Refusal> {
    const HANDLERS: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    let mut hosts = Names::new();
    let mut bad: Vec<&str> = pod.containers_that(|c| {
        let mut any = false;
        for handler in HANDLERS.iter().filter_map(|path| c.at(path).and_then(Value::as_map)) {
            for host in ["httpGet", "tcpSocket"].map(|kind| handler.str_at(&[kind, "host"])) {
                if !host.is_empty() {
                    hosts.insert(host);
                    any = true;
                }
            }
        }
        any
    });
    if bad.is_empty() {
        return None;
    }
    bad.sort_unstable();
    bad.dedup();
    let reason = "probe or lifecycle host";
    let (uses, what) = (plural("uses", "use", bad.len()), plural(reason, "probe or lifecycle hosts", hosts.len()));
    refuse(reason, format!("{} {uses} {what} {}", containers(&bad), quoted(hosts)))
}

pub(super) fn privileged(pod: &Pod<'_>) -> Option<Refusal> {
    let bad = pod.containers_that(|c| flag(c, &["securityContext", "privileged"]) == Some(true));
    if bad.is_empty() {
        return None;
    }
    refuse("privileged", format!("{} must not set securityContext.privileged=true", containers(&bad)))
}

pub(super) fn proc_mount(pod: &Pod<'_>) -> Option<Refusal> {
    let mut kinds = Names::new();
    let bad = pod.containers_that(|c| {
        let kind = c.str_at(&["securityContext", "procMount"]);
        let bad = !matches!(kind, "" | "Default");
        if bad {
            kinds.insert(kind);
        }
        bad
    });
    if bad.is_empty() {
        return None;
    }
    refuse("procMount", format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(kinds)))
}

pub(super) fn proc_mount_unless_own_users(pod: &Pod<'_>) -> Option<Refusal> {
    if pod.has_own_users() { None } else { proc_mount(pod) }
}

pub(super) fn selinux_0(pod: &Pod<'_>) -> Option<Refusal> {
    selinux(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

pub(super) fn selinux_31(pod: &Pod<'_>) -> Option<Refusal> {
    selinux(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn selinux(pod: &Pod<'_>, allowed: &[&str]) -> Option<Refusal> {
    let mut types = Names::new();
    let (mut user, mut role) = (false, false);
    let setters = pod.setters(|c| {
        let Some(options) = c.get("seLinuxOptions").and_then(Value::as_map) else { return false };
        let kind = options.str_at(&["type"]);
        let bad_type = !allowed.contains(&kind);
        if bad_type {
            types.insert(kind);
        }
        let (own_user, own_role) = (!options.str_at(&["user"]).is_empty(), !options.str_at(&["role"]).is_empty());
        user |= own_user;
        role |= own_role;
        bad_type || own_user || own_role
    });
    if setters.is_empty() {
        return None;
    }
    let mut bad = Vec::new();
    if !types.is_empty() {
        bad.push(format!("{} {}", plural("type", "types", types.len()), quoted(types)));
    }
    if user {
        bad.push("user may not be set".to_owned());
    }
    if role {
        bad.push("role may not be set".to_owned());
    }
    let detail = format!("{} set forbidden securityContext.seLinuxOptions: {}", setters.join(" and "), bad.join("; "));
    refuse("seLinuxOptions", detail)
}

const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// Before the field there were annotations.
pub(super) fn seccomp_annotations(pod: &Pod<'_>) -> Option<Refusal> {
    let allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let names: Vec<&str> = pod.containers().map(|c| c.str_at(&["name"])).collect();
    let ours =
        |key: &str| key == SECCOMP_POD || key.strip_prefix(SECCOMP_CONTAINER).is_some_and(|name| names.contains(&name));
    let bad: BTreeSet<String> = pod
        .annotations()
        .filter(|(key, value)| ours(key) && !allowed(value))
        .map(|(key, value)| format!("{key}={}", go_quote(value)))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<String> = bad.into_iter().collect();
    let what = plural("annotation", "annotations", bad.len());
    refuse("seccompProfile", format!("forbidden {what} {}", bad.join(", ")))
}

/// The type of a security context's seccomp profile, when it has one.
pub(super) fn seccomp_type(context: &Map) -> Option<&str> {
    context.get("seccompProfile").and_then(Value::as_map).map(|profile| profile.str_at(&["type"]))
}

pub(super) fn is_confining(kind: &str) -> bool {
    matches!(kind, "RuntimeDefault" | "Localhost")
}

/// Profiles that are set must confine.
pub(super) fn seccomp(pod: &Pod<'_>) -> Option<Refusal> {
    let mut types = Names::new();
    let setters = pod.setters(|c| {
        let bad = seccomp_type(c).filter(|kind| !is_confining(kind));
        types.extend(bad);
        bad.is_some()
    });
    if setters.is_empty() {
        return None;
    }
    let setters = setters.join(" and ");
    refuse("seccompProfile", format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(types)))
}

const SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    // 1.27
    "net.ipv4.ip_local_reserved_ports",
    // 1.29
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    // 1.32
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

pub(super) fn sysctls_0(pod: &Pod<'_>) -> Option<Refusal> {
    sysctls(pod, &SYSCTLS[..5])
}
pub(super) fn sysctls_27(pod: &Pod<'_>) -> Option<Refusal> {
    sysctls(pod, &SYSCTLS[..6])
}
pub(super) fn sysctls_29(pod: &Pod<'_>) -> Option<Refusal> {
    sysctls(pod, &SYSCTLS[..10])
}
pub(super) fn sysctls_32(pod: &Pod<'_>) -> Option<Refusal> {
    sysctls(pod, &SYSCTLS)
}

fn sysctls(pod: &Pod<'_>, allowed: &[&str]) -> Option<Refusal> {
    let names = context(pod.spec).into_iter().flat_map(|c| walk::items(c, &["sysctls"])).map(|s| s.str_at(&["name"]));
    let bad: Vec<&str> = names.filter(|name| !allowed.contains(name)).collect();
    if bad.is_empty() { None } else { refuse("forbidden sysctls", bad.join(", ")) }
}

pub(super) fn host_process(pod: &Pod<'_>) -> Option<Refusal> {
    let setters = pod.setters(|c| flag(c, &["windowsOptions", "hostProcess"]) == Some(true));
    if setters.is_empty() {
        return None;
    }
    let setters = setters.join(" and ");
    refuse("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
}
