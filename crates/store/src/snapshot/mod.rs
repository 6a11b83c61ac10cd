//! Snapshots: files as etcd makes and takes them, of either engine, and new stores made of them.
//!
//! A file is a bbolt database in etcd's layout, followed by the SHA-256 of it. The bucket `key` has every change under
//! its revision, `lease` the leases, `meta` the compaction mark; the others are there because etcd expects them.

mod bolt;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};

#[cfg(any(test, feature = "suite"))]
pub(crate) use restore::restore_into;
pub use restore::{Restored, restore};

use self::bolt::{Reader, Writer, damaged};
use crate::embedded::{Export, Record};
use crate::{Error, proto};

const TRAILER: u64 = 32;
/// Files of bbolt end with a page, so what is beyond a multiple of this is the trailer.
const SECTOR: u64 = 512;
const REVISION: usize = 17;
const OTHER_BUCKETS: [&[u8]; 7] =
    [b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster", b"members", b"members_removed"];

/// etcd's record of a lease.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LeaseRecord {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
    #[prost(int64, tag = "3")]
    remaining_ttl: i64,
}

/// What a snapshot file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Of the file, as etcdctl prints it.
    pub hash: u32,
    pub revision: i64,
    /// Entries of all buckets, as etcdctl counts them.
    pub total_keys: u64,
    /// Keys that are there at the revision.
    pub keys: u64,
    pub size: u64,
    /// The SHA-256 at the end is there and right; a file copied from a member's directory has none.
    pub verified: bool,
}

fn revision_key(revision: i64, sub: i64, deleted: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(REVISION + 1);
    key.extend_from_slice(&revision.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&sub.to_be_bytes());
    if deleted {
        key.push(b't');
    }
    key
}

/// Revision, place within it, and whether it is a deletion.
fn parse_revision(key: &[u8]) -> io::Result<(i64, i64, bool)> {
    let number = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).map_err(damaged);
    if !(REVISION..=REVISION + 1).contains(&key.len()) || key[8] != b'_' {
        return Err(damaged("a key of the bucket \"key\" is no revision"));
    }
    let (revision, sub) = (number(&key[..8])?, number(&key[9..REVISION])?);
    if revision < 1 || sub < 0 {
        return Err(damaged(format!("the revision {revision}_{sub} cannot be")));
    }
    Ok((revision, sub, key.get(REVISION) == Some(&b't')))
}

fn stored(record: &Record) -> Vec<u8> {
    let kv = if record.deleted {
        proto::KeyValue { key: record.kv.key.clone(), ..Default::default() }
    } else {
        record.kv.clone().into()
    };
    kv.encode_to_vec()
}

/// A checksum of what happened up to a revision, as etcd's HashKV makes it: CRC-32C of the bucket's name and its entries. Those of
/// before the compaction mark count only if they hold still at that revision, as members may not all have removed the others yet.
pub(crate) fn hash(export: &Export, until: i64) -> Result<u32, Error> {
    // What holds at the revision: by key, that of its last change, unless that is a deletion.
    let mut last: HashMap<&Bytes, i64> = HashMap::new();
    for (key, revision, deleted) in export.changes().filter(|(_, revision, _)| *revision <= until) {
        if deleted {
            last.remove(key);
        } else {
            last.insert(key, revision);
        }
    }
    let holds = |record: &Record| last.get(&record.kv.key) == Some(&record.revision);
    let mut hash = Crc32c::default();
    hash.update(b"key");
    export.visit(|record| {
        // etcd looks at nothing when nothing holds.
        let counts = record.revision > export.compacted || last.is_empty() || holds(&record);
        if record.revision <= until && counts {
            hash.update(&revision_key(record.revision, record.sub, record.deleted));
            hash.update(&stored(&record));
        }
        Ok::<(), Error>(())
    })?;
    Ok(hash.sum())
}

/// CRC-32C (Castagnoli).
struct Crc32c(u32);

const CASTAGNOLI: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

impl Default for Crc32c {
    fn default() -> Self {
        Self(!0)
    }
}

impl Crc32c {
    fn update(&mut self, bytes: &[u8]) {
        let step = |crc: u32, byte: &u8| (crc >> 8) ^ CASTAGNOLI[usize::from(crc as u8 ^ byte)];
        self.0 = bytes.iter().fold(self.0, step);
    }

    fn sum(&self) -> u32 {
        !self.0
    }
}

/// Writes a snapshot into a file that is not there yet; it appears when it is whole and synced.
pub fn save(export: &Export, path: &Path) -> Result<(), Error> {
    let part = Part::create(path)?;
    write(export, &part.file, path)?;
    part.sync()?;
    part.appear()
}

/// A file that has another name until it is whole. If it does not get that far it is removed.
pub(crate) struct Part<'a> {
    pub(crate) file: File,
    whole: &'a Path,
    pub(crate) path: PathBuf,
    appeared: bool,
}

impl<'a> Part<'a> {
    /// Begins a file of a name that nothing has yet.
    pub(crate) fn create(whole: &'a Path) -> Result<Self, Error> {
        if whole.exists() {
            let there = io::Error::new(io::ErrorKind::AlreadyExists, "it is there already");
            return Err(Error::io("write", whole)(there));
        }
        let mut path = whole.as_os_str().to_owned();
        path.push(".part");
        let mut options = fs::OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = opened.map_err(Error::io("create", whole))?;
        Ok(Self { file, whole, path: path.into(), appeared: false })
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io("sync", self.whole))
    }

    /// Gives it its name.
    pub(crate) fn appear(mut self) -> Result<(), Error> {
        fs::rename(&self.path, self.whole).map_err(Error::io("name", self.whole))?;
        self.appeared = true;
        Ok(())
    }
}

impl Drop for Part<'_> {
    fn drop(&mut self) {
        if !self.appeared {
            // What is said is why it failed.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// What is made in the first of some directories on whose disk there is space for it.
pub(crate) fn where_space_is<T>(places: &[PathBuf], make: impl Fn(&Path) -> Result<T, Error>) -> Result<T, Error> {
    let mut full = None;
    for place in places {
        match make(place) {
            Err(Error::Io { doing, path, source }) if is_full(&source) => {
                tracing::warn!(path = %path.display(), "there is no space for a snapshot: {source}");
                full = Some(Error::Io { doing, path, source });
            }
            made => return made,
        }
    }
    Err(full.unwrap_or_else(|| Error::Invalid {
        option: "a snapshot".into(),
        reason: "there is no directory for it".into(),
    }))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// A snapshot in a file without a name, below a directory, to be read once; with its size.
pub(crate) fn unnamed(export: &Export, directory: &Path) -> Result<(File, u64), Error> {
    use rustix::fs::{Mode, OFlags};
    let failed = |source: io::Error| Error::Io { doing: "write a snapshot into", path: directory.to_owned(), source };
    let opened = rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let file = File::from(opened.map_err(|error| failed(error.into()))?);
    let size = write(export, &file, directory)?;
    Ok((file, size))
}

/// Writes a snapshot at the beginning of an empty file, which is at `place`; tells its size.
fn write(export: &Export, file: &File, place: &Path) -> Result<u64, Error> {
    let failed = |source| Error::Io { doing: "write a snapshot into", path: place.to_owned(), source };
    let mut writer = Writer::new(file);
    let filled = writer.bucket(b"key", |tree| {
        export.visit(|record| {
            let key = revision_key(record.revision, record.sub, record.deleted);
            tree.put(key, stored(&record)).map_err(Wrapped::from)
        })
    });
    filled.map_err(|error| match error {
        Wrapped::Engine(error) => error,
        Wrapped::File(source) => failed(source),
    })?;
    let mut leases: Vec<_> = export.leases.clone();
    leases.sort_unstable_by_key(|(id, ..)| *id);
    let seconds = |duration: Duration| i64::try_from(duration.as_secs().max(1)).unwrap_or(i64::MAX);
    let filled = writer.bucket(b"lease", |tree| {
        leases.iter().try_for_each(|(id, ttl, left)| {
            let record = LeaseRecord { id: *id, ttl: seconds(*ttl), remaining_ttl: left.map_or(0, seconds) };
            tree.put(id.to_be_bytes().to_vec(), record.encode_to_vec())
        })
    });
    filled.map_err(failed)?;
    let meta = |tree: &mut bolt::Tree<'_, '_>| {
        let index = export.revision.to_be_bytes();
        tree.put(b"consistent_index".to_vec(), index.to_vec())?;
        if export.compacted > 0 {
            let mark = revision_key(export.compacted, 0, false);
            tree.put(b"finishedCompactRev".to_vec(), mark.clone())?;
            tree.put(b"scheduledCompactRev".to_vec(), mark)?;
        }
        tree.put(b"term".to_vec(), 1_u64.to_be_bytes().to_vec())
    };
    writer.bucket(b"meta", meta).map_err(failed)?;
    for name in OTHER_BUCKETS {
        writer.bucket(name, |_| Ok::<(), io::Error>(())).map_err(failed)?;
    }
    let size = writer.finish().map_err(failed)?;
    let sum = sum(file, size).map_err(failed)?;
    file.write_all_at(&sum, size).map_err(failed)?;
    Ok(size + TRAILER)
}

/// An error of the engine or of the file while one is copied into the other.
enum Wrapped {
    Engine(Error),
    File(io::Error),
}

impl From<Error> for Wrapped {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<io::Error> for Wrapped {
    fn from(source: io::Error) -> Self {
        Self::File(source)
    }
}

fn sum(file: &File, size: u64) -> io::Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    let mut reader = At { file, at: 0, end: size };
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().into()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// Reads a part of a file without moving its position.
struct At<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = into.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let read = self.file.read_at(&mut into[..length], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// A snapshot file whose trailer was looked at.
struct Source {
    path: PathBuf,
    file: File,
    /// Without the trailer.
    size: u64,
    verified: bool,
}

impl Source {
    /// Opens a file and checks its SHA-256, if it has one; a wrong one is an error.
    fn open(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Io { doing: "read", path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        let verified = length > TRAILER && length % SECTOR == TRAILER;
        let size = if verified { length - TRAILER } else { length };
        if verified {
            let mut trailer = [0; TRAILER as usize];
            file.read_exact_at(&mut trailer, size).map_err(failed)?;
            if sum(&file, size).map_err(failed)? != trailer {
                let place = path.display().to_string();
                return Err(Error::Corrupt { what: "the SHA-256 at the end is not that of the rest".into(), place });
            }
        }
        Ok(Self { path: path.to_owned(), file, size, verified })
    }

    fn reader(&self) -> Result<Reader<'_>, Error> {
        Reader::new(&self.file, self.size).map_err(|source| self.failed(source))
    }

    /// Damage is told as such, with the place.
    fn failed(&self, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::InvalidData => {
                Error::Corrupt { what: source.to_string(), place: self.path.display().to_string() }
            }
            _ => Error::Io { doing: "read", path: self.path.clone(), source },
        }
    }
}

/// Reads a snapshot file through and tells what it holds. Changes nothing.
pub fn status(path: &Path) -> Result<Status, Error> {
    let source = Source::open(path)?;
    let reader = source.reader()?;
    let mut hash = Crc32c::default();
    let mut total = 0;
    let names = reader.buckets().map_err(|error| source.failed(error))?;
    for name in &names {
        hash.update(name);
        let counted = reader.bucket(name, |key, value| {
            hash.update(key);
            hash.update(value);
            total += 1;
            Ok::<(), io::Error>(())
        });
        counted.map_err(|error| source.failed(error))?;
    }
    let state = restore::read(&source)?;
    Ok(Status {
        hash: hash.sum(),
        revision: state.last,
        total_keys: total,
        keys: state.keys.len() as u64,
        size: source.size + if source.verified { TRAILER } else { 0 },
        verified: source.verified,
    })
}
