//! WebSocket frames, server side, without IO (RFC 6455). The codec is tungstenite's.

use std::io::{self, Read, Write};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tungstenite::{
    Error,
    protocol::{
        CloseFrame, Role, WebSocketConfig, WebSocketContext,
        frame::{
            FrameHeader,
            coding::{CloseCode, Control, Data, OpCode},
        },
    },
};

/// Longest message that is taken.
const MAX_MESSAGE: usize = 32 << 20;

const READ_SIZE: usize = 32 << 10;

/// What a client sends, but for what is answered for it: pings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(Bytes),
    Binary(Bytes),
    /// It ends the connection, or says what is no WebSocket. What it is answered is among the replies.
    Close,
}

/// Makes messages of bytes.
#[derive(Debug)]
pub(crate) struct Decoder {
    context: WebSocketContext,
    wire: Wire,
    closed: bool,
}

/// Where the codec reads and writes.
#[derive(Debug, Default)]
struct Wire {
    input: BytesMut,
    output: BytesMut,
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = into.len().min(self.input.len());
        self.input.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Default for Decoder {
    fn default() -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_SIZE)
            .write_buffer_size(0)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let context = WebSocketContext::new(Role::Server, Some(config));
        Self { context, wire: Wire::default(), closed: false }
    }
}

impl Decoder {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        // Nobody reads what comes behind the end.
        if self.closed {
            return;
        }
        self.wire.input.extend_from_slice(bytes);
    }

    /// The next whole message, `None` until more arrives, and behind the end.
    pub(crate) fn next(&mut self) -> Option<Message> {
        while !self.closed {
            let end = match self.context.read(&mut self.wire) {
                Ok(tungstenite::Message::Text(text)) => return Some(Message::Text(text.into())),
                Ok(tungstenite::Message::Binary(bytes)) => return Some(Message::Binary(bytes)),
                // The codec answers it.
                Ok(tungstenite::Message::Close(_)) => self.context.flush(&mut self.wire),
                Ok(_) => continue,
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => {
                    tracing::debug!(%error, "a client said what is no WebSocket");
                    let code = match error {
                        Error::Capacity(_) => CloseCode::Size,
                        Error::Utf8(_) => CloseCode::Invalid,
                        _ => CloseCode::Protocol,
                    };
                    self.context.close(&mut self.wire, Some(CloseFrame { code, reason: Default::default() }))
                }
            };
            if let Err(error) = end
                && !matches!(error, Error::ConnectionClosed)
            {
                tracing::debug!(%error, "the end of a WebSocket could not be told");
            }
            self.closed = true;
            return Some(Message::Close);
        }
        None
    }

    /// Appends what the client is to be told for what it said: the answers to pings, and to its end.
    pub(crate) fn put_replies(&mut self, out: &mut BytesMut) {
        out.unsplit(self.wire.output.split());
    }
}

fn put(opcode: OpCode, parts: &[&[u8]], out: &mut BytesMut) {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let head = out.len();
    // Buffers in memory take every write.
    if header.format(length as u64, &mut out.writer()).is_err() {
        out.truncate(head);
        return;
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a binary message made of parts.
pub(crate) fn put_binary(parts: &[&[u8]], out: &mut BytesMut) {
    put(OpCode::Data(Data::Binary), parts, out);
}

/// Appends a text message made of parts.
pub(crate) fn put_text(parts: &[&[u8]], out: &mut BytesMut) {
    put(OpCode::Data(Data::Text), parts, out);
}

/// Appends a normal end.
pub(crate) fn put_close(out: &mut BytesMut) {
    put(OpCode::Control(Control::Close), &[&u16::from(CloseCode::Normal).to_be_bytes()], out);
}

/// The answer to a handshake's key.
pub(crate) fn accept_key(key: &str) -> String {
    tungstenite::handshake::derive_accept_key(key.trim().as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONTINUATION: u8 = 0;
    const TEXT: u8 = 1;
    const BINARY: u8 = 2;
    const PING: u8 = 9;

    fn client_frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut frame = BytesMut::new();
        put(OpCode::from(first & 0x0f), &[payload], &mut frame);
        frame[0] = first;
        frame[1] |= 0x80;
        let head = frame.len() - payload.len();
        let mut out = frame[..head].to_vec();
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    /// The answers to a ping after every fragment.
    fn bytes_of_pings(payloads: &[Vec<u8>], fragment: usize) -> Vec<u8> {
        let count: usize = payloads.iter().map(|payload| payload.len().div_ceil(fragment).max(1)).sum();
        b"\x8a\x01p".repeat(count)
    }

    #[test]
    fn nothing_is_kept_of_what_comes_behind_the_end() {
        let mut decoder = Decoder::default();
        decoder.feed(&client_frame(0x88, [1; 4], &1000_u16.to_be_bytes()));
        assert!(matches!(decoder.next(), Some(Message::Close)));
        decoder.feed(&client_frame(0x80 | BINARY, [1; 4], &[0; 1000]));
        assert!(decoder.next().is_none() && decoder.wire.input.is_empty());
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
            let (mut seen, mut replies) = (Vec::new(), BytesMut::new());
            for piece in bytes.chunks(cut) {
                decoder.feed(piece);
                while let Some(message) = decoder.next() {
                    match message {
                        Message::Binary(payload) => seen.push(payload.to_vec()),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                decoder.put_replies(&mut replies);
            }
            let pings = bytes_of_pings(&payloads, fragment);
            prop_assert_eq!(&replies[..], pings);
            prop_assert_eq!(seen, payloads);
        }

        #[test]
        fn rubbish_never_panics(bytes: Vec<u8>) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            while decoder.next().is_some() {}
        }
    }

    #[test]
    fn long_payloads_and_broken_frames() {
        let mut decoder = Decoder::default();
        let text = "7".repeat(70_000);
        decoder.feed(&client_frame(0x80 | TEXT, [1, 2, 3, 4], text.as_bytes()));
        assert_eq!(decoder.next(), Some(Message::Text(text.into())));
        let refused = |bytes: &[u8]| {
            let (mut decoder, mut replies) = (Decoder::default(), BytesMut::new());
            decoder.feed(bytes);
            assert_eq!((decoder.next(), decoder.next()), (Some(Message::Close), None));
            decoder.put_replies(&mut replies);
            assert_eq!(&replies[..2], [0x88, 2]);
            u16::from_be_bytes([replies[2], replies[3]])
        };
        assert_eq!(refused(&[0x82, 0x00]), 1002, "not masked");
        assert_eq!(refused(&client_frame(0xc2, [0; 4], b"")), 1002, "a reserved bit");
        assert_eq!(refused(&client_frame(0x83, [0; 4], b"")), 1002, "a reserved operation");
        assert_eq!(refused(&client_frame(0x09, [0; 4], b"")), 1002, "a ping in fragments");
        assert_eq!(refused(&client_frame(0x89, [0; 4], &[0; 126])), 1002, "a long ping");
        assert_eq!(refused(&client_frame(0x80, [0; 4], b"")), 1002, "no beginning");
        assert_eq!(refused(&client_frame(0x81, [0; 4], b"\xff")), 1007, "no text");
        assert_eq!(refused(&[0x82, 0xff, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]), 1009);
    }

    #[test]
    fn the_key_of_the_rfc() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
