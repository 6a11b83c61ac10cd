//! Connections: TLS, HTTP/1.1 and HTTP/2, and their end.

use super::ApiServer;
use super::chain::Origin;
use super::corked::corked;
use super::unread::leaving;
use crate::authn::Peer;
use crate::http::{Body, BoxError, Response};
use crate::tls::ServerTls;
use http::StatusCode;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long the head of a request may take, the first one with what comes before it.
const HEADERS: Duration = Duration::from_secs(30);
/// Pause after the system refused a connection (no descriptors left): what is open may end meanwhile.
const REFUSED: Duration = Duration::from_millis(50);
const STREAMS: u32 = 1000;
/// The most of headers over HTTP/2, counted as RFC 9113 does. A path that [`http::Uri`] can't hold (it holds 65,534 bytes) exceeds
/// it with the shortest method and scheme: its client is told 431. Were more allowed, such a stream would be reset as malformed,
/// which Go's clients take for a passing fault and try again for a minute.
const HEADERS_MAX: u32 = 65_534 + (5 + 32) + (7 + 3 + 32) + (7 + 4 + 32);
/// The most headers of a request over HTTP/1.1, of which some clients send one for each group that somebody is in.
const HEADER_COUNT: usize = 1000;
/// After how long of silence a peer is asked whether it is still there, and how often: as Go's listeners do. Streams over
/// HTTP/1.1 have nothing else that notices a peer that has vanished.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long open requests may take to end when the server stops.
const FAREWELL: Duration = Duration::from_secs(10);

/// What Go's server tells who asks without TLS.
const PLAIN: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// The most of such a request that is read before that: what is left unread may cut off the answer.
const PLAIN_MAX: usize = 16 * 1024;

/// Whether a client begins with a request rather than with a handshake.
async fn speaks_http(stream: &TcpStream) -> io::Result<bool> {
    let mut head = [0; 5];
    let length = stream.peek(&mut head).await?;
    Ok(matches!(&head[..length], b"GET /" | b"HEAD " | b"POST " | b"PUT /" | b"OPTIO"))
}

/// The answer to a request over HTTP/1.1 that does not name one host: Go's server hands on none such. What it says why is in the
/// status line, too.
fn malformed<B>(request: &hyper::Request<B>) -> Option<Response<Body>> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, named) = (hosts.next(), request.headers().get_all(HOST).iter().count());
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&()*+,-.:;='[]_~".contains(byte);
    let (status, text): (&'static [u8], _) = match (request.version(), named) {
        (http::Version::HTTP_10 | http::Version::HTTP_11, 2..) => (b"Bad Request", "400 Bad Request"),
        (http::Version::HTTP_11, 0) if request.method() != http::Method::CONNECT => {
            (b"Bad Request: missing required Host header", "400 Bad Request: missing required Host header")
        }
        (http::Version::HTTP_10 | http::Version::HTTP_11, 1)
            if !host.is_some_and(|host| host.as_bytes().iter().all(fits)) =>
        {
            (b"Bad Request: malformed Host header", "400 Bad Request: malformed Host header")
        }
        _ => return None,
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response.extensions_mut().insert(ReasonPhrase::from_static(status));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Some(response)
}

async fn answer_plain(mut stream: TcpStream) -> io::Result<()> {
    let mut request = vec![0; PLAIN_MAX];
    // A part is enough: nothing of it counts.
    let _read = stream.read(&mut request).await?;
    stream.write_all(PLAIN).await?;
    stream.shutdown().await
}

impl ApiServer {
    /// Serves a port until `shutdown`, then ends watches, lets requests finish and closes what remains.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, tls: Arc<ServerTls>, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let farewell = CancellationToken::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (server, tls, shutdown) = (self.clone(), tls.clone(), shutdown.clone());
                    let farewell = farewell.clone();
                    connections.spawn(async move {
                        tokio::select! {
                            () = server.connection(stream, address, tls, shutdown) => {}
                            () = farewell.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(REFUSED).await;
                }
            }
        }
        self.health.stop();
        drop(listener);
        self.registry.caches().close();
        connections.close();
        // What has become a WebSocket is no connection of these any more, and ends as its watch does.
        let ended = async {
            connections.wait().await;
            self.websockets.ended().await;
        };
        if tokio::time::timeout(FAREWELL, ended).await.is_err() {
            let open = connections.len() + self.websockets.len();
            tracing::warn!(open, "connections are cut: their requests did not end in time");
            farewell.cancel();
            self.websockets.cut();
            connections.wait().await;
            self.websockets.ended().await;
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        tls: Arc<ServerTls>,
        shutdown: CancellationToken,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, %address, "no TCP_NODELAY");
        }
        let keep_alive = TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE);
        if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keep_alive) {
            tracing::debug!(%error, %address, "no TCP keep-alive");
        }
        let handshake = async {
            if speaks_http(&stream).await? {
                answer_plain(stream).await?;
                return Err(io::Error::other("the client speaks HTTP"));
            }
            tls.acceptor().accept(stream).await
        };
        let stream = match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.metrics.handshake_failed();
                return tracing::debug!(%error, %address, "TLS handshake failed");
            }
            Err(_) => {
                self.metrics.handshake_failed();
                return tracing::debug!(%address, "TLS handshake took too long");
            }
        };
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let certificates = certificates.iter().map(|certificate| certificate.clone().into_owned()).collect();
        self.converse(stream, Peer { address, certificates }, shutdown).await;
    }

    /// Serves one connection.
    async fn converse<S>(self: Arc<Self>, stream: S, peer: Peer, shutdown: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = peer.address;
        let spoken = Arc::new(AtomicBool::new(false));
        let speaks = spoken.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            speaks.store(true, Ordering::Relaxed);
            let (server, peer) = (self.clone(), peer.clone());
            request.extensions_mut().insert(peer.clone());
            // In a place of its own, as hyper hands it on several times.
            Box::pin(async move {
                if let Some(malformed) = malformed(&request) {
                    return Ok(malformed);
                }
                let mut unread = None;
                let leaves = request.version() == http::Version::HTTP_2 && !request.body().is_end_stream();
                let request = request.map(|body| {
                    if !leaves {
                        return body.map_err(|error| Box::new(error) as BoxError).boxed_unsync();
                    }
                    let (body, left) = leaving(body);
                    unread = Some(left);
                    body.boxed_unsync()
                });
                let response = server.answer(request, Origin::Network(peer)).await;
                // Who is answered well has sent what was asked for.
                if let Some(unread) = unread.filter(|_| response.status().as_u16() >= 400) {
                    unread.pass_over().await;
                }
                Ok::<Response<Body>, Infallible>(response)
            })
        });
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_headers(HEADER_COUNT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HEADERS_MAX)
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(1 << 18)
            .initial_connection_window_size(1 << 20)
            .max_send_buf_size(1 << 18)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(15));
        let (stream, cork) = corked(stream);
        let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
        let silent = tokio::time::sleep(HEADERS);
        tokio::pin!(silent);
        let mut asked = false;
        let mut watched = true;
        let mut waited = false;
        loop {
            tokio::select! {
                ended = poll_fn(|cx| {
                    // Woken by a stream that has something to send, it lets the others say theirs first: the runtime would run
                    // it next, and what they say would go out one by one.
                    waited = !waited;
                    if waited {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    match connection.as_mut().poll(cx) {
                        Poll::Ready(ended) => Poll::Ready(ended.and(cork.let_go(cx).map_err(Into::into))),
                        Poll::Pending => match cork.poll_out(cx) {
                            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
                        },
                    }
                }) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, %address, "a connection ended badly");
                    }
                    return;
                }
                () = &mut silent, if watched => {
                    watched = false;
                    if !spoken.load(Ordering::Relaxed) {
                        return tracing::debug!(%address, "a connection never asked for anything");
                    }
                }
                () = shutdown.cancelled(), if !asked => {
                    asked = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
