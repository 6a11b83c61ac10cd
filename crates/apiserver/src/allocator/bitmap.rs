//! Which node ports are taken: upstream's `RangeAllocation`, one object with one bit for each port.
//!
//! Every server on one etcd (this one or upstream's) changes it by compare-and-put, so no port is given twice.

use super::range::PortRange;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::Map;

/// The taken ports of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortBitmap {
    range: PortRange,
    /// Bit `n` stands for port `first + n`; byte 0 has the lowest.
    bits: Vec<u8>,
}

impl PortBitmap {
    /// No port is taken.
    pub fn empty(range: PortRange) -> Self {
        PortBitmap { range, bits: vec![0; range.size().div_ceil(8)] }
    }

    /// Reads a `RangeAllocation`; when it is of another range, the ports that lie in both stay taken.
    ///
    /// Its `data` is a big number with the first port as the lowest bit, most significant byte first.
    pub fn from_object(range: PortRange, object: &Map) -> Self {
        let mut bitmap = PortBitmap::empty(range);
        let stored = PortRange::parse(object.str_at(&["range"])).unwrap_or(range);
        let data = STANDARD.decode(object.str_at(&["data"])).unwrap_or_default();
        for (place, byte) in data.iter().rev().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                let port = usize::from(stored.first()) + place * 8 + bit;
                if let Ok(port) = u16::try_from(port) {
                    bitmap.set(port, true);
                }
            }
        }
        bitmap
    }

    /// The `RangeAllocation` that says so.
    pub fn to_object(&self) -> Map {
        let leading = self.bits.iter().rev().take_while(|b| **b == 0).count();
        let data: Vec<u8> = self.bits.iter().rev().skip(leading).copied().collect();
        let mut object = Map::new();
        object.insert("apiVersion", "v1");
        object.insert("kind", "RangeAllocation");
        object.insert("metadata", Map::new());
        object.insert("range", self.range.to_string());
        object.insert("data", STANDARD.encode(data));
        object
    }

    pub fn taken(&self, port: u16) -> bool {
        self.place(port).is_some_and(|(byte, bit)| self.bits[byte] & bit != 0)
    }

    /// Takes or frees a port; one outside the range is left alone.
    pub fn set(&mut self, port: u16, taken: bool) {
        if let Some((byte, bit)) = self.place(port) {
            if taken {
                self.bits[byte] |= bit;
            } else {
                self.bits[byte] &= !bit;
            }
        }
    }

    fn place(&self, port: u16) -> Option<(usize, u8)> {
        let n = usize::from(port.checked_sub(self.range.first())?);
        (n < self.range.size()).then_some((n / 8, 1 << (n % 8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_stored_form_is_a_big_number() {
        let range = PortRange::parse("30000-30015").expect("a range");
        let mut bitmap = PortBitmap::empty(range);
        bitmap.set(30000, true);
        bitmap.set(30009, true);
        assert_eq!(bitmap.to_object().str_at(&["data"]), STANDARD.encode([0x02, 0x01]));
        bitmap.set(30009, false);
        assert_eq!(bitmap.to_object().str_at(&["data"]), STANDARD.encode([0x01]));
    }

    #[test]
    fn a_moved_range_keeps_what_lies_in_both() {
        let mut old = PortBitmap::empty(PortRange::parse("30000-30100").expect("a range"));
        old.set(30000, true);
        old.set(30050, true);
        let new = PortBitmap::from_object(PortRange::parse("30040-30200").expect("a range"), &old.to_object());
        assert!(new.taken(30050) && !new.taken(30000));
    }

    proptest! {
        #[test]
        fn what_is_stored_is_read_back(ports in prop::collection::vec(30000u16..=32767, 0..40)) {
            let range = PortRange::default();
            let mut bitmap = PortBitmap::empty(range);
            for port in &ports {
                bitmap.set(*port, true);
            }
            let read = PortBitmap::from_object(range, &bitmap.to_object());
            prop_assert!(ports.iter().all(|p| read.taken(*p)));
            prop_assert_eq!(read, bitmap);
        }
    }
}
