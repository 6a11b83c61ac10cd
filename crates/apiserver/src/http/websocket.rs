//! Watches over a WebSocket (RFC 6455), as browsers want them: every event is a message, and of what the client says only pings
//! and its end count.

use super::media::Format;
use super::stream::WatchBody;
use super::{Body, Response};
use crate::authn::tokens::WEBSOCKET_PREFIX;
use crate::handlers::LongRunning;
use api::Status;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{StatusCode, Uri, request};
use http_body_util::BodyExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const VERSION: &str = "13";
/// How long a client may take nothing of what it is told.
const WRITE: Duration = Duration::from_secs(60);
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
/// What a control frame may carry.
const CONTROL_MAX: usize = 125;

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
            if code == StatusCode::BAD_REQUEST {
                refused.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
            }
            return Ok(refused);
        }
    };
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade.ok_or_else(|| Status::internal("the connection can't become a WebSocket"))?;
    let held = parts.extensions.remove::<LongRunning>();
    tokio::spawn(async move {
        let _held = held;
        let told = match upgrade.await {
            Ok(stream) => tell(stream, format, body).await,
            Err(error) => Err(std::io::Error::other(error)),
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
    if let Ok(value) = HeaderValue::from_str(&accept_key(key)) {
        accepted.insert(SEC_WEBSOCKET_ACCEPT, value);
    }
    if let Some(value) = protocol.and_then(|name| HeaderValue::from_str(name).ok()) {
        accepted.insert(SEC_WEBSOCKET_PROTOCOL, value);
    }
    Ok(accepted)
}

/// The answer to a handshake's key.
fn accept_key(key: &str) -> String {
    const SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.as_bytes());
    context.update(SALT.as_bytes());
    STANDARD.encode(context.finish())
}

/// Tells a watch until either side ends it.
async fn tell(stream: Upgraded, format: Format, mut body: WatchBody) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(stream));
    let mut client = Client::default();
    let mut input = [0; 1024];
    let mut out = Vec::new();
    loop {
        out.clear();
        let ends = tokio::select! {
            read = reader.read(&mut input) => match read? {
                0 => return Ok(()),
                length => client.says(&input[..length], &mut out),
            },
            frame = body.frame() => match frame {
                Some(Ok(frame)) => {
                    if let Ok(piece) = frame.into_data() {
                        put_events(format, &piece, &mut out);
                    }
                    false
                }
                Some(Err(error)) => return Err(std::io::Error::other(error)),
                None => true,
            },
        };
        if ends {
            put(CLOSE, &1000u16.to_be_bytes(), &mut out);
        }
        // Who does not read is left.
        let written = async {
            writer.write_all(&out).await?;
            writer.flush().await
        };
        tokio::time::timeout(WRITE, written).await??;
        if ends {
            return writer.shutdown().await;
        }
    }
}

/// Appends the events of a piece of a watch's body, each as a message.
fn put_events(format: Format, piece: &Bytes, out: &mut Vec<u8>) {
    if format == Format::Protobuf {
        let mut rest: &[u8] = piece;
        // Each has its length before it, which a message has no need of.
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX).min(after.len());
            put(BINARY, &after[..length], out);
            rest = &after[length..];
        }
        return;
    }
    piece.split_inclusive(|byte| *byte == b'\n').for_each(|event| put(TEXT, event, out));
}

fn put(operation: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x80 | operation);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// What a client says, which is passed over.
#[derive(Default)]
struct Client {
    /// The beginning of a frame that is not whole yet.
    begun: Vec<u8>,
    /// What is left of a frame whose content does not matter.
    skipped: u64,
}

impl Client {
    /// Takes bytes, and answers the pings among them. `true`: the client ends it, or says what is no WebSocket.
    fn says(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> bool {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.skipped).unwrap_or(usize::MAX).min(bytes.len());
            self.skipped -= skipped as u64;
            bytes = &bytes[skipped..];
            let Some((first, rest)) = bytes.split_first() else { break };
            self.begun.push(*first);
            bytes = rest;
            let head = self.begun.as_slice();
            let [operation, length, ..] = *head else { continue };
            let (operation, short) = (operation & 0x0f, usize::from(length & 0x7f));
            // Clients' frames are masked; control frames are short.
            if length & 0x80 == 0 || operation >= CLOSE && short > CONTROL_MAX {
                return true;
            }
            let size = match short {
                126 => 4,
                127 => 10,
                _ => 2,
            };
            let Some((_, after)) = head.split_at_checked(size) else { continue };
            let Some((mask, payload)) = after.split_first_chunk::<4>() else { continue };
            match operation {
                CLOSE => return true,
                PING if payload.len() < short => continue,
                PING => {
                    let plain: Vec<u8> =
                        payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect();
                    put(PONG, &plain, out);
                }
                _ => {
                    let mut wide = [0; 8];
                    wide[10 - size..].copy_from_slice(&head[2..size]);
                    self.skipped = if size == 2 { short as u64 } else { u64::from_be_bytes(wide) };
                }
            }
            self.begun.clear();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame.
    fn said(operation: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        put(operation, payload, &mut frame);
        let head = frame.len() - payload.len();
        frame[1] |= 0x80;
        let mask = [1, 2, 3, 4];
        let mut masked = frame[..head].to_vec();
        masked.extend_from_slice(&mask);
        masked.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
        masked
    }

    #[test]
    fn what_a_client_says_is_passed_over_but_for_pings_and_the_end() {
        let mut bytes = Vec::new();
        for length in [0, 5, 125, 126, 70_000] {
            bytes.extend(said(BINARY, &vec![PING; length]));
            bytes.extend(said(PING, format!("p{length}").as_bytes()));
        }
        let mut wanted = Vec::new();
        for length in [0, 5, 125, 126, 70_000] {
            put(PONG, format!("p{length}").as_bytes(), &mut wanted);
        }
        for cut in [1, 7, 4096, bytes.len()] {
            let (mut client, mut out) = (Client::default(), Vec::new());
            assert!(!bytes.chunks(cut).any(|chunk| client.says(chunk, &mut out)));
            assert_eq!(out, wanted);
            assert!(client.says(&said(CLOSE, &[]), &mut out));
        }
        assert!(Client::default().says(&[0x80 | TEXT, 1, b'x'], &mut Vec::new()), "it must be masked");
    }

    #[test]
    fn events_are_messages() {
        let mut out = Vec::new();
        put_events(Format::Json, &Bytes::from_static(b"{\"a\":1}\n{}\n"), &mut out);
        assert_eq!(out, b"\x81\x08{\"a\":1}\n\x81\x03{}\n");
        out.clear();
        put_events(Format::Protobuf, &Bytes::from_static(b"\0\0\0\x02ab\0\0\0\x01c"), &mut out);
        assert_eq!(out, b"\x82\x02ab\x82\x01c");
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
