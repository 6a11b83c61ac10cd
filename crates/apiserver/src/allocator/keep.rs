//! What an update keeps of the values that the server gave, and what it gives up with a changed type.

use super::range::Family;
use super::spec::{NONE, Spec, node_port, port_str, set_node_port, set_strings};
use schema::Map;
use std::net::IpAddr;

/// Whether addresses, families and policy can be reasoned about at all.
pub(super) fn well_formed(service: &Map) -> bool {
    let spec = Spec(service);
    let ips = spec.cluster_ips();
    let (named, families) = (spec.strings("ipFamilies"), spec.families());
    let readable = ips.iter().all(|ip| ip == NONE && ips.len() == 1 || ip.parse::<IpAddr>().is_ok());
    let distinct = |a: Option<Family>, b: Option<Family>| a.is_none() || b.is_none() || a != b;
    let family_of = |i: usize| ips.get(i).and_then(|ip| ip.parse().ok()).map(Family::of);
    let matching = (0..ips.len()).all(|i| families.get(i).is_none_or(|f| family_of(i).is_none_or(|of| of == *f)));
    readable
        && matching
        && ips.len() <= 2
        && named.len() == families.len()
        && families.len() <= 2
        && distinct(family_of(0), family_of(1))
        && distinct(families.first().copied(), families.get(1).copied())
        && ips.first().is_none_or(|first| first == spec.str("clusterIP"))
        && matches!(spec.str("ipFamilyPolicy"), "" | "SingleStack" | "PreferDualStack" | "RequireDualStack")
}

/// What an update leaves out of the values the server gave stays as it was.
pub(super) fn keep_allocated(after: &mut Map, before: &Map) {
    let (old, new) = (Spec(before), Spec(after));
    if old.needs_cluster_ip() && new.needs_cluster_ip() {
        let (old_ip, new_ip, no_list) =
            (old.str("clusterIP"), new.str("clusterIP").to_owned(), new.cluster_ips().is_empty());
        if new_ip.is_empty() && !old_ip.is_empty() {
            after.set_at(&["spec", "clusterIP"], old_ip);
        }
        if no_list && (new_ip.is_empty() || new_ip == old_ip) {
            set_strings(after, "clusterIPs", &old.cluster_ips());
        }
    }
    let new = Spec(after);
    // A load balancer that wants no node ports may leave out those it has, to give them back.
    if old.may_have_node_ports() && new.needs_node_ports() {
        let mut used: Vec<u16> = old.node_ports().into_iter().filter(|p| new.node_ports().contains(p)).collect();
        let missing: Vec<(usize, String)> = new
            .ports()
            .iter()
            .enumerate()
            .filter(|(_, p)| node_port(p) == 0)
            .map(|(i, p)| (i, port_str(p, "name").to_owned()))
            .collect();
        for (index, name) in missing {
            let known = old.ports().iter().rev().find(|p| port_str(p, "name") == name).map_or(0, node_port);
            if known != 0 && !used.contains(&known) {
                set_node_port(after, index, known);
                used.push(known);
            }
        }
    }
    let new = Spec(after);
    if old.needs_health_check() && new.needs_health_check() && new.number("healthCheckNodePort") == 0 {
        after.set_at(&["spec", "healthCheckNodePort"], i64::from(old.number("healthCheckNodePort")));
    }
}

/// Brings `clusterIP` and `clusterIPs` together where a client knows only one of them.
pub(super) fn normalize_cluster_ips(after: &mut Map, before: Option<&Map>) {
    let new = Spec(after);
    let (ip, ips) = (new.str("clusterIP").to_owned(), new.cluster_ips());
    let Some(before) = before else {
        if !ip.is_empty() && ips.is_empty() {
            set_strings(after, "clusterIPs", &[ip]);
        }
        return;
    };
    let old = Spec(before);
    let (old_ip, old_ips) = (old.str("clusterIP"), old.cluster_ips());
    if !old_ips.is_empty() && ips.is_empty() && old_ip == ip {
        set_strings(after, "clusterIPs", &old_ips);
    }
    if old_ip != ip && ips == old_ips {
        let cleared = if ip.is_empty() { Vec::new() } else { vec![ip] };
        set_strings(after, "clusterIPs", &cleared);
    }
}

/// Whether a service that prefers two families is left as it is, so that a cluster's change does not change it unasked.
pub(super) fn unchanged_preferring(after: &Map, before: Option<&Map>) -> bool {
    let Some(before) = before else { return false };
    let (old, new) = (Spec(before), Spec(after));
    let prefers = |policy: &str| policy == "PreferDualStack";
    old.kind() == new.kind()
        && new.needs_cluster_ip()
        && prefers(new.str("ipFamilyPolicy"))
        && (old.str("ipFamilyPolicy").is_empty() || prefers(old.str("ipFamilyPolicy")))
        && old.cluster_ips() == new.cluster_ips()
        && old.families() == new.families()
}

/// Clears what the old type needed, the new one does not, and the client did not touch.
pub(super) fn drop_dependent(after: &mut Map, before: &Map) {
    let (old, new) = (Spec(before), Spec(after));
    let same = |key: &str| after.at(&["spec", key]) == before.at(&["spec", key]);
    let mut dropped: Vec<&'static str> = Vec::new();
    if old.needs_cluster_ip() && !new.needs_cluster_ip() {
        if same("clusterIPs") {
            dropped.extend(["clusterIP", "clusterIPs"]);
        }
        dropped.extend(["ipFamilies", "ipFamilyPolicy"].into_iter().filter(|k| same(k)));
    }
    let load_balancer = |s: &Spec<'_>| s.kind() == "LoadBalancer";
    if load_balancer(&old) && !load_balancer(&new) {
        dropped.extend(["allocateLoadBalancerNodePorts", "loadBalancerClass"].into_iter().filter(|k| same(k)));
    }
    if old.needs_health_check() && !new.needs_health_check() && same("healthCheckNodePort") {
        dropped.push("healthCheckNodePort");
    }
    if old.may_have_node_ports() && !new.may_have_node_ports() && same("externalTrafficPolicy") {
        dropped.push("externalTrafficPolicy");
    }
    // Ports may be dropped or change places; none may be new. A load balancer that wants no more of them keeps those it has.
    let had = old.node_ports();
    let node_ports_go = old.may_have_node_ports()
        && !new.may_have_node_ports()
        && new.node_ports().iter().all(|port| had.contains(port));
    let count = new.ports().len();
    for key in dropped {
        after.remove_at(&["spec", key]);
    }
    if node_ports_go {
        (0..count).for_each(|i| set_node_port(after, i, 0));
    }
}
