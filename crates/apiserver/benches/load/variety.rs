//! What clients do beside the load that is measured: other kinds, formats and ways to write. A release is trained by it, too, so
//! that what is common is not taken for cold.

use crate::Fallible;
use crate::client::Connections;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

struct Client<'c>(&'c Connections);

impl Client<'_> {
    /// One request, with its answer; `accept` and `kind` are media types.
    async fn ask(&self, method: &str, path: &str, accept: &str, kind: &str, body: Bytes) -> Fallible<Bytes> {
        let mut request = Request::builder().method(method).uri(format!("https://127.0.0.1{path}"));
        request = request.header("accept", accept).header("user-agent", "kubectl/v1.36.0 (linux/amd64)");
        if !body.is_empty() {
            request = request.header("content-type", kind);
        }
        let response = self.0.send(request.body(Full::new(body))?).await?;
        let code = response.status();
        let answer = response.into_body().collect().await?.to_bytes();
        if !code.is_success() {
            return Err(format!("{method} {path}: {code} {}", String::from_utf8_lossy(&answer)).into());
        }
        Ok(answer)
    }

    async fn get(&self, path: &str, accept: &str) -> Fallible<Bytes> {
        self.ask("GET", path, accept, "", Bytes::new()).await
    }

    async fn create(&self, path: &str, object: &Value) -> Fallible<Bytes> {
        self.ask("POST", path, "application/json", "application/json", object.to_string().into()).await
    }

    async fn patch(&self, path: &str, kind: &str, patch: &Value) -> Fallible<Bytes> {
        self.ask("PATCH", path, "application/json", &format!("application/{kind}"), patch.to_string().into()).await
    }
}

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "registry.example.com/web:1",
        "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}, {"name": "C", "valueFrom":
            {"configMapKeyRef": {"name": "c", "key": "k"}}}], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}]}})
}

/// Does a little of everything, `rounds` times.
pub async fn run(connections: &Connections, rounds: usize) -> Fallible {
    let client = Client(connections);
    for group in ["/api", "/apis", "/openapi/v2", "/openapi/v3", "/openapi/v3/apis/apps/v1", "/metrics", "/version"] {
        client.get(group, "application/json").await?;
    }
    for round in 0..rounds {
        workloads(&client, round).await?;
        others(&client, round).await?;
    }
    Ok(())
}

async fn workloads(client: &Client<'_>, round: usize) -> Fallible {
    let all = "/apis/apps/v1/namespaces/default/deployments";
    let one = format!("{all}/web-{round}");
    let selector = json!({"matchLabels": {"app": "web"}});
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": format!("web-{round}"),
        "labels": {"app": "web"}}, "spec": {"replicas": 2, "selector": selector, "template": template()}});
    let apply = format!("{one}?fieldManager=kubectl");
    for replicas in [2, 3] {
        object["spec"]["replicas"] = replicas.into();
        client.patch(&apply, "apply-patch+yaml", &object).await?;
    }
    client
        .patch(
            &one,
            "strategic-merge-patch+json",
            &json!({"metadata": {"labels": {"tier": "a"}}, "spec": {"template":
        {"spec": {"containers": [{"name": "web", "image": "registry.example.com/web:2"}]}}}}),
        )
        .await?;
    client.patch(&one, "merge-patch+json", &json!({"metadata": {"annotations": {"a": "b"}}})).await?;
    client.patch(&one, "json-patch+json", &json!([{"op": "replace", "path": "/spec/replicas", "value": 4}])).await?;
    let status = json!({"status": {"observedGeneration": 1, "replicas": 4, "updatedReplicas": 4, "readyReplicas": 4}});
    client.patch(&format!("{one}/status"), "merge-patch+json", &status).await?;
    let scale = client.get(&format!("{one}/scale"), "application/json").await?;
    client.ask("PUT", &format!("{one}/scale"), "application/json", "application/json", scale).await?;
    let stored = client.get(&one, PROTOBUF).await?;
    client.ask("PUT", &one, PROTOBUF, PROTOBUF, stored).await?;
    client.get(&one, "application/yaml").await?;
    for accept in [TABLE, PROTOBUF, METADATA, "application/json"] {
        client.get(&format!("{all}?limit=100"), accept).await?;
    }
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"generateName": "web-", "ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": format!("web-{round}"), "uid": format!("{round}"),
            "controller": true}]}, "spec": {"replicas": 1, "selector": selector, "template": template()}});
    client.create("/apis/apps/v1/namespaces/default/replicasets", &set).await?;
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": format!("job-{round}")}, "spec": {"template":
        {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}}});
    client.create("/apis/batch/v1/namespaces/default/jobs", &job).await?;
    if round % 2 == 1 {
        client.ask("DELETE", &one, "application/json", "", Bytes::new()).await?;
    }
    Ok(())
}

async fn others(client: &Client<'_>, round: usize) -> Fallible {
    let name = format!("one-{round}");
    let core = "/api/v1/namespaces/default";
    let data = json!({"a": "1", "b": "some longer text\nof two lines"});
    for (plural, object) in [
        ("configmaps", json!({"kind": "ConfigMap", "data": data})),
        ("secrets", json!({"kind": "Secret", "stringData": data})),
        ("services", json!({"kind": "Service", "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}})),
        ("serviceaccounts", json!({"kind": "ServiceAccount"})),
        (
            "events",
            json!({"kind": "Event", "reason": "Started", "message": "Started container", "type": "Normal", "count": 1,
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "a", "uid": "u", "apiVersion": "v1"},
            "source": {"component": "kubelet"}, "firstTimestamp": "2026-01-01T00:00:00Z"}),
        ),
    ] {
        let mut object = object;
        object["apiVersion"] = "v1".into();
        object["metadata"] = json!({"name": name, "labels": {"app": "web"}});
        let made = client.create(&format!("{core}/{plural}?fieldValidation=Strict"), &object).await?;
        let one = format!("{core}/{plural}/{name}");
        client.ask("PUT", &one, "application/json", "application/json", made).await?;
        for accept in [TABLE, PROTOBUF] {
            client.get(&one, accept).await?;
        }
    }
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec":
        {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": "2026-01-01T00:00:00.000000Z"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let made = client.create(leases, &lease).await?;
    client.ask("PUT", &format!("{leases}/{name}"), "application/json", "application/json", made).await?;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}});
    client.create("/api/v1/nodes", &node).await?;
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z"}], "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
    client.patch(&format!("/api/v1/nodes/{name}/status"), "strategic-merge-patch+json", &status).await?;
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "metadata": {"name": name,
        "labels": {"kubernetes.io/service-name": name}}, "endpoints": [{"addresses": ["10.1.2.3"], "conditions": {"ready": true}}],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}]});
    client.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await?;
    for accept in [TABLE, PROTOBUF, METADATA] {
        client.get("/api/v1/namespaces/default/pods?limit=100", accept).await?;
    }
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec":
        {"resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}});
    client.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await?;
    client
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Da&limit=10", "application/json")
        .await?;
    if round % 50 == 49 {
        let all = format!("{core}/configmaps?labelSelector=app%3Dweb");
        client.ask("DELETE", &all, "application/json", "", Bytes::new()).await?;
    }
    Ok(())
}
