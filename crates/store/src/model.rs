//! The words of the state seam: keys, values, transactions, ranges, watches.

use bytes::Bytes;

/// Names a lease; never zero.
pub type LeaseId = i64;

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// The revision that created this key (since its last deletion).
    pub create_revision: i64,
    /// The revision of this version.
    pub mod_revision: i64,
    /// 1 when created, then one more with each put.
    pub version: i64,
    /// The lease it hangs on, or 0.
    pub lease: LeaseId,
}

/// Which keys: one, or a half-open interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    pub start: Bytes,
    /// `None`: the one key `start`. `Some(empty)`: to the end of the key space. Otherwise the exclusive end.
    pub end: Option<Bytes>,
}

/// What a compare looks at, and the value it must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// 0 means: the key does not exist.
    ModRevision(i64),
    /// 0 means: the key does not exist.
    CreateRevision(i64),
    Version(i64),
    Value(Bytes),
    Lease(LeaseId),
}

/// How a compare relates the key's present state to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    Equal,
    NotEqual,
    Greater,
    Less,
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    pub key: Bytes,
    pub relation: Relation,
    pub target: Target,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put { key: Bytes, value: Bytes, lease: LeaseId },
    Delete { keys: KeyRange },
    Range(Range),
}

/// Compares joined by "and", and what follows from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult {
    pub succeeded: bool,
    /// The store's revision after it: its own when it changed something.
    pub revision: i64,
    /// One for each operation that was applied, in order.
    pub results: Vec<OpResult>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    Put { previous: Option<KeyValue> },
    Delete { deleted: Vec<KeyValue> },
    Range(RangeResult),
}

/// A read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    pub keys: KeyRange,
    /// 0: the present.
    pub revision: i64,
    /// 0: no limit.
    pub limit: usize,
    /// Only the number of keys.
    pub count_only: bool,
    /// Leave the values empty.
    pub keys_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeResult {
    pub kvs: Vec<KeyValue>,
    /// Keys of the whole range at the revision, whatever the limit.
    pub count: usize,
    /// Keys remain beyond the limit.
    pub more: bool,
    /// The store's revision when the range was read.
    pub revision: i64,
}

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub keys: KeyRange,
    /// First revision wanted; 0: from now.
    pub start_revision: i64,
    /// Tell the value that each change replaced.
    pub previous: bool,
    /// Send empty batches, as progress, when nothing else is sent for a while or a progress request asks.
    pub progress: bool,
}

/// Everything that one or more revisions did to the watched keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// Every change up to and including this revision has been delivered.
    pub revision: i64,
    pub events: Vec<Event>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Put { kv: KeyValue, previous: Option<KeyValue> },
    /// `kv` has the key and the revision of the deletion.
    Delete { key: Bytes, revision: i64, previous: Option<KeyValue> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreStatus {
    pub revision: i64,
    pub compacted: i64,
    pub keys: usize,
    /// Bytes on disk.
    pub size: u64,
    /// Why writes are refused now, if they are.
    pub read_only: Option<String>,
}
