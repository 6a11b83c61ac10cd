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

/// Gives what was opened a mode, whatever the process's mask, and whatever its name leads to by now.
fn set_mode(fd: &OwnedFd, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    // A descriptor that was opened as a path has no fchmod.
    fs::set_permissions(by_descriptor(fd), fs::Permissions::from_mode(mode))
}

fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
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
                let bits = nix::sys::stat::Mode::from_bits_truncate(mode);
                nix::sys::stat::mkdirat(Some(parent.as_raw_fd()), name, bits)?;
                // Who has the volume may have put a link in its place by now, which is not followed.
                let next = open_beneath(&parent, Path::new(name), flags | libc::O_NOFOLLOW)?;
                set_mode(&next, mode)?;
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
    let by_descriptor = by_descriptor(&source);
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

    /// While another container swaps what is made for links to a file of the node.
    #[test]
    fn no_file_of_the_node_gets_another_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let Some(room) = Room::new() else { return };
        let (volume, secret) = (room.path("volume"), room.path("outside/secret"));
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let root = open_root(&volume).unwrap();
        fs::create_dir(volume.join("made")).unwrap();
        let made = open_beneath(&root, Path::new("made"), libc::O_PATH | libc::O_DIRECTORY).unwrap();
        fs::rename(volume.join("made"), volume.join("moved")).unwrap();
        symlink(&secret, volume.join("made")).unwrap();
        set_mode(&made, 0o777).unwrap();
        assert_eq!((mode(&secret), mode(&volume.join("moved"))), (0o600, 0o777));
        fs::remove_file(volume.join("made")).unwrap();

        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    if fs::remove_dir(volume.join("raced")).is_ok() {
                        let _ = symlink(&secret, volume.join("raced"));
                        let _ = fs::remove_file(volume.join("raced"));
                    }
                }
            });
            for _ in 0..500 {
                // Either of the two may be faster.
                let _ = make_dirs(&root, Path::new("raced"), 0o777);
            }
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(mode(&secret), 0o600);
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
