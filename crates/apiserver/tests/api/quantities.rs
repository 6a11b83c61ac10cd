//! Quantities that are written otherwise: stored as they are written, and no change to anybody who compares by value.

use crate::client::{Client, Server};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SETS: &str = "/apis/apps/v1/namespaces/default";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

fn set_at(object: &mut Value, at: &str, text: &str) {
    *object.pointer_mut(at).expect(at) = text.into();
}

fn containers(cpu: &str) -> Value {
    json!([{"name": "c", "image": "i", "resources": {"limits": {"cpu": cpu, "memory": "1Gi"}}}])
}

fn template(cpu: &str) -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers(cpu)}})
}

fn claim(storage: &str) -> Value {
    json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}})
}

/// Makes an object and writes the quantity at a place of it otherwise: it is written so, and nothing else changes.
async fn written_otherwise(client: &Client, collection: &str, object: &Value, at: &str, text: &str) -> Value {
    let before = client.post(collection, object).await.ok();
    let path = format!("{collection}/{}", before["metadata"]["name"].as_str().unwrap());
    let mut other = before.clone();
    set_at(&mut other, at, text);
    assert_ne!(other, before, "{at}");
    client.put(&path, &other).await.ok();
    let after = client.get(&path).await.ok();
    assert_eq!(after.pointer(at), Some(&text.into()), "{after}");
    assert_ne!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"], "{after}");
    let mut rest = after.clone();
    set_at(&mut rest, at, before.pointer(at).and_then(Value::as_str).unwrap());
    for part in [&mut rest, &mut other] {
        for key in ["resourceVersion", "managedFields"] {
            part["metadata"][key] = Value::Null;
        }
    }
    set_at(&mut other, at, before.pointer(at).and_then(Value::as_str).unwrap());
    assert_eq!(rest, other, "generation, status and all else is as it was");
    after
}

/// What is told when the quantity at a place becomes another one.
async fn refused(client: &Client, collection: &str, object: &Value, at: &str, text: &str) -> String {
    let path = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
    let mut other = object.clone();
    set_at(&mut other, at, text);
    client.put(&path, &other).await.refused(422)["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_may_not_change_may_be_written_otherwise() {
    let server = Server::start().await;
    let client = server.client();
    let cpu = "/spec/containers/0/resources/limits/cpu";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers("1.234")}});
    let pod = written_otherwise(&client, PODS, &pod, cpu, "1234m").await;
    let why = refused(&client, PODS, &pod, cpu, "1235m").await;
    assert!(why.contains("pod updates may not change fields other than"), "{why}");
    // What is told of a difference is the difference.
    let mut moved = pod.clone();
    set_at(&mut moved, cpu, "1.234");
    moved["spec"]["nodeName"] = "n".into();
    let why = client.put(&format!("{PODS}/p"), &moved).await.refused(422);
    let why = why["message"].as_str().unwrap();
    assert!(why.contains("NodeName") && !why.contains("Containers: ["), "{why}");

    let sets = format!("{SETS}/statefulsets");
    let storage = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";
    let set = json!({"metadata": {"name": "s"}, "spec": {"serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
        "template": template("1"), "volumeClaimTemplates": [{"metadata": {"name": "v"}, "spec": claim("1.025k")}]}});
    let set = written_otherwise(&client, &sets, &set, storage, "1025").await;
    let why = refused(&client, &sets, &set, storage, "1026").await;
    assert!(why.contains("updates to statefulset spec for fields other than"), "{why}");

    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let asked = "/spec/template/spec/containers/0/resources/limits/cpu";
    let mut job = json!({"metadata": {"name": "j"}, "spec": {"template": template("1.234")}});
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    let job = written_otherwise(&client, jobs, &job, asked, "1234m").await;
    let why = refused(&client, jobs, &job, asked, "1235m").await;
    assert!(why.contains("spec.template: Invalid value") && why.ends_with("field is immutable"), "{why}");

    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let storage = "/spec/resources/requests/storage";
    let made = json!({"metadata": {"name": "c"}, "spec": claim("1.025k")});
    let made = written_otherwise(&client, claims, &made, storage, "1025").await;
    let why = refused(&client, claims, &made, storage, "1026").await;
    assert!(why.contains("spec is immutable after creation"), "{why}");

    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let capacity = "/spec/devices/requests/0/exactly/capacity/requests/memory";
    let made = json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
        {"name": "r", "exactly": {"deviceClassName": "d", "capacity": {"requests": {"memory": "1.025k"}}}}]}}});
    let made = written_otherwise(&client, claims, &made, capacity, "1025").await;
    let why = refused(&client, claims, &made, capacity, "1026").await;
    assert!(why.contains("spec: Invalid value") && why.ends_with("field is immutable"), "{why}");
}

#[tokio::test]
async fn a_quantity_that_is_written_otherwise_makes_no_generation() {
    let server = Server::start().await;
    let client = server.client();
    let cpu = "/spec/template/spec/containers/0/resources/limits/cpu";
    for kind in ["deployments", "daemonsets", "replicasets", "statefulsets"] {
        let sets = format!("{SETS}/{kind}");
        let set = json!({"metadata": {"name": "s"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template("1.234")}});
        let mut set = written_otherwise(&client, &sets, &set, cpu, "1234m").await;
        assert_eq!(set["metadata"]["generation"], 1, "{kind}");
        set_at(&mut set, cpu, "1235m");
        let changed = client.put(&format!("{sets}/s"), &set).await.ok();
        assert_eq!(changed["metadata"]["generation"], 2, "{kind}");
        let counted = &changed["metadata"]["annotations"]["deprecated.daemonset.template.generation"];
        assert_eq!(*counted, if kind == "daemonsets" { json!("2") } else { Value::Null });
    }
    let ranges = "/api/v1/namespaces/default/limitranges";
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [{"type": "Pod", "max": {"cpu": "1.234"}}]}});
    written_otherwise(&client, ranges, &range, "/spec/limits/0/max/cpu", "1234m").await;
}

#[tokio::test]
async fn patches_resizes_and_applies_write_quantities_as_they_say() {
    let server = Server::start().await;
    let client = server.client();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers("1.234")}});
    let made = client.post(&format!("{PODS}?fieldManager=one"), &pod).await.ok();
    let limits = |pod: &Value| pod["spec"]["containers"][0]["resources"]["limits"]["cpu"].clone();
    let asking =
        |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": cpu}}}]}}).to_string();
    let path = format!("{PODS}/p");
    let patched = client.patch(&path, STRATEGIC, &asking("1234m")).await.ok();
    assert_eq!((limits(&patched), &patched["metadata"]["generation"]), ("1234m".into(), &json!(1)));
    assert_ne!(patched["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);

    let both = |cpu: &str| {
        let list = json!({"cpu": cpu});
        let container = json!({"name": "c", "resources": {"limits": list, "requests": list}});
        json!({"spec": {"containers": [container]}}).to_string()
    };
    let resize = format!("{path}/resize");
    let resized = client.patch(&resize, STRATEGIC, &both("1.234")).await.ok();
    assert_eq!((limits(&resized), &resized["metadata"]["generation"]), ("1.234".into(), &json!(1)));
    let resized = client.patch(&resize, STRATEGIC, &both("2")).await.ok();
    assert_eq!((limits(&resized), &resized["metadata"]["generation"]), ("2".into(), &json!(2)));

    // Who owns what goes by the text.
    let config = |cpu: &str| {
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"cpu": cpu}}})
            .to_string()
    };
    let quota = "/api/v1/namespaces/default/resourcequotas/q";
    let apply = |manager: &str| format!("{quota}?fieldManager={manager}");
    client.patch(&apply("one"), APPLY, &config("1.234")).await.ok();
    let conflict = client.patch(&apply("two"), APPLY, &config("1234m")).await.refused(409);
    let why = "Apply failed with 1 conflict: conflict with \"one\": .spec.hard.cpu";
    assert_eq!(conflict["message"], why);
    let applied = client.patch(&apply("one"), APPLY, &config("1234m")).await.ok();
    assert_eq!(applied["spec"]["hard"]["cpu"], "1234m");
}
