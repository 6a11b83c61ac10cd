//! The gRPC health protocol: one message out, one in, so that no generated code is needed.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio_util::task::AbortOnDropHandle;

use super::http::dial;
use crate::{container::service_env::host_port, duration};

const SERVING: u64 = 1;
/// The largest answer that is read, as gRPC's Go client has it.
const LARGEST: usize = 4 << 20;
const UNIMPLEMENTED: &str = "12";

/// Asks a service for its health.
///
/// # Errors
/// Upstream's texts.
pub(crate) async fn check(host: &str, port: u16, service: &str, agent: &str, timeout: Duration) -> Result<(), String> {
    match tokio::time::timeout(timeout, ask(host, port, service, agent)).await {
        Ok(result) => result,
        Err(_) => Err(format!("timeout: health rpc did not complete within {}", duration::go(timeout))),
    }
}

async fn ask(host: &str, port: u16, service: &str, agent: &str) -> Result<(), String> {
    let failed = |why: String| format!("error: health rpc probe failed: {why}");
    let address = host_port(host, i32::from(port));
    let stream =
        dial(host, port).await.map_err(|why| format!("error: failed to connect service {address:?}: {why}"))?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::trace!(%error, "a probe's connection ended");
        }
    }));
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", agent)
        .body(Full::new(encode(service)))
        .map_err(|error| failed(error.to_string()))?;
    let response = sender.send_request(request).await.map_err(|error| failed(error.to_string()))?;
    let mut head = response.headers().clone();
    let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let why = format!("grpc: received message larger than max ({LARGEST})");
            return failed(format!("rpc error: code = ResourceExhausted desc = {why}"));
        }
        failed(error.to_string())
    })?;
    if let Some(trailers) = body.trailers() {
        head.extend(trailers.clone());
    }
    let text = |name: &str| head.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("grpc-status") {
        "" | "0" => {}
        UNIMPLEMENTED => {
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                text("grpc-message")
            ));
        }
        code => {
            return Err(failed(format!("rpc error: code = {code} desc = {}", text("grpc-message"))));
        }
    }
    match decode(&body.to_bytes()) {
        Some(SERVING) => Ok(()),
        status => Err(format!("service unhealthy (responded with {:?})", name(status))),
    }
}

/// A `HealthCheckRequest` in its frame.
fn encode(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.put_u8(u8::try_from(length).unwrap_or_default());
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or_default());
    frame.put(message);
    frame.freeze()
}

/// The status of a `HealthCheckResponse` in its frame; field 1, a varint.
fn decode(frame: &[u8]) -> Option<u64> {
    let length = u32::from_be_bytes(frame.get(1..5)?.try_into().ok()?);
    let message = frame.get(5..5 + usize::try_from(length).ok()?)?;
    match message {
        [] => Some(0),
        [0x08, rest @ ..] => {
            let mut value = 0;
            for (index, byte) in rest.iter().enumerate().take(10) {
                value |= u64::from(byte & 0x7f) << (7 * index);
                if byte & 0x80 == 0 {
                    return Some(value);
                }
            }
            None
        }
        _ => None,
    }
}

fn name(status: Option<u64>) -> &'static str {
    match status {
        Some(0) | None => "UNKNOWN",
        Some(1) => "SERVING",
        Some(2) => "NOT_SERVING",
        Some(_) => "SERVICE_UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container that answers without end must not fill the kubelet's memory while the probe's time lasts.
    #[tokio::test]
    async fn an_answer_without_end_is_not_read() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = |_| async {
                let piece = Bytes::from(vec![0; 64 << 10]);
                let frames = futures::stream::repeat_with(move || {
                    Ok::<_, std::io::Error>(http_body::Frame::data(piece.clone()))
                });
                Ok::<_, std::convert::Infallible>(http::Response::new(http_body_util::StreamBody::new(frames)))
            };
            let service = hyper::service::service_fn(answer);
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await
        });
        let why = check("127.0.0.1", port, "", "kube-probe/1.36", Duration::from_secs(3600)).await.unwrap_err();
        assert!(why.contains("ResourceExhausted"), "{why}");
        // Its connection ends too.
        let _ = server.await.unwrap();
    }

    #[test]
    fn messages_are_framed() {
        assert_eq!(encode("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(encode("ab")[..], [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(encode(&"x".repeat(200)).len(), 5 + 3 + 200);
        assert_eq!(decode(&[0, 0, 0, 0, 2, 0x08, 1]), Some(1));
        assert_eq!(decode(&[0, 0, 0, 0, 0]), Some(0));
        assert_eq!(decode(&[0, 0, 0]), None);
        assert_eq!(name(Some(2)), "NOT_SERVING");
    }
}
