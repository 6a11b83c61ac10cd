//! Binding and eviction.

use crate::cluster::{pod, start};
use serde_json::json;

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn a_pod_is_bound_once() {
    let cluster = start().await;
    cluster.service_account("default", "default").await;
    let (admin, scheduler) = (cluster.admin(), cluster.user("system:kube-scheduler", &[]));
    admin.post(PODS, pod("p")).await.expect(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"apiVersion": "v1", "kind": "Node", "name": "n1"}});
    let answer = scheduler.post(&format!("{PODS}/p/binding"), binding.clone()).await.expect(201);
    assert_eq!((answer["kind"].as_str(), answer["status"].as_str()), (Some("Status"), Some("Success")));
    let bound = admin.get(&format!("{PODS}/p")).await.expect(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    let again = scheduler.post(&format!("{PODS}/p/binding"), binding).await;
    assert_eq!(again.code, 409);
    assert_eq!(
        again.message(),
        "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\""
    );
    let moved = admin.patch(&format!("{PODS}/p"), json!({"spec": {"nodeName": "n2"}})).await;
    assert_eq!(moved.code, 422, "nothing but a binding gives a node: {}", moved.body);
}

#[tokio::test]
async fn an_eviction_asks_the_budget() {
    let cluster = start().await;
    cluster.service_account("default", "default").await;
    let admin = cluster.admin();
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}
    });
    admin.post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget).await.expect(201);
    let status = json!({"status": {
        "observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2
    }});
    admin.patch("/apis/policy/v1/namespaces/default/poddisruptionbudgets/b/status", status).await.expect(200);
    for name in ["p", "q"] {
        let mut web = pod(name);
        web["metadata"]["labels"] = json!({"app": "web"});
        admin.post(PODS, web).await.expect(201);
        let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        admin.patch(&format!("{PODS}/{name}/status"), running).await.expect(200);
    }
    let evict = |name: &str| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": {"gracePeriodSeconds": 0}});
    // Old clients say that it is of a version that is gone, in which it looked the same.
    let mut old = evict("p");
    old["apiVersion"] = json!("policy/v1beta1");
    admin.post(&format!("{PODS}/p/eviction"), old.clone()).await.expect(201);
    assert_eq!(admin.get(&format!("{PODS}/p")).await.code, 404);
    old["apiVersion"] = json!("policy/v1alpha1");
    assert_eq!(admin.post(&format!("{PODS}/q/eviction"), old).await.code, 400);
    let budget = admin.get("/apis/policy/v1/namespaces/default/poddisruptionbudgets/b").await.expect(200);
    assert_eq!(budget["status"]["conditions"][0]["reason"], "InsufficientPods", "{budget}");
    let nameless = admin.post(&format!("{PODS}/q/eviction"), evict("")).await;
    assert_eq!((nameless.code, nameless.message()), (400, "name in URL does not match name in Eviction object"));
    let refused = admin.post(&format!("{PODS}/q/eviction"), evict("q")).await;
    assert_eq!(refused.code, 429, "{}", refused.body);
    assert_eq!(refused.message(), "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused.body["details"]["causes"][0]["message"],
        "The disruption budget b does not allow evicting pods currently"
    );
    let failed = json!({"status": {"conditions": [{
        "type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "m",
        "lastTransitionTime": "2026-01-01T00:00:00Z"
    }]}});
    admin.patch("/apis/policy/v1/namespaces/default/poddisruptionbudgets/b/status", failed).await.expect(200);
    let refused = admin.post(&format!("{PODS}/q/eviction"), evict("q")).await;
    assert_eq!(
        refused.body["details"]["causes"][0]["message"],
        "The disruption budget b does not allow evicting pods currently because it failed sync: m"
    );
    assert!(refused.body["details"]["name"].is_null(), "{}", refused.body);
    assert_eq!(admin.get(&format!("{PODS}/q")).await.code, 200);
}

/// Readers of a condition see which spec it is about, whoever wrote it.
#[tokio::test]
async fn conditions_tell_the_generation_that_they_are_about() {
    let cluster = start().await;
    cluster.service_account("default", "default").await;
    let admin = cluster.admin();
    let mut gated = pod("gated");
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/g"}]);
    let gated = admin.post(PODS, gated).await.expect(201);
    let condition = &gated["status"]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["observedGeneration"]), (&json!("SchedulingGated"), &json!(1)));

    let mut held = pod("held");
    held["metadata"]["finalizers"] = json!(["example.com/f"]);
    admin.post(PODS, held).await.expect(201);
    let binding = json!({"metadata": {"name": "held"}, "target": {"kind": "Node", "name": "n"}});
    admin.post(&format!("{PODS}/held/binding"), binding).await.expect(201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "held"}});
    admin.post(&format!("{PODS}/held/eviction"), eviction).await.expect(201);
    let held = admin.get(&format!("{PODS}/held")).await.expect(200);
    let told: Vec<_> = held["status"]["conditions"].as_array().expect("conditions").iter().collect();
    let of = |kind: &str| told.iter().find(|c| c["type"] == kind).map(|c| c["observedGeneration"].clone());
    assert_eq!((of("PodScheduled"), of("DisruptionTarget")), (Some(json!(1)), Some(json!(1))), "{held}");
}

#[tokio::test]
async fn two_budgets_for_a_pod_are_one_too_many() {
    let cluster = start().await;
    cluster.service_account("default", "default").await;
    let admin = cluster.admin();
    for name in ["b", "c"] {
        let budget = json!({"metadata": {"name": name}, "spec": {"minAvailable": 0, "selector": {"matchLabels": {"app": "web"}}}});
        admin.post("/apis/policy/v1/namespaces/default/poddisruptionbudgets", budget).await.expect(201);
    }
    let mut web = pod("p");
    web["metadata"]["labels"] = json!({"app": "web"});
    admin.post(PODS, web).await.expect(201);
    let evict = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    admin.patch(&format!("{PODS}/p/status"), json!({"status": {"phase": "Running"}})).await.expect(200);
    let refused = admin.post(&format!("{PODS}/p/eviction"), evict.clone()).await;
    // Upstream gives no error here, but a Status that tells of a failure: without a reason, and without details.
    let told = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 500,
        "message": "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."});
    assert_eq!((refused.code, &refused.body), (500, &told));
    // One that has ended needs no budget, nor does one that has not begun.
    admin.patch(&format!("{PODS}/p/status"), json!({"status": {"phase": "Succeeded"}})).await.expect(200);
    admin.post(&format!("{PODS}/p/eviction"), evict).await.expect(201);
}

#[tokio::test]
async fn who_is_evicted_is_told_why() {
    let cluster = start().await;
    cluster.service_account("default", "default").await;
    let admin = cluster.admin();
    let evict = |name: &str, options: serde_json::Value| json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options});
    for (name, phase) in [("pending", "Pending"), ("running", "Running")] {
        let mut held = pod(name);
        held["metadata"]["finalizers"] = json!(["example.com/hold"]);
        held["spec"]["nodeName"] = json!("n1");
        let made = admin.post(PODS, held).await.expect(201);
        admin.patch(&format!("{PODS}/{name}"), json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
        admin.patch(&format!("{PODS}/{name}/status"), json!({"status": {"phase": phase}})).await.expect(200);
        let path = format!("{PODS}/{name}/eviction");
        let stale = json!({"preconditions": {"resourceVersion": made["metadata"]["resourceVersion"]}});
        let refused = admin.post(&path, evict(name, stale)).await;
        assert_eq!(refused.code, 409, "{}", refused.body);
        assert!(refused.message().ends_with("The object might have been modified"), "{}", refused.body);
        admin.post(&format!("{path}?dryRun=All"), evict(name, json!({}))).await.expect(201);
        let kept = admin.get(&format!("{PODS}/{name}")).await.expect(200);
        assert!(kept["status"]["conditions"].as_array().is_none_or(Vec::is_empty), "a dry run changes nothing: {kept}");
        admin.post(&path, evict(name, json!({}))).await.expect(201);
        let evicted = admin.get(&format!("{PODS}/{name}")).await.expect(200);
        assert!(evicted["metadata"]["deletionTimestamp"].is_string(), "{evicted}");
        let condition = &evicted["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["reason"]),
            (&json!("DisruptionTarget"), &json!("EvictionByEvictionAPI"))
        );
    }
}
