//! One process at a time has the control plane of a data directory, and one its node; the lock tells which.

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Held while a cluster runs; given back when dropped or when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Takes the lock and writes this process's id into it.
///
/// # Errors
/// When another process holds it: says which.
pub fn take(path: &Path) -> Result<Lock> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => {
            write_id(&held).with_context(|| format!("cannot write this process's id into {}", path.display()))?;
            Ok(Lock { _file: held })
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let directory = path.parent().unwrap_or(path).display();
            match read_id(&mut file) {
                Some(id) => bail!(
                    "the cluster in {directory} is already running as process {id}: use it, stop it with `pilothouse down`, or choose another --data-dir and --name"
                ),
                None => bail!("the cluster in {directory} is already running, or is being removed"),
            }
        }
        Err((_, e)) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// The process that holds the lock, if one does.
pub fn holder(path: &Path) -> Result<Option<i32>> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("cannot open {}", path.display())),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(None),
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => Ok(read_id(&mut file)),
        Err((_, e)) => Err(e).with_context(|| format!("cannot look at {}", path.display())),
    }
}

/// Over what is there, and not after cutting it off: that takes no space, of which a full disk has none, and a cluster on one is
/// to start and serve what it has.
fn write_id(file: &File) -> std::io::Result<()> {
    let line = format!("{}\n", std::process::id());
    file.write_all_at(line.as_bytes(), 0)?;
    file.set_len(line.len() as u64)
}

fn read_id(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.lines().next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_of_the_first() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("lock");
        assert_eq!(holder(&path)?, None);
        let first = take(&path)?;
        let error = take(&path).err().context("must be refused")?.to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert_eq!(holder(&path)?, i32::try_from(std::process::id()).ok());
        drop(first);
        assert_eq!(holder(&path)?, None);
        std::fs::write(&path, "of a process before, and longer")?;
        let _second = take(&path)?;
        assert_eq!(std::fs::read_to_string(&path)?, format!("{}\n", std::process::id()));
        Ok(())
    }
}
