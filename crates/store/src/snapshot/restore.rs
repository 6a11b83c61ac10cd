//! A new embedded store made of a snapshot, whose revisions are above any that were ever issued.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;

use super::bolt::damaged;
use super::{LeaseRecord, Source, parse_revision};
use crate::embedded::hooks::{self, Mutant};
use crate::embedded::tools::Builder;
use crate::{Error, KeyValue, LeaseId, proto};

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Of the snapshot.
    pub snapshot: i64,
    /// Of the new store, which is also its compaction mark.
    pub revision: i64,
    pub keys: usize,
    pub leases: usize,
}

/// The state at the end of a snapshot.
pub(super) struct State {
    /// Where the latest version of each key is read again from: its place among the changes.
    pub(super) keys: BTreeMap<Bytes, (i64, i64)>,
    /// The revision of the last change that is held.
    pub(super) last: i64,
    /// The revision that the store had.
    revision: i64,
    /// Full time, and what is left if that is less.
    leases: BTreeMap<LeaseId, (Duration, Option<Duration>)>,
}

/// Reads what keys there are at the end, and the leases.
pub(super) fn read(source: &Source) -> Result<State, Error> {
    let reader = source.reader()?;
    let failed = |error| source.failed(error);
    let mut state = State { keys: BTreeMap::new(), last: 1, revision: 1, leases: BTreeMap::new() };
    let mut last_key = Vec::new();
    let found = reader.bucket(b"key", |key, value| {
        let (revision, sub, deleted) = parse_revision(key)?;
        if key <= &last_key[..] {
            return Err(damaged(format!("revision {revision} is out of order")));
        }
        last_key.clear();
        last_key.extend_from_slice(key);
        let kv = proto::KeyValue::decode(value).map_err(|error| damaged(format!("revision {revision}: {error}")))?;
        if kv.key.is_empty() || !deleted && !(1..=revision).contains(&kv.create_revision) {
            return Err(damaged(format!("revision {revision} is no change of a key")));
        }
        state.last = state.last.max(revision);
        match deleted {
            true if hooks::is(Mutant::RestoreLosesDeletes) => {}
            true => drop(state.keys.remove(&kv.key)),
            false => drop(state.keys.insert(kv.key, (revision, sub))),
        }
        Ok(())
    });
    if !found.map_err(failed)? {
        return Err(failed(damaged("it has no bucket \"key\", so it is no snapshot of etcd")));
    }
    state.revision = state.last;
    let marks = reader.bucket(b"meta", |key, value| {
        // All changes near the mark may have been compacted away, but their revisions were issued.
        if key == b"finishedCompactRev" || key == b"scheduledCompactRev" {
            state.revision = state.revision.max(parse_revision(value)?.0);
        }
        Ok(())
    });
    marks.map_err(failed)?;
    let leases = reader.bucket(b"lease", |_, value| {
        let record = LeaseRecord::decode(value).map_err(|error| damaged(format!("a lease: {error}")))?;
        let seconds = |number: i64| Duration::from_secs(u64::try_from(number).unwrap_or_default().max(1));
        let left = (record.remaining_ttl > 0).then(|| seconds(record.remaining_ttl));
        if record.id == 0 {
            return Err(damaged("a lease has no number"));
        }
        state.leases.insert(record.id, (seconds(record.ttl), left));
        Ok(())
    });
    leases.map_err(failed)?;
    Ok(state)
}

/// Makes a store in a directory, which must be empty or absent, of a snapshot.
///
/// Its revision is that of the snapshot raised by `bump`, and all below is compacted, so that nobody who saw the revisions
/// after the snapshot takes new ones for those: he is told 410 and lists anew.
pub fn restore(path: &Path, directory: &Path, bump: i64, unverified: bool) -> Result<Restored, Error> {
    restore_into(path, || Builder::new(directory), bump, unverified)
}

/// The same into a store that is begun when the snapshot was found good.
pub(crate) fn restore_into(
    path: &Path,
    begin: impl FnOnce() -> Result<Builder, Error>,
    bump: i64,
    unverified: bool,
) -> Result<Restored, Error> {
    let source = Source::open(path)?;
    if !source.verified && !unverified {
        return Err(Error::Invalid {
            option: path.display().to_string(),
            reason: "has no SHA-256 at its end (a file copied from a member's directory?): add --skip-hash-check to take it as it is".into(),
        });
    }
    let state = read(&source)?;
    let revision = state.revision.checked_add(bump.max(1)).ok_or_else(|| Error::Invalid {
        option: "--bump-revision".into(),
        reason: format!("{bump} leads beyond the highest revision"),
    })?;
    let mut builder = begin()?;
    // Changes come in order of revisions, and the index wants keys in theirs: it sorts when it is finished.
    let copied = source.reader()?.bucket(b"key", |key, value| {
        let (at, sub, deleted) = parse_revision(key).map_err(|error| source.failed(error))?;
        if deleted {
            return Ok(());
        }
        let failed = |error: prost::DecodeError| source.failed(damaged(format!("revision {at}: {error}")));
        let kv = proto::KeyValue::decode(value).map_err(failed)?;
        if state.keys.get(&kv.key) != Some(&(at, sub)) {
            return Ok(());
        }
        let lease = if state.leases.contains_key(&kv.lease) { kv.lease } else { 0 };
        builder
            .add(KeyValue {
                key: kv.key,
                value: kv.value,
                create_revision: kv.create_revision,
                mod_revision: at,
                version: kv.version.max(1),
                lease,
            })
            .map_err(Step)
    });
    copied.map_err(|Step(error)| error)?;
    let restored = Restored { snapshot: state.revision, revision, keys: state.keys.len(), leases: state.leases.len() };
    builder.finish(revision, state.leases.into_iter().map(|(id, (ttl, left))| (id, ttl, left)).collect())?;
    Ok(restored)
}

/// An error of either side of the copy.
struct Step(Error);

impl From<std::io::Error> for Step {
    fn from(source: std::io::Error) -> Self {
        Self(Error::Io { doing: "read", path: "the snapshot".into(), source })
    }
}

impl From<Error> for Step {
    fn from(error: Error) -> Self {
        Self(error)
    }
}
