//! certificates.k8s.io: requests for the certificates of pods. What needs a parser of keys and certificates is the API server's
//! to check.

use super::certificates::signer_name;
use super::conditions::conditions;
use super::fields::{Errors, IMMUTABLE, json, problems, same, shape, supported_of};
use crate::tree::{Map, Value};
use crate::view::StrMap;
use crate::view::certificates_v1beta1::{
    PodCertificateRequest, PodCertificateRequestSpec, PodCertificateRequestStatus,
};
use api::{FieldError, Path, names};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const MAX_UID: usize = 128;
/// Of annotations together, as of those of any object.
const MAX_ANNOTATIONS: usize = 256 * 1024;
pub(super) const LEAST_SECONDS: i64 = 3600;
const DAY: i64 = 24 * 60 * 60;
/// At most so long lives a certificate of upstream's own signers, and of all others.
const MAX_OWN: i64 = DAY;
const MAX_OTHERS: i64 = 91 * DAY;
/// How a request ends, each the only one.
const ENDS: [&str; 3] = ["Issued", "Denied", "Failed"];
static EMPTY: Map = Map::new();

/// Whether a signer is one of the Kubernetes project's own.
fn is_own(signer: &str) -> bool {
    let host = signer.split('/').next().unwrap_or("");
    host == "kubernetes.io" || host.ends_with(".kubernetes.io")
}

/// How long a certificate of a signer lives at most, in seconds.
pub(super) fn most_seconds(signer: &str) -> i64 {
    if is_own(signer) { MAX_OWN } else { MAX_OTHERS }
}

/// What pods let their signers know: keys with a domain.
pub(super) fn user_annotations(errors: &mut Errors, path: &Path<'_>, annotations: StrMap<'_>) {
    let mut size = 0;
    for (key, value) in annotations.iter() {
        size += key.len() + value.len();
        let key = key.to_lowercase();
        let bad = names::qualified_name(&key);
        if bad.is_empty() && !key.contains('/') {
            let why = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(path, key.as_str(), why));
        }
        problems(errors, path, &key, bad);
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(path, MAX_ANNOTATIONS));
    }
}

pub(super) fn create(object: &Map) -> Errors {
    let mut errors = Errors::new();
    let spec = PodCertificateRequest(object).spec().unwrap_or(PodCertificateRequestSpec(&EMPTY));
    let signer = spec.signer_name().unwrap_or("");
    signer_name(&mut errors, &SPEC.child("signerName"), signer);
    user_annotations(&mut errors, &SPEC.child("unverifiedUserAnnotations"), spec.unverified_user_annotations());
    for (what, name, uid) in [
        ("pod", spec.pod_name(), spec.pod_uid()),
        ("serviceAccount", spec.service_account_name(), spec.service_account_uid()),
        ("node", spec.node_name(), spec.node_uid()),
    ] {
        let (name, uid) = (name.unwrap_or(""), uid.unwrap_or(""));
        let path = format!("{what}Name");
        problems(&mut errors, &SPEC.child(&path), name, names::dns1123_subdomain(name));
        let path = format!("{what}UID");
        if uid.is_empty() {
            errors.push(FieldError::invalid(&SPEC.child(&path), uid, "must not be empty"));
        }
        if uid.len() > MAX_UID {
            errors.push(FieldError::too_long(&SPEC.child(&path), MAX_UID));
        }
    }
    let path = SPEC.child("maxExpirationSeconds");
    let most = most_seconds(signer);
    match spec.max_expiration_seconds() {
        None => errors.push(FieldError::required(&path, "must be set")),
        Some(seconds) if !(LEAST_SECONDS..=most).contains(&seconds) => {
            let why = format!("must be in the range [{LEAST_SECONDS}, {most}]");
            errors.push(FieldError::invalid(&path, seconds, why));
        }
        Some(_) => {}
    }
    errors
}

pub(super) fn update(subresource: &str, new: &Map, old: &Map) -> Errors {
    if subresource == "status" {
        return status(new, old);
    }
    let mut errors = Errors::new();
    if !same(new.get("spec"), old.get("spec")) {
        let part = |name: &'static str, field: &str| (name, json(new.at(&["spec", field])));
        let shown = shape(&[
            part("SignerName", "signerName"),
            part("PodName", "podName"),
            part("PodUID", "podUID"),
            part("ServiceAccountName", "serviceAccountName"),
            part("ServiceAccountUID", "serviceAccountUID"),
            part("NodeName", "nodeName"),
            part("NodeUID", "nodeUID"),
            part("MaxExpirationSeconds", "maxExpirationSeconds"),
            part("PKIXPublicKey", "pkixPublicKey"),
            part("ProofOfPossession", "proofOfPossession"),
            part("StubPKCS10Request", "stubPKCS10Request"),
            part("UnverifiedUserAnnotations", "unverifiedUserAnnotations"),
        ]);
        errors.push(FieldError::invalid(&SPEC, shown, IMMUTABLE));
    }
    errors
}

/// Whether a request has ended in one of these ways.
fn ended(status: PodCertificateRequestStatus<'_>, ways: &[&str]) -> bool {
    let is = |kind: Option<&str>| kind.is_some_and(|kind| ways.contains(&kind));
    status.conditions().iter().any(|condition| is(condition.type_()) && condition.status() == Some("True"))
}

fn status_of(object: &Map) -> PodCertificateRequestStatus<'_> {
    PodCertificateRequest(object).status().unwrap_or(PodCertificateRequestStatus(&EMPTY))
}

/// Whether an update of the status issues the certificate: what it is given then is to be looked at.
pub fn issues(new: &Map, old: &Map) -> bool {
    !ended(status_of(old), &ENDS) && ended(status_of(new), &ENDS[..1])
}

fn status(new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    let status = status_of(new);
    let list = STATUS.child("conditions");
    let mut known = 0;
    for (i, condition) in status.conditions().iter().enumerate() {
        // Upstream joins the index with a dot.
        let index = format!("[{i}]");
        let path = list.child(&index);
        let kind = condition.type_().unwrap_or("");
        if !ENDS.contains(&kind) {
            supported_of(&mut errors, &path.child("type"), Some(kind), &ENDS);
            continue;
        }
        known += 1;
        if known > 1 {
            let why = "There may be at most one condition with type \"Issued\", \"Denied\", or \"Failed\"";
            errors.push(FieldError::invalid(&path.child("type"), kind, why));
        }
        supported_of(&mut errors, &path.child("status"), Some(condition.status().unwrap_or("")), &["True"]);
    }
    conditions(&mut errors, &list, status.conditions());
    if !errors.is_empty() {
        return errors;
    }
    let unchanged = same(new.get("status"), old.get("status"));
    let why = if ended(status_of(old), &ENDS) {
        (!unchanged).then_some("immutable after PodCertificateRequest is issued, denied, or failed")
    } else if ended(status, &ENDS[1..]) {
        let blank = |value: &Value| value.is_null() || value.as_str() == Some("");
        let alone = status.0.iter().all(|(field, value)| field == "conditions" || blank(value));
        (!alone)
            .then_some("non-condition status fields must be empty when denying or failing the PodCertificateRequest")
    } else if ended(status, &ENDS[..1]) {
        None
    } else {
        (!unchanged).then_some("status is immutable unless transitioning to \"Issued\", \"Denied\", or \"Failed\"")
    };
    errors.extend(why.map(|why| FieldError::invalid_unshown(&STATUS, why)));
    errors
}
