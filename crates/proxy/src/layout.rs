//! The table: its sets and its fixed chains.
//!
//! Whatever there is many of is an element of a hash map; chains and rules are few, whatever the number of
//! services. So the first packet of a connection costs the same with ten services as with 30,000, and a
//! change costs what it changes.
//!
//! ```text
//! services             address . protocol . port → goto class            such as "internal-3": one of 3 endpoints
//! endpoints            address . protocol . port . number → endpoint     from 0 to one less than their number
//! local-endpoints      address . protocol . port . number → endpoint     those on this node
//! no-endpoints         address . protocol . port → reject or drop
//! sticky               address . protocol . port → goto remember         services whose clients keep their endpoint
//! affinity             client . address . protocol . port → endpoint     the one a client keeps, for a time
//! firewall             address . protocol . port → goto firewall         load balancers that only some may use
//! cluster-ips          address                                           no port of these but the services' answers
//! hairpin              address . address                                 endpoints that reach themselves
//! ```
//!
//! `node-ports`, `node-port-endpoints` and so on are the same for node ports: their keys have no address.
//!
//! Every rule is one that `nft` could have written: it is shown as it is, and it has to be. `nft` cannot
//! cope with keys that come out of other maps, and programs that use its library fail with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use network::nft::{
    Chain, ChainKind, CtKey, Element, Expr, Family, Hook, Register, Reject, Rule, Set, SetFlags, SetType, Table,
    Transaction, Verdict, priority,
};
use network::{Cidr, Protocol};

use crate::class::{KEY, Scope, load_entry, remember_rules};
use crate::plan::Entry;

/// The mark of packets whose source is to be translated: the one that upstream uses.
pub(crate) const MASQUERADE_MARK: u32 = 0x4000;

/// How many clients can stay with their endpoints at a time.
const MOST_AFFINITIES: u32 = 1 << 20;

/// Stands in the table's comment; a table of another layout is not taken over but replaced.
const LAYOUT: u32 = 3;

/// The chain of packets to ports without endpoints.
pub const REJECT: &str = "reject";

/// The sets and maps of the table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SetName {
    Services,
    NodePorts,
    Endpoints,
    LocalEndpoints,
    NodePortEndpoints,
    NodePortLocalEndpoints,
    NoEndpoints,
    NoEndpointNodePorts,
    Sticky,
    StickyNodePorts,
    Affinity,
    ClusterIps,
    Firewall,
    Hairpin,
    ClusterCidrs,
    NodePortAddresses,
}

impl SetName {
    /// All of them.
    pub const ALL: [SetName; 16] = [
        SetName::Services,
        SetName::NodePorts,
        SetName::Endpoints,
        SetName::LocalEndpoints,
        SetName::NodePortEndpoints,
        SetName::NodePortLocalEndpoints,
        SetName::NoEndpoints,
        SetName::NoEndpointNodePorts,
        SetName::Sticky,
        SetName::StickyNodePorts,
        SetName::Affinity,
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
            SetName::NodePorts => "node-ports",
            SetName::Endpoints => "endpoints",
            SetName::LocalEndpoints => "local-endpoints",
            SetName::NodePortEndpoints => "node-port-endpoints",
            SetName::NodePortLocalEndpoints => "node-port-local-endpoints",
            SetName::NoEndpoints => "no-endpoints",
            SetName::NoEndpointNodePorts => "no-endpoint-node-ports",
            SetName::Sticky => "sticky",
            SetName::StickyNodePorts => "sticky-node-ports",
            SetName::Affinity => "affinity",
            SetName::ClusterIps => "cluster-ips",
            SetName::Firewall => "firewall",
            SetName::Hairpin => "hairpin",
            SetName::ClusterCidrs => "cluster-cidrs",
            SetName::NodePortAddresses => "node-port-addresses",
        }
    }

    /// The map of endpoints for entries of a kind.
    pub fn endpoints(node_port: bool, scope: Scope) -> Self {
        match (node_port, scope) {
            (false, Scope::Cluster) => SetName::Endpoints,
            (false, Scope::Local) => SetName::LocalEndpoints,
            (true, Scope::Cluster) => SetName::NodePortEndpoints,
            (true, Scope::Local) => SetName::NodePortLocalEndpoints,
        }
    }

    fn definition(self, family: Family) -> Set<'static> {
        let address = SetType::address(family);
        let entry = vec![address, SetType::Protocol, SetType::Port];
        let node_port = vec![SetType::Protocol, SetType::Port];
        let endpoint = vec![address, SetType::Port];
        let numbered = |mut entry: Vec<SetType>| {
            entry.push(SetType::Number);
            entry
        };
        let name = self.name();
        match self {
            SetName::Services | SetName::NoEndpoints | SetName::Sticky | SetName::Firewall => {
                Set::verdict_map(name, entry)
            }
            SetName::NodePorts | SetName::NoEndpointNodePorts | SetName::StickyNodePorts => {
                Set::verdict_map(name, node_port)
            }
            SetName::Endpoints | SetName::LocalEndpoints => Set::map(name, numbered(entry), endpoint),
            SetName::NodePortEndpoints | SetName::NodePortLocalEndpoints => {
                Set::map(name, numbered(node_port), endpoint)
            }
            SetName::Affinity => {
                let client = vec![address, address, SetType::Protocol, SetType::Port];
                let timeout = Some(Duration::from_secs(10_800));
                let flags = SetFlags { dynamic: Some(MOST_AFFINITIES), timeout, ..SetFlags::default() };
                Set::map(name, client, endpoint).with(flags)
            }
            SetName::ClusterIps => Set::of(name, vec![address]),
            SetName::Hairpin => Set::of(name, vec![address, address]),
            SetName::ClusterCidrs | SetName::NodePortAddresses => {
                let flags = SetFlags { interval: true, ..SetFlags::default() };
                Set::of(name, vec![address]).with(flags)
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

/// The key of an entry in the maps.
pub fn entry_key(entry: Entry, protocol: Protocol) -> Vec<u8> {
    let protocol = [protocol.number()];
    match entry {
        Entry::Address(address, port) => Element::fields(&[&octets(address), &protocol, &port.to_be_bytes()]),
        Entry::NodePort(port) => Element::fields(&[&protocol, &port.to_be_bytes()]),
    }
}

/// The bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

impl Layout {
    /// The table's comment, by which an own table of the same layout is known again.
    pub fn comment() -> String {
        format!("Pilothouse service proxy, layout {LAYOUT}")
    }

    pub(crate) fn family(&self) -> Family {
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

    pub(crate) fn knows_cluster(&self) -> bool {
        !self.disjoint(&self.cluster_cidrs).is_empty()
    }

    /// The chains that are there whatever the services, with their rules.
    pub fn fixed_chains(&self) -> Vec<(Chain<'static>, Vec<Rule>)> {
        let nat = |name, hook, priority| Chain::base(name, ChainKind::Nat, hook, priority);
        let filter = |name, hook, priority| Chain::base(name, ChainKind::Filter, hook, priority);
        let dispatch = || vec![Rule::new().jump("services")];
        let new = || Rule::new().ct_state(CtKey::NEW);
        let refuse = || vec![new().jump("refusals")];
        vec![
            (Chain::regular(REJECT), self.reject()),
            (
                Chain::regular("services"),
                vec![
                    // First, so that no external IP that is the node's own takes a node port.
                    self.dispatch(self.to_node_port(), SetName::NodePorts, true),
                    self.dispatch(Rule::new(), SetName::Services, false),
                ],
            ),
            (Chain::regular("refusals"), self.refusals()),
            (Chain::regular("firewall-check"), vec![self.dispatch(Rule::new(), SetName::Firewall, false)]),
            (Chain::regular("remember"), remember_rules(self.family())),
            (nat("nat-prerouting", Hook::Prerouting, priority::DSTNAT), dispatch()),
            (nat("nat-output", Hook::Output, priority::DSTNAT), dispatch()),
            (nat("nat-postrouting", Hook::Postrouting, priority::SRCNAT), self.postrouting()),
            // Before the destination is translated, while it is still the load balancer's.
            (filter("filter-prerouting", Hook::Prerouting, priority::DSTNAT - 10), vec![new().jump("firewall-check")]),
            (filter("filter-input", Hook::Input, priority::FILTER), refuse()),
            (filter("filter-forward", Hook::Forward, priority::FILTER), refuse()),
            (filter("filter-output", Hook::Output, priority::FILTER), refuse()),
            (
                filter("filter-postrouting", Hook::Postrouting, priority::SRCNAT - 10),
                vec![new().ct_status(CtKey::DESTINATION_NAT).jump("remember")],
            ),
        ]
    }

    /// Tells senders so that they stop at once, even where ICMP does not come through.
    fn reject(&self) -> Vec<Rule> {
        let reset = Rule::new().protocol(Protocol::Tcp.number()).expr(Expr::Reject(Reject::TcpReset));
        vec![reset, Rule::new().reject_port(self.family())]
    }

    /// Finds the verdict on the entry that a packet is for.
    fn dispatch(&self, rule: Rule, set: SetName, node_port: bool) -> Rule {
        let (rule, _) = load_entry(self.family(), rule, KEY, node_port);
        rule.expr(Expr::VerdictMap { map: set.name().into(), key: KEY })
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
        vec![
            // What was translated is not what was asked for.
            Rule::new().ct_status(CtKey::DESTINATION_NAT).verdict(Verdict::Return),
            self.dispatch(self.to_node_port(), SetName::NoEndpointNodePorts, true),
            self.dispatch(Rule::new(), SetName::NoEndpoints, false),
            Rule::new().destination_in(self.family(), SetName::ClusterIps.name(), true).goto(REJECT),
        ]
    }

    fn postrouting(&self) -> Vec<Rule> {
        let first = Register::new(0);
        let second = first.offset((self.family().address_length() / 4) as u8);
        let hairpin = Rule::new()
            .expr(Expr::source_address(self.family(), first))
            .expr(Expr::destination_address(self.family(), second))
            .expr(Expr::Lookup { set: SetName::Hairpin.name().into(), key: first, to: None, inverted: false })
            .ct_status(CtKey::DESTINATION_NAT)
            // What this machine sends to itself comes back to it; and loopback may have no address to masquerade with.
            .source_not_local()
            .masquerade();
        vec![hairpin, Rule::new().mark(MASQUERADE_MARK).clear_mark(MASQUERADE_MARK).masquerade()]
    }
}
