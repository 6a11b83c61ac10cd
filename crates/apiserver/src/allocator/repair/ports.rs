//! Which node ports should be taken, rebuilt from what the Services have; decided purely.

use crate::allocator::bitmap::PortBitmap;
use crate::allocator::range::PortRange;
use crate::allocator::spec::{Spec, node_port, port_str};
use schema::Map;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How often a port must be found without a Service before it is free again: it may be on its way to one.
const TIMES: u32 = 3;

/// Ports that no Service has, and how often more they are to be found so.
pub(super) type Leaks = BTreeMap<u16, u32>;

/// Something that is told of a Service: reason and message.
pub(super) struct Problem {
    pub(super) service: Arc<Map>,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// The ports of a Service: one number for several protocols is one port, twice for one protocol it is two.
fn ports_of(service: &Map) -> Vec<u16> {
    let spec = Spec(service);
    // An ExternalName may name ports, and has none.
    if !spec.may_have_node_ports() {
        return Vec::new();
    }
    let mut seen: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    let mut ports = Vec::new();
    for port in spec.ports() {
        let (number, protocol) = (node_port(port), port_str(port, "protocol"));
        if number == 0 {
            continue;
        }
        let protocols = seen.entry(number).or_default();
        if protocols.is_empty() || protocols.contains(protocol) {
            ports.push(number);
        }
        protocols.insert(protocol);
    }
    let health = spec.number("healthCheckNodePort");
    if health != 0 && seen.get(&health).is_none_or(|protocols| protocols.contains("TCP")) {
        ports.push(health);
    }
    ports
}

/// The ports that are to be taken, and what is told of Services. `stored` are those that are taken now.
pub(super) fn rebuild(
    range: PortRange,
    stored: &PortBitmap,
    services: &[Arc<Map>],
    leaks: &mut Leaks,
) -> (PortBitmap, Vec<Problem>) {
    let (mut rebuilt, mut left, mut problems) = (PortBitmap::empty(range), stored.clone(), Vec::new());
    for service in services {
        for port in ports_of(service) {
            let (reason, message) = if !range.contains(port) {
                ("PortOutOfRange", format!("Port {port} is not within the port range {range}; please recreate service"))
            } else if rebuilt.taken(port) {
                (
                    "PortAlreadyAllocated",
                    format!("Port {port} was assigned to multiple services; please recreate service"),
                )
            } else {
                rebuilt.set(port, true);
                leaks.remove(&port);
                if left.taken(port) {
                    left.set(port, false);
                    continue;
                }
                ("PortNotAllocated", format!("Port {port} is not allocated; repairing"))
            };
            problems.push(Problem { service: service.clone(), reason, message });
        }
    }
    leaks.retain(|port, _| left.taken(*port));
    for port in left.ports() {
        match leaks.get(&port).copied().unwrap_or(TIMES - 1) {
            0 => {
                tracing::warn!(port, "a node port has leaked, and is free again");
                leaks.remove(&port);
            }
            times => {
                leaks.insert(port, times - 1);
                rebuilt.set(port, true);
            }
        }
    }
    (rebuilt, problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn range() -> PortRange {
        PortRange::parse("30000-30015").expect("a range")
    }

    fn service(kind: &str, spec: &str) -> Arc<Map> {
        Arc::new(map(&format!("{{metadata: {{name: s}}, spec: {{type: {kind}, {spec}}}}}")))
    }

    fn taken(ports: &[u16]) -> PortBitmap {
        let mut bitmap = PortBitmap::empty(range());
        ports.iter().for_each(|port| bitmap.set(*port, true));
        bitmap
    }

    #[test]
    fn what_services_have_is_taken_and_what_is_wrong_is_told() {
        let mut leaks = Leaks::new();
        let services = [
            service("NodePort", "ports: [{nodePort: 30001, protocol: TCP}, {nodePort: 30001, protocol: UDP}]"),
            service("NodePort", "ports: [{nodePort: 30002, protocol: TCP}]"),
            service("LoadBalancer", "healthCheckNodePort: 30003, ports: [{nodePort: 30002, protocol: TCP}]"),
            service("NodePort", "ports: [{nodePort: 80, protocol: TCP}, {protocol: TCP}]"),
            service("ExternalName", "ports: [{nodePort: 30004, protocol: TCP}]"),
        ];
        let (rebuilt, problems) = rebuild(range(), &taken(&[30001, 30002]), &services, &mut leaks);
        assert_eq!(rebuilt, taken(&[30001, 30002, 30003]));
        let told: Vec<String> = problems.iter().map(|p| format!("{}: {}", p.reason, p.message)).collect();
        assert_eq!(
            told,
            [
                "PortAlreadyAllocated: Port 30002 was assigned to multiple services; please recreate service",
                "PortNotAllocated: Port 30003 is not allocated; repairing",
                "PortOutOfRange: Port 80 is not within the port range 30000-30015; please recreate service",
            ]
        );
        assert!(leaks.is_empty());
    }

    #[test]
    fn ports_of_nobody_are_free_when_they_were_so_three_times() {
        let mut leaks = Leaks::new();
        let stored = taken(&[30005, 30006]);
        let used = [service("NodePort", "ports: [{nodePort: 30006, protocol: TCP}]")];
        assert_eq!(rebuild(range(), &stored, &[], &mut leaks).0, stored);
        assert_eq!(rebuild(range(), &stored, &used, &mut leaks).0, stored);
        assert_eq!(rebuild(range(), &stored, &[], &mut leaks).0, taken(&[30006]), "the other one was used meanwhile");
        assert!(!leaks.contains_key(&30005));
    }
}
