//! StatefulSets, DaemonSets, Jobs and CronJobs. The tests are the kubelet.

use crate::cluster::{Client, eventually};
use crate::support::{items, make_ready, running, until, until_gone};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"app": "x"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "busybox"}]}})
}

/// Ends pods, as a kubelet would say.
async fn end(admin: &Client, pod: &Value, phase: &str) {
    let name = pod["metadata"]["name"].as_str().unwrap_or("");
    let code = i32::from(phase == "Failed");
    let status = json!({"status": {"phase": phase, "containerStatuses": [{"name": "c", "image": "busybox", "imageID": "",
        "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}}}]}});
    admin.patch(&format!("{PODS}/{name}/status"), status).await.expect(200);
}

fn condition<'v>(object: &'v Value, type_: &str) -> Option<&'v Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == type_ && c["status"] == "True")
}

#[tokio::test]
async fn a_job_runs_its_pods_to_the_end() {
    let running = running().await;
    let admin = running.admin();
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
        "spec": {"completions": 3, "parallelism": 2, "completionMode": "Indexed", "ttlSecondsAfterFinished": 0,
            "template": template("Never")}});
    admin.post(jobs, job).await.expect(201);
    let path = format!("{jobs}/j");
    let first = items(&admin, PODS, 2).await;
    let indexes: Vec<&Value> =
        first.iter().map(|p| &p["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]).collect();
    assert!(indexes.contains(&&json!("0")) && indexes.contains(&&json!("1")), "{indexes:?}");
    assert_eq!(first[0]["metadata"]["finalizers"], json!(["batch.kubernetes.io/job-tracking"]));
    for pod in &first {
        end(&admin, pod, "Succeeded").await;
    }
    until(&admin, &path, |j| j["status"]["completedIndexes"] == "0,1" && j["status"]["active"] == 1).await;
    let third =
        items(&admin, PODS, 3).await.into_iter().find(|p| p["status"]["phase"] != "Succeeded").expect("one more");
    end(&admin, &third, "Succeeded").await;
    // It says that it is complete, and then it goes, as it is of no interest any more.
    let events = "/api/v1/namespaces/default/events?fieldSelector=reason%3DCompleted";
    assert_eq!(items(&admin, events, 1).await[0]["message"], "Job completed");
    until_gone(&admin, &path).await;
}

#[tokio::test]
async fn a_job_that_fails_too_often_fails() {
    let running = running().await;
    let admin = running.admin();
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"},
        "spec": {"backoffLimit": 0, "parallelism": 2, "completions": 2, "template": template("Never")}});
    admin.post(jobs, job).await.expect(201);
    let pods = items(&admin, PODS, 2).await;
    end(&admin, &pods[0], "Failed").await;
    let failed = until(&admin, &format!("{jobs}/j"), |j| condition(j, "Failed").is_some()).await;
    let why = condition(&failed, "Failed").expect("it failed");
    assert_eq!(why["reason"], "BackoffLimitExceeded");
    assert_eq!(why["message"], "Job has reached the specified backoff limit");
    let left = items(&admin, PODS, 1).await;
    assert!(left[0]["metadata"]["finalizers"].is_null(), "nothing holds it: {}", left[0]);
}

#[tokio::test]
async fn a_cron_job_starts_jobs_and_keeps_few() {
    let running = running().await;
    let admin = running.admin();
    let path = "/apis/batch/v1/namespaces/default/cronjobs";
    let cron = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"},
        "spec": {"schedule": "@every 1s", "successfulJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": template("Never")}}}});
    admin.post(path, cron).await.expect(201);
    let path = format!("{path}/c");
    until(&admin, &path, |c| c["status"]["lastScheduleTime"].is_string() && c["status"]["active"][0]["kind"] == "Job")
        .await;
    admin.patch(&path, json!({"spec": {"suspend": true}})).await.expect(200);
    eventually(async || {
        let pods = admin.get(PODS).await.body;
        for pod in pods["items"].as_array()?.iter().filter(|p| p["status"]["phase"] == "Pending") {
            end(&admin, pod, "Succeeded").await;
        }
        let cron = admin.get(&path).await.body;
        let done = cron["status"]["active"].is_null() && cron["status"]["lastSuccessfulTime"].is_string();
        let jobs = admin.get("/apis/batch/v1/namespaces/default/jobs").await.body;
        (done && jobs["items"].as_array()?.len() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stateful_set_makes_its_pods_in_order_and_rolls_them_out() {
    let running = running().await;
    let admin = running.admin();
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    let claim = json!({"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "serviceName": "web", "selector": {"matchLabels": {"app": "x"}},
            "template": template("Always"), "volumeClaimTemplates": [claim]}});
    admin.post(sets, set).await.expect(201);
    let path = format!("{sets}/web");
    let first = until(&admin, &format!("{PODS}/web-0"), |_| true).await;
    assert_eq!((&first["spec"]["hostname"], &first["spec"]["subdomain"]), (&json!("web-0"), &json!("web")));
    assert_eq!(admin.get(&format!("{PODS}/web-1")).await.code, 404, "the first is waited for");
    make_ready(&admin, &first).await;
    let second = until(&admin, &format!("{PODS}/web-1"), |_| true).await;
    make_ready(&admin, &second).await;
    items(&admin, "/api/v1/namespaces/default/persistentvolumeclaims", 2).await;
    let settled = until(&admin, &path, |s| s["status"]["readyReplicas"] == 2).await;
    let before = settled["status"]["currentRevision"].clone();
    assert_eq!(second["metadata"]["labels"]["controller-revision-hash"], before);
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "other"}]}}}});
    admin.patch(&path, image).await.expect(200);
    for name in ["web-1", "web-0"] {
        let new = until(&admin, &format!("{PODS}/{name}"), |p| p["spec"]["containers"][0]["image"] == "other").await;
        make_ready(&admin, &new).await;
    }
    let over =
        until(&admin, &path, |s| s["status"]["currentRevision"] != before && s["status"]["readyReplicas"] == 2).await;
    assert_eq!(over["status"]["currentRevision"], over["status"]["updateRevision"]);
    items(&admin, "/apis/apps/v1/namespaces/default/controllerrevisions", 2).await;
    admin.patch(&path, json!({"spec": {"replicas": 0}})).await.expect(200);
    items(&admin, PODS, 0).await;
    items(&admin, "/api/v1/namespaces/default/persistentvolumeclaims", 2).await;
}

#[tokio::test]
async fn claims_go_with_what_the_policy_of_their_stateful_set_says() {
    let running = running().await;
    let admin = running.admin();
    let (sets, claims) =
        ("/apis/apps/v1/namespaces/default/statefulsets", "/api/v1/namespaces/default/persistentvolumeclaims");
    let claim = json!({"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "serviceName": "web", "selector": {"matchLabels": {"app": "x"}},
            "template": template("Always"), "volumeClaimTemplates": [claim],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"}}});
    admin.post(sets, set).await.expect(201);
    for name in ["web-0", "web-1"] {
        let pod = until(&admin, &format!("{PODS}/{name}"), |_| true).await;
        make_ready(&admin, &pod).await;
    }
    for claim in items(&admin, claims, 2).await {
        assert!(claim["metadata"]["ownerReferences"].is_null(), "{claim}");
    }
    let path = format!("{sets}/web");
    admin.patch(&path, json!({"spec": {"replicas": 1}})).await.expect(200);
    let left = items(&admin, claims, 1).await;
    assert_eq!(left[0]["metadata"]["name"], "data-web-0");
    let policy = json!({"whenDeleted": "Delete", "whenScaled": "Retain"});
    admin.patch(&path, json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}})).await.expect(200);
    let owned = |claim: &Value| claim["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet";
    until(&admin, &format!("{claims}/data-web-0"), owned).await;
    admin.delete(&path).await.expect(200);
    items(&admin, claims, 0).await;
}

#[tokio::test]
async fn a_daemon_set_has_a_pod_on_every_node_it_is_for() {
    let running = running().await;
    let admin = running.admin();
    let node = |name: &str, kind: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kind": kind}}});
    for (name, kind) in [("a", "x"), ("b", "x"), ("c", "y")] {
        admin.post("/api/v1/nodes", node(name, kind)).await.expect(201);
        // No kubelet says so here.
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        admin.patch(&format!("/api/v1/nodes/{name}/status"), ready).await.expect(200);
        until(&admin, &format!("/api/v1/nodes/{name}"), |n| n["spec"]["taints"].is_null()).await;
    }
    let sets = "/apis/apps/v1/namespaces/default/daemonsets";
    let mut pods = template("Always");
    pods["spec"]["nodeSelector"] = json!({"kind": "x"});
    let set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": pods}});
    admin.post(sets, set).await.expect(201);
    items(&admin, PODS, 2).await;
    let path = format!("{sets}/d");
    until(&admin, &path, |d| d["status"]["desiredNumberScheduled"] == 2 && d["status"]["currentNumberScheduled"] == 2)
        .await;
    admin.patch("/api/v1/nodes/c", json!({"metadata": {"labels": {"kind": "x"}}})).await.expect(200);
    for pod in items(&admin, PODS, 3).await {
        make_ready(&admin, &pod).await;
    }
    until(&admin, &path, |d| d["status"]["numberAvailable"] == 3).await;
    admin.patch("/api/v1/nodes/c", json!({"metadata": {"labels": {"kind": "y"}}})).await.expect(200);
    items(&admin, PODS, 2).await;
}

#[tokio::test]
async fn nodes_that_come_and_go_are_told() {
    let running = running().await;
    let admin = running.admin();
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}});
    admin.post("/api/v1/nodes", node).await.expect(201);
    let told = async |reason: &str, text: &str| {
        let path =
            format!("/api/v1/namespaces/default/events?fieldSelector=reason%3D{reason}%2CinvolvedObject.name%3Da");
        until(&admin, &path, |events| events["items"][0]["message"] == text).await;
    };
    told("RegisteredNode", "Node a event: Registered Node a in Controller").await;
    admin.delete("/api/v1/nodes/a").await.expect(200);
    told("RemovingNode", "Node a event: Removing Node a from Controller").await;
}
