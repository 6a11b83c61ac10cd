//! Who reads a watch too slowly: the stream ends, and what was sent of it has no gap.

use crate::cluster::Options;
use crate::wire::{connector, issue, serve};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpStream;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// More than the server keeps for a watcher, with what fits into sockets on the way.
const WRITES: usize = 48;
const SIZE: usize = 1_000_000;

#[tokio::test]
async fn a_slow_watcher_is_dropped_and_never_skips() {
    let wire = serve(|_| Options::default()).await;
    let admin = issue(&wire.authority, "admin", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    let client = wire.cluster.admin();
    let first = client.post(MAPS, json!({"metadata": {"name": "m"}})).await.expect(201);
    let from = first["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();

    let stream = TcpStream::connect(wire.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = connector(&wire.authority, Some(&admin)).connect(name, stream).await.expect("TLS");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let request = http::Request::get(format!("{MAPS}?watch=1&resourceVersion={from}"))
        .header(http::header::HOST, "localhost")
        .body(Empty::<bytes::Bytes>::new())
        .expect("a request");
    let mut slow = sender.send_request(request).await.expect("a watch").into_body();

    let mut versions = Vec::new();
    for i in 0..WRITES {
        let data = json!({"data": {"v": char::from(b'a' + (i % 26) as u8).to_string().repeat(SIZE)}});
        let written = client.patch(&format!("{MAPS}/m"), data).await.expect(200);
        versions.push(written["metadata"]["resourceVersion"].as_str().expect("a version").to_owned());
    }

    let mut text = Vec::new();
    let read = async {
        while let Some(frame) = slow.frame().await {
            match frame {
                Ok(frame) => text.extend_from_slice(frame.data_ref().expect("data")),
                // Cut in the middle of an event: what is whole still counts.
                Err(_) => break,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), read).await.expect("the stream ends");
    let told: Vec<String> = text
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
        .map(|line| serde_json::from_slice::<Value>(line).expect("an event"))
        .map(|event| event["object"]["metadata"]["resourceVersion"].as_str().expect("a version").to_owned())
        .collect();
    assert!(told.len() < WRITES, "nobody was slow: the test shows nothing");
    assert_eq!(told[..], versions[..told.len()], "what was told is all that happened up to somewhere");
    // Whoever begins again where it ended sees the rest.
    let last = told.last().unwrap_or(&from);
    let rest = client.get(&format!("{MAPS}?watch=1&timeoutSeconds=1&resourceVersion={last}")).await;
    let rest = rest.body.as_str().expect("events").lines().count();
    assert_eq!(told.len() + rest, WRITES);
}
