use super::*;
use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// A server that gives answers in order, and nothing more when there are none. What was asked for is kept, with when.
#[derive(Clone)]
struct Server {
    answers: Arc<Mutex<VecDeque<(u16, String)>>>,
    asked: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Server {
    fn new<const N: usize>(answers: [(u16, &str); N]) -> Self {
        let answers = answers.into_iter().map(|(code, body)| (code, body.to_owned())).collect();
        Server { answers: Arc::new(Mutex::new(answers)), asked: Arc::default() }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                server.asked.lock().unwrap().push((request.uri().to_string(), Instant::now()));
                let answer = server.answers.lock().unwrap().pop_front();
                let Some((code, body)) = answer else { return std::future::pending().await };
                Ok::<_, std::convert::Infallible>(
                    Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap(),
                )
            }
        });
        Client::new(service, "default")
    }

    fn asked(&self) -> Vec<(String, Instant)> {
        self.asked.lock().unwrap().clone()
    }
}

const LIST: &str = r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[
    {"metadata":{"name":"a","namespace":"n","resourceVersion":"3"},"data":{"k":"v"}},
    {"metadata":{"name":"b","namespace":"n","resourceVersion":"4"}}]}"#;
const EMPTY: &str = r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[]}"#;

fn name(event: Result<Event<ConfigMap>, Error>) -> String {
    let of = |what: &str, object: ConfigMap| format!("{what} {}", object.metadata.name.unwrap());
    match event {
        Ok(Event::Init) => "init".into(),
        Ok(Event::InitApply(object)) => of("listed", object),
        Ok(Event::InitDone) => "listed all".into(),
        Ok(Event::Apply(object)) => of("put", object),
        Ok(Event::Delete(object)) => of("gone", object),
        Err(Error::InitialListFailed(_)) => "no list".into(),
        Err(Error::WatchFailed(_)) => "unreadable".into(),
        Err(error) => panic!("{error}"),
    }
}

async fn names(events: Events<ConfigMap>, most: usize) -> Vec<String> {
    events.take(most).map(name).collect().await
}

#[tokio::test(start_paused = true)]
async fn objects_are_read_from_lists_and_watches() {
    let server = Server::new([
        (200, LIST),
        (
            200,
            r#"{"type":"MODIFIED","object":{"metadata":{"name":"a","resourceVersion":"8"},"data":{"k":"w"}}}
{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"9"}}}
{"type":"DELETED","object":{"metadata":{"name":"b","resourceVersion":"10"}}}
"#,
        ),
    ]);
    let events = namespaced::<ConfigMap>(server.client(), "n", Config::default().any_semantic().labels("l=m"));
    assert_eq!(names(events, 6).await, ["init", "listed a", "listed b", "listed all", "put a", "gone b"]);
    let asked = server.asked();
    assert!(asked[0].0.starts_with("/api/v1/namespaces/n/configmaps?"), "{asked:?}");
    assert!(asked[0].0.contains("labelSelector=l%3Dm"), "{asked:?}");
    assert!(asked[1].0.contains("watch=true") && asked[1].0.contains("resourceVersion=7"), "{asked:?}");
}

/// Members of JSON have no order: an event may say after its object what became of that, and an object its name last.
#[tokio::test(start_paused = true)]
async fn the_type_of_an_event_may_come_last() {
    let bookmark = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"9"}}"#;
    let gone = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","message":"m","code":410}"#;
    let lines = [
        r#"{"object":{"data":{"k":"\"w\u00e9"},"metadata":{"resourceVersion":"8","name":"a"}},"type":"MODIFIED"}"#
            .into(),
        format!(r#"{{"object":{bookmark},"type":"BOOKMARK"}}"#),
        r#"{"object":{"metadata":{"name":"b","resourceVersion":"10"}},"type":"DELETED"}"#.into(),
        r#"{"object":{"metadata":{"name":"c","resourceVersion":"11"},"data":3},"type":"ADDED"}"#.into(),
        format!(r#"{{"object":{gone},"type":"ERROR"}}"#),
    ];
    let server = Server::new([(200, LIST), (200, &lines.join("\n"))]);
    let events: Vec<_> = all::<ConfigMap>(server.client(), Config::default()).skip(4).take(4).collect().await;
    let Ok(Event::Apply(object)) = &events[0] else { panic!("{events:?}") };
    assert_eq!(object.metadata.name.as_deref(), Some("a"));
    assert_eq!(object.data.as_ref().unwrap()["k"], "\"w\u{e9}");
    assert!(
        matches!(&events[1], Ok(Event::Delete(object)) if object.metadata.name.as_deref() == Some("b")),
        "{events:?}"
    );
    assert!(events[2].as_ref().is_err_and(|error| error.to_string().contains("c cannot be read")), "{events:?}");
    assert!(matches!(&events[3], Err(Error::WatchError(status)) if status.code == 410), "{events:?}");
}

/// What cannot be read is not taken for gone.
#[tokio::test(start_paused = true)]
async fn a_list_with_an_unreadable_object_is_not_whole() {
    let damaged = LIST.replace(r#""resourceVersion":"4"}}"#, r#""resourceVersion":"4"},"data":3}"#);
    assert_ne!(damaged, LIST);
    let server = Server::new([(200, &damaged), (200, LIST)]);
    let events = all::<ConfigMap>(server.client(), Config::default());
    let expected = ["init", "listed a", "unreadable", "init", "listed a", "listed b", "listed all"];
    assert_eq!(names(events, 7).await, expected);
}

/// A server that ends all watches is not asked by all at once, however often it does.
#[tokio::test(start_paused = true)]
async fn what_was_listed_is_not_listed_again_at_once() {
    let gone = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","message":"","code":410}"#;
    let event = format!(r#"{{"type":"ERROR","object":{gone}}}"#);
    let server = Server::new([(200, EMPTY), (200, &event), (200, EMPTY), (410, gone), (200, EMPTY)]);
    let mut events = all::<ConfigMap>(server.client(), Config::default());
    for _ in 0..2 {
        assert!(matches!(events.next().await, Some(Ok(Event::Init))));
        assert!(matches!(events.next().await, Some(Ok(Event::InitDone))));
        let told = events.next().await;
        assert!(matches!(&told, Some(Err(Error::WatchError(_) | Error::WatchStartFailed(_)))), "{told:?}");
    }
    assert!(matches!(events.next().await, Some(Ok(Event::Init))));
    assert!(matches!(events.next().await, Some(Ok(Event::InitDone))));
    let asked = server.asked();
    for pair in [&asked[1..3], &asked[3..5]] {
        assert!(pair[1].1 - pair[0].1 >= crate::backoff::SETTLED, "{asked:?}");
    }
}

/// Who cannot be told that an object is gone learns it from a list.
#[tokio::test(start_paused = true)]
async fn a_deletion_that_cannot_be_read_is_listed() {
    let line =
        r#"{"type":"DELETED","object":{"metadata":{"name":"b","namespace":"n","resourceVersion":"10"},"data":3}}"#;
    let server = Server::new([(200, LIST), (200, line), (200, EMPTY)]);
    let mut events = all::<ConfigMap>(server.client(), Config::default()).skip(4);
    let error = events.next().await.unwrap().unwrap_err().to_string();
    assert!(error.contains("n/b cannot be read"), "{error}");
    assert!(matches!(events.next().await, Some(Ok(Event::Init))));
    assert!(matches!(events.next().await, Some(Ok(Event::InitDone))));
}

/// The watcher says that a list begins before it asks for one; that is no success.
#[tokio::test(start_paused = true)]
async fn pauses_grow_while_nothing_can_be_listed() {
    let status =
        r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","reason":"Forbidden","code":403}"#;
    let server = Server::new([(403, status), (403, status), (403, status), (403, status), (200, EMPTY)]);
    let names = names(all(server.client(), Config::default()), 10).await;
    assert_eq!(names[8..], ["init", "listed all"]);
    assert!(names[..8].chunks(2).all(|pair| pair == ["init", "no list"]), "{names:?}");
    let asked = server.asked();
    for (number, pair) in asked.windows(2).enumerate() {
        let least = crate::backoff::FIRST * (1 << number);
        let pause = pair[1].1 - pair[0].1;
        assert!(pause >= least && pause <= least * 2 + Duration::from_millis(10), "{number}: {pause:?}");
    }
}

/// Who keeps objects by their names is told what is gone, also of what went while nobody watched.
#[tokio::test(start_paused = true)]
async fn what_a_list_does_not_bring_is_gone() {
    let gone = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","message":"","code":410}"#;
    let end = format!(
        r#"{{"type":"DELETED","object":{{"metadata":{{"name":"a","resourceVersion":"8"}}}}}}
{{"type":"ERROR","object":{gone}}}"#
    );
    let server = Server::new([(200, LIST), (200, &end), (200, EMPTY)]);
    let mut events = kept::<ConfigMap>(server.client(), Config::default()).boxed();
    let (mut listing, mut keep) = (Listing::default(), std::collections::BTreeSet::new());
    let name = |metadata: &ObjectMeta| metadata.name.clone().unwrap();
    let mut told = Vec::new();
    for _ in 0..7 {
        let (put, gone) = listing.take(events.next().await.unwrap(), name, || keep.clone());
        keep.extend(put.map(|object| name(&object.metadata)));
        keep.retain(|name| !gone.contains(name));
        told.push((listing.is_complete(), keep.iter().map(String::as_str).collect::<Vec<_>>().join(" ")));
    }
    // Begun, two objects, ended; a deletion; begun again and ended.
    let expected = [(false, ""), (false, "a"), (false, "a b"), (true, "a b"), (true, "b"), (true, "b"), (true, "")];
    assert_eq!(told.iter().map(|(complete, names)| (*complete, names.as_str())).collect::<Vec<_>>(), expected);
    let asked = server.asked();
    assert!(asked[0].0.contains("limit=4294967295"), "{asked:?}");
}
