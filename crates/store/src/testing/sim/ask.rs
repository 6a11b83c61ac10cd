//! What a client asks of a store, and what it is answered.

use std::time::Duration;

use crate::{Embedded, Error, LeaseId, Range, RangeResult, Store, StoreStatus, Txn, TxnResult};

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
        }
    }
}
