//! What the protocols of streams have in common: bytes and commands in, events and bytes out, no IO.

use bytes::{Bytes, BytesMut};

use super::websocket;

/// A protocol's state.
pub(crate) trait Protocol {
    /// What the client did.
    type Event;
    /// What the client shall be told.
    type Command;

    /// What happens at the very start.
    fn start(&mut self) -> Vec<Self::Event> {
        Vec::new()
    }

    /// Takes in bytes.
    ///
    /// # Errors
    /// When the client can't be understood; the connection is closed then.
    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<Self::Event>, String>;

    /// Does what the session says.
    fn command(&mut self, command: Self::Command);

    /// Bytes to send, emptied by this.
    fn take_output(&mut self) -> Bytes;

    /// Bytes that can't be sent yet, for want of the peer's leave.
    fn backlog(&self) -> usize {
        0
    }

    /// All is said: once the output is sent, the connection may be closed.
    fn finished(&self) -> bool;
}

/// Another protocol's bytes in binary messages of a WebSocket.
pub(crate) struct Tunnel<P> {
    inner: P,
    decoder: websocket::Decoder,
    output: BytesMut,
    closed: bool,
}

impl<P> Tunnel<P> {
    pub(crate) fn new(inner: P) -> Self {
        Self { inner, decoder: websocket::Decoder::default(), output: BytesMut::new(), closed: false }
    }
}

impl<P: Protocol> Protocol for Tunnel<P> {
    type Event = P::Event;
    type Command = P::Command;

    fn start(&mut self) -> Vec<P::Event> {
        self.inner.start()
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<Vec<P::Event>, String> {
        self.decoder.feed(bytes);
        let mut events = Vec::new();
        while let Some(message) = self.decoder.next() {
            match message {
                websocket::Message::Binary(bytes) | websocket::Message::Text(bytes) => {
                    events.extend(self.inner.receive(&bytes)?);
                }
                websocket::Message::Close => self.closed = true,
            }
        }
        self.decoder.put_replies(&mut self.output);
        Ok(events)
    }

    fn command(&mut self, command: P::Command) {
        self.inner.command(command);
    }

    fn take_output(&mut self) -> Bytes {
        let inner = self.inner.take_output();
        if !inner.is_empty() {
            websocket::put_binary(&[&inner], &mut self.output);
        }
        self.output.split().freeze()
    }

    fn backlog(&self) -> usize {
        self.inner.backlog()
    }

    fn finished(&self) -> bool {
        self.closed || self.inner.finished()
    }
}
