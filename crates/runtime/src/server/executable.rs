//! The sealed copy of the executable that shims run from.
//!
//! A container's process is for a moment a copy of the shim, so its `/proc/self/exe` is the shim's executable.
//! If it could be opened for writing, a container would own the machine (CVE-2019-5736). So shims run from a
//! copy, through a mount that is read-only, detached from the tree, and vanishes with its last user. The
//! copy's directory is named by its hash: an upgrade makes another one and leaves running shims alone.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};

use crate::shim::syscalls::{self, MountAttributes};

/// A copy that is ready to run.
#[derive(Debug)]
pub(crate) struct SealedExecutable {
    mount: OwnedFd,
    /// Name of its directory.
    pub(crate) hash: String,
    /// The copy itself.
    pub(crate) file: PathBuf,
}

/// Name of the file in the copy's directory.
const FILE: &str = "pilothouse";

const PAGE: usize = 4096;

/// Remembers which file has which hash, so that a start need not read the whole executable.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    hash: String,
}

impl SealedExecutable {
    /// Copies `source` below `bin` unless that was done already, and opens the copy. Blocks.
    ///
    /// # Errors
    /// When the source can't be read, or the directory can't be written or mounted from.
    pub(crate) fn prepare(source: &Path, bin: &Path) -> io::Result<Self> {
        fs::create_dir_all(bin)?;
        fs::set_permissions(bin, fs::Permissions::from_mode(0o700))?;
        let mut file = File::open(source)?;
        let mut known = Known::of(&file)?;
        let index = bin.join("known.json");
        let remembered = fs::read(&index).ok().and_then(|json| serde_json::from_slice::<Known>(&json).ok());
        if let Some(remembered) = remembered
            && (Known { hash: remembered.hash.clone(), ..known.clone_without_hash() }) == remembered
            && is_whole(&bin.join(&remembered.hash).join(FILE), remembered.size)
        {
            return Self::open(bin, remembered.hash);
        }
        let hash = copy(&mut file, bin)?;
        known.hash.clone_from(&hash);
        replace(&index, &serde_json::to_vec(&known)?)?;
        Self::open(bin, hash)
    }

    fn open(bin: &Path, hash: String) -> io::Result<Self> {
        let file = bin.join(&hash).join(FILE);
        let mount = syscalls::open_tree(&file, false)?;
        let sealed = MountAttributes {
            set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
            propagation: libc::MS_PRIVATE,
            ..Default::default()
        };
        syscalls::mount_setattr(mount.as_fd(), false, sealed)?;
        Ok(Self { mount, hash, file })
    }

    /// The path to execute; good in this process and in a child that is about to execute it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.mount.as_raw_fd()).into()
    }
}

/// A loss of power may have cut the copy off.
fn is_whole(copy: &Path, size: u64) -> bool {
    fs::symlink_metadata(copy).is_ok_and(|m| m.is_file() && m.size() == size)
}

impl Known {
    fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            hash: String::new(),
        })
    }

    fn clone_without_hash(&self) -> Self {
        Self { hash: String::new(), ..*self }
    }
}

/// Copies and hashes in one pass; the hash.
fn copy(source: &mut File, bin: &Path) -> io::Result<String> {
    let temporary = bin.join(format!("new-{}", uuid::Uuid::new_v4().simple()));
    let result = copy_to(source, &temporary).and_then(|hash| {
        let dir = bin.join(&hash);
        fs::create_dir_all(&dir)?;
        fs::rename(&temporary, dir.join(FILE))?;
        Ok(hash)
    });
    if result.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    result
}

fn copy_to(source: &mut File, to: &Path) -> io::Result<String> {
    let mut target = File::options().write(true).create_new(true).mode(0o500).open(to)?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = source.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        context.update(&buffer[..length]);
        // The kernel caches a file in pieces as large as it was written in, and recent ones map the whole
        // piece where a process touches one page. A shim needs few pages, here and there.
        for page in buffer[..length].chunks(PAGE) {
            target.write_all(page)?;
        }
    }
    target.set_permissions(fs::Permissions::from_mode(0o555))?;
    let digest = context.finish();
    Ok(digest.as_ref()[..16].iter().map(|b| format!("{b:02x}")).collect())
}

/// Makes sure that the copy survives a loss of power, and reads it into the kernel's cache page by page if it
/// isn't there, as after a start of the machine. Blocks.
pub(crate) fn settle(copy: &Path) -> io::Result<()> {
    let mut file = File::open(copy)?;
    file.sync_all()?;
    posix_fadvise(file.as_raw_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    io::copy(&mut file, &mut io::sink()).map(drop)
}

/// Replaces a file's contents at once.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    fs::write(&new, contents)?;
    fs::rename(&new, path)
}

/// Removes copies that no shim runs from any more.
pub(crate) fn remove_others(bin: &Path, used: &[String]) -> io::Result<()> {
    for entry in fs::read_dir(bin)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !used.contains(&name) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_executable_gets_another_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (source, bin) = (dir.path().join("exe"), dir.path().join("bin"));
        fs::write(&source, "one").unwrap();
        let first = SealedExecutable::prepare(&source, &bin).unwrap();
        let again = SealedExecutable::prepare(&source, &bin).unwrap();
        assert_eq!(first.hash, again.hash);
        fs::write(&source, "two").unwrap();
        let second = SealedExecutable::prepare(&source, &bin).unwrap();
        assert_ne!(first.hash, second.hash);
        remove_others(&bin, std::slice::from_ref(&second.hash)).unwrap();
        assert!(!bin.join(&first.hash).exists());
        assert!(bin.join(&second.hash).exists());
    }

    #[test]
    fn the_copy_cannot_be_written_through_its_mount() {
        let dir = tempfile::tempdir().unwrap();
        let (source, bin) = (dir.path().join("exe"), dir.path().join("bin"));
        fs::write(&source, "one").unwrap();
        let sealed = SealedExecutable::prepare(&source, &bin).unwrap();
        assert_eq!(fs::read(sealed.path()).unwrap(), b"one");
        let error = File::options().write(true).open(sealed.path()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    }
}
