//! Where events go: lines of a file, written by a thread of its own, in their order.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
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

/// The room for lines that wait. Who finds some takes no lock.
#[derive(Debug, Default)]
struct Room {
    held: AtomicUsize,
    /// Those who wait for room.
    waiting: AtomicUsize,
    /// Nobody makes room any more.
    closed: AtomicBool,
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

/// Takes lines.
pub struct Sink {
    lines: SyncSender<Vec<u8>>,
    room: Arc<Room>,
    lost: Arc<AtomicU64>,
}

impl Sink {
    /// Opens the file (`-`: standard output) and starts the thread, which ends when the sink is dropped.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn open(path: &Path, rotation: Rotation) -> Result<Self, SinkError> {
        let failed = |source| SinkError { path: path.to_owned(), source };
        let (lines, received) = sync_channel(QUEUE);
        let mut writer = Writer { path: path.to_owned(), rotation, file: None, size: 0 };
        writer.open().map_err(failed)?;
        let sink = Sink { lines, room: Arc::default(), lost: Arc::default() };
        let (room, lost) = (sink.room.clone(), sink.lost.clone());
        let run = move || writer.run(&received, room, &lost);
        std::thread::Builder::new().name("audit".into()).spawn(run).map_err(failed)?;
        Ok(sink)
    }

    /// Counts lines that were not written.
    pub(super) fn lost(&self) -> Arc<AtomicU64> {
        self.lost.clone()
    }

    /// Hands a line over; it waits when the disk is behind.
    pub fn write(&self, line: Vec<u8>) {
        let taken = self.room.wait(line.len()) && self.lines.send(line).is_ok();
        if !taken {
            self.lost.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the audit log has ended; an event is lost");
        }
    }

    /// Hands a line over if there is room for it, else it is lost. Who is not known must not make others wait.
    pub fn offer(&self, line: Vec<u8>) {
        let bytes = line.len();
        let room = self.room.take(bytes);
        if room && self.lines.try_send(line).is_ok() {
            return;
        }
        if room {
            self.room.give(bytes);
        }
        self.lost.fetch_add(1, Ordering::Relaxed);
        tracing::debug!("the audit log is behind; an event of an unknown sender is lost");
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

    fn run(mut self, lines: &Receiver<Vec<u8>>, room: Arc<Room>, lost: &AtomicU64) {
        let closing = Closing(room);
        while let Ok(mut line) = lines.recv() {
            let bytes = line.len();
            line.push(b'\n');
            if let Err(error) = self.write(&line) {
                lost.fetch_add(1, Ordering::Relaxed);
                tracing::error!(path = %self.path.display(), %error, "an audit event could not be written");
            }
            closing.0.give(bytes);
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

    /// A sink, and what its thread would take.
    fn stuck() -> (Sink, Receiver<Vec<u8>>) {
        let (lines, received) = sync_channel(QUEUE);
        (Sink { lines, room: Arc::default(), lost: Arc::default() }, received)
    }

    #[test]
    fn what_waits_for_the_disk_is_bounded_in_bytes() {
        const PART: usize = QUEUE_BYTES / 4;
        let (sink, received) = stuck();
        (0..6).for_each(|_| sink.offer(vec![b'x'; PART]));
        assert_eq!((received.try_iter().count(), sink.lost.load(Ordering::Relaxed)), (4, 2));
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
        assert_eq!((received.try_iter().count(), sink.lost.load(Ordering::Relaxed)), (1, 3));
    }

    #[test]
    fn nobody_waits_for_a_log_that_has_ended() {
        let (sink, received) = stuck();
        sink.write(vec![b'x'; QUEUE_BYTES]);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| sink.write(Vec::from("x")));
            while sink.room.waiting.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            drop((Closing(sink.room.clone()), received));
            waits.join().expect("let go");
        });
        assert_eq!(sink.lost.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_the_disk_does_not_take_is_counted() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            return;
        }
        let sink = Sink::open(full, Rotation { max_size: 0, backups: 0 }).expect("it opens");
        let lost = sink.lost();
        sink.write(Vec::from("x"));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while lost.load(Ordering::Relaxed) == 0 {
            assert!(std::time::Instant::now() < deadline, "it is not counted");
            std::thread::yield_now();
        }
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
