//! Where events go: lines of a file, written by a thread of its own, in their order.

use super::rotation::{Rotation, Rotator};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

/// Lines that may wait for the disk, and their bytes, but for a single line that is larger. When more come, requests wait.
const QUEUE: usize = 4096;
const QUEUE_BYTES: u32 = 16 << 20;
/// Requests that may be under way with room for their ends: what is kept for those holds no other line, so that nobody who waits
/// for the queue waits for somebody who waits for it, too. Both together are all that is held in memory: 32 MiB.
const ENDS: usize = 4096;
/// When less room than this is left, nothing that could be written waits for others or for its turn.
const SHORT: usize = QUEUE_BYTES as usize / 2;
/// How often is told that lines are lost.
const COMPLAINT: Duration = Duration::from_secs(1);

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

/// How many groups are written: on an average in a second, and at once at most.
#[derive(Clone, Copy, Debug)]
pub struct Throttle {
    pub per_second: f64,
    pub burst: u32,
}

/// Lines that were not written, by upstream's names of who failed.
#[derive(Debug, Default)]
pub struct Lost {
    /// The log could not be written.
    pub log: AtomicU64,
    /// There was no room to let them wait.
    pub buffered: AtomicU64,
    /// They were too large, even without their objects.
    pub truncate: AtomicU64,
    complaint: Mutex<Complaint>,
}

/// What goes wrong again and again: how often that was not told yet, and when it was last.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    untold: u64,
    last: Option<Instant>,
}

impl Complaint {
    /// It happened once more. How often is to be told, if that is to be now.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < COMPLAINT) {
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Lost {
    /// Counts a line that is lost, and tells why, but not of each when there are many.
    pub(super) fn count(&self, counter: &AtomicU64, why: &dyn std::fmt::Display) {
        counter.fetch_add(1, Ordering::Relaxed);
        let due = self.complaint.lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now());
        if let Some(events) = due {
            tracing::error!(events, "audit events are lost: {why}");
        }
    }
}

/// Room for one line, until that is written or given up.
#[derive(Debug)]
pub struct Place {
    /// Until the writer takes it. `None`: it was kept for the end of a request.
    line: Option<OwnedSemaphorePermit>,
    _bytes: OwnedSemaphorePermit,
}

impl Place {
    /// The bytes of a line that fits what is kept for the end of a request.
    pub const END: usize = 4096;
}

/// The room for lines that wait.
#[derive(Clone, Debug)]
struct Room {
    lines: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    ends: Arc<Semaphore>,
    /// Told when little is left.
    short: Arc<Notify>,
}

impl Room {
    fn new(lines: usize) -> Self {
        Room {
            // More are more than memory holds.
            lines: Arc::new(Semaphore::new(lines.min(Semaphore::MAX_PERMITS))),
            bytes: Arc::new(Semaphore::new(QUEUE_BYTES as usize)),
            ends: Arc::new(Semaphore::new(ENDS)),
            short: Arc::default(),
        }
    }

    /// What a line of so many bytes takes. One that never fits takes all.
    fn size(bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(QUEUE_BYTES)
    }

    /// Takes room if there is some.
    fn take(&self, bytes: usize) -> Option<Place> {
        let line = self.lines.clone().try_acquire_owned().ok()?;
        let bytes = self.bytes.clone().try_acquire_many_owned(Self::size(bytes)).ok();
        self.tell();
        Some(Place { line: Some(line), _bytes: bytes? })
    }

    /// Takes room as soon as there is some.
    async fn wait(&self, bytes: usize) -> Option<Place> {
        let line = self.lines.clone().acquire_owned().await.ok()?;
        let bytes = self.bytes.clone().acquire_many_owned(Self::size(bytes)).await.ok();
        self.tell();
        Some(Place { line: Some(line), _bytes: bytes? })
    }

    /// Keeps room for the end of a request. Those that last long are as many as there are clients, and leave half of it to others.
    async fn keep(&self, lasting: bool) -> Option<Place> {
        let ends = self.ends.clone();
        let end = match lasting {
            true if ends.available_permits() <= ENDS / 2 => None,
            true => ends.try_acquire_owned().ok(),
            false => ends.acquire_owned().await.ok(),
        };
        end.map(|end| Place { line: None, _bytes: end })
    }

    fn is_short(&self) -> bool {
        self.bytes.available_permits() < SHORT
    }

    fn tell(&self) {
        if self.is_short() {
            self.short.notify_one();
        }
    }

    /// Returns when little is left.
    async fn short(&self) {
        while !self.is_short() {
            self.short.notified().await;
        }
    }
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
        self.place.line = None;
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

/// Lets groups through as a [`Throttle`] says.
struct Gate {
    throttle: Throttle,
    tokens: f64,
    at: Instant,
}

impl Gate {
    fn new(throttle: Throttle, now: Instant) -> Self {
        Gate { throttle, tokens: f64::from(throttle.burst), at: now }
    }

    /// How long the next group has to wait.
    fn wait(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.throttle.per_second;
        self.tokens = (self.tokens + earned).min(f64::from(self.throttle.burst)) - 1.0;
        self.at = now;
        let missing = (-self.tokens).max(0.0) / self.throttle.per_second;
        Duration::try_from_secs_f64(missing).unwrap_or(Duration::MAX)
    }

    /// The last group has not waited: the next ones don't have to for it.
    fn forgive(&mut self) {
        self.tokens = self.tokens.max(0.0);
    }
}

struct Writer {
    path: PathBuf,
    /// `None`: standard output.
    file: Option<(File, Rotator)>,
    size: u64,
    /// What is there ends within a line.
    torn: bool,
}

/// Writes as much as can be, and tells how much that is.
fn put(out: &mut impl Write, mut text: &[u8]) -> (usize, std::io::Result<()>) {
    let mut put = 0;
    while !text.is_empty() {
        match out.write(text) {
            Ok(0) => return (put, Err(std::io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                put += written;
                text = &text[written..];
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (put, Err(error)),
        }
    }
    (put, Ok(()))
}

impl Writer {
    fn open(path: &Path, rotation: Rotation) -> std::io::Result<Self> {
        let file = if path.as_os_str() == "-" {
            None
        } else {
            let rotator = Rotator::start(path, rotation)?;
            Some((rotator.open()?, rotator))
        };
        let size = file.as_ref().map_or(Ok(0), |(file, _)| file.metadata().map(|file| file.len()))?;
        Ok(Writer { path: path.to_owned(), file, size, torn: false })
    }

    async fn run(
        mut self,
        mut lines: mpsc::UnboundedReceiver<Line>,
        room: &Room,
        lost: &Lost,
        batch: Batch,
        ending: &CancellationToken,
    ) {
        let mut gate = batch.throttle.map(|throttle| Gate::new(throttle, Instant::now()));
        let mut group = Vec::new();
        while let Some(first) = lines.recv().await {
            group.push(first.taken());
            gather(&mut group, &mut lines, room, batch, ending).await;
            if let Some(gate) = &mut gate {
                let turn = tokio::time::sleep(gate.wait(Instant::now()));
                // Rather too early than not at all.
                tokio::select! {
                    biased;
                    () = turn => {}
                    () = ending.cancelled() => {}
                    () = room.short() => gate.forgive(),
                }
            }
            for Line { mut text, place, written } in group.drain(..) {
                text.push(b'\n');
                let done = self.write(&text);
                if let Err(error) = &done {
                    lost.count(&lost.log, &format_args!("{} cannot be written: {error}", self.path.display()));
                }
                // Who does not wait any more does not want to know.
                written.map(|written| written.send(done.is_ok()));
                drop(place);
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if let Some((file, rotator)) = &mut self.file
            && rotator.is_due(self.size, line.len() as u64)
            && let Some(new) = rotator.rotate(file)
        {
            // Somebody else may have begun it.
            self.size = new.metadata().map_or(0, |new| new.len());
            *file = new;
            self.torn = false;
        }
        if self.torn {
            let (_, done) = self.put(b"\n");
            done?;
            self.torn = false;
        }
        let (put, done) = self.put(line);
        if done.is_err() {
            self.take_back(put);
        }
        done
    }

    fn put(&mut self, text: &[u8]) -> (usize, std::io::Result<()>) {
        let (put, done) = match &mut self.file {
            Some((file, _)) => put(file, text),
            None => put(&mut std::io::stdout().lock(), text),
        };
        self.size += put as u64;
        (put, done)
    }

    /// Cuts off the beginning of a line that could not be written as a whole, or else sees to it that the next one is not added
    /// to it.
    fn take_back(&mut self, put: usize) {
        if put == 0 {
            return;
        }
        let cut = self.file.as_ref().map(|(file, _)| {
            // What the file is, and not what it was: somebody else may have emptied it.
            let length = file.metadata()?.len().checked_sub(put as u64);
            let length = length.ok_or(std::io::ErrorKind::InvalidInput)?;
            file.set_len(length)?;
            Ok::<_, std::io::Error>(length)
        });
        match cut {
            Some(Ok(length)) => self.size = length,
            // No file, or nothing that can be cut.
            Some(Err(_)) | None => self.torn = true,
        }
    }
}

/// Adds to a group what comes in time for it: until it is full, there is little room, or nothing more is to come.
async fn gather(
    group: &mut Vec<Line>,
    lines: &mut mpsc::UnboundedReceiver<Line>,
    room: &Room,
    batch: Batch,
    ending: &CancellationToken,
) {
    let over = tokio::time::sleep(batch.wait);
    tokio::pin!(over);
    while group.len() < batch.size && !room.is_short() {
        tokio::select! {
            biased;
            line = lines.recv() => match line {
                Some(line) => group.push(line.taken()),
                None => return,
            },
            () = ending.cancelled() => return,
            () = &mut over => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::io::Read;

    const ONE_FILE: Rotation = Rotation { max_size: 0, backups: 0, max_age: 0, compress: false };
    /// Very small files.
    const SMALL: Rotation = Rotation { max_size: 20, ..ONE_FILE };

    /// A sink, and what its thread would take.
    fn stuck(mode: Mode, buffer: usize) -> (Sink, mpsc::UnboundedReceiver<Line>) {
        let (lines, received) = mpsc::unbounded_channel();
        let ended = CancellationToken::new();
        ended.cancel();
        let sink = Sink {
            mode,
            lines: RwLock::new(Some(lines)),
            thread: Mutex::default(),
            room: Room::new(buffer),
            lost: Arc::default(),
            ending: CancellationToken::new(),
            ended,
        };
        (sink, received)
    }

    /// Hands a line over as soon as there is room for it.
    async fn write(sink: &Sink, text: Vec<u8>) -> Handed {
        let place = sink.room(text.len()).await;
        sink.write(text, place)
    }

    /// Hands a line over if there is room for it.
    fn offer(sink: &Sink, text: Vec<u8>) {
        let place = sink.free(text.len());
        drop(sink.write(text, place));
    }

    fn counts(sink: &Sink) -> (u64, u64) {
        (sink.lost.log.load(Ordering::Relaxed), sink.lost.buffered.load(Ordering::Relaxed))
    }

    fn all(received: &mut mpsc::UnboundedReceiver<Line>) -> Vec<Line> {
        std::iter::from_fn(|| received.try_recv().ok()).collect()
    }

    #[tokio::test]
    async fn what_waits_for_the_disk_is_bounded_in_bytes() {
        const PART: usize = QUEUE_BYTES as usize / 4;
        let (sink, mut received) = stuck(Mode::Blocking, QUEUE);
        for _ in 0..6 {
            offer(&sink, vec![b'x'; PART]);
        }
        let waiting = all(&mut received);
        assert_eq!((waiting.len(), counts(&sink)), (4, (0, 2)));
        assert_eq!(sink.room.bytes.available_permits(), 0, "nobody has given it back");
        let mut next = Box::pin(write(&sink, vec![b'x'; PART]));
        assert!(next.as_mut().now_or_never().is_none(), "it waits for room");
        drop(waiting);
        let handed = next.await;
        let line = received.recv().await.expect("handed over");
        line.written.expect("awaited").send(true).expect("awaited");
        assert!(handed.may_go_on().await);
        drop(line.place);
        // A line that never fits is taken alone.
        drop(write(&sink, vec![b'x'; QUEUE_BYTES as usize + 1]).await);
        offer(&sink, Vec::from("x"));
        assert_eq!((all(&mut received).len(), counts(&sink)), (1, (0, 3)));
    }

    #[tokio::test]
    async fn what_waits_for_the_disk_is_bounded_in_lines() {
        let (sink, mut received) = stuck(Mode::Blocking, QUEUE);
        for _ in 0..QUEUE {
            drop(write(&sink, Vec::from("x")).await);
        }
        // Who does not wait any more leaves nothing behind.
        for _ in 0..10 {
            assert!(write(&sink, Vec::from("x")).now_or_never().is_none(), "it waits for room");
        }
        assert_eq!((all(&mut received).len(), counts(&sink)), (QUEUE, (0, 0)));
        assert!(sink.free(1).is_some());
    }

    #[tokio::test]
    async fn ends_have_room_of_their_own_and_what_lasts_leaves_some_to_others() {
        let (sink, mut received) = stuck(Mode::Blocking, QUEUE);
        drop(write(&sink, vec![b'x'; QUEUE_BYTES as usize]).await);
        let mut kept = Vec::new();
        while let Some(place) = sink.keep(true).await {
            kept.push(place);
        }
        assert_eq!(kept.len(), ENDS / 2);
        for _ in kept.len()..ENDS {
            kept.push(sink.keep(false).await.expect("room"));
        }
        assert!(sink.keep(false).now_or_never().is_none(), "it waits for room");
        assert!(sink.free(1).is_none());
        drop(sink.write(Vec::from("end"), kept.pop()));
        let lines = all(&mut received);
        assert_eq!((&lines[1].text[..], counts(&sink)), (&b"end"[..], (0, 0)));
        assert!(sink.keep(false).now_or_never().is_none(), "it is not written yet");
        drop(lines);
        assert!(sink.keep(false).await.is_some());
        let (sink, _received) = stuck(Mode::Batch(Batch::SINGLE), QUEUE);
        assert!(sink.keep(false).await.is_none(), "nobody waits there");
    }

    #[tokio::test]
    async fn nobody_waits_for_a_log_that_has_ended() {
        let (sink, received) = stuck(Mode::Blocking, QUEUE);
        let first = write(&sink, vec![b'x'; QUEUE_BYTES as usize]).await;
        let mut second = Box::pin(write(&sink, Vec::from("x")));
        assert!(second.as_mut().now_or_never().is_none());
        drop(received);
        let second = second.await;
        assert!(first.may_go_on().await && second.may_go_on().await, "their requests go on");
        assert_eq!(counts(&sink), (1, 0));
        assert!(sink.close(Duration::from_secs(1)).await);
        assert!(write(&sink, Vec::from("x")).await.may_go_on().await);
        offer(&sink, Vec::from("x"));
        assert_eq!(counts(&sink), (3, 0));
    }

    #[tokio::test]
    async fn a_request_goes_on_only_when_its_line_is_written() {
        for mode in [Mode::Blocking, Mode::BlockingStrict] {
            let (sink, mut received) = stuck(mode, QUEUE);
            let waits = tokio::spawn(write(&sink, Vec::from("x")).await.may_go_on());
            tokio::task::yield_now().await;
            assert!(!waits.is_finished(), "{mode:?}");
            let line = received.recv().await.expect("handed over");
            line.written.expect("awaited").send(false).expect("awaited");
            assert_eq!(waits.await.expect("told"), matches!(mode, Mode::Blocking));
        }
    }

    #[tokio::test]
    async fn in_batches_nobody_waits_and_what_finds_no_room_is_lost() {
        let batch = Batch { buffer: 3, size: 2, wait: Duration::ZERO, throttle: None };
        let (sink, mut received) = stuck(Mode::Batch(batch), batch.buffer);
        for _ in 0..5 {
            assert!(write(&sink, Vec::from("x")).await.may_go_on().await);
        }
        assert_eq!((all(&mut received).len(), counts(&sink)), (3, (0, 2)));
    }

    #[test]
    fn losses_are_told_but_not_each() {
        let (mut complaint, start) = (Complaint::default(), Instant::now());
        let mut due = |after| complaint.due(start + Duration::from_millis(after));
        assert_eq!([due(0), due(1), due(999), due(1000), due(1001)], [Some(1), None, None, Some(3), None]);
    }

    /// So slowly that it would be written tomorrow.
    const SLOW: Batch = Batch {
        buffer: 100,
        size: 400,
        wait: Duration::from_secs(3600),
        throttle: Some(Throttle { per_second: 1e-5, burst: 1 }),
    };

    #[tokio::test]
    async fn what_is_gathered_or_throttled_is_written_before_the_room_runs_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let sink = Sink::open(&path, ONE_FILE, Mode::Batch(SLOW)).expect("a sink");
        let deadline = Instant::now() + Duration::from_secs(20);
        for n in 0..30 {
            drop(write(&sink, vec![b'x'; 3 << 20]).await);
            // Whoever is faster than the disk loses events: here, nobody is.
            while sink.room.is_short() {
                assert!(Instant::now() < deadline, "{n} lines are held though the disk is idle");
                tokio::task::yield_now().await;
            }
        }
        assert!(sink.close(Duration::from_secs(20)).await);
        assert_eq!(counts(&sink), (0, 0));
        assert_eq!(std::fs::metadata(&path).expect("the log").len(), 30 * ((3 << 20) + 1));
    }

    #[tokio::test]
    async fn what_was_gathered_is_written_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        for closed in [true, false] {
            let path = directory.path().join(format!("audit-{closed}.log"));
            let batch = Batch { size: 10, ..SLOW };
            let sink = Sink::open(&path, ONE_FILE, Mode::Batch(batch)).expect("a sink");
            for n in 0..15 {
                drop(write(&sink, n.to_string().into_bytes()).await);
            }
            if closed {
                // Nobody has to drop it for that.
                assert!(sink.close(Duration::from_secs(20)).await);
            } else {
                drop(sink);
            }
            let text = std::fs::read_to_string(&path).expect("the log");
            assert!(text.lines().eq((0..15).map(|n| n.to_string())), "{text}");
        }
    }

    #[test]
    fn groups_come_as_fast_as_they_may() {
        let start = Instant::now();
        let mut gate = Gate::new(Throttle { per_second: 10.0, burst: 2 }, start);
        let mut wait = |after| gate.wait(start + Duration::from_millis(after)).as_millis();
        assert_eq!([wait(0), wait(0), wait(0), wait(100)], [0, 0, 100, 100]);
        assert_eq!([wait(10_000), wait(10_000), wait(10_000)], [0, 0, 100]);
    }

    #[tokio::test]
    async fn who_waits_knows_whether_it_was_written() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in [Mode::Blocking, Mode::BlockingStrict] {
            let path = directory.path().join(format!("{mode:?}.log"));
            let sink = Sink::open(&path, ONE_FILE, mode).expect("a sink");
            assert!(write(&sink, Vec::from("x")).await.may_go_on().await);
            assert_eq!(std::fs::read_to_string(&path).expect("the log"), "x\n");
        }
        let full = Path::new("/dev/full");
        if full.exists() {
            let sink = Sink::open(full, ONE_FILE, Mode::BlockingStrict).expect("it opens");
            assert!(!write(&sink, Vec::from("x")).await.may_go_on().await);
            assert_eq!(counts(&sink), (1, 0));
        }
        let (sink, received) = stuck(Mode::BlockingStrict, QUEUE);
        drop(received);
        assert!(!write(&sink, Vec::from("x")).await.may_go_on().await, "there is no log");
    }

    #[tokio::test]
    async fn what_the_disk_does_not_take_is_counted() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let sink = Sink::open(full, ONE_FILE, Mode::Blocking).expect("it opens");
        assert!(write(&sink, Vec::from("x")).await.may_go_on().await, "its request goes on");
        assert_eq!(counts(&sink), (1, 0));
    }

    #[test]
    fn a_full_file_is_put_aside() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut writer = Writer::open(&path, SMALL).expect("a file");
        for i in 0..6 {
            writer.write(format!("line number {i}\n").as_bytes()).expect("written");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "line number 5\n");
        let mut all: Vec<PathBuf> =
            directory.path().read_dir().expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
        // By the time, and the one that has none last.
        all.sort();
        let text: String = all.iter().map(|path| std::fs::read_to_string(path).expect("a file")).collect();
        assert!(text.lines().eq((0..6).map(|i| format!("line number {i}"))), "{text}");
        // Once put aside by somebody else, it is begun anew.
        std::fs::rename(&path, directory.path().join("elsewhere")).expect("moved");
        writer.write(b"line number 6\n").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "line number 6\n");
    }

    #[test]
    fn a_line_that_is_larger_than_a_file_may_be_has_one_of_its_own() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut writer = Writer::open(&path, SMALL).expect("a file");
        for line in ["a line that is too long\n", "b\n"] {
            writer.write(line.as_bytes()).expect("written");
            assert_eq!(std::fs::read_to_string(&path).expect("the file"), line);
        }
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let (logs, moved) = (directory.path().join("logs"), directory.path().join("moved"));
        let mut writer = Writer::open(&logs.join("audit.log"), SMALL).expect("a file");
        writer.write(b"line number 0\n").expect("written");
        std::fs::rename(&logs, &moved).expect("moved");
        std::fs::write(&logs, "no directory").expect("written");
        writer.write(b"line number 1\n").expect("written");
        assert_eq!(
            std::fs::read_to_string(moved.join("audit.log")).expect("the file"),
            "line number 0\nline number 1\n"
        );
        // And no longer than it has to.
        std::fs::remove_file(&logs).expect("removed");
        writer.write(b"line number 2\n").expect("written");
        assert_eq!(std::fs::read_to_string(logs.join("audit.log")).expect("the file"), "line number 2\n");
    }

    #[test]
    fn the_beginning_of_a_line_that_could_not_be_written_is_cut_off() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut writer = Writer::open(&path, ONE_FILE).expect("a file");
        writer.write(b"first\n").expect("written");
        let (put, done) = writer.put(b"sec");
        done.expect("written");
        writer.take_back(put);
        assert_eq!(writer.size, 6);
        writer.write(b"third\n").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "first\nthird\n");
        // Who empties it does not find zeros there.
        File::create(&path).expect("emptied");
        let (put, done) = writer.put(b"fou");
        done.expect("written");
        writer.take_back(put);
        writer.write(b"fifth\n").expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "fifth\n");
        assert_eq!(writer.size, 6);
    }

    #[test]
    fn a_line_is_not_added_to_the_beginning_of_one_that_cannot_be_cut_off() {
        let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("non-blocking");
        let mut writer = Writer::open(Path::new("-"), ONE_FILE).expect("no file");
        let rotator = Rotator::start(Path::new("stream"), ONE_FILE).expect("a rotator");
        writer.file = Some((File::from(std::os::fd::OwnedFd::from(ours)), rotator));
        let line = [vec![b'x'; 8 << 20], vec![b'\n']].concat();
        assert!(writer.write(&line).is_err(), "it takes a part");
        let (begin, mut found) = (usize::try_from(writer.size).expect("a part"), Vec::new());
        assert!(begin > 0 && begin < line.len(), "what was written is counted");
        assert!(writer.write(b"lost\n").is_err(), "and not more");
        found.resize(begin, 0);
        theirs.read_exact(&mut found).expect("read");
        writer.write(b"next\n").expect("written");
        drop(writer);
        found.clear();
        theirs.read_to_end(&mut found).expect("read");
        assert_eq!(String::from_utf8_lossy(&found), "\nnext\n");
    }
}
