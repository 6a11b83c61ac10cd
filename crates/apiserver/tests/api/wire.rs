//! Over TLS, with a client that was not made for this server; and the formats of the wire.

use crate::client::{Certified, Server};
use apiserver::tls::{Identity, ServerTls, TlsSettings};
use apiserver::user::UserInfo;
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "ca");
        Authority(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, names: &[&str], purpose: ExtendedKeyUsagePurpose) -> Identity {
        let mut parameters = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        parameters.extended_key_usages = vec![purpose];
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "leaf");
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        Identity { certificate: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() }
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// A server on a port of its own, who vouches for it and its clients, and its end.
async fn listening() -> (Server, Authority, u16, CancellationToken, tokio::task::JoinHandle<()>) {
    let server = Server::start_with(Arc::new(Certified)).await;
    let authority = Authority::new();
    let tls = ServerTls::new(&TlsSettings {
        default: authority.issue(&["localhost"], ExtendedKeyUsagePurpose::ServerAuth),
        by_name: Vec::new(),
        client_authorities: authority.pem().into_bytes(),
        tls13_only: false,
        suites: None,
    })
    .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server.api.clone().serve(listener, tls, shutdown.clone()));
    (server, authority, port, shutdown, serving)
}

/// A server on a port of its own, and a client that shows it a certificate.
async fn over_tls() -> (Server, kube::Client, CancellationToken, tokio::task::JoinHandle<()>) {
    let (server, authority, port, shutdown, serving) = listening().await;
    let own = authority.issue(&["client"], ExtendedKeyUsagePurpose::ClientAuth);
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "t",
        "clusters": [{"name": "t", "cluster": {"server": format!("https://localhost:{port}"),
            "certificate-authority-data": base64(authority.pem().as_bytes())}}],
        "users": [{"name": "t", "user": {"client-certificate-data": base64(&own.certificate), "client-key-data": base64(&own.key)}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}],
    });
    let kubeconfig: kube::config::Kubeconfig = serde_json::from_value(kubeconfig).unwrap();
    let config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await.unwrap();
    (server, kube::Client::try_from(config).unwrap(), shutdown, serving)
}

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"v": value}})).unwrap()
}

/// What a typed client does with a kind.
async fn exercise(client: kube::Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let stream = watcher(maps.clone(), watcher::Config::default().streaming_lists()).applied_objects();
    let mut stream = std::pin::pin!(stream);
    maps.create(&PostParams::default(), &map("a", "1")).await.unwrap();
    let patch = json!({"data": {"v": "2"}});
    maps.patch("a", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(20), async {
        while let Some(object) = stream.next().await {
            if object.unwrap().data.unwrap_or_default().get("v").is_some_and(|v| v == "2") {
                return true;
            }
        }
        false
    });
    assert!(seen.await.unwrap());
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .unwrap();
    let made = pods.create(&PostParams::default(), &pod).await.unwrap();
    assert_eq!(made.spec.unwrap().restart_policy.as_deref(), Some("Always"));
    let apply = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"v": "3"}});
    maps.patch("b", &PatchParams::apply("kube"), &Patch::Apply(&apply)).await.unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 2);
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    let gone = maps.get("a").await.unwrap_err();
    assert!(matches!(gone, kube::Error::Api(status) if status.code == 404));
}

#[tokio::test]
async fn a_client_over_tls() {
    let (server, client, shutdown, serving) = over_tls().await;
    exercise(client.clone()).await;
    // A watch that is open ends when the server stops, and the server stops.
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let mut open = maps.watch(&kube::api::WatchParams::default(), "0").await.unwrap().boxed();
    open.try_next().await.unwrap().unwrap();
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(20), serving).await.expect("it stops").unwrap();
    while let Ok(Some(_)) = open.try_next().await {}
    drop(server);
}

#[tokio::test]
async fn a_client_within_the_process() {
    let server = Server::start().await;
    let service = server.api.local_service(UserInfo::new("system:controller", ["system:masters"]));
    exercise(kube::Client::new(service, "default")).await;
}

#[tokio::test]
async fn who_shows_no_certificate_is_refused() {
    let (server, authority, port, shutdown, serving) = listening().await;
    // The in-process identity is what its service was made with; no header makes another of it.
    let answer = server.client().raw(http::Method::GET, "/api/v1/pods", &[("authorization", "Bearer x")], "").await;
    assert_eq!(answer.code, 200);
    let mut config = kube::Config::new(format!("https://localhost:{port}").parse().unwrap());
    config.root_cert = Some(vec![authority.0.der().to_vec()]);
    let refused = kube::Client::try_from(config).unwrap().apiserver_version().await.unwrap_err();
    assert!(matches!(refused, kube::Error::Api(status) if status.code == 401 && status.reason == "Unauthorized"));
    shutdown.cancel();
    serving.await.unwrap();
}

/// A stream to a server, by a client who shows a certificate.
async fn dialled(authority: &Authority, port: u16) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    use rustls_pki_types::pem::PemObject;
    let own = authority.issue(&["client"], ExtendedKeyUsagePurpose::ClientAuth);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let chain = vec![rustls_pki_types::CertificateDer::from_pem_slice(&own.certificate).unwrap()];
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(&own.key).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
}

/// Browsers watch over WebSockets: every event is a message of its own.
#[tokio::test]
async fn a_watch_goes_over_a_websocket() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (server, authority, port, shutdown, serving) = listening().await;
    let client = server.client();
    let path = "/api/v1/namespaces/default/configmaps";
    for name in ["a", "b"] {
        client.post(path, &json!({"metadata": {"name": name}})).await.ok();
    }
    let mut stream = dialled(&authority, port).await;
    let request = format!(
        "GET {path}?watch=1&resourceVersion=0 HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nOrigin: https://localhost\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: base64.binary.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{head}");
    assert!(head.contains("sec-websocket-protocol: base64.binary.k8s.io\r\n"), "{head}");
    let mut message = async || {
        let operation = stream.read_u8().await.unwrap();
        let length = match stream.read_u8().await.unwrap() {
            126 => u64::from(stream.read_u16().await.unwrap()),
            127 => stream.read_u64().await.unwrap(),
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        (operation, payload)
    };
    for wanted in ["a", "b"] {
        let (operation, payload) = message().await;
        let event: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!((operation, &event["object"]["metadata"]["name"]), (0x81, &json!(wanted)), "{event}");
    }
    client.delete(&format!("{path}/a")).await.ok();
    let event: serde_json::Value = serde_json::from_slice(&message().await.1).unwrap();
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("a")));
    // A ping is answered; the server's end ends the watch, and is said before the connection ends.
    stream.write_all(&[0x89, 0x81, 0, 0, 0, 0, b'x']).await.unwrap();
    let mut pong = [0; 3];
    stream.read_exact(&mut pong).await.unwrap();
    assert_eq!(&pong, b"\x8a\x01x");
    shutdown.cancel();
    serving.await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\x88\x02\x03\xe8");
}

#[tokio::test]
async fn who_asks_without_tls_is_told_so() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (_server, _, port, shutdown, serving) = listening().await;
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"GET /api HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    shutdown.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn watches_are_told_in_protobuf_and_as_tables() {
    let server = Server::start().await;
    let client = server.client();
    let path = "/api/v1/namespaces/default/configmaps";
    client.post(path, &json!({"metadata": {"name": "a"}, "data": {"k": "v"}})).await.ok();
    let url = format!("{path}?watch=true&resourceVersion=0&timeoutSeconds=1");
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let response = client.send(http::Method::GET, &url, &accept, "").await;
    assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    let event = &bytes[4..4 + length];
    // WatchEvent: 1 is the type, 2 a RawExtension whose 1 is the enveloped object.
    assert_eq!(&event[..7], b"\x0a\x05ADDED");
    let at = event.windows(4).position(|w| w == b"k8s\0").unwrap();
    let row = schema::resource::get("", "v1", "configmaps").unwrap();
    let object = schema::protobuf::decode(row.schema.root(), &event[at..]).unwrap().object;
    assert_eq!(object.str_at(&["data", "k"]), "v");

    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let response = client.send(http::Method::GET, &url, &accept, "").await;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let event: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((event["type"].as_str(), event["object"]["kind"].as_str()), (Some("ADDED"), Some("Table")));
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn bodies_come_in_every_format() {
    let server = Server::start().await;
    let client = server.client();
    let path = "/api/v1/namespaces/default/configmaps";
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yy\ndata:\n  k: v\n";
    let made = client.raw(http::Method::POST, path, &[("content-type", "application/yaml")], yaml).await;
    assert_eq!(made.code, 201, "{}", made.text());
    let accept = [("accept", "application/vnd.kubernetes.protobuf")];
    let bytes = client.raw(http::Method::GET, &format!("{path}/yy"), &accept, "").await.bytes;
    let row = schema::resource::get("", "v1", "configmaps").unwrap();
    let mut object = schema::protobuf::decode(row.schema.root(), &bytes).unwrap().object;
    object.set_at(&["metadata", "name"], "z");
    object.remove_at(&["metadata", "resourceVersion"]);
    let mut body = Vec::new();
    schema::protobuf::encode(row.schema.root(), &object, &mut body).unwrap();
    let made =
        client.raw(http::Method::POST, path, &[("content-type", "application/vnd.kubernetes.protobuf")], body).await;
    assert_eq!(made.code, 201, "{}", made.text());
    assert_eq!(made.json()["data"]["k"], "v");
    let list = client.raw(http::Method::GET, path, &accept, "").await.bytes;
    assert!(list.starts_with(b"k8s\0"));
    let missing = client.raw(http::Method::GET, &format!("{path}/nope"), &accept, "").await;
    assert_eq!(missing.code, 404);
    assert!(missing.bytes.starts_with(b"k8s\0"), "refusals come in the format asked for");
    let huge = format!(r#"{{"metadata":{{"name":"h"}},"data":{{"k":"{}"}}}}"#, "x".repeat(3 << 20));
    assert_eq!(client.raw(http::Method::POST, path, &[("content-type", "application/json")], huge).await.code, 413);
    let deep = format!(r#"{{"metadata":{{"name":"d"}},"data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(client.raw(http::Method::POST, path, &[("content-type", "application/json")], deep).await.code, 400);
}
