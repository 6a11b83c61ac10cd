//! The first process of a pod's shared process id namespace: waits and reaps, and can do nothing else.

use std::{fs::File, io::Write, path::PathBuf};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{chdir, pivot_root, setsid},
};

use super::{
    memory,
    process::{Capabilities, prctl, set_capabilities, set_name, set_oom_score},
    syscalls,
};

/// The user that the reference pause image runs as.
const USER: u32 = 65535;

/// Turns this freshly forked process, number 1 of its namespace, into the pause process.
///
/// Containers of the pod see it, and those with CAP_SYS_PTRACE may look into it: so it keeps no descriptor,
/// no capability, and sees no file system but an empty one.
///
/// What goes wrong is written to `complaints`, which closes in any case.
pub(super) fn run(cgroup: &[PathBuf], mut complaints: File) -> ! {
    if let Err(error) = prepare(cgroup) {
        // Whoever reads it may be gone.
        let _ = write!(complaints, "{error}");
        syscalls::exit_now(1)
    }
    // The destructor must not close a number that isn't ours any more.
    std::mem::forget(complaints);
    wait_forever()
}

fn prepare(cgroup: &[PathBuf]) -> std::io::Result<()> {
    setsid()?;
    crate::cgroup::join(cgroup)?;
    set_oom_score(super::OOM_SCORE_ADJ)?;
    prctl(libc::PR_SET_DUMPABLE, 0)?;
    set_name(c"pause")?;
    // What the shim was started with are paths of the machine.
    syscalls::set_title(c"/pause")?;
    empty_root()?;
    syscalls::set_user(USER, USER, &[])?;
    set_capabilities(Capabilities::default())?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)?;
    syscalls::close_from(0, false)
}

fn empty_root() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    // Any directory will do; this one exists everywhere.
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), "/proc", Some("tmpfs"), flags, Some("mode=0555,size=4k"))?;
    chdir("/proc")?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}

fn wait_forever() -> ! {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT] {
        signals.add(signal);
    }
    if signals.thread_set_mask().is_err() {
        syscalls::exit_now(1);
    }
    memory::trim();
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(_) => syscalls::exit_now(0),
            Err(_) => {}
        }
    }
}

fn reap() {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
