//! Network policies.

use super::SPEC;
use crate::tree::Map;
use crate::validation::fields::{
    Errors, Values, cidr, json, label_selector_with, network, parse_cidr, port_num, problems, required, supported_of,
    twice,
};
use crate::validation::warnings::{Warnings, range as range_warnings};
use crate::view::networking_v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec};
use crate::view::{IntOrString, List};
use api::{FieldError, Path, names};

type Peers<'a> = List<'a, NetworkPolicyPeer<'a>>;
type Ports<'a> = List<'a, NetworkPolicyPort<'a>>;
/// Each rule with its place: direction, index, ports, name of the peers' field, peers.
type Rules<'a> = Vec<(&'static str, usize, Ports<'a>, &'static str, Peers<'a>)>;

fn rules<'a>(spec: NetworkPolicySpec<'a>) -> Rules<'a> {
    let ingress = spec.ingress().iter().enumerate().map(|(i, rule)| ("ingress", i, rule.ports(), "from", rule.from()));
    let egress = spec.egress().iter().enumerate().map(|(i, rule)| ("egress", i, rule.ports(), "to", rule.to()));
    ingress.chain(egress).collect()
}

/// The ranges that a policy speaks of.
fn ranges(object: &Map) -> Vec<&str> {
    let Some(spec) = NetworkPolicy(object).spec() else { return Vec::new() };
    let peers = rules(spec).into_iter().flat_map(|(.., peers)| peers.iter());
    let blocks = peers.filter_map(|peer| peer.ip_block());
    blocks.flat_map(|block| block.cidr().into_iter().chain(block.except().iter())).collect()
}

/// What was there before and is let pass.
struct Known<'a> {
    /// These are not looked at again.
    ranges: Vec<&'a str>,
    /// Of selectors, once the one of the policy's own pods was wrong.
    values: Values,
}

pub(in crate::validation) fn policy(object: &Map) -> Errors {
    checked(object, &Known { ranges: Vec::new(), values: Values::Checked })
}

pub(in crate::validation) fn policy_update(_: &str, new: &Map, old: &Map) -> Errors {
    let values = Values::after(NetworkPolicy(old).spec().and_then(|spec| spec.pod_selector()));
    twice(checked(new, &Known { ranges: ranges(old), values }))
}

fn checked(object: &Map, known: &Known<'_>) -> Errors {
    let mut errors = Errors::new();
    let empty = Map::new();
    let spec = NetworkPolicy(object).spec().unwrap_or(NetworkPolicySpec(&empty));
    label_selector_with(&mut errors, &SPEC.child("podSelector"), spec.pod_selector(), known.values);
    for (direction, i, ports, field, peers) in rules(spec) {
        let path = SPEC.child(direction);
        let path = path.index(i);
        for (i, port) in ports.iter().enumerate() {
            let path = path.child("ports");
            port_rules(&mut errors, &path.index(i), port);
        }
        for (i, peer) in peers.iter().enumerate() {
            let path = path.child(field);
            peer_rules(&mut errors, &path.index(i), peer, known);
        }
    }
    let path = SPEC.child("policyTypes");
    let types = spec.policy_types();
    if types.len() > 2 {
        let why = "may not specify more than two policyTypes";
        errors.push(FieldError::invalid(&path, json(spec.0.get("policyTypes")), why));
        return errors;
    }
    for (i, kind) in types.iter().enumerate() {
        supported_of(&mut errors, &path.index(i), Some(kind), &["Ingress", "Egress"]);
    }
    errors
}

fn port_rules(errors: &mut Errors, path: &Path<'_>, port: NetworkPolicyPort<'_>) {
    supported_of(errors, &path.child("protocol"), port.protocol(), &["TCP", "UDP", "SCTP"]);
    let end = path.child("endPort");
    let no_end = |errors: &mut Errors, why: &str| {
        if let Some(value) = port.end_port() {
            errors.push(FieldError::invalid(&end, value, why));
        }
    };
    match port.port() {
        None => no_end(errors, "may not be specified when `port` is not specified"),
        Some(IntOrString::Str(name)) => {
            no_end(errors, "may not be specified when `port` is non-numeric");
            problems(errors, &path.child("port"), name, names::port_name(name));
        }
        Some(IntOrString::Int(number)) => {
            port_num(errors, &path.child("port"), number);
            let Some(last) = port.end_port() else { return };
            if last < number {
                // Upstream shows the port that the end is held against.
                errors.push(FieldError::invalid(&end, number, "must be greater than or equal to `port`"));
            }
            port_num(errors, &end, last);
        }
    }
}

fn peer_rules(errors: &mut Errors, path: &Path<'_>, peer: NetworkPolicyPeer<'_>, known: &Known<'_>) {
    label_selector_with(errors, &path.child("podSelector"), peer.pod_selector(), known.values);
    label_selector_with(errors, &path.child("namespaceSelector"), peer.namespace_selector(), known.values);
    if let Some(block) = peer.ip_block() {
        block_rules(errors, &path.child("ipBlock"), block, &known.ranges);
    }
    let selects = peer.pod_selector().is_some() || peer.namespace_selector().is_some();
    match (selects, peer.ip_block().is_some()) {
        (false, false) => errors.push(FieldError::required(path, "must specify a peer")),
        (true, true) => errors.push(FieldError::forbidden(path, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn block_rules(errors: &mut Errors, path: &Path<'_>, block: IPBlock<'_>, known: &[&str]) {
    if !required(errors, &path.child("cidr"), block.cidr()) {
        return;
    }
    let range = |path: &Path<'_>, text: &str, errors: &mut Errors| {
        if known.contains(&text) { parse_cidr(text) } else { cidr(errors, path, text) }
    };
    let Some(whole) = range(&path.child("cidr"), block.cidr().unwrap_or(""), errors) else { return };
    for (i, text) in block.except().iter().enumerate() {
        let path = path.child("except");
        let path = path.index(i);
        let Some(part) = range(&path, text, errors) else { continue };
        let inside =
            part.0.is_ipv4() == whole.0.is_ipv4() && network((part.0, whole.1)) == network(whole) && whole.1 < part.1;
        if !inside {
            errors.push(FieldError::invalid(&path, text, "must be a strict subset of `cidr`"));
        }
    }
}

/// Ranges that are understood, but written as they should not be.
pub(in crate::validation) fn policy_warnings(new: &Map, _: Option<&Map>) -> Warnings {
    let mut out = Warnings::new();
    let Some(spec) = NetworkPolicy(new).spec() else { return out };
    for (direction, i, _, field, peers) in rules(spec) {
        let path = SPEC.child(direction);
        let path = path.index(i);
        for (i, block) in peers.iter().enumerate().filter_map(|(i, peer)| Some((i, peer.ip_block()?))) {
            let path = path.child(field);
            let path = path.index(i);
            let path = path.child("ipBlock");
            range_warnings(&mut out, &path.child("cidr"), block.cidr().unwrap_or(""));
            for (i, text) in block.except().iter().enumerate() {
                let path = path.child("except");
                range_warnings(&mut out, &path.index(i), text);
            }
        }
    }
    out
}
