//! Security contexts, and what an operating system allows.

use super::super::fields::{Errors, MAX_INT32, inclusive, local_descending_path, supported_of};
use super::container::{Pod, of_all_kinds};
use super::{Options, windows};
use crate::tree::Map;
use crate::validation::shown::{PROFILE, SECURITY_CONTEXT, shown};
use crate::view::core_v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext};
use api::{FieldError, Path};
use std::collections::BTreeSet;

fn id(errors: &mut Errors, path: &Path<'_>, value: Option<i64>) {
    if let Some(value) = value.filter(|value| !(0..=MAX_INT32).contains(value)) {
        errors.push(FieldError::invalid(path, value, inclusive(0, MAX_INT32)));
    }
}

pub(super) fn pod(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, options: Options<'_>) {
    let shared = || {
        let both = spec.host_pid().unwrap_or(false) && spec.share_process_namespace().unwrap_or(false);
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        both.then(|| FieldError::invalid(&path.child("shareProcessNamespace"), true, why))
    };
    let Some(context) = spec.security_context() else {
        errors.extend(shared());
        return;
    };
    id(errors, &path.child("fsGroup"), context.fs_group());
    id(errors, &path.child("runAsUser"), context.run_as_user());
    id(errors, &path.child("runAsGroup"), context.run_as_group());
    for (i, group) in context.supplemental_groups().iter().enumerate() {
        id(errors, &path.child("supplementalGroups").index(i), Some(group));
    }
    errors.extend(shared());
    sysctls(errors, &path.child("sysctls"), spec, options.sysctls_of_host());
    let policies = ["Always", "OnRootMismatch"];
    supported_of(errors, &path.child("fsGroupChangePolicy"), context.fs_group_change_policy(), &policies);
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile());
    if !options.keeps_spec() {
        windows::options(errors, &path.child("windowsOptions"), context.windows_options());
    }
    app_armor(errors, &path.child("appArmorProfile"), context.app_armor_profile());
    let policies = ["Merge", "Strict"];
    supported_of(errors, &path.child("supplementalGroupsPolicy"), context.supplemental_groups_policy(), &policies);
    let policies = ["MountOption", "Recursive"];
    supported_of(errors, &path.child("seLinuxChangePolicy"), context.se_linux_change_policy(), &policies);
}

fn sysctl_name(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split(['.', '/']).all(|part| {
            let part = part.as_bytes();
            part.first().is_some_and(|b| inner(*b))
                && part.last().is_some_and(|b| inner(*b))
                && part.iter().all(|b| inner(*b) || matches!(b, b'-' | b'_'))
        })
}

/// Which of the host's namespaces that a pod shares a sysctl is of, by the field that says so.
fn host_namespace(spec: PodSpec<'_>, name: &str) -> Option<&'static str> {
    let name = name.replace('/', ".");
    let ipc = name.starts_with("kernel.shm")
        || name.starts_with("kernel.msg")
        || name.starts_with("fs.mqueue.")
        || name == "kernel.sem";
    match () {
        () if spec.host_network() == Some(true) && name.starts_with("net.") => Some("hostNetwork"),
        () if spec.host_ipc() == Some(true) && ipc => Some("hostIPC"),
        () => None,
    }
}

/// Whether a pod has sysctls for namespaces that it shares with the host, as was allowed before.
pub(super) fn has_sysctls_of_host(spec: PodSpec<'_>) -> bool {
    let list = spec.security_context().map(|context| context.sysctls());
    let mut list = list.into_iter().flat_map(|list| list.iter());
    list.any(|sysctl| host_namespace(spec, sysctl.name().unwrap_or("")).is_some())
}

fn sysctls(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, of_host: bool) {
    let list = spec.security_context().map(|context| context.sysctls());
    let mut seen = BTreeSet::new();
    for (i, sysctl) in list.into_iter().flat_map(|list| list.iter()).enumerate() {
        let here = path.index(i);
        let path = here.child("name");
        let name = sysctl.name().unwrap_or("");
        if name.is_empty() {
            errors.push(FieldError::required(&path, ""));
        } else if !sysctl_name(name) {
            errors.push(FieldError::invalid(
                &path,
                name,
                "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*([a-z0-9]([-_a-z0-9]*[a-z0-9])?)$",
            ));
        } else if seen.contains(name) {
            errors.push(FieldError::duplicate(&path, name));
        }
        if let Some(field) = host_namespace(spec, name).filter(|_| !of_host) {
            errors.push(FieldError::invalid(&path, name, format!("may not be specified when '{field}' is true")));
        }
        seen.insert(name);
    }
}

fn seccomp(errors: &mut Errors, path: &Path<'_>, profile: Option<SeccompProfile<'_>>) {
    let Some(profile) = profile else { return };
    let (kind, local) = (profile.type_().unwrap_or(""), profile.localhost_profile());
    let local_path = path.child("localhostProfile");
    match (kind, local) {
        ("", _) => {
            errors.push(FieldError::required(&path.child("type"), "type is required when seccompProfile is set"))
        }
        ("Localhost", None) => {
            errors.push(FieldError::required(&local_path, "must be set when seccomp type is Localhost"));
        }
        ("Localhost", Some(local)) => local_descending_path(errors, &local_path, local),
        (_, Some(_)) => {
            let why = "can only be set when seccomp type is Localhost";
            errors.push(FieldError::invalid(&local_path, shown(profile.0, PROFILE), why));
        }
        _ => {}
    }
    if !kind.is_empty() {
        supported_of(errors, &path.child("type"), Some(kind), &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
}

fn app_armor(errors: &mut Errors, path: &Path<'_>, profile: Option<AppArmorProfile<'_>>) {
    let Some(profile) = profile else { return };
    let local_path = path.child("localhostProfile");
    let local = profile.localhost_profile();
    match profile.type_().unwrap_or("") {
        "" => errors.push(FieldError::required(&path.child("type"), "type is required when appArmorProfile is set")),
        "Localhost" => {
            let name = local.unwrap_or("");
            if name.trim() != name {
                errors.push(FieldError::invalid(&local_path, name, "must not be padded with whitespace"));
            } else if name.is_empty() {
                errors.push(FieldError::required(&local_path, "must be set when AppArmor type is Localhost"));
            }
            if name.len() > 4095 {
                errors.push(FieldError::too_long(&local_path, 4095));
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if let Some(name) = local {
                let why = "can only be set when AppArmor type is Localhost";
                errors.push(FieldError::invalid(&local_path, name, why));
            }
        }
        other => {
            supported_of(errors, &path.child("type"), Some(other), &["Localhost", "RuntimeDefault", "Unconfined"]);
        }
    }
}

pub(super) fn container(errors: &mut Errors, path: &Path<'_>, context: Option<SecurityContext<'_>>, pod: &Pod<'_>) {
    let Some(context) = context else { return };
    id(errors, &path.child("runAsUser"), context.run_as_user());
    id(errors, &path.child("runAsGroup"), context.run_as_group());
    supported_of(errors, &path.child("procMount"), context.proc_mount(), &["Default", "Unmasked"]);
    if pod.host_users.unwrap_or(true) && context.proc_mount() == Some("Unmasked") {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(&path.child("procMount"), "Unmasked", why));
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile());
    if context.allow_privilege_escalation() == Some(false) {
        if context.privileged() == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, shown(context.0, SECURITY_CONTEXT), why));
        }
        let added = context.capabilities().map(|capabilities| capabilities.add());
        if added.is_some_and(|added| added.iter().any(|name| name == "CAP_SYS_ADMIN")) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, shown(context.0, SECURITY_CONTEXT), why));
        }
    }
    if !pod.keeps_spec {
        windows::options(errors, &path.child("windowsOptions"), context.windows_options());
    }
    app_armor(errors, &path.child("appArmorProfile"), context.app_armor_profile());
}

const NOT_OF_WINDOWS: &str = "cannot be set for a windows pod";

/// What a pod on Windows may not say, in upstream's order; where it begins with a dot, of its security context.
const OF_WINDOWS_POD: [&str; 15] = [
    ".appArmorProfile",
    ".seLinuxOptions",
    "hostUsers",
    "hostPID",
    "hostIPC",
    ".seccompProfile",
    ".fsGroup",
    ".fsGroupChangePolicy",
    ".sysctls",
    "shareProcessNamespace",
    ".runAsUser",
    ".runAsGroup",
    ".supplementalGroups",
    ".supplementalGroupsPolicy",
    ".seLinuxChangePolicy",
];

/// What the security context of a container on Windows may not say.
const OF_WINDOWS_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// Fields of another operating system.
pub(super) fn os(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
    let Some(os) = spec.os() else { return };
    match os.name().unwrap_or("") {
        "" => errors.push(FieldError::required(&path.child("os").child("name"), "cannot be empty")),
        "linux" => {
            let why = "windows options cannot be set for a linux pod";
            let whole = spec.security_context().map(|context| context.0);
            forbid(errors, path, whole, &["windowsOptions"], why);
            of_containers(errors, path, spec, &["windowsOptions"], why);
        }
        "windows" => {
            let context = spec.security_context().map(|context| context.0);
            for field in OF_WINDOWS_POD {
                match field.strip_prefix('.') {
                    Some(field) => forbid(errors, path, context, &[field], NOT_OF_WINDOWS),
                    None if spec.0.contains_key(field) => {
                        errors.push(FieldError::forbidden(&path.child(field), NOT_OF_WINDOWS));
                    }
                    None => {}
                }
            }
            of_containers(errors, path, spec, &OF_WINDOWS_CONTAINER, NOT_OF_WINDOWS);
        }
        name => errors.push(FieldError::not_supported(&path.child("os"), name, &["linux", "windows"])),
    }
}

fn forbid(errors: &mut Errors, path: &Path<'_>, context: Option<&Map>, fields: &[&str], why: &str) {
    for field in fields.iter().filter(|field| context.is_some_and(|context| context.contains_key(field))) {
        errors.push(FieldError::forbidden(&path.child("securityContext").child(field), why));
    }
}

fn of_containers(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>, fields: &[&str], why: &str) {
    for (list, i, container) in of_all_kinds(spec) {
        let lists = path.child(list);
        forbid(errors, &lists.index(i), container.security_context().map(|context| context.0), fields, why);
    }
}
