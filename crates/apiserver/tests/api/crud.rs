//! Every kind of the catalogue, by table.

use crate::client::Server;
use schema::resource::{self, Verbs};
use serde_json::{Value, json};

/// The least that validation asks of a kind, beside its metadata.
fn minimal(group: &str, kind: &str) -> Value {
    let pod = json!({"containers": [{"name": "c", "image": "nginx"}]});
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": pod});
    let selector = json!({"matchLabels": {"a": "b"}});
    match (group, kind) {
        ("", "Pod") => json!({"spec": pod}),
        ("", "PodTemplate") => json!({"template": template}),
        ("", "ReplicationController") => json!({"spec": {"selector": {"a": "b"}, "template": template}}),
        ("", "Service") => json!({"spec": {"ports": [{"port": 80}], "clusterIP": "None"}}),
        ("", "Event") => json!({"involvedObject": {"namespace": "default", "kind": "Pod", "name": "p"}, "reason": "R"}),
        ("", "PersistentVolume") => json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/tmp/x"}}}),
        ("", "PersistentVolumeClaim") => json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
        ("apps", "ControllerRevision") => json!({"revision": 1, "data": {"a": 1}}),
        ("apps", "DaemonSet" | "Deployment" | "ReplicaSet") => {
            json!({"spec": {"selector": selector, "template": template}})
        }
        ("apps", "StatefulSet") => json!({"spec": {"selector": selector, "template": template, "serviceName": "s"}}),
        ("events.k8s.io", "Event") => json!({"regarding": {"namespace": "default", "kind": "Pod", "name": "p"},
            "reason": "R", "action": "A", "eventTime": "2024-01-01T00:00:00.000000Z", "type": "Normal",
            "reportingController": "example.com/c", "reportingInstance": "i"}),
        ("autoscaling", "HorizontalPodAutoscaler") => json!({"spec": {"maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}}),
        ("batch", "Job") => {
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}}})
        }
        ("batch", "CronJob") => json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec":
            {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}}}}}),
        ("certificates.k8s.io", "CertificateSigningRequest") => json!({"spec": {"request":
            "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIcE1JR1JBZ0VBTUM4eEZUQVRCZ05WQkFvVERITjVjM1JsYlRwdWIyUmxjekVXTUJRR0ExVUVBeE1OYzNsegpkR1Z0T201dlpHVTZZVEJaTUJNR0J5cUdTTTQ5QWdFR0NDcUdTTTQ5QXdFSEEwSUFCQT09Ci0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=",
            "signerName": "example.com/s", "usages": ["client auth"]}}),
        ("networking.k8s.io", "Ingress") => {
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}})
        }
        ("networking.k8s.io", "IngressClass") => json!({"spec": {"controller": "example.com/c"}}),
        ("networking.k8s.io", "IPAddress") => {
            json!({"spec": {"parentRef": {"resource": "services", "name": "s", "namespace": "default"}}})
        }
        ("networking.k8s.io", "ServiceCIDR") => json!({"spec": {"cidrs": ["10.96.0.0/16"]}}),
        ("networking.k8s.io", "NetworkPolicy") => json!({"spec": {"podSelector": {}}}),
        ("policy", "PodDisruptionBudget") => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding" | "RoleBinding") => json!({"roleRef": {"apiGroup":
            "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}}),
        ("storage.k8s.io", "CSINode") => json!({"spec": {"drivers": []}}),
        ("storage.k8s.io", "CSIStorageCapacity") => json!({"storageClassName": "s"}),
        ("storage.k8s.io", "StorageClass") => json!({"provisioner": "example.com/p"}),
        ("storage.k8s.io", "VolumeAttachment") => {
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}})
        }
        ("storage.k8s.io", "VolumeAttributesClass") => json!({"driverName": "example.com/d", "parameters": {"a": "b"}}),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => json!({"spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]},
            "validations": [{"expression": "true"}]}}),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => {
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => json!({"spec": {"reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]},
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}]}}),
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding") => json!({"spec": {"policyName": "p"}}),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => {
            json!({"metadata": {"name": "foos.example.com"}, "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
        }
        ("apiregistration.k8s.io", "APIService") => {
            json!({"metadata": {"name": "v1.example.com"}, "spec": {"group": "example.com", "version": "v1",
            "groupPriorityMinimum": 1000, "versionPriority": 10, "service": {"name": "s", "namespace": "default"}, "insecureSkipTLSVerify": true}})
        }
        ("scheduling.k8s.io", "PriorityClass") => json!({"value": 7}),
        ("node.k8s.io", "RuntimeClass") => json!({"handler": "h"}),
        ("discovery.k8s.io", "EndpointSlice") => {
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]})
        }
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => {
            json!({"spec": {"priorityLevelConfiguration": {"name": "p"}, "matchingPrecedence": 100}})
        }
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            json!({"spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}}}})
        }
        ("resource.k8s.io", "ResourceClaimTemplate") => json!({"spec": {"spec": {"devices": {}}}}),
        ("resource.k8s.io", "ResourceSlice") => json!({"spec": {"driver": "example.com", "nodeName": "n",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
        ("resource.k8s.io", "ResourceClaim") => json!({"spec": {"devices": {}}}),
        _ => json!({}),
    }
}

fn name_of(kind: &str, object: &Value) -> String {
    match object["metadata"]["name"].as_str() {
        Some(name) => name.to_owned(),
        None if kind == "IPAddress" => "10.96.0.9".to_owned(),
        None => "x1".to_owned(),
    }
}

#[tokio::test]
async fn every_kind_is_created_read_listed_changed_and_deleted() {
    let server = Server::start().await;
    let client = server.client();
    let mut kinds = 0;
    for row in resource::all().iter().filter(|row| row.storage.is_some() && row.verbs.contains(Verbs::CREATE)) {
        kinds += 1;
        let api_version = row.api_version();
        let root = if row.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{api_version}") };
        let collection = if row.namespaced {
            format!("{root}/namespaces/default/{}", row.plural)
        } else {
            format!("{root}/{}", row.plural)
        };
        let what = format!("{api_version} {}", row.kind);
        let mut object = minimal(&row.group, &row.kind);
        let name = name_of(&row.kind, &object);
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(row.kind);
        object["metadata"]["name"] = json!(name);
        object["metadata"]["labels"] = json!({"test": "yes"});
        let path = format!("{collection}/{name}");

        let answer = client.post(&collection, &object).await;
        assert_eq!(answer.code, 201, "{what}: {}", answer.text());
        let created = answer.json();
        assert_eq!(created["kind"], json!(row.kind), "{what}");
        assert_eq!(created["apiVersion"], json!(api_version), "{what}");
        assert!(
            created["metadata"]["uid"].is_string() && created["metadata"]["creationTimestamp"].is_string(),
            "{what}"
        );
        assert!(created["metadata"]["managedFields"].is_array(), "{what}: {created}");
        let read = client.get(&path).await.ok();
        assert_eq!(created, read, "{what}: what a create answers is what a get finds");

        assert_eq!(client.post(&collection, &object).await.refused(409)["reason"], "AlreadyExists", "{what}");

        let list = client
            .get(&format!("{collection}?labelSelector=test%3Dyes&fieldSelector=metadata.name%3D{name}"))
            .await
            .ok();
        assert_eq!(list["kind"], json!(row.list_kind), "{what}");
        assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{what}");
        assert!(list["items"][0].get("kind").is_none(), "{what}: items carry no kind");

        let patched =
            client.patch(&path, "application/merge-patch+json", r#"{"metadata":{"annotations":{"a":"b"}}}"#).await;
        assert_eq!(patched.code, 200, "{what}: {}", patched.text());
        let patched = patched.json();
        assert_eq!(patched["metadata"]["annotations"]["a"], "b", "{what}");
        assert_ne!(patched["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"], "{what}");
        if row.kind != "Deployment" {
            assert_eq!(
                patched["metadata"]["generation"], created["metadata"]["generation"],
                "{what}: metadata is not counted"
            );
        }

        let again = client.put(&path, &patched).await.ok();
        assert_eq!(
            again["metadata"]["resourceVersion"], patched["metadata"]["resourceVersion"],
            "{what}: nothing changed"
        );
        if api_version != "autoscaling/v1" && api_version != "events.k8s.io/v1" && row.kind != "Event" {
            assert_eq!(client.put(&path, &created).await.refused(409)["reason"], "Conflict", "{what}");
        }

        let table = client
            .raw(http::Method::GET, &collection, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "")
            .await
            .ok();
        assert_eq!(table["kind"], "Table", "{what}");
        assert_eq!(
            table["rows"][0]["cells"].as_array().map(Vec::len),
            table["columnDefinitions"].as_array().map(Vec::len),
            "{what}"
        );
        let yaml = client.raw(http::Method::GET, &path, &[("accept", "application/yaml")], "").await;
        assert!(yaml.text().contains(&format!("apiVersion: {api_version}\n")), "{what}: {}", yaml.text());
        let protobuf =
            client.raw(http::Method::GET, &path, &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
        assert!(protobuf.bytes.starts_with(b"k8s\0"), "{what}");

        let deleted = client.delete(&format!("{path}?propagationPolicy=Background")).await;
        assert!(deleted.code.is_success(), "{what}: {}", deleted.text());
        if row.kind != "Namespace" {
            assert_eq!(client.get(&path).await.refused(404)["reason"], "NotFound", "{what}");
        }
    }
    assert!(kinds >= 60, "{kinds}");
}

#[tokio::test]
async fn what_is_not_served_is_not_found() {
    let server = Server::start().await;
    let client = server.client();
    for path in ["/api/v2/pods", "/api/v1/frobs", "/apis/nope/v1/pods", "/api/v1/namespaces/a/nodes", "/nope"] {
        assert_eq!(client.get(path).await.code, 404, "{path}");
    }
    let pods = client.post("/api/v1/pods", &json!({})).await.refused(405);
    assert_eq!(pods["message"], "the server does not allow this method on the requested resource");
    let missing = client.get("/api/v1/namespaces/default/pods/nope").await.refused(404);
    assert_eq!(missing["message"], "pods \"nope\" not found");
    assert_eq!(missing["details"], json!({"name": "nope", "kind": "pods"}));
    for path in
        ["/version", "/healthz", "/readyz?verbose", "/livez/ping", "/metrics", "/api", "/apis", "/openapi/v3", "/"]
    {
        let answer = client.get(path).await;
        assert_eq!(answer.code, 200, "{path}: {}", answer.text());
    }
}
