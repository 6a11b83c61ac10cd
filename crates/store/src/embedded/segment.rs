//! Open segments, and reading values out of them.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::disk::{Disk, File};
use super::format::{Entry, EntryKind, FIRST, Kind, SegmentHeader};
use super::hooks::{self, Mutant};
use super::index::{Location, Version};
use crate::Error;

/// The file name of a segment.
pub(crate) fn name(kind: Kind, id: u32) -> String {
    match kind {
        Kind::Log => format!("log-{id:08x}.seg"),
        Kind::Packed => format!("packed-{id:08x}.seg"),
    }
}

/// What kind of segment a file name stands for, and its number.
pub(crate) fn parse_name(name: &str) -> Option<(Kind, u32)> {
    let stem = name.strip_suffix(".seg")?;
    let (kind, id) = match stem.strip_prefix("log-") {
        Some(id) => (Kind::Log, id),
        None => (Kind::Packed, stem.strip_prefix("packed-")?),
    };
    (id.len() == 8).then(|| u32::from_str_radix(id, 16).ok()).flatten().map(|id| (kind, id))
}

/// A segment that is open for reading.
pub(crate) struct Segment {
    pub(crate) id: u32,
    pub(crate) kind: Kind,
    pub(crate) file: Arc<dyn File>,
    /// Where its last frame ends.
    pub(crate) end: AtomicU64,
    /// Bytes of entries that versions in memory refer to.
    pub(crate) live: AtomicU64,
    /// The highest revision in it.
    pub(crate) newest: AtomicI64,
    /// Nothing is appended any more.
    pub(crate) sealed: AtomicBool,
    /// Damage was found, so it is left as it is for repair.
    pub(crate) damaged: AtomicBool,
}

impl Segment {
    pub(crate) fn new(kind: Kind, id: u32, file: Arc<dyn File>, end: u64) -> Self {
        Self {
            id,
            kind,
            file,
            end: AtomicU64::new(end),
            live: AtomicU64::new(0),
            newest: AtomicI64::new(0),
            sealed: AtomicBool::new(false),
            damaged: AtomicBool::new(false),
        }
    }

    pub(crate) fn name(&self) -> String {
        name(self.kind, self.id)
    }

    /// Bytes of frames.
    pub(crate) fn used(&self) -> u64 {
        self.end.load(Ordering::Relaxed).saturating_sub(FIRST)
    }
}

/// Creates a segment with its header, durable, and makes its name durable.
pub(crate) fn create(disk: &dyn Disk, header: &SegmentHeader, reserve: u64) -> io::Result<Segment> {
    let file = disk.create(&name(header.kind, header.id), reserve)?;
    file.write(&header.encode(), 0)?;
    file.sync()?;
    if !hooks::is(Mutant::SegmentNameNotSynced) {
        disk.sync_names()?;
    }
    let segment = Segment::new(header.kind, header.id, file, FIRST);
    segment.newest.store(header.revision, Ordering::Relaxed);
    Ok(segment)
}

/// All open segments by number.
#[derive(Default)]
pub(crate) struct Segments {
    table: RwLock<BTreeMap<u32, Arc<Segment>>>,
}

impl Segments {
    pub(crate) fn get(&self, id: u32) -> Option<Arc<Segment>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Segment>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub(crate) fn insert(&self, segment: Arc<Segment>) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).insert(segment.id, segment);
    }

    pub(crate) fn remove(&self, id: u32) {
        self.table.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Counts an entry as referred to, or no longer.
    pub(crate) fn account(&self, location: Location, referred: bool) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(segment) = table.get(&location.segment) {
            if referred {
                segment.live.fetch_add(u64::from(location.len), Ordering::Relaxed);
            } else {
                segment.live.fetch_sub(u64::from(location.len), Ordering::Relaxed);
            }
        }
    }
}

/// Checks that an entry's bytes are undamaged and those of this version of this key.
pub(crate) fn check<'a>(bytes: &'a [u8], key: &[u8], version: &Version) -> Result<Entry<'a>, &'static str> {
    let (entry, len) = Entry::decode(bytes)?;
    let kind = if version.is_tombstone() { EntryKind::Tombstone } else { EntryKind::Put };
    if len != bytes.len()
        || entry.kind != kind
        || entry.key != key
        || entry.mod_revision != version.mod_revision
        || entry.version != version.version
    {
        return Err("an entry is not the one that the index expects");
    }
    Ok(entry)
}

/// The error for damage at a place.
pub(crate) fn corrupt(directory: &Path, name: &str, offset: u64, what: impl Into<String>) -> Error {
    Error::Corrupt { what: what.into(), place: format!("{} at offset {offset}", directory.join(name).display()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        assert_eq!(parse_name(&name(Kind::Log, 17)), Some((Kind::Log, 17)));
        assert_eq!(parse_name(&name(Kind::Packed, u32::MAX)), Some((Kind::Packed, u32::MAX)));
        assert_eq!(parse_name("log-1.seg"), None);
        assert_eq!(parse_name("checkpoint"), None);
    }
}
