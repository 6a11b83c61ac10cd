//! The status of a pod as the API shows it, from what the runtime says and what was said before.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, ContainerUser, HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus,
        ResourceRequirements, VolumeMountStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    conditions::conditions,
    observed::{Container, Observed, State, time},
    phase::{FAILED, PENDING, SUCCEEDED, phase},
    plan::{any_regular_active, any_regular_created, container_should_start},
};
use crate::{
    probe::{Kind, Outcome, Results},
    resources,
    spec::{PodExt, ephemeral_as_container, is_sidecar},
};

const CONTAINER_CREATING: &str = "ContainerCreating";
const POD_INITIALIZING: &str = "PodInitializing";
const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
/// The reason and message of containers that were removed so that all begin anew.
pub(crate) const RESTARTING_ALL: &str = "RestartingAllContainers";
pub(crate) const RESTARTING_ALL_MESSAGE: &str = "The container is removed because RestartAllContainers in place";

/// Why a container could not be started, by its name.
pub(crate) type Reasons = BTreeMap<String, Reason>;

/// A waiting state's reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// What a status is made from.
pub(crate) struct Input<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    /// What was last reported, or what the API had when the kubelet started.
    pub(crate) old: &'a PodStatus,
    pub(crate) reasons: &'a Reasons,
    pub(crate) probes: &'a Results,
    /// The runtime's name, the scheme of container ids.
    pub(crate) runtime: &'a str,
    pub(crate) host_ips: &'a [IpAddr],
    /// The pod is being stopped.
    pub(crate) stopping: bool,
    /// Nothing of the pod runs or will be started again.
    pub(crate) terminal: bool,
    pub(crate) resize: &'a [PodCondition],
    pub(crate) now: Timestamp,
}

/// Makes the status.
pub(crate) fn generate(input: &Input<'_>) -> PodStatus {
    let Input { pod, observed, old, .. } = *input;
    let mut status = PodStatus {
        observed_generation: pod.metadata.generation.filter(|generation| *generation > 0),
        qos_class: Some(resources::qos(pod).as_str().to_owned()),
        start_time: old.start_time.clone().or(Some(Time(seconds(input.now)))),
        ..carried_over(pod)
    };

    let old_list = |list: &Option<Vec<ContainerStatus>>| list.clone().unwrap_or_default();
    let mut regular = statuses(input, pod.containers(), &old_list(&old.container_statuses), false);
    // Clients rely on the order.
    regular.sort_by(|a, b| a.name.cmp(&b.name));
    let init = statuses(input, pod.init_containers(), &old_list(&old.init_container_statuses), true);
    let ephemeral: Vec<Spec> = pod.ephemeral_containers().iter().map(ephemeral_as_container).collect();
    let mut ephemeral = statuses(input, &ephemeral, &old_list(&old.ephemeral_container_statuses), false);
    ephemeral.sort_by(|a, b| a.name.cmp(&b.name));

    let both: Vec<ContainerStatus> = init.iter().chain(&regular).cloned().collect();
    let phase = settle_phase(input, phase(pod, &both, input.terminal, any_regular_active(pod, observed)));
    if old.phase.as_deref() == Some(phase.as_str()) {
        let of_api = pod.status.as_ref();
        status.reason = old.reason.clone().or(of_api.and_then(|s| s.reason.clone()));
        status.message = old.message.clone().or(of_api.and_then(|s| s.message.clone()));
    }
    let old_conditions = old.conditions.as_deref().unwrap_or_default();
    status.conditions =
        Some(conditions(pod, old_conditions, observed, &both, &phase, input.resize, seconds(input.now)));
    status.phase = Some(phase);

    status.container_statuses = Some(regular);
    status.init_container_statuses = (!init.is_empty()).then_some(init);
    status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    addresses(input, &mut status);
    status
}

/// The parts of the status that others write and that the kubelet must not drop.
fn carried_over(pod: &Pod) -> PodStatus {
    let Some(of_api) = &pod.status else {
        return PodStatus::default();
    };
    PodStatus {
        nominated_node_name: of_api.nominated_node_name.clone(),
        resource_claim_statuses: of_api.resource_claim_statuses.clone(),
        extended_resource_claim_status: of_api.extended_resource_claim_status.clone(),
        ..PodStatus::default()
    }
}

/// A pod never leaves a terminal phase.
fn settle_phase(input: &Input<'_>, computed: &str) -> String {
    let terminal = |phase: Option<&str>| matches!(phase, Some(FAILED | SUCCEEDED));
    let of_api = input.pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if terminal(of_api) {
        return of_api.unwrap_or(computed).to_owned();
    }
    let old = input.old.phase.as_deref();
    if !terminal(Some(computed)) && terminal(old) {
        return old.unwrap_or(computed).to_owned();
    }
    computed.to_owned()
}

fn addresses(input: &Input<'_>, status: &mut PodStatus) {
    let hosts: Vec<String> = input.host_ips.iter().map(ToString::to_string).collect();
    status.host_ip = hosts.first().cloned();
    if !hosts.is_empty() {
        status.host_ips = Some(hosts.iter().map(|ip| HostIP { ip: ip.clone() }).collect());
    }
    let ips = if input.pod.is_host_network() {
        hosts
    } else {
        let ips = sort_ips(input.observed.ips(), input.host_ips);
        if ips.is_empty() {
            // The addresses are kept until the pod is gone, so that who reads the status of a
            // finished pod still finds them.
            let kept = input.old.pod_ips.iter().flatten();
            kept.filter(|_| input.stopping).map(|ip| ip.ip.clone()).collect()
        } else {
            ips
        }
    };
    status.pod_ip = ips.first().cloned();
    if !ips.is_empty() {
        status.pod_ips = Some(ips.into_iter().map(|ip| PodIP { ip }).collect());
    }
}

/// At most one address of each family, the node's own family first.
pub(crate) fn sort_ips(ips: &[String], host_ips: &[IpAddr]) -> Vec<String> {
    let parsed: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    let six_first = host_ips.first().is_some_and(IpAddr::is_ipv6);
    let of = |six: bool| parsed.iter().find(move |ip| ip.is_ipv6() == six).map(ToString::to_string);
    of(six_first).into_iter().chain(of(!six_first)).collect()
}

pub(crate) fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// The statuses of one list of containers, in the list's order.
fn statuses(input: &Input<'_>, specs: &[Spec], old: &[ContainerStatus], init: bool) -> Vec<ContainerStatus> {
    specs
        .iter()
        .map(|spec| {
            let old = old.iter().find(|old| old.name == spec.name);
            let mut status = status_of(input, spec, old);
            restate(input, spec, init, &mut status);
            probed(input, spec, init, &mut status);
            status
        })
        .collect()
}

fn status_of(input: &Input<'_>, spec: &Spec, old: Option<&ContainerStatus>) -> ContainerStatus {
    let mut found = input.observed.containers.iter().filter(|c| c.name == spec.name);
    let Some(newest) = found.next() else {
        return missing(input, spec, old);
    };
    let mut status = convert(input, spec, newest, old);
    if let Some(before) = found.next() {
        status.last_state = Some(state_of(input, before));
    }
    status
}

/// The status of a container that the runtime doesn't have.
fn missing(input: &Input<'_>, spec: &Spec, old: Option<&ContainerStatus>) -> ContainerStatus {
    let reason = default_waiting(input.pod);
    let mut status = ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        state: Some(waiting(reason, "")),
        last_state: Some(ContainerState::default()),
        volume_mounts: volume_mounts(spec),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    let old_state = old.state.clone().unwrap_or_default();
    let anew = input.reasons.get(&spec.name).is_some_and(|reason| reason.reason == RESTARTING_ALL);
    if anew && old_state.waiting.is_none() {
        // It was removed to begin anew, which counts as a restart.
        status.restart_count = old.restart_count + 1;
        status.last_state = Some(ContainerState {
            terminated: Some(old_state.terminated.unwrap_or_else(|| ContainerStateTerminated {
                exit_code: 137,
                reason: Some(RESTARTING_ALL.to_owned()),
                message: Some(RESTARTING_ALL_MESSAGE.to_owned()),
                ..ContainerStateTerminated::default()
            })),
            ..ContainerState::default()
        });
        return status;
    }
    if old_state.terminated.is_some() {
        return old.clone();
    }
    status.restart_count = old.restart_count;
    status.last_state = Some(old.last_state.clone().unwrap_or_default());
    let lost = old_state.running.is_some() && status.last_state.as_ref().is_none_or(|last| last.terminated.is_none());
    if lost {
        // It ran when we last looked, so it ended in between.
        status.last_state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some(STATUS_UNKNOWN.to_owned()),
                message: Some(
                    "The container could not be located when the pod was deleted.  The container used to be Running"
                        .to_owned(),
                ),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        });
        if !input.pod.is_deleted() {
            status.restart_count += 1;
        }
    }
    status
}

fn default_waiting(pod: &Pod) -> &'static str {
    if pod.init_containers().is_empty() { CONTAINER_CREATING } else { POD_INITIALIZING }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: some(reason), message: some(message) }),
        ..ContainerState::default()
    }
}

/// The id of a container as the API shows it.
pub(crate) fn container_id(runtime: &str, id: &str) -> String {
    format!("{runtime}://{id}")
}

/// When something happened to a container. What never did is at the epoch, as upstream shows a runtime's 0: an end without
/// a beginning (`StartError`) has both times.
fn moment(nanos: i64) -> Option<Time> {
    Some(Time(time(nanos).unwrap_or(Timestamp::UNIX_EPOCH)))
}

fn state_of(input: &Input<'_>, container: &Container) -> ContainerState {
    let started_at = moment(container.started_at);
    match container.state {
        State::Running => {
            ContainerState { running: Some(ContainerStateRunning { started_at }), ..ContainerState::default() }
        }
        State::Exited => {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: container.exit_code,
                    reason: some(&container.reason),
                    message: some(&container.message),
                    started_at,
                    finished_at: moment(container.finished_at),
                    container_id: Some(container_id(input.runtime, &container.id)),
                    signal: None,
                }),
                ..ContainerState::default()
            }
        }
        State::Created | State::Unknown => waiting("", ""),
    }
}

fn convert(input: &Input<'_>, spec: &Spec, container: &Container, old: Option<&ContainerStatus>) -> ContainerStatus {
    let id = container_id(input.runtime, &container.id);
    let mut status = ContainerStatus {
        name: spec.name.clone(),
        restart_count: container.restart_count,
        image: container.image.clone(),
        image_id: container.image_ref.clone(),
        container_id: Some(id.clone()),
        state: Some(state_of(input, container)),
        last_state: Some(ContainerState::default()),
        volume_mounts: volume_mounts(spec),
        allocated_resources: resources::requests(spec.resources.as_ref()).cloned(),
        resources: Some(actual_resources(spec, container)),
        user: container.user.as_ref().map(|user| ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid,
                gid: user.gid,
                supplemental_groups: (!user.supplemental_groups.is_empty()).then(|| user.supplemental_groups.clone()),
            }),
        }),
        // Told only where one was asked for.
        stop_signal: spec
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_signal.as_ref())
            .and(container.stop_signal.clone()),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    status.restart_count = status.restart_count.max(old.restart_count);
    let old_state = old.state.clone().unwrap_or_default();
    // The runtime may have dropped the container that ran before.
    let last = if old.container_id.as_deref() != Some(&id) && old_state.terminated.is_some() {
        old_state.terminated.clone()
    } else {
        old.last_state.as_ref().and_then(|last| last.terminated.clone())
    };
    if last.is_some() {
        status.last_state = Some(ContainerState { terminated: last, ..ContainerState::default() });
    }
    if container.state == State::Unknown && old_state.running.is_some() {
        status.state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some(STATUS_UNKNOWN.to_owned()),
                message: Some("The container could not be located when the pod was terminated".to_owned()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        });
        status.restart_count = old.restart_count + 1;
    }
    status
}

/// What a running container really has; what it was allotted otherwise.
fn actual_resources(spec: &Spec, container: &Container) -> ResourceRequirements {
    let mut allotted = spec.resources.clone().unwrap_or_default();
    let (Some(actual), true) = (&container.resources, container.is_running()) else {
        return allotted;
    };
    // Below these the kernel rounds up; what was asked for is shown then.
    const MIN_LIMIT_MILLI: i64 = 10;
    if let Some(limits) = &mut allotted.limits {
        if actual.cpu_quota > 0 && actual.cpu_period > 0 {
            let milli = actual.cpu_quota * 1000 / actual.cpu_period;
            let own = resources::get(Some(limits), resources::CPU).milli_value();
            if milli != own && (milli > MIN_LIMIT_MILLI || own > MIN_LIMIT_MILLI) {
                limits.insert(resources::CPU.to_owned(), resources::milli(milli));
            }
        }
        if let Ok(bytes) = u64::try_from(actual.memory_limit_in_bytes)
            && bytes > 0
            && resources::get(Some(limits), resources::MEMORY).value() != actual.memory_limit_in_bytes
        {
            limits.insert(resources::MEMORY.to_owned(), resources::binary(bytes));
        }
    }
    if let Some(requests) = &mut allotted.requests
        && let Ok(shares) = u64::try_from(actual.cpu_shares)
    {
        let own = resources::get(Some(requests), resources::CPU).milli_value();
        if shares > resources::MIN_SHARES && resources::cpu_shares(own) != shares {
            let milli = i64::try_from((shares * 1000).div_ceil(1024)).unwrap_or(own);
            requests.insert(resources::CPU.to_owned(), resources::milli(milli));
        }
    }
    allotted
}

fn volume_mounts(spec: &Spec) -> Option<Vec<VolumeMountStatus>> {
    let mounts = spec.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let status = |mount: &k8s_openapi::api::core::v1::VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: (mount.read_only == Some(true)).then(|| {
            let enabled = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
            if enabled { "Enabled" } else { "Disabled" }.to_owned()
        }),
        volume_status: None,
    };
    Some(mounts.iter().map(status).collect())
}

/// A container that is to be started, and could not be, waits, whatever it did before.
fn restate(input: &Input<'_>, spec: &Spec, init: bool, status: &mut ContainerStatus) {
    let (pod, observed) = (input.pod, input.observed);
    let found = observed.container(&spec.name);
    if init {
        if found.is_some_and(|c| c.state == State::Exited && c.exit_code == 0) && !is_sidecar(spec) {
            return;
        }
        let is_waiting = status.state.as_ref().is_some_and(|state| state.waiting.is_some());
        if found.is_none() && any_regular_created(pod, observed) && !is_sidecar(spec) && is_waiting {
            status.state = Some(ContainerState {
                terminated: Some(ContainerStateTerminated {
                    exit_code: 0,
                    reason: Some("Completed".to_owned()),
                    message: Some(
                        "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally"
                            .to_owned(),
                    ),
                    ..ContainerStateTerminated::default()
                }),
                ..ContainerState::default()
            });
            return;
        }
    }
    if input.terminal || !container_should_start(pod, spec, observed) {
        return;
    }
    let Some(reason) = input.reasons.get(&spec.name) else {
        return;
    };
    if reason.reason == RESTARTING_ALL && found.is_some() {
        // It is told when the container is gone.
        return;
    }
    if let Some(state) = status.state.take()
        && state.terminated.is_some()
    {
        status.last_state = Some(state);
    }
    status.state = Some(waiting(&reason.reason, &reason.message));
}

/// Whether the container started and is ready, by its probes.
fn probed(input: &Input<'_>, spec: &Spec, init: bool, status: &mut ContainerStatus) {
    let state = status.state.clone().unwrap_or_default();
    if init && !is_sidecar(spec) {
        status.started = Some(state.running.is_some());
        status.ready = state.terminated.is_some_and(|terminated| terminated.exit_code == 0);
        return;
    }
    let running =
        input.observed.container(&spec.name).filter(|container| container.is_running() && state.running.is_some());
    let Some(container) = running else {
        status.started = Some(false);
        status.ready = false;
        return;
    };
    let passed = |kind| input.probes.get(&container.id, kind) == Some(Outcome::Success);
    let started = spec.startup_probe.is_none() || passed(Kind::Startup);
    status.started = Some(started);
    status.ready = started && (spec.readiness_probe.is_none() || passed(Kind::Readiness));
}

/// What is reported while containers may still run: never yet the end.
pub(crate) fn hold_terminal_phase(status: &mut PodStatus, old: &PodStatus) {
    if matches!(status.phase.as_deref(), Some(FAILED | SUCCEEDED))
        && !matches!(old.phase.as_deref(), Some(FAILED | SUCCEEDED))
    {
        status.phase.clone_from(&old.phase);
        if status.phase.is_none() {
            status.phase = Some(PENDING.to_owned());
        }
        status.reason.clone_from(&old.reason);
        status.message.clone_from(&old.message);
    }
}

/// The last status of a pod of which nothing runs any more: containers without a known end get
/// one, and the phase becomes terminal.
pub(crate) fn finish(pod: &Pod, status: &mut PodStatus) {
    let lost = || ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some(STATUS_UNKNOWN.to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    };
    let evidence = |status: &ContainerStatus| {
        let has = |state: &Option<ContainerState>| {
            state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some())
        };
        has(&status.state) || has(&status.last_state)
    };
    let ended = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let init_done = pod.init_containers().is_empty()
        || status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == super::conditions::INITIALIZED && condition.status == "True");
    let any_regular = status.container_statuses.iter().flatten().any(evidence);
    if init_done && any_regular {
        for status in status.container_statuses.iter_mut().flatten().filter(|s| !ended(s)) {
            status.state = Some(lost());
        }
    }
    if let Some(init) = &mut status.init_container_statuses {
        let through = init.iter().rposition(evidence).map_or(0, |last| last + 1);
        for status in init[..through].iter_mut().filter(|s| !ended(s)) {
            status.state = Some(lost());
        }
    }
    let terminal = matches!(status.phase.as_deref(), Some(FAILED | SUCCEEDED));
    if !terminal && !pod.is_static() {
        status.phase = Some(FAILED.to_owned());
    }
    for status in [&mut status.container_statuses, &mut status.init_container_statuses].into_iter().flatten().flatten()
    {
        if status.state.as_ref().is_some_and(|s| s.terminated.is_some()) && !status.ready {
            status.started = Some(false);
        }
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
