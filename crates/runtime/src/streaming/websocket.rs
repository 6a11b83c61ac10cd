//! WebSocket frames, server side, without IO (RFC 6455).

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest message that is taken.
const MAX_MESSAGE: usize = 32 << 20;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    Close,
}

/// What is no WebSocket.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("a client's frame must be masked")]
    Unmasked,
    #[error("reserved bits or an unknown operation are set")]
    Reserved,
    #[error("a control frame is fragmented or too long")]
    Control,
    #[error("a fragment without a beginning, or a beginning within a message")]
    Fragment,
    #[error("message longer than {MAX_MESSAGE} bytes")]
    TooLong,
}

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Makes messages of bytes.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    /// Operation and payload of a message that goes on.
    partial: Option<(u8, BytesMut)>,
}

impl Decoder {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, `None` until more arrives.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, FrameError> {
        loop {
            let Some((last, operation, payload)) = self.frame()? else {
                return Ok(None);
            };
            match operation {
                CLOSE => return Ok(Some(Message::Close)),
                PING => return Ok(Some(Message::Ping(payload.freeze()))),
                PONG => return Ok(Some(Message::Pong)),
                _ => {}
            }
            let (kind, whole) = match (operation, self.partial.take()) {
                (CONTINUATION, Some((kind, mut before))) => {
                    if before.len() + payload.len() > MAX_MESSAGE {
                        return Err(FrameError::TooLong);
                    }
                    before.unsplit(payload);
                    (kind, before)
                }
                (TEXT | BINARY, None) => (operation, payload),
                _ => return Err(FrameError::Fragment),
            };
            if !last {
                self.partial = Some((kind, whole));
                continue;
            }
            let whole = whole.freeze();
            return Ok(Some(if kind == TEXT { Message::Text(whole) } else { Message::Binary(whole) }));
        }
    }

    /// Whether it is the last of its message, its operation, its unmasked payload.
    fn frame(&mut self) -> Result<Option<(bool, u8, BytesMut)>, FrameError> {
        let head = &self.buffer[..];
        if head.len() < 2 {
            return Ok(None);
        }
        let (last, operation) = (head[0] & 0x80 != 0, head[0] & 0x0f);
        let known = matches!(operation, CONTINUATION | TEXT | BINARY | CLOSE | PING | PONG);
        if head[0] & 0x70 != 0 || !known {
            return Err(FrameError::Reserved);
        }
        if head[1] & 0x80 == 0 {
            return Err(FrameError::Unmasked);
        }
        let short = head[1] & 0x7f;
        if operation >= CLOSE && (!last || short > 125) {
            return Err(FrameError::Control);
        }
        let (length, size) = match short {
            126 => match head.get(2..4) {
                Some(b) => (u64::from(u16::from_be_bytes([b[0], b[1]])), 4),
                None => return Ok(None),
            },
            127 => match head.get(2..10).and_then(|b| b.first_chunk::<8>()) {
                Some(b) => (u64::from_be_bytes(*b), 10),
                None => return Ok(None),
            },
            n => (u64::from(n), 2),
        };
        if length > MAX_MESSAGE as u64 {
            return Err(FrameError::TooLong);
        }
        let length = length as usize;
        if head.len() < size + 4 + length {
            return Ok(None);
        }
        self.buffer.advance(size);
        let mut mask = [0; 4];
        self.buffer.copy_to_slice(&mut mask);
        let mut payload = self.buffer.split_to(length);
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        Ok(Some((last, operation, payload)))
    }
}

fn put(operation: u8, parts: &[&[u8]], out: &mut BytesMut) {
    out.put_u8(0x80 | operation);
    let length: usize = parts.iter().map(|p| p.len()).sum();
    match length {
        0..=125 => out.put_u8(length as u8),
        126..=0xffff => {
            out.put_u8(126);
            out.put_u16(length as u16);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a binary message made of parts.
pub(crate) fn put_binary(parts: &[&[u8]], out: &mut BytesMut) {
    put(BINARY, parts, out);
}

/// Appends a text message made of parts.
pub(crate) fn put_text(parts: &[&[u8]], out: &mut BytesMut) {
    put(TEXT, parts, out);
}

/// Appends the answer to a ping.
pub(crate) fn put_pong(payload: &[u8], out: &mut BytesMut) {
    put(PONG, &[payload], out);
}

/// Appends a normal end.
pub(crate) fn put_close(out: &mut BytesMut) {
    put(CLOSE, &[&1000u16.to_be_bytes()], out);
}

/// The answer to a handshake's key.
pub(crate) fn accept_key(key: &str) -> String {
    const SALT: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let mut context = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key.trim().as_bytes());
    context.update(SALT.as_bytes());
    STANDARD.encode(context.finish())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client_frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::new();
        put(first & 0x0f, &[payload], &mut frame);
        frame[0] = first;
        frame[1] |= 0x80;
        let head = frame.len() - payload.len();
        let mut out = frame[..head].to_vec();
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    proptest! {
        #[test]
        fn messages_survive_fragments_and_cuts(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5),
            fragment in 1usize..120,
            cut in 1usize..50,
            mask: [u8; 4],
        ) {
            let mut bytes = Vec::new();
            for payload in &payloads {
                let mut pieces: Vec<&[u8]> = payload.chunks(fragment).collect();
                if pieces.is_empty() {
                    pieces.push(&[]);
                }
                for (at, piece) in pieces.iter().enumerate() {
                    let operation = if at == 0 { BINARY } else { CONTINUATION };
                    let last = if at + 1 == pieces.len() { 0x80 } else { 0 };
                    bytes.extend(client_frame(last | operation, mask, piece));
                    // A ping may come between fragments.
                    bytes.extend(client_frame(0x80 | PING, mask, b"p"));
                }
            }
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.feed(piece);
                while let Some(message) = decoder.next().unwrap() {
                    match message {
                        Message::Binary(payload) => seen.push(payload.to_vec()),
                        Message::Ping(payload) => prop_assert_eq!(&payload[..], b"p"),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
            }
            prop_assert_eq!(seen, payloads);
        }

        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn long_payloads_and_broken_frames() {
        let payload = vec![7; 70_000];
        let mut decoder = Decoder::default();
        decoder.feed(&client_frame(0x80 | TEXT, [1, 2, 3, 4], &payload));
        assert_eq!(decoder.next().unwrap(), Some(Message::Text(payload.into())));
        let error = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.feed(bytes);
            decoder.next().unwrap_err()
        };
        assert_eq!(error(&[0x82, 0x00]), FrameError::Unmasked);
        assert_eq!(error(&[0xc2, 0x80]), FrameError::Reserved);
        assert_eq!(error(&[0x83, 0x80]), FrameError::Reserved);
        assert_eq!(error(&[0x09, 0x80]), FrameError::Control);
        assert_eq!(error(&client_frame(0x80, [0; 4], b"")), FrameError::Fragment);
        assert_eq!(error(&[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]), FrameError::TooLong);
    }

    #[test]
    fn the_key_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
