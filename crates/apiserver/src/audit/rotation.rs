//! Logs that are full: how they are put aside, and what becomes of them then, as upstream's lumberjack does it.
//!
//! lumberjack is for one process a log: of two, each puts aside what the other has just begun, and compresses and removes what
//! the other still writes on. Here each holds a shared lock on the file that it writes on. What was put aside by another is
//! written on until it is full here too, and stays as it is until nobody writes on it any more.

use super::sink::Complaint;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Result};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::Instant;

/// Of what is compressed.
const COMPRESSED: &[u8] = b".gz";
/// Of a log that is made here.
const MODE: u32 = 0o600;

/// How large the file grows, and what becomes of those that were put aside. What is zero is without limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rotation {
    /// Bytes; 0: it is never put aside.
    pub max_size: u64,
    /// How many stay.
    pub backups: usize,
    /// Days that they stay, by the time in their names.
    pub max_age: u64,
    /// Whether they are compressed.
    pub compress: bool,
}

/// The names of a log: its own, and those of what was put aside, which have the time of that before the extension.
#[derive(Clone, Debug)]
struct Names {
    path: PathBuf,
    directory: PathBuf,
    /// Up to the time, and after it.
    prefix: Vec<u8>,
    extension: Vec<u8>,
}

/// A log that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Backup {
    at: Timestamp,
    name: OsString,
}

impl Backup {
    /// The name without that it is compressed.
    fn plain(&self) -> &[u8] {
        let name = self.name.as_bytes();
        name.strip_suffix(COMPRESSED).unwrap_or(name)
    }

    fn is_compressed(&self) -> bool {
        self.name.as_bytes().ends_with(COMPRESSED)
    }
}

/// What is to be done with those that were put aside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    remove: Vec<Backup>,
    compress: Vec<Backup>,
}

impl Names {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let (stem, extension) = name.split_at(name.iter().rposition(|byte| *byte == b'.').unwrap_or(name.len()));
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Names {
            path: path.to_owned(),
            directory: directory.to_owned(),
            prefix: [stem, b"-"].concat(),
            extension: extension.to_owned(),
        }
    }

    fn backup(&self, at: Timestamp) -> PathBuf {
        let time = at.strftime("%Y-%m-%dT%H-%M-%S.%3f").to_string();
        self.directory.join(OsString::from_vec([&self.prefix, time.as_bytes(), &self.extension].concat()))
    }

    /// A name by the time that nothing has yet: what was put aside is not lost to what is put aside just after it.
    fn free(&self, mut at: Timestamp) -> PathBuf {
        loop {
            let path = self.backup(at);
            let mut compressed = path.clone().into_os_string();
            compressed.push(OsStr::from_bytes(COMPRESSED));
            let is_free = [path.as_path(), Path::new(&compressed)].iter().all(|path| path.symlink_metadata().is_err());
            match at.checked_add(SignedDuration::from_millis(1)) {
                Ok(next) if !is_free => at = next,
                _ => return path,
            }
        }
    }

    /// When a log of this name was put aside; `None`: it is something else.
    fn time(&self, name: &OsStr) -> Option<Timestamp> {
        let name = name.as_bytes();
        let name = name.strip_suffix(COMPRESSED).unwrap_or(name);
        let time = name.strip_prefix(&*self.prefix)?.strip_suffix(&*self.extension)?;
        let time = DateTime::strptime("%Y-%m-%dT%H-%M-%S.%f", str::from_utf8(time).ok()?).ok()?;
        TimeZone::UTC.to_timestamp(time).ok()
    }

    /// What was put aside, the newest first.
    fn backups(&self) -> Result<Vec<Backup>> {
        let mut found = Vec::new();
        for entry in self.directory.read_dir()? {
            let entry = entry?;
            if let Some(at) = self.time(&entry.file_name())
                && !entry.file_type()?.is_dir()
            {
                found.push(Backup { at, name: entry.file_name() });
            }
        }
        found.sort_by(|a, b| (b.at, &b.name).cmp(&(a.at, &a.name)));
        Ok(found)
    }
}

impl Rotation {
    /// What is to be done with these, the newest of which is first. One that is there twice, as it is being compressed, counts once.
    fn plan(&self, backups: Vec<Backup>, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let oldest = i64::try_from(self.max_age.saturating_mul(24)).ok().filter(|hours| *hours > 0);
        let oldest = oldest.and_then(|hours| now.checked_sub(SignedDuration::try_from_hours(hours)?).ok());
        let (mut counted, mut last) = (0, Vec::new());
        for backup in backups {
            if backup.plain() != last {
                counted += 1;
                last = backup.plain().to_owned();
            }
            if self.backups > 0 && counted > self.backups || oldest.is_some_and(|oldest| backup.at < oldest) {
                plan.remove.push(backup);
            } else if self.compress && !backup.is_compressed() {
                plan.compress.push(backup);
            }
        }
        plan
    }
}

/// Puts a log aside when it is full, and has a thread that tidies up what was put aside: nobody waits for that.
pub(super) struct Rotator {
    names: Names,
    rotation: Rotation,
    /// Told that there may be something to tidy up. `None`: there never is.
    tidy: Option<SyncSender<()>>,
    complaint: Complaint,
}

impl Rotator {
    /// Starts the thread, which ends some time after this is dropped.
    ///
    /// # Errors
    /// There can be no thread.
    pub(super) fn start(path: &Path, rotation: Rotation) -> Result<Self> {
        let names = Names::of(path);
        let tidies = rotation.backups > 0 || rotation.max_age > 0 || rotation.compress;
        let tidy = if tidies {
            // One is enough: who is told once more while tidying up looks once more afterwards.
            let (tidy, told) = sync_channel(1);
            let names = names.clone();
            let run = move || told.iter().for_each(|()| names.tidy(rotation, Timestamp::now()));
            std::thread::Builder::new().name("audit-backups".into()).spawn(run)?;
            Some(tidy)
        } else {
            None
        };
        Ok(Rotator { names, rotation, tidy, complaint: Complaint::default() })
    }

    /// Opens the log, or makes one.
    ///
    /// # Errors
    /// Those of the file system.
    pub(super) fn open(&self) -> Result<File> {
        let file = self.held()?;
        self.tidy();
        Ok(file)
    }

    /// The log, with a lock that says that it is written on.
    fn held(&self) -> Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.names.directory)?;
        let path = &self.names.path;
        loop {
            let file = OpenOptions::new().create(true).append(true).mode(MODE).open(path)?;
            let held = file.try_lock_shared();
            // Between the two somebody else may have put it aside.
            if !is_at(&file.metadata()?, path)? {
                continue;
            }
            if let Err(error) = held {
                let path = path.display();
                tracing::warn!(%path, %error, "the audit log cannot be locked: no other process must write on it");
            }
            return Ok(file);
        }
    }

    /// Whether a log of this size has no room for so many bytes more.
    pub(super) fn is_due(&self, size: u64, more: u64) -> bool {
        self.rotation.max_size > 0 && size > 0 && size.saturating_add(more) > self.rotation.max_size
    }

    /// Puts the log aside and begins another. `None`: it has to go on, which is told, but not each time, or it is no file that
    /// could be put aside.
    pub(super) fn rotate(&mut self, old: &File) -> Option<File> {
        match old.metadata().and_then(|like| if like.is_file() { self.next(old, &like).map(Some) } else { Ok(None) }) {
            Ok(new) => new,
            Err(error) => {
                if self.complaint.due(Instant::now()).is_some() {
                    let path = self.names.path.display();
                    tracing::error!(%path, %error, "the audit log is full and could not be put aside");
                }
                None
            }
        }
    }

    fn next(&self, old: &File, like: &Metadata) -> Result<File> {
        let aside = self.names.free(Timestamp::now());
        // Else somebody else has put it aside, and may have begun another.
        let moved = is_at(like, &self.names.path)?
            && match std::fs::rename(&self.names.path, &aside) {
                Ok(()) => true,
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
        let new = self.held().inspect_err(|_| {
            // It is written on, and must not be compressed and removed meanwhile.
            if moved && let Err(error) = std::fs::rename(&aside, &self.names.path) {
                tracing::error!(path = %aside.display(), %error, "the audit log that is written on stays put aside");
            }
        })?;
        own(&new, like, &self.names.path);
        // It is not closed yet, but not written on any more either.
        if let Err(error) = old.unlock() {
            tracing::debug!(%error, "the audit log that was put aside stays locked until it is closed");
        }
        self.tidy();
        Ok(new)
    }

    fn tidy(&self) {
        // Full: it looks after this anyway.
        if let Some(Err(TrySendError::Disconnected(()))) = self.tidy.as_ref().map(|tidy| tidy.try_send(())) {
            tracing::error!("the thread that tidies up audit logs has ended");
        }
    }
}

/// Whether a path leads to this file.
fn is_at(file: &Metadata, path: &Path) -> Result<bool> {
    match path.metadata() {
        Ok(there) => Ok((there.dev(), there.ino()) == (file.dev(), file.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether nobody else writes on a log that is held, as far as locks tell; it is held then as before.
pub(super) fn is_alone(file: &File) -> bool {
    let alone = file.try_lock().is_ok();
    // A lock that is ours becomes a shared one without waiting; where there are none nobody is known to be alone.
    file.try_lock_shared().is_ok() && alone
}

/// Lets those read a file who can read the one that it comes from.
fn own(file: &File, like: &Metadata, path: &Path) {
    let mode = Permissions::from_mode(like.mode() & 0o7777);
    let done = fchown(file, Some(like.uid()), Some(like.gid())).and_then(|()| file.set_permissions(mode));
    if let Err(error) = done {
        tracing::warn!(path = %path.display(), %error, "an audit log could not be given the owner and mode of the one before");
    }
}

impl Names {
    /// Removes and compresses what is to be. What can't be is told, and tried again next time.
    fn tidy(&self, rotation: Rotation, now: Timestamp) {
        let plan = match self.backups() {
            Ok(backups) => rotation.plan(backups, now),
            Err(error) => {
                let path = self.directory.display();
                return tracing::error!(%path, %error, "the audit logs that were put aside cannot be listed");
            }
        };
        let told = |backup: &Backup, done: Result<()>, what| match done {
            // Somebody else tidies up, too.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let path = self.directory.join(&backup.name);
                tracing::error!(path = %path.display(), %error, "an audit log that was put aside could not be {what}");
            }
            _ => {}
        };
        for backup in &plan.remove {
            told(backup, self.remove(&backup.name), "removed");
        }
        for backup in &plan.compress {
            told(backup, self.compress(&backup.name), "compressed");
        }
    }

    /// A log that was put aside; `None`: somebody writes on it still, and it is looked at again next time.
    fn left(&self, name: &OsStr) -> Result<Option<File>> {
        let file = File::open(self.directory.join(name))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            // Where there are no locks, one process writes.
            Err(TryLockError::Error(_)) => Ok(Some(file)),
        }
    }

    /// Removes a log that was put aside.
    fn remove(&self, name: &OsStr) -> Result<()> {
        match self.left(name) {
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => std::fs::remove_file(self.directory.join(name)),
        }
    }

    /// Compresses a log that was put aside. It stays as it was until all of it is on disk as the other file, so one that is there
    /// already is the beginning of an attempt that was broken off.
    fn compress(&self, name: &OsStr) -> Result<()> {
        let Some(mut input) = self.left(name)? else { return Ok(()) };
        let plain = self.directory.join(name);
        let mut compressed = plain.clone().into_os_string();
        compressed.push(OsStr::from_bytes(COMPRESSED));
        let compressed = PathBuf::from(compressed);
        let done = squeeze(&mut input, &compressed);
        // What broke off is of no use, but does no harm either.
        if done.is_err()
            && let Err(error) = std::fs::remove_file(&compressed)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %compressed.display(), %error, "the beginning of a compressed audit log stays");
        }
        done?;
        std::fs::remove_file(&plain)
    }
}

fn squeeze(input: &mut File, compressed: &Path) -> Result<()> {
    let output = OpenOptions::new().create(true).write(true).truncate(true).mode(MODE).open(compressed)?;
    own(&output, &input.metadata()?, compressed);
    let mut encoder = GzEncoder::new(output, Compression::default());
    std::io::copy(input, &mut encoder)?;
    encoder.finish()?.sync_all()
}

/// Tidies up at once what was put aside of a log.
#[cfg(test)]
pub(super) fn tidy(path: &Path, rotation: Rotation, now: Timestamp) {
    Names::of(path).tidy(rotation, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::time::Duration;

    fn at(time: &str) -> Timestamp {
        time.parse().expect("a time")
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = directory.read_dir().expect("a directory").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
        names.sort();
        names
    }

    fn unpacked(path: &Path) -> String {
        let mut text = String::new();
        let file = File::open(path).expect("a file");
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
        text
    }

    #[test]
    fn names_are_upstreams() {
        let time = at("2006-01-02T15:04:05.0009Z");
        for (path, backup) in [
            ("/var/log/audit.log", "/var/log/audit-2006-01-02T15-04-05.000.log"),
            ("audit", "./audit-2006-01-02T15-04-05.000"),
            ("a/x.y.z", "a/x.y-2006-01-02T15-04-05.000.z"),
            ("a/.log", "a/-2006-01-02T15-04-05.000.log"),
        ] {
            let names = Names::of(Path::new(path));
            assert_eq!(names.backup(time), Path::new(backup));
            let name = Path::new(backup).file_name().expect("a name").to_owned();
            assert_eq!(names.time(&name), Some(at("2006-01-02T15:04:05Z")));
            let compressed = [name.as_bytes(), b".gz"].concat();
            assert_eq!(names.time(OsStr::from_bytes(&compressed)), Some(at("2006-01-02T15:04:05Z")));
        }
        let names = Names::of(Path::new("audit.log"));
        for other in
            ["audit.log", "audit-.log", "audit-old.log", "audit-2006-01-02T15-04-05.000.txt", "audit-2006-01-02.log"]
        {
            assert_eq!(names.time(OsStr::new(other)), None, "{other}");
        }
    }

    #[test]
    fn what_is_put_aside_in_one_moment_is_all_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let names = Names::of(&directory.path().join("audit.log"));
        let time = at("2026-01-02T03:04:05.999Z");
        for expected in ["05.999.log", "06.000.log", "06.001.log.gz", "06.002.log"] {
            let free = names.free(time);
            let free =
                if expected.ends_with(".gz") { format!("{}.gz", free.display()) } else { free.display().to_string() };
            assert!(free.ends_with(&format!("audit-2026-01-02T03-04-{expected}")), "{free}");
            File::create(free).expect("a file");
        }
    }

    #[test]
    fn the_oldest_go_by_number_and_by_age_and_what_stays_is_compressed() {
        let backup = |day: &str, compressed: &str| Backup {
            at: at(&format!("2026-01-{day}T00:00:00Z")),
            name: format!("audit-2026-01-{day}T00-00-00.000.log{compressed}").into(),
        };
        // The fourth is being compressed.
        let all = || {
            vec![
                backup("05", ""),
                backup("04", ".gz"),
                backup("04", ""),
                backup("03", ".gz"),
                backup("02", ""),
                backup("01", ""),
            ]
        };
        let planned = |backups, max_age, compress| {
            let rotation = Rotation { max_size: 1, backups, max_age, compress };
            let plan = rotation.plan(all(), at("2026-01-06T00:00:00Z"));
            let days =
                |list: Vec<Backup>| list.iter().map(|b| b.at.strftime("%d").to_string()).collect::<Vec<_>>().join(" ");
            (days(plan.remove), days(plan.compress))
        };
        let text = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(planned(0, 0, false), text("", ""));
        assert_eq!(planned(3, 0, false), text("02 01", ""));
        assert_eq!(planned(1, 0, true), text("04 04 03 02 01", "05"));
        assert_eq!(planned(9, 0, true), text("", "05 04 02 01"));
        // To the day is not older.
        assert_eq!(planned(0, 3, true), text("02 01", "05 04"));
        assert_eq!(planned(4, 4, false), text("01", ""));
        assert_eq!(planned(0, u64::MAX, false), text("", ""), "longer than there is time");
    }

    #[test]
    fn what_was_put_aside_is_tidied_up_by_another_thread() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name);
        let old = "audit-2006-01-02T15-04-05.000.log";
        std::fs::write(path(old), "of long ago").expect("written");
        std::fs::write(path("audit-old.log"), "of somebody else").expect("written");
        // An attempt that was broken off.
        let yesterday = Timestamp::now() - SignedDuration::from_hours(24);
        let yesterday = Names::of(&path("audit.log")).backup(yesterday);
        let broken = PathBuf::from(format!("{}.gz", yesterday.display()));
        std::fs::write(&yesterday, "of yesterday").expect("written");
        std::fs::write(&broken, "of yes").expect("written");
        let rotation = Rotation { max_size: 20, backups: 2, max_age: 7, compress: true };
        let mut rotator = Rotator::start(&path("audit.log"), rotation).expect("a thread");
        let wait = |what: &str, done: &dyn Fn() -> bool| {
            let deadline = Instant::now() + Duration::from_secs(20);
            while !done() {
                assert!(Instant::now() < deadline, "{what}: {:?}", names(directory.path()));
                std::thread::yield_now();
            }
        };
        // At the start, too.
        let mut log = rotator.open().expect("a log");
        wait("the old ones", &|| !path(old).exists() && !yesterday.exists());
        assert_eq!(unpacked(&broken), "of yesterday");
        log.set_permissions(Permissions::from_mode(0o640)).expect("readable");
        log.write_all(b"of today").expect("written");
        let log = rotator.rotate(&log).expect("another");
        assert_eq!(log.metadata().expect("a log").mode() & 0o7777, 0o640);
        wait("the new one", &|| {
            names(directory.path())
                .iter()
                .all(|name| name == "audit.log" || name == "audit-old.log" || name.ends_with(".gz"))
        });
        let kept = names(directory.path());
        assert_eq!(kept.len(), 4, "{kept:?}");
        let today = kept.iter().rfind(|name| name.ends_with(".gz")).expect("compressed");
        assert_eq!(unpacked(&path(today)), "of today");
        assert_eq!(path(today).metadata().expect("a file").mode() & 0o7777, 0o640);
        // The third is one too many.
        let log = rotator.rotate(&log).expect("another");
        wait("the surplus", &|| !broken.exists());
        assert_eq!(log.metadata().expect("a log").len(), 0);
        assert!(path(today).exists() && path("audit-old.log").exists());
    }

    #[test]
    fn what_is_no_file_is_never_put_aside() {
        let null = Path::new("/dev/null");
        let mut rotator = Rotator::start(null, Rotation { max_size: 1, ..Rotation::default() }).expect("a rotator");
        let log = rotator.open().expect("it opens");
        assert!(rotator.rotate(&log).is_none());
        assert!(null.exists());
    }
}
