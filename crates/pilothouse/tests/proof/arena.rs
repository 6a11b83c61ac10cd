//! Where an attack happens: a network and mounts of its own, so that ports and mount points are nobody else's.

use crate::Fallible;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::process::Command;
use std::time::Duration;

/// How long is waited for what must come: long, because the machine may be busy with anything.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How many rounds an attack has of which `make test` runs `usual`.
pub fn rounds(usual: usize) -> usize {
    let asked = std::env::var("PILOTHOUSE_ROUNDS").ok().and_then(|text| text.parse::<usize>().ok());
    asked.map_or(usual, |asked| (asked * usual / 10).max(1))
}

/// Runs an attack on a thread with a network and mounts of its own, which the processes that it starts share.
pub fn isolated<F: Future<Output = Fallible>>(work: impl FnOnce() -> F + Send) -> Fallible {
    if !nix::unistd::geteuid().is_root() {
        return Err("this test makes network namespaces and mounts: run it as root".into());
    }
    let inside = || -> Fallible {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        run("ip", &["link", "set", "lo", "up"])?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work())
    };
    std::thread::scope(|scope| match scope.spawn(inside).join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Runs a program that has to succeed; gives what it printed.
pub fn run(program: &str, args: &[&str]) -> Fallible<String> {
    let output = Command::new(program).args(args).output().map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
