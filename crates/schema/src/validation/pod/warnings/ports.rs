//! Ports that several containers of a pod have.

use super::super::container::of_all_kinds;
use crate::validation::warnings::Warnings;
use crate::view::core_v1::{ContainerPort, PodSpec};
use api::Path;
use api::field::go_quote;
use std::collections::{BTreeMap, BTreeSet};

/// Where a port is: the list of containers, the container, the port.
type Place = (&'static str, usize, usize);

/// Every port of a spec, with its place.
fn all<'a>(spec: PodSpec<'a>) -> impl Iterator<Item = (Place, ContainerPort<'a>)> {
    of_all_kinds(spec).flat_map(|(field, i, container)| {
        container.ports().iter().enumerate().map(move |(j, port)| ((field, i, j), port))
    })
}

fn shown(path: &Path<'_>, (field, container, port): Place) -> String {
    path.child(field).index(container).child("ports").index(port).to_string()
}

/// What of a port is held against others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    number: i64,
    protocol: &'a str,
    /// Its port and its address on the host.
    host: i64,
    address: &'a str,
}

impl<'a> Key<'a> {
    fn of(port: ContainerPort<'a>) -> Self {
        Key {
            number: port.container_port().unwrap_or(0),
            protocol: port.protocol().unwrap_or(""),
            host: port.host_port().unwrap_or(0),
            address: port.host_ip().unwrap_or(""),
        }
    }

    /// What one port has to do with another.
    fn clash(self, other: Key<'_>) -> Option<&'static str> {
        if self.number != other.number || self.protocol != other.protocol {
            None
        } else if self.host == other.host && self.address == other.address {
            Some("duplicate")
        } else if self.host == 0 || other.host == 0 {
            Some("overlapping")
        } else if self.host == other.host && self.address.is_empty() != other.address.is_empty() {
            Some("dangerously ambiguous")
        } else {
            None
        }
    }

    /// Whether it has to do with one of these.
    fn clashes(self, known: &BTreeSet<Key<'a>>) -> bool {
        let any = |hosts: std::ops::RangeInclusive<i64>| {
            let first = Key { host: *hosts.start(), address: "", ..self };
            known.range(first..).next().is_some_and(|key| {
                key.number == self.number && key.protocol == self.protocol && hosts.contains(&key.host)
            })
        };
        if self.host == 0 {
            return any(i64::MIN..=i64::MAX);
        }
        let ambiguous = if self.address.is_empty() {
            any(self.host..=self.host)
        } else {
            known.contains(&Key { address: "", ..self })
        };
        ambiguous || any(0..=0) || known.contains(&self)
    }
}

/// Ports that are there more than once. Only for one that has to do with one before it all of those are looked at, and
/// that is told: so it happens until no more is told.
pub(super) fn repeated(out: &mut Warnings, path: &Path<'_>, spec: PodSpec<'_>) {
    let mut known = BTreeSet::new();
    for (place, port) in all(spec) {
        if out.is_full() {
            return;
        }
        let key = Key::of(port);
        if !key.address.is_empty() && key.host == 0 {
            // As Go prints the struct.
            out.push(format!(
                "{}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{}}}",
                shown(path, place),
                port.name().unwrap_or(""),
                key.number,
                key.protocol,
                key.address
            ));
        }
        if key.clashes(&known) {
            for (other_place, other) in all(spec).take_while(|(other, _)| *other != place) {
                let Some(what) = key.clash(Key::of(other)) else { continue };
                let (this, other) = (shown(path, place), shown(path, other_place));
                out.push(format!("{this}: {what} port definition with {other}"));
                if out.is_full() {
                    return;
                }
            }
        }
        known.insert(key);
    }
}

/// Names of ports that are there more than once: the first is found by them.
pub(super) fn names(out: &mut Warnings, path: &Path<'_>, spec: PodSpec<'_>) {
    let mut known: BTreeMap<&str, Place> = BTreeMap::new();
    for (place, port) in all(spec) {
        let Some(name) = port.name().filter(|name| !name.is_empty()) else { continue };
        if out.is_full() {
            return;
        }
        let first = *known.entry(name).or_insert(place);
        if first != place {
            let (this, first) = (shown(path, place), shown(path, first));
            out.push(format!(
                "{this}: duplicate port name {} with {first}, services and probes that select ports by name will use {first}",
                go_quote(name)
            ));
        }
    }
}
