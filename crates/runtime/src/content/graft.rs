//! Completes a layer from the layers below it: see [`Grafts`].

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, XattrFlags},
    io::Errno,
};

use super::{
    rootdir::{self, Name, RootDir, Walked, components},
    tar::invalid,
    unpack::Grafts,
};

/// Gives the directories that `layer` uses without describing them the attributes that they have
/// below, and copies the files that it hard-links from below, as a write in a container would.
///
/// `below` are the layers under it, the uppermost first.
///
/// # Errors
///
/// When a hard link's target is in no layer, and on any failure to read or write.
pub(super) fn graft(layer: &Path, below: &[&Path], grafts: &Grafts) -> io::Result<()> {
    let layer = RootDir::open(layer)?;
    let below: Vec<RootDir> = below.iter().map(|path| RootDir::open(path)).collect::<Result<_, _>>()?;
    for path in &grafts.dirs {
        let names = components(path.as_os_str().as_encoded_bytes())?;
        if let Some((parent, stat)) = find(&below, &names)?
            && FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            && let Some(name) = names.last()
        {
            let made = layer.open_exact(path)?;
            copy_attributes(&rootdir::open_dir(&parent.fd, name)?, &made.fd, &stat)?;
        }
    }
    for (path, target) in &grafts.links {
        let names = components(path.as_os_str().as_encoded_bytes())?;
        let Some((name, dirs)) = names.split_last() else { continue };
        let Some(to) = layer.find_dir(dirs)? else { continue };
        link(&layer, &to, name, &below, target).map_err(|error| {
            io::Error::new(error.kind(), format!("hard link {:?}: {error}", path.display().to_string()))
        })?;
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
    let Some((from, stat)) = find(below, target)? else {
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
    let time = |seconds: i64, nanos: u64| Timespec { tv_sec: seconds, tv_nsec: nanos as i64 };
    Ok(fs::futimens(
        to,
        &Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        },
    )?)
}

fn xattr_names(fd: &OwnedFd) -> io::Result<Vec<Name>> {
    let mut list = vec![0; fs::flistxattr_query(fd)?];
    let length = fs::flistxattr(fd, list.as_mut_slice())?;
    let names = list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(Name::new).collect::<Result<_, _>>()?)
}
