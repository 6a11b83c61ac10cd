//! Terminals of executed processes, opened in the container from its own `/dev/pts`.

#![allow(unsafe_code, reason = "terminal ioctls have no safe wrapper")]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::OpenOptionsExt,
    },
};

use nix::errno::Errno;

use super::syscalls;

/// Both sides of a new terminal.
pub(crate) struct Terminal {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
const PTMX: u64 = libc::makedev(5, 2);

/// Opens a terminal, making sure that it is one: the container could have put anything in that place.
pub(crate) fn open() -> io::Result<Terminal> {
    let master = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC)
        .open("/dev/pts/ptmx")
        .or_else(|_| {
            File::options().read(true).write(true).custom_flags(libc::O_NOCTTY | libc::O_CLOEXEC).open("/dev/ptmx")
        })?;
    let master = OwnedFd::from(master);
    let stat = nix::sys::stat::fstat(master.as_raw_fd())?;
    let filesystem = nix::sys::statfs::fstatfs(&master)?.filesystem_type().0;
    let genuine =
        stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == PTMX && filesystem as i64 == DEVPTS_SUPER_MAGIC;
    if !genuine {
        return Err(io::Error::other("/dev/pts/ptmx of the container is not a terminal multiplexer"));
    }
    let unlocked: libc::c_int = 0;
    // SAFETY: takes a pointer to an int that outlives the call.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) })?;
    // By the master and not by a path, so nothing can be put in between.
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes numbers only and returns a descriptor.
    let slave = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    Ok(Terminal { master, slave: syscalls::own(slave) })
}

/// Makes the slave side the controlling terminal and stdio of this session's leader.
pub(crate) fn make_stdio(slave: OwnedFd) -> io::Result<()> {
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    for fd in 0..3 {
        nix::unistd::dup2(slave.as_raw_fd(), fd)?;
    }
    Ok(())
}

/// Sets the size of a terminal by its master side.
pub(crate) fn resize(master: RawFd, width: u16, height: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: takes a pointer to a winsize that outlives the call.
    Errno::result(unsafe { libc::ioctl(master, libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}
