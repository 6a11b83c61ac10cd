//! Network namespaces: made with a name in a directory, entered by a thread, deleted.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result};

/// A network namespace, kept alive as long as this is.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// Makes a namespace that lives until [`delete`], as a file that it is mounted on: `path`, whose
    /// directory must exist. Nothing is left behind when it fails.
    pub fn create(path: &Path) -> Result<Self> {
        File::options().write(true).create_new(true).open(path).map_err(Error::file("create", path))?;
        let made = in_new_namespace(|| {
            mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(io::Error::from)
        })
        .and_then(|result| result);
        if let Err(source) = made {
            // The file is ours and empty; the first error is the one worth telling.
            let _ = fs::remove_file(path);
            return Err(Error::File { operation: "mount a new network namespace on", path: path.into(), source });
        }
        Self::open(path)
    }

    /// Makes a namespace without a name: it ends when the last user of it does.
    pub fn anonymous() -> Result<Self> {
        in_new_namespace(current_fd)
            .and_then(|result| result)
            .map(|fd| Self { fd })
            .map_err(|source| Error::Socket { operation: "make a network namespace", source })
    }

    /// Opens the namespace at `path`, such as `/proc/1/ns/net` or a mounted name.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::file("open the network namespace", path))?;
        Ok(Self { fd: file.into() })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        current_fd().map(|fd| Self { fd }).map_err(Error::file("open", "/proc/thread-self/ns/net"))
    }

    /// Runs `work` on a thread of its own inside the namespace and returns what it returns.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        run_in(self.fd.as_fd(), work)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Namespace {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

/// Runs `work` on a thread of its own inside the namespace `fd`. The calling thread stays where it is.
///
/// # Panics
/// When `work` does.
pub fn run_in<T: Send>(fd: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(fd, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result.map_err(|errno: nix::Error| Error::Socket {
                operation: "enter a network namespace",
                source: errno.into(),
            }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Deletes the namespace mounted on `path`, and the file. What still runs inside keeps the namespace itself
/// alive. Deleting what is not there succeeds.
pub fn delete(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        // EINVAL: a file that nothing is mounted on.
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(errno) => {
            return Err(Error::File { operation: "unmount", path: PathBuf::from(path), source: errno.into() });
        }
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { operation: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// Runs `work` on a thread of its own in a new namespace, which ends with the thread unless `work` keeps it.
fn in_new_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn current_fd() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(Into::into)
}
