//! The wire format: varints, tags, length-delimited fields.

use crate::decode::DecodeError;

/// A field's value as it lies on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field<'b> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'b [u8]),
}

/// The fields of a message, in order; ends after the first error.
pub(super) struct Fields<'b> {
    rest: &'b [u8],
    len: usize,
    failed: bool,
}

impl<'b> Fields<'b> {
    pub(super) fn new(message: &'b [u8]) -> Self {
        Fields { rest: message, len: message.len(), failed: false }
    }

    fn error(&self, message: &str) -> DecodeError {
        DecodeError::syntax(format!("proto: {message}"), self.len - self.rest.len())
    }

    fn field(&mut self) -> Result<(u32, Field<'b>), DecodeError> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).unwrap_or(0);
        if number == 0 {
            return Err(self.error(&format!("illegal tag {} (wire type {})", tag >> 3, tag & 7)));
        }
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let len = self.varint()?;
                let len = usize::try_from(len).ok().filter(|len| *len <= self.rest.len());
                let Some(len) = len else { return Err(self.error("unexpected EOF")) };
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(self.error(&format!("illegal wireType {other}"))),
        };
        Ok((number, field))
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let (value, len) = varint(self.rest).map_err(|message| self.error(message))?;
        self.rest = &self.rest[len..];
        Ok(value)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.error("unexpected EOF"));
        };
        self.rest = rest;
        Ok(taken)
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Result<(u32, Field<'b>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        self.failed = field.is_err();
        Some(field)
    }
}

/// A varint and how long it is.
pub(super) fn varint(bytes: &[u8]) -> Result<(u64, usize), &'static str> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate() {
        if at == 10 {
            return Err("integer overflow");
        }
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, at + 1));
        }
    }
    Err(if bytes.len() < 10 { "unexpected EOF" } else { "integer overflow" })
}

/// The bytes of a varint, and how many they are.
pub(super) fn varint_bytes(mut value: u64) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    let mut len = 0;
    loop {
        bytes[len] = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return (bytes, len + 1);
        }
        bytes[len] |= 0x80;
        len += 1;
    }
}

pub(super) fn put_varint(value: u64, out: &mut Vec<u8>) {
    let (bytes, len) = varint_bytes(value);
    out.extend_from_slice(&bytes[..len]);
}

/// A length-delimited field.
pub(super) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | 2), out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
