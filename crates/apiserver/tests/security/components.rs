//! `componentstatuses`, and what is told of kinds that go away.

use crate::cluster::start;
use serde_json::{Value, json};

#[tokio::test]
async fn components_are_healthy_as_long_as_they_lead() {
    let cluster = start().await;
    let admin = cluster.admin();
    let lease = |name: &str, renewed: jiff::Timestamp| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()}
        })
    };
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let now = jiff::Timestamp::now();
    admin.post(leases, lease("kube-scheduler", now)).await.expect(201);
    let long_ago = now - jiff::SignedDuration::from_mins(5);
    admin.post(leases, lease("kube-controller-manager", long_ago)).await.expect(201);
    let told = crate::cluster::eventually(async || {
        let answer = admin.get("/api/v1/componentstatuses").await;
        assert_eq!(answer.warnings, ["v1 ComponentStatus is deprecated in v1.19+"]);
        let list = answer.expect(200);
        assert_eq!(list["kind"], "ComponentStatusList");
        let rows: Vec<(String, Value)> = list["items"]
            .as_array()?
            .iter()
            .map(|item| (item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), item["conditions"].clone()))
            .collect();
        // The caches may be a moment behind the writes.
        rows.iter()
            .any(|(_, conditions)| conditions[0]["message"].as_str().is_some_and(|m| m.contains("run out")))
            .then_some(rows)
    })
    .await;
    let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
    let late = "the lease kube-system/kube-controller-manager of a has run out";
    let late = json!([{"type": "Healthy", "status": "False", "message": late}]);
    let wanted = [("controller-manager", late), ("scheduler", healthy.clone()), ("etcd-0", healthy)];
    assert_eq!(told, wanted.map(|(name, conditions)| (name.to_owned(), conditions)));
    let one = admin.get("/api/v1/componentstatuses/etcd-0").await.expect(200);
    assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("ComponentStatus"), &json!("v1")));
    let none = admin.get("/api/v1/componentstatuses/etcd-1").await;
    assert_eq!((none.code, none.message()), (500, "Component not found: etcd-1"));
    let named = admin.get("/api/v1/componentstatuses?fieldSelector=metadata.name%3Dscheduler").await.expect(200);
    assert_eq!(named["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(admin.delete("/api/v1/componentstatuses/etcd-0").await.code, 405);
}

#[tokio::test]
async fn who_uses_what_goes_away_is_told() {
    let cluster = start().await;
    let admin = cluster.admin();
    let told = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
    assert_eq!(admin.get("/api/v1/endpoints").await.warnings, [told]);
    assert!(admin.get("/api/v1/pods").await.warnings.is_empty());
}
