//! The streaming server: exec, attach and port-forward over SPDY and WebSocket.
//!
//! The protocols have no IO ([`remote_command`], [`port_forward`] over [`spdy`] and [`websocket`]); [`drive`]
//! carries their bytes, [`session`] is what they are for.

mod drive;
mod port_forward;
mod protocol;
mod remote_command;
mod session;
mod spdy;
mod websocket;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpListener, sync::mpsc};

use self::{
    port_forward::{ForwardSpdy, ForwardWebSocket, TUNNEL_PROTOCOL},
    protocol::{Protocol, Tunnel},
    remote_command::{ClientEvent, RemoteSpdy, RemoteWebSocket, ToClient},
};
use crate::server::{Runtime, Ticket, Wanted};

/// How long a client may take to ask for something.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a silent client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a connection is upgraded to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Upgrade {
    Spdy { protocol: String },
    WebSocket { key: String, protocol: String },
}

/// Serves until dropped.
pub(crate) async fn serve(runtime: Arc<Runtime>, listener: TcpListener) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a stream's connection could not be accepted");
                // Descriptors are short: some have to be closed first.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let serving = runtime.clone();
        let runtime = runtime.clone();
        serving.spawn(async move {
            // Keys typed shall be seen at once.
            let _ = stream.set_nodelay(true);
            // As Go does: nothing else notices a client that vanished while neither side has anything to say.
            let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
            if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keep_alive) {
                tracing::debug!(%error, "a stream is not watched for a client that vanished");
            }
            let service = service_fn(move |request| {
                let runtime = runtime.clone();
                async move { Ok::<_, Infallible>(answer(&runtime, request)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a stream's connection broke");
            }
        });
    }
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(message.into())));
    *response.status_mut() = status;
    response
}

fn answer(runtime: &Arc<Runtime>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (kind, secret) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let forwarding = kind == "portforward";
    let upgrade = match negotiate(request.headers(), forwarding) {
        Ok(upgrade) => upgrade,
        Err((status, message)) => return refuse(status, message),
    };
    let Some(ticket) = runtime.streams.redeem(kind, secret) else {
        return refuse(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let response = accept(&upgrade);
    runtime.spawn(run(runtime.clone(), ticket, upgrade, upgraded));
    response
}

/// All values of a header, which may be lists.
fn values(headers: &HeaderMap, name: impl header::AsHeaderName) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|v| v.trim().to_owned())
        .filter(|v| !v.is_empty())
        .collect()
}

const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// Finds what both sides speak.
fn negotiate(headers: &HeaderMap, forwarding: bool) -> Result<Upgrade, (StatusCode, String)> {
    let is = |value: &String, expected: &str| value.eq_ignore_ascii_case(expected);
    let upgrades = values(headers, header::UPGRADE);
    let connection = values(headers, header::CONNECTION);
    if !connection.iter().any(|c| is(c, "upgrade")) || upgrades.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "unable to upgrade: missing upgrade headers in request".into()));
    }
    if upgrades.iter().any(|u| is(u, "SPDY/3.1")) {
        let offered = values(headers, STREAM_PROTOCOL);
        let known: &[&str] = if forwarding { &port_forward::SPDY_PROTOCOLS } else { &remote_command::SPDY_PROTOCOLS };
        // A client that offers none is the oldest.
        let oldest = known.last().copied().unwrap_or_default().to_owned();
        let chosen = if offered.is_empty() {
            Some(oldest)
        } else {
            offered.iter().find(|o| known.contains(&o.as_str())).cloned()
        };
        return chosen.map(|protocol| Upgrade::Spdy { protocol }).ok_or_else(|| {
            (
                StatusCode::FORBIDDEN,
                format!(
                    "unable to upgrade: unable to negotiate protocol: client supports {offered:?}, server \
                     accepts {known:?}"
                ),
            )
        });
    }
    if !upgrades.iter().any(|u| is(u, "websocket")) {
        return Err((
            StatusCode::BAD_REQUEST,
            format!("unable to upgrade: unknown protocol {:?}", upgrades.join(", ")),
        ));
    }
    let key = values(headers, header::SEC_WEBSOCKET_KEY).into_iter().next();
    let version = values(headers, header::SEC_WEBSOCKET_VERSION);
    let (Some(key), true) = (key, version.iter().any(|v| v == "13")) else {
        return Err((StatusCode::BAD_REQUEST, "unable to upgrade: not a WebSocket handshake of version 13".into()));
    };
    let offered = values(headers, header::SEC_WEBSOCKET_PROTOCOL);
    let known = |protocol: &str| {
        if forwarding {
            protocol == TUNNEL_PROTOCOL || port_forward::WEBSOCKET_PROTOCOLS.contains(&protocol)
        } else {
            remote_command::WEBSOCKET_PROTOCOLS.contains(&protocol)
        }
    };
    let chosen = if offered.is_empty() { Some(String::new()) } else { offered.iter().find(|o| known(o)).cloned() };
    chosen.map(|protocol| Upgrade::WebSocket { key, protocol }).ok_or_else(|| {
        (StatusCode::BAD_REQUEST, format!("unable to upgrade: no subprotocol of {offered:?} is supported"))
    })
}

fn accept(upgrade: &Upgrade) -> Response<Full<Bytes>> {
    let builder = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(header::CONNECTION, "Upgrade");
    let response = match upgrade {
        Upgrade::Spdy { protocol } => builder.header(header::UPGRADE, "SPDY/3.1").header(STREAM_PROTOCOL, protocol),
        Upgrade::WebSocket { key, protocol } => {
            let builder = builder
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_ACCEPT, websocket::accept_key(key));
            if protocol.is_empty() { builder } else { builder.header(header::SEC_WEBSOCKET_PROTOCOL, protocol) }
        }
    };
    response.body(Full::default()).unwrap_or_else(|error| refuse(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn run(runtime: Arc<Runtime>, ticket: Ticket, upgrade: Upgrade, upgraded: OnUpgrade) {
    let io = match upgraded.await {
        Ok(io) => TokioIo::new(io),
        Err(error) => {
            tracing::debug!(%error, "a stream's client left before it began");
            return;
        }
    };
    match ticket {
        Ticket::Exec { container, command, terminal, streams } => {
            remote(io, &upgrade, streams, terminal, |events, to| {
                session::exec(runtime, container, command, terminal, streams, events, to)
            })
            .await;
        }
        Ticket::Attach { container, terminal, streams } => {
            remote(io, &upgrade, streams, terminal, |events, to| {
                session::attach(runtime, container, streams, events, to)
            })
            .await;
        }
        Ticket::PortForward { sandbox, ports } => {
            let netns = match runtime.sandboxes.get(&sandbox) {
                Ok(found) => found.record().netns,
                Err(error) => {
                    let error = error.chain();
                    tracing::debug!(error, "a pod went away before its ports were forwarded");
                    return;
                }
            };
            let session = |events, to| session::port_forward(netns, sandbox, events, to);
            match &upgrade {
                Upgrade::Spdy { .. } => carry(ForwardSpdy::default(), io, session).await,
                Upgrade::WebSocket { protocol, .. } if protocol == TUNNEL_PROTOCOL => {
                    carry(Tunnel::new(ForwardSpdy::default()), io, session).await;
                }
                Upgrade::WebSocket { protocol, .. } => {
                    carry(ForwardWebSocket::new(protocol, &ports), io, session).await;
                }
            }
        }
    }
}

type Io = TokioIo<hyper::upgrade::Upgraded>;

async fn remote<F: Future<Output = ()>>(
    io: Io,
    upgrade: &Upgrade,
    wanted: Wanted,
    terminal: bool,
    session: impl FnOnce(mpsc::Receiver<ClientEvent>, mpsc::Sender<ToClient>) -> F,
) {
    match upgrade {
        Upgrade::Spdy { protocol } => {
            carry(RemoteSpdy::new(protocol, wanted, terminal), io, session).await;
        }
        Upgrade::WebSocket { protocol, .. } => {
            carry(RemoteWebSocket::new(protocol, wanted), io, session).await;
        }
    }
}

/// Runs a session over a connection; both end together.
async fn carry<P: Protocol, F: Future<Output = ()>>(
    protocol: P,
    io: Io,
    session: impl FnOnce(mpsc::Receiver<P::Event>, mpsc::Sender<P::Command>) -> F,
) {
    let (event_sender, events) = mpsc::channel(4);
    let (to, commands) = mpsc::channel(4);
    let (driven, ()) = tokio::join!(drive::drive(protocol, io, event_sender, commands), session(events, to));
    if let Err(error) = driven {
        tracing::debug!(%error, "a stream broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn both_sides_agree_on_a_protocol() {
        let spdy = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v9.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
        ];
        let protocol = "v4.channel.k8s.io".to_owned();
        assert_eq!(negotiate(&headers(&spdy), false), Ok(Upgrade::Spdy { protocol }));
        let protocol = "channel.k8s.io".to_owned();
        assert_eq!(negotiate(&headers(&spdy[..2]), false), Ok(Upgrade::Spdy { protocol }));
        assert_eq!(negotiate(&headers(&spdy), true).unwrap_err().0, StatusCode::FORBIDDEN);
        let websocket = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "abc"),
            ("sec-websocket-protocol", "v9, v5.channel.k8s.io, v4.channel.k8s.io"),
        ];
        let (key, protocol) = ("abc".to_owned(), "v5.channel.k8s.io".to_owned());
        assert_eq!(negotiate(&headers(&websocket), false), Ok(Upgrade::WebSocket { key, protocol }));
        assert_eq!(negotiate(&headers(&websocket[..3]), false).unwrap_err().0, StatusCode::BAD_REQUEST);
        assert_eq!(negotiate(&headers(&[]), false).unwrap_err().0, StatusCode::BAD_REQUEST);
    }
}
