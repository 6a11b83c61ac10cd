//! Tables, chains, sets and their elements.

use std::borrow::Cow;
use std::time::Duration;

use super::Family;
use crate::netlink::Bytes;

/// A table by its name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Table {
    /// The family of the packets it sees.
    pub family: Family,
    /// Its name.
    pub name: String,
}

impl Table {
    /// The table of this name.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into() }
    }
}

/// What the rules of a base chain may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChainKind {
    /// Accept, drop, mark.
    Filter,
    /// Translate addresses: sees the first packet of each connection only.
    Nat,
}

/// Where on a packet's way through the machine a base chain is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Hook {
    /// Before routing.
    Prerouting = 0,
    /// On the way to this machine.
    Input = 1,
    /// On the way through this machine.
    Forward = 2,
    /// From this machine, before routing.
    Output = 3,
    /// On the way out.
    Postrouting = 4,
}

/// The usual priorities of base chains.
pub mod priority {
    /// Before connection tracking.
    pub const RAW: i32 = -300;
    /// Destination NAT.
    pub const DSTNAT: i32 = -100;
    /// Filtering.
    pub const FILTER: i32 = 0;
    /// Source NAT.
    pub const SRCNAT: i32 = 100;
}

/// A chain to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// Where it starts, for a base chain.
    pub hook: Option<(ChainKind, Hook, i32)>,
    /// Whether a base chain drops what reaches its end; otherwise that is accepted.
    pub drops: bool,
}

impl<'a> Chain<'a> {
    /// A chain that rules and maps lead to.
    pub fn regular(name: impl Into<Cow<'a, str>>) -> Self {
        Self { name: name.into(), hook: None, drops: false }
    }

    /// A chain that packets enter at a hook.
    pub fn base(name: impl Into<Cow<'a, str>>, kind: ChainKind, hook: Hook, priority: i32) -> Self {
        Self { name: name.into(), hook: Some((kind, hook, priority)), drops: false }
    }

    /// The same base chain, but it drops what reaches its end.
    pub fn dropping(mut self) -> Self {
        self.drops = true;
        self
    }
}

/// The type of a field of a set's key or data. The kernel only knows lengths; the type tells `nft` how to
/// show the values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum SetType {
    /// An IPv4 address, 4 bytes.
    Ipv4Address = 7,
    /// An IPv6 address, 16 bytes.
    Ipv6Address = 8,
    /// A protocol number, 1 byte.
    Protocol = 12,
    /// A port, 2 bytes.
    Port = 13,
    /// A number, 4 bytes in the machine's order.
    Number = 19,
}

impl SetType {
    /// The type of the addresses of a family.
    pub fn address(family: Family) -> Self {
        if family == Family::Ip6 { SetType::Ipv6Address } else { SetType::Ipv4Address }
    }

    /// How many bytes a value has.
    pub fn length(self) -> u32 {
        match self {
            SetType::Ipv4Address | SetType::Number => 4,
            SetType::Ipv6Address => 16,
            SetType::Protocol => 1,
            SetType::Port => 2,
        }
    }
}

/// What a set is besides a list.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SetFlags {
    /// Holds ranges of addresses.
    pub interval: bool,
    /// Rules may add and delete elements, at most this many.
    pub dynamic: Option<u32>,
    /// Elements can expire, and do after this time when they say nothing else.
    pub timeout: Option<Duration>,
}

/// A set or a map to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Set<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// The fields of a key. At most five.
    pub key: Cow<'a, [SetType]>,
    /// What the keys lead to.
    pub data: SetData<'a>,
    /// What else it is.
    pub flags: SetFlags,
}

/// What the keys of a set lead to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SetData<'a> {
    /// Nothing: a plain set.
    None,
    /// A value of these fields.
    Fields(Cow<'a, [SetType]>),
    /// A verdict.
    Verdict,
}

impl<'a> Set<'a> {
    /// A plain set.
    pub fn of(name: impl Into<Cow<'a, str>>, key: impl Into<Cow<'a, [SetType]>>) -> Self {
        Self { name: name.into(), key: key.into(), data: SetData::None, flags: SetFlags::default() }
    }

    /// A map to values.
    pub fn map(
        name: impl Into<Cow<'a, str>>,
        key: impl Into<Cow<'a, [SetType]>>,
        data: impl Into<Cow<'a, [SetType]>>,
    ) -> Self {
        Self { name: name.into(), key: key.into(), data: SetData::Fields(data.into()), flags: SetFlags::default() }
    }

    /// A map to verdicts.
    pub fn verdict_map(name: impl Into<Cow<'a, str>>, key: impl Into<Cow<'a, [SetType]>>) -> Self {
        Self { name: name.into(), key: key.into(), data: SetData::Verdict, flags: SetFlags::default() }
    }

    /// The same set with these flags.
    pub fn with(mut self, flags: SetFlags) -> Self {
        self.flags = flags;
        self
    }
}

/// The length in bytes of fields side by side, each padded to four.
pub(crate) fn length_of(fields: &[SetType]) -> u32 {
    match fields {
        [one] => one.length(),
        many => many.iter().map(|field| field.length().next_multiple_of(4)).sum(),
    }
}

/// The number by which `nft` knows a concatenation of types.
pub(crate) fn number_of(fields: &[SetType]) -> u32 {
    fields.iter().fold(0, |number, field| (number << 6) | *field as u32)
}

/// What becomes of a packet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// Goes on; later base chains may still think otherwise.
    Accept,
    /// Vanishes.
    Drop,
    /// Goes back to the chain that jumped here.
    Return,
    /// Goes through another chain and comes back.
    Jump(String),
    /// Goes through another chain and does not come back.
    Goto(String),
}

impl Verdict {
    pub(crate) fn encode(&self, m: &mut Bytes) {
        const VERDICT: u16 = 2;
        const CODE: u16 = 1;
        const CHAIN: u16 = 2;
        let (code, chain) = match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5i32, None),
        };
        m.nested(VERDICT, |m| {
            m.be32(CODE, code as u32);
            if let Some(chain) = chain {
                m.string(CHAIN, chain);
            }
        });
    }
}

/// An element of a set or map.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Element {
    /// The fields of its key, each padded to four bytes; see [`Element::key`].
    pub key: Vec<u8>,
    /// Marks the first key after a range, in interval sets.
    pub range_end: bool,
    /// What the key leads to.
    pub data: ElementData,
}

/// What the key of an element leads to.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ElementData {
    /// Nothing.
    None,
    /// A value, its fields padded to four bytes.
    Value(Vec<u8>),
    /// A verdict.
    Verdict(Verdict),
}

impl Element {
    /// An element of a plain set.
    pub fn new(key: Vec<u8>) -> Self {
        Self { key, range_end: false, data: ElementData::None }
    }

    /// An element of a map to values.
    pub fn value(key: Vec<u8>, value: Vec<u8>) -> Self {
        Self { key, range_end: false, data: ElementData::Value(value) }
    }

    /// An element of a map to verdicts.
    pub fn verdict(key: Vec<u8>, verdict: Verdict) -> Self {
        Self { key, range_end: false, data: ElementData::Verdict(verdict) }
    }

    /// Fields side by side, each padded to four bytes, as keys and values of several fields are. A key of a
    /// single field is not padded.
    pub fn fields(fields: &[&[u8]]) -> Vec<u8> {
        if let [one] = fields {
            return one.to_vec();
        }
        let mut bytes = Vec::with_capacity(fields.iter().map(|field| field.len().next_multiple_of(4)).sum());
        for field in fields {
            bytes.extend_from_slice(field);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    /// The two elements that make a range of addresses in an interval set. Ranges in one set must not
    /// overlap.
    pub fn range(range: crate::Cidr) -> Vec<Self> {
        let first = crate::netlink::address_bytes(range.network());
        let mut after = crate::netlink::address_bytes(range.last());
        // The element after the range is its last address plus one; past the last address there is none.
        let carried = after.iter_mut().rev().try_for_each(|byte| {
            *byte = byte.wrapping_add(1);
            if *byte == 0 { Ok(()) } else { Err(()) }
        });
        let mut elements = vec![Self::new(first)];
        if carried.is_err() {
            elements.push(Self { key: after, range_end: true, data: ElementData::None });
        }
        elements
    }

    pub(crate) fn encode(&self, m: &mut Bytes) {
        const KEY: u16 = 1;
        const DATA: u16 = 2;
        const FLAGS: u16 = 3;
        const VALUE: u16 = 1;
        const INTERVAL_END: u32 = 1;
        m.nested(KEY, |m| m.attribute(VALUE, &self.key));
        match &self.data {
            ElementData::None => {}
            ElementData::Value(value) => m.nested(DATA, |m| m.attribute(VALUE, value)),
            ElementData::Verdict(verdict) => m.nested(DATA, |m| verdict.encode(m)),
        }
        if self.range_end {
            m.be32(FLAGS, INTERVAL_END);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_one_after_their_last_address() {
        let range = Element::range("10.1.255.0/24".parse().unwrap());
        assert_eq!(range[0].key, [10, 1, 255, 0]);
        assert_eq!(range[1].key, [10, 2, 0, 0]);
        assert!(range[1].range_end);
        assert_eq!(Element::range("255.255.255.0/24".parse().unwrap()).len(), 1);
        assert_eq!(Element::range("0.0.0.0/0".parse().unwrap()).len(), 1);
    }

    #[test]
    fn fields_are_padded_only_in_company() {
        assert_eq!(Element::fields(&[&[6]]), [6]);
        assert_eq!(Element::fields(&[&[1, 2, 3, 4], &[6], &[0, 80]]), [1, 2, 3, 4, 6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(length_of(&[SetType::Ipv4Address, SetType::Protocol, SetType::Port]), 12);
        assert_eq!(length_of(&[SetType::Protocol]), 1);
        assert_eq!(number_of(&[SetType::Ipv4Address, SetType::Port]), (7 << 6) | 13);
    }
}
