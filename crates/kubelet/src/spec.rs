//! Reading a pod's specification: the questions that many rooms of the kubelet ask of it.

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, Probe};

/// Where a pod came from; the value of the annotation [`SOURCE_ANNOTATION`].
pub(crate) const SOURCE_ANNOTATION: &str = "kubernetes.io/config.source";
/// Marks a pod in the API as the mirror of a static pod; its value is the static pod's hash.
pub(crate) const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The hash of a static pod's manifest.
pub(crate) const HASH_ANNOTATION: &str = "kubernetes.io/config.hash";
/// When a static pod was first read.
pub(crate) const SEEN_ANNOTATION: &str = "kubernetes.io/config.seen";

/// What decides whether a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
}

/// Which list of the pod a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Role {
    Init,
    Regular,
    Ephemeral,
}

impl Role {
    /// The path of the list in the pod, as events' field paths spell it.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Role::Init => "initContainers",
            Role::Regular => "containers",
            Role::Ephemeral => "ephemeralContainers",
        }
    }
}

/// A static empty specification for pods that have none, so that readers need no `Option`.
static NO_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

/// Shorthands on [`Pod`].
pub(crate) trait PodExt {
    fn uid(&self) -> &str;
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn spec(&self) -> &PodSpec;
    fn annotation(&self, key: &str) -> Option<&str>;
    fn phase(&self) -> &str;

    /// `name_namespace(uid)`, as upstream's messages name a pod.
    fn display(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::parse(self.spec().restart_policy.as_deref())
    }

    fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    fn containers(&self) -> &[Container] {
        &self.spec().containers
    }

    fn ephemeral_containers(&self) -> &[EphemeralContainer] {
        self.spec().ephemeral_containers.as_deref().unwrap_or_default()
    }

    /// The container of this name and its list; ephemeral ones are read as plain containers.
    fn find_container(&self, name: &str) -> Option<(Role, Container)> {
        if let Some(found) = self.containers().iter().find(|c| c.name == name) {
            return Some((Role::Regular, found.clone()));
        }
        if let Some(found) = self.init_containers().iter().find(|c| c.name == name) {
            return Some((Role::Init, found.clone()));
        }
        self.ephemeral_containers()
            .iter()
            .find(|c| c.name == name)
            .map(|found| (Role::Ephemeral, ephemeral_as_container(found)))
    }

    fn is_host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    /// True for a pod that the kubelet read itself, and not from the API.
    fn is_static(&self) -> bool {
        matches!(self.annotation(SOURCE_ANNOTATION), Some(source) if source != "api")
    }

    /// True for the API's image of a static pod.
    fn is_mirror(&self) -> bool {
        self.annotation(MIRROR_ANNOTATION).is_some()
    }

    fn is_terminal(&self) -> bool {
        matches!(self.phase(), "Succeeded" | "Failed")
    }

    fn is_deleted(&self) -> bool;
}

impl PodExt for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref().and_then(|annotations| annotations.get(key)).map(String::as_str)
    }

    fn phase(&self) -> &str {
        self.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

/// An ephemeral container without the fields that only it has.
pub(crate) fn ephemeral_as_container(ephemeral: &EphemeralContainer) -> Container {
    let e = ephemeral.clone();
    Container {
        args: e.args,
        command: e.command,
        env: e.env,
        env_from: e.env_from,
        image: e.image,
        image_pull_policy: e.image_pull_policy,
        lifecycle: e.lifecycle,
        liveness_probe: e.liveness_probe,
        name: e.name,
        ports: e.ports,
        readiness_probe: e.readiness_probe,
        resize_policy: e.resize_policy,
        resources: e.resources,
        restart_policy: e.restart_policy,
        restart_policy_rules: e.restart_policy_rules,
        security_context: e.security_context,
        startup_probe: e.startup_probe,
        stdin: e.stdin,
        stdin_once: e.stdin_once,
        termination_message_path: e.termination_message_path,
        termination_message_policy: e.termination_message_policy,
        tty: e.tty,
        volume_devices: e.volume_devices,
        volume_mounts: e.volume_mounts,
        working_dir: e.working_dir,
    }
}

/// True for a sidecar: an init container that is kept running.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The action of the first of a container's own rules that an exit code matches.
fn matched_rule(container: &Container, exit_code: i32) -> Option<&str> {
    container.restart_policy.as_ref()?;
    let rule = container.restart_policy_rules.iter().flatten().find(|rule| {
        let Some(codes) = &rule.exit_codes else {
            return false;
        };
        let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
        match codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    })?;
    Some(&rule.action)
}

/// Whether a container's exit has all containers of its pod start over.
pub(crate) fn restarts_all(container: &Container, exit_code: i32) -> bool {
    matched_rule(container, exit_code) == Some("RestartAllContainers")
}

/// Whether a container that exited with `exit_code` is to be started again, by its own rules and
/// policy first, and by the pod's policy where it has none.
pub(crate) fn should_restart(container: &Container, pod: RestartPolicy, exit_code: i32) -> bool {
    match (matched_rule(container, exit_code), container.restart_policy.as_deref()) {
        (Some(action), _) => matches!(action, "Restart" | "RestartAllContainers"),
        (None, Some(own)) => by_policy(RestartPolicy::parse(Some(own)), exit_code),
        (None, None) => by_policy(pod, exit_code),
    }
}

fn by_policy(policy: RestartPolicy, exit_code: i32) -> bool {
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => exit_code != 0,
        RestartPolicy::Never => false,
    }
}

/// The identity of a container's specification: a container whose hash differs from the one it
/// was made with is made again. Only name and image count, the fields that may change.
pub(crate) fn container_hash(container: &Container) -> u32 {
    // FNV-1a, 32 bits.
    let image = container.image.as_deref().unwrap_or_default();
    container
        .name
        .bytes()
        .chain(std::iter::once(0))
        .chain(image.bytes())
        .fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The termination grace period of the specification, in seconds.
pub(crate) fn grace_period(pod: &Pod) -> i64 {
    pod.spec().termination_grace_period_seconds.unwrap_or(30)
}

/// The three probes of a container.
pub(crate) fn probes(container: &Container) -> [(crate::probe::Kind, Option<&Probe>); 3] {
    use crate::probe::Kind;
    [
        (Kind::Startup, container.startup_probe.as_ref()),
        (Kind::Liveness, container.liveness_probe.as_ref()),
        (Kind::Readiness, container.readiness_probe.as_ref()),
    ]
}
