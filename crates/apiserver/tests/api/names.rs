//! Names that the server makes up: one that is taken is made up again.

use crate::client::Server;
use async_trait::async_trait;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::{
    Error, LeaseId, Op, Range, RangeResult, Relation, Store, StoreStatus, Target, Txn, TxnResult, Watch, WatchStream,
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A store in which somebody else is faster: the next new keys are taken just before they are written.
struct Faster {
    store: Arc<store::Embedded>,
    takes: AtomicUsize,
}

#[async_trait]
impl Store for Faster {
    async fn txn(&self, txn: Txn) -> Result<TxnResult, Error> {
        let creates = txn
            .compares
            .iter()
            .any(|compare| compare.relation == Relation::Equal && matches!(compare.target, Target::ModRevision(0)));
        let takes =
            creates && self.takes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        if takes {
            let puts = txn.success.iter().filter(|op| matches!(op, Op::Put { .. })).cloned();
            self.store.txn(Txn::of(puts.collect())).await?;
        }
        self.store.txn(txn).await
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
async fn a_generated_name_that_is_taken_is_made_again() {
    let server = Server::start().await;
    let faster = Arc::new(Faster { store: server.store.clone(), takes: AtomicUsize::new(0) });
    let client = Server::client_on(faster.clone()).await;
    let object = json!({"metadata": {"generateName": "map-"}});
    faster.takes.store(3, Ordering::SeqCst);
    let made = client.post(MAPS, &object).await.ok();
    assert_eq!(faster.takes.load(Ordering::SeqCst), 0, "three names were taken");
    let name = made["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("map-") && name.len() == "map-".len() + 5, "{name}");
    let all = client.get(MAPS).await.ok();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(4), "those of the faster ones, and this one");
    // Not for ever: upstream gives up after eight.
    faster.takes.store(usize::MAX, Ordering::SeqCst);
    let refused = client.post(MAPS, &object).await.refused(409);
    assert_eq!(usize::MAX - faster.takes.load(Ordering::SeqCst), 8);
    assert_eq!(refused["reason"], "AlreadyExists");
    let message = refused["message"].as_str().expect("a message");
    assert!(message.contains("the server was not able to generate a unique name for the object"), "{message}");
    // A name that was given is not changed.
    faster.takes.store(1, Ordering::SeqCst);
    let refused = client.post(MAPS, &json!({"metadata": {"name": "mine"}})).await.refused(409);
    assert_eq!(refused["message"], "configmaps \"mine\" already exists");
}
