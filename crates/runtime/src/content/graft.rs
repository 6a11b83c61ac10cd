//! Completes a layer from the layers below it: see [`Grafts`].

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags},
    io::Errno,
};

use super::{
    rootdir::{self, Name, RootDir, Walked, components},
    tar::invalid,
    unpack::Grafts,
};

/// As many links as the kernel follows in one path.
const MAX_LINKS: usize = 40;

/// Gives the directories that `layer` uses without describing them the attributes that they have
/// below, and copies the files that it hard-links from below, as a write in a container would.
/// Where such a directory is a link below, what the layer has in it goes where the link leads.
///
/// `below` are the layers under it, the uppermost first.
///
/// # Errors
///
/// When a hard link's target is in no layer, and on any failure to read or write.
pub(super) fn graft(layer: &Path, below: &[&Path], grafts: &Grafts) -> io::Result<()> {
    let layer = RootDir::open(layer)?;
    let below: Vec<RootDir> = below.iter().map(|path| RootDir::open(path)).collect::<Result<_, _>>()?;
    let mut moves: Vec<(PathBuf, PathBuf)> = Vec::new();
    for path in &grafts.dirs {
        let path = moved(&moves, path);
        let names = components(path.as_os_str().as_encoded_bytes())?;
        let Some((parent, stat)) = find(&below, &names)? else { continue };
        match (FileType::from_raw_mode(stat.st_mode), names.last()) {
            (FileType::Directory, Some(name)) => {
                let made = layer.open_exact(&path)?;
                copy_attributes(&rootdir::open_dir(&parent.fd, name)?, &made.fd, &stat)?;
            }
            (FileType::Symlink, Some(_)) => {
                if let Some(target) = resolve(&below, &names)?
                    && let Some(there) = follow(&layer, &path, &below, &target)?
                {
                    moves.push((path, there));
                }
            }
            _ => {}
        }
    }
    for (path, target) in &grafts.links {
        let path = &moved(&moves, path);
        let names = components(path.as_os_str().as_encoded_bytes())?;
        let Some((name, dirs)) = names.split_last() else { continue };
        let Some(to) = layer.find_dir(dirs)? else { continue };
        let before = fs::fstat(&to.fd)?;
        link(&layer, &to, name, &below, target).map_err(|error| {
            io::Error::new(error.kind(), format!("hard link {:?}: {error}", path.display().to_string()))
        })?;
        fs::futimens(&to.fd, &times(&before))?;
    }
    layer.sync()
}

fn link(layer: &RootDir, to: &Walked, name: &Name, below: &[RootDir], target: &[Name]) -> io::Result<()> {
    let Some((file, dirs)) = target.split_last() else { return Ok(()) };
    // An earlier link may have brought the target into this layer by now.
    if let Some(here) = layer.find_dir(dirs)?
        && let Some(stat) = rootdir::stat(&here.fd, file)?
        && !rootdir::is_whiteout(&stat)
    {
        return Ok(fs::linkat(&here.fd, file, &to.fd, name, AtFlags::empty())?);
    }
    let found = match find(below, target)? {
        Some(found) => Some(found),
        // By way of a link to a directory.
        None => match resolve(below, dirs)? {
            Some(mut names) => {
                names.push(file.clone());
                find(below, &names)?
            }
            None => None,
        },
    };
    let Some((from, stat)) = found else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "its target is in no layer"));
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => {
            let text = fs::readlinkat(&from.fd, file, Vec::new())?;
            return Ok(fs::symlinkat(text, &to.fd, name)?);
        }
        _ => return Err(invalid("its target is not a file".into())),
    }
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let from = fs::openat(&from.fd, file, read, Mode::empty())?;
    let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let to = fs::openat(&to.fd, name, write, Mode::from_raw_mode(0o600))?;
    io::copy(&mut std::fs::File::from(from.try_clone()?), &mut std::fs::File::from(to.try_clone()?))?;
    copy_attributes(&from, &to, &stat)
}

/// What the layers show at `names`, the uppermost first: the directory it is in and what it is.
fn find(below: &[RootDir], names: &[Name]) -> io::Result<Option<(Walked, Stat)>> {
    let Some((name, dirs)) = names.split_last() else { return Ok(None) };
    'layers: for layer in below {
        let mut at = layer.as_walked()?;
        let mut hidden = false;
        for dir in dirs {
            match rootdir::stat(&at.fd, dir)? {
                Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    at = Walked { fd: rootdir::open_dir(&at.fd, dir)?, path: at.child(dir) };
                    hidden |= is_opaque(&at.fd)?;
                }
                // A file or a whiteout where a directory would have to be hides all below.
                Some(_) => return Ok(None),
                None if hidden => return Ok(None),
                None => continue 'layers,
            }
        }
        match rootdir::stat(&at.fd, name)? {
            Some(stat) if rootdir::is_whiteout(&stat) => return Ok(None),
            Some(stat) => return Ok(Some((at, stat))),
            None if hidden => return Ok(None),
            None => {}
        }
    }
    Ok(None)
}

/// Where a path is by now.
fn moved(moves: &[(PathBuf, PathBuf)], path: &Path) -> PathBuf {
    let step = |path: PathBuf, (from, to): &(PathBuf, PathBuf)| match path.strip_prefix(from) {
        Ok(rest) if rest.as_os_str().is_empty() => to.clone(),
        Ok(rest) => to.join(rest),
        Err(_) => path,
    };
    moves.iter().fold(path.to_owned(), step)
}

/// The directory that `names` lead to in the layers below, named without links; `None` when there is none.
fn resolve(below: &[RootDir], names: &[Name]) -> io::Result<Option<Vec<Name>>> {
    let mut done: Vec<Name> = Vec::new();
    let mut todo: VecDeque<Name> = names.iter().cloned().collect();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name.as_bytes() == b".." {
            // Only from a link's target; at the root it stays there.
            done.pop();
            continue;
        }
        done.push(name);
        let Some((parent, stat)) = find(below, &done)? else { return Ok(None) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {}
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let Some(name) = done.pop() else { return Ok(None) };
                let target = fs::readlinkat(&parent.fd, &name, Vec::new())?;
                if target.as_bytes().starts_with(b"/") {
                    done.clear();
                }
                for part in target.as_bytes().rsplit(|byte| *byte == b'/') {
                    if !matches!(part, b"" | b".") {
                        todo.push_front(Name::new(part)?);
                    }
                }
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(done))
}

/// Moves what is in the layer's directory `from` to the directory `to`, which the layers below have, and
/// removes `from`, so that their link shows. Returns the path of `to`, or `None` when the layer has something
/// else in its place.
fn follow(layer: &RootDir, from: &Path, below: &[RootDir], to: &[Name]) -> io::Result<Option<PathBuf>> {
    let Some((name, parent)) = from.file_name().zip(from.parent()) else { return Ok(None) };
    let name = Name::new(name.as_encoded_bytes())?;
    let parent = layer.open_exact(parent)?;
    let source = rootdir::open_dir(&parent.fd, &name)?;
    // What the layer has on the way, as it should be at last: moving changes their times.
    let mut kept = vec![(parent.fd.try_clone()?, fs::fstat(&parent.fd)?)];
    let mut made = Vec::new();
    let mut at = layer.as_walked()?;
    for (depth, name) in to.iter().enumerate() {
        let path = at.child(name);
        if path.starts_with(from) {
            // A link into itself.
            return Ok(None);
        }
        let fd = match rootdir::stat(&at.fd, name)? {
            Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                kept.push((at.fd.try_clone()?, fs::fstat(&at.fd)?));
                rootdir::open_dir(&at.fd, name)?
            }
            Some(_) => return Ok(None),
            None => {
                kept.push((at.fd.try_clone()?, fs::fstat(&at.fd)?));
                let fd = rootdir::make_dir(&at.fd, name)?;
                made.push((fd.try_clone()?, &to[..=depth]));
                fd
            }
        };
        at = Walked { fd, path };
    }
    if made.last().is_none_or(|(_, names)| names.len() < to.len()) {
        kept.push((at.fd.try_clone()?, fs::fstat(&at.fd)?));
    }
    merge(&source, &at.fd)?;
    fs::unlinkat(&parent.fd, &name, AtFlags::REMOVEDIR)?;
    for (fd, stat) in kept.iter().rev() {
        fs::futimens(fd, &times(stat))?;
    }
    for (fd, names) in made.iter().rev() {
        if let Some((parent, stat)) = find(below, names)?
            && let Some(name) = names.last()
        {
            copy_attributes(&rootdir::open_dir(&parent.fd, name)?, fd, &stat)?;
        }
    }
    Ok(Some(at.path))
}

/// Moves all that is in `from` to `to`; of what both have, directories become one, and of others that of `from`
/// stays.
fn merge(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let is_dir = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_opaque(from)? {
        rootdir::set_opaque(to)?;
    }
    let mut names = Vec::new();
    for entry in fs::Dir::read_from(from)? {
        let name = entry?.file_name().to_owned();
        if !matches!(name.as_bytes(), b"." | b"..") {
            names.push(name);
        }
    }
    for name in names {
        let (Some(stat), there) = (rootdir::stat(from, &name)?, rootdir::stat(to, &name)?) else { continue };
        match there {
            Some(other) if is_dir(&stat) && is_dir(&other) => {
                merge(&rootdir::open_dir(from, &name)?, &rootdir::open_dir(to, &name)?)?;
                fs::unlinkat(from, &name, AtFlags::REMOVEDIR)?;
                continue;
            }
            Some(_) => rootdir::remove(to, &name)?,
            None => {}
        }
        fs::renameat(from, &name, to, &name)?;
    }
    Ok(())
}

fn is_opaque(dir: &OwnedFd) -> io::Result<bool> {
    let mut value = [0u8; 1];
    match fs::fgetxattr(dir, c"trusted.overlay.opaque", &mut value[..]) {
        Ok(_) => Ok(value == *b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn copy_attributes(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let owner = (fs::Uid::from_raw(stat.st_uid), fs::Gid::from_raw(stat.st_gid));
    fs::fchown(to, Some(owner.0), Some(owner.1))?;
    for name in xattr_names(from)? {
        if name.as_bytes().starts_with(b"trusted.overlay.") {
            continue;
        }
        let mut value = vec![0; fs::fgetxattr_query(from, &name)?];
        let length = fs::fgetxattr(from, &name, value.as_mut_slice())?;
        fs::fsetxattr(to, &name, &value[..length], XattrFlags::empty())?;
    }
    fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    Ok(fs::futimens(to, &times(stat))?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos as i64 };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn xattr_names(fd: &OwnedFd) -> io::Result<Vec<Name>> {
    let mut list = vec![0; fs::flistxattr_query(fd)?];
    let length = fs::flistxattr(fd, list.as_mut_slice())?;
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(Name::new).collect::<Result<_, _>>()?)
}
