//! Watches that outlive connections and members.
//!
//! A follower knows the next revision that it has not delivered and asks for it again after each loss, so there is no gap
//! and no repeat. Two ways to know how far a watch has come:
//!
//! - where progress notifications are reliable, the watched range alone is watched, and a notification is asked for;
//! - where they are not, the whole key space is watched. There every revision has an event, so to have seen the event of
//!   a revision proves to have seen all before it, a missing one shows, and a consistent read waits for etcd's own word.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tonic::{Request, Status, Streaming};

use super::convert;
use super::members::Member;
use super::version::progress_is_reliable;
use super::{Core, MARK_PATIENCE, MAX_ANSWER};
use crate::proto;
use crate::proto::watch_client::WatchClient;
use crate::{Error, Event, KeyRange, Watch, WatchBatch, WatchStream};

/// A member that does not establish a watch within this is left for another.
const CREATE_PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Progress is asked for again this often until it is told, as upstream does.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// Notifications that are no answer to one watch.
const ALL_WATCHES: i64 = -1;

struct Follower {
    core: Arc<Core>,
    watch: Watch,
    /// What is watched, as etcd's keys.
    there: KeyRange,
    wanted: watch::Receiver<i64>,
    /// The first revision that is not delivered yet.
    next: i64,
    /// The first batch, not delivered yet.
    greeting: Option<i64>,
    live: Option<Live>,
    /// Where the event of `next` was missing once already.
    gap: Option<i64>,
    pause: Duration,
    ended: bool,
}

/// An established watch on one member.
struct Live {
    member: Arc<Member>,
    health: watch::Receiver<bool>,
    requests: mpsc::Sender<proto::WatchRequest>,
    responses: Streaming<proto::WatchResponse>,
    /// The whole key space is watched.
    whole: bool,
    /// Fragments of an answer.
    parts: Vec<proto::Event>,
}

/// Why a stream has to be made anew, or never will be.
enum Loss {
    Lost(String),
    Compacted(i64),
}

impl From<Status> for Loss {
    fn from(status: Status) -> Self {
        Self::Lost(super::told(&status))
    }
}

pub(super) async fn watch(core: &Arc<Core>, watch: Watch) -> Result<WatchStream, Error> {
    // A member may lag behind: what was acknowledged before this call is not told to a watch from now.
    let current = core.revision().await?;
    let next = if watch.start_revision == 0 { current + 1 } else { watch.start_revision };
    let mut follower = Follower {
        core: Arc::clone(core),
        wanted: core.wanted.subscribe(),
        there: core.layout.keys(&watch.keys),
        watch,
        next,
        greeting: Some(current),
        live: None,
        gap: None,
        pause: PAUSE,
        ended: false,
    };
    // Established before this returns, so that a refusal is an answer to this call where etcd tells it at once.
    follower.establish().await?;
    Ok(Box::pin(futures::stream::unfold(follower, |mut follower| async move {
        if follower.ended {
            return None;
        }
        let result = follower.next().await;
        follower.ended = result.is_err();
        Some((result, follower))
    })))
}

impl Follower {
    async fn next(&mut self) -> Result<WatchBatch, Error> {
        if let Some(revision) = self.greeting.take() {
            return Ok(WatchBatch { revision, events: Vec::new() });
        }
        loop {
            let before = self.next;
            match self.receive().await {
                Ok(events) => {
                    self.pause = PAUSE;
                    if !events.is_empty() || (self.watch.progress && self.next > before) {
                        return Ok(WatchBatch { revision: self.next - 1, events });
                    }
                }
                Err(Loss::Compacted(compacted)) => {
                    return Err(Error::Compacted { asked: self.next, compacted });
                }
                Err(Loss::Lost(reason)) => {
                    if let Some(live) = self.live.take() {
                        tracing::info!(endpoint = %live.member.endpoint, %reason, next = self.next, "a watch of etcd was lost and is made anew");
                        self.rest().await;
                    }
                    self.establish().await?;
                }
            }
        }
    }

    async fn rest(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    /// Asks members in turn, as long as it takes.
    async fn establish(&mut self) -> Result<(), Error> {
        loop {
            let members: Vec<Arc<Member>> = self.core.members.in_turn().into_iter().cloned().collect();
            for member in members {
                match tokio::time::timeout(CREATE_PATIENCE, self.open(&member)).await {
                    Ok(Ok(live)) => {
                        self.live = Some(live);
                        return Ok(());
                    }
                    Ok(Err(Loss::Compacted(compacted))) => {
                        return Err(Error::Compacted { asked: self.next, compacted });
                    }
                    Ok(Err(Loss::Lost(reason))) => {
                        tracing::debug!(endpoint = %member.endpoint, %reason, "cannot watch here");
                    }
                    Err(_) => member.set_health(self.core.members.all().len() == 1),
                }
            }
            self.rest().await;
        }
    }

    async fn open(&self, member: &Arc<Member>) -> Result<Live, Loss> {
        let status = member.status().await?;
        if status.leader == 0 {
            return Err(Loss::Lost("the member has no leader".into()));
        }
        let whole = !progress_is_reliable(&status.version);
        let keys = if whole { KeyRange::all() } else { self.watch.keys.clone() };
        let (key, range_end) = self.core.layout.range(&keys);
        // etcd refuses to watch nothing; what is not wanted is left out when it comes.
        let range_end = if range_end.len() > 1 && range_end <= key { Bytes::new() } else { range_end };
        let create = proto::WatchCreateRequest {
            key,
            range_end,
            // One below: etcd may have lost a deletion at the very mark of a compaction (issue 18089), which then shows
            // as compacted.
            start_revision: (self.next - 1).max(1),
            progress_notify: self.watch.progress && !whole,
            prev_kv: self.watch.previous,
            fragment: true,
            ..Default::default()
        };
        let mut live = Live::open(member, create, whole).await?;
        loop {
            let response = live.response().await?;
            if let Some(loss) = cancelled(&response) {
                return Err(loss);
            }
            if response.created {
                return Ok(live);
            }
        }
    }

    /// The next events that are wanted; none when progress was made without.
    async fn receive(&mut self) -> Result<Vec<Event>, Loss> {
        let Some(live) = &mut self.live else { return Err(Loss::Lost("not established".into())) };
        let response = loop {
            let behind = !live.whole && self.watch.progress && *self.wanted.borrow_and_update() >= self.next;
            if behind {
                let ask = proto::watch_request::RequestUnion::ProgressRequest(proto::WatchProgressRequest {});
                // One that waits already serves as well.
                drop(live.requests.try_send(proto::WatchRequest { request_union: Some(ask) }));
            }
            tokio::select! {
                response = live.responses.message() => {
                    break response?.ok_or_else(|| Loss::Lost("the stream ended".into()))?;
                }
                died = live.health.wait_for(|healthy| !healthy) => {
                    drop(died);
                    return Err(Loss::Lost("the member does not answer".into()));
                }
                () = tokio::time::sleep(PROGRESS_INTERVAL), if behind => {}
                changed = self.wanted.changed(), if !behind && !live.whole => {
                    changed.map_err(|_| Loss::Lost("closed".into()))?;
                }
            }
        };
        if let Some(loss) = cancelled(&response) {
            return Err(loss);
        }
        if response.created {
            return Ok(Vec::new());
        }
        let revision = convert::revision(response.header.as_ref()).map_err(|error| Loss::Lost(error.to_string()))?;
        if response.events.is_empty() && live.parts.is_empty() {
            if !live.whole {
                self.next = self.next.max(revision + 1);
            }
            return Ok(Vec::new());
        }
        if response.watch_id == ALL_WATCHES {
            return Ok(Vec::new());
        }
        live.parts.extend(response.events);
        if response.fragment {
            return Ok(Vec::new());
        }
        let (whole, parts) = (live.whole, std::mem::take(&mut live.parts));
        self.take(parts, whole)
    }

    /// Leaves out what was delivered before or is not wanted, and looks for what is missing.
    fn take(&mut self, parts: Vec<proto::Event>, whole: bool) -> Result<Vec<Event>, Loss> {
        let mut next = self.next;
        let mut events = Vec::new();
        for event in parts {
            let Some(kv) = &event.kv else { continue };
            let (revision, wanted) = (kv.mod_revision, self.there.contains(&kv.key));
            if revision < self.next {
                continue;
            }
            if whole && revision > next {
                // Told again from there; if it is still missing it is gone.
                return Err(match self.gap.replace(next) {
                    Some(gap) if gap == next => Loss::Compacted(revision),
                    _ => Loss::Lost(format!("revision {next} is missing before {revision}")),
                });
            }
            next = revision + 1;
            if wanted {
                events.extend(self.core.layout.event(event));
            }
        }
        self.next = next;
        Ok(events)
    }
}

impl Live {
    async fn open(member: &Arc<Member>, create: proto::WatchCreateRequest, whole: bool) -> Result<Self, Loss> {
        let health = member.health();
        let (requests, sent) = mpsc::channel(1);
        let create = proto::watch_request::RequestUnion::CreateRequest(create);
        let create = proto::WatchRequest { request_union: Some(create) };
        requests.try_send(create).map_err(|error| Loss::Lost(error.to_string()))?;
        let mut request = Request::new(tokio_stream::wrappers::ReceiverStream::new(sent));
        // A member that loses its leader then ends the stream.
        request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        let mut client = WatchClient::new(member.channel()).max_decoding_message_size(MAX_ANSWER);
        let responses = client.watch(request).await?.into_inner();
        Ok(Self { member: Arc::clone(member), health, requests, responses, whole, parts: Vec::new() })
    }

    async fn response(&mut self) -> Result<proto::WatchResponse, Loss> {
        self.responses.message().await?.ok_or_else(|| Loss::Lost("the stream ended".into()))
    }
}

fn cancelled(response: &proto::WatchResponse) -> Option<Loss> {
    if response.compact_revision > 0 {
        return Some(Loss::Compacted(response.compact_revision));
    }
    response.canceled.then(|| Loss::Lost(format!("etcd ended the watch: {}", response.cancel_reason)))
}

/// The compaction mark, told by the refusal of a watch that starts below it.
pub(super) async fn compaction_mark(core: &Core) -> Result<i64, Error> {
    let create =
        || proto::WatchCreateRequest { key: Bytes::from_static(b"\0"), start_revision: 1, ..Default::default() };
    let mut last = "no member answers".to_owned();
    for member in core.members.in_turn() {
        let asked = async {
            let mut live = Live::open(member, create(), false).await?;
            loop {
                if let Some(loss) = cancelled(&live.response().await?) {
                    return Err::<(), Loss>(loss);
                }
            }
        };
        match tokio::time::timeout(MARK_PATIENCE, asked).await {
            Ok(Err(Loss::Compacted(compacted))) => return Ok(compacted),
            Ok(Err(Loss::Lost(reason))) => last = reason,
            Ok(Ok(())) => {}
            Err(_) => last = format!("{} does not tell its compaction mark", member.endpoint),
        }
    }
    Err(Error::Unavailable(last))
}
