//! Running a process in a running container.

use std::{
    fs, io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use super::{
    control::{self, Report, Reporter, Reports},
    process::{Filter, Prepared, ProcessSpec, become_process, enter_cwd, prctl, set_oom_score},
    syscalls::{self, Fork},
    terminal,
};

/// Where the process goes.
pub(crate) struct Target<'a> {
    /// The container's first process.
    pub(crate) pidfd: BorrowedFd<'a>,
    pub(crate) cgroup_dirs: &'a [PathBuf],
}

/// Forks the process; how it went is read from the reports.
///
/// `stdio` are stdin, stdout and stderr, `/dev/null` where `None`; without meaning for a terminal.
pub(crate) fn spawn(target: &Target<'_>, process: &ProcessSpec, stdio: [Option<OwnedFd>; 3]) -> io::Result<Reports> {
    let (reports, reporter) = control::pair()?;
    match syscalls::fork()? {
        Fork::Parent(_) => Ok(reports),
        Fork::Child => {
            drop(reports);
            if let Err(message) = enter(target, process, stdio, &reporter) {
                reporter.send(&Report::Failed(message), None);
            }
            syscalls::exit_now(0)
        }
    }
}

const ALL_NAMESPACES: libc::c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP;

fn enter(
    target: &Target<'_>,
    process: &ProcessSpec,
    stdio: [Option<OwnedFd>; 3],
    reporter: &Reporter,
) -> Result<(), String> {
    let filter = Filter::of(process).map_err(|e| format!("seccomp filter: {e}"))?;
    crate::cgroup::join(target.cgroup_dirs).map_err(|e| format!("join the cgroup: {e}"))?;
    if let Some(score) = process.oom_score_adj {
        set_oom_score(score).map_err(|e| format!("set oom_score_adj: {e}"))?;
    }
    // From here to execve nobody in the container may look into this process.
    prctl(libc::PR_SET_DUMPABLE, 0).map_err(|e| format!("prctl: {e}"))?;
    syscalls::set_namespaces(target.pidfd, ALL_NAMESPACES)
        .map_err(|e| format!("join the container's namespaces: {e}"))?;
    // The process id namespace holds for children only.
    match syscalls::fork().map_err(|e| format!("fork: {e}"))? {
        Fork::Parent(pid) => {
            reporter.send(&Report::Pid(pid), None);
            Ok(())
        }
        Fork::Child => {
            let message = match run(process, filter, stdio, reporter) {
                Ok(message) => message,
                Err(message) => {
                    reporter.send(&Report::Failed(message), None);
                    syscalls::exit_now(255)
                }
            };
            complain(&message);
            syscalls::exit_now(255)
        }
    }
}

/// Tells the user of the process, since it already counts as started.
pub(crate) fn complain(message: &str) {
    let line = format!("{message}\n");
    // Whoever listened may be gone.
    let _ = nix::unistd::write(io::stderr(), line.as_bytes());
}

fn run(
    process: &ProcessSpec,
    filter: Option<Filter>,
    stdio: [Option<OwnedFd>; 3],
    reporter: &Reporter,
) -> Result<String, String> {
    nix::unistd::setsid().map_err(|e| format!("setsid: {e}"))?;
    if process.terminal {
        let terminal = terminal::open().map_err(|e| format!("open a terminal: {e}"))?;
        reporter.send(&Report::Terminal, Some(terminal.master.as_raw_fd()));
        terminal::make_stdio(terminal.slave).map_err(|e| format!("terminal: {e}"))?;
    } else {
        connect_stdio(stdio).map_err(|e| format!("stdio: {e}"))?;
    }
    give_stdio(process.uid).map_err(|e| format!("stdio: {e}"))?;
    syscalls::close_from(3, true).map_err(|e| format!("close_range: {e}"))?;
    syscalls::set_user(process.uid, process.gid, &process.groups)
        .map_err(|e| format!("set user {}:{}: {e}", process.uid, process.gid))?;
    // Entering the namespaces left us in the container's root directory.
    enter_cwd(&process.cwd, false)?;
    let prepared = Prepared::new(process, filter)?;
    Ok(become_process(&prepared))
}

fn connect_stdio(stdio: [Option<OwnedFd>; 3]) -> io::Result<()> {
    // First away from 0 to 2, then each to its place: one may be where another has to go.
    let mut high = Vec::new();
    for fd in stdio {
        high.push(match fd {
            Some(fd) => control::duplicate(&fd)?,
            None => {
                let null = fs::File::options().read(true).write(true).open("/dev/null")?;
                control::duplicate(&null)?
            }
        });
    }
    for (number, fd) in high.iter().enumerate() {
        nix::unistd::dup2(fd.as_raw_fd(), number as i32)?;
    }
    Ok(())
}

/// Makes stdio the user's, so that `/dev/stdout` can be opened by it.
pub(crate) fn give_stdio(uid: u32) -> nix::Result<()> {
    const NULL_DEVICE: u64 = libc::makedev(1, 3);
    for fd in 0..3 {
        let stat = nix::sys::stat::fstat(fd)?;
        let null = stat.st_mode & libc::S_IFMT == libc::S_IFCHR && stat.st_rdev == NULL_DEVICE;
        if null || stat.st_uid == uid {
            continue;
        }
        match nix::unistd::fchown(fd, Some(nix::unistd::Uid::from_raw(uid)), None) {
            // Descriptors that have no owner worth the name, such as sockets.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::EPERM | nix::errno::Errno::EROFS) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
