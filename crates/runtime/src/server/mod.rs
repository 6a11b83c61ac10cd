//! The CRI server: what it knows, and the operations on it.
//!
//! Sandboxes and containers are kept in memory and, each in a directory of its own, on disk; their processes
//! belong to shims. So the server may end at any moment: the next one reads the directories, finds the shims
//! and goes on ([`recovery`]).

mod attach;
mod config;
mod containers;
mod convert;
mod creation;
mod error;
mod events;
mod exec;
mod executable;
mod images;
mod layout;
mod lifecycle;
mod metrics;
mod names;
mod pod_files;
mod record;
mod recovery;
mod reset;
mod sandboxes;
mod service;
mod shim_client;
mod signals;
mod spawn;
mod state;
mod stats;
mod streams;

use std::sync::atomic::{AtomicBool, Ordering};

use network::pod::PodNetwork;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use config::{Config, ConfigError};
pub use lifecycle::{ServeError, serve, stop_all_pods};
pub use reset::{ResetError, reset};

pub(crate) use self::{
    attach::Attachment,
    error::RuntimeError,
    exec::{ExecStdio, Execution, input_pipe, output_pipe},
    streams::{Ticket, Wanted},
};
use self::{
    events::Events,
    executable::SealedExecutable,
    images::RootFilesystems,
    layout::Layout,
    names::Names,
    state::{Container, Sandbox, Table},
};
use crate::{cgroup::Cgroups, seccomp};

/// Everything that the operations share.
pub(crate) struct Runtime {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) cgroups: Cgroups,
    pub(crate) network: PodNetwork,
    pub(crate) images: RootFilesystems,
    pub(crate) sandboxes: Table<Sandbox>,
    pub(crate) containers: Table<Container>,
    pub(crate) names: Names,
    pub(crate) events: Events,
    pub(crate) streams: streams::Streams,
    /// What shims run.
    pub(crate) executable: SealedExecutable,
    pub(crate) filters: seccomp::Filters,
    network_ready: AtomicBool,
    /// Cancelled when the server ends; whatever goes on in the background ends with it.
    pub(crate) ending: CancellationToken,
    background: TaskTracker,
}

impl Runtime {
    /// Does something in the background, until it is done or the server ends.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let ending = self.ending.clone();
        self.background.spawn(async move {
            tokio::select! {
                () = work => {}
                () = ending.cancelled() => {}
            }
        });
    }

    /// Whether pods can be attached to the network.
    pub(crate) fn network_ready(&self) -> bool {
        self.network_ready.load(Ordering::Acquire)
    }

    pub(crate) fn set_network_ready(&self) {
        self.network_ready.store(true, Ordering::Release);
    }
}

/// Runs what blocks on a thread that may. A panic in there is passed on.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Runs an operation to its end even when its caller stops waiting, so that nothing stays half-done because a
/// client hung up.
pub(crate) async fn to_the_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(work).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
