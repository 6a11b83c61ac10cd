//! Usage as the metrics that a kubelet without cAdvisor exposes.

use cri::v1::{
    ContainerMetrics, ContainerStats, Metric, MetricDescriptor, MetricType, PodSandboxMetrics, PodSandboxStats,
    UInt64Value,
};

/// A metric: name, help, kind.
type Row = (&'static str, &'static str, MetricType);

const CPU: Row = ("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", MetricType::Counter);
const WORKING_SET: Row =
    ("container_memory_working_set_bytes", "Current working set of the container in bytes", MetricType::Gauge);
const USAGE: Row = (
    "container_memory_usage_bytes",
    "Current memory usage in bytes, including all memory regardless of when it was accessed",
    MetricType::Gauge,
);
const RSS: Row = ("container_memory_rss", "Size of RSS in bytes.", MetricType::Gauge);
const FS_USAGE: Row = (
    "container_fs_usage_bytes",
    "Number of bytes that are consumed by the container on this filesystem.",
    MetricType::Gauge,
);
const PROCESSES: Row = ("container_processes", "Number of processes running inside the container.", MetricType::Gauge);
const RECEIVED: Row =
    ("container_network_receive_bytes_total", "Cumulative count of bytes received", MetricType::Counter);
const SENT: Row =
    ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", MetricType::Counter);

const ALL: [Row; 8] = [CPU, WORKING_SET, USAGE, RSS, FS_USAGE, PROCESSES, RECEIVED, SENT];
const LABELS: [&str; 4] = ["id", "name", "pod", "namespace"];

/// What metrics there are.
pub(crate) fn descriptors() -> Vec<MetricDescriptor> {
    ALL.iter()
        .map(|(name, help, _)| MetricDescriptor {
            name: (*name).into(),
            help: (*help).into(),
            label_keys: LABELS.iter().map(|l| (*l).to_owned()).collect(),
        })
        .collect()
}

struct Collector {
    labels: Vec<String>,
    metrics: Vec<Metric>,
}

impl Collector {
    fn add(&mut self, row: Row, timestamp: i64, value: Option<u64>) {
        let Some(value) = value else { return };
        self.metrics.push(Metric {
            name: row.0.into(),
            timestamp,
            metric_type: row.2.into(),
            label_values: self.labels.clone(),
            value: Some(UInt64Value { value }),
        });
    }
}

/// A pod's metrics, from its usage.
pub(crate) fn of_pod(stats: &PodSandboxStats) -> PodSandboxMetrics {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let metadata = attributes.metadata.unwrap_or_default();
    let mut pod = Collector {
        labels: vec![attributes.id.clone(), String::new(), metadata.name.clone(), metadata.namespace.clone()],
        metrics: Vec::new(),
    };
    let linux = stats.linux.clone().unwrap_or_default();
    if let Some(network) = linux.network.and_then(|n| n.default_interface.map(|i| (n.timestamp, i))) {
        let (time, interface) = network;
        pod.add(RECEIVED, time, interface.rx_bytes.map(|v| v.value));
        pod.add(SENT, time, interface.tx_bytes.map(|v| v.value));
    }
    if let Some(process) = linux.process {
        let count = process.process_count.map(|v| v.value);
        pod.add(PROCESSES, process.timestamp, count);
    }
    PodSandboxMetrics {
        pod_sandbox_id: attributes.id,
        metrics: pod.metrics,
        container_metrics: linux
            .containers
            .iter()
            .map(|c| of_container(c, &metadata.name, &metadata.namespace))
            .collect(),
    }
}

fn of_container(stats: &ContainerStats, pod: &str, namespace: &str) -> ContainerMetrics {
    let attributes = stats.attributes.clone().unwrap_or_default();
    let mut container = Collector {
        labels: vec![
            attributes.id.clone(),
            attributes.metadata.unwrap_or_default().name,
            pod.to_owned(),
            namespace.to_owned(),
        ],
        metrics: Vec::new(),
    };
    if let Some(cpu) = &stats.cpu {
        let seconds = cpu.usage_core_nano_seconds.map(|v| v.value / 1_000_000_000);
        container.add(CPU, cpu.timestamp, seconds);
    }
    if let Some(memory) = &stats.memory {
        let time = memory.timestamp;
        container.add(WORKING_SET, time, memory.working_set_bytes.map(|v| v.value));
        container.add(USAGE, time, memory.usage_bytes.map(|v| v.value));
        container.add(RSS, time, memory.rss_bytes.map(|v| v.value));
    }
    if let Some(layer) = &stats.writable_layer {
        container.add(FS_USAGE, layer.timestamp, layer.used_bytes.map(|v| v.value));
    }
    ContainerMetrics { container_id: attributes.id, metrics: container.metrics }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_described() {
        let names: Vec<_> = descriptors().into_iter().map(|d| d.name).collect();
        let stats = ContainerStats {
            cpu: Some(cri::v1::CpuUsage {
                usage_core_nano_seconds: Some(UInt64Value { value: 3_500_000_000 }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let metrics = of_container(&stats, "p", "n").metrics;
        assert_eq!(metrics[0].value, Some(UInt64Value { value: 3 }));
        assert_eq!(metrics[0].label_values.len(), LABELS.len());
        assert!(metrics.iter().all(|m| names.contains(&m.name)));
    }
}
