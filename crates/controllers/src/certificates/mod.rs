//! Certificate requests: those of nodes for themselves are approved, approved ones are signed, old ones go.

mod approve;
mod clean;
mod request;
mod sign;

use crate::informer::Informer;
use crate::queue::{Key, Queue};
use crate::{Context, Error, Running, write};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Client;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::Duration;

pub use clean::{cleaner, pod_cleaner};

pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// Signs certificates in the name of the cluster. Who puts the components together has the key.
pub trait CertificateAuthority: Debug + Send + Sync {
    /// The certificate, as PEM, for a request in PEM, with key usages by their names in the API.
    ///
    /// # Errors
    /// Why the request cannot be signed.
    fn sign(&self, request: &[u8], usages: &[String], valid: Duration) -> Result<String, String>;
}

/// What is known of a signing request.
fn conditions(csr: &CertificateSigningRequest) -> impl Iterator<Item = &str> {
    csr.status.iter().flat_map(|s| s.conditions.iter().flatten()).map(|c| c.type_.as_str())
}

fn has(csr: &CertificateSigningRequest, condition: &str) -> bool {
    conditions(csr).any(|c| c == condition)
}

fn is_issued(csr: &CertificateSigningRequest) -> bool {
    csr.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty())
}

/// The conditions with one more.
fn with_condition(csr: &CertificateSigningRequest, type_: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    let known = csr.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut all: Vec<Value> = known.map(|c| json!(c)).collect();
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now);
    all.push(json!({"type": type_, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": now, "lastTransitionTime": now}));
    Value::Array(all)
}

/// Writes a part of the status through a subresource, of the version that was decided on.
async fn update(
    client: &Client,
    csr: &CertificateSigningRequest,
    subresource: &str,
    status: Value,
) -> Result<CertificateSigningRequest, kube::Error> {
    let merge = json!({"metadata": {"uid": csr.metadata.uid, "resourceVersion": csr.metadata.resource_version}, "status": status});
    write::update(client, "", csr.metadata.name.as_deref().unwrap_or(""), Some(subresource), merge).await
}

/// A controller of signing requests: `act` is given each one that changed.
fn each<F, R>(context: &Context, name: &'static str, act: F) -> Running
where
    F: Fn(Client, std::sync::Arc<CertificateSigningRequest>) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Option<CertificateSigningRequest>, Error>> + Send + 'static,
{
    let client = context.clients.service_account("certificate-controller");
    let requests: Informer<CertificateSigningRequest> = context.informers.of();
    let queue = Queue::<Key>::named(&context.config.queues, "certificate");
    requests.feed(&queue);
    let shutdown = context.shutdown.clone();
    async move {
        requests.synced().await;
        let reconcile = |key: Key| {
            let work = requests.by_key(&key).map(|csr| act(client.clone(), csr));
            let requests = requests.clone();
            async move {
                if let Some(written) = async {
                    Ok::<_, Error>(match work {
                        Some(work) => work.await?,
                        None => None,
                    })
                }
                .await?
                {
                    requests.assume(written);
                }
                Ok(None)
            }
        };
        queue.run(name, 2, shutdown, reconcile).await;
        Ok(())
    }
    .boxed()
}

pub fn approver(context: &Context) -> Running {
    each(context, "csrapproving", |client, csr| async move { approve::approve(&client, &csr).await })
}

pub fn signer(context: &Context) -> Running {
    let config = context.config.clone();
    each(context, "csrsigning", move |client, csr| {
        let config = config.clone();
        async move {
            match &config.authority {
                Some(authority) => sign::sign(&client, &csr, authority.as_ref(), config.signing_duration).await,
                None => Ok(None),
            }
        }
    })
}
