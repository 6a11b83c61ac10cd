//! Approves what nodes ask for themselves, when they may.

use super::request::Request;
use super::{KUBELET_CLIENT, has, is_issued, update, with_condition};
use crate::{Error, gone_is_fine};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

/// What may be approved: the permission that it takes, and what is said of it.
#[derive(Debug, PartialEq, Eq)]
struct Recognized {
    subresource: &'static str,
    message: &'static str,
}

const OWN: Recognized = Recognized {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const NODE: Recognized = Recognized {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// What the request is recognized as, best first.
fn recognize(csr: &CertificateSigningRequest) -> Vec<Recognized> {
    let spec = &csr.spec;
    if spec.signer_name != KUBELET_CLIENT {
        return Vec::new();
    }
    let Ok(request) = Request::parse(&spec.request.0) else { return Vec::new() };
    if request.check_kubelet_client(spec.usages.as_deref().unwrap_or_default()).is_err() {
        return Vec::new();
    }
    let own = spec.username.as_deref() == Some(&request.common_name);
    if own { vec![OWN, NODE] } else { vec![NODE] }
}

pub(super) async fn approve(
    client: &Client,
    csr: &CertificateSigningRequest,
) -> Result<Option<CertificateSigningRequest>, Error> {
    if is_issued(csr) || has(csr, "Approved") || has(csr, "Denied") {
        return Ok(None);
    }
    for recognized in recognize(csr) {
        if may(client, csr, recognized.subresource).await? {
            let conditions = with_condition(csr, "Approved", "AutoApproved", recognized.message, Timestamp::now());
            let written = update(client, csr, "approval", json!({"conditions": conditions})).await;
            return Ok(gone_is_fine(written)?);
        }
    }
    // Somebody else may approve it.
    Ok(None)
}

/// Whether the requester may have such a request approved.
async fn may(client: &Client, csr: &CertificateSigningRequest, subresource: &str) -> Result<bool, Error> {
    let spec = &csr.spec;
    let review: Value = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": spec.username, "uid": spec.uid, "groups": spec.groups, "extra": spec.extra,
            "resourceAttributes": {"group": "certificates.k8s.io", "resource": "certificatesigningrequests",
                "verb": "create", "subresource": subresource, "version": "*"},
        },
    });
    let review: SubjectAccessReview =
        serde_json::from_value(review).map_err(|source| Error::Encode { what: "a SubjectAccessReview", source })?;
    let answer = Api::<SubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
