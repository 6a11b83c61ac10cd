//! Messages as the trait's words, results as messages, and errors as etcd words them, because clients look at the words.

use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::Face;
use crate::proto::{self, range_request};
use crate::{
    Compare, Error, Event, KeyRange, KeyValue, Op, OpResult, Range, RangeResult, Relation, Target, Txn, TxnResult,
};

/// etcd's default limits of a request that writes, in bytes, and of a transaction, in operations: what it takes of neither is not
/// taken here, as a client that was tried here may meet the other later.
const REQUEST_BYTES: usize = 3 << 19;
const TXN_OPS: usize = 128;

/// Refuses a request that etcd finds too large.
pub(super) fn sized(request: &impl Message) -> Result<(), Status> {
    let size = request.encoded_len();
    if size > REQUEST_BYTES {
        return Err(refusal(&Error::TooLarge { size, limit: REQUEST_BYTES }));
    }
    Ok(())
}

/// The same of a transaction, if it writes, and one of too many operations: those that are nested have what is left.
pub(super) fn bounded(request: &proto::TxnRequest) -> Result<(), Status> {
    if writes(request) { sized(request).and_then(|()| counted(request, TXN_OPS)) } else { counted(request, TXN_OPS) }
}

fn branches(request: &proto::TxnRequest) -> impl Iterator<Item = &proto::request_op::Request> {
    request.success.iter().chain(&request.failure).filter_map(|op| op.request.as_ref())
}

fn writes(request: &proto::TxnRequest) -> bool {
    use proto::request_op::Request;
    branches(request).any(|op| match op {
        Request::RequestRange(_) => false,
        Request::RequestPut(_) | Request::RequestDeleteRange(_) => true,
        Request::RequestTxn(within) => writes(within),
    })
}

fn counted(request: &proto::TxnRequest, left: usize) -> Result<(), Status> {
    let count = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = left.checked_sub(count);
    let left = left.ok_or_else(|| Status::invalid_argument("etcdserver: too many operations in txn request"))?;
    branches(request).try_for_each(|op| match op {
        proto::request_op::Request::RequestTxn(within) => counted(within, left),
        _ => Ok(()),
    })
}

/// A range of keys as etcd writes one.
pub(super) fn keys(key: Bytes, range_end: Bytes) -> KeyRange {
    let open = |bytes: Bytes| if bytes[..] == [0] { Bytes::new() } else { bytes };
    match range_end.is_empty() {
        true => KeyRange::key(key),
        false => KeyRange { start: open(key), end: Some(open(range_end)) },
    }
}

fn named(key: &Bytes) -> Result<(), Status> {
    match key.is_empty() {
        true => Err(Status::invalid_argument("etcdserver: key is not provided")),
        false => Ok(()),
    }
}

pub(super) fn event(event: Event) -> proto::Event {
    match event {
        Event::Put { kv, previous } => proto::Event {
            r#type: proto::event::EventType::Put as i32,
            kv: Some(kv.into()),
            prev_kv: previous.map(Into::into),
        },
        Event::Delete { key, revision, previous } => proto::Event {
            r#type: proto::event::EventType::Delete as i32,
            kv: Some(proto::KeyValue { key, mod_revision: revision, ..Default::default() }),
            prev_kv: previous.map(Into::into),
        },
    }
}

/// What of a range the engine does not do: filters, other orders, and the limit after these.
#[derive(Clone, Debug)]
pub(super) struct Shaping {
    limit: usize,
    keys_only: bool,
    order: range_request::SortOrder,
    target: range_request::SortTarget,
    mod_revisions: (i64, i64),
    create_revisions: (i64, i64),
}

/// What the engine is asked, and what is left to do with its answer, if anything.
pub(super) fn range(request: proto::RangeRequest) -> Result<(Range, Option<Shaping>), Status> {
    named(&request.key)?;
    let unknown = |what: &str| Status::invalid_argument(format!("etcdserver: unknown sort {what}"));
    let order = range_request::SortOrder::try_from(request.sort_order)
        .map_err(|_| Status::invalid_argument("etcdserver: invalid sort option"))?;
    let target = range_request::SortTarget::try_from(request.sort_target).map_err(|_| unknown("target"))?;
    let (mod_revisions, create_revisions) = (
        (request.min_mod_revision, request.max_mod_revision),
        (request.min_create_revision, request.max_create_revision),
    );
    let by_key = target == range_request::SortTarget::Key && order != range_request::SortOrder::Descend;
    let shaped = !by_key || mod_revisions != (0, 0) || create_revisions != (0, 0);
    let limit = usize::try_from(request.limit).unwrap_or_default();
    let by_value = target == range_request::SortTarget::Value;
    let plain = Range {
        keys: keys(request.key, request.range_end),
        revision: request.revision.max(0),
        limit: if shaped { 0 } else { limit },
        count_only: request.count_only,
        keys_only: request.keys_only && !by_value,
    };
    let shaping = Shaping { limit, keys_only: request.keys_only, order, target, mod_revisions, create_revisions };
    Ok((plain, shaped.then_some(shaping)))
}

impl Shaping {
    fn apply(&self, result: &mut RangeResult) {
        use range_request::{SortOrder, SortTarget};
        let within =
            |(low, high): (i64, i64), revision| (low == 0 || revision >= low) && (high == 0 || revision <= high);
        result.kvs.retain(|kv| {
            within(self.mod_revisions, kv.mod_revision) && within(self.create_revisions, kv.create_revision)
        });
        match self.target {
            SortTarget::Key => {}
            SortTarget::Version => result.kvs.sort_by_key(|kv| kv.version),
            SortTarget::Create => result.kvs.sort_by_key(|kv| kv.create_revision),
            SortTarget::Mod => result.kvs.sort_by_key(|kv| kv.mod_revision),
            SortTarget::Value => result.kvs.sort_by(|a, b| a.value.cmp(&b.value)),
        }
        if self.order == SortOrder::Descend {
            result.kvs.reverse();
        }
        if self.limit > 0 && result.kvs.len() > self.limit {
            result.kvs.truncate(self.limit);
            result.more = true;
        }
        if self.keys_only {
            result.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
    }
}

/// What the results of one operation need to become its answer.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    Range(Option<Shaping>),
    /// With the previous value.
    Put(bool),
    Delete(bool),
    /// The two branches.
    Txn(Vec<Plan>, Vec<Plan>),
}

/// A put without the flags that need a look at what is there.
pub(super) fn put(request: proto::PutRequest) -> Result<Op, Status> {
    named(&request.key)?;
    Ok(Op::Put { key: request.key, value: request.value, lease: request.lease })
}

pub(super) fn delete(request: proto::DeleteRangeRequest) -> Result<Op, Status> {
    named(&request.key)?;
    Ok(Op::Delete { keys: keys(request.key, request.range_end) })
}

pub(super) fn txn(request: proto::TxnRequest) -> Result<(Txn, Plan), Status> {
    let compares = request.compare.into_iter().map(compare).collect::<Result<_, _>>()?;
    let mut previous = false;
    let mut branch = |requests: Vec<proto::RequestOp>| -> Result<(Vec<Op>, Vec<Plan>), Status> {
        let ops = requests.into_iter().map(|request| op(request, &mut previous)).collect::<Result<Vec<_>, _>>()?;
        Ok(ops.into_iter().unzip())
    };
    let (success, success_plan) = branch(request.success)?;
    let (failure, failure_plan) = branch(request.failure)?;
    Ok((Txn { compares, success, failure, previous }, Plan::Txn(success_plan, failure_plan)))
}

fn op(request: proto::RequestOp, previous: &mut bool) -> Result<(Op, Plan), Status> {
    use proto::request_op::Request;
    Ok(match request.request {
        None => return Err(Status::invalid_argument("etcdserver: key not found")),
        Some(Request::RequestRange(request)) => {
            let (plain, shaping) = range(request)?;
            (Op::Range(plain), Plan::Range(shaping))
        }
        Some(Request::RequestPut(request)) => {
            if request.ignore_value || request.ignore_lease {
                return Err(Status::unimplemented("ignore_value and ignore_lease are not served within a transaction"));
            }
            let wanted = request.prev_kv;
            *previous |= wanted;
            (put(request)?, Plan::Put(wanted))
        }
        Some(Request::RequestDeleteRange(request)) => {
            let wanted = request.prev_kv;
            *previous |= wanted;
            (delete(request)?, Plan::Delete(wanted))
        }
        Some(Request::RequestTxn(request)) => {
            let (txn, plan) = txn(request)?;
            *previous |= txn.previous;
            (Op::Txn(txn), plan)
        }
    })
}

fn compare(request: proto::Compare) -> Result<Compare, Status> {
    use proto::compare::{CompareResult, CompareTarget, TargetUnion};
    named(&request.key)?;
    if !request.range_end.is_empty() {
        return Err(Status::unimplemented("compares of a range of keys are not served"));
    }
    let number = match &request.target_union {
        Some(
            TargetUnion::Version(number)
            | TargetUnion::CreateRevision(number)
            | TargetUnion::ModRevision(number)
            | TargetUnion::Lease(number),
        ) => *number,
        Some(TargetUnion::Value(_)) | None => 0,
    };
    let unknown = |what: &str| Status::invalid_argument(format!("etcdserver: unknown {what} of a compare"));
    let target = match CompareTarget::try_from(request.target).map_err(|_| unknown("target"))? {
        CompareTarget::Version => Target::Version(number),
        CompareTarget::Create => Target::CreateRevision(number),
        CompareTarget::Mod => Target::ModRevision(number),
        CompareTarget::Lease => Target::Lease(number),
        CompareTarget::Value => Target::Value(match request.target_union {
            Some(TargetUnion::Value(value)) => value,
            _ => Bytes::new(),
        }),
    };
    let relation = match CompareResult::try_from(request.result).map_err(|_| unknown("result"))? {
        CompareResult::Equal => Relation::Equal,
        CompareResult::NotEqual => Relation::NotEqual,
        CompareResult::Greater => Relation::Greater,
        CompareResult::Less => Relation::Less,
    };
    Ok(Compare { key: request.key, relation, target })
}

impl Face {
    pub(super) fn range_response(&self, mut result: RangeResult, shaping: Option<&Shaping>) -> proto::RangeResponse {
        if let Some(shaping) = shaping {
            shaping.apply(&mut result);
        }
        proto::RangeResponse {
            header: self.header(result.revision),
            kvs: result.kvs.into_iter().map(Into::into).collect(),
            more: result.more,
            count: result.count as i64,
        }
    }

    pub(super) fn put_response(&self, previous: Option<KeyValue>, wanted: bool, revision: i64) -> proto::PutResponse {
        proto::PutResponse { header: self.header(revision), prev_kv: previous.filter(|_| wanted).map(Into::into) }
    }

    pub(super) fn delete_response(
        &self,
        deleted: Vec<KeyValue>,
        wanted: bool,
        revision: i64,
    ) -> proto::DeleteRangeResponse {
        proto::DeleteRangeResponse {
            header: self.header(revision),
            deleted: deleted.len() as i64,
            prev_kvs: if wanted { deleted.into_iter().map(Into::into).collect() } else { Vec::new() },
        }
    }

    pub(super) fn txn_response(&self, result: TxnResult, plan: &Plan) -> proto::TxnResponse {
        use proto::response_op::Response;
        let TxnResult { succeeded, revision, results } = result;
        let plans = match plan {
            Plan::Txn(success, _) if succeeded => &success[..],
            Plan::Txn(_, failure) => failure,
            _ => &[],
        };
        let response = |(result, plan): (OpResult, &Plan)| {
            let response = match (result, plan) {
                (OpResult::Put { previous }, plan) => {
                    Response::ResponsePut(self.put_response(previous, matches!(plan, Plan::Put(true)), revision))
                }
                (OpResult::Delete { deleted }, plan) => {
                    let wanted = matches!(plan, Plan::Delete(true));
                    Response::ResponseDeleteRange(self.delete_response(deleted, wanted, revision))
                }
                (OpResult::Range(range), plan) => {
                    let shaping = if let Plan::Range(shaping) = plan { shaping.as_ref() } else { None };
                    Response::ResponseRange(self.range_response(range, shaping))
                }
                (OpResult::Txn { succeeded, results }, plan) => {
                    Response::ResponseTxn(self.txn_response(TxnResult { succeeded, revision, results }, plan))
                }
            };
            proto::ResponseOp { response: Some(response) }
        };
        let responses = results.into_iter().zip(plans).map(response).collect();
        proto::TxnResponse { header: self.header(revision), succeeded, responses }
    }
}

/// An error in etcd's words.
pub(super) fn refusal(error: &Error) -> Status {
    match error {
        Error::Compacted { .. } => Status::out_of_range("etcdserver: mvcc: required revision has been compacted"),
        Error::FutureRevision { .. } => {
            Status::out_of_range("etcdserver: mvcc: required revision is a future revision")
        }
        Error::DuplicateKey { .. } => Status::invalid_argument("etcdserver: duplicate key given in txn request"),
        Error::TooLarge { .. } => Status::invalid_argument("etcdserver: request is too large"),
        Error::LeaseNotFound(_) => Status::not_found("etcdserver: requested lease not found"),
        Error::LeaseExists(_) => Status::failed_precondition("etcdserver: lease already exists"),
        Error::ReadOnly { reason } => {
            tracing::debug!(%reason, "a write of the etcd face is refused");
            Status::resource_exhausted("etcdserver: mvcc: database space exceeded")
        }
        Error::Closed => Status::unavailable("etcdserver: server stopped"),
        Error::Unknown { .. } => Status::unavailable("etcdserver: request timed out"),
        Error::Corrupt { .. } => Status::data_loss(error.to_string()),
        // Clients try again what is unavailable; a disk does not get better by that.
        Error::Io { source, .. } => {
            let told = format!("{error}: {source}");
            match source.kind() {
                std::io::ErrorKind::StorageFull => Status::resource_exhausted(told),
                _ => Status::failed_precondition(told),
            }
        }
        other => Status::unavailable(other.to_string()),
    }
}
