//! Approves the serving certificates that joined nodes ask for: each for itself, under the names and addresses that its Node
//! tells. Upstream leaves this to others; without it, logs and exec of a joined node would wait for a person.

use super::control_plane::ControlPlane;
use super::identity;
use crate::supervisor::Component;
use anyhow::Result;
use client::watch;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest as Request, CertificateSigningRequestCondition as Condition,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt;
use kube::{Api, Client};
use rcgen::{CertificateSigningRequestParams, DnType, DnValue, SanType};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const SIGNER: &str = "kubernetes.io/kubelet-serving";
/// As whom: the role `pilothouse:serving-approver` is this account's.
const ACCOUNT: &str = "certificate-controller";
/// When a request whose Node does not tell its names yet is looked at again.
const AGAIN: Duration = Duration::from_millis(500);

/// The approver, as a component.
pub fn approver(plane: &Arc<ControlPlane>) -> Component {
    let plane = plane.clone();
    Arc::new(move |shutdown| {
        let client = plane.client(identity::service_account(ACCOUNT), "pilothouse");
        async move {
            tokio::select! {
                outcome = run(client) => outcome,
                () = shutdown.cancelled() => Ok(()),
            }
        }
        .boxed()
    })
}

async fn run(client: Client) -> Result<()> {
    let requests: Api<Request> = Api::all(client.clone());
    let mine = watch::Config::default().any_semantic().fields(&format!("spec.signerName={SIGNER}"));
    let mut events = watch::all::<Request>(client.clone(), mine).applied_objects();
    let mut waiting: BTreeSet<String> = BTreeSet::new();
    loop {
        let names: Vec<String> = tokio::select! {
            event = events.next() => match event {
                Some(Ok(request)) => request.metadata.name.into_iter().collect(),
                Some(Err(e)) => {
                    tracing::warn!("the watch of signing requests failed and is tried again: {e}");
                    continue;
                }
                None => anyhow::bail!("the watch of signing requests ended"),
            },
            () = tokio::time::sleep(AGAIN), if !waiting.is_empty() => waiting.iter().cloned().collect(),
        };
        for name in names {
            match look(&client, &requests, &name).await {
                Ok(true) => waiting.insert(name),
                Ok(false) => waiting.remove(&name),
                Err(e) => {
                    tracing::debug!(name, "a serving certificate cannot be approved yet: {e}");
                    waiting.insert(name)
                }
            };
        }
    }
}

/// Decides on a request as it is now; whether it has to wait for its Node.
async fn look(client: &Client, requests: &Api<Request>, name: &str) -> Result<bool, kube::Error> {
    let Some(mut request) = requests.get_opt(name).await? else { return Ok(false) };
    let Some((node, names)) = wanted(&request) else { return Ok(false) };
    let Some(node) = Api::<Node>::all(client.clone()).get_opt(&node).await? else { return Ok(true) };
    if !tells(&node, &names) {
        return Ok(true);
    }
    let now = Time(jiff::Timestamp::now());
    request.status.get_or_insert_default().conditions.get_or_insert_default().push(Condition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("AutoApproved".to_owned()),
        message: Some("It is the node's own, and names what its Node tells.".to_owned()),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    });
    requests.replace_subresource("approval", name, &PostParams::default(), &request).await?;
    Ok(false)
}

/// The node and the names that an undecided request of a node for itself is for; `None` leaves it to others.
fn wanted(request: &Request) -> Option<(String, Vec<SanType>)> {
    let spec = &request.spec;
    let status = request.status.as_ref();
    let decided =
        status.is_some_and(|s| s.certificate.is_some() || s.conditions.as_ref().is_some_and(|c| !c.is_empty()));
    let usages = spec.usages.as_deref().unwrap_or_default();
    let allowed = ["digital signature", "key encipherment", "server auth"];
    if decided || spec.signer_name != SIGNER || !usages.iter().all(|u| allowed.contains(&u.as_str())) {
        return None;
    }
    let pem = std::str::from_utf8(&spec.request.0).ok()?;
    let params = CertificateSigningRequestParams::from_pem(pem).ok()?.params;
    let text = |kind: DnType| match params.distinguished_name.get(&kind) {
        Some(DnValue::Utf8String(text)) => text.clone(),
        Some(DnValue::PrintableString(text)) => text.as_str().to_owned(),
        _ => String::new(),
    };
    let user = text(DnType::CommonName);
    if spec.username.as_deref() != Some(&user) || text(DnType::OrganizationName) != "system:nodes" {
        return None;
    }
    let node = user.strip_prefix("system:node:").filter(|name| !name.is_empty())?.to_owned();
    (!params.subject_alt_names.is_empty()).then_some((node, params.subject_alt_names))
}

/// Whether a Node has every name and address.
fn tells(node: &Node, names: &[SanType]) -> bool {
    let addresses = node.status.as_ref().and_then(|s| s.addresses.clone()).unwrap_or_default();
    let own = node.metadata.name.as_deref().unwrap_or_default();
    let known = |name: &str| name == own || addresses.iter().any(|a| a.address == name);
    names.iter().all(|name| match name {
        SanType::DnsName(name) => known(name.as_str()),
        SanType::IpAddress(ip) => known(&ip.to_string()),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
    use rcgen::{CertificateParams, DistinguishedName, KeyPair};

    fn request(by: &str, name: &str, organization: &str, names: &[&str], usage: &str) -> Request {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).and_then(|r| r.pem()).expect("a request");
        Request {
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: SIGNER.to_owned(),
                usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
                username: Some(by.to_owned()),
                ..CertificateSigningRequestSpec::default()
            },
            ..Request::default()
        }
    }

    #[test]
    fn only_a_node_is_approved_and_only_for_itself() {
        let a = "system:node:a";
        let of = |request: Request| wanted(&request).map(|(node, _)| node);
        assert_eq!(of(request(a, a, "system:nodes", &["a"], "server auth")).as_deref(), Some("a"));
        for other in [
            request("system:node:b", a, "system:nodes", &["a"], "server auth"),
            request("admin", "admin", "system:nodes", &["a"], "server auth"),
            request(a, a, "system:masters", &["a"], "server auth"),
            request(a, a, "system:nodes", &["a"], "client auth"),
            request(a, a, "system:nodes", &[], "server auth"),
        ] {
            assert_eq!(of(other), None);
        }
    }

    #[test]
    fn a_node_serves_under_its_own_names_only() {
        let node: Node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a"},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]},
        }))
        .expect("a node");
        let ip = |text: &str| SanType::IpAddress(text.parse().expect("an address"));
        let name = |text: &str| SanType::DnsName(text.try_into().expect("a name"));
        assert!(tells(&node, &[name("a"), ip("192.0.2.1")]));
        assert!(!tells(&node, &[name("kubernetes.default.svc")]));
        assert!(!tells(&node, &[ip("192.0.2.2")]));
    }
}
