//! A bare API server for trials and measurements: one token that may do everything, nothing else of a cluster.
//!
//! `serve DIRECTORY [PORT]` keeps its store and its certificate in DIRECTORY and writes DIRECTORY/kubeconfig.

use apiserver::authn::{Authenticator, AuthnError, Peer};
use apiserver::authz::{Attributes, Authorizer, Decision, Rules};
use apiserver::limit::MaxInFlight;
use apiserver::registry::Registry;
use apiserver::server::{ApiServer, Config, Security};
use apiserver::tls::{Identity, ServerTls, TlsSettings};
use apiserver::user::UserInfo;
use async_trait::async_trait;
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "trial";

struct OneToken;

#[async_trait]
impl Authenticator for OneToken {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
        _: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError> {
        let said = request.headers.get("authorization").and_then(|value| value.to_str().ok());
        Ok((said == Some("Bearer trial")).then(|| UserInfo::new("trial", ["system:masters", "system:authenticated"])))
    }
}

struct Everything;

#[async_trait]
impl Authorizer for Everything {
    async fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }
    async fn rules_for(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let began = std::time::Instant::now();
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: serve DIRECTORY [PORT]")?);
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    std::fs::create_dir_all(&directory)?;
    let store = store::Embedded::open(directory.join("store"), store::embedded::Options::default())?;
    let registry = Registry::open(store).await?;
    let security = Security {
        authenticator: Arc::new(OneToken),
        authorizer: Arc::new(Everything),
        audit: None,
        limit: MaxInFlight::default().into(),
    };
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    let certificate = key.cert.pem();
    let identity =
        Identity { certificate: certificate.clone().into_bytes(), key: key.signing_key.serialize_pem().into_bytes() };
    let authorities = certificate.clone().into_bytes();
    let tls = ServerTls::new(&TlsSettings {
        default: identity,
        by_name: Vec::new(),
        client_authorities: authorities,
        tls13_only: false,
        suites: None,
    })?;
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    let config = Config { advertised: address.to_string(), ..Config::default() };
    let server = ApiServer::new(config, registry, security, Vec::new());
    std::fs::write(directory.join("ca.pem"), &certificate)?;
    let ca = directory.join("ca.pem").canonicalize()?;
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: trial\nclusters:\n- name: trial\n  cluster: {{server: \"https://{address}\", certificate-authority: {}}}\nusers:\n- name: trial\n  user: {{token: {TOKEN}}}\ncontexts:\n- name: trial\n  context: {{cluster: trial, user: trial}}\n",
        ca.display()
    );
    std::fs::write(directory.join("kubeconfig"), kubeconfig)?;
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    tracing::info!(%address, ready = ?began.elapsed(), "serving");
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    server.serve(listener, tls, shutdown).await;
    Ok(())
}
