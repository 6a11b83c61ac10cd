//! Containers as their shim keeps them.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    log_file::{LogFile, now_nanos},
    output::Logs,
    protocol::{ContainerPlan, Exit},
    syscalls,
};

/// One container.
pub(crate) struct Container {
    pub(crate) id: String,
    dir: PathBuf,
    /// Of the first process; `None` until it is known.
    pub(crate) pid: Option<i32>,
    pub(crate) pidfd: Option<OwnedFd>,
    pub(crate) started_at: i64,
    pub(crate) cgroup_dirs: Vec<PathBuf>,
    pub(crate) log: Option<LogFile>,
    /// Master side.
    pub(crate) terminal: Option<OwnedFd>,
    /// Writing end.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdin_once: bool,
    pub(crate) exit: Option<Exit>,
}

impl Container {
    pub(crate) fn new(plan: &ContainerPlan, log: Option<LogFile>) -> Self {
        Self {
            id: plan.id.clone(),
            dir: plan.dir.clone(),
            pid: None,
            pidfd: None,
            started_at: 0,
            cgroup_dirs: plan.cgroup_dirs.clone(),
            log,
            terminal: None,
            stdin: None,
            stdin_once: plan.stdin_once,
            exit: None,
        }
    }

    /// Remembers the first process.
    pub(crate) fn set_pid(&mut self, pid: i32) {
        self.pid = Some(pid);
        self.started_at = now_nanos();
        // A process that has been reaped already has none, and needs none.
        self.pidfd = syscalls::pidfd_open(pid).ok();
    }

    /// Signals the first process, or all of them.
    pub(crate) fn kill(&self, signal: i32, all: bool) -> io::Result<()> {
        if all && signal == libc::SIGKILL {
            return crate::cgroup::kill_all(&self.cgroup_dirs);
        }
        let Some(pid) = self.pid else {
            return Ok(());
        };
        // Real-time signals, which images may name as their stop signal, are unknown to the enumeration.
        match raw_kill(pid, signal) {
            Err(Errno::ESRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The first process has ended: ends the others, notes how, and writes it down.
    pub(crate) fn exited(&mut self, code: i32) -> Exit {
        let oom_killed = self.oom_killed();
        let exit = Exit { code, finished_at: now_nanos(), oom_killed };
        // The server asks us when it can't read this.
        let _ = write_exit(&self.dir, &exit);
        self.clean_cgroup();
        self.pidfd = None;
        self.stdin = None;
        self.terminal = None;
        self.exit = Some(exit.clone());
        exit
    }

    /// Whether the kernel has killed one of its processes for want of memory.
    pub(crate) fn oom_killed(&self) -> bool {
        crate::cgroup::oom_kills(&self.cgroup_dirs) > 0
    }

    /// Kills what is left in the group and removes it, as far as that goes at once.
    pub(crate) fn clean_cgroup(&self) {
        // The server removes it again with the container.
        let _ = crate::cgroup::kill_all(&self.cgroup_dirs);
        let _ = crate::cgroup::remove(&self.cgroup_dirs);
    }
}

#[allow(unsafe_code, reason = "nix has no real-time signals")]
fn raw_kill(pid: i32, signal: i32) -> Result<(), Errno> {
    if let Ok(signal) = Signal::try_from(signal) {
        return kill(Pid::from_raw(pid), signal);
    }
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Name of the file that says how a container ended.
pub(crate) const EXIT_FILE: &str = "exit.json";

fn write_exit(dir: &Path, exit: &Exit) -> io::Result<()> {
    let new = dir.join(".exit.json.new");
    fs::write(&new, serde_json::to_vec(exit)?)?;
    fs::rename(new, dir.join(EXIT_FILE))
}

/// All containers of a shim.
#[derive(Default)]
pub(crate) struct Containers(HashMap<String, Container>);

impl Containers {
    pub(crate) fn get(&self, id: &str) -> Option<&Container> {
        self.0.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &str) -> Option<&mut Container> {
        self.0.get_mut(id)
    }

    pub(crate) fn insert(&mut self, container: Container) {
        self.0.insert(container.id.clone(), container);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Container> {
        self.0.remove(id)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Container> {
        self.0.values()
    }

    /// The running container whose first process this is.
    pub(crate) fn by_pid(&self, pid: i32) -> Option<String> {
        self.0.values().find(|c| c.pid == Some(pid) && c.exit.is_none()).map(|c| c.id.clone())
    }
}

impl Logs for Containers {
    fn log(&mut self, container: &str) -> Option<&mut LogFile> {
        self.get_mut(container)?.log.as_mut()
    }
}
