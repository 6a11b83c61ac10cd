//! The transactions with the store: compare the key with what was seen, put or delete it, and what goes along.

use super::measures::Storing;
use super::{Registry, Side};
use crate::cache::hooks::{self, Mutant};
use crate::cache::{Cacher, Noted, Scanned};
use api::{GroupResource, Reason, Status};
use bytes::Bytes;
use std::sync::Arc;
use store::{Compare, KeyRange, KeyValue, Op, OpResult, Range, Relation, Target, Txn};

/// What a transaction came to.
#[derive(Debug)]
pub(super) enum Committed {
    /// Done, under this revision.
    Done(u64),
    /// The object is not as it was seen: as it is now.
    Changed(Option<KeyValue>),
    /// The object is as it was seen, but something that goes along is not.
    SideChanged,
}

/// What is done to the object.
#[derive(Debug)]
pub(super) enum Act {
    /// `known`: what is known of the value's text, of an object with all its defaults.
    Put {
        value: Bytes,
        lease: i64,
        known: Option<Scanned>,
    },
    Delete,
}

/// What an object may weigh as it is stored: etcd's limit on a request.
const MAX_OBJECT: usize = 1536 * 1024;

/// 500, as upstream passes on what etcd says.
fn too_large() -> Status {
    Status::new(500, Reason::Unknown, "etcdserver: request is too large")
}

impl Registry {
    /// Does `act` to the object of a key if its revision is `expected` (0: there is none), with what goes along. A client finds
    /// at once what it wrote.
    pub(super) async fn commit(
        &self,
        cacher: &Arc<Cacher>,
        key: &str,
        expected: u64,
        act: Act,
        side: Side,
    ) -> Result<Committed, Status> {
        let (committed, noted) = self.transact(cacher, key, expected, act, side).await?;
        if let Committed::Done(revision) = committed {
            self.shown(revision).await;
        }
        drop(noted);
        Ok(committed)
    }

    /// The same for who goes on before it can be found, and keeps until then what is noted of the value.
    pub(super) async fn transact<'c>(
        &self,
        cacher: &'c Arc<Cacher>,
        key: &str,
        expected: u64,
        act: Act,
        side: Side,
    ) -> Result<(Committed, Option<Noted<'c>>), Status> {
        let full = Bytes::from([cacher.layout.prefix.as_str(), key].concat());
        let operation = match &act {
            Act::Put { .. } if expected == 0 => "create",
            Act::Put { .. } => "update",
            Act::Delete => "delete",
        };
        let mut noted = None;
        let op = match act {
            Act::Put { value, .. } if value.len() + full.len() > MAX_OBJECT => return Err(too_large()),
            Act::Put { value, lease, known } => {
                noted = known.map(|known| cacher.note(value.clone(), known));
                Op::Put { key: full.clone(), value, lease }
            }
            Act::Delete => Op::Delete { keys: KeyRange::key(full.clone()) },
        };
        let unguarded = match operation {
            "create" => Mutant::CreateUnguarded,
            "update" => Mutant::UpdateUnguarded,
            _ => Mutant::DeleteUnguarded,
        };
        let guard = Compare {
            key: full.clone(),
            relation: Relation::Equal,
            target: Target::ModRevision(expected.cast_signed()),
        };
        let mut compares = if hooks::is(unguarded) { Vec::new() } else { vec![guard] };
        let mut success = vec![op];
        compares.extend(side.compares);
        success.extend(side.ops);
        let failure = vec![Op::Range(Range::of(KeyRange::key(full)))];
        let txn = Txn { compares, success, failure, previous: false };
        let began = std::time::Instant::now();
        let result = self.store.txn(txn).await;
        let group = cacher.layout.api_version.rsplit_once('/').map_or("", |(group, _)| group);
        let what = Storing { group, operation, resource: &cacher.layout.resource };
        self.measures.stored(what, result.is_err(), began.elapsed());
        let result = result.map_err(|error| refused(&error))?;
        if result.succeeded {
            return Ok((Committed::Done(result.revision.cast_unsigned()), noted));
        }
        let found = match result.results.into_iter().next() {
            Some(OpResult::Range(range)) => range.kvs.into_iter().next(),
            _ => None,
        };
        let revision = found.as_ref().map_or(0, |kv| kv.mod_revision.cast_unsigned());
        let failed = if revision == expected { Committed::SideChanged } else { Committed::Changed(found) };
        Ok((failed, None))
    }
}

/// What a client is told when the store refuses.
pub(super) fn refused(error: &store::Error) -> Status {
    match error {
        store::Error::TooLarge { .. } => too_large(),
        store::Error::ReadOnly { .. }
        | store::Error::Closed
        | store::Error::Failed { .. }
        | store::Error::Unavailable(_) => {
            let mut status = Status::service_unavailable(error.to_string());
            status.details_mut().retry_after_seconds = 1;
            status
        }
        store::Error::Unknown { .. } => Status::timeout(error, 0),
        store::Error::Compacted { .. } => Status::expired(error.to_string()),
        other => {
            let message = crate::cache::Chain(other).to_string();
            tracing::error!(error = message, "the store failed");
            Status::internal(message)
        }
    }
}

/// Whether a failed write must not be tried again, though what memory had of the object was old: it was not refused because
/// of that, and may have happened. Tried again it would refuse itself, or be done twice.
pub(super) fn is_final(status: &Status) -> bool {
    status.code >= 500 && !hooks::is(Mutant::UnknownTriedAgain)
}

/// 409 when a write was tried again too often.
pub(super) fn contended(resource: &GroupResource, name: &str) -> Status {
    Status::conflict(resource, name, "the object changes faster than the write can be tried again")
}
