//! Exec and attach, as clients speak it: SPDY streams or WebSocket channels. No IO.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::json;

use super::{
    protocol::Protocol,
    spdy::{self, StreamId},
    websocket,
};
use crate::server::Wanted;

/// What the client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientEvent {
    /// All of its streams are open.
    Ready,
    Stdin(Bytes),
    StdinClosed,
    Resize {
        width: u16,
        height: u16,
    },
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ToClient {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The last word.
    Finish(Outcome),
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// The command has ended with another code than 0.
    ExitCode {
        code: i32,
        command: Vec<String>,
    },
    /// It could not be run.
    Failure(String),
}

impl Outcome {
    /// For version 4 of the protocol and later.
    fn status(&self) -> String {
        let status = match self {
            Self::Success => json!({"metadata": {}, "status": "Success"}),
            Self::ExitCode { code, .. } => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: {}", self.text()),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failure(_) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {}", self.text()),
                "reason": "InternalError",
                "details": {"causes": [{"message": self.text()}]},
                "code": 500,
            }),
        };
        status.to_string()
    }

    fn text(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::ExitCode { code, command } => {
                format!("error executing command [{}], exit code {code}", command.join(" "))
            }
            Self::Failure(message) => format!("error executing command in container: {message}"),
        }
    }

    /// What goes on the error stream, if anything.
    fn message(&self, with_status: bool) -> Option<String> {
        match (with_status, self) {
            (true, _) => Some(self.status()),
            (false, Self::Success) => None,
            (false, _) => Some(self.text()),
        }
    }
}

/// Sizes of a terminal arrive as JSON objects one after the other, cut anywhere.
#[derive(Debug, Default)]
struct Sizes(Vec<u8>);

#[derive(Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

impl Sizes {
    /// Longest text without a whole size in it.
    const MAX: usize = 4096;

    fn feed(&mut self, bytes: &[u8]) -> Vec<ClientEvent> {
        self.0.extend_from_slice(bytes);
        let mut events = Vec::new();
        let mut used = 0;
        {
            let mut stream = serde_json::Deserializer::from_slice(&self.0).into_iter::<Size>();
            while let Some(Ok(Size { width, height })) = stream.next() {
                used = stream.byte_offset();
                events.push(ClientEvent::Resize { width, height });
            }
        }
        self.0.drain(..used);
        if self.0.len() > Self::MAX {
            self.0.clear();
        }
        events
    }
}

/// Versions of the protocol over SPDY, the newest first.
pub(crate) const SPDY_PROTOCOLS: [&str; 4] =
    ["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// Over SPDY: a stream each for error, stdin, stdout, stderr and resize, named by a header.
pub(crate) struct RemoteSpdy {
    connection: spdy::Connection,
    with_status: bool,
    expected: Vec<(Kind, Option<StreamId>)>,
    sizes: Sizes,
    finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Error,
    Stdin,
    Stdout,
    Stderr,
    Resize,
}

impl RemoteSpdy {
    /// `protocol` is one of [`SPDY_PROTOCOLS`].
    pub(crate) fn new(protocol: &str, wanted: Wanted, terminal: bool) -> Self {
        let version = SPDY_PROTOCOLS.iter().position(|p| *p == protocol);
        let mut kinds = vec![Kind::Error];
        for (asked, kind) in [
            (wanted.stdin, Kind::Stdin),
            (wanted.stdout, Kind::Stdout),
            (wanted.stderr, Kind::Stderr),
            // Since version 3.
            (terminal && version.is_some_and(|v| v <= 1), Kind::Resize),
        ] {
            if asked {
                kinds.push(kind);
            }
        }
        Self {
            connection: spdy::Connection::default(),
            with_status: version == Some(0),
            expected: kinds.into_iter().map(|k| (k, None)).collect(),
            sizes: Sizes::default(),
            finished: false,
        }
    }

    fn stream(&self, kind: Kind) -> Option<StreamId> {
        self.expected.iter().find(|(k, _)| *k == kind)?.1
    }

    fn kind(&self, stream: StreamId) -> Option<Kind> {
        let entry = self.expected.iter().find(|(_, id)| *id == Some(stream))?;
        Some(entry.0)
    }

    fn opened(&mut self, stream: StreamId, headers: &spdy::Headers) -> Option<ClientEvent> {
        let name = headers.iter().find(|(n, _)| n == "streamtype").map_or("", |(_, v)| v.as_str());
        let kind = match name {
            "error" => Kind::Error,
            "stdin" => Kind::Stdin,
            "stdout" => Kind::Stdout,
            "stderr" => Kind::Stderr,
            "resize" => Kind::Resize,
            _ => {
                self.connection.reset(stream);
                return None;
            }
        };
        let entry = self.expected.iter_mut().find(|(k, id)| *k == kind && id.is_none());
        let Some(entry) = entry else {
            self.connection.reset(stream);
            return None;
        };
        entry.1 = Some(stream);
        let all = self.expected.iter().all(|(_, id)| id.is_some());
        all.then_some(ClientEvent::Ready)
    }
}

impl Protocol for RemoteSpdy {
    type Event = ClientEvent;
    type Command = ToClient;

    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<ClientEvent>, String> {
        let mut out = Vec::new();
        for event in self.connection.receive(bytes).map_err(|e| e.to_string())? {
            match event {
                spdy::Event::Opened { stream, headers } => {
                    out.extend(self.opened(stream, &headers));
                }
                spdy::Event::Data { stream, bytes } => match self.kind(stream) {
                    Some(Kind::Stdin) => out.push(ClientEvent::Stdin(bytes)),
                    Some(Kind::Resize) => out.extend(self.sizes.feed(&bytes)),
                    _ => {}
                },
                spdy::Event::Ended { stream } | spdy::Event::Reset { stream } => {
                    if self.kind(stream) == Some(Kind::Stdin) {
                        out.push(ClientEvent::StdinClosed);
                    }
                }
                spdy::Event::GoingAway => {}
            }
        }
        Ok(out)
    }

    fn command(&mut self, command: ToClient) {
        match command {
            ToClient::Stdout(bytes) => {
                if let Some(stream) = self.stream(Kind::Stdout) {
                    self.connection.send(stream, bytes);
                }
            }
            ToClient::Stderr(bytes) => {
                if let Some(stream) = self.stream(Kind::Stderr) {
                    self.connection.send(stream, bytes);
                }
            }
            ToClient::Finish(outcome) => {
                if let Some(stream) = self.stream(Kind::Error)
                    && let Some(message) = outcome.message(self.with_status)
                {
                    self.connection.send(stream, message.into());
                }
                let streams: Vec<_> = self.expected.iter().filter_map(|(_, id)| *id).collect();
                for stream in streams {
                    self.connection.end(stream);
                }
                self.connection.go_away();
                self.finished = true;
            }
        }
    }

    fn take_output(&mut self) -> Bytes {
        self.connection.take_output()
    }

    fn backlog(&self) -> usize {
        self.connection.backlog()
    }

    fn finished(&self) -> bool {
        self.finished && self.connection.backlog() == 0
    }
}

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
pub(super) enum Encoding {
    Binary,
    Base64,
}

impl Encoding {
    pub(super) fn of(protocol: &str) -> Self {
        if protocol.contains("base64") { Self::Base64 } else { Self::Binary }
    }

    /// Channel and payload; `None` when there is no channel or the payload is broken.
    pub(super) fn decode(self, message: &Bytes) -> Option<(u8, Bytes)> {
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

    pub(super) fn put(self, channel: u8, payload: &[u8], out: &mut BytesMut) {
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
        while let Some(message) = self.decoder.next().map_err(|e| e.to_string())? {
            match message {
                websocket::Message::Binary(payload) | websocket::Message::Text(payload) => {
                    self.message(&payload, &mut events);
                }
                websocket::Message::Ping(payload) => {
                    websocket::put_pong(&payload, &mut self.output);
                }
                websocket::Message::Pong => {}
                websocket::Message::Close => {
                    websocket::put_close(&mut self.output);
                    self.finished = true;
                }
            }
        }
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
    use super::*;

    const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true };

    fn masked(payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn statuses_are_what_clients_parse() {
        let outcome = Outcome::ExitCode { code: 3, command: vec!["sh".into(), "-c".into(), "exit 3".into()] };
        let status: serde_json::Value = serde_json::from_str(&outcome.status()).unwrap();
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(
            status["message"],
            "command terminated with non-zero exit code: error executing command [sh -c exit 3], exit code 3"
        );
        assert_eq!(Outcome::Success.message(false), None);
        assert_eq!(Outcome::Success.message(true).unwrap(), r#"{"metadata":{},"status":"Success"}"#);
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

    #[test]
    fn sizes_may_be_cut_anywhere() {
        let mut sizes = Sizes::default();
        assert!(sizes.feed(b"{\"Width\":1,\"He").is_empty());
        assert_eq!(
            sizes.feed(b"ight\":2}\n{\"Width\":3,\"Height\":4}\n{"),
            [ClientEvent::Resize { width: 1, height: 2 }, ClientEvent::Resize { width: 3, height: 4 },]
        );
        for _ in 0..1000 {
            sizes.feed(b"xxxxxxxx");
        }
        assert!(sizes.0.len() <= Sizes::MAX);
    }
}
