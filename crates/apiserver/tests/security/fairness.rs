//! API Priority and Fairness through the whole server.

use super::cluster::{eventually, start};
use http_body_util::BodyExt;
use serde_json::{Value, json};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

#[tokio::test]
async fn answers_tell_schema_and_level_by_their_uids() {
    let cluster = start().await;
    let admin = cluster.admin();
    let uid = async |path: &str| {
        let object = admin.get(&format!("{GROUP}/{path}")).await.expect(200);
        object["metadata"]["uid"].as_str().expect("a uid").to_owned()
    };
    for (user, groups, path, code, schema, level) in [
        ("admin", ["system:masters"], "/api/v1/pods", 200, "exempt", "exempt"),
        ("jane", ["g"], "/api/v1/pods", 403, "global-default", "global-default"),
        ("system:node:n", ["system:nodes"], "/api/v1/nodes/n", 404, "system-node-high", "node-high"),
    ] {
        let answer = cluster.user(user, &groups).get(path).await;
        assert_eq!(answer.code, code, "{user}: {}", answer.body);
        let header = |name: &str| answer.headers[name].to_str().expect("text").to_owned();
        assert_eq!(header("x-kubernetes-pf-flowschema-uid"), uid(&format!("flowschemas/{schema}")).await);
        assert_eq!(
            header("x-kubernetes-pf-prioritylevel-uid"),
            uid(&format!("prioritylevelconfigurations/{level}")).await
        );
    }
}

fn dangling(schema: &Value) -> Option<(String, String)> {
    let all = schema["status"]["conditions"].as_array()?;
    let one = all.iter().find(|condition| condition["type"] == "Dangling")?;
    Some((one["status"].as_str()?.to_owned(), one["message"].as_str()?.to_owned()))
}

#[tokio::test]
async fn a_schema_without_its_level_dangles_until_that_is_there() {
    let admin = start().await.admin();
    let schema = json!({"metadata": {"name": "s"}, "spec": {
        "matchingPrecedence": 500, "priorityLevelConfiguration": {"name": "l"},
        "rules": [{"subjects": [{"kind": "Group", "group": {"name": "g"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    admin.post(&format!("{GROUP}/flowschemas"), schema).await.expect(201);
    let text = "This FlowSchema references the PriorityLevelConfiguration object named \"l\"";
    let becomes = async |status: &str, message: String| {
        eventually(async || {
            let schema = admin.get(&format!("{GROUP}/flowschemas/s")).await.expect(200);
            (dangling(&schema)? == (status.to_owned(), message.clone())).then_some(())
        })
        .await;
    };
    becomes("True", format!("{text} but there is no such object")).await;
    let level = json!({"metadata": {"name": "l"}, "spec": {"type": "Limited",
        "limited": {"limitResponse": {"type": "Reject"}}}});
    admin.post(&format!("{GROUP}/prioritylevelconfigurations"), level).await.expect(201);
    becomes("False", format!("{text} and it exists")).await;
    admin.delete(&format!("{GROUP}/prioritylevelconfigurations/l")).await.expect(200);
    becomes("True", format!("{text} but there is no such object")).await;
    // The first objects are told, too.
    let first = admin.get(&format!("{GROUP}/flowschemas/global-default")).await.expect(200);
    assert_eq!(dangling(&first).map(|(status, _)| status).as_deref(), Some("False"));
}

#[tokio::test]
async fn what_a_server_keeps_comes_back() {
    let admin = start().await.admin();
    let path = format!("{GROUP}/prioritylevelconfigurations/workload-low");
    let first = admin.get(&path).await.expect(200);
    admin.delete(&path).await.expect(200);
    eventually(async || {
        let again = admin.get(&path).await;
        (again.code == 200 && again.body["spec"] == first["spec"]).then_some(())
    })
    .await;
    // Whoever says so has it as they like.
    let own = json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}},
        "spec": {"limited": {"nominalConcurrencyShares": 7}}});
    admin.patch(&path, own).await.expect(200);
    admin.delete(&format!("{GROUP}/flowschemas/service-accounts")).await.expect(200);
    eventually(async || (admin.get(&format!("{GROUP}/flowschemas/service-accounts")).await.code == 200).then_some(()))
        .await;
    assert_eq!(admin.get(&path).await.expect(200)["spec"]["limited"]["nominalConcurrencyShares"], 7);
}

#[tokio::test]
async fn who_finds_no_seat_is_refused_in_plain_text() {
    let cluster = start().await;
    let admin = cluster.admin();
    let everything =
        json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]});
    // What is wider than a level has it alone: without seats it serves one at a time.
    for (path, object) in [
        (
            format!("{GROUP}/prioritylevelconfigurations"),
            json!({"metadata": {"name": "l"}, "spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}}),
        ),
        (
            format!("{GROUP}/flowschemas"),
            json!({"metadata": {"name": "s"}, "spec": {
            "matchingPrecedence": 500, "priorityLevelConfiguration": {"name": "l"},
            "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}], "resourceRules": [everything]}]}}),
        ),
        (
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings".to_owned(),
            json!({"metadata": {"name": "jane"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]}),
        ),
    ] {
        admin.post(&path, object).await.expect(201);
    }
    let jane = cluster.user("jane", &["g"]);
    let pods = "/api/v1/namespaces/default/pods";
    // A watch whose beginning is small keeps no seat, whether its client reads or not.
    let small = jane.open("/api/v1/namespaces?watch=1").await;
    jane.get(pods).await.expect(200);
    // Another one has its seat until all that there is was sent, or its time is over.
    for name in ["a", "b", "c"] {
        let map = json!({"metadata": {"name": name}, "data": {"x": "x".repeat(60_000)}});
        admin.post("/api/v1/namespaces/default/configmaps", map).await.expect(201);
    }
    let watch = jane.open("/api/v1/namespaces/default/configmaps?watch=1").await;
    let refused = jane.get(pods).await;
    assert_eq!((refused.code, refused.body.as_str()), (429, Some("Too many requests, please try again later.\n")));
    assert_eq!(refused.headers["content-type"], "text/plain; charset=utf-8");
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.headers.contains_key("x-kubernetes-pf-flowschema-uid"));
    let mut body = watch.into_body();
    for _ in 0..2 {
        body.frame().await.expect("the beginning").expect("no error");
    }
    jane.get(pods).await.expect(200);
    let text = admin.get("/metrics").await.expect(200).as_str().expect("text").to_owned();
    for line in [
        "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"s\",priority_level=\"l\",reason=\"concurrency-limit\"} 1",
        "apiserver_request_terminations_total{code=\"429\",component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"namespace\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1",
        "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"namespaces\",scope=\"cluster\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    drop((small, body));
}

#[tokio::test]
async fn who_waits_is_dumped_and_who_leaves_is_counted() {
    let cluster = start().await;
    let admin = cluster.admin();
    // Nobody ever gets a seat here.
    let level = json!({"metadata": {"name": "q"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0,
        "borrowingLimitPercent": 0, "limitResponse": {"type": "Queue", "queuing": {}}}}});
    admin.post(&format!("{GROUP}/prioritylevelconfigurations"), level).await.expect(201);
    let schema = json!({"metadata": {"name": "s"}, "spec": {
        "matchingPrecedence": 500, "priorityLevelConfiguration": {"name": "q"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}});
    admin.post(&format!("{GROUP}/flowschemas"), schema).await.expect(201);
    let jane = cluster.user("jane", &["g"]);
    let text = async |path: &str| admin.get(path).await.expect(200).as_str().expect("text").to_owned();
    let series = |name: &str| format!("apiserver_flowcontrol_{name}{{flow_schema=\"s\",priority_level=\"q\"");
    {
        let mut waits = std::pin::pin!(jane.get("/version"));
        assert!(futures::poll!(waits.as_mut()).is_pending());
        let dump = text("/debug/api_priority_and_fairness/dump_requests").await;
        let row = dump.lines().find(|line| line.starts_with("q,")).expect("a row");
        let cells: Vec<&str> = row.split(',').map(str::trim).collect();
        assert_eq!((cells[1], cells[3], cells[4], cells[9]), ("s", "0", "jane", "0001-01-01T00:00:00Z"), "{row}");
        let metrics = text("/metrics").await;
        assert!(metrics.contains(&(series("current_inqueue_requests") + "} 1\n")), "{metrics}");
    }
    let metrics = text("/metrics").await;
    for line in [
        series("current_inqueue_requests") + "} 0\n",
        series("rejected_requests_total") + ",reason=\"cancelled\"} 1\n",
        "apiserver_request_aborts_total{group=\"\",resource=\"\",scope=\"\",subresource=\"/version\",verb=\"GET\",version=\"\"} 1\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "no {line} in\n{metrics}");
    }
}

#[tokio::test]
async fn what_is_in_levels_is_dumped_for_those_who_may_see_it() {
    let cluster = start().await;
    let admin = cluster.admin();
    let dump = async |name: &str| {
        let answer = admin.get(&format!("/debug/api_priority_and_fairness/{name}")).await;
        answer.expect(200).as_str().expect("text").to_owned()
    };
    let levels = dump("dump_priority_levels").await;
    assert!(levels.starts_with("PriorityLevelName, ActiveQueues, IsIdle, "), "{levels}");
    assert!(levels.contains("\nworkload-low,      0,            true,   false,       0, "), "{levels}");
    let queues = dump("dump_queues").await;
    assert_eq!(queues.lines().filter(|line| line.starts_with("workload-low,")).count(), 128);
    let requests = dump("dump_requests?includeRequestDetails=1").await;
    assert!(requests.lines().any(|line| line.starts_with("exempt,") && line.contains("/dump_requests")), "{requests}");
    assert_eq!(admin.get("/debug/api_priority_and_fairness/nothing").await.code, 404);
    let jane = cluster.user("jane", &["g"]);
    assert_eq!(jane.get("/debug/api_priority_and_fairness/dump_requests").await.code, 403);
}

#[tokio::test]
async fn requests_are_measured_where_they_are_served() {
    let cluster = start().await;
    let admin = cluster.admin();
    admin.get("/api/v1/namespaces/default/pods").await.expect(200);
    admin.get("/api/v1/namespaces/default/pods/none").await.expect(404);
    cluster.user("jane", &["g"]).get("/api/v1/namespaces/default/inventions/x").await.expect(403);
    let map = json!({"metadata": {"name": "m"}});
    admin.post("/api/v1/namespaces/default/configmaps", map).await.expect(201);
    let text = admin.get("/metrics").await.expect(200).as_str().expect("text").to_owned();
    for line in [
        "apiserver_request_total{code=\"404\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 1",
        "apiserver_cache_list_total{group=\"\",index=\"\",resource=\"pods\"} 1",
        "authorization_attempts_total{result=\"no-opinion\"} 1",
        "etcd_requests_total{group=\"\",operation=\"create\",resource=\"configmaps\"} 1",
        "etcd_request_errors_total{group=\"\",operation=\"create\",resource=\"configmaps\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
    assert!(!text.contains("inventions"), "names that clients invent make no series");
    for name in ["apiserver_flowcontrol_dispatched_requests_total{", "apiserver_storage_size_bytes{"] {
        assert!(text.lines().any(|line| line.starts_with(name)), "no {name} in\n{text}");
    }
}
