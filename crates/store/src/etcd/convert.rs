//! The trait's words as etcd's messages and back.

use bytes::Bytes;

use crate::proto;
use crate::{
    Compare, Error, Event, KeyRange, KeyValue, Op, OpResult, Range, RangeResult, Relation, Target, Txn, TxnResult,
};

/// Where keys are kept: below `/registry`, or below another prefix that stands for it.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// `None`: as they are.
    prefix: Option<Bytes>,
}

const REGISTRY: &[u8] = b"/registry";

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        let own = prefix.as_bytes() != REGISTRY;
        Self { prefix: own.then(|| Bytes::copy_from_slice(prefix.as_bytes())) }
    }

    fn swap(key: &Bytes, from: &[u8], to: &[u8]) -> Bytes {
        match key.strip_prefix(from) {
            Some(rest) => [to, rest].concat().into(),
            None => key.clone(),
        }
    }

    pub(super) fn there(&self, key: &Bytes) -> Bytes {
        self.prefix.as_ref().map_or_else(|| key.clone(), |prefix| Self::swap(key, REGISTRY, prefix))
    }

    pub(super) fn here(&self, key: Bytes) -> Bytes {
        match &self.prefix {
            None => key,
            Some(prefix) => Self::swap(&key, prefix, REGISTRY),
        }
    }

    /// A range of keys as they are in etcd.
    pub(super) fn keys(&self, keys: &KeyRange) -> KeyRange {
        KeyRange { start: self.there(&keys.start), end: keys.end.as_ref().map(|end| self.there(end)) }
    }

    /// A range as etcd writes one: key and end.
    pub(super) fn range(&self, keys: &KeyRange) -> (Bytes, Bytes) {
        let Some(end) = &keys.end else { return (self.there(&keys.start), Bytes::new()) };
        let open = |key: &Bytes| if key.is_empty() { Bytes::from_static(&[0]) } else { self.there(key) };
        (open(&keys.start), open(end))
    }

    pub(super) fn key_value(&self, kv: proto::KeyValue) -> KeyValue {
        KeyValue {
            key: self.here(kv.key),
            value: kv.value,
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        }
    }

    pub(super) fn event(&self, event: proto::Event) -> Option<Event> {
        let previous = event.prev_kv.map(|kv| self.key_value(kv));
        let kv = event.kv?;
        Some(if event.r#type == proto::event::EventType::Delete as i32 {
            Event::Delete { key: self.here(kv.key), revision: kv.mod_revision, previous }
        } else {
            Event::Put { kv: self.key_value(kv), previous }
        })
    }

    pub(super) fn range_request(&self, range: &Range) -> proto::RangeRequest {
        let (key, range_end) = self.range(&range.keys);
        proto::RangeRequest {
            key,
            range_end,
            limit: i64::try_from(range.limit).unwrap_or(i64::MAX),
            revision: range.revision,
            keys_only: range.keys_only,
            count_only: range.count_only,
            ..Default::default()
        }
    }

    pub(super) fn range_result(&self, response: proto::RangeResponse, revision: i64) -> RangeResult {
        RangeResult {
            kvs: response.kvs.into_iter().map(|kv| self.key_value(kv)).collect(),
            count: usize::try_from(response.count).unwrap_or_default(),
            more: response.more,
            revision,
        }
    }

    pub(super) fn txn_request(&self, txn: Txn) -> proto::TxnRequest {
        self.txn_within(txn, false)
    }

    fn txn_within(&self, txn: Txn, previous: bool) -> proto::TxnRequest {
        let previous = previous || txn.previous;
        let ops = |ops: Vec<Op>| ops.into_iter().map(|op| self.op(op, previous)).collect();
        proto::TxnRequest {
            compare: txn.compares.into_iter().map(|compare| self.compare(compare)).collect(),
            success: ops(txn.success),
            failure: ops(txn.failure),
        }
    }

    fn op(&self, op: Op, previous: bool) -> proto::RequestOp {
        use proto::request_op::Request;
        let request = match op {
            Op::Put { key, value, lease } => Request::RequestPut(proto::PutRequest {
                key: self.there(&key),
                value,
                lease,
                prev_kv: previous,
                ..Default::default()
            }),
            Op::Delete { keys } => {
                let (key, range_end) = self.range(&keys);
                // Which keys went is asked in any case.
                Request::RequestDeleteRange(proto::DeleteRangeRequest { key, range_end, prev_kv: true })
            }
            Op::Range(range) => Request::RequestRange(self.range_request(&range)),
            Op::Txn(txn) => Request::RequestTxn(self.txn_within(txn, previous)),
        };
        proto::RequestOp { request: Some(request) }
    }

    fn compare(&self, compare: Compare) -> proto::Compare {
        use proto::compare::{CompareResult, CompareTarget, TargetUnion};
        let (target, value) = match compare.target {
            Target::ModRevision(wanted) => (CompareTarget::Mod, TargetUnion::ModRevision(wanted)),
            Target::CreateRevision(wanted) => (CompareTarget::Create, TargetUnion::CreateRevision(wanted)),
            Target::Version(wanted) => (CompareTarget::Version, TargetUnion::Version(wanted)),
            Target::Value(wanted) => (CompareTarget::Value, TargetUnion::Value(wanted)),
            Target::Lease(wanted) => (CompareTarget::Lease, TargetUnion::Lease(wanted)),
        };
        let result = match compare.relation {
            Relation::Equal => CompareResult::Equal,
            Relation::NotEqual => CompareResult::NotEqual,
            Relation::Greater => CompareResult::Greater,
            Relation::Less => CompareResult::Less,
        };
        proto::Compare {
            result: result as i32,
            target: target as i32,
            key: self.there(&compare.key),
            target_union: Some(value),
            range_end: Bytes::new(),
        }
    }

    pub(super) fn txn_result(&self, response: proto::TxnResponse) -> Result<TxnResult, Error> {
        let revision = revision(response.header.as_ref())?;
        let results = self.results(response.responses, revision)?;
        Ok(TxnResult { succeeded: response.succeeded, revision, results })
    }

    fn results(&self, responses: Vec<proto::ResponseOp>, revision: i64) -> Result<Vec<OpResult>, Error> {
        use proto::response_op::Response;
        let result = |op: proto::ResponseOp| match op.response {
            Some(Response::ResponsePut(put)) => {
                Ok(OpResult::Put { previous: put.prev_kv.map(|kv| self.key_value(kv)) })
            }
            Some(Response::ResponseDeleteRange(delete)) => {
                let deleted = delete.prev_kvs.into_iter().map(|kv| self.key_value(kv)).collect();
                Ok(OpResult::Delete { deleted })
            }
            Some(Response::ResponseRange(range)) => Ok(OpResult::Range(self.range_result(range, revision))),
            Some(Response::ResponseTxn(txn)) => {
                Ok(OpResult::Txn { succeeded: txn.succeeded, results: self.results(txn.responses, revision)? })
            }
            None => Err(malformed("operation's result")),
        };
        responses.into_iter().map(result).collect()
    }
}

/// The revision in an answer's header.
pub(super) fn revision(header: Option<&proto::ResponseHeader>) -> Result<i64, Error> {
    header.map(|header| header.revision).ok_or_else(|| malformed("header"))
}

fn malformed(what: &str) -> Error {
    Error::Unavailable(format!("an answer of etcd has no {what} that is understood"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn another_prefix_stands_for_the_registry() {
        let layout = Layout::new("/mine/k8s");
        assert_eq!(layout.there(&key("/registry/pods/a")), key("/mine/k8s/pods/a"));
        assert_eq!(layout.here(key("/mine/k8s/pods/a")), key("/registry/pods/a"));
        assert_eq!(layout.range(&KeyRange::prefix(key("/registry/"))), (key("/mine/k8s/"), key("/mine/k8s0")));
        assert_eq!(layout.there(&key("compact")), key("compact"));
        let plain = Layout::new("/registry");
        assert_eq!(plain.there(&key("/registry/pods/a")), key("/registry/pods/a"));
    }

    #[test]
    fn open_ends_are_written_as_etcd_writes_them() {
        let layout = Layout::new("/registry");
        assert_eq!(layout.range(&KeyRange::all()), (key("\0"), key("\0")));
        assert_eq!(layout.range(&KeyRange::key(key("/a"))), (key("/a"), key("")));
        assert_eq!(layout.range(&KeyRange::between(key("/a"), key(""))), (key("/a"), key("\0")));
    }
}
