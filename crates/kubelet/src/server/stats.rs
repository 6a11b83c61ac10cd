//! The summary of what the node and its pods use.

use std::sync::Arc;

use cri::v1;
use http::Response;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{Body, json};
use crate::{
    cgroup::stats::Usage,
    kubelet::Shared,
    node::machine::{file_system, meminfo_bytes},
    pod::observed::label,
    resources, rpc,
    spec::PodExt,
};

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Nanoseconds since the epoch as a time.
fn at(nanos: i64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_else(|_| Timestamp::now());
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn value(value: Option<v1::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}

/// An object of those fields that have a value.
fn object(fields: &[(&str, Option<u64>)], time: String) -> Value {
    let mut map = Map::from_iter([("time".to_owned(), Value::String(time))]);
    for (name, value) in fields {
        if let Some(value) = value {
            map.insert((*name).to_owned(), json!(value));
        }
    }
    Value::Object(map)
}

fn cpu(usage: &v1::CpuUsage) -> Value {
    object(
        &[
            ("usageNanoCores", value(usage.usage_nano_cores)),
            ("usageCoreNanoSeconds", value(usage.usage_core_nano_seconds)),
        ],
        at(usage.timestamp),
    )
}

fn memory(usage: &v1::MemoryUsage) -> Value {
    object(
        &[
            ("availableBytes", value(usage.available_bytes)),
            ("usageBytes", value(usage.usage_bytes)),
            ("workingSetBytes", value(usage.working_set_bytes)),
            ("rssBytes", value(usage.rss_bytes)),
            ("pageFaults", value(usage.page_faults)),
            ("majorPageFaults", value(usage.major_page_faults)),
        ],
        at(usage.timestamp),
    )
}

fn of_cgroup(usage: &Usage) -> (Value, Value) {
    let cpu = object(&[("usageCoreNanoSeconds", Some(usage.cpu_nanos))], now());
    let memory = object(
        &[
            ("usageBytes", Some(usage.memory)),
            ("workingSetBytes", Some(usage.working_set)),
            ("rssBytes", Some(usage.rss)),
            ("pageFaults", Some(usage.page_faults)),
            ("majorPageFaults", Some(usage.major_page_faults)),
        ],
        now(),
    );
    (cpu, memory)
}

/// What the runtime tells of its pods' use; nothing if it doesn't.
pub(super) async fn of_pods(shared: &Shared) -> Vec<v1::PodSandboxStats> {
    let request = v1::ListPodSandboxStatsRequest::default();
    match shared.cri.runtime().list_pod_sandbox_stats(request).await {
        Ok(answer) => answer.into_inner().stats,
        Err(status) => {
            tracing::debug!(status = rpc::text(&status), "the runtime doesn't tell what pods use");
            Vec::new()
        }
    }
}

fn disk(path: &std::path::Path) -> Value {
    let Some(fs) = file_system(path) else { return Value::Null };
    object(
        &[
            ("availableBytes", Some(fs.available)),
            ("capacityBytes", Some(fs.capacity)),
            ("usedBytes", Some(fs.capacity.saturating_sub(fs.available))),
            ("inodesFree", Some(fs.inodes_free)),
            ("inodes", Some(fs.inodes)),
            ("inodesUsed", Some(fs.inodes.saturating_sub(fs.inodes_free))),
        ],
        now(),
    )
}

fn container(stats: &v1::ContainerStats, started: Option<i64>) -> Value {
    let name = stats.attributes.as_ref().and_then(|attributes| attributes.labels.get(label::CONTAINER_NAME));
    let mut map = Map::from_iter([("name".to_owned(), json!(name)), ("startTime".to_owned(), json!(started.map(at)))]);
    if let Some(usage) = &stats.cpu {
        map.insert("cpu".to_owned(), cpu(usage));
    }
    if let Some(usage) = &stats.memory {
        map.insert("memory".to_owned(), memory(usage));
    }
    if let Some(layer) = &stats.writable_layer {
        let fields = [("usedBytes", value(layer.used_bytes)), ("inodesUsed", value(layer.inodes_used))];
        map.insert("rootfs".to_owned(), object(&fields, at(layer.timestamp)));
    }
    Value::Object(map)
}

fn network(usage: &v1::NetworkUsage) -> Value {
    let interface = |one: &v1::NetworkInterfaceUsage| {
        json!({
            "name": one.name,
            "rxBytes": value(one.rx_bytes),
            "rxErrors": value(one.rx_errors),
            "txBytes": value(one.tx_bytes),
            "txErrors": value(one.tx_errors),
        })
    };
    let mut map = Map::from_iter([("time".to_owned(), json!(at(usage.timestamp)))]);
    if let Some(default) = &usage.default_interface
        && let Value::Object(fields) = interface(default)
    {
        map.extend(fields);
    }
    map.insert("interfaces".to_owned(), usage.interfaces.iter().map(interface).collect());
    Value::Object(map)
}

/// The summary.
pub(super) async fn summary(shared: &Arc<Shared>) -> Response<Body> {
    let of_runtime = of_pods(shared).await;
    let mut pods = Vec::new();
    for snapshot in shared.pods.all().into_iter().filter(|snapshot| !snapshot.finished) {
        let pod = &snapshot.pod;
        let mut map = Map::from_iter([(
            "podRef".to_owned(),
            json!({"name": pod.name(), "namespace": pod.namespace(), "uid": pod.uid()}),
        )]);
        map.insert("startTime".to_owned(), json!(snapshot.status.start_time));
        let stats = of_runtime.iter().find(|stats| {
            let metadata = stats.attributes.as_ref().and_then(|attributes| attributes.metadata.as_ref());
            metadata.is_some_and(|metadata| metadata.uid == pod.uid())
        });
        if let Some(linux) = stats.and_then(|stats| stats.linux.as_ref()) {
            let containers: Vec<Value> = linux
                .containers
                .iter()
                .map(|stats| {
                    let id = stats.attributes.as_ref().map(|attributes| attributes.id.as_str());
                    let known = id.and_then(|id| snapshot.observed.by_id(id));
                    container(stats, known.map(|known| known.started_at))
                })
                .collect();
            map.insert("containers".to_owned(), Value::Array(containers));
            if let Some(usage) = &linux.network {
                map.insert("network".to_owned(), network(usage));
            }
            if let Some(processes) = &linux.process {
                let count = value(processes.process_count);
                map.insert("process_stats".to_owned(), json!({"process_count": count}));
            }
        } else {
            map.insert("containers".to_owned(), json!([]));
        }
        let path = shared.cgroups.pod(resources::qos(pod), pod.uid());
        if let Some(usage) = shared.cgroups.usage(&path) {
            let (cpu, memory) = of_cgroup(&usage);
            map.insert("cpu".to_owned(), cpu);
            map.insert("memory".to_owned(), memory);
        }
        pods.push(Value::Object(map));
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo_bytes(&meminfo, "MemTotal:");
    let available = meminfo_bytes(&meminfo, "MemAvailable:");
    let mut system = Vec::new();
    if let Some(usage) = shared.cgroups.usage(shared.cgroups.base()) {
        let (cpu, memory) = of_cgroup(&usage);
        system.push(json!({"name": "pods", "cpu": cpu, "memory": memory}));
    }
    json(&json!({
        "node": {
            "nodeName": shared.cfg.node_name,
            "systemContainers": system,
            "cpu": object(&[("usageCoreNanoSeconds", Some(node_cpu_nanos()))], now()),
            "memory": object(&[
                ("availableBytes", Some(available)),
                ("usageBytes", Some(total.saturating_sub(meminfo_bytes(&meminfo, "MemFree:")))),
                ("workingSetBytes", Some(total.saturating_sub(available))),
            ], now()),
            "fs": disk(&shared.cfg.root_dir),
        },
        "pods": pods,
    }))
}

/// CPU time that the machine spent working, in nanoseconds.
pub(super) fn node_cpu_nanos() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, irq, softirq, steal; not idle and not waiting.
    let ticks: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|index| fields.get(*index)).sum();
    // The kernel tells hundredths of a second.
    ticks * 10_000_000
}
