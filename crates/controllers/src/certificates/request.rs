//! What a certificate request asks for, and whether a signer of Kubernetes may give it.

use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;

const NODES: &str = "system:nodes";
const NODE: &str = "system:node:";

/// What the request names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    dns: usize,
    addresses: usize,
    emails: usize,
    uris: usize,
}

impl Request {
    /// Reads a request in PEM and checks that it is signed by its own key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, String> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem)
            .map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
        let (_, csr) = X509CertificationRequest::from_der(&der).map_err(|e| e.to_string())?;
        let info = &csr.certification_request_info;
        let text = |part: &x509_parser::x509::AttributeTypeAndValue<'_>| part.as_str().unwrap_or_default().to_owned();
        let mut request = Request {
            common_name: info.subject.iter_common_name().last().map(text).unwrap_or_default(),
            organizations: info.subject.iter_organization().map(text).collect(),
            ..Request::default()
        };
        for extension in csr.requested_extensions().into_iter().flatten() {
            let ParsedExtension::SubjectAlternativeName(names) = extension else { continue };
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) => request.dns += 1,
                    GeneralName::IPAddress(_) => request.addresses += 1,
                    GeneralName::RFC822Name(_) => request.emails += 1,
                    GeneralName::URI(_) => request.uris += 1,
                    _ => {}
                }
            }
        }
        Ok(request)
    }

    /// Whether it is a node's request for a client certificate; upstream's words for what is not.
    pub(super) fn check_kubelet_client(&self, usages: &[String]) -> Result<(), &'static str> {
        if self.organizations != [NODES] {
            return Err("subject organization is not system:nodes");
        }
        if self.dns > 0 {
            return Err("DNS subjectAltNames are not allowed");
        }
        if self.emails > 0 {
            return Err("Email subjectAltNames are not allowed");
        }
        if self.addresses > 0 {
            return Err("IP subjectAltNames are not allowed");
        }
        if self.uris > 0 {
            return Err("URI subjectAltNames are not allowed");
        }
        if !self.common_name.starts_with(NODE) {
            return Err("subject common name does not begin with system:node: ");
        }
        exactly(usages, "client auth", "usages did not match [digital signature client auth]")
    }

    /// Whether it is a node's request for a serving certificate.
    pub(super) fn check_kubelet_serving(&self, usages: &[String]) -> Result<(), &'static str> {
        if self.organizations != [NODES] {
            return Err("subject organization is not system:nodes");
        }
        if self.dns == 0 && self.addresses == 0 {
            return Err("DNS or IP subjectAltName is required");
        }
        if self.emails > 0 {
            return Err("Email subjectAltNames are not allowed");
        }
        if self.uris > 0 {
            return Err("URI subjectAltNames are not allowed");
        }
        if !self.common_name.starts_with(NODE) {
            return Err("subject common name does not begin with system:node: ");
        }
        exactly(usages, "server auth", "usages did not match [digital signature server auth]")
    }
}

/// The purpose and a digital signature, with or without key encipherment, and nothing else.
fn exactly(usages: &[String], purpose: &str, why: &'static str) -> Result<(), &'static str> {
    let has = |usage: &str| usages.iter().any(|u| u == usage);
    let known = |usage: &String| usage == "digital signature" || usage == "key encipherment" || usage == purpose;
    if has("digital signature") && has(purpose) && usages.iter().all(known) { Ok(()) } else { Err(why) }
}

/// Whether usages are those of a client of the API server.
pub(super) fn check_client_usages(usages: &[String]) -> Result<(), String> {
    if !usages.iter().any(|u| u == "client auth") {
        return Err("usages did not include \"client auth\"".to_owned());
    }
    let allowed = ["digital signature", "key encipherment", "client auth"];
    let other: Vec<&str> = usages.iter().map(String::as_str).filter(|u| !allowed.contains(u)).collect();
    if other.is_empty() { Ok(()) } else { Err(format!("usages included unexpected values: {}", other.join(" "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Request {
        Request { common_name: "system:node:n".into(), organizations: vec![NODES.into()], ..Request::default() }
    }

    fn usages(of: &[&str]) -> Vec<String> {
        of.iter().map(|u| (*u).to_owned()).collect()
    }

    #[test]
    fn nodes_ask_for_themselves_and_nothing_more() {
        let client = usages(&["digital signature", "client auth"]);
        assert_eq!(node().check_kubelet_client(&client), Ok(()));
        assert!(node().check_kubelet_client(&usages(&["client auth"])).is_err());
        assert!(node().check_kubelet_client(&usages(&["digital signature", "client auth", "server auth"])).is_err());
        assert_eq!(
            Request { dns: 1, ..node() }.check_kubelet_client(&client),
            Err("DNS subjectAltNames are not allowed")
        );
        let admin = Request { organizations: vec!["system:masters".into()], ..node() };
        assert_eq!(admin.check_kubelet_client(&client), Err("subject organization is not system:nodes"));
        let serving = usages(&["digital signature", "server auth", "key encipherment"]);
        assert_eq!(node().check_kubelet_serving(&serving), Err("DNS or IP subjectAltName is required"));
        assert_eq!(Request { addresses: 1, ..node() }.check_kubelet_serving(&serving), Ok(()));
        assert!(check_client_usages(&usages(&["client auth", "any"])).is_err());
        assert!(Request::parse(b"nonsense").is_err());
    }
}
