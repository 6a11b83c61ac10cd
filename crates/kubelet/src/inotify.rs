//! Waiting for files to change.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Watches files and directories.
pub(crate) struct Watcher {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl Watcher {
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let descriptor = inotify.as_fd().try_clone_to_owned()?;
        // SAFETY: AsyncFd owns the descriptor, and nothing here closes or replaces it while it
        // does.
        #[allow(unsafe_code, reason = "tokio has no safe way to wait for a descriptor")]
        let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) };
        Ok(Self { inotify, ready: ready? })
    }

    pub(crate) fn add(&self, path: &Path, flags: AddWatchFlags) -> io::Result<()> {
        self.inotify.add_watch(path, flags)?;
        Ok(())
    }

    /// Waits until something changed, and tells what kinds of changes there were.
    pub(crate) async fn changed(&self) -> io::Result<AddWatchFlags> {
        loop {
            let mut ready = self.ready.readable().await?;
            match self.inotify.read_events() {
                Ok(events) => {
                    return Ok(events.iter().fold(AddWatchFlags::empty(), |all, event| all | event.mask));
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
