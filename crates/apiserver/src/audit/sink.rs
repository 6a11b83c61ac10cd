//! Where events go: lines of a file, written by a thread of its own, in their order.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Lines that may wait for the disk, and their bytes, but for a single line that is larger. When more come, requests wait.
const QUEUE: usize = 4096;
const QUEUE_BYTES: usize = 32 << 20;

#[derive(Debug, Error)]
#[error("cannot open the audit log {path}")]
pub struct SinkError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// How large the file grows, and how many old ones stay.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Bytes; 0: it is never rotated.
    pub max_size: u64,
    /// 0: all stay.
    pub backups: usize,
}

/// What becomes of requests while their lines wait to be written: upstream's modes of the log.
#[derive(Clone, Copy, Debug, Default)]
pub enum Mode {
    /// They wait when the disk is behind.
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
}

/// The room for lines that wait. Who finds some takes no lock.
#[derive(Debug, Default)]
struct Room {
    held: AtomicUsize,
    /// Those who wait for room.
    waiting: AtomicUsize,
    /// Nobody makes room any more.
    closed: AtomicBool,
    /// No more lines will come, and those that are there are written at once.
    ending: AtomicBool,
    lock: Mutex<()>,
    freed: Condvar,
}

impl Room {
    /// Takes room if there is some.
    fn take(&self, bytes: usize) -> bool {
        let fits = |held: usize| (held == 0 || held + bytes <= QUEUE_BYTES).then_some(held + bytes);
        self.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok()
    }

    /// Takes room as soon as there is some; `false`: there never will be.
    fn wait(&self, bytes: usize) -> bool {
        if self.take(bytes) {
            return true;
        }
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        // Told before it is looked once more: who makes room then either is seen, or sees that somebody waits.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let taken = loop {
            if self.take(bytes) {
                break true;
            }
            if self.closed.load(Ordering::SeqCst) {
                break false;
            }
            guard = self.freed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        taken
    }

    fn give(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.tell();
        }
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.tell();
    }

    /// Lets the thread that writes wait, but not beyond the last line.
    fn pause(&self, wait: Duration) {
        let began = Instant::now();
        while !self.ending.load(Ordering::SeqCst)
            && let left = wait.saturating_sub(began.elapsed())
            && !left.is_zero()
        {
            std::thread::park_timeout(left);
        }
    }

    fn tell(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
        self.freed.notify_all();
    }
}

/// The end of those who write: whoever waits for room is let go.
struct Closing(Arc<Room>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A line, and who waits until it is written, or is not.
struct Line {
    text: Vec<u8>,
    written: Option<SyncSender<bool>>,
}

/// Takes lines.
pub struct Sink {
    mode: Mode,
    lines: Option<SyncSender<Line>>,
    thread: Option<JoinHandle<()>>,
    room: Arc<Room>,
    lost: Arc<Lost>,
}

impl Sink {
    /// Opens the file (`-`: standard output) and starts the thread, which ends when the sink is dropped.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, rotation: Rotation, mode: Mode) -> Result<Self, SinkError> {
        let failed = |source| SinkError { path: path.to_owned(), source };
        let batch = if let Mode::Batch(batch) = mode { batch } else { Batch::SINGLE };
        let (lines, received) = sync_channel(batch.buffer);
        let mut writer = Writer { path: path.to_owned(), rotation, file: None, size: 0 };
        writer.open().map_err(failed)?;
        let (room, lost) = (Arc::<Room>::default(), Arc::<Lost>::default());
        let run = {
            let (room, lost) = (room.clone(), lost.clone());
            move || writer.run(&received, room, &lost, batch)
        };
        let thread = std::thread::Builder::new().name("audit".into()).spawn(run).map_err(failed)?;
        Ok(Sink { mode, lines: Some(lines), thread: Some(thread), room, lost })
    }

    /// Lines that were not written.
    pub(super) fn lost(&self) -> &Arc<Lost> {
        &self.lost
    }

    /// Hands a line over, as the mode says. `false`: it could not be written, and its request must not go on.
    pub fn write(&self, text: Vec<u8>) -> bool {
        let strict = match self.mode {
            Mode::Batch(_) => {
                self.offer(text);
                return true;
            }
            Mode::Blocking => false,
            Mode::BlockingStrict => true,
        };
        let (written, told) = if strict {
            let (written, told) = sync_channel(1);
            (Some(written), Some(told))
        } else {
            (None, None)
        };
        let lines = self.lines.as_ref().filter(|_| self.room.wait(text.len()));
        if lines.is_none_or(|lines| lines.send(Line { text, written }).is_err()) {
            self.lost.log.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the audit log has ended; an event is lost");
            return !strict;
        }
        // Who is gone has not written it.
        told.is_none_or(|told| told.recv().unwrap_or(false))
    }

    /// Hands a line over if there is room for it, else it is lost. Who is not known must not make others wait.
    pub fn offer(&self, text: Vec<u8>) -> bool {
        let bytes = text.len();
        let room = self.room.take(bytes);
        let lines = self.lines.as_ref().filter(|_| room);
        if lines.is_some_and(|lines| lines.try_send(Line { text, written: None }).is_ok()) {
            return true;
        }
        if room {
            self.room.give(bytes);
        }
        self.lost.buffered.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("the audit log is behind; an event is lost");
        true
    }
}

impl Drop for Sink {
    /// All that was handed over is written.
    fn drop(&mut self) {
        drop(self.lines.take());
        self.room.ending.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("the thread of the audit log panicked");
            }
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
}

struct Writer {
    path: PathBuf,
    rotation: Rotation,
    /// `None`: standard output.
    file: Option<File>,
    size: u64,
}

impl Writer {
    fn open(&mut self) -> std::io::Result<()> {
        if self.path.as_os_str() == "-" {
            return Ok(());
        }
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn run(mut self, lines: &Receiver<Line>, room: Arc<Room>, lost: &Lost, batch: Batch) {
        let closing = Closing(room);
        let mut gate = batch.throttle.map(|throttle| Gate::new(throttle, Instant::now()));
        let mut group = Vec::new();
        while let Ok(first) = lines.recv() {
            group.push(first);
            let until = Instant::now() + batch.wait;
            while group.len() < batch.size
                && let Ok(next) = lines.recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                group.push(next);
            }
            if let Some(gate) = &mut gate {
                closing.0.pause(gate.wait(Instant::now()));
            }
            for Line { mut text, written } in group.drain(..) {
                let bytes = text.len();
                text.push(b'\n');
                let done = self.write(&text);
                if let Err(error) = &done {
                    lost.log.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(path = %self.path.display(), %error, "an audit event could not be written");
                }
                // Who does not wait any more does not want to know.
                written.map(|written| written.send(done.is_ok()));
                closing.0.give(bytes);
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.rotation.max_size > 0 && self.size > 0 && self.size + line.len() as u64 > self.rotation.max_size {
            let rotated = self.rotate();
            if let Err(error) = rotated {
                tracing::error!(path = %self.path.display(), %error, "the audit log could not be rotated");
            }
        }
        match &mut self.file {
            Some(file) => file.write_all(line)?,
            None => std::io::stdout().lock().write_all(line)?,
        }
        self.size += line.len() as u64;
        Ok(())
    }

    /// Renames the file by the time and begins another. When that fails, the one there is goes on.
    fn rotate(&mut self) -> std::io::Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let stem = self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let extension = self.path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H-%M-%S.%f").to_string();
        let directory = self.path.parent().map(Path::to_owned).unwrap_or_default();
        std::fs::rename(&self.path, directory.join(format!("{stem}-{now}{extension}")))?;
        self.open()?;
        if self.rotation.backups > 0 {
            let look = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
            let mut old: Vec<PathBuf> = std::fs::read_dir(look)?
                .filter_map(|entry| entry.ok().map(|e| e.path()))
                .filter(|p| {
                    let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    name.strip_prefix(&stem).is_some_and(|rest| rest.starts_with('-')) && name.ends_with(&extension)
                })
                .collect();
            old.sort();
            let surplus = old.len().saturating_sub(self.rotation.backups);
            for path in old.drain(..surplus) {
                match std::fs::remove_file(path) {
                    // Somebody else tidies up too.
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_FILE: Rotation = Rotation { max_size: 0, backups: 0 };

    /// A sink, and what its thread would take.
    fn stuck(mode: Mode, buffer: usize) -> (Sink, Receiver<Line>) {
        let (lines, received) = sync_channel(buffer);
        (Sink { mode, lines: Some(lines), thread: None, room: Arc::default(), lost: Arc::default() }, received)
    }

    fn counts(sink: &Sink) -> (u64, u64) {
        (sink.lost.log.load(Ordering::Relaxed), sink.lost.buffered.load(Ordering::Relaxed))
    }

    #[test]
    fn what_waits_for_the_disk_is_bounded_in_bytes() {
        const PART: usize = QUEUE_BYTES / 4;
        let (sink, received) = stuck(Mode::Blocking, QUEUE);
        (0..6).for_each(|_| assert!(sink.offer(vec![b'x'; PART])));
        assert_eq!((received.try_iter().count(), counts(&sink)), (4, (0, 2)));
        assert_eq!(sink.room.held.load(Ordering::Relaxed), QUEUE_BYTES, "nobody has given it back");
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| sink.write(vec![b'x'; PART]));
            while sink.room.waiting.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            assert!(!waits.is_finished() && received.try_recv().is_err());
            sink.room.give(PART);
            waits.join().expect("written");
        });
        assert_eq!(received.try_iter().count(), 1);
        // A line that never fits is taken alone.
        sink.room.give(QUEUE_BYTES);
        sink.write(vec![b'x'; QUEUE_BYTES + 1]);
        sink.offer(Vec::from("x"));
        assert_eq!((received.try_iter().count(), counts(&sink)), (1, (0, 3)));
    }

    #[test]
    fn nobody_waits_for_a_log_that_has_ended() {
        let (sink, received) = stuck(Mode::Blocking, QUEUE);
        sink.write(vec![b'x'; QUEUE_BYTES]);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| sink.write(Vec::from("x")));
            while sink.room.waiting.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            drop((Closing(sink.room.clone()), received));
            assert!(waits.join().expect("let go"), "its request goes on");
        });
        assert_eq!(counts(&sink), (1, 0));
    }

    #[test]
    fn in_batches_nobody_waits_and_what_finds_no_room_is_lost() {
        let batch = Batch { buffer: 3, size: 2, wait: Duration::ZERO, throttle: None };
        let (sink, received) = stuck(Mode::Batch(batch), batch.buffer);
        (0..5).for_each(|_| assert!(sink.write(Vec::from("x"))));
        assert_eq!((received.try_iter().count(), counts(&sink)), (3, (0, 2)));
    }

    #[test]
    fn what_was_gathered_is_written_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        // So slowly that it would be written tomorrow.
        let throttle = Some(Throttle { per_second: 1e-5, burst: 1 });
        let batch = Batch { buffer: 100, size: 10, wait: Duration::from_secs(3600), throttle };
        let sink = Sink::open(&path, ONE_FILE, Mode::Batch(batch)).expect("a sink");
        (0..15).for_each(|n| assert!(sink.write(n.to_string().into_bytes())));
        drop(sink);
        let text = std::fs::read_to_string(&path).expect("the log");
        assert!(text.lines().eq((0..15).map(|n| n.to_string())), "{text}");
    }

    #[test]
    fn groups_come_as_fast_as_they_may() {
        let start = Instant::now();
        let mut gate = Gate::new(Throttle { per_second: 10.0, burst: 2 }, start);
        let mut wait = |after| gate.wait(start + Duration::from_millis(after)).as_millis();
        assert_eq!([wait(0), wait(0), wait(0), wait(100)], [0, 0, 100, 100]);
        assert_eq!([wait(10_000), wait(10_000), wait(10_000)], [0, 0, 100]);
    }

    #[test]
    fn who_is_strict_knows_whether_it_was_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let sink = Sink::open(&path, ONE_FILE, Mode::BlockingStrict).expect("a sink");
        assert!(sink.write(Vec::from("x")));
        assert_eq!(std::fs::read_to_string(&path).expect("the log"), "x\n");
        let full = Path::new("/dev/full");
        if full.exists() {
            let sink = Sink::open(full, ONE_FILE, Mode::BlockingStrict).expect("it opens");
            assert!(!sink.write(Vec::from("x")));
            assert_eq!(counts(&sink), (1, 0));
        }
        let (sink, received) = stuck(Mode::BlockingStrict, QUEUE);
        drop(received);
        assert!(!sink.write(Vec::from("x")), "there is no log");
    }

    #[test]
    fn what_the_disk_does_not_take_is_counted() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let sink = Sink::open(full, ONE_FILE, Mode::Blocking).expect("it opens");
        let lost = sink.lost().clone();
        assert!(sink.write(Vec::from("x")), "its request goes on");
        drop(sink);
        assert_eq!(lost.log.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_full_file_is_put_aside_and_old_ones_go() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let rotation = Rotation { max_size: 20, backups: 2 };
        let mut writer = Writer { path: path.clone(), rotation, file: None, size: 0 };
        writer.open().expect("a file");
        for i in 0..6 {
            writer.write(format!("line number {i}\n").as_bytes()).expect("written");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "line number 5\n");
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 3);
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit.log");
        let mut writer =
            Writer { path: path.clone(), rotation: Rotation { max_size: 20, backups: 2 }, file: None, size: 0 };
        writer.open().expect("a file");
        writer.write(b"line number 0\n").expect("written");
        let moved = directory.path().join("elsewhere");
        std::fs::rename(&path, &moved).expect("moved");
        writer.write(b"line number 1\n").expect("written");
        assert_eq!(std::fs::read_to_string(&moved).expect("the file"), "line number 0\nline number 1\n");
    }
}
