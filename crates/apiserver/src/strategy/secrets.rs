//! Secrets: whoever stores a certificate with another's key is told.

use super::pem::{self, Block};
use super::{Kind, Rules, Strategy, validation};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::SignatureAlgorithm;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use schema::Map;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Secrets, some of which hold a certificate and its key.
#[derive(Debug)]
pub struct Secrets(pub Rules);

impl Strategy for Secrets {
    fn rules(&self) -> Rules {
        self.0
    }

    fn warnings_on_create(&self, kind: Kind<'_>, object: &Map) -> Vec<String> {
        let mut warnings = validation::warnings(kind, "", object, None);
        warnings.extend(pair_problem(object));
        warnings
    }

    fn warnings_on_update(&self, kind: Kind<'_>, subresource: &str, object: &Map, old: &Map) -> Vec<String> {
        let mut warnings = validation::warnings(kind, subresource, object, Some(old));
        warnings.extend(pair_problem(object));
        warnings
    }
}

fn pair_problem(secret: &Map) -> Option<String> {
    if secret.str_at(&["type"]) != "kubernetes.io/tls" {
        return None;
    }
    let bytes = |key| STANDARD.decode(secret.str_at(&["data", key])).unwrap_or_default();
    check_pair(&bytes("tls.crt"), &bytes("tls.key")).err()
}

/// The first block that is wanted, or the labels of those that are not.
fn find(text: &[u8], wanted: fn(&str) -> bool) -> Result<Block, Vec<String>> {
    let mut others = Vec::new();
    for block in pem::blocks(&String::from_utf8_lossy(text)) {
        if wanted(&block.label) {
            return Ok(block);
        }
        others.push(block.label);
    }
    Err(others)
}

/// Whether a key is the certificate's, in the words of upstream's TLS library.
fn check_pair(certificate: &[u8], key: &[u8]) -> Result<(), String> {
    let certificate = find(certificate, |label| label == pem::CERTIFICATE).map_err(|others| match &others[..] {
        [] => "tls: failed to find any PEM data in certificate input".to_owned(),
        [one] if one.ends_with("PRIVATE KEY") => "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_owned(),
        _ => format!("tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]", others.join(" ")),
    })?;
    let key = find(key, |label| label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY")).map_err(|others| match &others[..] {
        [] => "tls: failed to find any PEM data in key input".to_owned(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_owned()
        }
        _ => format!("tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]", others.join(" ")),
    })?;
    let (_, certificate) = X509Certificate::from_der(&certificate.der).map_err(|_| "x509: malformed certificate")?;
    let key = PrivateKeyDer::try_from(key.der.as_slice()).ok().and_then(|key| any_supported_type(&key).ok());
    let key = key.ok_or("tls: failed to parse private key")?;
    let public = &certificate.tbs_certificate.subject_pki;
    let algorithm = match public.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => SignatureAlgorithm::RSA,
        "1.2.840.10045.2.1" => SignatureAlgorithm::ECDSA,
        "1.3.101.112" => SignatureAlgorithm::ED25519,
        _ => return Err("tls: unknown public key algorithm".to_owned()),
    };
    if key.algorithm() != algorithm {
        return Err("tls: private key type does not match public key type".to_owned());
    }
    if key.public_key().is_some_and(|own| own.as_ref() != public.raw) {
        return Err("tls: private key does not match public key".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};

    #[test]
    fn a_key_is_the_certificates_own() {
        let key = KeyPair::generate().expect("a key");
        let other = KeyPair::generate().expect("a key").serialize_pem();
        let odd = KeyPair::generate_for(&PKCS_ED25519).expect("a key").serialize_pem();
        let made = CertificateParams::new(Vec::new()).expect("parameters").self_signed(&key).expect("a certificate");
        let (own, certificate) = (key.serialize_pem(), made.pem());
        let labelled = |pem: &str, label: &str| pem.replace("PRIVATE KEY", label);
        let cases = [
            (certificate.clone(), own.clone(), ""),
            ("x".into(), own.clone(), "tls: failed to find any PEM data in certificate input"),
            (certificate.clone(), "x".into(), "tls: failed to find any PEM data in key input"),
            (
                own.clone(),
                own.clone(),
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched",
            ),
            (
                certificate.clone(),
                certificate.clone(),
                "tls: found a certificate rather than a key in the PEM for the private key",
            ),
            (
                labelled(&own, "A") + &labelled(&own, "B"),
                own.clone(),
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [A B]",
            ),
            (labelled(&own, "CERTIFICATE"), own.clone(), "x509: malformed certificate"),
            (
                certificate.clone(),
                certificate.replace("CERTIFICATE", "PRIVATE KEY"),
                "tls: failed to parse private key",
            ),
            (certificate.clone(), odd, "tls: private key type does not match public key type"),
            (certificate.clone(), other, "tls: private key does not match public key"),
        ];
        for (certificate, key, why) in cases {
            let got = check_pair(certificate.as_bytes(), key.as_bytes());
            assert_eq!(got.err().unwrap_or_default(), why);
        }
    }
}
