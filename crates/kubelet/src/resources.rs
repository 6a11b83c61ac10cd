//! Requests and limits: sums over a pod, quality of service, and what they mean to the kernel.

use std::collections::BTreeMap;

use api::quantity::{Format, Quantity};
use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use crate::spec::{PodExt, is_sidecar};

/// A list of resources as the API writes it.
pub(crate) type TextList = BTreeMap<String, Text>;
/// A list of resources that can be computed with.
pub(crate) type List = BTreeMap<String, Quantity>;

pub(crate) const CPU: &str = "cpu";
pub(crate) const MEMORY: &str = "memory";
pub(crate) const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
pub(crate) const PODS: &str = "pods";
pub(crate) const HUGE_PAGES: &str = "hugepages-";

/// The least `cpu.shares` the kernel takes.
pub(crate) const MIN_SHARES: u64 = 2;
/// The most `cpu.shares` the kernel takes.
const MAX_SHARES: u64 = 262_144;
/// The CFS period that the kubelet sets, in microseconds.
pub(crate) const QUOTA_PERIOD: i64 = 100_000;
/// The least CFS quota the kernel takes, in microseconds.
const MIN_QUOTA: i64 = 1_000;

/// The quality of service class of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Qos {
    /// Every container has limits for CPU and memory, and requests equal to them.
    Guaranteed,
    /// Some container asks for CPU or memory.
    Burstable,
    /// No container asks for CPU or memory.
    BestEffort,
}

impl Qos {
    /// The name of the class in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Qos::Guaranteed => "Guaranteed",
            Qos::Burstable => "Burstable",
            Qos::BestEffort => "BestEffort",
        }
    }
}

/// The named quantity, or zero where it is missing or no quantity (which the API server refuses).
pub(crate) fn get(list: Option<&TextList>, name: &str) -> Quantity {
    list.and_then(|list| list.get(name)).map_or(Quantity::ZERO, parse)
}

pub(crate) fn parse(text: &Text) -> Quantity {
    Quantity::parse(&text.0).unwrap_or(Quantity::ZERO)
}

pub(crate) fn requests(resources: Option<&ResourceRequirements>) -> Option<&TextList> {
    resources.and_then(|resources| resources.requests.as_ref())
}

pub(crate) fn limits(resources: Option<&ResourceRequirements>) -> Option<&TextList> {
    resources.and_then(|resources| resources.limits.as_ref())
}

/// Whether two containers ask for the same, however its quantities are written.
pub(crate) fn same(one: &ResourceRequirements, other: &ResourceRequirements) -> bool {
    let alike = |one: Option<&TextList>, other: Option<&TextList>| {
        let count = |list: Option<&TextList>| list.map_or(0, TextList::len);
        let mut pairs = one.into_iter().flatten().zip(other.into_iter().flatten());
        count(one) == count(other)
            && pairs.all(|((name, text), (other, like))| {
                name == other && (text == like || Quantity::same_value(&text.0, &like.0))
            })
    };
    one.claims == other.claims
        && alike(one.requests.as_ref(), other.requests.as_ref())
        && alike(one.limits.as_ref(), other.limits.as_ref())
}

/// A quantity of bytes as the API writes it, e.g. `16384Ki`.
pub(crate) fn binary(bytes: u64) -> Text {
    let units = i64::try_from(bytes).unwrap_or(i64::MAX);
    Text(Quantity::from_units(units, Format::BinarySi).to_string())
}

/// A plain count as the API writes it.
pub(crate) fn count(count: u64) -> Text {
    Text(count.to_string())
}

/// Thousandths of a CPU as the API writes them.
pub(crate) fn milli(milli: i64) -> Text {
    Text(Quantity::from_milli(milli).to_string())
}

fn add(into: &mut List, list: Option<&TextList>) {
    for (name, quantity) in list.into_iter().flatten() {
        let sum = into.get(name).copied().unwrap_or(Quantity::ZERO).add(&parse(quantity));
        into.insert(name.clone(), sum);
    }
}

fn max(into: &mut List, other: &List) {
    for (name, quantity) in other {
        match into.get(name) {
            Some(have) if have >= quantity => {}
            _ => {
                into.insert(name.clone(), *quantity);
            }
        }
    }
}

/// Sums over a pod's containers: regular ones and sidecars together, or what the greediest init
/// container needs beside the sidecars started before it, whichever is more.
fn aggregate(pod: &Pod, of: impl Fn(&Container) -> Option<&TextList>) -> List {
    let mut total = List::new();
    for container in pod.containers() {
        add(&mut total, of(container));
    }
    let mut sidecars = List::new();
    let mut init = List::new();
    for container in pod.init_containers() {
        let mut here = sidecars.clone();
        add(&mut here, of(container));
        if is_sidecar(container) {
            add(&mut total, of(container));
            sidecars = here.clone();
        }
        max(&mut init, &here);
    }
    max(&mut total, &init);
    total
}

/// True for resources that can be given to a pod as a whole.
fn is_pod_level(name: &str) -> bool {
    name == CPU || name == MEMORY || name.starts_with(HUGE_PAGES)
}

/// What a pod asks for, with its overhead.
pub(crate) fn pod_requests(pod: &Pod) -> List {
    let mut total = aggregate(pod, |c| requests(c.resources.as_ref()));
    let own = pod.spec().resources.as_ref();
    for (name, quantity) in requests(own).into_iter().flatten() {
        if is_pod_level(name) {
            total.insert(name.clone(), parse(quantity));
        }
    }
    add(&mut total, pod.spec().overhead.as_ref());
    total
}

/// What a pod may use at most, with its overhead where there is a limit.
pub(crate) fn pod_limits(pod: &Pod) -> List {
    let mut total = aggregate(pod, |c| limits(c.resources.as_ref()));
    for (name, quantity) in limits(pod.spec().resources.as_ref()).into_iter().flatten() {
        if is_pod_level(name) {
            total.insert(name.clone(), parse(quantity));
        }
    }
    for (name, quantity) in pod.spec().overhead.iter().flatten() {
        if let Some(have) = total.get_mut(name)
            && !have.is_zero()
        {
            *have = have.add(&parse(quantity));
        }
    }
    total
}

/// The class of a pod: as its status says, or computed.
pub(crate) fn qos(pod: &Pod) -> Qos {
    match pod.status.as_ref().and_then(|status| status.qos_class.as_deref()) {
        Some("Guaranteed") => Qos::Guaranteed,
        Some("Burstable") => Qos::Burstable,
        Some("BestEffort") => Qos::BestEffort,
        _ => compute_qos(pod),
    }
}

fn compute_qos(pod: &Pod) -> Qos {
    let mut asked = List::new();
    let mut limited = List::new();
    let mut all_limited = true;
    let own = pod.spec().resources.as_ref();
    let pod_level = own.is_some_and(|r| r.requests.is_some() || r.limits.is_some());
    let of_containers = pod.containers().iter().chain(pod.init_containers());
    let sources: Vec<Option<&ResourceRequirements>> =
        if pod_level { vec![own] } else { of_containers.map(|c| c.resources.as_ref()).collect() };
    for resources in sources {
        let mut found = 0;
        for name in [CPU, MEMORY] {
            let request = get(requests(resources), name);
            if !request.is_zero() {
                let sum = asked.get(name).copied().unwrap_or(Quantity::ZERO).add(&request);
                asked.insert(name.to_owned(), sum);
            }
            let limit = get(limits(resources), name);
            if !limit.is_zero() {
                found += 1;
                let sum = limited.get(name).copied().unwrap_or(Quantity::ZERO).add(&limit);
                limited.insert(name.to_owned(), sum);
            }
        }
        all_limited &= found == 2;
    }
    if asked.is_empty() && limited.is_empty() {
        Qos::BestEffort
    } else if all_limited && asked == limited {
        Qos::Guaranteed
    } else {
        Qos::Burstable
    }
}

/// `cpu.shares` for thousandths of a CPU.
pub(crate) fn cpu_shares(milli: i64) -> u64 {
    (milli.max(0).unsigned_abs() * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// The CFS quota for thousandths of a CPU; 0 (no quota) for none.
pub(crate) fn cpu_quota(milli: i64) -> i64 {
    if milli == 0 { 0 } else { (milli * QUOTA_PERIOD / 1000).max(MIN_QUOTA) }
}

/// Which of its processes the kernel kills first when memory runs out: from -997 (the last) to
/// 1000 (the first).
pub(crate) fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: u64) -> i64 {
    const GUARANTEED: i64 = -997;
    if pod.spec().priority.unwrap_or_default() >= 2_000_000_000 {
        return GUARANTEED;
    }
    match qos(pod) {
        Qos::Guaranteed => return GUARANTEED,
        Qos::BestEffort => return 1000,
        Qos::Burstable => {}
    }
    let of = |container: &Container| {
        let mut request = get(requests(container.resources.as_ref()), MEMORY).value();
        let pod_request = get(requests(pod.spec().resources.as_ref()), MEMORY).value();
        if pod_request > 0 {
            // What the pod has beyond its containers' requests is shared out among them.
            let sum = aggregate(pod, |c| requests(c.resources.as_ref())).get(MEMORY).map_or(0, Quantity::value);
            let members = pod.containers().len() + pod.init_containers().iter().filter(|c| is_sidecar(c)).count();
            request += (pod_request - sum).max(0) / i64::try_from(members.max(1)).unwrap_or(1);
        }
        let capacity = i64::try_from(memory_capacity.max(1)).unwrap_or(i64::MAX);
        let score = 1000 - i64::try_from(1000 * i128::from(request) / i128::from(capacity)).unwrap_or(0);
        if score < 1000 + GUARANTEED {
            1000 + GUARANTEED
        } else if score == 1000 {
            999
        } else {
            score
        }
    };
    let own = of(container);
    let sidecar = pod.init_containers().iter().any(|init| init.name == container.name && is_sidecar(init));
    if sidecar {
        // A sidecar is never killed before the containers it serves.
        let least = pod.containers().iter().map(of).min().unwrap_or(own);
        return own.min(least);
    }
    own
}

/// What a pod's cgroup is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodLimits {
    pub(crate) cpu_shares: Option<u64>,
    /// Microseconds each [`QUOTA_PERIOD`]; none: not limited.
    pub(crate) cpu_quota: Option<i64>,
    pub(crate) memory: Option<i64>,
    /// Page size (`2Mi`) to bytes.
    pub(crate) hugepages: BTreeMap<String, u64>,
    pub(crate) pids: Option<i64>,
}

/// The limits of a pod's cgroup: a CPU or memory limit only where every container has one or the
/// pod has its own.
pub(crate) fn pod_cgroup(pod: &Pod, pids: Option<i64>) -> PodLimits {
    let (asked, limited) = (pod_requests(pod), pod_limits(pod));
    let own = limits(pod.spec().resources.as_ref());
    let declared = |name: &str| {
        if !get(own, name).is_zero() {
            return true;
        }
        let long_lived = pod.init_containers().iter().chain(pod.containers());
        long_lived.into_iter().all(|c| !get(limits(c.resources.as_ref()), name).is_zero())
    };
    let quantity = |list: &List, name: &str| list.get(name).copied().unwrap_or(Quantity::ZERO);
    let quota = Some(cpu_quota(quantity(&limited, CPU).milli_value())).filter(|quota| *quota > 0);
    let memory = Some(quantity(&limited, MEMORY).value()).filter(|bytes| *bytes > 0);
    let shares = cpu_shares(quantity(&asked, CPU).milli_value());
    let mut result = match qos(pod) {
        Qos::Guaranteed => PodLimits { cpu_shares: Some(shares), cpu_quota: quota, memory, ..PodLimits::default() },
        Qos::Burstable => PodLimits {
            cpu_shares: Some(shares),
            cpu_quota: quota.filter(|_| declared(CPU)),
            memory: memory.filter(|_| declared(MEMORY)),
            ..PodLimits::default()
        },
        Qos::BestEffort => PodLimits { cpu_shares: Some(MIN_SHARES), ..PodLimits::default() },
    };
    for (name, bytes) in &limited {
        if let Some(size) = name.strip_prefix(HUGE_PAGES) {
            result.hugepages.insert(size.to_owned(), bytes.value().max(0).unsigned_abs());
        }
    }
    result.pids = pids;
    result
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn resources(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Value {
        let list = |list: &[(&str, &str)]| {
            list.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<serde_json::Map<_, _>>()
        };
        json!({"requests": list(requests), "limits": list(limits)})
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let container = |r: Value| json!({"name": "c", "resources": r});
        let cases = [
            (vec![container(json!({}))], Qos::BestEffort),
            (vec![container(resources(&[("cpu", "100m")], &[]))], Qos::Burstable),
            (
                vec![container(resources(
                    &[("cpu", "1"), ("memory", "1Gi")],
                    &[("cpu", "1000m"), ("memory", "1024Mi")],
                ))],
                Qos::Guaranteed,
            ),
            (
                vec![
                    container(resources(&[("cpu", "1"), ("memory", "1Gi")], &[("cpu", "1"), ("memory", "1Gi")])),
                    container(json!({})),
                ],
                Qos::Burstable,
            ),
            (
                vec![container(resources(&[("cpu", "1"), ("memory", "1Gi")], &[("cpu", "2"), ("memory", "1Gi")]))],
                Qos::Burstable,
            ),
            (vec![container(resources(&[("ephemeral-storage", "1Gi")], &[]))], Qos::BestEffort),
        ];
        for (containers, expected) in cases {
            let pod = pod(json!({"containers": containers}));
            assert_eq!(compute_qos(&pod), expected, "{:?}", pod.spec);
        }
    }

    #[test]
    fn init_containers_and_sidecars_count_as_upstream_counts_them() {
        let pod = pod(json!({
            "initContainers": [
                {"name": "a", "resources": resources(&[("cpu", "5")], &[])},
                {"name": "s", "restartPolicy": "Always", "resources": resources(&[("cpu", "1")], &[])},
                {"name": "b", "resources": resources(&[("cpu", "5")], &[])},
            ],
            "containers": [{"name": "c", "resources": resources(&[("cpu", "2")], &[])}],
            "overhead": {"cpu": "250m"},
        }));
        // b runs beside s: 6, more than c with s: 3.
        assert_eq!(pod_requests(&pod)[CPU].milli_value(), 6250);
    }

    #[test]
    fn shares_and_quota_stay_in_the_kernels_bounds() {
        assert_eq!(cpu_shares(0), 2);
        assert_eq!(cpu_shares(500), 512);
        assert_eq!(cpu_shares(1_000_000_000), 262_144);
        assert_eq!(cpu_quota(0), 0);
        assert_eq!(cpu_quota(5), 1000);
        assert_eq!(cpu_quota(1000), 100_000);
    }

    #[test]
    fn the_kernel_kills_best_effort_first_and_guaranteed_last() {
        let gib = 1 << 30;
        let of = |r: Value| {
            let pod = pod(json!({"containers": [{"name": "c", "resources": r}]}));
            oom_score_adj(&pod, &pod.containers()[0], 10 * gib)
        };
        assert_eq!(of(json!({})), 1000);
        assert_eq!(of(resources(&[("memory", "1Gi")], &[])), 900);
        assert_eq!(of(resources(&[("memory", "1Mi")], &[])), 999);
        assert_eq!(of(resources(&[("memory", "20Gi")], &[])), 3);
        let all: &[(&str, &str)] = &[("cpu", "1"), ("memory", "1Gi")];
        assert_eq!(of(resources(all, all)), -997);
    }

    #[test]
    fn a_pods_cgroup_is_limited_only_when_all_its_containers_are() {
        let limited = resources(&[("cpu", "500m"), ("memory", "500Mi")], &[("cpu", "1"), ("memory", "4Gi")]);
        let one = pod(json!({"containers": [{"name": "c", "resources": limited}]}));
        let limits = pod_cgroup(&one, None);
        assert_eq!(limits.cpu_shares, Some(512));
        assert_eq!(limits.cpu_quota, Some(100_000));
        assert_eq!(limits.memory, Some(4 << 30));
        let two = pod(json!({"containers": [{"name": "c", "resources": limited}, {"name": "d"}]}));
        let limits = pod_cgroup(&two, None);
        assert_eq!((limits.cpu_quota, limits.memory), (None, None));
        assert_eq!(limits.cpu_shares, Some(512));
        let best = pod(json!({"containers": [{"name": "c"}]}));
        assert_eq!(pod_cgroup(&best, None).cpu_shares, Some(2));
    }
}
