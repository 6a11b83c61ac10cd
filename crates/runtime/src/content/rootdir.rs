//! Walks inside one directory, from which no name, link or mount leads out.
//!
//! A layer's names are hostile, and so are the symbolic links that earlier names have made. Every
//! step here opens one component relative to the descriptor before it, without following links;
//! links are expanded by hand and start again from the root of the tree, as they would inside a
//! container. So there is no path string that the kernel could resolve elsewhere.

use std::{
    collections::VecDeque,
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat},
    io::Errno,
};

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;
/// Deeper than anything in use, shallow enough to be walked and removed with few descriptors.
const MAX_DEPTH: usize = 512;
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// One component of a path: not empty, not `.` or `..`, without `/` and zero.
pub(super) type Name = CString;

/// Splits an archive's path into components, relative to the root whatever it starts with.
///
/// # Errors
///
/// When a component is `..`, is longer than a file name can be, or contains a zero: no builder
/// writes those, and they can only be meant to escape.
pub(super) fn components(path: &[u8]) -> io::Result<Vec<Name>> {
    let refuse = |why: &str| {
        let shown = String::from_utf8_lossy(path).into_owned();
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("invalid path {shown:?}: {why}")))
    };
    let mut names = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return refuse("it must not contain \"..\""),
            part if part.len() > 255 => return refuse("a component is over 255 bytes long"),
            part => match Name::new(part) {
                Ok(name) => names.push(name),
                Err(_) => return refuse("it must not contain a zero byte"),
            },
        }
    }
    if names.len() > MAX_DEPTH { refuse("it is over 512 directories deep") } else { Ok(names) }
}

/// An open directory that stands for the root of a tree.
pub(super) struct RootDir {
    fd: OwnedFd,
}

/// A directory somewhere below a [`RootDir`], with the path that leads to it without links.
pub(super) struct Walked {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl RootDir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { fd: fs::open(path, DIRECTORY, Mode::empty())? })
    }

    pub(super) fn as_walked(&self) -> io::Result<Walked> {
        Ok(Walked { fd: self.fd.try_clone()?, path: PathBuf::new() })
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(fs::syncfs(&self.fd)?)
    }

    /// Opens the directory `names`, following links inside the tree, and makes what is missing.
    /// `made` is told each directory that was made, parents first.
    pub(super) fn make_dirs(&self, names: &[Name], mut made: impl FnMut(&Path)) -> io::Result<Walked> {
        let walked = self.walk(names, |at, name, kind| {
            let child = at.child(name);
            let mut whiteout = false;
            if kind.is_some() {
                whiteout = stat(&at.fd, name)?.is_some_and(|stat| is_whiteout(&stat));
                if !whiteout {
                    let message = format!("{:?} is not a directory", child.display().to_string());
                    return Err(io::Error::new(io::ErrorKind::NotADirectory, message));
                }
                fs::unlinkat(&at.fd, name, AtFlags::empty())?;
            }
            let fd = make_dir(&at.fd, name)?;
            // What was deleted below stays deleted: only the new directory's content shows.
            if whiteout {
                set_opaque(&fd)?;
            }
            made(&child);
            Ok(Some(fd))
        })?;
        walked.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Opens the directory `names`, following links inside the tree; `None` when there is none.
    pub(super) fn find_dir(&self, names: &[Name]) -> io::Result<Option<Walked>> {
        self.walk(names, |_, _, _| Ok(None))
    }

    /// Opens the directory at `path`, none of whose components may be a link.
    pub(super) fn open_exact(&self, path: &Path) -> io::Result<Walked> {
        let mut at = self.as_walked()?;
        for name in path {
            at.fd = fs::openat(&at.fd, name, DIRECTORY, Mode::empty())?;
        }
        at.path = path.into();
        Ok(at)
    }

    /// Walks down `names`. Where neither a directory nor a link stands, `otherwise` is asked for a
    /// directory to go on in (and told what stands there); without one the walk gives `None`.
    fn walk(
        &self,
        names: &[Name],
        mut otherwise: impl FnMut(&Walked, &Name, Option<FileType>) -> io::Result<Option<OwnedFd>>,
    ) -> io::Result<Option<Walked>> {
        let mut at = self.as_walked()?;
        let mut links = 0;
        let mut todo: VecDeque<Name> = names.iter().cloned().collect();
        while let Some(name) = todo.pop_front() {
            if name.as_bytes() == b".." {
                // Only from a link's target; at the root it stays there, as it does after chroot.
                at.path.pop();
                at = self.open_exact(&at.path)?;
                continue;
            }
            let stat = stat(&at.fd, &name)?;
            let fd = match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Some(FileType::Directory) => fs::openat(&at.fd, &name, DIRECTORY, Mode::empty())?,
                Some(FileType::Symlink) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = fs::readlinkat(&at.fd, &name, Vec::new())?;
                    if target.as_bytes().starts_with(b"/") {
                        at = self.as_walked()?;
                    }
                    for part in target.as_bytes().rsplit(|byte| *byte == b'/') {
                        if !matches!(part, b"" | b".") {
                            todo.push_front(Name::new(part)?);
                        }
                    }
                    continue;
                }
                kind => match otherwise(&at, &name, kind)? {
                    Some(fd) => fd,
                    None => return Ok(None),
                },
            };
            at = Walked { fd, path: at.child(&name) };
            if at.path.components().count() > MAX_DEPTH {
                return Err(Errno::NAMETOOLONG.into());
            }
        }
        Ok(Some(at))
    }
}

impl Walked {
    /// The path of an entry of this directory.
    pub(super) fn child(&self, name: &Name) -> PathBuf {
        self.path.join(OsStr::from_bytes(name.as_bytes()))
    }
}

/// What `name` is, without following it; `None` when it does not exist.
pub(super) fn stat(dir: impl AsFd, name: &Name) -> io::Result<Option<Stat>> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes a directory and opens it.
pub(super) fn make_dir(dir: impl AsFd, name: &Name) -> io::Result<OwnedFd> {
    fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
    let fd = fs::openat(&dir, name, DIRECTORY, Mode::empty())?;
    fs::fchmod(&fd, Mode::from_raw_mode(0o755))?;
    Ok(fd)
}

/// Opens an existing directory without following a link.
pub(super) fn open_dir(dir: impl AsFd, name: &Name) -> io::Result<OwnedFd> {
    Ok(fs::openat(dir, name, DIRECTORY, Mode::empty())?)
}

/// Removes whatever `name` is, with everything below it.
pub(super) fn remove(dir: impl AsFd, name: &Name) -> io::Result<()> {
    let is_dir = stat(&dir, name)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
    if !is_dir {
        return Ok(fs::unlinkat(dir, name, AtFlags::empty())?);
    }
    let opened = open_dir(&dir, name)?;
    for entry in fs::Dir::read_from(&opened)? {
        let child = entry?.file_name().to_owned();
        if !matches!(child.as_bytes(), b"." | b"..") {
            remove(&opened, &child)?;
        }
    }
    Ok(fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}

/// Whether it stands for the absence of what a lower layer has: overlayfs uses device 0:0.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes a directory hide what lower layers have in it.
pub(super) fn set_opaque(dir: impl AsFd) -> io::Result<()> {
    Ok(fs::fsetxattr(dir, c"trusted.overlay.opaque", b"y", fs::XattrFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::{RootDir, components, remove};

    fn walk(root: &Path, path: &str) -> std::io::Result<std::path::PathBuf> {
        let walked = RootDir::open(root)?.make_dirs(&components(path.as_bytes())?, |_| {})?;
        Ok(walked.path)
    }

    #[test]
    fn names_are_relative_to_the_root_or_refused() {
        assert_eq!(components(b"/a//./b/").unwrap(), [c"a".to_owned(), c"b".to_owned()]);
        assert!(components(b"./").unwrap().is_empty());
        for bad in [&b"../a"[..], b"a/../b", b"a/..", b"a\0b", &[b'x'; 256], &b"a/".repeat(600)] {
            assert!(components(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn links_lead_nowhere_but_inside() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("a")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("absolute")).unwrap();
        symlink("../../outside", root.join("a/relative")).unwrap();
        symlink("/proc/self/root/tmp", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();

        walk(&root, "absolute/in").unwrap();
        assert_eq!(walk(&root, "a/relative/in").unwrap(), Path::new("outside/in"));
        assert_eq!(walk(&root, "magic/in").unwrap(), Path::new("proc/self/root/tmp/in"));
        assert!(walk(&root, "loop/in").is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
        assert!(root.join("outside/in").is_dir());
    }

    #[test]
    fn removal_does_not_follow_links() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), b"").unwrap();
        symlink(&outside, root.join("a/b/link")).unwrap();
        remove(&RootDir::open(&root).unwrap().fd, &c"a".to_owned()).unwrap();
        assert!(!root.join("a").exists() && outside.join("kept").exists());
    }
}
