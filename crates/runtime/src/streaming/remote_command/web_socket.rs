//! Exec and attach over WebSocket.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};

use super::{
    super::{protocol::Protocol, websocket},
    ClientEvent, Sizes, ToClient,
};
use crate::server::Wanted;

/// Versions of the protocol over WebSocket.
pub(crate) const WEBSOCKET_PROTOCOLS: [&str; 6] = [
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Since version 5: its payload is the channel that is at its end.
const CLOSE: u8 = 255;

/// How a channel's number and its payload are written in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::streaming) enum Encoding {
    Binary,
    Base64,
}

impl Encoding {
    pub(in crate::streaming) fn of(protocol: &str) -> Self {
        if protocol.contains("base64") { Self::Base64 } else { Self::Binary }
    }

    /// Channel and payload; `None` when there is no channel or the payload is broken.
    pub(in crate::streaming) fn decode(self, message: &Bytes) -> Option<(u8, Bytes)> {
        let channel = *message.first()?;
        let payload = message.slice(1..);
        match self {
            Self::Binary => Some((channel, payload)),
            Self::Base64 => {
                let payload = STANDARD.decode(&payload).ok()?;
                Some((channel.checked_sub(b'0')?, payload.into()))
            }
        }
    }

    pub(in crate::streaming) fn put(self, channel: u8, payload: &[u8], out: &mut BytesMut) {
        match self {
            Self::Binary => websocket::put_binary(&[&[channel], payload], out),
            Self::Base64 => {
                let encoded = STANDARD.encode(payload);
                websocket::put_text(&[&[b'0' + channel], encoded.as_bytes()], out);
            }
        }
    }
}

/// Over WebSocket: a channel each, numbered, in one connection.
pub(crate) struct RemoteWebSocket {
    decoder: websocket::Decoder,
    output: BytesMut,
    encoding: Encoding,
    with_status: bool,
    half_close: bool,
    wanted: Wanted,
    stdin_open: bool,
    sizes: Sizes,
    finished: bool,
}

impl RemoteWebSocket {
    /// `protocol` is one of [`WEBSOCKET_PROTOCOLS`].
    pub(crate) fn new(protocol: &str, wanted: Wanted) -> Self {
        Self {
            decoder: websocket::Decoder::default(),
            output: BytesMut::new(),
            encoding: Encoding::of(protocol),
            with_status: protocol.starts_with("v4.") || protocol.starts_with("v5."),
            half_close: protocol.starts_with("v5."),
            wanted,
            stdin_open: wanted.stdin,
            sizes: Sizes::default(),
            finished: false,
        }
    }

    fn message(&mut self, message: &Bytes, events: &mut Vec<ClientEvent>) {
        let Some((channel, payload)) = self.encoding.decode(message) else {
            return;
        };
        match channel {
            STDIN if self.stdin_open && !payload.is_empty() => {
                events.push(ClientEvent::Stdin(payload));
            }
            RESIZE => events.extend(self.sizes.feed(&payload)),
            CLOSE if self.half_close && payload.first() == Some(&STDIN) && self.stdin_open => {
                self.stdin_open = false;
                events.push(ClientEvent::StdinClosed);
            }
            _ => {}
        }
    }
}

impl Protocol for RemoteWebSocket {
    type Event = ClientEvent;
    type Command = ToClient;

    fn start(&mut self) -> Vec<ClientEvent> {
        // An empty message tells the client that the connection stands.
        let lowest = if self.wanted.stdout {
            STDOUT
        } else if self.wanted.stderr {
            STDERR
        } else {
            ERROR
        };
        self.encoding.put(lowest, &[], &mut self.output);
        vec![ClientEvent::Ready]
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<ClientEvent>, String> {
        self.decoder.feed(bytes);
        let mut events = Vec::new();
        while let Some(message) = self.decoder.next() {
            match message {
                websocket::Message::Binary(payload) | websocket::Message::Text(payload) => {
                    self.message(&payload, &mut events);
                }
                websocket::Message::Close => self.finished = true,
            }
        }
        self.decoder.put_replies(&mut self.output);
        Ok(events)
    }

    fn command(&mut self, command: ToClient) {
        match command {
            ToClient::Stdout(bytes) => self.encoding.put(STDOUT, &bytes, &mut self.output),
            ToClient::Stderr(bytes) => self.encoding.put(STDERR, &bytes, &mut self.output),
            ToClient::Finish(outcome) => {
                if let Some(message) = outcome.message(self.with_status) {
                    self.encoding.put(ERROR, message.as_bytes(), &mut self.output);
                }
                websocket::put_close(&mut self.output);
                self.finished = true;
            }
        }
    }

    fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    fn finished(&self) -> bool {
        self.finished
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Outcome, *};

    const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true };

    fn masked(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn channels_of_version_5() {
        let mut protocol = RemoteWebSocket::new("v5.channel.k8s.io", ALL);
        assert_eq!(protocol.start(), [ClientEvent::Ready]);
        assert_eq!(&protocol.take_output()[..], [0x82, 1, STDOUT]);
        let mut bytes = masked(b"\x00hello");
        bytes.extend(masked(b"\x04{\"Width\":80,\"Height\":24}"));
        bytes.extend(masked(&[CLOSE, STDIN]));
        bytes.extend(masked(b"\x00late"));
        assert_eq!(
            protocol.receive(&bytes).unwrap(),
            [
                ClientEvent::Stdin(Bytes::from_static(b"hello")),
                ClientEvent::Resize { width: 80, height: 24 },
                ClientEvent::StdinClosed,
            ]
        );
        protocol.command(ToClient::Stderr(Bytes::from_static(b"e")));
        assert_eq!(&protocol.take_output()[..], [0x82, 2, STDERR, b'e']);
        protocol.command(ToClient::Finish(Outcome::Success));
        let last = protocol.take_output();
        assert_eq!(last[2], ERROR);
        assert_eq!(&last[last.len() - 4..], [0x88, 2, 0x03, 0xe8]);
        assert!(protocol.finished());
    }

    #[test]
    fn channels_in_base64() {
        let mut protocol = RemoteWebSocket::new("v4.base64.channel.k8s.io", ALL);
        protocol.start();
        assert_eq!(&protocol.take_output()[..], b"\x81\x011");
        let events = protocol.receive(&masked(b"0aGk=")).unwrap();
        assert_eq!(events, [ClientEvent::Stdin(Bytes::from_static(b"hi"))]);
        protocol.command(ToClient::Stdout(Bytes::from_static(b"hi")));
        assert_eq!(&protocol.take_output()[..], b"\x81\x051aGk=");
        // Version 4 knows no half close.
        assert!(protocol.receive(&masked(&[CLOSE, STDIN])).unwrap().is_empty());
    }
}
