//! Blocking netlink sockets.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{Attributes, Batch, Message, NLM_F_DUMP_INTR, messages, read_string};
use crate::{Error, Result};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// How often an interrupted dump is asked for again before it is taken as it is.
const DUMP_ATTEMPTS: usize = 8;

/// Which part of the kernel a socket talks to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// nftables and connection tracking.
    Netfilter,
}

/// A netlink socket of the network namespace in which it was opened, whatever thread uses it later.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    send_buffer: usize,
}

/// An error message of the kernel, about the request with this sequence number. `errno` 0 is success.
struct Acknowledgement {
    sequence: u32,
    errno: i32,
    detail: Option<String>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(protocol: Protocol) -> Result<Self> {
        let protocol = match protocol {
            Protocol::Route => libc::NETLINK_ROUTE,
            Protocol::Netfilter => libc::NETLINK_NETFILTER,
        };
        let fd = open_fd(protocol).map_err(|source| Error::Socket { operation: "open a netlink socket", source })?;
        let socket = Self { fd, buffer: vec![0; 64 << 10], send_buffer: 0 };
        // Errors carry the kernel's explanation, and not a copy of the request.
        socket.option(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
        socket.option(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        Ok(socket)
    }

    /// Sends requests that each ask for an acknowledgement and returns the answer to each, in order. The
    /// kernel carries them out one by one; a refused one does not stop those after it.
    pub fn request_each(&mut self, batch: &Batch) -> Result<Vec<Result<()>>> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.send(batch)?;
        let mut answers: Vec<Option<Result<()>>> = batch.operations.iter().map(|_| None).collect();
        let mut missing = answers.len();
        while missing > 0 {
            let length = self.receive(0)?;
            for message in messages(&self.buffer[..length]) {
                let Some(answer) = acknowledgement(&message) else { continue };
                if let Some(slot @ None) = answers.get_mut(answer.sequence as usize) {
                    *slot = Some(answer.into_result(batch));
                    missing -= 1;
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// As [`Socket::request_each`], but the first refusal is returned as the error. Requests after it may
    /// have been carried out.
    pub fn request(&mut self, batch: &Batch) -> Result<()> {
        self.request_each(batch)?.into_iter().collect()
    }

    /// Sends one request for a dump and returns what `parse` makes of the type and body of each answer. A
    /// dump that the kernel says was interrupted by a change is asked for again.
    pub fn dump<T>(&mut self, request: &Batch, mut parse: impl FnMut(u16, &[u8]) -> Option<T>) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            if self.dump_once(request, &mut found, &mut parse)? {
                break;
            }
        }
        Ok(found)
    }

    fn dump_once<T>(
        &mut self,
        request: &Batch,
        found: &mut Vec<T>,
        parse: &mut impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> Result<bool> {
        self.send(request)?;
        let mut consistent = true;
        loop {
            let length = self.receive(0)?;
            for message in messages(&self.buffer[..length]) {
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(consistent),
                    NLMSG_ERROR => {
                        let answer = acknowledgement(&message).ok_or(Error::Malformed("a dump"))?;
                        answer.into_result(request)?;
                    }
                    kind => found.extend(parse(kind, message.body)),
                }
            }
        }
    }

    /// Sends one request for one object; `None` when the kernel has no such object.
    pub fn get<T>(&mut self, request: &Batch, parse: impl Fn(&[u8]) -> Option<T>) -> Result<Option<T>> {
        self.send(request)?;
        let length = self.receive(0)?;
        let message = messages(&self.buffer[..length]).next().ok_or(Error::Malformed("a request"))?;
        match acknowledgement(&message) {
            Some(answer) => match answer.into_result(request) {
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
                Ok(()) => Ok(None),
            },
            None => parse(message.body).map(Some).ok_or(Error::Malformed("a request")),
        }
    }

    /// Sends a transaction that the kernel carries out as a whole or not at all. The kernel handles it
    /// before `send` returns and leaves its complaints, if any, in the socket.
    pub(crate) fn transact(&mut self, batch: &Batch) -> Result<()> {
        self.send(batch)?;
        let mut first: Option<Acknowledgement> = None;
        loop {
            let length = match self.receive(libc::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Error::Socket { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            for message in messages(&self.buffer[..length]) {
                let Some(answer) = acknowledgement(&message).filter(|a| a.errno != 0) else { continue };
                if first.as_ref().is_none_or(|f| answer.sequence < f.sequence) {
                    first = Some(answer);
                }
            }
        }
        first.map_or(Ok(()), |answer| answer.into_result(batch))
    }

    fn send(&mut self, batch: &Batch) -> Result<()> {
        let bytes = batch.bytes.as_slice();
        self.make_room(bytes.len())?;
        loop {
            match send(&self.fd, bytes) {
                Ok(_) => return Ok(()),
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Socket { operation: "send to a netlink socket", source }),
            }
        }
    }

    /// A transaction must fit in the send buffer as a whole. Its answers must fit in the receive buffer.
    fn make_room(&mut self, size: usize) -> Result<()> {
        if size <= self.send_buffer.max(128 << 10) {
            return Ok(());
        }
        let size = size + (64 << 10);
        self.option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, i32::try_from(size).unwrap_or(i32::MAX))?;
        self.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20)?;
        self.send_buffer = size;
        Ok(())
    }

    fn receive(&mut self, flags: i32) -> Result<usize> {
        loop {
            // MSG_TRUNC makes the kernel tell the whole length, MSG_PEEK leaves the message for a second read.
            match receive(&self.fd, &mut self.buffer, flags | libc::MSG_PEEK | libc::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => {
                    self.buffer.resize(length.next_power_of_two(), 0);
                    continue;
                }
                Ok(_) => {}
                Err(source) if source.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Socket { operation: "read from a netlink socket", source }),
            }
            match receive(&self.fd, &mut self.buffer, flags) {
                Ok(length) => return Ok(length),
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Socket { operation: "read from a netlink socket", source }),
            }
        }
    }

    fn option(&self, level: i32, name: i32, value: i32) -> Result<()> {
        set_option(&self.fd, level, name, value)
            .map_err(|source| Error::Socket { operation: "set an option of a netlink socket", source })
    }
}

impl Acknowledgement {
    fn into_result(self, batch: &Batch) -> Result<()> {
        if self.errno == 0 {
            return Ok(());
        }
        let operation = batch.operation(self.sequence).to_owned();
        Err(Error::Refused { operation, errno: self.errno, detail: self.detail })
    }
}

fn acknowledgement(message: &Message<'_>) -> Option<Acknowledgement> {
    if message.kind != NLMSG_ERROR {
        return None;
    }
    let errno = i32::from_ne_bytes(message.body.get(..4)?.try_into().ok()?).checked_neg()?;
    let detail = (message.flags & NLM_F_ACK_TLVS != 0).then(|| {
        let request = message.body.get(4..)?;
        let copied = if message.flags & NLM_F_CAPPED != 0 {
            super::HEADER
        } else {
            u32::from_ne_bytes(request.get(..4)?.try_into().ok()?) as usize
        };
        Attributes::new(request.get(copied.next_multiple_of(4)..)?).get(NLMSGERR_ATTR_MSG).map(read_string)
    });
    Some(Acknowledgement { sequence: message.sequence, errno, detail: detail.flatten() })
}

#[allow(unsafe_code, reason = "netlink sockets have no safe wrapper in std")]
fn open_fd(protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: socket takes no pointers; a descriptor that it returns is owned by nobody else.
    unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

#[allow(unsafe_code, reason = "netlink sockets have no safe wrapper in std")]
fn send(fd: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are of one live slice, which the kernel only reads. Without an
    // address, an unconnected netlink socket sends to the kernel.
    let sent = unsafe { libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[allow(unsafe_code, reason = "netlink sockets have no safe wrapper in std")]
fn receive(fd: &OwnedFd, buffer: &mut [u8], flags: i32) -> io::Result<usize> {
    // SAFETY: the pointer and the length are of one live, exclusively borrowed slice.
    let length = unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

#[allow(unsafe_code, reason = "netlink sockets have no safe wrapper in std")]
fn set_option(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let value: libc::c_int = value;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to a live c_int and the size is that of a c_int.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
