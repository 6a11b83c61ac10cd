//! Views of the past: `/at/MOMENT/…` and `/history/…`.

use crate::client::{Client, Server};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// 2023-11-14T22:13:20Z
const EPOCH: i64 = 1_700_000_000;

/// A clock that is set.
#[derive(Default)]
struct Hand(AtomicI64);

impl store::embedded::Clock for Hand {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn wall_millis(&self) -> i64 {
        (EPOCH + self.0.load(Ordering::SeqCst)) * 1000
    }
}

/// A server, its client, and the clock.
async fn start() -> (Server, Client, Arc<Hand>) {
    let clock = Arc::new(Hand::default());
    let server = Server::start_keeping(clock.clone()).await;
    let client = server.client();
    (server, client, clock)
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Makes a ConfigMap or changes it; tells the resource version.
async fn map(client: &Client, name: &str, value: &str) -> u64 {
    let map = json!({"metadata": {"name": name, "labels": {"value": value}}, "data": {"value": value}});
    let written = client.put(&format!("{MAPS}/{name}"), &map).await;
    match written.code.as_u16() {
        404 => version(&client.post(MAPS, &map).await.ok()),
        _ => version(&written.ok()),
    }
}

fn values(list: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| format!("{}={}", text(&item["metadata"]["name"]), text(&item["data"]["value"]))).collect()
}

#[tokio::test]
async fn a_moment_is_shown_as_it_was() {
    let (server, client, clock) = start().await;
    map(&client, "a", "1").await;
    clock.0.store(10, Ordering::SeqCst);
    let then = map(&client, "b", "1").await;
    clock.0.store(20, Ordering::SeqCst);
    map(&client, "a", "2").await;
    client.delete(&format!("{MAPS}/b")).await.ok();
    map(&client, "c", "1").await;
    // Nothing of it is in memory, and the store's own reads do not reach back so far.
    let client = server.forgetful().await;
    for moment in [then.to_string(), "2023-11-14T22:13:30Z".into(), "2023-11-14T23:13:39%2B01:00".into()] {
        let at = format!("/at/{moment}{MAPS}");
        let list = client.get(&at).await.ok();
        assert_eq!(values(&list), ["a=1", "b=1"], "{moment}");
        assert_eq!((&list["kind"], version(&list)), (&json!("ConfigMapList"), then), "{moment}");
        let gone = client.get(&format!("{at}/b")).await.ok();
        assert_eq!((&gone["data"]["value"], version(&gone)), (&json!("1"), then), "{moment}");
        let absent = client.get(&format!("{at}/c")).await.refused(404);
        assert_eq!(absent["message"], "configmaps \"c\" not found");
        assert_eq!(values(&client.get(&format!("{at}?labelSelector=value%3D2")).await.ok()), [""; 0]);
        let named = client.get(&format!("{at}?fieldSelector=metadata.name%3Da&labelSelector=value%3D1")).await.ok();
        assert_eq!(values(&named), ["a=1"]);
        assert_eq!(values(&client.get(&format!("/at/{moment}/api/v1/configmaps")).await.ok()), ["a=1", "b=1"]);
    }
    assert_eq!(values(&client.get(&format!("/at/2023-11-14T22:13:20Z{MAPS}")).await.ok()), ["a=1"]);
    assert_eq!(values(&client.get(MAPS).await.ok()), ["a=2", "c=1"]);
    // Pages go on in the same state.
    let page = client.get(&format!("/at/{then}{MAPS}?limit=1")).await.ok();
    assert_eq!((values(&page), &page["metadata"]["remainingItemCount"]), (vec!["a=1".to_owned()], &json!(1)));
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = client.get(&format!("/at/{then}{MAPS}?limit=1&continue={token}")).await.ok();
    assert_eq!((values(&rest), rest["metadata"].get("continue")), (vec!["b=1".to_owned()], None));
    // Ages are those of then.
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = client.raw(http::Method::GET, &format!("/at/{then}{MAPS}"), &accept, "").await.ok();
    assert_eq!(table["rows"].as_array().unwrap().len(), 2);
    assert_eq!(table["rows"][0]["cells"][0], "a");
}

#[tokio::test]
async fn an_exact_list_goes_back_as_far_as_history_is_kept() {
    let (server, client, _) = start().await;
    let first = map(&client, "a", "1").await;
    let then = map(&client, "b", "1").await;
    map(&client, "a", "2").await;
    let client = server.forgetful().await;
    let exact = format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion={then}");
    let list = client.get(&exact).await.ok();
    assert_eq!((values(&list), version(&list)), (vec!["a=1".to_owned(), "b=1".to_owned()], then));
    let page = client.get(&format!("{exact}&limit=1")).await.ok();
    let token = page["metadata"]["continue"].as_str().unwrap();
    assert_eq!(values(&client.get(&format!("{MAPS}?continue={token}")).await.ok()), ["b=1"]);
    // A watch from there ends, as ever.
    let mut watch = client.watch(&format!("{MAPS}?watch=1&resourceVersion={first}")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["code"], 410);
}

#[tokio::test]
async fn what_is_not_kept_is_told() {
    let (server, client, clock) = start().await;
    let old = map(&client, "a", "1").await;
    clock.0.store(10, Ordering::SeqCst);
    let kept = map(&client, "a", "2").await;
    // An hour is kept.
    clock.0.store(3615, Ordering::SeqCst);
    let client = server.forgetful().await;
    server.store.maintain().await.unwrap();
    assert_eq!(values(&client.get(&format!("/at/{kept}{MAPS}")).await.ok()), ["a=2"]);
    for (moment, asked) in [
        (old.to_string(), format!("resource version {old}")),
        ("2023-11-14T22:13:25Z".into(), "2023-11-14T22:13:25Z".into()),
    ] {
        for path in [MAPS.to_owned(), format!("{MAPS}/a")] {
            let gone = client.get(&format!("/at/{moment}{path}")).await.refused(410);
            assert_eq!(gone["reason"], "Expired");
            let message = gone["message"].as_str().unwrap();
            assert!(
                message.starts_with(&format!("{asked} is older than what is kept of configmaps: the oldest is")),
                "{message}"
            );
            assert!(message.ends_with("2023-11-14T22:13:30Z"), "{message}");
        }
    }
    let history = client.get(&format!("/history{MAPS}/a")).await.ok();
    assert_eq!(history["versions"].as_array().unwrap().len(), 1);
    // Exact lists say what they always said.
    let exact = format!("{MAPS}?resourceVersionMatch=Exact&resourceVersion={old}");
    let expired = client.get(&exact).await.refused(410);
    assert_eq!(expired["message"], "The resourceVersion for the provided list is too old.");
    for (moment, told) in [
        ("99999999".to_owned(), "resource version 99999999 is still to come: the latest is"),
        ("2999-01-01T00:00:00Z".into(), "2999-01-01T00:00:00Z is still to come: it is"),
        ("yesterday".into(), "\"yesterday\" is no moment"),
    ] {
        let refused = client.get(&format!("/at/{moment}{MAPS}")).await.refused(400);
        assert!(refused["message"].as_str().unwrap().starts_with(told), "{refused}");
    }
    // Of Leases nothing is kept beyond what watches can tell.
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    client.get(&format!("/at/{old}{leases}")).await.refused(410);
    let refused = client.get(&format!("/at/2023-11-14T22:13:35Z{leases}")).await.refused(400);
    assert!(refused["message"].as_str().unwrap().contains("ask for a resource version"), "{refused}");
}

#[tokio::test]
async fn the_versions_of_an_object_are_told() {
    let (server, client, clock) = start().await;
    let first = map(&client, "a", "1").await;
    clock.0.store(10, Ordering::SeqCst);
    let second = map(&client, "a", "2").await;
    clock.0.store(20, Ordering::SeqCst);
    client.delete(&format!("{MAPS}/a")).await.ok();
    clock.0.store(30, Ordering::SeqCst);
    let last = map(&client, "a", "3").await;
    let client = server.forgetful().await;
    let path = format!("/history{MAPS}/a");
    let told = |history: &Value| -> Vec<String> {
        let row = |v: &Value| {
            let text = |field: &str| v[field].as_str().unwrap_or_default().to_owned();
            let value = v["object"]["data"]["value"].as_str().unwrap_or("-");
            format!("{} {} {value}", text("type"), &text("time")[14..])
        };
        history["versions"].as_array().unwrap().iter().map(row).collect()
    };
    let history = client.get(&path).await.ok();
    let all = ["ADDED 13:50Z 3", "DELETED 13:40Z -", "MODIFIED 13:30Z 2", "ADDED 13:20Z 1"];
    assert_eq!(told(&history), all);
    assert_eq!(history["versions"][0]["object"]["kind"], "ConfigMap");
    let versions: Vec<&str> =
        history["versions"].as_array().unwrap().iter().map(|v| v["resourceVersion"].as_str().unwrap()).collect();
    assert_eq!([versions[0], versions[2], versions[3]], [last, second, first].map(|v| v.to_string()));
    let page = client.get(&format!("{path}?limit=3")).await.ok();
    assert_eq!(told(&page), all[..3]);
    let next = page["metadata"]["continue"].as_str().unwrap();
    let rest = client.get(&format!("{path}?limit=3&continue={next}")).await.ok();
    assert_eq!((told(&rest), rest["metadata"].get("continue")), (vec![all[3].to_owned()], None));
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let table = client.raw(http::Method::GET, &path, &accept, "").await.ok();
    assert_eq!(table["columnDefinitions"][2]["name"], "Change");
    assert_eq!(table["rows"][1]["cells"][2], "DELETED");
    client.get(&format!("/history{MAPS}/never")).await.refused(404);
    client.get(&format!("/history{MAPS}")).await.refused(400);
    client.get(&format!("{path}?continue=x")).await.refused(400);
}

#[tokio::test]
async fn the_past_can_only_be_looked_at() {
    let (_server, client, _) = start().await;
    let then = map(&client, "a", "1").await;
    let body = json!({"metadata": {"name": "b"}});
    for view in [format!("/at/{then}"), "/history".to_owned()] {
        let maps = format!("{view}{MAPS}");
        for refused in [
            client.post(&maps, &body).await,
            client.put(&format!("{maps}/a"), &body).await,
            client.patch(&format!("{maps}/a"), "application/merge-patch+json", "{}").await,
            client.delete(&format!("{maps}/a")).await,
            client.delete(&maps).await,
            client.get(&format!("{maps}?watch=1")).await,
            client.get(&format!("{view}/api/v1/watch/configmaps")).await,
            client.get(&format!("{view}/api/v1/namespaces/default/pods/a/log")).await,
            client.get(&format!("{view}/apis/apps/v1/namespaces/default/deployments/a/scale")).await,
        ] {
            let refused = refused.refused(405);
            assert_eq!(refused["reason"], "MethodNotAllowed");
        }
        // What clients read first is as today.
        for path in ["/api", "/apis", "/apis/apps/v1", "/openapi/v3", "/version"] {
            let (there, here) = (client.get(&format!("{view}{path}")).await, client.get(path).await);
            assert_eq!((there.code, there.bytes), (here.code, here.bytes), "{path}");
        }
        for path in ["/metrics", "/healthz", "/", "/debug/pprof/", "/nothing"] {
            assert_eq!(client.get(&format!("{view}{path}")).await.code, 404, "{path}");
        }
    }
    assert_eq!(values(&client.get(MAPS).await.ok()), ["a=1"]);
}

#[tokio::test]
async fn a_store_without_more_has_the_past_of_its_reads() {
    let server = Server::start().await;
    let client = server.client();
    let then = map(&client, "a", "1").await;
    map(&client, "a", "2").await;
    assert_eq!(values(&client.get(&format!("/at/{then}{MAPS}")).await.ok()), ["a=1"]);
    let history = client.get(&format!("/history{MAPS}/a")).await.ok();
    assert_eq!(history["versions"].as_array().unwrap().len(), 2);
    let client = server.forgetful().await;
    client.get(&format!("/at/{then}{MAPS}")).await.refused(410);
    client.get(&format!("/at/2023-11-14T22:13:25Z{MAPS}")).await.refused(400);
}
