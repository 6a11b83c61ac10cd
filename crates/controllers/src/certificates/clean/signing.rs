//! Signing requests, which the informer has.

use super::super::{has, is_issued};
use super::{again_and_again, remove};
use crate::informer::Informer;
use crate::{Context, Running};
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Api;
use std::time::Duration;
use x509_parser::prelude::FromDer as _;

const LOOK: Duration = Duration::from_hours(1);
const DECIDED: i64 = 3600;
const PENDING: i64 = 24 * 3600;

/// Whether a request is over: decided for an hour, undecided for a day, or its certificate is no longer valid.
fn is_over(csr: &CertificateSigningRequest, now: Timestamp) -> bool {
    let now = now.as_second();
    let decided_long_ago = |type_: &str| {
        let known = csr.status.iter().flat_map(|s| s.conditions.iter().flatten()).find(|c| c.type_ == type_);
        known.and_then(|c| c.last_update_time.as_ref()).is_some_and(|t| t.0.as_second() + DECIDED < now)
    };
    if ["Denied", "Failed"].into_iter().any(decided_long_ago) || is_issued(csr) && decided_long_ago("Approved") {
        return true;
    }
    let created = csr.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0.as_second());
    let decided = ["Approved", "Denied", "Failed"].iter().any(|c| has(csr, c));
    if !is_issued(csr) && (!decided || has(csr, "Approved")) && created + PENDING < now {
        return true;
    }
    has(csr, "Approved") && is_issued(csr) && ends(csr).is_some_and(|end| end < now)
}

/// When the certificate that was issued ends.
fn ends(csr: &CertificateSigningRequest) -> Option<i64> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let pem = &csr.status.as_ref()?.certificate.as_ref()?.0;
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(&der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

pub fn controller(context: &Context) -> Running {
    let api: Api<CertificateSigningRequest> = Api::all(context.clients.service_account("certificate-controller"));
    let requests: Informer<CertificateSigningRequest> = context.informers.of();
    again_and_again(context.shutdown.clone(), LOOK, move || {
        let (api, requests) = (api.clone(), requests.clone());
        async move {
            requests.synced().await;
            for request in requests.all().into_iter().filter(|request| is_over(request, Timestamp::now())) {
                remove(&api, &request.metadata).await;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn old_requests_are_over() {
        let csr = |conditions: serde_json::Value| -> CertificateSigningRequest {
            serde_json::from_value(json!({"metadata": {"creationTimestamp": "1970-01-01T00:00:00Z"},
                "spec": {"signerName": "s", "request": ""}, "status": {"conditions": conditions}}))
            .expect("a request")
        };
        let at = |hours: i64| Timestamp::from_second(hours * 3600 + 1).expect("a time");
        assert!(!is_over(&csr(json!([])), at(23)) && is_over(&csr(json!([])), at(24)));
        let denied = json!([{"type": "Denied", "status": "True", "lastUpdateTime": "1970-01-01T00:00:00Z"}]);
        assert!(!is_over(&csr(denied.clone()), at(0)) && is_over(&csr(denied), at(1)));
    }
}
