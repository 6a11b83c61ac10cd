//! A server that starts while what it needs is not there yet.

use crate::cluster::{Options, eventually, start_with};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::embedded::{Embedded, SystemClock};
use store::testing::disk::{MemoryDisk, Platter};

const ROLES: &str = "/readyz/poststarthook/rbac/bootstrap-roles";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_tells_by_health_that_its_plugin_is_not_there_and_goes_on_when_it_is() {
    let providers = "{kms: {apiVersion: v2, name: p, endpoint: 'unix:///nowhere/kms.sock', timeout: 1s}}";
    let cluster = start_with(Options { providers, ..Options::default() }).await;
    assert_eq!(cluster.secured.written, 0);
    let admin = cluster.admin();
    let code = async |path: &str| admin.get(path).await.code;
    assert_eq!(code("/livez/kms-providers").await, 404);
    for path in ["/livez/ping", "/readyz/etcd", "/readyz/informer-sync", "/version"] {
        assert_eq!(code(path).await, 200, "{path}");
    }
    for path in ["/readyz", "/readyz/kms-providers", ROLES] {
        assert_eq!(code(path).await, 500, "{path}");
    }
    cluster.encrypt("{identity: {}}");
    eventually(async || (code(ROLES).await == 200).then_some(())).await;
    assert_eq!(code("/readyz").await, 200);
    admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/view").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_a_full_disk_serves_reads_and_makes_the_first_objects_when_there_is_space() {
    let disk = Arc::new(Platter::default());
    let there = Embedded::open_on(
        Arc::new(MemoryDisk::new(&disk)),
        Arc::new(SystemClock::default()),
        store::embedded::Options::default(),
    );
    there.expect("a store").close();
    disk.faults().full.store(true, Ordering::SeqCst);
    let cluster = start_with(Options { disk: Some(disk.clone()), ..Options::default() }).await;
    assert_eq!(cluster.secured.written, 0);
    let admin = cluster.admin();
    for path in ["/readyz", "/readyz/etcd", ROLES] {
        assert_eq!(admin.get(path).await.code, 500, "{path}");
    }
    let roles = admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles").await.expect(200);
    assert_eq!(roles["items"].as_array().map(Vec::len), Some(0));
    disk.faults().full.store(false, Ordering::SeqCst);
    eventually(async || (admin.get("/readyz").await.code == 200).then_some(())).await;
    admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/view").await.expect(200);
}
