//! What an administrator asks of a store that is not open elsewhere: its state, whether it is whole, less space, a copy.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::checkpoint::{self, Head, SegmentRecord};
use super::clock::{Clock, SystemClock};
use super::disk::{Disk, OsDisk};
use super::format::{Entry, EntryKind, FIRST, Found, FrameReader, Kind, entries};
use super::index::Version;
use super::pack::PackedWriter;
use super::recovery::{self, Recovered};
use super::segment::{self, Segment};
use super::shared::Shared;
use super::writer::Mark;
use super::{Embedded, Options, lock};
use crate::{Error, KeyRange, KeyValue, LeaseId, Op, Range, Store, Txn};

/// Values of a copy are spread over segments of about this size.
const COPY_SEGMENT: u64 = 256 << 20;
/// Keys copied in one go.
const COPY_KEYS: usize = 4096;

/// What a store's directory holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub revision: i64,
    pub compacted: i64,
    pub keys: usize,
    pub leases: usize,
    pub segments: usize,
    /// Bytes of records, without the checkpoint.
    pub size: u64,
    /// Bytes that live keys and kept history refer to.
    pub live: u64,
    pub checkpoint: u64,
}

/// What a verification read, and what is wrong.
#[derive(Debug, Default)]
pub struct Verification {
    pub status: Status,
    pub frames: usize,
    pub entries: usize,
    /// Each names the file and the offset.
    pub damage: Vec<Error>,
}

/// Tells the state of the store in a directory. Nothing is written but the lock.
pub fn status(directory: &Path) -> Result<Status, Error> {
    let _lock = existing(directory)?;
    let recovered = read(&OsDisk::new(directory))?;
    Ok(describe(&recovered))
}

/// Reads every record of the store in a directory and checks it, and that every key has its value. Changes nothing.
pub fn verify(directory: &Path) -> Result<Verification, Error> {
    let _lock = existing(directory)?;
    verify_on(&OsDisk::new(directory))
}

/// The same of a disk that nobody else has open.
pub(crate) fn verify_on(disk: &dyn Disk) -> Result<Verification, Error> {
    let recovered = match read(disk) {
        Ok(recovered) => recovered,
        Err(damage @ Error::Corrupt { .. }) => {
            return Ok(Verification { damage: vec![damage], ..Verification::default() });
        }
        Err(other) => return Err(other),
    };
    let mut verification = Verification { status: describe(&recovered), ..Verification::default() };
    for segment in recovered.segments.all() {
        let read = check_segment(disk, recovered.store_id, &segment, &mut verification);
        read.map_err(Error::io("read", disk.path().join(segment.name())))?;
    }
    for (key, chain) in &recovered.index.keys {
        for version in chain.versions() {
            check_version(disk, &recovered, key, version, &mut verification)?;
        }
    }
    Ok(verification)
}

/// Deletes the keys of the store in a directory whose values are damaged, and tells them, each with its damage. Their past is kept
/// as far as it is whole.
pub async fn drop_damaged(directory: &Path, options: Options) -> Result<Vec<(String, Error)>, Error> {
    let store = Embedded::open(directory, options)?;
    let found = drop_damaged_of(&store).await;
    store.close();
    found
}

/// The same of a store that is open.
pub(crate) async fn drop_damaged_of(store: &Embedded) -> Result<Vec<(String, Error)>, Error> {
    let all = store.range(Range { keys_only: true, ..Range::of(KeyRange::all()) }).await?;
    let mut dropped = Vec::new();
    for key in all.kvs.into_iter().map(|kv| kv.key) {
        match store.range(Range::of(KeyRange::key(key.clone()))).await {
            Ok(_) => {}
            Err(damage @ Error::Corrupt { .. }) => {
                store.txn(Txn::of(vec![Op::Delete { keys: KeyRange::key(key.clone()) }])).await?;
                dropped.push((String::from_utf8_lossy(&key).into_owned(), damage));
            }
            Err(other) => return Err(other),
        }
    }
    Ok(dropped)
}

fn check_segment(disk: &dyn Disk, store: u64, segment: &Segment, into: &mut Verification) -> io::Result<()> {
    let end = segment.end.load(Ordering::Relaxed);
    let mut reader = FrameReader::new(&*segment.file, store, segment.id, end);
    let mut at = FIRST;
    while at < end {
        match reader.at(at)? {
            Found::Frame(header, body) => {
                into.frames += 1;
                for entry in entries(body, header.entries) {
                    match entry {
                        Ok(_) => into.entries += 1,
                        Err(what) => {
                            into.damage.push(segment::corrupt(disk.path(), &segment.name(), at, what));
                            break;
                        }
                    }
                }
                at += header.len as u64;
            }
            Found::Nothing(what) => {
                into.damage.push(segment::corrupt(disk.path(), &segment.name(), at, what));
                // Go on behind the damage, so that one verification tells all of it.
                match reader.next_frame(at)? {
                    Some(next) => at = next,
                    None => return Ok(()),
                }
            }
        }
    }
    Ok(())
}

fn check_version(
    disk: &dyn Disk,
    recovered: &Recovered,
    key: &[u8],
    version: &Version,
    into: &mut Verification,
) -> Result<(), Error> {
    // Recovery has refused locations outside of known segments.
    let Some(segment) = recovered.segments.get(version.location.segment) else { return Ok(()) };
    let offset = u64::from(version.location.offset);
    let mut bytes = vec![0; version.location.len as usize];
    segment.file.read(&mut bytes, offset).map_err(Error::io("read", disk.path().join(segment.name())))?;
    if let Err(what) = segment::check(&bytes, key, version) {
        let what = format!("{what}: the value of {:?}", String::from_utf8_lossy(key));
        into.damage.push(segment::corrupt(disk.path(), &segment.name(), offset, what));
    }
    Ok(())
}

/// Forgets all history of the store in a directory, also that beyond the compaction mark, and gives the space back; tells
/// the state before and after.
pub async fn compact(directory: &Path) -> Result<(Status, Status), Error> {
    let before = status(directory)?;
    let store = Embedded::open(directory, Options { retention: None, ..Options::default() })?;
    let revision = store.status().await?.revision;
    match store.compact(revision).await {
        // All history is forgotten already.
        Ok(()) | Err(Error::Compacted { .. }) => {}
        Err(error) => return Err(error),
    }
    // The first pass moves what lives; the second removes what that left.
    store.maintain().await?;
    store.maintain().await?;
    store.close();
    Ok((before, status(directory)?))
}

/// Copies the present state of the store in a directory into another, which must be empty or absent; tells the revision.
pub fn snapshot(directory: &Path, target: &Path) -> Result<i64, Error> {
    let _lock = existing(directory)?;
    let disk = Arc::new(OsDisk::new(directory));
    let recovered = read(&*disk)?;
    let options = Options::default();
    let (mut writer, _, shared) = super::join(disk, Arc::new(SystemClock::default()), options, recovered);
    copy(&shared, &writer.mark(), target)
}

/// Writes the state at a mark into a new directory, as a store without history.
pub(crate) fn copy(shared: &Arc<Shared>, mark: &Mark, target: &Path) -> Result<i64, Error> {
    copy_into(Builder::new(target)?, shared, mark)
}

/// The same into a store that was begun.
pub(crate) fn copy_into(mut builder: Builder, shared: &Arc<Shared>, mark: &Mark) -> Result<i64, Error> {
    let revision = mark.pin.revision;
    let mut range = Range::of(KeyRange::all()).at(revision).limit(COPY_KEYS);
    loop {
        let found = shared.find(&range, revision);
        let more = found.more;
        for kv in shared.values(found.items)? {
            range.keys.start = [&kv.key[..], &[0]].concat().into();
            builder.add(kv)?;
        }
        if !more {
            break;
        }
    }
    builder.finish(revision, mark.leases.clone())?;
    Ok(revision)
}

/// Makes a store of keys that are given one by one. It is there when it is finished.
pub(crate) struct Builder {
    disk: Arc<dyn Disk>,
    /// One of its own: the same state may be copied to several places, each of which then goes its own way.
    store: u64,
    writer: Option<PackedWriter>,
    segments: Vec<SegmentRecord>,
    keys: Vec<(Bytes, Version)>,
    finished: bool,
}

impl Builder {
    /// Begins in a directory that is empty, or absent and then created for its owner only.
    pub(crate) fn new(target: &Path) -> Result<Self, Error> {
        let failed = |doing| Error::io(doing, target);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(target).map_err(failed("create"))?;
        if fs::read_dir(target).map_err(failed("list"))?.next().is_some() {
            let source = io::Error::new(io::ErrorKind::DirectoryNotEmpty, "it is not empty");
            return Err(failed("make a store in")(source));
        }
        Ok(Self::on(Arc::new(OsDisk::new(target)), super::new_store_id(&SystemClock::default())))
    }

    /// Begins on an empty disk.
    pub(crate) fn on(disk: Arc<dyn Disk>, store: u64) -> Self {
        Self { disk, store, writer: None, segments: Vec::new(), keys: Vec::new(), finished: false }
    }

    fn failed(&self) -> impl Fn(io::Error) -> Error + use<> {
        let path = self.disk.path().to_owned();
        move |source| Error::Io { doing: "write", path: path.clone(), source }
    }

    /// Adds a key, which comes once, in whatever order.
    pub(crate) fn add(&mut self, kv: KeyValue) -> Result<(), Error> {
        let failed = self.failed();
        if self.writer.as_ref().is_some_and(|writer| writer.offset >= COPY_SEGMENT) {
            finish(self.writer.take(), &mut self.segments).map_err(&failed)?;
        }
        let id = self.segments.len() as u32 + 1;
        let open = match &mut self.writer {
            Some(open) => open,
            none => none.insert(PackedWriter::create(&*self.disk, self.store, id).map_err(&failed)?),
        };
        let entry = Entry {
            kind: EntryKind::Put,
            mod_revision: kv.mod_revision,
            create_revision: kv.create_revision,
            version: kv.version as u64,
            lease: kv.lease,
            key: &kv.key,
            value: &kv.value,
        };
        let location = open.add(&entry).map_err(&failed)?;
        let version = Version {
            mod_revision: kv.mod_revision,
            create_revision: kv.create_revision,
            version: kv.version as u64,
            lease: kv.lease,
            location,
        };
        // A copy, as the key may be a slice of something large.
        self.keys.push((Bytes::copy_from_slice(&kv.key), version));
        Ok(())
    }

    /// Writes the index; the store is then at `revision` and has no history.
    pub(crate) fn finish(
        mut self,
        revision: i64,
        leases: Vec<(LeaseId, Duration, Option<Duration>)>,
    ) -> Result<(), Error> {
        let failed = self.failed();
        finish(self.writer.take(), &mut self.segments).map_err(&failed)?;
        self.keys.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let head = Head {
            store: self.store,
            revision,
            compacted: revision,
            segment: 0,
            offset: 0,
            next_segment: self.segments.len() as u32 + 1,
            segments: std::mem::take(&mut self.segments),
            leases,
        };
        let written = checkpoint::Writer::new(&*self.disk, &head).and_then(|mut writer| {
            self.keys.iter().try_for_each(|(key, version)| writer.versions(key, &[version]))?;
            writer.finish(None)
        });
        written.map_err(failed)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // What is not finished is no store, and would keep the directory from being used. Why is told by whoever failed.
        for name in self.disk.list().unwrap_or_default() {
            drop(self.disk.remove(&name));
        }
    }
}

fn finish(writer: Option<PackedWriter>, segments: &mut Vec<SegmentRecord>) -> io::Result<()> {
    if let Some(writer) = writer {
        let segment = writer.finish()?;
        segments.push(SegmentRecord {
            id: segment.id,
            kind: Kind::Packed,
            end: segment.end.load(Ordering::Relaxed),
            newest: segment.newest.load(Ordering::Relaxed),
        });
    }
    Ok(())
}

/// Takes the lock of a directory that must be there already.
fn existing(directory: &Path) -> Result<fs::File, Error> {
    fs::metadata(directory.join(checkpoint::NAME)).map_err(Error::io("find a store in", directory))?;
    lock(directory)
}

fn read(disk: &dyn Disk) -> Result<Recovered, Error> {
    let missing = || Error::io("find a store in", disk.path())(io::ErrorKind::NotFound.into());
    recovery::recover(disk, SystemClock::default().monotonic())?.ok_or_else(missing)
}

fn describe(recovered: &Recovered) -> Status {
    let segments = recovered.segments.all();
    Status {
        revision: recovered.revision,
        compacted: recovered.compacted,
        keys: recovered.index.live,
        leases: recovered.leases.iter().count(),
        segments: segments.len(),
        size: segments.iter().map(|segment| segment.used()).sum(),
        live: segments.iter().map(|segment| segment.live.load(Ordering::Relaxed)).sum(),
        checkpoint: recovered.checkpoint_bytes,
    }
}
