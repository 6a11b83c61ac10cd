//! Makes entries of what was read from the store on the threads for blocking work, several pieces at once, while the next is
//! read: a large cluster is ready so much sooner, and what was read of it is never in memory as a whole beside the entries.

use super::cacher::{Cacher, Parsed, Raw};
use super::hooks;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

/// What is smaller is not worth the way to another thread.
pub(super) const PIECE: usize = hooks::bound(500, 3);
/// So many pieces at most are under way.
const MOST: usize = 8;

/// What became of a piece, and whose it is.
pub(super) type Piece = (Arc<Cacher>, Vec<Parsed>);

/// The pieces that are under way. They are given back in no order.
#[derive(Debug)]
pub(super) struct Parsers {
    under_way: VecDeque<JoinHandle<Piece>>,
    /// 0: everything is parsed where it is.
    most: usize,
}

impl Parsers {
    pub(super) fn new() -> Self {
        // Who runs on one thread, as simulations do, has no others.
        let alone = Handle::try_current().map_or(true, |on| on.runtime_flavor() == RuntimeFlavor::CurrentThread);
        // One piece waits while each processor has its own.
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Parsers { under_way: VecDeque::new(), most: if alone { 0 } else { MOST.min(processors + 1) } }
    }

    /// Begins to parse a piece, after waiting for one that began before if there are enough. Gives back a piece that is done.
    ///
    /// # Errors
    /// [`store::Error::Closed`] when the process stops.
    pub(super) async fn parse(&mut self, cacher: &Arc<Cacher>, raws: Vec<Raw>) -> Result<Option<Piece>, store::Error> {
        let cacher = cacher.clone();
        if self.most == 0 || raws.len() < PIECE {
            let parsed = raws.into_iter().map(|raw| cacher.parse(raw)).collect();
            return Ok(Some((cacher, parsed)));
        }
        let done = if self.under_way.len() < self.most { None } else { self.next().await? };
        self.under_way.push_back(tokio::task::spawn_blocking(move || {
            let parsed = raws.into_iter().map(|raw| cacher.parse(raw)).collect();
            (cacher, parsed)
        }));
        Ok(done)
    }

    /// The next piece that is done; `None` when all are.
    ///
    /// # Errors
    /// Those of [`parse`](Self::parse).
    pub(super) async fn next(&mut self) -> Result<Option<Piece>, store::Error> {
        let Some(oldest) = self.under_way.pop_front() else { return Ok(None) };
        match oldest.await {
            Ok(piece) => Ok(Some(piece)),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(store::Error::Closed),
            },
        }
    }
}
