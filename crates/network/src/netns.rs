//! Network namespaces: made with a name in a directory, entered by a thread, deleted.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Error, Result};

/// A network namespace, kept alive as long as this is.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// Makes a namespace that lives until [`delete`], as a file that it is mounted on: `path`. Its directory
    /// is made when it does not exist, and becomes a shared mount of its own, as `ip netns` and CNI's `NewNS`
    /// make it: whichever of them came later would else mount the directory over itself, and what was
    /// mounted in it before could never be unmounted again. [`release`] takes that back.
    pub fn create(path: &Path) -> Result<Self> {
        let _lock = prepare(path.parent().unwrap_or(Path::new("/")))?;
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

/// Makes `directory` a shared mount of its own; the same again changes nothing. Nobody who asks for the lock
/// too, as `ip netns` does, mounts anything over it or takes it away while the lock is held.
fn prepare(directory: &Path) -> Result<Flock<File>> {
    fs::create_dir_all(directory).map_err(Error::file("make", directory))?;
    let lock = lock(directory)?;
    let share = || mount(None::<&str>, directory, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    let own = || {
        mount(Some(directory), directory, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .and_then(|()| share())
    };
    // EINVAL: it is no mount of its own.
    let shared = share().or_else(|errno| if errno == nix::Error::EINVAL { own() } else { Err(errno) });
    shared.map_err(|errno| Error::file("make a shared mount of", directory)(errno.into()))?;
    Ok(lock)
}

fn lock(directory: &Path) -> Result<Flock<File>> {
    let file = File::open(directory).map_err(Error::file("open", directory))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::file("lock", directory)(errno.into()))
}

/// Takes back that a directory of namespaces is a mount of its own, once it is empty; else, and when it is
/// none, changes nothing. For those who removed all that they made.
pub fn release(directory: &Path) -> Result<()> {
    if !directory.exists() {
        return Ok(());
    }
    let _lock = lock(directory)?;
    let is_empty = || Ok(fs::read_dir(directory)?.next().is_none());
    while is_empty().map_err(Error::file("read", directory))? {
        // The lock keeps the directory open, so it has to be detached.
        match umount2(directory, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            Err(nix::Error::EINVAL) => break,
            Err(errno) => return Err(Error::file("unmount", directory)(errno.into())),
        }
    }
    Ok(())
}

/// Deletes the namespace mounted on `path`, and the file. What still runs inside keeps the namespace itself
/// alive. Deleting what is not there succeeds.
pub fn delete(path: &Path) -> Result<()> {
    // Somebody may have mounted the directory over itself, and with it another mount on the file.
    loop {
        match umount2(path, MntFlags::MNT_DETACH) {
            Ok(()) => {}
            // EINVAL: a file that nothing is mounted on.
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => break,
            Err(errno) => {
                return Err(Error::File { operation: "unmount", path: PathBuf::from(path), source: errno.into() });
            }
        }
    }
    match fs::remove_file(path) {
        // A mount below one over the directory: not reachable, so the namespace stays until that one goes.
        Err(source) if source.raw_os_error() == Some(libc::EBUSY) => {
            let path = path.display();
            tracing::warn!(%path, "a mount over the directory hides the namespace's own; its file stays");
            Ok(())
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a test where its mounts are nobody else's.
    fn in_own_mounts(test: impl FnOnce(&Path) + Send) {
        thread::scope(|scope| {
            let body = || {
                unshare(CloneFlags::CLONE_NEWNS).unwrap();
                let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
                mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
                let place = tempfile::tempdir().unwrap();
                test(&place.path().join("netns"));
            };
            if let Err(panic) = scope.spawn(body).join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    /// What `ip netns add` does to the directory.
    fn as_ip_netns_does(directory: &Path) {
        let share = || mount(None::<&str>, directory, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
        if share().is_err() {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(directory), directory, None::<&str>, flags, None::<&str>).unwrap();
            share().unwrap();
        }
    }

    fn mounts_at(path: &Path) -> usize {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        table.lines().filter(|line| line.split(' ').nth(4) == path.to_str()).count()
    }

    #[test]
    fn namespaces_of_others_in_the_directory_keep_none_from_being_deleted() {
        in_own_mounts(|directory| {
            let (ours, later) = (directory.join("ours"), directory.join("later"));
            Namespace::create(&ours).unwrap();
            as_ip_netns_does(directory);
            assert_eq!((mounts_at(directory), mounts_at(&ours)), (1, 1));
            Namespace::create(&later).unwrap();
            delete(&ours).unwrap();
            assert!(!ours.exists() && mounts_at(&ours) == 0);
            // Not while another namespace is there.
            release(directory).unwrap();
            assert_eq!(mounts_at(directory), 1);
            delete(&later).unwrap();
            release(directory).unwrap();
            assert_eq!(mounts_at(directory), 0);
            release(directory).unwrap();
        });
    }

    #[test]
    fn stacked_mounts_are_deleted_all() {
        in_own_mounts(|directory| {
            let path = directory.join("ours");
            Namespace::create(&path).unwrap();
            mount(Some(&path), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            assert_eq!(mounts_at(&path), 2);
            delete(&path).unwrap();
            assert!(!path.exists() && mounts_at(&path) == 0);
            release(directory).unwrap();
        });
    }
}
