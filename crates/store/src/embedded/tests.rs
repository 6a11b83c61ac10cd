//! The suite on the embedded engine, and what is the engine's own: its files, torn ends, damage, upkeep, the full disk.

mod crash;
mod faults;
mod files;
mod property;
mod simulation;
mod undo;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use std::sync::atomic::Ordering;

use super::{Embedded, Options, Undo};
use crate::Store;
use crate::suite::Fixture;

/// The embedded engine in a directory of its own.
struct Local {
    directory: tempfile::TempDir,
    options: Options,
    store: Option<Arc<Embedded>>,
}

impl Local {
    fn new(options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Embedded::open(directory.path(), options.clone()).expect("the store opens");
        Self { directory, options, store: Some(store) }
    }

    fn engine(&self) -> &Arc<Embedded> {
        self.store.as_ref().expect("the store is open")
    }
}

#[async_trait]
impl Fixture for Local {
    fn store(&self) -> Arc<dyn Store> {
        self.store.clone().expect("the store is open")
    }

    async fn reopen(&mut self) {
        let (store, options, path) = (self.store.take(), self.options.clone(), self.directory.path().to_owned());
        let reopen = move || {
            if let Some(store) = store {
                store.close();
            }
            Embedded::open(path, options).expect("the store opens again")
        };
        self.store = Some(tokio::task::spawn_blocking(reopen).await.expect("reopened"));
    }
}

/// So small that segments roll, checkpoints and packing happen all the time and values come from disk.
fn tiny() -> Options {
    Options {
        segment_bytes: 4096 + 1500,
        checkpoint_bytes: 4000,
        recent_bytes: 600,
        upkeep_interval: Duration::from_millis(5),
        ..Options::default()
    }
}

/// With history beyond the compaction mark.
fn keeping() -> Options {
    Options { undo: Some(Undo { horizon: Duration::from_secs(3600), bytes: 1 << 30, except: Vec::new() }), ..tiny() }
}

mod plain {
    use super::*;

    async fn make() -> Local {
        Local::new(Options::default())
    }

    crate::suite!(super::make);
}

mod small {
    use super::*;

    async fn make() -> Local {
        Local::new(tiny())
    }

    crate::suite!(super::make);
}

mod kept {
    use super::*;

    async fn make() -> Local {
        Local::new(keeping())
    }

    crate::suite!(super::make);
}
