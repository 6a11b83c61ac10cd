//! Watches over a WebSocket (RFC 6455), as browsers want them: every event is a message, and of what the client says only pings
//! and its end count. The codec is tungstenite's.

use super::media::Format;
use super::stream::WatchBody;
use super::{Body, BoxError, Response};
use crate::authn::tokens::WEBSOCKET_PREFIX;
use crate::handlers::LongRunning;
use api::Status;
use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{StatusCode, Uri, request};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const VERSION: &str = "13";
/// How long a client may take nothing of what it is told.
const WRITE: Duration = Duration::from_secs(60);
/// The longest that a client may say, though nothing of it counts.
const HEARD: usize = 128 << 10;
/// What is read at once, and what is written at once at the latest.
const READ: usize = 1 << 10;
const WRITTEN: usize = 16 << 10;

fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").trim()
}

/// Whether a request wants a WebSocket.
pub fn is_wanted(headers: &HeaderMap) -> bool {
    header(headers, &UPGRADE).eq_ignore_ascii_case("websocket") && crate::streams::forward::wants_upgrade(headers)
}

/// Goes on with a watch over a WebSocket: what is answered is the handshake, or its refusal.
///
/// # Errors
/// 500 where there is no connection that could be taken over.
pub fn serve(parts: &mut request::Parts, format: Format, body: WatchBody) -> Result<Response<Body>, Status> {
    let accepted = match handshake(&parts.headers) {
        Ok(accepted) => accepted,
        Err((code, why)) => {
            let mut refused = Response::new(Body::from(why));
            *refused.status_mut() = code;
            // Upstream has taken the connection over by then.
            refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            if code == StatusCode::BAD_REQUEST {
                refused.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            }
            return Ok(refused);
        }
    };
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| Status::internal("the connection can't become a WebSocket"))?;
    let held = parts.extensions.remove::<LongRunning>();
    let open = parts.extensions.remove::<Open>().unwrap_or_default();
    open.spawn(async move {
        let _held = held;
        let told = match upgrade.await {
            Ok(stream) => tell(TokioIo::new(stream), format, body).await,
            Err(error) => Err(Error::Io(io::Error::other(error))),
        };
        if let Err(error) = told {
            tracing::debug!(%error, "a watch over a WebSocket was cut off");
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().extend(accepted);
    Ok(response)
}

/// The headers that accept a handshake; otherwise why it is none, as upstream answers it.
fn handshake(headers: &HeaderMap) -> Result<HeaderMap, (StatusCode, &'static str)> {
    let key = header(headers, &SEC_WEBSOCKET_KEY);
    if key.is_empty() {
        return Err((StatusCode::BAD_REQUEST, "mismatch challenge/response"));
    }
    if header(headers, &SEC_WEBSOCKET_VERSION) != VERSION {
        return Err((StatusCode::BAD_REQUEST, "missing or bad WebSocket Version"));
    }
    // Browsers always say where they come from. As upstream, it must be said, and be a place; which is not looked at.
    let origin = header(headers, &ORIGIN);
    if !origin.parse::<Uri>().is_ok_and(|uri| uri.scheme().is_some() || origin.starts_with('/')) {
        return Err((StatusCode::FORBIDDEN, ""));
    }
    let protocols = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let protocols = protocols.flat_map(|value| value.split(',')).map(str::trim);
    // One of them may carry the client's token.
    let mut protocols = protocols.filter(|name| !name.is_empty() && !name.starts_with(WEBSOCKET_PREFIX));
    let (protocol, more) = (protocols.next(), protocols.next());
    if more.is_some() {
        return Err((StatusCode::BAD_REQUEST, "missing or bad WebSocket-Protocol"));
    }
    let mut accepted = HeaderMap::new();
    accepted.insert(UPGRADE, HeaderValue::from_static("websocket"));
    accepted.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(value) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        accepted.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    if let Some(value) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) {
        accepted.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(accepted)
}

/// Connections that have become WebSockets, so that a server can wait for their end with that of the others.
#[derive(Clone, Debug, Default)]
pub struct Open {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Open {
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = work => {}
                () = cut.cancelled() => {}
            }
        });
    }

    /// Waits until all have ended.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Cuts off those that are left.
    pub(crate) fn cut(&self) {
        self.cut.cancel();
    }
}

/// Tells a watch until either side ends it.
async fn tell<S, B>(stream: S, format: Format, mut body: B) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ)
        .write_buffer_size(WRITTEN)
        .max_message_size(Some(HEARD))
        .max_frame_size(Some(HEARD));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
    let end = loop {
        let piece = tokio::select! {
            // Pings are answered on the way, and so is the client's end.
            said = socket.next() => match said {
                Some(Ok(Message::Close(_))) => {
                    in_time(socket.flush()).await?;
                    break None;
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => match refusal(&error) {
                    Some(code) => {
                        tracing::debug!(%error, "a client said what is no WebSocket");
                        break Some(code);
                    }
                    None => return Err(error),
                },
                None => return Ok(()),
            },
            frame = body.frame() => match frame {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Err(Error::Io(io::Error::other(error))),
                None => break Some(CloseCode::Normal),
            },
        };
        in_time(async {
            for event in events(format, &piece) {
                socket.feed(Message::Frame(event)).await?;
            }
            socket.flush().await
        })
        .await?;
    };
    if let Some(code) = end {
        in_time(socket.close(Some(CloseFrame { code, reason: Utf8Bytes::default() }))).await?;
    }
    in_time(async { Ok(socket.get_mut().shutdown().await?) }).await
}

/// Who does not read is left.
async fn in_time(written: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    match tokio::time::timeout(WRITE, written).await {
        Ok(written) => written,
        Err(_) => Err(Error::Io(io::ErrorKind::TimedOut.into())),
    }
}

/// With which code a client is left that says what must not be said; `None`: it is gone.
fn refusal(error: &Error) -> Option<CloseCode> {
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) => Some(CloseCode::Protocol),
        Error::Capacity(_) => Some(CloseCode::Size),
        Error::Utf8(_) => Some(CloseCode::Invalid),
        _ => None,
    }
}

/// The events of a piece of a watch's body, each as a message.
fn events(format: Format, piece: &Bytes) -> Vec<Frame> {
    let frame = |data: &[u8], kind| Frame::message(piece.slice_ref(data), OpCode::Data(kind), true);
    if format != Format::Protobuf {
        return piece.split_inclusive(|byte| *byte == b'\n').map(|event| frame(event, Data::Text)).collect();
    }
    let mut frames = Vec::new();
    let mut rest: &[u8] = piece;
    // Each has its length before it, which a message has no need of.
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX).min(after.len());
        frames.push(frame(&after[..length], Data::Binary));
        rest = &after[length..];
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use tokio::io::AsyncReadExt;
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

    /// A client's frame.
    fn said(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let header = FrameHeader { opcode: OpCode::from(first & 0x0f), mask: Some(mask), ..FrameHeader::default() };
        let mut frame = Vec::new();
        header.format(payload.len() as u64, &mut frame).expect("a head");
        frame[0] = first;
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        frame
    }

    /// What a watch that tells nothing and does not end answers to a client that says this, in pieces.
    async fn answered(said: &[u8], cut: usize) -> Vec<u8> {
        let (client, server) = tokio::io::duplex(1 << 20);
        let nothing = StreamBody::new(futures::stream::pending::<Result<http_body::Frame<Bytes>, BoxError>>());
        let telling = tokio::spawn(tell(server, Format::Json, nothing));
        let (mut reader, mut writer) = tokio::io::split(client);
        for piece in said.chunks(cut) {
            writer.write_all(piece).await.expect("written");
        }
        let mut all = Vec::new();
        reader.read_to_end(&mut all).await.expect("an end");
        telling.await.expect("no panic").expect("a clean end");
        all
    }

    #[tokio::test]
    async fn what_a_client_says_is_passed_over_but_for_pings_and_the_end() {
        let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
        for length in [0, 5, 125, 126, 70_000] {
            // In two parts, and a ping between them.
            bytes.extend(said(0x02, &vec![9; length]));
            let ping = format!("p{length}");
            bytes.extend(said(0x89, ping.as_bytes()));
            bytes.extend(said(0x80, b"rest"));
            wanted.extend([0x8a, ping.len() as u8]);
            wanted.extend(ping.as_bytes());
        }
        bytes.extend(said(0x88, &1001u16.to_be_bytes()));
        wanted.extend(b"\x88\x02\x03\xe9");
        for cut in [7, 4096, bytes.len()] {
            assert_eq!(answered(&bytes, cut).await, wanted, "{cut}");
        }
        assert_eq!(answered(&said(0x88, b""), 1).await, b"\x88\x00");
    }

    #[tokio::test]
    async fn what_is_no_websocket_is_told_so() {
        let oversize = [0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4];
        let fragments: Vec<u8> = std::iter::once(said(0x02, &[0; 100_000]))
            .chain(std::iter::repeat_with(|| said(0x00, &[0; 100_000])).take(2))
            .flatten()
            .collect();
        for (bytes, code, why) in [
            (&[0x81, 1, b'x'][..], 1002u16, "it is not masked"),
            (&said(0x09, b"x"), 1002, "a ping in parts"),
            (&said(0x89, &[0; 126]), 1002, "a long ping"),
            (&said(0xc1, b"x"), 1002, "a bit that is reserved"),
            (&said(0x83, b"x"), 1002, "an operation that is reserved"),
            (&said(0x80, b"x"), 1002, "a part without a beginning"),
            (&said(0x81, b"\xff"), 1007, "no text"),
            (&oversize, 1009, "a frame that is too large, by its head"),
            (&fragments, 1009, "parts that are too large together"),
        ] {
            let told = answered(bytes, bytes.len()).await;
            assert_eq!(told, [&[0x88, 2][..], &code.to_be_bytes()].concat(), "{why}");
        }
    }

    #[test]
    fn events_are_messages() {
        let told = |format, piece| {
            let mut out = Vec::new();
            events(format, &Bytes::from_static(piece)).into_iter().for_each(|frame| {
                frame.format(&mut out).expect("a frame");
            });
            out
        };
        assert_eq!(told(Format::Json, b"{\"a\":1}\n{}\n"), b"\x81\x08{\"a\":1}\n\x81\x03{}\n");
        assert_eq!(told(Format::Protobuf, b"\0\0\0\x02ab\0\0\0\x01c"), b"\x82\x02ab\x82\x01c");
    }

    #[test]
    fn handshakes_are_looked_at() {
        let asked = |changed: &str, value: Option<&str>| {
            let mut headers = HeaderMap::new();
            for (name, given) in [
                ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
                ("sec-websocket-version", "13"),
                ("origin", "https://dashboard.example.com"),
                ("sec-websocket-protocol", "base64.binary.k8s.io, base64url.bearer.authorization.k8s.io.abc"),
            ] {
                let given = if name == changed { value } else { Some(given) };
                if let Some(given) = given {
                    headers.insert(name, HeaderValue::from_str(given).expect("a header"));
                }
            }
            handshake(&headers)
        };
        let accepted = asked("", None).expect("a handshake");
        assert_eq!(accepted[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accepted[SEC_WEBSOCKET_PROTOCOL], "base64.binary.k8s.io");
        assert!(asked("sec-websocket-protocol", None).is_ok());
        for (name, value, code) in [
            ("sec-websocket-key", None, 400),
            ("sec-websocket-version", Some("8"), 400),
            ("sec-websocket-protocol", Some("a, b"), 400),
            ("origin", None, 403),
        ] {
            assert_eq!(asked(name, value).expect_err(name).0.as_u16(), code);
        }
    }
}
