//! A connection of the server, as the shim sees it.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
};

use super::{
    protocol::{Decoder, Event, Frame, FromShim, Request, Response, encode},
    syscalls,
};

/// Most descriptors that one message brings.
pub(crate) const MAX_FDS: usize = 3;

/// One connection; nothing on it blocks.
pub(crate) struct Connection {
    pub(crate) stream: UnixStream,
    decoder: Decoder,
    out: VecDeque<Outgoing>,
    /// Wants to hear of containers that end.
    pub(crate) subscribed: bool,
}

struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// What reading yielded.
pub(crate) enum Read {
    Requests(Vec<(Frame<Request>, Vec<OwnedFd>)>),
    /// The peer is gone, or talks rubbish.
    Closed,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, decoder: Decoder::default(), out: VecDeque::new(), subscribed: false })
    }

    /// Takes in what has arrived.
    pub(crate) fn read(&mut self) -> Read {
        let mut requests = Vec::new();
        loop {
            match receive(&self.stream) {
                Ok((bytes, _)) if bytes.is_empty() => return Read::Closed,
                Ok((bytes, fds)) => self.decoder.feed(&bytes, fds),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Read::Closed,
            }
            loop {
                match self.decoder.next() {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(_) => return Read::Closed,
                }
            }
        }
        Read::Requests(requests)
    }

    /// Queues a response; [`Connection::flush`] sends it.
    pub(crate) fn respond(&mut self, id: u64, response: Response, fds: Vec<OwnedFd>) {
        self.queue(id, &FromShim::Response(response), fds);
    }

    /// Queues an event.
    pub(crate) fn tell(&mut self, event: Event) {
        self.queue(0, &FromShim::Event(event), Vec::new());
    }

    fn queue(&mut self, id: u64, message: &FromShim, fds: Vec<OwnedFd>) {
        self.out.push_back(Outgoing { bytes: encode(id, fds.len(), message), sent: 0, fds });
    }

    /// Sends what the socket takes; whether something is left.
    ///
    /// # Errors
    /// When the peer is gone.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while let Some(next) = self.out.front_mut() {
            match send(&self.stream, &next.bytes[next.sent..], &next.fds) {
                Ok(sent) => {
                    next.sent += sent;
                    next.fds.clear();
                    if next.sent == next.bytes.len() {
                        self.out.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        self.out.shrink_to_fit();
        Ok(false)
    }
}

/// Receives bytes and descriptors; no bytes at the end of the stream.
pub(crate) fn receive(stream: &impl AsRawFd) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut buffer = [0; 4096];
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let message = loop {
        match recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            result => break result?,
        }
    };
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            fds.extend(received.into_iter().map(syscalls::own));
        }
    }
    let length = message.bytes;
    Ok((buffer[..length].to_vec(), fds))
}

/// Sends bytes, and descriptors beside the first of them; how many bytes went.
pub(crate) fn send(stream: &impl AsRawFd, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    loop {
        match sendmsg::<UnixAddr>(stream.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}
