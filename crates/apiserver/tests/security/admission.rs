//! What objects become on their way in, and what is not let in.

use crate::cluster::{Cluster, Options, eventually, pod, start, start_with};
use apiserver::user::UserInfo;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn ready() -> Cluster {
    let cluster = start().await;
    cluster.service_account("default", "default").await;
    cluster
}

#[tokio::test]
async fn a_plain_pod_is_given_what_upstream_gives_it() {
    let cluster = ready().await;
    let made = cluster.admin().post(PODS, pod("p")).await.expect(201);
    let spec = &made["spec"];
    assert_eq!(spec["serviceAccountName"], "default");
    assert_eq!(spec["serviceAccount"], "default");
    assert_eq!(spec["priority"], 0);
    assert_eq!(spec["preemptionPolicy"], "PreemptLowerPriority");
    let volume = &spec["volumes"][0];
    assert!(volume["name"].as_str().is_some_and(|n| n.starts_with("kube-api-access-") && n.len() == 21), "{volume}");
    assert_eq!(volume["projected"]["defaultMode"], 420);
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    let keys: Vec<&Value> = spec["tolerations"].as_array().expect("tolerations").iter().map(|t| &t["key"]).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    assert_eq!(spec["tolerations"][0]["tolerationSeconds"], 300);
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let cluster = ready().await;
    let admin = cluster.admin();
    let nowhere = admin.post("/api/v1/namespaces/nowhere/pods", pod("p")).await;
    assert_eq!((nowhere.code, nowhere.message()), (404, "namespaces \"nowhere\" not found"));
    let mut foreign = pod("p");
    foreign["spec"]["serviceAccountName"] = "none".into();
    let refused = admin.post(PODS, foreign).await;
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: error looking up service account default/none: serviceaccount \"none\" not found"
    );
    let mut classy = pod("p");
    classy["spec"]["priorityClassName"] = "none".into();
    assert_eq!(
        admin.post(PODS, classy).await.message(),
        "pods \"p\" is forbidden: no PriorityClass with name none was found"
    );
    let mut critical = pod("p");
    critical["spec"]["priorityClassName"] = "system-node-critical".into();
    let made = admin.post(PODS, critical).await.expect(201);
    assert_eq!(made["spec"]["priority"], 2_000_001_000);
    let mut runtime = pod("q");
    runtime["spec"]["runtimeClassName"] = "none".into();
    assert_eq!(
        admin.post(PODS, runtime).await.message(),
        "pods \"q\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
}

#[tokio::test]
async fn namespaces_that_end_take_nothing_new_and_some_never_end() {
    let cluster = start().await;
    let admin = cluster.admin();
    let refused = admin.delete("/api/v1/namespaces/default").await;
    assert_eq!(
        (refused.code, refused.message()),
        (403, "namespaces \"default\" is forbidden: this namespace may not be deleted")
    );
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "brief"}});
    admin.post("/api/v1/namespaces", namespace).await.expect(201);
    admin.delete("/api/v1/namespaces/brief").await.expect(200);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    let refused = admin.post("/api/v1/namespaces/brief/configmaps", map).await;
    assert_eq!(
        refused.message(),
        "configmaps \"m\" is forbidden: unable to create new content in namespace brief because it is being terminated"
    );
    assert_eq!(refused.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
}

#[tokio::test]
async fn admin_access_to_devices_needs_a_labelled_namespace() {
    let cluster = start().await;
    let admin = cluster.admin();
    let claim = json!({"metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c", "adminAccess": true}}]}}});
    let path = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let refused = admin.post(path, claim.clone()).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            422,
            "ResourceClaim.resource.k8s.io \"c\" is invalid: spec.devices.requests[0].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
        )
    );
    let label = json!({"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}});
    admin.patch("/api/v1/namespaces/default", label).await.expect(200);
    admin.post(path, claim).await.expect(201);
}

#[tokio::test]
async fn who_writes_the_status_of_a_claim_needs_the_right_to_that_part_of_it() {
    let cluster = start().await;
    let admin = cluster.admin();
    let claims = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";
    let claim = json!({"metadata": {"name": "c"},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}});
    admin.post(claims, claim).await.expect(201);
    let allocation = json!({
        "devices": {"results": [{"request": "r", "driver": "d.example.com", "pool": "p", "device": "x"}]},
        "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}});
    let grant = async |name: &str, resource: &str, verbs: &[&str]| {
        let role = json!({"metadata": {"name": name}, "rules": [{"apiGroups": ["resource.k8s.io"],
            "resources": [resource], "verbs": verbs}]});
        admin.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
        let binding = json!({"metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "writers"}]});
        admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    };
    grant("status", "resourceclaims/status", &["patch", "update"]).await;
    let jane = cluster.user("jane", &["writers"]);
    let status = format!("{claims}/c/status");
    let allocate = json!({"status": {"allocation": allocation}});
    let refused = jane.patch(&status, allocate.clone()).await;
    let why = "ResourceClaim.resource.k8s.io \"c\" is invalid: status: Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"patch\" permission: resourceclaims.resource.k8s.io is forbidden: User \"jane\" cannot patch resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope";
    assert_eq!((refused.code, refused.message()), (422, why));
    grant("binding", "resourceclaims/binding", &["patch"]).await;
    jane.patch(&status, allocate).await.expect(200);
    let told = json!({"status": {"devices": [{"driver": "d.example.com", "pool": "p", "device": "x",
        "conditions": [{"type": "Ready", "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}]}});
    let refused = jane.patch(&status, told.clone()).await;
    let cannot = "permission: resourceclaims.resource.k8s.io \"d.example.com\" is forbidden: User";
    let start = "ResourceClaim.resource.k8s.io \"c\" is invalid: status.devices: Forbidden: changing status.devices requires resource=\"resourceclaims/driver\", verb=";
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert!(
        refused.message().starts_with(&format!("{start}\"[arbitrary-node:patch]\" {cannot} \"jane\"")),
        "{}",
        refused.message()
    );
    // A pod on the claim's node may be allowed to tell of that node alone.
    let account = |node: &str| {
        let mut user = UserInfo::new("system:serviceaccount:default:driver", ["writers"]);
        user.extra.insert("authentication.kubernetes.io/node-name".into(), vec![node.to_owned()]);
        cluster.as_user(user)
    };
    let refused = account("n1").patch(&status, told.clone()).await;
    assert!(
        refused.message().contains("verb=\"[associated-node:patch arbitrary-node:patch]\""),
        "{}",
        refused.message()
    );
    grant("driver", "resourceclaims/driver", &["associated-node:patch"]).await;
    let refused = account("n2").patch(&status, told.clone()).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    account("n1").patch(&status, told.clone()).await.expect(200);
    // What is as it was needs nothing.
    jane.patch(&status, told).await.expect(200);
    grant("anywhere", "resourceclaims/driver", &["arbitrary-node:patch"]).await;
    jane.patch(&status, json!({"status": {"devices": null}})).await.expect(200);
}

/// What admission fills in has its defaults when it is stored: later writes of other things must not seem to change the pod.
#[tokio::test]
async fn a_pod_that_a_limit_range_filled_in_can_be_patched() {
    let cluster = ready().await;
    let admin = cluster.admin();
    let limit = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container", "default": {"memory": "64Mi"}}]}});
    admin.post("/api/v1/namespaces/default/limitranges", limit).await.expect(201);
    let mut whole = pod("whole");
    whole["spec"]["resources"] = json!({"limits": {"cpu": "2"}});
    let made = admin.post(PODS, whole).await.expect(201);
    assert_eq!(made["spec"]["resources"]["requests"], json!({"cpu": "2", "memory": "64Mi"}));
    let patched = admin.patch(&format!("{PODS}/whole"), json!({"metadata": {"labels": {"a": "b"}}})).await.expect(200);
    assert_eq!(patched["spec"], made["spec"]);
}

#[tokio::test]
async fn limits_and_quotas_hold_under_races() {
    let cluster = ready().await;
    let admin = cluster.admin();
    let limit = json!({
        "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "100m"}, "max": {"memory": "1Gi"}, "default": {"memory": "64Mi"}}]}
    });
    admin.post("/api/v1/namespaces/default/limitranges", limit).await.expect(201);
    let made = admin.post(PODS, pod("small")).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["resources"]["requests"]["cpu"], "100m");
    let mut large = pod("large");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "2Gi"}});
    assert_eq!(
        admin.post(PODS, large).await.message(),
        "pods \"large\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi"
    );
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "6"}}});
    admin.post("/api/v1/namespaces/default/resourcequotas", quota).await.expect(201);
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let admin = admin.clone();
            tokio::spawn(async move { admin.post(PODS, pod(&format!("r{i}"))).await })
        })
        .collect();
    let mut made = 0;
    for task in tasks {
        let answer = task.await.expect("no panic");
        match answer.code {
            201 => made += 1,
            _ => assert!(
                answer.message().contains("exceeded quota: q, requested: pods=1, used: pods="),
                "{}",
                answer.body
            ),
        }
    }
    assert_eq!(made, 5, "one pod was there before the quota");
    let stored = admin.get("/api/v1/namespaces/default/resourcequotas/q").await.expect(200);
    assert_eq!(stored["status"]["used"]["pods"], "6");
    admin.delete(&format!("{PODS}/small?gracePeriodSeconds=0")).await.expect(200);
    admin.post(PODS, pod("again")).await.expect(201);
}

#[tokio::test]
async fn a_pod_that_nobody_ends_makes_room_in_its_quota() {
    let cluster = ready().await;
    let admin = cluster.admin();
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}}});
    admin.post("/api/v1/namespaces/default/resourcequotas", quota).await.expect(201);
    let mut lost = pod("lost");
    lost["spec"]["nodeName"] = json!("gone");
    admin.post(PODS, lost).await.expect(201);
    assert_eq!(admin.post(PODS, pod("p")).await.code, 403);
    admin.delete(&format!("{PODS}/lost?gracePeriodSeconds=1")).await.expect(200);
    // It has a second, and as much for the node to say that it has ended.
    eventually(async || (admin.post(PODS, pod("p")).await.code == 201).then_some(())).await;
    admin.get(&format!("{PODS}/lost")).await.expect(200);
}

#[tokio::test]
async fn claims_are_protected_and_get_the_default_class() {
    let cluster = start().await;
    let admin = cluster.admin();
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "x.y",
        "metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    });
    admin.post("/apis/storage.k8s.io/v1/storageclasses", class).await.expect(201);
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    });
    let made = admin.post("/api/v1/namespaces/default/persistentvolumeclaims", claim).await.expect(201);
    assert_eq!(made["spec"]["storageClassName"], "fast");
    assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
}

#[tokio::test]
async fn what_needs_a_quota_is_refused_without_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("admission.yaml");
    let text = "kind: AdmissionConfiguration\nplugins:\n- name: ResourceQuota\n  configuration:\n    limitedResources:\n    \
                - {resource: pods, matchContains: [requests.cpu]}\n    \
                - {resource: pods, matchScopes: [{scopeName: PriorityClass, operator: In, values: [high]}]}\n";
    std::fs::write(&file, text).expect("written");
    let mut config = apiserver::admission::config::Config::default();
    config.read(&file).expect("a configuration");
    let cluster = start_with(Options { admission: config, ..Options::default() }).await;
    cluster.service_account("default", "default").await;
    let admin = cluster.admin();
    let class = json!({"metadata": {"name": "high"}, "value": 5});
    admin.post("/apis/scheduling.k8s.io/v1/priorityclasses", class).await.expect(201);
    let pods = "/api/v1/namespaces/default/pods";
    let mut busy = pod("busy");
    busy["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    let refused = admin.post(pods, busy.clone()).await;
    assert_eq!(
        (refused.code, refused.message()),
        (403, "pods \"busy\" is forbidden: insufficient quota to consume: requests.cpu")
    );
    let mut high = pod("high");
    high["spec"]["priorityClassName"] = "high".into();
    let refused = admin.post(pods, high.clone()).await;
    assert_eq!(refused.message(), "insufficient quota to match these scopes: [{PriorityClass In [high]}]");
    admin.post(pods, pod("idle")).await.expect(201);
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    admin.post(quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "4"}}})).await.expect(201);
    let scoped = json!({"metadata": {"name": "s"}, "spec": {"hard": {"pods": "4"}, "scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}}});
    admin.post(quotas, scoped).await.expect(201);
    // A quota covers what its status says, and that is empty until somebody counts.
    let refused = admin.post(pods, busy.clone()).await;
    assert_eq!(refused.message(), "pods \"busy\" is forbidden: insufficient quota to consume: requests.cpu");
    let status = format!("{quotas}/q/status");
    admin.patch(&status, json!({"status": {"hard": {"requests.cpu": "4"}}})).await.expect(200);
    let refused = admin.post(pods, busy.clone()).await;
    assert_eq!(
        (refused.code, refused.message()),
        (403, "pods \"busy\" is forbidden: status unknown for quota: q, resources: requests.cpu")
    );
    admin.patch(&status, json!({"status": {"used": {"requests.cpu": "0"}}})).await.expect(200);
    admin.post(pods, busy).await.expect(201);
    high["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    admin.post(pods, high).await.expect(201);
}

#[tokio::test]
async fn pods_tolerate_what_their_namespace_says() {
    let plugins = &["PodTolerationRestriction"];
    let cluster = start_with(Options { plugins, ..Options::default() }).await;
    cluster.service_account("default", "default").await;
    let admin = cluster.admin();
    let notes = json!({"metadata": {"annotations": {
        "scheduler.alpha.kubernetes.io/defaultTolerations": r#"[{"key":"a","operator":"Exists"}]"#,
        "scheduler.alpha.kubernetes.io/tolerationsWhitelist": r#"[{"key":"a","operator":"Exists"},
            {"key":"node.kubernetes.io/memory-pressure","operator":"Exists"},
            {"key":"node.kubernetes.io/not-ready","operator":"Exists"},
            {"key":"node.kubernetes.io/unreachable","operator":"Exists"}]"#,
    }}});
    admin.patch("/api/v1/namespaces/default", notes).await.expect(200);
    let pods = "/api/v1/namespaces/default/pods";
    let mut busy = pod("busy");
    busy["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    busy["spec"]["tolerations"] = json!([{"key": "a", "value": "b"}]);
    let made = admin.post(pods, busy).await.expect(201);
    let keys: Vec<&Value> = made["spec"]["tolerations"].as_array().expect("a list").iter().map(|t| &t["key"]).collect();
    let expected =
        ["a", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/memory-pressure"];
    assert_eq!(keys, expected);
    assert_eq!(made["spec"]["tolerations"][0], json!({"key": "a", "operator": "Exists"}), "the wider one stays");
    let mut other = pod("other");
    other["spec"]["tolerations"] = json!([{"key": "b", "operator": "Exists"}]);
    let refused = admin.post(pods, other).await;
    assert_eq!(
        refused.message(),
        "pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist"
    );
}

#[tokio::test]
async fn a_limit_that_cannot_be_read_admits_nothing() {
    use store::{KeyRange, Op, Store, Txn};
    let cluster = ready().await;
    let admin = cluster.admin();
    let store: &dyn Store = &**cluster.server.registry().store();
    for (plural, name) in [("resourcequotas", "q"), ("limitranges", "l")] {
        let key = format!("/registry/{plural}/default/{name}");
        // As another server writes it that has a key which this one has not.
        let value = "k8s:enc:aescbc:v1:key1:?";
        let written =
            store.txn(Txn::of(vec![Op::Put { key: key.clone().into(), value: value.into(), lease: 0 }])).await;
        written.expect("written");
        let path = format!("/api/v1/namespaces/default/{plural}");
        // Memory is as the store is when this is answered.
        admin.get(&path).await.expect(500);
        let refused = admin.post(PODS, pod("p")).await;
        let why = "identity transformer tried to read encrypted data";
        assert_eq!(
            (refused.code, refused.message()),
            (500, format!("Internal error occurred: unable to transform key {key:?}: {why}").as_str())
        );
        admin.post("/api/v1/namespaces", json!({"metadata": {"name": plural}})).await.expect(201);
        cluster.service_account(plural, "default").await;
        admin.post(&format!("/api/v1/namespaces/{plural}/pods"), pod("p")).await.expect(201);
        let removed = store.txn(Txn::of(vec![Op::Delete { keys: KeyRange::key(key) }])).await;
        removed.expect("removed");
        admin.get(&path).await.expect(200);
    }
    admin.post(PODS, pod("p")).await.expect(201);
}

#[tokio::test]
async fn the_systems_priority_classes_stay() {
    let cluster = start().await;
    let admin = cluster.admin();
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    for name in ["system-cluster-critical", "system-node-critical"] {
        let refused = admin.delete(&format!("{classes}/{name}")).await;
        let why = format!(
            "priorityclasses.scheduling.k8s.io \"{name}\" is forbidden: this is a system priority class and cannot be deleted"
        );
        assert_eq!((refused.code, refused.message()), (403, why.as_str()));
        admin.get(&format!("{classes}/{name}")).await.expect(200);
    }
    admin.post(classes, json!({"metadata": {"name": "mine"}, "value": 5})).await.expect(201);
    admin.delete(&format!("{classes}/mine")).await.expect(200);
}
