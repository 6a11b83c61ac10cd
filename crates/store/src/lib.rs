//! Durable state with etcd v3 semantics: the [`Store`] trait, the suite every engine passes, and the engines.
//!
//! One revision numbers every committed transaction of the whole key space, starting at 1 for the empty store.
//! A transaction compares, then applies one of two operation lists under a single new revision.

pub mod embedded;
mod error;
pub mod etcd;
pub mod face;
mod history;
mod model;
mod proto;
pub mod snapshot;
/// What `pilothouse store …` does to the embedded engine's directory.
pub mod tools {
    pub use crate::embedded::tools::{Status, Verification, compact, drop_damaged, snapshot, status, verify};
}

#[cfg(any(test, feature = "suite"))]
pub mod suite;
#[cfg(any(test, feature = "suite"))]
pub mod testing;

pub use embedded::Embedded;
pub use error::Error;
pub use etcd::Etcd;
pub use history::{History, Kept, Version, Versions};
pub use model::*;

use async_trait::async_trait;
use futures::stream::BoxStream;

/// What a watch delivers: batches in revision order, or the error that ended it.
pub type WatchStream = BoxStream<'static, Result<WatchBatch, Error>>;

/// The state seam. Every engine has the semantics of etcd v3.
///
/// Invariants that every engine keeps, and the suite checks:
/// - an acknowledged write is durable: it survives `kill -9` and power loss of an honest disk;
/// - revisions only grow, by one for each transaction that changes something; a transaction without effect keeps the revision;
/// - a watch delivers every change after its start once and in revision order, a transaction's events together,
///   or ends with [`Error::Compacted`];
/// - ranges are strictly serializable unless a past revision is asked for.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Compares, then applies `success` or `failure` atomically under one new revision.
    async fn txn(&self, txn: Txn) -> Result<TxnResult, Error>;

    /// Reads keys in order at a revision.
    ///
    /// Fails with [`Error::Compacted`] or [`Error::FutureRevision`] when the revision is not held.
    async fn range(&self, range: Range) -> Result<RangeResult, Error>;

    /// Watches keys from a revision (inclusive); `0` means from now.
    ///
    /// The first batch is empty and tells the store's revision at which the watch was established.
    /// Fails with [`Error::Compacted`] when the start is below the compaction mark, at the start or in the stream; at the
    /// mark itself, an engine that can't be sure of all that happened there may do the same.
    async fn watch(&self, watch: Watch) -> Result<WatchStream, Error>;

    /// Forgets everything but the latest version of each key at `revision`; ranges and watches below it then fail.
    async fn compact(&self, revision: i64) -> Result<(), Error>;

    /// Grants a lease that deletes its keys when it ends.
    async fn lease_grant(&self, ttl: std::time::Duration) -> Result<LeaseId, Error>;

    /// Renews a lease to its full time; returns the time granted.
    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<std::time::Duration, Error>;

    /// Ends a lease now, deleting its keys under one revision.
    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error>;

    /// Asks that every watch with `progress` be told soon that it has seen all up to the revision returned,
    /// which is the store's present one: wait for a batch with at least that revision to read consistently.
    async fn request_progress(&self) -> Result<i64, Error>;

    /// The revision, compaction mark, number of keys and size, and whether the engine takes writes.
    async fn status(&self) -> Result<StoreStatus, Error>;

    /// Why writes are refused now, if they are; cheap enough to be asked all the time.
    async fn health(&self) -> Result<Option<String>, Error> {
        Ok(self.status().await?.read_only)
    }

    /// What it tells of its past; `None`: nothing beyond ranges and watches from its compaction mark on.
    fn history(&self) -> Option<&dyn History> {
        None
    }
}
