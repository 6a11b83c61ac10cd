//! What the state seam refuses.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The revision asked for is below the compaction mark.
    #[error("revision {asked} has been compacted; the oldest held is {compacted}")]
    Compacted { asked: i64, compacted: i64 },
    /// What was there at a time is asked, and not kept or not known. Seconds since 1970; `oldest`: of what is kept.
    #[error("the state of second {asked} since 1970 is not kept; the oldest is of {}", oldest.map_or_else(|| "no known time".to_owned(), |second| second.to_string()))]
    TimeNotKept { asked: i64, oldest: Option<i64> },
    #[error("revision {asked} is in the future; the store is at {current}")]
    FutureRevision { asked: i64, current: i64 },
    #[error("key {key:?} is changed twice in one transaction")]
    DuplicateKey { key: String },
    #[error("the transaction has {size} bytes; the limit is {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("lease {0} does not exist")]
    LeaseNotFound(i64),
    /// The watcher read too slowly for the memory it may hold; resume from the last revision.
    #[error("the watcher fell too far behind and was ended after revision {last}")]
    SlowWatcher { last: i64 },
    #[error("lease {0} exists already")]
    LeaseExists(i64),
    #[error("the store takes no writes: {reason}")]
    ReadOnly { reason: String },
    /// The disk failed while the write was under way: it may or may not be there after a restart.
    #[error("it is not known whether the write happened: {reason}")]
    Unknown { reason: String },
    /// `place` names the file and the offset in it.
    #[error("{what} in {place}")]
    Corrupt { what: String, place: String },
    /// Nothing is wrong with it.
    #[error(
        "{path} is of format {format}, written by a newer version of Pilothouse (this one reads {known}): run that one"
    )]
    NewerFormat { path: PathBuf, format: u32, known: u32 },
    #[error("{path} is in use by another process: stop it, or choose another data directory")]
    Locked { path: PathBuf },
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Something that an administrator gave can't be used.
    #[error("{option}: {reason}")]
    Invalid { option: String, reason: String },
    /// A value can't be brought into the form in which it is stored.
    #[error("{0}")]
    Transform(String),
    #[error("the store is closed")]
    Closed,
    /// A part of the engine has panicked: what memory has is not relied on any more. What was acknowledged is durable.
    #[error("the store has failed and must be opened again: {reason}")]
    Failed { reason: String },
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
}

impl Error {
    /// What it says, and what that came of.
    pub fn with_causes(&self) -> String {
        let causes = std::iter::successors(std::error::Error::source(self), |cause| cause.source());
        causes.fold(self.to_string(), |told, cause| format!("{told}: {cause}"))
    }

    /// Says of what the disk refused what was being done, and where.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
