//! Changing the resources of containers that run: what is asked for is allocated if the node has
//! it, and what is allocated is then given, without a restart where the container permits.

use std::{collections::BTreeMap, sync::Arc};

use api::quantity::Quantity;
use cri::v1;
use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodStatus, ResourceRequirements};

use super::{
    conditions::{RESIZE_IN_PROGRESS, RESIZE_PENDING},
    observed::Observed,
};
use crate::{
    container::config::{Machine, limits},
    resources::{self, CPU, MEMORY, TextList},
    spec::{PodExt, is_sidecar},
};

/// What each container of a pod was allocated, by name.
pub(crate) type Allocation = BTreeMap<String, ResourceRequirements>;

/// The containers that can be resized.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.containers().iter().chain(pod.init_containers().iter().filter(|c| is_sidecar(c)))
}

/// What the specification asks for.
pub(crate) fn asked(pod: &Pod) -> Allocation {
    resizable(pod).map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect()
}

/// Whether two allocations are the same, however their quantities are written.
pub(crate) fn same(one: &Allocation, other: &Allocation) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((name, own), (other, others))| name == other && resources::same(own, others))
}

/// What was allocated before the kubelet started, as the status tells it; what the status doesn't
/// tell was allocated as asked.
pub(crate) fn remembered(pod: &Pod, status: &PodStatus) -> Allocation {
    let mut allocation = asked(pod);
    let statuses = status.container_statuses.iter().flatten();
    for told in statuses.chain(status.init_container_statuses.iter().flatten()) {
        let Some(own) = allocation.get_mut(&told.name) else { continue };
        if let Some(requests) = &told.allocated_resources {
            own.requests = Some(requests.clone());
        }
        if let Some(limits) = told.resources.as_ref().and_then(|resources| resources.limits.as_ref()) {
            own.limits = Some(limits.clone());
        }
    }
    allocation
}

/// The pod with what it was allocated in place of what it asks for.
pub(crate) fn allocated(pod: &Arc<Pod>, allocation: &Allocation) -> Arc<Pod> {
    if same(&asked(pod), allocation) {
        return pod.clone();
    }
    let mut pod = Pod::clone(pod);
    if let Some(spec) = &mut pod.spec {
        let inits = spec.init_containers.iter_mut().flatten().filter(|c| is_sidecar(c));
        for container in spec.containers.iter_mut().chain(inits) {
            if let Some(own) = allocation.get(&container.name)
                && !resources::same(container.resources.as_ref().unwrap_or(&ResourceRequirements::default()), own)
            {
                container.resources = Some(own.clone());
            }
        }
    }
    pod.into()
}

/// What becomes of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The node has it.
    Accepted,
    /// It may have it when other pods are gone.
    Deferred(String),
    /// It never has it.
    Infeasible(String),
}

/// Decides whether the node can give a pod what it asks for, beside the others.
pub(crate) fn admit(pod: &Pod, allocatable: &TextList, others: &[&Pod]) -> Verdict {
    if pod.is_static() {
        return Verdict::Infeasible("In-place resize of static-pods is not supported".to_owned());
    }
    let wanted = resources::pod_requests(pod);
    for name in [CPU, MEMORY] {
        let asked = wanted.get(name).copied().unwrap_or(Quantity::ZERO);
        let number = |quantity: &Quantity| {
            if name == CPU { quantity.milli_value() } else { quantity.value() }
        };
        let capacity = resources::get(Some(allocatable), name);
        if asked > capacity {
            return Verdict::Infeasible(format!(
                "Node didn't have enough capacity: {name}, requested: {}, capacity: {}",
                number(&asked),
                number(&capacity)
            ));
        }
        let mut used = Quantity::ZERO;
        for other in others {
            if let Some(quantity) = resources::pod_requests(other).get(name) {
                used = used.add(quantity);
            }
        }
        if asked.add(&used) > capacity {
            return Verdict::Deferred(format!(
                "Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                number(&asked),
                number(&used),
                number(&capacity)
            ));
        }
    }
    Verdict::Accepted
}

/// A container whose limits differ from what it was allocated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) limits: v1::LinuxContainerResources,
    /// It must be started anew to get them.
    pub(crate) restart: bool,
}

/// The running containers that don't have what they were allocated, as far as the runtime tells
/// what they have.
pub(crate) fn changes(pod: &Pod, observed: &Observed, machine: &Machine) -> Vec<Change> {
    let mut changes = Vec::new();
    for spec in resizable(pod) {
        let Some(container) = observed.container(&spec.name).filter(|c| c.is_running()) else {
            continue;
        };
        let Some(actual) = &container.resources else { continue };
        let wanted = limits(pod, spec, machine);
        // A runtime that doesn't know a limit tells none.
        let quota = |r: &v1::LinuxContainerResources| r.cpu_quota.max(0);
        let cpu = (actual.cpu_shares != 0 && actual.cpu_shares != wanted.cpu_shares) || quota(actual) != quota(&wanted);
        let memory = actual.memory_limit_in_bytes.max(0) != wanted.memory_limit_in_bytes;
        if !cpu && !memory {
            continue;
        }
        let restarts = |name: &str| {
            spec.resize_policy
                .iter()
                .flatten()
                .any(|policy| policy.resource_name == name && policy.restart_policy == "RestartContainer")
        };
        changes.push(Change {
            id: container.id.clone(),
            name: spec.name.clone(),
            limits: wanted,
            restart: (cpu && restarts(CPU)) || (memory && restarts(MEMORY)),
        });
    }
    changes
}

/// The conditions that tell of a resize.
pub(crate) fn conditions(generation: Option<i64>, pending: Option<&Verdict>, in_progress: bool) -> Vec<PodCondition> {
    let mut conditions = Vec::new();
    let pending = match pending {
        Some(Verdict::Deferred(message)) => Some(("Deferred", message)),
        Some(Verdict::Infeasible(message)) => Some(("Infeasible", message)),
        _ => None,
    };
    if let Some((reason, message)) = pending {
        conditions.push(PodCondition {
            type_: RESIZE_PENDING.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.clone()),
            observed_generation: generation,
            ..PodCondition::default()
        });
    }
    if in_progress {
        conditions.push(PodCondition {
            type_: RESIZE_IN_PROGRESS.to_owned(),
            status: "True".to_owned(),
            observed_generation: generation,
            ..PodCondition::default()
        });
    }
    conditions
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::observed::State, super::observed::testing::container, *};

    fn pod(resources: Value, policy: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "c", "resources": resources, "resizePolicy": policy}]},
        }))
        .unwrap()
    }

    fn asks(cpu: &str, memory: &str) -> Value {
        json!({"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}})
    }

    #[test]
    fn wishes_are_accepted_deferred_or_refused() {
        let text = |text: &str| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.into());
        let node = TextList::from([("cpu".into(), text("2")), ("memory".into(), text("4Gi"))]);
        let other = pod(asks("1", "1Gi"), json!([]));
        let of = |cpu: &str| admit(&pod(asks(cpu, "1Gi"), json!([])), &node, &[&other]);
        assert_eq!(of("1"), Verdict::Accepted);
        assert_eq!(
            of("1500m"),
            Verdict::Deferred(
                "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000".into()
            )
        );
        assert_eq!(
            of("3"),
            Verdict::Infeasible("Node didn't have enough capacity: cpu, requested: 3000, capacity: 2000".into())
        );
    }

    #[test]
    fn containers_get_what_they_were_allocated() {
        let before = pod(asks("1", "1Gi"), json!([]));
        let machine = Machine { memory: 8 << 30, ..Machine::default() };
        let mut running = container("c", 0, State::Running);
        running.resources = Some(limits(&before, &before.containers()[0], &machine));
        let mut observed = Observed::default();
        observed.merge_container(running);
        assert!(changes(&before, &observed, &machine).is_empty());
        let after = pod(asks("2", "1Gi"), json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]));
        let found = changes(&after, &observed, &machine);
        assert_eq!((found.len(), found[0].limits.cpu_quota, found[0].restart), (1, 200_000, false));
        let after = pod(asks("1", "2Gi"), json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]));
        assert!(changes(&after, &observed, &machine)[0].restart);
    }

    #[test]
    fn what_was_allocated_is_remembered_by_the_status() {
        let pod = pod(asks("2", "2Gi"), json!([]));
        let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResources": {"cpu": "1", "memory": "1Gi"}, "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        }]}))
        .unwrap();
        let allocation = remembered(&pod, &status);
        assert_ne!(allocation, asked(&pod));
        let pod = Arc::new(pod);
        let effective = allocated(&pod, &allocation);
        assert_eq!(resources::pod_requests(&effective)[CPU].milli_value(), 1000);
        assert_eq!(allocated(&pod, &asked(&pod)), pod);
    }

    #[test]
    fn what_is_only_written_otherwise_is_allocated() {
        let (one, other) = (pod(asks("1.234", "1Gi"), json!([])), pod(asks("1234m", "1024Mi"), json!([])));
        assert!(same(&asked(&one), &asked(&other)) && asked(&one) != asked(&other));
        let other = Arc::new(other);
        assert_eq!(allocated(&other, &asked(&one)), other);
        for different in [pod(asks("1235m", "1Gi"), json!([])), pod(json!({"limits": {"cpu": "1234m"}}), json!([]))] {
            assert!(!same(&asked(&one), &asked(&different)), "{different:?}");
        }
    }
}
