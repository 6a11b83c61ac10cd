//! The kubelet: pod state machine, probes, volumes, resources, node status and the node HTTP API.
//!
//! It is given a [`kube::Client`] and the socket of a CRI runtime, and nothing else of the
//! cluster. The runtime's containers are the truth: a kubelet that starts takes over what runs.
//! One worker a pod (`pod::worker`) decides purely (`pod::plan`, `pod::status`) and acts in steps;
//! everything sleeps until something happens.

mod cgroup;
mod config;
mod container;
mod disk;
mod duration;
mod error;
mod events;
mod evict;
mod image;
mod inotify;
mod kubelet;
mod logs;
mod node;
mod objects;
mod paths;
mod pod;
mod probe;
mod resources;
mod rpc;
mod run;
mod server;
mod services;
mod spec;
mod static_pods;
mod tokens;
mod volume;

use std::time::Duration;

pub use config::{ClientCa, Config, ContainerLogs, Eviction, ImageGc, Serving, Threshold};
pub use error::Error;
pub use run::{run, run_until};

/// The waits between attempts to watch: short first, so that a start together with the API server
/// costs nothing, then up to ten seconds.
fn watch_backoff() -> WatchBackoff {
    WatchBackoff { next: FIRST_RETRY }
}

const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// See [`watch_backoff`].
#[derive(Clone, Debug)]
struct WatchBackoff {
    next: Duration,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = self.next;
        self.next = (now * 2).min(LAST_RETRY);
        Some(now)
    }
}

impl kube::runtime::utils::Backoff for WatchBackoff {
    fn reset(&mut self) {
        self.next = FIRST_RETRY;
    }
}
