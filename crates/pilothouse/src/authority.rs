//! The cluster's CA as the signer of certificate requests.

use crate::pki::Pki;
use controllers::certificates::CertificateAuthority;
use rcgen::{CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer as _;

/// How far back a certificate begins, for clocks that are a little behind (upstream's).
const BACK: Duration = Duration::from_mins(5);

impl CertificateAuthority for Pki {
    fn sign(&self, request: &[u8], usages: &[String], valid: Duration) -> Result<String, String> {
        let (certificate, key) = (self.ca_pem(), self.ca_key_pem());
        sign(&certificate.map_err(|e| e.to_string())?, &key.map_err(|e| e.to_string())?, request, usages, valid)
    }
}

/// An authority that an administrator keeps in files, read at each signature.
#[derive(Clone, Debug)]
pub struct CaFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl CertificateAuthority for CaFiles {
    fn sign(&self, request: &[u8], usages: &[String], valid: Duration) -> Result<String, String> {
        let read = |file: &PathBuf| std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()));
        sign(&read(&self.certificate)?, &read(&self.key)?, request, usages, valid)
    }
}

fn sign(certificate: &str, key: &str, request: &[u8], usages: &[String], valid: Duration) -> Result<String, String> {
    let der = CertificateSigningRequestDer::from_pem_slice(request).map_err(|e| e.to_string())?;
    one_of_each(&der)?;
    let mut csr = CertificateSigningRequestParams::from_der(&der).map_err(|e| e.to_string())?;
    let (purposes, extended) = named(usages)?;
    let params = &mut csr.params;
    params.key_usages = purposes;
    params.extended_key_usages = extended;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = (now - BACK).into();
    params.not_after = (now + valid).into();
    let key = KeyPair::from_pem(key).map_err(|e| e.to_string())?;
    let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(|e| e.to_string())?;
    Ok(csr.signed_by(&issuer).map_err(|e| e.to_string())?.pem())
}

/// A subject is written with one attribute of each type: more would be lost silently.
fn one_of_each(der: &[u8]) -> Result<(), String> {
    let (_, csr) = X509CertificationRequest::from_der(der).map_err(|e| e.to_string())?;
    let mut seen = Vec::new();
    for attribute in csr.certification_request_info.subject.iter_attributes() {
        let kind = attribute.attr_type().to_id_string();
        if seen.contains(&kind) {
            return Err(format!("the subject has more than one attribute of the type {kind}, which cannot be signed"));
        }
        seen.push(kind);
    }
    Ok(())
}

/// Key usages by the names that the API has for them.
fn named(usages: &[String]) -> Result<(Vec<KeyUsagePurpose>, Vec<ExtendedKeyUsagePurpose>), String> {
    let (mut plain, mut extended) = (Vec::new(), Vec::new());
    for usage in usages {
        match usage.as_str() {
            "signing" | "digital signature" => plain.push(KeyUsagePurpose::DigitalSignature),
            "content commitment" => plain.push(KeyUsagePurpose::ContentCommitment),
            "key encipherment" => plain.push(KeyUsagePurpose::KeyEncipherment),
            "key agreement" => plain.push(KeyUsagePurpose::KeyAgreement),
            "data encipherment" => plain.push(KeyUsagePurpose::DataEncipherment),
            "encipher only" => plain.push(KeyUsagePurpose::EncipherOnly),
            "decipher only" => plain.push(KeyUsagePurpose::DecipherOnly),
            "any" => extended.push(ExtendedKeyUsagePurpose::Any),
            "server auth" => extended.push(ExtendedKeyUsagePurpose::ServerAuth),
            "client auth" => extended.push(ExtendedKeyUsagePurpose::ClientAuth),
            "code signing" => extended.push(ExtendedKeyUsagePurpose::CodeSigning),
            "email protection" => extended.push(ExtendedKeyUsagePurpose::EmailProtection),
            "timestamping" => extended.push(ExtendedKeyUsagePurpose::TimeStamping),
            "ocsp signing" => extended.push(ExtendedKeyUsagePurpose::OcspSigning),
            other => return Err(format!("unrecognized usages: [{other}]")),
        }
    }
    plain.dedup();
    Ok((plain, extended))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType};

    fn request(organizations: &[&str]) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for organization in organizations {
            params.distinguished_name.push(DnType::OrganizationName, *organization);
        }
        params.distinguished_name.push(DnType::CommonName, "system:node:n");
        let key = KeyPair::generate().expect("a key");
        params.serialize_request(&key).expect("a request").pem().expect("PEM")
    }

    #[test]
    fn a_request_is_signed_for_what_it_asks() {
        let directory = tempfile::tempdir().expect("a directory");
        let pki = Pki::open(directory.path().to_owned()).expect("a CA");
        let usages = ["digital signature", "client auth"].map(str::to_owned);
        let pem = pki.sign(request(&["system:nodes"]).as_bytes(), &usages, Duration::from_hours(1)).expect("signed");
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
        let certificate = pem.parse_x509().expect("a certificate");
        assert_eq!(certificate.subject().to_string(), "O=system:nodes, CN=system:node:n");
        let extended = certificate.extended_key_usage().expect("readable").expect("there");
        assert!(extended.value.client_auth && !extended.value.server_auth);
        let life = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
        assert_eq!(life, 3600 + 300);
        assert!(!certificate.is_ca());
        assert!(pki.sign(b"nonsense", &usages, Duration::from_hours(1)).is_err());
        assert!(pki.sign(request(&[]).as_bytes(), &["x".to_owned()], Duration::from_hours(1)).is_err());
    }
}
