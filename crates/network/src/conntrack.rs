//! Connection tracking: what flows there are, and forgetting some of them.

use std::net::IpAddr;

use crate::Result;
use crate::netlink::{
    Attributes, Batch, Bytes, NLM_F_ACK, NLM_F_DUMP, Protocol, Socket, address_bytes, read_address, read_be16,
};
use crate::rtnl::family_of;

const SUBSYSTEM: u16 = 1;
const NEW: u16 = SUBSYSTEM << 8;
const GET: u16 = (SUBSYSTEM << 8) | 1;
const DELETE: u16 = (SUBSYSTEM << 8) | 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
const IP_V4_SOURCE: u16 = 1;
const IP_V6_SOURCE: u16 = 3;
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_DESTINATION_PORT: u16 = 3;

/// One direction of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tuple {
    /// Where packets come from.
    pub source: IpAddr,
    /// Where they go to.
    pub destination: IpAddr,
    /// The protocol above IP.
    pub protocol: u8,
    /// The port they come from.
    pub source_port: u16,
    /// The port they go to.
    pub destination_port: u16,
}

/// A tracked flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Flow {
    /// As its first packet was sent.
    pub original: Tuple,
    /// As answers come: from the address that the destination was translated to.
    pub reply: Tuple,
}

/// A socket for the connection tracking of one network namespace: the one in which it was opened.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
}

impl Conntrack {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Netfilter)? })
    }

    /// The flows of one protocol, of IPv4 or IPv6.
    pub fn flows(&mut self, ipv6: bool, protocol: u8) -> Result<Vec<Flow>> {
        let family = if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
        let mut batch = Batch::new();
        batch.push(GET, NLM_F_DUMP, "list the tracked connections", |m| m.raw(&[family, 0, 0, 0]));
        self.socket.dump(&batch, |kind, body| {
            (kind == NEW).then_some(())?;
            let attributes = Attributes::new(body.get(4..)?);
            let original = Tuple::parse(attributes.get(TUPLE_ORIGINAL)?)?;
            (original.protocol == protocol).then_some(())?;
            Some(Flow { original, reply: Tuple::parse(attributes.get(TUPLE_REPLY)?)? })
        })
    }

    /// Forgets flows, so that their next packets are seen as the first ones again. A flow that has ended
    /// meanwhile is no error.
    pub fn delete(&mut self, flows: &[Flow]) -> Result<()> {
        for chunk in flows.chunks(512) {
            let mut batch = Batch::new();
            for flow in chunk {
                let operation = format!("forget the connection to {}", flow.original.destination);
                batch.push(DELETE, NLM_F_ACK, operation, |m| {
                    m.raw(&[family_of(flow.original.source), 0, 0, 0]);
                    m.nested(TUPLE_ORIGINAL, |m| flow.original.encode(m));
                });
            }
            for answer in self.socket.request_each(&batch)? {
                match answer {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

impl Tuple {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let attributes = Attributes::new(bytes);
        let mut addresses = Attributes::new(attributes.get(TUPLE_IP)?);
        let proto = Attributes::new(attributes.get(TUPLE_PROTO)?);
        Some(Self {
            source: read_address(addresses.next()?.1)?,
            destination: read_address(addresses.next()?.1)?,
            protocol: *proto.get(PROTO_NUMBER)?.first()?,
            source_port: proto.get(PROTO_SOURCE_PORT).and_then(read_be16).unwrap_or(0),
            destination_port: proto.get(PROTO_DESTINATION_PORT).and_then(read_be16).unwrap_or(0),
        })
    }

    fn encode(&self, m: &mut Bytes) {
        let first = if self.source.is_ipv6() { IP_V6_SOURCE } else { IP_V4_SOURCE };
        m.nested(TUPLE_IP, |m| {
            m.attribute(first, &address_bytes(self.source));
            m.attribute(first + 1, &address_bytes(self.destination));
        });
        m.nested(TUPLE_PROTO, |m| {
            m.u8(PROTO_NUMBER, self.protocol);
            m.be16(PROTO_SOURCE_PORT, self.source_port);
            m.be16(PROTO_DESTINATION_PORT, self.destination_port);
        });
    }
}
