//! The kubelet: pod state machine, probes, volumes, resources, node status and the node HTTP API.

mod cgroup;
mod config;
mod container;
mod duration;
mod events;
mod image;
mod kubelet;
mod node;
mod objects;
mod paths;
mod pod;
mod probe;
mod resources;
mod rpc;
mod services;
mod spec;
mod tokens;
mod volume;

use std::time::Duration;

pub use config::{ClientCa, Config, ContainerLogs, Eviction, ImageGc, Serving, Threshold};

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
