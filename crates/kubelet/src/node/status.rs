//! The status of the node, from what the machine is and how it does.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use cri::v1;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
        NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Map, Value, json};

use super::machine::Machine;
use crate::{
    config::Config,
    resources::{self, CPU, EPHEMERAL_STORAGE, HUGE_PAGES, MEMORY, PODS, TextList},
};

/// At most so many images, and names of each, are told.
const MAX_IMAGES: usize = 50;
const MAX_IMAGE_NAMES: usize = 5;

/// What the node suffers from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pressure {
    pub(crate) memory: bool,
    pub(crate) disk: bool,
    pub(crate) pids: bool,
}

/// How the runtime does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Runtime {
    /// `name://version`.
    pub(crate) version: String,
    /// Why the node isn't ready on the runtime's account; empty when it is.
    pub(crate) problems: Vec<String>,
    pub(crate) handlers: Vec<v1::RuntimeHandler>,
    pub(crate) features: Option<v1::RuntimeFeatures>,
    pub(crate) images: Vec<v1::Image>,
}

/// What stops a runtime from running pods, from its own account.
pub(crate) fn runtime_problems(status: Option<&v1::RuntimeStatus>) -> Vec<String> {
    let Some(status) = status else {
        return vec!["container runtime status check may not have completed yet".to_owned()];
    };
    let mut problems = Vec::new();
    for (kind, what) in
        [("RuntimeReady", "container runtime not ready"), ("NetworkReady", "container runtime network not ready")]
    {
        match status.conditions.iter().find(|condition| condition.r#type == kind) {
            Some(condition) if condition.status => {}
            Some(condition) => {
                problems.push(format!("{what}: {kind}=false reason:{} message:{}", condition.reason, condition.message))
            }
            None => problems.push(format!("{what}: {kind}=false reason: message:condition not found")),
        }
    }
    problems
}

/// All there is.
pub(crate) fn capacity(machine: &Machine, cfg: &Config) -> TextList {
    let mut list = BTreeMap::from([
        (CPU.to_owned(), resources::count(machine.cpus)),
        (MEMORY.to_owned(), resources::binary(machine.memory)),
        (EPHEMERAL_STORAGE.to_owned(), resources::binary(machine.storage)),
        (PODS.to_owned(), resources::count(u64::from(cfg.max_pods))),
    ]);
    for (size, bytes) in &machine.huge_pages {
        list.insert(format!("{HUGE_PAGES}{size}"), resources::binary(*bytes));
    }
    list
}

/// What pods may have: all there is, less what is reserved, what eviction keeps free, and the
/// memory that is huge pages.
pub(crate) fn allocatable(machine: &Machine, cfg: &Config) -> TextList {
    let mut list = capacity(machine, cfg);
    let mut less = |name: &str, by: Quantity| {
        if let Some(have) = list.get(name) {
            let rest = resources::parse(have).sub(&by);
            let rest = if rest.signum() < 0 { Quantity::ZERO } else { rest };
            list.insert(name.to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity(rest.to_string()));
        }
    };
    for (name, amount) in &cfg.reserved {
        less(name, Quantity::parse(amount).unwrap_or(Quantity::ZERO));
    }
    let bytes =
        |bytes: u64| Quantity::from_units(i64::try_from(bytes).unwrap_or(i64::MAX), api::quantity::Format::BinarySi);
    if let Some(threshold) = cfg.eviction.memory_available {
        less(MEMORY, bytes(threshold.of(machine.memory)));
    }
    if let Some(threshold) = cfg.eviction.nodefs_available {
        less(EPHEMERAL_STORAGE, bytes(threshold.of(machine.storage)));
    }
    for (_, huge) in &machine.huge_pages {
        less(MEMORY, bytes(*huge));
    }
    list
}

/// The status; `old` is the one before, whose transition times are kept.
pub(crate) fn status(
    cfg: &Config,
    machine: &Machine,
    runtime: &Runtime,
    pressure: Pressure,
    port: u16,
    old: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeStatus {
    let now = crate::pod::status::seconds(now);
    let mut conditions = vec![
        condition(
            "MemoryPressure",
            pressure.memory,
            ["KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"],
            ["kubelet has insufficient memory available", "kubelet has sufficient memory available"],
        ),
        condition(
            "DiskPressure",
            pressure.disk,
            ["KubeletHasDiskPressure", "KubeletHasNoDiskPressure"],
            ["kubelet has disk pressure", "kubelet has no disk pressure"],
        ),
        condition(
            "PIDPressure",
            pressure.pids,
            ["KubeletHasInsufficientPID", "KubeletHasSufficientPID"],
            ["kubelet has insufficient PID available", "kubelet has sufficient PID available"],
        ),
        condition(
            "Ready",
            runtime.problems.is_empty(),
            ["KubeletReady", "KubeletNotReady"],
            ["kubelet is posting ready status", &aggregate(&runtime.problems)],
        ),
    ];
    let before = old.and_then(|old| old.conditions.as_deref()).unwrap_or_default();
    for condition in &mut conditions {
        let kept = before
            .iter()
            .find(|old| old.type_ == condition.type_ && old.status == condition.status)
            .and_then(|old| old.last_transition_time.clone());
        condition.last_transition_time = Some(kept.unwrap_or(Time(now)));
        condition.last_heartbeat_time = Some(Time(now));
    }
    let mut addresses: Vec<NodeAddress> =
        cfg.node_ips.iter().map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.to_string() }).collect();
    addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: cfg.node_name.clone() });
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(allocatable(machine, cfg)),
        capacity: Some(capacity(machine, cfg)),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        features: runtime
            .features
            .as_ref()
            .map(|features| NodeFeatures { supplemental_groups_policy: Some(features.supplemental_groups_policy) }),
        images: Some(images(&runtime.images)),
        node_info: Some(machine.system_info(&cfg.version, &runtime.version)),
        runtime_handlers: (!runtime.handlers.is_empty()).then(|| handlers(&runtime.handlers)),
        ..NodeStatus::default()
    }
}

/// Several errors as upstream joins them.
fn aggregate(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn condition(kind: &str, is: bool, reasons: [&str; 2], messages: [&str; 2]) -> NodeCondition {
    let which = usize::from(!is);
    NodeCondition {
        type_: kind.to_owned(),
        status: if is { "True" } else { "False" }.to_owned(),
        reason: Some(reasons[which].to_owned()),
        message: Some(messages[which].to_owned()),
        ..NodeCondition::default()
    }
}

/// The largest images.
fn images(all: &[v1::Image]) -> Vec<ContainerImage> {
    let mut sorted: Vec<&v1::Image> = all.iter().collect();
    sorted.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    sorted
        .into_iter()
        .take(MAX_IMAGES)
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.iter().chain(&image.repo_tags).take(MAX_IMAGE_NAMES).cloned().collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

fn handlers(all: &[v1::RuntimeHandler]) -> Vec<NodeRuntimeHandler> {
    let mut handlers: Vec<NodeRuntimeHandler> = all
        .iter()
        .map(|handler| NodeRuntimeHandler {
            name: Some(handler.name.clone()),
            features: handler.features.as_ref().map(|features| NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
                user_namespaces: Some(features.user_namespaces),
            }),
        })
        .collect();
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    handlers
}

/// True if two statuses say the same apart from when it was said.
pub(crate) fn same(a: &NodeStatus, b: &NodeStatus) -> bool {
    let without_times = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
        status
    };
    without_times(a) == without_times(b)
}

/// The strategic merge patch from one status to the other. Addresses are replaced as a whole:
/// their merge key, the type, is not unique.
pub(crate) fn patch(old: &NodeStatus, new: &NodeStatus) -> Value {
    let object = |status: &NodeStatus| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (old, new) = (object(old), object(new));
    let mut changed = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        let value = match key.as_str() {
            "addresses" => {
                let mut list = vec![json!({"$patch": "replace"})];
                list.extend(value.as_array().into_iter().flatten().cloned());
                Value::Array(list)
            }
            // Maps are merged; what is gone must be named.
            "capacity" | "allocatable" => {
                let mut map = value.as_object().cloned().unwrap_or_default();
                for gone in old.get(key).and_then(Value::as_object).into_iter().flat_map(Map::keys) {
                    map.entry(gone.clone()).or_insert(Value::Null);
                }
                Value::Object(map)
            }
            _ => value.clone(),
        };
        changed.insert(key.clone(), value);
    }
    json!({"status": changed})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            cpus: 4,
            memory: 16 << 30,
            swap: 0,
            storage: 100 << 30,
            huge_pages: vec![("2Mi".into(), 1 << 30)],
            machine_id: "m".into(),
            system_uuid: "u".into(),
            boot_id: "b".into(),
            kernel: "6.12".into(),
            os_image: "Debian".into(),
        }
    }

    fn config() -> Config {
        let mut cfg = Config::new("n", "10.0.0.1".parse().unwrap(), "/x");
        cfg.reserved = BTreeMap::from([("cpu".into(), "500m".into()), ("memory".into(), "1Gi".into())]);
        cfg
    }

    #[test]
    fn reserves_thresholds_and_huge_pages_are_not_for_pods() {
        let list = allocatable(&machine(), &config());
        assert_eq!(list["cpu"].0, "3500m");
        assert_eq!(list["memory"].0, format!("{}Mi", (16 - 2) * 1024 - 100));
        assert_eq!(list["pods"].0, "110");
        assert_eq!(list["ephemeral-storage"].0, "90Gi");
        assert_eq!(capacity(&machine(), &config())["hugepages-2Mi"].0, "1Gi");
    }

    #[test]
    fn conditions_speak_upstreams_words() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let mut runtime = Runtime { version: "pilothouse://1".into(), ..Runtime::default() };
        let of = |runtime: &Runtime, old: Option<&NodeStatus>, now| {
            status(&config(), &machine(), runtime, Pressure::default(), 10250, old, now)
        };
        let ready = of(&runtime, None, now);
        let condition = &ready.conditions.as_ref().unwrap()[3];
        assert_eq!(condition.status, "True");
        assert_eq!(condition.message.as_deref(), Some("kubelet is posting ready status"));
        let later = now + std::time::Duration::from_secs(60);
        let again = of(&runtime, Some(&ready), later);
        let condition = &again.conditions.as_ref().unwrap()[3];
        assert_eq!(condition.last_transition_time, Some(Time(now)));
        assert_eq!(condition.last_heartbeat_time, Some(Time(later)));
        assert!(same(&ready, &again));
        runtime.problems = vec!["a".into(), "b".into()];
        let not = of(&runtime, Some(&again), later);
        let condition = &not.conditions.as_ref().unwrap()[3];
        assert_eq!(condition.message.as_deref(), Some("[a, b]"));
        assert_eq!(condition.reason.as_deref(), Some("KubeletNotReady"));
        assert_eq!(condition.last_transition_time, Some(Time(later)));
        let patch = patch(&again, &not);
        assert_eq!(patch["status"].as_object().unwrap().len(), 1, "{patch}");
    }

    #[test]
    fn a_runtime_without_network_says_why() {
        let condition = |kind: &str, status| v1::RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: "NetworkPluginNotReady".into(),
            message: "cni plugin not initialized".into(),
        };
        let status =
            v1::RuntimeStatus { conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", false)] };
        assert_eq!(
            runtime_problems(Some(&status)),
            [
                "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized"
            ]
        );
    }
}
