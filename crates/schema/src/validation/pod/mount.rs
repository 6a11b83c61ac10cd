//! Where volumes are mounted.

use super::super::fields::{Errors, local_descending_path, required, supported_of};
use super::Volumes;
use super::container::by_name;
use crate::view::core_v1::{Container, VolumeMount};
use api::{FieldError, Path};
use std::collections::BTreeSet;

pub(super) fn mounts(errors: &mut Errors, path: &Path<'_>, container: Container<'_>, volumes: &Volumes<'_>) {
    let devices = by_name(container.volume_devices().values(), "devicePath");
    let mut seen = BTreeSet::new();
    for (i, mount) in container.volume_mounts().iter().enumerate() {
        let here = path.index(i);
        let name = mount.name().unwrap_or("");
        required(errors, &here.child("name"), Some(name));
        if !volumes.contains_key(name) {
            errors.push(FieldError::not_found(&here.child("name"), name));
        }
        let target = mount.mount_path().unwrap_or("");
        required(errors, &here.child("mountPath"), Some(target));
        if !seen.insert(target) {
            errors.push(FieldError::invalid(&here.child("mountPath"), target, "must be unique"));
        }
        if devices.contains_key(name) {
            let why = "must not already exist in volumeDevices";
            errors.push(FieldError::invalid(&here.child("name"), name, why));
        }
        if devices.values().any(|device| *device == target) {
            let why = "must not already exist as a path in volumeDevices";
            errors.push(FieldError::invalid(&here.child("mountPath"), target, why));
        }
        let (sub_path, expression) = (mount.sub_path().unwrap_or(""), mount.sub_path_expr().unwrap_or(""));
        // Upstream names the list here, not its element.
        local_descending_path(errors, &path.child("subPath"), sub_path);
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                let why = "subPathExpr and subPath are mutually exclusive";
                errors.push(FieldError::invalid(&here.child("subPathExpr"), expression, why));
            }
            local_descending_path(errors, &path.child("subPathExpr"), expression);
        }
        propagation(errors, &path.child("mountPropagation"), mount, container);
        recursive_read_only(errors, &here.child("recursiveReadOnly"), mount);
    }
}

fn propagation(errors: &mut Errors, path: &Path<'_>, mount: VolumeMount<'_>, container: Container<'_>) {
    let Some(value) = mount.mount_propagation() else { return };
    let supported = ["Bidirectional", "HostToContainer", "None"];
    if !supported.contains(&value) {
        errors.push(FieldError::not_supported(path, value, &supported));
    }
    let privileged = container.security_context().and_then(|context| context.privileged()).unwrap_or(false);
    if value == "Bidirectional" && !privileged {
        let why = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(FieldError::forbidden(path, why));
    }
}

fn recursive_read_only(errors: &mut Errors, path: &Path<'_>, mount: VolumeMount<'_>) {
    let Some(value) = mount.recursive_read_only() else { return };
    match value {
        "Disabled" => {}
        "IfPossible" | "Enabled" => {
            if !mount.read_only().unwrap_or(false) {
                errors.push(FieldError::forbidden(path, "may only be specified when readOnly is true"));
            }
            if !matches!(mount.mount_propagation().unwrap_or(""), "" | "None") {
                let why = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(path, why));
            }
        }
        other => supported_of(errors, path, Some(other), &["Disabled", "Enabled", "IfPossible"]),
    }
}

pub(super) fn devices(errors: &mut Errors, path: &Path<'_>, container: Container<'_>, volumes: &Volumes<'_>) {
    let mounts = by_name(container.volume_mounts().values(), "mountPath");
    let (mut paths, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in container.volume_devices().iter().enumerate() {
        let here = path.index(i);
        let (name, target) = (device.name().unwrap_or(""), device.device_path().unwrap_or(""));
        required(errors, &here.child("name"), Some(name));
        if names.contains(name) {
            errors.push(FieldError::invalid(&here.child("name"), name, "must be unique"));
        }
        match volumes.get(name) {
            Some(volume) if volume.persistent_volume_claim().is_none() && volume.ephemeral().is_none() => {
                let why = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(FieldError::invalid(&here.child("name"), name, why));
            }
            Some(_) => {}
            None => errors.push(FieldError::not_found(&here.child("name"), name)),
        }
        required(errors, &here.child("devicePath"), Some(target));
        if paths.contains(target) {
            errors.push(FieldError::invalid(&here.child("devicePath"), target, "must be unique"));
        }
        if target.split('/').any(|part| part == "..") {
            let why = "can not contain backsteps ('..')";
            errors.push(FieldError::invalid(&here.child("devicePath"), target, why));
        } else {
            paths.insert(target);
        }
        if mounts.contains_key(name) {
            let why = "must not already exist in volumeMounts";
            errors.push(FieldError::invalid(&here.child("name"), name, why));
        }
        if mounts.values().any(|mount| *mount == target) {
            let why = "must not already exist as a path in volumeMounts";
            errors.push(FieldError::invalid(&here.child("devicePath"), target, why));
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}
