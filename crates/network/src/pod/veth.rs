//! The pair of interfaces between a node and a pod.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use super::record::Sandbox;
use super::{GATEWAY, POD_INTERFACE};
use crate::rtnl::{Changes, Ipv4Setting, Mac, RouteScope, Rtnl, VethPair};
use crate::{Cidr, Error, Result, netns, sysctl};

/// The hardware address of every node's end: each pair is a link of its own, so they never meet.
const HOST_MAC: Mac = [0xee; 6];

/// Makes the pair and configures both ends, so that packets flow.
pub(super) fn connect(
    netns: BorrowedFd<'_>,
    sandbox: &Sandbox,
    node_address: IpAddr,
    mtu: u32,
    alias: &str,
) -> Result<()> {
    let mut inside = netns::run_in(netns, || -> Result<Rtnl> {
        no_link_local_addresses()?;
        Rtnl::open()
    })??;
    let mut outside = Rtnl::open()?;

    let pod_mac = mac_of(sandbox.ips[0]);
    let mut pair = Changes::new();
    pair.add_veth(&VethPair {
        name: &sandbox.interface,
        mac: HOST_MAC,
        peer_namespace: netns,
        peer_name: POD_INTERFACE,
        peer_mac: pod_mac,
        mtu,
    });
    outside.apply(&pair)?;
    configure_outside(&mut outside, sandbox, node_address, pod_mac, alias)?;
    configure_inside(&mut inside, sandbox)?;
    // This end was brought up when the other one was still down.
    outside.wait_until_running(&sandbox.interface)
}

fn configure_outside(
    rtnl: &mut Rtnl,
    sandbox: &Sandbox,
    node_address: IpAddr,
    pod_mac: Mac,
    alias: &str,
) -> Result<()> {
    let link = rtnl.index(&sandbox.interface)?;
    let mut changes = Changes::new();
    changes.set_alias(link, alias);
    changes.set_no_ipv6_link_local(link);
    changes.set_ipv4(
        link,
        &[
            (Ipv4Setting::Forwarding, 1),
            // A pod can only send from its own address.
            (Ipv4Setting::ReversePathFilter, 1),
            (Ipv4Setting::SendRedirects, 0),
            // Connections to a host port at 127.0.0.1 leave by this interface. The rules keep pods from the
            // node's loopback all the same.
            (Ipv4Setting::RouteLocalnet, 1),
        ],
    );
    changes.add_address(link, node_address, RouteScope::Universe, None);
    changes.set_up(link);
    for ip in &sandbox.ips {
        changes.add_neighbour(link, *ip, pod_mac);
        changes.add_link_route(Cidr::single(*ip), link, Some(node_address));
    }
    let answers = rtnl.apply_each(&changes)?;
    // A kernel without IPv6 has nothing to switch off there.
    const IPV6: usize = 1;
    answers.into_iter().enumerate().filter(|(index, _)| *index != IPV6).try_for_each(|(_, answer)| answer)
}

fn configure_inside(rtnl: &mut Rtnl, sandbox: &Sandbox) -> Result<()> {
    let loopback = rtnl.index("lo")?;
    let link = rtnl.index(POD_INTERFACE)?;
    let gateway = IpAddr::V4(GATEWAY);
    let mut changes = Changes::new();
    changes.set_up(loopback);
    for ip in &sandbox.ips {
        changes.add_address(link, *ip, RouteScope::Universe, None);
    }
    changes.set_up(link);
    changes.add_neighbour(link, gateway, HOST_MAC);
    changes.add_link_route(Cidr::single(gateway), link, None);
    changes.add_gateway_route(
        Cidr::new(std::net::Ipv4Addr::UNSPECIFIED.into(), 0).ok_or(Error::NoPodCidr)?,
        link,
        gateway,
    );
    rtnl.apply(&changes)
}

/// Deletes the pair. Succeeds when it is gone already, as it is when the pod's namespace ended.
pub(super) fn disconnect(interface: &str) -> Result<()> {
    let mut changes = Changes::new();
    changes.delete_link_named(interface);
    match Rtnl::open()?.apply(&changes) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// New interfaces of this namespace get no IPv6 address of the kernel's own making, so nothing about them
/// is announced or waited for.
fn no_link_local_addresses() -> Result<()> {
    match sysctl::write("ipv6/conf/default/addr_gen_mode", "1") {
        // A kernel without IPv6 makes none anyway.
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A hardware address that belongs to the pod's address, so it needs no memory of its own.
fn mac_of(address: IpAddr) -> Mac {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0x0a, 0x58, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            [0x0a, 0x58, octets[12], octets[13], octets[14], octets[15]]
        }
    }
}
