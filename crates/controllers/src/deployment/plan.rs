//! What the next step of a rollout is, decided from what is there: no IO.

use super::{revision, strategy, template};
use crate::objects::{Deployment, ReplicaSet};
use crate::pods;
use crate::replica_set::Replicas as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What is known when a deployment is reconciled.
pub struct Input<'a> {
    pub deployment: &'a Deployment,
    /// The sets that it controls.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// Whether pods of old sets still run (also while they are being deleted).
    pub old_pods_running: bool,
    pub now: Timestamp,
}

/// One write.
#[derive(Debug)]
pub enum Action {
    Create {
        name: String,
        body: Value,
        replicas: i32,
    },
    Scale {
        set: Arc<ReplicaSet>,
        replicas: i32,
        annotations: Map<String, Value>,
    },
    /// Brings a set's annotations and settings up to date.
    Annotate {
        set: Arc<ReplicaSet>,
        patch: SetPatch,
    },
    SetRevision(String),
    Delete(Arc<ReplicaSet>),
}

#[derive(Debug)]
pub struct SetPatch {
    pub annotations: Map<String, Value>,
    pub min_ready_seconds: i32,
}

/// The step, and whether progress is to be reported (not while paused or scaling).
#[derive(Debug, Default)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub rolling: bool,
}

impl Input<'_> {
    /// The set of the present template; the oldest if there are several, as upstream has it.
    pub fn new_set(&self) -> Option<&Arc<ReplicaSet>> {
        let mut matching: Vec<&Arc<ReplicaSet>> = self
            .sets
            .iter()
            .filter(|s| template::equal_ignoring_hash(&s.spec.template, &self.deployment.spec.template))
            .collect();
        matching.sort_by_key(|s| by_age(s));
        matching.first().copied()
    }

    pub fn old_sets(&self) -> Vec<&Arc<ReplicaSet>> {
        let new = self.new_set().and_then(|s| s.metadata.uid.as_ref());
        self.sets.iter().filter(|s| s.metadata.uid.as_ref() != new).collect()
    }
}

fn by_age(set: &ReplicaSet) -> (Option<Timestamp>, String) {
    (set.metadata.creation_timestamp.as_ref().map(|t| t.0), set.metadata.name.clone().unwrap_or_default())
}

/// Decides the next step.
pub fn plan(input: &Input<'_>) -> Plan {
    let deployment = input.deployment;
    if deployment.metadata.deletion_timestamp.is_some() {
        return Plan::default();
    }
    if deployment.spec.paused {
        let mut actions = Vec::new();
        set_revisions(input, false, &mut actions);
        actions.extend(scale(input));
        clean_up(input, &mut actions);
        return Plan { actions, rolling: false };
    }
    if is_scaling(input) {
        return Plan { actions: scale(input), rolling: false };
    }
    let mut plan = Plan { actions: Vec::new(), rolling: true };
    if strategy::is_rolling(deployment) {
        roll(input, &mut plan.actions)
    } else {
        recreate(input, &mut plan.actions)
    }
    plan
}

/// Creates or annotates the set of the present template. Gives whether it was there.
fn set_revisions(input: &Input<'_>, create: bool, actions: &mut Vec<Action>) -> bool {
    let deployment = input.deployment;
    let newest = input.old_sets().iter().map(|s| revision::of(s)).max().unwrap_or(0) + 1;
    if let Some(set) = input.new_set() {
        let annotations = revision::missing(deployment, set, newest);
        if !annotations.is_empty() || set.spec.min_ready_seconds != deployment.spec.min_ready_seconds {
            let patch = SetPatch { annotations, min_ready_seconds: deployment.spec.min_ready_seconds };
            actions.push(Action::Annotate { set: set.clone(), patch });
        }
        let revision = revision::of(set).max(newest);
        if revision::of_deployment(deployment) != Some(revision.to_string().as_str()) {
            actions.push(Action::SetRevision(revision.to_string()));
        }
        return true;
    }
    if !create {
        return false;
    }
    let replicas = strategy::new_set_replicas(deployment, &input.sets, 0);
    let hash = template::hash(&deployment.spec.template, deployment.status.collision_count);
    let name = set_name(deployment.metadata.name.as_deref().unwrap_or(""), &hash);
    let mut template = deployment.spec.template.clone();
    if !template["metadata"].is_object() {
        template["metadata"] = json!({});
    }
    template["metadata"]["labels"][template::HASH_LABEL] = hash.as_str().into();
    let mut selector = json!(deployment.spec.selector);
    selector["matchLabels"][template::HASH_LABEL] = hash.as_str().into();
    let mut annotations = revision::copied(deployment);
    annotations.insert(revision::REVISION.into(), newest.to_string().into());
    annotations.extend(counts(deployment));
    let body = json!({
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "labels": template["metadata"]["labels"],
            "annotations": annotations,
            "ownerReferences": [pods::owner("apps/v1", "Deployment", &deployment.metadata)],
        },
        "spec": {
            "replicas": replicas,
            "minReadySeconds": deployment.spec.min_ready_seconds,
            "selector": selector,
            "template": template,
        },
    });
    actions.push(Action::Create { name, body, replicas });
    if revision::of_deployment(deployment) != Some(newest.to_string().as_str()) {
        actions.push(Action::SetRevision(newest.to_string()));
    }
    false
}

/// `NAME-HASH`, within the 253 bytes of a name.
fn set_name(deployment: &str, hash: &str) -> String {
    let room = 253 - hash.len() - 1;
    let mut prefix = deployment;
    if prefix.len() > room {
        prefix = &prefix[..room];
    }
    format!("{prefix}-{hash}")
}

/// The counts noted on every active set, by which a later change of scale is noticed.
fn counts(deployment: &Deployment) -> Map<String, Value> {
    let most = deployment.wanted() + strategy::max_surge(deployment);
    Map::from_iter([
        (revision::DESIRED_REPLICAS.to_owned(), deployment.wanted().to_string().into()),
        (revision::MAX_REPLICAS.to_owned(), most.to_string().into()),
    ])
}

fn scale_to(deployment: &Deployment, set: &Arc<ReplicaSet>, replicas: i32) -> Option<Action> {
    let mut annotations = counts(deployment);
    let have = set.metadata.annotations.as_ref();
    annotations.retain(|k, v| have.and_then(|a| a.get(k)).map(String::as_str) != v.as_str());
    if set.wanted() == replicas && annotations.is_empty() {
        return None;
    }
    Some(Action::Scale { set: set.clone(), replicas, annotations })
}

/// Whether the wanted number changed since the active sets were last scaled.
fn is_scaling(input: &Input<'_>) -> bool {
    input
        .sets
        .iter()
        .filter(|s| s.wanted() > 0)
        .any(|s| revision::number(s, revision::DESIRED_REPLICAS).is_some_and(|n| n != input.deployment.wanted()))
}

/// Follows a change of scale: the one active set takes it all; during a rollout it is shared in proportion.
fn scale(input: &Input<'_>) -> Vec<Action> {
    let deployment = input.deployment;
    let active: Vec<&Arc<ReplicaSet>> = input.sets.iter().filter(|s| s.wanted() > 0).collect();
    let latest = match active.as_slice() {
        [] => input.new_set().or_else(|| input.sets.iter().max_by_key(|s| by_age(s))),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(set) = latest {
        return scale_to(deployment, set, deployment.wanted()).into_iter().collect();
    }
    if input.new_set().is_some_and(|new| is_saturated(deployment, new)) {
        let old = input.old_sets().into_iter().filter(|s| s.wanted() > 0);
        return old.filter_map(|s| scale_to(deployment, s, 0)).collect();
    }
    if strategy::is_rolling(deployment) { scale_in_proportion(deployment, active) } else { Vec::new() }
}

fn is_saturated(deployment: &Deployment, set: &ReplicaSet) -> bool {
    set.wanted() == deployment.wanted()
        && revision::number(set, revision::DESIRED_REPLICAS) == Some(deployment.wanted())
        && set.status.available_replicas == deployment.wanted()
}

fn scale_in_proportion(deployment: &Deployment, mut active: Vec<&Arc<ReplicaSet>>) -> Vec<Action> {
    let total: i32 = active.iter().map(|s| s.wanted()).sum();
    let allowed = if deployment.wanted() > 0 { deployment.wanted() + strategy::max_surge(deployment) } else { 0 };
    let to_add = allowed - total;
    // The larger first; among equals the newer when growing, the older when shrinking.
    active.sort_by(|a, b| {
        let age = by_age(a).cmp(&by_age(b));
        b.wanted().cmp(&a.wanted()).then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    let mut sizes: Vec<i32> = Vec::with_capacity(active.len());
    for set in &active {
        let share = if to_add == 0 { 0 } else { proportion(deployment, set, to_add, added) };
        added += share;
        sizes.push((set.wanted() + share).max(0));
    }
    // What rounding left over goes to the largest.
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    active.iter().zip(sizes).filter_map(|(set, size)| scale_to(deployment, set, size)).collect()
}

/// A set's share of a change, of its sign and within what is left (upstream's `GetReplicaSetProportion`).
fn proportion(deployment: &Deployment, set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if set.wanted() == 0 {
        return 0;
    }
    let fraction = if deployment.wanted() == 0 {
        -set.wanted()
    } else {
        let most = f64::from(deployment.wanted() + strategy::max_surge(deployment));
        let before = revision::number(set, revision::MAX_REPLICAS)
            .filter(|n| *n > 0)
            .unwrap_or(if deployment.status.replicas > 0 { deployment.status.replicas } else { deployment.wanted() });
        let size = f64::from(set.wanted()) * most / f64::from(before);
        #[allow(clippy::cast_possible_truncation, reason = "sizes are small and positive; rounding is meant")]
        let size = size.round() as i32;
        size - set.wanted()
    };
    let left = to_add - added;
    if to_add > 0 { fraction.min(left).max(0) } else { fraction.max(left).min(0) }
}

fn recreate(input: &Input<'_>, actions: &mut Vec<Action>) {
    let deployment = input.deployment;
    let active_old: Vec<_> = input.old_sets().into_iter().filter(|s| s.wanted() > 0).collect();
    if !active_old.is_empty() {
        set_revisions(input, false, actions);
        actions.extend(active_old.into_iter().filter_map(|s| scale_to(deployment, s, 0)));
        return;
    }
    if input.old_pods_running {
        return;
    }
    if set_revisions(input, true, actions) {
        actions.extend(input.new_set().and_then(|s| scale_to(deployment, s, deployment.wanted())));
    }
    clean_up(input, actions);
}

fn roll(input: &Input<'_>, actions: &mut Vec<Action>) {
    let deployment = input.deployment;
    if !set_revisions(input, true, actions) {
        return;
    }
    let Some(new) = input.new_set() else { return };
    let wanted = deployment.wanted();
    let up = match new.wanted().cmp(&wanted) {
        std::cmp::Ordering::Equal => None,
        std::cmp::Ordering::Greater => scale_to(deployment, new, wanted),
        std::cmp::Ordering::Less => {
            let replicas = strategy::new_set_replicas(deployment, &input.sets, new.wanted());
            scale_to(deployment, new, replicas).filter(|_| replicas != new.wanted())
        }
    };
    if let Some(up) = up {
        actions.push(up);
        return;
    }
    let down = scale_down_old(input, new);
    if down.is_empty() {
        if is_complete(input) {
            clean_up(input, actions);
        }
    } else {
        actions.extend(down);
    }
}

/// Every wanted pod is of the present template and available, and no other is left.
pub fn is_complete(input: &Input<'_>) -> bool {
    let wanted = input.deployment.wanted();
    let total: i32 = input.sets.iter().map(|s| s.status.replicas).sum();
    let new = input.new_set();
    new.is_some_and(|s| s.status.replicas == wanted && s.status.available_replicas == wanted) && total == wanted
}

/// Takes from old sets what may be missing: first what isn't healthy anyway, then as much as stays available.
fn scale_down_old(input: &Input<'_>, new: &ReplicaSet) -> Vec<Action> {
    let deployment = input.deployment;
    let mut old = input.old_sets();
    old.retain(|s| s.wanted() > 0);
    old.sort_by_key(|s| by_age(s));
    let total: i32 = input.sets.iter().map(|s| s.wanted()).sum();
    let least_available = deployment.wanted() - strategy::max_unavailable(deployment);
    let new_unavailable = new.wanted() - new.status.available_replicas;
    let mut spare = total - least_available - new_unavailable;
    if spare <= 0 || old.is_empty() {
        return Vec::new();
    }
    let mut sizes: Vec<i32> = old.iter().map(|s| s.wanted()).collect();
    for (set, size) in old.iter().zip(&mut sizes) {
        let unhealthy = (*size - set.status.available_replicas).max(0);
        let take = unhealthy.min(spare);
        *size -= take;
        spare -= take;
    }
    let available: i32 = input.sets.iter().map(|s| s.status.available_replicas).sum();
    let mut surplus = available - least_available;
    for size in &mut sizes {
        let take = (*size).min(surplus.max(0));
        *size -= take;
        surplus -= take;
    }
    old.iter()
        .zip(sizes)
        .filter(|(set, size)| set.wanted() != *size)
        .filter_map(|(set, size)| scale_to(deployment, set, size))
        .collect()
}

/// Deletes empty old sets beyond the history's limit, the oldest revisions first.
fn clean_up(input: &Input<'_>, actions: &mut Vec<Action>) {
    let Some(limit) = input.deployment.spec.revision_history_limit.and_then(|l| usize::try_from(l).ok()) else {
        return;
    };
    let mut old = input.old_sets();
    old.retain(|s| s.metadata.deletion_timestamp.is_none());
    let Some(excess) = old.len().checked_sub(limit).filter(|n| *n > 0) else { return };
    old.sort_by_key(|s| (revision::of(s), by_age(s)));
    for set in old.into_iter().take(excess) {
        let empty = set.status.replicas == 0 && set.wanted() == 0;
        if empty && set.metadata.generation.unwrap_or(0) <= set.status.observed_generation {
            actions.push(Action::Delete(set.clone()));
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
