//! Address ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses such as `10.244.0.0/24`. The host bits are always zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// A text is not an address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address range such as 10.244.0.0/24")]
pub struct CidrError(pub String);

impl Cidr {
    /// The range of `prefix` bits around `address`; `None` when the prefix is longer than the address.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        if prefix > bits(address) {
            return None;
        }
        let host = host_mask(address, prefix);
        Some(Self { address: from_number(address, to_number(address) & !host), prefix })
    }

    /// The range that holds `address` alone.
    pub fn single(address: IpAddr) -> Self {
        Self { address, prefix: bits(address) }
    }

    /// The first address.
    pub fn network(&self) -> IpAddr {
        self.address
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        from_number(self.address, to_number(self.address) | host_mask(self.address, self.prefix))
    }

    /// The length of the prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether the range is of IPv6 addresses.
    pub fn is_ipv6(&self) -> bool {
        self.address.is_ipv6()
    }

    /// Whether `address` is in the range. Addresses of the other family never are.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && to_number(address) & !host_mask(address, self.prefix) == to_number(self.address)
    }

    /// How many addresses there are, at most `u64::MAX`.
    pub fn size(&self) -> u64 {
        u64::try_from(host_mask(self.address, self.prefix))
            .ok()
            .and_then(|mask| mask.checked_add(1))
            .unwrap_or(u64::MAX)
    }

    /// The address `index` places after the first one; `None` past the end.
    pub fn nth(&self, index: u64) -> Option<IpAddr> {
        (u128::from(index) <= host_mask(self.address, self.prefix))
            .then(|| from_number(self.address, to_number(self.address) + u128::from(index)))
    }

    /// The place of `address` in the range, the inverse of [`Cidr::nth`].
    pub fn index_of(&self, address: IpAddr) -> Option<u64> {
        if !self.contains(address) {
            return None;
        }
        u64::try_from(to_number(address) - to_number(self.address)).ok()
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn host_mask(address: IpAddr, prefix: u8) -> u128 {
    let host_bits = u32::from(bits(address) - prefix);
    if host_bits == 128 { u128::MAX } else { (1u128 << host_bits) - 1 }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn from_number(like: IpAddr, number: u128) -> IpAddr {
    match like {
        // A v4 number never has more than 32 bits here: it is made from one of the same range.
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(text.to_owned());
        let (address, prefix) = text.trim().split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        Self::new(address, prefix).ok_or_else(bad)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_masks_host_bits() {
        let range: Cidr = "10.244.3.7/24".parse().unwrap();
        assert_eq!(range.to_string(), "10.244.3.0/24");
        assert_eq!(range.last().to_string(), "10.244.3.255");
        assert_eq!(range.size(), 256);
        assert_eq!(range.nth(255).unwrap().to_string(), "10.244.3.255");
        assert_eq!(range.nth(256), None);
        assert_eq!(range.index_of("10.244.3.9".parse().unwrap()), Some(9));
        assert!(!range.contains("10.244.4.0".parse().unwrap()));
        assert!(!range.contains("::1".parse().unwrap()));
    }

    #[test]
    fn handles_the_widest_ranges() {
        assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("255.1.2.3".parse().unwrap()));
        assert_eq!("::/0".parse::<Cidr>().unwrap().size(), u64::MAX);
        assert_eq!("fd00:1::/64".parse::<Cidr>().unwrap().nth(2).unwrap().to_string(), "fd00:1::2");
    }

    #[test]
    fn refuses_what_is_not_a_range() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", "a/b", "10.0.0.0/-1"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
