//! A server that is badly connected with its store. Writes whose answer from the store is lost are told as unknown, and never
//! done twice; a server whose memory is behind the store tells nothing that is not so any more.

use crate::client::{Client, Server};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use store::{Error, KeyRange, LeaseId, Op, Range, RangeResult, Store, StoreStatus, Txn, TxnResult, Watch, WatchStream};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const MERGE: &str = "application/merge-patch+json";

/// A store that does what it is told, whose answers to writes are lost, and whose watches stall, while that is asked for.
struct Losing {
    store: Arc<store::Embedded>,
    losing: AtomicBool,
    stalling: tokio::sync::watch::Sender<bool>,
    /// What somebody else does right after the next write.
    next: Mutex<Option<Txn>>,
    /// Told of each time somebody asks how far the store is, and of each write that was refused.
    asked: tokio::sync::Notify,
}

impl Losing {
    fn new(store: &Arc<store::Embedded>) -> Arc<Self> {
        let (losing, stalling) = (AtomicBool::new(false), tokio::sync::watch::Sender::new(false));
        let (next, asked) = (Mutex::default(), tokio::sync::Notify::new());
        Arc::new(Self { store: store.clone(), losing, stalling, next, asked })
    }

    /// Watches stall from now on; what was asked before is of no interest.
    fn stall(&self) {
        self.stalling.send_replace(true);
        self.asked.notified().now_or_never();
    }

    fn go_on(&self) {
        self.stalling.send_replace(false);
    }
}

#[async_trait]
impl Store for Losing {
    async fn txn(&self, txn: Txn) -> Result<TxnResult, Error> {
        let result = self.store.txn(txn).await?;
        if result.succeeded && self.losing.load(Ordering::SeqCst) {
            return Err(Error::Unknown { reason: "the leader was lost".to_owned() });
        }
        if !result.succeeded {
            self.asked.notify_one();
        }
        let next = self.next.lock().unwrap().take_if(|_| result.succeeded);
        if let Some(next) = next {
            self.store.txn(next).await?;
        }
        Ok(result)
    }
    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        self.store.range(range).await
    }
    async fn watch(&self, watch: Watch) -> Result<WatchStream, Error> {
        let stalling = self.stalling.subscribe();
        let told = self.store.watch(watch).await?.then(move |told| {
            let mut stalling = stalling.clone();
            async move {
                stalling.wait_for(|stalling| !stalling).await.ok();
                told
            }
        });
        Ok(told.boxed())
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
        self.asked.notify_one();
        self.store.request_progress().await
    }
    async fn status(&self) -> Result<StoreStatus, Error> {
        self.store.status().await
    }
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_not_done_again() {
    let server = Server::start().await;
    let store = Losing::new(&server.store);
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

/// Two servers on one store: of the second, what it is connected with the store by, too.
async fn two() -> (Server, Client, Arc<Losing>, Client) {
    let server = Server::start().await;
    let store = Losing::new(&server.store);
    let (here, there) = (server.client(), Server::client_on(store.clone()).await);
    (server, here, store, there)
}

#[tokio::test]
async fn a_delete_of_what_was_made_anew_meanwhile_deletes_it() {
    let (_server, here, store, there) = two().await;
    let pod =
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}});
    let at = format!("{PODS}/a");
    here.post(PODS, &pod).await.ok();
    there.delete(&at).await.ok();
    // In its memory the pod is being deleted, which would be all that is to be said.
    store.stall();
    here.delete(&format!("{at}?gracePeriodSeconds=0")).await.ok();
    let anew = here.post(PODS, &pod).await.ok();
    let mut delete = std::pin::pin!(there.delete(&at));
    tokio::select! {
        biased;
        answer = &mut delete => panic!("told without a look whether it is still so: {}", answer.text()),
        () = store.asked.notified() => store.go_on(),
    }
    let deleted = delete.await;
    assert_eq!(deleted.ok()["metadata"]["uid"], anew["metadata"]["uid"]);
    assert!(here.get(&at).await.ok()["metadata"]["deletionTimestamp"].is_string());
}

#[tokio::test]
async fn a_pod_whose_end_was_told_may_be_removed_by_somebody_else() {
    let (_server, here, store, there) = two().await;
    let at = format!("{PODS}/a");
    let made = here
        .post(PODS, &json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}))
        .await
        .ok();
    there.get(&at).await.ok();
    let delete = Op::Delete { keys: KeyRange::key("/registry/pods/default/a") };
    *store.next.lock().unwrap() = Some(Txn::of(vec![delete]));
    let version = &made["metadata"]["resourceVersion"];
    let body = json!({"preconditions": {"resourceVersion": version}}).to_string();
    let deleted = there.raw(http::Method::DELETE, &at, &[("content-type", "application/json")], body).await.ok();
    assert!(store.next.lock().unwrap().is_none(), "it was removed between the two writes");
    assert_eq!(deleted["metadata"]["uid"], made["metadata"]["uid"]);
    assert_eq!(deleted["metadata"]["deletionGracePeriodSeconds"], 0);
    there.get(&at).await.refused(404);
}

#[tokio::test]
async fn who_is_told_of_an_object_finds_it_at_once() {
    let (_server, here, store, there) = two().await;
    let (at, patch) = (format!("{MAPS}/a"), r#"{"data": {"a": "b"}}"#);
    here.post(MAPS, &json!({"metadata": {"name": "a"}})).await.ok();
    there.get(&at).await.ok();
    store.stall();
    let made = here.patch(&at, MERGE, patch).await.ok();
    // Nothing is to be written, as the store tells when it refuses to.
    let mut again = std::pin::pin!(there.patch(&at, MERGE, patch));
    tokio::select! {
        biased;
        answer = &mut again => panic!("answered before it can be found: {}", answer.text()),
        () = store.asked.notified() => {}
    }
    let early = tokio::time::timeout(Duration::from_millis(300), &mut again).await;
    assert!(early.is_err(), "answered before it can be found");
    store.go_on();
    assert_eq!(again.await.ok()["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let found = there.get(&format!("{at}?resourceVersion=0")).await.ok();
    assert_eq!(found["data"], json!({"a": "b"}));
}
