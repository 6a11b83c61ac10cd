//! One change of one object, as watchers are told it.

use super::entry::Entry;
use super::hooks::{self, Mutant};
use bytes::Bytes;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a change is to a watcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

impl ChangeKind {
    /// `ADDED`, as the wire has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Added => "ADDED",
            ChangeKind::Modified => "MODIFIED",
            ChangeKind::Deleted => "DELETED",
        }
    }
}

/// Names an encoding of changes that watchers can share.
pub type ViewId = u32;

/// One change of one object. All watchers share it, and the bytes that the first of each view made of it.
#[derive(Debug)]
pub struct Change {
    pub kind: ChangeKind,
    /// The object after the change; of a removal its last state, with the revision of the removal.
    pub entry: Arc<Entry>,
    pub previous: Option<Arc<Entry>>,
    /// The previous state with this revision: what those are told who saw the object and don't any more.
    left: OnceLock<Arc<Entry>>,
    frames: Mutex<Vec<(ChangeKind, ViewId, Bytes)>>,
}

impl Change {
    pub fn new(kind: ChangeKind, entry: Arc<Entry>, previous: Option<Arc<Entry>>) -> Self {
        Change { kind, entry, previous, left: OnceLock::new(), frames: Mutex::new(Vec::new()) }
    }

    pub fn revision(&self) -> u64 {
        self.entry.revision()
    }

    /// What the change is to one who sees only objects that `sees`; `None`: nothing.
    pub fn seen(&self, sees: impl Fn(&Entry) -> bool) -> Option<ChangeKind> {
        let now = self.kind != ChangeKind::Deleted && sees(&self.entry);
        let before = self.previous.as_ref().is_some_and(|previous| sees(previous));
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(ChangeKind::Added),
            (true, true) => Some(ChangeKind::Modified),
            (true, false) if self.kind != ChangeKind::Deleted && hooks::is(Mutant::LeavingUntold) => None,
            (true, false) => Some(ChangeKind::Deleted),
        }
    }

    /// The object that is told with a change seen as `kind`.
    pub fn object(&self, kind: ChangeKind) -> &Arc<Entry> {
        match (&self.previous, kind) {
            (Some(previous), ChangeKind::Deleted) if self.kind != ChangeKind::Deleted => {
                self.left.get_or_init(|| Arc::new(previous.at_revision(self.revision())))
            }
            _ => &self.entry,
        }
    }

    /// The bytes of the change in a view, made once for all that share it.
    ///
    /// # Errors
    /// Those of `make`, which the next who asks tries again: nobody may take a failure for an event without bytes.
    pub fn frame<E>(
        &self,
        kind: ChangeKind,
        view: ViewId,
        make: impl FnOnce(&Entry) -> Result<Bytes, E>,
    ) -> Result<Bytes, E> {
        let mut frames = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., bytes)) = frames.iter().find(|(k, v, _)| *k == kind && *v == view) {
            return Ok(bytes.clone());
        }
        let bytes = make(self.object(kind))?;
        frames.push((kind, view, bytes.clone()));
        Ok(bytes)
    }

    /// Forgets the bytes: the change is old, and who still wants it makes them anew.
    pub(super) fn forget_frames(&self) {
        *self.frames.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }
}
