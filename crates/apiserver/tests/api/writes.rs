//! Writes: conflicts, names, dry runs, finalizers, grace, patches, apply, field validation.

use crate::client::Server;
use http::Method;
use serde_json::json;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: &str = "application/merge-patch+json";

#[tokio::test]
async fn names_are_generated() {
    let server = Server::start().await;
    let client = server.client();
    let made = client.post(MAPS, &json!({"metadata": {"generateName": "web-"}})).await.ok();
    let name = made["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let unnamed = client.post(MAPS, &json!({"metadata": {}})).await.refused(422);
    assert_eq!(
        unnamed["message"],
        "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required"
    );
    let bad = client.post(MAPS, &json!({"metadata": {"name": "A_b"}})).await.refused(422);
    assert_eq!(bad["details"]["causes"][0]["field"], "metadata.name");
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = Server::start().await;
    let client = server.client();
    let object = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    let tried = client.post(&format!("{MAPS}?dryRun=All"), &object).await.ok();
    assert!(tried["metadata"]["uid"].is_string());
    assert_eq!(client.get(&format!("{MAPS}/a")).await.code, 404);
    client.post(MAPS, &object).await.ok();
    assert_eq!(client.post(&format!("{MAPS}?dryRun=All"), &object).await.code, 409);
    let patched = client.patch(&format!("{MAPS}/a?dryRun=All"), MERGE, r#"{"data":{"k":"w"}}"#).await.ok();
    assert_eq!(patched["data"]["k"], "w");
    client.delete(&format!("{MAPS}/a?dryRun=All")).await.ok();
    assert_eq!(client.get(&format!("{MAPS}/a")).await.ok()["data"]["k"], "v");
    assert_eq!(client.post(&format!("{MAPS}?dryRun=Some"), &object).await.code, 422);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let server = Server::start().await;
    let client = server.client();
    let path = format!("{MAPS}/a");
    client.post(MAPS, &json!({"metadata": {"name": "a", "finalizers": ["example.com/f"]}})).await.ok();
    let held = client.delete(&path).await.ok();
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
    let added = client
        .patch(&path, MERGE, r#"{"metadata":{"finalizers":["example.com/f","example.com/g"]}}"#)
        .await
        .refused(422);
    assert!(added["message"].as_str().unwrap().contains("no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/g\"}"));
    client.patch(&path, MERGE, r#"{"metadata":{"finalizers":null}}"#).await.ok();
    assert_eq!(client.get(&path).await.code, 404);
}

#[tokio::test]
async fn deletes_have_preconditions_and_propagation() {
    let server = Server::start().await;
    let client = server.client();
    let path = format!("{MAPS}/a");
    client.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok();
    let json_type = [("content-type", "application/json")];
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "other"}}).to_string();
    let conflict = client.raw(Method::DELETE, &path, &json_type, body).await.refused(409);
    let uid = client.get(&path).await.ok()["metadata"]["uid"].as_str().unwrap().to_owned();
    assert_eq!(
        conflict["message"],
        format!(
            "Operation cannot be fulfilled on ConfigMap \"a\": the UID in the precondition (other) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        )
    );
    let other = json!({"metadata": {"name": "a", "uid": "other"}});
    let conflict = client.put(&path, &other).await.refused(409);
    assert_eq!(
        conflict["message"],
        format!(
            "Operation cannot be fulfilled on configmaps \"a\": StorageError: invalid object, Code: 4, Key: /registry/configmaps/default/a, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: other, UID in object meta: {uid}"
        )
    );
    let body = json!({"propagationPolicy": "Foreground"}).to_string();
    let held = client.raw(Method::DELETE, &path, &json_type, body).await.ok();
    assert_eq!(held["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let gone = client.delete(&format!("{path}?propagationPolicy=Background")).await.ok();
    assert_eq!(gone["status"], "Success");
    assert_eq!(gone["details"]["kind"], "configmaps");
    assert_eq!(client.delete(&path).await.code, 404);
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = Server::start().await;
    let client = server.client();
    for i in 0..20 {
        client
            .post(MAPS, &json!({"metadata": {"name": format!("c{i}"), "labels": {"k": (i % 4).to_string()}}}))
            .await
            .ok();
    }
    let deleted = client.delete(&format!("{MAPS}?labelSelector=k+in+(1,2)")).await.ok();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 10);
    assert_eq!(client.get(MAPS).await.ok()["items"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn fields_are_validated_as_asked() {
    let server = Server::start().await;
    let client = server.client();
    let text = r#"{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i","imagee":"x"}]}}"#;
    let json_type = [("content-type", "application/json")];
    let strict =
        client.raw(Method::POST, &format!("{PODS}?fieldValidation=Strict"), &json_type, text).await.refused(400);
    assert_eq!(
        strict["message"],
        "Pod in version \"v1\" cannot be handled as a Pod: strict decoding error: unknown field \"spec.containers[0].imagee\""
    );
    let warned = client.raw(Method::POST, PODS, &json_type, text).await;
    assert_eq!(warned.code, 201, "{}", warned.text());
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.containers[0].imagee\\\"\"");
    let ignored = client
        .raw(
            Method::POST,
            &format!("{PODS}?fieldValidation=Ignore&dryRun=All"),
            &json_type,
            text.replace("\"a\"", "\"b\""),
        )
        .await;
    assert!(ignored.code == 201 && !ignored.headers.contains_key("warning"));
    for (said, told) in [
        (
            r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"a"}}"#,
            "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion",
        ),
        (
            r#"{"kind":"pod","apiVersion":"v1"}"#,
            "pod in version \"v1\" cannot be handled as a Pod: no kind \"pod\" is registered for version \"v1\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            r#"{"kind":"Pod","apiVersion":"v2","spec":1}"#,
            "Pod in version \"v2\" cannot be handled as a Pod: no kind \"Pod\" is registered for version \"v2\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        (
            r#"{"apiVersion":"a/b/c","spec":{}}"#,
            "the object provided is unrecognized (must be of type Pod): unexpected GroupVersion string: a/b/c ({\"apiVersion\":\"a/b/c\",\"spec\":{ ...)",
        ),
    ] {
        let other = client.raw(Method::POST, PODS, &json_type, said).await.refused(400);
        assert_eq!(other["message"], told, "{said}");
    }
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let beta = r#"{"kind":"Deployment","apiVersion":"apps/v1beta1"}"#;
    let other = client.raw(Method::POST, deployments, &json_type, beta).await.refused(400);
    let told = "the API version in the data (apps/v1beta1) does not match the expected API version (apps/v1)";
    assert_eq!(other["message"], told);
    assert_eq!(client.raw(Method::POST, PODS, &[("content-type", "text/plain")], text).await.code, 415);
}

#[tokio::test]
async fn pods_have_grace() {
    let server = Server::start().await;
    let client = server.client();
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "nodeName": "n"});
    client.post(PODS, &json!({"metadata": {"name": "a"}, "spec": spec})).await.ok();
    let path = format!("{PODS}/a");
    let status = client
        .patch(&format!("{path}/status"), MERGE, r#"{"status":{"phase":"Running"},"spec":{"nodeName":"m"}}"#)
        .await
        .ok();
    assert_eq!((status["status"]["phase"].as_str(), status["spec"]["nodeName"].as_str()), (Some("Running"), Some("n")));
    let ignored = client.patch(&path, MERGE, r#"{"status":{"phase":"Failed"}}"#).await.ok();
    assert_eq!(ignored["status"]["phase"], "Running");
    let dying = client.delete(&path).await.ok();
    assert_eq!(dying["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(dying["kind"], "Pod");
    assert_eq!(client.get(&path).await.code, 200);
    client.delete(&format!("{path}?gracePeriodSeconds=0")).await.ok();
    assert_eq!(client.get(&path).await.code, 404);
}

/// Upstream writes of a pod that its time is up, and then removes it: watchers are told both.
#[tokio::test]
async fn a_pod_that_goes_at_once_is_told_its_end_first() {
    let server = Server::start().await;
    let client = server.client();
    let spec = |node: &str| match node {
        "" => json!({"containers": [{"name": "c", "image": "i"}]}),
        node => json!({"containers": [{"name": "c", "image": "i"}], "nodeName": node}),
    };
    for (name, node, phase, query) in [
        ("nowhere", "", "", ""),
        ("over", "n", "Succeeded", ""),
        ("failed", "n", "Failed", "?gracePeriodSeconds=9"),
        ("forced", "n", "Running", "?gracePeriodSeconds=0"),
        ("ending", "n", "Running", "?gracePeriodSeconds=0"),
    ] {
        let path = format!("{PODS}/{name}");
        let mut seen = client.post(PODS, &json!({"metadata": {"name": name}, "spec": spec(node)})).await.ok();
        if !phase.is_empty() {
            let status = json!({"status": {"phase": phase}}).to_string();
            seen = client.patch(&format!("{path}/status"), MERGE, &status).await.ok();
        }
        if name == "ending" {
            seen = client.delete(&path).await.ok();
            assert_eq!(seen["metadata"]["deletionGracePeriodSeconds"], 30);
        }
        let version = |object: &serde_json::Value| -> u64 {
            object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
        };
        let dry = format!("{path}{query}{}dryRun=All", if query.is_empty() { "?" } else { "&" });
        let tried = client.delete(&dry).await.ok();
        assert_eq!(version(&tried), version(&seen), "{name}");
        assert_eq!(client.get(&path).await.ok(), seen, "{name}: a dry run does nothing");
        let mut events = client
            .watch(&format!(
                "{PODS}?watch=true&resourceVersion={}&fieldSelector=metadata.name%3D{name}",
                version(&seen)
            ))
            .await;
        // What is asked of the version that was seen holds though the pod is written to first.
        let body = json!({"preconditions": {"resourceVersion": seen["metadata"]["resourceVersion"]}}).to_string();
        let json_type = [("content-type", "application/json")];
        let gone = match query {
            "" => client.raw(Method::DELETE, &path, &json_type, body).await.ok(),
            query => client.delete(&format!("{path}{query}")).await.ok(),
        };
        let mut told = Vec::new();
        for kind in ["MODIFIED", "DELETED"] {
            let event = events.next().await.unwrap();
            assert_eq!(event["type"], kind, "{name}: {event}");
            told.push(event["object"].clone());
        }
        assert!(version(&seen) < version(&told[0]) && version(&told[0]) < version(&told[1]), "{name}: two writes");
        assert_eq!(version(&told[1]), version(&gone), "{name}");
        for object in [&tried, &told[0], &told[1], &gone] {
            let metadata = &object["metadata"];
            assert_eq!(
                (&metadata["deletionGracePeriodSeconds"], &metadata["generation"]),
                (&json!(0), &json!(2)),
                "{name}"
            );
            assert!(metadata["deletionTimestamp"].is_string(), "{name}");
            assert_eq!(object["status"]["phase"], seen["status"]["phase"], "{name}");
        }
        client.get(&path).await.refused(404);
    }
}

#[tokio::test]
async fn a_pod_whose_time_is_up_is_held_by_what_the_last_delete_says() {
    let server = Server::start().await;
    let client = server.client();
    let path = format!("{PODS}/a");
    let pod = |finalizers: serde_json::Value| json!({"metadata": {"name": "a", "finalizers": finalizers}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    client.post(PODS, &pod(json!(["example.com/f"]))).await.ok();
    let held = client.delete(&path).await.ok();
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
    let again = client.delete(&path).await.ok();
    assert_eq!(again, held, "there is nothing to be said");
    let held = client.delete(&format!("{path}?propagationPolicy=Foreground")).await.ok();
    assert_eq!(held["metadata"]["finalizers"], json!(["example.com/f", "foregroundDeletion"]));
    assert_eq!(held["metadata"]["generation"], 2);
    client.patch(&path, MERGE, r#"{"metadata":{"finalizers":["foregroundDeletion"]}}"#).await.ok();
    let held = client.delete(&format!("{path}?propagationPolicy=Orphan")).await.ok();
    assert_eq!(held["metadata"]["finalizers"], json!(["orphan"]));
    client.delete(&format!("{path}?propagationPolicy=Background")).await.ok();
    client.get(&path).await.refused(404);
    // While it has time left, it is not asked.
    let mut pod = pod(json!([]));
    pod["spec"]["nodeName"] = json!("n");
    client.post(PODS, &pod).await.ok();
    client.delete(&path).await.ok();
    let ending = client.delete(&format!("{path}?propagationPolicy=Foreground")).await.ok();
    assert!(ending["metadata"].get("finalizers").is_none(), "{ending}");
}

/// Upstream answers the list that it deletes by.
#[tokio::test]
async fn a_deleted_collection_is_answered_as_it_was_listed() {
    let server = Server::start().await;
    let client = server.client();
    for i in 0..5 {
        client.post(MAPS, &json!({"metadata": {"name": format!("c{i}"), "labels": {"k": "v"}}})).await.ok();
    }
    let listed = client.get(&format!("{MAPS}?limit=2")).await.ok();
    let deleted = client.delete(&format!("{MAPS}?limit=2&dryRun=All")).await.ok();
    assert_eq!(deleted, listed);
    let deleted = client.delete(&format!("{MAPS}?limit=2")).await.ok();
    assert_eq!(deleted, listed);
    assert_eq!(deleted["metadata"]["remainingItemCount"], 3);
    let next = deleted["metadata"]["continue"].as_str().unwrap();
    let rest = client.delete(&format!("{MAPS}?limit=2&continue={next}")).await.ok();
    assert_eq!((&rest["items"][0]["metadata"]["name"], rest["items"].as_array().unwrap().len()), (&json!("c2"), 2));
    assert_eq!(client.get(MAPS).await.ok()["items"].as_array().unwrap().len(), 1);
    let listed = client.get(MAPS).await.ok();
    let deleted = client.delete(&format!("{MAPS}?propagationPolicy=Orphan")).await.ok();
    assert_eq!(deleted, listed);
    let held = client.get(&format!("{MAPS}/c4")).await.ok();
    assert_eq!(held["metadata"]["finalizers"], json!(["orphan"]));
    // What is already being deleted is in it, and so is what is deleted by it for good.
    let listed = client.get(MAPS).await.ok();
    assert_eq!(client.delete(&format!("{MAPS}?propagationPolicy=Background")).await.ok(), listed);
    assert_eq!(client.get(MAPS).await.ok()["items"], json!([]));
}

#[tokio::test]
async fn objects_are_patched_four_ways() {
    let server = Server::start().await;
    let client = server.client();
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let object =
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let made = client.post(deployments, &object).await.ok();
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["spec"]["replicas"], 1);
    let path = format!("{deployments}/d");
    let merged = client.patch(&path, MERGE, r#"{"spec":{"replicas":2}}"#).await.ok();
    assert_eq!((merged["spec"]["replicas"].as_i64(), merged["metadata"]["generation"].as_i64()), (Some(2), Some(2)));
    let json = client
        .patch(&path, "application/json-patch+json", r#"[{"op":"replace","path":"/spec/replicas","value":3}]"#)
        .await
        .ok();
    assert_eq!(json["spec"]["replicas"], 3);
    let strategic = r#"{"spec":{"template":{"spec":{"containers":[{"name":"e","image":"j"}]}}}}"#;
    let strategic = client.patch(&path, "application/strategic-merge-patch+json", strategic).await.ok();
    assert_eq!(strategic["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    let apply = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\nspec:\n  replicas: 5\n";
    let conflict =
        client.patch(&format!("{path}?fieldManager=me"), "application/apply-patch+yaml", apply).await.refused(409);
    assert_eq!(conflict["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let applied =
        client.patch(&format!("{path}?fieldManager=me&force=true"), "application/apply-patch+yaml", apply).await.ok();
    assert_eq!(applied["spec"]["replicas"], 5);
    let managers = applied["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|m| m["manager"] == "me" && m["operation"] == "Apply"));
    // What a configuration does not say is nobody's.
    let labels = "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\n  labels: {x: z}\n";
    let labelled =
        client.patch(&format!("{path}?fieldManager=other"), "application/apply-patch+yaml", labels).await.ok();
    assert_eq!(labelled["metadata"]["labels"]["x"], "z");
    let unknown = apply.replace("replicas", "replicaas");
    let unknown = client
        .patch(&format!("{path}?fieldManager=me&fieldValidation=Ignore"), "application/apply-patch+yaml", &unknown)
        .await
        .refused(500);
    assert_eq!(
        unknown["message"],
        "failed to create typed patch object (/d; apps/v1, Kind=Deployment): .spec.replicaas: field not declared in schema"
    );
    let fresh = apply.replace("name: d", "name: f").replace("replicas: 5", "selector: {matchLabels: {a: b}}\n  template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}");
    let made = client.patch(&format!("{deployments}/f?fieldManager=me"), "application/apply-patch+yaml", &fresh).await;
    assert_eq!(made.code, 201, "{}", made.text());
    assert_eq!(client.patch(&path, "text/plain", "x").await.code, 415);
    let test = client
        .patch(&path, "application/json-patch+json", r#"[{"op":"test","path":"/spec/replicas","value":9}]"#)
        .await;
    assert_eq!(test.code, 422, "{}", test.text());
}

/// Nobody comes to own, by an update, what its endpoint does not write, and so nobody loses it.
#[tokio::test]
async fn updates_own_what_their_endpoint_writes() {
    let server = Server::start().await;
    let client = server.client();
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let config = "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: d, labels: {x: one}}\nspec: {replicas: 3, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}\n";
    let apply = "application/apply-patch+yaml";
    let mut object = client.patch(&format!("{path}?fieldManager=gitops"), apply, config).await.ok();
    object["spec"]["replicas"] = json!(9);
    object["metadata"]["labels"]["x"] = json!("two");
    object["status"] = json!({"replicas": 1});
    let mut object = client.put(&format!("{path}/status?fieldManager=ctl"), &object).await.ok();
    assert_eq!((&object["spec"]["replicas"], &object["metadata"]["labels"]["x"]), (&json!(3), &json!("one")));
    let owned = |object: &serde_json::Value, name: &str, subresource: &str| {
        let managers = object["metadata"]["managedFields"].as_array().unwrap();
        let is =
            |m: &&serde_json::Value| m["manager"] == name && m["subresource"].as_str().unwrap_or("") == subresource;
        managers.iter().find(is).map(|m| m["fieldsV1"].clone()).unwrap_or_default()
    };
    assert_eq!(owned(&object, "ctl", "status"), json!({"f:status": {"f:replicas": {}}}));
    object["status"]["replicas"] = json!(2);
    object["metadata"]["annotations"] = json!({"k": "v"});
    let object = client.put(&format!("{path}?fieldManager=hand"), &object).await.ok();
    assert_eq!(owned(&object, "hand", ""), json!({"f:metadata": {"f:annotations": {".": {}, "f:k": {}}}}));
    client.patch(&format!("{path}?fieldManager=gitops"), apply, &config.replace("x: one", "x: two")).await.ok();
    let made = json!({"metadata": {"name": "n"}});
    let made = client.post("/api/v1/namespaces?fieldManager=maker", &made).await.ok();
    assert!(owned(&made, "maker", "").get("f:status").is_none(), "{made}");
}

/// A subresource takes nothing of who manages the object from its client.
#[tokio::test]
async fn managers_are_not_set_through_subresources() {
    let server = Server::start().await;
    let client = server.client();
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let made = client.post(&format!("{pods}?fieldManager=maker"), &pod).await.ok();
    let path = format!("{pods}/p/status?fieldManager=x");
    let reset = r#"{"metadata":{"managedFields":[{}]}}"#;
    let patched = client.patch(&path, MERGE, reset).await.ok();
    assert_eq!(patched["metadata"]["managedFields"], made["metadata"]["managedFields"]);
    let forged = json!({"metadata": {"managedFields": [{"apiVersion": "v1", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {"f:containers": {}}}, "manager": "forged", "operation": "Apply"}]}});
    let patched = client.patch(&path, MERGE, &forged.to_string()).await.ok();
    assert_eq!(patched["metadata"]["managedFields"], made["metadata"]["managedFields"]);
    let mut put = patched.clone();
    put["metadata"]["managedFields"] = forged["metadata"]["managedFields"].clone();
    put["status"]["reason"] = json!("r");
    let put = client.put(&path, &put).await.ok();
    let names = |object: &serde_json::Value| {
        let entries = object["metadata"]["managedFields"].as_array().unwrap();
        entries.iter().map(|m| m["manager"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&put), ["maker", "x"]);
    // Those of the object's own updates and of its status are ten at most together.
    for i in 0..6 {
        let label = json!({"metadata": {"labels": {format!("l{i}"): "x"}}}).to_string();
        client.patch(&format!("{pods}/p?fieldManager=l{i}"), MERGE, &label).await.ok();
    }
    for i in 0..8 {
        let status = json!({"status": {"message": format!("m{i}")}}).to_string();
        client.patch(&format!("{pods}/p/status?fieldManager=s{i}"), MERGE, &status).await.ok();
        let kind =
            json!({"status": {"conditions": [{"type": format!("example.com/{i}"), "status": "True"}]}}).to_string();
        let strategic = "application/strategic-merge-patch+json";
        client.patch(&format!("{pods}/p/status?fieldManager=s{i}"), strategic, &kind).await.ok();
    }
    let read = client.get(&format!("{pods}/p")).await.ok();
    assert_eq!(names(&read).len(), 10, "{:?}", names(&read));
    // A reset through the object itself is one.
    let reset = client.patch(&format!("{pods}/p?fieldManager=x"), MERGE, reset).await.ok();
    assert!(reset["metadata"]["managedFields"].is_null(), "{reset}");
}

/// What a strategy makes at a create has its defaults at once, so that whoever writes next is not taken for their author.
#[tokio::test]
async fn what_the_server_fills_in_has_its_defaults() {
    let server = Server::start().await;
    let client = server.client();
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": {"spec": {"restartPolicy": "Never",
        "containers": [{"name": "c", "image": "i"}]}}}});
    let made = client.post(jobs, &job).await.ok();
    let labels = &made["metadata"]["labels"];
    assert_eq!(labels, &made["spec"]["template"]["metadata"]["labels"], "those of its template");
    assert!(labels["batch.kubernetes.io/controller-uid"].is_string(), "{made}");
    assert_eq!(client.get(&format!("{jobs}/j")).await.ok()["metadata"]["labels"], *labels);
    let path = format!("{jobs}/j?fieldManager=later");
    let patched = client.patch(&path, MERGE, r#"{"metadata":{"annotations":{"a":"b"}}}"#).await.ok();
    let managers = patched["metadata"]["managedFields"].as_array().unwrap();
    let later = managers.iter().find(|m| m["manager"] == "later").unwrap();
    assert_eq!(later["fieldsV1"], json!({"f:metadata": {"f:annotations": {".": {}, "f:a": {}}}}));
}

#[tokio::test]
async fn many_writers_of_one_object_lose_nothing() {
    let server = Server::start().await;
    let client = server.client();
    client.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for i in 0..20 {
                    let patch = json!({"data": {format!("w{writer}-{i}"): "x"}}).to_string();
                    client.patch(&format!("{MAPS}/a"), MERGE, &patch).await.ok();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(client.get(&format!("{MAPS}/a")).await.ok()["data"].as_object().unwrap().len(), 160);
}

#[tokio::test]
async fn namespaces_end_when_their_finalizer_is_gone() {
    let server = Server::start().await;
    let client = server.client();
    let made = client.post("/api/v1/namespaces", &json!({"metadata": {"name": "n"}})).await.ok();
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    let mut ending = client.delete("/api/v1/namespaces/n").await.ok();
    assert_eq!(ending["status"]["phase"], "Terminating");
    ending["spec"]["finalizers"] = json!([]);
    client.put("/api/v1/namespaces/n/finalize", &ending).await.ok();
    assert_eq!(client.get("/api/v1/namespaces/n").await.code, 404);
}

#[tokio::test]
async fn a_scale_is_applied_and_its_replicas_have_owners() {
    let server = Server::start().await;
    let client = server.client();
    let apply = "application/apply-patch+yaml";
    let path = "/apis/apps/v1/namespaces/default/deployments/d";
    let whole = "kind: Deployment\napiVersion: apps/v1\nmetadata: {name: d}\nspec: {replicas: 1, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}\n";
    client.patch(&format!("{path}?fieldManager=owner"), apply, whole).await.ok();
    let scale = |replicas: u32| {
        format!(
            "kind: Scale\napiVersion: autoscaling/v1\nmetadata: {{name: d, namespace: default}}\nspec: {{replicas: {replicas}}}\n"
        )
    };
    let target = format!("{path}/scale?fieldManager=scaler");
    let conflict = client.patch(&target, apply, &scale(5)).await.refused(409);
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"owner\": .spec.replicas");
    let scaled = client.patch(&format!("{target}&force=true"), apply, &scale(5)).await.ok();
    assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    let read = client.get(path).await.ok();
    let managers = read["metadata"]["managedFields"].as_array().unwrap();
    let of = |name: &str| managers.iter().find(|m| m["manager"] == name).unwrap_or_else(|| panic!("{managers:?}"));
    assert_eq!(of("scaler")["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(
        (&of("scaler")["subresource"], &of("scaler")["operation"], &of("scaler")["apiVersion"]),
        (&json!("scale"), &json!("Apply"), &json!("apps/v1"))
    );
    assert!(of("owner")["fieldsV1"]["f:spec"].get("f:replicas").is_none(), "{managers:?}");
    assert!(of("scaler").get("time").is_none() && of("owner")["time"].is_string(), "{managers:?}");
    let generation = |object: &serde_json::Value| object["metadata"]["generation"].as_i64();
    let before = generation(&client.get(path).await.json());
    let updated = client.patch(&format!("{path}/scale?fieldManager=hand"), MERGE, r#"{"spec":{"replicas":7}}"#).await;
    // It is a change of the spec, of which controllers say which one they have seen.
    assert_eq!(generation(&client.get(path).await.json()), before.map(|g| g + 1));
    assert_eq!(updated.ok()["spec"]["replicas"], 7);
    let read = client.get(path).await.ok();
    let managers = read["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().all(|m| m["manager"] != "scaler"), "{managers:?}");
    let hand = managers.iter().find(|m| m["manager"] == "hand").unwrap();
    assert_eq!((&hand["subresource"], &hand["operation"]), (&json!("scale"), &json!("Update")));
    assert!(hand.get("time").is_none(), "{hand}");
}

#[tokio::test]
async fn client_side_apply_is_upgraded() {
    let server = Server::start().await;
    let client = server.client();
    let applied =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "1", "l": "1"}});
    let mut object = applied.clone();
    object["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": format!("{applied}\n")});
    client.post(&format!("{MAPS}?fieldManager=kubectl-client-side-apply"), &object).await.ok();
    client.patch(&format!("{MAPS}/a?fieldManager=other"), MERGE, r#"{"data":{"l":"2"}}"#).await.ok();
    let apply = "application/apply-patch+yaml";
    let config = |k: u32, l: u32| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {{k: '{k}', l: '{l}'}}\n")
    };
    // What was applied and is still so may be changed; what another changed since then may not.
    let conflict = client.patch(&format!("{MAPS}/a?fieldManager=kubectl"), apply, &config(2, 3)).await.refused(409);
    assert_eq!(conflict["message"], "Apply failed with 1 conflict: conflict with \"other\" using v1: .data.l");
    let stranger = client.patch(&format!("{MAPS}/a?fieldManager=me"), apply, &config(2, 2)).await.refused(409);
    assert_eq!(stranger["details"]["causes"][0]["field"], ".data.k");
    let upgraded = client.patch(&format!("{MAPS}/a?fieldManager=kubectl"), apply, &config(2, 2)).await.ok();
    assert_eq!(upgraded["data"], json!({"k": "2", "l": "2"}));
    let last =
        upgraded["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["data"], json!({"k": "2", "l": "2"}), "client-side apply can go on from here");
}

const SCALED: [(&str, &str); 4] = [
    ("/api/v1/namespaces/default/replicationcontrollers", "replicationcontrollers/scale"),
    ("/apis/apps/v1/namespaces/default/deployments", "deployments/scale.apps"),
    ("/apis/apps/v1/namespaces/default/replicasets", "replicasets/scale.apps"),
    ("/apis/apps/v1/namespaces/default/statefulsets", "statefulsets/scale.apps"),
];

fn workload(path: &str) -> serde_json::Value {
    let selector =
        if path.ends_with("replicationcontrollers") { json!({"a": "b"}) } else { json!({"matchLabels": {"a": "b"}}) };
    json!({"metadata": {"name": "w"}, "spec": {"replicas": 2, "selector": selector, "serviceName": "w",
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

#[tokio::test]
async fn a_put_that_would_create_names_no_object_that_is_gone() {
    let server = Server::start().await;
    let client = server.client();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let path = format!("{leases}/q1");
    let made = client.put(&path, &json!({"metadata": {"name": "q1"}, "spec": {}})).await.ok();
    client.delete(&path).await.ok();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    let refused = client.put(&path, &made).await.refused(409);
    assert_eq!(
        refused["message"],
        format!(
            "Operation cannot be fulfilled on leases.coordination.k8s.io \"q1\": StorageError: invalid object, Code: 4, Key: /registry/leases/default/q1, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: "
        )
    );
    assert_eq!(client.get(&path).await.code, 404);
    // A version alone means nothing then.
    let mut anew = made.clone();
    anew["metadata"].as_object_mut().unwrap().remove("uid");
    assert_eq!(client.put(&path, &anew).await.code, 201);
    // What is there is told apart by the same rule; a patch names no object, it makes one.
    let refused = client.put(&path, &made).await.refused(409);
    assert!(
        refused["message"].as_str().unwrap().contains(&format!("UID in precondition: {uid}, UID in object meta: "))
    );
    let refused = client.patch(&path, MERGE, r#"{"metadata":{"uid":"other"}}"#).await.refused(422);
    assert!(
        refused["message"].as_str().unwrap().contains("metadata.uid: Invalid value: \"other\": field is immutable")
    );
}

#[tokio::test]
async fn a_scale_is_that_of_its_object() {
    let server = Server::start().await;
    let client = server.client();
    for (path, resource) in SCALED {
        client.post(path, &workload(path)).await.ok();
        let scale = format!("{path}/w/scale");
        let mut stale = client.get(&scale).await.ok();
        client.delete(&format!("{path}/w?propagationPolicy=Background")).await.ok();
        let made = client.post(path, &workload(path)).await.ok();
        let uid = made["metadata"]["uid"].as_str().unwrap();
        let gone = stale["metadata"]["uid"].as_str().unwrap().to_owned();
        stale["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        stale["spec"]["replicas"] = json!(7);
        let refused = client.put(&scale, &stale).await.refused(409);
        let why = format!("Precondition failed: UID in precondition: {gone}, UID in object meta: {uid}");
        let message = refused["message"].as_str().unwrap();
        assert!(
            message.contains("StorageError: invalid object, Code: 4, Key: /registry/") && message.ends_with(&why),
            "{message}"
        );
        let other = r#"{"metadata":{"uid":"other"},"spec":{"replicas":7}}"#;
        let refused = client.patch(&scale, MERGE, other).await.refused(409);
        let why = format!(
            "Operation cannot be fulfilled on {resource} \"w\": Precondition failed: UID in precondition: other, UID in object meta: {uid}"
        );
        assert_eq!(refused["message"], why);
        for part in ["name", "namespace"] {
            let other = json!({"metadata": {part: "other"}, "spec": {"replicas": 7}}).to_string();
            client.patch(&scale, MERGE, &other).await.refused(400);
        }
        assert_eq!(client.get(&scale).await.ok()["spec"]["replicas"], 2, "{path}");
        let own = json!({"metadata": {"uid": uid}, "spec": {"replicas": 3}}).to_string();
        assert_eq!(client.patch(&scale, MERGE, &own).await.ok()["spec"]["replicas"], 3);
    }
}

#[tokio::test]
async fn a_scale_is_shown_as_a_table_and_as_metadata() {
    let server = Server::start().await;
    let client = server.client();
    let (path, _) = SCALED[1];
    let made = client.post(path, &workload(path)).await.ok();
    let scale = format!("{path}/w/scale");
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let shown = client.raw(Method::GET, &scale, &table, "").await.ok();
    assert_eq!((&shown["kind"], &shown["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns = shown["columnDefinitions"].as_array().unwrap();
    let names: Vec<_> =
        columns.iter().map(|column| (column["name"].as_str().unwrap(), column["type"].as_str().unwrap())).collect();
    assert_eq!(names, [("Name", "string"), ("Desired", "integer"), ("Available", "integer"), ("Age", "string")]);
    assert!(columns.iter().all(|column| column["description"] != ""), "{columns:?}");
    let row = &shown["rows"][0];
    assert_eq!(row["cells"].as_array().unwrap()[..3], [json!("w"), json!(2), json!(0)]);
    assert_eq!(row["object"]["metadata"]["uid"], made["metadata"]["uid"]);
    let patched = [("accept", table[0].1), ("content-type", MERGE)];
    let shown = client.raw(Method::PATCH, &scale, &patched, r#"{"spec":{"replicas":5}}"#).await.ok();
    assert_eq!(shown["rows"][0]["cells"][1], 5);
    let metadata = [("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")];
    let shown = client.raw(Method::GET, &scale, &metadata, "").await.ok();
    assert_eq!((&shown["kind"], &shown["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("w")));
    assert!(shown.get("spec").is_none());
    let list = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let refused = client.raw(Method::GET, &scale, &list, "").await.refused(406);
    assert_eq!(
        refused["message"],
        "you requested PartialObjectMetadataList, but the requested object is not a list (*autoscaling.Scale)"
    );
}

#[tokio::test]
async fn a_negative_grace_period_is_a_second_also_for_who_ends_already() {
    let server = Server::start().await;
    let client = server.client();
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    client.post(PODS, &pod).await.ok();
    let path = format!("{PODS}/p");
    let grace = async |seconds: i64| {
        let ending = client.delete(&format!("{path}?gracePeriodSeconds={seconds}")).await.ok();
        ending["metadata"]["deletionGracePeriodSeconds"].clone()
    };
    assert_eq!(grace(10).await, 10);
    assert_eq!(grace(-5).await, 1);
    assert_eq!(client.get(&path).await.ok()["metadata"]["deletionGracePeriodSeconds"], 1);
}

#[tokio::test]
async fn a_new_object_has_no_version_but_in_a_dry_run() {
    let server = Server::start().await;
    let client = server.client();
    let object = |version: &str| json!({"metadata": {"name": "a", "resourceVersion": version}});
    let tried = client.post(&format!("{MAPS}?dryRun=All"), &object("5")).await;
    assert_eq!((tried.code.as_u16(), &tried.json()["metadata"]["resourceVersion"]), (201, &json!("5")));
    let refused = client.post(MAPS, &object("5")).await.refused(500);
    assert_eq!(refused["message"], "resourceVersion should not be set on objects to be created");
    // What else is wrong with it is told first, and what is no number is no version.
    let bad = json!({"metadata": {"name": "A_b", "resourceVersion": "5"}});
    client.post(MAPS, &bad).await.refused(422);
    let made = client.post(MAPS, &object("x")).await.ok();
    assert!(made["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().is_ok());
}

#[tokio::test]
async fn a_patch_that_cannot_be_read_of_nothing_finds_nothing() {
    let server = Server::start().await;
    let client = server.client();
    let path = format!("{MAPS}/a");
    let broken = ["application/json-patch+json", MERGE, "application/strategic-merge-patch+json"];
    for kind in broken {
        client.patch(&path, kind, "{").await.refused(404);
    }
    // An apply would make it.
    let apply = format!("{path}?fieldManager=m");
    client.patch(&apply, "application/apply-patch+yaml", "{").await.refused(400);
    client.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok();
    for kind in broken {
        client.patch(&path, kind, "{").await.refused(400);
    }
}

#[tokio::test]
async fn many_warnings_are_cut_so_that_more_of_them_are_told() {
    let server = Server::start().await;
    let client = server.client();
    let told = async |count: usize, length: usize| {
        let mut object = json!({"metadata": {"name": "a"}});
        for number in 0..count {
            object[format!("{number:02}{}", "x".repeat(length))] = json!(1);
        }
        let made = client.post(&format!("{MAPS}?dryRun=All"), &object).await;
        assert_eq!(made.code, 201, "{}", made.text());
        let told = made.headers.get_all("warning").iter().map(|value| value.to_str().unwrap().len());
        told.collect::<Vec<_>>()
    };
    // `299 - "` and `"`, and the quotes of what is told escaped.
    let around = |text: usize| text + 8;
    let whole = "unknown field \"\"".len();
    assert_eq!(told(3, 98).await, [around(whole + 100 + 2); 3]);
    assert_eq!(told(9, 398).await.len(), 9);
    assert_eq!(told(9, 398).await[0], around(whole + 400 + 2));
    // One opening quote is left of each.
    assert_eq!(told(40, 398).await, [around(256 + 1); 16]);
}
