//! Exec and attach over SPDY.

use bytes::Bytes;

use super::{
    super::{
        protocol::Protocol,
        spdy::{self, StreamId},
    },
    ClientEvent, Sizes, ToClient,
};
use crate::server::Wanted;

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
