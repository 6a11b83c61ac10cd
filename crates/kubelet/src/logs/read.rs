//! Reading a container's log for somebody: from where, how much, and on as it grows.

use std::{
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jiff::Timestamp;
use nix::sys::inotify::AddWatchFlags;
use tokio::sync::mpsc;

use super::line::{self, Stream};
use crate::inotify::Watcher;

/// What is wanted of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    pub(crate) since: Option<Timestamp>,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) limit_bytes: Option<u64>,
    /// Only this stream.
    pub(crate) stream: Option<Stream>,
}

/// How often a reader that waits looks whether the container still runs.
const CHECK: Duration = Duration::from_secs(1);
const CHUNK: usize = 64 * 1024;

/// Where the last `lines` lines begin.
pub(crate) fn tail_start(file: &mut fs::File, lines: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if lines == 0 {
        return Ok(end);
    }
    let mut position = end;
    let mut left = lines;
    // The newline that ends the last line begins none.
    let mut ignore_last = true;
    let mut buffer = vec![0; CHUNK];
    while position > 0 {
        let size = position.min(CHUNK as u64);
        position -= size;
        file.seek(SeekFrom::Start(position))?;
        let chunk = &mut buffer[..usize::try_from(size).unwrap_or(CHUNK)];
        file.read_exact(chunk)?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            if *byte != b'\n' {
                ignore_last = false;
                continue;
            }
            if std::mem::take(&mut ignore_last) {
                continue;
            }
            left -= 1;
            if left == 0 {
                return Ok(position + index as u64 + 1);
            }
        }
    }
    Ok(0)
}

/// Turns raw lines into what is shown.
struct Shower {
    options: Options,
    left: Option<u64>,
    /// The next piece begins a line.
    at_start: bool,
}

impl Shower {
    /// The text of a raw line, or nothing; false when enough was shown.
    fn show(&mut self, raw: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(line) = line::parse(raw) else { return true };
        let wanted = self.options.stream.is_none_or(|stream| stream == line.stream)
            && self.options.since.is_none_or(|since| line.time >= since);
        if !wanted {
            return true;
        }
        let mut text = Vec::with_capacity(line.text.len() + 40);
        if self.options.timestamps && self.at_start {
            text.extend_from_slice(line::format_time(line.time).as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(line.text);
        if !line.partial {
            text.push(b'\n');
        }
        self.at_start = !line.partial;
        if let Some(left) = &mut self.left {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            text.truncate(most);
            *left -= text.len() as u64;
        }
        out.extend_from_slice(&text);
        self.left != Some(0)
    }
}

/// Sends the log at `path` to `sender`, and goes on while the container runs if it is followed.
///
/// # Errors
/// When the log cannot be read.
pub(crate) async fn send(
    path: PathBuf,
    options: Options,
    running: Arc<dyn Fn() -> bool + Send + Sync>,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let mut file = fs::File::open(&path)?;
    if let Some(lines) = options.tail_lines {
        let start = tail_start(&mut file, lines)?;
        file.seek(SeekFrom::Start(start))?;
    }
    let follow = options.follow;
    // Listened to before the end is reached, so that nothing falls in between.
    let growth = if follow { Some(Growth::of(&path)?) } else { None };
    let mut shower = Shower { left: options.limit_bytes, at_start: true, options };
    let mut pending: Vec<u8> = Vec::new();
    let mut buffer = vec![0; CHUNK];
    let mut done = false;
    loop {
        let count = file.read(&mut buffer)?;
        if count > 0 {
            pending.extend_from_slice(&buffer[..count]);
            let mut out = Vec::new();
            let mut start = 0;
            let mut more = true;
            while let Some(end) = memchr(&pending[start..]) {
                more = shower.show(&pending[start..=start + end], &mut out);
                start += end + 1;
                if !more {
                    break;
                }
            }
            pending.drain(..start);
            if !out.is_empty() && sender.send(Ok(out.into())).await.is_err() {
                return Ok(());
            }
            if !more {
                return Ok(());
            }
            continue;
        }
        let Some(growth) = &growth else { return Ok(()) };
        if done {
            return Ok(());
        }
        // A log that was rotated ends, and goes on in a new file of the name.
        if replaced(&file, &path) {
            match fs::File::open(&path) {
                Ok(new) => {
                    file = new;
                    growth.renew(&path)?;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // What was written before it ended is read once more.
        done = !running();
        if done {
            continue;
        }
        tokio::select! {
            result = growth.0.changed() => drop(result?),
            () = tokio::time::sleep(CHECK) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

fn replaced(file: &fs::File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.ino() != named.ino() || open.dev() != named.dev(),
        _ => true,
    }
}

/// Tells when a file, or its directory, changes.
struct Growth(Watcher);

impl Growth {
    fn of(path: &Path) -> io::Result<Self> {
        let growth = Self(Watcher::new()?);
        if let Some(dir) = path.parent() {
            growth.0.add(dir, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)?;
        }
        growth.renew(path)?;
        Ok(growth)
    }

    fn renew(&self, path: &Path) -> io::Result<()> {
        self.0.add(path, AddWatchFlags::IN_MODIFY)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    fn write(path: &Path, lines: &[&str]) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        for line in lines {
            writeln!(file, "{line}").unwrap();
        }
    }

    async fn collect(path: &Path, options: Options) -> String {
        let (sender, mut receiver) = mpsc::channel(16);
        let task = tokio::spawn(send(path.to_owned(), options, Arc::new(|| false), sender));
        let mut out = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            out.extend_from_slice(&chunk.unwrap());
        }
        task.await.unwrap().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn options_choose_what_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        write(
            &log,
            &[
                "2024-01-01T00:00:01.5Z stdout F one",
                "2024-01-01T00:00:02Z stderr P two ",
                "2024-01-01T00:00:02Z stderr F halves",
                "2024-01-01T00:00:03Z stdout F three",
            ],
        );
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            collect(&log, options)
        };
        assert_eq!(with(|_| {}).await, "one\ntwo halves\nthree\n");
        assert_eq!(with(|o| o.tail_lines = Some(1)).await, "three\n");
        assert_eq!(with(|o| o.tail_lines = Some(0)).await, "");
        assert_eq!(with(|o| o.tail_lines = Some(100)).await, "one\ntwo halves\nthree\n");
        assert_eq!(with(|o| o.limit_bytes = Some(6)).await, "one\ntw");
        assert_eq!(with(|o| o.stream = Some(Stream::Stderr)).await, "two halves\n");
        assert_eq!(with(|o| o.since = Some("2024-01-01T00:00:03Z".parse().unwrap())).await, "three\n");
        assert_eq!(
            with(|o| (o.timestamps, o.tail_lines) = (true, Some(3))).await,
            "2024-01-01T00:00:02.000000000Z two halves\n2024-01-01T00:00:03.000000000Z three\n"
        );
    }

    #[tokio::test]
    async fn a_follower_sees_growth_rotation_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        write(&log, &["2024-01-01T00:00:01Z stdout F one"]);
        let running = Arc::new(AtomicBool::new(true));
        let (sender, mut receiver) = mpsc::channel(16);
        let check = running.clone();
        let options = Options { follow: true, ..Options::default() };
        let task = tokio::spawn(send(log.clone(), options, Arc::new(move || check.load(Ordering::SeqCst)), sender));
        let mut next = async || receiver.recv().await.unwrap().unwrap();
        assert_eq!(next().await, "one\n");
        write(&log, &["2024-01-01T00:00:02Z stdout F two"]);
        assert_eq!(next().await, "two\n");
        fs::rename(&log, dir.path().join("0.log.20240101")).unwrap();
        write(&log, &["2024-01-01T00:00:03Z stdout F three"]);
        assert_eq!(next().await, "three\n");
        running.store(false, Ordering::SeqCst);
        write(&log, &["2024-01-01T00:00:04Z stdout F four"]);
        assert_eq!(next().await, "four\n");
        assert!(receiver.recv().await.is_none());
        task.await.unwrap().unwrap();
    }

    #[test]
    fn the_tail_is_found_across_chunks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let line = "x".repeat(999);
        fs::write(&path, format!("{line}\n").repeat(300)).unwrap();
        let mut file = fs::File::open(&path).unwrap();
        for lines in [1, 63, 64, 65, 66, 299, 300, 301] {
            let expected = (300 - lines.min(300)) * 1000;
            assert_eq!(tail_start(&mut file, lines).unwrap(), expected, "{lines}");
        }
    }
}
