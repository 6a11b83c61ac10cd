//! Watches: many on one stream, each with a task that hands its batches on, in order with the answers to requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Face;
use super::convert;
use crate::proto::watch_create_request::FilterType;
use crate::proto::watch_request::RequestUnion;
use crate::proto::{self, WatchCreateRequest, WatchRequest, WatchResponse};
use crate::{Embedded, Error, Event, Store, Watch, WatchBatch, WatchStream};

/// Answers that wait for a client that reads slowly; behind them wait the engine's queues, which are bounded.
const WAITING: usize = 16;
/// Larger answers are split when the client asked for that: etcd's limit of a request and what it adds.
const FRAGMENT_BYTES: usize = (3 << 19) + (1 << 19);
/// How often a watch that wants it is told of progress when nothing happens, as etcd does.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// Progress of all watches of a stream.
const ALL_WATCHES: i64 = -1;

type Answers = mpsc::Sender<Result<WatchResponse, Status>>;

/// What the watches of one stream share.
struct Streamed {
    face: Face,
    answers: Answers,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watches: HashMap<i64, Watched>,
    next_id: i64,
    /// Asked for, and told when all watches have handed on what is up to it.
    progress: Option<i64>,
}

struct Watched {
    task: Option<JoinHandle<()>>,
    /// All up to this revision was handed on.
    seen: i64,
}

impl Drop for Streamed {
    fn drop(&mut self) {
        for watched in self.state.get_mut().unwrap_or_else(PoisonError::into_inner).watches.values() {
            if let Some(task) = &watched.task {
                task.abort();
            }
        }
    }
}

#[tonic::async_trait]
impl proto::watch_server::Watch for Face {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let (answers, stream) = mpsc::channel(WAITING);
        let streamed = Arc::new(Streamed { face: self.clone(), answers, state: Mutex::default() });
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            loop {
                let request = tokio::select! {
                    request = requests.message() => request,
                    () = streamed.answers.closed() => return,
                };
                match request {
                    Ok(Some(request)) => streamed.obey(request).await,
                    // A client that sends no more still reads; when it goes, `closed` says so.
                    Ok(None) => {
                        streamed.answers.closed().await;
                        return;
                    }
                    Err(_) => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl Streamed {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, response: WatchResponse) {
        // Who went away is noticed by the task that reads requests.
        drop(self.answers.send(Ok(response)).await);
    }

    async fn obey(self: &Arc<Self>, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                let known = self.state().watches.remove(&cancel.watch_id);
                if let Some(watched) = known {
                    if let Some(task) = watched.task {
                        task.abort();
                    }
                    self.cancelled(cancel.watch_id, false, 0, "").await;
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                if let Ok(revision) = self.face.store.request_progress().await {
                    self.state().progress = Some(revision);
                    self.tell_progress().await;
                }
            }
            None => {}
        }
    }

    async fn cancelled(&self, watch_id: i64, created: bool, compact_revision: i64, reason: &str) {
        self.answer(WatchResponse {
            header: self.face.present(),
            watch_id,
            created,
            canceled: true,
            compact_revision,
            cancel_reason: reason.into(),
            ..Default::default()
        })
        .await;
    }

    async fn create(self: &Arc<Self>, create: WatchCreateRequest) {
        let key = if create.key.is_empty() { bytes::Bytes::from_static(&[0]) } else { create.key.clone() };
        let end = &create.range_end;
        if !end.is_empty() && end[..] != [0] && key >= *end {
            return self.cancelled(ALL_WATCHES, true, 0, "mvcc: watcher range is empty").await;
        }
        let id = {
            let mut state = self.state();
            let taken = create.watch_id != 0 && state.watches.contains_key(&create.watch_id);
            if taken {
                None
            } else {
                while create.watch_id == 0 && state.watches.contains_key(&state.next_id) {
                    state.next_id += 1;
                }
                let id = if create.watch_id == 0 { state.next_id } else { create.watch_id };
                state.watches.insert(id, Watched { task: None, seen: 0 });
                Some(id)
            }
        };
        let Some(id) = id else {
            return self.cancelled(ALL_WATCHES, true, 0, "mvcc: duplicate watch ID provided on the WatchStream").await;
        };
        let watch = Watch {
            keys: convert::keys(key, create.range_end.clone()),
            start_revision: create.start_revision.max(0),
            previous: create.prev_kv,
            progress: true,
        };
        let (stream, joined) = match begin(&self.face.store, &watch).await {
            Ok(begun) => begun,
            Err(error) => {
                self.state().watches.remove(&id);
                let (compacted, reason) = why(&error);
                // Created first, as etcd does: clients wait for that.
                self.answer(WatchResponse {
                    header: self.face.present(),
                    watch_id: id,
                    created: true,
                    ..Default::default()
                })
                .await;
                return self.cancelled(id, false, compacted, &reason).await;
            }
        };
        let start = if watch.start_revision == 0 { joined + 1 } else { watch.start_revision };
        let header = self.face.header(joined);
        self.answer(WatchResponse { header, watch_id: id, created: true, ..Default::default() }).await;
        let handing = Handing {
            id,
            watch,
            next: start,
            fragment: create.fragment,
            no_put: create.filters.contains(&(FilterType::Noput as i32)),
            no_delete: create.filters.contains(&(FilterType::Nodelete as i32)),
            notify: create.progress_notify,
        };
        let mut state = self.state();
        if let Some(watched) = state.watches.get_mut(&id) {
            watched.seen = joined.min(start - 1);
            watched.task = Some(tokio::spawn(handing.run(Arc::downgrade(self), self.answers.clone(), stream)));
        }
    }

    /// Notes what a watch has handed on.
    async fn handed(&self, id: i64, revision: i64) {
        let asked = {
            let mut state = self.state();
            if let Some(watched) = state.watches.get_mut(&id) {
                watched.seen = watched.seen.max(revision);
            }
            state.progress.is_some()
        };
        if asked {
            self.tell_progress().await;
        }
    }

    /// Tells the progress that was asked for if all watches have come so far.
    async fn tell_progress(&self) {
        let reached = {
            let mut state = self.state();
            let reached =
                state.progress.filter(|revision| state.watches.values().all(|watched| watched.seen >= *revision));
            if reached.is_some() {
                state.progress = None;
            }
            reached
        };
        if let Some(revision) = reached {
            let header = self.face.header(revision);
            self.answer(WatchResponse { header, watch_id: ALL_WATCHES, ..Default::default() }).await;
        }
    }
}

/// Begins to watch; tells the revision at which.
async fn begin(store: &Arc<Embedded>, watch: &Watch) -> Result<(WatchStream, i64), Error> {
    let mut stream = store.watch(watch.clone()).await?;
    let first = stream.next().await.unwrap_or(Err(Error::Closed))?;
    Ok((stream, first.revision))
}

/// The compaction mark and the reason that a client is given.
fn why(error: &Error) -> (i64, String) {
    match error {
        Error::Compacted { compacted, .. } => {
            (*compacted, "etcdserver: mvcc: required revision has been compacted".into())
        }
        other => (0, other.to_string()),
    }
}

/// One watch's way from the engine to the stream.
struct Handing {
    id: i64,
    watch: Watch,
    /// The first revision that is not handed on yet.
    next: i64,
    fragment: bool,
    no_put: bool,
    no_delete: bool,
    notify: bool,
}

impl Handing {
    async fn run(mut self, streamed: std::sync::Weak<Streamed>, answers: Answers, mut stream: WatchStream) {
        loop {
            let batch = match tokio::time::timeout(PROGRESS_INTERVAL, stream.next()).await {
                Ok(batch) => batch.unwrap_or(Err(Error::Closed)),
                Err(_) => {
                    let Some(streamed) = streamed.upgrade() else { return };
                    if self.notify && streamed.face.store.request_progress().await.is_ok() {
                        // It comes as a batch, in order; only then is it told.
                        self.notify_next(&streamed, &answers, &mut stream).await;
                    }
                    continue;
                }
            };
            let Some(streamed) = streamed.upgrade() else { return };
            match batch {
                Ok(batch) => self.hand(&streamed, &answers, batch).await,
                // The client read slowly, but what it missed is still there.
                Err(Error::SlowWatcher { .. }) => {
                    self.watch.start_revision = self.next;
                    match begin(&streamed.face.store, &self.watch).await {
                        Ok((resumed, _)) => stream = resumed,
                        Err(error) => return self.end(&streamed, &error).await,
                    }
                }
                Err(error) => return self.end(&streamed, &error).await,
            }
        }
    }

    async fn notify_next(&mut self, streamed: &Streamed, answers: &Answers, stream: &mut WatchStream) {
        let quiet = match tokio::time::timeout(Duration::from_secs(1), stream.next()).await {
            Ok(Some(Ok(batch))) => {
                let revision = batch.events.is_empty().then_some(batch.revision);
                self.hand(streamed, answers, batch).await;
                revision
            }
            // Nothing new since the last that it was told.
            _ => Some(self.next - 1),
        };
        if let Some(revision) = quiet {
            let header = streamed.face.header(revision);
            drop(answers.send(Ok(WatchResponse { header, watch_id: self.id, ..Default::default() })).await);
        }
    }

    async fn end(&self, streamed: &Streamed, error: &Error) {
        streamed.state().watches.remove(&self.id);
        let (compacted, reason) = why(error);
        streamed.cancelled(self.id, false, compacted, &reason).await;
    }

    async fn hand(&mut self, streamed: &Streamed, answers: &Answers, batch: WatchBatch) {
        let wanted = |event: &Event| match event {
            Event::Put { .. } => !self.no_put,
            Event::Delete { .. } => !self.no_delete,
        };
        let events: Vec<proto::Event> = batch
            .events
            .into_iter()
            .filter(|event| wanted(event) && self.watch.keys.contains(event.key()))
            .map(convert::event)
            .collect();
        let header = streamed.face.header(batch.revision);
        if !events.is_empty() {
            let mut parts = if self.fragment { fragments(events) } else { vec![events] };
            let last = parts.pop();
            for events in parts {
                let part = WatchResponse { header, watch_id: self.id, fragment: true, events, ..Default::default() };
                drop(answers.send(Ok(part)).await);
            }
            if let Some(events) = last {
                drop(answers.send(Ok(WatchResponse { header, watch_id: self.id, events, ..Default::default() })).await);
            }
        }
        self.next = self.next.max(batch.revision + 1);
        streamed.handed(self.id, batch.revision).await;
    }
}

/// Events in answers of a size that any client takes.
fn fragments(events: Vec<proto::Event>) -> Vec<Vec<proto::Event>> {
    let mut parts = vec![Vec::new()];
    let mut size = 0;
    for event in events {
        let length = event.encoded_len();
        if size > 0 && size + length > FRAGMENT_BYTES {
            parts.push(Vec::new());
            size = 0;
        }
        size += length;
        if let Some(part) = parts.last_mut() {
            part.push(event);
        }
    }
    parts
}
