//! The pod network: a routed veth per pod, with its address, host ports and masquerading.
//!
//! A pod has one address (a /32) on `eth0` and a default route to [`GATEWAY`], an address that exists
//! nowhere: its hardware address is a permanent neighbour entry, so nobody asks for it. On the node, a host
//! route leads to the pod's address through the other end of the pair. There is no bridge, so all traffic
//! of pods is routed and passes the node's firewall hooks.
//!
//! The first address of the pod CIDR is the node's own on this network: it is on `lo`, so that it is always
//! there, and on each veth, so that it is the source of what the node sends to pods.
//!
//! What a sandbox was given is on disk before the kernel is changed. So a crash loses no address, and
//! [`PodNetwork::detach`] works when the sandbox's namespace is long gone. Interfaces carry an alias and
//! nftables a table of the cluster's name; that is how [`PodNetwork::remove`] finds what is the cluster's.

mod ipam;
mod record;
mod rules;
mod veth;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use self::ipam::Ipam;
use self::record::{Records, Sandbox};
use crate::nft::Nft;
use crate::rtnl::{Changes, Route, RouteScope, Rtnl};
use crate::{Cidr, Error, Result, sysctl};

/// What the label of a node's own address on a pod network starts with; a hash of the cluster's name follows.
const LABEL_PREFIX: &str = "lo:ph";

/// Whether an address of this label (an interface's name, as `getifaddrs` tells it) is one that a pod network put there.
pub fn is_pod_network_label(label: &str) -> bool {
    label.strip_prefix(LABEL_PREFIX).is_some_and(|hash| hash.len() == 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The gateway that pods are told of. Nothing has this address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The interface inside a pod.
pub const POD_INTERFACE: &str = "eth0";

const FALLBACK_MTU: u32 = 1500;

/// How the pod network of a node is set up.
#[derive(Clone, Debug)]
pub struct PodNetworkConfig {
    /// The cluster's name: part of the names of all that is made.
    pub cluster: String,
    /// Where to keep what each sandbox was given. Made when it does not exist.
    pub state_dir: PathBuf,
    /// Where pods go under their own address: the pod CIDR of the whole cluster. Everything else outside
    /// the node sees the node's address.
    pub cluster_cidrs: Vec<Cidr>,
    /// Where Services are. On a machine without a default route, packets of its own to them need one of
    /// their own, or they are refused before the service proxy sees them.
    pub service_cidrs: Vec<Cidr>,
    /// The largest packet of pods; that of the interface of the default route when not given.
    pub mtu: Option<u32>,
}

/// Whose sandbox it is, for people who look at the interfaces or the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PodIdentity {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's UID.
    pub uid: String,
    /// The sandbox's id: letters, digits, `-`, `_` and `.`.
    pub sandbox: String,
}

/// A protocol that ports are of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number in IP headers.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => crate::nft::protocol::TCP,
            Protocol::Udp => crate::nft::protocol::UDP,
            Protocol::Sctp => crate::nft::protocol::SCTP,
        }
    }

    /// The name that Kubernetes uses.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
}

/// A port of the node that leads to a port of the pod.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct PortMapping {
    /// The address of the node; any when `None` or unspecified (`0.0.0.0`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The port of the node.
    pub host_port: u16,
    /// The port of the pod.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// What a sandbox was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    /// Its addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// The node's end of its veth pair.
    pub host_interface: String,
}

/// The pod network of this node. All calls block; they may run at the same time.
#[derive(Debug)]
pub struct PodNetwork {
    config: PodNetworkConfig,
    names: Names,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    records: Records,
    ipam: Option<Ipam>,
}

/// The names of what the cluster owns in the kernel.
#[derive(Clone, Debug)]
struct Names {
    /// What the names of its interfaces start with.
    interface_prefix: String,
    /// What the aliases of its interfaces start with.
    alias_prefix: String,
    /// The label of the node's own address.
    label: String,
    /// Its nftables table.
    table: crate::nft::Table,
}

impl Names {
    fn new(cluster: &str) -> Self {
        let hash = short_hash(cluster);
        Self {
            interface_prefix: format!("pod{:04x}", hash & 0xffff),
            alias_prefix: format!("pilothouse:{cluster}:"),
            label: format!("{LABEL_PREFIX}{:08x}", hash as u32),
            table: crate::nft::Table::new(crate::nft::Family::Ip, format!("{cluster}-pods")),
        }
    }

    fn interface(&self, sandbox: &str) -> String {
        format!("{}{:08x}", self.interface_prefix, short_hash(sandbox) as u32)
    }

    /// Gives loopback the node's own address on the pod network.
    fn hold(&self, changes: &mut Changes, loopback: u32, gateway: IpAddr) {
        changes.set_up(loopback);
        // The scope keeps the kernel from choosing it as the source of packets that have nothing to do with
        // pods.
        changes.add_address(loopback, gateway, RouteScope::Link, Some(&self.label));
    }

    /// Deletes the cluster's interfaces of these names.
    fn delete_links(&self, doomed: impl Fn(&str) -> bool) -> Result<()> {
        let mut rtnl = Rtnl::open()?;
        let mut changes = Changes::new();
        for link in rtnl.links()? {
            if link.alias.starts_with(&self.alias_prefix) && doomed(&link.name) {
                changes.delete_link(link.index, &link.name);
            }
        }
        for answer in rtnl.apply_each(&changes)? {
            // A namespace that ends meanwhile takes its interface with it.
            answer.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })?;
        }
        Ok(())
    }
}

/// FNV-1a: the same on every machine and in every version, as names must be.
fn short_hash(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    // The low bits alone mix the last bytes badly.
    hash ^ (hash >> 32)
}

impl PodNetwork {
    /// Reads the state of an earlier run. The kernel is not touched, except to take up the pod CIDR of that
    /// run, so pods can be attached at once after a restart.
    pub fn new(config: PodNetworkConfig) -> Result<Self> {
        let records = Records::open(&config.state_dir)?;
        let names = Names::new(&config.cluster);
        let network = Self { config, names, state: Mutex::new(State { records, ipam: None }) };
        let cidr = network.lock().records.pod_cidr()?;
        if let Some(cidr) = cidr {
            network.set_pod_cidr(&cidr.to_string())?;
        }
        Ok(network)
    }

    /// Tells the node's pod CIDR (IPv4), makes the rules and turns on forwarding. The same again does
    /// nothing more than put back what is missing; another CIDR is for new pods.
    pub fn set_pod_cidr(&self, cidr: &str) -> Result<()> {
        let cidr: Cidr = cidr.parse()?;
        if cidr.is_ipv6() {
            return Err(Error::Cidr(crate::CidrError(cidr.to_string())));
        }
        let mut state = self.lock();
        let ipam = Ipam::new(cidr, state.records.cursor())?;
        state.records.set_pod_cidr(cidr)?;
        let old = state.ipam.replace(ipam).map(|ipam| ipam.gateway());
        self.install(&state)?;
        let gateway = state.gateway().ok_or(Error::NoPodCidr)?;
        let mut rtnl = Rtnl::open()?;
        let loopback = rtnl.index("lo")?;
        let mut changes = Changes::new();
        if let Some(old) = old.filter(|old| *old != gateway) {
            changes.delete_address(loopback, old);
        }
        self.names.hold(&mut changes, loopback, gateway);
        if default_route(&mut rtnl)?.is_none() {
            for range in self.config.service_cidrs.iter().filter(|range| !range.is_ipv6()) {
                changes.add_link_route(*range, loopback, Some(gateway));
            }
        }
        for answer in rtnl.apply_each(&changes)? {
            answer.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })?;
        }
        Ok(())
    }

    /// Gives this machine the address that it will have on the pod network of a cluster, ahead of the first pod CIDR: what a
    /// machine that has no other address than loopback is reached at. [`PodNetwork::remove`] takes it away.
    pub fn hold_gateway(cluster: &str, gateway: IpAddr) -> Result<()> {
        let mut rtnl = Rtnl::open()?;
        let mut changes = Changes::new();
        let loopback = rtnl.index("lo")?;
        Names::new(cluster).hold(&mut changes, loopback, gateway);
        for answer in rtnl.apply_each(&changes)? {
            answer?;
        }
        Ok(())
    }

    /// The node's own address on the pod network, once the pod CIDR is known.
    pub fn gateway(&self) -> Option<IpAddr> {
        self.lock().gateway()
    }

    /// Connects the sandbox whose network namespace is `netns`: brings `lo` and `eth0` up inside, with an
    /// address and a default route, and maps its host ports. A sandbox that is attached already gets its
    /// connection anew. Nothing is left behind on an error.
    pub fn attach(&self, netns: impl AsFd, pod: &PodIdentity, ports: &[PortMapping]) -> Result<Attachment> {
        record::check_id(&pod.sandbox)?;
        self.detach(&pod.sandbox)?;
        let sandbox = {
            let mut state = self.lock();
            state.records.check_ports(ports)?;
            let State { records, ipam } = &mut *state;
            let ipam = ipam.as_mut().ok_or(Error::NoPodCidr)?;
            let address = ipam.allocate(|address| records.uses(address))?;
            let sandbox = Sandbox {
                sandbox: pod.sandbox.clone(),
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
                uid: pod.uid.clone(),
                ips: vec![address],
                interface: self.free_interface(records, &pod.sandbox),
                ports: ports.to_vec(),
            };
            records.insert(sandbox.clone(), address)?;
            sandbox
        };
        match self.connect(netns.as_fd(), &sandbox) {
            Ok(()) => Ok(sandbox.attachment()),
            Err(error) => {
                if let Err(undo) = self.detach(&pod.sandbox) {
                    tracing::warn!(sandbox = pod.sandbox, error = %undo, "could not undo a failed attachment");
                }
                Err(error)
            }
        }
    }

    fn connect(&self, netns: std::os::fd::BorrowedFd<'_>, sandbox: &Sandbox) -> Result<()> {
        let gateway = self.gateway().ok_or(Error::NoPodCidr)?;
        let alias = format!("{}{}", self.names.alias_prefix, sandbox.sandbox);
        veth::connect(netns, sandbox, gateway, self.mtu()?, &alias)?;
        if !sandbox.ports.is_empty() {
            Nft::open()?.commit(rules::map_ports(&self.names.table, sandbox))?;
        }
        Ok(())
    }

    /// Takes a sandbox off the network and frees its address and ports. Needs no namespace, and succeeds
    /// when the sandbox is not known.
    pub fn detach(&self, sandbox: &str) -> Result<()> {
        record::check_id(sandbox)?;
        let Some(record) = self.lock().records.get(sandbox).cloned() else { return Ok(()) };
        if !record.ports.is_empty() {
            // The elements are of this sandbox alone, so nobody else changes them meanwhile.
            rules::unmap_ports(&mut Nft::open()?, &self.names.table, &record)?;
        }
        veth::disconnect(&record.interface)?;
        self.lock().records.remove(sandbox)
    }

    /// What a sandbox was given, if it is attached.
    pub fn attachment(&self, sandbox: &str) -> Option<Attachment> {
        self.lock().records.get(sandbox).map(Sandbox::attachment)
    }

    /// Compares what there is with the sandboxes that live: detaches the others, deletes interfaces that
    /// nobody knows of, and writes the rules anew. For the start, before sandboxes are attached.
    pub fn reconcile(&self, living: &BTreeSet<String>) -> Result<()> {
        let dead: Vec<String> = self.lock().records.ids().filter(|id| !living.contains(*id)).cloned().collect();
        for sandbox in dead {
            self.detach(&sandbox)?;
        }
        let state = self.lock();
        let known: BTreeSet<&str> = state.records.all().map(|sandbox| sandbox.interface.as_str()).collect();
        self.names.delete_links(|name| !known.contains(name))?;
        if state.ipam.is_some() { self.install(&state) } else { Ok(()) }
    }

    /// Writes the rules anew if somebody deleted or flushed them, as firewall services do when they are
    /// reloaded. Whether it had to. Worth a call now and then; costs little when all is well.
    pub fn repair(&self) -> Result<bool> {
        let state = self.lock();
        if state.ipam.is_none() || Nft::open()?.is_intact(&self.names.table)? {
            return Ok(false);
        }
        self.install(&state)?;
        Ok(true)
    }

    /// Removes all that a cluster's pod network made: interfaces, addresses, the routes that go with them, rules
    /// and state. Needs no earlier state, and writes nothing: the disk may be full. No other may use the state
    /// directory meanwhile.
    pub fn remove(config: &PodNetworkConfig) -> Result<()> {
        let names = Names::new(&config.cluster);
        names.delete_links(|_| true)?;
        let mut rtnl = Rtnl::open()?;
        let mut changes = Changes::new();
        for address in rtnl.addresses()? {
            if address.label == names.label {
                // A route goes with its source address.
                changes.delete_address(address.link, address.address);
            }
        }
        for answer in rtnl.apply_each(&changes)? {
            answer.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })?;
        }
        rules::uninstall(&mut Nft::open()?, &names.table)?;
        record::clear(&config.state_dir)
    }

    /// What on this machine may keep the pod network from working, in words for its owner.
    pub fn warnings(&self) -> Result<Vec<String>> {
        let chains = Nft::open()?.base_chains()?;
        let mut warnings = rules::forwarding_warnings(&chains, &self.config.cluster_cidrs);
        if sysctl::read("ipv4/ip_forward")? != "1" {
            warnings.push("net.ipv4.ip_forward is off, so pods reach nothing outside their node".to_owned());
        }
        Ok(warnings)
    }

    /// Writes the table anew, in one transaction, and turns forwarding on.
    fn install(&self, state: &State) -> Result<()> {
        let Some(ipam) = &state.ipam else { return Ok(()) };
        let plan = rules::Plan {
            table: &self.names.table,
            interface_prefix: &self.names.interface_prefix,
            pod_cidr: ipam.cidr(),
            cluster_cidrs: &self.config.cluster_cidrs,
            sandboxes: state.records.all().collect(),
        };
        rules::install(&mut Nft::open()?, &plan)
    }

    /// A name that no other sandbox's interface has.
    fn free_interface(&self, records: &Records, sandbox: &str) -> String {
        let taken: BTreeMap<&str, ()> = records.all().map(|sandbox| (sandbox.interface.as_str(), ())).collect();
        let first = self.names.interface(sandbox);
        std::iter::once(first)
            .chain((1u32..).map(|salt| self.names.interface(&format!("{sandbox}/{salt}"))))
            .find(|name| !taken.contains_key(name.as_str()))
            .unwrap_or_default()
    }

    fn mtu(&self) -> Result<u32> {
        match self.config.mtu {
            Some(mtu) => Ok(mtu),
            None => Ok(default_route_mtu(&mut Rtnl::open()?)?.unwrap_or(FALLBACK_MTU)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn gateway(&self) -> Option<IpAddr> {
        self.ipam.as_ref().map(Ipam::gateway)
    }
}

/// The largest packet of the interface that the default route leads through.
fn default_route_mtu(rtnl: &mut Rtnl) -> Result<Option<u32>> {
    let Some(index) = default_route(rtnl)?.and_then(|route| route.link) else { return Ok(None) };
    Ok(rtnl.links()?.into_iter().find(|link| link.index == index).map(|link| link.mtu))
}

/// The default route that is used.
fn default_route(rtnl: &mut Rtnl) -> Result<Option<Route>> {
    let routes = rtnl.routes()?.into_iter();
    let default = routes.filter(|route| route.destination.prefix() == 0 && !route.destination.is_ipv6());
    Ok(default.min_by_key(|route| route.metric))
}
