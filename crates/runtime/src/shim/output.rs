//! The outputs of containers: each is read once, written to the log and copied to attached clients.
//!
//! A client that doesn't read holds its output up, as a terminal that is paused does; the container then
//! blocks when its pipe is full.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};

use super::{
    log_file::{Formatter, LogFile, Stream, Timestamp},
    reactor::{Interest, Reactor, Source},
};

/// Size of one read: as much as one log entry holds.
const CHUNK: usize = 16 << 10;

/// All outputs and clients of a shim.
#[derive(Default)]
pub(crate) struct Outputs {
    outputs: HashMap<u64, Output>,
    clients: HashMap<u64, Client>,
    next: u64,
}

struct Output {
    container: String,
    fd: OwnedFd,
    stream: Stream,
    formatter: Formatter,
    clients: Vec<u64>,
}

struct Client {
    fd: OwnedFd,
    output: u64,
    pending: Vec<u8>,
}

/// Where the entries of a container's outputs go.
pub(crate) trait Logs {
    /// The log of a container; `None` when it has none.
    fn log(&mut self, container: &str) -> Option<&mut LogFile>;
}

impl Outputs {
    /// Starts reading an output.
    pub(crate) fn add(&mut self, reactor: &Reactor, container: &str, stream: Stream, fd: OwnedFd) -> io::Result<()> {
        set_nonblocking(&fd)?;
        self.next += 1;
        reactor.add(&fd, &Source::Output(self.next), Interest::Read)?;
        self.outputs.insert(
            self.next,
            Output {
                container: container.to_owned(),
                fd,
                stream,
                formatter: Formatter::new(stream),
                clients: Vec::new(),
            },
        );
        Ok(())
    }

    /// Copies an output to a client from now on; an output that has ended closes the client at once.
    pub(crate) fn attach(&mut self, reactor: &Reactor, container: &str, stream: Stream, fd: OwnedFd) -> io::Result<()> {
        set_nonblocking(&fd)?;
        let output = self.outputs.iter_mut().find(|(_, o)| o.container == container && o.stream == stream);
        let Some((number, output)) = output else {
            return Ok(());
        };
        self.next += 1;
        reactor.add(&fd, &Source::Client(self.next), Interest::None)?;
        output.clients.push(self.next);
        self.clients.insert(self.next, Client { fd, output: *number, pending: Vec::new() });
        Ok(())
    }

    /// An output is readable.
    pub(crate) fn readable(&mut self, reactor: &Reactor, number: u64, logs: &mut impl Logs) {
        self.pump(reactor, number, logs);
        let held_up = self
            .outputs
            .get(&number)
            .is_some_and(|o| o.clients.iter().any(|c| self.clients.get(c).is_some_and(|c| !c.pending.is_empty())));
        if held_up && let Some(output) = self.outputs.get(&number) {
            // Registered above; can't fail while it is.
            let _ = reactor.change(&output.fd, &Source::Output(number), Interest::None);
        }
    }

    /// A client takes more, or is gone.
    pub(crate) fn client_ready(&mut self, reactor: &Reactor, number: u64, writable: bool) {
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        let output = client.output;
        if !writable || write_pending(client).is_err() {
            self.clients.remove(&number);
            if let Some(output) = self.outputs.get_mut(&output) {
                output.clients.retain(|c| *c != number);
            }
        } else if client.pending.is_empty() {
            let _ = reactor.change(&client.fd, &Source::Client(number), Interest::None);
        } else {
            return;
        }
        self.resume(reactor, output);
    }

    /// Reads on when no client holds the output up any more.
    fn resume(&self, reactor: &Reactor, number: u64) {
        let Some(output) = self.outputs.get(&number) else {
            return;
        };
        let free = output.clients.iter().all(|c| self.clients.get(c).is_none_or(|c| c.pending.is_empty()));
        if free {
            let _ = reactor.change(&output.fd, &Source::Output(number), Interest::Read);
        }
    }

    /// Reads all that a container has written, without regard to slow clients.
    pub(crate) fn drain(&mut self, reactor: &Reactor, container: &str, logs: &mut impl Logs) {
        let numbers: Vec<u64> =
            self.outputs.iter().filter(|(_, o)| o.container == container).map(|(n, _)| *n).collect();
        for number in numbers {
            while self.pump(reactor, number, logs) {}
        }
    }

    /// Stops reading a container's outputs.
    pub(crate) fn close(&mut self, container: &str) {
        self.outputs.retain(|_, o| o.container != container);
        self.clients.retain(|_, c| self.outputs.contains_key(&c.output));
    }

    /// Reads one chunk; whether there may be more right away.
    fn pump(&mut self, reactor: &Reactor, number: u64, logs: &mut impl Logs) -> bool {
        let Some(output) = self.outputs.get_mut(&number) else {
            return false;
        };
        let mut chunk = [0; CHUNK];
        let bytes = match nix::unistd::read(output.fd.as_raw_fd(), &mut chunk) {
            Ok(length) => &chunk[..length],
            Err(Errno::EINTR) => return true,
            Err(Errno::EAGAIN) => return false,
            // A terminal says this when its last user has gone.
            Err(_) => &[],
        };
        let time = Timestamp::now();
        let mut entries = Vec::with_capacity(bytes.len() + bytes.len() / 2 + 64);
        if bytes.is_empty() {
            output.formatter.finish(&time, &mut entries);
        } else {
            output.formatter.feed(bytes, &time, &mut entries);
        }
        if let Some(log) = logs.log(&output.container) {
            // A full disk must not stop the container; what can't be kept is lost.
            let _ = log.write(&entries);
        }
        if bytes.is_empty() {
            if let Some(output) = self.outputs.remove(&number) {
                self.finish_clients(&output.clients);
            }
            return false;
        }
        for id in output.clients.clone() {
            self.copy(reactor, id, bytes);
        }
        true
    }

    /// Clients of an output that has ended: gone, unless something is still to be written to them.
    fn finish_clients(&mut self, ids: &[u64]) {
        for id in ids {
            let done = self.clients.get(id).is_some_and(|c| c.pending.is_empty());
            if done {
                self.clients.remove(id);
            } else if let Some(client) = self.clients.get_mut(id) {
                // The next time that it is writable everything goes at once, or it is dropped.
                client.output = 0;
            }
        }
    }

    fn copy(&mut self, reactor: &Reactor, id: u64, bytes: &[u8]) {
        let Some(client) = self.clients.get_mut(&id) else {
            return;
        };
        let was_idle = client.pending.is_empty();
        client.pending.extend_from_slice(bytes);
        if write_pending(client).is_err() {
            let output = client.output;
            self.clients.remove(&id);
            if let Some(output) = self.outputs.get_mut(&output) {
                output.clients.retain(|c| *c != id);
            }
        } else if was_idle && !client.pending.is_empty() {
            let _ = reactor.change(&client.fd, &Source::Client(id), Interest::Write);
        }
    }

    /// Ends clients whose output has ended and who have got everything.
    pub(crate) fn collect_finished(&mut self) {
        self.clients.retain(|_, c| c.output != 0 || !c.pending.is_empty());
    }
}

fn write_pending(client: &mut Client) -> io::Result<()> {
    let mut written = 0;
    while written < client.pending.len() {
        match nix::unistd::write(&client.fd, &client.pending[written..]) {
            Ok(length) => written += length,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    if written == client.pending.len() {
        client.pending = Vec::new();
    } else {
        client.pending.drain(..written);
    }
    Ok(())
}

pub(crate) fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd.as_raw_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
