//! Network interfaces.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Changes, Mac};
use crate::netlink::{Attributes, Bytes, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, read_string, read_u32};

const UP: u32 = libc::IFF_UP as u32;
const RUNNING: u32 = libc::IFF_RUNNING as u32;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;

/// What the kernel says about an interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its alias: a free text, empty when there is none.
    pub alias: String,
    /// The largest packet.
    pub mtu: u32,
    /// Its hardware address, if it has one of 48 bits.
    pub mac: Option<Mac>,
    /// Whether it was brought up.
    pub up: bool,
    /// Whether it can carry packets: it is up, and so is the other end.
    pub running: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
}

/// A pair of veth interfaces to be made, the peer in another namespace from the start.
#[derive(Clone, Debug)]
pub struct VethPair<'a> {
    /// The name of the end in this namespace.
    pub name: &'a str,
    /// The hardware address of the end in this namespace.
    pub mac: Mac,
    /// The namespace of the other end.
    pub peer_namespace: BorrowedFd<'a>,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// The hardware address of the other end.
    pub peer_mac: Mac,
    /// The largest packet, of both ends.
    pub mtu: u32,
}

/// A setting of an interface under `net.ipv4.conf`, by the kernel's number for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Ipv4Setting {
    /// `forwarding`
    Forwarding = 1,
    /// `rp_filter`
    ReversePathFilter = 8,
    /// `send_redirects`
    SendRedirects = 6,
    /// `route_localnet`
    RouteLocalnet = 26,
}

impl Link {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let kind = u16::from_ne_bytes(body.get(2..4)?.try_into().ok()?);
        let index = read_u32(body.get(4..)?)?;
        let flags = read_u32(body.get(8..)?)?;
        let mut link = Self {
            index,
            name: String::new(),
            alias: String::new(),
            mtu: 0,
            mac: None,
            up: flags & UP != 0,
            running: flags & RUNNING != 0,
            loopback: kind == libc::ARPHRD_LOOPBACK,
        };
        for (kind, value) in Attributes::new(body.get(16..)?) {
            match kind {
                libc::IFLA_IFNAME => link.name = read_string(value),
                libc::IFLA_IFALIAS => link.alias = read_string(value),
                libc::IFLA_MTU => link.mtu = read_u32(value)?,
                libc::IFLA_ADDRESS => link.mac = value.try_into().ok(),
                _ => {}
            }
        }
        Some(link)
    }
}

pub(super) fn header(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&change.to_ne_bytes());
    header
}

impl Changes {
    /// Makes a pair of veth interfaces. Both ends stay down until [`Changes::set_up`], so that they can be
    /// configured before they are used.
    pub fn add_veth(&mut self, pair: &VethPair<'_>) {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let operation = format!("create the veth pair {:?} with {:?}", pair.name, pair.peer_name);
        self.batch.push(libc::RTM_NEWLINK, flags, operation, |m| {
            m.raw(&header(0, 0, 0));
            m.string(libc::IFLA_IFNAME, pair.name);
            m.u32(libc::IFLA_MTU, pair.mtu);
            m.attribute(libc::IFLA_ADDRESS, &pair.mac);
            m.nested(libc::IFLA_LINKINFO, |m| {
                m.string(libc::IFLA_INFO_KIND, "veth");
                m.nested(libc::IFLA_INFO_DATA, |m| m.nested(VETH_INFO_PEER, |m| peer(m, pair)));
            });
        });
    }

    /// Deletes a link, and its peer when it is a veth.
    pub fn delete_link(&mut self, index: u32, name: &str) {
        self.batch.push(libc::RTM_DELLINK, NLM_F_ACK, format!("delete the network interface {name:?}"), |m| {
            m.raw(&header(index, 0, 0));
        });
    }

    /// Deletes the link of this name, and its peer when it is a veth.
    pub fn delete_link_named(&mut self, name: &str) {
        self.batch.push(libc::RTM_DELLINK, NLM_F_ACK, format!("delete the network interface {name:?}"), |m| {
            m.raw(&header(0, 0, 0));
            m.string(libc::IFLA_IFNAME, name);
        });
    }

    /// Brings a link up.
    pub fn set_up(&mut self, index: u32) {
        self.batch.push(libc::RTM_NEWLINK, NLM_F_ACK, format!("bring interface {index} up"), |m| {
            m.raw(&header(index, UP, UP));
        });
    }

    /// Gives a link its alias, by which its owner finds it again.
    pub fn set_alias(&mut self, index: u32, alias: &str) {
        self.batch.push(libc::RTM_NEWLINK, NLM_F_ACK, format!("set the alias of interface {index}"), |m| {
            m.raw(&header(index, 0, 0));
            m.string(libc::IFLA_IFALIAS, alias);
        });
    }

    /// Changes IPv4 settings of a link.
    pub fn set_ipv4(&mut self, index: u32, settings: &[(Ipv4Setting, u32)]) {
        self.batch.push(libc::RTM_NEWLINK, NLM_F_ACK, format!("configure IPv4 on interface {index}"), |m| {
            m.raw(&header(index, 0, 0));
            m.nested(libc::IFLA_AF_SPEC, |m| {
                m.nested(libc::AF_INET as u16, |m| {
                    m.nested(IFLA_INET_CONF, |m| {
                        for (setting, value) in settings {
                            m.u32(*setting as u16, *value);
                        }
                    });
                });
            });
        });
    }

    /// Keeps the kernel from giving a link an IPv6 link-local address of its own.
    pub fn set_no_ipv6_link_local(&mut self, index: u32) {
        self.batch.push(libc::RTM_NEWLINK, NLM_F_ACK, format!("configure IPv6 on interface {index}"), |m| {
            m.raw(&header(index, 0, 0));
            m.nested(libc::IFLA_AF_SPEC, |m| {
                m.nested(libc::AF_INET6 as u16, |m| m.u8(IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE));
            });
        });
    }
}

fn peer(m: &mut Bytes, pair: &VethPair<'_>) {
    m.raw(&header(0, 0, 0));
    m.string(libc::IFLA_IFNAME, pair.peer_name);
    m.u32(libc::IFLA_MTU, pair.mtu);
    m.attribute(libc::IFLA_ADDRESS, &pair.peer_mac);
    m.u32(libc::IFLA_NET_NS_FD, pair.peer_namespace.as_raw_fd() as u32);
}
