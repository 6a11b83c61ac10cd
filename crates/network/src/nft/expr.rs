//! Expressions: the instructions that rules are made of.
//!
//! An expression reads and writes registers of four bytes. Values of several registers start at the
//! register that is named.

use std::borrow::Cow;
use std::time::Duration;

use super::object::Verdict;
use crate::netlink::Bytes;

/// One of sixteen registers of four bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Register(u8);

impl Register {
    /// The register of this number.
    ///
    /// # Panics
    /// When there is none: numbers go from 0 to 15.
    pub const fn new(number: u8) -> Self {
        assert!(number < 16, "there are sixteen registers");
        Self(number)
    }

    /// The register `count` places after this one.
    ///
    /// # Panics
    /// When there is none.
    pub const fn offset(self, count: u8) -> Self {
        Self::new(self.0 + count)
    }

    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }
}

/// What is known about a packet besides its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum Meta {
    /// The packet mark, in the machine's order.
    Mark = 3,
    /// The name of the interface it came in by, 16 bytes.
    InputName = 6,
    /// The name of the interface it goes out by, 16 bytes.
    OutputName = 7,
    /// The protocol above IP, one byte.
    Protocol = 16,
}

/// Where in a packet bytes are counted from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum Base {
    /// The IP header.
    Network = 1,
    /// The header after it.
    Transport = 2,
}

/// How a register is compared with a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum Comparison {
    /// The same.
    Equal = 0,
    /// Not the same.
    NotEqual = 1,
}

/// What connection tracking knows about the packet's connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum CtKey {
    /// A bit mask: invalid 1, established 2, related 4, new 8.
    State = 0,
    /// A bit mask; see [`CtKey::DESTINATION_NAT`].
    Status = 2,
    /// The port that it was sent to, in one direction.
    ProtoDestination = 12,
    /// The IPv4 address that it was sent from, in one direction.
    Ipv4Source = 19,
    /// The IPv4 address that it was sent to, in one direction.
    Ipv4Destination = 20,
    /// The IPv6 address that it was sent from, in one direction.
    Ipv6Source = 21,
    /// The IPv6 address that it was sent to, in one direction.
    Ipv6Destination = 22,
}

impl CtKey {
    /// In [`CtKey::State`]: the first packet of a connection.
    pub const NEW: u32 = 8;
    /// In [`CtKey::State`]: neither part of a connection nor able to start one.
    pub const INVALID: u32 = 1;
    /// In [`CtKey::Status`]: the destination was translated.
    pub const DESTINATION_NAT: u32 = 1 << 5;
}

/// A direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum CtDirection {
    /// As its first packet went.
    Original = 0,
    /// The other way.
    Reply = 1,
}

/// What the routing table is asked about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum FibSelect {
    /// Its source address.
    Source = 1,
    /// Its destination address.
    Destination = 2,
}

/// What the routing table answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum FibResult {
    /// The kind of address, in the machine's order; see [`FibResult::LOCAL`].
    AddressType = 3,
}

impl FibResult {
    /// For [`FibResult::AddressType`]: an address of this machine.
    pub const LOCAL: u32 = 2;
}

/// How a sender is told that nobody answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reject {
    /// An ICMP message of type "destination unreachable" with this code, of the family of the table.
    Icmp(u8),
    /// A TCP reset.
    TcpReset,
}

/// A change that a rule makes to a dynamic set.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct DynamicSet {
    /// The set.
    pub set: Cow<'static, str>,
    /// Whether the element is deleted; otherwise it is added, or its time starts anew.
    pub delete: bool,
    /// Where the key is.
    pub key: Register,
    /// Where the value is, for a map.
    pub data: Option<Register>,
    /// How long the element stays.
    pub timeout: Option<Duration>,
}

/// An instruction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Expr {
    /// Loads what is known about the packet.
    Meta { key: Meta, to: Register },
    /// Sets what is known about the packet; only the mark can be set.
    SetMeta { key: Meta, from: Register },
    /// Loads bytes of the packet.
    Payload { base: Base, offset: u32, length: u32, to: Register },
    /// Loads what connection tracking knows.
    Ct { key: CtKey, direction: Option<CtDirection>, to: Register },
    /// Asks the routing table.
    Fib { select: FibSelect, result: FibResult, to: Register },
    /// Ends the rule unless the comparison holds.
    Compare { register: Register, comparison: Comparison, value: Vec<u8> },
    /// `to = (from & mask) ^ xor`; both have the same length.
    Bitwise { from: Register, to: Register, mask: Vec<u8>, xor: Vec<u8> },
    /// Ends the rule unless the set holds the key; for a map, loads the value. `inverted` (sets only) ends
    /// the rule when the set does hold the key.
    Lookup { set: Cow<'static, str>, key: Register, to: Option<Register>, inverted: bool },
    /// Ends the rule unless the verdict map holds the key; else carries out the verdict.
    VerdictMap { map: Cow<'static, str>, key: Register },
    /// Loads a constant.
    Immediate { to: Register, value: Vec<u8> },
    /// Carries out a verdict.
    Verdict(Verdict),
    /// Loads a random number below `modulus`, in the machine's order.
    Random { modulus: u32, to: Register },
    /// Changes a dynamic set.
    Dynamic(DynamicSet),
    /// Translates the destination address, and the port when given.
    DestinationNat { family: super::Family, address: Register, port: Option<Register> },
    /// Translates the source address.
    SourceNat { family: super::Family, address: Register },
    /// Translates the source address to that of the outgoing interface, with a random port.
    Masquerade,
    /// Refuses the packet.
    Reject(Reject),
}

const NAT_PROTO_RANDOM_FULLY: u32 = 1 << 4;
const VALUE: u16 = 1;

impl Expr {
    fn name(&self) -> &'static str {
        match self {
            Expr::Meta { .. } | Expr::SetMeta { .. } => "meta",
            Expr::Payload { .. } => "payload",
            Expr::Ct { .. } => "ct",
            Expr::Fib { .. } => "fib",
            Expr::Compare { .. } => "cmp",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Lookup { .. } | Expr::VerdictMap { .. } => "lookup",
            Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
            Expr::Random { .. } => "numgen",
            Expr::Dynamic(_) => "dynset",
            Expr::DestinationNat { .. } | Expr::SourceNat { .. } => "nat",
            Expr::Masquerade => "masq",
            Expr::Reject(_) => "reject",
        }
    }

    pub(crate) fn encode(&self, m: &mut Bytes) {
        const NAME: u16 = 1;
        const DATA: u16 = 2;
        m.string(NAME, self.name());
        m.nested(DATA, |m| self.encode_body(m));
    }

    fn encode_body(&self, m: &mut Bytes) {
        match self {
            Expr::Meta { key, to } => {
                m.be32(2, *key as u32);
                m.be32(1, to.number());
            }
            Expr::SetMeta { key, from } => {
                m.be32(2, *key as u32);
                m.be32(3, from.number());
            }
            Expr::Payload { base, offset, length, to } => {
                m.be32(1, to.number());
                m.be32(2, *base as u32);
                m.be32(3, *offset);
                m.be32(4, *length);
            }
            Expr::Ct { key, direction, to } => {
                m.be32(1, to.number());
                m.be32(2, *key as u32);
                if let Some(direction) = direction {
                    m.u8(3, *direction as u8);
                }
            }
            Expr::Fib { select, result, to } => {
                m.be32(1, to.number());
                m.be32(2, *result as u32);
                m.be32(3, *select as u32);
            }
            Expr::Compare { register, comparison, value } => {
                m.be32(1, register.number());
                m.be32(2, *comparison as u32);
                m.nested(3, |m| m.attribute(VALUE, value));
            }
            Expr::Bitwise { from, to, mask, xor } => {
                m.be32(1, from.number());
                m.be32(2, to.number());
                m.be32(3, mask.len() as u32);
                m.nested(4, |m| m.attribute(VALUE, mask));
                m.nested(5, |m| m.attribute(VALUE, xor));
            }
            Expr::Lookup { set, key, to, inverted } => {
                m.string(1, set);
                m.be32(2, key.number());
                if let Some(to) = to {
                    m.be32(3, to.number());
                }
                if *inverted {
                    m.be32(5, 1);
                }
            }
            Expr::VerdictMap { map, key } => {
                const VERDICT_REGISTER: u32 = 0;
                m.string(1, map);
                m.be32(2, key.number());
                m.be32(3, VERDICT_REGISTER);
            }
            Expr::Immediate { to, value } => {
                m.be32(1, to.number());
                m.nested(2, |m| m.attribute(VALUE, value));
            }
            Expr::Verdict(verdict) => {
                const VERDICT_REGISTER: u32 = 0;
                m.be32(1, VERDICT_REGISTER);
                m.nested(2, |m| verdict.encode(m));
            }
            Expr::Random { modulus, to } => {
                const RANDOM: u32 = 1;
                m.be32(1, to.number());
                m.be32(2, *modulus);
                m.be32(3, RANDOM);
            }
            Expr::Dynamic(change) => encode_dynamic(m, change),
            Expr::DestinationNat { family, address, port } => {
                const DESTINATION: u32 = 1;
                m.be32(1, DESTINATION);
                m.be32(2, *family as u32);
                m.be32(3, address.number());
                if let Some(port) = port {
                    m.be32(5, port.number());
                }
            }
            Expr::SourceNat { family, address } => {
                const SOURCE: u32 = 0;
                m.be32(1, SOURCE);
                m.be32(2, *family as u32);
                m.be32(3, address.number());
            }
            Expr::Masquerade => m.be32(1, NAT_PROTO_RANDOM_FULLY),
            Expr::Reject(Reject::Icmp(code)) => {
                m.be32(1, 0);
                m.u8(2, *code);
            }
            Expr::Reject(Reject::TcpReset) => {
                m.be32(1, 1);
                m.u8(2, 0);
            }
        }
    }
}

fn encode_dynamic(m: &mut Bytes, change: &DynamicSet) {
    const UPDATE: u32 = 1;
    const DELETE: u32 = 2;
    m.string(1, &change.set);
    m.be32(3, if change.delete { DELETE } else { UPDATE });
    m.be32(4, change.key.number());
    if let Some(data) = change.data {
        m.be32(5, data.number());
    }
    if let Some(timeout) = change.timeout {
        m.be64(6, timeout.as_millis() as u64);
    }
}
