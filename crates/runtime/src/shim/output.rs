//! The outputs of containers: each is read once, written to the log and copied to attached clients.
//!
//! A client that reads slowly holds its output up, so that it gets everything; one that takes nothing for a
//! while is dropped, since the container blocks once its pipe is full.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
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

/// How long a client may take nothing while there is something for it.
const PATIENCE: Duration = Duration::from_secs(10);

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
    /// When it last took something, or first had something waiting.
    progress: Instant,
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
        self.clients.insert(self.next, Client { fd, output: *number, pending: Vec::new(), progress: Instant::now() });
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

    /// When the next client is to be dropped, unless it takes something before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.clients.values().filter(|c| !c.pending.is_empty()).map(|c| c.progress + PATIENCE).min()
    }

    /// Drops the clients that took nothing for too long.
    pub(crate) fn drop_stalled(&mut self, reactor: &Reactor, now: Instant) {
        let stalled: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, c)| !c.pending.is_empty() && c.progress + PATIENCE <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in stalled {
            // As if it were gone.
            self.client_ready(reactor, number, false);
        }
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
        if was_idle {
            client.progress = Instant::now();
        }
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
    if written > 0 {
        client.progress = Instant::now();
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

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, io::Write as _};

    use super::*;

    struct NoLogs;

    impl Logs for NoLogs {
        fn log(&mut self, _: &str) -> Option<&mut LogFile> {
            None
        }
    }

    /// Somebody who may attach must not be able to stop the container for longer than that.
    #[test]
    fn a_client_that_does_not_read_is_dropped() {
        let reactor = Reactor::new().unwrap();
        let mut outputs = Outputs::default();
        let (of_container, into_output) = nix::unistd::pipe().unwrap();
        let (reader, of_client) = nix::unistd::pipe().unwrap();
        outputs.add(&reactor, "c", Stream::Stdout, of_container).unwrap();
        outputs.attach(&reactor, "c", Stream::Stdout, of_client).unwrap();
        set_nonblocking(&into_output).unwrap();
        let mut container = std::fs::File::from(into_output);
        let sources = |reactor: &Reactor| -> HashSet<Source> {
            reactor.wait(|| {}, Some(Instant::now())).unwrap().into_iter().map(|ready| ready.source).collect()
        };
        // Until nothing more is read.
        loop {
            while container.write(&[b'x'; CHUNK]).is_ok() {}
            let ready = sources(&reactor);
            if !ready.contains(&Source::Output(1)) {
                break;
            }
            outputs.readable(&reactor, 1, &mut NoLogs);
        }
        let deadline = outputs.deadline().unwrap();
        outputs.drop_stalled(&reactor, deadline - Duration::from_millis(1));
        assert_eq!(outputs.clients.len(), 1);
        outputs.drop_stalled(&reactor, deadline);
        assert!(outputs.clients.is_empty() && outputs.deadline().is_none());
        assert!(sources(&reactor).contains(&Source::Output(1)), "the container's output is read on");
        drop(reader);
    }
}
