//! The Lease by which the node shows that it is alive.

use std::time::Duration;

use client::backoff::Backoff;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};
use tokio_util::sync::CancellationToken;

const NAMESPACE: &str = "kube-node-lease";
const DURATION: i32 = 40;
const PERIOD: Duration = Duration::from_secs(10);

/// Renews the Lease of a node until `stop`. A failed renewal is tried again soon, for five missed
/// ones would have the node declared dead.
pub(crate) async fn run(client: Client, node: String, uid: String, stop: CancellationToken) {
    let api: Api<Lease> = Api::namespaced(client, NAMESPACE);
    let mut held: Option<Lease> = None;
    let mut backoff = Backoff::default();
    loop {
        let wait = match renew(&api, &node, &uid, held.take(), Timestamp::now()).await {
            Ok(lease) => {
                held = Some(lease);
                backoff = Backoff::default();
                PERIOD
            }
            Err(error) => {
                tracing::debug!(%error, "the node's lease could not be renewed; trying again");
                backoff.pause().min(Duration::from_secs(7))
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn renew(api: &Api<Lease>, node: &str, uid: &str, held: Option<Lease>, now: Timestamp) -> kube::Result<Lease> {
    let found = match held {
        Some(held) => Some(held),
        None => api.get_opt(node).await?,
    };
    let is_new = found.is_none();
    let mut lease = found.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        ..Lease::default()
    });
    lease.metadata.managed_fields = None;
    // The Lease goes when the Node goes.
    lease.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: uid.to_owned(),
        ..OwnerReference::default()
    }]);
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(node.to_owned()),
        lease_duration_seconds: Some(DURATION),
        renew_time: Some(MicroTime(now)),
        ..lease.spec.unwrap_or_default()
    });
    if is_new {
        api.create(&PostParams::default(), &lease).await
    } else {
        api.replace(node, &PostParams::default(), &lease).await
    }
}
