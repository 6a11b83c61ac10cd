use super::gate::Gate;
use super::room::{ENDS, QUEUE_BYTES};
use super::*;
use crate::audit::rotation::{Rotator, tidy};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::Instant;

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

/// As two servers do that are told the same file.
#[test]
fn what_another_still_writes_on_is_neither_compressed_nor_removed() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    let [mut one, mut other] = [(); 2].map(|()| Writer::open(&path, SMALL).expect("a file"));
    let write = |writer: &mut Writer, line: &str| writer.write(line.as_bytes()).expect("written");
    let names = || {
        let entries = directory.path().read_dir().expect("a directory");
        let mut names: Vec<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
        names.sort();
        names
    };
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).expect("a file");
    write(&mut other, "other 0\n");
    write(&mut one, "one 0 is longer\n");
    // It is full for this one alone.
    write(&mut one, "one 1\n");
    let found = names();
    let [aside, _] = &found[..] else { panic!("{found:?}") };
    write(&mut other, "other 1\n");
    for tidying in [Rotation { compress: true, ..SMALL }, Rotation { max_age: 1, ..SMALL }] {
        tidy(&path, tidying, Timestamp::now() + SignedDuration::from_hours(48));
        assert_eq!(names(), [aside.as_str(), "audit.log"]);
    }
    assert_eq!(read(aside), "other 0\none 0 is longer\nother 1\n");
    // When it is full for the other, too, what was begun meanwhile is gone on with.
    write(&mut other, "other 2\n");
    assert_eq!(names(), [aside.as_str(), "audit.log"]);
    assert_eq!(read("audit.log"), "one 1\nother 2\n");
    tidy(&path, Rotation { compress: true, ..SMALL }, Timestamp::now());
    assert_eq!(names(), [format!("{aside}.gz").as_str(), "audit.log"]);
}

/// Of two that write one file, none cuts off what the other has written.
#[test]
fn only_who_is_alone_cuts_off_the_beginning_of_a_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    let [mut one, mut other] = [(); 2].map(|()| Writer::open(&path, ONE_FILE).expect("a file"));
    let (put, done) = one.put(b"fir");
    done.expect("written");
    other.write(b"second\n").expect("written");
    one.take_back(put);
    one.write(b"third\n").expect("written");
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "firsecond\n\nthird\n");
    drop(other);
    let (put, done) = one.put(b"fou");
    done.expect("written");
    one.take_back(put);
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "firsecond\n\nthird\n");
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
    assert_eq!(std::fs::read_to_string(moved.join("audit.log")).expect("the file"), "line number 0\nline number 1\n");
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
