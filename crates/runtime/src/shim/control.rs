//! What a process that is being started tells its shim.
//!
//! Each start has a socket pair of its own. The child's end closes on exec, so its end of file means that the
//! process runs, unless a [`Report::Failed`] came before.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
        socketpair,
    },
};
use serde::{Deserialize, Serialize};

/// One message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The process's number, as the shim sees it.
    Pid(i32),
    /// The master side of its terminal comes along.
    Terminal,
    /// Something went wrong on the way; says why a later failure happened.
    Log(String),
    /// There will be no process.
    Failed(String),
}

/// Longest report; more is cut.
const MAX: usize = 16 << 10;

/// The child's end.
#[derive(Debug)]
pub(crate) struct Reporter(OwnedFd);

/// The shim's end.
#[derive(Debug)]
pub(crate) struct Reports(OwnedFd);

/// A new pair; the shim's end doesn't block.
pub(crate) fn pair() -> io::Result<(Reports, Reporter)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    nix::fcntl::fcntl(ours.as_raw_fd(), nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    Ok((Reports(ours), Reporter(theirs)))
}

impl Reporter {
    /// Sends a report. When the shim is gone there is nobody left to tell.
    pub(crate) fn send(&self, report: &Report, fd: Option<RawFd>) {
        let mut bytes = serde_json::to_vec(report).unwrap_or_default();
        if bytes.len() > MAX {
            bytes = serde_json::to_vec(&Report::Failed("error too long to report".into())).unwrap_or_default();
        }
        let fds: Vec<RawFd> = fd.into_iter().collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        let _ = sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None);
    }
}

impl From<OwnedFd> for Reporter {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// What [`Reports::next`] found.
pub(crate) enum Next {
    Report(Report, Option<OwnedFd>),
    /// Nothing yet.
    Wait,
    /// The child has executed or is gone.
    End,
}

impl Reports {
    /// The next report, without blocking.
    pub(crate) fn next(&self) -> Next {
        let mut buffer = vec![0; MAX];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let received =
            recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC);
        let (length, fd) = match received {
            Ok(message) => {
                let mut fd = None;
                for control in message.cmsgs().into_iter().flatten() {
                    if let ControlMessageOwned::ScmRights(fds) = control {
                        fd = fds.into_iter().map(super::syscalls::own).next();
                    }
                }
                (message.bytes, fd)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => return Next::Wait,
            Err(_) => return Next::End,
        };
        if length == 0 {
            return Next::End;
        }
        match serde_json::from_slice(&buffer[..length]) {
            Ok(report) => Next::Report(report, fd),
            Err(error) => Next::Report(Report::Failed(error.to_string()), None),
        }
    }
}

impl AsRawFd for Reports {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsRawFd for Reporter {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Makes a blocking pair into pipe ends; used for stdio.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

#[allow(unsafe_code, reason = "duplicates a descriptor that the caller holds")]
/// A second descriptor for the same file, closed on exec.
pub(crate) fn duplicate(fd: &impl AsRawFd) -> io::Result<OwnedFd> {
    let new = nix::fcntl::fcntl(fd.as_raw_fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: the kernel has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}
