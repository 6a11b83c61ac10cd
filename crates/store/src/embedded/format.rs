//! The bytes of a segment: a header, then frames of entries, each with its checksum.
//!
//! ```text
//! segment  header (64 bytes, padded to 4096)  frame  frame  …  zeros
//! frame    magic  length  crc  entries  revision  group  time     then the entries, padded to 8 bytes
//! entry    crc  kind  key length  value length  revision  created  version  lease     then key and value
//! ```
//!
//! All numbers are little-endian. A frame is one transaction; its checksum also covers the store, the segment and the
//! offset it was written for, so bytes of another life of the disk are never taken for it. `group` is the offset at which
//! the frames of its write began: when a frame is there, everything before its group had been synced. That tells a torn
//! tail (cut) from damage (reported).

use std::io;
use std::path::Path;

use crc32fast::Hasher;

use super::disk::File;
use super::hooks::{self, Mutant};
use super::segment::corrupt;
use crate::Error;

/// Raised when old engines could not read what new ones write.
pub(crate) const FORMAT: u32 = 1;
/// There will be no more; a number above it is damage.
const MAX_FORMAT: u32 = 1 << 16;
/// Where the first frame of a segment is.
pub(crate) const FIRST: u64 = 4096;
const SEGMENT_MAGIC: [u8; 8] = *b"PILOTSEG";
pub(crate) const SEGMENT_HEADER: usize = 64;
const FRAME_MAGIC: u32 = u32::from_le_bytes(*b"PHFR");
pub(crate) const FRAME_HEADER: usize = 40;
pub(crate) const ENTRY_HEADER: usize = 48;
/// Frames are never longer; a length above it is damage.
pub(crate) const MAX_FRAME: usize = 256 << 20;

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Transactions in the order of their revisions.
    Log,
    /// Live versions moved from segments that were mostly dead.
    Packed,
}

/// The start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) kind: Kind,
    pub(crate) id: u32,
    /// The store it belongs to.
    pub(crate) store: u64,
    /// Of a log: the segment it continues, 0 for the first.
    pub(crate) previous: u32,
    /// Of a log: where the one it continues ends, whatever is written beyond.
    pub(crate) previous_end: u64,
    /// Of a log: the revision before its first frame.
    pub(crate) revision: i64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12] = match self.kind {
            Kind::Log => 1,
            Kind::Packed => 2,
        };
        bytes[16..20].copy_from_slice(&self.id.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.previous.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.store.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.previous_end.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.revision.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Fails with what is wrong with the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unread> {
        if bytes.len() < SEGMENT_HEADER || bytes[..8] != SEGMENT_MAGIC {
            return Err("not a segment of a store".into());
        }
        if u32_at(bytes, 60) != crc32fast::hash(&bytes[..60]) {
            return Err("the segment's header is damaged".into());
        }
        check_format(u32_at(bytes, 8))?;
        let kind = match bytes[12] {
            1 => Kind::Log,
            2 => Kind::Packed,
            other => return Err(format!("unknown kind of segment {other}").into()),
        };
        Ok(Self {
            kind,
            id: u32_at(bytes, 16),
            store: u64_at(bytes, 24),
            previous: u32_at(bytes, 20),
            previous_end: u64_at(bytes, 32),
            revision: u64_at(bytes, 40) as i64,
        })
    }

    /// Reads it from the start of a file.
    pub(crate) fn read(file: &dyn File) -> io::Result<Result<Self, Unread>> {
        let mut bytes = [0; SEGMENT_HEADER];
        if file.size()? < SEGMENT_HEADER as u64 {
            return Ok(Err("the segment's header is cut short".into()));
        }
        file.read(&mut bytes, 0)?;
        Ok(Self::decode(&bytes))
    }
}

/// Why the start of a file can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// Of this format, which this version does not know.
    Newer(u32),
    Damaged(String),
}

impl From<&str> for Unread {
    fn from(what: &str) -> Self {
        Self::Damaged(what.to_owned())
    }
}

impl From<String> for Unread {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

impl Unread {
    /// The error for a file of a directory.
    pub(crate) fn error(self, directory: &Path, name: &str) -> Error {
        match self {
            Self::Newer(format) => Error::NewerFormat { path: directory.join(name), format, known: FORMAT },
            Self::Damaged(what) => corrupt(directory, name, 0, what),
        }
    }
}

/// Whether a file of this format can be read.
pub(crate) fn check_format(format: u32) -> Result<(), Unread> {
    match format {
        FORMAT => Ok(()),
        newer if (FORMAT..=MAX_FORMAT).contains(&newer) => Err(Unread::Newer(newer)),
        never => Err(format!("there is no format {never}").into()),
    }
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum EntryKind {
    Put = 1,
    /// The key was deleted.
    Tombstone = 2,
    /// `lease` was granted for `version` milliseconds.
    LeaseGrant = 3,
    /// `lease` is gone.
    LeaseEnd = 4,
    /// `lease` had `version` milliseconds left.
    LeaseRemaining = 5,
    /// History below `mod_revision` is forgotten.
    Compact = 6,
}

impl EntryKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::Tombstone,
            3 => Self::LeaseGrant,
            4 => Self::LeaseEnd,
            5 => Self::LeaseRemaining,
            6 => Self::Compact,
            _ => return None,
        })
    }
}

/// One entry of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: EntryKind,
    pub(crate) mod_revision: i64,
    pub(crate) create_revision: i64,
    pub(crate) version: u64,
    pub(crate) lease: i64,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
}

impl<'a> Entry<'a> {
    /// An entry about a lease or the history.
    pub(crate) fn control(kind: EntryKind, mod_revision: i64, version: u64, lease: i64) -> Self {
        Entry { kind, mod_revision, create_revision: 0, version, lease, key: &[], value: &[] }
    }

    fn encode(&self, into: &mut Vec<u8>) {
        let start = into.len();
        let mut header = [0; ENTRY_HEADER];
        header[4] = self.kind as u8;
        header[8..12].copy_from_slice(&(self.key.len() as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(self.value.len() as u32).to_le_bytes());
        header[16..24].copy_from_slice(&self.mod_revision.to_le_bytes());
        header[24..32].copy_from_slice(&self.create_revision.to_le_bytes());
        header[32..40].copy_from_slice(&self.version.to_le_bytes());
        header[40..48].copy_from_slice(&self.lease.to_le_bytes());
        into.extend_from_slice(&header);
        into.extend_from_slice(self.key);
        into.extend_from_slice(self.value);
        let crc = crc32fast::hash(&into[start + 4..]);
        into[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Takes one entry from the start of `bytes`; tells its length.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<(Self, usize), &'static str> {
        if bytes.len() < ENTRY_HEADER {
            return Err("an entry is cut short");
        }
        let key_len = u32_at(bytes, 8) as usize;
        let value_len = u32_at(bytes, 12) as usize;
        let len = ENTRY_HEADER + key_len + value_len;
        if bytes.len() < len {
            return Err("an entry is cut short");
        }
        if u32_at(bytes, 0) != crc32fast::hash(&bytes[4..len]) {
            return Err("an entry's checksum does not match");
        }
        let Some(kind) = EntryKind::from_byte(bytes[4]) else { return Err("an entry of unknown kind") };
        let entry = Entry {
            kind,
            mod_revision: u64_at(bytes, 16) as i64,
            create_revision: u64_at(bytes, 24) as i64,
            version: u64_at(bytes, 32),
            lease: u64_at(bytes, 40) as i64,
            key: &bytes[ENTRY_HEADER..ENTRY_HEADER + key_len],
            value: &bytes[ENTRY_HEADER + key_len..len],
        };
        Ok((entry, len))
    }
}

/// Where a frame is meant to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) store: u64,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
}

impl Place {
    fn hasher(&self) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.update(&self.store.to_le_bytes());
        hasher.update(&self.segment.to_le_bytes());
        hasher.update(&self.offset.to_le_bytes());
        hasher
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Of header, entries and padding.
    pub(crate) len: usize,
    pub(crate) entries: u32,
    /// The revision it made, or 0.
    pub(crate) revision: i64,
    /// The offset at which its write began.
    pub(crate) group: u64,
    /// When it was written, in milliseconds since 1970.
    pub(crate) time: i64,
}

/// Appends frames for one write to a buffer.
#[derive(Debug)]
pub(crate) struct GroupWriter {
    pub(crate) buffer: Vec<u8>,
    store: u64,
    segment: u32,
    /// Where the buffer's first byte will be.
    group: u64,
    frame: usize,
    entries: u32,
}

impl GroupWriter {
    /// Frames for the place at which the next write goes.
    pub(crate) fn new(mut buffer: Vec<u8>, place: Place) -> Self {
        buffer.clear();
        Self { buffer, store: place.store, segment: place.segment, group: place.offset, frame: 0, entries: 0 }
    }

    pub(crate) fn begin(&mut self) {
        self.frame = self.buffer.len();
        self.entries = 0;
        self.buffer.resize(self.frame + FRAME_HEADER, 0);
    }

    /// Adds an entry to the open frame; tells its offset in the segment and its length.
    pub(crate) fn entry(&mut self, entry: &Entry<'_>) -> (u32, u32) {
        let start = self.buffer.len();
        entry.encode(&mut self.buffer);
        self.entries += 1;
        ((self.group + start as u64) as u32, (self.buffer.len() - start) as u32)
    }

    /// Ends the open frame.
    pub(crate) fn finish(&mut self, revision: i64, time: i64) {
        self.buffer.resize(self.buffer.len().next_multiple_of(8), 0);
        let offset = self.group + self.frame as u64;
        let frame = &mut self.buffer[self.frame..];
        let len = frame.len() as u32;
        frame[..4].copy_from_slice(&FRAME_MAGIC.to_le_bytes());
        frame[4..8].copy_from_slice(&len.to_le_bytes());
        frame[12..16].copy_from_slice(&self.entries.to_le_bytes());
        frame[16..24].copy_from_slice(&revision.to_le_bytes());
        frame[24..32].copy_from_slice(&self.group.to_le_bytes());
        frame[32..40].copy_from_slice(&time.to_le_bytes());
        let mut hasher = Place { store: self.store, segment: self.segment, offset }.hasher();
        hasher.update(&frame[4..8]);
        hasher.update(&frame[12..]);
        frame[8..12].copy_from_slice(&hasher.finalize().to_le_bytes());
    }

    /// The segment it is for.
    pub(crate) fn segment(&self) -> u32 {
        self.segment
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}

/// What is found where nothing was written, as in the reserved end of a segment.
pub(crate) const NO_FRAME: &str = "no frame";

/// What stands where a frame was looked for.
pub(crate) enum Found<'a> {
    /// A whole frame and its entries' bytes.
    Frame(FrameHeader, &'a [u8]),
    /// Not a whole, undamaged frame of this place.
    Nothing(&'static str),
}

/// Reads frames of a segment through a window of memory.
pub(crate) struct FrameReader<'a> {
    file: &'a dyn File,
    store: u64,
    segment: u32,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl<'a> FrameReader<'a> {
    const WINDOW: usize = 1 << 20;

    /// Reads up to `end` only.
    pub(crate) fn new(file: &'a dyn File, store: u64, segment: u32, end: u64) -> Self {
        Self { file, store, segment, end, window: Vec::new(), window_at: 0 }
    }

    /// The bytes from `offset`, at least `wanted` of them unless the end is nearer.
    fn bytes(&mut self, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let available = self.end.saturating_sub(offset) as usize;
        let wanted = wanted.min(available);
        let held = offset >= self.window_at && offset + wanted as u64 <= self.window_at + self.window.len() as u64;
        if !held {
            let len = wanted.max(Self::WINDOW).min(available);
            self.window.resize(len, 0);
            self.window_at = offset;
            self.file.read(&mut self.window, offset)?;
        }
        Ok(&self.window[(offset - self.window_at) as usize..])
    }

    /// Looks for a frame at `offset`.
    pub(crate) fn at(&mut self, offset: u64) -> io::Result<Found<'_>> {
        let header = self.bytes(offset, FRAME_HEADER)?;
        if header.len() < FRAME_HEADER {
            return Ok(Found::Nothing("a frame is cut short"));
        }
        if u32_at(header, 0) != FRAME_MAGIC {
            return Ok(Found::Nothing(NO_FRAME));
        }
        let len = u32_at(header, 4) as usize;
        if !(FRAME_HEADER..=MAX_FRAME).contains(&len) {
            return Ok(Found::Nothing("a frame's length is impossible"));
        }
        let place = Place { store: self.store, segment: self.segment, offset };
        let bytes = self.bytes(offset, len)?;
        if bytes.len() < len {
            return Ok(Found::Nothing("a frame is cut short"));
        }
        let bytes = &bytes[..len];
        let mut hasher = place.hasher();
        hasher.update(&bytes[4..8]);
        hasher.update(&bytes[12..]);
        if hasher.finalize() != u32_at(bytes, 8) && !hooks::is(Mutant::TornTransactionTaken) {
            return Ok(Found::Nothing("a frame's checksum does not match"));
        }
        let header = FrameHeader {
            len,
            entries: u32_at(bytes, 12),
            revision: u64_at(bytes, 16) as i64,
            group: u64_at(bytes, 24),
            time: u64_at(bytes, 32) as i64,
        };
        Ok(Found::Frame(header, &bytes[FRAME_HEADER..]))
    }

    /// Whether what follows the frame at `offset` was begun and is not whole.
    pub(crate) fn before_a_tear(&mut self, offset: u64) -> io::Result<bool> {
        let Found::Frame(header, _) = self.at(offset)? else { return Ok(false) };
        let next = offset + header.len as u64;
        let begun = self.bytes(next, FRAME_HEADER)?.iter().any(|byte| *byte != 0);
        Ok(begun && matches!(self.at(next)?, Found::Nothing(_)))
    }

    /// Looks beyond `offset` for a frame of a later write; there is one only if all before its group had been synced.
    pub(crate) fn later_group(&mut self, offset: u64) -> io::Result<Option<u64>> {
        self.search(offset, |header| header.group > offset)
    }

    /// Looks beyond `offset` for any whole frame.
    pub(crate) fn next_frame(&mut self, offset: u64) -> io::Result<Option<u64>> {
        self.search(offset, |_| true)
    }

    fn search(&mut self, offset: u64, wanted: impl Fn(&FrameHeader) -> bool) -> io::Result<Option<u64>> {
        let mut at = offset + 8;
        while at + FRAME_HEADER as u64 <= self.end {
            let bytes = self.bytes(at, FRAME_HEADER)?;
            let step = bytes.chunks_exact(8).take_while(|word| u32_at(word, 0) != FRAME_MAGIC).count() as u64 * 8;
            if step > 0 {
                at += step;
                continue;
            }
            if let Found::Frame(header, _) = self.at(at)?
                && wanted(&header)
            {
                return Ok(Some(at));
            }
            at += 8;
        }
        Ok(None)
    }
}

/// Takes the entries of a frame apart, with their offsets in it.
pub(crate) fn entries<'a>(
    body: &'a [u8],
    count: u32,
) -> impl Iterator<Item = Result<(Entry<'a>, usize, usize), &'static str>> {
    let mut at = 0;
    (0..count).map(move |_| {
        let (entry, len) = Entry::decode(&body[at.min(body.len())..])?;
        let start = at;
        at += len;
        Ok((entry, start, len))
    })
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
