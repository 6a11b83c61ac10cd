//! The configuration of a pod's sandbox.

use std::collections::BTreeMap;

use cri::v1;
use k8s_openapi::api::core::v1::Pod;

use super::{dns, hostname, security};
use crate::{
    config::Config,
    pod::observed::label,
    resources::{self, CPU, MEMORY},
    spec::{PodExt, is_sidecar},
};

/// A sandbox's configuration, and what is to be reported about its resolver configuration.
///
/// # Errors
/// The text of the event: what of the pod cannot be done.
pub(crate) fn config(
    pod: &Pod,
    attempt: u32,
    cfg: &Config,
    host_dns: &v1::DnsConfig,
    cgroup_parent: String,
) -> Result<(v1::PodSandboxConfig, Vec<(&'static str, String)>), String> {
    if pod.spec().host_users == Some(false) {
        return Err("can't set `spec.hostUsers: false`, runtime does not support user namespaces".to_owned());
    }
    let cluster = dns::Cluster { servers: &cfg.cluster_dns, domain: &cfg.cluster_domain };
    let (dns_config, warnings) = dns::config(pod, &cluster, host_dns);
    let hostname =
        if pod.is_host_network() { String::new() } else { hostname::kernel_hostname(pod, &cfg.cluster_domain)? };
    let defaults = security::Defaults { seccomp: cfg.seccomp_default, root: &cfg.root_dir };
    let config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
            namespace: pod.namespace().to_owned(),
            attempt,
        }),
        hostname,
        log_directory: cfg.logs_dir(pod.namespace(), pod.name(), pod.uid()).display().to_string(),
        dns_config: Some(dns_config),
        port_mappings: port_mappings(pod),
        labels: labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent,
            security_context: Some(security::of_sandbox(pod, defaults)),
            sysctls: sysctls(pod),
            overhead: Some(overhead(pod)),
            resources: Some(pod_resources(pod)),
        }),
        windows: None,
    };
    Ok((config, warnings))
}

fn labels(pod: &Pod) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    for (key, value) in
        [(label::POD_NAME, pod.name()), (label::POD_NAMESPACE, pod.namespace()), (label::POD_UID, pod.uid())]
    {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// The ports of the node that lead to the pod.
fn port_mappings(pod: &Pod) -> Vec<v1::PortMapping> {
    if pod.is_host_network() {
        return Vec::new();
    }
    let sidecars = pod.init_containers().iter().filter(|c| is_sidecar(c));
    let ports = sidecars.chain(pod.containers()).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter(|port| port.host_port.unwrap_or_default() > 0)
        .map(|port| v1::PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => v1::Protocol::Udp,
                Some("SCTP") => v1::Protocol::Sctp,
                _ => v1::Protocol::Tcp,
            } as i32,
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or_default(),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

/// Sysctls with dots between their parts, however they were written.
fn sysctls(pod: &Pod) -> BTreeMap<String, String> {
    let context = pod.spec().security_context.as_ref();
    context
        .into_iter()
        .flat_map(|context| context.sysctls.iter().flatten())
        .map(|sysctl| (dotted(&sysctl.name), sysctl.value.clone()))
        .collect()
}

/// `net/ipv4/conf/eth0.1/x` as `net.ipv4.conf.eth0/1.x`.
pub(crate) fn dotted(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn overhead(pod: &Pod) -> v1::LinuxContainerResources {
    let list = pod.spec().overhead.as_ref();
    if list.is_none_or(BTreeMap::is_empty) {
        return v1::LinuxContainerResources::default();
    }
    linux(
        resources::get(list, CPU).milli_value(),
        resources::get(list, CPU).milli_value(),
        resources::get(list, MEMORY).value(),
    )
}

/// What the containers of a pod have together, for runtimes that size a machine by it.
fn pod_resources(pod: &Pod) -> v1::LinuxContainerResources {
    let (requests, limits) = (resources::pod_requests(pod), resources::pod_limits(pod));
    let milli = |list: &resources::List| list.get(CPU).map_or(0, api::quantity::Quantity::milli_value);
    linux(milli(&requests), milli(&limits), limits.get(MEMORY).map_or(0, api::quantity::Quantity::value))
}

fn linux(request: i64, limit: i64, memory: i64) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: resources::QUOTA_PERIOD,
        cpu_quota: resources::cpu_quota(limit),
        cpu_shares: i64::try_from(resources::cpu_shares(request)).unwrap_or(i64::MAX),
        memory_limit_in_bytes: memory,
        ..v1::LinuxContainerResources::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sandbox_carries_the_pods_names_ports_and_sysctls() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {
                "securityContext": {"sysctls": [{"name": "net/ipv4/ip_local_port_range", "value": "1 2"}]},
                "containers": [{"name": "c", "ports": [
                    {"containerPort": 80, "hostPort": 8080, "protocol": "UDP", "hostIP": "127.0.0.1"},
                    {"containerPort": 81}]}],
            },
        }))
        .unwrap();
        let cfg = Config::new("n", "127.0.0.1".parse().unwrap(), "/x");
        let (config, _) = config(&pod, 2, &cfg, &v1::DnsConfig::default(), "/kubepods/x".into()).unwrap();
        assert_eq!(config.metadata.unwrap().attempt, 2);
        assert_eq!(config.hostname, "p");
        assert_eq!(config.log_directory, "/var/log/pods/ns_p_u");
        assert_eq!(config.labels["io.kubernetes.pod.uid"], "u");
        assert_eq!(config.labels["a"], "b");
        assert_eq!(config.port_mappings.len(), 1);
        assert_eq!((config.port_mappings[0].host_port, config.port_mappings[0].protocol), (8080, 1));
        let linux = config.linux.unwrap();
        assert_eq!(linux.sysctls["net.ipv4.ip_local_port_range"], "1 2");
        assert_eq!(linux.cgroup_parent, "/kubepods/x");
        assert_eq!(dotted("net.ipv4.conf.eth0/1.x"), "net.ipv4.conf.eth0/1.x");
        assert_eq!(dotted("net/ipv4/conf/eth0.1/x"), "net.ipv4.conf.eth0/1.x");
    }
}
