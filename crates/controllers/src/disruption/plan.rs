//! What a disruption budget's status is to say, from the pods it selects.

use crate::objects::Pod;
use crate::pods;
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long an eviction may take to show as a deletion; afterwards its pod counts again.
const DELETION: i64 = 120;
const CONDITION: &str = "DisruptionAllowed";

pub(super) type Status = PodDisruptionBudgetStatus;

pub(super) struct Plan {
    pub(super) status: Status,
    /// Pods that were evicted and are still there.
    pub(super) overdue: Vec<Arc<Pod>>,
    /// When an eviction that has not shown yet is given up.
    pub(super) look_again: Option<Duration>,
}

/// Whether a budget selects a pod; an empty selector selects every one, an absent one none.
pub(super) fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| pods::matches(&pods::selector(selector), &pod.metadata))
}

/// Whether it depends on how many pods their controllers want.
pub(super) fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// A number, or a percentage of a total, rounded up.
fn scaled(value: &IntOrString, total: i32) -> Result<i32, String> {
    match value {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(text) => {
            let percent: Option<i64> = text.strip_suffix('%').and_then(|n| n.parse().ok());
            let percent = percent.ok_or_else(|| {
                format!("invalid value for IntOrString: invalid type: string is not a percentage: {text:?}")
            })?;
            let share = (percent * i64::from(total) + 99).div_euclid(100);
            Ok(i32::try_from(share).unwrap_or(i32::MAX))
        }
    }
}

/// How many pods must be well.
fn desired(budget: &PodDisruptionBudget, expected: i32) -> Result<i32, String> {
    let Some(spec) = &budget.spec else { return Ok(0) };
    if let Some(most) = &spec.max_unavailable {
        return Ok(expected.saturating_sub(scaled(most, expected)?).max(0));
    }
    spec.min_available.as_ref().map_or(Ok(0), |least| scaled(least, expected))
}

/// The status for the pods that are selected, of which so many are expected.
pub(super) fn plan(
    budget: &PodDisruptionBudget,
    matching: &[Arc<Pod>],
    expected: i32,
    now: Timestamp,
) -> Result<Plan, String> {
    let desired = desired(budget, expected)?;
    let evicted = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    let (mut disrupted, mut overdue, mut look_again) = (BTreeMap::new(), Vec::new(), None::<Duration>);
    for pod in matching.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let Some(at) = evicted.and_then(|map| map.get(&name)) else { continue };
        let left = at.0.as_second() + DELETION - now.as_second();
        if left < 0 {
            overdue.push(pod.clone());
            continue;
        }
        let wait = Duration::from_secs(u64::try_from(left).unwrap_or(0) + 1);
        look_again = Some(look_again.map_or(wait, |known| known.min(wait)));
        disrupted.insert(name, at.clone());
    }
    let healthy = matching.iter().filter(|pod| {
        let evicted = pod.metadata.name.as_ref().is_some_and(|name| disrupted.contains_key(name));
        pod.metadata.deletion_timestamp.is_none() && !evicted && pods::is_ready(pod)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let mut status = Status {
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        expected_pods: Some(expected),
        disruptions_allowed: Some(allowed),
        disrupted_pods: (!disrupted.is_empty()).then_some(disrupted),
        observed_generation: budget.metadata.generation,
        conditions: budget.status.as_ref().and_then(|s| s.conditions.clone()),
    };
    let (said, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set_condition(&mut status, said, reason, "", now);
    Ok(Plan { status, overdue, look_again })
}

/// The status when it cannot be told how many pods there should be.
pub(super) fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> Status {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    set_condition(&mut status, "False", "SyncFailed", why, now);
    status
}

fn set_condition(status: &mut Status, said: &str, reason: &str, message: &str, now: Timestamp) {
    let generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_with(Vec::new);
    let known = conditions.iter().find(|c| c.type_ == CONDITION && c.status == said);
    let since = known.map_or(Time(now), |c| c.last_transition_time.clone());
    let next = Condition {
        type_: CONDITION.to_owned(),
        status: said.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: since,
        observed_generation: generation.filter(|g| *g != 0),
    };
    match conditions.iter_mut().find(|c| c.type_ == CONDITION) {
        Some(known) => *known = next,
        None => conditions.push(next),
    }
}

/// Whether a budget's status says so already.
pub(super) fn says(budget: &PodDisruptionBudget, status: &Status) -> bool {
    budget.status.as_ref() == Some(status)
}

/// The merge that makes the budget's status of the one given.
pub(super) fn merge(budget: &PodDisruptionBudget, status: &Status) -> Value {
    let before = budget.status.as_ref().and_then(|s| s.disrupted_pods.as_ref());
    let mut disrupted: Map<String, Value> =
        before.into_iter().flatten().map(|(name, _)| (name.clone(), Value::Null)).collect();
    for (name, at) in status.disrupted_pods.iter().flatten() {
        disrupted.insert(name.clone(), json!(at));
    }
    json!({
        "currentHealthy": status.current_healthy,
        "desiredHealthy": status.desired_healthy,
        "expectedPods": status.expected_pods,
        "disruptionsAllowed": status.disruptions_allowed,
        "observedGeneration": status.observed_generation,
        "conditions": status.conditions,
        "disruptedPods": disrupted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        serde_json::from_value(json!({"metadata": {"name": "b", "generation": 2}, "spec": spec, "status": status}))
            .expect("a budget")
    }

    fn pod(name: &str, ready: bool) -> Arc<Pod> {
        let ready = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": name, "labels": {"a": "b"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}});
        Arc::new(serde_json::from_value(pod).expect("a pod"))
    }

    fn empty() -> Value {
        json!({"currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0, "disruptionsAllowed": 0})
    }

    fn allowed(spec: Value, ready: usize, expected: i32) -> (i32, i32) {
        let pods: Vec<_> = (0..4).map(|i| pod(&format!("p{i}"), i < ready)).collect();
        let plan = plan(&budget(spec, empty()), &pods, expected, Timestamp::UNIX_EPOCH).expect("a plan");
        (plan.status.desired_healthy.unwrap_or(-1), plan.status.disruptions_allowed.unwrap_or(-1))
    }

    #[test]
    fn numbers_and_percentages_say_how_many_may_go() {
        assert_eq!(allowed(json!({"minAvailable": 3}), 4, 4), (3, 1));
        assert_eq!(allowed(json!({"minAvailable": "50%"}), 3, 5), (3, 0), "half of five is three");
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 4, 4), (3, 1));
        assert_eq!(allowed(json!({"maxUnavailable": "30%"}), 4, 4), (2, 2), "rounded up, for the eviction");
        assert_eq!(allowed(json!({"maxUnavailable": 1}), 2, 4), (3, 0));
        assert_eq!(allowed(json!({"maxUnavailable": 9}), 0, 0), (0, 0), "nothing is expected, nothing may go");
        assert!(scaled(&IntOrString::String("x".into()), 1).is_err());
    }

    #[test]
    fn an_evicted_pod_counts_as_gone_until_it_is_overdue() {
        let status = json!({"currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2, "disruptionsAllowed": 0,
            "disruptedPods": {"p0": "1970-01-01T00:00:00Z", "gone": "1970-01-01T00:00:00Z"}});
        let budget = budget(json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}), status);
        let pods = [pod("p0", true), pod("p1", true)];
        assert!(pods.iter().all(|pod| selects(&budget, pod)));
        let soon = plan(&budget, &pods, 2, Timestamp::from_second(60).expect("a time")).expect("a plan");
        assert_eq!((soon.status.current_healthy, soon.status.disruptions_allowed), (Some(1), Some(0)));
        assert_eq!(soon.look_again, Some(Duration::from_secs(61)));
        assert_eq!(merge(&budget, &soon.status)["disruptedPods"]["gone"], Value::Null);
        let late = plan(&budget, &pods, 2, Timestamp::from_second(121).expect("a time")).expect("a plan");
        assert_eq!((late.status.disruptions_allowed, late.overdue.len()), (Some(1), 1));
        let condition = &late.status.conditions.as_ref().expect("conditions")[0];
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("True", "SufficientPods"));
        assert_eq!(condition.observed_generation, Some(2));
    }
}
