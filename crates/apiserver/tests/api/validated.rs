//! What single kinds are held to, and what the server makes of them, as a client sees it.

use crate::client::{Client, Server};
use base64::Engine as _;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

fn encoded(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn signing_request(pem: &str) -> Value {
    json!({"metadata": {"name": "r"}, "spec": {"request": encoded(pem), "signerName": "example.com/s",
        "usages": ["client auth"], "username": "somebody else"}})
}

/// Fields, reasons and messages of a refusal.
fn causes(status: &Value) -> Vec<(&str, &str, &str)> {
    fn text<'a>(cause: &'a Value, key: &str) -> &'a str {
        cause[key].as_str().unwrap_or("")
    }
    let list = status["details"]["causes"].as_array().expect("causes");
    list.iter().map(|cause| (text(cause, "field"), text(cause, "reason"), text(cause, "message"))).collect()
}

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

#[tokio::test]
async fn signing_requests_say_who_made_them_and_are_decided_by_approval_alone() {
    let server = Server::start().await;
    let client = server.client();
    let key = KeyPair::generate().unwrap();
    let pem = CertificateParams::new(Vec::new()).unwrap().serialize_request(&key).unwrap().pem().unwrap();
    let refused = client.post(REQUESTS, &signing_request("nothing")).await.refused(422);
    let request = encoded("nothing");
    let why = format!("Invalid value: {request:?}: PEM block type must be CERTIFICATE REQUEST");
    assert_eq!(causes(&refused), [("spec.request", "FieldValueInvalid", why.as_str())]);

    let made = client.post(REQUESTS, &signing_request(&pem)).await.ok();
    assert_eq!(made["spec"]["username"], "tester");
    assert_eq!(made["spec"]["groups"], json!(["system:masters", "system:authenticated"]), "{made}");
    assert_eq!(made["status"], json!({}), "{made}");

    // The object itself keeps what was asked for.
    let mut other = made.clone();
    other["spec"]["usages"] = json!(["server auth"]);
    assert_eq!(client.put(&format!("{REQUESTS}/r"), &other).await.ok()["spec"], made["spec"]);

    let mut decided = made.clone();
    decided["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "Fine"}]);
    let refused = client.put(&format!("{REQUESTS}/r/status"), &decided).await.refused(422);
    let why = r#"Forbidden: updates may not add a condition of type "Approved""#;
    assert_eq!(causes(&refused), [("status.conditions", "FieldValueForbidden", why)]);
    decided["spec"]["signerName"] = json!("example.com/other");
    let approved = client.put(&format!("{REQUESTS}/r/approval"), &decided).await.ok();
    assert_eq!(approved["spec"], made["spec"]);
    let condition = &approved["status"]["conditions"][0];
    assert!(condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string(), "{condition}");

    let mut signed = approved.clone();
    signed["status"]["certificate"] = json!(encoded("nothing"));
    let refused = client.put(&format!("{REQUESTS}/r/status"), &signed).await.refused(422);
    let why = r#"Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block"#;
    assert_eq!(causes(&refused), [("status.certificate", "FieldValueInvalid", why)]);
    let certificate = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
    signed["status"]["certificate"] = json!(encoded(&certificate));
    let signed = client.put(&format!("{REQUESTS}/r/status"), &signed).await.ok();
    assert_eq!(signed["status"]["conditions"], approved["status"]["conditions"]);
    let mut again = signed.clone();
    again["status"]["certificate"] = json!(encoded(&format!("{certificate}{certificate}")));
    let refused = client.put(&format!("{REQUESTS}/r/status"), &again).await.refused(422);
    let why = "Forbidden: updates may not modify existing certificate content";
    assert_eq!(causes(&refused), [("status.certificate", "FieldValueForbidden", why)]);
}

#[tokio::test]
async fn events_are_one_storage_with_two_sets_of_rules() {
    let server = Server::start().await;
    let client = server.client();
    let (old, new) = ("/api/v1/namespaces/default/events", "/apis/events.k8s.io/v1/namespaces/default/events");
    let legacy = json!({"metadata": {"name": "An.Odd:name"}, "involvedObject": {"namespace": "default"}, "count": 2});
    client.post(old, &legacy).await.ok();
    let refused = client
        .post(new, &json!({"metadata": {"name": "e"}, "regarding": {"namespace": "default"}, "deprecatedCount": 2}))
        .await
        .refused(422);
    assert_eq!(
        causes(&refused),
        [
            ("eventTime", "FieldValueRequired", "Required value"),
            ("type", "FieldValueInvalid", r#"Invalid value: "": has invalid value: "#),
            ("count", "FieldValueInvalid", r#"Invalid value: "": needs to be unset"#),
        ]
    );
    let event = json!({"metadata": {"name": "e"}, "regarding": {"namespace": "default"}, "reason": "R", "action": "A",
        "eventTime": "2024-01-01T00:00:00.000000Z", "type": "Normal", "reportingController": "example.com/c",
        "reportingInstance": "i"});
    let mut watch = client.watch(&format!("{old}?watch=true&fieldSelector=reportingComponent%3Dexample.com/c")).await;
    let made = client.post(new, &event).await.ok();
    // Who reported is a field of its own, and what an event without a source is selected by.
    assert_eq!(watch.told().await.1, "e");
    for (path, selector, count) in [
        (old, "reportingComponent%3Dexample.com/c", 1),
        (old, "reportingComponent%3Dother", 0),
        (old, "source%3Dexample.com/c", 1),
        (new, "reportingController%3Dexample.com/c", 1),
    ] {
        let list = client.get(&format!("{path}?fieldSelector={selector}")).await.ok();
        assert_eq!(list["items"].as_array().map(Vec::len), Some(count), "{path} {selector}");
    }
    let mut counted = made.clone();
    counted["series"] = json!({"count": 2, "lastObservedTime": "2024-01-01T00:00:01.000000Z"});
    let counted = client.put(&format!("{new}/e"), &counted).await.ok();
    assert_eq!(client.get(&format!("{old}/e")).await.ok()["series"]["count"], 2);
    let mut other = counted.clone();
    other["reason"] = json!("Other");
    let refused = client.put(&format!("{new}/e"), &other).await.refused(422);
    assert_eq!(causes(&refused)[0].0, "reason");
    let mut other = client.get(&format!("{old}/e")).await.ok();
    other["reason"] = json!("Other");
    assert_eq!(client.put(&format!("{old}/e"), &other).await.ok()["reason"], "Other");
}

#[tokio::test]
async fn the_ranges_of_a_node_are_one_field_under_two_names() {
    let server = Server::start().await;
    let client = server.client();
    let nodes = "/api/v1/nodes";
    let node = |spec: Value| json!({"metadata": {"name": "n"}, "spec": spec});
    let ranges = |node: &Value| (node["spec"]["podCIDR"].clone(), node["spec"]["podCIDRs"].clone());
    let both = (json!("10.0.0.0/24"), json!(["10.0.0.0/24"]));
    let made = client.post(&format!("{nodes}?dryRun=All"), &node(json!({"podCIDR": "10.0.0.0/24"}))).await.ok();
    assert_eq!(ranges(&made), both);
    let made = client.post(nodes, &node(json!({"podCIDRs": ["10.0.0.0/24"]}))).await.ok();
    assert_eq!(ranges(&made), both);
    let other = r#"{"spec":{"podCIDR":"10.0.1.0/24"}}"#;
    let refused = client.patch(&format!("{nodes}/n"), "application/merge-patch+json", other).await.refused(422);
    let why = r#"Forbidden: node updates may not change podCIDR except from "" to valid"#;
    assert_eq!(causes(&refused), [("spec.podCIDRs", "FieldValueForbidden", why)]);
}

#[tokio::test]
async fn definitions_remember_the_versions_that_were_stored() {
    let server = Server::start().await;
    let client = server.client();
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let version = |name: &str, storage: bool| json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object"}}});
    let made = client
        .post(
            path,
            &json!({"metadata": {"name": "foos.example.com"}, "spec": {"group": "example.com", "scope": "Cluster",
                "names": {"plural": "foos", "kind": "Foo"}, "versions": [version("v1", true)]}}),
        )
        .await
        .ok();
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(made["spec"]["names"]["singular"], "foo");
    assert_eq!(made["spec"]["names"]["listKind"], "FooList");
    assert_eq!(made["spec"]["conversion"], json!({"strategy": "None"}));
    let mut next = made.clone();
    next["spec"]["versions"] = json!([version("v1", false), version("v2", true)]);
    let next = client.put(&format!("{path}/foos.example.com"), &next).await.ok();
    assert_eq!(next["status"]["storedVersions"], json!(["v1", "v2"]));
    assert_eq!(next["metadata"]["generation"], 2);
    let mut gone = next.clone();
    gone["spec"]["versions"] = json!([version("v2", true)]);
    let refused = client.put(&format!("{path}/foos.example.com"), &gone).await.refused(422);
    assert_eq!(causes(&refused)[0].0, "status.storedVersions[0]");
}

async fn made(client: &Client, path: &str, object: Value) -> Value {
    client.post(path, &object).await.ok()
}

#[tokio::test]
async fn the_server_adds_and_drops_what_is_not_the_clients_to_say() {
    let server = Server::start().await;
    let client = server.client();
    // Features that are off.
    let lease =
        json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "strategy": "OldestEmulationVersion"}});
    let lease = made(&client, "/apis/coordination.k8s.io/v1/namespaces/default/leases", lease).await;
    assert_eq!(lease["spec"], json!({"holderIdentity": "a"}));
    let driver = json!({"metadata": {"name": "d"}, "spec": {"preventPodSchedulingIfMissing": true}});
    let driver = made(&client, "/apis/storage.k8s.io/v1/csidrivers", driver).await;
    assert_eq!(driver["spec"].get("preventPodSchedulingIfMissing"), None, "{driver}");
    // A group that this server serves itself.
    let service = json!({"metadata": {"name": "v1.example.com"}, "spec": {"group": "example.com", "version": "v1",
        "groupPriorityMinimum": 1, "versionPriority": 1}});
    let service = made(&client, "/apis/apiregistration.k8s.io/v1/apiservices", service).await;
    assert_eq!(service["status"]["conditions"][0]["reason"], "Local");
    // Times of taints.
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "nodeName": "n",
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "a", "taints": [{"key": "k", "effect": "NoSchedule"}]}]}});
    let slice = made(&client, "/apis/resource.k8s.io/v1/resourceslices", slice).await;
    assert!(slice["spec"]["devices"][0]["taints"][0]["timeAdded"].is_string(), "{slice}");
    // Labels of endpoint slices count as a change.
    let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let endpoints = json!({"metadata": {"name": "e"}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "deprecatedTopology": {"a": "b"}}]});
    let endpoints = made(&client, path, endpoints).await;
    assert_eq!(endpoints["endpoints"][0].get("deprecatedTopology"), None);
    let labelled = r#"{"metadata":{"labels":{"a":"b"}}}"#;
    let labelled = client.patch(&format!("{path}/e"), "application/merge-patch+json", labelled).await.ok();
    assert_eq!(labelled["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_claim_forgets_what_was_told_of_devices_that_it_gave_back() {
    let server = Server::start().await;
    let client = server.client();
    let path = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let claim = json!({"metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}});
    let claim = made(&client, path, claim).await;
    assert_eq!(claim["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
    let mut given = claim.clone();
    given["status"] = json!({
        "allocation": {"devices": {"results":
            [{"request": "r", "driver": "d.example.com", "pool": "p", "device": "a"}]}},
        "devices": [{"driver": "d.example.com", "pool": "p", "device": "a", "conditions": null}]});
    let given = client.put(&format!("{path}/c/status"), &given).await.ok();
    assert_eq!(given["status"]["devices"].as_array().map(Vec::len), Some(1));
    let mut back = given.clone();
    back["status"].as_object_mut().unwrap().remove("allocation");
    let back = client.put(&format!("{path}/c/status"), &back).await.ok();
    assert_eq!(back["status"].get("devices"), None, "{back}");
}

#[tokio::test]
async fn names_are_as_free_as_upstreams() {
    let server = Server::start().await;
    let client = server.client();
    let ranges = "/api/v1/namespaces/default/limitranges";
    let nameless = made(&client, ranges, json!({"spec": {"limits": []}})).await;
    let name = nameless["metadata"]["name"].as_str().unwrap_or("");
    assert!(uuid::Uuid::parse_str(name).is_ok(), "{nameless}");
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    made(&client, budgets, json!({"metadata": {"name": "A_budget"}, "spec": {"minAvailable": 1}})).await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    made(&client, services, service("1st")).await;
    let refused = client.post(services, &service("a.b")).await.refused(422);
    assert_eq!(causes(&refused)[0].0, "metadata.name");
    // Kinds that count no generation keep the maker's.
    let copied = |kind: Value| json!({"metadata": {"name": "copied", "generation": 7}, "spec": kind});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let kept = made(&client, "/api/v1/namespaces/default/persistentvolumeclaims", copied(claim)).await;
    let counted = made(&client, budgets, copied(json!({"minAvailable": 1}))).await;
    let of = |object: &Value| object["metadata"]["generation"].as_i64();
    assert_eq!((of(&kept), of(&counted)), (Some(7), Some(1)));
    // A PUT creates a runtime class.
    let class = json!({"metadata": {"name": "c"}, "handler": "runc"});
    let path = "/apis/node.k8s.io/v1/runtimeclasses/c";
    assert_eq!(client.put(path, &class).await.code, http::StatusCode::CREATED);
    let broken = json!({"overhead": {"podFixed": {"cpu": "-1"}}}).to_string();
    client.patch(path, "application/merge-patch+json", &broken).await.refused(422);
}

#[tokio::test]
async fn who_writes_a_status_is_told_nothing_of_the_rest() {
    let server = Server::start().await;
    let client = server.client();
    let volumes = "/api/v1/persistentvolumes";
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "persistentVolumeReclaimPolicy": "Recycle"}});
    let warned = |answer: &crate::client::Answer| answer.headers.contains_key("warning");
    assert!(warned(&client.post(volumes, &volume).await));
    let merge = "application/merge-patch+json";
    let labelled = client.patch(&format!("{volumes}/v"), merge, r#"{"metadata":{"labels":{"a":"b"}}}"#).await;
    assert!(warned(&labelled), "an update that changes nothing of it, too");
    let bound = client.patch(&format!("{volumes}/v/status"), merge, r#"{"status":{"phase":"Bound"}}"#).await;
    assert!(!warned(&bound));
    assert_eq!(bound.ok()["status"]["phase"], "Bound");
    // Of an attachment the metadata stays, too.
    let attachments = "/apis/storage.k8s.io/v1/volumeattachments";
    let attachment = json!({"metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {"attacher": "d.example.com",
        "nodeName": "n", "source": {"persistentVolumeName": "v"}}});
    made(&client, attachments, attachment).await;
    let attached = r#"{"metadata":{"labels":{"a":"c"},"annotations":{"x":"y"}},"status":{"attached":true}}"#;
    let attached = client.patch(&format!("{attachments}/a/status"), merge, attached).await.ok();
    assert_eq!(attached["status"]["attached"], true);
    assert_eq!(attached["metadata"]["labels"], json!({"a": "b"}));
    assert!(attached["metadata"].get("annotations").is_none(), "{attached}");
    let levels = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";
    let level = json!({"metadata": {"name": "l"},
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}});
    made(&client, levels, level).await;
    let applied = json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "l", "labels": {"a": "b"}},
        "status": {"conditions": [{"type": "X", "status": "True"}]}});
    let apply = "application/apply-patch+yaml";
    let applied = client.patch(&format!("{levels}/l/status?fieldManager=m"), apply, &applied.to_string()).await.ok();
    assert!(applied["metadata"].get("labels").is_none(), "{applied}");
    let managers = applied["metadata"]["managedFields"].as_array().unwrap();
    let manager = managers.iter().find(|entry| entry["manager"] == "m").unwrap();
    assert!(manager["fieldsV1"].get("f:metadata").is_none(), "{manager}");
    // The status of others changes owners, too, but never those of a pod.
    let owners = r#"{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"}]}}"#;
    let owned = client.patch(&format!("{volumes}/v/status"), merge, owners).await.ok();
    assert_eq!(owned["metadata"]["ownerReferences"][0]["uid"], "u");
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    made(&client, pods, pod).await;
    let pod = client.patch(&format!("{pods}/p/status"), merge, owners).await.ok();
    assert!(pod["metadata"].get("ownerReferences").is_none(), "{pod}");
}

#[tokio::test]
async fn an_old_autoscaler_is_a_new_one_with_its_defaults() {
    let server = Server::start().await;
    let client = server.client();
    let of = |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
    let old = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 2, "scaleTargetRef": target}});
    let made = made(&client, &of("v1"), old).await;
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 80);
    let new = client.get(&format!("{}/h", of("v2"))).await.ok();
    let cpu = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}});
    assert_eq!(new["spec"]["metrics"], json!([{"type": "Resource", "resource": cpu}]));
    // What v1 has no field for goes by annotations, in its own shape.
    let queue = json!({"spec": {"metrics": [{"type": "External", "external": {"metric": {"name": "q"},
        "target": {"type": "Value", "value": "1"}}}]}});
    client.patch(&format!("{}/h", of("v2")), "application/merge-patch+json", &queue.to_string()).await.ok();
    let old = client.get(&format!("{}/h", of("v1"))).await.ok();
    let told = &old["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"];
    let told: Value = serde_json::from_str(told.as_str().unwrap_or("")).unwrap();
    assert_eq!(told, json!([{"type": "External", "external": {"metricName": "q", "targetValue": "1"}}]));
}

#[tokio::test]
async fn gates_change_what_is_allowed() {
    let scalers = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let scaler = json!({"metadata": {"name": "h"}, "spec": {"minReplicas": 0, "maxReplicas": 2,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"},
        "metrics": [{"type": "External", "external": {"metric": {"name": "q"},
            "target": {"type": "Value", "value": "1"}}}]}});
    let affinity = |zone: &str| {
        json!({"required": {"nodeSelectorTerms":
            [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}})
    };
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}, "nodeAffinity": affinity("a")}});
    let moved = json!({"spec": {"nodeAffinity": affinity("b")}}).to_string();
    let merge = "application/merge-patch+json";
    let server = Server::start().await;
    let client = server.client();
    let refused = client.post(scalers, &scaler).await.refused(422);
    assert_eq!(causes(&refused)[0].0, "spec.minReplicas");
    made(&client, "/api/v1/persistentvolumes", volume.clone()).await;
    let refused = client.patch("/api/v1/persistentvolumes/v", merge, &moved).await.refused(422);
    assert_eq!(causes(&refused)[0].0, "nodeAffinity");
    let server = Server::start_as("HPAScaleToZero=true,MutablePVNodeAffinity=true", "").await;
    let client = server.client();
    assert_eq!(made(&client, scalers, scaler).await["spec"]["minReplicas"], 0);
    made(&client, "/api/v1/persistentvolumes", volume).await;
    client.patch("/api/v1/persistentvolumes/v", merge, &moved).await.ok();
}
