//! A server with its controllers.

use crate::cluster::{Client, Cluster, Options, eventually, start_with};
use apiserver::surface::Surface;
use apiserver::user::UserInfo;
use controllers::certificates::CertificateAuthority;
use controllers::service_account_token::TokenIssuer;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use serde_json::Value;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

pub const ROOT_CA: &str = "the cluster's CA";

/// A server whose controllers run as long as this is held.
pub struct Running {
    pub cluster: Cluster,
    _controllers: DropGuard,
}

struct Identities(Arc<apiserver::server::ApiServer>);

impl Identities {
    fn client(&self, user: UserInfo) -> kube::Client {
        kube::Client::new(self.0.local_service(user), "default")
    }
}

impl controllers::Clients for Identities {
    fn manager(&self) -> kube::Client {
        self.client(UserInfo::new("system:kube-controller-manager", Vec::<String>::new()))
    }
    fn service_account(&self, name: &str) -> kube::Client {
        let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
        self.client(UserInfo::new(format!("system:serviceaccount:kube-system:{name}"), groups))
    }
}

/// A CA of the test's own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

impl CertificateAuthority for Authority {
    fn sign(&self, request: &[u8], usages: &[String], _: Duration) -> Result<String, String> {
        let text = std::str::from_utf8(request).map_err(|e| e.to_string())?;
        let mut csr = CertificateSigningRequestParams::from_pem(text).map_err(|e| e.to_string())?;
        assert!(usages.iter().any(|u| u == "client auth"));
        csr.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(csr.signed_by(&self.0).map_err(|e| e.to_string())?.pem())
    }
}

struct Tokens(Arc<apiserver::tokens::Tokens>);

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

impl TokenIssuer for Tokens {
    fn issue(&self, namespace: &str, account: &str, uid: &str, secret: &str) -> Result<String, String> {
        self.0.issue_legacy(namespace, account, uid, secret).map_err(|e| e.to_string())
    }
}

pub async fn running() -> Running {
    running_as("", "").await
}

/// With feature gates, and with versions that are served under them.
pub async fn running_as(gates: &str, versions: &str) -> Running {
    let asked: api::features::Asked = gates.parse().expect("gates");
    let (gates, runtime) = (asked.gates().expect("gates").0, versions.parse().expect("versions"));
    let surface = Surface { gates: gates.clone(), runtime, ..Surface::default() };
    let cluster = start_with(Options { surface, ..Options::default() }).await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA of the test's own");
    let config = controllers::Config {
        controllers: vec!["*".into()],
        root_ca: ROOT_CA.into(),
        cluster_cidr: None,
        node_monitor_grace: Duration::from_secs(50),
        legacy_token_clean_up: Duration::from_secs(8760 * 60 * 60),
        authority: Some(Arc::new(Authority(authority))),
        signing_duration: Duration::from_hours(1),
        tokens: Some(Arc::new(Tokens(cluster.secured.tokens.clone()))),
        gates,
        queues: controllers::queue::Queues::default(),
    };
    let shutdown = CancellationToken::new();
    let run = controllers::run(config, Arc::new(Identities(cluster.server.clone())), shutdown.clone());
    tokio::spawn(async move { run.await.expect("controllers that go on") });
    let running = Running { cluster, _controllers: shutdown.drop_guard() };
    // The account without which no pod is made.
    until(&running.admin(), "/api/v1/namespaces/default/serviceaccounts/default", |_| true).await;
    running
}

impl Running {
    pub fn admin(&self) -> Client {
        self.cluster.admin()
    }
}

/// Waits until an object is there of which something holds, and gives it.
pub async fn until(client: &Client, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    eventually(async || Some(client.get(path).await).filter(|a| a.code == 200 && holds(&a.body)).map(|a| a.body)).await
}

/// Waits until an object is gone.
pub async fn until_gone(client: &Client, path: &str) {
    eventually(async || (client.get(path).await.code == 404).then_some(())).await;
}

/// The items of a list, once so many are there.
pub async fn items(client: &Client, path: &str, count: usize) -> Vec<Value> {
    let list = until(client, path, |list| list["items"].as_array().is_some_and(|items| items.len() == count)).await;
    list["items"].as_array().cloned().unwrap_or_default()
}

/// Makes a pod ready, as a kubelet would say.
pub async fn make_ready(client: &Client, pod: &Value) {
    let (namespace, name) = (pod["metadata"]["namespace"].as_str(), pod["metadata"]["name"].as_str());
    let path = format!("/api/v1/namespaces/{}/pods/{}/status", namespace.unwrap_or(""), name.unwrap_or(""));
    let status = serde_json::json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    client.patch(&path, status).await.expect(200);
}
