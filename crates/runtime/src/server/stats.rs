//! Usage of containers and pods.

use std::{fs, sync::Arc};

use cri::v1::{
    self, ContainerAttributes, ContainerStats, ContainerStatsFilter, CpuUsage, FilesystemIdentifier, FilesystemUsage,
    LinuxPodSandboxStats, MemoryUsage, NetworkInterfaceUsage, NetworkUsage, PodSandboxAttributes, PodSandboxStats,
    PodSandboxStatsFilter, ProcessUsage, SwapUsage, UInt64Value,
};

use super::{
    Runtime,
    error::{Result, RuntimeError},
    state::{Container, Sandbox, lock, selects},
};
use crate::{
    cgroup::{CpuStats, MemoryStats, Stats},
    shim::now_nanos,
};

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn cpu_usage(time: i64, cpu: CpuStats, nano_cores: Option<u64>) -> CpuUsage {
    CpuUsage {
        timestamp: time,
        usage_core_nano_seconds: value(cpu.usage_nanos),
        usage_nano_cores: nano_cores.and_then(value),
        psi: None,
    }
}

fn memory_usage(time: i64, memory: MemoryStats) -> MemoryUsage {
    let available = memory.limit.map(|limit| limit.saturating_sub(memory.working_set));
    MemoryUsage {
        timestamp: time,
        working_set_bytes: value(memory.working_set),
        available_bytes: available.and_then(value),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: None,
    }
}

fn swap_usage(time: i64, memory: MemoryStats) -> Option<SwapUsage> {
    let usage = memory.swap_usage?;
    Some(SwapUsage {
        timestamp: time,
        swap_available_bytes: memory.swap_limit.map(|limit| limit.saturating_sub(usage)).and_then(value),
        swap_usage_bytes: value(usage),
    })
}

impl Runtime {
    /// A container's usage. One that doesn't run has no more than its attributes. Blocks.
    pub(crate) fn container_stats(&self, container: &Container) -> ContainerStats {
        let time = now_nanos();
        let config = &container.config;
        let mut out = ContainerStats {
            attributes: Some(ContainerAttributes {
                id: container.id.clone(),
                metadata: config.metadata.clone(),
                labels: config.labels.clone(),
                annotations: config.annotations.clone(),
            }),
            ..Default::default()
        };
        if let Some(usage) = self.images.usage(&container.id) {
            out.writable_layer = Some(FilesystemUsage {
                timestamp: time,
                fs_id: Some(FilesystemIdentifier { mountpoint: self.images.directory().display().to_string() }),
                used_bytes: value(usage.bytes),
                inodes_used: value(usage.inodes),
            });
        }
        // Its group goes away with it, also while we read.
        let Ok(stats) = self.cgroups.stats(&container.record().cgroup) else {
            return out;
        };
        if let Some(cpu) = stats.cpu {
            let rate = container.cpu_rate(time, cpu.usage_nanos);
            out.cpu = Some(cpu_usage(time, cpu, rate));
        }
        if let Some(memory) = stats.memory {
            out.swap = swap_usage(time, memory);
            out.memory = Some(memory_usage(time, memory));
        }
        out
    }

    /// Usage of the containers that a filter lets through and that run. Blocks.
    pub(crate) fn list_container_stats(&self, filter: Option<ContainerStatsFilter>) -> Result<Vec<ContainerStats>> {
        let filter = filter.unwrap_or_default();
        let containers = self.list_containers(Some(v1::ContainerFilter {
            id: filter.id,
            state: None,
            pod_sandbox_id: filter.pod_sandbox_id,
            label_selector: filter.label_selector,
        }))?;
        Ok(containers.iter().filter(|c| c.pid().is_some()).map(|c| self.container_stats(c)).collect())
    }

    /// A pod's usage: its group's, its network interface's, its containers'. Blocks.
    pub(crate) fn sandbox_stats(&self, sandbox: &Arc<Sandbox>) -> Result<PodSandboxStats> {
        let record = sandbox.record();
        if !record.ready {
            return Err(RuntimeError::FailedPrecondition(format!(
                "failed to get pod sandbox stats since sandbox container {:?} is not in ready state",
                sandbox.id
            )));
        }
        let time = now_nanos();
        let parent = sandbox.cgroup_parent();
        let stats = if parent.is_empty() { Stats::default() } else { self.cgroups.stats(parent).unwrap_or_default() };
        let network = record.host_interface.as_deref().and_then(|interface| network_usage(time, interface));
        let containers = self
            .containers_of(&sandbox.id)
            .iter()
            .filter(|c| c.pid().is_some())
            .map(|c| self.container_stats(c))
            .collect();
        Ok(PodSandboxStats {
            attributes: Some(PodSandboxAttributes {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
            }),
            linux: Some(LinuxPodSandboxStats {
                cpu: stats.cpu.map(|cpu| cpu_usage(time, cpu, None)),
                memory: stats.memory.map(|memory| memory_usage(time, memory)),
                network,
                process: stats
                    .processes
                    .map(|processes| ProcessUsage { timestamp: time, process_count: value(processes) }),
                containers,
                io: None,
            }),
            windows: None,
        })
    }

    /// Usage of the ready pods that a filter lets through. Blocks.
    pub(crate) fn list_sandbox_stats(&self, filter: Option<PodSandboxStatsFilter>) -> Result<Vec<PodSandboxStats>> {
        let filter = filter.unwrap_or_default();
        let candidates = if filter.id.is_empty() {
            self.sandboxes.all()
        } else {
            self.sandboxes.find(&filter.id)?.into_iter().collect()
        };
        Ok(candidates
            .iter()
            .filter(|s| selects(&filter.label_selector, &s.config.labels))
            .filter_map(|s| self.sandbox_stats(s).ok())
            .collect())
    }
}

impl Container {
    /// Processor time per time since the last look, in billionths of a processor.
    fn cpu_rate(&self, time: i64, usage: u64) -> Option<u64> {
        let mut last = lock(&self.last_cpu);
        let rate = last.and_then(|(then, before)| {
            let elapsed = u64::try_from(time - then).ok().filter(|e| *e > 0)?;
            let used = u128::from(usage.checked_sub(before)?);
            Some((used * 1_000_000_000 / u128::from(elapsed)) as u64)
        });
        *last = Some((time, usage));
        rate
    }
}

/// What the pod has sent and received, read at the node's end of its pair, where it is the other way round.
fn network_usage(time: i64, interface: &str) -> Option<NetworkUsage> {
    let read = |name: &str| -> Option<u64> {
        let path = format!("/sys/class/net/{interface}/statistics/{name}");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let usage = NetworkInterfaceUsage {
        name: network::pod::POD_INTERFACE.into(),
        rx_bytes: value(read("tx_bytes")?),
        rx_errors: value(read("tx_errors")?),
        tx_bytes: value(read("rx_bytes")?),
        tx_errors: value(read("rx_errors")?),
    };
    Some(NetworkUsage { timestamp: time, default_interface: Some(usage.clone()), interfaces: vec![usage] })
}
