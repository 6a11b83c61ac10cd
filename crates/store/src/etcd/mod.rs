//! The etcd engine: the trait over etcd's v3 API.
//!
//! | file | what |
//! |---|---|
//! | `options`, `dial` | where members are; connections to one |
//! | `members` | whom to ask, and when another |
//! | `convert` | the trait's words as messages, and the layout of keys |
//! | `watch`, `version` | watches that outlive connections; what to rely on in which version |
//! | `admin` | snapshots, hashes and defragmentation of members |
//! | `compactor` | forgetting history once for all servers that share an etcd |
//!
//! Invariants: a write is sent again only when it is certain that nothing was done, and is otherwise told as
//! [`Error::Unknown`]; no watch tells a revision as seen because of a progress notification that its member's version
//! can't be trusted with.

mod admin;
mod compactor;
mod convert;
mod dial;
pub(crate) mod members;
mod options;
#[cfg(test)]
pub(crate) mod tests;
mod version;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch::Sender;
use tonic::Code;

pub use options::{Endpoint, Options, Tls};

use self::convert::Layout;
use self::members::{Failure, Members, Repeat};
use crate::proto::kv_client::KvClient;
use crate::proto::lease_client::LeaseClient;
use crate::proto::maintenance_client::MaintenanceClient;
use crate::{
    Error, History, Kept, KeyRange, LeaseId, Op, Range, RangeResult, Store, StoreStatus, Txn, TxnResult, Versions,
    Watch, WatchStream, proto,
};

/// Answers may be as large as etcd makes them.
const MAX_ANSWER: usize = i32::MAX as usize;
/// What etcd takes in one request unless it is told otherwise.
const REQUEST_LIMIT: usize = 3 << 19;
/// The mark of a compaction is told by a refused watch, soon.
const MARK_PATIENCE: Duration = Duration::from_secs(5);

/// A handle on an etcd cluster. Dropping the last one ends what it does by itself.
pub struct Etcd {
    core: Arc<Core>,
    compactor: Option<tokio::task::JoinHandle<()>>,
}

/// What calls and watches share.
struct Core {
    members: Arc<Members>,
    layout: Layout,
    /// The highest revision for which progress was asked.
    wanted: Sender<i64>,
}

impl Etcd {
    /// Reaches the cluster and makes sure that it answers.
    ///
    /// To be called on the runtime that will use it. Fails with [`Error::Invalid`] when a file can't be used, with
    /// [`Error::Unavailable`] when no member answers.
    pub async fn connect(options: Options) -> Result<Arc<Self>, Error> {
        if let Some(tls) = options.tls.clone() {
            // A mistake in a file is told now and by name, not as a failed call.
            let checked = tokio::task::spawn_blocking(move || tls.config().map(drop)).await;
            checked.map_err(|_| Error::Closed)??;
        }
        let core = Arc::new(Core {
            members: Members::new(&options),
            layout: Layout::new(&options.prefix),
            wanted: Sender::new(0),
        });
        core.revision().await?;
        core.same_cluster().await?;
        let compactor = options
            .compaction_interval
            .map(|interval| tokio::spawn(compactor::keep_compacting(Arc::downgrade(&core), interval)));
        Ok(Arc::new(Self { core, compactor }))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        if let Some(compactor) = &self.compactor {
            compactor.abort();
        }
    }
}

impl Core {
    /// Refuses endpoints that belong to different clusters, of those that answer.
    async fn same_cluster(&self) -> Result<(), Error> {
        let asked = futures::future::join_all(self.members.all().iter().map(|member| member.status())).await;
        let mut first: Option<(u64, String)> = None;
        for (member, status) in self.members.all().iter().zip(asked) {
            let Ok(status) = status else {
                member.set_health(self.members.all().len() == 1);
                continue;
            };
            let cluster = status.header.map_or(0, |header| header.cluster_id);
            match &first {
                Some((known, endpoint)) if *known != cluster => {
                    return Err(Error::Invalid {
                        option: "etcd endpoints".into(),
                        reason: format!("{endpoint} and {} are of different clusters", member.endpoint),
                    });
                }
                Some(_) => {}
                None => first = Some((cluster, member.endpoint.to_string())),
            }
        }
        Ok(())
    }

    async fn raw_range(&self, request: proto::RangeRequest) -> Result<proto::RangeResponse, Failure> {
        let call = |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(MAX_ANSWER).range(request).await
        };
        self.members.call(Repeat::Safe, request, call).await
    }

    /// The cluster's revision, agreed upon by a majority.
    async fn revision(&self) -> Result<i64, Error> {
        let request = proto::RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, ..Default::default() };
        let response = self.raw_range(request).await.map_err(|failure| read_failed(&failure))?;
        convert::revision(response.header.as_ref())
    }

    /// The compaction mark, which etcd tells only to those who ask for too much.
    async fn compacted(&self) -> Result<i64, Error> {
        let first =
            proto::RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, revision: 1, ..Default::default() };
        match self.raw_range(first).await {
            Ok(_) => Ok(0),
            Err(Failure::Refused(status)) if is_compacted(&status) => watch::compaction_mark(self).await,
            Err(failure) => Err(read_failed(&failure)),
        }
    }

    async fn txn(&self, request: proto::TxnRequest) -> Result<proto::TxnResponse, Failure> {
        let call = |channel, request| async move {
            KvClient::new(channel).max_decoding_message_size(MAX_ANSWER).txn(request).await
        };
        let writes = |op: &proto::RequestOp| !matches!(op.request, Some(proto::request_op::Request::RequestRange(_)));
        let repeat = match request.success.iter().chain(&request.failure).any(writes) {
            true => Repeat::Unsafe,
            false => Repeat::Safe,
        };
        self.members.call(repeat, request, call).await
    }

    async fn compact(&self, revision: i64) -> Result<(), Failure> {
        let call = |channel, request| async move { KvClient::new(channel).compact(request).await };
        // Compacting twice at one revision does nothing more than once.
        let request = proto::CompactionRequest { revision, physical: false };
        self.members.call(Repeat::Unsafe, request, call).await.map(drop)
    }

    /// Puts numbers to a refusal that names a revision.
    async fn refused_revision(&self, asked: i64, status: &tonic::Status) -> Option<Error> {
        if is_compacted(status) {
            return Some(match self.compacted().await {
                Ok(compacted) => Error::Compacted { asked, compacted },
                Err(error) => error,
            });
        }
        if status.message().contains("required revision is a future revision") {
            return Some(match self.revision().await {
                Ok(current) => Error::FutureRevision { asked, current },
                Err(error) => error,
            });
        }
        None
    }
}

fn is_compacted(status: &tonic::Status) -> bool {
    status.message().contains("required revision has been compacted")
}

/// What a read that failed means, whatever was read.
fn read_failed(failure: &Failure) -> Error {
    match failure {
        Failure::Refused(status) => refusal(status),
        Failure::Unreachable(status) | Failure::Unknown(status) => Error::Unavailable(told(status)),
    }
}

fn write_failed(failure: &Failure) -> Error {
    match failure {
        Failure::Unknown(status) => Error::Unknown { reason: told(status) },
        other => read_failed(other),
    }
}

fn refusal(status: &tonic::Status) -> Error {
    let reason = told(status);
    match status.code() {
        Code::ResourceExhausted if reason.contains("database space exceeded") => Error::ReadOnly { reason },
        _ => Error::Unavailable(reason),
    }
}

/// A status with its causes, because "transport error" alone helps nobody.
fn told(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
        source = error.source();
    }
    text
}

/// Bytes that a transaction writes, and the keys it writes twice, if any.
fn outline(txn: &Txn) -> (usize, Option<String>, LeaseId, i64) {
    let (mut size, mut twice, mut inside, mut lease, mut asked) = (0, None, None, 0, 0);
    for ops in [&txn.success, &txn.failure] {
        let mut puts = std::collections::BTreeSet::new();
        for op in ops {
            match op {
                Op::Put { key, value, lease: on } => {
                    size += key.len() + value.len();
                    lease = if *on == 0 { lease } else { *on };
                    if !puts.insert(&key[..]) {
                        twice = Some(key);
                    }
                }
                Op::Range(range) => asked = asked.max(range.revision),
                Op::Txn(within) => {
                    let (more, also, on, at) = outline(within);
                    size += more;
                    inside = inside.or(also);
                    lease = if on == 0 { lease } else { on };
                    asked = asked.max(at);
                }
                Op::Delete { .. } => {}
            }
        }
        for op in ops {
            if let Op::Delete { keys } = op {
                twice = twice.or_else(|| {
                    ops.iter().find_map(|op| match op {
                        Op::Put { key, .. } if keys.contains(key) => Some(key),
                        _ => None,
                    })
                });
            }
        }
    }
    let twice = twice.map(|key| String::from_utf8_lossy(key).into_owned()).or(inside);
    (size, twice, lease, asked)
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

#[async_trait]
impl Store for Etcd {
    async fn txn(&self, mut txn: Txn) -> Result<TxnResult, Error> {
        let asks = !txn.success.is_empty() || !txn.failure.is_empty();
        if let Some(first) = txn.compares.first().filter(|_| !asks) {
            // etcd judges a transaction without operations by what the member has, which may be old; with a read that is to be
            // linearizable it asks the leader first.
            let read = Op::Range(Range { count_only: true, ..Range::of(KeyRange::key(first.key.clone())) });
            txn.success.push(read.clone());
            txn.failure.push(read);
        }
        // Kept for what a refusal has to name.
        let (size, twice, lease, asked) = outline(&txn);
        match self.core.txn(self.core.layout.txn_request(txn)).await {
            Ok(response) => self.core.layout.txn_result(response).map(|mut result| {
                if !asks {
                    result.results.clear();
                }
                result
            }),
            Err(Failure::Refused(status)) => {
                if let Some(error) = self.core.refused_revision(asked, &status).await {
                    return Err(error);
                }
                let message = status.message();
                Err(if message.contains("duplicate key given") {
                    Error::DuplicateKey { key: twice.unwrap_or_default() }
                } else if message.contains("requested lease not found") {
                    Error::LeaseNotFound(lease)
                } else if message.contains("request is too large") || message.contains("message larger than max") {
                    Error::TooLarge { size, limit: REQUEST_LIMIT }
                } else {
                    refusal(&status)
                })
            }
            Err(failure) => Err(write_failed(&failure)),
        }
    }

    async fn range(&self, range: Range) -> Result<RangeResult, Error> {
        match self.core.raw_range(self.core.layout.range_request(&range)).await {
            Ok(response) => {
                let revision = convert::revision(response.header.as_ref())?;
                Ok(self.core.layout.range_result(response, revision))
            }
            Err(Failure::Refused(status)) => match self.core.refused_revision(range.revision, &status).await {
                Some(error) => Err(error),
                None => Err(refusal(&status)),
            },
            Err(failure) => Err(read_failed(&failure)),
        }
    }

    async fn watch(&self, watch: Watch) -> Result<WatchStream, Error> {
        watch::watch(&self.core, watch).await
    }

    async fn compact(&self, revision: i64) -> Result<(), Error> {
        match self.core.compact(revision).await {
            Ok(()) => Ok(()),
            Err(Failure::Refused(status)) => match self.core.refused_revision(revision, &status).await {
                Some(error) => Err(error),
                None => Err(refusal(&status)),
            },
            Err(failure) => Err(write_failed(&failure)),
        }
    }

    async fn lease_grant(&self, ttl: Duration) -> Result<LeaseId, Error> {
        // etcd counts in seconds; never early.
        let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = proto::LeaseGrantRequest { ttl: i64::try_from(whole.max(1)).unwrap_or(i64::MAX), id: 0 };
        let call = |channel, request| async move { LeaseClient::new(channel).lease_grant(request).await };
        let granted: proto::LeaseGrantResponse =
            self.core.members.call(Repeat::Unsafe, request, call).await.map_err(|failure| write_failed(&failure))?;
        match granted.error.is_empty() {
            true => Ok(granted.id),
            false => Err(Error::Unavailable(granted.error)),
        }
    }

    async fn lease_keep_alive(&self, lease: LeaseId) -> Result<Duration, Error> {
        let call = |channel, request: tonic::Request<proto::LeaseKeepAliveRequest>| async move {
            let (metadata, extensions, message) = request.into_parts();
            let once = tonic::Request::from_parts(metadata, extensions, futures::stream::iter([message]));
            let mut answers = LeaseClient::new(channel).lease_keep_alive(once).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(tonic::Response::new).ok_or_else(|| tonic::Status::unavailable("the stream ended"))
        };
        let request = proto::LeaseKeepAliveRequest { id: lease };
        // Renewing twice is renewing.
        let renewed: proto::LeaseKeepAliveResponse = self
            .core
            .members
            .call(Repeat::Safe, request, call)
            .await
            .map_err(|failure| lease_failed(lease, &failure))?;
        match renewed.ttl {
            ..=0 => Err(Error::LeaseNotFound(lease)),
            ttl => Ok(seconds(ttl)),
        }
    }

    async fn lease_revoke(&self, lease: LeaseId) -> Result<(), Error> {
        let call = |channel, request| async move { LeaseClient::new(channel).lease_revoke(request).await };
        let request = proto::LeaseRevokeRequest { id: lease };
        let revoked = self.core.members.call(Repeat::Unsafe, request, call).await;
        revoked.map(drop).map_err(|failure| lease_failed(lease, &failure))
    }

    async fn request_progress(&self) -> Result<i64, Error> {
        let revision = self.core.revision().await?;
        self.core.wanted.send_if_modified(|wanted| {
            let higher = revision > *wanted;
            *wanted = revision.max(*wanted);
            higher
        });
        Ok(revision)
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let count = Range { count_only: true, ..Range::of(KeyRange::all()) };
        let counted = self.range(count).await?;
        let (size, read_only) = self.sizes().await?;
        Ok(StoreStatus {
            revision: counted.revision,
            compacted: self.core.compacted().await?,
            keys: counted.count,
            size,
            read_only,
        })
    }

    async fn health(&self) -> Result<Option<String>, Error> {
        // That a majority agrees, then that there is space.
        self.core.revision().await?;
        Ok(self.sizes().await?.1)
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }
}

/// etcd keeps no history beyond its compaction mark, and no times.
#[async_trait]
impl History for Etcd {
    async fn kept(&self) -> Result<Kept, Error> {
        Ok(Kept { revision: self.core.compacted().await?.max(1), since: None, bytes: 0 })
    }

    async fn revision_at(&self, _: &KeyRange, second: i64) -> Result<i64, Error> {
        Err(Error::TimeNotKept { asked: second, oldest: None })
    }

    async fn time_of(&self, _: i64) -> Result<Option<i64>, Error> {
        Ok(None)
    }

    async fn range_at(&self, range: Range) -> Result<RangeResult, Error> {
        self.range(range).await
    }

    async fn versions(&self, key: Bytes, until: i64, limit: usize) -> Result<Versions, Error> {
        crate::history::versions_by_watch(self, key, until, limit).await
    }
}

impl Etcd {
    /// Bytes on a member's disk, and why it takes no writes.
    async fn sizes(&self) -> Result<(u64, Option<String>), Error> {
        let call = |channel, request| async move { MaintenanceClient::new(channel).status(request).await };
        let status: proto::StatusResponse = self
            .core
            .members
            .call(Repeat::Safe, proto::StatusRequest {}, call)
            .await
            .map_err(|failure| read_failed(&failure))?;
        let alarm = status.errors.into_iter().find(|error| error.contains("alarm:"));
        Ok((u64::try_from(status.db_size).unwrap_or_default(), alarm))
    }
}

fn lease_failed(lease: LeaseId, failure: &Failure) -> Error {
    match failure {
        Failure::Refused(status) if status.message().contains("requested lease not found") => {
            Error::LeaseNotFound(lease)
        }
        other => write_failed(other),
    }
}
