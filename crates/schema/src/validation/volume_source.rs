//! Where volumes come from: the sources that pods and PersistentVolumes have in common, and those of PersistentVolumes.

use super::fields::{Errors, inclusive, json, no_backsteps, problems, required, supported_of};
use crate::tree::{Map, Value};
use api::{FieldError, Path, names};

pub(super) type Check = fn(&mut Errors, &Path<'_>, &Map);

/// The sources of PersistentVolumes in the order in which upstream looks at them, which decides who is the second one.
pub(super) const PERSISTENT: &[(&str, Check)] = &[
    ("hostPath", host_path),
    ("gcePersistentDisk", gce),
    ("awsElasticBlockStore", aws),
    ("glusterfs", glusterfs),
    ("flocker", flocker),
    ("nfs", nfs),
    ("rbd", rbd),
    ("quobyte", quobyte),
    ("cephfs", monitors),
    ("iscsi", iscsi),
    ("cinder", |errors, path, map| {
        need(errors, path, map, &["volumeID"]);
        if let Some(secret) = map.get("secretRef").and_then(Value::as_map) {
            need(errors, &path.child("secretRef"), secret, &["name", "namespace"]);
        }
    }),
    ("fc", fc),
    ("flexVolume", flex),
    ("azureFile", |errors, path, map| {
        need(errors, path, map, &["secretName", "shareName"]);
        if map.get("secretNamespace").and_then(Value::as_str) == Some("") {
            errors.push(FieldError::required(&path.child("secretNamespace"), ""));
        }
    }),
    ("vsphereVolume", |errors, path, map| need(errors, path, map, &["volumePath"])),
    ("photonPersistentDisk", |errors, path, map| need(errors, path, map, &["pdID"])),
    ("portworxVolume", |errors, path, map| need(errors, path, map, &["volumeID"])),
    ("azureDisk", azure_disk),
    ("scaleIO", |errors, path, map| need(errors, path, map, &["gateway", "system", "volumeName"])),
    ("local", |errors, path, map| {
        if required(errors, &path.child("path"), Some(map.str_at(&["path"]))) {
            no_backsteps(errors, &path.child("path"), map.str_at(&["path"]));
        }
    }),
    ("storageos", |errors, path, map| storage_os(errors, path, map, &["name", "namespace"])),
    ("csi", csi),
];

pub(super) fn need(errors: &mut Errors, path: &Path<'_>, map: &Map, fields: &[&str]) {
    for field in fields {
        required(errors, &path.child(field), Some(map.str_at(&[field])));
    }
}

fn is_empty_list(map: &Map, field: &str) -> bool {
    map.get(field).and_then(Value::as_list).is_none_or(<[Value]>::is_empty)
}

pub(super) fn monitors(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    if is_empty_list(map, "monitors") {
        errors.push(FieldError::required(&path.child("monitors"), ""));
    }
}

pub(super) fn rbd(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    monitors(errors, path, map);
    need(errors, path, map, &["image"]);
}

pub(super) fn host_path(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    const TYPES: [&str; 8] =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    let target = map.str_at(&["path"]);
    if !required(errors, &path.child("path"), Some(target)) {
        return;
    }
    no_backsteps(errors, &path.child("path"), target);
    supported_of(errors, &path.child("type"), map.get("type").and_then(Value::as_str), &TYPES);
}

fn partition(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    let value = map.get("partition").and_then(Value::as_i64).unwrap_or(0);
    if !(0..=255).contains(&value) {
        errors.push(FieldError::invalid(&path.child("partition"), value, inclusive(1, 255)));
    }
}

pub(super) fn gce(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    need(errors, path, map, &["pdName"]);
    partition(errors, path, map);
}

pub(super) fn aws(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    need(errors, path, map, &["volumeID"]);
    partition(errors, path, map);
}

pub(super) fn nfs(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    need(errors, path, map, &["server", "path"]);
    let target = map.str_at(&["path"]);
    if !target.starts_with('/') {
        errors.push(FieldError::invalid(&path.child("path"), target, "must be an absolute path"));
    }
}

fn glusterfs(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    need(errors, path, map, &["endpoints", "path"]);
    let Some(namespace) = map.get("endpointsNamespace").and_then(Value::as_str) else { return };
    let path = path.child("endpointsNamespace");
    if namespace.is_empty() {
        let why = "if the endpointnamespace is set, it must be a valid namespace name";
        errors.push(FieldError::invalid(&path, namespace, why));
    } else {
        problems(errors, &path, namespace, names::dns1123_label(namespace));
    }
}

pub(super) fn flocker(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    let (name, id) = (map.str_at(&["datasetName"]), map.str_at(&["datasetUUID"]));
    if name.is_empty() && id.is_empty() {
        errors.push(FieldError::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !id.is_empty() {
        let why = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(FieldError::invalid(path, "resource", why));
    }
    if name.contains('/') {
        errors.push(FieldError::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
}

pub(super) fn quobyte(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = map.str_at(&["registry"]);
    let pair = |pair: &str| pair.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
    if registry.is_empty() {
        errors.push(FieldError::required(&path.child("registry"), PAIRS));
    } else if map.str_at(&["tenant"]).len() >= 65 {
        let why = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(&path.child("tenant"), why));
    } else {
        for _ in registry.split(',').filter(|text| !pair(text)) {
            errors.push(FieldError::invalid(&path.child("registry"), registry, PAIRS));
        }
    }
    need(errors, path, map, &["volume"]);
}

/// Whether a name of an iSCSI node begins as one of the three kinds, and is one.
fn iscsi_name(name: &str) -> Result<bool, ()> {
    let hex = |rest: &str, n: usize| rest.len() == n && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    let after = |prefix: &str| name.strip_prefix(prefix).and_then(|rest| rest.get(1..)).unwrap_or("");
    if name.starts_with("iqn") {
        return Ok(is_iqn(name));
    }
    if name.starts_with("eui") {
        return Ok(hex(after("eui"), 16));
    }
    if name.starts_with("naa") {
        return Ok(hex(after("naa"), 32));
    }
    Err(())
}

/// `iqn.2001-04.com.example:storage`
fn is_iqn(name: &str) -> bool {
    let Some((date, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once('.')) else { return false };
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    let dated = date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let Some((authority, target)) = rest.split_once(':') else { return false };
    let named =
        !authority.is_empty() && authority.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    dated && named && !target.is_empty() && !target.contains([',', ';', '*', '&', '$', '|', ' ', '\t', '\n'])
}

pub(super) fn iscsi(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    const BEGIN: &str = "must be valid format starting with iqn, eui, or naa";
    need(errors, path, map, &["targetPortal"]);
    let iqn = map.str_at(&["iqn"]);
    if required(errors, &path.child("iqn"), Some(iqn)) {
        match iscsi_name(iqn) {
            Err(()) => errors.push(FieldError::invalid(&path.child("iqn"), iqn, BEGIN)),
            Ok(false) => errors.push(FieldError::invalid(&path.child("iqn"), iqn, "must be valid format")),
            Ok(true) => {}
        }
    }
    lun(errors, path, map.get("lun").and_then(Value::as_i64).unwrap_or(0));
    let asks = |field: &str| map.get(field).and_then(Value::as_bool) == Some(true);
    if (asks("chapAuthDiscovery") || asks("chapAuthSession")) && !map.contains_key("secretRef") {
        errors.push(FieldError::required(&path.child("secretRef"), ""));
    }
    if let Some(initiator) = map.get("initiatorName").and_then(Value::as_str)
        && iscsi_name(initiator) != Ok(true)
    {
        let why = if iscsi_name(initiator).is_err() { BEGIN } else { "must be valid format" };
        errors.push(FieldError::invalid(&path.child("initiatorname"), initiator, why));
    }
    if let Some(secret) = map.get("secretRef").and_then(Value::as_map) {
        need(errors, &path.child("secretRef"), secret, &["name"]);
    }
}

pub(super) const NAMES_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// Whether a volume with an initiator of its own has too long a name beside its portal's.
pub(super) fn names_too_long(volume: &str, iscsi: &Map) -> bool {
    let named = iscsi.get("initiatorName").is_some_and(|name| !name.is_null());
    named && volume.len() + 1 + iscsi.str_at(&["targetPortal"]).len() > 64
}

fn lun(errors: &mut Errors, path: &Path<'_>, lun: i64) {
    if !(0..=255).contains(&lun) {
        errors.push(FieldError::invalid(&path.child("lun"), lun, inclusive(0, 255)));
    }
}

pub(super) fn fc(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    let (names, ids) = (!is_empty_list(map, "targetWWNs"), !is_empty_list(map, "wwids"));
    let path_names = path.child("targetWWNs");
    if !names && !ids {
        errors.push(FieldError::required(&path_names, "must specify either targetWWNs or wwids, but not both"));
    }
    if names && ids {
        let why = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(&path_names, json(map.get("targetWWNs")), why));
    }
    if names {
        match map.get("lun").and_then(Value::as_i64) {
            None => errors.push(FieldError::required(&path.child("lun"), "lun is required if targetWWNs is specified")),
            Some(number) => lun(errors, path, number),
        }
    }
}

pub(super) fn flex(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    need(errors, path, map, &["driver"]);
    let options = map.get("options").and_then(Value::as_map);
    for (key, _) in options.into_iter().flat_map(Map::iter) {
        let domain = format!(".{}", key.split('/').next().unwrap_or("").to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(FieldError::invalid(&path.child("options").key(key), key, why));
        }
    }
}

pub(super) fn azure_disk(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    const MANAGED: &str =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    const BLOB: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    need(errors, path, map, &["diskName", "diskURI"]);
    let text = |field: &str| map.get(field).and_then(Value::as_str);
    supported_of(errors, &path.child("cachingMode"), text("cachingMode"), &["None", "ReadOnly", "ReadWrite"]);
    supported_of(errors, &path.child("kind"), text("kind"), &["Dedicated", "Managed", "Shared"]);
    let Some(kind) = text("kind") else { return };
    let uri = map.str_at(&["diskURI"]);
    let (begin, form) = if kind == "Managed" { ("/subscriptions/", MANAGED) } else { ("https://", BLOB) };
    if !uri.starts_with(begin) {
        errors.push(FieldError::not_supported(&path.child("diskURI"), uri, &[form]));
    }
}

pub(super) fn storage_os(errors: &mut Errors, path: &Path<'_>, map: &Map, secret: &[&str]) {
    let (name, namespace) = (map.str_at(&["volumeName"]), map.str_at(&["volumeNamespace"]));
    if required(errors, &path.child("volumeName"), Some(name)) {
        problems(errors, &path.child("volumeName"), name, names::dns1123_label(name));
    }
    if !namespace.is_empty() {
        problems(errors, &path.child("volumeNamespace"), namespace, names::dns1123_label(namespace));
    }
    if let Some(reference) = map.get("secretRef").and_then(Value::as_map) {
        need(errors, &path.child("secretRef"), reference, secret);
    }
}

fn csi(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    const SECRETS: [&str; 4] =
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    super::pod::volume::driver_name(errors, &path.child("driver"), map.str_at(&["driver"]));
    need(errors, path, map, &["volumeHandle"]);
    for field in SECRETS {
        let Some(secret) = map.get(field).and_then(Value::as_map) else { continue };
        let path = path.child(field);
        let (name, namespace) = (secret.str_at(&["name"]), secret.str_at(&["namespace"]));
        if required(errors, &path.child("name"), Some(name)) {
            problems(errors, &path.child("name"), name, names::dns1123_subdomain(name));
        }
        if required(errors, &path.child("namespace"), Some(namespace)) {
            problems(errors, &path.child("namespace"), namespace, names::dns1123_label(namespace));
        }
    }
}
