//! A node with pods and a world outside, each a network namespace, and the proxy's tables on it.

#![allow(dead_code, reason = "not every test needs everything")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use network::Cidr;
use network::netns::Namespace;
use network::nft::{Chain, Element, ElementData, Family, Nft, Set, SetType, Transaction, Verdict};
use network::pod::{PodIdentity, PodNetwork, PodNetworkConfig};
use network::rtnl::{Changes, RouteScope, Rtnl, VethPair};
use proxy::kernel::{self, KernelTable};
use proxy::layout::{Layout, SetName};
use proxy::plan::plan_service;
use proxy::ruleset::{Delta, RuleSet};
use proxy::state::State;
use serde_json::Value;

use super::cluster;

pub(crate) const CLUSTER: &str = "test-cluster";
pub(crate) const NODE: &str = "192.0.2.1";
pub(crate) const OUTSIDE: &str = "192.0.2.9";

const PATIENCE: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(300);

pub(crate) struct Machine {
    pub(crate) outside: Namespace,
    network: PodNetwork,
}

pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
}

/// Runs `test` as the node of a machine that nobody else is on.
pub(crate) fn on_a_machine(test: impl FnOnce(&Machine) + Send) {
    let node = Namespace::anonymous().expect("network namespaces need root");
    let state = tempfile::tempdir().unwrap();
    let outside = Namespace::anonymous().unwrap();
    node.run(|| {
        connect_outside(&outside);
        let network = PodNetwork::new(PodNetworkConfig {
            cluster: CLUSTER.into(),
            state_dir: state.path().into(),
            cluster_cidrs: vec!["10.77.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            mtu: Some(1400),
        })
        .unwrap();
        network.set_pod_cidr("10.77.3.0/24").unwrap();
        test(&Machine { outside, network });
    })
    .unwrap();
}

fn connect_outside(outside: &Namespace) {
    let mut rtnl = Rtnl::open().unwrap();
    let mut changes = Changes::new();
    changes.add_veth(&VethPair {
        name: "uplink0",
        mac: [2, 0, 0, 0, 0, 1],
        peer_namespace: outside.as_fd(),
        peer_name: "node0",
        peer_mac: [2, 0, 0, 0, 0, 2],
        mtu: 1500,
    });
    rtnl.apply(&changes).unwrap();
    configure("uplink0", NODE, OUTSIDE);
    outside.run(|| configure("node0", OUTSIDE, NODE)).unwrap();
    rtnl.wait_until_running("uplink0").unwrap();
}

fn configure(link: &str, own: &str, other: &str) {
    let mut rtnl = Rtnl::open().unwrap();
    let mut changes = Changes::new();
    changes.set_up(rtnl.index("lo").unwrap());
    let link = rtnl.index(link).unwrap();
    changes.add_address(link, own.parse().unwrap(), RouteScope::Universe, None);
    changes.set_up(link);
    changes.add_link_route(Cidr::single(other.parse().unwrap()), link, None);
    rtnl.apply(&changes).unwrap();
}

impl Machine {
    pub(crate) fn pod(&self, name: &str) -> Pod {
        let namespace = Namespace::anonymous().unwrap();
        let identity =
            PodIdentity { namespace: "default".into(), name: name.into(), uid: name.into(), sandbox: name.into() };
        let attachment = self.network.attach(&namespace, &identity, &[]).unwrap();
        Pod { namespace, name: name.into(), ip: attachment.ips[0] }
    }

    /// A pod that answers on port 8080 with its name and the client's address.
    pub(crate) fn web_pod(&self, name: &'static str) -> Pod {
        let pod = self.pod(name);
        serve(&pod.namespace, "0.0.0.0:8080", name);
        pod
    }

    /// Makes the machine outside send packets for a range to the node.
    pub(crate) fn route_outside(&self, range: &str) {
        let range: Cidr = range.parse().unwrap();
        self.outside
            .run(|| {
                let mut rtnl = Rtnl::open().unwrap();
                let mut changes = Changes::new();
                changes.add_gateway_route(range, rtnl.index("node0").unwrap(), NODE.parse().unwrap());
                rtnl.apply(&changes).unwrap();
            })
            .unwrap();
    }

    /// Gives the node more addresses, and a way for packets to everywhere.
    pub(crate) fn own_addresses(&self, addresses: &[IpAddr]) {
        let mut rtnl = Rtnl::open().unwrap();
        let lo = rtnl.index("lo").unwrap();
        let mut changes = Changes::new();
        for address in addresses {
            changes.add_address(lo, *address, RouteScope::Universe, None);
        }
        changes.add_link_route("fd00:96::/112".parse().unwrap(), lo, None);
        rtnl.apply(&changes).unwrap();
    }

    pub(crate) fn proxy(&self) -> Proxy {
        self.proxy_of(Family::Ip)
    }

    pub(crate) fn proxy_of(&self, family: Family) -> Proxy {
        let layout = Layout {
            table: kernel::table(CLUSTER, family),
            cluster_cidrs: vec!["10.77.0.0/16".parse().unwrap(), "fd00::/16".parse().unwrap()],
            masquerade_all: false,
            node_port_addresses: None,
        };
        Proxy {
            state: State::new(cluster::NODE),
            rules: RuleSet::new(family),
            table: KernelTable::open(layout).unwrap(),
            written: false,
            family,
        }
    }
}

/// The proxy without its watches.
pub(crate) struct Proxy {
    state: State,
    rules: RuleSet,
    table: KernelTable,
    written: bool,
    family: Family,
}

impl Proxy {
    /// Takes objects and writes the tables: as a whole at first, then what changed.
    pub(crate) fn apply(&mut self, objects: &[Value]) {
        for object in objects {
            cluster::apply(&mut self.state, object);
        }
        let mut delta = Delta::default();
        for service in self.state.take_dirty() {
            let plan = plan_service(&self.state, &service, self.rules.is_ipv6());
            self.rules.update(&service, plan, &mut delta);
        }
        if self.written {
            self.table.apply(&self.rules, &delta).unwrap();
        } else {
            self.table.replace(&mut self.rules).unwrap();
        }
        self.written = true;
    }

    /// As the first [`Proxy::apply`], but somebody has meddled with the table so that it cannot be taken
    /// over and is made anew.
    pub(crate) fn apply_to_a_spoilt_table(&mut self, objects: &[Value]) {
        let table = kernel::table(CLUSTER, self.family);
        let mut t = Transaction::new();
        t.add_chain(&table, &Chain::regular("foreign"));
        t.add_set(&table, &Set::verdict_map("foreign-map", vec![SetType::Protocol]));
        t.add_elements(&table, "foreign-map", [&Element::verdict(vec![6], Verdict::Goto("foreign".into()))]);
        let mut nft = Nft::open().unwrap();
        nft.commit(t).unwrap();
        self.apply(objects);
        assert!(!nft.chains(&table).unwrap().contains(&"foreign".to_owned()));
    }

    /// Compares all elements in the kernel with the rule set.
    pub(crate) fn check(&mut self) {
        let table = kernel::table(CLUSTER, self.family);
        let mut nft = Nft::open().unwrap();
        let mut expected: BTreeMap<SetName, BTreeMap<Vec<u8>, ElementData>> = BTreeMap::new();
        for (set, element) in self.rules.full().added() {
            expected.entry(set).or_default().insert(element.key, element.data);
        }
        for set in SetName::ALL {
            if matches!(set, SetName::Affinity | SetName::ClusterCidrs | SetName::NodePortAddresses) {
                continue;
            }
            let found = nft.elements(&table, set.name()).unwrap();
            let found: BTreeMap<_, _> = found.into_iter().map(|Element { key, data, .. }| (key, data)).collect();
            assert_eq!(found, expected.remove(&set).unwrap_or_default(), "{set:?}");
        }
    }
}

/// Starts a server in a namespace that answers each connection with its name and the client's address.
pub(crate) fn serve(namespace: &Namespace, address: &str, name: &'static str) {
    let listener = namespace.run(|| TcpListener::bind(address).unwrap()).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Ok(peer) = stream.peer_addr() else { continue };
            // A client that is gone is no concern of the server.
            let _ = stream.write_all(format!("{name} {}", peer.ip()).as_bytes());
        }
    });
}

/// Asks a server from within a namespace: its name and the address it sees, or the error.
pub(crate) fn ask(namespace: &Namespace, address: SocketAddr) -> Result<(String, String), ErrorKind> {
    namespace.run(|| connect(address, PATIENCE)).unwrap()
}

/// Asks many times over.
pub(crate) fn ask_many(namespace: &Namespace, address: SocketAddr, times: usize) -> Vec<(String, String)> {
    namespace.run(|| (0..times).map(|_| connect(address, PATIENCE).unwrap()).collect()).unwrap()
}

/// As [`ask`], for a server that must not answer.
pub(crate) fn ask_in_vain(namespace: &Namespace, address: SocketAddr) -> ErrorKind {
    namespace.run(|| connect(address, SHORT).expect_err("nobody should answer")).unwrap()
}

fn connect(address: SocketAddr, patience: Duration) -> Result<(String, String), ErrorKind> {
    let mut stream = TcpStream::connect_timeout(&address, patience).map_err(|e| e.kind())?;
    stream.set_read_timeout(Some(patience)).map_err(|e| e.kind())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| e.kind())?;
    let (name, peer) = answer.split_once(' ').ok_or(ErrorKind::UnexpectedEof)?;
    Ok((name.to_owned(), peer.to_owned()))
}

pub(crate) fn node() -> Namespace {
    Namespace::current().unwrap()
}

pub(crate) fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}
