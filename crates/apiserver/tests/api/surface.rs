//! What feature gates and `--runtime-config` turn on and off.

use crate::client::Server;
use http::Method;
use serde_json::{Value, json};
use std::io::Read;

fn address(version: &str) -> Value {
    json!({"apiVersion": format!("networking.k8s.io/{version}"), "kind": "IPAddress", "metadata": {"name": "10.0.0.1"},
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "a"}}})
}

#[tokio::test]
async fn a_beta_version_is_served_when_it_is_asked_for() {
    let server = Server::start_as("", "networking.k8s.io/v1beta1=true").await;
    let client = server.client();
    let (beta, ga) = ("/apis/networking.k8s.io/v1beta1/ipaddresses", "/apis/networking.k8s.io/v1/ipaddresses");
    let mut watch = client.watch(&format!("{beta}?watch=1")).await;
    let made = client.post(beta, &address("v1beta1")).await.ok();
    assert_eq!((&made["apiVersion"], &made["kind"]), (&json!("networking.k8s.io/v1beta1"), &json!("IPAddress")));
    for (path, version) in [(beta, "networking.k8s.io/v1beta1"), (ga, "networking.k8s.io/v1")] {
        let one = format!("{path}/10.0.0.1");
        let shown = client.get(&one).await.ok();
        assert_eq!((&shown["apiVersion"], &shown["spec"]), (&json!(version), &made["spec"]));
        let yaml = client.raw(Method::GET, &one, &[("accept", "application/yaml")], "").await.text();
        assert!(yaml.contains(&format!("apiVersion: {version}\n")), "{yaml}");
        let protobuf = client.raw(Method::GET, &one, &[("accept", "application/vnd.kubernetes.protobuf")], "").await;
        assert!(protobuf.text().contains(version), "{:?}", protobuf.text());
        let list = client.get(path).await.ok();
        assert_eq!((&list["apiVersion"], &list["items"][0]["spec"]), (&json!(version), &made["spec"]));
    }
    let event = watch.next().await.expect("an event");
    assert_eq!(event["object"]["apiVersion"], "networking.k8s.io/v1beta1");
    let applied = json!({"apiVersion": "networking.k8s.io/v1beta1", "kind": "IPAddress",
        "metadata": {"name": "10.0.0.1", "labels": {"a": "b"}}, "spec": made["spec"]});
    let path = format!("{beta}/10.0.0.1?fieldManager=me");
    let applied = client.patch(&path, "application/apply-patch+yaml", &applied.to_string()).await.ok();
    assert_eq!(applied["metadata"]["labels"], json!({"a": "b"}));
    let refused = client.post(beta, &address("v1")).await.refused(400);
    assert!(refused["message"].as_str().is_some_and(|m| m.contains("networking.k8s.io/v1beta1")), "{refused}");

    let group = client.get("/apis/networking.k8s.io").await.ok();
    let versions: Vec<&Value> = group["versions"].as_array().expect("versions").iter().map(|v| &v["version"]).collect();
    assert_eq!(versions, ["v1", "v1beta1"]);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let index = client.get("/openapi/v3").await.ok();
    assert!(index["paths"]["apis/networking.k8s.io/v1beta1"].is_object(), "{index}");
    let document = client.get("/openapi/v3/apis/networking.k8s.io/v1beta1").await.ok();
    let schema = &document["components"]["schemas"]["io.k8s.api.networking.v1beta1.IPAddress"];
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["version"], "v1beta1", "{schema}");
}

#[tokio::test]
async fn kinds_without_a_ga_version_are_served_with_their_feature() {
    let runtime = "coordination.k8s.io/v1beta1=true,coordination.k8s.io/v1alpha2=true,internal.apiserver.k8s.io/v1alpha1=true,certificates.k8s.io/v1alpha1=true";
    let silent = Server::start_as("", runtime).await;
    assert_eq!(silent.client().get("/apis/coordination.k8s.io/v1beta1/leasecandidates").await.code, 404);
    let server =
        Server::start_as("CoordinatedLeaderElection=true,StorageVersionAPI=true,ClusterTrustBundle=true", runtime)
            .await;
    let client = server.client();
    let of = |version: &str| format!("/apis/coordination.k8s.io/{version}/namespaces/default/leasecandidates");
    let candidate = json!({"apiVersion": "coordination.k8s.io/v1alpha2", "kind": "LeaseCandidate",
        "metadata": {"name": "a_1"}, "spec": {"leaseName": "l", "binaryVersion": "1.36.0", "emulationVersion": "1.36.0",
            "strategy": "OldestEmulationVersion", "renewTime": "2026-01-01T00:00:00.000000Z"}});
    let made = client.post(&of("v1alpha2"), &candidate).await;
    // That of the alpha version goes away is not said, as long as no release is known.
    assert!(!made.headers.contains_key("warning"));
    let made = made.ok();
    let beta = client.get(&format!("{}/a_1", of("v1beta1"))).await;
    let told = "299 - \"coordination.k8s.io/v1beta1 LeaseCandidate is deprecated in v1.36+, unavailable in v1.39+\"";
    assert_eq!(beta.headers["warning"], told);
    assert_eq!(beta.ok()["spec"], made["spec"]);
    let named = json!({"metadata": {"name": "no/key"}, "spec": candidate["spec"]});
    client.post(&of("v1beta1"), &named).await.refused(422);
    let bundles = "/apis/certificates.k8s.io/v1alpha1/clustertrustbundles";
    let empty = json!({"metadata": {"name": "x.io:s:a"}, "spec": {"signerName": "x.io/s", "trustBundle": "none"}});
    let refused = client.post(bundles, &empty).await.refused(422);
    let why = "at least one trust anchor must be provided";
    assert!(refused["message"].as_str().is_some_and(|m| m.contains(why)), "{refused}");
    client.get(&format!("{bundles}?fieldSelector=spec.signerName%3Dx.io/s")).await.ok();
    let versions = "/apis/internal.apiserver.k8s.io/v1alpha1/storageversions";
    let version = json!({"metadata": {"name": "apps.deployments"}, "spec": {}});
    client.post(versions, &version).await.ok();
    let refused = client.post(versions, &json!({"metadata": {"name": "deployments"}, "spec": {}})).await.refused(422);
    let why = "name must be in the form of <group>.<resource>";
    assert!(refused["message"].as_str().is_some_and(|m| m.contains(why)), "{refused}");
    let status = json!({"status": {"storageVersions": [
        {"apiServerID": "a", "encodingVersion": "v1", "decodableVersions": ["v1"]}], "commonEncodingVersion": "v1"}});
    let path = format!("{versions}/apps.deployments/status");
    client.patch(&path, "application/merge-patch+json", &status.to_string()).await.ok();
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = client.raw(Method::GET, versions, &accept, "").await.ok();
    assert_eq!(
        table["rows"][0]["cells"].as_array().map(|c| c[..3].to_vec()),
        Some(vec!["apps.deployments".into(), "v1".into(), "a=v1".into()])
    );
}

/// The fields that a manager of an object owns, at each version that it wrote through.
fn owned(object: &Value, manager: &str) -> Vec<(String, String)> {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    let own = entries.iter().filter(|entry| entry["manager"] == manager);
    own.map(|entry| (entry["apiVersion"].as_str().unwrap().to_owned(), entry["fieldsV1"].to_string())).collect()
}

#[tokio::test]
async fn managers_of_another_version_own_what_that_shows() {
    let server = Server::start().await;
    let client = server.client();
    let path = |version: &str, query: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h?{query}")
    };
    let scaler = |version: &str, spec: Value| {
        let mut spec = spec;
        spec["scaleTargetRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"});
        json!({"apiVersion": format!("autoscaling/{version}"), "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": spec})
        .to_string()
    };
    let of_cpu = |target: u32| json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": target}}}]);
    let apply = "application/apply-patch+yaml";
    let one = scaler("v1", json!({"minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 50}));
    client.patch(&path("v1", "fieldManager=one"), apply, &one).await.ok();
    // What v2 calls a metric, its manager of v1 owns under the name that it has there.
    let two = scaler("v2", json!({"maxReplicas": 5, "metrics": of_cpu(60)}));
    let refused = client.patch(&path("v2", "fieldManager=two"), apply, &two).await.refused(409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"one\": .spec.targetCPUUtilizationPercentage"
    );
    let forced = client.patch(&path("v2", "fieldManager=two&force=true"), apply, &two).await.ok();
    let (version, fields) = owned(&forced, "one").remove(0);
    assert_eq!(version, "autoscaling/v1");
    assert!(fields.contains("f:minReplicas") && !fields.contains("f:targetCPUUtilizationPercentage"), "{fields}");
    // An update takes from them likewise.
    let merge = "application/merge-patch+json";
    let patch = json!({"spec": {"targetCPUUtilizationPercentage": 70}}).to_string();
    let updated = client.patch(&path("v1", "fieldManager=three"), merge, &patch).await.ok();
    assert!(!owned(&updated, "two")[0].1.contains("f:metrics"), "{updated}");
    // What an applier gives up in another version than it was said in goes, too: the metric that is there without any is upstream's.
    let mine = scaler("v1", json!({"minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 40}));
    client.patch(&path("v1", "fieldManager=one&force=true"), apply, &mine).await.ok();
    let none = scaler("v2", json!({"maxReplicas": 5}));
    let pruned = client.patch(&path("v2", "fieldManager=one"), apply, &none).await.ok();
    assert_eq!((&pruned["spec"]["metrics"], &pruned["spec"]["minReplicas"]), (&of_cpu(80), &json!(1)), "{pruned}");
    assert_eq!(owned(&pruned, "one").len(), 1, "{pruned}");
    assert_eq!(owned(&pruned, "one")[0].0, "autoscaling/v2");

    let event = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "note": "a", "reason": "R", "type": "Normal", "action": "A", "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "c.example.com/c", "reportingInstance": "i"});
    client.post("/apis/events.k8s.io/v1/namespaces/default/events?fieldManager=one", &event).await.ok();
    let target = "/api/v1/namespaces/default/events/e?fieldManager=two";
    let patched = client.patch(target, merge, r#"{"message":"b"}"#).await.ok();
    let (version, fields) = owned(&patched, "one").remove(0);
    assert_eq!(version, "events.k8s.io/v1");
    assert!(fields.contains("f:reason") && !fields.contains("f:note"), "{fields}");
}

#[tokio::test]
async fn devices_are_served_in_the_shapes_of_their_versions() {
    let server = Server::start_as("", "resource.k8s.io/v1beta1=true,resource.k8s.io/v1beta2=true").await;
    let client = server.client();
    let of = |version: &str, rest: &str| format!("/apis/resource.k8s.io/{version}/{rest}");
    let claims = "namespaces/default/resourceclaims";
    let claim = json!({"apiVersion": "resource.k8s.io/v1beta1", "kind": "ResourceClaim", "metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "r", "deviceClassName": "class"},
            {"name": "f", "firstAvailable": [{"name": "x", "deviceClassName": "class"}]}]}}});
    let made = client.post(&of("v1beta1", claims), &claim).await.ok();
    let exact = json!({"deviceClassName": "class", "allocationMode": "ExactCount", "count": 1});
    let mut flat = exact.clone();
    flat["name"] = json!("r");
    assert_eq!(made["spec"]["devices"]["requests"][0], flat, "{made}");
    for version in ["v1", "v1beta2"] {
        let shown = client.get(&of(version, &format!("{claims}/c"))).await.ok();
        assert_eq!(shown["spec"]["devices"]["requests"][0], json!({"name": "r", "exactly": exact}), "{shown}");
        assert_eq!(shown["spec"]["devices"]["requests"][1]["exactly"], Value::Null);
    }
    let refused = client
        .post(
            &of("v1beta1", claims),
            &json!({"metadata": {"name": "d"}, "spec": {"devices": {"requests":
        [{"name": "r", "deviceClassName": "no class"}]}}}),
        )
        .await
        .refused(422);
    let why = "spec.devices.requests[0].exactly.deviceClassName: Invalid value";
    assert!(refused["message"].as_str().is_some_and(|m| m.contains(why)), "{refused}");
    let slice = json!({"metadata": {"name": "s"}, "spec": {"driver": "d.example.com", "allNodes": true,
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "gpu", "basic": {"attributes": {"model": {"string": "m"}}}}]}});
    let made = client.post(&of("v1beta1", "resourceslices"), &slice).await.ok();
    assert_eq!(made["spec"]["devices"][0]["basic"]["attributes"]["model"]["string"], "m", "{made}");
    let shown = client.get(&of("v1", "resourceslices/s")).await.ok();
    assert_eq!(
        shown["spec"]["devices"][0],
        json!({"name": "gpu", "attributes": {"model": {"string": "m"}}}),
        "{shown}"
    );
    for version in ["v1beta1", "v1beta2", "v1"] {
        for (driver, count) in [("d.example.com", 1), ("e.example.com", 0)] {
            let list =
                client.get(&of(version, &format!("resourceslices?fieldSelector=spec.driver%3D{driver}"))).await.ok();
            assert_eq!(list["items"].as_array().map(Vec::len), Some(count), "{version} {driver}");
        }
    }
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    let raw = client.raw(Method::GET, &of("v1beta1", "resourceslices/s"), &protobuf, "").await;
    let ty = schema::types::of_kind("resource.k8s.io", "v1beta1", "ResourceSlice").expect("a type");
    let decoded = schema::protobuf::decode(ty, &raw.bytes).expect("decoded").object;
    assert_eq!(decoded.str_at(&["spec", "driver"]), "d.example.com");
}

#[tokio::test]
async fn taints_by_rule_and_migrations_are_served_with_their_features() {
    let runtime = "resource.k8s.io/v1beta2=true,resource.k8s.io/v1alpha3=true,storagemigration.k8s.io/v1beta1=true";
    let silent = Server::start_as("", runtime).await;
    let (rules, migrations) = (
        "/apis/resource.k8s.io/v1beta2/devicetaintrules",
        "/apis/storagemigration.k8s.io/v1beta1/storageversionmigrations",
    );
    for path in [rules, migrations] {
        assert_eq!(silent.client().get(path).await.code, 404);
    }
    let server = Server::start_as("DRADeviceTaintRules=true,StorageVersionMigrator=true", runtime).await;
    let client = server.client();
    let rule = json!({"metadata": {"name": "r"}, "spec": {"deviceSelector": {"driver": "d.example.com"},
        "taint": {"key": "broken", "effect": "NoSchedule"}}, "status": {"conditions": []}});
    let made = client.post(rules, &rule).await.ok();
    assert_eq!((&made["metadata"]["generation"], &made["status"]), (&json!(1), &json!({})));
    let added = made["spec"]["taint"]["timeAdded"].as_str().expect("a time").to_owned();
    let (path, merge) = (format!("{rules}/r"), "application/merge-patch+json");
    let early = json!({"spec": {"taint": {"timeAdded": "2026-01-01T00:00:00Z"}}}).to_string();
    client.patch(&path, merge, &early).await.ok();
    let changed = json!({"spec": {"taint": {"effect": "NoExecute"}}}).to_string();
    let changed = client.patch(&path, merge, &changed).await.ok();
    assert!(changed["spec"]["taint"]["timeAdded"].as_str().is_some_and(|time| time >= added.as_str()), "{changed}");
    assert_eq!(changed["metadata"]["generation"], 3);
    let alpha = client.get("/apis/resource.k8s.io/v1alpha3/devicetaintrules/r").await;
    let told = "299 - \"resource.k8s.io/v1alpha3 DeviceTaintRule is deprecated in v1.36+, unavailable in v1.39+\"";
    assert_eq!(alpha.headers["warning"], told);
    let alpha = alpha.ok();
    assert_eq!((&alpha["apiVersion"], &alpha["spec"]), (&json!("resource.k8s.io/v1alpha3"), &changed["spec"]));
    let deleted = client.delete(&path).await.ok();
    assert_eq!(deleted["kind"], "DeviceTaintRule");

    let migration = json!({"metadata": {"name": "m"}, "spec": {"resource": {"group": "", "resource": "secrets"}}});
    client.post(migrations, &migration).await.ok();
    let replaced = client.put(&format!("{migrations}/m"), &migration).await.refused(422);
    assert!(replaced["message"].as_str().is_some_and(|m| m.contains("must be specified for an update")), "{replaced}");
    let status = json!({"status": {"resourceVersion": "5"}}).to_string();
    let status = client.patch(&format!("{migrations}/m/status"), merge, &status).await.ok();
    assert_eq!(status["status"]["resourceVersion"], "5");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = client.raw(Method::GET, migrations, &accept, "").await.ok();
    assert_eq!(table["rows"][0]["cells"], json!(["m", "secrets.", ""]));
}

#[tokio::test]
async fn what_is_turned_off_is_not_there() {
    let usual = Server::start().await;
    assert_eq!(usual.client().get("/apis/networking.k8s.io/v1beta1/ipaddresses").await.code, 404);
    let server = Server::start_as("", "apps/v1=false,batch/v1/cronjobs=false").await;
    let client = server.client();
    for path in ["/apis/apps", "/apis/apps/v1", "/apis/apps/v1/deployments", "/apis/batch/v1/cronjobs"] {
        assert_eq!(client.get(path).await.code, 404, "{path}");
    }
    client.get("/apis/batch/v1/jobs").await.ok();
    let groups = client.get("/apis").await.text();
    assert!(!groups.contains("\"apps\"") && groups.contains("\"batch\""), "{groups}");
    assert!(!client.get("/apis/batch/v1").await.text().contains("cronjobs"));
    assert!(client.get("/openapi/v3").await.ok()["paths"]["apis/apps/v1"].is_null());
}

#[tokio::test]
async fn gates_open_fields_and_are_told() {
    let set = json!({"metadata": {"name": "s"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "s",
        "updateStrategy": {"rollingUpdate": {"partition": 1, "maxUnavailable": 2}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"hostnameOverride": "h",
            "containers": [{"name": "c", "image": "i"}]}}}});
    let path = "/apis/apps/v1/namespaces/default/statefulsets";
    let server = Server::start_as("MaxUnavailableStatefulSet=true,HostnameOverride=false", "").await;
    let client = server.client();
    let made = client.post(path, &set).await.ok();
    assert_eq!(made["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], 2);
    assert!(made["spec"]["template"]["spec"]["hostnameOverride"].is_null());
    let metrics = client.get("/metrics").await.text();
    for line in [
        "kubernetes_feature_enabled{name=\"MaxUnavailableStatefulSet\",stage=\"BETA\"} 1",
        "kubernetes_feature_enabled{name=\"HostnameOverride\",stage=\"BETA\"} 0",
        "kubernetes_feature_enabled{name=\"SidecarContainers\",stage=\"\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
    let server = Server::start().await;
    let usual = server.client().post(path, &set).await.ok();
    assert!(usual["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"].is_null());
    assert_eq!(usual["spec"]["template"]["spec"]["hostnameOverride"], "h");
}

#[tokio::test]
async fn answers_are_compressed_when_it_is_asked_for_and_worth_it() {
    let maps = "/api/v1/namespaces/default/configmaps";
    let zipped = [("accept-encoding", "deflate, gzip;q=0.9")];
    let server = Server::start().await;
    let client = server.client();
    client.post(maps, &json!({"metadata": {"name": "large"}, "data": {"v": "x".repeat(200_000)}})).await.ok();
    client.post(maps, &json!({"metadata": {"name": "small"}})).await.ok();
    for path in [maps.to_owned(), format!("{maps}/large"), "/openapi/v2".to_owned()] {
        let plain = client.get(&path).await;
        let packed = client.raw(Method::GET, &path, &zipped, "").await;
        assert_eq!(packed.headers["content-encoding"], "gzip", "{path}");
        assert!(packed.headers["vary"].to_str().is_ok_and(|vary| vary.contains("Accept")), "{:?}", packed.headers);
        assert!(packed.bytes.len() < plain.bytes.len() / 4);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&packed.bytes[..]).read_to_end(&mut unpacked).expect("gzip");
        assert!(plain.headers.get("content-encoding").is_none() && unpacked == plain.bytes, "{path}");
    }
    for path in [format!("{maps}/small"), format!("{maps}?watch=1&timeoutSeconds=1")] {
        let answer = client.raw(Method::GET, &path, &zipped, "").await;
        assert!(answer.headers.get("content-encoding").is_none(), "{path}");
    }
    let server = Server::start_as("APIResponseCompression=false", "").await;
    let never = server.client();
    never.post(maps, &json!({"metadata": {"name": "large"}, "data": {"v": "x".repeat(200_000)}})).await.ok();
    assert!(never.raw(Method::GET, maps, &zipped, "").await.headers.get("content-encoding").is_none());
}
