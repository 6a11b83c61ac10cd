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

impl KeyRange {
    /// One key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: None }
    }

    /// Every key that begins with `prefix`; all keys when it is empty.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start = prefix.into();
        let end = match start.iter().rposition(|byte| *byte != 0xff) {
            Some(last) => {
                let mut end = start[..=last].to_vec();
                end[last] += 1;
                Bytes::from(end)
            }
            None => Bytes::new(),
        };
        Self { start, end: Some(end) }
    }

    /// From `start` to just before `end`; an empty `end` is the end of the key space.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// The whole key space.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: Some(Bytes::new()) }
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            None => key == self.start,
            Some(end) => key >= &self.start[..] && (end.is_empty() || key < &end[..]),
        }
    }

    /// Whether keys that begin with `prefix` may lie in the range.
    pub fn meets_prefix(&self, prefix: &[u8]) -> bool {
        match &self.end {
            None => self.start.starts_with(prefix),
            Some(end) => {
                (self.start.starts_with(prefix) || &self.start[..] < prefix) && (end.is_empty() || &end[..] > prefix)
            }
        }
    }
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
    Put {
        key: Bytes,
        value: Bytes,
        lease: LeaseId,
    },
    Delete {
        keys: KeyRange,
    },
    Range(Range),
    /// All compares, also of transactions within, are evaluated before the first operation.
    Txn(Txn),
}

/// Compares joined by "and", and what follows from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    pub compares: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
    /// Tell the values that puts replace and deletes remove. Without it the `deleted` of the results may lack values and
    /// `previous` values or all, whatever costs the engine nothing.
    pub previous: bool,
}

impl Txn {
    /// Applies the operations without a condition.
    pub fn of(ops: Vec<Op>) -> Self {
        Self { success: ops, ..Self::default() }
    }

    /// Applies `op` when the key's modification revision is `expected` (0: the key does not exist);
    /// otherwise tells the key as it is, in a [`OpResult::Range`].
    pub fn guarded(key: Bytes, expected: i64, op: Op) -> Self {
        Self {
            compares: vec![Compare {
                key: key.clone(),
                relation: Relation::Equal,
                target: Target::ModRevision(expected),
            }],
            success: vec![op],
            failure: vec![Op::Range(Range::of(KeyRange::key(key)))],
            previous: false,
        }
    }
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
    Put {
        previous: Option<KeyValue>,
    },
    /// In key order.
    Delete {
        deleted: Vec<KeyValue>,
    },
    Range(RangeResult),
    Txn {
        succeeded: bool,
        results: Vec<OpResult>,
    },
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

impl Range {
    /// All of `keys`, at present, with values.
    pub fn of(keys: KeyRange) -> Self {
        Self { keys, revision: 0, limit: 0, count_only: false, keys_only: false }
    }

    /// The same at a past revision (0: at present).
    pub fn at(self, revision: i64) -> Self {
        Self { revision, ..self }
    }

    /// The same with at most `limit` keys (0: all).
    pub fn limit(self, limit: usize) -> Self {
        Self { limit, ..self }
    }
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

impl Watch {
    /// Everything in `keys` from `start_revision` (0: from now), with progress batches.
    pub fn of(keys: KeyRange, start_revision: i64) -> Self {
        Self { keys, start_revision, previous: false, progress: true }
    }
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
    Put {
        kv: KeyValue,
        previous: Option<KeyValue>,
    },
    /// `revision` is that of the deletion.
    Delete {
        key: Bytes,
        revision: i64,
        previous: Option<KeyValue>,
    },
}

impl Event {
    pub fn key(&self) -> &Bytes {
        match self {
            Event::Put { kv, .. } => &kv.key,
            Event::Delete { key, .. } => key,
        }
    }

    pub fn revision(&self) -> i64 {
        match self {
            Event::Put { kv, .. } => kv.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreStatus {
    pub revision: i64,
    pub compacted: i64,
    pub keys: usize,
    /// Bytes on disk.
    pub size: u64,
    /// Why writes are refused now, if they are.
    pub read_only: Option<String>,
}
