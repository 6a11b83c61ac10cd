//! Ports that several containers of a pod have.

use super::super::container::of_all_kinds;
use crate::view::core_v1::{ContainerPort, PodSpec};
use api::Path;
use api::field::go_quote;
use std::collections::BTreeMap;

/// Every port of a spec, with its place.
fn all<'a>(path: &Path<'_>, spec: PodSpec<'a>) -> Vec<(String, ContainerPort<'a>)> {
    let mut out = Vec::new();
    for (field, i, container) in of_all_kinds(spec) {
        let list = path.child(field);
        let container_path = list.index(i);
        let ports = container_path.child("ports");
        out.extend(container.ports().iter().enumerate().map(|(i, port)| (ports.index(i).to_string(), port)));
    }
    out
}

/// The port and the address of the host.
fn of_host<'a>(port: ContainerPort<'a>) -> (i64, &'a str) {
    (port.host_port().unwrap_or(0), port.host_ip().unwrap_or(""))
}

/// Ports that are there more than once.
pub(super) fn repeated(out: &mut Vec<String>, path: &Path<'_>, spec: PodSpec<'_>) {
    let mut known: BTreeMap<(i64, &str), Vec<(String, ContainerPort<'_>)>> = BTreeMap::new();
    for (place, port) in all(path, spec) {
        let (number, protocol) = (port.container_port().unwrap_or(0), port.protocol().unwrap_or(""));
        let (host, address) = of_host(port);
        if !address.is_empty() && host == 0 {
            // As Go prints the struct.
            out.push(format!(
                "{place}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{}}}",
                port.name().unwrap_or(""),
                address
            ));
        }
        let others = known.entry((number, protocol)).or_default();
        for (other_place, other) in others.iter() {
            let (other_host, other_address) = of_host(*other);
            let what = if host == other_host && address == other_address {
                "duplicate"
            } else if host == 0 || other_host == 0 {
                "overlapping"
            } else if host == other_host && address.is_empty() != other_address.is_empty() {
                "dangerously ambiguous"
            } else {
                continue;
            };
            out.push(format!("{place}: {what} port definition with {other_place}"));
        }
        others.push((place, port));
    }
}

/// Names of ports that are there more than once: the first is found by them.
pub(super) fn names(out: &mut Vec<String>, path: &Path<'_>, spec: PodSpec<'_>) {
    let mut known: BTreeMap<&str, String> = BTreeMap::new();
    for (place, port) in all(path, spec) {
        let Some(name) = port.name().filter(|name| !name.is_empty()) else { continue };
        match known.get(name) {
            Some(first) => out.push(format!(
                "{place}: duplicate port name {} with {first}, services and probes that select ports by name will use {first}",
                go_quote(name)
            )),
            None => {
                known.insert(name, place);
            }
        }
    }
}
