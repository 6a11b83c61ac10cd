//! What the runtime says about one pod: its sandboxes and containers, newest first.

use cri::v1;
use jiff::Timestamp;

/// Labels and annotations by which a container is recognised after the kubelet restarted.
pub(crate) mod label {
    pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub(crate) const HASH: &str = "io.kubernetes.container.hash";
    pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub(crate) const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub(crate) const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub(crate) const PORTS: &str = "io.kubernetes.container.ports";
    pub(crate) const PRE_STOP: &str = "io.kubernetes.container.preStopHandler";
    pub(crate) const DELETION_GRACE: &str = "io.kubernetes.pod.deletionGracePeriod";
    pub(crate) const TERMINATION_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
}

/// The state of a container; it only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    Unknown,
    Created,
    Running,
    Exited,
}

impl State {
    /// The state's name in upstream's messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Unknown => "unknown",
            State::Created => "created",
            State::Running => "running",
            State::Exited => "exited",
        }
    }
}

/// One container, alive or dead.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: State,
    /// Nanoseconds since the epoch, as all times here; 0 when it didn't happen.
    pub(crate) created_at: i64,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// The image as the specification named it.
    pub(crate) image: String,
    /// What the image resolved to.
    pub(crate) image_ref: String,
    pub(crate) hash: Option<u32>,
    pub(crate) restart_count: i32,
    pub(crate) log_path: String,
    pub(crate) user: Option<v1::LinuxContainerUser>,
    pub(crate) resources: Option<v1::LinuxContainerResources>,
    pub(crate) stop_signal: Option<String>,
    /// The grace period it was made with, and its preStop hook, for when its pod is gone from the
    /// API.
    pub(crate) grace: Option<i64>,
    pub(crate) pre_stop: Option<String>,
    /// Where the termination message is to be read from, and by which policy.
    pub(crate) termination: Termination,
}

/// How a container leaves its last words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Termination {
    /// The file on the host that is mounted at the message's path.
    pub(crate) file: Option<String>,
    pub(crate) fallback_to_logs: bool,
    /// True once the message was read, so that it is read once.
    pub(crate) read: bool,
}

impl Container {
    /// Reads a status; `None` for a container that isn't a kubelet's.
    pub(crate) fn from_cri(status: &v1::ContainerStatus) -> Option<Self> {
        let name = status.labels.get(label::CONTAINER_NAME)?;
        let state = match v1::ContainerState::try_from(status.state) {
            Ok(v1::ContainerState::ContainerCreated) => State::Created,
            Ok(v1::ContainerState::ContainerRunning) => State::Running,
            Ok(v1::ContainerState::ContainerExited) => State::Exited,
            _ => State::Unknown,
        };
        let annotation = |key: &str| status.annotations.get(key).map(String::as_str);
        let message_path = annotation(label::TERMINATION_MESSAGE_PATH).unwrap_or_default();
        let file = status
            .mounts
            .iter()
            .find(|mount| !message_path.is_empty() && mount.container_path == message_path)
            .map(|mount| mount.host_path.clone());
        // The runtime's name of the image, unless that is only an id.
        let spec = status.image.clone().unwrap_or_default();
        let is_id = spec.image.is_empty() || spec.image.starts_with("sha256:");
        let image = if is_id { spec.user_specified_image } else { spec.image };
        Some(Self {
            id: status.id.clone(),
            name: name.clone(),
            state,
            created_at: status.created_at,
            started_at: status.started_at,
            finished_at: status.finished_at,
            exit_code: status.exit_code,
            reason: status.reason.clone(),
            message: status.message.clone(),
            image,
            image_ref: status.image_ref.clone(),
            // Hexadecimal, as upstream writes it.
            hash: annotation(label::HASH).and_then(|hash| u32::from_str_radix(hash, 16).ok()),
            restart_count: annotation(label::RESTART_COUNT).and_then(|count| count.parse().ok()).unwrap_or_default(),
            log_path: status.log_path.clone(),
            user: status.user.as_ref().and_then(|user| user.linux.clone()),
            resources: status.resources.as_ref().and_then(|resources| resources.linux.clone()),
            stop_signal: v1::Signal::try_from(status.stop_signal)
                .ok()
                .filter(|signal| *signal != v1::Signal::RuntimeDefault)
                .map(|signal| signal.as_str_name().to_owned()),
            grace: [label::DELETION_GRACE, label::TERMINATION_GRACE]
                .into_iter()
                .find_map(|key| annotation(key)?.parse().ok()),
            pre_stop: annotation(label::PRE_STOP).map(ToOwned::to_owned),
            termination: Termination {
                file,
                fallback_to_logs: annotation(label::TERMINATION_MESSAGE_POLICY) == Some("FallbackToLogsOnError"),
                read: false,
            },
        })
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state == State::Running
    }
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) ready: bool,
    pub(crate) created_at: i64,
    pub(crate) ips: Vec<String>,
    pub(crate) host_network: bool,
}

impl Sandbox {
    pub(crate) fn from_cri(status: &v1::PodSandboxStatus) -> Self {
        let options = status
            .linux
            .as_ref()
            .and_then(|linux| linux.namespaces.as_ref())
            .and_then(|namespaces| namespaces.options.as_ref());
        let mut ips = Vec::new();
        if let Some(network) = &status.network {
            let all = std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|ip| &ip.ip));
            ips.extend(all.filter(|ip| !ip.is_empty()).cloned());
        }
        Self {
            id: status.id.clone(),
            attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
            ready: status.state == v1::PodSandboxState::SandboxReady as i32,
            created_at: status.created_at,
            ips,
            host_network: options.is_some_and(|options| options.network == v1::NamespaceMode::Node as i32),
        }
    }
}

/// The runtime's view of a pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Observed {
    /// Newest first.
    pub(crate) sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub(crate) containers: Vec<Container>,
}

impl Observed {
    /// Reads what the runtime answered.
    pub(crate) fn new(sandboxes: &[v1::PodSandboxStatus], containers: &[v1::ContainerStatus]) -> Self {
        let mut observed = Self::default();
        for sandbox in sandboxes {
            observed.merge_sandbox(Sandbox::from_cri(sandbox));
        }
        for container in containers.iter().filter_map(Container::from_cri) {
            observed.merge_container(container);
        }
        observed
    }

    /// The newest container of this name.
    pub(crate) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.id == id)
    }

    /// The pod's addresses: those of its newest sandbox while that is ready.
    pub(crate) fn ips(&self) -> &[String] {
        match self.sandboxes.first() {
            Some(sandbox) if sandbox.ready => &sandbox.ips,
            _ => &[],
        }
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.is_running())
    }

    /// True while something of the pod may still run.
    pub(crate) fn is_alive(&self) -> bool {
        self.containers.iter().any(|container| matches!(container.state, State::Running | State::Unknown))
            || self.sandboxes.iter().any(|sandbox| sandbox.ready)
    }

    /// Takes in a container's state unless a later one is known: reports may overtake each other,
    /// but a container never goes back. Returns whether anything changed.
    pub(crate) fn merge_container(&mut self, new: Container) -> bool {
        if let Some(old) = self.containers.iter_mut().find(|old| old.id == new.id) {
            if new.state < old.state {
                return false;
            }
            let mut new = new;
            if old.state == new.state && old.termination.read {
                new.message.clone_from(&old.message);
                new.termination.read = true;
            }
            if *old == new {
                return false;
            }
            *old = new;
            return true;
        }
        let at = self
            .containers
            .partition_point(|old| (old.created_at, old.restart_count) > (new.created_at, new.restart_count));
        self.containers.insert(at, new);
        true
    }

    /// Takes in a sandbox's state; a sandbox that was not ready never becomes ready again.
    pub(crate) fn merge_sandbox(&mut self, new: Sandbox) -> bool {
        if let Some(old) = self.sandboxes.iter_mut().find(|old| old.id == new.id) {
            if (new.ready && !old.ready) || *old == new {
                return false;
            }
            let ips = std::mem::take(&mut old.ips);
            *old = new;
            if old.ips.is_empty() {
                // A sandbox that stopped no longer tells its addresses.
                old.ips = ips;
            }
            return true;
        }
        let at = self.sandboxes.partition_point(|old| (old.created_at, old.attempt) > (new.created_at, new.attempt));
        self.sandboxes.insert(at, new);
        true
    }

    pub(crate) fn remove_container(&mut self, id: &str) {
        self.containers.retain(|container| container.id != id);
    }
}

/// A time of the runtime's, in whole seconds as the API writes times; `None` for 0.
pub(crate) fn time(nanos: i64) -> Option<Timestamp> {
    if nanos == 0 {
        return None;
    }
    Timestamp::from_second(nanos.div_euclid(1_000_000_000)).ok()
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A container for tests: `name`, attempt and state; times grow with the attempt.
    pub(crate) fn container(name: &str, attempt: i32, state: State) -> Container {
        let at = 1_700_000_000_000_000_000 + i64::from(attempt) * 60_000_000_000;
        Container {
            id: format!("{name}-{attempt}"),
            name: name.to_owned(),
            state,
            created_at: at,
            started_at: if state >= State::Running { at + 1 } else { 0 },
            finished_at: if state == State::Exited { at + 30_000_000_000 } else { 0 },
            exit_code: 0,
            reason: if state == State::Exited { "Completed".into() } else { String::new() },
            message: String::new(),
            image: "image".into(),
            image_ref: "image@sha256:1".into(),
            hash: None,
            restart_count: attempt,
            log_path: format!("{name}/{attempt}.log"),
            user: None,
            resources: None,
            stop_signal: None,
            grace: None,
            pre_stop: None,
            termination: Termination::default(),
        }
    }

    pub(crate) fn exited(name: &str, attempt: i32, exit_code: i32) -> Container {
        Container {
            exit_code,
            reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
            ..container(name, attempt, State::Exited)
        }
    }

    pub(crate) fn sandbox(attempt: u32, ready: bool) -> Sandbox {
        Sandbox {
            id: format!("sandbox-{attempt}"),
            attempt,
            ready,
            created_at: 1_700_000_000_000_000_000 + i64::from(attempt),
            ips: vec!["10.244.0.5".into()],
            host_network: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::*, *};

    #[test]
    fn late_reports_never_turn_back_time() {
        let mut observed = Observed::default();
        assert!(observed.merge_container(container("a", 0, State::Running)));
        assert!(!observed.merge_container(container("a", 0, State::Created)));
        assert!(observed.merge_container(container("a", 0, State::Exited)));
        assert!(!observed.merge_container(container("a", 0, State::Running)));
        assert_eq!(observed.containers[0].state, State::Exited);
        assert!(observed.merge_container(container("a", 1, State::Running)));
        assert_eq!(observed.container("a").unwrap().restart_count, 1);
        assert!(observed.merge_sandbox(sandbox(0, false)));
        assert!(!observed.merge_sandbox(sandbox(0, true)));
    }
}
