//! The conditions of a pod that the kubelet owns.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    observed::Observed,
    phase::{FAILED, SUCCEEDED},
    plan::sandbox_changed,
};
use crate::spec::{PodExt, is_sidecar};

pub(crate) const SCHEDULED: &str = "PodScheduled";
pub(crate) const READY: &str = "Ready";
pub(crate) const INITIALIZED: &str = "Initialized";
pub(crate) const CONTAINERS_READY: &str = "ContainersReady";
pub(crate) const READY_TO_START: &str = "PodReadyToStartContainers";
pub(crate) const DISRUPTION_TARGET: &str = "DisruptionTarget";
pub(crate) const RESIZE_PENDING: &str = "PodResizePending";
pub(crate) const RESIZE_IN_PROGRESS: &str = "PodResizeInProgress";

const POD_COMPLETED: &str = "PodCompleted";
const POD_FAILED: &str = "PodFailed";

/// True for the conditions that only the kubelet writes.
pub(crate) fn is_ours(kind: &str) -> bool {
    matches!(
        kind,
        SCHEDULED | READY | INITIALIZED | CONTAINERS_READY | READY_TO_START | RESIZE_PENDING | RESIZE_IN_PROGRESS
    )
}

pub(crate) fn find<'a>(conditions: &'a [PodCondition], kind: &str) -> Option<&'a PodCondition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

fn condition(kind: &str, status: bool, reason: &str, message: String) -> PodCondition {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    PodCondition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: some(reason),
        message: some(&message),
        ..PodCondition::default()
    }
}

/// A list of names as Go prints a slice: `[a b]`.
fn names(list: &[&str]) -> String {
    format!("[{}]", list.join(" "))
}

fn unready_message(unknown: &[&str], rest: &[&str], what: &str) -> String {
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", names(unknown)));
    }
    if !rest.is_empty() {
        messages.push(format!("containers with {what} status: {}", names(rest)));
    }
    messages.join(", ")
}

fn containers_ready(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = pod.init_containers().iter().filter(|c| is_sidecar(c));
    for spec in sidecars.chain(pod.containers()) {
        match statuses.iter().find(|status| status.name == spec.name) {
            Some(status) if status.ready => {}
            Some(_) => unready.push(spec.name.as_str()),
            None => unknown.push(spec.name.as_str()),
        }
    }
    if phase == SUCCEEDED && unknown.is_empty() {
        return condition(CONTAINERS_READY, false, POD_COMPLETED, String::new());
    }
    if phase == FAILED {
        return condition(CONTAINERS_READY, false, POD_FAILED, String::new());
    }
    let message = unready_message(&unknown, &unready, "unready");
    if message.is_empty() {
        condition(CONTAINERS_READY, true, "", message)
    } else {
        condition(CONTAINERS_READY, false, "ContainersNotReady", message)
    }
}

fn ready(pod: &Pod, containers: &PodCondition, others: &[PodCondition]) -> PodCondition {
    if containers.status != "True" {
        return PodCondition { type_: READY.to_owned(), ..containers.clone() };
    }
    let mut messages = Vec::new();
    for gate in pod.spec().readiness_gates.iter().flatten() {
        match find(others, &gate.condition_type) {
            None => messages.push(format!(
                "corresponding condition of pod readiness gate {:?} does not exist.",
                gate.condition_type
            )),
            Some(found) if found.status != "True" => messages.push(format!(
                "the status of pod readiness gate {:?} is not \"True\", but {}",
                gate.condition_type, found.status
            )),
            Some(_) => {}
        }
    }
    if messages.is_empty() {
        condition(READY, true, "", String::new())
    } else {
        condition(READY, false, "ReadinessGatesNotReady", messages.join(", "))
    }
}

fn initialized(pod: &Pod, statuses: &[ContainerStatus], phase: &str) -> PodCondition {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for spec in pod.init_containers() {
        match statuses.iter().find(|status| status.name == spec.name) {
            None => unknown.push(spec.name.as_str()),
            Some(status) => {
                let done = if is_sidecar(spec) { status.started == Some(true) } else { status.ready };
                if !done {
                    incomplete.push(spec.name.as_str());
                }
            }
        }
    }
    if phase == SUCCEEDED && unknown.is_empty() {
        return condition(INITIALIZED, true, POD_COMPLETED, String::new());
    }
    let any_started = pod.containers().iter().any(|spec| {
        statuses.iter().any(|status| {
            status.name == spec.name
                && (status.started == Some(true)
                    || [&status.state, &status.last_state]
                        .into_iter()
                        .flatten()
                        .any(|state| state.running.is_some() || state.terminated.is_some()))
        })
    });
    let message = unready_message(&unknown, &incomplete, "incomplete");
    if any_started || message.is_empty() {
        return condition(INITIALIZED, true, "", String::new());
    }
    condition(INITIALIZED, false, "ContainersNotInitialized", message)
}

/// All conditions of the pod: those of others as they are, then ours.
///
/// `old` are the conditions last reported, which keep their transition time while they stay.
pub(crate) fn conditions(
    pod: &Pod,
    old: &[PodCondition],
    observed: &Observed,
    statuses: &[ContainerStatus],
    phase: &str,
    resize: &[PodCondition],
    now: Timestamp,
) -> Vec<PodCondition> {
    let of_api = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut all: Vec<PodCondition> = of_api.iter().filter(|condition| !is_ours(&condition.type_)).cloned().collect();
    if find(&all, DISRUPTION_TARGET).is_none()
        && let Some(target) = find(old, DISRUPTION_TARGET)
    {
        all.push(target.clone());
    }
    let containers = containers_ready(pod, statuses, phase);
    let (needs_sandbox, ..) = sandbox_changed(pod, observed);
    let mut own = resize.to_vec();
    own.extend([
        condition(READY_TO_START, !needs_sandbox, "", String::new()),
        initialized(pod, statuses, phase),
        ready(pod, &containers, &all),
        containers,
        condition(SCHEDULED, true, "", String::new()),
    ]);
    for condition in &mut own {
        stamp(condition, old, now);
        if condition.observed_generation.is_none() {
            condition.observed_generation = pod.metadata.generation.filter(|generation| *generation > 0);
        }
    }
    all.extend(own);
    all
}

/// Gives a condition its transition time: the old one's while the status stays.
fn stamp(condition: &mut PodCondition, old: &[PodCondition], now: Timestamp) {
    let kept = find(old, &condition.type_)
        .filter(|old| old.status == condition.status)
        .and_then(|old| old.last_transition_time.clone());
    condition.last_transition_time = Some(kept.unwrap_or(Time(now)));
}
