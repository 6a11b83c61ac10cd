use super::event::TRUNCATED;
use super::*;
use crate::context::Context;
use crate::http::{Body, Response};
use crate::request::RequestInfo;
use crate::user::UserInfo;
use api::Status;
use futures::FutureExt;
use http::header::USER_AGENT;
use jiff::Timestamp;
use schema::{Map, Value};

fn read(path: &std::path::Path, lines: usize) -> Vec<Map> {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let text = std::fs::read_to_string(path).expect("the log");
        let found: Vec<Map> = text
            .lines()
            .filter_map(|l| schema::json::parse(l.as_bytes()).ok())
            .filter_map(|v| v.as_map().cloned())
            .collect();
        if found.len() >= lines {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "only {} lines", found.len());
        std::thread::yield_now();
    }
}

/// A log of its own, as a policy of these rules and stages that are left out wants it.
struct Log {
    audit: Audit,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Log {
    fn of(omitted: &str, rules: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        // Its directory is made, too.
        let path = directory.path().join("none/yet/audit.log");
        let policy =
            format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [{omitted}], rules: [{rules}]}}");
        let policy = Policy::parse(policy.as_bytes()).expect("a policy");
        let sink = Sink::open(&path, Rotation::default(), Mode::Blocking).expect("a sink");
        Log { audit: Audit::new(policy, sink), path, _directory: directory }
    }

    /// The same of requests that are over, at a level.
    fn at(level: &str) -> Self {
        Self::of("RequestReceived", &format!("{{level: {level}}}"))
    }

    fn truncating(self, largest: usize) -> Self {
        Log { audit: self.audit.truncating(largest), ..self }
    }

    /// Begins the record of a request of jane's.
    async fn begin(&self, method: &str, target: &str) -> (Record, Context) {
        let request = http::Request::builder().method(method).uri(target).header(USER_AGENT, "kubectl/v1");
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        parts.extensions.insert(AuditId(HeaderValue::from_static("mine")));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let info = RequestInfo::parse(method, path, query).expect("a path");
        let user = UserInfo::new("jane", ["devs"]);
        let mut record = self.audit.record(&parts, &info, &user, None, Timestamp::now()).expect("recorded");
        record.begin().await.expect("stored");
        let context = Context::new(Arc::new(user), "kubectl", Timestamp::now());
        record.with(&context);
        (record, context)
    }

    fn events(&self, lines: usize) -> Vec<Map> {
        read(&self.path, lines)
    }
}

/// What becomes of a request that is answered.
async fn finish(mut record: Record, response: Response<Body>) -> Response<Body> {
    let response = record.note(response);
    record.finish(response).await
}

#[tokio::test]
async fn a_request_is_recorded_with_what_the_policy_wants() {
    let log = Log::at("RequestResponse");
    let (record, context) = log.begin("POST", "/api/v1/namespaces/a/configmaps").await;
    context.annotate("authorization.k8s.io/decision", "allow");
    context.refer(&crate::test_support::map("{metadata: {name: x, uid: u}}"), "v1", "ConfigMap");
    let mut response = Response::new(Body::from(r#"{"kind":"ConfigMap"}"#));
    *response.status_mut() = http::StatusCode::CREATED;
    drop(finish(record, response).await);
    let events = log.events(1);
    let event = &events[0];
    assert_eq!(event.str_at(&["auditID"]), "mine");
    assert_eq!(event.str_at(&["stage"]), "ResponseComplete");
    assert_eq!(event.str_at(&["user", "username"]), "jane");
    assert_eq!(event.str_at(&["objectRef", "resource"]), "configmaps");
    assert_eq!(event.str_at(&["objectRef", "name"]), "x");
    assert_eq!(event.str_at(&["objectRef", "uid"]), "u");
    assert_eq!(event.at(&["responseStatus", "code"]), Some(&Value::Int(201)));
    assert_eq!(event.str_at(&["requestObject", "metadata", "name"]), "x");
    assert_eq!(event.str_at(&["responseObject", "kind"]), "ConfigMap");
    assert_eq!(event.str_at(&["annotations", "authorization.k8s.io/decision"]), "allow");
}

#[tokio::test]
async fn what_is_sent_that_is_no_object_is_recorded_as_it_is() {
    let log = Log::at("Request");
    let (record, context) = log.begin("PATCH", "/api/v1/namespaces/a/configmaps/x").await;
    context.refer_to(|| Some(crate::test_support::tree("[{op: remove, path: /data}]")));
    drop(finish(record, Response::new(Body::from("{}"))).await);
    let events = log.events(1);
    let patch = events[0].get("requestObject").and_then(Value::as_list).expect("a list");
    assert_eq!(patch[0].as_map().expect("an operation").str_at(&["op"]), "remove");
    // Nobody makes what nobody wants.
    let log = Log::at("Metadata");
    let (record, context) = log.begin("PATCH", "/api/v1/namespaces/a/configmaps/x").await;
    context.refer_to(|| panic!("made"));
    drop(finish(record, Response::new(Body::from("{}"))).await);
    assert!(log.events(1)[0].get("requestObject").is_none());
}

#[tokio::test]
async fn an_event_that_is_too_large_loses_its_objects_or_is_lost() {
    let send = async |log: &Log, target: &str| {
        let (record, context) = log.begin("POST", target).await;
        let data = "x".repeat(2000);
        let object = crate::test_support::map(&format!("{{metadata: {{name: x}}, data: {{a: {data}}}}}"));
        context.refer(&object, "v1", "ConfigMap");
        drop(finish(record, Response::new(Body::from("{}"))).await);
    };
    let target = "/api/v1/namespaces/a/configmaps";
    let log = Log::at("Request").truncating(2000);
    send(&log, target).await;
    // Even what is left of it is too large here.
    send(&log, &format!("{target}?fieldManager={}", "m".repeat(2000))).await;
    send(&log, target).await;
    for event in log.events(2) {
        assert_eq!(event.str_at(&["annotations", "audit.k8s.io/truncated"]), "true");
        assert!(event.get("requestObject").is_none());
        assert_eq!(event.str_at(&["objectRef", "name"]), "x");
    }
    let mut counts = String::new();
    log.audit.counts().render(&mut counts).expect("rendered");
    assert!(counts.contains("apiserver_audit_error_total{plugin=\"truncate\"} 1\n"), "{counts}");
    assert!(counts.contains("apiserver_audit_event_total 3\n"), "{counts}");
    // A level that has no objects has none to lose.
    let log = Log::at("Metadata").truncating(10);
    send(&log, target).await;
    let mut counts = String::new();
    log.audit.counts().render(&mut counts).expect("rendered");
    assert!(counts.contains("apiserver_audit_error_total{plugin=\"truncate\"} 1\n"), "{counts}");
    let log = Log::at("Request");
    send(&log, target).await;
    assert_eq!(log.events(1)[0].str_at(&["requestObject", "kind"]), "ConfigMap");
    assert!(log.events(1)[0].at(&["annotations"]).is_none());
}

#[tokio::test]
async fn who_is_strict_refuses_what_cannot_be_recorded() {
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    for (mode, stored) in [(Mode::BlockingStrict, false), (Mode::Blocking, true)] {
        let sink = Sink::open(full, Rotation::default(), mode).expect("it opens");
        let audit = Audit::new(Policy::metadata(), sink);
        let (parts, ()) = http::Request::get("/api/v1/pods").body(()).expect("a request").into_parts();
        let info = RequestInfo::parse("GET", "/api/v1/pods", "").expect("a path");
        let mut record = audit.record(&parts, &info, &UserInfo::anonymous(), None, Timestamp::now()).expect("recorded");
        assert_eq!(record.begin().await.is_ok(), stored, "{mode:?}");
        drop(record);
        let mut counts = String::new();
        audit.counts().render(&mut counts).expect("rendered");
        let events = format!("apiserver_audit_event_total {}\n", 1 + u8::from(stored));
        assert!(counts.contains(&events), "what is refused has no end: {counts}");
        let rejected = format!("apiserver_audit_requests_rejected_total {}\n", u8::from(!stored));
        assert!(counts.contains(&rejected), "{counts}");
    }
}

#[tokio::test]
async fn an_answer_that_is_a_status_says_what_came_of_it() {
    let log = Log::at("Metadata");
    let target = "/api/v1/namespaces/a/pods/b";
    let view = crate::http::media::View::for_error(&HeaderMap::new(), "");
    let status = Status::not_found(&api::GroupResource::new("", "pods"), "b");
    let gone = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","details":{"name":"b","kind":"pods","uid":"u"}}"#;
    let answers = [
        ("GET", crate::http::answer::refusal(&status, view)),
        ("DELETE", Response::new(Body::from(gone))),
        ("GET", Response::new(Body::from(gone))),
    ];
    for (method, answer) in answers {
        drop(finish(log.begin(method, target).await.0, answer).await);
    }
    let events = log.events(3);
    let told = |event: &Map, key| event.str_at(&["responseStatus", key]).to_owned();
    assert_eq!(told(&events[0], "message"), "pods \"b\" not found");
    assert_eq!(told(&events[0], "reason"), "NotFound");
    assert_eq!(events[0].str_at(&["responseStatus", "details", "kind"]), "pods");
    assert_eq!(told(&events[1], "status"), "Success");
    assert_eq!(events[1].str_at(&["responseStatus", "details", "uid"]), "u");
    assert_eq!(told(&events[2], "status"), "", "what a read shows is not looked at");
    assert!(events.iter().all(|event| event.get("responseObject").is_none()));
}

#[test]
fn who_is_not_known_is_recorded_once_with_what_it_tried() {
    let log = Log::of("", "{level: None, users: [jane]}, {level: Metadata}");
    let info = RequestInfo::parse("GET", "/api/v1/pods", "").expect("a path");
    let cases = [
        (None, "/api/v1/pods", "Authentication failed, no credentials provided"),
        (Some("Bearer x"), "/api/v1/pods", "Authentication failed, attempted: bearer"),
        (Some("basic YTpi"), "/api/v1/pods", "Authentication failed, attempted: basic"),
        (Some("basic ?"), "/api/v1/pods?access_token=x", "Authentication failed, attempted: access_token"),
    ];
    for (credentials, target, why) in cases {
        let mut request = http::Request::get(target);
        if let Some(credentials) = credentials {
            request = request.header(AUTHORIZATION, credentials);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let told = unauthenticated(&parts, None);
        assert_eq!(told, why);
        log.audit.refused(&parts, &info, None, Timestamp::now(), 401, &told);
    }
    let events = log.events(cases.len());
    assert_eq!(events.len(), cases.len(), "each once");
    for (event, (.., why)) in events.iter().zip(cases) {
        assert_eq!(event.str_at(&["stage"]), "ResponseStarted");
        assert_eq!(event.get("user"), Some(&Value::Map(Map::new())));
        assert_eq!(event.at(&["responseStatus", "code"]), Some(&Value::Int(401)));
        assert_eq!(event.str_at(&["responseStatus", "message"]), why);
        assert_eq!(event.str_at(&["objectRef", "resource"]), "pods");
    }
}

#[tokio::test]
async fn a_watch_is_recorded_when_it_begins_and_when_it_ends() {
    let log = Log::of("", "{level: Metadata}");
    let (record, _) = log.begin("GET", "/api/v1/pods?watch=1").await;
    let response = finish(record, Response::new(Body::from("x"))).await;
    assert_eq!(log.events(2).len(), 2, "received and started");
    drop(response);
    let stages: Vec<String> = log.events(3).iter().map(|e| e.str_at(&["stage"]).to_owned()).collect();
    assert_eq!(stages, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
    let received = &log.events(3)[0];
    assert_eq!(received.get("stageTimestamp"), received.get("requestReceivedTimestamp"));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_recorded_all_the_same() {
    let log = Log::at("Request");
    let (record, context) = log.begin("DELETE", "/api/v1/namespaces/a/configmaps/x").await;
    context.annotate("authorization.k8s.io/decision", "allow");
    context.refer_to(|| Some(crate::test_support::tree("{kind: DeleteOptions}")));
    drop(record);
    // Who leaves while the answer waits to be recorded was answered.
    let (record, _) = log.begin("DELETE", "/api/v1/namespaces/a/configmaps/x").await;
    let full = log.audit.out.sink.room(usize::MAX).await;
    assert!(finish(record, Response::new(Body::from("{}"))).now_or_never().is_none());
    drop(full);
    let events = log.events(2);
    let status = |event: &Map, key| event.str_at(&["responseStatus", key]).to_owned();
    assert_eq!(events[0].str_at(&["stage"]), "ResponseComplete");
    assert_eq!(events[0].at(&["responseStatus", "code"]), Some(&Value::Int(504)));
    assert_eq!(status(&events[0], "reason"), "Timeout");
    let why = "Timeout: request did not complete within requested timeout - context canceled";
    assert_eq!((status(&events[0], "status"), status(&events[0], "message")), ("Failure".into(), why.into()));
    assert_eq!(events[0].str_at(&["annotations", "authorization.k8s.io/decision"]), "allow");
    assert_eq!(events[0].str_at(&["requestObject", "kind"]), "DeleteOptions");
    assert_eq!(events[1].at(&["responseStatus", "code"]), Some(&Value::Int(200)));
    assert_eq!(events[1].str_at(&["stage"]), "ResponseComplete");
    // What lasts begins and ends.
    drop(log.begin("GET", "/api/v1/pods?watch=1").await);
    let stages: Vec<_> = log.events(4)[2..].iter().map(|event| event.str_at(&["stage"]).to_owned()).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn an_answer_that_panics_after_it_has_begun_is_recorded() {
    use http_body_util::BodyExt;
    for (omitted, expected) in
        [("", &["RequestReceived", "ResponseStarted", "Panic"][..]), ("RequestReceived, Panic", &["ResponseStarted"])]
    {
        let log = Log::of(omitted, "{level: Metadata}");
        let (record, _) = log.begin("GET", "/api/v1/pods?watch=1").await;
        let body = Body::pieces(std::iter::from_fn(|| panic!("no piece")));
        let mut response = finish(record, Response::new(body)).await;
        assert!(response.body_mut().frame().await.expect("an end").is_err());
        drop(response);
        assert!(log.audit.out.sink.close(Duration::from_secs(20)).await);
        let events = log.events(expected.len());
        let stages: Vec<_> = events.iter().map(|event| event.str_at(&["stage"])).collect();
        assert_eq!(stages, expected);
        if let Some(panicked) = events.iter().find(|event| event.str_at(&["stage"]) == "Panic") {
            assert_eq!(panicked.str_at(&["responseStatus", "message"]), "APIServer panic'd: no piece");
            assert_eq!(panicked.at(&["responseStatus", "code"]), Some(&Value::Int(500)));
        }
    }
}

#[tokio::test]
async fn an_end_without_other_room_takes_what_was_kept_for_it() {
    let log = Log::at("Request");
    let target = format!("/api/v1/namespaces/a/configmaps?fieldManager={}", "m".repeat(20_000));
    let (record, context) = log.begin("POST", &target).await;
    let data = "x".repeat(20_000);
    context.refer(
        &crate::test_support::map(&format!("{{metadata: {{name: x}}, data: {{a: {data}}}}}")),
        "v1",
        "ConfigMap",
    );
    // A line that never fits takes all.
    let sink = &log.audit.out.sink;
    let full = sink.free(usize::MAX).expect("all of it");
    assert!(sink.free(1).is_none());
    drop(record);
    let event = &log.events(1)[0];
    assert_eq!(event.str_at(&["annotations", TRUNCATED]), "true");
    assert_eq!((event.str_at(&["auditID"]), event.str_at(&["verb"])), ("mine", "create"));
    assert_eq!((event.str_at(&["user", "username"]), event.str_at(&["objectRef", "name"])), ("jane", "x"));
    assert!(event.str_at(&["requestURI"]).ends_with("...TRUNCATED"));
    assert_eq!(event.at(&["responseStatus", "code"]), Some(&Value::Int(504)));
    drop(full);
    // Nothing is done for who has to wait until it is recorded that he came, and whether he stays is recorded, too.
    let log = Log::of("", "{level: Metadata}");
    let full = log.audit.out.sink.free(usize::MAX).expect("room");
    assert!(log.begin("GET", "/api/v1/pods").now_or_never().is_none());
    assert_eq!(log.events(1)[0].str_at(&["stage"]), "ResponseComplete");
    drop(full);
    drop(log.begin("GET", "/api/v1/pods").await);
    let stages: Vec<_> = log.events(3).iter().map(|event| event.str_at(&["stage"]).to_owned()).collect();
    assert_eq!(stages, ["ResponseComplete", "RequestReceived", "ResponseComplete"]);
}
