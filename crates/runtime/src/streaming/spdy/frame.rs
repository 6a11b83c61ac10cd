//! SPDY/3 frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest frame: its length has 24 bits.
const HEAD: usize = 8;

/// Stream id.
pub(crate) type StreamId = u32;

const STREAM_MASK: u32 = 0x7fff_ffff;
const VERSION: u16 = 3;
const FIN: u8 = 1;

/// A frame as it arrives; header blocks still compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Data {
        stream: StreamId,
        fin: bool,
        bytes: Bytes,
    },
    SynStream {
        stream: StreamId,
        fin: bool,
        block: Bytes,
    },
    SynReply {
        stream: StreamId,
        fin: bool,
        block: Bytes,
    },
    RstStream {
        stream: StreamId,
        status: u32,
    },
    Settings {
        /// `(id, value)`.
        entries: Vec<(u32, u32)>,
    },
    Ping {
        id: u32,
    },
    GoAway {
        last: StreamId,
    },
    Headers {
        stream: StreamId,
        fin: bool,
        block: Bytes,
    },
    WindowUpdate {
        stream: StreamId,
        delta: u32,
    },
    /// Of a kind that is not known: to be passed over.
    Unknown,
}

/// What is no SPDY/3.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("SPDY version {0} is not supported")]
    Version(u16),
    #[error("a frame of type {0} is too short")]
    Short(u16),
}

/// Takes the next whole frame off the buffer.
pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(head) = buffer.first_chunk::<HEAD>() else {
        return Ok(None);
    };
    let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
    let flags = head[4];
    let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
    let version = (first >> 16 & 0x7fff) as u16;
    let control = first & !STREAM_MASK != 0;
    if control && version != VERSION {
        return Err(FrameError::Version(version));
    }
    if buffer.len() < HEAD + length {
        return Ok(None);
    }
    buffer.advance(HEAD);
    let mut body = buffer.split_to(length).freeze();
    let fin = flags & FIN != 0;
    if !control {
        return Ok(Some(Frame::Data { stream: first, fin, bytes: body }));
    }
    let kind = first as u16;
    let needed = match kind {
        1 => 10,
        3 | 7 | 9 => 8,
        2 | 4 | 6 | 8 => 4,
        _ => 0,
    };
    if body.len() < needed {
        return Err(FrameError::Short(kind));
    }
    let mut number = || body.get_u32();
    Ok(Some(match kind {
        1 => {
            let stream = number() & STREAM_MASK;
            // Associated stream, priority, credential slot.
            body.advance(6);
            Frame::SynStream { stream, fin, block: body }
        }
        2 => Frame::SynReply { stream: number() & STREAM_MASK, fin, block: body },
        3 => Frame::RstStream { stream: number() & STREAM_MASK, status: number() },
        4 => {
            let count = number() as usize;
            if body.len() != count.saturating_mul(8) {
                return Err(FrameError::Short(kind));
            }
            let mut entries = Vec::with_capacity(count);
            for _ in 0..count {
                // One byte of flags, three of the id.
                let id = body.get_u32() & 0x00ff_ffff;
                entries.push((id, body.get_u32()));
            }
            Frame::Settings { entries }
        }
        6 => Frame::Ping { id: number() },
        7 => Frame::GoAway { last: number() & STREAM_MASK },
        8 => Frame::Headers { stream: number() & STREAM_MASK, fin, block: body },
        9 => Frame::WindowUpdate { stream: number() & STREAM_MASK, delta: number() & STREAM_MASK },
        _ => Frame::Unknown,
    }))
}

fn control(kind: u16, flags: u8, length: usize, out: &mut BytesMut) {
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    out.put_u32(u32::from(flags) << 24 | length as u32);
}

fn flag(fin: bool) -> u8 {
    if fin { FIN } else { 0 }
}

/// Appends data of a stream; at most 16 MiB.
pub(crate) fn put_data(stream: StreamId, fin: bool, bytes: &[u8], out: &mut BytesMut) {
    out.put_u32(stream & STREAM_MASK);
    out.put_u32(u32::from(flag(fin)) << 24 | bytes.len() as u32);
    out.extend_from_slice(bytes);
}

/// Appends the opening of a stream.
#[cfg(test)]
pub(crate) fn put_syn_stream(stream: StreamId, fin: bool, block: &[u8], out: &mut BytesMut) {
    control(1, flag(fin), 10 + block.len(), out);
    out.put_u32(stream);
    out.put_u32(0);
    out.put_u16(0);
    out.extend_from_slice(block);
}

/// Appends the answer to an opening.
pub(crate) fn put_syn_reply(stream: StreamId, block: &[u8], out: &mut BytesMut) {
    control(2, 0, 4 + block.len(), out);
    out.put_u32(stream);
    out.extend_from_slice(block);
}

/// Appends the abrupt end of a stream.
pub(crate) fn put_rst_stream(stream: StreamId, status: u32, out: &mut BytesMut) {
    control(3, 0, 8, out);
    out.put_u32(stream);
    out.put_u32(status);
}

/// Appends a ping, or the answer to one.
pub(crate) fn put_ping(id: u32, out: &mut BytesMut) {
    control(6, 0, 4, out);
    out.put_u32(id);
}

/// Appends the end of the connection.
pub(crate) fn put_go_away(last: StreamId, out: &mut BytesMut) {
    control(7, 0, 8, out);
    out.put_u32(last);
    out.put_u32(0);
}

/// Appends leave to send more.
pub(crate) fn put_window_update(stream: StreamId, delta: u32, out: &mut BytesMut) {
    control(9, 0, 8, out);
    out.put_u32(stream);
    out.put_u32(delta);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_come_back(stream in 1u32..STREAM_MASK, fin: bool, bytes: Vec<u8>, number: u32) {
            let mut out = BytesMut::new();
            put_data(stream, fin, &bytes, &mut out);
            put_syn_stream(stream, fin, &bytes, &mut out);
            put_syn_reply(stream, &bytes, &mut out);
            put_rst_stream(stream, number, &mut out);
            put_ping(number, &mut out);
            put_go_away(stream, &mut out);
            put_window_update(stream, 7, &mut out);
            let block = Bytes::from(bytes);
            for expected in [
                Frame::Data { stream, fin, bytes: block.clone() },
                Frame::SynStream { stream, fin, block: block.clone() },
                Frame::SynReply { stream, fin: false, block: block.clone() },
                Frame::RstStream { stream, status: number },
                Frame::Ping { id: number },
                Frame::GoAway { last: stream },
                Frame::WindowUpdate { stream, delta: 7 },
            ] {
                prop_assert_eq!(decode(&mut out).unwrap(), Some(expected));
            }
            prop_assert!(out.is_empty());
        }

        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }

    #[test]
    fn settings_and_the_unknown() {
        let mut out = BytesMut::new();
        control(4, 0, 12, &mut out);
        out.put_u32(1);
        out.put_u32(0x0100_0007);
        out.put_u32(65_536);
        control(99, 0, 3, &mut out);
        out.extend_from_slice(b"abc");
        assert_eq!(decode(&mut out).unwrap(), Some(Frame::Settings { entries: vec![(7, 65_536)] }));
        assert_eq!(decode(&mut out).unwrap(), Some(Frame::Unknown));
        let mut other = BytesMut::from(&[0x80, 2, 0, 1, 0, 0, 0, 0][..]);
        assert_eq!(decode(&mut other), Err(FrameError::Version(2)));
    }
}
