//! Volumes: names, and exactly one source each.

use super::super::fields::{
    Errors, local_descending_path, local_non_reserved_path, problems, quantity, required, supported_of,
};
use super::super::volume_source::{
    Check, NAMES_TOO_LONG, aws, azure_disk, fc, flex, flocker, gce, host_path, iscsi, monitors, names_too_long, need,
    nfs, quobyte, rbd, storage_os,
};
use super::Volumes;
use super::env::{field_ref, resource_ref};
use crate::tree::{Map, Value};
use crate::validation::certificates::signer_name;
use crate::validation::pod_certificates::user_annotations;
use crate::view::core_v1::{
    CSIVolumeSource, ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, PodCertificateProjection,
    ProjectedVolumeSource, ServiceAccountTokenProjection, Volume,
};
use crate::view::{List, View};
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const ONE_TYPE: &str = "may not specify more than 1 volume type";
const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Sources in the order in which upstream looks at them, which decides who is the second one.
const SOURCES: &[(&str, Check)] = &[
    ("emptyDir", empty_dir),
    ("hostPath", host_path),
    ("gitRepo", git_repo),
    ("gcePersistentDisk", gce),
    ("awsElasticBlockStore", aws),
    ("secret", secret),
    ("nfs", nfs),
    ("iscsi", iscsi),
    ("glusterfs", |errors, path, map| need(errors, path, map, &["endpoints", "path"])),
    ("flocker", flocker),
    ("persistentVolumeClaim", |errors, path, map| need(errors, path, map, &["claimName"])),
    ("rbd", rbd),
    ("cinder", |errors, path, map| {
        need(errors, path, map, &["volumeID"]);
        if let Some(secret) = map.get("secretRef").and_then(Value::as_map) {
            need(errors, &path.child("secretRef"), secret, &["name"]);
        }
    }),
    ("cephfs", monitors),
    ("quobyte", quobyte),
    ("downwardAPI", downward),
    ("fc", fc),
    ("flexVolume", flex),
    ("configMap", config_map),
    ("azureFile", |errors, path, map| need(errors, path, map, &["secretName", "shareName"])),
    ("vsphereVolume", |errors, path, map| need(errors, path, map, &["volumePath"])),
    ("photonPersistentDisk", |errors, path, map| need(errors, path, map, &["pdID"])),
    ("portworxVolume", |errors, path, map| need(errors, path, map, &["volumeID"])),
    ("azureDisk", azure_disk),
    ("storageos", |errors, path, map| storage_os(errors, path, map, &["name"])),
    ("projected", |errors, path, map| projected(errors, path, ProjectedVolumeSource::of(map))),
    ("scaleIO", |errors, path, map| need(errors, path, map, &["gateway", "system", "volumeName"])),
    ("csi", |errors, path, map| csi(errors, path, CSIVolumeSource::of(map))),
    ("ephemeral", ephemeral),
    ("image", image),
];

/// Checks the volumes, and gives those without fault by name: only they can be mounted.
pub(super) fn volumes<'a>(errors: &mut Errors, path: &Path<'_>, list: List<'a, Volume<'a>>, pod: &str) -> Volumes<'a> {
    let mut good = Volumes::new();
    for (i, volume) in list.iter().enumerate() {
        let path = path.index(i);
        let before = errors.len();
        let name = volume.name().unwrap_or("");
        source(errors, &path, volume);
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

fn source(errors: &mut Errors, path: &Path<'_>, volume: Volume<'_>) {
    let mut count = 0;
    for (field, check) in SOURCES {
        let Some(map) = volume.0.get(field).and_then(Value::as_map) else { continue };
        count += 1;
        // Upstream's own name for this one path.
        let shown = if *field == "gcePersistentDisk" && count == 1 { "persistentDisk" } else { field };
        if count > 1 && *field != "emptyDir" {
            errors.push(FieldError::forbidden(&path.child(shown), ONE_TYPE));
        } else {
            check(errors, &path.child(shown), map);
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

fn mode(errors: &mut Errors, path: &Path<'_>, value: Option<i64>) {
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

fn key_to_path(errors: &mut Errors, path: &Path<'_>, item: KeyToPath<'_>) {
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

fn downward_file(errors: &mut Errors, path: &Path<'_>, file: DownwardAPIVolumeFile<'_>) {
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

fn projected(errors: &mut Errors, path: &Path<'_>, source: ProjectedVolumeSource<'_>) {
    mode(errors, &path.child("defaultMode"), source.default_mode());
    let mut paths = BTreeSet::new();
    let mut take = |errors: &mut Errors, file: &str, shown: &str| {
        if !file.is_empty() && !paths.insert(file.to_owned()) {
            errors.push(FieldError::invalid(path, shown, "conflicting duplicate paths"));
        }
    };
    for (i, source) in source.sources().iter().enumerate() {
        let sources = path.child("sources");
        let here = sources.index(i);
        let mut count = 0;
        let keyed = [
            ("secret", source.secret().map(|s| (s.name(), s.items()))),
            ("configMap", source.config_map().map(|c| (c.name(), c.items()))),
        ];
        for (field, keyed) in keyed {
            let Some((name, items)) = keyed else { continue };
            count += 1;
            let here = here.child(field);
            required(errors, &here.child("name"), name);
            for (i, item) in items.iter().enumerate() {
                key_to_path(errors, &here.child("items").index(i), item);
                take(errors, item.path().unwrap_or(""), name.unwrap_or(""));
            }
        }
        if let Some(downward) = source.downward_api() {
            count += 1;
            for file in downward.items().iter() {
                downward_file(errors, &here.child("downwardAPI"), file);
                take(errors, file.path().unwrap_or(""), file.path().unwrap_or(""));
            }
        }
        if let Some(token) = source.service_account_token() {
            count += 1;
            token_projection(errors, &here.child("serviceAccountToken"), token);
            take(errors, token.path().unwrap_or(""), token.path().unwrap_or(""));
        }
        if let Some(bundle) = source.cluster_trust_bundle() {
            count += 1;
            bundle_projection(errors, &here.child("clusterTrustBundle"), bundle);
            take(errors, bundle.path().unwrap_or(""), bundle.path().unwrap_or(""));
        }
        if let Some(certificate) = source.pod_certificate() {
            count += 1;
            certificate_projection(errors, &here.child("podCertificate"), certificate);
        }
        if count > 1 {
            errors.push(FieldError::forbidden(&here, ONE_TYPE));
        }
    }
}

fn token_projection(errors: &mut Errors, path: &Path<'_>, token: ServiceAccountTokenProjection<'_>) {
    if let Some(seconds) = token.expiration_seconds() {
        let path = path.child("expirationSeconds");
        if seconds < 600 {
            let why = "may not specify a duration less than 10 minutes";
            errors.push(FieldError::invalid(&path, seconds, why));
        }
        if seconds > 1 << 32 {
            let why = "may not specify a duration larger than 2^32 seconds";
            errors.push(FieldError::invalid(&path, seconds, why));
        }
    }
    if required(errors, &path.child("path"), token.path()) {
        local_non_reserved_path(errors, &path.child("path"), token.path().unwrap_or(""));
    }
}

fn bundle_projection(errors: &mut Errors, path: &Path<'_>, bundle: ClusterTrustBundleProjection<'_>) {
    match (bundle.name(), bundle.signer_name()) {
        (Some(_), Some(_)) => {
            errors.push(FieldError::invalid(
                path,
                super::super::fields::json_map(bundle.0),
                "only one of name and signerName may be used",
            ));
        }
        (None, None) => errors.push(FieldError::required(path, "either name or signerName must be specified")),
        (Some(""), None) => errors.push(FieldError::required(&path.child("name"), "")),
        _ => {}
    }
    if required(errors, &path.child("path"), bundle.path()) {
        local_non_reserved_path(errors, &path.child("path"), bundle.path().unwrap_or(""));
    }
}

fn certificate_projection(errors: &mut Errors, path: &Path<'_>, certificate: PodCertificateProjection<'_>) {
    /// In seconds: an hour, and 91 days.
    const AGES: (i64, i64) = (3600, 91 * 24 * 3600);
    const KEYS: [&str; 6] = ["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];
    signer_name(errors, &path.child("signerName"), certificate.signer_name().unwrap_or(""));
    supported_of(errors, &path.child("keyType"), Some(certificate.key_type().unwrap_or("")), &KEYS);
    let path_of_age = path.child("maxExpirationSeconds");
    match certificate.max_expiration_seconds() {
        Some(age) if age < AGES.0 => {
            let why = format!("if provided, maxExpirationSeconds must be >= {}", AGES.0);
            errors.push(FieldError::invalid(&path_of_age, age, why));
        }
        Some(age) if age > AGES.1 => {
            let why = format!("if provided, maxExpirationSeconds must be <= {}", AGES.1);
            errors.push(FieldError::invalid(&path_of_age, age, why));
        }
        _ => {}
    }
    let files = [certificate.credential_bundle_path(), certificate.key_path(), certificate.certificate_chain_path()];
    if files.iter().all(|file| file.unwrap_or("").is_empty()) {
        let why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, why));
    }
    for (field, file) in ["credentialBundlePath", "keyPath", "certificateChainPath"].into_iter().zip(files) {
        local_non_reserved_path(errors, &path.child(field), file.unwrap_or(""));
    }
    user_annotations(errors, &path.child("userAnnotations"), certificate.user_annotations());
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

fn image(errors: &mut Errors, path: &Path<'_>, map: &Map) {
    let pulls = ["Always", "IfNotPresent", "Never"];
    need(errors, path, map, &["reference"]);
    super::super::fields::required_of(
        errors,
        &path.child("pullPolicy"),
        map.get("pullPolicy").and_then(Value::as_str),
        &pulls,
    );
}
