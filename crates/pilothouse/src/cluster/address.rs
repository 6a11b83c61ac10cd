//! This machine's name and address.

use anyhow::{Context, Result, bail};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// The host's name as a node's: lower case.
pub fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("cannot read the host's name")?.to_string_lossy().to_lowercase();
    if let Some(problem) = api::names::dns1123_subdomain(&name).into_iter().next() {
        bail!("the host's name {name:?} can't be a node's: {problem}; give one with --node-name");
    }
    Ok(name)
}

/// What the kernel calls this machine, be it fit for a node's name or not; `None`: it can't be read.
pub fn machine_name() -> Option<String> {
    nix::unistd::gethostname().ok().map(|name| name.to_string_lossy().into_owned())
}

/// The address that this machine is reached at, or loopback when there is none.
pub fn node_ip() -> IpAddr {
    outside().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The address that others reach this machine at: the source of its default route, else any that isn't loopback; `None` on
/// a machine without a network. An address that a pod network gave the machine is none: only the machine itself knows it.
pub fn outside() -> Option<IpAddr> {
    // Connecting a datagram socket asks the routing table; nothing is sent.
    let source = |to: &str| -> Option<IpAddr> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        socket.local_addr().ok().map(|a| a.ip()).filter(|ip| !ip.is_unspecified())
    };
    source("192.0.2.1").filter(|ip| !ip.is_loopback()).or_else(first_address)
}

fn first_address() -> Option<IpAddr> {
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    addresses
        .filter(|a| a.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP))
        .filter(|a| !network::is_pod_network_label(&a.interface_name))
        .filter_map(|a| a.address?.as_sockaddr_in().map(|s| IpAddr::V4(s.ip())))
        .find(|ip| !ip.is_loopback() && !matches!(ip, IpAddr::V4(v4) if v4.is_link_local()))
}

/// The network that this machine has an address in, with its prefix.
pub fn network_of(ip: IpAddr) -> Option<(IpAddr, u8)> {
    let IpAddr::V4(ip) = ip else { return None };
    let addresses = nix::ifaddrs::getifaddrs().ok()?;
    let mask = addresses.filter_map(|a| {
        let own = a.address?.as_sockaddr_in()?.ip();
        let mask = a.netmask?.as_sockaddr_in()?.ip();
        (own == ip).then_some(u32::from(mask))
    });
    let mask = mask.max()?;
    Some((Ipv4Addr::from(u32::from(ip) & mask).into(), u8::try_from(mask.leading_ones()).ok()?))
}
