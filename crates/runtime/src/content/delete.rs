//! Deletes trees that somebody else has filled.
//!
//! A container may have nested directories deeper than paths, stacks and descriptors reach, to
//! leave behind what can't be deleted. So the walk goes down a bounded way only, and lifts what is
//! deeper to the top of the tree, to be walked from there.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, Dir, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};

const MAX_DEPTH: usize = 64;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Deletes `path` and everything below it, following no link; it may be absent.
pub(crate) fn delete_tree(path: &Path) -> io::Result<()> {
    let top = match fs::open(path, DIRECTORY, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTDIR | Errno::LOOP) => return std::fs::remove_file(path),
        Err(error) => return Err(error.into()),
    };
    let mut deleter = Deleter { top, lifted: 0 };
    // Each round empties all that was there, but may lift deeper directories up.
    loop {
        let before = deleter.lifted;
        deleter.empty(deleter.top.try_clone()?, 0)?;
        if deleter.lifted == before {
            break;
        }
    }
    std::fs::remove_dir(path)
}

struct Deleter {
    top: OwnedFd,
    lifted: u64,
}

impl Deleter {
    fn empty(&mut self, dir: OwnedFd, depth: usize) -> io::Result<()> {
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let name = entry.file_name().to_owned();
            if matches!(name.as_bytes(), b"." | b"..") {
                continue;
            }
            let unlinked = match entry.file_type() {
                FileType::Directory => Err(Errno::ISDIR),
                _ => fs::unlinkat(&dir, &name, AtFlags::empty()),
            };
            match unlinked {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) if depth < MAX_DEPTH => {
                    let child = fs::openat(&dir, &name, DIRECTORY, Mode::empty())?;
                    self.empty(child, depth + 1)?;
                    remove_dir(&dir, &name)?;
                }
                Err(Errno::ISDIR) => self.lift(&dir, &name)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn lift(&mut self, dir: &OwnedFd, name: &CString) -> io::Result<()> {
        loop {
            self.lifted += 1;
            let to = format!(".lifted-{}", self.lifted);
            match fs::renameat_with(dir, name, &self.top, &to, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn remove_dir(dir: impl AsFd, name: &CString) -> io::Result<()> {
    match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Deletes trees that nobody can reach any more, on a thread of its own: a layer can have a
/// hundred thousand files.
pub(crate) fn discard(paths: impl IntoIterator<Item = PathBuf>) {
    let paths: Vec<_> = paths.into_iter().collect();
    if paths.is_empty() {
        return;
    }
    let work = move || {
        for path in paths {
            if let Err(error) = delete_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "could not delete");
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("images-discard".into()).spawn(work) {
        tracing::warn!(%error, "could not start a thread to delete with; left for the next start");
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::OwnedFd, unix::fs::symlink};

    use rustix::fs::{self, Mode};

    use super::delete_tree;

    #[test]
    fn trees_of_any_depth_go_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        for path in [&tree, &outside] {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::write(outside.join("kept"), "").unwrap();
        let mut at: OwnedFd = std::fs::File::open(&tree).unwrap().into();
        // Deeper than a path can say and a process has descriptors.
        for _ in 0..5000 {
            fs::mkdirat(&at, "nested", Mode::from_raw_mode(0o700)).unwrap();
            at = fs::openat(&at, "nested", super::DIRECTORY, Mode::empty()).unwrap();
            fs::symlinkat("/", &at, "link").unwrap();
        }
        symlink(&outside, tree.join(".lifted-1")).unwrap();
        delete_tree(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());

        delete_tree(&tree).unwrap();
        symlink(&outside, &tree).unwrap();
        delete_tree(&tree).unwrap();
        assert!(tree.symlink_metadata().is_err() && outside.join("kept").exists());
    }
}
