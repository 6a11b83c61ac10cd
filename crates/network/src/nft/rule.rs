//! Rules, written with the words of the field.

use std::borrow::Cow;

use super::Family;
use super::expr::{Base, Comparison, CtKey, Expr, FibResult, FibSelect, Meta, Register, Reject};
use super::object::Verdict;

/// Protocol numbers.
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// Codes of "destination unreachable".
pub mod icmp {
    /// Nothing listens on the port.
    pub const PORT_UNREACHABLE: u8 = 3;
    /// The same in ICMPv6.
    pub const PORT_UNREACHABLE_V6: u8 = 4;
}

/// The register that single comparisons use.
const SCRATCH: Register = Register::new(0);

/// A rule: expressions that are carried out in order until one does not match.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rule {
    pub(crate) expressions: Vec<Expr>,
    pub(crate) comment: Cow<'static, str>,
}

impl Rule {
    /// A rule that matches everything and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A comment that `nft` shows beside the rule.
    pub fn comment(mut self, comment: impl Into<Cow<'static, str>>) -> Self {
        self.comment = comment.into();
        self
    }

    /// Any expression.
    pub fn expr(mut self, expr: Expr) -> Self {
        self.expressions.push(expr);
        self
    }

    fn compare(self, load: Expr, comparison: Comparison, value: impl Into<Vec<u8>>) -> Self {
        self.expr(load).expr(Expr::Compare { register: SCRATCH, comparison, value: value.into() })
    }

    /// Matches packets that came in by an interface whose name starts with `prefix`.
    pub fn input_prefix(self, prefix: &str) -> Self {
        self.compare(Expr::Meta { key: Meta::InputName, to: SCRATCH }, Comparison::Equal, prefix)
    }

    /// Matches packets that go out by an interface whose name starts with `prefix`.
    pub fn output_prefix(self, prefix: &str) -> Self {
        self.compare(Expr::Meta { key: Meta::OutputName, to: SCRATCH }, Comparison::Equal, prefix)
    }

    /// Matches packets that do not go out by such an interface.
    pub fn output_prefix_not(self, prefix: &str) -> Self {
        self.compare(Expr::Meta { key: Meta::OutputName, to: SCRATCH }, Comparison::NotEqual, prefix)
    }

    /// Matches a protocol; see [`protocol`].
    pub fn protocol(self, number: u8) -> Self {
        self.compare(Expr::Meta { key: Meta::Protocol, to: SCRATCH }, Comparison::Equal, [number])
    }

    /// Matches packets whose source is in a range of a prefix of whole bytes or any other.
    pub fn source(self, range: crate::Cidr) -> Self {
        self.address(source_address(family_of(range), SCRATCH), range, Comparison::Equal)
    }

    /// Matches packets whose destination is in a range.
    pub fn destination(self, range: crate::Cidr) -> Self {
        self.address(destination_address(family_of(range), SCRATCH), range, Comparison::Equal)
    }

    /// Matches packets whose destination is not in a range.
    pub fn destination_not(self, range: crate::Cidr) -> Self {
        self.address(destination_address(family_of(range), SCRATCH), range, Comparison::NotEqual)
    }

    fn address(self, load: Expr, range: crate::Cidr, comparison: Comparison) -> Self {
        let network = crate::netlink::address_bytes(range.network());
        let mask = prefix_mask(network.len(), range.prefix());
        let xor = vec![0; mask.len()];
        self.expr(load).expr(Expr::Bitwise { from: SCRATCH, to: SCRATCH, mask, xor }).expr(Expr::Compare {
            register: SCRATCH,
            comparison,
            value: network,
        })
    }

    /// Matches packets whose source is (or is not) in a set of addresses.
    pub fn source_in(self, family: Family, set: impl Into<Cow<'static, str>>, is_in: bool) -> Self {
        self.expr(source_address(family, SCRATCH)).expr(Expr::Lookup {
            set: set.into(),
            key: SCRATCH,
            to: None,
            inverted: !is_in,
        })
    }

    /// Matches packets whose destination is (or is not) in a set of addresses.
    pub fn destination_in(self, family: Family, set: impl Into<Cow<'static, str>>, is_in: bool) -> Self {
        self.expr(destination_address(family, SCRATCH)).expr(Expr::Lookup {
            set: set.into(),
            key: SCRATCH,
            to: None,
            inverted: !is_in,
        })
    }

    /// Matches packets to an address of this machine.
    pub fn destination_local(self) -> Self {
        self.local(FibSelect::Destination, Comparison::Equal)
    }

    /// Matches packets from an address of this machine.
    pub fn source_local(self) -> Self {
        self.local(FibSelect::Source, Comparison::Equal)
    }

    /// Matches packets from an address that is not this machine's.
    pub fn source_not_local(self) -> Self {
        self.local(FibSelect::Source, Comparison::NotEqual)
    }

    fn local(self, select: FibSelect, comparison: Comparison) -> Self {
        let load = Expr::Fib { select, result: FibResult::AddressType, to: SCRATCH };
        self.compare(load, comparison, FibResult::LOCAL.to_ne_bytes())
    }

    /// Matches packets whose connection is in one of the states of this bit mask.
    pub fn ct_state(self, states: u32) -> Self {
        self.ct_bits(CtKey::State, states)
    }

    /// Matches packets whose connection has one of the statuses of this bit mask.
    pub fn ct_status(self, statuses: u32) -> Self {
        self.ct_bits(CtKey::Status, statuses)
    }

    fn ct_bits(self, key: CtKey, bits: u32) -> Self {
        self.expr(Expr::Ct { key, direction: None, to: SCRATCH }).any_bit(bits)
    }

    /// Matches packets that have a bit of the packet mark.
    pub fn mark(self, bits: u32) -> Self {
        self.expr(Expr::Meta { key: Meta::Mark, to: SCRATCH }).any_bit(bits)
    }

    fn any_bit(self, bits: u32) -> Self {
        self.expr(Expr::Bitwise { from: SCRATCH, to: SCRATCH, mask: bits.to_ne_bytes().into(), xor: vec![0; 4] })
            .expr(Expr::Compare { register: SCRATCH, comparison: Comparison::NotEqual, value: vec![0; 4] })
    }

    /// Sets bits of the packet mark.
    pub fn set_mark(self, bits: u32) -> Self {
        self.change_mark(!bits, bits)
    }

    /// Clears bits of the packet mark.
    pub fn clear_mark(self, bits: u32) -> Self {
        self.change_mark(!bits, 0)
    }

    fn change_mark(self, mask: u32, xor: u32) -> Self {
        self.expr(Expr::Meta { key: Meta::Mark, to: SCRATCH })
            .expr(Expr::Bitwise {
                from: SCRATCH,
                to: SCRATCH,
                mask: mask.to_ne_bytes().into(),
                xor: xor.to_ne_bytes().into(),
            })
            .expr(Expr::SetMeta { key: Meta::Mark, from: SCRATCH })
    }

    /// Ends with a verdict.
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.expr(Expr::Verdict(verdict))
    }

    /// Ends by dropping the packet.
    pub fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    /// Ends by going through another chain and back.
    pub fn jump(self, chain: impl Into<String>) -> Self {
        self.verdict(Verdict::Jump(chain.into()))
    }

    /// Ends by going to another chain.
    pub fn goto(self, chain: impl Into<String>) -> Self {
        self.verdict(Verdict::Goto(chain.into()))
    }

    /// Ends by refusing the packet with "port unreachable".
    pub fn reject_port(self, family: Family) -> Self {
        let code = if family == Family::Ip6 { icmp::PORT_UNREACHABLE_V6 } else { icmp::PORT_UNREACHABLE };
        self.expr(Expr::Reject(Reject::Icmp(code)))
    }

    /// Ends by translating the source to that of the outgoing interface.
    pub fn masquerade(self) -> Self {
        self.expr(Expr::Masquerade)
    }
}

/// Loads the source address of a packet.
pub(crate) fn source_address(family: Family, to: Register) -> Expr {
    let offset = if family == Family::Ip6 { 8 } else { 12 };
    Expr::Payload { base: Base::Network, offset, length: family.address_length(), to }
}

/// Loads the destination address of a packet.
pub(crate) fn destination_address(family: Family, to: Register) -> Expr {
    let offset = if family == Family::Ip6 { 24 } else { 16 };
    Expr::Payload { base: Base::Network, offset, length: family.address_length(), to }
}

impl Expr {
    /// Loads the source address of a packet of this family.
    pub fn source_address(family: Family, to: Register) -> Self {
        source_address(family, to)
    }

    /// Loads the destination address of a packet of this family.
    pub fn destination_address(family: Family, to: Register) -> Self {
        destination_address(family, to)
    }

    /// Loads the destination port of a packet: TCP, UDP and SCTP have it in the same place.
    pub fn destination_port(to: Register) -> Self {
        Expr::Payload { base: Base::Transport, offset: 2, length: 2, to }
    }
}

fn family_of(range: crate::Cidr) -> Family {
    if range.is_ipv6() { Family::Ip6 } else { Family::Ip }
}

fn prefix_mask(length: usize, prefix: u8) -> Vec<u8> {
    (0..length)
        .map(|byte| match usize::from(prefix).saturating_sub(byte * 8) {
            0 => 0,
            bits if bits >= 8 => 255,
            bits => !(255u8 >> bits),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_the_bits_of_the_prefix() {
        assert_eq!(prefix_mask(4, 0), [0, 0, 0, 0]);
        assert_eq!(prefix_mask(4, 13), [255, 0b1111_1000, 0, 0]);
        assert_eq!(prefix_mask(4, 32), [255; 4]);
    }
}
