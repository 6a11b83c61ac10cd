//! Passing a request on to somebody else, with upgrades: after a `101` both connections are joined byte by byte, so whatever
//! protocol both ends speak (SPDY, WebSocket) passes without being looked at.

use super::kubelet::Endpoint;
use crate::authn::Peer;
use crate::authn::tokens::WEBSOCKET_PREFIX;
use crate::handlers::LongRunning;
use crate::http::{Body, NO_CACHE, Request, Response};
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{StatusCode, Uri};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a request could not be passed on.
#[derive(Debug, Error)]
pub enum ForwardError {
    #[error("dial tcp {address}: {}", refused(source))]
    Connect {
        address: std::net::SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("dial tcp {address}: i/o timeout")]
    Timeout { address: std::net::SocketAddr },
    #[error("tls: {0}")]
    Tls(#[source] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be written: {0}")]
    Request(#[from] http::Error),
    #[error("invalid upgrade response: status code {0}")]
    NotUpgraded(StatusCode),
}

/// Why a connection was not had, in Go's words: the call that failed, and the system's reason.
fn refused(error: &std::io::Error) -> String {
    let text = error.to_string();
    let Some((reason, _)) = text.split_once(" (os error") else { return text };
    format!("connect: {}", reason.to_lowercase())
}

/// Whether a request wants to leave HTTP.
pub fn wants_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case("upgrade"))
}

/// A byte stream to somebody else, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn connect(to: &Endpoint) -> Result<Box<dyn Stream>, ForwardError> {
    let address = to.address;
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| ForwardError::Timeout { address })?
        .map_err(|source| ForwardError::Connect { address, source })?;
    stream.set_nodelay(true).map_err(|source| ForwardError::Connect { address, source })?;
    match &to.tls {
        None => Ok(Box::new(stream)),
        Some((name, config)) => {
            let connector = TlsConnector::from(config.clone());
            let handshake = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name.clone(), stream)).await;
            let stream = handshake.map_err(|_| ForwardError::Timeout { address })?.map_err(ForwardError::Tls)?;
            Ok(Box::new(stream))
        }
    }
}

/// What belongs to one connection only.
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// The headers to pass on: none that name the caller to this server, none of this connection.
fn headers(request: &Request, upgrade: bool) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(request.headers().len() + 2);
    for (name, value) in request.headers() {
        let own = *name == AUTHORIZATION || *name == HOST || name.as_str().starts_with("impersonate-");
        let hop = HOP_BY_HOP.contains(name) || name.as_str() == "keep-alive" || name.as_str() == "proxy-connection";
        if own || hop && !(upgrade && (*name == CONNECTION || *name == UPGRADE)) {
            continue;
        }
        if *name == SEC_WEBSOCKET_PROTOCOL {
            let kept: Vec<&str> = value
                .to_str()
                .unwrap_or_default()
                .split(',')
                .map(str::trim)
                .filter(|p| !p.starts_with(WEBSOCKET_PREFIX))
                .collect();
            if let (false, Ok(value)) = (kept.is_empty(), HeaderValue::from_str(&kept.join(", "))) {
                headers.append(name, value);
            }
            continue;
        }
        headers.append(name, value.clone());
    }
    if let Some(peer) = request.extensions().get::<Peer>() {
        let so_far = request.headers().get("x-forwarded-for").and_then(|v| v.to_str().ok());
        let address = peer.address.ip();
        let chain = so_far.map_or_else(|| address.to_string(), |before| format!("{before}, {address}"));
        if let Ok(value) = HeaderValue::from_str(&chain) {
            headers.insert("x-forwarded-for", value);
        }
    }
    headers
}

/// Passes a request on as `target` (path and query), and its answer back.
///
/// When the request wants an upgrade and gets it, the answer is the `101`, and both connections are joined as soon as it is
/// sent.
///
/// # Errors
/// Nobody answers there, or not as HTTP.
pub async fn forward(to: &Endpoint, mut request: Request, target: &str) -> Result<Response<Body>, ForwardError> {
    let upgrade = wants_upgrade(request.headers());
    let mut out = http::Request::builder()
        .method(request.method().clone())
        .uri(target.parse::<Uri>().map_err(http::Error::from)?);
    if let Some(all) = out.headers_mut() {
        *all = headers(&request, upgrade);
        let host = HeaderValue::from_str(&to.address.to_string()).map_err(http::Error::from)?;
        all.insert(HOST, host);
    }
    let stream = connect(to).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection that a request was passed on over ended");
        }
    });
    if !upgrade {
        let response = sender.send_request(out.body(request.into_body())?).await?;
        return Ok(answer(response, false));
    }
    let client = hyper::upgrade::on(&mut request);
    let nothing = http_body_util::combinators::UnsyncBoxBody::default();
    let mut response = sender.send_request(out.body(nothing)?).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        if response.status().as_u16() < 400 {
            return Err(ForwardError::NotUpgraded(response.status()));
        }
        return Ok(answer(response, false));
    }
    let backend = hyper::upgrade::on(&mut response);
    let held = request.extensions_mut().remove::<LongRunning>();
    tokio::spawn(async move {
        let _held = held;
        match tokio::try_join!(client, backend) {
            Ok((client, backend)) => {
                let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
                if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
                    tracing::debug!(%error, "a joined connection ended");
                }
            }
            Err(error) => tracing::debug!(%error, "an upgrade was not finished"),
        }
    });
    Ok(answer(response, true))
}

/// The answer as this server gives it.
fn answer(response: Response<Incoming>, upgraded: bool) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let mut out = Response::new(if upgraded { Body::empty() } else { Body::stream(body) });
    *out.status_mut() = parts.status;
    if !upgraded {
        // Beside what the backend says of it, as upstream.
        out.headers_mut().insert(CACHE_CONTROL, NO_CACHE);
    }
    for (name, value) in &parts.headers {
        let hop = HOP_BY_HOP.contains(name) || name.as_str() == "keep-alive";
        if !hop || upgraded && (*name == CONNECTION || *name == UPGRADE) {
            out.headers_mut().append(name, value.clone());
        }
    }
    out
}
