//! Watches: no gap, no repeat, whatever happens meanwhile.

use crate::client::{Client, Server};
use http::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn put(client: &Client, name: &str, value: u64) -> Value {
    let object = json!({"metadata": {"name": name, "labels": {"even": value.is_multiple_of(2).to_string()}}, "data": {"v": value.to_string()}});
    let answer = client.post(MAPS, &object).await;
    if answer.code == 201 {
        return answer.json();
    }
    client.put(&format!("{MAPS}/{name}"), &object).await.ok()
}

#[tokio::test]
async fn changes_are_told_in_order() {
    let server = Server::start().await;
    let client = server.client();
    put(&client, "a", 1).await;
    let mut all = client.watch(&format!("{MAPS}?watch=true")).await;
    let (kind, name, first) = all.told().await;
    assert_eq!((kind.as_str(), name.as_str()), ("ADDED", "a"));
    let mut later = client.watch(&format!("{MAPS}?watch=true&resourceVersion={first}")).await;
    let mut even = client.watch(&format!("{MAPS}?watch=true&labelSelector=even%3Dtrue&resourceVersion={first}")).await;
    let mut named =
        client.watch(&format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Db&resourceVersion={first}")).await;
    put(&client, "a", 2).await;
    put(&client, "b", 3).await;
    put(&client, "a", 5).await;
    client.delete(&format!("{MAPS}/b")).await.ok();
    for events in [&mut all, &mut later] {
        let mut last = first;
        for (kind, name) in [("MODIFIED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")] {
            let told = events.told().await;
            assert_eq!((told.0.as_str(), told.1.as_str()), (kind, name));
            assert!(told.2 > last);
            last = told.2;
        }
    }
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(even.told().await);
    }
    assert_eq!(told[0].0, "ADDED");
    assert_eq!(told[1].0, "DELETED");
    assert!(told[1].2 > told[0].2);
    assert_eq!(named.told().await.0, "ADDED");
    assert_eq!(named.told().await.0, "DELETED");
}

#[tokio::test]
async fn a_path_of_a_watch_is_only_got() {
    let server = Server::start().await;
    let client = server.client();
    put(&client, "a", 1).await;
    let watches = [
        "/api/v1/watch/configmaps",
        "/api/v1/watch/namespaces/default/configmaps",
        "/api/v1/watch/namespaces/default/configmaps/a",
    ];
    for path in watches {
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD] {
            let refused = client.raw(method.clone(), path, &[("content-type", "application/json")], "{}").await;
            assert_eq!(refused.code, 405, "{method} {path}: {}", refused.text());
            if method != Method::HEAD {
                assert_eq!(
                    refused.json()["message"],
                    "the server does not allow this method on the requested resource"
                );
            }
        }
        assert_eq!(client.watch(path).await.told().await.0, "ADDED", "{path}");
    }
    // Nothing is served at these, whatever the verb of the object is.
    let nowhere = [
        "/api/v1/watch/namespaces/default/pods/a/status",
        "/api/v1/watch/namespaces/default/pods/a/proxy/x",
        "/api/v1/proxy/namespaces/default/pods/a",
    ];
    for path in nowhere {
        for method in [Method::GET, Method::PUT, Method::PATCH] {
            let refused = client.raw(method, path, &[("content-type", "application/json")], "{}").await.refused(404);
            assert_eq!(refused["message"], "the server could not find the requested resource", "{path}");
        }
    }
}

#[tokio::test]
async fn a_list_and_its_watch_leave_no_gap() {
    let server = Server::start().await;
    let client = server.client();
    const WRITERS: usize = 8;
    const EACH: u64 = 40;
    let writers = (0..WRITERS).map(|writer| {
        let client = client.clone();
        tokio::spawn(async move {
            for i in 0..EACH {
                let name = format!("w{writer}-{}", i % 5);
                if i % 7 == 6 {
                    client.delete(&format!("{MAPS}/{name}")).await;
                } else {
                    put(&client, &name, i).await;
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let readers = (0..6).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let list = client.get(MAPS).await.ok();
            let version = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
            let mut state: BTreeMap<String, u64> = BTreeMap::new();
            for item in list["items"].as_array().unwrap() {
                let text = |path: &str| item["metadata"][path].as_str().unwrap().to_owned();
                state.insert(text("name"), text("resourceVersion").parse().unwrap());
            }
            (version, state)
        })
    });
    let mut lists = Vec::new();
    for reader in readers.collect::<Vec<_>>() {
        lists.push(reader.await.unwrap());
    }
    let mut watches = Vec::new();
    for (version, state) in lists {
        let events = client.watch(&format!("{MAPS}?watch=true&resourceVersion={version}")).await;
        watches.push((version.parse::<u64>().unwrap(), state, events));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    // The end is marked, so that every watch knows that it has seen all.
    put(&client, "zz-end", 0).await;
    let last = client.get(MAPS).await.ok();
    let mut wanted: BTreeMap<String, u64> = BTreeMap::new();
    for item in last["items"].as_array().unwrap() {
        let text = |path: &str| item["metadata"][path].as_str().unwrap().to_owned();
        wanted.insert(text("name"), text("resourceVersion").parse().unwrap());
    }
    for (from, mut state, mut events) in watches {
        let mut previous = from;
        loop {
            let (kind, name, version) = events.told().await;
            assert!(version > previous, "{kind} {name} at {version} after {previous}");
            previous = version;
            match kind.as_str() {
                "ADDED" => assert!(state.insert(name.clone(), version).is_none(), "{name} was there"),
                "MODIFIED" => assert!(state.insert(name.clone(), version).is_some(), "{name} was not there"),
                "DELETED" => assert!(state.remove(&name).is_some(), "{name} was not there"),
                other => panic!("{other}"),
            }
            if name == "zz-end" {
                break;
            }
        }
        assert_eq!(state, wanted);
    }
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = Server::start().await;
    let client = server.client();
    for i in 0..300 {
        put(&client, &format!("n{i:03}"), i).await;
    }
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut events = client.watch(&format!("{MAPS}?{query}")).await;
    for i in 0..300 {
        assert_eq!(events.told().await.1, format!("n{i:03}"));
    }
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let refused = client.get(&format!("{MAPS}?watch=true&sendInitialEvents=true")).await.refused(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    );
}

#[tokio::test]
async fn a_start_that_is_too_old_is_told_in_the_stream() {
    let server = Server::start().await;
    let client = server.client();
    put(&client, "a", 1).await;
    let store = server.store.clone();
    // A server that starts when the past is compacted has none.
    let now = store::Store::status(&*store).await.unwrap().revision;
    store::Store::compact(&*store, now).await.unwrap();
    let registry = apiserver::registry::Registry::open(store).await.unwrap();
    let oldest = registry.caches().progress().revision();
    assert!(oldest > 1);
    let cacher = registry.preferred("", "configmaps").unwrap().cacher.clone().unwrap();
    let start = apiserver::cache::Start::After(1);
    assert!(cacher.watch(apiserver::cache::Filter::everything(), start).is_err());
}

#[tokio::test]
async fn a_watch_and_a_list_go_on_over_a_restart() {
    let server = Server::start().await;
    let client = server.client();
    for value in 1..4 {
        put(&client, "a", value).await;
    }
    let page = client.get(&format!("{MAPS}?limit=1")).await.ok();
    let first = put(&client, "b", 1).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    put(&client, "b", 2).await;
    client.delete(&format!("{MAPS}/a")).await.ok();
    put(&client, "b", 3).await;
    let restarted = server.restarted().await;
    put(&restarted, "c", 1).await;
    let mut events = restarted.watch(&format!("{MAPS}?watch=true&resourceVersion={first}")).await;
    for wanted in [("MODIFIED", "b"), ("DELETED", "a"), ("MODIFIED", "b"), ("ADDED", "c")] {
        let (kind, name, _) = events.told().await;
        assert_eq!((kind.as_str(), name.as_str()), wanted);
    }
    let version = page["metadata"]["resourceVersion"].as_str().unwrap();
    let then = restarted.get(&format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).await.ok();
    let items = then["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["data"]["v"]), (1, &json!("3")), "the state of that revision: {then}");
}

#[tokio::test]
async fn a_watch_ends_when_it_said() {
    let server = Server::start().await;
    let client = server.client();
    let mut events = client.watch(&format!("{MAPS}?watch=true&timeoutSeconds=1")).await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), events.next()).await.expect("it ends");
    assert!(ended.is_none());
}

#[tokio::test]
async fn an_event_that_cannot_be_shown_is_an_error_to_each_who_watches() {
    let server = Server::start().await;
    let client = server.client();
    let version = client.get(MAPS).await.ok()["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let path = format!("{MAPS}?watch=true&resourceVersion={version}");
    let metadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
    let mut watchers =
        [client.watch_as(&path, metadata).await, client.watch_as(&path, metadata).await, client.watch(&path).await];
    // Its text has all that memory asks for, but it is no object of the kind.
    let wrong = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","namespace":"default"},"data":5}"#;
    let put = store::Op::Put { key: "/registry/configmaps/default/a".into(), value: wrong.into(), lease: 0 };
    store::Store::txn(&*server.store, store::Txn::of(vec![put])).await.unwrap();
    for events in &mut watchers[..2] {
        assert_eq!(events.told().await.0, "ERROR");
        assert_eq!(events.next().await, None);
    }
    // Who gets the text as it is sees what is there.
    assert_eq!(watchers[2].told().await.0, "ADDED");
}
