//! Reading a store back: the checkpoint, then what the log says after it.
//!
//! Reading writes nothing; [`make_durable`] does, before what was read is shown. The end of the log may be torn, because a
//! write that was under way when the machine stopped was never acknowledged; everything before it must be whole, or the
//! store does not open.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::checkpoint::{self, Checkpoint, Head, Past};
use super::disk::{Disk, File};
use super::format::{
    EntryKind, FIRST, FRAME_HEADER, Found, FrameReader, Kind, NO_FRAME, SEGMENT_HEADER, SegmentHeader, Unread, entries,
};
use super::hooks::{self, Mutant};
use super::index::{Index, Location, Version};
use super::lease::Leases;
use super::segment::{self, Segment, Segments, corrupt};
use crate::Error;

/// A store's state as read from its disk.
pub(crate) struct Recovered {
    pub(crate) store_id: u64,
    pub(crate) index: Index,
    pub(crate) leases: Leases,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// History beyond the compaction mark, as the checkpoint has it and the log goes on.
    pub(crate) past: Past,
    pub(crate) segments: Segments,
    pub(crate) next_segment: u32,
    /// The newest log segment and where it ends.
    pub(crate) log_end: (u32, u64),
    /// Where the last write of it began, or what is known to be durable ends.
    pub(crate) last_group: u64,
    /// Bytes of log read back.
    pub(crate) replayed: u64,
    pub(crate) checkpoint_bytes: u64,
    /// Files that nothing refers to: left by an unfinished step, to be removed.
    pub(crate) strays: Vec<String>,
}

/// Reads the store on a disk; `None` when there is none.
pub(crate) fn recover(disk: &dyn Disk, now: Duration) -> Result<Option<Recovered>, Error> {
    let names = disk.list().map_err(Error::io("list", disk.path()))?;
    let files: BTreeMap<u32, Kind> =
        names.iter().filter_map(|name| segment::parse_name(name)).map(|(kind, id)| (id, kind)).collect();
    if !names.iter().any(|name| name == checkpoint::NAME) {
        return match files.first_key_value() {
            None => Ok(None),
            Some(_) => Err(corrupt(disk.path(), checkpoint::NAME, 0, "the checkpoint is missing: restore a snapshot")),
        };
    }
    let Checkpoint { head, index, past, bytes: checkpoint_bytes } = checkpoint::read(disk)?;
    // Without, nothing above the checkpoint's own mark has been dropped.
    let past = past.unwrap_or_else(|| Past { undo: head.compacted, ..Past::default() });
    let mut replay = Replay {
        disk,
        store: head.store,
        revision: head.revision,
        compacted: head.compacted,
        past,
        index,
        leases: Leases::default(),
        segments: Segments::default(),
        now,
        last_group: head.offset,
        replayed: 0,
    };
    for (id, ttl, left) in &head.leases {
        replay.leases.insert(*id, *ttl, *left, now);
    }
    replay.open_referred(&head)?;
    let log_end = replay.follow(&head, &files)?;
    // Not opened: from before the checkpoint, of a rewrite that it does not know, or created just before a crash.
    let strange = |(id, kind): (&u32, &Kind)| replay.segments.get(*id).is_none().then(|| segment::name(*kind, *id));
    let mut strays: Vec<String> = files.iter().filter_map(strange).collect();
    strays.extend(names.into_iter().filter(|name| name == checkpoint::NEW_NAME));
    let Replay { index, mut leases, segments, mut revision, compacted, past, last_group, replayed, .. } = replay;
    if hooks::is(Mutant::RevisionFromKeys) {
        let latest = index.keys.values().map(|chain| chain.latest()).filter(|latest| !latest.is_tombstone());
        revision = latest.map(|latest| latest.mod_revision).max().unwrap_or(1).max(compacted);
    }
    for (key, chain) in &index.keys {
        chain.versions().for_each(|version| segments.account(version.location, true));
        leases.attach(chain.latest().lease, key);
    }
    let highest = files.last_key_value().map_or(0, |(id, _)| *id);
    Ok(Some(Recovered {
        store_id: head.store,
        index,
        leases,
        revision,
        compacted,
        past,
        segments,
        next_segment: head.next_segment.max(highest + 1),
        log_end,
        last_group,
        replayed,
        checkpoint_bytes,
        strays,
    }))
}

struct Replay<'a> {
    disk: &'a dyn Disk,
    store: u64,
    revision: i64,
    compacted: i64,
    past: Past,
    index: Index,
    leases: Leases,
    segments: Segments,
    now: Duration,
    last_group: u64,
    replayed: u64,
}

impl Replay<'_> {
    fn corrupt(&self, name: &str, offset: u64, what: impl Into<String>) -> Error {
        corrupt(self.disk.path(), name, offset, what)
    }

    fn failed(&self, name: &str) -> impl Fn(std::io::Error) -> Error + use<> {
        let path = self.disk.path().join(name);
        move |source| Error::Io { doing: "read", path: path.clone(), source }
    }

    fn open_file(&self, name: &str) -> Result<Arc<dyn File>, Error> {
        self.disk.open(name).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.corrupt(name, 0, "the segment is missing"),
            _ => self.failed(name)(error),
        })
    }

    /// Opens a segment that must be whole, with its header, up to `end`.
    fn open(&mut self, kind: Kind, id: u32, end: u64) -> Result<Arc<Segment>, Error> {
        let name = segment::name(kind, id);
        let file = self.open_file(&name)?;
        let len = used(file.size().map_err(self.failed(&name))?);
        let header = SegmentHeader::read(&*file).map_err(self.failed(&name))?;
        let header = header.map_err(|why| why.error(self.disk.path(), &name))?;
        self.check_identity(&name, &header, kind, id)?;
        if len < end {
            return Err(self.corrupt(&name, len, "the segment is cut short"));
        }
        let segment = Arc::new(Segment::new(kind, id, file, end));
        segment.newest.store(header.revision, Ordering::Relaxed);
        segment.sealed.store(true, Ordering::Relaxed);
        self.segments.insert(Arc::clone(&segment));
        Ok(segment)
    }

    fn check_identity(&self, name: &str, header: &SegmentHeader, kind: Kind, id: u32) -> Result<(), Error> {
        if header.kind != kind || header.id != id || header.store != self.store {
            return Err(self.corrupt(name, 0, "the segment is not the one that its name says, or of another store"));
        }
        Ok(())
    }

    /// Opens the segments that the checkpoint refers to.
    fn open_referred(&mut self, head: &Head) -> Result<(), Error> {
        for record in &head.segments {
            let segment = self.open(record.kind, record.id, record.end)?;
            segment.newest.store(record.newest, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Replays the log after the checkpoint; tells its end.
    fn follow(&mut self, head: &Head, files: &BTreeMap<u32, Kind>) -> Result<(u32, u64), Error> {
        let later = |(id, kind): (&u32, &Kind)| (*kind == Kind::Log && *id > head.segment).then_some(*id);
        let mut later = files.iter().filter_map(later).peekable();
        let mut position = (head.segment, head.offset);
        if head.segment != 0 && self.segments.get(head.segment).is_none() {
            self.open(Kind::Log, head.segment, head.offset)?;
        }
        loop {
            let next = match later.next() {
                Some(id) => self.next_header(id, later.peek().is_none())?,
                None => None,
            };
            if let Some(header) = &next
                && header.previous != position.0
            {
                let what = format!("log segment {:08x}, which it continues, is missing", header.previous);
                return Err(self.corrupt(&segment::name(Kind::Log, header.id), 0, what));
            }
            if position.0 != 0 {
                let end = next.as_ref().map(|header| header.previous_end);
                position.1 = self.segment(position.0, position.1, end)?;
            }
            let Some(header) = next else { return Ok(position) };
            if header.revision != self.revision {
                let what = format!("it follows revision {}, not {}", header.revision, self.revision);
                return Err(self.corrupt(&segment::name(Kind::Log, header.id), 0, what));
            }
            self.open(Kind::Log, header.id, FIRST)?;
            position = (header.id, FIRST);
            self.last_group = FIRST;
        }
    }

    /// The header of a later log segment; `None` for a last one whose creation did not finish.
    fn next_header(&self, id: u32, last: bool) -> Result<Option<SegmentHeader>, Error> {
        let name = segment::name(Kind::Log, id);
        let file = self.open_file(&name)?;
        match SegmentHeader::read(&*file).map_err(self.failed(&name))? {
            Ok(header) => {
                self.check_identity(&name, &header, Kind::Log, id)?;
                Ok(Some(header))
            }
            Err(newer @ Unread::Newer(_)) => Err(newer.error(self.disk.path(), &name)),
            Err(why) => {
                // The header is durable before the first frame is written: a frame means that it was damaged later.
                let len = file.size().map_err(self.failed(&name))?;
                let mut reader = FrameReader::new(&*file, self.store, id, len);
                let used = len > FIRST && reader.later_group(FIRST - 8).map_err(self.failed(&name))?.is_some();
                if used || !last { Err(why.error(self.disk.path(), &name)) } else { Ok(None) }
            }
        }
    }

    /// Replays one segment from `offset`, to `end` if its successor says where it ends; tells where it ended.
    fn segment(&mut self, id: u32, offset: u64, end: Option<u64>) -> Result<u64, Error> {
        let name = segment::name(Kind::Log, id);
        let segment = self.segments.get(id).ok_or_else(|| self.corrupt(&name, 0, "the segment is missing"))?;
        let failed = self.failed(&name);
        let len = used(segment.file.size().map_err(&failed)?);
        let end = end.filter(|_| !hooks::is(Mutant::DisownedTailReplayed));
        let limit = end.unwrap_or(len);
        if limit > len || offset > limit {
            return Err(self.corrupt(&name, len, "the segment is cut short"));
        }
        let mut reader = FrameReader::new(&*segment.file, self.store, id, limit);
        let mut at = offset;
        while at < limit {
            if end.is_none()
                && hooks::is(Mutant::TornTailTakesNeighbour)
                && reader.before_a_tear(at).map_err(&failed)?
            {
                break;
            }
            match reader.at(at).map_err(&failed)? {
                Found::Frame(header, body) => {
                    self.frame(&name, id, at, header.revision, body, header.entries)?;
                    self.last_group = header.group;
                    if header.revision != 0 {
                        self.past.times.note(header.time.div_euclid(1000), header.revision);
                    }
                    at += header.len as u64;
                }
                Found::Nothing(what) => {
                    if end.is_some() || reader.later_group(at).map_err(&failed)?.is_some() {
                        return Err(self.corrupt(&name, at, what));
                    }
                    // Nothing at all is what is reserved; else a write was cut off, or what followed it is gone.
                    if what == NO_FRAME {
                        tracing::debug!(%name, offset = at, "the log ends here");
                    } else {
                        tracing::warn!(%name, offset = at, what, "the log ends here: a write that was not whole is left out");
                    }
                    break;
                }
            }
        }
        self.replayed += at - offset;
        segment.end.store(at, Ordering::Relaxed);
        segment.newest.fetch_max(self.revision, Ordering::Relaxed);
        Ok(at)
    }

    fn frame(&mut self, name: &str, id: u32, at: u64, revision: i64, body: &[u8], count: u32) -> Result<(), Error> {
        if revision != 0 && revision != self.revision + 1 {
            let what = format!("revision {revision} follows {}", self.revision);
            return Err(self.corrupt(name, at, what));
        }
        for entry in entries(body, count) {
            if entry.is_err() && hooks::is(Mutant::TornTransactionTaken) {
                break;
            }
            let (entry, start, len) = entry.map_err(|what| self.corrupt(name, at, what))?;
            let millis = Duration::from_millis(entry.version);
            match entry.kind {
                EntryKind::Put | EntryKind::Tombstone => {
                    if entry.mod_revision != revision {
                        return Err(self.corrupt(name, at, "an entry is not of its frame's revision"));
                    }
                    let offset = at + (FRAME_HEADER + start) as u64;
                    let version = Version {
                        mod_revision: revision,
                        create_revision: entry.create_revision,
                        version: entry.version,
                        lease: entry.lease,
                        location: Location { segment: id, offset: offset as u32, len: len as u32 },
                    };
                    self.index.push(entry.key, version);
                }
                EntryKind::LeaseGrant => self.leases.insert(entry.lease, millis, None, self.now),
                EntryKind::LeaseEnd => drop(self.leases.remove(entry.lease)),
                EntryKind::LeaseRemaining => {
                    if let Some(lease) = self.leases.remove(entry.lease) {
                        let left = (millis < lease.ttl).then_some(millis);
                        self.leases.insert(entry.lease, lease.ttl, left, self.now);
                    }
                }
                EntryKind::Compact => self.compacted = self.compacted.max(entry.mod_revision),
            }
        }
        if revision != 0 {
            self.revision = revision;
        }
        Ok(())
    }
}

/// Makes durable what a start goes on from.
///
/// The process before may have been killed between a write and its sync, or after a sync that failed: then the last group
/// of the log, its segment's header, or the name of a file is in the system's cache only, perhaps taken for written. All
/// before that was synced, or it would not be followed by anything. So that much is written again, where it is.
pub(crate) fn make_durable(disk: &dyn Disk, recovered: &Recovered) -> Result<(), Error> {
    let (id, end) = recovered.log_end;
    if let Some(segment) = recovered.segments.get(id) {
        let rewrite = || {
            let mut header = vec![0; SEGMENT_HEADER];
            segment.file.read(&mut header, 0)?;
            segment.file.write(&header, 0)?;
            if end > recovered.last_group {
                let mut group = vec![0; (end - recovered.last_group) as usize];
                segment.file.read(&mut group, recovered.last_group)?;
                segment.file.write(&group, recovered.last_group)?;
            }
            segment.file.sync()
        };
        rewrite().map_err(Error::io("write", disk.path().join(segment.name())))?;
    }
    disk.sync_names().map_err(Error::io("sync", disk.path()))
}

/// The length that counts of a segment that has its header: where nothing is reserved, one without a frame ends with it.
fn used(len: u64) -> u64 {
    len.max(FIRST)
}

/// Makes a new store's first checkpoint.
pub(crate) fn initialize(disk: &dyn Disk, store: u64) -> Result<(), Error> {
    let head = Head { store, revision: 1, next_segment: 1, ..Head::default() };
    let written = checkpoint::Writer::new(disk, &head).and_then(|writer| writer.finish(None));
    written.map(drop).map_err(Error::io("write", disk.path().join(checkpoint::NAME)))
}
