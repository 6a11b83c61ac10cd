//! The watch cache: the only copy of the objects, encoded once. Nothing here reads the disk to serve a read, and nothing is
//! decoded to serve one.
//!
//! [`Caches`] follows the store with one watch and brings every change to the [`Cacher`] of its storage. A cacher holds the
//! present as a persistent tree ([`State`]), the last five minutes as [`Change`]s, and the watchers, found by what they
//! watch. A past revision is the nearest snapshot with the changes since undone.
//!
//! What the store has and nobody can read (its key is not there) is part of the state, so that no list, watch or decision
//! takes it for absent; the `mender` reads it again now and then.

mod batch;
mod cacher;
mod change;
mod counts;
mod entry;
mod feed;
mod fields;
pub(crate) mod hooks;
mod marked;
mod mender;
mod parsers;
mod progress;
mod scan;
#[cfg(test)]
mod sim;
mod skip;
mod state;
#[cfg(test)]
mod tests;
mod watchers;

pub use batch::{Batch, Delivery, Told};
pub(crate) use cacher::Chain;
pub use cacher::{Cacher, Layout, NoWatch, Observer, Start, TooOld, Watcher};
pub use change::{Change, ChangeKind, ViewId};
pub use counts::Counts;
pub use entry::{Entry, StoredError};
pub use feed::{Caches, NotReached};
pub use fields::{Paths, SelectableField};
pub(crate) use marked::Noted;
pub use progress::Progress;
pub(crate) use scan::Scanned;
pub use state::{Scope, State, Unreadable};
pub use watchers::{End, Filter};
