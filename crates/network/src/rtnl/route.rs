//! Routes, and the neighbours they lead to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Changes, Mac, family_of};
use crate::Cidr;
use crate::netlink::{Attributes, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, address_bytes, read_address, read_u32};

const PROTOCOL_STATIC: u8 = 4;
const TYPE_UNICAST: u8 = 1;
const RTNH_F_ONLINK: u32 = 4;
const NUD_PERMANENT: u16 = 0x80;

/// How far away the destination of a route is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RouteScope {
    /// Anywhere.
    Universe,
    /// On the link itself.
    Link,
    /// On this machine.
    Host,
    /// Another of the kernel's scopes.
    Other(u8),
}

impl RouteScope {
    pub(super) fn number(self) -> u8 {
        match self {
            RouteScope::Universe => libc::RT_SCOPE_UNIVERSE,
            RouteScope::Link => libc::RT_SCOPE_LINK,
            RouteScope::Host => libc::RT_SCOPE_HOST,
            RouteScope::Other(number) => number,
        }
    }

    pub(super) fn from_number(number: u8) -> Self {
        match number {
            libc::RT_SCOPE_UNIVERSE => RouteScope::Universe,
            libc::RT_SCOPE_LINK => RouteScope::Link,
            libc::RT_SCOPE_HOST => RouteScope::Host,
            number => RouteScope::Other(number),
        }
    }
}

/// A route of the main table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// Where it leads; of prefix 0 for a default route.
    pub destination: Cidr,
    /// The next router, when the destination is not on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that packets get when they have none yet.
    pub source: Option<IpAddr>,
    /// The interface it leads through, when it is a single one.
    pub link: Option<u32>,
    /// The preference: lower wins.
    pub metric: u32,
}

impl Route {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let header = body.get(..12)?;
        let attributes = Attributes::new(body.get(12..)?);
        let table = attributes.get(libc::RTA_TABLE).and_then(read_u32).unwrap_or(u32::from(header[4]));
        if table != u32::from(libc::RT_TABLE_MAIN) || header[7] != TYPE_UNICAST {
            return None;
        }
        let any: IpAddr = match i32::from(header[0]) {
            libc::AF_INET => Ipv4Addr::UNSPECIFIED.into(),
            libc::AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
            _ => return None,
        };
        let destination = attributes.get(libc::RTA_DST).and_then(read_address).unwrap_or(any);
        Some(Self {
            destination: Cidr::new(destination, header[1])?,
            gateway: attributes.get(libc::RTA_GATEWAY).and_then(read_address),
            source: attributes.get(libc::RTA_PREFSRC).and_then(read_address),
            link: attributes.get(libc::RTA_OIF).and_then(read_u32),
            metric: attributes.get(libc::RTA_PRIORITY).and_then(read_u32).unwrap_or(0),
        })
    }
}

impl Changes {
    /// Adds or replaces a route to a destination on the link itself.
    pub fn add_link_route(&mut self, destination: Cidr, link: u32, source: Option<IpAddr>) {
        self.add_route(destination, link, None, source);
    }

    /// Adds or replaces a route through a gateway, which is taken to be on the link whatever the addresses
    /// say.
    pub fn add_gateway_route(&mut self, destination: Cidr, link: u32, gateway: IpAddr) {
        self.add_route(destination, link, Some(gateway), None);
    }

    /// Deletes a route to a destination on the link itself.
    pub fn delete_link_route(&mut self, destination: Cidr, link: u32) {
        self.batch.push(libc::RTM_DELROUTE, NLM_F_ACK, format!("delete the route to {destination}"), |m| {
            let family = family_of(destination.network());
            let scope = RouteScope::Link.number();
            m.raw(&[family, destination.prefix(), 0, 0, libc::RT_TABLE_MAIN, 0, scope, TYPE_UNICAST]);
            m.raw(&0u32.to_ne_bytes());
            m.attribute(libc::RTA_DST, &address_bytes(destination.network()));
            m.u32(libc::RTA_OIF, link);
        });
    }

    fn add_route(&mut self, destination: Cidr, link: u32, gateway: Option<IpAddr>, source: Option<IpAddr>) {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.batch.push(libc::RTM_NEWROUTE, flags, format!("add the route to {destination}"), |m| {
            let scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
            let family = family_of(destination.network());
            m.raw(&[family, destination.prefix(), 0, 0, libc::RT_TABLE_MAIN, PROTOCOL_STATIC, scope.number()]);
            m.raw(&[TYPE_UNICAST]);
            m.raw(&(if gateway.is_some() { RTNH_F_ONLINK } else { 0 }).to_ne_bytes());
            if destination.prefix() > 0 {
                m.attribute(libc::RTA_DST, &address_bytes(destination.network()));
            }
            m.u32(libc::RTA_OIF, link);
            if let Some(gateway) = gateway {
                m.attribute(libc::RTA_GATEWAY, &address_bytes(gateway));
            }
            if let Some(source) = source {
                m.attribute(libc::RTA_PREFSRC, &address_bytes(source));
            }
        });
    }

    /// Makes a neighbour known for good, so that nobody ever asks for it on the link.
    pub fn add_neighbour(&mut self, link: u32, address: IpAddr, mac: Mac) {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.batch.push(libc::RTM_NEWNEIGH, flags, format!("add the neighbour {address}"), |m| {
            m.raw(&[family_of(address), 0, 0, 0]);
            m.raw(&link.to_ne_bytes());
            m.raw(&NUD_PERMANENT.to_ne_bytes());
            m.raw(&[0, TYPE_UNICAST]);
            m.attribute(libc::NDA_DST, &address_bytes(address));
            m.attribute(libc::NDA_LLADDR, &mac);
        });
    }
}
