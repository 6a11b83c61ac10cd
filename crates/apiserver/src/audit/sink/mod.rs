//! Where events go: lines of a file, written by a thread of its own, in their order.

mod gate;
mod lost;
mod room;
mod writer;

pub use gate::Throttle;
pub(super) use lost::Complaint;
pub use lost::Lost;
pub use room::Place;

use super::rotation::Rotation;
use room::{QUEUE, Room};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use writer::Writer;

#[derive(Debug, Error)]
#[error("cannot open the audit log {path}")]
pub struct SinkError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// What becomes of requests while their lines wait to be written: upstream's modes of the log.
#[derive(Clone, Copy, Debug, Default)]
pub enum Mode {
    /// They wait until their lines are written, or can't be.
    #[default]
    Blocking,
    /// They wait until their lines are written, and are refused when the first can't be.
    BlockingStrict,
    /// They go on. Lines are written in groups, and lost when there is no room for them.
    Batch(Batch),
}

/// How lines are gathered.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// How many may wait.
    pub buffer: usize,
    /// How many are written at once at most, and how long the first of them waits for others.
    pub size: usize,
    pub wait: Duration,
    pub throttle: Option<Throttle>,
}

impl Batch {
    /// Each line as soon as it is there.
    const SINGLE: Batch = Batch { buffer: QUEUE, size: 1, wait: Duration::ZERO, throttle: None };
}

/// A line, its room, and who waits until it is written, or is not.
struct Line {
    text: Vec<u8>,
    place: Place,
    written: Option<oneshot::Sender<bool>>,
}

impl Line {
    /// It waits for its turn no longer, but is still held.
    fn taken(mut self) -> Self {
        self.place.taken();
        self
    }
}

/// A line that was handed over.
pub struct Handed {
    /// `None`: nobody waits for it.
    written: Option<oneshot::Receiver<bool>>,
    /// Whether its request depends on it.
    strict: bool,
}

impl Handed {
    /// Nobody waits, and nothing depends on it.
    pub(super) const AWAY: Handed = Handed { written: None, strict: false };

    /// Waits as long as the request has to. `false`: the line could not be written, and the request must not go on.
    pub async fn may_go_on(self) -> bool {
        let Some(written) = self.written else { return true };
        // Who is gone has not written it.
        written.await.unwrap_or(false) || !self.strict
    }
}

/// Takes lines.
pub struct Sink {
    mode: Mode,
    /// `None`: no more lines are taken. What is in it has its [`Place`].
    lines: RwLock<Option<mpsc::UnboundedSender<Line>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    room: Room,
    lost: Arc<Lost>,
    /// No more lines will come, and those that are there are written at once.
    ending: CancellationToken,
    ended: CancellationToken,
}

impl Sink {
    /// Opens the file (`-`: standard output) and starts the thread, which ends when the sink is closed or dropped.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, rotation: Rotation, mode: Mode) -> Result<Self, SinkError> {
        let failed = |source| SinkError { path: path.to_owned(), source };
        let batch = if let Mode::Batch(batch) = mode { batch } else { Batch::SINGLE };
        let (lines, received) = mpsc::unbounded_channel();
        let writer = Writer::open(path, rotation).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let mut sink = Sink {
            mode,
            lines: RwLock::new(Some(lines)),
            thread: Mutex::default(),
            room: Room::new(batch.buffer),
            lost: Arc::default(),
            ending: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let (room, lost, ending) = (sink.room.clone(), sink.lost.clone(), sink.ending.clone());
        let ended = sink.ended.clone().drop_guard();
        let run = move || {
            let _ended = ended;
            runtime.block_on(writer.run(received, &room, &lost, batch, &ending));
        };
        let thread = std::thread::Builder::new().name("audit".into()).spawn(run).map_err(failed)?;
        sink.thread = Mutex::new(Some(thread));
        Ok(sink)
    }

    /// Lines that were not written.
    pub(super) fn lost(&self) -> &Arc<Lost> {
        &self.lost
    }

    /// Whether requests wait for their lines.
    fn is_waited_for(&self) -> bool {
        !matches!(self.mode, Mode::Batch(_))
    }

    /// Keeps room for a line of at most [`Place::END`] bytes that tells the end of a request: as soon as there is some, when
    /// requests wait for their lines; `None`: the end has to find its own. A request that is `lasting` does not wait for it.
    pub(super) async fn keep(&self, lasting: bool) -> Option<Place> {
        if self.is_waited_for() { self.room.keep(lasting).await } else { None }
    }

    /// Room for a line of so many bytes, if there is some.
    pub(super) fn free(&self, bytes: usize) -> Option<Place> {
        self.room.take(bytes)
    }

    /// Room for a line of so many bytes: as soon as there is some, when requests wait for their lines, else if there is some.
    pub(super) async fn room(&self, bytes: usize) -> Option<Place> {
        if self.is_waited_for() { self.room.wait(bytes).await } else { self.free(bytes) }
    }

    /// Hands a line over, which is lost when it has no place. How long its request waits depends on the mode.
    pub(super) fn write(&self, text: Vec<u8>, place: Option<Place>) -> Handed {
        let strict = match self.mode {
            Mode::Batch(_) => {
                self.send(text, place, None);
                return Handed::AWAY;
            }
            Mode::Blocking => false,
            Mode::BlockingStrict => true,
        };
        let (told, written) = oneshot::channel();
        self.send(text, place, Some(told));
        Handed { written: Some(written), strict }
    }

    fn send(&self, text: Vec<u8>, place: Option<Place>, written: Option<oneshot::Sender<bool>>) {
        let Some(lines) = self.lines() else { return };
        let Some(place) = place else {
            return self.lost.count(&self.lost.buffered, &"the audit log is behind");
        };
        if lines.send(Line { text, place, written }).is_err() {
            self.lost.count(&self.lost.log, &"the audit log has ended");
        }
    }

    /// Where lines go; when they go nowhere any more, that is told.
    fn lines(&self) -> Option<mpsc::UnboundedSender<Line>> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner).clone();
        if lines.is_none() {
            self.lost.count(&self.lost.log, &"the audit log has ended");
        }
        lines
    }

    fn end(&self) {
        drop(self.lines.write().unwrap_or_else(PoisonError::into_inner).take());
        self.ending.cancel();
    }

    /// Takes no more lines, and waits until those that were handed over are written, but not longer than `limit`. Returns
    /// whether they are.
    pub async fn close(&self, limit: Duration) -> bool {
        self.end();
        // Who has waited here does not wait for it again.
        drop(self.thread.lock().unwrap_or_else(PoisonError::into_inner).take());
        tokio::time::timeout(limit, self.ended.cancelled()).await.is_ok()
    }
}

impl Drop for Sink {
    /// All that was handed over is written, unless [`Sink::close`] has waited for it.
    fn drop(&mut self) {
        self.end();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the audit log panicked");
        }
    }
}

#[cfg(test)]
mod tests;
