//! The next step of a pod: from its specification and what the runtime and the probes say to what
//! is to be killed, made and started. Nothing here does anything.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::{
    backoff::BackOff,
    observed::{Container, Observed, State, time},
};
use crate::{
    duration,
    probe::{Kind, Outcome, Results},
    spec::{PodExt, RestartPolicy, Role, container_hash, is_sidecar, restarts_all, should_restart},
};

/// Why a running container is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KillReason {
    Changed,
    Liveness,
    Startup,
    Unknown,
    Resize,
}

/// A container to kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) id: String,
    pub(crate) name: String,
    /// The text of the event.
    pub(crate) message: String,
    pub(crate) reason: KillReason,
}

/// A container to start, by its list and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) role: Role,
    pub(crate) index: usize,
}

/// A container that must wait before it may start again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) until: Timestamp,
    /// The message of the waiting state.
    pub(crate) message: String,
}

/// What to do, in this order: kill, make the sandbox, start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Stop everything, the sandbox too.
    pub(crate) kill_pod: bool,
    pub(crate) create_sandbox: bool,
    /// Stop and remove all containers, so that the pod begins anew in its sandbox; because of the
    /// container of this name.
    pub(crate) restart_all: Option<String>,
    /// The sandbox to use, or the one that is replaced.
    pub(crate) sandbox: Option<String>,
    /// The attempt of the sandbox to use or to make.
    pub(crate) attempt: u32,
    pub(crate) kills: Vec<Kill>,
    pub(crate) starts: Vec<Start>,
    pub(crate) waits: Vec<Wait>,
}

impl Plan {
    /// True if there is nothing to do now.
    pub(crate) fn is_idle(&self, observed: &Observed) -> bool {
        let kill_pod = self.kill_pod && observed.is_alive();
        !kill_pod
            && !self.create_sandbox
            && self.restart_all.is_none()
            && self.kills.is_empty()
            && self.starts.is_empty()
    }

    /// When to look again although nothing happened.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        self.waits.iter().map(|wait| wait.until).min()
    }
}

/// What a plan is made from.
pub(crate) struct Input<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    pub(crate) probes: &'a Results,
    pub(crate) restarts: &'a BackOff,
    pub(crate) now: Timestamp,
}

/// Whether the pod needs a new sandbox, the attempt it is or will be, and the sandbox there is.
pub(crate) fn sandbox_changed(pod: &Pod, observed: &Observed) -> (bool, u32, Option<String>) {
    let Some(latest) = observed.sandboxes.first() else {
        return (true, 0, None);
    };
    let ready = observed.sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let id = Some(latest.id.clone());
    if ready > 1 || !latest.ready {
        return (true, latest.attempt + 1, id);
    }
    if latest.host_network != pod.is_host_network() {
        return (true, latest.attempt + 1, None);
    }
    if !pod.is_host_network() && latest.ips.is_empty() {
        return (true, latest.attempt + 1, id);
    }
    (false, latest.attempt, id)
}

/// Whether a container that isn't running is to be started.
pub(crate) fn container_should_start(pod: &Pod, spec: &Spec, observed: &Observed) -> bool {
    match observed.container(&spec.name) {
        None => true,
        Some(container) => match container.state {
            State::Running => false,
            // A container that was made but never ran is made again.
            State::Unknown | State::Created => true,
            State::Exited => should_restart(spec, pod.restart_policy(), container.exit_code),
        },
    }
}

/// True once a regular container was made, which proves that the init containers had been run.
pub(crate) fn any_regular_created(pod: &Pod, observed: &Observed) -> bool {
    pod.containers().iter().any(|spec| {
        observed
            .container(&spec.name)
            .is_some_and(|container| matches!(container.state, State::Created | State::Running | State::Exited))
    })
}

/// True while a regular container runs or is made.
pub(crate) fn any_regular_active(pod: &Pod, observed: &Observed) -> bool {
    pod.containers().iter().any(|spec| {
        observed
            .container(&spec.name)
            .is_some_and(|container| matches!(container.state, State::Created | State::Running))
    })
}

/// Computes the next step.
pub(crate) fn plan(input: &Input<'_>) -> Plan {
    let (pod, observed) = (input.pod, input.observed);
    let (create, attempt, sandbox) = sandbox_changed(pod, observed);
    let mut plan = Plan { kill_pod: create, create_sandbox: create, sandbox, attempt, ..Plan::default() };
    if !create && restart_all(input, &mut plan) {
        return plan;
    }
    let wanted = if create {
        from_the_beginning(input, &mut plan)
    } else {
        let mut wanted: Vec<Start> = pod
            .ephemeral_containers()
            .iter()
            .enumerate()
            // Ephemeral containers are started once.
            .filter(|(_, ephemeral)| observed.container(&ephemeral.name).is_none())
            .map(|(index, _)| Start { role: Role::Ephemeral, index })
            .collect();
        let (mut init, initialized) = init_containers(input, &mut plan);
        if plan.kill_pod || !initialized {
            wanted.append(&mut init);
        } else {
            let mut regular = regular_containers(input, &mut plan);
            if !plan.kill_pod {
                wanted.append(&mut init);
            }
            wanted.append(&mut regular);
        }
        wanted
    };
    hold_back(input, wanted, &mut plan);
    plan
}

/// Whether a container ended in a way that has the whole pod begin anew; at once, or when its
/// back-off is over.
fn restart_all(input: &Input<'_>, plan: &mut Plan) -> bool {
    let pod = input.pod;
    let inits = pod.init_containers().iter().map(|spec| (Role::Init, spec));
    let cause = inits.chain(pod.containers().iter().map(|spec| (Role::Regular, spec))).find_map(|(role, spec)| {
        let container = input.observed.container(&spec.name)?;
        let ended = container.state == State::Exited && restarts_all(spec, container.exit_code);
        ended.then_some((role, spec, container))
    });
    let Some((role, spec, container)) = cause else {
        return false;
    };
    let until = time(container.finished_at).and_then(|finished| input.restarts.until(&spec.name, finished, input.now));
    match until {
        None => plan.restart_all = Some(spec.name.clone()),
        Some(until) => plan.waits.push(wait(input, role, &spec.name, until)),
    }
    true
}

fn wait(input: &Input<'_>, role: Role, name: &str, until: Timestamp) -> Wait {
    Wait {
        role,
        until,
        message: format!(
            "back-off {} restarting failed container={name} pod={}",
            duration::go(input.restarts.wait(name)),
            input.pod.display()
        ),
        name: name.to_owned(),
    }
}

/// What is started in a new sandbox.
fn from_the_beginning(input: &Input<'_>, plan: &mut Plan) -> Vec<Start> {
    let (pod, observed) = (input.pod, input.observed);
    let ran = plan.attempt != 0 && !observed.containers.is_empty();
    if !restarts_at_all(pod) && ran {
        // The pod ran and may not run again; if nothing was ever made, making it is tried again.
        plan.create_sandbox = false;
        return Vec::new();
    }
    let done = |spec: &Spec| {
        observed.container(&spec.name).is_some_and(|container| {
            container.state == State::Exited && !should_restart(spec, pod.restart_policy(), container.exit_code)
        })
    };
    let wanted: Vec<Start> = pod
        .containers()
        .iter()
        .enumerate()
        .filter(|(_, spec)| !done(spec))
        .map(|(index, _)| Start { role: Role::Regular, index })
        .collect();
    if wanted.is_empty() && any_regular_created(pod, observed) {
        plan.create_sandbox = false;
        return Vec::new();
    }
    if !pod.init_containers().is_empty() {
        return vec![Start { role: Role::Init, index: 0 }];
    }
    wanted
}

/// Whether any failure of the pod's containers leads to a restart.
fn restarts_at_all(pod: &Pod) -> bool {
    pod.restart_policy() != RestartPolicy::Never
        || pod.containers().iter().chain(pod.init_containers().iter().filter(|c| !is_sidecar(c))).any(|c| {
            matches!(c.restart_policy.as_deref(), Some("Always" | "OnFailure"))
                || c.restart_policy_rules.as_ref().is_some_and(|rules| !rules.is_empty())
        })
}

/// The init containers to start, in order, and whether all are through (or running, for sidecars).
fn init_containers(input: &Input<'_>, plan: &mut Plan) -> (Vec<Start>, bool) {
    let (pod, observed) = (input.pod, input.observed);
    let specs = pod.init_containers();
    if specs.is_empty() {
        return (Vec::new(), true);
    }
    let last = specs.len() - 1;
    // Finished init containers may have been removed from the runtime since.
    let mut initialized = any_regular_active(pod, observed);
    // Whether those before the one looked at are through: the latest one that exists proves it.
    let mut seen_later = initialized;
    let mut starts = Vec::new();
    let start = |index| Start { role: Role::Init, index };
    for (index, spec) in specs.iter().enumerate().rev() {
        let sidecar = is_sidecar(spec);
        let Some(container) = observed.container(&spec.name) else {
            if seen_later && sidecar {
                starts.push(start(index));
            }
            continue;
        };
        if seen_later && !sidecar {
            continue;
        }
        let next = |initialized: &mut bool, starts: &mut Vec<Start>| {
            if seen_later {
                return;
            }
            if index == last {
                *initialized = true;
            } else {
                starts.push(start(index + 1));
            }
        };
        match container.state {
            // The runtime made it but did not start it.
            State::Created => starts.push(start(index)),
            State::Running if sidecar => {
                if let Some(message) = failed_probe(input, spec, container, Kind::Startup, "Init container") {
                    plan.kills.push(kill(container, message, KillReason::Startup));
                    starts.push(start(index));
                } else if started(input, spec, container) {
                    next(&mut initialized, &mut starts);
                    if let Some(message) = failed_probe(input, spec, container, Kind::Liveness, "Init container") {
                        plan.kills.push(kill(container, message, KillReason::Liveness));
                        starts.push(start(index));
                    }
                }
            }
            State::Running => {}
            State::Exited if sidecar => starts.push(start(index)),
            State::Exited if container.exit_code == 0 => next(&mut initialized, &mut starts),
            State::Exited | State::Unknown => {
                let again = sidecar || should_restart(spec, pod.restart_policy(), container.exit_code.max(1));
                if !again {
                    plan.kill_pod = true;
                    return (Vec::new(), false);
                }
                if container.state == State::Unknown {
                    plan.kills.push(kill(
                        container,
                        format!(
                            "Init container is in {:?} state, try killing it before restart",
                            container.state.as_str()
                        ),
                        KillReason::Unknown,
                    ));
                }
                starts.push(start(index));
            }
        }
        seen_later = true;
    }
    if !seen_later {
        starts.push(start(0));
    }
    starts.sort_by_key(|start| start.index);
    starts.dedup();
    (starts, initialized)
}

/// True once a sidecar counts as up: it has no startup probe, or passed it.
fn started(input: &Input<'_>, spec: &Spec, container: &Container) -> bool {
    spec.startup_probe.is_none() || input.probes.get(&container.id, Kind::Startup) == Some(Outcome::Success)
}

fn failed_probe(input: &Input<'_>, spec: &Spec, container: &Container, kind: Kind, what: &str) -> Option<String> {
    let failed = input.probes.get(&container.id, kind) == Some(Outcome::Failure);
    failed.then(|| format!("{what} {} failed {} probe", spec.name, kind.lower()))
}

fn kill(container: &Container, message: String, reason: KillReason) -> Kill {
    Kill { id: container.id.clone(), name: container.name.clone(), message, reason }
}

/// The regular containers to start; notes what to kill.
fn regular_containers(input: &Input<'_>, plan: &mut Plan) -> Vec<Start> {
    let (pod, observed) = (input.pod, input.observed);
    let mut starts = Vec::new();
    let mut kept = 0;
    for (index, spec) in pod.containers().iter().enumerate() {
        let start = Start { role: Role::Regular, index };
        let found = observed.container(&spec.name);
        let Some(container) = found.filter(|container| container.is_running()) else {
            if container_should_start(pod, spec, observed) {
                starts.push(start);
                if let Some(unknown) = found.filter(|container| container.state == State::Unknown) {
                    let message =
                        format!("Container is in {:?} state, try killing it before restart", unknown.state.as_str());
                    plan.kills.push(kill(unknown, message, KillReason::Unknown));
                }
            }
            continue;
        };
        let mut restart = should_restart(spec, pod.restart_policy(), 1);
        let (mut message, reason) = if container.hash.is_some_and(|hash| hash != container_hash(spec)) {
            // Whatever the policy: what was asked for is another container.
            restart = true;
            (format!("Container {} definition changed", spec.name), KillReason::Changed)
        } else if let Some(message) = failed_probe(input, spec, container, Kind::Liveness, "Container") {
            (message, KillReason::Liveness)
        } else if let Some(message) = failed_probe(input, spec, container, Kind::Startup, "Container") {
            (message, KillReason::Startup)
        } else {
            kept += 1;
            continue;
        };
        if restart {
            message.push_str(", will be restarted");
            starts.push(start);
        }
        plan.kills.push(kill(container, message, reason));
    }
    if kept == 0 && starts.is_empty() {
        plan.kill_pod = true;
    }
    starts
}

/// Takes out the starts that must wait, and what stands behind a waiting init container.
fn hold_back(input: &Input<'_>, wanted: Vec<Start>, plan: &mut Plan) {
    let mut blocked = false;
    for start in wanted {
        let Some(spec) = spec_of(input.pod, start) else { continue };
        let sidecar = is_sidecar(&spec);
        if blocked && start.role != Role::Ephemeral {
            continue;
        }
        let dead = input
            .observed
            .containers
            .iter()
            .find(|container| container.name == spec.name && container.state == State::Exited);
        let until = dead.and_then(|dead| {
            let finished = time(dead.finished_at)?;
            input.restarts.until(&spec.name, finished, input.now)
        });
        match until {
            None => plan.starts.push(start),
            Some(until) => {
                blocked |= start.role == Role::Init && !sidecar;
                plan.waits.push(wait(input, start.role, &spec.name, until));
            }
        }
    }
}

/// The specification that a start means.
pub(crate) fn spec_of(pod: &Pod, start: Start) -> Option<Spec> {
    match start.role {
        Role::Init => pod.init_containers().get(start.index).cloned(),
        Role::Regular => pod.containers().get(start.index).cloned(),
        Role::Ephemeral => pod.ephemeral_containers().get(start.index).map(crate::spec::ephemeral_as_container),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
