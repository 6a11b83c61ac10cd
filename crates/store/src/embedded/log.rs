//! The end of the log: where the next write goes, and what becomes of it when the disk fails.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::format::{FIRST, Kind, Place, SegmentHeader};
use super::hooks::{self, Mutant};
use super::segment::{self, Segment};
use super::shared::Shared;

/// The part of a segment's space without which none is begun.
const SCARCE: u64 = 32;

/// Appends groups of frames to the newest log segment and begins new ones.
pub(crate) struct Log {
    active: Option<Arc<Segment>>,
    /// The newest segment of the log, 0 before the first.
    last: u32,
    /// Where what is durable of it ends. What a failed write left beyond is disowned by the next segment's header.
    end: u64,
    /// A segment whose creation failed half-way; its number is used again.
    unfinished: Option<u32>,
    /// Bytes appended since this was last taken.
    pub(crate) appended: u64,
}

impl Log {
    /// Continues after what recovery found; the next write begins a new segment.
    pub(crate) fn after(last: u32, end: u64) -> Self {
        Self { active: None, last, end, unfinished: None, appended: 0 }
    }

    /// Where the log is durable up to.
    pub(crate) fn position(&self) -> (u32, u64) {
        (self.last, self.end)
    }

    /// Where the next group goes. Begins a segment when there is none or it is full.
    pub(crate) fn place(&mut self, shared: &Shared, revision: i64) -> io::Result<Place> {
        if self.active.is_some() && self.end >= shared.options.segment_bytes {
            self.seal();
        }
        if self.active.is_none() {
            let id = *self.unfinished.get_or_insert_with(|| shared.new_segment());
            let header = SegmentHeader {
                kind: Kind::Log,
                id,
                store: shared.store_id,
                previous: self.last,
                previous_end: self.end,
                revision,
            };
            let segment = Arc::new(begin(shared, &header)?);
            self.unfinished = None;
            shared.segments.insert(Arc::clone(&segment));
            self.active = Some(segment);
            self.last = id;
            self.end = FIRST;
        }
        Ok(Place { store: shared.store_id, segment: self.last, offset: self.end })
    }

    /// Writes a group made for [`Log::place`] and waits until it is durable.
    ///
    /// After a failure nothing of the group counts, and the segment is left for ever: what a failed sync did to the
    /// pages it covered is unknown, so the next group begins a new segment that says where this one ends.
    pub(crate) fn append(&mut self, group: &[u8], revision: i64) -> io::Result<()> {
        let Some(segment) = &self.active else { return Err(io::Error::other("no segment is open")) };
        let written = segment.file.write(group, self.end).and_then(|()| match () {
            () if hooks::is(Mutant::SyncSkipped) => Ok(()),
            () if hooks::is(Mutant::SyncRetried) => segment.file.sync().or_else(|_| segment.file.sync()),
            () => segment.file.sync(),
        });
        if let Err(error) = written {
            self.seal();
            return Err(error);
        }
        self.end += group.len() as u64;
        self.appended += group.len() as u64;
        segment.end.store(self.end, Ordering::Relaxed);
        segment.newest.store(revision, Ordering::Relaxed);
        Ok(())
    }

    fn seal(&mut self) {
        if let Some(segment) = self.active.take() {
            segment.sealed.store(true, Ordering::Release);
        }
    }
}

/// Creates a segment with its space, or with some of it where a disk is nearly full: a store goes on with what there is.
fn begin(shared: &Shared, header: &SegmentHeader) -> io::Result<Segment> {
    let whole = shared.options.segment_bytes;
    let create = |reserve| segment::create(&*shared.disk, header, reserve);
    match create(whole) {
        Err(error) if error.kind() == io::ErrorKind::StorageFull => create(whole / SCARCE),
        created => created,
    }
}
