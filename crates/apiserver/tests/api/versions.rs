//! `resourceVersion` and `resourceVersionMatch`, in every combination, of lists, gets and watches.

use crate::client::{Client, Server};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn map(client: &Client, name: &str) -> u64 {
    let made = client.post(MAPS, &json!({"metadata": {"name": name}})).await.ok();
    made["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn lists_are_of_the_version_asked_for() {
    let server = Server::start().await;
    let client = server.client();
    map(&client, "a").await;
    let old = map(&client, "b").await;
    map(&client, "c").await;
    let future = old + 100;
    let all = ["a", "b", "c"];
    let then = ["a", "b"];
    let first = ["a"];
    // Version, match, limit → what is listed, or the refusal.
    let rows: Vec<(String, &str, &str, Result<&[&str], u16>)> = vec![
        (String::new(), "", "", Ok(&all)),
        (String::new(), "", "1", Ok(&first)),
        (String::new(), "Exact", "", Err(422)),
        (String::new(), "NotOlderThan", "", Err(422)),
        ("0".into(), "", "", Ok(&all)),
        // "Any state" has always been given whole.
        ("0".into(), "", "1", Ok(&all)),
        ("0".into(), "Exact", "", Err(422)),
        ("0".into(), "NotOlderThan", "", Ok(&all)),
        ("0".into(), "Unheard", "", Err(422)),
        (old.to_string(), "", "", Ok(&all)),
        (old.to_string(), "", "5", Ok(&then)),
        (old.to_string(), "Exact", "", Ok(&then)),
        (old.to_string(), "Exact", "1", Ok(&first)),
        (old.to_string(), "NotOlderThan", "", Ok(&all)),
        (old.to_string(), "NotOlderThan", "1", Ok(&first)),
        (future.to_string(), "", "", Err(504)),
        (future.to_string(), "Exact", "", Err(504)),
        (future.to_string(), "NotOlderThan", "", Err(504)),
        ("x".into(), "", "", Err(400)),
    ];
    for (version, matching, limit, wanted) in rows {
        let mut query = format!("resourceVersion={version}&limit={limit}");
        if !matching.is_empty() {
            query.push_str(&format!("&resourceVersionMatch={matching}"));
        }
        let answer = client.get(&format!("{MAPS}?{query}")).await;
        match wanted {
            Ok(wanted) => {
                let list = answer.ok();
                assert_eq!(names(&list), wanted, "{query}");
                let told: u64 = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                match (matching, limit) {
                    ("Exact", _) | ("", "5") => assert_eq!(told, old, "{query}"),
                    _ => assert!(told > old, "{query}"),
                }
            }
            Err(504) => {
                assert_eq!(answer.headers["retry-after"], "1", "{query}");
                let refused = answer.refused(504);
                assert_eq!(refused["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
                assert_eq!(refused["details"]["causes"][0]["message"], "Too large resource version");
                assert_eq!(refused["reason"], "Timeout");
                assert!(refused["message"].as_str().unwrap().starts_with("Timeout: Too large resource version: "));
            }
            Err(code) => {
                answer.refused(code);
            }
        }
    }
    // All that is wrong is told.
    let both =
        client.get(&format!("{MAPS}?resourceVersionMatch=Nope&continue=x&sendInitialEvents=true")).await.refused(422);
    assert_eq!(both["details"]["causes"].as_array().unwrap().len(), 4, "{both}");
    assert_eq!(both["details"]["kind"], "ListOptions");
    for version in ["", "0", &old.to_string()] {
        client.get(&format!("{MAPS}/c?resourceVersion={version}")).await.ok();
    }
    client.get(&format!("{MAPS}/c?resourceVersion={future}")).await.refused(504);
    client.get(&format!("{MAPS}/c?resourceVersion=x")).await.refused(400);
}

#[tokio::test]
async fn a_list_goes_on_where_it_can() {
    let server = Server::start().await;
    let client = server.client();
    for name in ["a", "b", "c", "d"] {
        map(&client, name).await;
    }
    let page = client.get(&format!("{MAPS}?limit=1")).await.ok();
    assert_eq!(page["metadata"]["remainingItemCount"], 3);
    let token = page["metadata"]["continue"].as_str().unwrap();
    for selector in ["labelSelector=a", "fieldSelector=metadata.name!%3Dx"] {
        let selected = client.get(&format!("{MAPS}?limit=1&{selector}")).await.ok();
        assert!(selected["metadata"].get("remainingItemCount").is_none(), "{selector}: {selected}");
    }
    client.delete(&format!("{MAPS}/c")).await.ok();
    map(&client, "e").await;
    let same = client.get(&format!("{MAPS}?limit=2&continue={token}&resourceVersion=0")).await.ok();
    assert_eq!(names(&same), ["b", "c"], "the state is the one that the list began with");
    assert_eq!(same["metadata"]["remainingItemCount"], 1);
    // Who does not know that state any more says so, and how to go on without it.
    let forgetful = server.forgetful().await;
    let expired = forgetful.get(&format!("{MAPS}?limit=2&continue={token}")).await.refused(410);
    assert_eq!(expired["reason"], "Expired");
    assert!(expired["message"].as_str().unwrap().starts_with("The provided continue parameter is too old"));
    let fresh = expired["metadata"]["continue"].as_str().unwrap();
    let rest = forgetful.get(&format!("{MAPS}?continue={fresh}")).await.ok();
    assert_eq!(names(&rest), ["b", "d", "e"], "the newest state, after the same place");
    let exact = page["metadata"]["resourceVersion"].as_str().unwrap();
    let gone = forgetful.get(&format!("{MAPS}?resourceVersion={exact}&resourceVersionMatch=Exact")).await.refused(410);
    assert_eq!(gone["message"], "The resourceVersion for the provided list is too old.");
}

#[tokio::test]
async fn watches_begin_where_they_are_asked_to() {
    let server = Server::start().await;
    let client = server.client();
    map(&client, "a").await;
    let old = map(&client, "b").await;
    map(&client, "c").await;
    let initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let none = "sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    for (query, wanted) in [
        (String::new(), vec!["a", "b", "c"]),
        ("resourceVersion=0".to_owned(), vec!["a", "b", "c"]),
        (format!("resourceVersion={old}"), vec!["c"]),
        (initial.to_owned(), vec!["a", "b", "c", ""]),
        (format!("{initial}&resourceVersion=0"), vec!["a", "b", "c", ""]),
        (format!("{initial}&resourceVersion={old}"), vec!["a", "b", "c", ""]),
        (none.to_owned(), vec![]),
        (format!("{none}&resourceVersion=0"), vec![]),
        (format!("{none}&resourceVersion={old}"), vec!["c"]),
    ] {
        let mut events = client.watch(&format!("{MAPS}?watch=true&{query}")).await;
        // What comes after the beginning is told too, once.
        let name = format!("z{}", query.len());
        map(&client, &name).await;
        for wanted in wanted.into_iter().chain([name.as_str()]) {
            let (kind, told, _) = events.told().await;
            if told.starts_with('z') && told != name {
                // Of an earlier round.
                continue;
            }
            assert_eq!(told, wanted, "{query}");
            assert_eq!(kind, if wanted.is_empty() { "BOOKMARK" } else { "ADDED" }, "{query}");
        }
        client.delete(&format!("{MAPS}/{name}")).await.ok();
    }
    for query in [
        "resourceVersionMatch=NotOlderThan".to_owned(),
        "sendInitialEvents=true".to_owned(),
        "sendInitialEvents=true&resourceVersionMatch=Exact".to_owned(),
    ] {
        client.get(&format!("{MAPS}?watch=true&{query}")).await.refused(422);
    }
    client.get(&format!("{MAPS}?watch=true&resourceVersion=x")).await.refused(400);
    // What is not there yet is told in the stream, too.
    let mut events = client.watch(&format!("{MAPS}?watch=true&{initial}&resourceVersion={}", old + 1000)).await;
    let event = events.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(504)));
    let message = event["object"]["message"].as_str().unwrap_or("");
    assert!(
        message.starts_with(&format!("Timeout: Too large resource version: {}, current: ", old + 1000)),
        "{message}"
    );
    assert!(events.next().await.is_none());
    // Too old: told in the stream, which then ends.
    let forgetful = server.forgetful().await;
    let mut events = forgetful.watch(&format!("{MAPS}?watch=true&resourceVersion={old}")).await;
    let event = events.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert!(event["object"]["message"].as_str().unwrap().starts_with(&format!("too old resource version: {old} (")));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn kinds_are_selected_by_their_own_fields_alone() {
    let server = Server::start().await;
    let client = server.client();
    for (path, fields) in [
        (
            "/api/v1/pods",
            "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName spec.hostNetwork status.phase status.podIP status.podIPs status.nominatedNodeName metadata.name metadata.namespace",
        ),
        ("/api/v1/nodes", "spec.unschedulable metadata.name"),
        ("/api/v1/namespaces", "status.phase metadata.name"),
        ("/api/v1/secrets", "type"),
        ("/api/v1/services", "spec.clusterIP spec.type"),
        ("/api/v1/replicationcontrollers", "status.replicas"),
        (
            "/api/v1/events",
            "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type",
        ),
        (
            "/apis/events.k8s.io/v1/events",
            "regarding.kind regarding.namespace regarding.name regarding.uid regarding.apiVersion regarding.resourceVersion regarding.fieldPath reason reportingController type",
        ),
        ("/apis/batch/v1/jobs", "status.successful"),
        ("/apis/certificates.k8s.io/v1/certificatesigningrequests", "spec.signerName"),
        ("/apis/apps/v1/deployments", "metadata.name metadata.namespace"),
    ] {
        for field in fields.split(' ') {
            let answer = client.get(&format!("{path}?fieldSelector={field}%3Dx")).await;
            assert_eq!(answer.code, 200, "{path} {field}: {}", answer.text());
        }
        for field in ["spec.nope", "status.phases", "metadata.uid", "metadata.labels.a"] {
            let refused = client.get(&format!("{path}?fieldSelector={field}%3Dx")).await.refused(400);
            assert!(refused["message"].as_str().unwrap().contains(field), "{refused}");
        }
    }
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    client.post("/api/v1/namespaces/default/pods", &pod).await.ok();
    for (selector, found) in [("%3D10.0.0.1", 0), ("!%3D10.0.0.1", 1), ("%3D", 1), ("!%3D", 0)] {
        let list = client.get(&format!("/api/v1/pods?fieldSelector=status.podIPs{selector}")).await.ok();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(found), "{selector}");
    }
    for selector in ["a+in+()", "a%3D%3D%3Db", "a+notin+b", "!a%3Db", "a%3E0x", "-a"] {
        let answer = client.get(&format!("{MAPS}?labelSelector={selector}")).await;
        assert!(matches!(answer.code.as_u16(), 200 | 400), "{selector}: {}", answer.text());
    }
}
