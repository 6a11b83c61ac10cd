//! The Node object, and the node's own API.

#[allow(dead_code, reason = "each test file uses its part of it")]
mod support;

use serde_json::json;
use support::{Node, is_root, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_node_registers_ready_and_renews_its_lease() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let object = node
        .api
        .wait("/api/v1/nodes/n1", |node| {
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True")
        })
        .await;
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(object["status"]["nodeInfo"]["containerRuntimeVersion"], "fake://1.0");
    assert_eq!(object["status"]["addresses"][0], json!({"type": "InternalIP", "address": "192.0.2.1"}));
    assert!(object["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_i64().unwrap() > 0);
    assert_eq!(object["status"]["images"][0]["names"], json!(["image:1"]));
    assert!(object["status"]["capacity"]["memory"].is_string());
    let lease = node
        .api
        .wait("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", |lease| !lease.is_null())
        .await;
    assert_eq!(lease["spec"]["holderIdentity"], "n1");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    assert_eq!(lease["metadata"]["ownerReferences"][0]["uid"], object["metadata"]["uid"]);
    node.api.patch("/api/v1/nodes/n1", json!({"spec": {"podCIDR": "10.244.7.0/24", "podCIDRs": ["10.244.7.0/24"]}}));
    until("the runtime to be told", || node.runtime.calls().contains(&"cidr 10.244.7.0/24".to_owned())).await;
    node.wait_event("n1", "NodeReady: Node n1 status is now: NodeReady").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_node_is_taken_over() {
    if !is_root() {
        return;
    }
    let mut node = Node::start().await;
    node.stop_kubelet().await;
    node.api.patch(
        "/api/v1/nodes/n1",
        json!({"metadata": {"labels": {"mine": "kept", "kubernetes.io/os": null}}, "spec": {"unschedulable": true}}),
    );
    node.start_kubelet(|config| config.version = "v1.36.9".into());
    let object = node.api.wait("/api/v1/nodes/n1", |n| n["status"]["nodeInfo"]["kubeletVersion"] == "v1.36.9").await;
    assert_eq!(object["metadata"]["labels"]["mine"], "kept");
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/os"], "linux");
    assert_eq!(object["spec"]["unschedulable"], true);
    node.wait_event("n1", "NodeNotSchedulable: Node n1 status is now: NodeNotSchedulable").await;
    node.api.patch("/api/v1/nodes/n1", json!({"spec": {"unschedulable": null}}));
    node.wait_event("n1", "NodeSchedulable: Node n1 status is now: NodeSchedulable").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_api_asks_who_and_whether_and_answers() {
    if !is_root() {
        return;
    }
    let node = Node::start().await;
    let path = node.create_pod("web", json!({"containers": [{"name": "c", "image": "image:1"}]}));
    node.wait_running(&path).await;
    let log = node.path("logs/default_web_uid-web/c/0.log");
    std::fs::create_dir_all(log.parent().unwrap()).unwrap();
    std::fs::write(&log, "2024-01-01T00:00:01Z stdout F hello\n2024-01-01T00:00:02Z stdout F world\n").unwrap();
    let port =
        node.api.get("/api/v1/nodes/n1")["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap();
    let get = async |path: &str, token: Option<&str>| get(u16::try_from(port).unwrap(), path, token).await;
    assert_eq!(get("/healthz", None).await, (401, "Unauthorized".into()));
    assert_eq!(get("/healthz", Some("bad")).await.0, 401);
    assert_eq!(get("/healthz", Some("good")).await, (200, "ok".into()));
    let (status, pods) = get("/pods", Some("good")).await;
    let pods: serde_json::Value = serde_json::from_str(&pods).unwrap();
    assert_eq!((status, &pods["items"][0]["metadata"]["name"]), (200, &json!("web")));
    assert_eq!(pods["kind"], "PodList");
    assert_eq!(get("/containerLogs/default/web/c?tailLines=1", Some("good")).await, (200, "world\n".into()));
    assert_eq!(get("/containerLogs/default/web/d", Some("good")).await.0, 404);
    assert_eq!(get("/containerLogs/default/none/c", Some("good")).await.0, 404);
    assert_eq!(get("/containerLogs/default/web/c?previous=true", Some("good")).await.0, 400);
    let metrics = get("/metrics", Some("good")).await.1;
    assert!(metrics.contains("kubelet_running_pods 1"));
    assert!(metrics.contains("kubernetes_feature_enabled{name=\"SidecarContainers\",stage=\"\"} 1"), "{metrics}");
    assert!(
        get("/metrics/resource", Some("good"))
            .await
            .1
            .contains("pod_memory_working_set_bytes{namespace=\"default\",pod=\"web\"}")
    );
    let (_, summary) = get("/stats/summary", Some("good")).await;
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["pods"][0]["podRef"]["name"], "web");
    assert_eq!(get("/nothing", Some("good")).await.0, 404);
    let ended = json!({"restartPolicy": "Never", "containers": [{"name": "ended", "image": "image:1"}]});
    let path = node.create_pod("done", ended);
    node.wait_running(&path).await;
    node.runtime.exit("ended", 0, "Completed");
    node.wait_pod(&path, |status| status["phase"] == "Succeeded").await;
    let refused = get("/exec/default/done/ended?output=1&command=true", Some("good")).await;
    assert_eq!(refused, (500, "container not found (\"ended\")".into()));
    let refused = get("/attach/default/done/ended?output=1", Some("good")).await;
    assert_eq!(refused, (500, "container ended not found in pod done_default".into()));
}

/// One request over TLS, whatever the server's certificate.
async fn get(port: u16, path: &str, token: Option<&str>) -> (u16, String) {
    use http_body_util::BodyExt as _;
    #[derive(Debug)]
    struct Anyone;
    impl rustls::client::danger::ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &[rustls_pki_types::CertificateDer<'_>],
            _: &rustls_pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls_pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls_pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
    let config =
        rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(std::sync::Arc::new(Anyone))
            .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("n1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = http::Request::get(path).header("host", "n1");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    (status, String::from_utf8_lossy(&body).into_owned())
}
