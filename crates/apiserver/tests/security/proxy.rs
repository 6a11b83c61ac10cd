//! `/proxy` of pods, services and nodes: every verb, upgrades, redirects, and what is rewritten. In a network namespace of the
//! test's own, because this machine's own addresses are out of the proxy's reach.

use crate::cluster::{Client, pod};
use crate::wire::{Wire, connector, issue, with_pod};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::sched::{CloneFlags, unshare};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::process::Command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The pods' address.
const ADDRESS: &str = "10.9.9.9";

/// A network of this thread's own, with the address on its loopback. `false`: this user may not make one.
fn alone() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
    for words in ["link set lo up", &format!("addr add {ADDRESS}/32 dev lo")] {
        let output = Command::new("ip").args(words.split(' ')).output().expect("iproute2");
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    }
    true
}

/// Tells what it was asked, redirects below `/moved`, shows a page, and echoes what comes after an upgrade.
async fn backend() -> u16 {
    let listener = TcpListener::bind((ADDRESS, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let serving = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(move |request| answer(request, port)))
                .with_upgrades();
            tokio::spawn(serving);
        }
    });
    port
}

async fn answer(
    mut request: http::Request<Incoming>,
    port: u16,
) -> Result<http::Response<Full<bytes::Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let response = http::Response::builder();
    if let Some(to) = path.strip_prefix("/moved/") {
        let location = if to == "host" { format!("http://{ADDRESS}:{port}/there") } else { format!("/{to}") };
        return Ok(response.status(302).header("location", location).body(Full::default()).expect("a response"));
    }
    if request.headers().contains_key("upgrade") {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.expect("upgraded")));
            tokio::io::copy(&mut read, &mut write).await.ok();
        });
        let switch = response.status(101).header("connection", "upgrade").header("upgrade", "echo");
        return Ok(switch.body(Full::default()).expect("a response"));
    }
    let text = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let mut told = json!({
        "method": request.method().as_str(), "target": request.uri().to_string(), "uri": text("x-forwarded-uri"),
        "kept": text("x-kept"), "authorization": text("authorization"), "impersonate": text("impersonate-user"),
    });
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    told["body"] = String::from_utf8_lossy(&body).into_owned().into();
    Ok(response.status(207).header("x-own", "yes").body(Full::from(told.to_string())).expect("a response"))
}

/// The wire of a pod and a service that lead to a backend.
async fn ready() -> (Wire, u16) {
    let wire = with_pod().await;
    let port = backend().await;
    let admin = wire.cluster.admin();
    let mut web = pod("web");
    web["spec"]["containers"][0]["ports"] = json!([{"containerPort": port}]);
    admin.post("/api/v1/namespaces/default/pods", web).await.expect(201);
    let status = json!({"status": {"podIP": ADDRESS, "podIPs": [{"ip": ADDRESS}]}});
    admin.patch("/api/v1/namespaces/default/pods/web/status", status).await.expect(200);
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    admin.post("/api/v1/namespaces/default/services", service).await.expect(201);
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": true}}]});
    admin.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await.expect(201);
    (wire, port)
}

async fn told(admin: &Client, method: &str, path: &str, body: Option<Value>) -> Value {
    let answer = admin.send(method, path, "text/plain", body).await;
    assert_eq!(answer.code, 207, "{method} {path}: {}", answer.body);
    answer.body
}

#[tokio::test]
async fn pods_and_services_are_reached_through_their_proxies() {
    if !alone() {
        return;
    }
    let (wire, port) = ready().await;
    let admin = wire.cluster.admin();
    let pods = "/api/v1/namespaces/default/pods";
    let services = "/api/v1/namespaces/default/services";
    let places = [
        format!("{pods}/web/proxy"),
        format!("{pods}/web:{port}/proxy"),
        format!("{pods}/http:web:{port}/proxy"),
        format!("{services}/web/proxy"),
        format!("{services}/web:80/proxy"),
        format!("{services}/web:http/proxy"),
        format!("{services}/http:web:http/proxy"),
    ];
    for place in &places {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let body = matches!(method, "POST" | "PUT" | "PATCH").then(|| json!("sent"));
            let asked = told(&admin, method, &format!("{place}/a%20b/c?x=1&x=2"), body.clone()).await;
            assert_eq!((&asked["method"], &asked["target"]), (&json!(method), &json!("/a%20b/c?x=1&x=2")), "{place}");
            assert_eq!(asked["body"], body.map_or(String::new(), |body| body.to_string()));
            assert_eq!(asked["uri"], format!("{place}/a%20b/c"));
        }
        assert_eq!(told(&admin, "GET", &format!("{place}/"), None).await["target"], "/");
        // Without a slash at its end relative links would lead beside it.
        assert_eq!(admin.get(&format!("{place}?q=1")).await.code, 301);
        assert_eq!(told(&admin, "POST", place, Some(json!("x"))).await["target"], "/");
    }
    let gone = admin.get(&format!("{pods}/none/proxy/")).await;
    assert_eq!((gone.code, gone.message()), (404, "pods \"none\" not found"));
    let no_port = admin.get(&format!("{services}/web:other/proxy/")).await;
    assert_eq!(no_port.message(), "no service port \"other\" found for service \"web\"");
    assert_eq!(no_port.code, 503);
    let closed = admin.get(&format!("{pods}/web:1/proxy/")).await;
    assert_eq!(closed.code, 503);
    assert!(closed.message().starts_with("error trying to reach service: dial tcp"), "{}", closed.body);
    // Who may not, is not let through, whatever the verb.
    let jane = wire.cluster.user("jane", &[]);
    for (method, verb) in [("GET", "get"), ("POST", "create"), ("PUT", "update"), ("DELETE", "delete")] {
        let refused = jane.send(method, &format!("{services}/web/proxy/"), "text/plain", None).await;
        assert_eq!(refused.code, 403);
        assert!(refused.message().contains(&format!("cannot {verb} resource \"services/proxy\"")), "{}", refused.body);
    }
}

#[tokio::test]
async fn redirects_and_upgrades_go_through_the_proxy() {
    if !alone() {
        return;
    }
    let (wire, port) = ready().await;
    let place = "/api/v1/namespaces/default/services/web/proxy";
    let admin = issue(&wire.authority, "admin", &["system:masters"], ExtendedKeyUsagePurpose::ClientAuth);
    let ask = async |request: String| {
        let stream = TcpStream::connect(wire.address).await.expect("a connection");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut stream = connector(&wire.authority, Some(&admin)).connect(name, stream).await.expect("TLS");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("an answer"));
        }
        (String::from_utf8_lossy(&head).into_owned(), stream)
    };
    for (path, location) in [
        ("moved/login", format!("{place}/login")),
        ("moved/host", format!("{place}/there")),
        ("moved/dir/", format!("{place}/dir/")),
    ] {
        let (head, _) = ask(format!("GET {place}/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        assert!(head.starts_with("HTTP/1.1 302") && head.contains(&format!("location: {location}\r\n")), "{head}");
    }
    let (head, _) = ask(format!("HEAD {place}?a=b HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
    assert!(head.starts_with("HTTP/1.1 301") && head.contains(&format!("location: {place}/?a=b\r\n")), "{head}");
    // The caller's credentials are for this server alone.
    let (head, mut stream) = ask(format!(
        "GET {place}/x HTTP/1.1\r\nHost: localhost\r\nX-Kept: k\r\nConnection: close\r\nImpersonate-User: admin\r\nImpersonate-Group: system:masters\r\n\r\n"
    ))
    .await;
    assert!(head.starts_with("HTTP/1.1 207") && head.contains("x-own: yes\r\n"), "{head}");
    let mut body = String::new();
    stream.read_to_string(&mut body).await.expect("a body");
    assert!(body.contains(r#""kept":"k""#) && body.contains(r#""impersonate":"""#), "{body}");
    let pods = format!("/api/v1/namespaces/default/pods/web:{port}/proxy");
    for place in [place, &pods] {
        let (head, mut stream) = ask(format!(
            "GET {place}/socket HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
        ))
        .await;
        assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: echo\r\n"), "{head}");
        stream.write_all(b"any bytes\n").await.expect("written");
        let mut echoed = [0; 10];
        stream.read_exact(&mut echoed).await.expect("echoed");
        assert_eq!(&echoed, b"any bytes\n");
    }
    // A node's kubelet is reached by every verb as well.
    let admin = wire.cluster.admin();
    for method in ["GET", "POST", "PUT", "DELETE"] {
        let answer = admin.send(method, "/api/v1/nodes/n1/proxy/pods/?x=1", "text/plain", None).await;
        assert_eq!((answer.code, answer.body), (200, json!(format!("{method} /pods/?x=1 HTTP/1.1"))));
    }
}
