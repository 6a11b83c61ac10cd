//! A handler that panics: its client is told, and the audit log; everybody else goes on.

use crate::client::Server;
use apiserver::audit::{Audit, Mode, Policy, Rotation, Sink};
use apiserver::authz::{Attributes, Authorizer, Decision, Rules};
use apiserver::user::UserInfo;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::sync::Arc;

/// Panics when it is to judge about an object of this name.
struct Fragile(&'static str);

#[async_trait]
impl Authorizer for Fragile {
    async fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        assert_ne!(attributes.name, self.0, "fragile");
        Decision::Allow(String::new())
    }
    async fn rules_for(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

/// The events of a request that panics and of one that does not, with the answer to the former.
async fn recorded(omitted: &str) -> (crate::client::Answer, Vec<Value>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let policy = format!(
        "{{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [{omitted}], rules: [{{level: RequestResponse}}]}}"
    );
    let sink = Sink::open(&path, Rotation::default(), Mode::Blocking).unwrap();
    let audit = Audit::new(Policy::parse(policy.as_bytes()).unwrap(), sink);
    let server = Server::start_audited(Arc::new(Fragile("glass")), audit).await;
    let client = server.client();
    let answer = client.get("/api/v1/namespaces/default/configmaps/glass").await;
    assert_eq!(client.get("/api/v1/namespaces/default/configmaps/stone").await.code, 404);
    server.api.close_audit().await;
    let text = std::fs::read_to_string(&path).unwrap();
    (answer, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[tokio::test]
async fn a_handler_that_panics_is_told_of_and_recorded() {
    let (answer, events) = recorded("").await;
    let text = "This request caused apiserver to panic. Look in the logs for details.\n";
    assert_eq!((answer.code.as_u16(), &*answer.text()), (500, text));
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    let stages: Vec<_> = events.iter().map(|event| event["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["RequestReceived", "Panic", "RequestReceived", "ResponseComplete"]);
    let (received, panicked) = (&events[0], &events[1]);
    assert_eq!(received["auditID"], panicked["auditID"]);
    assert_eq!(answer.headers["audit-id"].to_str().unwrap(), panicked["auditID"]);
    let mut status = panicked["responseStatus"].clone();
    let message = status["message"].take();
    let expected =
        json!({"metadata": {}, "code": 500, "status": "Failure", "reason": "InternalError", "message": null});
    assert_eq!(status, expected);
    let message = message.as_str().unwrap();
    assert!(message.starts_with("APIServer panic'd: ") && message.contains("fragile"), "{message}");
    assert!(panicked["responseObject"].is_null());
    assert_eq!(events[3]["responseStatus"]["code"], 404);
}

#[tokio::test]
async fn a_panic_is_not_recorded_where_that_stage_is_left_out() {
    let (answer, events) = recorded("RequestReceived, Panic").await;
    assert_eq!(answer.code, 500);
    let stages: Vec<_> = events.iter().map(|event| event["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["ResponseComplete"]);
}
