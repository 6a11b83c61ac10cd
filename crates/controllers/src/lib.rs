//! The controllers, one file or folder each, listed in one table ([`CONTROLLERS`]).
//!
//! Each is given keys by a [`queue::Queue`] and reconciles what the informers know towards what the objects ask:
//! it decides purely (a `plan`), then acts. Nothing here is told of events, only of keys, so that a restart or a
//! missed event changes nothing.

pub mod bootstrap_token;
pub mod certificates;
pub mod cluster_role_aggregation;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod events;
pub mod garbage_collector;
mod history;
pub mod informer;
pub mod job;
mod legacy_token_cleaner;
pub mod namespace;
pub mod node_ipam;
pub mod node_lifecycle;
pub mod objects;
mod pod_control;
mod pod_group_protection;
pub mod pods;
pub mod queue;
pub mod replica_set;
pub mod resource_quota;
pub mod service_account;
pub mod service_account_token;
mod service_cidr;
pub mod stateful_set;
pub mod ttl_after_finished;
pub mod volume_protection;
mod write;

use futures::future::{BoxFuture, FutureExt, select_all};
use informer::Informers;
use std::sync::Arc;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// Gives clients by identity, so that each controller acts with its own rights and no more.
pub trait Clients: Send + Sync {
    /// The client of the controller manager itself: what the informers use.
    fn manager(&self) -> kube::Client;
    /// The client of a service account of `kube-system`, such as `deployment-controller`.
    fn service_account(&self, name: &str) -> kube::Client;
}

/// What the controllers are told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which controllers run, as upstream's `--controllers` says it: [`is_enabled`].
    pub controllers: Vec<String>,
    /// The cluster's CA, published in every namespace.
    pub root_ca: String,
    /// The network that nodes' pod networks are cut from, and the prefix of each.
    pub cluster_cidr: Option<(std::net::Ipv4Addr, u8, u8)>,
    /// How long a node may not renew before it is held unreachable (upstream: 50 s).
    pub node_monitor_grace: std::time::Duration,
    /// Signs certificates; without it approved requests wait for somebody else.
    pub authority: Option<Arc<dyn certificates::CertificateAuthority>>,
    /// How long signed certificates live at most (upstream: a year).
    pub signing_duration: std::time::Duration,
    /// Makes the tokens that Secrets hold; without it they stay empty.
    pub tokens: Option<Arc<dyn service_account_token::TokenIssuer>>,
    /// How long a token that was made by itself may be unused (upstream: a year).
    pub legacy_token_clean_up: std::time::Duration,
    /// Which features are on.
    pub gates: api::features::Gates,
    /// Where the work queues are measured.
    pub queues: queue::Queues,
}

/// What went wrong in a reconcile; it is tried again with back-off.
#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("cannot write {what}: {source}")]
    Encode { what: &'static str, source: serde_json::Error },
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// What is told of it in conditions and events: an API refusal is its message alone.
    pub fn told(&self) -> String {
        match self {
            Error::Api(error) => pod_control::message(error),
            other => other.to_string(),
        }
    }
}

/// The code of an API refusal, or 0.
pub fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// Takes "it is not there (any more)" for success: what was to be removed is gone.
pub fn gone_is_fine<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if code(&e) == 404 => Ok(None),
        Err(e) => Err(e),
    }
}

/// What a controller is given to build itself from.
pub struct Context {
    pub clients: Arc<dyn Clients>,
    pub informers: Informers,
    pub config: Arc<Config>,
    pub shutdown: CancellationToken,
}

/// A controller that has subscribed to its informers and is ready to run.
pub type Running = BoxFuture<'static, Result<(), Error>>;

/// Name → how it is built. The name is upstream's.
pub const CONTROLLERS: &[(&str, fn(&Context) -> Running)] = &[
    ("deployment-controller", deployment::controller),
    ("replicaset-controller", replica_set::controller::<objects::ReplicaSet>),
    ("replicationcontroller-controller", replica_set::controller::<objects::ReplicationController>),
    ("statefulset-controller", stateful_set::controller),
    ("daemonset-controller", daemon_set::controller),
    ("job-controller", job::controller),
    ("cronjob-controller", cron_job::controller),
    ("namespace-controller", namespace::controller),
    ("serviceaccount-controller", service_account::default_accounts),
    ("root-ca-certificate-publisher-controller", service_account::root_ca_publisher),
    ("endpointslice-controller", endpoints::slices::controller),
    ("endpoints-controller", endpoints::legacy::controller),
    ("garbage-collector-controller", garbage_collector::controller),
    ("node-lifecycle-controller", node_lifecycle::controller),
    ("node-ipam-controller", node_ipam::controller),
    ("clusterrole-aggregation-controller", cluster_role_aggregation::controller),
    ("resourcequota-controller", resource_quota::controller),
    ("disruption-controller", disruption::controller),
    ("certificatesigningrequest-approving-controller", certificates::approver),
    ("certificatesigningrequest-signing-controller", certificates::signer),
    ("certificatesigningrequest-cleaner-controller", certificates::cleaner),
    ("podcertificaterequest-cleaner-controller", certificates::pod_cleaner),
    ("serviceaccount-token-controller", service_account_token::controller),
    ("legacy-serviceaccount-token-cleaner-controller", legacy_token_cleaner::controller),
    ("bootstrap-signer-controller", bootstrap_token::signer),
    ("token-cleaner-controller", bootstrap_token::cleaner),
    ("persistentvolumeclaim-protection-controller", volume_protection::claims_controller),
    ("persistentvolume-protection-controller", volume_protection::volumes_controller),
    ("podgroup-protection-controller", pod_group_protection::controller),
    ("service-cidr-controller", service_cidr::controller),
    ("ttl-after-finished-controller", ttl_after_finished::controller),
];

/// Whether a list such as `*,-node-ipam-controller` wants a controller: by its name or not, else when everything is.
pub fn is_enabled(list: &[String], name: &str) -> bool {
    for entry in list {
        if entry == name {
            return true;
        }
        if entry.strip_prefix('-') == Some(name) {
            return false;
        }
    }
    list.iter().any(|entry| entry == "*")
}

/// Runs every controller that is wanted until shutdown. Nobody else may act meanwhile: an election is the caller's.
///
/// # Errors
/// The first failure of a controller or an informer.
pub async fn run(config: Config, clients: Arc<dyn Clients>, shutdown: CancellationToken) -> Result<(), Error> {
    let config = Arc::new(config);
    let context = Context { informers: Informers::new(clients.manager()), clients, config, shutdown: shutdown.clone() };
    let mut running: Vec<Running> = Vec::with_capacity(CONTROLLERS.len() + 1);
    let wanted = context.config.clone();
    for (name, build) in CONTROLLERS.iter().filter(|(name, _)| is_enabled(&wanted.controllers, name)) {
        let controller = build(&context);
        running.push(async move { controller.await.map_err(|e| Error::Other(format!("{name} failed: {e}"))) }.boxed());
    }
    running.push(context.informers.run(shutdown.clone()).boxed());
    let (first, _, _) = select_all(running).await;
    if shutdown.is_cancelled() { Ok(()) } else { first }
}

#[cfg(test)]
mod tests {
    #[test]
    fn controllers_are_chosen_as_upstream_chooses() {
        let enabled =
            |list: &[&str], name| super::is_enabled(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), name);
        assert!(enabled(&["*"], "a"));
        assert!(!enabled(&["*", "-a"], "a"));
        assert!(enabled(&["*", "-a"], "b"));
        assert!(enabled(&["a"], "a") && !enabled(&["a"], "b"));
        assert!(!enabled(&["-a"], "b"), "nothing but what is named");
    }
}
