//! NodeResourcesFit (with the least-allocated score) and NodeResourcesBalancedAllocation.

use crate::framework::{Change, MAX_SCORE, Plugin, PreFilter, Rejection};
use crate::objects::{NodeInfo, PodInfo};
use crate::resources::Resources;
use crate::snapshot::Snapshot;

pub(crate) struct Fit;

/// What a node lacks for a pod, in upstream's words; each on a line.
fn lacks(requests: &Resources, allocatable: &Resources, used: &Resources, pods: (usize, i64)) -> Vec<String> {
    let mut missing = Vec::new();
    if i64::try_from(pods.0).unwrap_or(i64::MAX) + 1 > pods.1 {
        missing.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, wanted: i64, capacity: i64, used: i64| {
        if wanted > 0 && wanted > capacity - used {
            missing.push(format!("Insufficient {name}"));
        }
    };
    check("cpu", requests.cpu_milli, allocatable.cpu_milli, used.cpu_milli);
    check("memory", requests.memory, allocatable.memory, used.memory);
    check("ephemeral-storage", requests.ephemeral_storage, allocatable.ephemeral_storage, used.ephemeral_storage);
    for (name, wanted) in &requests.others {
        let of = |r: &Resources| r.others.get(name).copied().unwrap_or(0);
        check(name, *wanted, of(allocatable), of(used));
    }
    missing
}

fn missing(pod: &PodInfo, node: &NodeInfo) -> Vec<String> {
    lacks(&pod.requests, &node.allocatable, &node.requested, (node.pods.len(), node.max_pods))
}

/// Whether the pod would fit the node if nothing else were on it.
fn fits_empty(pod: &PodInfo, node: &NodeInfo) -> bool {
    lacks(&pod.requests, &node.allocatable, &Resources::default(), (0, node.max_pods)).is_empty()
}

impl Plugin for Fit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }
    fn pre_filter(&self, _: &PodInfo) -> PreFilter {
        PreFilter::Continue
    }
    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let missing = missing(pod, node);
        if missing.is_empty() {
            return Ok(());
        }
        let rejection = Rejection::new(missing.join("\n"));
        Err(Rejection { resolvable: fits_empty(pod, node), ..rejection })
    }
    fn scores(&self, _: &PodInfo) -> bool {
        true
    }
    /// The share of CPU and memory that stays free, on average.
    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> i64 {
        let free = |capacity: i64, used: i64| {
            if capacity == 0 || used > capacity { 0 } else { (capacity - used) * MAX_SCORE / capacity }
        };
        let cpu = free(node.allocatable.cpu_milli, node.scored.0 + pod.scored.0);
        let memory = free(node.allocatable.memory, node.scored.1 + pod.scored.1);
        (cpu + memory) / 2
    }
    fn helps(&self, pod: &PodInfo, change: &Change<'_>) -> bool {
        match change {
            Change::NodeAdded(node) => fits_empty(pod, node),
            Change::NodeUpdated(old, new) => {
                missing(pod, new).is_empty() && (old.allocatable != new.allocatable || old.max_pods != new.max_pods)
            }
            // What it held must be something that this one wants; every pod wants a place among the node's pods.
            Change::PodRemoved(_) | Change::PodShrank | Change::PodUpdated => true,
        }
    }
}

pub(crate) struct BalancedAllocation;

impl Plugin for BalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
    /// A pod that asks for nothing changes no balance.
    fn scores(&self, pod: &PodInfo) -> bool {
        pod.requests.cpu_milli > 0 || pod.requests.memory > 0
    }
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a ratio between 0 and 1, scaled to 100"
    )]
    fn score(&self, pod: &PodInfo, node: &NodeInfo, _: &Snapshot) -> i64 {
        let fraction =
            |used: i64, capacity: i64| if capacity == 0 { 1.0 } else { (used as f64 / capacity as f64).min(1.0) };
        let cpu = fraction(node.requested.cpu_milli + pod.requests.cpu_milli, node.allocatable.cpu_milli);
        let memory = fraction(node.requested.memory + pod.requests.memory, node.allocatable.memory);
        // The standard deviation of two values.
        let deviation = ((cpu - memory) / 2.0).abs();
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}
