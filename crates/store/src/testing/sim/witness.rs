//! One who sees everything that happens in a store, as soon as it does.

use futures::{FutureExt, StreamExt};

use crate::testing::fiber;
use crate::{Embedded, Event, KeyRange, Store, Watch, WatchStream};

/// A watch of everything, read whenever the simulator has its turn.
#[derive(Default)]
pub struct Witness(Option<WatchStream>);

impl Witness {
    /// What happened since it was last asked; the first time, from a revision on.
    ///
    /// # Errors
    /// When the watch ends.
    pub fn see(&mut self, engine: &Embedded, from: i64) -> Result<Vec<Event>, String> {
        let stream = match &mut self.0 {
            Some(stream) => stream,
            None => {
                let watch = Watch { progress: false, ..Watch::of(KeyRange::all(), from) };
                let begun = fiber::wait(engine.watch(watch)).map_err(|error| format!("no witness: {error:?}"))?;
                self.0.insert(begun)
            }
        };
        let mut seen = Vec::new();
        while let Some(told) = stream.next().now_or_never() {
            match told {
                Some(Ok(batch)) => seen.extend(batch.events),
                other => return Err(format!("the witness was told {other:?}")),
            }
        }
        Ok(seen)
    }

    /// The process that it watched is no more.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}
