//! What the table should hold, and what of it changes when a service does.
//!
//! Most elements belong to one port alone. Some can be wanted by several: two services may claim the same
//! external address, two may share an endpoint. Those are kept with all who want them; the one with the
//! least id has its way.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use network::conntrack::Flow;
use network::nft::{Element, ElementData, Family, Verdict, protocol};

use crate::layout::{self, Class, REJECT, Scope, SetName};
use crate::plan::{Entry, Firewall, PortName, PortRules, Refusal};
use crate::state::ServiceName;

/// The place of an element: its set and its key.
type Place = (SetName, Vec<u8>);

/// What the table of one family should hold.
#[derive(Debug)]
pub struct RuleSet {
    family: Family,
    services: BTreeMap<ServiceName, Vec<Port>>,
    ids: HashMap<u64, PortName>,
    /// Who wants the elements that several can want, by rising id.
    claims: HashMap<Place, Vec<(u64, ElementData)>>,
    classes: BTreeSet<Class>,
}

/// A port as it is in the table.
#[derive(Clone, Debug)]
struct Port {
    name: PortName,
    id: u64,
    rules: PortRules,
}

/// What has to change in the kernel.
#[derive(Debug, Default)]
pub struct Delta {
    /// What was there at first and what should be there at last.
    elements: BTreeMap<Place, (Option<ElementData>, Option<ElementData>)>,
    /// Chains to be made.
    pub classes: Vec<Class>,
    /// Firewall chains to be made or written anew: id and rules.
    pub firewalls: BTreeMap<u64, Firewall>,
    /// Firewall chains to be emptied.
    pub stale_firewalls: BTreeSet<u64>,
    /// Whether flows of UDP may lead to endpoints that they should not.
    pub udp_changed: bool,
}

impl Delta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.deleted().next().is_none()
            && self.added().next().is_none()
            && self.classes.is_empty()
            && self.firewalls.is_empty()
            && self.stale_firewalls.is_empty()
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
            ids: HashMap::new(),
            claims: HashMap::new(),
            classes: BTreeSet::new(),
        }
    }

    /// Whether the table is of IPv6.
    pub fn is_ipv6(&self) -> bool {
        self.family == Family::Ip6
    }

    /// Takes what a service asks for now, in place of what it asked for before, and adds to `delta` what
    /// that changes. No two ports of `plan` have the same name.
    pub fn update(&mut self, service: &ServiceName, plan: Vec<(PortName, PortRules)>, delta: &mut Delta) {
        let old = self.services.remove(service).unwrap_or_default();
        let new: Vec<Port> = plan.into_iter().map(|(name, rules)| self.place(name, rules, &old)).collect();
        let ids: BTreeSet<u64> = old.iter().chain(&new).map(|port| port.id).collect();
        for id in &ids {
            let of = |ports: &[Port]| -> BTreeMap<Place, ElementData> {
                ports.iter().filter(|port| port.id == *id).flat_map(|port| self.elements(port)).collect()
            };
            let (before, after) = (of(&old), of(&new));
            for (place, data) in before.iter().filter(|(place, data)| after.get(*place) != Some(*data)) {
                self.withdraw(place, *id, data, delta);
            }
            for (place, data) in after.into_iter().filter(|(place, data)| before.get(place) != Some(data)) {
                self.claim(place, *id, data, delta);
            }
        }
        for port in &new {
            for class in classes(port) {
                if self.classes.insert(class) {
                    delta.classes.push(class);
                    self.claim((SetName::Classes, class.bytes().into()), port.id, class.element().data, delta);
                }
            }
        }
        self.update_firewalls(&old, &new, delta);
        for port in &old {
            if !new.iter().any(|other| other.id == port.id) {
                self.ids.remove(&port.id);
            }
        }
        let of_udp = |ports: &[Port]| -> BTreeMap<u64, PortRules> {
            ports.iter().filter(|p| is_udp(&p.name)).map(|p| (p.id, p.rules.clone())).collect()
        };
        delta.udp_changed |= of_udp(&old) != of_udp(&new);
        if !new.is_empty() {
            self.services.insert(service.clone(), new);
        }
    }

    /// Gives a port its id, and its endpoints their numbers, which they keep as far as possible.
    fn place(&mut self, name: PortName, mut rules: PortRules, old: &[Port]) -> Port {
        if let Some(old) = old.iter().find(|port| port.name == name) {
            rules.cluster = arrange(&old.rules.cluster, rules.cluster);
            rules.local = arrange(&old.rules.local, rules.local);
            return Port { name, id: old.id, rules };
        }
        let id = self.free_id(&name);
        self.ids.insert(id, name.clone());
        Port { name, id, rules }
    }

    /// The hash of the name, which is the same after a restart, so that clients keep their endpoints. Names
    /// are chosen by users, so two with the same hash must not meet.
    fn free_id(&self, name: &PortName) -> u64 {
        let hash = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            (salt, name).hash(&mut hasher);
            hasher.finish() & !1
        };
        (0..).map(hash).find(|id| !self.ids.contains_key(id)).unwrap_or_default()
    }

    /// All elements that a port asks for.
    fn elements(&self, port: &Port) -> Vec<(Place, ElementData)> {
        let (id, rules, protocol) = (port.id, &port.rules, port.name.protocol);
        let mut elements = Vec::new();
        let mut add = |set: SetName, key: Vec<u8>, data: ElementData| elements.push(((set, key), data));
        for way in &rules.ways {
            let key = layout::entry_key(self.family, way.entry, protocol);
            if let Some(class) = class(way.entry, way.policy, rules) {
                let value = [&id.to_be_bytes()[..], &class.bytes()].concat();
                add(SetName::Services, key.clone(), ElementData::Value(value));
            }
            match way.refusal {
                Some(Refusal::Reject) => {
                    add(SetName::NoEndpoints, key, ElementData::Verdict(Verdict::Goto(REJECT.into())));
                }
                Some(Refusal::Drop) => add(SetName::NoEndpoints, key, ElementData::Verdict(Verdict::Drop)),
                None => {}
            }
        }
        for ip in &rules.cluster_ips {
            add(SetName::ClusterIps, layout::octets(*ip), ElementData::None);
        }
        for (scope, endpoints) in self.scopes(rules) {
            for (number, endpoint) in endpoints.iter().enumerate() {
                let target = Element::fields(&[&layout::octets(endpoint.ip()), &endpoint.port().to_be_bytes()]);
                let scoped = layout::scoped(id, scope);
                let key = [&scoped[..], &(number as u32).to_ne_bytes()].concat();
                add(SetName::Endpoints, key, ElementData::Value(target.clone()));
                if rules.affinity.is_some() {
                    add(SetName::StickyEndpoints, [&scoped[..], &target].concat(), ElementData::None);
                }
            }
        }
        for ip in &rules.hairpin {
            let octets = layout::octets(*ip);
            add(SetName::Hairpin, Element::fields(&[&octets, &octets]), ElementData::None);
        }
        if let Some(firewall) = &rules.firewall {
            for ip in &firewall.addresses {
                let key = layout::entry_key(self.family, Entry::Address(*ip, firewall.port), protocol);
                add(SetName::Firewall, key, ElementData::Verdict(Verdict::Goto(firewall_chain(id))));
            }
        }
        elements
    }

    /// The lists of endpoints that are drawn from.
    fn scopes<'a>(&self, rules: &'a PortRules) -> impl Iterator<Item = (Scope, &'a [SocketAddr])> {
        let used = |scope: Scope| {
            rules.ways.iter().filter_map(|way| class(way.entry, way.policy, rules)).any(|class| match scope {
                Scope::Cluster => class.cluster > 0,
                Scope::Local => class.local > 0,
            })
        };
        let scopes = [(Scope::Cluster, rules.cluster.as_slice()), (Scope::Local, rules.local.as_slice())];
        scopes.into_iter().filter(move |(scope, _)| used(*scope))
    }

    fn claim(&mut self, place: Place, id: u64, data: ElementData, delta: &mut Delta) {
        if !shared(place.0) {
            return delta.record(place, None, Some(data));
        }
        let claims = self.claims.entry(place.clone()).or_default();
        let before = claims.first().map(|(_, data)| data.clone());
        claims.push((id, data));
        claims.sort_by_key(|(id, _)| *id);
        let after = claims.first().map(|(_, data)| data.clone());
        delta.record(place, before, after);
    }

    fn withdraw(&mut self, place: &Place, id: u64, data: &ElementData, delta: &mut Delta) {
        if !shared(place.0) {
            return delta.record(place.clone(), Some(data.clone()), None);
        }
        let Some(claims) = self.claims.get_mut(place) else { return };
        let before = claims.first().map(|(_, data)| data.clone());
        if let Some(index) = claims.iter().position(|claim| claim.0 == id && claim.1 == *data) {
            claims.remove(index);
        }
        let after = claims.first().map(|(_, data)| data.clone());
        if claims.is_empty() {
            self.claims.remove(place);
        }
        delta.record(place.clone(), before, after);
    }

    fn update_firewalls(&self, old: &[Port], new: &[Port], delta: &mut Delta) {
        let of = |ports: &[Port], id: u64| ports.iter().find(|p| p.id == id).and_then(|p| p.rules.firewall.clone());
        for port in old.iter().filter(|port| port.rules.firewall.is_some() && of(new, port.id).is_none()) {
            delta.stale_firewalls.insert(port.id);
            delta.firewalls.remove(&port.id);
        }
        for port in new {
            let Some(firewall) = &port.rules.firewall else { continue };
            if of(old, port.id).as_ref() != Some(firewall) {
                delta.firewalls.insert(port.id, firewall.clone());
                delta.stale_firewalls.remove(&port.id);
            }
        }
    }

    /// Everything, as a change from nothing. Classes that no service needs any more are forgotten.
    pub fn full(&mut self) -> Delta {
        let mut delta = Delta { udp_changed: true, ..Delta::default() };
        self.classes = self.services.values().flatten().flat_map(classes).collect();
        self.claims.retain(|(set, _), _| *set != SetName::Classes);
        for class in self.classes.clone() {
            delta.classes.push(class);
            self.claim((SetName::Classes, class.bytes().into()), 0, class.element().data, &mut delta);
        }
        for port in self.services.values().flatten() {
            for (place, data) in self.elements(port) {
                let data = match self.claims.get(&place).and_then(|claims| claims.first()) {
                    Some((_, winner)) => winner.clone(),
                    None => data,
                };
                delta.record(place, None, Some(data));
            }
            if let Some(firewall) = &port.rules.firewall {
                delta.firewalls.insert(port.id, firewall.clone());
            }
        }
        delta
    }

    /// The flows of UDP that lead, or do not lead, where they would if they started now. `vanished` are the
    /// entries that ended meanwhile.
    pub fn stale_flows(&self, flows: &[Flow], delta: &Delta) -> Vec<Flow> {
        let vanished: BTreeSet<Vec<u8>> = delta
            .changes()
            .filter(|((set, _), (_, new))| *set == SetName::Services && new.is_none())
            .map(|((_, key), _)| key.clone())
            .collect();
        flows.iter().filter(|flow| self.is_stale(flow, &vanished)).copied().collect()
    }

    fn is_stale(&self, flow: &Flow, vanished: &BTreeSet<Vec<u8>>) -> bool {
        let asked = flow.original;
        let to = SocketAddr::new(flow.reply.source, flow.reply.source_port);
        let translated = to.ip() != asked.destination || to.port() != asked.destination_port;
        let address = Entry::Address(asked.destination, asked.destination_port);
        for entry in [address, Entry::NodePort(asked.destination_port)] {
            let key = layout::entry_key(self.family, entry, network::Protocol::Udp);
            if translated && vanished.contains(&key) {
                return true;
            }
            let claims = self.claims.get(&(SetName::Services, key));
            let Some(ElementData::Value(value)) = claims.and_then(|claims| claims.first()).map(|(_, data)| data) else {
                continue;
            };
            let id = value.first_chunk().map(|id| u64::from_be_bytes(*id));
            if let Some(rules) = id.and_then(|id| self.rules(id)) {
                return !rules.cluster.contains(&to) && !rules.local.contains(&to);
            }
        }
        false
    }

    fn rules(&self, id: u64) -> Option<&PortRules> {
        let name = self.ids.get(&id)?;
        self.services.get(&name.service)?.iter().find(|port| port.id == id).map(|port| &port.rules)
    }

    /// How many ports there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no port.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// What each port has, whatever its id and the numbers of its endpoints: for comparing two rule sets.
    pub fn normalized(&self) -> BTreeMap<PortName, PortRules> {
        let sorted = |port: &Port| {
            let mut rules = port.rules.clone();
            rules.cluster.sort();
            rules.local.sort();
            (port.name.clone(), rules)
        };
        self.services.values().flatten().map(sorted).collect()
    }
}

/// Whether several ports can want the same element of a set.
fn shared(set: SetName) -> bool {
    !matches!(set, SetName::Endpoints | SetName::StickyEndpoints)
}

fn is_udp(name: &PortName) -> bool {
    name.protocol.number() == protocol::UDP
}

/// The class of an entry; none when there is nowhere to go.
fn class(entry: Entry, policy: Option<crate::plan::Policy>, rules: &PortRules) -> Option<Class> {
    let class = Class::new(entry, policy?, rules.cluster.len(), rules.local.len(), rules.affinity);
    (class.cluster > 0 || class.local > 0).then_some(class)
}

fn classes(port: &Port) -> BTreeSet<Class> {
    port.rules.ways.iter().filter_map(|way| class(way.entry, way.policy, &port.rules)).collect()
}

/// The name of the chain that guards the load balancer addresses of a port.
pub fn firewall_chain(id: u64) -> String {
    format!("firewall-{id:016x}")
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
