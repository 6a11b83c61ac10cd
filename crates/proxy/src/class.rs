//! Classes of entries: how packets that arrive somewhere get to an endpoint.
//!
//! Entries of the same class share a chain, so there are few chains whatever the number of services.

use std::net::IpAddr;

use network::nft::{Chain, CtDirection, CtKey, DynamicSet, Element, Expr, Family, Meta, Register, Rule, Transaction};

use crate::layout::{Layout, MASQUERADE_MARK, SetName};
use crate::plan::{Entry, Policy};

/// How packets of an entry are handled.
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
    /// Whether clients stay with their endpoints.
    pub sticky: bool,
}

/// Whose endpoints are drawn from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All of the cluster.
    Cluster,
    /// Those on this node.
    Local,
}

impl Class {
    /// The class without the counts that its policy does not need.
    pub fn new(entry: Entry, policy: Policy, cluster: usize, local: usize, sticky: bool) -> Self {
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        let needs_cluster = policy != Policy::InternalLocal;
        let needs_local = matches!(policy, Policy::InternalLocal | Policy::ExternalLocal);
        Self {
            node_port: matches!(entry, Entry::NodePort(_)),
            policy,
            cluster: if needs_cluster { count(cluster) } else { 0 },
            local: if needs_local { count(local) } else { 0 },
            sticky,
        }
    }

    /// The name of its chain.
    pub fn chain(self) -> String {
        let (cluster, local) = (self.cluster, self.local);
        let policy = match self.policy {
            Policy::Internal => format!("internal-{cluster}"),
            Policy::InternalLocal => format!("internal-local-{local}"),
            Policy::External => format!("external-{cluster}"),
            Policy::ExternalLocal => format!("external-local-{local}-of-{cluster}"),
        };
        let kind = if self.node_port { "node-port-" } else { "" };
        format!("{kind}{policy}{}", if self.sticky { "-sticky" } else { "" })
    }

    /// Adds its chain with its rules; empties it first if it exists.
    pub fn add(self, layout: &Layout, t: &mut Transaction) {
        let name = self.chain();
        t.add_chain(&layout.table, &Chain::regular(name.as_str()));
        t.flush_chain(&layout.table, &name);
        for rule in self.rules(layout) {
            t.add_rule(&layout.table, &name, &rule);
        }
    }

    fn rules(self, layout: &Layout) -> Vec<Rule> {
        let family = layout.family();
        let mark = |rule: Rule| rule.set_mark(MASQUERADE_MARK);
        let mut rules = Vec::new();
        match self.policy {
            Policy::Internal if layout.masquerade_all => rules.push(mark(Rule::new())),
            Policy::Internal | Policy::InternalLocal if layout.knows_cluster() => {
                // The node itself is answered at whatever address of its own it sends from.
                let outside = Rule::new().source_in(family, SetName::ClusterCidrs.name(), false);
                rules.push(mark(outside.source_not_local()));
            }
            Policy::External => rules.push(mark(Rule::new())),
            Policy::ExternalLocal => {
                // Traffic from inside goes anywhere, as if it had gone out and come back in.
                if layout.knows_cluster() {
                    let pods = Rule::new().source_in(family, SetName::ClusterCidrs.name(), true);
                    rules.extend(self.choose(family, &pods, Scope::Cluster));
                }
                let node = Rule::new().source_local();
                rules.push(mark(node.clone()));
                rules.extend(self.choose(family, &node, Scope::Cluster));
            }
            Policy::Internal | Policy::InternalLocal => {}
        }
        let local = matches!(self.policy, Policy::InternalLocal | Policy::ExternalLocal);
        rules.extend(self.choose(family, &Rule::new(), if local { Scope::Local } else { Scope::Cluster }));
        rules
    }

    /// Rules that translate the destination of what `guard` matches: to the endpoint of last time if there
    /// is one, and else to one that is drawn.
    fn choose(self, family: Family, guard: &Rule, scope: Scope) -> Vec<Rule> {
        let count = if scope == Scope::Cluster { self.cluster } else { self.local };
        if count == 0 {
            return Vec::new();
        }
        let translate = |rule: Rule, set: SetName| {
            let lookup = Expr::Lookup { set: set.name().into(), key: KEY, to: Some(TARGET), inverted: false };
            let port = after_address(family, TARGET);
            rule.expr(lookup).expr(Expr::DestinationNat { family, address: TARGET, port: Some(port) })
        };
        let mut rules = Vec::new();
        if self.sticky {
            let client = guard.clone().expr(Expr::source_address(family, KEY));
            let (rule, _) = load_entry(family, client, after_address(family, KEY), false);
            rules.push(translate(rule, SetName::Affinity));
        }
        let (rule, number) = load_entry(family, guard.clone(), KEY, self.node_port);
        let draw = rule.expr(Expr::Random { modulus: u32::from(count), to: number });
        rules.push(translate(draw, SetName::endpoints(self.node_port, scope)));
        rules
    }
}

/// The name of the chain that remembers which endpoint a client got, for so many seconds.
pub fn remember_chain(seconds: u32) -> String {
    format!("remember-{seconds}")
}

/// Adds that chain. Packets come here after their destination was translated, when connection tracking
/// still knows what they were sent to.
pub fn add_remember(layout: &Layout, t: &mut Transaction, seconds: u32) {
    let family = layout.family();
    let (source, destination) = ct_addresses(family);
    let original = |key: CtKey, to: Register| Expr::Ct { key, direction: Some(CtDirection::Original), to };
    let asked = after_address(family, KEY);
    let protocol = after_address(family, asked);
    let rule = Rule::new()
        .expr(original(source, KEY))
        .expr(original(destination, asked))
        .expr(Expr::Meta { key: Meta::Protocol, to: protocol })
        .expr(original(CtKey::ProtoDestination, protocol.offset(1)))
        .expr(Expr::destination_address(family, TARGET))
        .expr(Expr::destination_port(after_address(family, TARGET)))
        .expr(Expr::Dynamic(DynamicSet {
            set: SetName::Affinity.name().into(),
            delete: false,
            key: KEY,
            data: Some(TARGET),
            timeout: Some(std::time::Duration::from_secs(seconds.into())),
        }));
    let name = remember_chain(seconds);
    t.add_chain(&layout.table, &Chain::regular(name.as_str()));
    t.flush_chain(&layout.table, &name);
    t.add_rule(&layout.table, &name, &rule);
}

/// Rules that send what was translated for a sticky service to the chain that remembers it.
pub fn remember_rules(family: Family) -> Vec<Rule> {
    let (_, destination) = ct_addresses(family);
    let original = |key: CtKey, to: Register| Expr::Ct { key, direction: Some(CtDirection::Original), to };
    let protocol = after_address(family, KEY);
    let load = |rule: Rule| {
        rule.expr(Expr::Meta { key: Meta::Protocol, to: protocol })
            .expr(original(CtKey::ProtoDestination, protocol.offset(1)))
    };
    vec![
        load(Rule::new().expr(original(destination, KEY)))
            .expr(Expr::VerdictMap { map: SetName::Sticky.name().into(), key: KEY }),
        load(Rule::new()).expr(Expr::VerdictMap { map: SetName::StickyNodePorts.name().into(), key: protocol }),
    ]
}

fn ct_addresses(family: Family) -> (CtKey, CtKey) {
    match family {
        Family::Ip6 => (CtKey::Ipv6Source, CtKey::Ipv6Destination),
        _ => (CtKey::Ipv4Source, CtKey::Ipv4Destination),
    }
}

/// What an element of the affinity map says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Affinity {
    /// The address that the client asked.
    pub asked: IpAddr,
    /// The protocol.
    pub protocol: u8,
    /// The port that it asked.
    pub port: u16,
    /// The endpoint that it got.
    pub endpoint: std::net::SocketAddr,
}

impl Affinity {
    /// Reads an element; none when it has not the shape of one.
    pub fn parse(family: Family, element: &Element) -> Option<Self> {
        let length = family.address_length() as usize;
        let network::nft::ElementData::Value(value) = &element.data else { return None };
        let key = element.key.get(length..)?;
        let port = |bytes: &[u8]| Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]));
        Some(Self {
            asked: address(key.get(..length)?)?,
            protocol: *key.get(length)?,
            port: port(key.get(length + 4..)?)?,
            endpoint: std::net::SocketAddr::new(address(value.get(..length)?)?, port(value.get(length..)?)?),
        })
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// Where keys of maps are put together: up to ten registers, for two IPv6 addresses, a protocol and a port.
pub(crate) const KEY: Register = Register::new(0);
/// Where the endpoint is: an address, and its port after it.
const TARGET: Register = Register::new(10);

/// The register after an address that starts at `register`.
fn after_address(family: Family, register: Register) -> Register {
    register.offset((family.address_length() / 4) as u8)
}

/// Loads the entry that a packet is for, from `start` on: address, protocol and port, or for a node port
/// protocol and port. Returns the register after it, too.
pub(crate) fn load_entry(family: Family, rule: Rule, start: Register, node_port: bool) -> (Rule, Register) {
    let (rule, protocol) = if node_port {
        (rule, start)
    } else {
        (rule.expr(Expr::destination_address(family, start)), after_address(family, start))
    };
    let port = protocol.offset(1);
    let rule = rule.expr(Expr::Meta { key: Meta::Protocol, to: protocol }).expr(Expr::destination_port(port));
    (rule, port.offset(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn classes_of_different_handling_have_different_chains() {
        let entries = [Entry::NodePort(1), Entry::Address(Ipv4Addr::LOCALHOST.into(), 1)];
        let policies = [Policy::Internal, Policy::InternalLocal, Policy::External, Policy::ExternalLocal];
        let mut classes = BTreeSet::new();
        for (entry, policy) in entries.into_iter().flat_map(|entry| policies.map(|policy| (entry, policy))) {
            for (cluster, local) in [(1, 0), (2, 1), (300, 300)] {
                classes.insert(Class::new(entry, policy, cluster, local, false));
                classes.insert(Class::new(entry, policy, cluster, local, true));
            }
        }
        let chains: BTreeSet<_> = classes.iter().map(|class| class.chain()).collect();
        assert_eq!(chains.len(), classes.len());
        assert!(
            chains.contains("node-port-external-local-1-of-2-sticky") && chains.contains("internal-300"),
            "{chains:?}"
        );
    }

    #[test]
    fn affinities_are_read() {
        let key = Element::fields(&[&[10, 0, 0, 9], &[10, 96, 0, 5], &[6], &80u16.to_be_bytes()]);
        let element = Element::value(key, Element::fields(&[&[10, 1, 0, 2], &8080u16.to_be_bytes()]));
        let affinity = Affinity::parse(Family::Ip, &element).unwrap();
        assert_eq!((affinity.asked.to_string(), affinity.protocol, affinity.port), ("10.96.0.5".into(), 6, 80));
        assert_eq!(affinity.endpoint.to_string(), "10.1.0.2:8080");
        assert_eq!(Affinity::parse(Family::Ip6, &element), None);
    }
}
