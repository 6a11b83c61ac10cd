//! The store with its values encrypted on the way in and decrypted on the way out: whatever is read or written through it is,
//! so that no path can forget to. The engine behind it, its snapshots and its etcd face have only what is encrypted.

use super::Encryption;
use super::kms::Wait;
use super::transformer::{Opened, Read};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use store::{
    Error, Event, History, Kept, KeyRange, KeyValue, LeaseId, Op, OpResult, Range, RangeResult, Store, StoreStatus,
    Target, Txn, TxnResult, Versions, Watch, WatchStream,
};

/// What stands in the place of a value that cannot be decrypted, with the reason behind it. No object begins so.
const UNREADABLE: &[u8] = b"\0unreadable\0";

/// The reason why there is no value.
pub(crate) fn unreadable(value: &[u8]) -> Option<String> {
    value.strip_prefix(UNREADABLE).map(|why| String::from_utf8_lossy(why).into_owned())
}

/// A store behind [`Encryption`].
pub struct Sealed {
    store: Arc<dyn Store>,
    encryption: Arc<Encryption>,
}

impl Sealed {
    pub fn new(store: Arc<dyn Store>, encryption: Arc<Encryption>) -> Arc<Self> {
        Arc::new(Sealed { store, encryption })
    }

    pub fn encryption(&self) -> &Arc<Encryption> {
        &self.encryption
    }

    /// Whether the value of a key would be stored otherwise now, so that even a write without a change has to be done.
    ///
    /// # Errors
    /// Those of the store, and [`Error::Transform`] when the value cannot be decrypted.
    pub async fn stale(&self, key: &[u8]) -> Result<bool, Error> {
        let Some(providers) = self.encryption.providers(key) else { return Ok(false) };
        let read = self.store.range(Range::of(KeyRange::key(Bytes::copy_from_slice(key)))).await?;
        let Some(kv) = read.kvs.first() else { return Ok(false) };
        let read = providers.open(&kv.value, &self.encryption.context(key), Wait::Answer).await;
        read.map(|read| read.stale).map_err(Error::Transform)
    }

    fn seal(&self, key: &[u8], value: &mut Bytes) -> Result<(), Error> {
        let Some(providers) = self.encryption.providers(key) else { return Ok(()) };
        if let Opened::Decrypted(sealed) =
            providers.seal(value, &self.encryption.context(key)).map_err(Error::Transform)?
        {
            *value = sealed.into();
        }
        Ok(())
    }

    fn seal_all(&self, ops: &mut [Op]) -> Result<(), Error> {
        ops.iter_mut().try_for_each(|op| match op {
            Op::Put { key, value, .. } => self.seal(&key.clone(), value),
            Op::Txn(txn) => self.seal_txn(txn),
            Op::Delete { .. } | Op::Range(_) => Ok(()),
        })
    }

    fn seal_txn(&self, txn: &mut Txn) -> Result<(), Error> {
        for compare in &txn.compares {
            if matches!(compare.target, Target::Value(_)) && self.encryption.providers(&compare.key).is_some() {
                // The same value is stored otherwise each time.
                return Err(Error::Transform("an encrypted value cannot be compared".to_owned()));
            }
        }
        self.seal_all(&mut txn.success)?;
        self.seal_all(&mut txn.failure)
    }
}

async fn open(encryption: &Encryption, kv: &mut KeyValue, wait: Wait) {
    let Some(providers) = encryption.providers(&kv.key) else { return };
    if kv.value.is_empty() {
        // Only the key was asked for.
        return;
    }
    match providers.open(&kv.value, &encryption.context(&kv.key), wait).await {
        Ok(Read { opened: Opened::AsStored, .. }) => {}
        Ok(Read { opened: Opened::Decrypted(opened), .. }) => kv.value = opened.into(),
        Err(why) => kv.value = [UNREADABLE, why.as_bytes()].concat().into(),
    }
}

async fn open_result(encryption: &Encryption, result: &mut OpResult) {
    match result {
        OpResult::Put { previous: Some(kv) } => open(encryption, kv, Wait::Answer).await,
        OpResult::Put { previous: None } => {}
        OpResult::Delete { deleted: kvs } | OpResult::Range(RangeResult { kvs, .. }) => {
            for kv in kvs {
                open(encryption, kv, Wait::Answer).await;
            }
        }
        OpResult::Txn { results, .. } => {
            for result in results {
                Box::pin(open_result(encryption, result)).await;
            }
        }
    }
}

/// Of a watch, in which everything else comes behind it.
async fn open_event(encryption: &Encryption, event: &mut Event) {
    let previous = match event {
        Event::Put { kv, previous } => {
            open(encryption, kv, Wait::Moment).await;
            previous
        }
        Event::Delete { previous, .. } => previous,
    };
    if let Some(previous) = previous {
        open(encryption, previous, Wait::Moment).await;
    }
}

#[async_trait]
impl Store for Sealed {
    async fn txn(&self, mut txn: Txn) -> Result<TxnResult, Error> {
        self.seal_txn(&mut txn)?;
        let mut result = self.store.txn(txn).await?;
        for one in &mut result.results {
            open_result(&self.encryption, one).await;
        }
        Ok(result)
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        let mut result = self.store.range(range).await?;
        for kv in &mut result.kvs {
            open(&self.encryption, kv, Wait::Answer).await;
        }
        Ok(result)
    }

    async fn watch(&self, watch: Watch) -> Result<WatchStream, Error> {
        let stream = self.store.watch(watch).await?;
        let encryption = self.encryption.clone();
        Ok(stream
            .then(move |batch| {
                let encryption = encryption.clone();
                async move {
                    let mut batch = batch?;
                    for event in &mut batch.events {
                        open_event(&encryption, event).await;
                    }
                    Ok(batch)
                }
            })
            .boxed())
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
    async fn health(&self) -> Result<Option<String>, Error> {
        self.store.health().await
    }
    fn history(&self) -> Option<&dyn History> {
        self.store.history().map(|_| self as &dyn History)
    }
}

impl Sealed {
    /// The history behind it, which is there when this one is asked.
    fn past(&self) -> Result<&dyn History, Error> {
        self.store.history().ok_or(Error::Closed)
    }
}

/// What was encrypted with a key that is not configured any more stays unreadable.
#[async_trait]
impl History for Sealed {
    async fn kept(&self) -> Result<Kept, Error> {
        self.past()?.kept().await
    }
    async fn revision_at(&self, keys: &KeyRange, second: i64) -> Result<i64, Error> {
        self.past()?.revision_at(keys, second).await
    }
    async fn time_of(&self, revision: i64) -> Result<Option<i64>, Error> {
        self.past()?.time_of(revision).await
    }
    async fn range_at(&self, range: Range) -> Result<RangeResult, Error> {
        let mut result = self.past()?.range_at(range).await?;
        for kv in &mut result.kvs {
            open(&self.encryption, kv, Wait::Answer).await;
        }
        Ok(result)
    }
    async fn versions(&self, key: Bytes, until: i64, limit: usize) -> Result<Versions, Error> {
        let mut versions = self.past()?.versions(key, until, limit).await?;
        for kv in versions.versions.iter_mut().filter_map(|version| version.kv.as_mut()) {
            open(&self.encryption, kv, Wait::Answer).await;
        }
        Ok(versions)
    }
}
