//! A Service as the allocator reads and writes it.

use super::range::Family;
use schema::{Map, Value};

/// The address of a Service that has none, and whose name stands for its endpoints.
pub(super) const NONE: &str = "None";

/// A Service's spec, read leniently.
pub(super) struct Spec<'a>(pub(super) &'a Map);

impl<'a> Spec<'a> {
    pub(super) fn str(&self, key: &str) -> &'a str {
        self.0.str_at(&["spec", key])
    }
    pub(super) fn kind(&self) -> &'a str {
        match self.str("type") {
            "" => "ClusterIP",
            kind => kind,
        }
    }
    pub(super) fn strings(&self, key: &str) -> Vec<String> {
        let list = self.0.at(&["spec", key]).and_then(Value::as_list).unwrap_or_default();
        list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }
    pub(super) fn number(&self, key: &str) -> u16 {
        let value = self.0.at(&["spec", key]).and_then(Value::as_i64).unwrap_or(0);
        u16::try_from(value).unwrap_or(0)
    }
    pub(super) fn cluster_ips(&self) -> Vec<String> {
        self.strings("clusterIPs")
    }
    pub(super) fn families(&self) -> Vec<Family> {
        self.strings("ipFamilies").iter().filter_map(|f| Family::parse(f)).collect()
    }
    pub(super) fn ports(&self) -> &'a [Value] {
        self.0.at(&["spec", "ports"]).and_then(Value::as_list).unwrap_or_default()
    }
    pub(super) fn node_ports(&self) -> Vec<u16> {
        self.ports().iter().map(node_port).filter(|p| *p != 0).collect()
    }
    pub(super) fn selects_nothing(&self) -> bool {
        self.0.at(&["spec", "selector"]).and_then(Value::as_map).is_none_or(Map::is_empty)
    }
    pub(super) fn needs_cluster_ip(&self) -> bool {
        matches!(self.kind(), "ClusterIP" | "NodePort" | "LoadBalancer")
    }
    pub(super) fn may_have_node_ports(&self) -> bool {
        matches!(self.kind(), "NodePort" | "LoadBalancer")
    }
    pub(super) fn needs_node_ports(&self) -> bool {
        let wanted = || self.0.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool).unwrap_or(true);
        self.kind() == "NodePort" || self.kind() == "LoadBalancer" && wanted()
    }
    pub(super) fn needs_health_check(&self) -> bool {
        self.kind() == "LoadBalancer" && self.str("externalTrafficPolicy") == "Local"
    }
    pub(super) fn headless(&self) -> bool {
        self.str("clusterIP") == NONE || self.cluster_ips().first().is_some_and(|ip| ip == NONE)
    }
}

pub(super) fn node_port(port: &Value) -> u16 {
    let number = port.as_map().and_then(|p| p.get("nodePort")).and_then(Value::as_i64).unwrap_or(0);
    u16::try_from(number).unwrap_or(0)
}

pub(super) fn port_str<'a>(port: &'a Value, key: &str) -> &'a str {
    port.as_map().map_or("", |p| p.str_at(&[key]))
}

pub(super) fn set_strings<S: AsRef<str>>(service: &mut Map, key: &'static str, list: &[S]) {
    if list.is_empty() {
        service.remove_at(&["spec", key]);
    } else {
        service.set_at(&["spec", key], list.iter().map(|s| Value::from(s.as_ref())).collect::<Vec<_>>());
    }
}

pub(super) fn set_node_port(service: &mut Map, index: usize, port: u16) {
    let ports = service.at_mut(&["spec", "ports"]).and_then(Value::as_list_mut);
    if let Some(entry) = ports.and_then(|p| p.get_mut(index)).and_then(Value::as_map_mut) {
        match port {
            0 => entry.remove("nodePort"),
            port => entry.insert("nodePort", i64::from(port)),
        };
    }
}
