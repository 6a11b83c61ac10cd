//! What one pod is to one Service: its ports by target, its conditions. Pure.

use crate::objects::{Pod, Service, ServicePort};
use crate::pods;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// One port of a Service as a pod serves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub port: i32,
    pub app_protocol: Option<String>,
}

/// Whether a change of a pod changes nothing that endpoints tell.
pub fn same_for_endpoints(old: &Pod, new: &Pod) -> bool {
    old.metadata.uid == new.metadata.uid
        && old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp.is_some() == new.metadata.deletion_timestamp.is_some()
        && old.status.pod_ip == new.status.pod_ip
        && old.status.pod_ips == new.status.pod_ips
        && pods::is_ready(old) == pods::is_ready(new)
        && pods::is_finished(old) == pods::is_finished(new)
        && old.spec.node_name == new.spec.node_name
        && old.spec.hostname == new.spec.hostname
        && old.spec.subdomain == new.spec.subdomain
}

/// The number that a Service's port has on a pod: named ports are looked up in its containers.
fn target(pod: &Pod, port: &ServicePort) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(n)) => Some(*n),
        Some(IntOrString::String(name)) => {
            let sidecars = pod.spec.init_containers.iter().filter(|c| c.restart_policy == "Always");
            let mut ports = pod.spec.containers.iter().chain(sidecars).flat_map(|c| &c.ports);
            let protocol = |p: &str| if p.is_empty() { "TCP".to_owned() } else { p.to_owned() };
            ports
                .find(|p| p.name == *name && protocol(&p.protocol) == protocol(&port.protocol))
                .map(|p| p.container_port)
        }
    }
}

/// The ports of a Service that a pod serves, in the Service's order.
pub fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let of = |port: &ServicePort| {
        Some(Port {
            name: port.name.clone(),
            protocol: if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() },
            port: target(pod, port)?,
            app_protocol: port.app_protocol.clone(),
        })
    };
    service.spec.ports.iter().filter_map(of).collect()
}

/// The pod's own name below the Service, if it asked for one.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let asked = !pod.spec.hostname.is_empty() && Some(&pod.spec.subdomain) == service.metadata.name.as_ref();
    asked.then(|| pod.spec.hostname.clone())
}

/// The pod's address of a family.
pub fn address<'p>(pod: &'p Pod, family: &str) -> Option<&'p str> {
    let fits = |ip: &str| !ip.is_empty() && ip.contains(':') == (family == "IPv6");
    let all = pod.status.pod_ips.iter().map(|ip| ip.ip.as_str());
    all.chain([pod.status.pod_ip.as_str()]).find(|ip| fits(ip))
}
