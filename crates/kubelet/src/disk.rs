//! How much of the disk a directory takes.
//!
//! The directory is a pod's, which may make it as wide and as deep as it likes and change it meanwhile. So
//! each step is taken from the directory before, never along a path; only one directory is open at a time.

use std::{
    collections::HashSet,
    ffi::{CStr, CString},
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::PathBuf,
};

use nix::{
    dir::Dir,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};

/// A directory on the way down: what it is, and which of its directories are still to be looked at.
struct Level {
    device: u64,
    inode: u64,
    left: Vec<CString>,
}

/// Bytes of the files below directories, each on its own file system only; those that are not there count
/// nothing. Walks on a thread for blocking work.
pub(crate) async fn usage(dirs: Vec<PathBuf>) -> u64 {
    let walk = move || dirs.iter().map(|dir| of(dir)).sum();
    match tokio::task::spawn_blocking(walk).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(%error, "the use of the disk was not measured");
            0
        }
    }
}

fn of(dir: &std::path::Path) -> u64 {
    let mut walk = Walk::default();
    match nix::fcntl::open(dir, FLAGS, Mode::empty()) {
        // SAFETY: the kernel gave us this new descriptor, which nothing else owns.
        #[allow(unsafe_code, reason = "open of this nix gives a number")]
        Ok(fd) => match walk.all(unsafe { OwnedFd::from_raw_fd(fd) }) {
            Ok(()) => {}
            Err(error) => tracing::debug!(dir = %dir.display(), %error, "a directory changed while it was measured"),
        },
        Err(nix::errno::Errno::ENOENT) => {}
        Err(error) => tracing::debug!(dir = %dir.display(), %error, "a directory could not be measured"),
    }
    walk.bytes
}

const FLAGS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

#[derive(Default)]
struct Walk {
    bytes: u64,
    /// Files with several names, which count once.
    seen: HashSet<u64>,
}

impl Walk {
    fn all(&mut self, root: OwnedFd) -> io::Result<()> {
        let mut at = root;
        let mut levels = vec![self.look(&at, fstat(at.as_raw_fd())?)?];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.left.pop() {
                let device = level.device;
                // Gone meanwhile, or no directory any more: nothing to count.
                let Ok(next) = open(&at, &name) else { continue };
                let stat = fstat(next.as_raw_fd())?;
                if stat.st_dev == device {
                    levels.push(self.look(&next, stat)?);
                    at = next;
                }
            } else {
                levels.pop();
                let Some(parent) = levels.last() else { break };
                at = open(&at, c"..")?;
                let stat = fstat(at.as_raw_fd())?;
                if (stat.st_dev, stat.st_ino) != (parent.device, parent.inode) {
                    return Err(io::Error::other("it was moved"));
                }
            }
        }
        Ok(())
    }

    /// Counts what is in a directory.
    fn look(&mut self, dir: &OwnedFd, stat: FileStat) -> io::Result<Level> {
        let mut level = Level { device: stat.st_dev, inode: stat.st_ino, left: Vec::new() };
        for entry in Dir::openat(Some(dir.as_raw_fd()), ".", FLAGS, Mode::empty())?.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(stat) = fstatat(Some(dir.as_raw_fd()), name, AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != level.device {
                continue;
            }
            if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
                level.left.push(name.to_owned());
            } else if stat.st_nlink > 1 && !self.seen.insert(stat.st_ino) {
                continue;
            }
            self.bytes += u64::try_from(stat.st_blocks).unwrap_or_default() * 512;
        }
        Ok(level)
    }
}

fn open(at: &OwnedFd, name: &CStr) -> io::Result<OwnedFd> {
    let fd = openat(Some(at.as_raw_fd()), name, FLAGS, Mode::empty())?;
    // SAFETY: the kernel gave us this new descriptor, which nothing else owns.
    #[allow(unsafe_code, reason = "openat of this nix gives a number")]
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn everything_counts_once_however_deep_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let empty = usage(vec![dir.path().to_owned()]).await;
        fs::write(dir.path().join("a"), vec![1; 64 << 10]).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("root")).unwrap();
        let twice = vec![dir.path().to_owned(), dir.path().join("not there")];
        let flat = usage(twice).await;
        assert!((64 << 10..128 << 10).contains(&(flat - empty)), "{flat}");
        // Far deeper than any path may be long.
        let mut at: OwnedFd = fs::File::open(dir.path()).unwrap().into();
        for _ in 0..1500 {
            nix::sys::stat::mkdirat(Some(at.as_raw_fd()), "deeper", Mode::S_IRWXU).unwrap();
            at = open(&at, c"deeper").unwrap();
        }
        let flags = OFlag::O_CREAT | OFlag::O_WRONLY;
        let file = openat(Some(at.as_raw_fd()), "f", flags, Mode::S_IRWXU).unwrap();
        // SAFETY: a new descriptor that nothing else owns.
        #[allow(unsafe_code, reason = "openat of this nix gives a number")]
        let mut file = fs::File::from(unsafe { OwnedFd::from_raw_fd(file) });
        io::Write::write_all(&mut file, &vec![1; 1 << 20]).unwrap();
        assert!(usage(vec![dir.path().to_owned()]).await - flat >= 1 << 20);
    }
}
