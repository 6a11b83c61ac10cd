//! The way to the API server that a kubeconfig names: TLS, one HTTP/2 connection for all watches, host names without libc.

use super::ClientArgs;
use anyhow::{Context, Result, bail};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::path::Path;
use std::time::Duration;
use tower::util::MapErrLayer;
use tower::{BoxError, Layer};

const CONNECT: Duration = Duration::from_secs(10);
/// A connection whose other end is gone without a word is noticed after these.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// Connections to one API server, shared by every client made of it.
pub type Connections = Http<hyper_rustls::HttpsConnector<HttpConnector<runtime::registry::Dns>>, Body>;

/// What a component is told of the API server.
///
/// # Errors
/// No kubeconfig, or one that cannot be used; the flag is named.
pub async fn config(args: &ClientArgs, flag: &str) -> Result<Config> {
    let mut config = match &args.kubeconfig {
        Some(file) => from_file(file).await.with_context(|| format!("--{flag} {}", file.display()))?,
        None if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
            Config::incluster().context("the pod's service account cannot be used")?
        }
        None if args.master.is_some() => Config::new(http::Uri::default()),
        None => {
            bail!("--{flag} is missing: give the kubeconfig that names the API server and this component's credentials")
        }
    };
    if let Some(master) = &args.master {
        config.cluster_url = master.parse().with_context(|| format!("--master {master} is not a URL"))?;
    }
    Ok(config)
}

/// The configuration of a kubeconfig's current context.
pub async fn from_file(file: &Path) -> Result<Config> {
    let kubeconfig = Kubeconfig::read_from(file)?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?)
}

/// The connections of a configuration; without its credentials, but for a client certificate.
pub fn connections(config: &Config) -> Result<Connections> {
    let tls = config.rustls_client_config().context("the kubeconfig's certificates cannot be used")?;
    let mut connector = HttpConnector::new_with_resolver(runtime::registry::Dns::default());
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    let builder = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
    let builder = match &config.tls_server_name {
        Some(name) => {
            let name = name.clone().try_into().with_context(|| format!("tls-server-name {name:?}"))?;
            builder.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name))
        }
        None => builder,
    };
    let connector = builder.enable_all_versions().wrap_connector(connector);
    let mut http = Http::builder(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .http2_keep_alive_timeout(KEEP_ALIVE.1)
        .http2_keep_alive_while_idle(true);
    Ok(http.build(connector))
}

/// A client with the configuration's credentials, noted under `agent` in what it writes.
pub fn client(config: &Config, agent: &'static str) -> Result<Client> {
    client_over(connections(config)?, config, agent)
}

/// A client with the configuration's credentials over connections that are there.
pub fn client_over(connections: Connections, config: &Config, agent: &'static str) -> Result<Client> {
    let mut config = config.clone();
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
    let service = config.extra_headers_layer().context("the kubeconfig's impersonation")?.layer(connections);
    let service = MapErrLayer::new(BoxError::from).layer(service);
    let auth = config.auth_layer().context("the kubeconfig's credentials cannot be used")?;
    let service = tower::util::option_layer(auth).layer(service);
    let service = config.base_uri_layer().layer(service);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}
