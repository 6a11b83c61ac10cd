//! Mounts of a file or directory inside a volume.
//!
//! The volume's content belongs to the pod, which may replace parts of the path by links to the
//! node's files at any moment. So the path is opened once, by the kernel, with the promise that
//! nothing leads out of the volume, and what was opened is mounted.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Component, Path, PathBuf},
};

use super::mount;

/// Opens `path` below `root`; links are followed while they stay below.
fn open_beneath(root: &OwnedFd, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: open_how is plain data for which zeroes are valid.
    #[allow(unsafe_code, reason = "openat2 has no wrapper")]
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: the descriptor, the string and the structure live during the call, and its size is
    // told.
    #[allow(unsafe_code, reason = "openat2 has no wrapper")]
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<libc::open_how>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave us this new descriptor, which nothing else owns.
    #[allow(unsafe_code, reason = "openat2 has no wrapper")]
    let fd = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) };
    Ok(fd)
}

fn open_root(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path)?;
    Ok(file.into())
}

/// Makes the missing directories of `path`, one after the other, each below the last.
fn make_dirs(root: &OwnedFd, path: &Path, mode: u32) -> io::Result<()> {
    let mut done = PathBuf::new();
    let mut parent = open_beneath(root, Path::new("."), libc::O_PATH | libc::O_DIRECTORY)?;
    for component in path.components() {
        let Component::Normal(name) = component else { continue };
        done.push(name);
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        match open_beneath(root, &done, flags) {
            Ok(next) => parent = next,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mode = nix::sys::stat::Mode::from_bits_truncate(mode);
                nix::sys::stat::mkdirat(Some(parent.as_raw_fd()), name, mode)?;
                let next = open_beneath(root, &done, flags)?;
                // Whatever the process's mask.
                nix::sys::stat::fchmodat(
                    Some(parent.as_raw_fd()),
                    name,
                    mode,
                    nix::sys::stat::FchmodatFlags::FollowSymlink,
                )?;
                parent = next;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Mounts `sub` of `volume` at `target`, making it a directory if there is nothing.
///
/// # Errors
/// When the path leads out of the volume, or the kernel refuses.
pub(crate) fn prepare(volume: &Path, sub: &str, target: &Path) -> io::Result<()> {
    let sub_path = Path::new(sub);
    let root = open_root(volume)?;
    let source = match open_beneath(&root, sub_path, libc::O_PATH) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            use std::os::unix::fs::MetadataExt as _;
            make_dirs(&root, sub_path, fs::metadata(volume)?.mode() & 0o7777)?;
            open_beneath(&root, sub_path, libc::O_PATH)?
        }
        result => result?,
    };
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    if mount::is_mounted(target)? {
        // An older container's; the file it shows may have been replaced since.
        mount::unmount(target)?;
    }
    if fs::metadata(&by_descriptor)?.is_dir() {
        match fs::create_dir(target) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    } else {
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(target)?;
    }
    mount::bind(&by_descriptor, target)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Room(tempfile::TempDir);

    impl Room {
        fn new() -> Option<Self> {
            if !nix::unistd::geteuid().is_root() {
                return None;
            }
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir(dir.path().join("volume")).unwrap();
            fs::create_dir(dir.path().join("outside")).unwrap();
            fs::write(dir.path().join("outside/secret"), "secret").unwrap();
            Some(Self(dir))
        }
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(name)
        }
        fn prepare(&self, sub: &str) -> io::Result<PathBuf> {
            let target = self.path("targets").join(sub.replace('/', "_"));
            prepare(&self.path("volume"), sub, &target).map(|()| target)
        }
    }

    impl Drop for Room {
        fn drop(&mut self) {
            mount::unmount_below(&self.path("targets")).unwrap();
        }
    }

    #[test]
    fn files_directories_and_links_inside_are_mounted() {
        let Some(room) = Room::new() else { return };
        let volume = room.path("volume");
        fs::create_dir(volume.join("..1")).unwrap();
        fs::write(volume.join("..1/key"), "value").unwrap();
        symlink("..1", volume.join("..data")).unwrap();
        symlink("..data/key", volume.join("key")).unwrap();
        assert_eq!(fs::read_to_string(room.prepare("key").unwrap()).unwrap(), "value");
        let made = room.prepare("new/deep").unwrap();
        fs::write(made.join("f"), "x").unwrap();
        assert_eq!(fs::read_to_string(volume.join("new/deep/f")).unwrap(), "x");
        // Again, as for a container that restarts.
        assert_eq!(room.prepare("key").unwrap(), room.path("targets/key"));
    }

    #[test]
    fn nothing_leads_out_of_the_volume() {
        let Some(room) = Room::new() else { return };
        let volume = room.path("volume");
        symlink(room.path("outside"), volume.join("absolute")).unwrap();
        symlink("../outside", volume.join("relative")).unwrap();
        symlink("/proc/self/root", volume.join("magic")).unwrap();
        symlink("../outside/new", volume.join("dangling")).unwrap();
        for sub in [
            "absolute",
            "absolute/secret",
            "relative/secret",
            "../outside",
            "magic/etc",
            "dangling",
            "dangling/x",
            "absolute/made",
        ] {
            let error = room.prepare(sub).expect_err(sub);
            assert_ne!(error.kind(), io::ErrorKind::NotFound, "{sub}: {error}");
        }
        assert!(!room.path("outside/made").exists() && !room.path("outside/new").exists());
    }
}
