//! The `createContainer` hook that mounts at and below `/dev` after libcontainer has filled it.
//!
//! It runs in the container's mount namespace before the root changes, as a copy of this executable.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{fcntl::OFlag, sys::stat::Mode};

use super::{image_paths, syscalls};

/// `argv[0]` of the hook.
pub(crate) const NAME: &str = "pilothouse-mount-hook";

/// Mounts each pair of the arguments after the root file system's path: staged source and destination.
///
/// # Errors
/// Names the destination that failed.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let rootfs = args.next().map(PathBuf::from).unwrap_or_default();
    let root = syscalls::open_path(&rootfs)?;
    while let (Some(source), Some(destination)) = (args.next(), args.next()) {
        let (source, destination) = (PathBuf::from(source), PathBuf::from(destination));
        mount(&root, &source, &destination)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", destination.display())))?;
    }
    Ok(())
}

fn mount(root: &OwnedFd, source: &Path, destination: &Path) -> io::Result<()> {
    let tree = syscalls::open_tree(source, true)?;
    let inside = destination.strip_prefix("/").unwrap_or(destination);
    let open = || syscalls::open_in_root(root.as_fd(), inside, libc::O_PATH);
    let target = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_target(root, inside, syscalls::is_dir(tree.as_fd())?)?;
            open()?
        }
        result => result?,
    };
    syscalls::move_mount_onto(tree.as_fd(), target.as_fd())
}

/// Such as `/dev/termination-log`, which no machine has by itself.
fn make_target(root: &OwnedFd, path: &Path, dir: bool) -> io::Result<()> {
    if dir {
        return image_paths::make_dirs(root, path);
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    image_paths::make_dirs(root, parent)?;
    let parent = syscalls::open_in_root(root.as_fd(), parent, libc::O_PATH | libc::O_DIRECTORY)?;
    let name = Path::new(path.file_name().unwrap_or_default());
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(0o644);
    let fd = nix::fcntl::openat(Some(parent.as_raw_fd()), name, flags, mode)?;
    drop(syscalls::own(fd));
    Ok(())
}
