//! Addresses of interfaces.

use std::net::IpAddr;

use super::{Changes, RouteScope, family_of};
use crate::netlink::{
    Attributes, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, address_bytes, read_address, read_string, read_u32,
};

const IFA_F_NODAD: u8 = 0x02;

/// What the kernel says about an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// The interface that has it.
    pub link: u32,
    /// The address itself.
    pub address: IpAddr,
    /// The length of the prefix of its network.
    pub prefix: u8,
    /// Its label; only IPv4 addresses have one.
    pub label: String,
    /// How far it is valid.
    pub scope: RouteScope,
}

impl Address {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let header = body.get(..8)?;
        let attributes = Attributes::new(body.get(8..)?);
        // On a point-to-point link the plain address is the peer's.
        let address = attributes.get(libc::IFA_LOCAL).or_else(|| attributes.get(libc::IFA_ADDRESS))?;
        Some(Self {
            link: read_u32(&header[4..])?,
            address: read_address(address)?,
            prefix: header[1],
            label: attributes.get(libc::IFA_LABEL).map(read_string).unwrap_or_default(),
            scope: RouteScope::from_number(header[3]),
        })
    }
}

impl Changes {
    /// Gives an interface an address without a network around it (a /32 or /128), or renews it.
    pub fn add_address(&mut self, link: u32, address: IpAddr, scope: RouteScope, label: Option<&str>) {
        let bytes = address_bytes(address);
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.batch.push(libc::RTM_NEWADDR, flags, format!("add the address {address}"), |m| {
            m.raw(&[family_of(address), bytes.len() as u8 * 8, IFA_F_NODAD, scope.number()]);
            m.raw(&link.to_ne_bytes());
            m.attribute(libc::IFA_LOCAL, &bytes);
            m.attribute(libc::IFA_ADDRESS, &bytes);
            if let Some(label) = label {
                m.string(libc::IFA_LABEL, label);
            }
        });
    }

    /// Takes a single address (a /32 or /128) from an interface.
    pub fn delete_address(&mut self, link: u32, address: IpAddr) {
        let bytes = address_bytes(address);
        self.batch.push(libc::RTM_DELADDR, NLM_F_ACK, format!("delete the address {address}"), |m| {
            m.raw(&[family_of(address), bytes.len() as u8 * 8, 0, 0]);
            m.raw(&link.to_ne_bytes());
            m.attribute(libc::IFA_LOCAL, &bytes);
        });
    }
}
