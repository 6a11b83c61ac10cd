//! Writes that are done and whose answer from the store is lost: told as unknown, and never done twice.

use crate::client::Server;
use async_trait::async_trait;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::{Error, LeaseId, Range, RangeResult, Store, StoreStatus, Txn, TxnResult, Watch, WatchStream};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A store that does what it is told, and whose answers to writes are lost while it is asked to lose them.
struct Losing {
    store: Arc<store::Embedded>,
    losing: AtomicBool,
}

#[async_trait]
impl Store for Losing {
    async fn txn(&self, txn: Txn) -> Result<TxnResult, Error> {
        let result = self.store.txn(txn).await?;
        if result.succeeded && self.losing.load(Ordering::SeqCst) {
            return Err(Error::Unknown { reason: "the leader was lost".to_owned() });
        }
        Ok(result)
    }
    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        self.store.range(range).await
    }
    async fn watch(&self, watch: Watch) -> Result<WatchStream, Error> {
        self.store.watch(watch).await
    }
    async fn compact(&self, revision: i64) -> Result<(), Error> {
        self.store.compact(revision).await
    }
    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        self.store.lease_grant(ttl).await
    }
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        self.store.lease_keep_alive(lease).await
    }
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        self.store.lease_revoke(lease).await
    }
    async fn request_progress(&self) -> Result<i64, Error> {
        self.store.request_progress().await
    }
    async fn status(&self) -> Result<StoreStatus, Error> {
        self.store.status().await
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_not_done_again() {
    let server = Server::start().await;
    let store = Arc::new(Losing { store: server.store.clone(), losing: AtomicBool::new(false) });
    let client = Server::client_on(store.clone()).await;
    let at = format!("{MAPS}/a");
    let made = client.post(MAPS, &json!({"metadata": {"name": "a", "finalizers": ["x.io/1"]}})).await.ok();
    let version = made["metadata"]["resourceVersion"].clone();

    store.losing.store(true, Ordering::SeqCst);
    // It would be refused for its own effect.
    let update =
        json!({"metadata": {"name": "a", "finalizers": ["x.io/1"], "resourceVersion": version}, "data": {"a": "b"}});
    assert_eq!(client.put(&at, &update).await.refused(504)["reason"], "Timeout");
    assert_eq!(client.get(&at).await.ok()["data"], json!({"a": "b"}));
    // It would be done twice.
    let append = r#"[{"op": "add", "path": "/metadata/finalizers/-", "value": "x.io/2"}]"#;
    client.patch(&at, "application/json-patch+json", append).await.refused(504);
    assert_eq!(client.get(&at).await.ok()["metadata"]["finalizers"], json!(["x.io/1", "x.io/2"]));
    client.post(MAPS, &json!({"metadata": {"name": "b"}})).await.refused(504);
    client.get(&format!("{MAPS}/b")).await.ok();
    // It would not be found.
    client.delete(&format!("{MAPS}/b")).await.refused(504);
    client.get(&format!("{MAPS}/b")).await.refused(404);
}
