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

    /// Reads a stored `RangeAllocation`, be it JSON or (upstream's default) protobuf; `None` when it is neither.
    pub fn from_stored(range: PortRange, stored: &[u8]) -> Option<Self> {
        if let Some(message) = stored.strip_prefix(b"k8s\0") {
            let raw = protobuf_field(message, 2)?;
            let text = std::str::from_utf8(protobuf_field(raw, 2).unwrap_or_default()).ok()?;
            return Some(Self::from_parts(range, text, protobuf_field(raw, 3).unwrap_or_default()));
        }
        let object = schema::json::parse(stored).ok()?;
        let object = object.as_map()?;
        let data = STANDARD.decode(object.str_at(&["data"])).ok()?;
        Some(Self::from_parts(range, object.str_at(&["range"]), &data))
    }

    /// When the allocation is of another range, the ports that lie in both stay taken.
    ///
    /// `data` is a big number with the first port as the lowest bit, most significant byte first.
    fn from_parts(range: PortRange, stored: &str, data: &[u8]) -> Self {
        let mut bitmap = PortBitmap::empty(range);
        let stored = PortRange::parse(stored).unwrap_or(range);
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

    /// The taken ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        let places = 0..self.bits.len() * 8;
        places.filter_map(|n| self.range.first().checked_add(u16::try_from(n).ok()?)).filter(|port| self.taken(*port))
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

/// The bytes of a length-delimited field of a protobuf message; of several, the last.
fn protobuf_field(mut message: &[u8], wanted: u64) -> Option<&[u8]> {
    fn varint(bytes: &mut &[u8]) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = bytes.split_first()?;
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    let mut found = None;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                varint(&mut message)?;
                continue;
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (contents, rest) = message.split_at_checked(skipped)?;
        if tag >> 3 == wanted && tag & 7 == 2 {
            found = Some(contents);
        }
        message = rest;
    }
    found
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

    fn stored(bitmap: &PortBitmap) -> Vec<u8> {
        schema::json::to_string(&bitmap.to_object()).into_bytes()
    }

    #[test]
    fn upstreams_own_protobuf_is_read() {
        // Unknown{typeMeta{v1, RangeAllocation}, raw{metadata{}, range, data}}.
        let mut raw = vec![0x0a, 0, 0x12, 11];
        raw.extend(b"30000-32767");
        raw.extend([0x1a, 2, 0x02, 0x01]);
        let mut message = b"k8s\0\x0a\x15\x0a\x02v1\x12\x0fRangeAllocation\x12".to_vec();
        message.push(u8::try_from(raw.len()).expect("short"));
        message.extend(raw);
        let read = PortBitmap::from_stored(PortRange::default(), &message).expect("protobuf");
        assert!(read.taken(30000) && read.taken(30009) && !read.taken(30001));
        assert!(PortBitmap::from_stored(PortRange::default(), b"k8s\0\xff").is_none());
    }

    #[test]
    fn a_moved_range_keeps_what_lies_in_both() {
        let mut old = PortBitmap::empty(PortRange::parse("30000-30100").expect("a range"));
        old.set(30000, true);
        old.set(30050, true);
        let new =
            PortBitmap::from_stored(PortRange::parse("30040-30200").expect("a range"), &stored(&old)).expect("JSON");
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
            let read = PortBitmap::from_stored(range, &stored(&bitmap)).expect("JSON");
            prop_assert!(ports.iter().all(|p| read.taken(*p)));
            prop_assert_eq!(read, bitmap);
        }
    }
}
