//! Volumes: names, and exactly one source each.

use super::super::fields::{Errors, local_descending_path, local_non_reserved_path, problems, quantity, required};
use super::super::volume_source::{
    Check, NAMES_TOO_LONG, aws, azure_disk, fc, flex, flocker, gce, host_path, iscsi, monitors, names_too_long, need,
    nfs, quobyte, rbd, storage_os,
};
use super::Volumes;
use super::env::{field_ref, resource_ref};
use super::options::Options;
use super::projected::projected;
use crate::tree::{Map, Value};
use crate::view::core_v1::{CSIVolumeSource, DownwardAPIVolumeFile, KeyToPath, Volume};
use crate::view::{List, View};
use Judge::{Alone, With};
use api::{FieldError, Path, names};

const ONE_TYPE: &str = "may not specify more than 1 volume type";
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// How a source is judged.
enum Judge {
    Alone(Check),
    /// With what is allowed beyond the rules.
    With(fn(&mut Errors, &Path<'_>, &Map, Options<'_>)),
}

/// Sources in the order in which upstream looks at them, which decides who is the second one.
const SOURCES: &[(&str, Judge)] = &[
    ("emptyDir", Alone(empty_dir)),
    ("hostPath", Alone(host_path)),
    ("gitRepo", Alone(git_repo)),
    ("gcePersistentDisk", Alone(gce)),
    ("awsElasticBlockStore", Alone(aws)),
    ("secret", Alone(secret)),
    ("nfs", Alone(nfs)),
    ("iscsi", Alone(iscsi)),
    ("glusterfs", Alone(|errors, path, map| need(errors, path, map, &["endpoints", "path"]))),
    ("flocker", Alone(flocker)),
    ("persistentVolumeClaim", Alone(|errors, path, map| need(errors, path, map, &["claimName"]))),
    ("rbd", Alone(rbd)),
    (
        "cinder",
        Alone(|errors, path, map| {
            need(errors, path, map, &["volumeID"]);
            if let Some(secret) = map.get("secretRef").and_then(Value::as_map) {
                need(errors, &path.child("secretRef"), secret, &["name"]);
            }
        }),
    ),
    ("cephfs", Alone(monitors)),
    ("quobyte", Alone(quobyte)),
    ("downwardAPI", Alone(downward)),
    ("fc", Alone(fc)),
    ("flexVolume", Alone(flex)),
    ("configMap", Alone(config_map)),
    ("azureFile", Alone(|errors, path, map| need(errors, path, map, &["secretName", "shareName"]))),
    ("vsphereVolume", Alone(|errors, path, map| need(errors, path, map, &["volumePath"]))),
    ("photonPersistentDisk", Alone(|errors, path, map| need(errors, path, map, &["pdID"]))),
    ("portworxVolume", Alone(|errors, path, map| need(errors, path, map, &["volumeID"]))),
    ("azureDisk", Alone(azure_disk)),
    ("storageos", Alone(|errors, path, map| storage_os(errors, path, map, &["name"]))),
    ("projected", With(|errors, path, map, options| projected(errors, path, View::of(map), options))),
    ("scaleIO", Alone(|errors, path, map| need(errors, path, map, &["gateway", "system", "volumeName"]))),
    ("csi", Alone(|errors, path, map| csi(errors, path, CSIVolumeSource::of(map)))),
    ("ephemeral", Alone(ephemeral)),
    ("image", With(image)),
];

/// Checks the volumes, and gives those without fault by name: only they can be mounted.
pub(super) fn volumes<'a>(
    errors: &mut Errors,
    path: &Path<'_>,
    list: List<'a, Volume<'a>>,
    pod: &str,
    options: Options<'_>,
) -> Volumes<'a> {
    let mut good = Volumes::new();
    for (i, volume) in list.iter().enumerate() {
        let path = path.index(i);
        let before = errors.len();
        let name = volume.name().unwrap_or("");
        source(errors, &path, volume, options);
        if required(errors, &path.child("name"), Some(name)) {
            problems(errors, &path.child("name"), name, names::dns1123_label(name));
        }
        if good.contains_key(name) {
            errors.push(FieldError::duplicate(&path.child("name"), name));
        }
        if volume.ephemeral().is_some() && !pod.is_empty() {
            let claim = format!("{pod}-{name}");
            for problem in names::dns1123_subdomain(&claim) {
                let why = format!("PVC name {claim:?}: {problem}");
                errors.push(FieldError::invalid(&path.child("name"), name, why));
            }
        }
        if errors.len() == before {
            good.insert(name, volume);
        }
    }
    good
}

fn source(errors: &mut Errors, path: &Path<'_>, volume: Volume<'_>, options: Options<'_>) {
    let mut count = 0;
    for (field, judge) in SOURCES {
        let Some(map) = volume.0.get(field).and_then(Value::as_map) else { continue };
        count += 1;
        // Upstream's own name for this one path.
        let shown = if *field == "gcePersistentDisk" && count == 1 { "persistentDisk" } else { field };
        if count > 1 && *field != "emptyDir" {
            errors.push(FieldError::forbidden(&path.child(shown), ONE_TYPE));
        } else {
            let path = path.child(shown);
            match judge {
                Alone(check) => check(errors, &path, map),
                With(check) => check(errors, &path, map, options),
            }
        }
        let name = volume.name().unwrap_or("");
        if *field == "iscsi" && names_too_long(name, map) {
            errors.push(FieldError::invalid(&path.child("name"), name, NAMES_TOO_LONG));
        }
    }
    if count == 0 {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
}

fn empty_dir(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    if quantity(map.str_at(&["sizeLimit"])).signum() < 0 {
        let why = "SizeLimit field must be a valid resource quantity";
        errors.push(FieldError::forbidden(&path.child("sizeLimit"), why));
    }
}

fn git_repo(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    need(errors, path, map, &["repository"]);
    local_descending_path(errors, &path.child("directory"), map.str_at(&["directory"]));
}

pub(super) fn mode(errors: &mut Errors, path: &Path<'_>, value: Option<i64>) {
    if let Some(value) = value.filter(|value| !(0..=0o777).contains(value)) {
        errors.push(FieldError::invalid(path, value, MODE));
    }
}

fn secret(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    need(errors, path, map, &["secretName"]);
    keyed(errors, path, map);
}

fn config_map(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    need(errors, path, map, &["name"]);
    keyed(errors, path, map);
}

fn keyed(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    mode(errors, &path.child("defaultMode"), map.get("defaultMode").and_then(Value::as_i64));
    let items = map.get("items").and_then(Value::as_list).unwrap_or_default();
    for (i, item) in items.iter().filter_map(Value::as_map).enumerate() {
        key_to_path(errors, &path.child("items").index(i), KeyToPath(item));
    }
}

pub(super) fn key_to_path(errors: &mut Errors, path: &Path<'_>, item: KeyToPath<'_>) {
    required(errors, &path.child("key"), item.key());
    required(errors, &path.child("path"), item.path());
    local_non_reserved_path(errors, &path.child("path"), item.path().unwrap_or(""));
    mode(errors, &path.child("mode"), item.mode());
}

fn downward(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    mode(errors, &path.child("defaultMode"), map.get("defaultMode").and_then(Value::as_i64));
    let items = map.get("items").and_then(Value::as_list).unwrap_or_default();
    for file in items.iter().filter_map(Value::as_map) {
        downward_file(errors, path, DownwardAPIVolumeFile(file));
    }
}

pub(super) fn downward_file(errors: &mut Errors, path: &Path<'_>, file: DownwardAPIVolumeFile<'_>) {
    const FIELDS: [&str; 5] =
        ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    required(errors, &path.child("path"), file.path());
    local_non_reserved_path(errors, &path.child("path"), file.path().unwrap_or(""));
    match (file.field_ref(), file.resource_field_ref()) {
        (Some(field), resource) => {
            field_ref(errors, &path.child("fieldRef"), field, &FIELDS);
            if resource.is_some() {
                let why = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(FieldError::invalid(path, "resource", why));
            }
        }
        (None, Some(resource)) => resource_ref(errors, &path.child("resourceFieldRef"), resource, true),
        (None, None) => errors.push(FieldError::required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    mode(errors, &path.child("mode"), file.mode());
}

fn csi(errors: &mut Errors, path: &Path<'_>, csi: CSIVolumeSource<'_>) {
    driver_name(errors, &path.child("driver"), csi.driver().unwrap_or(""));
    if let Some(secret) = csi.node_publish_secret_ref() {
        let path = path.child("nodePublishSecretRef");
        if required(errors, &path.child("name"), secret.name()) {
            let name = secret.name().unwrap_or("");
            problems(errors, &path.child("name"), name, names::dns1123_subdomain(name));
        }
    }
}

/// The name of a CSI driver: a short subdomain, in any case.
pub(in crate::validation) fn driver_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    if name.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if name.len() > 63 {
        errors.push(FieldError::too_long(path, 63));
    }
    problems(errors, path, name, names::dns1123_subdomain(&name.to_lowercase()));
}

fn ephemeral(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    let Some(template) = map.get("volumeClaimTemplate").and_then(Value::as_map) else {
        errors.push(FieldError::required(&path.child("volumeClaimTemplate"), ""));
        return;
    };
    let path = path.child("volumeClaimTemplate");
    let claim = crate::view::core_v1::PersistentVolumeClaimTemplate(template);
    super::super::metadata::template(errors, &path.child("metadata"), claim.metadata());
    super::super::claim::claim_spec(errors, &path.child("spec"), claim.spec());
}

fn image(errors: &mut Errors, path: &Path<'_>, map: &Map, options: Options<'_>) {
    // Which image it is may be said when a pod is made of a template.
    if options.is_pod {
        need(errors, path, map, &["reference"]);
    }
    let pulls = ["Always", "IfNotPresent", "Never"];
    super::super::fields::required_of(
        errors,
        &path.child("pullPolicy"),
        map.get("pullPolicy").and_then(Value::as_str),
        &pulls,
    );
}
