//! The node HTTP API: what the API server and scrapers ask a node for. TLS only; each request is
//! authenticated, and authorized by the API server.

mod auth;
mod files;
mod logs;
mod metrics;
mod pods;
mod stats;
mod streams;
mod tls;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use self::auth::Auth;
use crate::{error::Error, kubelet::Shared};

/// Bodies of answers, whole or streamed.
pub(crate) type Body = BoxBody<Bytes, std::io::Error>;

/// An answer of plain text.
pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(full(text.into().into_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// An answer of JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(full(bytes));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A part of a path or query, with its escapes undone.
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = (*first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (hex, *first) {
            (Some(byte), _) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (None, b'+') => {
                bytes.push(b' ');
                rest = tail;
            }
            (None, byte) => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The parameters of a query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(uri: &http::Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (unescape(name), unescape(value))
                })
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// `1` and `true` mean yes.
    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("1" | "true"))
    }
}

/// How long the head of a request may take, the first one with what comes before it.
const HEADERS: Duration = Duration::from_secs(30);
/// After how long of silence a peer is asked whether it is still there, and how often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

struct Server {
    shared: Arc<Shared>,
    auth: Auth,
}

/// Begins to listen; returns the port.
///
/// # Errors
/// When the certificate is no good or the port is taken.
pub(crate) async fn serve(shared: &Arc<Shared>) -> Result<u16, Error> {
    let acceptor = TlsAcceptor::from(Arc::new(tls::config(&shared.cfg)?));
    let address = SocketAddr::new(shared.cfg.bind_address, shared.cfg.port);
    let listen = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let port = listener.local_addr().map_err(listen)?.port();
    let server = Arc::new(Server {
        shared: shared.clone(),
        auth: Auth::new(shared.client.clone(), shared.cfg.node_name.clone()),
    });
    // Whoever starts again waits for it: the port must be free then.
    shared.workers.spawn(shared.until_stop(accept(listener, acceptor, server)));
    Ok(port)
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, server: Arc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (acceptor, server) = (acceptor.clone(), server.clone());
                let stop = server.shared.stop.clone();
                tokio::spawn(async move {
                    stop.run_until_cancelled(connection(stream, acceptor, server)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the node API could not be accepted");
                // Out of descriptors, most likely; others may be freed meanwhile.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, server: Arc<Server>) {
    // A lost optimisation at worst.
    let _ = stream.set_nodelay(true);
    let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keep_alive) {
        tracing::debug!(%error, "no TCP keep-alive");
    }
    let handshake = tokio::time::timeout(Duration::from_secs(10), acceptor.accept(stream));
    let stream = match handshake.await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake with the node API failed");
            return;
        }
        Err(_) => return,
    };
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    let peer = peer.and_then(|certificate| auth::user_of_certificate(&certificate));
    let spoken = Arc::new(AtomicBool::new(false));
    let speaks = spoken.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        speaks.store(true, Ordering::Relaxed);
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(server.handle(request, peer.as_ref()).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().half_close(true).timer(TokioTimer::new()).header_read_timeout(HEADERS);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let silent = async {
        tokio::time::sleep(HEADERS).await;
        if spoken.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the node API ended");
        },
        () = silent => tracing::debug!("a connection to the node API never asked for anything"),
    }
}

impl Server {
    async fn handle(&self, request: Request<Incoming>, peer: Option<&auth::User>) -> Response<Body> {
        let user = match self.auth.authenticate(request.headers(), peer).await {
            Ok(Some(user)) => user,
            Ok(None) => return text(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Err(error) => {
                tracing::warn!(error, "a request to the node API could not be authenticated");
                return text(StatusCode::UNAUTHORIZED, "Unauthorized");
            }
        };
        let path = request.uri().path().to_owned();
        match self.auth.authorize(&user, request.method(), &path).await {
            Ok(auth::Verdict::Allowed) => {}
            Ok(auth::Verdict::Denied { verb, resource }) => {
                let message =
                    format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)={resource})", user.name);
                return text(StatusCode::FORBIDDEN, message);
            }
            Err(error) => {
                let message = format!("Authorization error (user={}, path={path}): {error}", user.name);
                tracing::warn!(message);
                return text(StatusCode::INTERNAL_SERVER_ERROR, message);
            }
        }
        self.route(request, &path).await
    }

    async fn route(&self, request: Request<Incoming>, path: &str) -> Response<Body> {
        let parts: Vec<String> = path.trim_matches('/').split('/').map(unescape).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let shared = &self.shared;
        let query = Query::of(request.uri());
        let get = request.method() == Method::GET || request.method() == Method::HEAD;
        match (&parts[..], get) {
            (["healthz"] | ["healthz", "ping" | "log" | "syncloop"], true) => text(StatusCode::OK, "ok"),
            (["pods"], true) => pods::list(shared),
            (["runningpods"], true) => pods::running(shared),
            (["configz"], true) => pods::configz(shared),
            (["containerLogs", namespace, pod, container], true) => {
                logs::serve(shared, namespace, pod, container, &query).await
            }
            (["stats"] | ["stats", "summary"], _) => stats::summary(shared).await,
            (["metrics"], true) => metrics::own(shared),
            (["metrics", "resource"], true) => metrics::resource(shared).await,
            (["metrics", "cadvisor"], true) => metrics::cadvisor(shared).await,
            // Probes are not counted.
            (["metrics", "probes"], true) => text(StatusCode::OK, ""),
            (["logs", rest @ ..], true) => files::serve(&shared.cfg.node_log_dir, rest).await,
            (["exec", namespace, pod, container] | ["exec", namespace, pod, _, container], _) => {
                streams::exec(shared, request, namespace, pod, container, &query).await
            }
            (["attach", namespace, pod, container] | ["attach", namespace, pod, _, container], _) => {
                streams::attach(shared, request, namespace, pod, container, &query).await
            }
            (["portForward", namespace, pod] | ["portForward", namespace, pod, _], _) => {
                streams::port_forward(shared, request, namespace, pod, &query).await
            }
            (["run", namespace, pod, container] | ["run", namespace, pod, _, container], false) => {
                streams::run(shared, namespace, pod, container, &query).await
            }
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read() {
        let uri = "/exec?command=a%20b&command=c+d&tty=1&stdin=true&x".parse().unwrap();
        let query = Query::of(&uri);
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["a b", "c d"]);
        assert!(query.flag("tty") && query.flag("stdin") && !query.flag("x"));
        assert_eq!(unescape("%zz%2"), "%zz%2");
    }
}
