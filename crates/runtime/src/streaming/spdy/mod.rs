//! SPDY/3.1, server side, as far as Kubernetes speaks it. No IO: bytes in, events out; calls in, bytes out.

mod frame;
mod headers;

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};

pub(crate) use frame::StreamId;
pub(crate) use headers::Headers;

use frame::{Frame, FrameError};
use headers::{HeaderError, HeaderReader, HeaderWriter};

/// Most bytes of data in one frame.
const MAX_DATA: usize = 32 << 10;

/// Most streams at a time.
const MAX_STREAMS: usize = 4096;

/// How much may be sent on a stream before leave is given, where flow control is used at all.
const INITIAL_WINDOW: i64 = 64 << 10;

const SETTINGS_INITIAL_WINDOW_SIZE: u32 = 7;

const PROTOCOL_ERROR: u32 = 1;
const INVALID_STREAM: u32 = 2;
const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;

/// What the peer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Opened a stream, which has been accepted.
    Opened {
        stream: StreamId,
        headers: Headers,
    },
    Data {
        stream: StreamId,
        bytes: Bytes,
    },
    /// Sends no more on a stream.
    Ended {
        stream: StreamId,
    },
    /// Wants nothing more of a stream.
    Reset {
        stream: StreamId,
    },
    /// Opens no more streams.
    GoingAway,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Headers(#[from] HeaderError),
}

/// One side of a stream each.
#[derive(Debug)]
struct Stream {
    /// The peer may still send.
    remote_open: bool,
    /// We may still send.
    local_open: bool,
    window: i64,
    /// What waits for the window.
    waiting: VecDeque<Bytes>,
    end_waits: bool,
}

/// A connection.
pub(crate) struct Connection {
    input: BytesMut,
    output: BytesMut,
    reader: HeaderReader,
    writer: HeaderWriter,
    streams: HashMap<StreamId, Stream>,
    last_opened: StreamId,
    /// The clients of Kubernetes ignore flow control; one that shows that it knows it gets it.
    flow_control: bool,
    initial_window: i64,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            input: BytesMut::new(),
            output: BytesMut::new(),
            reader: HeaderReader::default(),
            writer: HeaderWriter::default(),
            streams: HashMap::new(),
            last_opened: 0,
            flow_control: false,
            initial_window: INITIAL_WINDOW,
        }
    }
}

impl Connection {
    /// Takes in bytes; what they mean.
    ///
    /// # Errors
    /// When the peer doesn't speak SPDY; nothing more can be understood then.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Event>, ConnectionError> {
        self.input.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(frame) = frame::decode(&mut self.input)? {
            self.handle(frame, &mut events)?;
        }
        Ok(events)
    }

    /// What is to be sent, emptied by this.
    pub(crate) fn take_output(&mut self) -> Bytes {
        self.output.split().freeze()
    }

    /// How much waits to be sent, or for leave to be.
    pub(crate) fn backlog(&self) -> usize {
        let waiting = self.streams.values().flat_map(|s| &s.waiting);
        self.output.len() + waiting.map(Bytes::len).sum::<usize>()
    }

    fn handle(&mut self, frame: Frame, events: &mut Vec<Event>) -> Result<(), ConnectionError> {
        match frame {
            Frame::SynStream { stream, fin, block } => {
                // Read in any case: it is part of the history.
                let headers = self.reader.read(&block)?;
                self.open(stream, fin, headers, events);
            }
            Frame::Data { stream, fin, bytes } => self.data(stream, fin, bytes, events),
            Frame::RstStream { stream, .. } => {
                if self.streams.remove(&stream).is_some() {
                    events.push(Event::Reset { stream });
                }
            }
            Frame::SynReply { block, .. } => {
                self.reader.read(&block)?;
            }
            Frame::Headers { stream, fin, block } => {
                self.reader.read(&block)?;
                if fin {
                    self.remote_end(stream, events);
                }
            }
            Frame::Ping { id } => {
                // Even numbers are answers to ours, and we send none.
                if id % 2 == 1 {
                    frame::put_ping(id, &mut self.output);
                }
            }
            Frame::GoAway { .. } => events.push(Event::GoingAway),
            Frame::Settings { entries } => {
                for (id, value) in entries {
                    if id == SETTINGS_INITIAL_WINDOW_SIZE {
                        self.set_initial_window(i64::from(value));
                    }
                }
            }
            Frame::WindowUpdate { stream, delta } => {
                self.flow_control = true;
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.window += i64::from(delta);
                }
                self.send_waiting(stream);
            }
            Frame::Unknown => {}
        }
        Ok(())
    }

    fn open(&mut self, stream: StreamId, fin: bool, headers: Headers, events: &mut Vec<Event>) {
        // Clients open odd ones, always higher.
        if stream.is_multiple_of(2) || stream <= self.last_opened {
            frame::put_rst_stream(stream, PROTOCOL_ERROR, &mut self.output);
            return;
        }
        self.last_opened = stream;
        if self.streams.len() >= MAX_STREAMS {
            frame::put_rst_stream(stream, REFUSED_STREAM, &mut self.output);
            return;
        }
        self.streams.insert(
            stream,
            Stream {
                remote_open: !fin,
                local_open: true,
                window: self.initial_window,
                waiting: VecDeque::new(),
                end_waits: false,
            },
        );
        let block = self.writer.write(&[]);
        frame::put_syn_reply(stream, &block, &mut self.output);
        events.push(Event::Opened { stream, headers });
        if fin {
            events.push(Event::Ended { stream });
        }
    }

    fn data(&mut self, id: StreamId, fin: bool, bytes: Bytes, events: &mut Vec<Event>) {
        let known = self.streams.get(&id).is_some_and(|s| s.remote_open);
        if !known {
            // Of a stream that we have reset it may still be under way.
            if id > self.last_opened {
                frame::put_rst_stream(id, INVALID_STREAM, &mut self.output);
            }
            return;
        }
        if !bytes.is_empty() {
            if self.flow_control && !fin {
                frame::put_window_update(id, bytes.len() as u32, &mut self.output);
            }
            events.push(Event::Data { stream: id, bytes });
        }
        if fin {
            self.remote_end(id, events);
        }
    }

    fn remote_end(&mut self, id: StreamId, events: &mut Vec<Event>) {
        if let Some(stream) = self.streams.get_mut(&id)
            && stream.remote_open
        {
            stream.remote_open = false;
            events.push(Event::Ended { stream: id });
            self.forget_if_closed(id);
        }
    }

    fn set_initial_window(&mut self, value: i64) {
        self.flow_control = true;
        let change = value - self.initial_window;
        self.initial_window = value;
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.window += change;
            }
            self.send_waiting(id);
        }
    }

    /// Sends data on a stream; what is sent on one that is closed is dropped.
    pub(crate) fn send(&mut self, id: StreamId, bytes: Bytes) {
        let Some(stream) = self.streams.get_mut(&id).filter(|s| s.local_open) else {
            return;
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            stream.waiting.push_back(rest.split_to(rest.len().min(MAX_DATA)));
        }
        self.send_waiting(id);
    }

    /// Ends our side of a stream.
    pub(crate) fn end(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|s| s.local_open) {
            stream.local_open = false;
            stream.end_waits = true;
            self.send_waiting(id);
        }
    }

    /// Ends a stream at once, both sides.
    pub(crate) fn reset(&mut self, id: StreamId) {
        if self.streams.remove(&id).is_some() {
            frame::put_rst_stream(id, CANCEL, &mut self.output);
        }
    }

    /// Tells that no more streams are taken.
    pub(crate) fn go_away(&mut self) {
        frame::put_go_away(self.last_opened, &mut self.output);
    }

    fn send_waiting(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        while let Some(bytes) = stream.waiting.front_mut() {
            let leave = if self.flow_control { usize::try_from(stream.window).unwrap_or(0) } else { bytes.len() };
            let now = bytes.split_to(leave.min(bytes.len()));
            if now.is_empty() {
                return;
            }
            stream.window -= now.len() as i64;
            frame::put_data(id, false, &now, &mut self.output);
            if bytes.is_empty() {
                stream.waiting.pop_front();
            }
        }
        if stream.end_waits {
            stream.end_waits = false;
            frame::put_data(id, true, &[], &mut self.output);
            self.forget_if_closed(id);
        }
    }

    fn forget_if_closed(&mut self, id: StreamId) {
        let closed = self.streams.get(&id).is_some_and(|s| !s.remote_open && !s.local_open && !s.end_waits);
        if closed {
            self.streams.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
