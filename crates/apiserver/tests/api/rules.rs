//! What single kinds have as rules, through the router: what is refused, what is filled in, what stays as it was.

use crate::client::{Answer, Client, Server};
use serde_json::{Value, json};

const NS: &str = "namespaces/default";
const MERGE: &str = "application/merge-patch+json";

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn controller(name: &str, rest: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template()});
    for (key, value) in rest.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": name}, "spec": spec})
}

/// The causes of a refusal: field, reason, message.
fn causes(answer: Answer) -> Vec<(String, String, String)> {
    let status = answer.refused(422);
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let causes = status["details"]["causes"].as_array().cloned().unwrap_or_default();
    causes.iter().map(|cause| (text(&cause["field"]), text(&cause["reason"]), text(&cause["message"]))).collect()
}

fn cause(field: &str, reason: &str, message: &str) -> (String, String, String) {
    (field.to_owned(), reason.to_owned(), message.to_owned())
}

async fn patch(client: &Client, path: &str, body: &Value) -> Answer {
    client.patch(path, MERGE, &body.to_string()).await
}

#[tokio::test]
async fn what_is_immutable_is_refused_by_name() {
    let server = Server::start().await;
    let client = server.client();
    let sets = format!("/apis/apps/v1/{NS}/statefulsets");
    let made = client.post(&sets, &controller("s", json!({"serviceName": "x"}))).await.ok();
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{sets}/s");
    let refused = patch(&client, &path, &json!({"spec": {"serviceName": "y"}})).await;
    let why = "Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    assert_eq!(causes(refused), [cause("spec", "FieldValueForbidden", why)]);
    let changed = patch(&client, &path, &json!({"spec": {"replicas": 3}})).await.ok();
    assert_eq!(changed["metadata"]["generation"], 2);
    let refused = client.post(&sets, &controller("a.b", json!({}))).await;
    assert_eq!(
        causes(refused),
        [cause("metadata.name", "FieldValueInvalid", r#"Invalid value: "a.b": must not contain dots"#)]
    );
    let classes = "/apis/networking.k8s.io/v1/ingressclasses";
    let class =
        json!({"metadata": {"name": "c"}, "spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n"}}});
    assert_eq!(client.post(classes, &class).await.ok()["spec"]["parameters"]["scope"], "Cluster");
    let refused = patch(&client, &format!("{classes}/c"), &json!({"spec": {"controller": "a.b/d"}})).await;
    let why = r#"Invalid value: "a.b/d": field is immutable"#;
    assert_eq!(causes(refused), [cause("spec.controller", "FieldValueInvalid", why)]);
    let refused = client
        .post(
            "/apis/networking.k8s.io/v1/ipaddresses",
            &json!({"metadata": {"name": "2001:DB8::1"}, "spec": {"parentRef": {"resource": "services", "name": "s"}}}),
        )
        .await;
    let why = r#"Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")"#;
    assert_eq!(causes(refused), [cause("metadata.name", "FieldValueInvalid", why)]);
}

#[tokio::test]
async fn a_jobs_status_keeps_to_its_rules() {
    let server = Server::start().await;
    let client = server.client();
    let jobs = format!("/apis/batch/v1/{NS}/jobs");
    let mut pods = template();
    pods["spec"]["restartPolicy"] = "Never".into();
    let job = json!({"metadata": {"name": "j"}, "spec": {"template": pods}, "status": {"active": 5}});
    let made = client.post(&jobs, &job).await.ok();
    assert_eq!(made["spec"]["manualSelector"], false);
    assert_eq!(made["metadata"]["labels"]["a"], "b", "labelled as its pods");
    assert!(made["status"]["active"].is_null(), "a new job has no status");
    let status = format!("{jobs}/j/status");
    let over = json!({"status": {"startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Complete", "status": "True"}]}});
    assert_eq!(
        causes(patch(&client, &status, &over).await),
        [
            cause(
                "status.completionTime",
                "FieldValueRequired",
                "Required value: completionTime is required for Complete jobs"
            ),
            cause(
                "status.conditions",
                "FieldValueInvalid",
                "Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition"
            ),
        ]
    );
    let both = json!({"spec": {"parallelism": 7}, "status": {"active": 1, "startTime": "2026-01-01T00:00:00Z"}});
    let changed = patch(&client, &status, &both).await.ok();
    assert_eq!((&changed["spec"]["parallelism"], &changed["status"]["active"]), (&json!(1), &json!(1)));
    let kept =
        patch(&client, &format!("{jobs}/j"), &json!({"spec": {"suspend": true}, "status": {"active": 9}})).await.ok();
    assert_eq!(kept["status"]["active"], 1);
}

#[tokio::test]
async fn daemon_sets_count_their_templates() {
    let server = Server::start().await;
    let client = server.client();
    let sets = format!("/apis/apps/v1/{NS}/daemonsets");
    let count = |object: &Value| object["metadata"]["annotations"]["deprecated.daemonset.template.generation"].clone();
    assert_eq!(count(&client.post(&sets, &controller("d", json!({}))).await.ok()), "1");
    let path = format!("{sets}/d");
    assert_eq!(count(&patch(&client, &path, &json!({"spec": {"minReadySeconds": 1}})).await.ok()), "1");
    let other = json!({"metadata": {"annotations": null}, "spec": {"template": {"metadata": {"labels": {"c": "d"}}}}});
    assert_eq!(count(&patch(&client, &path, &other).await.ok()), "2");
}

#[tokio::test]
async fn fields_behind_closed_gates_are_dropped() {
    let server = Server::start().await;
    let client = server.client();
    let set = controller("s", json!({"updateStrategy": {"rollingUpdate": {"partition": 1, "maxUnavailable": 2}}}));
    let made = client.post(&format!("/apis/apps/v1/{NS}/statefulsets"), &set).await.ok();
    assert_eq!(made["spec"]["updateStrategy"], json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}));
}

#[tokio::test]
async fn claims_and_volumes_are_filled_in() {
    let server = Server::start().await;
    let client = server.client();
    let source = json!({"kind": "PersistentVolumeClaim", "name": "other"});
    let claims = format!("/api/v1/{NS}/persistentvolumeclaims");
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}, "dataSource": source}});
    let made = client.post(&claims, &claim).await.ok();
    for field in ["dataSource", "dataSourceRef"] {
        let given = &made["spec"][field];
        assert_eq!((&given["kind"], &given["name"]), (&source["kind"], &source["name"]), "{field}");
    }
    assert_eq!(made["status"], json!({"phase": "Pending"}));
    let refused = patch(&client, &format!("{claims}/c"), &json!({"spec": {"volumeMode": "Block"}})).await;
    let fields: Vec<String> = causes(refused).into_iter().map(|(field, ..)| field).collect();
    assert_eq!(fields, ["spec", "volumeMode"]);
    let volume = json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/x"}, "persistentVolumeReclaimPolicy": "Recycle"}});
    let volumes = "/api/v1/persistentvolumes";
    let answer = client.post(volumes, &volume).await;
    let warning = answer.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    assert!(warning.contains("The Recycle reclaim policy is deprecated"), "{warning}");
    assert!(answer.ok()["status"]["lastPhaseTransitionTime"].is_string());
    let old = json!({"status": {"lastPhaseTransitionTime": "2020-01-01T00:00:00Z"}});
    patch(&client, &format!("{volumes}/v/status"), &old).await.ok();
    let moved = patch(&client, &format!("{volumes}/v/status"), &json!({"status": {"phase": "Bound"}})).await.ok();
    assert_ne!(moved["status"]["lastPhaseTransitionTime"], "2020-01-01T00:00:00Z");
}

#[tokio::test]
async fn profiles_by_annotation_become_fields_and_only_makers_of_pods_are_told() {
    let server = Server::start().await;
    let client = server.client();
    let pods = format!("/api/v1/{NS}/pods");
    let key = "container.apparmor.security.beta.kubernetes.io/c";
    let pod = json!({"metadata": {"name": "p", "annotations": {key: "localhost/own"}},
        "spec": {"containers": [{"name": "c", "image": "i"}], "nodeSelector": {"beta.kubernetes.io/os": "linux"}}});
    let told = |answer: &Answer| -> Vec<String> {
        answer.headers.get_all("warning").iter().map(|told| told.to_str().unwrap_or("").to_owned()).collect()
    };
    let answer = client.post(&pods, &pod).await;
    let field = r#"use the \"appArmorProfile\" field instead"#;
    let label = r#"use \"kubernetes.io/os\" instead"#;
    assert_eq!(
        told(&answer),
        [
            format!(r#"299 - "metadata.annotations[{key}]: deprecated since v1.30; {field}""#),
            format!(r#"299 - "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; {label}""#),
        ]
    );
    let made = answer.ok();
    let profile = json!({"type": "Localhost", "localhostProfile": "own"});
    assert_eq!(made["spec"]["containers"][0]["securityContext"]["appArmorProfile"], profile);
    // Who changes it is told nothing, and what was made of the annotation is as right as it.
    let changed = patch(&client, &format!("{pods}/p"), &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(told(&changed), Vec::<String>::new());
    changed.ok();
    let status = json!({"status": {"podIP": "2001:DB8::1", "podIPs": [{"ip": "2001:DB8::1"}]}});
    let status = patch(&client, &format!("{pods}/p/status"), &status).await;
    let form = r#"should be in RFC 5952 canonical format (\"2001:db8::1\")"#;
    assert_eq!(told(&status), [format!(r#"299 - "status.podIPs[0].ip: IPv6 address \"2001:DB8::1\" {form}""#)]);
    // A template says what it did; its pods have their ports on the host.
    let ports = json!({"hostNetwork": true,
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]});
    let mut set = controller("s", json!({}));
    set["spec"]["template"]["spec"] = ports.clone();
    let set = client.post(&format!("/apis/apps/v1/{NS}/replicasets"), &set).await.ok();
    assert!(set["spec"]["template"]["spec"]["containers"][0]["ports"][0].get("hostPort").is_none(), "{set}");
    let pod = client.post(&pods, &json!({"metadata": {"name": "h"}, "spec": ports})).await.ok();
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
}

#[tokio::test]
async fn subresources_of_pods_change_their_part_alone() {
    let server = Server::start().await;
    let client = server.client();
    let pods = format!("/api/v1/{NS}/pods");
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i",
        "resources": {"requests": {"cpu": "1"}}}]}});
    client.post(&pods, &pod).await.ok();
    let asked = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"terminationGracePeriodSeconds": 5,
        "containers": [{"name": "c", "image": "j", "resources": {"requests": {"cpu": "2"}}}]}});
    let resized = patch(&client, &format!("{pods}/p/resize"), &asked).await.ok();
    let container = &resized["spec"]["containers"][0];
    assert_eq!((&container["resources"]["requests"]["cpu"], &container["image"]), (&json!("2"), &json!("i")));
    assert_eq!(resized["spec"]["terminationGracePeriodSeconds"], 30);
    assert!(resized["metadata"]["labels"].is_null());
    assert_eq!(resized["metadata"]["generation"], 2);
    let taken = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": null}}]}});
    let why = "Forbidden: resource requests cannot be removed";
    let found = causes(patch(&client, &format!("{pods}/p/resize"), &taken).await);
    assert!(found.contains(&cause("spec.containers[0].resources.requests", "FieldValueForbidden", why)), "{found:?}");
    // What adds, removes, renames or reorders containers is refused, not carried out in part.
    let one = |name: &str| json!({"name": name, "image": "i", "resources": {"requests": {"cpu": "2"}}});
    let mut whole = client.get(&format!("{pods}/p")).await.ok();
    whole["spec"]["containers"] = json!([one("c"), one("d")]);
    let found = causes(client.put(&format!("{pods}/p/resize"), &whole).await);
    let why = "Forbidden: containers may not be added or removed on resize";
    assert!(found.contains(&cause("spec.containers", "FieldValueForbidden", why)), "{found:?}");
    whole["spec"]["containers"] = json!([one("d")]);
    let found = causes(client.put(&format!("{pods}/p/resize"), &whole).await);
    let why = "Forbidden: containers may not be renamed or reordered on resize";
    assert_eq!(found, [cause("spec.containers[0].name", "FieldValueForbidden", why)]);
    whole["spec"]["containers"] = json!([one("c")]);
    whole["spec"]["initContainers"] = json!([one("d")]);
    let found = causes(client.put(&format!("{pods}/p/resize"), &whole).await);
    let why = "Forbidden: initContainers may not be added or removed on resize";
    assert!(found.contains(&cause("spec.initContainers", "FieldValueForbidden", why)), "{found:?}");
    let debug = json!({"spec": {"activeDeadlineSeconds": 5, "ephemeralContainers": [{"name": "d", "image": "i"}]}});
    let debugged = patch(&client, &format!("{pods}/p/ephemeralcontainers"), &debug).await.ok();
    assert_eq!(debugged["spec"]["ephemeralContainers"][0]["name"], "d");
    assert!(debugged["spec"]["activeDeadlineSeconds"].is_null());
    assert_eq!(debugged["metadata"]["generation"], 3);
    let gone = json!({"spec": {"ephemeralContainers": []}});
    let found = causes(patch(&client, &format!("{pods}/p/ephemeralcontainers"), &gone).await);
    assert_eq!(found[0].0, "spec.ephemeralContainers");
    let status = patch(&client, &format!("{pods}/p/status"), &json!({"status": {"qosClass": "Guaranteed"}})).await;
    let why = r#"Invalid value: "Guaranteed": field is immutable"#;
    assert_eq!(causes(status), [cause("status.qosClass", "FieldValueInvalid", why)]);
}

#[tokio::test]
async fn what_a_pod_asks_for_as_a_whole_is_resized_where_the_gate_is_on() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}],
        "resources": {"requests": {"cpu": "1"}}}});
    let pods = format!("/api/v1/{NS}/pods");
    let more = json!({"spec": {"resources": {"requests": {"cpu": "2"}}}});
    let server = Server::start().await;
    let client = server.client();
    client.post(&pods, &pod).await.ok();
    let resized = patch(&client, &format!("{pods}/p/resize"), &more).await.ok();
    assert_eq!(resized["spec"]["resources"]["requests"]["cpu"], "2");
    let gone = json!({"spec": {"resources": {"requests": null}}});
    let found = causes(patch(&client, &format!("{pods}/p/resize"), &gone).await);
    let why = "Forbidden: pod-level resource requests cannot be removed";
    assert!(found.contains(&cause("spec.resources.requests", "FieldValueForbidden", why)), "{found:?}");
    let server = Server::start_as("InPlacePodLevelResourcesVerticalScaling=false", "").await;
    let client = server.client();
    client.post(&pods, &pod).await.ok();
    let found = causes(patch(&client, &format!("{pods}/p/resize"), &more).await);
    let why = "Forbidden: pods with pod-level resources cannot be resized";
    assert_eq!(found, [cause("[]", "FieldValueForbidden", why)]);
}

#[tokio::test]
async fn label_keys_of_a_new_pod_become_part_of_its_selectors() {
    let pod = json!({"metadata": {"name": "p", "labels": {"app": "web", "hash": "x"}}, "spec": {
        "containers": [{"name": "c", "image": "i"}],
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
            "topologyKey": "zone", "matchLabelKeys": ["hash"], "mismatchLabelKeys": ["app"],
            "labelSelector": {"matchLabels": {"a": "b"}}}]}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "matchLabelKeys": ["hash"], "labelSelector": {"matchLabels": {"a": "b"}}}]}});
    let pods = format!("/api/v1/{NS}/pods");
    let same = json!({"key": "hash", "operator": "In", "values": ["x"]});
    for (gates, spread) in [("", json!([same])), ("MatchLabelKeysInPodTopologySpreadSelectorMerge=false", json!(null))]
    {
        let server = Server::start_as(gates, "").await;
        let client = server.client();
        let made = client.post(&pods, &pod).await.ok();
        let term = &made["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        let other = json!({"key": "app", "operator": "NotIn", "values": ["web"]});
        assert_eq!(term["labelSelector"]["matchExpressions"], json!([same, other]));
        assert_eq!(made["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchExpressions"], spread);
    }
}
