//! A checkpoint: all keys and versions at one moment, so that a start replays only the log behind it.
//!
//! ```text
//! header   magic  format  store  revision  compacted  segment  offset  leases  keys
//! lease    id  ttl  left (all ones: its full time)
//! key      key length  versions  key    then its versions
//! version  revision  created  version  lease  segment  offset  length
//! crc      of everything before
//! ```

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use bytes::Bytes;

use super::disk::Disk;
use super::format::{FORMAT, u32_at, u64_at};
use super::index::{Location, Version};
use super::shared::Shared;
use super::writer::Mark;
use crate::{Error, KeyRange, LeaseId};

pub(crate) const NAME: &str = "checkpoint";
const TEMPORARY: &str = "checkpoint.new";
const MAGIC: [u8; 8] = *b"PILOTCKP";
const HEADER: usize = 72;
const VERSION: usize = 44;
const NO_VALUE: u64 = u64::MAX;

/// What a checkpoint says.
#[derive(Debug, Default)]
pub(crate) struct Checkpoint {
    pub(crate) store: u64,
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) leases: Vec<(LeaseId, Duration, Option<Duration>)>,
    pub(crate) keys: Vec<(Bytes, Vec<Version>)>,
}

/// Writes a checkpoint of a mark, durable, in place of the one before; gives the segments that it refers to.
pub(crate) fn write(shared: &Shared, mark: &Mark) -> io::Result<BTreeSet<u32>> {
    let mut referred = BTreeSet::new();
    let mut body = Vec::with_capacity(1 << 20);
    let mut keys = 0u64;
    shared.chunks(&KeyRange::all(), |key, chain| {
        let held: Vec<&Version> = chain.versions().filter(|v| v.mod_revision <= mark.pin.revision).collect();
        if held.is_empty() {
            return;
        }
        keys += 1;
        body.extend_from_slice(&(key.len() as u32).to_le_bytes());
        body.extend_from_slice(&(held.len() as u32).to_le_bytes());
        body.extend_from_slice(key);
        for version in held {
            referred.insert(version.location.segment);
            body.extend_from_slice(&version.mod_revision.to_le_bytes());
            body.extend_from_slice(&version.create_revision.to_le_bytes());
            body.extend_from_slice(&version.version.to_le_bytes());
            body.extend_from_slice(&version.lease.to_le_bytes());
            body.extend_from_slice(&version.location.segment.to_le_bytes());
            body.extend_from_slice(&version.location.offset.to_le_bytes());
            body.extend_from_slice(&version.location.len.to_le_bytes());
        }
    });
    let mut bytes = Vec::with_capacity(HEADER + mark.leases.len() * 24 + body.len() + 4);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&mark.segment.to_le_bytes());
    bytes.extend_from_slice(&shared.store_id.to_le_bytes());
    bytes.extend_from_slice(&mark.pin.revision.to_le_bytes());
    bytes.extend_from_slice(&mark.compacted.to_le_bytes());
    bytes.extend_from_slice(&mark.offset.to_le_bytes());
    bytes.extend_from_slice(&(mark.leases.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&keys.to_le_bytes());
    bytes.resize(HEADER, 0);
    for (id, ttl, left) in &mark.leases {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&(ttl.as_millis() as u64).to_le_bytes());
        bytes.extend_from_slice(&left.map_or(NO_VALUE, |l| l.as_millis() as u64).to_le_bytes());
    }
    bytes.append(&mut body);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    let disk = &*shared.disk;
    let file = disk.create(TEMPORARY, 0)?;
    file.write(&bytes, 0)?;
    file.sync()?;
    disk.rename(TEMPORARY, NAME)?;
    disk.sync_names()?;
    Ok(referred)
}

/// Reads the checkpoint, if there is one.
pub(crate) fn read(disk: &dyn Disk) -> Result<Option<Checkpoint>, Error> {
    let path = disk.path().join(NAME);
    let corrupt = |what: &str| Error::Corrupt { what: what.to_owned(), place: path.display().to_string() };
    let io = |source| Error::Io { doing: "read", path: path.clone(), source };
    let file = match disk.open(NAME) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
    };
    let mut bytes = vec![0; usize::try_from(file.len().map_err(io)?).map_err(|_| corrupt("the checkpoint is too large"))?];
    file.read(&mut bytes, 0).map_err(io)?;
    let Some(end) = bytes.len().checked_sub(4).filter(|end| *end >= HEADER) else {
        return Err(corrupt("the checkpoint is cut short"));
    };
    if bytes[..8] != MAGIC {
        return Err(corrupt("not a checkpoint"));
    }
    if crc32fast::hash(&bytes[..end]) != u32_at(&bytes, end) {
        return Err(corrupt("the checkpoint's checksum does not match"));
    }
    let format = u32_at(&bytes, 8);
    if format != FORMAT {
        return Err(corrupt(&format!("format {format}, which this version does not read (it reads {FORMAT})")));
    }
    let mut found = Checkpoint {
        segment: u32_at(&bytes, 12),
        store: u64_at(&bytes, 16),
        revision: u64_at(&bytes, 24) as i64,
        compacted: u64_at(&bytes, 32) as i64,
        offset: u64_at(&bytes, 40),
        ..Checkpoint::default()
    };
    let (leases, keys) = (u64_at(&bytes, 48), u64_at(&bytes, 56));
    let mut at = HEADER;
    let take = |at: &mut usize, len: usize| {
        let start = *at;
        *at += len;
        (*at <= end).then_some(start).ok_or_else(|| corrupt("the checkpoint is cut short"))
    };
    for _ in 0..leases {
        let lease = take(&mut at, 24)?;
        let left = u64_at(&bytes, lease + 16);
        found.leases.push((
            u64_at(&bytes, lease) as i64,
            Duration::from_millis(u64_at(&bytes, lease + 8)),
            (left != NO_VALUE).then(|| Duration::from_millis(left)),
        ));
    }
    for _ in 0..keys {
        let head = take(&mut at, 8)?;
        let (len, count) = (u32_at(&bytes, head) as usize, u32_at(&bytes, head + 4));
        let key = take(&mut at, len)?;
        let key = Bytes::copy_from_slice(&bytes[key..key + len]);
        let mut versions = Vec::new();
        for _ in 0..count {
            let v = take(&mut at, VERSION)?;
            versions.push(Version {
                mod_revision: u64_at(&bytes, v) as i64,
                create_revision: u64_at(&bytes, v + 8) as i64,
                version: u64_at(&bytes, v + 16),
                lease: u64_at(&bytes, v + 24) as i64,
                location: Location {
                    segment: u32_at(&bytes, v + 32),
                    offset: u32_at(&bytes, v + 36),
                    len: u32_at(&bytes, v + 40),
                },
            });
        }
        found.keys.push((key, versions));
    }
    Ok(Some(found))
}
