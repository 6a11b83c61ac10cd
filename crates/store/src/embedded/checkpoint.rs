//! The index written down, so that a start reads only the end of the log.
//!
//! ```text
//! file    magic  format  blocks …
//! block   length  crc  records        a record never spans two blocks
//! ```
//!
//! The last record of the keys is the end mark with their number: a checkpoint without it is damaged. What follows in
//! further blocks is about history beyond the compaction mark; engines that know nothing of it read no further. A new one
//! is written beside the old and renamed into its place, so there is always a whole one.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::disk::{Disk, File};
use super::format::{FORMAT, Kind, check_format, u32_at, u64_at};
use super::hooks::{self, Mutant};
use super::index::{Chain, Index, Location, Version};
use super::segment::corrupt;
use super::times::Times;
use crate::{Error, LeaseId};

pub(crate) const NAME: &str = "checkpoint";
pub(crate) const NEW_NAME: &str = "checkpoint.new";
const MAGIC: [u8; 8] = *b"PILOTCKP";
const START: u64 = 16;
const BLOCK: usize = hooks::bound(64 << 10, 400);
/// Times in one record.
const TIMES: usize = 4096;

/// A segment that a checkpoint refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRecord {
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) end: u64,
    pub(crate) newest: i64,
}

/// What a checkpoint says beside the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) store: u64,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    /// The log continues here; 0 before its first segment.
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    /// No segment has this number or a higher one yet.
    pub(crate) next_segment: u32,
    pub(crate) segments: Vec<SegmentRecord>,
    /// Number, full time, and what is written as left.
    pub(crate) leases: Vec<(LeaseId, Duration, Option<Duration>)>,
}

/// History beyond the compaction mark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// How far back it reaches.
    pub(crate) undo: i64,
    /// Prefixes of keys of which there is none; `None`: not said, as nothing was dropped because of it.
    pub(crate) except: Option<Vec<Bytes>>,
    pub(crate) times: Times,
}

/// Writes a checkpoint record by record.
pub(crate) struct Writer<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn File>,
    offset: u64,
    block: Vec<u8>,
    last_key: Bytes,
    keys: u64,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, head: &Head) -> io::Result<Self> {
        let file = disk.create(NEW_NAME, 0)?;
        let mut start = [0; START as usize];
        start[..8].copy_from_slice(&MAGIC);
        start[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        file.write(&start, 0)?;
        let block = Vec::with_capacity(BLOCK * 2);
        let mut writer = Self { disk, file, offset: START, block, last_key: Bytes::new(), keys: 0 };
        writer.block.push(b'H');
        for number in [head.store, head.revision as u64, head.compacted as u64, head.offset] {
            writer.block.extend_from_slice(&number.to_le_bytes());
        }
        writer.block.extend_from_slice(&head.segment.to_le_bytes());
        writer.block.extend_from_slice(&head.next_segment.to_le_bytes());
        for segment in &head.segments {
            writer.block.push(b'S');
            writer.block.extend_from_slice(&segment.id.to_le_bytes());
            writer.block.push(u8::from(segment.kind == Kind::Packed));
            writer.block.extend_from_slice(&segment.end.to_le_bytes());
            writer.block.extend_from_slice(&segment.newest.to_le_bytes());
            writer.flush_full()?;
        }
        for (id, ttl, left) in &head.leases {
            writer.block.push(b'L');
            writer.block.extend_from_slice(&id.to_le_bytes());
            writer.block.extend_from_slice(&(ttl.as_millis() as u64).to_le_bytes());
            let left = left.map_or(u64::MAX, |left| left.as_millis() as u64);
            writer.block.extend_from_slice(&left.to_le_bytes());
            writer.flush_full()?;
        }
        Ok(writer)
    }

    /// Adds a key, greater than those before, with the versions that `revision` or an earlier one made.
    pub(crate) fn key(&mut self, key: &Bytes, chain: &Chain, revision: i64) -> io::Result<()> {
        let versions: Vec<&Version> = chain.versions().take_while(|version| version.mod_revision <= revision).collect();
        if versions.is_empty() { Ok(()) } else { self.versions(key, &versions) }
    }

    /// Adds a key, greater than those before, with these versions.
    pub(crate) fn versions(&mut self, key: &Bytes, versions: &[&Version]) -> io::Result<()> {
        let shared = key.iter().zip(&self.last_key).take_while(|(a, b)| a == b).count().min(u16::MAX as usize);
        self.block.push(b'K');
        self.block.extend_from_slice(&(shared as u16).to_le_bytes());
        self.block.extend_from_slice(&((key.len() - shared) as u32).to_le_bytes());
        self.block.extend_from_slice(&(versions.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&key[shared..]);
        for version in versions {
            for number in [version.mod_revision as u64, version.create_revision as u64, version.version] {
                self.block.extend_from_slice(&number.to_le_bytes());
            }
            self.block.extend_from_slice(&version.lease.to_le_bytes());
            let Location { segment, offset, len } = version.location;
            for number in [segment, offset, len] {
                self.block.extend_from_slice(&number.to_le_bytes());
            }
        }
        self.last_key = key.clone();
        self.keys += 1;
        self.flush_full()
    }

    fn past(&mut self, past: &Past) -> io::Result<()> {
        self.block.push(b'U');
        self.block.extend_from_slice(&past.undo.to_le_bytes());
        for prefix in past.except.iter().flatten() {
            self.block.push(b'X');
            self.block.extend_from_slice(&(prefix.len() as u32).to_le_bytes());
            self.block.extend_from_slice(prefix);
        }
        self.flush()?;
        let times: Vec<(i64, i64)> = past.times.up_to(i64::MAX).collect();
        for times in times.chunks(TIMES) {
            self.block.push(b'T');
            self.block.extend_from_slice(&(times.len() as u32).to_le_bytes());
            for (second, revision) in times {
                self.block.extend_from_slice(&second.to_le_bytes());
                self.block.extend_from_slice(&revision.to_le_bytes());
            }
            self.flush()?;
        }
        Ok(())
    }

    fn flush_full(&mut self) -> io::Result<()> {
        if self.block.len() >= BLOCK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut head = [0; 8];
        head[..4].copy_from_slice(&(self.block.len() as u32).to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(&self.block).to_le_bytes());
        self.file.write(&head, self.offset)?;
        self.file.write(&self.block, self.offset + 8)?;
        self.offset += 8 + self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    /// Makes it durable and puts it in the place of the one before; tells its size.
    pub(crate) fn finish(mut self, past: Option<&Past>) -> io::Result<u64> {
        self.block.push(b'E');
        self.block.extend_from_slice(&self.keys.to_le_bytes());
        self.flush()?;
        if let Some(past) = past {
            self.past(past)?;
        }
        if !hooks::is(Mutant::CheckpointNotSynced) {
            self.file.sync()?;
        }
        self.disk.rename(NEW_NAME, NAME)?;
        if !hooks::is(Mutant::CheckpointNameNotSynced) {
            self.disk.sync_names()?;
        }
        Ok(self.offset)
    }
}

/// A checkpoint, read back.
pub(crate) struct Checkpoint {
    pub(crate) head: Head,
    pub(crate) index: Index,
    /// `None`: written by an engine without, or at the beginning.
    pub(crate) past: Option<Past>,
    pub(crate) bytes: u64,
}

/// Reads the checkpoint of a store.
pub(crate) fn read(disk: &dyn Disk) -> Result<Checkpoint, Error> {
    let failed = |source| Error::Io { doing: "read", path: disk.path().join(NAME), source };
    let file = disk.open(NAME).map_err(failed)?;
    let len = file.size().map_err(failed)?;
    let mut start = [0; START as usize];
    if len < START {
        return Err(corrupt(disk.path(), NAME, 0, "the checkpoint is cut short"));
    }
    file.read(&mut start, 0).map_err(failed)?;
    if start[..8] != MAGIC {
        return Err(corrupt(disk.path(), NAME, 0, "not a checkpoint of a store"));
    }
    check_format(u32_at(&start, 8)).map_err(|why| why.error(disk.path(), NAME))?;
    let mut loader = Loader::default();
    let mut offset = START;
    let mut block = Vec::new();
    while !loader.ended || offset < len {
        let damage = |what| corrupt(disk.path(), NAME, offset, what);
        let mut head = [0; 8];
        if offset + 8 > len {
            return Err(damage("the checkpoint is cut short"));
        }
        file.read(&mut head, offset).map_err(failed)?;
        let size = u32_at(&head, 0) as usize;
        if offset + 8 + size as u64 > len {
            return Err(damage("the checkpoint is cut short"));
        }
        block.resize(size, 0);
        file.read(&mut block, offset + 8).map_err(failed)?;
        if crc32fast::hash(&block) != u32_at(&head, 4) {
            return Err(damage("a checksum of the checkpoint does not match"));
        }
        loader.block(&block).ok_or_else(|| damage("a record of the checkpoint makes no sense"))?;
        offset += 8 + size as u64;
    }
    let (head, index, past) = loader.finish().ok_or_else(|| corrupt(disk.path(), NAME, START, "keys are missing"))?;
    check_references(disk.path(), &head, &index)?;
    Ok(Checkpoint { head, index, past, bytes: len })
}

fn check_references(path: &Path, head: &Head, index: &Index) -> Result<(), Error> {
    let ends: HashMap<u32, u64> = head.segments.iter().map(|segment| (segment.id, segment.end)).collect();
    for (key, chain) in &index.keys {
        for version in chain.versions() {
            let Location { segment, offset, len } = version.location;
            let end = u64::from(offset) + u64::from(len);
            if ends.get(&segment).is_none_or(|segment_end| end > *segment_end) {
                let what = format!("key {:?} refers to an entry that is not there", String::from_utf8_lossy(key));
                return Err(corrupt(path, NAME, START, what));
            }
        }
    }
    Ok(())
}

#[derive(Default)]
struct Loader {
    head: Head,
    keys: Vec<(Bytes, Chain)>,
    last_key: Vec<u8>,
    live: usize,
    expected: u64,
    ended: bool,
    past: Option<Past>,
}

impl Loader {
    fn block(&mut self, mut bytes: &[u8]) -> Option<()> {
        while let Some((tag, rest)) = bytes.split_first() {
            bytes = match tag {
                b'H' => {
                    let (record, rest) = rest.split_at_checked(40)?;
                    self.head.store = u64_at(record, 0);
                    self.head.revision = u64_at(record, 8) as i64;
                    self.head.compacted = u64_at(record, 16) as i64;
                    self.head.offset = u64_at(record, 24);
                    self.head.segment = u32_at(record, 32);
                    self.head.next_segment = u32_at(record, 36);
                    rest
                }
                b'S' => {
                    let (record, rest) = rest.split_at_checked(21)?;
                    self.head.segments.push(SegmentRecord {
                        id: u32_at(record, 0),
                        kind: if record[4] == 1 { Kind::Packed } else { Kind::Log },
                        end: u64_at(record, 5),
                        newest: u64_at(record, 13) as i64,
                    });
                    rest
                }
                b'L' => {
                    let (record, rest) = rest.split_at_checked(24)?;
                    let left = Some(u64_at(record, 16)).filter(|left| *left != u64::MAX).map(Duration::from_millis);
                    let ttl = Duration::from_millis(u64_at(record, 8));
                    self.head.leases.push((u64_at(record, 0) as i64, ttl, left));
                    rest
                }
                b'K' => self.key(rest)?,
                b'E' => {
                    let (record, rest) = rest.split_at_checked(8)?;
                    self.expected = u64_at(record, 0);
                    self.ended = true;
                    rest
                }
                b'U' => {
                    let (record, rest) = rest.split_at_checked(8)?;
                    self.past =
                        Some(Past { undo: u64_at(record, 0) as i64, except: Some(Vec::new()), ..Past::default() });
                    rest
                }
                b'X' => {
                    let (len, rest) = rest.split_at_checked(4)?;
                    let (prefix, rest) = rest.split_at_checked(u32_at(len, 0) as usize)?;
                    self.past.as_mut()?.except.as_mut()?.push(Bytes::copy_from_slice(prefix));
                    rest
                }
                b'T' => {
                    let (count, rest) = rest.split_at_checked(4)?;
                    let (times, rest) = rest.split_at_checked((u32_at(count, 0) as usize).checked_mul(16)?)?;
                    let past = self.past.as_mut()?;
                    for time in times.chunks_exact(16) {
                        past.times.note(u64_at(time, 0) as i64, u64_at(time, 8) as i64);
                    }
                    rest
                }
                _ => return None,
            };
        }
        Some(())
    }

    fn key<'a>(&mut self, rest: &'a [u8]) -> Option<&'a [u8]> {
        let (record, rest) = rest.split_at_checked(10)?;
        let shared = u16::from_le_bytes([record[0], record[1]]) as usize;
        let (suffix, mut rest) = rest.split_at_checked(u32_at(record, 2) as usize)?;
        if shared > self.last_key.len() {
            return None;
        }
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(suffix);
        let mut chain: Option<Chain> = None;
        for _ in 0..u32_at(record, 6) {
            let (record, after) = rest.split_at_checked(44)?;
            rest = after;
            let version = Version {
                mod_revision: u64_at(record, 0) as i64,
                create_revision: u64_at(record, 8) as i64,
                version: u64_at(record, 16),
                lease: u64_at(record, 24) as i64,
                location: Location { segment: u32_at(record, 32), offset: u32_at(record, 36), len: u32_at(record, 40) },
            };
            match &mut chain {
                Some(chain) => chain.push(version),
                None => chain = Some(Chain::new(version)),
            }
        }
        let chain = chain?;
        self.live += usize::from(!chain.latest().is_tombstone());
        self.keys.push((Bytes::copy_from_slice(&self.last_key), chain));
        Some(rest)
    }

    fn finish(self) -> Option<(Head, Index, Option<Past>)> {
        let complete = self.keys.len() as u64 == self.expected;
        // They come in order, from which the map is built in one pass.
        let index = || Index { keys: self.keys.into_iter().collect(), live: self.live };
        complete.then(|| (self.head, index(), self.past))
    }
}
