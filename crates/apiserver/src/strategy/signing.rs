//! Signing requests: they carry who made them, and each subresource changes its own part.

use super::{Kind, Strategy, conditions, keep, keep_other_side, keys, pem, validation};
use crate::context::Context;
use api::field::{FieldError, Path, Raw, go_quote};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::{Map, Resource, Value};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

/// Requests carry who made them, whatever they say of it themselves.
#[derive(Debug)]
pub struct SigningRequests;

const CONDITIONS: [&str; 2] = ["status", "conditions"];
const CERTIFICATE: [&str; 2] = ["status", "certificate"];
/// What the approver says, and nobody else.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];
const UPDATED: &str = "lastUpdateTime";

impl Strategy for SigningRequests {
    fn prepare_for_create(&self, cx: &Context, _: &Resource, object: &mut Map) {
        for key in ["username", "uid", "groups", "extra"] {
            object.remove_at(&["spec", key]);
        }
        let user = &cx.user;
        object.set_at(&["spec", "username"], user.name.as_str());
        if !user.uid.is_empty() {
            object.set_at(&["spec", "uid"], user.uid.as_str());
        }
        let list = |texts: &[String]| Value::List(texts.iter().map(|text| Value::from(text.as_str())).collect());
        if !user.groups.is_empty() {
            object.set_at(&["spec", "groups"], list(&user.groups));
        }
        if !user.extra.is_empty() {
            let extra: Map = user.extra.iter().map(|(key, values)| (key.clone().into(), list(values))).collect();
            object.set_at(&["spec", "extra"], extra);
        }
    }

    fn prepare_for_update(&self, cx: &Context, row: &Resource, subresource: &str, object: &mut Map, old: &Map) {
        match subresource {
            "approval" => {
                conditions::date(cx, object, old, UPDATED);
                let conditions = object.remove_at(&CONDITIONS);
                keep(object, old, "spec");
                keep(object, old, "status");
                match conditions {
                    Some(conditions) => object.set_at(&CONDITIONS, conditions),
                    None => {
                        object.remove_at(&CONDITIONS);
                    }
                }
            }
            "status" => {
                keep(object, old, "spec");
                // Approval and denial are for the approval subresource to make.
                conditions::keep(object, old, &DECISIONS);
                conditions::date(cx, object, old, UPDATED);
            }
            _ => {
                keep_other_side(row, subresource, object, old);
                keep(object, old, "spec");
            }
        }
    }

    fn validate_create(&self, _: &Context, kind: Kind<'_>, object: &Map) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = request_error(object).into_iter().collect();
        errors.extend(validation::create(kind, object));
        errors
    }

    fn validate_update(&self, _: &Context, kind: Kind<'_>, sub: &str, object: &Map, old: &Map) -> Vec<FieldError> {
        // The request itself is the old one's, which has been checked.
        let mut errors = Vec::new();
        let (new, was) = (object.str_at(&CERTIFICATE), old.str_at(&CERTIFICATE));
        if new != was
            && certificate_error(was).is_none()
            && let Some(why) = certificate_error(new)
        {
            let status = Path::root("status");
            errors.push(FieldError::invalid(&status.child("certificate"), "<certificate data>", why));
        }
        errors.extend(validation::update(kind, sub, object, old));
        errors
    }
}

/// What is wrong with the request of keys: its form, or its signature.
fn request_error(object: &Map) -> Option<FieldError> {
    let text = object.str_at(&["spec", "request"]);
    let why = check_request(&STANDARD.decode(text).unwrap_or_default()).err()?;
    let spec = Path::root("spec");
    let shown = if object.at(&["spec", "request"]).is_none() { "null".to_owned() } else { go_quote(text) };
    Some(FieldError::invalid(&spec.child("request"), Raw(shown), why))
}

fn check_request(text: &[u8]) -> Result<(), &'static str> {
    read_request(text, judge_signature)?
}

/// What is made of the request of keys that PEM text holds; whether it is signed is not asked.
///
/// # Errors
/// What is wrong with its form.
pub(crate) fn read_request<T>(
    text: &[u8],
    read: impl FnOnce(&X509CertificationRequest<'_>) -> T,
) -> Result<T, &'static str> {
    let block = pem::blocks(&String::from_utf8_lossy(text)).into_iter().next();
    let block = block.filter(|block| block.label == "CERTIFICATE REQUEST");
    let block = block.ok_or("PEM block type must be CERTIFICATE REQUEST")?;
    let (rest, request) = X509CertificationRequest::from_der(&block.der)
        .map_err(|_| "asn1: structure error: malformed certificate request")?;
    if !rest.is_empty() {
        return Err("asn1: syntax error: trailing data");
    }
    Ok(read(&request))
}

fn judge_signature(request: &X509CertificationRequest<'_>) -> Result<(), &'static str> {
    if keys::is_signed(request) {
        return Ok(());
    }
    Err(match request.signature_algorithm.algorithm.to_id_string().as_str() {
        id if id.starts_with("1.2.840.113549.1.1.") => "crypto/rsa: verification error",
        id if id.starts_with("1.2.840.10045.4.") => "x509: ECDSA verification failure",
        "1.3.101.112" => "x509: Ed25519 verification failure",
        _ => "x509: cannot verify signature: algorithm unimplemented",
    })
}

/// What is wrong with an issued certificate.
fn certificate_error(text: &str) -> Option<String> {
    let given = STANDARD.decode(text).unwrap_or_default();
    if given.is_empty() {
        return None;
    }
    let blocks = pem::blocks(&String::from_utf8_lossy(&given));
    for block in &blocks {
        if block.label != pem::CERTIFICATE {
            return Some(format!("only CERTIFICATE PEM blocks are allowed, found {}", go_quote(&block.label)));
        }
        if block.headers {
            return Some("no PEM block headers are permitted".to_owned());
        }
        match block.certificates().as_deref() {
            None => return Some("x509: malformed certificate".to_owned()),
            Some([]) => return Some("found CERTIFICATE PEM block containing 0 certificates".to_owned()),
            Some(_) => {}
        }
    }
    blocks.is_empty().then(|| "must contain at least one CERTIFICATE PEM block".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    #[test]
    fn requests_are_signed_by_their_keys() {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["a.example".to_owned()]).expect("parameters");
        let request = params.serialize_request(&key).expect("a request");
        let pem = request.pem().expect("PEM");
        assert_eq!(check_request(pem.as_bytes()), Ok(()));
        let mut der = request.der().to_vec();
        *der.last_mut().expect("bytes") ^= 1;
        let text = STANDARD.encode(&der);
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n");
        assert_eq!(check_request(forged.as_bytes()), Err("x509: ECDSA verification failure"));
        for bad in ["", "x", &pem.replace("CERTIFICATE REQUEST", "CERTIFICATE")] {
            assert_eq!(check_request(bad.as_bytes()), Err("PEM block type must be CERTIFICATE REQUEST"));
        }
    }

    #[test]
    fn certificates_are_certificates() {
        let key = KeyPair::generate().expect("a key");
        let made = CertificateParams::new(Vec::new()).expect("parameters").self_signed(&key).expect("a certificate");
        assert_eq!(certificate_error(&STANDARD.encode(made.pem())), None);
        assert_eq!(certificate_error(""), None);
        let block = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let twice = [made.der().as_ref(), made.der().as_ref()].concat();
        assert_eq!(certificate_error(&STANDARD.encode(block(&STANDARD.encode(twice)))), None, "several of one block");
        for (text, why) in [
            ("x".to_owned(), "must contain at least one CERTIFICATE PEM block"),
            (block(""), "found CERTIFICATE PEM block containing 0 certificates"),
            (block("AAAA"), "x509: malformed certificate"),
            (made.pem().replacen("-----\n", "-----\na: b\n\n", 1), "no PEM block headers are permitted"),
            (key.serialize_pem(), "only CERTIFICATE PEM blocks are allowed, found \"PRIVATE KEY\""),
        ] {
            assert_eq!(certificate_error(&STANDARD.encode(text)).as_deref(), Some(why));
        }
    }
}
