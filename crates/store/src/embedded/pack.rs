//! Moving live values into new segments, so that the old ones can go.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::disk::Disk;
use super::format::{Entry, FIRST, GroupWriter, Kind, Place, SegmentHeader};
use super::hooks::{self, Mutant};
use super::index::{Location, Version};
use super::segment::{self, Segment};
use super::shared::{Item, Shared};
use crate::{Error, KeyRange};

/// Live bytes moved in one pass.
const PASS_BYTES: u64 = hooks::bound(64 << 20, 4000) as u64;
/// Locations changed under one hold of the index's lock.
const CHUNK: usize = hooks::bound(1024, 3);
/// Bytes of a frame and of a write.
const FRAME: usize = hooks::bound(256 << 10, 1000);

/// Moves what lives out of `sparse` segments, as many as one pass takes; tells whether there was anything.
///
/// Entries go in key order, so that a list reads them in one sweep. Damaged ones stay, and their segment with them.
pub(crate) fn pack(shared: &Arc<Shared>, sparse: &[Arc<Segment>]) -> Result<bool, Error> {
    let mut chosen: BTreeSet<u32> = BTreeSet::new();
    let mut bytes = 0;
    for segment in sparse {
        bytes += segment.live.load(Ordering::Relaxed);
        if !chosen.is_empty() && bytes > PASS_BYTES {
            break;
        }
        chosen.insert(segment.id);
    }
    if chosen.is_empty() {
        return Ok(false);
    }
    let mut items: Vec<Item> = Vec::new();
    shared.chunks(&KeyRange::all(), |key, chain| {
        let inside = chain.versions().filter(|version| chosen.contains(&version.location.segment));
        items.extend(inside.map(|version| (key.clone(), *version)));
    });
    let id = shared.new_segment();
    let moved = copy(shared, id, &items).map_err(|source| {
        let name = segment::name(Kind::Packed, id);
        // Nothing refers to it. If this fails too, the next start removes it.
        drop(shared.disk.remove(&name));
        Error::Io { doing: "write", path: shared.disk.path().join(name), source }
    })?;
    let (packed, locations) = moved;
    shared.segments.insert(Arc::new(packed));
    for (items, locations) in items.chunks(CHUNK).zip(locations.chunks(CHUNK)) {
        relocate(shared, items, locations);
        hooks::pause();
    }
    Ok(true)
}

/// Copies entries into a new segment; tells where each went, or `None` for one that is damaged.
fn copy(shared: &Shared, id: u32, items: &[(Bytes, Version)]) -> io::Result<(Segment, Vec<Option<Location>>)> {
    let mut writer = PackedWriter::create(&*shared.disk, shared.store_id, id)?;
    let mut locations = Vec::with_capacity(items.len());
    for (key, version) in items {
        let Some(from) = shared.segments.get(version.location.segment) else {
            locations.push(None);
            continue;
        };
        let mut bytes = vec![0; version.location.len as usize];
        from.file.read(&mut bytes, u64::from(version.location.offset))?;
        match segment::check(&bytes, key, version) {
            Ok(entry) => locations.push(Some(writer.add(&entry)?)),
            Err(what) => {
                from.damaged.store(true, Ordering::Relaxed);
                let offset = version.location.offset;
                tracing::error!(segment = from.name(), offset, what, "damage in the store: run its verification");
                locations.push(None);
            }
        }
    }
    Ok((writer.finish()?, locations))
}

fn relocate(shared: &Shared, items: &[Item], locations: &[Option<Location>]) {
    let mut index = shared.index_mut();
    for ((key, version), location) in items.iter().zip(locations) {
        let Some(location) = location else { continue };
        let held = index.keys.get_mut(key).and_then(|chain| chain.exact_mut(version.mod_revision));
        if let Some(held) = held.filter(|held| held.location == version.location) {
            held.location = *location;
            shared.segments.account(*location, true);
            shared.segments.account(version.location, false);
        }
    }
}

/// Fills a packed segment with frames.
pub(crate) struct PackedWriter {
    store: u64,
    segment: Segment,
    frames: GroupWriter,
    open: bool,
    pub(crate) offset: u64,
    newest: i64,
}

impl PackedWriter {
    pub(crate) fn create(disk: &dyn Disk, store: u64, id: u32) -> io::Result<Self> {
        let header = SegmentHeader { kind: Kind::Packed, id, store, previous: 0, previous_end: 0, revision: 0 };
        let segment = segment::create(disk, &header, 0)?;
        let frames = GroupWriter::new(Vec::new(), Place { store, segment: id, offset: FIRST });
        Ok(Self { store, segment, frames, open: false, offset: FIRST, newest: 0 })
    }

    pub(crate) fn add(&mut self, entry: &Entry<'_>) -> io::Result<Location> {
        if self.frames.buffer.len() >= FRAME {
            self.flush()?;
        }
        if !self.open {
            self.frames.begin();
            self.open = true;
        }
        let (offset, len) = self.frames.entry(entry);
        self.newest = self.newest.max(entry.mod_revision);
        Ok(Location { segment: self.segment.id, offset, len })
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.open {
            self.frames.finish(0, 0);
            self.open = false;
            self.segment.file.write(&self.frames.buffer, self.offset)?;
            self.offset += self.frames.buffer.len() as u64;
        }
        let place = Place { store: self.store, segment: self.segment.id, offset: self.offset };
        self.frames = GroupWriter::new(std::mem::take(&mut self.frames.buffer), place);
        Ok(())
    }

    /// Makes it durable.
    pub(crate) fn finish(mut self) -> io::Result<Segment> {
        self.flush()?;
        if !hooks::is(Mutant::PackedNotSynced) {
            self.segment.file.sync()?;
        }
        self.segment.end.store(self.offset, Ordering::Relaxed);
        self.segment.newest.store(self.newest, Ordering::Relaxed);
        self.segment.sealed.store(true, Ordering::Release);
        Ok(self.segment)
    }
}
