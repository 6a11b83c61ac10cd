//! Bundles of trust anchors: each is a certificate of an authority, once.

use super::{Kind, Rules, Strategy, pem, validation};
use crate::context::Context;
use api::field::{FieldError, Path, Raw};
use schema::Map;
use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Bundles(pub Rules);

const BUNDLE: [&str; 2] = ["spec", "trustBundle"];
/// Bytes of PEM text.
const MAX_BUNDLE: usize = 1 << 20;

impl Strategy for Bundles {
    fn validate_create(&self, _: &Context, kind: Kind<'_>, object: &Map) -> Vec<FieldError> {
        let mut errors = validation::create(kind, object);
        errors.extend(anchors(object.str_at(&BUNDLE)));
        errors
    }

    fn validate_update(
        &self,
        _: &Context,
        kind: Kind<'_>,
        subresource: &str,
        object: &Map,
        old: &Map,
    ) -> Vec<FieldError> {
        let mut errors = validation::update(kind, subresource, object, old);
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

/// What is wrong with a bundle. Of one that is too long nothing else is told.
fn anchors(text: &str) -> Vec<FieldError> {
    let spec = Path::root("spec");
    let invalid =
        |why: String| FieldError::invalid(&spec.child("trustBundle"), Raw("\"<value omitted>\"".to_owned()), why);
    if text.len() > MAX_BUNDLE {
        return vec![FieldError::too_long(&spec.child("trustBundle"), MAX_BUNDLE)];
    }
    let mut errors = Vec::new();
    let mut places: BTreeMap<Vec<u8>, Vec<String>> = BTreeMap::new();
    for (i, block) in pem::blocks(text).into_iter().enumerate() {
        if block.label != pem::CERTIFICATE {
            errors.push(invalid(format!("entry {i} has bad block type: {}", block.label)));
        } else if block.headers {
            errors.push(invalid(format!("entry {i} has PEM block headers")));
        } else {
            match block.certificates().as_deref() {
                Some([certificate]) if certificate.is_ca() => {
                    places.entry(block.der.clone()).or_default().push(i.to_string());
                }
                Some([_]) => errors.push(invalid(format!("entry {i} does not have the CA bit set"))),
                _ => errors.push(invalid(format!("entry {i} does not parse as X.509"))),
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
        assert_eq!(told(broken), wrong("entry 0 does not parse as X.509"));
        let long = "x".repeat(MAX_BUNDLE + 1);
        assert_eq!(told(&long), ["spec.trustBundle: Too long: may not be more than 1048576 bytes"]);
    }
}
