//! A node, the world outside, and pods, each a network namespace.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use network::netns::Namespace;
use network::pod::{Attachment, PodIdentity, PodNetwork, PodNetworkConfig, PortMapping, Protocol};
use network::rtnl::{Changes, RouteScope, Rtnl, VethPair};
use network::{Cidr, sysctl};

/// Long enough for any answer on this machine; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection that must fail may try.
const SHORT: Duration = Duration::from_millis(300);

pub(crate) const CLUSTER: &str = "test-cluster";
pub(crate) const POD_CIDR: &str = "10.77.3.0/24";
pub(crate) const NODE: &str = "192.0.2.1";
pub(crate) const OUTSIDE: &str = "192.0.2.9";

/// Runs `test` as the node of a machine that nobody else is on.
pub(crate) fn on_a_machine(test: impl FnOnce(&Machine) + Send) {
    let node = Namespace::anonymous().expect("network namespaces need root");
    let state = tempfile::tempdir().unwrap();
    let outside = Namespace::anonymous().unwrap();
    node.run(|| {
        connect_outside(&outside);
        sysctl::write("ipv4/ip_forward", "0").unwrap();
        test(&Machine { state: state.path().join("network"), outside });
    })
    .unwrap();
}

pub(crate) struct Machine {
    pub(crate) state: std::path::PathBuf,
    pub(crate) outside: Namespace,
}

impl Machine {
    /// The pod network, without a pod CIDR unless an earlier run was told one.
    pub(crate) fn open(&self) -> PodNetwork {
        PodNetwork::new(self.config()).unwrap()
    }

    pub(crate) fn config(&self) -> PodNetworkConfig {
        PodNetworkConfig {
            cluster: CLUSTER.into(),
            state_dir: self.state.clone(),
            cluster_cidrs: vec!["10.77.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
            mtu: Some(1400),
        }
    }

    pub(crate) fn network(&self) -> PodNetwork {
        let network = self.open();
        network.set_pod_cidr(POD_CIDR).unwrap();
        network
    }
}

/// A node with a link to a machine outside, which knows no way to any pod.
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

pub(crate) struct Pod {
    pub(crate) namespace: Namespace,
    pub(crate) ip: IpAddr,
    pub(crate) attachment: Attachment,
}

pub(crate) fn identity(id: &str) -> PodIdentity {
    PodIdentity { namespace: "default".into(), name: format!("pod-{id}"), uid: "u".into(), sandbox: id.into() }
}

pub(crate) fn start_pod(network: &PodNetwork, id: &str, ports: &[PortMapping]) -> Pod {
    let namespace = Namespace::anonymous().unwrap();
    let attachment = network.attach(&namespace, &identity(id), ports).unwrap();
    Pod { ip: attachment.ips[0], namespace, attachment }
}

pub(crate) fn tcp(host_ip: Option<&str>, host_port: u16, container_port: u16) -> PortMapping {
    let host_ip = host_ip.map(|ip| ip.parse().unwrap());
    PortMapping { host_ip, host_port, container_port, protocol: Protocol::Tcp }
}

/// Starts a server in a namespace that answers each connection with its name and the client's address.
pub(crate) fn serve(namespace: &Namespace, address: &str, name: &'static str) -> SocketAddr {
    let listener = namespace.run(|| TcpListener::bind(address).unwrap()).unwrap();
    let local = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap();
            // A client that is gone is no concern of the server.
            let _ = stream.write_all(format!("{name} {}", peer.ip()).as_bytes());
        }
    });
    local
}

/// Asks a server from within a namespace; what it answers, or the error of the connection.
pub(crate) fn ask(namespace: &Namespace, address: impl Into<SocketAddr>) -> Result<String, ErrorKind> {
    ask_within(namespace, address.into(), PATIENCE)
}

/// As [`ask`], for a server that must not answer.
pub(crate) fn ask_in_vain(namespace: &Namespace, address: impl Into<SocketAddr>) -> ErrorKind {
    ask_within(namespace, address.into(), SHORT).expect_err("nobody should answer")
}

fn ask_within(namespace: &Namespace, address: SocketAddr, patience: Duration) -> Result<String, ErrorKind> {
    namespace
        .run(|| {
            let mut stream = TcpStream::connect_timeout(&address, patience).map_err(|e| e.kind())?;
            stream.set_read_timeout(Some(patience)).map_err(|e| e.kind())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(|e| e.kind())?;
            Ok(answer)
        })
        .unwrap()
}

pub(crate) fn node() -> Namespace {
    Namespace::current().unwrap()
}

pub(crate) fn at(ip: impl ToString, port: u16) -> SocketAddr {
    SocketAddr::new(ip.to_string().parse().unwrap(), port)
}
