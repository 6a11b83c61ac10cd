//! A server that starts while what it needs is not there yet.

use crate::cluster::{Options, eventually, start_with};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_tells_by_health_that_its_plugin_is_not_there_and_goes_on_when_it_is() {
    const ROLES: &str = "/readyz/poststarthook/rbac/bootstrap-roles";
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
