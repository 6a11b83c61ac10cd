//! The namespaces of a sandbox, made by a child and held by the shim's descriptors.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use nix::sched::{CloneFlags, setns, unshare};

use super::{
    control, pause,
    protocol::SandboxPlan,
    syscalls::{self, Fork},
};

/// The namespaces that a pod's containers share. What is `None` is the machine's.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    pub(crate) uts: Option<OwnedFd>,
    pub(crate) ipc: Option<OwnedFd>,
    pub(crate) pid: Option<OwnedFd>,
    pub(crate) network: Option<PathBuf>,
    /// The pause process, when the pod shares process ids.
    pub(crate) pause: Option<i32>,
}

/// Makes the namespaces. The pause process becomes a child of the shim.
///
/// # Errors
/// Says which step failed.
pub(crate) fn create(plan: &SandboxPlan) -> Result<Namespaces, String> {
    let mut namespaces = Namespaces { network: plan.network.clone(), ..Default::default() };
    if plan.hostname.is_none() && !plan.ipc && !plan.pid && plan.sysctls.is_empty() {
        return Ok(namespaces);
    }
    let (mut ours, theirs) = UnixStream::pair().map_err(|e| format!("socketpair: {e}"))?;
    let child = match syscalls::fork().map_err(|e| format!("fork: {e}"))? {
        Fork::Child => {
            drop(ours);
            run_child(plan, theirs)
        }
        Fork::Parent(pid) => pid,
    };
    drop(theirs);
    let mut answer = Vec::new();
    let result = read_answer(&mut ours, &mut answer).and_then(|pause| {
        let open = |kind: &str| {
            File::open(format!("/proc/{child}/ns/{kind}"))
                .map(OwnedFd::from)
                .map_err(|e| format!("open the {kind} namespace: {e}"))
        };
        if plan.hostname.is_some() {
            namespaces.uts = Some(open("uts")?);
        }
        if plan.ipc {
            namespaces.ipc = Some(open("ipc")?);
        }
        if plan.pid {
            namespaces.pid = Some(open("pid_for_children")?);
            namespaces.pause = Some(pause);
        }
        Ok(())
    });
    // The child waits for this end to close, and is reaped with all others.
    drop(ours);
    result.map(|()| namespaces)
}

/// One line: the pause process's number (0 without one), or `!` and what failed.
fn read_answer(stream: &mut UnixStream, answer: &mut Vec<u8>) -> Result<i32, String> {
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Err("the sandbox process died".into()),
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => answer.push(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let text = String::from_utf8_lossy(answer);
    match text.strip_prefix('!') {
        Some(message) => Err(message.to_owned()),
        None => text.parse().map_err(|_| format!("unexpected answer {text:?}")),
    }
}

fn run_child(plan: &SandboxPlan, mut stream: UnixStream) -> ! {
    let line = match set_up(plan) {
        Ok(pause) => format!("{pause}\n"),
        Err(message) => format!("!{}\n", message.replace('\n', " ")),
    };
    if stream.write_all(line.as_bytes()).is_ok() {
        // Until the parent has opened our namespaces.
        let _ = stream.read(&mut [0]);
    }
    syscalls::exit_now(0)
}

fn set_up(plan: &SandboxPlan) -> Result<i32, String> {
    if let Some(path) = &plan.network {
        let file = File::open(path).map_err(|e| format!("open {}: {e}", path.display()))?;
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|e| format!("join the network namespace {}: {e}", path.display()))?;
    }
    let mut flags = CloneFlags::empty();
    flags.set(CloneFlags::CLONE_NEWUTS, plan.hostname.is_some());
    flags.set(CloneFlags::CLONE_NEWIPC, plan.ipc);
    flags.set(CloneFlags::CLONE_NEWPID, plan.pid);
    unshare(flags).map_err(|e| format!("unshare: {e}"))?;
    if let Some(hostname) = &plan.hostname {
        nix::unistd::sethostname(hostname).map_err(|e| format!("set the host name: {e}"))?;
    }
    for (path, value) in &plan.sysctls {
        fs::write(format!("/proc/sys/{path}"), value).map_err(|e| format!("sysctl {path}={value}: {e}"))?;
    }
    if !plan.pid {
        return Ok(0);
    }
    let (complaints, writer) = control::pipe().map_err(|e| format!("pipe: {e}"))?;
    match syscalls::fork().map_err(|e| format!("fork: {e}"))? {
        Fork::Child => pause::run(&plan.pause_cgroup, File::from(writer)),
        Fork::Parent(pid) => {
            drop(writer);
            let mut message = String::new();
            // It closes all descriptors when it is ready.
            File::from(complaints).read_to_string(&mut message).map_err(|e| e.to_string())?;
            if message.is_empty() { Ok(pid) } else { Err(format!("start the pause process: {message}")) }
        }
    }
}
