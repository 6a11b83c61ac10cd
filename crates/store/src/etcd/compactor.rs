//! Compaction, agreed upon by all servers that share an etcd, upstream's among them.
//!
//! The key `compact_rev_key` has a version that counts compactions. Each server remembers the version and the store's
//! revision of an interval ago; whoever finds the version unchanged raises it and compacts at that revision, the others
//! only look. So history of one to two intervals is kept, whatever the number of servers.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;

use super::members::Failure;
use super::{Core, convert, is_compacted, read_failed, write_failed};
use crate::Error;
use crate::proto;
use crate::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::request_op::Request;
use crate::proto::response_op::Response;

const KEY: &[u8] = b"compact_rev_key";

/// What is remembered from one interval to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    version: i64,
    revision: i64,
}

pub(super) async fn keep_compacting(core: Weak<Core>, interval: Duration) {
    let mut round = Round::default();
    loop {
        tokio::time::sleep(interval).await;
        let Some(core) = core.upgrade() else { return };
        match step(&core, round).await {
            Ok(next) => round = next,
            Err(error) => tracing::warn!(%error, "etcd could not be compacted; it is tried again"),
        }
    }
}

/// One interval's work: compacts if it is this server's turn.
pub(super) async fn step(core: &Core, round: Round) -> Result<Round, Error> {
    let key = Bytes::from_static(KEY);
    let put = proto::PutRequest { key: key.clone(), value: round.revision.to_string().into(), ..Default::default() };
    let request = proto::TxnRequest {
        compare: vec![proto::Compare {
            result: CompareResult::Equal as i32,
            target: CompareTarget::Version as i32,
            key: key.clone(),
            target_union: Some(TargetUnion::Version(round.version)),
            range_end: Bytes::new(),
        }],
        success: vec![proto::RequestOp { request: Some(Request::RequestPut(put)) }],
        failure: vec![proto::RequestOp {
            request: Some(Request::RequestRange(proto::RangeRequest { key, ..Default::default() })),
        }],
    };
    let response = core.txn(request).await.map_err(|failure| write_failed(&failure))?;
    let revision = convert::revision(response.header.as_ref())?;
    if !response.succeeded {
        let found = response.responses.into_iter().next().and_then(|op| op.response);
        let version = match found {
            Some(Response::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.version),
            _ => 0,
        };
        return Ok(Round { version, revision });
    }
    if round.revision > 0 {
        match core.compact(round.revision).await {
            Ok(()) => tracing::debug!(revision = round.revision, "compacted etcd"),
            // Somebody else went further.
            Err(Failure::Refused(status)) if is_compacted(&status) => {}
            Err(failure) => return Err(read_failed(&failure)),
        }
    }
    Ok(Round { version: round.version + 1, revision })
}
