//! What a client asks of a store, and what it is answered.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    Embedded, Error, History, Kept, KeyRange, LeaseId, Range, RangeResult, Store, StoreStatus, Txn, TxnResult, Versions,
};

#[derive(Clone, Debug)]
pub enum Ask {
    Txn(Txn),
    Range(Range),
    Compact(i64),
    /// With a number of the client's choice, or 0.
    Grant(Duration, LeaseId),
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    Status,
    Progress,
    /// How far back history reaches.
    Kept,
    /// When these keys were last as they were when a second ended.
    RevisionAt(KeyRange, i64),
    TimeOf(i64),
    /// A read of history, which reaches below the compaction mark.
    Past(Range),
    /// The versions of a key up to a revision, at most so many.
    Versions(Bytes, i64, usize),
}

#[derive(Debug)]
pub enum Answer {
    Txn(Result<TxnResult, Error>),
    Range(Result<RangeResult, Error>),
    Done(Result<(), Error>),
    Lease(Result<LeaseId, Error>),
    Ttl(Result<Duration, Error>),
    Status(Result<StoreStatus, Error>),
    Revision(Result<i64, Error>),
    Kept(Result<Kept, Error>),
    Time(Result<Option<i64>, Error>),
    Versions(Result<Versions, Error>),
}

impl Ask {
    pub async fn of(self, store: &Embedded) -> Answer {
        match self {
            Self::Txn(txn) => Answer::Txn(store.txn(txn).await),
            Self::Range(range) => Answer::Range(store.range(range).await),
            Self::Compact(revision) => Answer::Done(store.compact(revision).await),
            Self::Grant(ttl, 0) => Answer::Lease(store.lease_grant(ttl).await),
            Self::Grant(ttl, id) => Answer::Lease(store.lease_grant_as(id, ttl).await),
            Self::KeepAlive(id) => Answer::Ttl(store.lease_keep_alive(id).await),
            Self::Revoke(id) => Answer::Done(store.lease_revoke(id).await),
            Self::Status => Answer::Status(store.status().await),
            Self::Progress => Answer::Revision(store.request_progress().await),
            Self::Kept => Answer::Kept(store.kept().await),
            Self::RevisionAt(keys, second) => Answer::Revision(store.revision_at(&keys, second).await),
            Self::TimeOf(revision) => Answer::Time(store.time_of(revision).await),
            Self::Past(range) => Answer::Range(store.range_at(range).await),
            Self::Versions(key, until, limit) => Answer::Versions(store.versions(key, until, limit).await),
        }
    }
}

impl Answer {
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Txn(result) => result.as_ref().err(),
            Self::Range(result) => result.as_ref().err(),
            Self::Done(result) => result.as_ref().err(),
            Self::Lease(result) => result.as_ref().err(),
            Self::Ttl(result) => result.as_ref().err(),
            Self::Status(result) => result.as_ref().err(),
            Self::Revision(result) => result.as_ref().err(),
            Self::Kept(result) => result.as_ref().err(),
            Self::Time(result) => result.as_ref().err(),
            Self::Versions(result) => result.as_ref().err(),
        }
    }
}
