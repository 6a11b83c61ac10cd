//! Which address a pod gets.

use std::net::IpAddr;

use crate::{Cidr, Error, Result};

/// Hands out the addresses of a pod CIDR in turn, so that one that was freed rests as long as possible
/// before it is somebody else's. The first address is the network's, the second the node's own, the last
/// is left out as well.
#[derive(Debug)]
pub(super) struct Ipam {
    cidr: Cidr,
    last: u64,
}

const NETWORK: u64 = 0;
const GATEWAY: u64 = 1;
const FIRST: u64 = 2;

impl Ipam {
    /// `cursor` is the address that was handed out last, when known.
    pub(super) fn new(cidr: Cidr, cursor: Option<IpAddr>) -> Result<Self> {
        if cidr.size() < 4 {
            return Err(Error::TooSmall(cidr));
        }
        debug_assert_eq!(cidr.nth(NETWORK), Some(cidr.network()));
        let last = cursor.and_then(|address| cidr.index_of(address)).unwrap_or(GATEWAY);
        Ok(Self { cidr, last })
    }

    pub(super) fn cidr(&self) -> Cidr {
        self.cidr
    }

    /// The node's own address.
    pub(super) fn gateway(&self) -> IpAddr {
        self.at(GATEWAY)
    }

    /// The next address that `in_use` does not know.
    pub(super) fn allocate(&mut self, in_use: impl Fn(IpAddr) -> bool) -> Result<IpAddr> {
        let end = self.cidr.size() - 1;
        let start = (self.last + 1).clamp(FIRST, end);
        let found = (start..end).chain(FIRST..start).find(|index| !in_use(self.at(*index)));
        let index = found.ok_or(Error::Exhausted(self.cidr))?;
        self.last = index;
        Ok(self.at(index))
    }

    fn at(&self, index: u64) -> IpAddr {
        // Every index here is below the size of the range.
        self.cidr.nth(index).unwrap_or_else(|| self.cidr.last())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn allocate(ipam: &mut Ipam, used: &mut BTreeSet<IpAddr>) -> String {
        let address = ipam.allocate(|a| used.contains(&a)).unwrap();
        assert!(used.insert(address), "{address} was handed out twice");
        address.to_string()
    }

    #[test]
    fn goes_round_and_ends_with_the_range() {
        let mut ipam = Ipam::new("10.1.0.0/29".parse().unwrap(), None).unwrap();
        let mut used = BTreeSet::new();
        assert_eq!(ipam.gateway().to_string(), "10.1.0.1");
        for expected in ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"] {
            assert_eq!(allocate(&mut ipam, &mut used), expected);
        }
        assert!(matches!(ipam.allocate(|a| used.contains(&a)), Err(Error::Exhausted(_))));
        used.remove(&"10.1.0.4".parse().unwrap());
        assert_eq!(allocate(&mut ipam, &mut used), "10.1.0.4");
    }

    #[test]
    fn a_freed_address_rests() {
        let mut ipam = Ipam::new("10.1.0.0/24".parse().unwrap(), None).unwrap();
        let mut used = BTreeSet::new();
        let first = allocate(&mut ipam, &mut used);
        used.clear();
        for _ in 0..252 {
            let next = allocate(&mut ipam, &mut used);
            assert_ne!(next, first);
            used.clear();
        }
        assert_eq!(allocate(&mut ipam, &mut used), first);
    }

    #[test]
    fn goes_on_where_the_last_run_stopped() {
        let cidr = "10.1.0.0/24".parse().unwrap();
        let mut ipam = Ipam::new(cidr, Some("10.1.0.77".parse().unwrap())).unwrap();
        assert_eq!(ipam.allocate(|_| false).unwrap().to_string(), "10.1.0.78");
        let mut elsewhere = Ipam::new(cidr, Some("10.9.0.77".parse().unwrap())).unwrap();
        assert_eq!(elsewhere.allocate(|_| false).unwrap().to_string(), "10.1.0.2");
        let mut end = Ipam::new(cidr, Some("10.1.0.254".parse().unwrap())).unwrap();
        assert_eq!(end.allocate(|_| false).unwrap().to_string(), "10.1.0.2");
    }

    #[test]
    fn refuses_a_range_without_room() {
        assert!(matches!(Ipam::new("10.1.0.0/31".parse().unwrap(), None), Err(Error::TooSmall(_))));
        assert_eq!(
            Ipam::new("10.1.0.0/30".parse().unwrap(), None).unwrap().allocate(|_| false).unwrap().to_string(),
            "10.1.0.2"
        );
    }
}
