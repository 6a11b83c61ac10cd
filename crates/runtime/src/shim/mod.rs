//! The shim: one small process per pod that starts its containers, keeps their output and learns their end.
//!
//! It outlives the server that started it. It is this same executable, dispatched before any thread exists
//! ([`crate::dispatch`]), single-threaded and synchronous; what needs memory (libcontainer) runs in helpers
//! that it forks and that go away.

mod connection;
pub(crate) mod container;
mod control;
mod create;
mod exec;
pub(crate) mod hook;
mod image_paths;
mod log_file;
mod memory;
mod mount_table;
pub(crate) mod mounts;
mod oci;
mod output;
mod pause;
pub(crate) mod process;
pub(crate) mod protocol;
mod reactor;
mod report_log;
mod sandbox;
mod server;
pub(crate) mod syscalls;
pub(crate) mod terminal;

use std::{
    fs,
    io::{self, Write},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

pub(crate) use connection::{receive, send};
pub(crate) use log_file::now_nanos;
pub(crate) use output::set_nonblocking;

use self::server::Server;

/// `argv[0]` of a shim. Its arguments: cluster, sandbox, the sandbox's directory, then the directories of the
/// group that it lives in. Its stdin is the listening socket.
pub(crate) const NAME: &str = "pilothouse-shim";

/// Name of the file in which a shim says who it is.
pub(crate) const PID_FILE: &str = "shim.pid";

/// Kernel value: killed after everything but the machine's own services.
const OOM_SCORE_ADJ: i32 = -998;

/// Runs as a shim until told to end; the exit code.
pub(crate) fn main(args: &[std::ffi::OsString]) -> i32 {
    let [_, _, _, dir, cgroup @ ..] = args else {
        return 2;
    };
    let cgroup: Vec<PathBuf> = cgroup.iter().map(PathBuf::from).collect();
    match run(Path::new(dir), &cgroup) {
        Ok(()) => 0,
        Err(error) => {
            // Stderr is the shim's own log file in the sandbox's directory.
            drop(writeln!(io::stderr(), "shim: {error}"));
            1
        }
    }
}

fn run(dir: &Path, cgroup: &[PathBuf]) -> io::Result<()> {
    memory::configure();
    // It was executed by a descriptor, so the kernel took that one's number for its name.
    process::set_name(c"pilothouse-shim")?;
    let listener = take_listener()?;
    nix::unistd::setsid()?;
    std::env::set_current_dir("/")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    nix::unistd::setgroups(&[])?;
    process::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)?;
    crate::cgroup::join(cgroup)?;
    process::set_oom_score(OOM_SCORE_ADJ)?;
    write_pid(dir)?;
    let server = Server::new(listener)?;
    server.run()
}

/// The listening socket comes as stdin; `/dev/null` takes its place.
fn take_listener() -> io::Result<UnixListener> {
    let socket = control::duplicate(&io::stdin())?;
    let null = fs::File::open("/dev/null")?;
    nix::unistd::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), 0)?;
    drop(null);
    // Whatever else the server's starters left open is not to live as long as the pod.
    let first_foreign = std::os::fd::AsRawFd::as_raw_fd(&socket) + 1;
    syscalls::close_from(first_foreign, false)?;
    Ok(UnixListener::from(socket))
}

/// Writes number and start time, so that a later server can tell this process from one that got its number.
fn write_pid(dir: &Path) -> io::Result<()> {
    let pid = std::process::id();
    let started = start_time(pid as i32)?;
    let new = dir.join(".shim.pid.new");
    fs::write(&new, format!("{pid} {started}\n"))?;
    fs::rename(new, dir.join(PID_FILE))
}

/// A process's start time, in ticks since boot.
pub(crate) fn start_time(pid: i32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name, in parentheses, may contain anything.
    stat.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_whitespace().nth(19))
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other("unexpected /proc/…/stat"))
}
