//! certificates.k8s.io: signing requests. What needs a parser of keys and certificates is the API server's to check.

use super::fields::{Errors, immutable, problems, required, same, supported_of};
use crate::tree::{Map, Value};
use crate::view::List;
use crate::view::certificates_v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use api::field::go_quote;
use api::{FieldError, Path, names};
use std::collections::BTreeSet;

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
/// Requests that the first versions of this kind left without a signer.
const LEGACY: &str = "kubernetes.io/legacy-unknown";
const LEAST_SECONDS: i64 = 600;
const MAX_DOMAIN: usize = 253;
const MAX_SIGNER: usize = 571;
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
/// Conditions that can only be true, and are never taken back.
const FINAL: [&str; 3] = ["Approved", "Denied", "Failed"];

/// What is tolerated because the stored object has it already.
#[derive(Default)]
struct Tolerated {
    both_decisions: bool,
    legacy_signer: bool,
    repeated_conditions: bool,
    nameless_conditions: bool,
    unknown_usages: bool,
    repeated_usages: bool,
}

fn conditions<'a>(object: &'a Map) -> List<'a, CertificateSigningRequestCondition<'a>> {
    CertificateSigningRequest(object).status().map_or(List::new(&[]), |status| status.conditions())
}

fn usages(object: &Map) -> List<'_, &str> {
    CertificateSigningRequest(object).spec().map_or(List::new(&[]), |spec| spec.usages())
}

fn repeated<'a>(items: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = BTreeSet::new();
    !items.into_iter().all(|item| seen.insert(item))
}

impl Tolerated {
    fn of(old: &Map) -> Self {
        let types = || conditions(old).iter().map(|condition| condition.type_().unwrap_or(""));
        let signer = CertificateSigningRequest(old).spec().and_then(|spec| spec.signer_name());
        Tolerated {
            both_decisions: DECISIONS.iter().all(|decision| types().any(|kind| kind == *decision)),
            legacy_signer: signer == Some(LEGACY),
            repeated_conditions: repeated(types()),
            nameless_conditions: types().any(str::is_empty),
            unknown_usages: usages(old).iter().any(|usage| !USAGES.contains(&usage)),
            repeated_usages: repeated(usages(old).iter()),
        }
    }
}

pub(super) fn create(object: &Map) -> Errors {
    request(object, &Tolerated::default())
}

fn request(object: &Map, tolerated: &Tolerated) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = CertificateSigningRequest(object).spec().unwrap_or(CertificateSigningRequestSpec(&empty));
    let path = SPEC.child("usages");
    if spec.usages().is_empty() {
        errors.push(FieldError::required(&path, ""));
    }
    if !tolerated.unknown_usages {
        for (i, usage) in spec.usages().iter().enumerate() {
            supported_of(&mut errors, &path.index(i), Some(usage), &USAGES);
        }
    }
    if !tolerated.repeated_usages {
        let mut seen = BTreeSet::new();
        for (i, usage) in spec.usages().iter().enumerate().filter(|(_, usage)| !seen.insert(*usage)) {
            errors.push(FieldError::duplicate(&path.index(i), usage));
        }
    }
    let signer = spec.signer_name().unwrap_or("");
    let path = SPEC.child("signerName");
    if signer == LEGACY && !tolerated.legacy_signer {
        let why = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid(&path, signer, why));
    } else {
        signer_name(&mut errors, &path, signer);
    }
    if let Some(seconds) = spec.expiration_seconds().filter(|seconds| *seconds < LEAST_SECONDS) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid(&SPEC.child("expirationSeconds"), seconds, why));
    }
    status_conditions(&mut errors, object, tolerated);
    errors
}

/// A domain and a path: `example.com/my-signer`.
pub(super) fn signer_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    if !required(errors, path, Some(name)) {
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(FieldError::invalid(path, name, why));
        return;
    };
    if domain.len() > MAX_DOMAIN {
        errors.push(FieldError::too_long(path, MAX_DOMAIN));
    }
    parts(errors, path, domain, names::dns1123_label);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, why));
    }
    parts(errors, path, rest, names::dns1123_subdomain);
    if name.len() > MAX_SIGNER {
        errors.push(FieldError::too_long(path, MAX_SIGNER));
    }
}

/// One side of a signer's name, part by part; only the first bad one is told.
fn parts(errors: &mut Errors, path: &Path<'_>, side: &str, rule: fn(&str) -> Vec<String>) {
    let bad = side.split('.').map(|label| (label, rule(label))).find(|(_, bad)| !bad.is_empty());
    if let Some((label, bad)) = bad {
        let told = |why| format!("validating label {}: {why}", go_quote(label));
        problems(errors, path, side, bad.into_iter().map(told).collect());
    }
}

fn status_conditions(errors: &mut Errors, object: &Map, tolerated: &Tolerated) {
    let root = STATUS.child("conditions");
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions(object).iter().enumerate() {
        let path = root.index(i);
        let kind = condition.type_().unwrap_or("");
        if kind.is_empty() && !tolerated.nameless_conditions {
            errors.push(FieldError::required(&path.child("type"), ""));
        }
        let allowed: &[&str] = if FINAL.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        match condition.status().unwrap_or("") {
            "" => errors.push(FieldError::required(&path.child("status"), "")),
            status => supported_of(errors, &path.child("status"), Some(status), allowed),
        }
        if DECISIONS.contains(&kind) && !tolerated.both_decisions {
            let other = if kind == "Approved" { "Denied" } else { "Approved" };
            if seen.contains(other) {
                let why = "Approved and Denied conditions are mutually exclusive";
                errors.push(FieldError::invalid(&root, kind, why));
            }
        }
        if !seen.insert(kind) && !tolerated.repeated_conditions {
            errors.push(FieldError::duplicate(&path.child("type"), kind));
        }
    }
}

pub(super) fn update(subresource: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = request(new, &Tolerated::of(old));
    let path = STATUS.child("conditions");
    let of = |object: &Map, kind: &str| -> Vec<Value> {
        let of_kind = |value: &&Value| value.as_map().is_some_and(|map| map.str_at(&["type"]) == kind);
        conditions(object).values().iter().filter(of_kind).cloned().collect()
    };
    for kind in FINAL {
        if of(new, kind).len() < of(old, kind).len() {
            let why = format!("updates may not remove a condition of type {}", go_quote(kind));
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    for kind in DECISIONS.into_iter().filter(|_| subresource != "approval") {
        let (now, was) = (of(new, kind), of(old, kind));
        if now.len() > was.len() {
            let why = format!("updates may not add a condition of type {}", go_quote(kind));
            errors.push(FieldError::forbidden(&path, why));
        } else if now.len() == was.len() && !same(Some(&Value::List(now)), Some(&Value::List(was))) {
            let why = format!("updates may not modify a condition of type {}", go_quote(kind));
            errors.push(FieldError::forbidden(&path, why));
        }
    }
    let certificate = |object: &Map| object.str_at(&["status", "certificate"]).to_owned();
    if certificate(new) != certificate(old) {
        let path = STATUS.child("certificate");
        if subresource != "status" {
            errors.push(FieldError::forbidden(&path, "updates may not set certificate content"));
        } else if !certificate(old).is_empty() {
            errors.push(FieldError::forbidden(&path, "updates may not modify existing certificate content"));
        }
    }
    errors
}

/// A bundle of a signer begins with the signer's name. What it holds is for who can read certificates to check.
pub(super) fn bundle(object: &Map) -> Errors {
    let mut errors = Errors::new();
    bundle_name(&mut errors, object);
    bundle_signer(&mut errors, object);
    errors
}

fn bundle_name(errors: &mut Errors, object: &Map) {
    let (name, signer) = (object.str_at(&["metadata", "name"]), object.str_at(&["spec", "signerName"]));
    let metadata = Path::root("metadata");
    let path = metadata.child("name");
    problems(errors, &path, name, bundle_name_problems(name, signer));
}

/// What is wrong with the name of a bundle of a signer, who may be none.
pub(super) fn bundle_name_problems(name: &str, signer: &str) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()];
        }
        return names::dns1123_subdomain(name);
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(rest) => names::dns1123_subdomain(rest),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")],
    }
}

fn bundle_signer(errors: &mut Errors, object: &Map) {
    let signer = object.str_at(&["spec", "signerName"]);
    if !signer.is_empty() {
        signer_name(errors, &SPEC.child("signerName"), signer);
    }
}

pub(super) fn bundle_update(_: &str, new: &Map, old: &Map) -> Errors {
    let mut errors = Errors::new();
    bundle_signer(&mut errors, new);
    bundle_name(&mut errors, new);
    let signer = ["spec", "signerName"];
    immutable(&mut errors, &SPEC.child("signerName"), new.at(&signer), old.at(&signer));
    errors
}
