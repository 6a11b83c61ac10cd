//! Addresses and ports of Services: each is had once, whoever races for it, and comes back.

use crate::cluster::{Client, Options, start, start_with};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec["ports"].is_null() {
        spec["ports"] = json!([{"port": 80}]);
    }
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

async fn addresses(admin: &Client) -> Vec<String> {
    let list = admin.get("/apis/networking.k8s.io/v1/ipaddresses").await.expect(200);
    let items = list["items"].as_array().expect("items").iter();
    items.map(|i| i["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn the_first_services_hold_their_places() {
    let cluster = start().await;
    assert!(cluster.secured.written > 100);
    let admin = cluster.admin();
    assert_eq!(admin.get(&format!("{SERVICES}/kubernetes")).await.expect(200)["spec"]["clusterIP"], "10.96.0.1");
    let dns = admin.get("/api/v1/namespaces/kube-system/services/kube-dns").await.expect(200);
    assert_eq!(dns["spec"]["clusterIP"], "10.96.0.10");
    assert_eq!(addresses(&admin).await, ["10.96.0.1", "10.96.0.10"]);
    let taken = admin.post(SERVICES, service("x", json!({"clusterIP": "10.96.0.10"}))).await;
    assert_eq!(taken.code, 422);
    assert_eq!(
        taken.message(),
        "Service \"x\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"
    );
}

#[tokio::test]
async fn a_removed_service_of_the_server_comes_back() {
    let cluster = start().await;
    let admin = cluster.admin();
    admin.delete(&format!("{SERVICES}/kubernetes")).await.expect(200);
    crate::cluster::eventually(async || {
        let found = admin.get(&format!("{SERVICES}/kubernetes")).await;
        (found.code == 200 && addresses(&admin).await.contains(&"10.96.0.1".to_owned())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_claim_that_is_deleted_comes_back_and_is_told() {
    let cluster = start().await;
    let admin = cluster.admin();
    admin.post(SERVICES, service("a", json!({"clusterIP": "10.96.0.77"}))).await.expect(201);
    const CLAIM: &str = "/apis/networking.k8s.io/v1/ipaddresses/10.96.0.77";
    let first = admin.get(CLAIM).await.expect(200);
    let hook = "/readyz/poststarthook/start-service-ip-repair-controllers";
    assert_eq!(admin.get(hook).await.code, 200);
    admin.delete(CLAIM).await.expect(200);
    let second =
        crate::cluster::eventually(async || Some(admin.get(CLAIM).await).filter(|answer| answer.code == 200)).await;
    assert_ne!(second.body["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(second.body["spec"], first["spec"]);
    let told = crate::cluster::eventually(async || {
        let events = admin.get("/apis/events.k8s.io/v1/namespaces/default/events").await.expect(200);
        events["items"].as_array()?.iter().find(|event| event["reason"] == "ClusterIPNotAllocated").cloned()
    })
    .await;
    assert_eq!(told["note"], "Cluster IP [IPv4]: 10.96.0.77 is not allocated; repairing");
    let taken = admin.post(SERVICES, service("b", json!({"clusterIP": "10.96.0.77"}))).await;
    assert_eq!(taken.code, 422, "{}", taken.body);
}

#[tokio::test]
async fn the_range_of_the_server_comes_back_and_what_is_wrong_with_it_is_told() {
    const RANGE: &str = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    let cluster = start().await;
    let admin = cluster.admin();
    let first = admin.get(RANGE).await.expect(200);
    // Nobody is there to let go of it when it may go.
    admin.patch(RANGE, json!({"metadata": {"finalizers": null}})).await.expect(200);
    admin.delete(RANGE).await.expect(200);
    let second =
        crate::cluster::eventually(async || Some(admin.get(RANGE).await).filter(|answer| answer.code == 200)).await;
    assert_ne!(second.body["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(second.body["spec"], first["spec"]);
    assert_eq!(second.body["status"]["conditions"][0]["status"], "True");
    assert_eq!(second.body["metadata"]["finalizers"], json!(["networking.k8s.io/service-cidr-finalizer"]));
    let ready = |status: &str| {
        let time = "2026-01-01T00:00:00Z";
        json!([{"type": "Ready", "status": status, "reason": "Broken", "message": "it is broken", "lastTransitionTime": time}])
    };
    let status = format!("{RANGE}/status");
    // What nobody knows is set right, what somebody knows is told.
    admin.patch(&status, json!({"status": {"conditions": ready("Unknown")}})).await.expect(200);
    crate::cluster::eventually(async || {
        let found = admin.get(RANGE).await.expect(200);
        (found["status"]["conditions"][0]["status"] == "True").then_some(())
    })
    .await;
    admin.patch(&status, json!({"status": {"conditions": ready("False")}})).await.expect(200);
    let told = crate::cluster::eventually(async || {
        let events = admin.get("/api/v1/namespaces/default/events").await.expect(200);
        events["items"].as_array()?.iter().find(|event| event["reason"] == "Broken").cloned()
    })
    .await;
    assert_eq!(told["message"], "Configuration matches, but it is broken");
    assert_eq!(told["source"]["component"], "kubernetes-service-cidr-controller");
    assert_eq!((&told["involvedObject"]["kind"], &told["type"]), (&json!("ServiceCIDR"), &json!("Warning")));
}

#[tokio::test]
async fn racing_services_get_different_addresses_and_ports() {
    // 13 addresses are left of this range, and 20 ports.
    let cluster =
        start_with(Options { service_range: "10.0.0.0/28", node_ports: "30000-30019", ..Options::default() }).await;
    let admin = cluster.admin();
    let tasks: Vec<_> = (0..16)
        .map(|i| {
            let admin = admin.clone();
            tokio::spawn(
                async move { admin.post(SERVICES, service(&format!("s{i}"), json!({"type": "NodePort"}))).await },
            )
        })
        .collect();
    let (mut ips, mut ports, mut full) = (BTreeSet::new(), BTreeSet::new(), 0);
    for task in tasks {
        let answer = task.await.expect("no panic");
        if answer.code == 201 {
            assert!(ips.insert(answer.body["spec"]["clusterIP"].to_string()), "{ips:?}");
            assert!(ports.insert(answer.body["spec"]["ports"][0]["nodePort"].to_string()), "{ports:?}");
        } else {
            assert!(answer.message().contains("failed to allocate a serviceIP: range is full"), "{}", answer.body);
            full += 1;
        }
    }
    // Of 14 addresses the server has the first and DNS the tenth.
    assert_eq!((ips.len(), full), (12, 4));
    // What is deleted is free again.
    let list = admin.get(SERVICES).await.expect(200);
    for item in list["items"].as_array().expect("items") {
        let name = item["metadata"]["name"].as_str().unwrap_or_default();
        if name != "kubernetes" {
            admin.delete(&format!("{SERVICES}/{name}")).await.expect(200);
        }
    }
    assert_eq!(addresses(&admin).await.len(), 2);
    for i in 0..12 {
        admin.post(SERVICES, service(&format!("t{i}"), json!({"type": "NodePort"}))).await.expect(201);
    }
}

#[tokio::test]
async fn node_ports_are_had_by_number_and_given_back_by_a_change() {
    let cluster = start().await;
    let admin = cluster.admin();
    let wanted = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30008}]});
    let made = admin.post(SERVICES, service("a", wanted.clone())).await.expect(201);
    let refused = admin.post(SERVICES, service("b", wanted.clone())).await;
    assert_eq!(
        refused.message(),
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30008: provided port is already allocated"
    );
    let outside = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
    assert!(
        admin.post(SERVICES, service("b", outside)).await.message().contains("The range of valid ports is 30000-32767")
    );
    let mut changed = made;
    changed["spec"]["type"] = "ClusterIP".into();
    let changed = admin.put(&format!("{SERVICES}/a"), changed).await.expect(200);
    assert!(changed["spec"]["ports"][0]["nodePort"].is_null());
    admin.post(SERVICES, service("b", wanted)).await.expect(201);
}

#[tokio::test]
async fn node_ports_of_a_changed_type_are_wiped_and_those_of_a_load_balancer_stay() {
    let cluster = start().await;
    let admin = cluster.admin();
    let ports = json!([{"name": "a", "port": 80, "nodePort": 30011}, {"name": "b", "port": 81, "nodePort": 30012}]);
    let mut made = admin.post(SERVICES, service("a", json!({"type": "NodePort", "ports": ports}))).await.expect(201);
    made["spec"]["type"] = "ClusterIP".into();
    made["spec"]["ports"].as_array_mut().expect("ports").remove(0);
    let changed = admin.put(&format!("{SERVICES}/a"), made).await.expect(200);
    assert!(changed["spec"]["ports"][0]["nodePort"].is_null(), "{changed}");
    let made = admin.post(SERVICES, service("b", json!({"type": "LoadBalancer"}))).await.expect(201);
    let mut unwanted = made.clone();
    unwanted["spec"]["allocateLoadBalancerNodePorts"] = json!(false);
    let kept = admin.put(&format!("{SERVICES}/b"), unwanted).await.expect(200);
    assert!(kept["spec"]["ports"][0]["nodePort"].is_i64(), "{kept}");
    assert_eq!(kept["spec"]["ports"], made["spec"]["ports"]);
}

#[tokio::test]
async fn a_dry_run_and_a_refused_write_claim_nothing() {
    let cluster = start().await;
    let admin = cluster.admin();
    let made = admin
        .post(&format!("{SERVICES}?dryRun=All"), service("a", json!({"clusterIP": "10.96.0.77"})))
        .await
        .expect(201);
    assert_eq!(made["spec"]["clusterIP"], "10.96.0.77");
    let invalid =
        admin.post(SERVICES, service("a", json!({"clusterIP": "10.96.0.77", "ports": [{"port": 99999}]}))).await;
    assert_eq!(invalid.code, 422, "{}", invalid.body);
    assert_eq!(addresses(&admin).await.len(), 2);
    admin.post(SERVICES, service("b", json!({"clusterIP": "10.96.0.77"}))).await.expect(201);
}

#[tokio::test]
async fn headless_services_and_external_names_have_none() {
    let cluster = start().await;
    let admin = cluster.admin();
    let headless =
        admin.post(SERVICES, service("h", json!({"clusterIP": "None", "selector": {"a": "b"}}))).await.expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    admin.post(SERVICES, service("e", external)).await.expect(201);
    assert_eq!(addresses(&admin).await.len(), 2);
    let mut becomes = admin.get(&format!("{SERVICES}/e")).await.expect(200);
    becomes["spec"]["type"] = "ClusterIP".into();
    let became = admin.put(&format!("{SERVICES}/e"), becomes).await.expect(200);
    assert!(became["spec"]["clusterIP"].as_str().is_some_and(|ip| ip.starts_with("10.96.")), "{became}");
    assert_eq!(addresses(&admin).await.len(), 3);
}
