//! Quotas, disruption budgets, replication controllers, protection of volumes, the time that finished Jobs are kept.

use crate::cluster::pod;
use crate::support::{items, make_ready, running, running_as, until, until_gone};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn template() -> Value {
    json!({"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}})
}

#[tokio::test]
async fn a_quota_tells_what_is_used_and_what_goes_makes_room() {
    let running = running().await;
    let admin = running.admin();
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let maps = "/api/v1/namespaces/default/configmaps";
    admin.post(maps, map("a")).await.expect(201);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
        "spec": {"hard": {"configmaps": "9", "count/deployments.apps": "2", "pods": "5", "requests.cpu": "1"}}});
    let path = "/api/v1/namespaces/default/resourcequotas/q";
    admin.post("/api/v1/namespaces/default/resourcequotas", quota).await.expect(201);
    let used = |wanted: Value| move |q: &Value| q["status"]["used"] == wanted;
    let first = json!({"configmaps": "2", "count/deployments.apps": "0", "pods": "0", "requests.cpu": "0"});
    let seen = until(&admin, path, used(first.clone())).await;
    assert_eq!(seen["status"]["hard"], seen["spec"]["hard"], "the ConfigMap of the CA counts, too");
    let mut busy = pod("p");
    busy["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "250m"}});
    admin.post(PODS, busy).await.expect(201);
    admin.post(maps, map("b")).await.expect(201);
    until(
        &admin,
        path,
        used(json!({"configmaps": "3", "count/deployments.apps": "0", "pods": "1", "requests.cpu": "250m"})),
    )
    .await;
    admin.delete(&format!("{maps}/b")).await.expect(200);
    admin.delete(&format!("{PODS}/p")).await.expect(200);
    until(&admin, path, used(first)).await;
    admin.patch(path, json!({"spec": {"hard": {"pods": null, "requests.cpu": null}}})).await.expect(200);
    until(&admin, path, used(json!({"configmaps": "2", "count/deployments.apps": "0"}))).await;
}

#[tokio::test]
async fn a_replication_controller_keeps_its_number_of_pods() {
    let running = running().await;
    let admin = running.admin();
    let mut orphan = pod("orphan");
    orphan["metadata"]["labels"] = json!({"app": "x"});
    admin.post(PODS, orphan).await.expect(201);
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "r"},
        "spec": {"replicas": 3, "selector": {"app": "x"}, "template": template()}});
    admin.post(path, controller).await.expect(201);
    let pods = items(&admin, PODS, 3).await;
    let path = format!("{path}/r");
    until(&admin, &path, |r| r["status"]["replicas"] == 3 && r["status"]["observedGeneration"] == 1).await;
    let owner = |pod: &Value| pod["metadata"]["ownerReferences"][0]["kind"] == "ReplicationController";
    assert!(pods.iter().all(owner), "the orphan is adopted");
    for pod in &pods {
        make_ready(&admin, pod).await;
    }
    until(&admin, &path, |r| r["status"]["readyReplicas"] == 3 && r["status"]["availableReplicas"] == 3).await;
    admin.patch(&path, json!({"spec": {"replicas": 1}})).await.expect(200);
    items(&admin, PODS, 1).await;
    until(&admin, &path, |r| r["status"]["replicas"] == 1).await;
    let events = "/api/v1/namespaces/default/events?fieldSelector=reason%3DSuccessfulDelete";
    assert_eq!(items(&admin, events, 2).await[0]["source"]["component"], "replication-controller");
}

#[tokio::test]
async fn a_disruption_budget_counts_what_may_be_evicted() {
    let running = running().await;
    let admin = running.admin();
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}, "template": template()}});
    admin.post("/apis/apps/v1/namespaces/default/deployments", deployment).await.expect(201);
    let pods = items(&admin, PODS, 3).await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"},
        "spec": {"maxUnavailable": "30%", "selector": {"matchLabels": {"app": "x"}}}});
    admin.post(budgets, budget).await.expect(201);
    let path = format!("{budgets}/b");
    let condition = |b: &Value, reason: &str| b["status"]["conditions"][0]["reason"] == reason;
    until(&admin, &path, |b| condition(b, "InsufficientPods") && b["status"]["expectedPods"] == 3).await;
    for pod in &pods {
        make_ready(&admin, pod).await;
    }
    let seen = until(&admin, &path, |b| b["status"]["disruptionsAllowed"] == 1).await;
    assert_eq!((&seen["status"]["desiredHealthy"], &seen["status"]["currentHealthy"]), (&json!(2), &json!(3)));
    assert!(condition(&seen, "SufficientPods"), "{seen}");
    let evict = async |pod: &Value| {
        let name = pod["metadata"]["name"].as_str().unwrap_or("");
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        admin.post(&format!("{PODS}/{name}/eviction"), eviction).await.code
    };
    assert_eq!(evict(&pods[0]).await, 201);
    assert_eq!(evict(&pods[1]).await, 429, "one at a time");
    until(&admin, &path, |b| b["status"]["currentHealthy"] == 2 && b["status"]["disruptedPods"].is_null()).await;
}

#[tokio::test]
async fn a_claim_in_use_outlives_its_deletion() {
    let running = running().await;
    let admin = running.admin();
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    admin.post(claims, claim).await.expect(201);
    let mut user = pod("user");
    user["spec"]["nodeName"] = "n".into();
    user["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    admin.post(PODS, user).await.expect(201);
    let path = format!("{claims}/c");
    admin.delete(&path).await.expect(200);
    let held = admin.get(&path).await.expect(200);
    assert!(held["metadata"]["deletionTimestamp"].is_string());
    admin.delete(&format!("{PODS}/user?gracePeriodSeconds=0")).await.expect(200);
    until_gone(&admin, &path).await;
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/v"}}});
    admin.post("/api/v1/persistentvolumes", volume).await.expect(201);
    let path = "/api/v1/persistentvolumes/v";
    admin.patch(&format!("{path}/status"), json!({"status": {"phase": "Bound"}})).await.expect(200);
    admin.delete(path).await.expect(200);
    assert!(admin.get(path).await.expect(200)["metadata"]["deletionTimestamp"].is_string());
    admin.patch(&format!("{path}/status"), json!({"status": {"phase": "Released"}})).await.expect(200);
    until_gone(&admin, path).await;
}

#[tokio::test]
async fn a_group_of_pods_outlives_its_deletion_while_a_pod_of_it_runs() {
    let running = running_as("GenericWorkload=true", "scheduling.k8s.io/v1alpha2=true").await;
    let admin = running.admin();
    let groups = "/apis/scheduling.k8s.io/v1alpha2/namespaces/default/podgroups";
    let group = json!({"metadata": {"name": "g"}, "spec": {"schedulingPolicy": {"basic": {}}}});
    let made = admin.post(groups, group).await.expect(201);
    assert_eq!(made["metadata"]["finalizers"], json!(["scheduling.k8s.io/podgroup-protection"]));
    let pod = json!({"metadata": {"name": "p"}, "spec": {"schedulingGroup": {"podGroupName": "g"},
        "containers": [{"name": "c", "image": "i"}]}});
    admin.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    let path = format!("{groups}/g");
    admin.delete(&path).await.expect(200);
    let kept = until(&admin, &path, |group| group["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(kept["metadata"]["finalizers"], made["metadata"]["finalizers"]);
    let ended = json!({"status": {"phase": "Succeeded"}});
    admin.patch("/api/v1/namespaces/default/pods/p/status", ended).await.expect(200);
    until_gone(&admin, &path).await;
}

#[tokio::test]
async fn a_namespace_lets_go_of_its_pods_first() {
    let running = running().await;
    let admin = running.admin();
    admin.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.expect(201);
    let (pods, maps) = ("/api/v1/namespaces/n/pods", "/api/v1/namespaces/n/configmaps");
    until(&admin, "/api/v1/namespaces/n/serviceaccounts/default", |_| true).await;
    let mut held = pod("p");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    admin.post(pods, held).await.expect(201);
    admin.post(maps, json!({"metadata": {"name": "m"}})).await.expect(201);
    admin.delete("/api/v1/namespaces/n").await.expect(200);
    let told = |namespace: &Value, kind: &str| -> Option<Value> {
        namespace["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == kind).cloned()
    };
    let ending = until(&admin, "/api/v1/namespaces/n", |n| told(n, "NamespaceContentRemaining").is_some()).await;
    assert_eq!(
        told(&ending, "NamespaceContentRemaining").unwrap_or_default()["message"],
        "Some resources are remaining: pods. has 1 resource instances"
    );
    assert_eq!(told(&ending, "NamespaceDeletionContentFailure").unwrap_or_default()["status"], "False");
    assert!(admin.get(&format!("{pods}/p")).await.expect(200)["metadata"]["deletionTimestamp"].is_string());
    let map = admin.get(&format!("{maps}/m")).await.expect(200);
    assert!(map["metadata"]["deletionTimestamp"].is_null(), "{map}");
    // A pod that has ended holds the others back as well, as long as it is there.
    let ended = json!({"status": {"phase": "Succeeded"}});
    admin.patch(&format!("{pods}/p/status"), ended).await.expect(200);
    admin.get(&format!("{maps}/m")).await.expect(200);
    admin.patch(&format!("{pods}/p"), json!({"metadata": {"finalizers": null}})).await.expect(200);
    until_gone(&admin, "/api/v1/namespaces/n").await;
    assert_eq!(admin.get(&format!("{maps}/m")).await.code, 404);
}

#[tokio::test]
async fn a_range_of_services_is_held_as_long_as_addresses_of_it_are_used() {
    let running = running().await;
    let admin = running.admin();
    let cidrs = "/apis/networking.k8s.io/v1/servicecidrs";
    let path = format!("{cidrs}/more");
    admin.post(cidrs, json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.222.0.0/24"]}})).await.expect(201);
    let ready = |cidr: &Value, status: &str| cidr["status"]["conditions"][0]["status"] == status;
    let held = until(&admin, &path, |cidr| ready(cidr, "True")).await;
    assert_eq!(held["metadata"]["finalizers"], json!(["networking.k8s.io/service-cidr-finalizer"]));
    let condition = &held["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["reason"], &condition["message"]),
        (&json!("Ready"), &json!(""), &json!("Kubernetes Service CIDR is ready"))
    );

    let service = |name: &str, address: &str| json!({"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
    let services = "/api/v1/namespaces/default/services";
    admin.post(services, service("a", "10.222.0.7")).await.expect(201);
    admin.delete(&path).await.expect(200);
    let terminating = until(&admin, &path, |cidr| ready(cidr, "False")).await;
    let condition = &terminating["status"]["conditions"][0];
    let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("Terminating"), &json!(why)));
    let refused = admin.post(services, service("b", "10.222.0.8")).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert!(refused.message().contains("the provided network does not match the current range"), "{}", refused.body);
    admin.delete(&format!("{services}/a")).await.expect(200);
    until_gone(&admin, &path).await;
}
