//! Starting: the checkpoint, then the log behind it, up to where the last write was cut off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Options;
use super::checkpoint::{self, Checkpoint};
use super::clock::Clock;
use super::disk::Disk;
use super::format::{Entry, EntryKind, FIRST, Found, FrameReader, Kind, SegmentHeader, entries};
use super::index::{Index, Location, Version};
use super::lease::Leases;
use super::log::Log;
use super::segment::{self, Segment, Segments};
use super::shared::Shared;
use crate::Error;

/// A store as it was left.
pub(crate) struct Recovered {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) leases: Leases,
}

/// The state while it is put together.
struct State {
    index: Index,
    leases: Leases,
    revision: i64,
    compacted: i64,
    now: Duration,
}

fn io_error(disk: &dyn Disk, name: &str) -> impl Fn(std::io::Error) -> Error {
    let path = disk.path().join(name);
    move |source| Error::Io { doing: "read", path: path.clone(), source }
}

/// Reads a store back, or begins one.
pub(crate) fn recover(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, options: Options) -> Result<Recovered, Error> {
    let checkpoint = checkpoint::read(&*disk)?;
    let (segments, headers) = open_segments(&*disk, checkpoint.as_ref())?;
    let mut state =
        State { index: Index::default(), leases: Leases::default(), revision: 1, compacted: 0, now: clock.monotonic() };
    let store = checkpoint.as_ref().map(|c| c.store).or_else(|| headers.values().next().map(|h| h.store));
    let (first, offset) = match checkpoint {
        Some(checkpoint) => {
            let start = (checkpoint.segment, checkpoint.offset);
            state.load(checkpoint);
            start
        }
        None => (0, FIRST),
    };
    let (last, end) = replay(&*disk, &segments, &headers, first, offset, &mut state)?;
    for (key, versions) in state.index.keys.iter().flat_map(|(k, c)| c.versions().map(move |v| (k, v))) {
        let location = versions.location;
        if segments.get(location.segment).is_none() {
            return Err(Error::Corrupt {
                what: format!("the value of key {:?} is missing", String::from_utf8_lossy(key)),
                place: disk.path().join(segment::name(Kind::Log, location.segment)).display().to_string(),
            });
        }
        segments.account(location, true);
    }
    let next = segments.all().iter().map(|s| s.id).max().unwrap_or(0) + 1;
    let store = store.unwrap_or_else(|| new_store_id(&*clock));
    let shared =
        Shared::new(disk, clock, options, store, state.index, state.revision, state.compacted, segments, next);
    Ok(Recovered { shared: Arc::new(shared), log: Log::after(last, end), leases: state.leases })
}

/// A number that no other store of this machine has.
fn new_store_id(clock: &dyn Clock) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's hasher is seeded from the machine's randomness.
    RandomState::new().hash_one((clock.wall_millis(), std::process::id()))
}

/// Opens every segment. One whose creation was cut off has no header and nothing in it: it is removed.
fn open_segments(disk: &dyn Disk, checkpoint: Option<&Checkpoint>) -> Result<(Segments, BTreeMap<u32, SegmentHeader>), Error> {
    let segments = Segments::default();
    let mut headers = BTreeMap::new();
    let mut store = checkpoint.map(|c| c.store);
    let names = disk.list().map_err(io_error(disk, ""))?;
    let mut found: Vec<(u32, Kind)> = names.iter().filter_map(|n| segment::parse_name(n)).map(|(k, id)| (id, k)).collect();
    found.sort_by_key(|(id, _)| *id);
    for (id, kind) in found {
        let name = segment::name(kind, id);
        let file = disk.open(&name).map_err(io_error(disk, &name))?;
        let header = match SegmentHeader::read(&*file).map_err(io_error(disk, &name))? {
            Ok(header) if header.id == id && header.kind == kind && store.is_none_or(|s| s == header.store) => header,
            Ok(_) => return Err(segment::corrupt(disk.path(), &name, 0, "the segment belongs to another store or place")),
            Err(what) => {
                if is_empty(&*file).map_err(io_error(disk, &name))? {
                    tracing::info!(segment = %name, "removed a segment whose creation was cut off");
                    disk.remove(&name).map_err(io_error(disk, &name))?;
                    continue;
                }
                return Err(segment::corrupt(disk.path(), &name, 0, what));
            }
        };
        store = Some(header.store);
        let end = file.len().map_err(io_error(disk, &name))?;
        let opened = Segment::new(kind, id, file, end);
        opened.sealed.store(true, Ordering::Release);
        opened.newest.store(header.revision, Ordering::Relaxed);
        segments.insert(Arc::new(opened));
        headers.insert(id, header);
    }
    Ok((segments, headers))
}

/// Whether nothing but zeros stands where header and first frame would.
fn is_empty(file: &dyn super::disk::File) -> std::io::Result<bool> {
    let mut bytes = vec![0; usize::try_from(file.len()?.min(FIRST + 4096)).unwrap_or(0)];
    file.read(&mut bytes, 0)?;
    // The header's bytes may be there in part, as it is synced before anything else is written.
    Ok(bytes.iter().skip(64).all(|b| *b == 0))
}

impl State {
    fn load(&mut self, checkpoint: Checkpoint) {
        self.revision = checkpoint.revision;
        self.compacted = checkpoint.compacted;
        for (id, ttl, left) in checkpoint.leases {
            self.leases.insert(id, ttl, left, self.now);
        }
        for (key, versions) in checkpoint.keys {
            for version in versions {
                self.index.push(&key, version);
            }
            if let Some(lease) = self.index.keys.get(&key).map(|c| c.latest().lease).filter(|l| *l != 0) {
                self.leases.attach(lease, &key);
            }
        }
    }

    fn apply(&mut self, entry: &Entry<'_>, location: Location) {
        match entry.kind {
            EntryKind::Put | EntryKind::Tombstone => {
                let before = self.index.keys.get(entry.key).map_or(0, |c| c.latest().lease);
                let version = Version {
                    mod_revision: entry.mod_revision,
                    create_revision: entry.create_revision,
                    version: entry.version,
                    lease: entry.lease,
                    location,
                };
                let key = self.index.push(entry.key, version);
                if before != entry.lease {
                    self.leases.detach(before, &key);
                    self.leases.attach(entry.lease, &key);
                }
            }
            EntryKind::LeaseGrant => {
                self.leases.insert(entry.lease, Duration::from_millis(entry.version), None, self.now);
            }
            EntryKind::LeaseEnd => drop(self.leases.remove(entry.lease)),
            EntryKind::LeaseRemaining => {
                if let Some(lease) = self.leases.remove(entry.lease) {
                    let left = Duration::from_millis(entry.version);
                    self.leases.insert(entry.lease, lease.ttl, (left < lease.ttl).then_some(left), self.now);
                    for key in &lease.keys {
                        self.leases.attach(entry.lease, key);
                    }
                }
            }
            EntryKind::Compact => self.compacted = self.compacted.max(entry.mod_revision),
        }
    }
}

/// Replays the log from a place; gives where it ends.
fn replay(
    disk: &dyn Disk,
    segments: &Segments,
    headers: &BTreeMap<u32, SegmentHeader>,
    first: u32,
    offset: u64,
    state: &mut State,
) -> Result<(u32, u64), Error> {
    let follower = |id: u32| headers.values().find(|h| h.kind == Kind::Log && h.previous == id);
    let (mut current, mut at) = (first, offset);
    if first == 0 {
        match follower(0) {
            Some(header) => current = header.id,
            None if headers.is_empty() => return Ok((0, FIRST)),
            None => {
                let place = disk.path().join(checkpoint::NAME).display().to_string();
                return Err(Error::Corrupt { what: "there are segments but no checkpoint and no first one".into(), place });
            }
        }
    } else if !headers.contains_key(&first) {
        // The checkpoint's own segment may have been given back: then the next one continues it.
        match follower(first) {
            Some(header) => (current, at) = (header.id, FIRST),
            None => return Ok((first, offset)),
        }
    }
    loop {
        let next = follower(current);
        at = replay_segment(disk, segments, current, at, next, state)?;
        match next {
            Some(header) => (current, at) = (header.id, FIRST),
            None => return Ok((current, at)),
        }
    }
}

/// Replays one segment from an offset; gives where its durable part ends.
fn replay_segment(
    disk: &dyn Disk,
    segments: &Segments,
    id: u32,
    mut at: u64,
    next: Option<&SegmentHeader>,
    state: &mut State,
) -> Result<u64, Error> {
    let name = segment::name(Kind::Log, id);
    let Some(opened) = segments.get(id) else {
        return Err(segment::corrupt(disk.path(), &name, at, "the segment is missing"));
    };
    let len = opened.file.len().map_err(io_error(disk, &name))?;
    let limit = next.map_or(len, |n| n.previous_end);
    if limit > len {
        return Err(segment::corrupt(disk.path(), &name, len, "the segment is cut short"));
    }
    let store = next.map(|n| n.store).unwrap_or_default();
    let store = if store == 0 { store_of(disk, &opened, &name)? } else { store };
    let mut reader = FrameReader::new(&*opened.file, store, id, limit);
    while at < limit {
        let (header, count) = match reader.at(at).map_err(io_error(disk, &name))? {
            Found::Frame(header, body) => {
                if header.revision != 0 && header.revision != state.revision + 1 {
                    return Err(segment::corrupt(
                        disk.path(),
                        &name,
                        at,
                        format!("revision {} follows {}", header.revision, state.revision),
                    ));
                }
                for entry in entries(body, header.entries) {
                    let (entry, start, len) = entry.map_err(|what| segment::corrupt(disk.path(), &name, at, what))?;
                    let offset = at + (super::format::FRAME_HEADER + start) as u64;
                    state.apply(&entry, Location { segment: id, offset: offset as u32, len: len as u32 });
                }
                (header, header.entries)
            }
            Found::Nothing(what) => {
                if next.is_some() || reader.later_group(at).map_err(io_error(disk, &name))?.is_some() {
                    return Err(segment::corrupt(disk.path(), &name, at, what));
                }
                break;
            }
        };
        if header.revision != 0 {
            state.revision = header.revision;
        }
        debug_assert!(count > 0, "a frame has entries");
        at += header.len as u64;
    }
    opened.end.store(at, Ordering::Relaxed);
    opened.newest.fetch_max(state.revision, Ordering::Relaxed);
    Ok(at)
}

fn store_of(disk: &dyn Disk, opened: &Segment, name: &str) -> Result<u64, Error> {
    match SegmentHeader::read(&*opened.file).map_err(io_error(disk, name))? {
        Ok(header) => Ok(header.store),
        Err(what) => Err(segment::corrupt(disk.path(), name, 0, what)),
    }
}
