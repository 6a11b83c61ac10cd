//! nftables: tables, chains, sets, rules and elements, encoded as transactions.
//!
//! A [`Transaction`] is pure bytes; [`Nft::commit`] has the kernel carry it out as a whole or not at all.

mod expr;
mod object;
mod query;
mod rule;
mod transaction;

pub use expr::{Base, Comparison, CtDirection, CtKey, DynamicSet, Expr, FibResult, FibSelect, Meta, Register, Reject};
pub use object::{
    Chain, ChainKind, Element, ElementData, Hook, Set, SetData, SetFlags, SetType, Table, Verdict, priority,
};
pub use query::{BaseChain, Nft};
pub use rule::{Rule, icmp, protocol};
pub use transaction::Transaction;

/// The address family of a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Family {
    /// Both IPv4 and IPv6.
    Inet = 1,
    /// IPv4.
    Ip = 2,
    /// Bridged frames.
    Bridge = 7,
    /// IPv6.
    Ip6 = 10,
}

impl Family {
    /// The length of an address: 4 bytes but for IPv6.
    pub fn address_length(self) -> u32 {
        if self == Family::Ip6 { 16 } else { 4 }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        [Family::Inet, Family::Ip, Family::Bridge, Family::Ip6].into_iter().find(|f| *f as u8 == number)
    }
}
