//! What a StatefulSet is to do next, one pod after another unless it says otherwise; and what its status says.

use super::identity::{ordinal, pod, revision};
use crate::deployment::strategy::resolve;
use crate::history::Revision;
use crate::objects::{Pod, StatefulSet, StatefulSetStatus};
use crate::pods;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

pub(super) type Status = StatefulSetStatus;

#[derive(Clone, Debug)]
pub(super) enum Action {
    Create(Value),
    Delete(Arc<Pod>),
}

fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_healthy(pod: &Pod) -> bool {
    pod.status.phase == "Running" && pods::is_ready(pod) && !is_leaving(pod)
}

fn is_available(set: &StatefulSet, pod: &Pod, now: Timestamp) -> bool {
    is_healthy(pod) && pods::is_available(pod, set.spec.min_ready_seconds, now)
}

/// How many pods a rolling update may have unavailable at a time, where that is said: a percentage is rounded down, and
/// one may always be.
fn max_unavailable(set: &StatefulSet) -> Option<usize> {
    let most = set.spec.update_strategy.rolling_update.as_ref()?.max_unavailable.as_ref()?;
    let most = resolve(Some(most), set.spec.replicas.unwrap_or(1), false);
    Some(usize::try_from(most).unwrap_or(0).max(1))
}

pub(super) fn wanted(set: &StatefulSet) -> std::ops::Range<i32> {
    let start = set.spec.ordinals.as_ref().map_or(0, |o| o.start);
    start..start.saturating_add(set.spec.replicas.unwrap_or(1).max(0))
}

/// The first ordinal that a rolling update does not leave as it was.
fn partition(set: &StatefulSet) -> i32 {
    set.spec.update_strategy.rolling_update.as_ref().and_then(|r| r.partition).unwrap_or(0)
}

/// Of which revision the pod of an ordinal is made.
fn made_of<'r>(set: &StatefulSet, ordinal: i32, current: &'r Revision, update: &'r Revision) -> &'r Revision {
    let rolling = set.spec.update_strategy.type_ != "OnDelete";
    // What a partition holds back comes back as it was.
    let held = rolling && ordinal < wanted(set).start.saturating_add(partition(set));
    if held { current } else { update }
}

pub(super) fn plan(
    set: &StatefulSet,
    owned: &[Arc<Pod>],
    current: &Revision,
    update: &Revision,
    now: Timestamp,
) -> Vec<Action> {
    let ordered = set.spec.pod_management_policy != "Parallel";
    let name = set.metadata.name.as_deref().unwrap_or("");
    let find = |n: i32| owned.iter().find(|p| ordinal(name, p) == Some(n));
    let range = wanted(set);
    let mut actions = Vec::new();
    for n in range.clone() {
        match find(n) {
            None => {
                actions.push(Action::Create(pod(set, n, made_of(set, n, current, update))));
                if ordered {
                    return actions;
                }
            }
            // One that is over is replaced, once it is gone.
            Some(pod) if pods::is_finished(pod) => {
                if !is_leaving(pod) {
                    actions.push(Action::Delete(pod.clone()));
                }
                if ordered {
                    return actions;
                }
            }
            Some(pod) if ordered && !is_available(set, pod, now) => return actions,
            Some(_) => {}
        }
    }
    let mut condemned: Vec<&Arc<Pod>> =
        owned.iter().filter(|p| ordinal(name, p).is_some_and(|n| !range.contains(&n))).collect();
    condemned.sort_by_key(|p| std::cmp::Reverse(ordinal(name, p)));
    for pod in condemned {
        if is_leaving(pod) {
            if ordered {
                return actions;
            }
            continue;
        }
        actions.push(Action::Delete(pod.clone()));
        if ordered {
            return actions;
        }
    }
    if set.spec.update_strategy.type_ == "OnDelete" || !actions.is_empty() {
        return actions;
    }
    let first = range.start.saturating_add(partition(set));
    if let Some(most) = max_unavailable(set) {
        // As many as may be unavailable beside those that are, whatever the reason; the last first.
        let unavailable = range.clone().filter(|n| find(*n).is_none_or(|pod| !is_available(set, pod, now))).count();
        let old = range.rev().take_while(|n| *n >= first).filter_map(find);
        let old = old.filter(|pod| revision(pod) != Some(&update.name) && !is_leaving(pod));
        actions.extend(old.take(most.saturating_sub(unavailable)).cloned().map(Action::Delete));
        return actions;
    }
    // From the last to the first, one unhealthy pod at a time.
    for n in range.rev().take_while(|n| *n >= first) {
        let Some(pod) = find(n) else { return actions };
        if revision(pod) != Some(&update.name) && !is_leaving(pod) {
            actions.push(Action::Delete(pod.clone()));
            return actions;
        }
        if !is_available(set, pod, now) {
            return actions;
        }
    }
    actions
}

pub(super) fn status(
    set: &StatefulSet,
    owned: &[Arc<Pod>],
    current: &Revision,
    update: &Revision,
    now: Timestamp,
) -> Status {
    let count =
        |test: &dyn Fn(&Pod) -> bool| i32::try_from(owned.iter().filter(|p| test(p)).count()).unwrap_or(i32::MAX);
    let of = |name: &str| {
        let name = name.to_owned();
        move |p: &Pod| revision(p) == Some(&name) && !is_leaving(p)
    };
    let mut status = Status {
        observed_generation: set.metadata.generation.unwrap_or(0),
        replicas: count(&|_| true),
        ready_replicas: count(&is_healthy),
        available_replicas: count(&|p| is_available(set, p, now)),
        current_replicas: count(&of(&current.name)),
        updated_replicas: count(&of(&update.name)),
        current_revision: current.name.clone(),
        update_revision: update.name.clone(),
        collision_count: set.status.collision_count,
    };
    // A rollout is over when every pod is of the new revision and well.
    let over = set.spec.update_strategy.type_ != "OnDelete"
        && status.updated_replicas == status.replicas
        && status.ready_replicas == status.replicas;
    if over {
        status.current_revision.clone_from(&update.name);
        status.current_replicas = status.updated_replicas;
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(spec: &Value) -> StatefulSet {
        let mut all = json!({"replicas": 3, "serviceName": "svc", "selector": {"matchLabels": {"a": "b"}}});
        for (key, value) in spec.as_object().expect("an object") {
            all[key] = value.clone();
        }
        serde_json::from_value(json!({"metadata": {"name": "web", "uid": "u"}, "spec": all})).expect("a set")
    }

    fn of(name: &str) -> Revision {
        Revision {
            name: name.into(),
            hash: name.into(),
            template: json!({"metadata": {"labels": {"a": "b"}}, "spec": {}}),
        }
    }

    fn member(n: i32, revision: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": format!("web-{n}"), "labels": {"controller-revision-hash": revision}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn shown(set: &StatefulSet, owned: &[Arc<Pod>], current: &str) -> Vec<String> {
        plan(set, owned, &of(current), &of("new"), Timestamp::UNIX_EPOCH)
            .into_iter()
            .map(|action| match action {
                Action::Create(body) => format!(
                    "+{} {}",
                    body["metadata"]["name"].as_str().unwrap_or(""),
                    body["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap_or("")
                ),
                Action::Delete(pod) => format!("-{}", pod.metadata.name.as_deref().unwrap_or("")),
            })
            .collect()
    }

    #[test]
    fn pods_come_and_go_in_order() {
        let ordered = set(&json!({}));
        assert_eq!(shown(&ordered, &[], "new"), ["+web-0 new"]);
        assert!(shown(&ordered, &[member(0, "new", false)], "new").is_empty(), "the first is waited for");
        assert_eq!(shown(&ordered, &[member(0, "new", true)], "new"), ["+web-1 new"]);
        let parallel = set(&json!({"podManagementPolicy": "Parallel"}));
        assert_eq!(shown(&parallel, &[], "new").len(), 3);
        let fewer = set(&json!({"replicas": 1}));
        let all: Vec<_> = (0..3).map(|n| member(n, "new", true)).collect();
        assert_eq!(shown(&fewer, &all, "new"), ["-web-2"]);
        let shifted = set(&json!({"replicas": 1, "ordinals": {"start": 5}}));
        assert_eq!(shown(&shifted, &[], "new"), ["+web-5 new"]);
    }

    #[test]
    fn a_rollout_goes_from_the_last_to_the_partition() {
        let old: Vec<_> = (0..3).map(|n| member(n, "old", true)).collect();
        assert_eq!(shown(&set(&json!({})), &old, "old"), ["-web-2"]);
        let mixed = [member(0, "old", true), member(1, "old", true), member(2, "new", false)];
        assert!(shown(&set(&json!({})), &mixed, "old").is_empty(), "the new one is waited for");
        let held = set(&json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}}));
        assert_eq!(shown(&held, &old, "old"), ["-web-2"]);
        let done = [member(0, "old", true), member(1, "old", true), member(2, "new", true)];
        assert!(shown(&held, &done, "old").is_empty());
        assert_eq!(shown(&held, &done[1..], "old"), ["+web-0 old"], "held back, so as it was");
        assert!(shown(&set(&json!({"updateStrategy": {"type": "OnDelete"}})), &old, "old").is_empty());
    }

    #[test]
    fn as_many_go_at_once_as_may_be_unavailable() {
        let rolling = |most: Value| {
            let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1, "maxUnavailable": most}});
            set(&json!({"replicas": 5, "podManagementPolicy": "Parallel", "updateStrategy": strategy}))
        };
        let old: Vec<_> = (0..5).map(|n| member(n, "old", true)).collect();
        assert_eq!(shown(&rolling(json!(2)), &old, "old"), ["-web-4", "-web-3"]);
        assert_eq!(shown(&rolling(json!("50%")), &old, "old"), ["-web-4", "-web-3"], "rounded down");
        assert_eq!(shown(&rolling(json!("1%")), &old, "old"), ["-web-4"], "one may always go");
        assert_eq!(shown(&rolling(json!(9)), &old, "old").len(), 4, "the partition is held back");
        let mut begun = old.clone();
        begun[4] = member(4, "new", false);
        assert_eq!(shown(&rolling(json!(2)), &begun, "old"), ["-web-3"], "what is unavailable counts");
        begun[0] = member(0, "old", false);
        assert!(shown(&rolling(json!(2)), &begun, "old").is_empty(), "whatever the reason");
    }

    #[test]
    fn the_current_revision_follows_when_all_are_new() {
        let all: Vec<_> = (0..3).map(|n| member(n, "new", true)).collect();
        let over = status(&set(&json!({})), &all, &of("old"), &of("new"), Timestamp::UNIX_EPOCH);
        assert_eq!((over.current_revision.as_str(), over.current_replicas, over.ready_replicas), ("new", 3, 3));
        let mixed = [member(0, "old", true), member(1, "new", true)];
        let halfway = status(&set(&json!({})), &mixed, &of("old"), &of("new"), Timestamp::UNIX_EPOCH);
        assert_eq!(
            (halfway.current_revision.as_str(), halfway.current_replicas, halfway.updated_replicas),
            ("old", 1, 1)
        );
    }

    #[test]
    fn a_pod_has_its_own_claims() {
        let set = set(&json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"x": 1}}]}));
        let pod = pod(&set, 1, &of("new"));
        assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-web-1");
        assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("web-1"), &json!("svc")));
        let claims = super::super::identity::claims(&set, "web-1");
        assert_eq!(
            claims[0]["metadata"],
            json!({"name": "data-web-1", "labels": {"a": "b"}, "annotations": null, "ownerReferences": []})
        );
    }
}
