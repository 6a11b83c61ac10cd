//! Watches as bytes: what is there first, every change, bookmarks, and the end.

use super::BoxError;
use super::answer::{self, Object, object_bytes};
use super::media::{Format, MetaVersion, Shape, View};
use crate::cache::{Batch, ChangeKind, Counts, Delivery, End, Entry, Filter, Scope, State, Told, ViewId, Watcher};
use crate::flowcontrol::Place;
use crate::options::ListOptions;
use crate::registry::Served;
use api::Status;
use bytes::Bytes;
use http_body::Frame;
use jiff::Timestamp;
use schema::{Map, Value};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How often who asks for bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_secs(60);
/// The last one comes so long before the end.
const BEFORE_END: Duration = Duration::from_secs(2);
/// How many objects of the beginning are taken out of the snapshot at once.
const CHUNK: usize = 256;
/// What is sent in one piece when much waits.
const PIECE: usize = 64 * 1024;

/// The body of a watch.
pub struct WatchBody {
    served: Arc<Served>,
    view: View,
    view_id: ViewId,
    watcher: Option<Watcher>,
    /// Changes that are told one by one: these first.
    waiting: VecDeque<Delivery>,
    initial: Option<Initial>,
    /// The bookmark that ends the beginning is wanted.
    initial_end: bool,
    bookmarks: bool,
    /// Up to where the client knows.
    told: u64,
    headers_sent: bool,
    timer: Pin<Box<Sleep>>,
    /// Whom the timer wakes.
    armed: Option<Waker>,
    deadline: Instant,
    /// The revision of the last bookmark.
    marked: u64,
    /// What is sent next, whatever comes: the first of the beginning, or the last that is said.
    made: Option<Bytes>,
    /// Its seat is given back when it has begun.
    place: Place,
}

struct Initial {
    state: State,
    filter: Filter,
    after: Option<String>,
    waiting: VecDeque<Arc<Entry>>,
    revision: u64,
    began: Instant,
}

impl Initial {
    /// The label of what was asked for.
    fn scope(&self) -> &'static str {
        match &self.filter.scope {
            Scope::Key(_) => "resource",
            Scope::Namespace(_) => "namespace",
            _ if self.filter.namespace.is_some() => "namespace",
            Scope::All | Scope::Field(..) | Scope::Label { .. } => "cluster",
        }
    }
}

impl WatchBody {
    pub fn new(
        served: Arc<Served>,
        view: View,
        watcher: Watcher,
        initial: Option<(State, u64)>,
        filter: Filter,
        options: &ListOptions,
        timeout: Duration,
    ) -> Self {
        let began = Instant::now();
        let deadline = began + timeout;
        let initial = initial.map(|(state, revision)| {
            let waiting = VecDeque::new();
            Initial { state, filter, after: None, waiting, revision, began }
        });
        let mut body = WatchBody {
            view_id: view_id(&served, view),
            served,
            view,
            watcher: Some(watcher),
            waiting: VecDeque::new(),
            initial,
            initial_end: options.send_initial_events == Some(true) && options.bookmarks,
            bookmarks: options.bookmarks,
            told: options.version.unwrap_or(0),
            headers_sent: false,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            armed: None,
            deadline,
            marked: 0,
            made: None,
            place: Place::default(),
        };
        body.set_timer();
        body
    }

    /// It holds a place in the server, with its seat until all of the beginning was made. A piece of that is made at once: a
    /// small beginning keeps no seat until its client reads, and a large one not for longer than a request may take.
    pub fn holding(mut self, place: Place) -> Self {
        self.place = place;
        match self.poll_initial() {
            Some(Ok(piece)) => self.made = Some(piece),
            Some(Err(status)) => {
                self.made = Some(self.error(&status));
                self.watcher = None;
                self.initial = None;
            }
            None => {}
        }
        if self.initial.is_some() {
            self.place.outlasts();
        } else {
            self.place.begun();
        }
        self
    }

    /// A watch that can't begin: upstream tells it in the stream.
    pub fn refused(served: Arc<Served>, view: View, status: &Status) -> Self {
        let deadline = Instant::now() + BOOKMARKS;
        let mut body = WatchBody {
            view_id: 0,
            served,
            view,
            watcher: None,
            waiting: VecDeque::new(),
            initial: None,
            initial_end: false,
            bookmarks: false,
            told: 0,
            headers_sent: true,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            armed: None,
            deadline,
            marked: 0,
            made: None,
            place: Place::default(),
        };
        body.made = Some(body.error(status));
        body
    }

    fn set_timer(&mut self) {
        let now = Instant::now();
        let next = if self.bookmarks {
            let last = self.deadline.checked_sub(BEFORE_END).filter(|last| *last > now).unwrap_or(self.deadline);
            (now + BOOKMARKS).min(last)
        } else {
            self.deadline
        };
        self.timer.as_mut().reset(next);
    }

    /// The next object of the beginning.
    fn next_initial(&mut self) -> Option<Arc<Entry>> {
        let initial = self.initial.as_mut()?;
        if initial.waiting.is_empty() {
            let paths = self.watcher.as_ref()?.cacher().paths();
            let from = initial.after.as_deref();
            let seen = initial.state.range(&initial.filter.scope, from);
            let chunk: VecDeque<Arc<Entry>> =
                seen.filter(|entry| initial.filter.selected(entry, paths)).take(CHUNK).cloned().collect();
            initial.waiting = chunk;
            initial.after = initial.waiting.back().map(|entry| entry.key().to_owned());
        }
        initial.waiting.pop_front()
    }

    fn framed(&self, kind: &str, object: &[u8]) -> Bytes {
        frame(self.view.format, kind, object)
    }

    /// Counts an event that is sent.
    fn counted(&self, made: Result<Bytes, Status>, initial: bool) -> Result<Bytes, Status> {
        if let (Some(watcher), Ok(bytes)) = (&self.watcher, &made) {
            watcher.cacher().counts.sent(bytes.len(), initial);
        }
        made
    }

    /// A change alone.
    fn change(&mut self, delivery: &Delivery) -> Result<Bytes, Status> {
        self.told = delivery.change.revision();
        let made = if matches!(self.view.shape, Shape::Table(_)) {
            let entry = delivery.change.object(delivery.kind).clone();
            self.table_row(delivery.kind.as_str(), &entry, !self.headers_sent)
        } else {
            self.event(delivery)
        };
        self.counted(made, false)
    }

    /// The bytes of a change that all share who see it in this view.
    fn event(&self, delivery: &Delivery) -> Result<Bytes, Status> {
        let (served, view, kind) = (&self.served, self.view, delivery.kind);
        delivery.change.frame(kind, self.view_id, |entry| {
            let object = object_bytes(served, Object::Entry(entry), view, true, Timestamp::UNIX_EPOCH)?;
            Ok(frame(view.format, kind.as_str(), &object))
        })
    }

    /// Changes that came together, in one piece that all share who see them so; `None` when they are told one by one: one alone,
    /// a table's, as ages differ from moment to moment, and those before one that cannot be told.
    fn together(&mut self, batch: &Batch) -> Option<Bytes> {
        if batch.deliveries().len() < 2 || matches!(self.view.shape, Shape::Table(_)) {
            return None;
        }
        let told = batch.told(self.view_id, |deliveries| {
            let sizes = Counts::no_sizes();
            let mut bytes = Vec::new();
            for delivery in deliveries {
                let event = self.event(delivery)?;
                sizes.observe(event.len() as u64);
                bytes.extend_from_slice(&event);
            }
            Ok::<_, Status>(Told { bytes: bytes.into(), sizes })
        });
        let told = told.ok()?;
        self.watcher.as_ref()?.cacher().counts.sent_together(batch.deliveries().len(), &told.sizes);
        self.told = batch.deliveries().last()?.change.revision();
        Some(told.bytes.clone())
    }

    fn table_row(&mut self, kind: &str, entry: &Entry, headers: bool) -> Result<Bytes, Status> {
        let object = object_bytes(&self.served, Object::Entry(entry), self.view, headers, Timestamp::now())?;
        self.headers_sent = true;
        Ok(self.framed(kind, &object))
    }

    fn added(&mut self, entry: &Entry) -> Result<Bytes, Status> {
        let headers = !self.headers_sent;
        if matches!(self.view.shape, Shape::Table(_)) {
            return self.table_row(ChangeKind::Added.as_str(), entry, headers);
        }
        let object = object_bytes(&self.served, Object::Entry(entry), self.view, true, Timestamp::UNIX_EPOCH)?;
        Ok(self.framed(ChangeKind::Added.as_str(), &object))
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Result<Bytes, Status> {
        self.marked = revision;
        self.told = revision;
        let mut object = match schema::normal::zero(self.served.resource.schema.root()) {
            Value::Map(map) => map,
            _ => Map::new(),
        };
        self.served.stamp(&mut object);
        object.set_at(&["metadata", "resourceVersion"], revision.to_string());
        if initial_end {
            object.set_at(&["metadata", "annotations", "k8s.io/initial-events-end"], "true");
        }
        let headers = !self.headers_sent;
        let view = self.view;
        let bytes = object_bytes(&self.served, Object::Tree(&object, None), view, headers, Timestamp::now())?;
        self.headers_sent = true;
        Ok(self.framed("BOOKMARK", &bytes))
    }

    fn error(&self, status: &Status) -> Bytes {
        let json = status.to_json();
        let object = match (self.view.format, schema::json::parse(&json)) {
            (Format::Json, _) => json,
            (format, Ok(Value::Map(tree))) => answer::status_bytes(&tree, format).unwrap_or(json),
            _ => json,
        };
        self.framed("ERROR", &object)
    }

    /// Says something last, then ends.
    fn end(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.watcher = None;
        self.initial = None;
        Poll::Ready(Some(Ok(Frame::data(self.error(status)))))
    }

    fn ready(made: Result<Bytes, Status>, body: &mut Self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match made {
            Ok(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Err(status) => body.end(&status),
        }
    }

    /// The beginning, many objects in a piece.
    fn poll_initial(&mut self) -> Option<Result<Bytes, Status>> {
        self.initial.as_ref()?;
        let mut piece: Vec<u8> = Vec::new();
        while piece.len() < PIECE {
            let Some(entry) = self.next_initial() else {
                let initial = self.initial.take();
                let revision = initial.as_ref().map_or(0, |initial| initial.revision);
                if let (Some(initial), Some(watcher), true) = (&initial, &self.watcher, self.initial_end) {
                    watcher.cacher().counts.watch_listed(initial.scope(), initial.began.elapsed());
                }
                self.place.begun();
                self.told = self.told.max(revision);
                if self.initial_end {
                    match self.bookmark(revision, true) {
                        Ok(bytes) => piece.extend_from_slice(&bytes),
                        Err(status) => return Some(Err(status)),
                    }
                }
                break;
            };
            let made = self.added(&entry);
            match self.counted(made, true) {
                Ok(bytes) => piece.extend_from_slice(&bytes),
                Err(status) => return Some(Err(status)),
            }
        }
        (!piece.is_empty()).then(|| Ok(piece.into()))
    }
}

impl http_body::Body for WatchBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let body = &mut *self;
        if let Some(made) = body.made.take() {
            return Poll::Ready(Some(Ok(Frame::data(made))));
        }
        if body.watcher.is_none() {
            return Poll::Ready(None);
        }
        if let Some(made) = body.poll_initial() {
            return Self::ready(made, body);
        }
        loop {
            if let Some(delivery) = body.waiting.pop_front() {
                return Self::ready(body.change(&delivery), body);
            }
            let Some(watcher) = &mut body.watcher else { return Poll::Ready(None) };
            match watcher.poll_next(cx) {
                Poll::Ready(Ok(batch)) => match body.together(&batch) {
                    Some(bytes) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    None => body.waiting.extend(batch.deliveries().iter().cloned()),
                },
                Poll::Ready(Err(End::Expired)) => {
                    return body.end(&Status::expired("The resourceVersion for the provided watch is too old."));
                }
                Poll::Ready(Err(end @ (End::Slow | End::Closed))) => {
                    if let Some(watcher) = body.watcher.take()
                        && end == End::Slow
                    {
                        watcher.cacher().counts.slow.fetch_add(1, Ordering::Relaxed);
                    }
                    return Poll::Ready(None);
                }
                Poll::Pending => break,
            }
        }
        // After each of many events there is nothing more, and the timer need not be asked again.
        let armed = body.armed.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if armed && !body.timer.is_elapsed() {
            return Poll::Pending;
        }
        if !armed {
            body.armed = Some(cx.waker().clone());
        }
        while body.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= body.deadline {
                body.watcher = None;
                return Poll::Ready(None);
            }
            let revision = body.watcher.as_ref().and_then(Watcher::caught_up);
            body.set_timer();
            if let Some(revision) = revision.filter(|revision| *revision > body.marked && *revision >= body.told) {
                let made = body.bookmark(revision, false);
                return Self::ready(made, body);
            }
        }
        Poll::Pending
    }
}

/// A change, framed.
fn frame(format: Format, kind: &str, object: &[u8]) -> Bytes {
    match format {
        Format::Protobuf => {
            let event = schema::protobuf::event(kind, object);
            let mut out = Vec::with_capacity(event.len() + 4);
            out.extend_from_slice(&u32::try_from(event.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(&event);
            out.into()
        }
        Format::Json | Format::Yaml => {
            let mut out = Vec::with_capacity(object.len() + 40);
            out.extend_from_slice(b"{\"type\":\"");
            out.extend_from_slice(kind.as_bytes());
            out.extend_from_slice(b"\",\"object\":");
            out.extend_from_slice(object.strip_suffix(b"\n").unwrap_or(object));
            out.extend_from_slice(b"}\n");
            out.into()
        }
    }
}

/// Watchers of the same view share bytes.
fn view_id(served: &Served, view: View) -> ViewId {
    let format = match view.format {
        Format::Json | Format::Yaml => 0,
        Format::Protobuf => 1,
    };
    let shape = match view.shape {
        Shape::Object => 0,
        Shape::Metadata(MetaVersion::V1) | Shape::MetadataList(MetaVersion::V1) => 1,
        Shape::Metadata(MetaVersion::V1Beta1) | Shape::MetadataList(MetaVersion::V1Beta1) => 2,
        Shape::Table(_) => 3,
    };
    format | shape << 1 | served.view << 3
}
