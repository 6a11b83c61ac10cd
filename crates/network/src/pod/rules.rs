//! The nftables table of the pod network: host ports, masquerading, and loopback kept from pods.

use std::net::IpAddr;

use super::record::{Sandbox, specific_address};
use super::{PortMapping, Protocol};
use crate::netlink::address_bytes;
use crate::nft::{
    BaseChain, Chain, ChainKind, CtKey, Element, Expr, Family, Hook, Meta, Nft, Register, Rule, Set, SetFlags, SetType,
    Table, Transaction, priority,
};
use crate::{Cidr, Result, sysctl};

const CLUSTER: &str = "cluster";
const HOST_PORTS: &str = "host-ports";
const HOST_PORTS_AT: &str = "host-ports-at";
const HAIRPIN: &str = "hairpin";
const IP_FORWARD: &str = "ipv4/ip_forward";

/// The table's comment says what this machine was like, for [`uninstall`]. Like the setting, it lasts until
/// the machine restarts.
const COMMENT: &str = "Pilothouse pod network";
const COMMENT_FORWARD_WAS_OFF: &str = "Pilothouse pod network, ip_forward was 0";

/// What the table is made from.
pub(super) struct Plan<'a> {
    pub(super) table: &'a Table,
    pub(super) interface_prefix: &'a str,
    pub(super) pod_cidr: Cidr,
    pub(super) cluster_cidrs: &'a [Cidr],
    pub(super) sandboxes: Vec<&'a Sandbox>,
}

/// Replaces the table in one transaction and turns forwarding on. What forwarding was before is remembered
/// by the tables of all clusters on the machine, so that the last one that goes gives it back.
pub(super) fn install(nft: &mut Nft, plan: &Plan<'_>) -> Result<()> {
    let forwarding = sysctl::read(IP_FORWARD)? == "1";
    let was_off = !forwarding || nft.tables()?.iter().any(|(_, comment)| comment == COMMENT_FORWARD_WAS_OFF);
    nft.commit(transaction(plan, if was_off { COMMENT_FORWARD_WAS_OFF } else { COMMENT }))?;
    if !forwarding {
        sysctl::write(IP_FORWARD, "1")?;
    }
    Ok(())
}

/// Deletes the table, and turns forwarding off again if it was off and no other cluster needs it.
pub(super) fn uninstall(nft: &mut Nft, table: &Table) -> Result<()> {
    let tables = nft.tables()?;
    let (own, others): (Vec<_>, Vec<_>) = tables.iter().partition(|(other, _)| other == table);
    let Some((_, comment)) = own.first() else { return Ok(()) };
    let needed = others.iter().any(|(_, comment)| comment.starts_with(COMMENT));
    if comment == COMMENT_FORWARD_WAS_OFF && !needed {
        sysctl::write(IP_FORWARD, "0")?;
    }
    let mut transaction = Transaction::new();
    transaction.delete_table(table);
    nft.commit(transaction)
}

fn transaction(plan: &Plan<'_>, comment: &str) -> Transaction {
    let table = plan.table;
    let mut t = Transaction::new();
    t.replace_table(table, Some(comment));
    t.add_set(
        table,
        &Set::of(CLUSTER, vec![SetType::Ipv4Address]).with(SetFlags { interval: true, ..Default::default() }),
    );
    t.add_set(table, &Set::of(HAIRPIN, vec![SetType::Ipv4Address, SetType::Ipv4Address]));
    let endpoint = vec![SetType::Ipv4Address, SetType::Port];
    t.add_set(table, &Set::map(HOST_PORTS, vec![SetType::Protocol, SetType::Port], endpoint.clone()));
    t.add_set(table, &Set::map(HOST_PORTS_AT, vec![SetType::Ipv4Address, SetType::Protocol, SetType::Port], endpoint));

    let mut ranges = plan.cluster_cidrs.to_vec();
    ranges.push(plan.pod_cidr);
    let elements: Vec<Element> = disjoint(&ranges).into_iter().flat_map(Element::range).collect();
    t.add_elements(table, CLUSTER, &elements);

    protect_loopback(&mut t, plan);
    host_ports(&mut t, table);
    postrouting(&mut t, plan);
    for sandbox in &plan.sandboxes {
        add_ports(&mut t, table, sandbox);
    }
    t
}

/// The interfaces of pods route loopback addresses (for host ports at 127.0.0.1), so pods are kept from
/// using them here.
fn protect_loopback(t: &mut Transaction, plan: &Plan<'_>) {
    const CHAIN: &str = "loopback";
    let loopback = Cidr::new(IpAddr::from([127, 0, 0, 0]), 8).unwrap_or(plan.pod_cidr);
    t.add_chain(plan.table, &Chain::base(CHAIN, ChainKind::Filter, Hook::Prerouting, priority::RAW));
    let from_pods = || Rule::new().input_prefix(plan.interface_prefix);
    t.add_rule(plan.table, CHAIN, &from_pods().destination(loopback).drop());
    t.add_rule(plan.table, CHAIN, &from_pods().source(loopback).drop());
}

fn host_ports(t: &mut Transaction, table: &Table) {
    t.add_chain(table, &Chain::regular(HOST_PORTS));
    let [address, protocol, port] = [Register::new(0), Register::new(1), Register::new(2)];
    let [to_address, to_port] = [Register::new(4), Register::new(5)];
    let load = Rule::new()
        .expr(Expr::destination_address(Family::Ip, address))
        .expr(Expr::Meta { key: Meta::Protocol, to: protocol })
        .expr(Expr::destination_port(port));
    for (map, key) in [(HOST_PORTS_AT, address), (HOST_PORTS, protocol)] {
        let lookup = Expr::Lookup { set: map.into(), key, to: Some(to_address), inverted: false };
        let translate = Expr::DestinationNat { family: Family::Ip, address: to_address, port: Some(to_port) };
        t.add_rule(table, HOST_PORTS, &load.clone().expr(lookup).expr(translate));
    }
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        t.add_chain(table, &Chain::base(chain, ChainKind::Nat, hook, priority::DSTNAT));
        t.add_rule(table, chain, &Rule::new().destination_local().jump(HOST_PORTS));
    }
}

fn postrouting(t: &mut Transaction, plan: &Plan<'_>) {
    const CHAIN: &str = "postrouting";
    let table = plan.table;
    let loopback = Cidr::new(IpAddr::from([127, 0, 0, 0]), 8).unwrap_or(plan.pod_cidr);
    let multicast = Cidr::new(IpAddr::from([224, 0, 0, 0]), 4).unwrap_or(plan.pod_cidr);
    t.add_chain(table, &Chain::base(CHAIN, ChainKind::Nat, Hook::Postrouting, priority::SRCNAT));
    let hairpin = Rule::new()
        .expr(Expr::source_address(Family::Ip, Register::new(0)))
        .expr(Expr::destination_address(Family::Ip, Register::new(1)))
        .expr(Expr::Lookup { set: HAIRPIN.into(), key: Register::new(0), to: None, inverted: false });
    let rules = [
        Rule::new().output_prefix(plan.interface_prefix).source(loopback).masquerade(),
        hairpin.ct_status(CtKey::DESTINATION_NAT).masquerade(),
        Rule::new()
            .source(plan.pod_cidr)
            .destination_in(Family::Ip, CLUSTER, false)
            .destination_not(multicast)
            .masquerade()
            .comment("pods to the world outside"),
    ];
    for rule in rules {
        t.add_rule(table, CHAIN, &rule);
    }
}

/// The changes that map the ports of a sandbox.
pub(super) fn map_ports(table: &Table, sandbox: &Sandbox) -> Transaction {
    let mut t = Transaction::new();
    add_ports(&mut t, table, sandbox);
    t
}

fn add_ports(t: &mut Transaction, table: &Table, sandbox: &Sandbox) {
    for (set, elements) in elements(sandbox) {
        t.add_elements(table, set, &elements);
    }
}

/// Deletes the mappings of a sandbox. What is not there (any more) is no error.
pub(super) fn unmap_ports(nft: &mut Nft, table: &Table, sandbox: &Sandbox) -> Result<()> {
    for (set, elements) in elements(sandbox) {
        nft.delete_elements_if_any(table, set, &elements)?;
    }
    Ok(())
}

fn elements(sandbox: &Sandbox) -> [(&'static str, Vec<Element>); 3] {
    let Some(ip) = sandbox.ips.iter().find(|ip| ip.is_ipv4()).filter(|_| !sandbox.ports.is_empty()) else {
        return [(HOST_PORTS, Vec::new()), (HOST_PORTS_AT, Vec::new()), (HAIRPIN, Vec::new())];
    };
    let ip = address_bytes(*ip);
    let (mut any, mut at) = (Vec::new(), Vec::new());
    for mapping in &sandbox.ports {
        let protocol = [Protocol::number(mapping.protocol)];
        let port = mapping.host_port.to_be_bytes();
        let value = Element::fields(&[&ip, &mapping.container_port.to_be_bytes()]);
        match specific_address(mapping) {
            None => any.push(Element::value(Element::fields(&[&protocol, &port]), value)),
            Some(host) if host.is_ipv4() => {
                at.push(Element::value(Element::fields(&[&address_bytes(host), &protocol, &port]), value));
            }
            Some(_) => log_ipv6(sandbox, mapping),
        }
    }
    [(HOST_PORTS, any), (HOST_PORTS_AT, at), (HAIRPIN, vec![Element::new(Element::fields(&[&ip, &ip]))])]
}

fn log_ipv6(sandbox: &Sandbox, mapping: &PortMapping) {
    tracing::warn!(
        pod = format!("{}/{}", sandbox.namespace, sandbox.name),
        host_ip = ?mapping.host_ip,
        "a host port at an IPv6 address leads nowhere: the pod has only an IPv4 address"
    );
}

/// Without the ranges that are part of others, as interval sets need.
fn disjoint(ranges: &[Cidr]) -> Vec<Cidr> {
    let mut sorted: Vec<Cidr> = ranges.iter().copied().filter(|range| !range.is_ipv6()).collect();
    sorted.sort_by_key(|range| (range.prefix(), range.network()));
    let mut kept: Vec<Cidr> = Vec::new();
    for range in sorted {
        if !kept.iter().any(|wider| wider.contains(range.network())) {
            kept.push(range);
        }
    }
    kept
}

/// Chains of others that drop what is forwarded unless a rule of theirs accepts it. An own rule cannot
/// overrule them.
pub(super) fn forwarding_warnings(chains: &[BaseChain], cidrs: &[Cidr]) -> Vec<String> {
    let ranges = cidrs.iter().map(Cidr::to_string).collect::<Vec<_>>().join(", ");
    chains
        .iter()
        .filter(|chain| chain.drops && chain.hook == Hook::Forward as u32)
        .filter(|chain| matches!(chain.table.family, Family::Ip | Family::Inet))
        .map(|chain| {
            format!(
                "the firewall chain {:?} of the table {:?} drops forwarded packets unless a rule of its own accepts \
                 them: pods may reach nothing. Accept there what comes from and goes to {ranges}",
                chain.name, chain.table.name
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_within_others_are_left_out() {
        let ranges: Vec<Cidr> = ["10.244.1.0/24", "10.244.0.0/16", "192.0.2.0/24", "10.244.1.0/24", "fd00::/64"]
            .map(|text| text.parse().unwrap())
            .into();
        let kept: Vec<String> = disjoint(&ranges).iter().map(Cidr::to_string).collect();
        assert_eq!(kept, ["10.244.0.0/16", "192.0.2.0/24"]);
    }

    #[test]
    fn only_dropping_forward_chains_are_warned_of() {
        let chain = |hook, drops, family| BaseChain {
            table: Table::new(family, "filter"),
            name: "FORWARD".into(),
            hook,
            drops,
            rules: 1,
        };
        let cidrs = ["10.244.0.0/16".parse().unwrap()];
        assert!(forwarding_warnings(&[chain(2, false, Family::Ip), chain(1, true, Family::Ip)], &cidrs).is_empty());
        assert!(forwarding_warnings(&[chain(2, true, Family::Ip6)], &cidrs).is_empty());
        let warnings = forwarding_warnings(&[chain(2, true, Family::Ip)], &cidrs);
        assert!(warnings[0].contains("\"FORWARD\"") && warnings[0].contains("10.244.0.0/16"), "{warnings:?}");
    }
}
