//! apiregistration.k8s.io: which server serves a group and version.

use super::fields::{Errors, problems, required, supported_of};
use crate::tree::Map;
use crate::view::apiregistration_v1::{APIService, APIServiceSpec};
use api::field::go_quote;
use api::{FieldError, Path, names};

const SPEC: Path<'static> = Path::root("spec");

pub(super) fn create(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = APIService(object).spec().unwrap_or(APIServiceSpec(&empty));
    let (group, version) = (spec.group().unwrap_or(""), spec.version().unwrap_or(""));
    let name = object.str_at(&["metadata", "name"]);
    let wanted = format!("{version}.{group}");
    // A name that can't be part of a path is refused as such, with the rest of the metadata.
    if !name.is_empty() && name != wanted && names::path_segment(name).is_empty() {
        let metadata = Path::root("metadata");
        let why = format!("must be `spec.version+\".\"+spec.group`: {}", go_quote(&wanted));
        errors.push(FieldError::invalid(&metadata.child("name"), name, why));
    }
    let path = SPEC.child("group");
    if group.is_empty() && version != "v1" {
        errors.push(FieldError::required(&path, "only v1 may have an empty group and it better be legacy kube"));
    }
    if !group.is_empty() {
        problems(&mut errors, &path, group, names::dns1123_subdomain(group));
    }
    problems(&mut errors, &SPEC.child("version"), version, names::dns1035_label(version));
    for (field, given, most) in [
        ("groupPriorityMinimum", spec.group_priority_minimum(), 20_000),
        ("versionPriority", spec.version_priority(), 1000),
    ] {
        let given = given.unwrap_or(0);
        if !(1..=most).contains(&given) {
            let why = format!("must be positive and less than {most}");
            errors.push(FieldError::invalid(&SPEC.child(field), given, why));
        }
    }
    let insecure = spec.insecure_skip_tls_verify() == Some(true);
    let insecure_path = SPEC.child("insecureSkipTLSVerify");
    let bundle = spec.ca_bundle().unwrap_or("");
    let Some(service) = spec.service() else {
        if !bundle.is_empty() {
            let shown = format!("{} bytes", super::config::decoded(bundle));
            errors.push(FieldError::invalid(
                &SPEC.child("caBundle"),
                shown,
                "local APIServices may not have a caBundle",
            ));
        }
        if insecure {
            let why = "local APIServices may not have insecureSkipTLSVerify";
            errors.push(FieldError::invalid(&insecure_path, true, why));
        }
        return errors;
    };
    let path = SPEC.child("service");
    required(&mut errors, &path.child("namespace"), service.namespace());
    required(&mut errors, &path.child("name"), service.name());
    let port = service.port().unwrap_or(0);
    let bad = names::port_number(port);
    if !bad.is_empty() {
        let why = format!("port is not valid: {}", bad.join(", "));
        errors.push(FieldError::invalid(&path.child("port"), port, why));
    }
    if insecure && !bundle.is_empty() {
        errors.push(FieldError::invalid(&insecure_path, true, "may not be true if caBundle is present"));
    }
    errors
}

pub(super) fn update(subresource: &str, new: &Map, _: &Map) -> Errors {
    if subresource != "status" {
        return create(new);
    }
    let mut errors = Errors::new();
    let Some(status) = APIService(new).status() else { return errors };
    for (i, condition) in status.conditions().iter().enumerate() {
        let path = Path::root("status");
        let path = path.child("conditions");
        let path = path.index(i);
        let given = condition.status().unwrap_or("");
        supported_of(&mut errors, &path.child("status"), Some(given), &["True", "False", "Unknown"]);
    }
    errors
}
