//! Unpacks one layer into a directory that overlayfs can use as a lower layer.
//!
//! A layer's whiteouts become overlayfs's, so each layer is unpacked by itself, in parallel with
//! the others. The two things that can depend on the layers below, the attributes of directories
//! that the layer uses but does not describe and hard links to files it does not have, are
//! returned as [`Grafts`] to be done when those layers are there.

use std::{
    collections::HashMap,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags},
    io::Errno,
};

use super::{
    rootdir::{self, Name, RootDir, Walked, components},
    tar::{Entry, Kind, TarReader, invalid},
};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS: &[u8] = b".wh..wh.";
/// Where aufs keeps files with several names; old images have hard links into it.
const AUFS_LINKS: &[u8] = b".wh..wh.plnk";
const BLOCK: u64 = 4096;
const BUFFER: usize = 128 * 1024;

/// How much a layer takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// Bytes, in whole blocks.
    pub bytes: u64,
    /// Files, directories and so on.
    pub inodes: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// What is left to do with the layers below at hand; see [`super::graft`].
#[derive(Debug, Default)]
pub struct Grafts {
    /// Directories that came into being for what is in them, parents first.
    pub dirs: Vec<PathBuf>,
    /// Hard links to files that this layer does not have: their paths and their targets, in order.
    pub links: Vec<(PathBuf, Vec<Name>)>,
}

impl Grafts {
    /// Whether the layer is complete as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dirs.is_empty() && self.links.is_empty()
    }
}

/// Unpacks the tar stream `layer` into the empty directory `dir`. `scratch` is another empty
/// directory on the same filesystem, for what the layer brings along but doesn't contain.
///
/// # Errors
///
/// On a damaged or hostile archive and on any failure to write; `dir` is then half full.
pub fn unpack(layer: impl Read, dir: &Path, scratch: &Path) -> io::Result<(Usage, Grafts)> {
    let mut tar = TarReader::new(layer);
    let mut unpacker = Unpacker {
        root: RootDir::open(dir)?,
        scratch: RootDir::open(scratch)?,
        parent: None,
        implicit: HashMap::new(),
        links: HashMap::new(),
        dir_times: Vec::new(),
        usage: Usage { bytes: BLOCK, inodes: 1 },
        buffer: vec![0; BUFFER],
    };
    while let Some(entry) = tar.next_entry()? {
        unpacker.entry(&entry, &mut tar).map_err(|error| {
            io::Error::new(error.kind(), format!("{:?}: {error}", entry.path().display().to_string()))
        })?;
    }
    unpacker.finish()
}

struct Unpacker {
    root: RootDir,
    scratch: RootDir,
    /// The directory of the entry before, as it was written: entries come directory by directory.
    parent: Option<(Vec<Name>, Walked)>,
    /// Directories that no entry has described yet, in the order they were made.
    implicit: HashMap<PathBuf, usize>,
    links: HashMap<PathBuf, (usize, Vec<Name>)>,
    /// Set last, since making an entry changes the time of its directory.
    dir_times: Vec<(PathBuf, (i64, u32))>,
    usage: Usage,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry(&mut self, entry: &Entry, content: &mut impl Read) -> io::Result<()> {
        let names = components(&entry.name)?;
        let Some((name, parents)) = names.split_last() else {
            // The root itself: only its attributes can be meant.
            if entry.kind == Kind::Directory {
                let root = self.root.as_walked()?;
                set_attributes(&root.fd, entry)?;
                self.dir_times.push((root.path, entry.mtime));
            }
            return Ok(());
        };
        if let Some(at) = names.iter().position(|name| name.as_bytes().starts_with(AUFS)) {
            if names[at].as_bytes() != OPAQUE || at + 1 != names.len() {
                return self.aufs(&names[at..], entry, content);
            }
        } else if parents.iter().any(|name| name.as_bytes().starts_with(WHITEOUT)) {
            return Err(invalid("inside a whiteout".into()));
        }
        let parent = self.parent(parents)?;
        let result = if name.as_bytes() == OPAQUE {
            rootdir::set_opaque(&parent.fd)
        } else if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            self.whiteout(&parent, hidden)
        } else {
            self.make(&parent, name, entry, content)
        };
        self.parent = Some((parents.to_vec(), parent));
        result
    }

    /// The directory that `names` lead to, made if need be.
    fn parent(&mut self, names: &[Name]) -> io::Result<Walked> {
        match self.parent.take() {
            Some((cached, parent)) if cached == names => return Ok(parent),
            _ => {}
        }
        let (implicit, usage) = (&mut self.implicit, &mut self.usage);
        self.root.make_dirs(names, |made| {
            let order = implicit.len();
            implicit.insert(made.to_owned(), order);
            *usage += Usage { bytes: BLOCK, inodes: 1 };
        })
    }

    fn whiteout(&mut self, parent: &Walked, hidden: &[u8]) -> io::Result<()> {
        // A name such as ".wh..." would hide "..".
        let hidden = match <[Name; 1]>::try_from(components(hidden)?) {
            Ok([name]) if name.as_bytes() == hidden => name,
            _ => return Err(invalid("a whiteout of nothing".into())),
        };
        match rootdir::stat(&parent.fd, &hidden)? {
            // This layer has the name too, which hides files below already.
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                rootdir::set_opaque(rootdir::open_dir(&parent.fd, &hidden)?)
            }
            Some(_) => Ok(()),
            None => {
                self.usage.inodes += 1;
                Ok(fs::mknodat(&parent.fd, &hidden, FileType::CharacterDevice, Mode::empty(), fs::makedev(0, 0))?)
            }
        }
    }

    /// What aufs kept for itself is left out, but files that have further names are kept aside.
    fn aufs(&mut self, names: &[Name], entry: &Entry, content: &mut impl Read) -> io::Result<()> {
        match names {
            [dir, name] if dir.as_bytes() == AUFS_LINKS && entry.kind == Kind::File => {
                let scratch = self.scratch.as_walked()?;
                self.write_file(&scratch, name, entry, content)
            }
            _ => Ok(()),
        }
    }

    fn make(&mut self, parent: &Walked, name: &Name, entry: &Entry, content: &mut impl Read) -> io::Result<()> {
        let path = parent.child(name);
        let mut opaque = false;
        if let Some(stat) = rootdir::stat(&parent.fd, name)? {
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                if entry.kind == Kind::Directory {
                    self.implicit.remove(&path);
                    return self.directory(&rootdir::open_dir(&parent.fd, name)?, path, entry);
                }
                self.implicit.retain(|dir, _| !dir.starts_with(&path));
            }
            opaque = rootdir::is_whiteout(&stat);
            rootdir::remove(&parent.fd, name)?;
        }
        self.links.remove(&path);
        match entry.kind {
            Kind::Directory => {
                let fd = rootdir::make_dir(&parent.fd, name)?;
                if opaque {
                    rootdir::set_opaque(&fd)?;
                }
                self.usage += Usage { bytes: BLOCK, inodes: 1 };
                self.directory(&fd, path, entry)
            }
            Kind::File => self.write_file(parent, name, entry, content),
            Kind::HardLink => self.hard_link(parent, name, entry),
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(invalid("a symbolic link to nothing".into()));
                }
                fs::symlinkat(entry.link.as_slice(), &parent.fd, name)?;
                self.usage.inodes += 1;
                set_attributes_at(parent, name, entry)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::CharDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = fs::makedev(entry.device.0, entry.device.1);
                fs::mknodat(&parent.fd, name, kind, Mode::from_raw_mode(0o600), device)?;
                self.usage.inodes += 1;
                set_attributes_at(parent, name, entry)
            }
        }
    }

    fn directory(&mut self, fd: &OwnedFd, path: PathBuf, entry: &Entry) -> io::Result<()> {
        set_attributes(fd, entry)?;
        self.dir_times.push((path, entry.mtime));
        Ok(())
    }

    fn write_file(&mut self, parent: &Walked, name: &Name, entry: &Entry, content: &mut impl Read) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::openat(&parent.fd, name, flags, Mode::from_raw_mode(0o600))?;
        let whole = [(0, entry.size)];
        let mut written = 0;
        for (offset, length) in entry.runs.as_deref().unwrap_or(&whole) {
            if *offset > 0 {
                fs::seek(&fd, fs::SeekFrom::Start(*offset))?;
            }
            self.copy(&fd, content, *length)?;
            written += length;
        }
        if entry.runs.is_some() {
            fs::ftruncate(&fd, entry.size)?;
        }
        self.usage += Usage { bytes: written.next_multiple_of(BLOCK), inodes: 1 };
        set_attributes(&fd, entry)?;
        set_times(&fd, entry.mtime)
    }

    fn copy(&mut self, fd: &OwnedFd, content: &mut impl Read, mut left: u64) -> io::Result<()> {
        while left > 0 {
            let want = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = content.read(&mut self.buffer[..want])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut bytes = &self.buffer[..count];
            while !bytes.is_empty() {
                bytes = &bytes[rustix::io::write(fd, bytes)?..];
            }
            left -= count as u64;
        }
        Ok(())
    }

    fn hard_link(&mut self, parent: &Walked, name: &Name, entry: &Entry) -> io::Result<()> {
        let target = components(&entry.link)?;
        let Some((file, dirs)) = target.split_last() else {
            return Err(invalid("a hard link to nothing".into()));
        };
        let from = match dirs {
            [.., dir] if dir.as_bytes() == AUFS_LINKS => Some(self.scratch.as_walked()?),
            dirs => self.root.find_dir(dirs)?,
        };
        let found = match &from {
            Some(from) => rootdir::stat(&from.fd, file)?,
            None => None,
        };
        match (from, found) {
            (Some(from), Some(stat)) if !rootdir::is_whiteout(&stat) => {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    return Err(invalid("a hard link to a directory".into()));
                }
                Ok(fs::linkat(&from.fd, file, &parent.fd, name, AtFlags::empty())?)
            }
            _ => {
                let order = self.links.len();
                self.links.insert(parent.child(name), (order, target));
                Ok(())
            }
        }
    }

    fn finish(self) -> io::Result<(Usage, Grafts)> {
        // Backwards, so that the last of several descriptions of a directory is the one that stays.
        let mut seen = std::collections::HashSet::new();
        for (path, mtime) in self.dir_times.iter().rev() {
            if seen.insert(path) {
                match self.root.open_exact(path) {
                    Ok(dir) => set_times(&dir.fd, *mtime)?,
                    // A later entry replaced it.
                    Err(error) if is_gone(&error) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let mut dirs: Vec<_> = self.implicit.into_iter().collect();
        dirs.sort_by_key(|(_, order)| *order);
        let dirs = dirs.into_iter().map(|(path, _)| path).collect();
        let mut links: Vec<_> = self.links.into_iter().collect();
        links.sort_by_key(|(_, (order, _))| *order);
        let links = links.into_iter().map(|(path, (_, target))| (path, target)).collect();
        Ok((self.usage, Grafts { dirs, links }))
    }
}

/// Owner, then attributes, then mode: changing the owner clears setuid and capabilities.
fn set_attributes(fd: &OwnedFd, entry: &Entry) -> io::Result<()> {
    let (uid, gid) = owner(entry)?;
    fs::fchown(fd, Some(uid), Some(gid))?;
    for (name, value) in xattrs(entry) {
        tolerate(name, fs::fsetxattr(fd, name, value, XattrFlags::empty()))?;
    }
    Ok(fs::fchmod(fd, Mode::from_raw_mode(entry.mode))?)
}

/// The same for what can't or mustn't be opened.
fn set_attributes_at(parent: &Walked, name: &Name, entry: &Entry) -> io::Result<()> {
    let (uid, gid) = owner(entry)?;
    fs::chownat(&parent.fd, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    let mut path = format!("/proc/self/fd/{}/", parent.fd.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    for (key, value) in xattrs(entry) {
        tolerate(key, fs::lsetxattr(path.as_slice(), key, value, XattrFlags::empty()))?;
    }
    if entry.kind != Kind::Symlink {
        fs::chmodat(&parent.fd, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())?;
    }
    let times = timestamps(entry.mtime);
    Ok(fs::utimensat(&parent.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_times(fd: impl AsFd, mtime: (i64, u32)) -> io::Result<()> {
    Ok(fs::futimens(fd, &timestamps(mtime))?)
}

fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: i64::from(nanos) },
    }
}

/// The owner, unless its number is the one that means "leave it" to the kernel, or is larger.
fn owner(entry: &Entry) -> io::Result<(Uid, Gid)> {
    let id = |id: u64, what: &str| match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(invalid(format!("{what} {id} is out of range"))),
    };
    Ok((Uid::from_raw(id(entry.uid, "uid")?), Gid::from_raw(id(entry.gid, "gid")?)))
}

/// The attributes that an image may bring. Overlayfs keeps its own bookkeeping in attributes, and
/// one from an image could redirect a directory elsewhere: those are dropped.
fn xattrs(entry: &Entry) -> impl Iterator<Item = (&[u8], &[u8])> {
    let allowed = |name: &[u8]| !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.");
    entry
        .xattrs
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .filter(move |(name, _)| allowed(name) && !name.contains(&0))
}

/// Filesystems without attributes, and kinds of file that can't have a user's, are left without.
fn tolerate(name: &[u8], result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM) if name.starts_with(b"user.") => Ok(()),
        Err(error) => {
            let name = String::from_utf8_lossy(name);
            Err(io::Error::new(
                io::Error::from(error).kind(),
                format!("failed to set the extended attribute {name:?}: {error}"),
            ))
        }
        Ok(()) => Ok(()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
