//! What is reported of a rollout: counts, and the conditions Available, Progressing and ReplicaFailure.

use super::plan::{Input, is_complete};
use super::strategy;
use crate::objects::{Condition, Deployment, DeploymentStatus, ReplicaSet};
use crate::replica_set::Replicas as _;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;
use std::time::Duration;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// Upstream's "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

/// The status after this reconcile. `rolling`: progress is judged (not while paused or scaling); `created`: it made the new set.
pub fn status(input: &Input<'_>, rolling: bool, created: bool) -> DeploymentStatus {
    let deployment = input.deployment;
    let sum = |count: &dyn Fn(&ReplicaSet) -> i32| input.sets.iter().map(|s| count(s)).sum::<i32>();
    let available = sum(&|s| s.status.available_replicas);
    let total_wanted = sum(&|s| s.wanted());
    let mut next = DeploymentStatus {
        observed_generation: deployment.metadata.generation.unwrap_or(0),
        replicas: sum(&|s| s.status.replicas),
        updated_replicas: input.new_set().map_or(0, |s| s.status.replicas),
        ready_replicas: sum(&|s| s.status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (total_wanted - available).max(0),
        terminating_replicas: Some(sum(&|s| s.status.terminating_replicas.unwrap_or(0))),
        collision_count: deployment.status.collision_count,
        conditions: deployment.status.conditions.clone(),
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return next;
    }
    let enough = available >= deployment.wanted() - strategy::max_unavailable(deployment);
    let (status, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut next.conditions, AVAILABLE, status, reason, message.to_owned(), input.now);
    pause(input, &mut next.conditions);
    if rolling && has_deadline(deployment) {
        progress(input, &mut next, created);
    }
    match input.sets.iter().flat_map(|s| &s.status.conditions).find(|c| c.type_ == REPLICA_FAILURE) {
        Some(failure) => {
            set(
                &mut next.conditions,
                REPLICA_FAILURE,
                &failure.status,
                &failure.reason,
                failure.message.clone(),
                input.now,
            );
        }
        None => next.conditions.retain(|c| c.type_ != REPLICA_FAILURE),
    }
    next
}

/// The status when the new set could not be created.
pub fn creation_failed(deployment: &Deployment, message: &str, now: Timestamp) -> DeploymentStatus {
    let mut next = deployment.status.clone();
    next.observed_generation = deployment.metadata.generation.unwrap_or(0);
    set(&mut next.conditions, PROGRESSING, "False", "ReplicaSetCreateError", message.to_owned(), now);
    next
}

fn has_deadline(deployment: &Deployment) -> bool {
    deployment.spec.progress_deadline_seconds.is_some_and(|s| s != NO_DEADLINE)
}

fn pause(input: &Input<'_>, conditions: &mut Vec<Condition>) {
    if !has_deadline(input.deployment) {
        return;
    }
    let present = conditions.iter().find(|c| c.type_ == PROGRESSING);
    if present.is_some_and(|c| {
        c.reason == "NewReplicaSetAvailable" || c.reason == "ProgressDeadlineExceeded" && input.deployment.spec.paused
    }) {
        return;
    }
    let paused = present.is_some_and(|c| c.reason == "DeploymentPaused");
    if input.deployment.spec.paused && !paused {
        set(conditions, PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused".into(), input.now);
    } else if !input.deployment.spec.paused && paused {
        set(conditions, PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed".into(), input.now);
    }
}

fn named(set: Option<&Arc<ReplicaSet>>, deployment: &Deployment, what: &str) -> String {
    match set.and_then(|s| s.metadata.name.as_deref()) {
        Some(name) => format!("ReplicaSet {name:?} {what}"),
        None => format!("Deployment {:?} {what}", deployment.metadata.name.as_deref().unwrap_or("")),
    }
}

fn progress(input: &Input<'_>, next: &mut DeploymentStatus, created: bool) {
    let deployment = input.deployment;
    let new = input.new_set();
    // A rollout begins: the deadline of the one before says nothing any more, even if pods of the new set count already.
    let name = || new.and_then(|s| s.metadata.name.as_deref()).unwrap_or_default();
    if created {
        let text = format!("Created new replica set {:?}", name());
        set(&mut next.conditions, PROGRESSING, "True", "NewReplicaSetCreated", text, input.now);
    } else if new.is_some() && !next.conditions.iter().any(|c| c.type_ == PROGRESSING) {
        let text = format!("Found new replica set {:?}", name());
        set(&mut next.conditions, PROGRESSING, "True", "FoundNewReplicaSet", text, input.now);
    }
    let current = next.conditions.iter().find(|c| c.type_ == PROGRESSING).cloned();
    let done_before = current.as_ref().is_some_and(|c| c.reason == "NewReplicaSetAvailable")
        && next.replicas == next.updated_replicas
        && deployment.status.updated_replicas == next.updated_replicas;
    if done_before {
        return;
    }
    if is_complete(input) {
        let text = named(new, deployment, "has successfully progressed.");
        set(&mut next.conditions, PROGRESSING, "True", "NewReplicaSetAvailable", text, input.now);
    } else if is_progressing(&deployment.status, next) {
        let text = named(new, deployment, "is progressing.");
        // Each sign of progress starts the deadline anew, also where nothing else about the condition changes.
        let transition = current.filter(|c| c.status == "True").and_then(|c| c.last_transition_time);
        next.conditions.retain(|c| c.type_ != PROGRESSING);
        next.conditions.push(Condition {
            type_: PROGRESSING.into(),
            status: "True".into(),
            last_update_time: Some(Time(input.now)),
            last_transition_time: transition.or(Some(Time(input.now))),
            reason: "ReplicaSetUpdated".into(),
            message: text,
        });
    } else if timed_out(input, current.as_ref()) {
        let text = named(new, deployment, "has timed out progressing.");
        set(&mut next.conditions, PROGRESSING, "False", "ProgressDeadlineExceeded", text, input.now);
    }
}

fn is_progressing(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let old_of_others = old.replicas - old.updated_replicas;
    let new_of_others = new.replicas - new.updated_replicas;
    new.updated_replicas > old.updated_replicas
        || new_of_others < old_of_others
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn deadline(input: &Input<'_>, condition: &Condition) -> Option<i64> {
    let seconds = input.deployment.spec.progress_deadline_seconds.filter(|s| *s != NO_DEADLINE)?;
    let since = condition.last_update_time.as_ref()?.0.as_second();
    Some(since + i64::from(seconds))
}

fn timed_out(input: &Input<'_>, condition: Option<&Condition>) -> bool {
    match condition {
        Some(c) if c.reason == "ProgressDeadlineExceeded" => true,
        Some(c) if c.reason == "NewReplicaSetAvailable" => false,
        Some(c) => deadline(input, c).is_some_and(|at| input.now.as_second() > at),
        None => false,
    }
}

/// When the progress deadline must be looked at again, if nothing else happens before.
pub fn next_check(input: &Input<'_>) -> Option<Duration> {
    if input.deployment.spec.paused || is_complete(input) {
        return None;
    }
    let condition = input.deployment.status.conditions.iter().find(|c| c.type_ == PROGRESSING);
    match condition {
        Some(c) if c.reason == "ProgressDeadlineExceeded" => None,
        Some(c) => {
            let left = deadline(input, c)? - input.now.as_second() + 1;
            Some(Duration::from_secs(u64::try_from(left).unwrap_or(0).max(1)))
        }
        // The condition is being written: its change brings the next look.
        None => None,
    }
}

/// Sets a condition; times change only when something else does.
fn set(conditions: &mut Vec<Condition>, type_: &str, status: &str, reason: &str, message: String, now: Timestamp) {
    let present = conditions.iter().position(|c| c.type_ == type_);
    let mut next = Condition {
        type_: type_.into(),
        status: status.into(),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
        reason: reason.into(),
        message,
    };
    if let Some(i) = present {
        if conditions[i].status == next.status && conditions[i].reason == next.reason {
            return;
        }
        if conditions[i].status == next.status {
            next.last_transition_time = conditions[i].last_transition_time.clone();
        }
        conditions.remove(i);
    }
    conditions.push(next);
}
