//! How much a container has written.

use std::{collections::HashSet, io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use crate::content::Usage;

/// Deeper directories are not counted: a container could nest them beyond our descriptors.
const MAX_DEPTH: usize = 256;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Counts the blocks and inodes below `path`, each file once however many names it has. The tree
/// may change meanwhile; links are not followed, so nothing outside is counted.
pub(super) fn measure(path: &Path) -> io::Result<Usage> {
    let mut usage = Usage::default();
    let root = fs::open(path, DIRECTORY, Mode::empty())?;
    add(&mut usage, &fs::fstat(&root)?);
    walk(root, 0, &mut usage, &mut HashSet::new())?;
    Ok(usage)
}

fn walk(dir: OwnedFd, depth: usize, usage: &mut Usage, seen: &mut HashSet<(u64, u64)>) -> io::Result<()> {
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = match fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir && stat.st_nlink > 1 && !seen.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        add(usage, &stat);
        if is_dir && depth < MAX_DEPTH {
            match fs::openat(&dir, name, DIRECTORY, Mode::empty()) {
                Ok(child) => walk(child, depth + 1, usage, seen)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn add(usage: &mut Usage, stat: &fs::Stat) {
    *usage += Usage { bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * 512, inodes: 1 };
}
