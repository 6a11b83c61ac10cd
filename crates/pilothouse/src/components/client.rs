//! The way to the API server that a kubeconfig names: TLS, one HTTP/2 connection for all watches, host names without libc.

use super::ClientArgs;
use anyhow::{Context, Result, bail};
use api::measure::{Family, Labels, Tells, escaped, head, series};
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::fmt;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tower::util::MapErrLayer;
use tower::{BoxError, Layer, Service};

const CONNECT: Duration = Duration::from_secs(10);
/// A connection whose other end is gone without a word is noticed after these.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15));

/// Requests to API servers, by what came of them.
#[derive(Debug, Default)]
pub struct Requests(Family<Asked, AtomicU64>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Asked {
    /// `<error>`: no answer.
    code: String,
    host: String,
    method: String,
}

impl Labels for Asked {
    fn write(&self, out: &mut String) -> fmt::Result {
        let Asked { code, host, method } = self;
        fmt::Write::write_fmt(out, format_args!("code=\"{code}\",host=\"{}\",method=\"{method}\"", escaped(host)))
    }
}

impl Tells for Requests {
    fn render(&self, out: &mut String) -> fmt::Result {
        let name = "rest_client_requests_total";
        let help = "[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.";
        head(out, name, "counter", help)?;
        for (asked, count) in self.0.sorted() {
            let mut labels = String::new();
            asked.write(&mut labels)?;
            series(out, name, &labels, count.load(Ordering::Relaxed))?;
        }
        Ok(())
    }
}

/// Those of this process: a component's clients are many, and what they ask is told together.
pub fn requests() -> &'static Requests {
    static OWN: LazyLock<Requests> = LazyLock::new(Requests::default);
    &OWN
}

/// A service that sends requests, counted.
#[derive(Clone)]
struct Counted<S> {
    inner: S,
    requests: &'static Requests,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let (method, requests) = (request.method().to_string(), self.requests);
        let answer = self.inner.call(request);
        async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or("<error>".to_owned(), |answer| answer.status().as_u16().to_string());
            requests.0.with(&Asked { code, host, method }, AtomicU64::default, |count| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            answer
        }
        .boxed()
    }
}

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
    let counted = Counted { inner: connections, requests: requests() };
    let service = config.extra_headers_layer().context("the kubeconfig's impersonation")?.layer(counted);
    let service = MapErrLayer::new(BoxError::from).layer(service);
    let auth = config.auth_layer().context("the kubeconfig's credentials cannot be used")?;
    let service = tower::util::option_layer(auth).layer(service);
    let service = config.base_uri_layer().layer(service);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_is_counted_by_what_came_of_it() {
        let requests: &'static Requests = Box::leak(Box::default());
        let inner = tower::service_fn(|request: Request<()>| async move {
            match request.uri().path() {
                "/fails" => Err("refused"),
                _ => Ok(Response::builder().status(404).body(()).expect("an answer")),
            }
        });
        let mut counted = Counted { inner, requests };
        for path in ["/a", "/b", "/fails"] {
            let uri = format!("https://192.0.2.1:6443{path}");
            drop(counted.call(Request::get(uri).body(()).expect("a request")).await);
        }
        let mut text = String::new();
        requests.render(&mut text).expect("a String takes every write");
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                "rest_client_requests_total{code=\"404\",host=\"192.0.2.1:6443\",method=\"GET\"} 2",
                "rest_client_requests_total{code=\"<error>\",host=\"192.0.2.1:6443\",method=\"GET\"} 1",
            ]
        );
    }
}
