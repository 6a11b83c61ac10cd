//! What the table should hold, and what of it changes when a service does.
//!
//! An entry (an address with a port, or a node port) can be claimed by several services; the one with the best
//! right has it, of those the oldest, and of those the one whose name comes first. So an external IP, which
//! anybody may write into a Service, never takes what is another's own. Addresses that several ports mention
//! are counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;

use network::Protocol;
use network::conntrack::Flow;
use network::nft::{Element, ElementData, Family, Verdict, protocol};

use crate::class::{Affinity, Class, Scope, remember_chain};
use crate::layout::{self, REJECT, SetName};
use crate::plan::{Entry, Firewall, Policy, PortName, PortRules, Refusal, Right, Way};
use crate::state::ServiceName;

/// The place of an element: its set and its key.
type Place = (SetName, Vec<u8>);

/// An entry with its protocol.
type Door = (Entry, Protocol);

/// What a port says for having an entry; the least has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Claim {
    right: Right,
    since: Option<i64>,
    name: PortName,
}

/// What the table of one family should hold.
#[derive(Debug)]
pub struct RuleSet {
    family: Family,
    services: BTreeMap<ServiceName, BTreeMap<PortName, PortRules>>,
    /// Who claims an entry, the one who has it first.
    claims: HashMap<Door, Vec<Claim>>,
    /// How many ports mention an address.
    mentions: HashMap<Place, usize>,
    classes: BTreeSet<Class>,
    timeouts: BTreeSet<u32>,
}

/// What has to change in the kernel.
#[derive(Debug, Default)]
pub struct Delta {
    /// What was there at first and what should be there at last.
    elements: BTreeMap<Place, (Option<ElementData>, Option<ElementData>)>,
    /// Chains of classes to be made.
    pub classes: BTreeSet<Class>,
    /// Chains to be made that remember clients, by their time in seconds.
    pub timeouts: BTreeSet<u32>,
    /// Firewall chains to be made or written anew.
    pub firewalls: BTreeMap<PortName, Firewall>,
    /// Firewall chains to be emptied.
    pub stale_firewalls: BTreeSet<PortName>,
    /// Whether flows of UDP may lead to endpoints that they should not.
    pub udp_changed: bool,
    /// Whether clients may be kept with endpoints that they should not be.
    pub affinity_changed: bool,
    /// Entries whose clients are to choose anew.
    forgotten: BTreeSet<Door>,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes().next().is_none()
            && self.classes.is_empty()
            && self.timeouts.is_empty()
            && self.firewalls.is_empty()
            && self.stale_firewalls.is_empty()
            && !self.udp_changed
            && !self.affinity_changed
    }

    /// The elements to be deleted, by set: their keys alone.
    pub fn deleted(&self) -> impl Iterator<Item = (SetName, Element)> {
        let old = self.changes().filter(|(_, (old, _))| old.is_some());
        old.map(|((set, key), _)| (*set, element(key, &ElementData::None)))
    }

    /// The elements to be added, by set.
    pub fn added(&self) -> impl Iterator<Item = (SetName, Element)> {
        self.changes().filter_map(|((set, key), (_, new))| Some((*set, element(key, new.as_ref()?))))
    }

    fn changes(&self) -> impl Iterator<Item = (&Place, &(Option<ElementData>, Option<ElementData>))> {
        self.elements.iter().filter(|(_, (old, new))| old != new)
    }

    fn record(&mut self, place: Place, old: Option<ElementData>, new: Option<ElementData>) {
        self.elements.entry(place).and_modify(|(_, last)| *last = new.clone()).or_insert((old, new));
    }

    fn record_all(&mut self, before: BTreeMap<Place, ElementData>, mut after: BTreeMap<Place, ElementData>) {
        for (place, old) in before {
            let new = after.remove(&place);
            if new.as_ref() != Some(&old) {
                self.record(place, Some(old), new);
            }
        }
        for (place, new) in after {
            self.record(place, None, Some(new));
        }
    }
}

fn element(key: &[u8], data: &ElementData) -> Element {
    Element { key: key.to_vec(), range_end: false, data: data.clone() }
}

impl RuleSet {
    /// A table without services.
    pub fn new(family: Family) -> Self {
        Self {
            family,
            services: BTreeMap::new(),
            claims: HashMap::new(),
            mentions: HashMap::new(),
            classes: BTreeSet::new(),
            timeouts: BTreeSet::new(),
        }
    }

    /// Whether the table is of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.family == Family::Ip6
    }

    /// Takes what a service asks for now, in place of what it asked for before, and adds to `delta` what
    /// that changes. No two ports of `plan` have the same name.
    pub fn update(&mut self, service: &ServiceName, plan: Vec<(PortName, PortRules)>, delta: &mut Delta) {
        let old = self.services.get(service).cloned().unwrap_or_default();
        let new: BTreeMap<PortName, PortRules> =
            plan.into_iter().map(|(name, rules)| keep_places(name, rules, &old)).collect();
        let doors: BTreeSet<Door> = old.iter().chain(&new).flat_map(|(name, rules)| doors(name, rules)).collect();

        let before = doors.iter().flat_map(|door| self.entry_elements(*door)).collect();
        let kept: Vec<_> = doors.iter().map(|door| self.stickiness(*door)).collect();
        self.replace(service, &old, new.clone(), delta);
        let after = doors.iter().flat_map(|door| self.entry_elements(*door)).collect();
        delta.record_all(before, after);

        for (door, before) in doors.iter().zip(kept) {
            let after = self.stickiness(*door);
            if let Some((_, policy, endpoints)) = &before {
                let same = after.as_ref().is_some_and(|(_, now, _)| now == policy);
                if !same {
                    delta.forgotten.insert(*door);
                }
                delta.affinity_changed |= !same || after.is_some_and(|(_, _, now)| !endpoints.is_subset(&now));
            }
            self.need_chains(*door, delta);
        }
        let of_udp = |ports: &BTreeMap<PortName, PortRules>| -> Vec<PortRules> {
            ports
                .iter()
                .filter(|(name, _)| name.protocol.number() == protocol::UDP)
                .map(|(_, rules)| rules.clone())
                .collect()
        };
        delta.udp_changed |= of_udp(&old) != of_udp(&new);
        update_firewalls(&old, &new, delta);
    }

    /// Puts the new ports of a service in the place of the old ones, with their claims and mentions.
    fn replace(
        &mut self,
        service: &ServiceName,
        old: &BTreeMap<PortName, PortRules>,
        new: BTreeMap<PortName, PortRules>,
        delta: &mut Delta,
    ) {
        for (name, rules) in old {
            for door in doors(name, rules) {
                if let Some(claims) = self.claims.get_mut(&door) {
                    claims.retain(|other| other.name != *name);
                    if claims.is_empty() {
                        self.claims.remove(&door);
                    }
                }
            }
        }
        for (name, rules) in &new {
            for way in &rules.ways {
                let claims = self.claims.entry((way.entry, name.protocol)).or_default();
                claims.push(Claim { right: way.right, since: rules.since, name: name.clone() });
                claims.sort();
            }
        }
        for place in new.values().flat_map(mentions) {
            let count = self.mentions.entry(place.clone()).or_default();
            *count += 1;
            if *count == 1 {
                delta.record(place, None, Some(ElementData::None));
            }
        }
        for place in old.values().flat_map(mentions) {
            let Some(count) = self.mentions.get_mut(&place) else { continue };
            *count -= 1;
            if *count == 0 {
                self.mentions.remove(&place);
                delta.record(place, Some(ElementData::None), None);
            }
        }
        if new.is_empty() {
            self.services.remove(service);
        } else {
            self.services.insert(service.clone(), new);
        }
    }

    /// Who has an entry, and what it asks for there.
    fn holder(&self, door: Door) -> Option<(&PortName, &PortRules, Way)> {
        let name = &self.claims.get(&door)?.first()?.name;
        let rules = self.services.get(&name.service)?.get(name)?;
        let way = rules.ways.iter().find(|way| way.entry == door.0)?;
        Some((name, rules, *way))
    }

    /// All elements of an entry.
    fn entry_elements(&self, door: Door) -> Vec<(Place, ElementData)> {
        let Some((name, rules, way)) = self.holder(door) else { return Vec::new() };
        let node_port = matches!(door.0, Entry::NodePort(_));
        let of_kind = |address: SetName, port: SetName| if node_port { port } else { address };
        let key = layout::entry_key(door.0, door.1);
        let goto = |chain: String| ElementData::Verdict(Verdict::Goto(chain));
        let mut elements = Vec::new();
        let mut add = |set: SetName, key: Vec<u8>, data: ElementData| elements.push(((set, key), data));
        if let Some(class) = class(way, rules) {
            add(of_kind(SetName::Services, SetName::NodePorts), key.clone(), goto(class.chain()));
            if let Some(seconds) = rules.affinity {
                add(of_kind(SetName::Sticky, SetName::StickyNodePorts), key.clone(), goto(remember_chain(seconds)));
            }
            let scopes = [(Scope::Cluster, class.cluster, &rules.cluster), (Scope::Local, class.local, &rules.local)];
            for (scope, count, endpoints) in scopes {
                for (number, endpoint) in endpoints.iter().take(count.into()).enumerate() {
                    let numbered = [&key[..], &(number as u32).to_ne_bytes()].concat();
                    let target = Element::fields(&[&layout::octets(endpoint.ip()), &endpoint.port().to_be_bytes()]);
                    add(SetName::endpoints(node_port, scope), numbered, ElementData::Value(target));
                }
            }
        } else if node_port {
            // Whoever has that address and port otherwise does not get what is for the node port.
            add(SetName::NodePorts, key.clone(), ElementData::Verdict(Verdict::Return));
        }
        let no_endpoints = of_kind(SetName::NoEndpoints, SetName::NoEndpointNodePorts);
        match way.refusal {
            Some(Refusal::Reject) => add(no_endpoints, key.clone(), goto(REJECT.into())),
            Some(Refusal::Drop) => add(no_endpoints, key.clone(), ElementData::Verdict(Verdict::Drop)),
            None => {}
        }
        if let (Entry::Address(ip, _), Some(firewall)) = (door.0, &rules.firewall)
            && firewall.addresses.contains(&ip)
        {
            add(SetName::Firewall, key, goto(firewall_chain(name)));
        }
        elements
    }

    /// For an entry whose clients stay with their endpoints: how long, how they chose, and between what.
    fn stickiness(&self, door: Door) -> Option<(u32, Policy, BTreeSet<SocketAddr>)> {
        let (_, rules, way) = self.holder(door)?;
        class(way, rules)?;
        Some((rules.affinity?, way.policy?, allowed(way.policy?, rules).copied().collect()))
    }

    /// Adds the chains that an entry needs and that are not there yet.
    fn need_chains(&mut self, door: Door, delta: &mut Delta) {
        let Some((_, rules, way)) = self.holder(door) else { return };
        let Some(class) = class(way, rules) else { return };
        let seconds = rules.affinity;
        if self.classes.insert(class) {
            delta.classes.insert(class);
        }
        if let Some(seconds) = seconds.filter(|seconds| self.timeouts.insert(*seconds)) {
            delta.timeouts.insert(seconds);
        }
    }

    /// Everything, as a change from nothing. Chains that no service needs any more are forgotten.
    pub fn full(&mut self) -> Delta {
        let mut delta = Delta { udp_changed: true, affinity_changed: true, ..Delta::default() };
        self.classes.clear();
        self.timeouts.clear();
        let doors: Vec<Door> = self.claims.keys().copied().collect();
        for door in doors {
            delta.record_all(BTreeMap::new(), self.entry_elements(door).into_iter().collect());
            self.need_chains(door, &mut delta);
        }
        for place in self.mentions.keys() {
            delta.record(place.clone(), None, Some(ElementData::None));
        }
        for (name, rules) in self.services.values().flatten() {
            if let Some(firewall) = &rules.firewall {
                delta.firewalls.insert(name.clone(), firewall.clone());
            }
        }
        delta
    }

    /// The flows of UDP that lead, or do not lead, where they would if they started now.
    pub fn stale_flows(&self, flows: &[Flow], delta: &Delta) -> Vec<Flow> {
        let is_service = |set: SetName| matches!(set, SetName::Services | SetName::NodePorts);
        let vanished: BTreeSet<&[u8]> = delta
            .changes()
            .filter(|((set, _), (_, new))| {
                is_service(*set) && !matches!(new, Some(ElementData::Verdict(Verdict::Goto(_))))
            })
            .map(|((_, key), _)| key.as_slice())
            .collect();
        flows.iter().filter(|flow| self.is_stale(flow, &vanished)).copied().collect()
    }

    fn is_stale(&self, flow: &Flow, vanished: &BTreeSet<&[u8]>) -> bool {
        let asked = flow.original;
        let to = SocketAddr::new(flow.reply.source, flow.reply.source_port);
        let translated = to.ip() != asked.destination || to.port() != asked.destination_port;
        // Which of the two a packet was for depends on the node's addresses, which are not known here.
        let entries =
            [Entry::Address(asked.destination, asked.destination_port), Entry::NodePort(asked.destination_port)];
        let mut leads = entries.into_iter().filter_map(|entry| {
            let (_, rules, way) = self.holder((entry, Protocol::Udp))?;
            class(way, rules)?;
            Some(rules.cluster.contains(&to) || rules.local.contains(&to))
        });
        let gone = |entry| translated && vanished.contains(layout::entry_key(entry, Protocol::Udp).as_slice());
        match leads.next() {
            Some(first) => !first && !leads.any(|leads| leads),
            None => entries.into_iter().any(gone),
        }
    }

    /// Whether a client is kept with an endpoint that it would not get if it came now.
    pub fn is_stale_affinity(&self, affinity: &Affinity, delta: &Delta) -> bool {
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let Some(protocol) = protocols.into_iter().find(|p| p.number() == affinity.protocol) else { return true };
        let entries = [Entry::Address(affinity.asked, affinity.port), Entry::NodePort(affinity.port)];
        // Which of the two the client was for depends on the node's addresses, which are not known here.
        !entries.map(|entry| (entry, protocol)).into_iter().any(|door| {
            let leads = self.stickiness(door).is_some_and(|(_, _, now)| now.contains(&affinity.endpoint));
            leads && !delta.forgotten.contains(&door)
        })
    }

    /// Whether no service asks for anything.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// What each port has, whatever the numbers of its endpoints: for comparing two rule sets.
    pub fn normalized(&self) -> BTreeMap<PortName, PortRules> {
        let sorted = |(name, rules): (&PortName, &PortRules)| {
            let mut rules = rules.clone();
            rules.cluster.sort();
            rules.local.sort();
            (name.clone(), rules)
        };
        self.services.values().flatten().map(sorted).collect()
    }
}

fn doors(name: &PortName, rules: &PortRules) -> impl Iterator<Item = Door> {
    let protocol = name.protocol;
    rules.ways.iter().map(move |way| (way.entry, protocol))
}

/// The elements that ports share: addresses, whoever mentions them.
fn mentions(rules: &PortRules) -> Vec<Place> {
    let cluster_ips = rules.cluster_ips.iter().map(|ip| (SetName::ClusterIps, layout::octets(*ip)));
    let hairpin = rules.hairpin.iter().map(|ip| {
        let octets = layout::octets(*ip);
        (SetName::Hairpin, Element::fields(&[&octets, &octets]))
    });
    cluster_ips.chain(hairpin).collect()
}

/// Which endpoints a policy leads to.
fn allowed(policy: Policy, rules: &PortRules) -> impl Iterator<Item = &SocketAddr> {
    let cluster = if policy == Policy::InternalLocal { &[] } else { &rules.cluster[..] };
    let local = if matches!(policy, Policy::Internal | Policy::External) { &[] } else { &rules.local[..] };
    cluster.iter().chain(local)
}

/// The class of an entry; none when there is nowhere to go.
fn class(way: Way, rules: &PortRules) -> Option<Class> {
    let sticky = rules.affinity.is_some();
    let class = Class::new(way.entry, way.policy?, rules.cluster.len(), rules.local.len(), sticky);
    (class.cluster > 0 || class.local > 0).then_some(class)
}

fn update_firewalls(old: &BTreeMap<PortName, PortRules>, new: &BTreeMap<PortName, PortRules>, delta: &mut Delta) {
    for (name, rules) in new {
        let Some(firewall) = &rules.firewall else { continue };
        if old.get(name).and_then(|rules| rules.firewall.as_ref()) != Some(firewall) {
            delta.firewalls.insert(name.clone(), firewall.clone());
            delta.stale_firewalls.remove(name);
        }
    }
    for (name, rules) in old {
        if rules.firewall.is_some() && new.get(name).is_none_or(|rules| rules.firewall.is_none()) {
            delta.stale_firewalls.insert(name.clone());
            delta.firewalls.remove(name);
        }
    }
}

/// The name of the chain that guards the load balancer addresses of a port.
pub fn firewall_chain(name: &PortName) -> String {
    let (service, protocol) = (&name.service, name.protocol.name().to_lowercase());
    format!("firewall-{}/{}/{}/{protocol}", service.namespace, service.name, name.port)
}

/// Gives endpoints the numbers that they had, as far as possible.
fn keep_places(name: PortName, mut rules: PortRules, old: &BTreeMap<PortName, PortRules>) -> (PortName, PortRules) {
    if let Some(old) = old.get(&name) {
        rules.cluster = arrange(&old.cluster, rules.cluster);
        rules.local = arrange(&old.local, rules.local);
    }
    (name, rules)
}

/// The new endpoints in an order that changes as few places as possible: who was there stays in place, and
/// who is new, or past the end, takes the places of those who left.
pub fn arrange(old: &[SocketAddr], new: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut waiting: BTreeSet<SocketAddr> = new.iter().copied().collect();
    let count = waiting.len();
    let mut places: Vec<Option<SocketAddr>> = old.iter().take(count).map(|e| waiting.take(e)).collect();
    places.resize(count, None);
    let mut waiting = waiting.into_iter();
    places.into_iter().filter_map(|place| place.or_else(|| waiting.next())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(names: &str) -> Vec<SocketAddr> {
        names.bytes().map(|b| SocketAddr::from(([10, 0, 0, b], 80))).collect()
    }

    #[test]
    fn endpoints_stay_in_their_places() {
        assert_eq!(arrange(&[], endpoints("abc")), endpoints("abc"));
        assert_eq!(arrange(&endpoints("abc"), endpoints("abcd")), endpoints("abcd"));
        // The last one takes the place of the one that left.
        assert_eq!(arrange(&endpoints("abcd"), endpoints("acd")), endpoints("adc"));
        assert_eq!(arrange(&endpoints("adc"), endpoints("dec")), endpoints("edc"));
        assert_eq!(arrange(&endpoints("abc"), endpoints("xy")), endpoints("xy"));
        assert_eq!(arrange(&endpoints("abc"), vec![]), vec![]);
    }
}
