//! What is no resource: documents, health, metrics.

use crate::client::Server;
use http::Method;
use serde_json::json;

#[tokio::test]
async fn openapi_is_kept_as_long_as_its_hash() {
    let server = Server::start().await;
    let client = server.client();
    let index = client.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let document = client.get(&url).await;
    assert_eq!(document.headers["cache-control"], "public, immutable");
    assert!(document.headers.contains_key("expires"));
    let etag = document.headers["etag"].to_str().unwrap().to_owned();
    assert!(url.ends_with(&format!("?hash={}", etag.trim_matches('"'))), "{url} {etag}");
    assert!(document.ok()["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"].is_object());
    let same = client.raw(Method::GET, &url, &[("if-none-match", etag.as_str())], "").await;
    assert_eq!((same.code.as_u16(), same.bytes.len()), (304, 0));
    let stale = client.get("/openapi/v3/apis/apps/v1?hash=OLD").await;
    assert_eq!((stale.code.as_u16(), stale.headers["location"].to_str().unwrap()), (301, url.as_str()));
    let plain = client.get("/openapi/v3/apis/apps/v1").await;
    assert_eq!((plain.code.as_u16(), &plain.headers["cache-control"]), (200, &"no-cache, private".parse().unwrap()));
    assert_eq!(client.get("/openapi/v3/apis/nope/v1?hash=OLD").await.code, 404);
    for (path, code) in [("/openapi/v3", 200), ("/openapi/v3/apis/apps/v1", 406), ("/openapi/v2", 406)] {
        assert_eq!(client.raw(Method::GET, path, &[("accept", "text/html")], "").await.code, code, "{path}");
    }
    for path in ["api", "apis", "apis/apps", "version"] {
        let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap();
        let operation = &client.get(url).await.ok()["paths"][format!("/{path}/")]["get"];
        assert!(operation["operationId"].as_str().is_some_and(|id| id.starts_with("get")), "{path}: {operation}");
    }
}

#[tokio::test]
async fn openapi_comes_in_protobuf_too() {
    let server = Server::start().await;
    let client = server.client();
    for (path, version) in [("/openapi/v2", "v2"), ("/openapi/v3/apis/apps/v1", "v3")] {
        for separator in ["@", "."] {
            let accept = format!("application/com.github.proto-openapi.spec.{version}{separator}v1.0+protobuf");
            let document = client.raw(Method::GET, path, &[("accept", &accept)], "").await;
            assert_eq!(document.code, 200);
            let answered = format!("application/com.github.proto-openapi.spec.{version}.v1.0+protobuf");
            assert_eq!(document.headers["content-type"], answered.as_str());
            // The name of a definition, as the first of a message that is the value of another.
            let name = b"io.k8s.api.apps.v1.Deployment";
            assert!(document.bytes.windows(name.len()).any(|window| window == name));
        }
    }
}

#[tokio::test]
async fn discovery_is_known_by_its_etag() {
    let server = Server::start().await;
    let client = server.client();
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    for path in ["/api", "/apis"] {
        let first = client.raw(Method::GET, path, &[("accept", accept)], "").await;
        assert_eq!(
            first.headers["content-type"],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        let etag = first.headers["etag"].to_str().unwrap().to_owned();
        let again = client.raw(Method::GET, path, &[("accept", accept), ("if-none-match", etag.as_str())], "").await;
        assert_eq!((again.code.as_u16(), again.bytes.len()), (304, 0), "{path}");
        // The same in the other formats.
        let groups = first.json()["items"].as_array().map(Vec::len);
        for format in ["application/vnd.kubernetes.protobuf", "application/yaml"] {
            let media = format!("{format};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
            let other = client.raw(Method::GET, path, &[("accept", &media)], "").await;
            assert_eq!(other.headers["content-type"], media.as_str(), "{path}");
            assert_eq!(other.headers["etag"], etag.as_str(), "{path}");
            if format.ends_with("protobuf") {
                let ty = schema::types::find("io.k8s.api.apidiscovery.v2.APIGroupDiscoveryList").unwrap();
                let decoded = schema::protobuf::decode(ty, &other.bytes).unwrap().object;
                let decoded: serde_json::Value = serde_json::from_str(&schema::json::to_string(&decoded)).unwrap();
                assert_eq!(decoded["items"].as_array().map(Vec::len), groups, "{path}");
                let of = |list: &serde_json::Value| list["items"][0]["versions"][0]["resources"].clone();
                assert_eq!(of(&decoded), of(&first.json()), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn health_is_told_check_by_check() {
    let server = Server::start().await;
    let client = server.client();
    for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd", "/readyz/etcd-readiness", "/healthz/ping"] {
        let answer = client.get(path).await;
        assert_eq!((answer.code.as_u16(), answer.text().as_str()), (200, "ok"), "{path}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    }
    let verbose = client.get("/readyz?verbose&exclude=etcd&exclude=nope").await.text();
    assert!(verbose.starts_with("[+]ping ok\n[+]log ok\n[+]etcd excluded: ok\n[+]etcd-readiness ok\n"), "{verbose}");
    assert!(verbose.contains("warn: some health checks cannot be excluded: no matches for \"nope\"\n"), "{verbose}");
    assert!(verbose.ends_with("readyz check passed\n"), "{verbose}");
    // A restart would not help the store: of liveness it is a name that passes.
    assert_eq!(client.get("/livez/etcd").await.text(), "ok");
    let verbose = client.get("/livez?verbose&exclude=etcd").await.text();
    assert!(verbose.contains("[+]etcd excluded: ok\n") && !verbose.contains("warn:"), "{verbose}");
    for path in ["/livez/informer-sync", "/healthz/informer-sync", "/healthz/shutdown", "/livez/etcd-readiness"] {
        assert_eq!(client.get(path).await.code, 404, "{path}");
    }
    assert_eq!(client.get("/readyz/informer-sync").await.text(), "ok");
}

#[tokio::test]
async fn paths_are_what_upstreams_mux_and_router_know() {
    let server = Server::start().await;
    let client = server.client();
    for path in ["/", "/index.html", "/api", "/api/", "/apis/", "/apis/apps/v1/", "/version/", "/api/v1/configmaps/"] {
        assert_eq!(client.get(path).await.code, 200, "{path}");
    }
    assert_eq!(client.get("/index.html").await.json(), client.get("/").await.json());
    for path in [
        "//",
        "//api",
        "//version",
        "//healthz",
        "//api/v1/configmaps",
        "/healthz/",
        "/livez/",
        "/metrics/",
        "/openapi/v2/",
        "/openapi/v3/",
        "/nothing",
        "/index.html/",
        "/index",
        "/debug/flags",
        "/logs/",
    ] {
        let unknown = client.get(path).await;
        assert_eq!((unknown.code.as_u16(), unknown.text().as_ref()), (404, "404 page not found\n"), "{path}");
    }
}

#[tokio::test]
async fn what_was_done_at_a_start_is_told_by_name() {
    let server = Server::start().await;
    let client = server.client();
    for path in ["/readyz/poststarthook/crd-informer-synced", "/livez/poststarthook/generic-apiserver-start-informers"]
    {
        assert_eq!(client.get(path).await.text(), "ok", "{path}");
    }
    let undone = client.get("/readyz/poststarthook/rbac/bootstrap-roles").await;
    assert_eq!(undone.code, 404, "nobody does it here");
    let hook = "poststarthook/crd-informer-synced";
    let told = client.get("/readyz?verbose").await.text();
    assert!(told.contains(&format!("[+]{hook} ok\n")) && told.contains("[+]shutdown ok\n"), "{told}");
    let slis = client.get("/metrics/slis").await;
    assert!(slis.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    for line in [
        format!("kubernetes_healthcheck{{name=\"{hook}\",type=\"readyz\"}} 1"),
        format!("kubernetes_healthchecks_total{{name=\"{hook}\",status=\"success\",type=\"readyz\"}} 1"),
        "kubernetes_healthchecks_total{name=\"ping\",status=\"success\",type=\"readyz\"} 1".to_owned(),
    ] {
        assert!(slis.text().lines().any(|found| found == line), "{line}\n{}", slis.text());
    }
}

#[tokio::test]
async fn pages_for_people_tell_what_runs_here() {
    let server = Server::start().await;
    let client = server.client();
    let status = client.get("/statusz").await;
    assert_eq!(status.headers["content-type"], "text/plain; charset=utf-8");
    assert!(status.text().starts_with("\nkube-apiserver statusz\nWarning: "), "{}", status.text());
    assert!(status.text().contains("\nUp: 0 hr 00 min "), "{}", status.text());
    let json = |kind: &str| format!("application/json;v=v1beta1;g=config.k8s.io;as={kind}");
    let status = client.raw(Method::GET, "/statusz", &[("accept", &json("Statusz"))], "").await.ok();
    assert_eq!((&status["kind"], &status["apiVersion"]), (&json!("Statusz"), &json!("config.k8s.io/v1beta1")));
    let paths = status["paths"].as_array().unwrap();
    for path in ["/statusz", "/flagz", "/metrics/slis"] {
        assert!(paths.contains(&json!(path)), "{path}");
    }
    let flags = client.get("/flagz").await;
    assert!(flags.text().starts_with("\nkube-apiserver flags\nWarning: "), "{}", flags.text());
    let flags = client.raw(Method::GET, "/flagz", &[("accept", &json("Flagz"))], "").await.ok();
    assert_eq!((&flags["kind"], &flags["metadata"]["name"]), (&json!("Flagz"), &json!("kube-apiserver")));
    for path in ["/statusz", "/flagz"] {
        assert_eq!(client.raw(Method::GET, path, &[("accept", "application/json")], "").await.code, 406);
    }
    let server = Server::start_as("ComponentStatusz=false,ComponentFlagz=false", "").await;
    for path in ["/statusz", "/flagz"] {
        assert_eq!(server.client().get(path).await.code, 404);
    }
}

#[tokio::test]
async fn metrics_have_upstreams_names() {
    let server = Server::start().await;
    let client = server.client();
    let maps = "/api/v1/namespaces/default/configmaps";
    client.post(&format!("{maps}?dryRun=All"), &json!({"metadata": {"name": "a"}})).await.ok();
    client.post(maps, &json!({"metadata": {"name": "a"}})).await.ok();
    let apply = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {k: v}\n";
    client.patch(&format!("{maps}/a?fieldManager=m"), "application/apply-patch+yaml", apply).await.ok();
    client.get(maps).await.ok();
    client.get("/api/v1/nothing/of/the/kind").await;
    let mut events = client.watch(&format!("{maps}?watch=true")).await;
    events.told().await;
    let text = client.get("/metrics").await.text();
    let labels = "component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"configmaps\"";
    for line in [
        format!("apiserver_request_total{{code=\"201\",{labels},scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"}} 1"),
        format!("apiserver_request_total{{code=\"201\",{},scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"}} 1", labels.replace("dry_run=\"\"", "dry_run=\"All\"")),
        format!("apiserver_request_total{{code=\"200\",{labels},scope=\"resource\",subresource=\"\",verb=\"APPLY\",version=\"v1\"}} 1"),
        format!("apiserver_request_duration_seconds_count{{{labels},scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"}} 1"),
        "apiserver_response_sizes_count{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1".to_owned(),
        "etcd_request_duration_seconds_count{group=\"\",operation=\"create\",resource=\"configmaps\"} 1".to_owned(),
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"admit\"} 2".to_owned(),
        "apiserver_storage_objects{resource=\"configmaps\"} 1".to_owned(),
        "apiserver_resource_objects{group=\"\",resource=\"configmaps\"} 1".to_owned(),
        "apiserver_watch_events_total{group=\"\",resource=\"configmaps\",version=\"v1\"} 1".to_owned(),
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"configmaps\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1".to_owned(),
        "apiserver_watch_events_sizes_count{group=\"\",resource=\"configmaps\",version=\"v1\"} 1".to_owned(),
        "etcd_requests_total{group=\"\",operation=\"update\",resource=\"configmaps\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
    }
    assert!(!text.contains("resource=\"nothing\""), "names that clients invent make no series");
    for name in [
        "apiserver_current_inflight_requests{request_kind=\"mutating\"} ",
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "kubernetes_build_info{",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}");
    }
}

#[tokio::test]
async fn discovery_comes_in_every_format() {
    let server = Server::start().await;
    let client = server.client();
    for (path, kind) in [
        ("/api", "APIVersions"),
        ("/apis", "APIGroupList"),
        ("/apis/apps", "APIGroup"),
        ("/api/v1", "APIResourceList"),
        ("/apis/apps/v1", "APIResourceList"),
    ] {
        let json = client.get(path).await.ok();
        assert_eq!(json["kind"], kind);
        let yaml = client.raw(Method::GET, path, &[("accept", "application/yaml")], "").await;
        assert_eq!(yaml.headers["content-type"], "application/yaml", "{path}");
        assert!(yaml.text().contains(&format!("kind: {kind}\n")), "{path}: {}", yaml.text());
        let protobuf = "application/vnd.kubernetes.protobuf";
        let bytes = client.raw(Method::GET, path, &[("accept", protobuf)], "").await;
        assert_eq!(bytes.headers["content-type"], protobuf, "{path}");
        let ty = schema::types::find(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}")).unwrap();
        let decoded = schema::protobuf::decode(ty, &bytes.bytes).unwrap().object;
        let decoded: serde_json::Value = serde_json::from_str(&schema::json::to_string(&decoded)).unwrap();
        for list in ["versions", "groups", "resources"] {
            let length = |document: &serde_json::Value| document[list].as_array().map(Vec::len);
            assert_eq!(length(&decoded), length(&json), "{path}");
        }
        assert_eq!(client.raw(Method::GET, path, &[("accept", "text/html")], "").await.code, 406, "{path}");
    }
    assert!(client.get("/version").await.text().starts_with("{\n  \"buildDate\": "));
}

#[tokio::test]
async fn every_answer_says_what_it_is_known_by() {
    let server = Server::start().await;
    let client = server.client();
    let id = |answer: &crate::client::Answer| answer.headers["audit-id"].to_str().unwrap().to_owned();
    let mut seen = std::collections::BTreeSet::new();
    for (path, code) in [("/api/v1/nodes", 200), ("/api/v1/nodes/none", 404), ("/nope", 404), ("/healthz", 200)] {
        let answer = client.get(path).await;
        assert_eq!(answer.code, code, "{path}");
        assert!(uuid_like(&id(&answer)) && seen.insert(id(&answer)), "{path}: {}", id(&answer));
    }
    let long = "x".repeat(100);
    let own = client.raw(Method::GET, "/version", &[("audit-id", long.as_str())], "").await;
    assert_eq!(id(&own), long, "what the client gave is given back as it is");
}

fn uuid_like(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[tokio::test]
async fn a_request_lasts_no_longer_than_its_client_says() {
    let server = Server::start().await;
    let client = server.client();
    let refused = client.get("/api/v1/nodes?timeout=invalid").await.refused(400);
    let why = r#"invalid timeout specified in the request URL - time: invalid duration "invalid""#;
    assert_eq!((refused["reason"].as_str(), refused["message"].as_str()), (Some("BadRequest"), Some(why)));
    let refused = client.get("/api/v1/nodes?timeout=10").await.refused(400);
    let why = r#"invalid timeout specified in the request URL - time: missing unit in duration "10""#;
    assert_eq!(refused["message"], why);
    for fine in ["0", "0s", "-1s", "10h", "10s", ""] {
        client.get(&format!("/api/v1/nodes?timeout={fine}")).await.ok();
    }
    // A version that does not come to be is waited for.
    let waits = "/api/v1/nodes?resourceVersion=999999999&resourceVersionMatch=NotOlderThan&timeout=20ms";
    let ended = client.get(waits).await.refused(504);
    assert_eq!(ended["message"], "Timeout: request did not complete within the allotted timeout");
    // Of watches it says nothing.
    let mut events = client.watch("/api/v1/nodes?watch=1&timeout=invalid&timeoutSeconds=1").await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), events.next()).await.expect("it ends");
    assert!(ended.is_none());
}
