//! A container's root filesystem as a mount: layers below, the container's changes above.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx},
    mount::{MountFlags, UnmountFlags, mount, mount_bind, mount_remount, unmount},
};
use serde::{Deserialize, Serialize};

/// The kernel takes a page of mount options, with a terminating zero.
const MAX_OPTIONS: usize = 4095;

/// Everything that mounting a root filesystem takes. It holds no resource, so it can be written
/// down and given to another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootfsMount {
    /// The directory that all of `lower` are in.
    pub base: PathBuf,
    /// The image's layers, the uppermost first. Never empty.
    pub lower: Vec<PathBuf>,
    /// Where the container's changes go; without it the mount is read-only.
    pub upper: Option<PathBuf>,
    /// Overlayfs's own directory, beside `upper`.
    pub work: Option<PathBuf>,
    /// Where it is mounted.
    pub target: PathBuf,
}

impl RootfsMount {
    /// Mounts it in the mount namespace of the calling thread. Mounting twice is an error of the
    /// caller's that is not noticed: see [`is_mount`].
    ///
    /// # Errors
    ///
    /// When a directory is missing, the kernel has no overlayfs, or there are more layers than
    /// mount options have room for.
    pub fn mount(&self) -> io::Result<()> {
        if self.upper.is_none()
            && let [only] = self.lower.as_slice()
        {
            mount_bind(only, &self.target)?;
            let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV;
            return match mount_remount(&self.target, flags, "") {
                Ok(()) => Ok(()),
                Err(error) => {
                    unmount(&self.target, UnmountFlags::DETACH)?;
                    Err(error.into())
                }
            };
        }
        let options = self.options(|path| path)?;
        if options.as_bytes().len() <= MAX_OPTIONS {
            return Ok(overlay(&self.target, self.flags(), &options)?);
        }
        self.mount_relative()
    }

    /// Mounts from inside the layers' directory, so that the options need only their short names.
    /// A thread of its own goes there: the working directory belongs to all threads otherwise.
    fn mount_relative(&self) -> io::Result<()> {
        let options = self.options(|path| path.strip_prefix(&self.base).unwrap_or(path))?;
        if options.as_bytes().len() > MAX_OPTIONS {
            let message = format!("{} layers are more than can be mounted", self.lower.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        std::thread::scope(|scope| {
            let mounting = scope.spawn(|| -> io::Result<()> {
                nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS)?;
                rustix::process::fchdir(File::open(&self.base)?)?;
                Ok(overlay(&self.target, self.flags(), &options)?)
            });
            mounting.join().unwrap_or_else(|_| Err(io::Error::other("mounting panicked")))
        })
    }

    fn flags(&self) -> MountFlags {
        if self.upper.is_none() { MountFlags::RDONLY } else { MountFlags::empty() }
    }

    fn options<'a>(&'a self, shorten: impl Fn(&'a Path) -> &'a Path) -> io::Result<CString> {
        let mut options = b"lowerdir=".to_vec();
        for (at, layer) in self.lower.iter().enumerate() {
            if at > 0 {
                options.push(b':');
            }
            escape(&mut options, shorten(layer).as_os_str());
        }
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            options.extend(b",upperdir=");
            escape(&mut options, upper.as_os_str());
            options.extend(b",workdir=");
            escape(&mut options, work.as_os_str());
        }
        // Without an index the same layers may be below any number of mounts.
        if Path::new("/sys/module/overlay/parameters/index").exists() {
            options.extend(b",index=off");
        }
        Ok(CString::new(options)?)
    }

    /// Unmounts it, also while it is in use; it need not be mounted.
    pub fn unmount(&self) -> io::Result<()> {
        while is_mount(&self.target)? {
            unmount(&self.target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        }
        Ok(())
    }
}

/// Whether something is mounted at `path`; false when there is no such path.
pub fn is_mount(path: &Path) -> io::Result<bool> {
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn overlay(target: &Path, flags: MountFlags, options: &CString) -> rustix::io::Result<()> {
    mount("overlay", target, "overlay", flags, Some(options.as_c_str()))
}

/// Colons separate layers, commas separate options, and either may be in a directory's name.
fn escape(options: &mut Vec<u8>, path: &OsStr) {
    for byte in path.as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            options.push(b'\\');
        }
        options.push(*byte);
    }
}
