//! Port forwarding, as clients speak it: pairs of SPDY streams or of WebSocket channels. No IO.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::{
    protocol::Protocol,
    remote_command::Encoding,
    spdy::{self, StreamId},
    websocket,
};

/// One forwarded connection.
pub(crate) type ForwardId = u32;

/// What the client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForwardEvent {
    Open {
        id: ForwardId,
        port: u16,
    },
    Data {
        id: ForwardId,
        bytes: Bytes,
    },
    /// Sends no more.
    Ended {
        id: ForwardId,
    },
    /// Wants no more.
    Reset {
        id: ForwardId,
    },
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForwardCommand {
    Data {
        id: ForwardId,
        bytes: Bytes,
    },
    /// The pod has closed the connection.
    Close {
        id: ForwardId,
    },
    /// It could not be made, or broke.
    Fail {
        id: ForwardId,
        message: String,
    },
}

/// The protocol over SPDY.
pub(crate) const SPDY_PROTOCOLS: [&str; 1] = ["portforward.k8s.io"];

/// The protocols over WebSocket; the first carries the SPDY protocol.
pub(crate) const TUNNEL_PROTOCOL: &str = "SPDY/3.1+portforward.k8s.io";
pub(crate) const WEBSOCKET_PROTOCOLS: [&str; 5] =
    ["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "portforward.k8s.io", "v2.channel.k8s.io", ""];

/// Over SPDY: each connection is an error stream and a data stream with the same request id.
#[derive(Default)]
pub(crate) struct ForwardSpdy {
    connection: spdy::Connection,
    pairs: HashMap<String, Pair>,
    by_data: HashMap<StreamId, String>,
    by_id: HashMap<ForwardId, String>,
    next: ForwardId,
}

#[derive(Debug, Default)]
struct Pair {
    id: Option<ForwardId>,
    port: u16,
    error: Option<StreamId>,
    data: Option<StreamId>,
    /// What came before the other stream of the pair was there.
    early: Vec<Bytes>,
    early_end: bool,
}

impl ForwardSpdy {
    fn opened(&mut self, stream: StreamId, headers: &spdy::Headers, out: &mut Vec<ForwardEvent>) {
        let header = |name: &str| {
            let found = headers.iter().find(|(n, _)| n == name);
            found.map_or("", |(_, v)| v.as_str())
        };
        let is_data = match header("streamtype") {
            "data" => true,
            "error" => false,
            _ => {
                self.connection.reset(stream);
                return;
            }
        };
        let Some(port) = header("port").parse::<u16>().ok().filter(|p| *p > 0) else {
            self.connection.reset(stream);
            return;
        };
        let request = match header("requestid") {
            // Old clients open the data stream right after the error stream.
            "" if is_data => stream.saturating_sub(2).to_string(),
            "" => stream.to_string(),
            id => id.to_owned(),
        };
        let pair = self.pairs.entry(request.clone()).or_default();
        pair.port = port;
        let place = if is_data { &mut pair.data } else { &mut pair.error };
        if place.is_some() {
            self.connection.reset(stream);
            return;
        }
        *place = Some(stream);
        if is_data {
            self.by_data.insert(stream, request.clone());
        }
        if pair.data.is_some() && pair.error.is_some() {
            self.next += 1;
            let id = self.next;
            pair.id = Some(id);
            self.by_id.insert(id, request);
            out.push(ForwardEvent::Open { id, port });
            out.extend(pair.early.drain(..).map(|bytes| ForwardEvent::Data { id, bytes }));
            if pair.early_end {
                out.push(ForwardEvent::Ended { id });
            }
        }
    }

    fn data_pair(&mut self, stream: StreamId) -> Option<&mut Pair> {
        let request = self.by_data.get(&stream)?;
        self.pairs.get_mut(request)
    }

    /// Forgets a connection; its streams.
    fn take(&mut self, id: ForwardId) -> Option<(StreamId, StreamId)> {
        let pair = self.pairs.remove(&self.by_id.remove(&id)?)?;
        let (data, error) = (pair.data?, pair.error?);
        self.by_data.remove(&data);
        Some((data, error))
    }
}

impl Protocol for ForwardSpdy {
    type Event = ForwardEvent;
    type Command = ForwardCommand;

    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<ForwardEvent>, String> {
        let mut out = Vec::new();
        for event in self.connection.receive(bytes).map_err(|e| e.to_string())? {
            match event {
                spdy::Event::Opened { stream, headers } => {
                    self.opened(stream, &headers, &mut out);
                }
                spdy::Event::Data { stream, bytes } => match self.data_pair(stream) {
                    Some(Pair { id: Some(id), .. }) => {
                        out.push(ForwardEvent::Data { id: *id, bytes });
                    }
                    Some(pair) => pair.early.push(bytes),
                    None => {}
                },
                spdy::Event::Ended { stream } => match self.data_pair(stream) {
                    Some(Pair { id: Some(id), .. }) => out.push(ForwardEvent::Ended { id: *id }),
                    Some(pair) => pair.early_end = true,
                    None => {}
                },
                spdy::Event::Reset { stream } => {
                    let id = self.data_pair(stream).and_then(|p| p.id);
                    if let Some(id) = id {
                        if let Some((_, error)) = self.take(id) {
                            self.connection.reset(error);
                        }
                        out.push(ForwardEvent::Reset { id });
                    }
                }
                spdy::Event::GoingAway => {}
            }
        }
        Ok(out)
    }

    fn command(&mut self, command: ForwardCommand) {
        match command {
            ForwardCommand::Data { id, bytes } => {
                let pair = self.by_id.get(&id).and_then(|r| self.pairs.get(r));
                if let Some(stream) = pair.and_then(|p| p.data) {
                    self.connection.send(stream, bytes);
                }
            }
            ForwardCommand::Close { id } => {
                if let Some((data, error)) = self.take(id) {
                    self.connection.end(data);
                    self.connection.end(error);
                }
            }
            ForwardCommand::Fail { id, message } => {
                if let Some((data, error)) = self.take(id) {
                    self.connection.send(error, message.into());
                    self.connection.end(error);
                    self.connection.end(data);
                }
            }
        }
    }

    fn take_output(&mut self) -> Bytes {
        self.connection.take_output()
    }

    fn backlog(&self) -> usize {
        self.connection.backlog()
    }

    /// It lasts until the client leaves.
    fn finished(&self) -> bool {
        false
    }
}

/// Over WebSocket: the ports are known beforehand, each has two channels, for data and for errors, and one
/// connection at most.
pub(crate) struct ForwardWebSocket {
    decoder: websocket::Decoder,
    output: BytesMut,
    encoding: Encoding,
    ports: Vec<u16>,
    open: Vec<bool>,
    finished: bool,
}

impl ForwardWebSocket {
    /// `protocol` is one of [`WEBSOCKET_PROTOCOLS`].
    pub(crate) fn new(protocol: &str, ports: &[u16]) -> Self {
        Self {
            decoder: websocket::Decoder::default(),
            output: BytesMut::new(),
            encoding: Encoding::of(protocol),
            // Channel numbers have one byte.
            ports: ports.iter().copied().take(127).collect(),
            open: vec![true; ports.len().min(127)],
            finished: false,
        }
    }

    fn close(&mut self, id: ForwardId) {
        if let Some(open) = self.open.get_mut(id as usize) {
            *open = false;
        }
        if self.open.iter().all(|open| !open) && !self.finished {
            websocket::put_close(&mut self.output);
            self.finished = true;
        }
    }
}

impl Protocol for ForwardWebSocket {
    type Event = ForwardEvent;
    type Command = ForwardCommand;

    fn start(&mut self) -> Vec<ForwardEvent> {
        let mut events = Vec::new();
        for (number, port) in self.ports.iter().enumerate() {
            // Each channel starts with its port.
            for channel in [2 * number, 2 * number + 1] {
                let port = port.to_le_bytes();
                self.encoding.put(channel as u8, &port, &mut self.output);
            }
            events.push(ForwardEvent::Open { id: number as ForwardId, port: *port });
        }
        events
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<ForwardEvent>, String> {
        self.decoder.feed(bytes);
        let mut events = Vec::new();
        while let Some(message) = self.decoder.next() {
            match message {
                websocket::Message::Binary(payload) | websocket::Message::Text(payload) => {
                    let Some((channel, bytes)) = self.encoding.decode(&payload) else {
                        continue;
                    };
                    let id = ForwardId::from(channel / 2);
                    let known = self.open.get(id as usize).copied().unwrap_or(false);
                    if channel % 2 == 0 && known && !bytes.is_empty() {
                        events.push(ForwardEvent::Data { id, bytes });
                    }
                }
                websocket::Message::Close => self.finished = true,
            }
        }
        self.decoder.put_replies(&mut self.output);
        Ok(events)
    }

    fn command(&mut self, command: ForwardCommand) {
        match command {
            ForwardCommand::Data { id, bytes } => {
                self.encoding.put((2 * id) as u8, &bytes, &mut self.output);
            }
            ForwardCommand::Close { id } => self.close(id),
            ForwardCommand::Fail { id, message } => {
                self.encoding.put((2 * id + 1) as u8, message.as_bytes(), &mut self.output);
                self.close(id);
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

    #[test]
    fn channels_start_with_their_port() {
        let mut protocol = ForwardWebSocket::new("v4.channel.k8s.io", &[80, 443]);
        assert_eq!(protocol.start(), [ForwardEvent::Open { id: 0, port: 80 }, ForwardEvent::Open { id: 1, port: 443 }]);
        assert_eq!(
            &protocol.take_output()[..],
            [0x82, 3, 0, 80, 0, 0x82, 3, 1, 80, 0, 0x82, 3, 2, 0xbb, 1, 0x82, 3, 3, 0xbb, 1]
        );
        let frame = |payload: &[u8]| {
            let mut frame = vec![0x82, 0x80 | payload.len() as u8, 0, 0, 0, 0];
            frame.extend_from_slice(payload);
            frame
        };
        let bytes = Bytes::from_static(b"hi");
        assert_eq!(protocol.receive(&frame(b"\x02hi")).unwrap(), [ForwardEvent::Data { id: 1, bytes }]);
        assert!(protocol.receive(&frame(b"\x03no")).unwrap().is_empty());
        assert!(protocol.receive(&frame(b"\x10no")).unwrap().is_empty());
        protocol.command(ForwardCommand::Fail { id: 0, message: "x".into() });
        assert!(!protocol.finished());
        protocol.command(ForwardCommand::Close { id: 1 });
        assert!(protocol.finished());
    }
}
