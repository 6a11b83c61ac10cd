//! Security contexts, and what an operating system allows.

use super::super::fields::{Errors, MAX_INT32, inclusive, json_map, local_descending_path, supported_of};
use crate::tree::{Map, Value};
use crate::view::core_v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext};
use api::{FieldError, Path};
use std::collections::BTreeSet;

fn id(errors: &mut Errors, path: &Path<'_>, value: Option<i64>) {
    if let Some(value) = value.filter(|value| !(0..=MAX_INT32).contains(value)) {
        errors.push(FieldError::invalid(path, value, inclusive(0, MAX_INT32)));
    }
}

pub(super) fn pod(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
    if spec.host_pid().unwrap_or(false) && spec.share_process_namespace().unwrap_or(false) {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.push(FieldError::invalid(&path.child("shareProcessNamespace"), true, why));
    }
    let Some(context) = spec.security_context() else { return };
    id(errors, &path.child("fsGroup"), context.fs_group());
    id(errors, &path.child("runAsUser"), context.run_as_user());
    id(errors, &path.child("runAsGroup"), context.run_as_group());
    for (i, group) in context.supplemental_groups().iter().enumerate() {
        id(errors, &path.child("supplementalGroups").index(i), Some(group));
    }
    sysctls(errors, &path.child("sysctls"), spec);
    let policies = ["Always", "OnRootMismatch"];
    supported_of(errors, &path.child("fsGroupChangePolicy"), context.fs_group_change_policy(), &policies);
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile());
    windows(errors, &path.child("windowsOptions"), context.0);
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

fn sysctls(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
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
        } else if !seen.insert(name) {
            errors.push(FieldError::duplicate(&path, name));
        }
        let name = name.replace('/', ".");
        let ipc = name.starts_with("kernel.shm")
            || name.starts_with("kernel.msg")
            || name.starts_with("fs.mqueue.")
            || name == "kernel.sem";
        if spec.host_network().unwrap_or(false) && name.starts_with("net.") {
            errors.push(FieldError::invalid(&path, name.as_str(), "may not be specified when 'hostNetwork' is true"));
        }
        if spec.host_ipc().unwrap_or(false) && ipc {
            errors.push(FieldError::invalid(&path, name.as_str(), "may not be specified when 'hostIPC' is true"));
        }
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
            errors.push(FieldError::invalid(&local_path, json_map(profile.0), why));
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

fn windows(errors: &mut Errors, path: &Path<'_>, context: &Map) {
    let Some(options) = context.get("windowsOptions").and_then(Value::as_map) else { return };
    if let Some(spec) = options.get("gmsaCredentialSpec").and_then(Value::as_str) {
        let path = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(FieldError::invalid(&path, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > 64 * 1024 {
            let why = "gmsaCredentialSpec size must be under 64 KiB";
            errors.push(FieldError::invalid(&path, spec, why));
        }
    }
    if let Some(user) = options.get("runAsUserName").and_then(Value::as_str)
        && user.is_empty()
    {
        errors.push(FieldError::invalid(&path.child("runAsUserName"), user, "runAsUserName cannot be an empty string"));
    }
}

pub(super) fn container(
    errors: &mut Errors,
    path: &Path<'_>,
    context: Option<SecurityContext<'_>>,
    host_users: Option<bool>,
) {
    let Some(context) = context else { return };
    id(errors, &path.child("runAsUser"), context.run_as_user());
    id(errors, &path.child("runAsGroup"), context.run_as_group());
    supported_of(errors, &path.child("procMount"), context.proc_mount(), &["Default", "Unmasked"]);
    if host_users.unwrap_or(true) && context.proc_mount() == Some("Unmasked") {
        let why = "`hostUsers` must be false to use `Unmasked`";
        errors.push(FieldError::invalid(&path.child("procMount"), "Unmasked", why));
    }
    seccomp(errors, &path.child("seccompProfile"), context.seccomp_profile());
    if context.allow_privilege_escalation() == Some(false) {
        if context.privileged() == Some(true) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(FieldError::invalid(path, json_map(context.0), why));
        }
        let added = context.capabilities().map(|capabilities| capabilities.add());
        if added.is_some_and(|added| added.iter().any(|name| name == "CAP_SYS_ADMIN")) {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(FieldError::invalid(path, json_map(context.0), why));
        }
    }
    windows(errors, &path.child("windowsOptions"), context.0);
    app_armor(errors, &path.child("appArmorProfile"), context.app_armor_profile());
}

/// Fields of another operating system.
pub(super) fn os(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
    let Some(os) = spec.os() else { return };
    let name = os.name().unwrap_or("");
    if name.is_empty() {
        errors.push(FieldError::required(&path.child("os").child("name"), "cannot be empty"));
        return;
    }
    let (fields, why): (&[&str], &str) = match name {
        "linux" => (&["windowsOptions"], "windows options cannot be set for a linux pod"),
        "windows" => (
            &[
                "appArmorProfile",
                "seLinuxOptions",
                "seccompProfile",
                "fsGroup",
                "fsGroupChangePolicy",
                "sysctls",
                "runAsUser",
                "runAsGroup",
                "supplementalGroups",
                "supplementalGroupsPolicy",
                "capabilities",
                "readOnlyRootFilesystem",
                "privileged",
                "allowPrivilegeEscalation",
                "procMount",
            ],
            "cannot be set for a windows pod",
        ),
        _ => {
            supported_of(errors, &path.child("os").child("name"), Some(name), &["linux", "windows"]);
            return;
        }
    };
    let forbid = |errors: &mut Errors, path: &Path<'_>, context: Option<&Map>| {
        for field in fields.iter().filter(|field| context.is_some_and(|context| context.contains_key(field))) {
            errors.push(FieldError::forbidden(&path.child("securityContext").child(field), why));
        }
    };
    if name == "windows" {
        for field in ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"] {
            if spec.0.contains_key(field) {
                errors.push(FieldError::forbidden(&path.child(field), why));
            }
        }
    }
    forbid(errors, path, spec.security_context().map(|context| context.0));
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let containers = spec.0.get(list).and_then(Value::as_list).unwrap_or_default();
        for (i, container) in containers.iter().filter_map(Value::as_map).enumerate() {
            let lists = path.child(list);
            forbid(errors, &lists.index(i), container.get("securityContext").and_then(Value::as_map));
        }
    }
}
