//! The end of a group: its last processes, its out-of-memory count and its directories.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::v1;

/// Sends SIGKILL to every process in the group and in those below it.
///
/// Where the kernel can do so at once (`cgroup.kill`, or a freezer), processes that fork meanwhile don't
/// escape. The processes are dying when this returns, not yet gone.
pub(crate) fn kill_all(dirs: &[PathBuf]) -> io::Result<()> {
    let Some(dir) = dirs.iter().find(|d| d.join("cgroup.procs").exists()) else {
        return Ok(());
    };
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return Ok(());
    }
    let freezer = dirs.iter().find(|d| d.join("freezer.state").exists());
    if let Some(freezer) = freezer {
        v1::freeze(freezer, true)?;
    }
    let killed = kill_tree(dir);
    if let Some(freezer) = freezer {
        v1::freeze(freezer, false)?;
    }
    killed
}

fn kill_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir)? {
        kill_tree(&child)?;
    }
    for pid in processes(dir)? {
        match kill(pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether no process is left in the group and below it.
pub(crate) fn is_empty(dirs: &[PathBuf]) -> io::Result<bool> {
    fn empty(dir: &Path) -> io::Result<bool> {
        if !processes(dir)?.is_empty() {
            return Ok(false);
        }
        for child in children(dir)? {
            if !empty(&child)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
    for dir in dirs {
        if !empty(dir)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the group and those below it. A group that isn't there is fine.
///
/// # Errors
/// `ResourceBusy` while a process is left.
pub(crate) fn remove(dirs: &[PathBuf]) -> io::Result<()> {
    for dir in dirs {
        remove_tree(dir)?;
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for child in children(dir)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// How many processes of the group the kernel has killed for want of memory.
pub(crate) fn oom_kills(dirs: &[PathBuf]) -> u64 {
    for dir in dirs {
        for file in ["memory.events", "memory.oom_control"] {
            let Ok(text) = fs::read_to_string(dir.join(file)) else {
                continue;
            };
            for line in text.lines() {
                if let Some(count) = line.strip_prefix("oom_kill ") {
                    return count.trim().parse().unwrap_or(0);
                }
            }
        }
    }
    0
}

fn processes(dir: &Path) -> io::Result<Vec<Pid>> {
    match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => Ok(text
            .lines()
            .filter_map(|l| l.trim().parse().ok())
            // 0 stands for a process outside of this process id namespace: never signal our own group.
            .filter(|pid| *pid > 0)
            .map(Pid::from_raw)
            .collect()),
        Err(error) if gone(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn children(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if gone(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut out = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            out.push(entry.path());
        }
    }
    Ok(out)
}

/// A group removed between listing and reading answers with either of these.
fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}
