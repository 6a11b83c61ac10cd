//! Environment variables, and the downward API's fields.

use super::super::fields::{Errors, problems, quantity, required};
use super::container::of_all_kinds;
use crate::view::List;
use crate::view::core_v1::{
    EnvFromSource, EnvVar, FileKeySelector, ObjectFieldSelector, PodSpec, ResourceFieldSelector, Volume,
};
use api::{FieldError, Path, names};
use std::collections::BTreeMap;

const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Fields that are known to pods, beside those that an environment or a volume may name.
const KNOWN: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

pub(super) fn env(errors: &mut Errors, path: &Path<'_>, vars: List<'_, EnvVar<'_>>) {
    for (i, var) in vars.iter().enumerate() {
        let path = path.index(i);
        let name = var.name().unwrap_or("");
        if required(errors, &path.child("name"), Some(name)) {
            problems(errors, &path.child("name"), name, names::env_var_name(name));
        }
        value_from(errors, &path.child("valueFrom"), var);
    }
}

fn value_from(errors: &mut Errors, path: &Path<'_>, var: EnvVar<'_>) {
    let Some(from) = var.value_from() else { return };
    let mut sources = 0;
    if let Some(field) = from.field_ref() {
        sources += 1;
        field_ref(errors, &path.child("fieldRef"), field, &FIELDS);
    }
    if let Some(resource) = from.resource_field_ref() {
        sources += 1;
        resource_ref(errors, &path.child("resourceFieldRef"), resource, false);
    }
    if let Some(key) = from.config_map_key_ref() {
        sources += 1;
        key_ref(errors, &path.child("configMapKeyRef"), key.name(), key.key());
    }
    if let Some(key) = from.secret_key_ref() {
        sources += 1;
        key_ref(errors, &path.child("secretKeyRef"), key.name(), key.key());
    }
    if let Some(key) = from.file_key_ref() {
        sources += 1;
        file_ref(errors, &path.child("fileKeyRef"), key);
    }
    let has_value = !var.value().unwrap_or("").is_empty();
    if sources == 0 {
        let why =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(FieldError::invalid(path, "", why));
    } else if has_value {
        errors.push(FieldError::invalid(path, "", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time"));
    }
}

fn file_ref(errors: &mut Errors, path: &Path<'_>, key: FileKeySelector<'_>) {
    if required(errors, &path.child("key"), key.key()) {
        let key = key.key().unwrap_or("");
        problems(errors, &path.child("key"), key, names::env_var_name(key));
    }
    if required(errors, &path.child("volumeName"), key.volume_name()) {
        let name = key.volume_name().unwrap_or("");
        problems(errors, &path.child("volumeName"), name, names::dns1123_label(name));
    }
    if required(errors, &path.child("path"), key.path()) {
        super::super::fields::local_non_reserved_path(errors, &path.child("path"), key.path().unwrap_or(""));
    }
}

fn key_ref(errors: &mut Errors, path: &Path<'_>, name: Option<&str>, key: Option<&str>) {
    let name = name.unwrap_or("");
    problems(errors, &path.child("name"), name, names::dns1123_subdomain(name));
    if required(errors, &path.child("key"), key) {
        let key = key.unwrap_or("");
        problems(errors, &path.child("key"), key, names::config_map_key(key));
    }
}

/// The path and the key of `metadata.labels['key']`.
fn subscripted(path: &str) -> Option<(&str, &str)> {
    let (path, rest) = path.strip_suffix("']")?.split_once("['")?;
    (!path.is_empty()).then_some((path, rest))
}

pub(super) fn field_ref(errors: &mut Errors, path: &Path<'_>, field: ObjectFieldSelector<'_>, allowed: &[&str]) {
    if !required(errors, &path.child("apiVersion"), field.api_version()) {
        return;
    }
    if !required(errors, &path.child("fieldPath"), field.field_path()) {
        return;
    }
    let label = field.field_path().unwrap_or("");
    let field_path = path.child("fieldPath");
    let refuse = |why: String| FieldError::invalid(&field_path, label, format!("error converting fieldPath: {why}"));
    let version = field.api_version().unwrap_or("");
    if version != "v1" {
        errors.push(refuse(format!("unsupported pod version: {version}")));
        return;
    }
    if let Some((base, key)) = subscripted(label) {
        match base {
            "metadata.annotations" => problems(errors, path, key, names::qualified_name(&key.to_lowercase())),
            "metadata.labels" => problems(errors, path, key, names::qualified_name(key)),
            _ => errors.push(refuse(format!("field label does not support subscript: {label}"))),
        }
        return;
    }
    let label = if label == "spec.host" { "spec.nodeName" } else { label };
    if !FIELDS.contains(&label) && !KNOWN.contains(&label) {
        errors.push(refuse(format!("field label not supported: {label}")));
    } else if !allowed.contains(&label) {
        errors.push(FieldError::not_supported(&field_path, label, allowed));
    }
}

pub(super) fn resource_ref(errors: &mut Errors, path: &Path<'_>, field: ResourceFieldSelector<'_>, volume: bool) {
    let resource = field.resource().unwrap_or("");
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if volume && field.container_name().unwrap_or("").is_empty() {
        errors.push(FieldError::required(&path.child("containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(&path.child("resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.push(FieldError::not_supported(&path.child("resource"), resource, &RESOURCES));
    }
    const SIZES: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
    let divisor = field.divisor().unwrap_or("");
    if divisor.is_empty() || quantity(divisor).is_zero() {
        return;
    }
    let (values, what) = match resource {
        "limits.cpu" | "requests.cpu" => ("1m, 1", "cpu"),
        "limits.memory" | "requests.memory" => (SIZES, "memory"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => (SIZES, "local ephemeral storage"),
        _ if huge => (SIZES, "hugepages"),
        _ => return,
    };
    if !values.split(", ").any(|value| value == divisor) {
        let values = if what == "cpu" { "1m and 1" } else { values };
        errors.push(FieldError::invalid(
            &path.child("divisor"),
            resource,
            format!("only divisor's values {values} are supported with the {what} resource"),
        ));
    }
}

pub(super) fn env_from(errors: &mut Errors, path: &Path<'_>, sources: List<'_, EnvFromSource<'_>>) {
    for (i, source) in sources.iter().enumerate() {
        let here = path.index(i);
        let prefix = source.prefix().unwrap_or("");
        if !prefix.is_empty() {
            problems(errors, &here.child("prefix"), prefix, names::env_var_name(prefix));
        }
        let mut count = 0;
        let references = [
            ("configMapRef", source.config_map_ref().map(|r| r.name())),
            ("secretRef", source.secret_ref().map(|r| r.name())),
        ];
        for (field, name) in references {
            let Some(name) = name else { continue };
            count += 1;
            let here = here.child(field);
            if required(errors, &here.child("name"), name) {
                let name = name.unwrap_or("");
                problems(errors, &here.child("name"), name, names::dns1123_subdomain(name.trim_end_matches('-')));
            }
        }
        if count == 0 {
            errors.push(FieldError::invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"));
        } else if count > 1 {
            errors.push(FieldError::invalid(path, "", "may not have more than one field specified at a time"));
        }
    }
}

/// Files of variables are in volumes that are there, and empty at first.
pub(super) fn file_volumes(errors: &mut Errors, path: &Path<'_>, spec: PodSpec<'_>) {
    let mut volumes: Option<BTreeMap<&str, Volume<'_>>> = None;
    for (field, i, container) in of_all_kinds(spec) {
        let list = path.child(field);
        let container_path = list.index(i);
        let vars = container_path.child("env");
        for (i, var) in container.env().iter().enumerate() {
            let Some(key) = var.value_from().and_then(|from| from.file_key_ref()) else { continue };
            let name = key.volume_name().unwrap_or("");
            let var = vars.index(i);
            let path = var.child("valueFrom.fileKeyRef.volumeName");
            // Few have such variables. Of volumes of one name the last counts.
            let volumes = volumes
                .get_or_insert_with(|| spec.volumes().iter().filter_map(|one| Some((one.name()?, one))).collect());
            match volumes.get(name) {
                None => errors.push(FieldError::not_found(&path, name)),
                Some(volume) if volume.empty_dir().is_none() => {
                    errors.push(FieldError::invalid(&path, name, "referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    }
}
