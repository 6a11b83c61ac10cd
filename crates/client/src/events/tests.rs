use super::*;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::sync::watch;

type Events = serde_json::Map<String, Value>;

/// An API that has events by their names, and nothing else.
fn api(events: watch::Sender<Events>) -> Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let events = events.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
            let last = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
            let mut answer = (200, json!({}));
            events.send_modify(|events| {
                if parts.method == http::Method::POST {
                    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                    events.insert(name, body.clone());
                } else if let Some(Value::Object(known)) = events.get_mut(&last) {
                    known.extend(body.as_object().cloned().unwrap_or_default());
                } else {
                    let status = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": ""});
                    answer = (404, status);
                    answer.1["code"] = 404.into();
                }
            });
            let body = http_body_util::Full::new(answer.1.to_string().into_bytes().into());
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                http::Response::builder().status(answer.0).body::<http_body_util::Full<bytes::Bytes>>(body)?,
            )
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn what_is_told_again_is_counted_where_it_still_is_and_made_anew_where_not() {
    let events: watch::Sender<Events> = watch::Sender::default();
    let mut seen = events.subscribe();
    let source = Source { component: "some-controller".into(), host: String::new() };
    let (recorder, sending) = Recorder::new(api(events.clone()), source, CancellationToken::new());
    let sending = tokio::spawn(sending);
    let map = |name: &str| Reference {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        namespace: "n".into(),
        name: name.into(),
        ..Reference::default()
    };
    let tell = || recorder.tell(map("m"), Kind::Warning, "Failed", "it failed".into());
    let is_counted = |count: u64| {
        move |events: &Events| events.len() == 1 && events.values().all(|event| event["count"] == json!(count))
    };
    tell();
    tell();
    let first = seen.wait_for(is_counted(2)).await.expect("told").clone();
    let event = first.values().next().expect("one");
    assert_eq!((&event["reason"], &event["type"]), (&json!("Failed"), &json!("Warning")));
    assert_eq!(event["involvedObject"]["apiVersion"], "v1");
    events.send_modify(Events::clear);
    tell();
    let anew = seen.wait_for(is_counted(3)).await.expect("told").clone();
    assert!(anew.keys().eq(first.keys()));
    // What differs in its words only becomes one event in the end, and a flood ends.
    for n in 0..30 {
        recorder.tell(map("m"), Kind::Warning, "Other", format!("number {n}"));
    }
    recorder.tell(map("last"), Kind::Normal, "Done", "done".into());
    // Who told it may be gone.
    drop(recorder);
    sending.await.expect("all is sent");
    let all = seen.wait_for(|events| events.values().any(|event| event["reason"] == "Done")).await.expect("told");
    let counts = all.values().filter(|event| event["reason"] == "Other").map(|event| &event["count"]);
    // 25 of this object in all: three of the other reason, nine with their own words, and the rest in one.
    assert_eq!(counts.filter_map(Value::as_u64).collect::<Vec<_>>().iter().sum::<u64>(), 22);
    let combined = all.values().find(|event| event["message"].as_str().is_some_and(|m| m.starts_with("(combined")));
    assert_eq!(combined.expect("combined")["message"], "(combined from similar events): number 21");
}
