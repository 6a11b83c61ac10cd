//! One HTTP request to a container, as probes and lifecycle hooks make them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::container::service_env::host_port;

/// As much of an answer as is shown to people.
const MOST_BODY: usize = 10 * 1024;
const MOST_REDIRECTS: usize = 10;

/// A request to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) https: bool,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
    /// The server sent us to another host, where we don't go.
    pub(crate) elsewhere: Option<String>,
}

/// The number of a port that may be given by name.
pub(crate) fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name))
                .map(|port| i64::from(port.container_port));
            match named.or_else(|| name.parse().ok()) {
                Some(number) => number,
                None => return Err(format!("couldn't find port: {name}")),
            }
        }
    };
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or_else(|| format!("invalid port number: {number}"))
}

impl Target {
    /// The request that an action means.
    ///
    /// # Errors
    /// When the port doesn't exist.
    pub(crate) fn new(action: &HTTPGetAction, container: &Container, pod_ip: &str) -> Result<Self, String> {
        let path = action.path.as_deref().unwrap_or_default();
        Ok(Self {
            https: action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
            host: action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| pod_ip.to_owned()),
            port: port(&action.port, container)?,
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
            headers: action
                .http_headers
                .iter()
                .flatten()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
        })
    }

    fn authority(&self) -> String {
        host_port(&self.host, i32::from(self.port))
    }

    /// The address as people write it.
    pub(crate) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }
}

/// Gets a target, following redirects on its host.
///
/// # Errors
/// Upstream's (that is, Go's) texts.
pub(crate) async fn get(target: &Target, agent: &str, timeout: Duration) -> Result<Answer, String> {
    let error = |why: String| format!("Get {:?}: {why}", target.url());
    match tokio::time::timeout(timeout, follow(target.clone(), agent)).await {
        Ok(result) => result.map_err(error),
        Err(_) => Err(error("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())),
    }
}

async fn follow(mut target: Target, agent: &str) -> Result<Answer, String> {
    for _ in 0..MOST_REDIRECTS {
        let (answer, location) = once(&target, agent).await?;
        let Some(location) = location else {
            return Ok(answer);
        };
        let uri: Uri = location.parse().map_err(|_| format!("failed to parse Location header {location:?}"))?;
        if let Some(host) = uri.host()
            && host.trim_matches(['[', ']']) != target.host
        {
            return Ok(Answer { elsewhere: Some(location), ..answer });
        }
        if let Some(scheme) = uri.scheme_str() {
            target.https = scheme == "https";
            target.port = uri.port_u16().unwrap_or(if target.https { 443 } else { 80 });
        }
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        target.path = if path.starts_with('/') {
            path.to_owned()
        } else {
            let base = target.path.rsplit_once('/').map_or("", |(base, _)| base);
            format!("{base}/{path}")
        };
    }
    Err(format!("stopped after {MOST_REDIRECTS} redirects"))
}

async fn once(target: &Target, agent: &str) -> Result<(Answer, Option<String>), String> {
    let stream = dial(&target.host, target.port).await?;
    if target.https {
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anyone))
                .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .map_err(|error| error.to_string())?;
        exchange(stream, target, agent).await
    } else {
        exchange(stream, target, agent).await
    }
}

async fn exchange<S>(stream: S, target: &Target, agent: &str) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let text = |error: hyper::Error| if error.is_incomplete_message() { "EOF".to_owned() } else { error.to_string() };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let connection = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a probe's connection ended");
        }
    });
    let _guard = AbortOnDrop(connection);
    let mut request = Request::builder()
        .method(Method::GET)
        .uri(&target.path)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    *request.headers_mut() = headers(target, agent)?;
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status().as_u16();
    let location = response
        .headers()
        .get(header::LOCATION)
        .filter(|_| matches!(status, 301 | 302 | 303 | 307 | 308))
        .and_then(|location| location.to_str().ok())
        .map(ToOwned::to_owned);
    let mut body = Vec::new();
    let mut incoming = response.into_body();
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { break };
        if let Some(data) = frame.data_ref() {
            body.extend_from_slice(&data[..data.len().min(MOST_BODY - body.len())]);
        }
        if body.len() >= MOST_BODY {
            break;
        }
    }
    let answer = Answer { status, body: String::from_utf8_lossy(&body).into_owned(), elsewhere: None };
    Ok((answer, location))
}

fn headers(target: &Target, agent: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &target.headers {
        let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
        let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        headers.append(name, value);
    }
    let mut default = |name: HeaderName, value: &str| {
        if !headers.contains_key(&name)
            && let Ok(value) = HeaderValue::try_from(value)
        {
            headers.insert(name, value);
        }
    };
    default(header::HOST, &target.authority());
    default(header::USER_AGENT, agent);
    default(header::ACCEPT, "*/*");
    default(header::CONNECTION, "close");
    Ok(headers)
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects; a host that isn't an address is looked up.
///
/// # Errors
/// `dial tcp 10.0.0.1:80: connect: connection refused`, as Go says it.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let target = host_port(host, i32::from(port));
    let result = match host.parse() {
        Ok(ip) => TcpStream::connect(SocketAddr::new(ip, port)).await,
        Err(_) => TcpStream::connect(target.as_str()).await,
    };
    match result {
        Ok(stream) => {
            // A lost optimisation at worst.
            let _ = stream.set_nodelay(true);
            Ok(stream)
        }
        Err(error) => Err(format!("dial tcp {target}: connect: {}", io_text(&error))),
    }
}

fn io_text(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}

/// Takes any certificate: a container's is its own business, and what is asked is whether it
/// answers.
#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
