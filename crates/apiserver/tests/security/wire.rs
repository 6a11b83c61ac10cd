//! Over real TLS: certificates, tokens, upgrades to a kubelet.

use crate::cluster::{Client, Cluster, Options, audited, pod, start_with};
use apiserver::security::KubeletSettings;
use apiserver::streams::kubelet::KubeletTls;
use apiserver::tls::{Identity, ServerTls, TlsSettings};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, ServerName, pem::PemObject};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test authority");
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

pub fn issue(authority: &Authority, name: &str, groups: &[&str], usage: ExtendedKeyUsagePurpose) -> Identity {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, authority).expect("a certificate");
    Identity { certificate: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() }
}

fn roots(authority: &Authority) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    roots
}

/// A client of the port, with or without a certificate.
pub fn connector(authority: &Authority, identity: Option<&Identity>) -> TlsConnector {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(authority));
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = apiserver::tls::certificates("test", &identity.certificate).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(&identity.key).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a client certificate")
        }
    };
    TlsConnector::from(Arc::new(config))
}

pub struct Wire {
    pub cluster: Cluster,
    pub authority: Authority,
    pub address: SocketAddr,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub async fn serve(options: impl FnOnce(&Authority) -> Options) -> Wire {
    let authority = authority();
    let options = Options { client_ca: authority.pem().into_bytes(), ..options(&authority) };
    let cluster = start_with(options).await;
    let tls = ServerTls::new(&TlsSettings {
        default: issue(&authority, "kube-apiserver", &[], ExtendedKeyUsagePurpose::ServerAuth),
        by_name: Vec::new(),
        client_authorities: authority.pem().into_bytes(),
        tls13_only: false,
        suites: None,
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(cluster.server.clone().serve(listener, tls.expect("TLS"), shutdown.clone()));
    Wire { cluster, authority, address, shutdown, serving }
}

impl Wire {
    async fn ask(&self, identity: Option<&Identity>, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = connector(&self.authority, identity).connect(name, stream).await.expect("TLS");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        let mut request = http::Request::get(path).header(http::header::HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response =
            sender.send_request(request.body(Full::<Bytes>::default()).expect("a request")).await.expect("an answer");
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }
}

impl Wire {
    /// What comes back for bytes that are sent as they are, until the server closes.
    async fn exchange(&self, request: &str) -> String {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = connector(&self.authority, None).connect(name, stream).await.expect("TLS");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        // The server may close without a farewell of TLS.
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn ask_http2(&self, identity: &Identity, target: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let stream = TcpStream::connect(self.address).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = connector(&self.authority, Some(identity)).connect(name, stream).await.expect("TLS");
        let executor = hyper_util::rt::TokioExecutor::new();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut request = http::Request::get(format!("https://localhost{target}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Full::<Bytes>::default()).expect("a request"));
        let response = response.await.expect("an answer");
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (code, String::from_utf8_lossy(&body).into_owned())
    }
}

#[tokio::test]
async fn long_paths_and_many_headers_are_taken_or_refused_in_so_many_words() {
    let wire = serve(|_| Options::default()).await;
    let admin = issue(&wire.authority, "admin", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    let selecting = |names: usize| {
        let names: Vec<String> = (0..names).map(|i| format!("application-{i:08}")).collect();
        format!("/api/v1/pods?labelSelector=app%20in%20({})", names.join(","))
    };
    let long = selecting(1500);
    assert_eq!(wire.ask_http2(&admin, &long, &[]).await.0, 200);
    assert_eq!(wire.ask(Some(&admin), &long, &[]).await.0, 200);
    let groups: Vec<String> = (0..500).map(|i| format!("group-{i}")).collect();
    let mut acting: Vec<(&str, &str)> = groups.iter().map(|group| ("impersonate-group", group.as_str())).collect();
    acting.extend([("impersonate-user", "jane"), ("impersonate-group", "system:masters")]);
    assert_eq!(wire.ask_http2(&admin, "/api/v1/pods", &acting).await.0, 200);
    assert_eq!(wire.ask(Some(&admin), "/api/v1/pods", &acting).await.0, 200);
    // The longest that this client can write.
    let longest = format!("/api/v1/pods?labelSelector={}", "a".repeat(65_480));
    assert_eq!(wire.ask_http2(&admin, &longest, &[("user-agent", "kubectl")]).await.0, 431);
    let longer = format!("GET {longest}{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(100));
    let answer = wire.exchange(&longer).await;
    assert!(answer.starts_with("HTTP/1.1 414 URI Too Long\r\n"), "{answer}");
    let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(1001));
    let answer = wire.exchange(&many).await;
    assert!(answer.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{answer}");
}

#[tokio::test]
async fn a_request_names_one_host() {
    let wire = serve(|_| Options::default()).await;
    for (head, first, text) in [
        (
            "GET /healthz HTTP/1.1\r\n",
            "HTTP/1.1 400 Bad Request: missing required Host header",
            "400 Bad Request: missing required Host header",
        ),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a\r\n", "HTTP/1.1 400 Bad Request", "400 Bad Request"),
        (
            "GET /healthz HTTP/1.1\r\nHost: a b\r\n",
            "HTTP/1.1 400 Bad Request: malformed Host header",
            "400 Bad Request: malformed Host header",
        ),
        ("GET /healthz HTTP/1.0\r\n", "HTTP/1.0 200 OK", "ok"),
        ("GET /healthz HTTP/1.1\r\nHost:\r\nConnection: close\r\n", "HTTP/1.1 200 OK", "ok"),
    ] {
        let answer = wire.exchange(&format!("{head}\r\n")).await;
        assert_eq!(answer.lines().next(), Some(first), "{answer}");
        assert!(answer.ends_with(&format!("\r\n\r\n{text}")), "{answer}");
    }
}

#[tokio::test]
async fn who_shows_nothing_sees_health_alone() {
    let wire = serve(|_| Options::default()).await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(wire.ask(None, path, &[]).await.0, 200, "{path}");
    }
    for path in ["/api", "/api/v1/namespaces", "/metrics", "/openapi/v2"] {
        let (code, body) = wire.ask(None, path, &[]).await;
        assert_eq!(code, 401, "{path}");
        assert!(
            body.contains("\"message\":\"Unauthorized\"") || body.contains("\"message\": \"Unauthorized\""),
            "{body}"
        );
    }
    assert_eq!(
        wire.ask(None, "/healthz", &[("authorization", "Bearer nonsense")]).await.0,
        401,
        "bad credentials are refused"
    );
}

#[tokio::test]
async fn a_refused_login_is_recorded_once_with_what_it_tried() {
    let (audit, log) = audited("rules: [{level: Metadata}]", apiserver::audit::Mode::Blocking);
    let wire = serve(|_| Options { audit: Some(audit), ..Options::default() }).await;
    assert_eq!(wire.ask(None, "/api/v1/secrets", &[]).await.0, 401);
    assert_eq!(wire.ask(None, "/api/v1/secrets", &[("authorization", "Bearer nonsense")]).await.0, 401);
    let foreign = issue(&wire.authority, "jane", &[], ExtendedKeyUsagePurpose::ServerAuth);
    let shown = wire.ask(Some(&foreign), "/api/v1/secrets", &[("authorization", "Basic YTpi")]).await.0;
    let recorded = log.events(3, |event| event["responseStatus"]["code"] == 401).await;
    for (event, why) in recorded.iter().zip([
        "Authentication failed, no credentials provided",
        "Authentication failed, attempted: bearer",
        "Authentication failed, attempted: basic, x509",
    ]) {
        assert_eq!((&event["stage"], &event["user"]), (&json!("ResponseStarted"), &json!({})), "{event}");
        assert_eq!(event["responseStatus"]["message"], why);
        assert_eq!(event["objectRef"]["resource"], "secrets");
    }
    assert_eq!(shown, 401);
}

#[tokio::test]
async fn certificates_name_users_and_foreign_ones_nobody() {
    let wire = serve(|_| Options::default()).await;
    let admin = issue(&wire.authority, "admin", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    assert_eq!(wire.ask(Some(&admin), "/api/v1/namespaces", &[]).await.0, 200);
    let jane = issue(&wire.authority, "jane", &["devs"], ExtendedKeyUsagePurpose::ClientAuth);
    let (code, body) = wire.ask(Some(&jane), "/api/v1/namespaces", &[]).await;
    assert_eq!(code, 403);
    assert!(body.contains("User \\\"jane\\\" cannot list resource \\\"namespaces\\\""), "{body}");
    let foreign = issue(&authority(), "admin", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    assert_eq!(wire.ask(Some(&foreign), "/api/v1/namespaces", &[]).await.0, 401);
    let (code, body) = wire.ask(Some(&admin), "/api/v1/namespaces", &[("impersonate-user", "jane")]).await;
    assert_eq!(code, 403, "{body}");
}

#[tokio::test]
async fn tokens_of_files_and_service_accounts_name_users() {
    let wire = serve(|_| Options { token_file: "secret,joe,7,\"system:masters\"", ..Options::default() }).await;
    assert_eq!(wire.ask(None, "/api/v1/namespaces", &[("authorization", "Bearer secret")]).await.0, 200);
    wire.cluster.service_account("default", "sa").await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let path = "/api/v1/namespaces/default/serviceaccounts/sa/token";
    let answer = wire.cluster.admin().post(path, request).await.expect(201);
    let header = format!("Bearer {}", answer["status"]["token"].as_str().expect("a token"));
    let (code, body) = wire.ask(None, "/api/v1/namespaces", &[("authorization", &header)]).await;
    assert_eq!(code, 403);
    assert!(body.contains("system:serviceaccount:default:sa"), "{body}");
    assert_eq!(wire.ask(None, "/openid/v1/jwks", &[("authorization", &header)]).await.0, 200);
}

/// A kubelet that answers logs, and echoes whatever comes after an upgrade.
async fn kubelet(authority: &Authority) -> SocketAddr {
    let identity = issue(authority, "system:node:n1", &["system:nodes"], ExtendedKeyUsagePurpose::ServerAuth);
    let chain = apiserver::tls::certificates("test", &identity.certificate).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(&identity.key).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)), provider.clone());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients.build().expect("a verifier"))
        .with_single_cert(chain, key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let first = head.lines().next().unwrap_or_default().to_owned();
                if head.to_ascii_lowercase().contains("upgrade: spdy/3.1") {
                    let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
                    let told = format!("{first}\n");
                    for bytes in [answer.as_bytes(), told.as_bytes()] {
                        if stream.write_all(bytes).await.is_err() {
                            return;
                        }
                    }
                    let (mut read, mut write) = tokio::io::split(stream);
                    drop(tokio::io::copy(&mut read, &mut write).await);
                } else if first.contains("previous=true") {
                    let text = "previous terminated container \"c\" in pod \"p\" not found";
                    let answer = format!("HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\n\r\n{text}", text.len());
                    drop(stream.write_all(answer.as_bytes()).await);
                } else {
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: max-age=60\r\n\r\n{first}",
                        first.len()
                    );
                    drop(stream.write_all(answer.as_bytes()).await);
                }
            });
        }
    });
    address
}

/// A wire with a kubelet, and a pod bound to its node.
pub async fn with_pod() -> Wire {
    let kubelets = authority();
    let address = kubelet(&kubelets).await;
    let wire = serve(|_| Options {
        kubelets: Some(KubeletSettings {
            tls: KubeletTls {
                identity: issue(
                    &kubelets,
                    "kube-apiserver-kubelet-client",
                    &["system:masters"],
                    ExtendedKeyUsagePurpose::ClientAuth,
                ),
                authorities: kubelets.pem().into_bytes(),
            },
            preferred: Vec::new(),
            resolve: None,
        }),
        ..Options::default()
    })
    .await;
    let admin = wire.cluster.admin();
    wire.cluster.service_account("default", "default").await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}});
    admin.post("/api/v1/nodes", node).await.expect(201);
    let status = json!({"status": {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port()}}
    }});
    admin.patch("/api/v1/nodes/n1/status", status).await.expect(200);
    admin.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    wire
}

pub async fn bind(admin: &Client) {
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    admin.post("/api/v1/namespaces/default/pods/p/binding", binding).await.expect(201);
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let wire = with_pod().await;
    let admin = wire.cluster.admin();
    let log = "/api/v1/namespaces/default/pods/p/log";
    assert_eq!(admin.get(log).await.code, 204, "nothing yet: the pod has no node");
    bind(&admin).await;
    let answer = admin.get(&format!("{log}?tailLines=5&follow=true")).await;
    assert_eq!(answer.code, 200);
    assert_eq!(
        answer.headers.get_all("cache-control").iter().collect::<Vec<_>>(),
        ["no-cache, private"],
        "logs are not proxied"
    );
    assert_eq!(answer.body, "GET /containerLogs/default/p/c?follow=true&tailLines=5 HTTP/1.1");
    let previous = admin.get(&format!("{log}?previous=true")).await;
    assert_eq!(
        (previous.code, previous.message()),
        (400, "previous terminated container \"c\" in pod \"p\" not found")
    );
    let other = admin.get(&format!("{log}?container=x")).await;
    assert_eq!((other.code, other.message()), (400, "container x is not valid for pod p"));
    assert_eq!(admin.get(&format!("{log}?tailLines=-1")).await.code, 422);
    // Nobody listens there.
    let status = json!({"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 1}}}});
    admin.patch("/api/v1/nodes/n1/status", status).await.expect(200);
    let gone = admin.get(log).await;
    assert_eq!(gone.code, 500);
    assert!(gone.message().ends_with("dial tcp 127.0.0.1:1: connect: connection refused"), "{}", gone.body);
    assert!(gone.message().starts_with("Get \"https://127.0.0.1:1/containerLogs/default/p/c\": "), "{}", gone.body);
}

const EXEC: &str = "/api/v1/namespaces/default/pods/p/exec?command=sh&stdin=true&stdout=true";

type Tunnel = tokio_rustls::client::TlsStream<TcpStream>;

/// Asks, as an administrator, for another protocol; the head of the answer, and the connection.
async fn upgrade(wire: &Wire, path: &str) -> (String, Tunnel) {
    let admin = issue(&wire.authority, "admin", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    let stream = TcpStream::connect(wire.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = connector(&wire.authority, Some(&admin)).connect(name, stream).await.expect("TLS");
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("written");
    let head = until(&mut stream, b"\r\n\r\n").await;
    (String::from_utf8_lossy(&head).into_owned(), stream)
}

/// What comes until its end.
async fn until(stream: &mut Tunnel, end: &[u8]) -> Vec<u8> {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        read.push(stream.read_u8().await.expect("a byte"));
    }
    read
}

/// As upstream, which waits for nothing that was hijacked.
#[tokio::test]
async fn a_server_that_stops_waits_for_no_upgraded_connection_and_leaves_it_alone() {
    let mut wire = with_pod().await;
    bind(&wire.cluster.admin()).await;
    let (head, mut stream) = upgrade(&wire, EXEC).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    until(&mut stream, b"\n").await;
    wire.shutdown.cancel();
    // Less than what requests are given to end.
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(8), &mut wire.serving).await;
    stopped.expect("it waits for nobody").expect("it stops");
    stream.write_all(b"still here\n").await.expect("written");
    stream.flush().await.expect("flushed");
    assert_eq!(until(&mut stream, b"\n").await, b"still here\n");
}

#[tokio::test]
async fn an_upgraded_connection_reaches_the_kubelet_byte_by_byte() {
    let wire = with_pod().await;
    let (head, _) = upgrade(&wire, EXEC).await;
    assert!(head.starts_with("HTTP/1.1 400"), "the pod has no node: {head}");
    bind(&wire.cluster.admin()).await;
    let (head, mut stream) = upgrade(&wire, EXEC).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_ascii_lowercase().contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
    let line = until(&mut stream, b"\n").await;
    assert_eq!(line, b"POST /exec/default/p/c?input=1&output=1&command=sh HTTP/1.1\n");
    let sent: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let (mut read, mut write) = tokio::io::split(stream);
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&copy).await.expect("written");
        write.flush().await.expect("flushed");
        write
    });
    let mut echoed = vec![0; sent.len()];
    read.read_exact(&mut echoed).await.expect("echoed");
    assert_eq!(echoed, sent);
    drop(writer.await);
    let (head, _) = upgrade(&wire, "/api/v1/namespaces/default/pods/p/portforward").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
}

#[tokio::test]
async fn streams_need_the_right_to_create() {
    let wire = with_pod().await;
    bind(&wire.cluster.admin()).await;
    let admin = wire.cluster.admin();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "looks"},
        "rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]
    });
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "looks"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "looks"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]
    });
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    let jane = wire.cluster.user("jane", &[]);
    let refused = jane.get("/api/v1/namespaces/default/pods/p/exec?command=id").await;
    assert_eq!(refused.code, 403);
    assert!(refused.message().contains("cannot create resource \"pods/exec\""), "{}", refused.body);
    let plain = admin.get("/api/v1/namespaces/default/pods/p/exec?command=id").await;
    assert_eq!((plain.code, plain.message()), (400, "Upgrade request required"));
}

#[tokio::test]
async fn a_node_is_reached_through_its_proxy() {
    let wire = with_pod().await;
    let admin = wire.cluster.admin();
    let answer = admin.get("/api/v1/nodes/n1/proxy/stats/summary?x=1").await;
    let cached: Vec<_> = answer.headers.get_all("cache-control").iter().collect();
    assert_eq!(cached, ["no-cache, private", "max-age=60"], "beside what the backend says");
    assert_eq!((answer.code, answer.body), (200, json!("GET /stats/summary?x=1 HTTP/1.1")));
    assert_eq!(admin.get("/api/v1/nodes/n1/proxy").await.code, 301);
    assert_eq!(admin.get("/api/v1/nodes/none/proxy/").await.code, 404);
}
