//! What each API server writes and reads of a resource; and the rewriting of stored objects in the version of today.

use super::conditions::conditions as shared_conditions;
use super::fields::{Errors, IMMUTABLE, json, problems, same, shape};
use crate::tree::Map;
use crate::view::List;
use crate::view::apiserverinternal_v1alpha1::{ServerStorageVersion, StorageVersion, StorageVersionStatus};
use crate::view::meta_v1::Condition;
use crate::view::storagemigration_v1beta1::{StorageVersionMigration, StorageVersionMigrationStatus};
use api::{FieldError, Path, names};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
static EMPTY: Map = Map::new();

pub(super) fn create(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let status = StorageVersion(object).status().unwrap_or(StorageVersionStatus(&EMPTY));
    for (i, server) in status.storage_versions().iter().enumerate() {
        of_server(&mut errors, &STATUS.child("storageVersions").index(i), server);
    }
    common(&mut errors, status);
    conditions(&mut errors, status);
    errors
}

/// The object itself has nothing to change.
pub(super) fn update(subresource: &str, new: &Map, _: &Map) -> Errors {
    if subresource == "status" { create(new) } else { Errors::new() }
}

fn of_server(errors: &mut Errors, path: &Path<'_>, server: ServerStorageVersion<'_>) {
    let id = server.api_server_id().unwrap_or("");
    problems(errors, &path.child("apiServerID"), id, names::dns1123_subdomain(id));
    let encoding = server.encoding_version().unwrap_or("");
    api_version(errors, &path.child("encodingVersion"), encoding);
    let readable = path.child("decodableVersions");
    for (i, version) in server.decodable_versions().iter().enumerate() {
        api_version(errors, &readable.index(i), version);
    }
    if !server.decodable_versions().iter().any(|version| version == encoding) {
        let why = format!("decodableVersions must include encodingVersion {encoding}");
        errors.push(FieldError::invalid(&readable, json(server.0.get("decodableVersions")), why));
    }
}

/// `VERSION` or `GROUP/VERSION`.
fn api_version(errors: &mut Errors, path: &Path<'_>, text: &str) {
    const EMPTY: &str = "must be non-empty";
    let part = |name: &str, text: &str, rule: fn(&str) -> Vec<String>| -> Vec<String> {
        let bad = if text.is_empty() { vec![EMPTY.to_owned()] } else { rule(text) };
        bad.into_iter().map(|why| format!("{name} part: {why}")).collect()
    };
    let bad = match text.split('/').collect::<Vec<_>>()[..] {
        [version] => part("version", version, names::dns1035_label),
        [group, version] => {
            let mut bad = part("group", group, names::dns1123_subdomain);
            bad.extend(part("version", version, names::dns1035_label));
            bad
        }
        _ => vec![
            "an apiVersion is a DNS-1035 label, which must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyVersion')"
                .to_owned(),
        ],
    };
    if !bad.is_empty() {
        errors.push(FieldError::invalid(path, text, bad.join(",")));
    }
}

/// The version that all servers write, where they agree.
fn common(errors: &mut Errors, status: StorageVersionStatus<'_>) {
    let mut encodings = status.storage_versions().iter().map(|server| server.encoding_version().unwrap_or(""));
    let first = encodings.next();
    let agreed = first.filter(|first| encodings.all(|other| other == *first));
    let path = STATUS.child("commonEncodingVersion");
    let why = match (agreed, status.common_encoding_version()) {
        (None, Some(_)) => "should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet".to_owned(),
        (Some(agreed), None) => format!("the common encoding version is {agreed}"),
        (Some(agreed), Some(said)) if agreed != said => format!("the actual common encoding version is {agreed}"),
        _ => return,
    };
    errors.push(FieldError::invalid(&path, json(status.0.get("commonEncodingVersion")), why));
}

fn conditions(errors: &mut Errors, status: StorageVersionStatus<'_>) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in status.conditions().iter().enumerate() {
        // Upstream leaves the list's name out of the path.
        let path = STATUS.index(i);
        let kind = condition.type_().unwrap_or("");
        if let Some(first) = seen.iter().rposition(|other| *other == kind) {
            let why = format!("the type of the condition is not unique, it also appears in conditions[{first}]");
            errors.push(FieldError::invalid(&path.child("type"), kind, why));
        }
        seen.push(kind);
        problems(errors, &path.child("type"), kind, names::qualified_name(kind));
        problems(errors, &path.child("status"), kind, names::qualified_name(condition.status().unwrap_or("")));
        for (field, value) in [("reason", condition.reason()), ("message", condition.message())] {
            if value.unwrap_or("").is_empty() {
                errors.push(FieldError::required(&path.child(field), format!("{field} cannot be empty")));
            }
        }
    }
}

pub(super) fn migration(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let path = SPEC.child("resource");
    let (group, resource) =
        (object.str_at(&["spec", "resource", "group"]), object.str_at(&["spec", "resource", "resource"]));
    if resource.is_empty() {
        errors.push(FieldError::required(&path.child("resource"), "resource is required to be set"));
    } else {
        joined(&mut errors, &path.child("resource"), resource, names::dns1035_label(resource));
    }
    if !group.is_empty() {
        joined(&mut errors, &path.child("group"), group, names::dns1123_subdomain(group));
    }
    errors
}

/// One error for all problems of a name.
fn joined(errors: &mut Errors, path: &Path<'_>, value: &str, problems: Vec<String>) {
    if !problems.is_empty() {
        errors.push(FieldError::invalid(path, value, problems.join(",")));
    }
}

pub(super) fn migration_update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        return migration_status(new, old);
    }
    let mut errors = migration(new);
    if !same(new.get("spec"), old.get("spec")) {
        let shown = shape(&[("Resource", json(new.at(&["spec", "resource"])))]);
        errors.push(FieldError::invalid(&SPEC, shown, IMMUTABLE));
    }
    errors
}

fn migration_status(new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    let of = |object| StorageVersionMigration(object).status().unwrap_or(StorageVersionMigrationStatus(&EMPTY));
    let (status, was) = (of(new), of(old));
    let path = STATUS.child("resourceVersion");
    let version = status.resource_version().unwrap_or("");
    let well_formed = !version.starts_with('0') && version.bytes().all(|b| b.is_ascii_digit());
    if !well_formed {
        let why = format!("resource version is not well formed: {version}");
        errors.push(FieldError::invalid(&path, version, why));
    }
    let list = STATUS.child("conditions");
    shared_conditions(&mut errors, &list, status.conditions());
    let first = was.resource_version().unwrap_or("");
    if !first.is_empty() && first != version {
        errors.push(FieldError::invalid(&path, version, IMMUTABLE));
    }
    let is = |conditions: List<'_, Condition<'_>>, kind: &str| {
        conditions.iter().find(|c| c.type_() == Some(kind)).is_some_and(|c| c.status() == Some("True"))
    };
    let mut refuse = |why: &str| {
        errors.push(FieldError::invalid(&list, json(status.0.get("conditions")), why));
    };
    let [succeeded, failed] = ["Succeeded", "Failed"].map(|kind| is(status.conditions(), kind));
    if succeeded && failed {
        refuse("Both success and failed conditions cannot be true at the same time");
    }
    if is(was.conditions(), "Succeeded") && !succeeded {
        refuse("Success condition cannot be set to false once it is true");
    }
    if is(was.conditions(), "Failed") && !failed {
        refuse("Failed condition cannot be set to false once it is true");
    }
    errors
}
