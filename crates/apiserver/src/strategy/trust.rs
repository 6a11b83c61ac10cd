//! Bundles of trust anchors: each is a certificate of an authority, once.

use super::{Rules, Strategy, validation};
use crate::context::Context;
use api::field::{FieldError, Path, Raw};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::{Map, Resource};
use std::collections::BTreeMap;
use x509_parser::prelude::{FromDer as _, X509Certificate};

#[derive(Debug)]
pub struct Bundles(pub Rules);

const BUNDLE: [&str; 2] = ["spec", "trustBundle"];

impl Strategy for Bundles {
    fn validate_create(&self, _: &Context, row: &Resource, object: &Map) -> Vec<FieldError> {
        let mut errors = validation::create(row, object);
        errors.extend(anchors(object.str_at(&BUNDLE)));
        errors
    }

    fn validate_update(
        &self,
        _: &Context,
        row: &Resource,
        subresource: &str,
        object: &Map,
        old: &Map,
    ) -> Vec<FieldError> {
        let mut errors = validation::update(row, subresource, object, old);
        // What was taken once is not read again.
        if object.at(&BUNDLE) != old.at(&BUNDLE) {
            errors.extend(anchors(object.str_at(&BUNDLE)));
        }
        errors
    }

    fn rules(&self) -> Rules {
        self.0
    }
}

/// A block of PEM text.
struct Block {
    label: String,
    headers: bool,
    der: Vec<u8>,
}

/// The blocks of PEM text; what is none is passed over, as Go does.
fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let label = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let Some(label) = label else { continue };
        let end = format!("-----END {label}-----");
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != end).collect();
        let (headers, base64): (Vec<&str>, Vec<&str>) = body.into_iter().partition(|line| line.contains(':'));
        if let Ok(der) = STANDARD.decode(base64.concat()) {
            blocks.push(Block { label: label.to_owned(), headers: !headers.is_empty(), der });
        }
    }
    blocks
}

fn anchors(text: &str) -> Vec<FieldError> {
    let spec = Path::root("spec");
    let invalid =
        |why: String| FieldError::invalid(&spec.child("trustBundle"), Raw("\"<value omitted>\"".to_owned()), why);
    let mut errors = Vec::new();
    let mut places: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    for (i, block) in blocks(text).into_iter().enumerate() {
        if block.label != "CERTIFICATE" {
            errors.push(invalid(format!("entry {i} has bad block type: {}", block.label)));
        } else if block.headers {
            errors.push(invalid(format!("entry {i} has PEM block headers")));
        } else {
            match X509Certificate::from_der(&block.der) {
                Ok(([], certificate)) if certificate.is_ca() => {
                    places.entry(block.der.clone()).or_default().push(i.to_string());
                }
                Ok(([], _)) => errors.push(invalid(format!("entry {i} does not have the CA bit set"))),
                _ => errors.push(invalid(format!("entry {i} does not parse as X.509: x509: malformed certificate"))),
            }
        }
    }
    // Whether anchors are there, and once, is told only of what can be read.
    if errors.is_empty() && places.is_empty() {
        errors.push(invalid("at least one trust anchor must be provided".to_owned()));
    } else if errors.is_empty() {
        let repeated = places.into_values().filter(|places| places.len() > 1);
        errors.extend(repeated.map(|at| invalid(format!("duplicate trust anchor (indices [{}])", at.join(" ")))));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    fn made(ca: bool) -> String {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        if ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").pem()
    }

    fn told(text: &str) -> Vec<String> {
        anchors(text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn anchors_are_authorities_each_once() {
        let (one, other) = (made(true), made(true));
        assert!(told(&format!("# a comment\n{one}\nbetween\n{other}")).is_empty());
        let wrong = |why: &str| vec![format!("spec.trustBundle: Invalid value: \"<value omitted>\": {why}")];
        assert_eq!(told(""), wrong("at least one trust anchor must be provided"));
        assert_eq!(told(&made(false)), wrong("entry 0 does not have the CA bit set"));
        assert_eq!(told(&format!("{one}{other}{one}")), wrong("duplicate trust anchor (indices [0 2])"));
        let key = KeyPair::generate().expect("a key").serialize_pem();
        assert_eq!(told(&format!("{one}{key}")), wrong("entry 1 has bad block type: PRIVATE KEY"));
        let headed = one.replacen("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n\n", 1);
        assert_eq!(told(&headed), wrong("entry 0 has PEM block headers"));
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(told(broken), wrong("entry 0 does not parse as X.509: x509: malformed certificate"));
    }
}
