//! What is at a path, and what is not.

use crate::client::Server;
use http::Method;
use serde_json::json;

#[tokio::test]
async fn what_is_not_served_is_not_found() {
    let server = Server::start().await;
    let client = server.client();
    // Of a version that is served the router says it, of anything else the mux.
    for path in
        ["/api/v1/frobs", "/apis/apps/v1/frobs/x", "/api/v1/namespaces/a/nodes", "/api/v1/namespaces/a/pods/b/c"]
    {
        let missing = client.get(path).await.refused(404);
        assert_eq!(missing["message"], "the server could not find the requested resource", "{path}");
        assert_eq!((&missing["reason"], &missing["details"]), (&json!("NotFound"), &json!({})), "{path}");
    }
    for path in ["/api/v2/pods", "/apis/nope/v1/pods", "/nope", "/readyz/nope", "/logs"] {
        for method in [Method::GET, Method::POST] {
            let missing = client.raw(method, path, &[], "").await;
            assert_eq!((missing.code.as_u16(), missing.text().as_str()), (404, "404 page not found\n"), "{path}");
            assert_eq!(missing.headers["content-type"], "text/plain; charset=utf-8", "{path}");
        }
    }
    for (method, path) in [
        (Method::HEAD, "/api/v1/pods"),
        (Method::OPTIONS, "/api/v1/pods"),
        (Method::DELETE, "/api/v1/pods"),
        (Method::POST, "/api/v1/namespaces/default/pods/p"),
        (Method::POST, "/apis"),
        (Method::PUT, "/version"),
        (Method::POST, "/api/v1/namespaces/default/pods/p/status"),
    ] {
        let refused = client.raw(method.clone(), path, &[], "").await;
        assert_eq!(refused.code, 405, "{method} {path}: {}", refused.text());
        assert!(!refused.headers.contains_key("allow"));
    }
    assert_eq!(client.raw(Method::HEAD, "/healthz", &[], "").await.code, 200);
    let pods = client.post("/api/v1/pods", &json!({})).await.refused(405);
    assert_eq!(pods["message"], "the server does not allow this method on the requested resource");
    let missing = client.get("/api/v1/namespaces/default/pods/nope").await.refused(404);
    assert_eq!(missing["message"], "pods \"nope\" not found");
    assert_eq!(missing["details"], json!({"name": "nope", "kind": "pods"}));
    for path in
        ["/version", "/healthz", "/readyz?verbose", "/livez/ping", "/metrics", "/api", "/apis", "/openapi/v3", "/"]
    {
        let answer = client.get(path).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.text());
    }
}
