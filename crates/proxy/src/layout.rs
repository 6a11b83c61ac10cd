//! The table: its sets, its fixed chains, and the chains that choose an endpoint.
//!
//! Whatever there is many of is an element of a hash map; chains and rules are few, whatever the number of
//! services. So the first packet of a connection costs the same with ten services as with 30,000, and a
//! change costs what it changes.
//!
//! ```text
//! services            address . protocol . port → id . class     what a packet is for, and how it is handled
//! classes             class → goto chain                         such as "internal-3": one of 3 endpoints
//! endpoints           id . number → address . port               the endpoints of a service port
//! sticky-endpoints    id . address . port                        those that clients may stay with
//! affinity            id . client → id . address . port          the endpoint a client stays with, for a time
//! no-endpoints        address . protocol . port → reject or drop
//! cluster-ips         address                                    no port of these but the services' answers
//! firewall            address . protocol . port → goto chain     load balancers that only some may use
//! hairpin             address . address                          endpoints that reach themselves
//! ```
//!
//! A node port is an entry whose address is zero. An id is 64 bits of a hash of the port's name; its last
//! bit says whether the numbers count all endpoints of the cluster or only those on this node.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use network::nft::{
    Chain, ChainKind, CtKey, DynamicSet, Element, Expr, Family, Hook, Meta, Register, Reject, Rule, Set, SetFlags,
    SetType, Table, Transaction, Verdict, priority,
};
use network::{Cidr, Protocol};

use crate::plan::{Entry, Policy};

/// The mark of packets whose source is to be translated: the one that upstream uses.
const MASQUERADE_MARK: u32 = 0x4000;

/// How many clients can stay with their endpoints at a time.
const MOST_AFFINITIES: u32 = 1 << 20;

/// Stands in the table's comment; a table of another layout is not taken over but replaced.
const LAYOUT: u32 = 1;

/// The chain of packets to ports without endpoints.
pub const REJECT: &str = "reject";

/// The sets and maps of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SetName {
    Services,
    Classes,
    Endpoints,
    StickyEndpoints,
    Affinity,
    NoEndpoints,
    ClusterIps,
    Firewall,
    Hairpin,
    ClusterCidrs,
    NodePortAddresses,
}

impl SetName {
    /// All of them.
    pub const ALL: [SetName; 11] = [
        SetName::Services,
        SetName::Classes,
        SetName::Endpoints,
        SetName::StickyEndpoints,
        SetName::Affinity,
        SetName::NoEndpoints,
        SetName::ClusterIps,
        SetName::Firewall,
        SetName::Hairpin,
        SetName::ClusterCidrs,
        SetName::NodePortAddresses,
    ];

    /// Its name in the kernel.
    pub const fn name(self) -> &'static str {
        match self {
            SetName::Services => "services",
            SetName::Classes => "classes",
            SetName::Endpoints => "endpoints",
            SetName::StickyEndpoints => "sticky-endpoints",
            SetName::Affinity => "affinity",
            SetName::NoEndpoints => "no-endpoints",
            SetName::ClusterIps => "cluster-ips",
            SetName::Firewall => "firewall",
            SetName::Hairpin => "hairpin",
            SetName::ClusterCidrs => "cluster-cidrs",
            SetName::NodePortAddresses => "node-port-addresses",
        }
    }

    fn definition(self, family: Family) -> Set<'static> {
        let address = SetType::address(family);
        let entry = vec![address, SetType::Protocol, SetType::Port];
        let number = SetType::Number;
        match self {
            SetName::Services => Set::map(self.name(), entry, vec![number; 4]),
            SetName::Classes => Set::verdict_map(self.name(), vec![number; 2]),
            SetName::Endpoints => Set::map(self.name(), vec![number; 3], vec![address, SetType::Port]),
            SetName::StickyEndpoints => Set::of(self.name(), vec![number, number, address, SetType::Port]),
            SetName::Affinity => {
                let data = vec![number, number, address, SetType::Port];
                let timeout = Some(Duration::from_secs(10_800));
                let flags = SetFlags { dynamic: Some(MOST_AFFINITIES), timeout, ..SetFlags::default() };
                Set::map(self.name(), vec![number, number, address], data).with(flags)
            }
            SetName::NoEndpoints | SetName::Firewall => Set::verdict_map(self.name(), entry),
            SetName::ClusterIps => Set::of(self.name(), vec![address]),
            SetName::Hairpin => Set::of(self.name(), vec![address, address]),
            SetName::ClusterCidrs | SetName::NodePortAddresses => {
                let flags = SetFlags { interval: true, ..SetFlags::default() };
                Set::of(self.name(), vec![address]).with(flags)
            }
        }
    }
}

/// What the table of a cluster is like, besides its services.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The table.
    pub table: Table,
    /// Where pods are. Traffic from elsewhere to cluster IPs gets the node's address as its source; empty
    /// when that is not known.
    pub cluster_cidrs: Vec<Cidr>,
    /// Whether all traffic to cluster IPs gets the node's address as its source.
    pub masquerade_all: bool,
    /// At which addresses of the node node ports are; at all but loopback when not given.
    pub node_port_addresses: Option<Vec<Cidr>>,
}

/// How packets of an entry are handled. Entries of the same class share a chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Class {
    /// Whether the entry is a node port.
    pub node_port: bool,
    /// Where packets go.
    pub policy: Policy,
    /// How many endpoints the cluster has, if they matter.
    pub cluster: u16,
    /// How many endpoints this node has, if they matter.
    pub local: u16,
    /// For how many seconds a client stays with its endpoint; 0 when it does not.
    pub affinity: u32,
}

/// Whose endpoints are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All of the cluster.
    Cluster,
    /// Those on this node.
    Local,
}

impl Class {
    /// The class without the counts that its policy does not need.
    pub fn new(entry: Entry, policy: Policy, cluster: usize, local: usize, affinity: Option<u32>) -> Self {
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let needs_cluster = policy != Policy::InternalLocal;
        let needs_local = matches!(policy, Policy::InternalLocal | Policy::ExternalLocal);
        Self {
            node_port: matches!(entry, Entry::NodePort(_)),
            policy,
            cluster: if needs_cluster { count(cluster) } else { 0 },
            local: if needs_local { count(local) } else { 0 },
            affinity: affinity.unwrap_or(0),
        }
    }

    /// Its bytes in the maps.
    pub fn bytes(self) -> [u8; 8] {
        let counts = (u32::from(self.cluster) << 16) | u32::from(self.local);
        let policy = match self.policy {
            Policy::Internal => 0u32,
            Policy::InternalLocal => 1,
            Policy::External => 2,
            Policy::ExternalLocal => 3,
        };
        // An affinity lasts a day at most, which takes 17 bits.
        let rest = self.affinity | (policy << 24) | (u32::from(self.node_port) << 31);
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&counts.to_be_bytes());
        bytes[4..].copy_from_slice(&rest.to_be_bytes());
        bytes
    }

    /// The name of its chain.
    pub fn chain(self) -> String {
        let mut name = String::from(if self.node_port { "node-port-" } else { "" });
        let (cluster, local) = (self.cluster, self.local);
        name += &match self.policy {
            Policy::Internal => format!("internal-{cluster}"),
            Policy::InternalLocal => format!("internal-local-{local}"),
            Policy::External => format!("external-{cluster}"),
            Policy::ExternalLocal => format!("external-local-{local}-of-{cluster}"),
        };
        if self.affinity > 0 {
            name += &format!("-sticky-{}", self.affinity);
        }
        name
    }

    /// The element that leads to its chain.
    pub fn element(self) -> Element {
        Element::verdict(self.bytes().into(), Verdict::Goto(self.chain()))
    }
}

/// The key of an entry in the maps.
pub fn entry_key(family: Family, entry: Entry, protocol: Protocol) -> Vec<u8> {
    let (address, port) = match entry {
        Entry::Address(address, port) => (octets(address), port),
        Entry::NodePort(port) => (vec![0; family.address_length() as usize], port),
    };
    Element::fields(&[&address, &[protocol.number()], &port.to_be_bytes()])
}

/// The address and port that a key of an entry is for; the address is unspecified for a node port.
pub fn entry_of_key(key: &[u8]) -> Option<(IpAddr, u8, u16)> {
    let (address, rest) = key.split_at_checked(key.len().checked_sub(8)?)?;
    let address = match address.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)),
        _ => return None,
    };
    Some((address, rest[0], u16::from_be_bytes([rest[4], rest[5]])))
}

/// The bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An id with the scope in its last bit.
pub fn scoped(id: u64, scope: Scope) -> [u8; 8] {
    let scope = u64::from(scope == Scope::Local);
    ((id & !1) | scope).to_be_bytes()
}

impl Layout {
    /// The table's comment, by which an own table of the same layout is known again.
    pub fn comment() -> String {
        format!("Pilothouse service proxy, layout {LAYOUT}")
    }

    fn family(&self) -> Family {
        self.table.family
    }

    /// Adds the sets, which stay as they are when they exist.
    pub fn add_sets(&self, t: &mut Transaction) {
        for set in SetName::ALL {
            t.add_set(&self.table, &set.definition(self.family()));
        }
        let mut add = |set: SetName, ranges: &[Cidr]| {
            let elements: Vec<Element> = self.disjoint(ranges).into_iter().flat_map(Element::range).collect();
            t.add_elements(&self.table, set.name(), &elements);
        };
        add(SetName::ClusterCidrs, &self.cluster_cidrs);
        add(SetName::NodePortAddresses, self.node_port_addresses.as_deref().unwrap_or_default());
    }

    /// The ranges of this family, without those that are part of others, as interval sets need.
    fn disjoint(&self, ranges: &[Cidr]) -> Vec<Cidr> {
        let mut sorted: Vec<Cidr> =
            ranges.iter().copied().filter(|range| range.is_ipv6() == (self.family() == Family::Ip6)).collect();
        sorted.sort_by_key(|range| (range.prefix(), range.network()));
        let mut kept: Vec<Cidr> = Vec::new();
        for range in sorted {
            if !kept.iter().any(|wider| wider.contains(range.network())) {
                kept.push(range);
            }
        }
        kept
    }

    fn knows_cluster(&self) -> bool {
        !self.disjoint(&self.cluster_cidrs).is_empty()
    }

    /// The chains that are there whatever the services, with their rules.
    pub fn fixed_chains(&self) -> Vec<(Chain<'static>, Vec<Rule>)> {
        let nat = |name, hook, priority| Chain::base(name, ChainKind::Nat, hook, priority);
        let filter = |name, hook, priority| Chain::base(name, ChainKind::Filter, hook, priority);
        let dispatch = || vec![Rule::new().jump("services")];
        let refuse = || vec![Rule::new().ct_state(CtKey::NEW).jump("refusals")];
        vec![
            (Chain::regular(REJECT), self.reject()),
            (Chain::regular("services"), self.services()),
            (Chain::regular("refusals"), self.refusals()),
            (nat("nat-prerouting", Hook::Prerouting, priority::DSTNAT), dispatch()),
            (nat("nat-output", Hook::Output, priority::DSTNAT), dispatch()),
            (nat("nat-postrouting", Hook::Postrouting, priority::SRCNAT), self.postrouting()),
            // Before the destination is translated, while it is still the load balancer's.
            (
                filter("filter-prerouting", Hook::Prerouting, priority::DSTNAT - 10),
                vec![Rule::new().ct_state(CtKey::NEW).jump("firewall-check")],
            ),
            (Chain::regular("firewall-check"), vec![self.entry_verdict(SetName::Firewall)]),
            (filter("filter-input", Hook::Input, priority::FILTER), refuse()),
            (filter("filter-forward", Hook::Forward, priority::FILTER), refuse()),
            (filter("filter-output", Hook::Output, priority::FILTER), refuse()),
        ]
    }

    /// Tells senders so that they stop at once, even where ICMP does not come through.
    fn reject(&self) -> Vec<Rule> {
        let reset = Rule::new().protocol(Protocol::Tcp.number()).expr(Expr::Reject(Reject::TcpReset));
        vec![reset, Rule::new().reject_port(self.family())]
    }

    /// Finds what a packet is for and goes to the chain of its class.
    fn services(&self) -> Vec<Rule> {
        let to_class = |rule: Rule, node_port: bool| {
            self.find_service(rule, node_port)
                .expr(Expr::VerdictMap { map: SetName::Classes.name().into(), key: CLASS })
        };
        vec![to_class(Rule::new(), false), to_class(self.to_node_port(), true)]
    }

    /// Matches packets to an address at which node ports are.
    fn to_node_port(&self) -> Rule {
        let rule = Rule::new().destination_local();
        let loopback = if self.family() == Family::Ip6 {
            Some(Cidr::single(Ipv6Addr::LOCALHOST.into()))
        } else {
            Cidr::new(Ipv4Addr::LOCALHOST.into(), 8)
        };
        match (&self.node_port_addresses, loopback) {
            (Some(_), _) => rule.destination_in(self.family(), SetName::NodePortAddresses.name(), true),
            (None, Some(loopback)) => rule.destination_not(loopback),
            (None, None) => rule,
        }
    }

    /// Refuses packets to ports without endpoints, and to ports of cluster IPs that no service has.
    fn refusals(&self) -> Vec<Rule> {
        let no_endpoints = |rule: Rule, node_port: bool| {
            let map = SetName::NoEndpoints.name().into();
            self.load_entry(rule, node_port).expr(Expr::VerdictMap { map, key: ENTRY })
        };
        vec![
            // What was translated is not what was asked for.
            Rule::new().ct_status(CtKey::DESTINATION_NAT).verdict(Verdict::Return),
            no_endpoints(Rule::new(), false),
            no_endpoints(self.to_node_port(), true),
            Rule::new().destination_in(self.family(), SetName::ClusterIps.name(), true).goto(REJECT),
        ]
    }

    fn entry_verdict(&self, set: SetName) -> Rule {
        self.load_entry(Rule::new(), false).expr(Expr::VerdictMap { map: set.name().into(), key: ENTRY })
    }

    fn postrouting(&self) -> Vec<Rule> {
        let second = Register::new((self.family().address_length() / 4) as u8);
        let hairpin = Rule::new()
            .expr(Expr::source_address(self.family(), Register::new(0)))
            .expr(Expr::destination_address(self.family(), second))
            .expr(lookup(SetName::Hairpin, Register::new(0), None))
            .ct_status(CtKey::DESTINATION_NAT)
            .masquerade();
        let marked = Rule::new().mark(MASQUERADE_MARK);
        vec![hairpin, marked.clear_mark(MASQUERADE_MARK).masquerade()]
    }

    /// Adds the chain of a class with its rules; empties it first if it exists.
    pub fn add_class(&self, t: &mut Transaction, class: Class) {
        let name = class.chain();
        t.add_chain(&self.table, &Chain::regular(name.as_str()));
        t.flush_chain(&self.table, &name);
        for rule in self.class_rules(class) {
            t.add_rule(&self.table, &name, &rule);
        }
    }

    /// The rules of a class.
    pub fn class_rules(&self, class: Class) -> Vec<Rule> {
        let choose = |guard: &Rule, scope: Scope| {
            let count = if scope == Scope::Cluster { class.cluster } else { class.local };
            self.choose_endpoint(guard, class, scope, count)
        };
        let mut rules = Vec::new();
        match class.policy {
            Policy::Internal if self.masquerade_all => rules.push(Rule::new().set_mark(MASQUERADE_MARK)),
            Policy::Internal | Policy::InternalLocal if self.knows_cluster() => {
                // The node itself is answered at whatever address of its own it sends from.
                let outside = Rule::new().source_in(self.family(), SetName::ClusterCidrs.name(), false);
                rules.push(outside.source_not_local().set_mark(MASQUERADE_MARK));
            }
            Policy::External => rules.push(Rule::new().set_mark(MASQUERADE_MARK)),
            Policy::ExternalLocal => {
                // Traffic from inside goes anywhere, as if it had gone out and come back in.
                if self.knows_cluster() {
                    let pods = Rule::new().source_in(self.family(), SetName::ClusterCidrs.name(), true);
                    rules.extend(choose(&pods, Scope::Cluster));
                }
                let node = Rule::new().source_local();
                rules.push(node.clone().set_mark(MASQUERADE_MARK));
                rules.extend(choose(&node, Scope::Cluster));
            }
            Policy::Internal | Policy::InternalLocal => {}
        }
        let local = matches!(class.policy, Policy::InternalLocal | Policy::ExternalLocal);
        rules.extend(choose(&Rule::new(), if local { Scope::Local } else { Scope::Cluster }));
        rules
    }

    /// Rules that translate the destination of what `guard` matches to one of `count` endpoints.
    fn choose_endpoint(&self, guard: &Rule, class: Class, scope: Scope, count: u16) -> Vec<Rule> {
        if count == 0 {
            return Vec::new();
        }
        let family = self.family();
        let start = || {
            let rule = self.find_service(guard.clone(), class.node_port);
            if scope == Scope::Local { rule.expr(local_scope()) } else { rule }
        };
        let draw = |rule: Rule| {
            rule.expr(Expr::Random { modulus: u32::from(count), to: NUMBER }).expr(lookup(
                SetName::Endpoints,
                ID,
                Some(TARGET),
            ))
        };
        let translate = |rule: Rule| {
            rule.expr(Expr::DestinationNat { family, address: TARGET, port: Some(after_address(family, TARGET)) })
        };
        if class.affinity == 0 {
            return vec![translate(draw(start()))];
        }
        let change = |delete: bool| {
            Expr::Dynamic(DynamicSet {
                set: Cow::Borrowed(SetName::Affinity.name()),
                delete,
                key: ID,
                data: Some(TARGET_ID),
                timeout: (!delete).then(|| Duration::from_secs(class.affinity.into())),
            })
        };
        let client = || Expr::source_address(family, CLIENT);
        // The endpoint of last time, if it still is one.
        let stay = start()
            .expr(client())
            .expr(lookup(SetName::Affinity, ID, Some(TARGET_ID)))
            .expr(lookup(SetName::StickyEndpoints, TARGET_ID, None))
            .expr(change(false));
        // Another one, which takes its place: an update alone keeps the old one.
        let forget = start().expr(client()).expr(lookup(SetName::Affinity, ID, Some(TARGET_ID))).expr(change(true));
        let copy_id = Expr::Bitwise { from: ID, to: TARGET_ID, mask: vec![0xff; 8], xor: vec![0; 8] };
        let settle = draw(start()).expr(copy_id).expr(client()).expr(change(false));
        vec![translate(stay), forget, translate(settle)]
    }

    /// Loads the entry that a packet is for.
    fn load_entry(&self, rule: Rule, node_port: bool) -> Rule {
        let family = self.family();
        let protocol = after_address(family, ENTRY);
        let address = if node_port {
            Expr::Immediate { to: ENTRY, value: vec![0; family.address_length() as usize] }
        } else {
            Expr::destination_address(family, ENTRY)
        };
        rule.expr(address)
            .expr(Expr::Meta { key: Meta::Protocol, to: protocol })
            .expr(Expr::destination_port(next(protocol)))
    }

    /// Loads the id and the class of the service that a packet is for.
    fn find_service(&self, rule: Rule, node_port: bool) -> Rule {
        self.load_entry(rule, node_port).expr(lookup(SetName::Services, ENTRY, Some(ID)))
    }
}

// Which registers hold what. Two that overlap are not needed at the same time.
//
//          0    1    2     3     4  5  6    7    8 … 11           12
// find     id   id   class class entry: address, protocol, port (6 registers with IPv6)
// draw     id   id   number
// stay     id   id   client (2 … 5 with IPv6)
//                              target: id  id  address          port
const ID: Register = Register::new(0);
const CLASS: Register = Register::new(2);
const NUMBER: Register = Register::new(2);
const CLIENT: Register = Register::new(2);
const ENTRY: Register = Register::new(4);
const TARGET_ID: Register = Register::new(6);
const TARGET: Register = Register::new(8);

/// The register after an address that starts at `register`.
fn after_address(family: Family, register: Register) -> Register {
    register.offset((family.address_length() / 4) as u8)
}

fn next(register: Register) -> Register {
    register.offset(1)
}

fn lookup(set: SetName, key: Register, to: Option<Register>) -> Expr {
    Expr::Lookup { set: Cow::Borrowed(set.name()), key, to, inverted: false }
}

/// Sets the last bit of the id.
fn local_scope() -> Expr {
    let mut xor = vec![0; 8];
    xor[7] = 1;
    Expr::Bitwise { from: ID, to: ID, mask: vec![0xff; 8], xor }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_different_handling_have_different_bytes_and_chains() {
        let entries = [Entry::NodePort(1), Entry::Address(Ipv4Addr::LOCALHOST.into(), 1)];
        let policies = [Policy::Internal, Policy::InternalLocal, Policy::External, Policy::ExternalLocal];
        let mut classes = std::collections::BTreeSet::new();
        for entry in entries {
            for policy in policies {
                for (cluster, local) in [(1, 0), (2, 1), (300, 300)] {
                    for affinity in [None, Some(1), Some(86_400)] {
                        classes.insert(Class::new(entry, policy, cluster, local, affinity));
                    }
                }
            }
        }
        let bytes: std::collections::BTreeSet<_> = classes.iter().map(|c| c.bytes()).collect();
        let chains: std::collections::BTreeSet<_> = classes.iter().map(|c| c.chain()).collect();
        assert_eq!((bytes.len(), chains.len()), (classes.len(), classes.len()));
        assert!(chains.contains("node-port-external-local-1-of-2-sticky-86400"), "{chains:?}");
        assert!(chains.contains("internal-300"));
    }

    #[test]
    fn keys_of_entries_are_read_back() {
        let address: IpAddr = "10.96.0.10".parse().unwrap();
        let key = entry_key(Family::Ip, Entry::Address(address, 53), Protocol::Udp);
        assert_eq!(entry_of_key(&key), Some((address, 17, 53)));
        let key = entry_key(Family::Ip6, Entry::NodePort(30_008), Protocol::Tcp);
        assert_eq!(entry_of_key(&key), Some((Ipv6Addr::UNSPECIFIED.into(), 6, 30_008)));
        assert_eq!(entry_of_key(&[1, 2]), None);
    }
}
