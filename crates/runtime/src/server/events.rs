//! Lifecycle events for the kubelet.

use cri::v1::{ContainerEventResponse, ContainerEventType};
use tokio::sync::broadcast;

use crate::shim::now_nanos;

use super::{Runtime, convert};

/// How far a listener may fall behind before it is cut off, and has to list again.
const BACKLOG: usize = 1024;

/// Those who listen, if any.
#[derive(Debug)]
pub(crate) struct Events(broadcast::Sender<ContainerEventResponse>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }
}

impl Events {
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<ContainerEventResponse> {
        self.0.subscribe()
    }
}

impl Runtime {
    /// Tells listeners of a container, or of a sandbox by its id.
    pub(crate) fn tell(&self, id: &str, sandbox: &str, kind: ContainerEventType) {
        if self.events.0.receiver_count() == 0 {
            return;
        }
        let pod = self.sandboxes.find(sandbox).ok().flatten();
        let statuses = self
            .containers
            .all()
            .iter()
            .filter(|c| c.sandbox == sandbox)
            .map(|c| convert::container_status(c))
            .collect();
        let event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: now_nanos(),
            pod_sandbox_status: pod.map(|p| convert::sandbox_status(&p)),
            containers_statuses: statuses,
        };
        // Listeners may have gone meanwhile.
        let _ = self.events.0.send(event);
    }
}
