//! Netlink messages as bytes, and the sockets that carry them.

mod attribute;
mod socket;

pub use attribute::{Attributes, Bytes};
pub(crate) use attribute::{address_bytes, read_address, read_be16, read_be32, read_string, read_u32};
pub use socket::{Protocol, Socket};

/// The length of the header of every netlink message.
pub(crate) const HEADER: usize = 16;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;

/// Requests to the kernel, encoded one after the other, each with words that say what it asks for.
///
/// The sequence number of a message is its place in the batch, so an error is mapped back to the request
/// that caused it.
#[derive(Default)]
pub struct Batch {
    pub(crate) bytes: Bytes,
    pub(crate) operations: Vec<String>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a request. `operation` completes the sentence "the kernel refused to …"; `body` writes what
    /// follows the header.
    pub fn push(&mut self, kind: u16, flags: u16, operation: impl Into<String>, body: impl FnOnce(&mut Bytes)) {
        let start = self.bytes.len();
        let sequence = self.operations.len() as u32;
        self.operations.push(operation.into());
        self.bytes.raw(&0u32.to_ne_bytes());
        self.bytes.raw(&kind.to_ne_bytes());
        self.bytes.raw(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.raw(&sequence.to_ne_bytes());
        self.bytes.raw(&0u32.to_ne_bytes());
        body(&mut self.bytes);
        self.bytes.align();
        let length = (self.bytes.len() - start) as u32;
        self.bytes.overwrite(start, &length.to_ne_bytes());
    }

    /// How many requests there are.
    pub fn len(&self) -> usize {
        self.operations.len()
    }

    /// Whether there is no request.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The size of the encoded requests in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn operation(&self, sequence: u32) -> &str {
        self.operations.get(sequence as usize).map_or("carry out the request", String::as_str)
    }
}

/// One message from the kernel.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) body: &'a [u8],
}

/// Splits what one read returned into messages; stops at the first that is cut short.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.get(..HEADER)?;
        let length = u32::from_ne_bytes(header[0..4].try_into().ok()?) as usize;
        let whole = bytes.get(..length).filter(|_| length >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes(whole[4..6].try_into().ok()?),
            flags: u16::from_ne_bytes(whole[6..8].try_into().ok()?),
            sequence: u32::from_ne_bytes(whole[8..12].try_into().ok()?),
            body: &whole[HEADER..],
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_splits_back_into_its_messages() {
        let mut batch = Batch::new();
        batch.push(16, NLM_F_ACK, "do one thing", |m| {
            m.raw(&[1, 2, 3, 4]);
            m.string(3, "eth0");
        });
        batch.push(17, 0, "do another", |m| m.nested(7, |m| m.u32(1, 9)));
        let split: Vec<_> =
            messages(batch.bytes.as_slice()).map(|m| (m.kind, m.flags, m.sequence, m.body.to_vec())).collect();
        assert_eq!(split.len(), 2);
        assert_eq!((split[0].0, split[0].1, split[0].2), (16, NLM_F_ACK | NLM_F_REQUEST, 0));
        let (kind, value) = Attributes::new(&split[0].3[4..]).next().unwrap();
        assert_eq!((kind, value), (3, &b"eth0\0"[..]));
        assert_eq!(split[1].2, 1);
        let (kind, inner) = Attributes::new(&split[1].3).next().unwrap();
        assert_eq!(kind, 7);
        assert_eq!(Attributes::new(inner).next().unwrap(), (1, &9u32.to_ne_bytes()[..]));
        assert_eq!(batch.operation(1), "do another");
    }

    #[test]
    fn garbage_from_the_kernel_ends_the_walk() {
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
        assert_eq!(messages(&[0; 64]).count(), 0);
        let mut long = vec![0u8; 16];
        long[0] = 200;
        assert_eq!(messages(&long).count(), 0);
        assert_eq!(Attributes::new(&[9, 0, 1, 0, 1]).count(), 0);
        assert_eq!(Attributes::new(&[0, 0, 0, 0]).count(), 0);
    }
}
