//! HTTP to one registry, with failures in the words of Go's network library.

use std::{error::Error as StdError, io, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    dns::Dns,
    error::Error,
    host::Hosts,
    proxy::{Proxies, ProxyConnector},
    tls,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// From asking to the first line of the answer; Docker Hub can take its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const USER_AGENT: &str = concat!("pilothouse/", env!("CARGO_PKG_VERSION"));

/// Connections to a registry and wherever it redirects to. Made for one pull, so that nothing
/// stays open, or in memory, between pulls.
pub(super) struct Transport {
    client: Client<HttpsConnector<ProxyConnector>, Full<Bytes>>,
    proxies: Proxies,
}

impl Transport {
    pub(super) fn new(hosts: &Hosts, authority: &str) -> Result<Self, Error> {
        let tls = tls::config(&hosts.certificates, authority).map_err(|error| Error::Protocol {
            url: authority.into(),
            reason: format!("its certificate authorities can't be read: {error}"),
        })?;
        let mut http = HttpConnector::new_with_resolver(Dns::default());
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_keepalive(Some(Duration::from_secs(30)));
        // One version of HTTP: layers come in parallel, each on its own connection, and a broken
        // one breaks no other.
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(ProxyConnector { direct: http, proxies: hosts.proxies.clone() });
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(https);
        Ok(Self { client, proxies: hosts.proxies.clone() })
    }

    /// Sends a request and waits for the head of the answer.
    pub(super) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Error> {
        let agent = http::HeaderValue::from_static(USER_AGENT);
        request.headers_mut().insert(http::header::USER_AGENT, agent);
        let proxy = self.proxies.authorization(request.uri());
        request.headers_mut().extend(proxy.map(|value| (http::header::PROXY_AUTHORIZATION, value)));
        let (method, url) = (request.method().clone(), shown(request.uri()));
        let reason = match tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => reason(&error),
            Err(_) => "net/http: timeout awaiting response headers".into(),
        };
        Err(Error::Request { method, url, reason })
    }
}

/// A URL for a message: without its query, which may hold a signature that lets anyone in.
pub(super) fn shown(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("http");
    format!("{scheme}://{}{}", uri.authority().map_or("", |authority| authority.as_str()), uri.path())
}

/// The cause of a failed request, innermost first.
pub(super) fn reason(error: &(dyn StdError + 'static)) -> String {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        causes.push(error);
        // An io::Error around another error shows that one, and calls its source its own.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    for cause in causes.iter().rev() {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return tls_reason(error);
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            return io_reason(error);
        }
    }
    let innermost = causes.last().unwrap_or(&error);
    if innermost.to_string().contains("connection closed before message completed") {
        return "EOF".into();
    }
    innermost.to_string()
}

fn io_reason(error: &io::Error) -> String {
    use io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "dial tcp: connect: connection refused".into(),
        ErrorKind::HostUnreachable => "dial tcp: connect: no route to host".into(),
        ErrorKind::NetworkUnreachable => "dial tcp: connect: network is unreachable".into(),
        ErrorKind::TimedOut => "dial tcp: i/o timeout".into(),
        ErrorKind::ConnectionReset => "read: connection reset by peer".into(),
        ErrorKind::UnexpectedEof => "unexpected EOF".into(),
        _ if error.to_string().starts_with("lookup ") => format!("dial tcp: {error}"),
        _ => error.to_string(),
    }
}

fn tls_reason(error: &rustls::Error) -> String {
    use rustls::{CertificateError, Error};
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "tls: failed to verify certificate: x509: certificate signed by unknown authority".into()
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "tls: failed to verify certificate: x509: certificate has expired or is not yet valid".into()
        }
        Error::InvalidCertificate(why) => format!("tls: failed to verify certificate: x509: {why}"),
        Error::InvalidMessage(_) => "tls: first record does not look like a TLS handshake".into(),
        other => format!("tls: {other}"),
    }
}
