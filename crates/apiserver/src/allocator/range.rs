//! The pools that Services are given addresses and ports from, and the choice of a free one.
//!
//! The lower part of each pool is a static band: addresses and ports asked for by number mostly lie there, so choosing
//! begins above it and comes down only when the rest is used up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use thiserror::Error;

/// Why an address or port cannot be had, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PoolError {
    #[error("range is full")]
    Full,
    #[error("provided IP is already allocated")]
    AddressTaken,
    #[error("provided port is already allocated")]
    PortTaken,
    #[error("the provided network does not match the current range")]
    AddressOutside,
    #[error("provided port is not in the valid range. The range of valid ports is {range}")]
    PortOutside { range: String },
}

/// An IP family, as Services name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
    pub fn as_str(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        }
    }
    pub fn other(self) -> Self {
        match self {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        }
    }
}

/// How much of a pool is kept for values asked for by number.
fn static_band(size: u128, max: u128, step: u128) -> u128 {
    const MIN: u128 = 16;
    if size < MIN { 0 } else { (size / step).clamp(MIN, max) }
}

/// A service CIDR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressRange {
    text: String,
    family: Family,
    /// First and last address that may be given out.
    first: u128,
    last: u128,
    /// Where choosing begins.
    dynamic: u128,
}

impl AddressRange {
    /// Reads a CIDR such as `10.96.0.0/16`. `None` when it is none, or leaves no address to give.
    ///
    /// The network's own address is never given, nor is IPv4's broadcast address.
    pub fn parse(cidr: &str) -> Option<Self> {
        let (address, prefix) = cidr.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let prefix: u32 = prefix.parse().ok()?;
        let (bits, value, family) = match address {
            IpAddr::V4(a) => (32, u128::from(u32::from(a)), Family::V4),
            IpAddr::V6(a) => (128, u128::from(a), Family::V6),
        };
        if prefix > bits || prefix == 0 {
            return None;
        }
        let size = 1u128.checked_shl(bits - prefix)?;
        let network = value & !(size - 1);
        let first = network + 1;
        let last = if family == Family::V4 { (network + size - 1).checked_sub(1)? } else { network + size - 1 };
        if last < first {
            return None;
        }
        let dynamic = (first + static_band(size, 256, 16)).min(last + 1);
        let shown = from_number(family, network);
        Some(AddressRange { text: format!("{shown}/{prefix}"), family, first, last, dynamic })
    }

    pub fn family(&self) -> Family {
        self.family
    }

    /// The range in canonical form.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The n-th address of the range: 1 is the API server's, 10 the cluster DNS's.
    pub fn nth(&self, n: u32) -> Option<IpAddr> {
        let number = self.first.checked_add(u128::from(n.checked_sub(1)?))?;
        (number <= self.last).then(|| from_number(self.family, number))
    }

    /// How many addresses may be given out.
    pub fn size(&self) -> u128 {
        self.last - self.first + 1
    }

    /// Whether an address may be given out from here.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family && (self.first..=self.last).contains(&to_number(address))
    }

    /// Checks an address that was asked for.
    pub fn check(&self, address: IpAddr, taken: impl Fn(IpAddr) -> bool) -> Result<(), PoolError> {
        if !self.contains(address) {
            return Err(PoolError::AddressOutside);
        }
        if taken(address) { Err(PoolError::AddressTaken) } else { Ok(()) }
    }

    /// Chooses a free address: from a random one upwards, around the dynamic band, then the static band.
    pub fn choose(&self, random: u64, taken: impl Fn(IpAddr) -> bool) -> Result<IpAddr, PoolError> {
        let bands = [(self.dynamic, self.last + 1), (self.first, self.dynamic)];
        bands
            .into_iter()
            .find_map(|(from, to)| around(from, to, random).map(|n| from_number(self.family, n)).find(|a| !taken(*a)))
            .ok_or(PoolError::Full)
    }
}

/// Every number of `from..to`, beginning at a random one.
fn around(from: u128, to: u128, random: u64) -> impl Iterator<Item = u128> {
    let size = to.saturating_sub(from);
    let start = if size == 0 { from } else { from + u128::from(random) % size };
    (start..to).chain(from..start)
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(u32::from(a)),
        IpAddr::V6(a) => u128::from(a),
    }
}

fn from_number(family: Family, number: u128) -> IpAddr {
    match family {
        // Numbers of an IPv4 range have 32 bits by construction.
        Family::V4 => IpAddr::V4(Ipv4Addr::from(number as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// The node ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl std::fmt::Display for PortRange {
    /// `30000-32767`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Default for PortRange {
    fn default() -> Self {
        PortRange { first: 30000, last: 32767 }
    }
}

impl PortRange {
    /// Reads `30000-32767` or `30000+2767`. `None` when it is neither, begins at 0, or ends before it begins.
    pub fn parse(text: &str) -> Option<Self> {
        let (first, last): (u16, u16) = match text.split_once('-') {
            Some((first, last)) => (first.trim().parse().ok()?, last.trim().parse().ok()?),
            None => {
                let (first, more) = text.split_once('+')?;
                let first: u16 = first.trim().parse().ok()?;
                (first, first.checked_add(more.trim().parse().ok()?)?)
            }
        };
        (first > 0 && first <= last).then_some(PortRange { first, last })
    }

    pub fn first(&self) -> u16 {
        self.first
    }

    pub fn size(&self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    pub fn contains(&self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// Checks a port that was asked for.
    pub fn check(&self, port: u16, taken: impl Fn(u16) -> bool) -> Result<(), PoolError> {
        if !self.contains(port) {
            return Err(PoolError::PortOutside { range: self.to_string() });
        }
        if taken(port) { Err(PoolError::PortTaken) } else { Ok(()) }
    }

    /// Chooses a free port, as [`AddressRange::choose`] does an address.
    pub fn choose(&self, random: u64, taken: impl Fn(u16) -> bool) -> Result<u16, PoolError> {
        let (first, end) = (u128::from(self.first), u128::from(self.last) + 1);
        let dynamic = (first + static_band(end - first, 128, 32)).min(end);
        [(dynamic, end), (first, dynamic)]
            .into_iter()
            // Every number here lies between two u16.
            .find_map(|(from, to)| around(from, to, random).map(|n| n as u16).find(|p| !taken(*p)))
            .ok_or(PoolError::Full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn range(cidr: &str) -> AddressRange {
        AddressRange::parse(cidr).expect("a range")
    }

    #[test]
    fn network_and_broadcast_are_never_given() {
        let r = range("10.96.0.0/29");
        let mut taken: BTreeSet<IpAddr> = BTreeSet::new();
        while let Ok(a) = r.choose(3, |a| taken.contains(&a)) {
            taken.insert(a);
        }
        let all: Vec<String> = taken.iter().map(ToString::to_string).collect();
        assert_eq!(all, ["10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.4", "10.96.0.5", "10.96.0.6"]);
        assert_eq!(r.choose(0, |a| taken.contains(&a)), Err(PoolError::Full));
    }

    #[test]
    fn numbered_places_and_the_static_band() {
        let r = range("10.96.0.0/16");
        assert_eq!(r.nth(1), Some("10.96.0.1".parse().expect("an address")));
        assert_eq!(r.nth(10), Some("10.96.0.10".parse().expect("an address")));
        let chosen = r.choose(0, |_| false).expect("an address");
        assert_eq!(chosen.to_string(), "10.96.1.1", "256 addresses are kept for those who ask by number");
        assert_eq!(range("fd00::/108").nth(10).map(|a| a.to_string()).as_deref(), Some("fd00::a"));
    }

    #[test]
    fn refusals_are_in_upstreams_words() {
        let r = range("10.96.0.0/16");
        let outside: IpAddr = "10.97.0.1".parse().expect("an address");
        assert_eq!(r.check(outside, |_| false), Err(PoolError::AddressOutside));
        assert_eq!(r.check(r.nth(5).expect("an address"), |_| true), Err(PoolError::AddressTaken));
        assert_eq!(
            PortRange::default().check(80, |_| false).expect_err("outside").to_string(),
            "provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
    }

    #[test]
    fn port_ranges_are_read_in_both_forms() {
        assert_eq!(PortRange::parse("30000-32767"), Some(PortRange::default()));
        assert_eq!(PortRange::parse("30000+2767"), Some(PortRange::default()));
        for bad in ["", "30000", "0-10", "10-5", "x-y", "65535+1"] {
            assert_eq!(PortRange::parse(bad), None, "{bad}");
        }
        assert_eq!(PortRange::default().choose(0, |_| false), Ok(30086));
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_in_the_range_and_free(prefix in 4u32..=30, random: u64, held in prop::collection::vec(0u64..64, 0..20)) {
            let r = range(&format!("10.0.0.0/{prefix}"));
            let taken: BTreeSet<IpAddr> = held.iter().filter_map(|n| r.nth(*n as u32 + 1)).collect();
            if let Ok(a) = r.choose(random, |a| taken.contains(&a)) {
                prop_assert!(r.contains(a) && !taken.contains(&a));
            }
        }
        #[test]
        fn no_text_panics(text in "[0-9a-f:./+-]{0,24}") {
            let _ = AddressRange::parse(&text);
            let _ = PortRange::parse(&text);
        }
    }
}
