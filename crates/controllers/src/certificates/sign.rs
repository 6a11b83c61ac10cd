//! Signs approved requests that are for a signer of Kubernetes.

use super::request::{Request, check_client_usages};
use super::{CLIENT, CertificateAuthority, KUBELET_CLIENT, KUBELET_SERVING, has, is_issued, update, with_condition};
use crate::{Error, gone_is_fine};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Client;
use serde_json::json;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_secs(600);

/// What is to be done with a request.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Sign(Duration),
    Refuse(String),
}

fn plan(csr: &CertificateSigningRequest, longest: Duration) -> Plan {
    let ours = [CLIENT, KUBELET_CLIENT, KUBELET_SERVING];
    let signer = csr.spec.signer_name.as_str();
    let open = has(csr, "Approved") && !has(csr, "Denied") && !has(csr, "Failed") && !is_issued(csr);
    if !open || !ours.contains(&signer) {
        return Plan::Nothing;
    }
    let request = match Request::parse(&csr.spec.request.0) {
        Ok(request) => request,
        Err(why) => return Plan::Refuse(format!("unable to parse csr {:?}: {why}", csr.metadata.name)),
    };
    let usages = csr.spec.usages.as_deref().unwrap_or_default();
    let checked = match signer {
        KUBELET_CLIENT => request.check_kubelet_client(usages).map_err(str::to_owned),
        KUBELET_SERVING => request.check_kubelet_serving(usages).map_err(str::to_owned),
        _ => check_client_usages(usages),
    };
    match checked {
        Ok(()) => Plan::Sign(duration(csr.spec.expiration_seconds, longest)),
        Err(why) => Plan::Refuse(why),
    }
}

/// As long as asked for, but not longer than the signer's certificates last, nor shorter than ten minutes.
fn duration(asked: Option<i32>, longest: Duration) -> Duration {
    let asked = asked.and_then(|s| u64::try_from(s).ok()).map_or(longest, Duration::from_secs);
    asked.clamp(SHORTEST.min(longest), longest)
}

pub(super) async fn sign(
    client: &Client,
    csr: &CertificateSigningRequest,
    authority: &dyn CertificateAuthority,
    longest: Duration,
) -> Result<Option<CertificateSigningRequest>, Error> {
    let status = match plan(csr, longest) {
        Plan::Nothing => return Ok(None),
        Plan::Refuse(why) => {
            json!({"conditions": with_condition(csr, "Failed", "SignerValidationFailure", &why, Timestamp::now())})
        }
        Plan::Sign(valid) => {
            let usages = csr.spec.usages.as_deref().unwrap_or_default();
            let certificate = authority
                .sign(&csr.spec.request.0, usages, valid)
                .map_err(|why| Error::Other(format!("error auto signing csr: {why}")))?;
            json!({"certificate": ByteString(certificate.into_bytes())})
        }
    };
    Ok(gone_is_fine(update(client, csr, "status", status).await)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_lives_as_long_as_asked_within_bounds() {
        let year = Duration::from_hours(24 * 365);
        assert_eq!(duration(None, year), year);
        assert_eq!(duration(Some(3600), year), Duration::from_hours(1));
        assert_eq!(duration(Some(60), year), SHORTEST);
        assert_eq!(duration(Some(i32::MAX), year), year);
    }

    #[test]
    fn only_approved_requests_for_a_signer_of_ours_are_looked_at() {
        let csr = |signer: &str, condition: &str| -> CertificateSigningRequest {
            serde_json::from_value(json!({"metadata": {"name": "c"}, "spec": {"signerName": signer, "request": "eA=="},
                "status": {"conditions": [{"type": condition, "status": "True"}]}}))
            .expect("a request")
        };
        let year = Duration::from_hours(24 * 365);
        assert_eq!(plan(&csr(CLIENT, "Denied"), year), Plan::Nothing);
        assert_eq!(plan(&csr("example.com/x", "Approved"), year), Plan::Nothing);
        assert_eq!(plan(&csr("kubernetes.io/legacy-unknown", "Approved"), year), Plan::Nothing);
        assert!(matches!(plan(&csr(CLIENT, "Approved"), year), Plan::Refuse(_)), "x is no request");
    }
}
