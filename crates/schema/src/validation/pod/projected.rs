//! Volumes of several sources. No two sources may write one file.

use super::options::Options;
use super::volume::{downward_file, key_to_path, mode};
use crate::validation::certificates::{bundle_name_problems, signer_name};
use crate::validation::fields::{Errors, json, label_selector, local_non_reserved_path, required, supported_of};
use crate::validation::pod_certificates::{LEAST_SECONDS, most_seconds, user_annotations};
use crate::validation::shown::{TRUST_BUNDLE_PROJECTION, shown};
use crate::view::core_v1::{
    ClusterTrustBundleProjection, PodCertificateProjection, PodSpec, ProjectedVolumeSource,
    ServiceAccountTokenProjection,
};
use api::{FieldError, Path};
use std::collections::BTreeSet;

const KEYS: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];

/// The files of a volume, of which each is written once.
struct Files<'p, 'f> {
    volume: &'p Path<'p>,
    taken: BTreeSet<&'f str>,
}

impl<'f> Files<'_, 'f> {
    /// `shown` is the value that upstream shows.
    fn take(&mut self, errors: &mut Errors, file: &'f str, shown: &str) {
        if !self.taken.insert(file) {
            errors.push(FieldError::invalid(self.volume, shown, "conflicting duplicate paths"));
        }
    }
}

fn given(file: Option<&str>) -> Option<&str> {
    file.filter(|file| !file.is_empty())
}

pub(super) fn projected(errors: &mut Errors, path: &Path<'_>, volume: ProjectedVolumeSource<'_>, options: Options<'_>) {
    mode(errors, &path.child("defaultMode"), volume.default_mode());
    let mut files = Files { volume: path, taken: BTreeSet::new() };
    for (i, source) in volume.sources().iter().enumerate() {
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
                if let Some(file) = given(item.path()) {
                    files.take(errors, file, name.unwrap_or(""));
                }
            }
        }
        if let Some(downward) = source.downward_api() {
            count += 1;
            for file in downward.items().iter() {
                downward_file(errors, &here.child("downwardAPI"), file);
                if let Some(file) = given(file.path()) {
                    files.take(errors, file, file);
                }
            }
        }
        if let Some(source) = source.service_account_token() {
            count += 1;
            token(errors, path, &here.child("serviceAccountToken"), source, options);
        }
        if let Some(source) = source.cluster_trust_bundle() {
            count += 1;
            if !options.keeps_spec() {
                bundle(errors, &here.child("clusterTrustBundle"), source, &mut files);
            }
        }
        if let Some(source) = source.pod_certificate() {
            count += 1;
            if !options.keeps_spec() {
                certificate(errors, &here.child("podCertificate"), source, &mut files);
            }
        }
        if count > 1 {
            errors.push(FieldError::forbidden(&here, "may not specify more than 1 volume type per source"));
        }
    }
}

/// Upstream tells of the file at the volume, and lets other sources have the same.
fn token(
    errors: &mut Errors,
    volume: &Path<'_>,
    path: &Path<'_>,
    token: ServiceAccountTokenProjection<'_>,
    options: Options<'_>,
) {
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
    let path = volume.child("path");
    if required(errors, &path, token.path()) && !options.tokens_anywhere() {
        local_non_reserved_path(errors, &path, token.path().unwrap_or(""));
    }
}

/// Whether the file of a token is outside of its volume.
pub(super) fn has_tokens_outside(spec: PodSpec<'_>) -> bool {
    let volumes = spec.volumes();
    let mut tokens = volumes.iter().filter_map(|volume| volume.projected()).flat_map(|volume| volume.sources().iter());
    tokens.any(|source| {
        let mut errors = Errors::new();
        let file = source.service_account_token().and_then(|token| token.path());
        local_non_reserved_path(&mut errors, &Path::root("path"), file.unwrap_or(""));
        !errors.is_empty()
    })
}

fn bundle<'f>(
    errors: &mut Errors,
    path: &Path<'_>,
    bundle: ClusterTrustBundleProjection<'f>,
    files: &mut Files<'_, 'f>,
) {
    let (name_path, signer_path) = (path.child("name"), path.child("signerName"));
    let selector_path = path.child("labelSelector");
    match (bundle.name(), bundle.signer_name()) {
        (Some(_), Some(_)) => {
            let shown = shown(bundle.0, TRUST_BUNDLE_PROJECTION);
            errors.push(FieldError::invalid(path, shown, "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(FieldError::required(&name_path, "must be a valid object name"));
            }
            let signer = name.rsplit_once(':').map_or(String::new(), |(signer, _)| signer.replace(':', "/"));
            for why in bundle_name_problems(name, &signer) {
                let why = format!("not a valid clustertrustbundlename: {why}");
                errors.push(FieldError::invalid(&name_path, name, why));
            }
            if bundle.label_selector().is_some() {
                let why = "labelSelector must be unset if name is specified";
                errors.push(FieldError::invalid(&selector_path, json(bundle.0.get("labelSelector")), why));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(FieldError::required(&signer_path, "must be a valid signer name"));
            }
            signer_name(errors, &signer_path, signer);
            label_selector(errors, &selector_path, bundle.label_selector());
        }
        (None, None) => errors.push(FieldError::required(path, "either name or signerName must be specified")),
    }
    let file = bundle.path().unwrap_or("");
    required(errors, &path.child("path"), Some(file));
    local_non_reserved_path(errors, &path.child("path"), file);
    files.take(errors, file, file);
}

fn certificate<'f>(
    errors: &mut Errors,
    path: &Path<'_>,
    certificate: PodCertificateProjection<'f>,
    files: &mut Files<'_, 'f>,
) {
    let signer = certificate.signer_name().unwrap_or("");
    signer_name(errors, &path.child("signerName"), signer);
    user_annotations(errors, &path.child("userAnnotations"), certificate.user_annotations());
    supported_of(errors, &path.child("keyType"), Some(certificate.key_type().unwrap_or("")), &KEYS);
    let path_of_age = path.child("maxExpirationSeconds");
    let most = most_seconds(signer);
    match certificate.max_expiration_seconds() {
        Some(age) if age < LEAST_SECONDS => {
            let why = format!("if provided, maxExpirationSeconds must be >= {LEAST_SECONDS}");
            errors.push(FieldError::invalid(&path_of_age, age, why));
        }
        Some(age) if age > most => {
            let why = format!("if provided, maxExpirationSeconds must be <= {most}");
            errors.push(FieldError::invalid(&path_of_age, age, why));
        }
        _ => {}
    }
    let mut none = true;
    for (field, file) in [
        ("credentialBundlePath", certificate.credential_bundle_path()),
        ("keyPath", certificate.key_path()),
        ("certificateChainPath", certificate.certificate_chain_path()),
    ] {
        if let Some(file) = given(file) {
            none = false;
            local_non_reserved_path(errors, &path.child(field), file);
            files.take(errors, file, file);
        }
    }
    if none {
        let why = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(path, why));
    }
}
