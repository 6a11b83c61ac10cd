//! The port of a component: health for everybody, metrics for those whom the API server lets, as upstream's components serve.

use super::ClientArgs;
use super::delegated::{Delegated, Verdict};
use super::{ciphers, client};
use anyhow::{Context, Result, bail};
use api::features::Gates;
use api::measure::Tells;
use apiserver::authn::{Chain, Peer};
use apiserver::server::metrics::process;
use apiserver::tls::{Identity, ServerTls, TlsSettings, read_file};
use bytes::Bytes;
use clap::{ArgAction, Args};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What `--tls-min-version` takes. Older versions than 1.2 are taken and not spoken.
pub const TLS_VERSIONS: [&str; 4] = ["VersionTLS10", "VersionTLS11", "VersionTLS12", TLS13];
pub const TLS13: &str = "VersionTLS13";
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);
const REFUSED: Duration = Duration::from_millis(50);

/// Where a component serves, and whom.
#[derive(Clone, Debug, Args)]
pub struct ServingArgs {
    /// Port for health and metrics, TLS; 0: none is served [default: upstream's]
    #[arg(long, value_name = "PORT")]
    pub secure_port: Option<u16>,
    /// Address to serve on
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "IP")]
    pub bind_address: IpAddr,
    /// Certificate to serve with [default: one made at start, signed by itself]
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Directory of the certificate when no file is given: NAME.crt and NAME.key, made when missing
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// The least TLS version
    #[arg(long, value_name = "VERSION", value_parser = TLS_VERSIONS)]
    pub tls_min_version: Option<String>,
    /// The cipher suites of TLS 1.2, by Go's names [default: all that are spoken]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub tls_cipher_suites: Vec<String>,
    /// Authorities of client certificates [default: those that the API server publishes]
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Kubeconfig for asking who a token's holder is [default: --kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub authentication_kubeconfig: Option<PathBuf>,
    /// Kubeconfig for asking what a user may do [default: --kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Paths that are served to everybody
    #[arg(long, value_delimiter = ',', default_value = "/healthz,/readyz,/livez", value_name = "PATHS")]
    pub authorization_always_allow_paths: Vec<String>,
    #[command(flatten)]
    pub front_proxy: FrontProxyArgs,
}

/// What a front proxy is known by; published by the API server and not read from here by others.
#[derive(Clone, Debug, Args)]
pub struct FrontProxyArgs {
    /// Authorities of the front proxy's client certificate
    #[arg(long, value_name = "FILE")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names that the front proxy's certificate may have; none: any
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers of the user's name
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user", value_name = "HEADERS")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers of the user's uid
    #[arg(long, value_delimiter = ',', value_name = "HEADERS")]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers of the user's groups
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group", value_name = "HEADERS")]
    pub requestheader_group_headers: Vec<String>,
    /// Prefixes of headers of what else is known of the user
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-", value_name = "PREFIXES")]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Accepted and without meaning: the ConfigMap that tells them is always looked up
    #[arg(long, hide = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub requestheader_lookup: Option<bool>,
}

/// What a component tells of itself.
#[derive(Clone)]
pub struct About {
    /// `kube-scheduler` and so on.
    pub name: &'static str,
    /// Whether it has begun its work; `None`: as soon as it serves.
    pub ready: Option<watch::Receiver<bool>>,
    /// Its election's Lease and whether it is held.
    pub leading: Option<(String, watch::Receiver<bool>)>,
    /// Which features are on.
    pub gates: Gates,
    /// What else is measured.
    pub tells: Vec<Arc<dyn Tells>>,
}

impl About {
    fn health(&self, path: &str) -> (StatusCode, String) {
        let ready = self.ready.as_ref().is_none_or(|ready| *ready.borrow());
        if path.starts_with("/readyz") && !ready {
            return (
                StatusCode::INTERNAL_SERVER_ERROR,
                "[+]ping ok\n[-]informer-sync failed: reason withheld\nreadyz check failed\n".to_owned(),
            );
        }
        (StatusCode::OK, "ok".to_owned())
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        // A String takes every write.
        let mut gauge = |name: &str, help: &str, labels: &str, value: f64, kind: &str| {
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{labels} {value}").unwrap_or(());
        };
        let build = format!("{{git_version=\"{}\",major=\"1\",minor=\"36\"}}", crate::KUBERNETES_VERSION);
        gauge("kubernetes_build_info", "The version that is built in.", &build, 1.0, "gauge");
        if let Some((name, leading)) = &self.leading {
            let leads = f64::from(u8::from(*leading.borrow()));
            let labels = format!("{{name=\"{name}\"}}");
            gauge("leader_election_master_status", "Whether the lease is held: 1 yes, 0 no.", &labels, leads, "gauge");
        }
        for other in &self.tells {
            other.render(&mut text).unwrap_or(());
        }
        client::requests().render(&mut text).unwrap_or(());
        process(&mut text).unwrap_or(());
        text.push_str(&self.gates.metric());
        text
    }
}

/// What answers on a port.
struct Server {
    about: About,
    /// Who may ask for what is not open to everybody; `None`: the port is plain and for this machine.
    delegated: Option<Delegated>,
    open: Vec<String>,
    with_metrics: bool,
}

/// Begins to serve a component's secure port; gives where, or `None` when its port is 0.
///
/// # Errors
/// A file that cannot be used, or a port that is taken; the flag is named.
pub async fn secure(
    args: &ServingArgs,
    usual_port: u16,
    clients: &ClientArgs,
    about: About,
    shutdown: CancellationToken,
) -> Result<Option<SocketAddr>> {
    let port = args.secure_port.unwrap_or(usual_port);
    if port == 0 {
        return Ok(None);
    }
    if args.front_proxy.requestheader_client_ca_file.is_some() {
        bail!(
            "--requestheader-client-ca-file is not supported yet here: the one that the API server publishes is used"
        );
    }
    let asking = |file: &Option<PathBuf>, flag: &'static str| {
        let args = match file {
            Some(file) => ClientArgs { kubeconfig: Some(file.clone()), master: None },
            None => clients.clone(),
        };
        let name = about.name;
        async move { client::client(&client::config(&args, flag).await?, name) }
    };
    let authn = asking(&args.authentication_kubeconfig, "authentication-kubeconfig").await?;
    let authz = asking(&args.authorization_kubeconfig, "authorization-kubeconfig").await?;
    let client_ca = args.client_ca_file.as_deref().map(read_file).transpose().context("--client-ca-file")?;
    let delegated = Delegated::new(authn, authz, client_ca.as_deref()).context("--client-ca-file")?;
    let (identity, files) = serving_identity(args, about.name)?;
    let settings = TlsSettings {
        default: identity,
        by_name: Vec::new(),
        client_authorities: client_ca.unwrap_or_default(),
        tls13_only: args.tls_min_version.as_deref() == Some(TLS13),
        suites: ciphers::offered(&args.tls_cipher_suites)?,
    };
    let tls = ServerTls::new(&settings).context("--tls-cert-file")?;
    if let Some((certificate, key)) = files {
        tokio::spawn(tls.clone().follow(settings, certificate, key));
    }
    let server = Server {
        about,
        delegated: Some(delegated),
        open: args.authorization_always_allow_paths.clone(),
        with_metrics: true,
    };
    let address = SocketAddr::new(args.bind_address, port);
    listen(address, "secure-port", server, Some(tls), shutdown).await.map(Some)
}

/// Begins to serve health, and metrics where asked, without TLS: for this machine's own probes, as upstream's flag says.
///
/// # Errors
/// The port is taken; the flag is named.
pub async fn plain(
    address: SocketAddr,
    flag: &str,
    about: About,
    with_metrics: bool,
    shutdown: CancellationToken,
) -> Result<SocketAddr> {
    let server = Server { about, delegated: None, open: Vec::new(), with_metrics };
    listen(address, flag, server, None, shutdown).await
}

/// The certificate to serve with, and its files when it is to be followed.
fn serving_identity(args: &ServingArgs, name: &str) -> Result<(Identity, Option<(PathBuf, PathBuf)>)> {
    let of_files = |certificate: PathBuf, key: PathBuf| -> Result<_> {
        let identity = Identity { certificate: read_file(&certificate)?, key: read_file(&key)? };
        Ok((identity, Some((certificate, key))))
    };
    if let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_private_key_file) {
        return of_files(certificate.clone(), key.clone()).context("--tls-cert-file");
    }
    let make = || -> Result<(String, String)> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        names.extend(crate::cluster::address::host_name().ok());
        names.push(crate::cluster::address::node_ip().to_string());
        let made = rcgen::generate_simple_self_signed(names).context("cannot make a certificate")?;
        Ok((made.cert.pem(), made.signing_key.serialize_pem()))
    };
    let Some(dir) = &args.cert_dir else {
        let (certificate, key) = make()?;
        return Ok((Identity { certificate: certificate.into_bytes(), key: key.into_bytes() }, None));
    };
    let (certificate, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    if !certificate.exists() || !key.exists() {
        std::fs::create_dir_all(dir).with_context(|| format!("--cert-dir {}", dir.display()))?;
        let (certificate_pem, key_pem) = make()?;
        crate::pki::write_atomically(&key, key_pem.as_bytes(), 0o600)?;
        crate::pki::write_atomically(&certificate, certificate_pem.as_bytes(), 0o644)?;
    }
    of_files(certificate, key).context("--cert-dir")
}

async fn listen(
    address: SocketAddr,
    flag: &str,
    server: Server,
    tls: Option<Arc<ServerTls>>,
    shutdown: CancellationToken,
) -> Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: stop who does, or choose another --{flag}"))?;
    let local = listener.local_addr()?;
    let server = Arc::new(server);
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (server, tls, shutdown) = (server.clone(), tls.clone(), shutdown.clone());
                    tokio::spawn(async move {
                        shutdown.run_until_cancelled(connection(stream, peer, tls, server)).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REFUSED).await;
                }
            }
        }
    });
    Ok(local)
}

async fn connection(stream: TcpStream, address: SocketAddr, tls: Option<Arc<ServerTls>>, server: Arc<Server>) {
    let Some(tls) = tls else {
        return converse(stream, Peer { address, certificates: Chain::default() }, server).await;
    };
    match tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let certificates = certificates.iter().map(|c| c.clone().into_owned()).collect();
            converse(stream, Peer { address, certificates }, server).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, %address, "TLS handshake failed"),
        Err(_) => tracing::debug!(%address, "TLS handshake took too long"),
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, peer: Peer, server: Arc<Server>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(server.answer(request, &peer).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended badly");
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Full<Bytes>> {
        let (parts, _) = request.into_parts();
        let path = parts.uri.path();
        if let Some(delegated) = &self.delegated
            && !self.open.iter().any(|open| open == path || open.strip_suffix('*').is_some_and(|p| path.starts_with(p)))
        {
            match delegated.decide(&parts, peer).await {
                Verdict::Allowed => {}
                Verdict::Unauthorized => return refusal(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
                Verdict::Forbidden(why) => return refusal(StatusCode::FORBIDDEN, "Forbidden", &why),
            }
        }
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n".to_owned());
        }
        match path {
            "/healthz" | "/livez" | "/readyz" | "/healthz/ping" | "/livez/ping" | "/readyz/ping" => {
                let (status, body) = self.about.health(path);
                text(status, body)
            }
            "/metrics" if self.with_metrics => text(StatusCode::OK, self.about.metrics()),
            "/version" if self.with_metrics => text(StatusCode::OK, crate::KUBERNETES_VERSION.to_owned()),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        }
    }
}

fn refusal(status: StatusCode, reason: &str, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": status.as_u16(),
    });
    let mut response = text(status, body.to_string());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
