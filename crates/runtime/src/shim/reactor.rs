//! Waiting for many descriptors at once, in the one thread of a shim.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Instant,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Milliseconds without an event after which a shim goes to sleep.
const QUIET: u16 = 1000;

/// What a registered descriptor is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Listener,
    Signals,
    /// A connection of the server.
    Connection(u64),
    /// Reports of a process that is being started.
    Start(u64),
    /// An output of a container.
    Output(u64),
    /// An attached client's descriptor.
    Client(u64),
}

/// Readiness of one source.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) source: Source,
    pub(crate) writable: bool,
}

/// The set of descriptors.
pub(crate) struct Reactor {
    epoll: Epoll,
}

/// What to wait for; hang-ups are always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    ReadWrite,
    Write,
    /// Only hang-ups.
    None,
}

impl Interest {
    fn flags(self) -> EpollFlags {
        match self {
            Self::Read => EpollFlags::EPOLLIN,
            Self::ReadWrite => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Self::Write => EpollFlags::EPOLLOUT,
            Self::None => EpollFlags::empty(),
        }
    }
}

/// The kind is in the low bits of the number that the kernel keeps.
fn to_number(source: &Source) -> u64 {
    match source {
        Source::Listener => 0,
        Source::Signals => 1,
        Source::Connection(id) => id << 3 | 2,
        Source::Start(id) => id << 3 | 3,
        Source::Output(id) => id << 3 | 4,
        Source::Client(id) => id << 3 | 5,
    }
}

fn from_number(number: u64) -> Option<Source> {
    let id = number >> 3;
    Some(match number & 7 {
        0 => Source::Listener,
        1 => Source::Signals,
        2 => Source::Connection(id),
        3 => Source::Start(id),
        4 => Source::Output(id),
        5 => Source::Client(id),
        _ => return None,
    })
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    fn wait_for(&self, events: &mut [EpollEvent], timeout: impl Into<EpollTimeout>) -> io::Result<usize> {
        match self.epoll.wait(events, timeout) {
            Ok(count) => Ok(count),
            Err(nix::errno::Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Starts waiting for a descriptor. It ends when the descriptor is closed.
    pub(crate) fn add(&self, fd: &impl AsRawFd, source: &Source, interest: Interest) -> io::Result<()> {
        let event = EpollEvent::new(interest.flags(), to_number(source));
        Ok(self.epoll.add(borrow(fd), event)?)
    }

    /// Changes what is waited for.
    pub(crate) fn change(&self, fd: &impl AsRawFd, source: &Source, interest: Interest) -> io::Result<()> {
        let mut event = EpollEvent::new(interest.flags(), to_number(source));
        Ok(self.epoll.modify(borrow(fd), &mut event)?)
    }

    /// Sleeps until something is ready, or until `deadline` if there is one. `before_sleep` runs when nothing
    /// was for a while, once.
    pub(crate) fn wait(&self, before_sleep: fn(), deadline: Option<Instant>) -> io::Result<Vec<Ready>> {
        let mut events = [EpollEvent::empty(); 16];
        let left = || deadline.map(|at| at.saturating_duration_since(Instant::now()).as_millis().saturating_add(1));
        let bounded = |most: u16| left().map_or(most, |left| u16::try_from(left).map_or(most, |left| left.min(most)));
        let mut count = self.wait_for(&mut events, bounded(QUIET))?;
        if count == 0 && left().is_none_or(|left| left > 1) {
            before_sleep();
            let timeout = deadline.map_or(EpollTimeout::NONE, |_| EpollTimeout::from(bounded(u16::MAX)));
            count = self.wait_for(&mut events, timeout)?;
        }
        Ok(events[..count]
            .iter()
            .filter_map(|event| {
                Some(Ready {
                    source: from_number(event.data())?,
                    writable: event.events().contains(EpollFlags::EPOLLOUT),
                })
            })
            .collect())
    }
}

#[allow(unsafe_code, reason = "nix asks for a borrowed descriptor")]
fn borrow(fd: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor belongs to `fd`, which lives as long as the borrow.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_sources() {
        for source in [
            Source::Listener,
            Source::Signals,
            Source::Connection(0),
            Source::Start(1),
            Source::Output(7),
            Source::Client(1 << 60),
        ] {
            assert_eq!(from_number(to_number(&source)), Some(source));
        }
    }
}
