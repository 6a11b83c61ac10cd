//! Running processes in containers.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::Duration,
};

use cri::v1::{ContainerState, ExecSyncResponse};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    time::{Instant, timeout_at},
};

use super::{
    Runtime,
    error::{Result, RuntimeError},
    shim_client::{Channel, ShimError},
    state::lock,
};
use crate::shim::protocol::{Event, ExecPlan, Request, Response};

/// Most output that [`Runtime::exec_sync`] returns: a little less than a message holds.
const OUTPUT_LIMIT: usize = (16 << 20) - (64 << 10);

/// How long output is still waited for when the process has ended but something holds its output open.
const LINGER: Duration = Duration::from_secs(10);

/// Far enough to be never.
const FOREVER: Duration = Duration::from_secs(86_400 * 365);

/// A process that runs. It is killed when this is dropped before it has ended.
pub(crate) struct Execution {
    channel: Channel,
    /// Master side of its terminal.
    pub(crate) terminal: Option<OwnedFd>,
}

impl Execution {
    /// Waits for its end; the exit code, or 128 plus the signal's number.
    pub(crate) async fn wait(&mut self) -> Result<i32> {
        loop {
            match self.channel.event().await {
                Ok(Event::ExecExited { code }) => return Ok(code),
                Ok(Event::Exited { .. }) => {}
                Err(source) => {
                    return Err(RuntimeError::Shim { doing: "wait for the process".into(), source });
                }
            }
        }
    }
}

/// Standard streams of a process to run; `None` is `/dev/null`.
#[derive(Default)]
pub(crate) struct ExecStdio {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl Runtime {
    /// Starts a process in a running container, as the container's user and with its confinement.
    pub(crate) async fn exec(
        &self,
        id: &str,
        command: Vec<String>,
        terminal: bool,
        stdio: ExecStdio,
    ) -> Result<Execution> {
        let container = self.containers.get(id)?;
        let state = container.state();
        if state != ContainerState::ContainerRunning {
            return Err(RuntimeError::FailedPrecondition(format!("container is in {} state", state.as_str_name())));
        }
        let mut process = self.container_process(&container.id)?;
        process.args = command;
        process.terminal = terminal;
        if terminal && !process.env.iter().any(|e| e.starts_with("TERM=")) {
            process.env.push("TERM=xterm".into());
        }
        let plan = ExecPlan {
            container: container.id.clone(),
            process,
            stdin: stdio.stdin.is_some(),
            stdout: stdio.stdout.is_some(),
            stderr: stdio.stderr.is_some(),
        };
        let fds: Vec<OwnedFd> = [stdio.stdin, stdio.stdout, stdio.stderr].into_iter().flatten().collect();
        let failed = || {
            RuntimeError::shim(
                "exec in container: OCI runtime exec failed: exec failed: unable to start container process",
            )
        };
        let mut channel = self.shim(&container.sandbox).connect().await.map_err(failed())?;
        let request = Request::Exec(Box::new(plan));
        match channel.call(&request, &fds).await.map_err(failed())? {
            (Response::Executing { .. }, fds) => Ok(Execution { channel, terminal: fds.into_iter().next() }),
            _ => Err(failed()(ShimError::Unexpected)),
        }
    }

    /// Runs a process to its end and returns its output. A `limit` of zero is none.
    pub(crate) async fn exec_sync(&self, id: &str, command: Vec<String>, limit: Duration) -> Result<ExecSyncResponse> {
        let pipe = || output_pipe().map_err(RuntimeError::io("make a pipe"));
        let (stdout, out) = pipe()?;
        let (stderr, err) = pipe()?;
        let stdio = ExecStdio { stdin: None, stdout: Some(out), stderr: Some(err) };
        let deadline = Instant::now() + if limit.is_zero() { FOREVER } else { limit };
        let exceeded = || {
            RuntimeError::DeadlineExceeded(format!(
                "failed to exec in container: timeout {limit:?} exceeded: context deadline exceeded"
            ))
        };
        let starting = self.exec(id, command, false, stdio);
        let mut execution = timeout_at(deadline, starting).await.map_err(|_| exceeded())??;
        let (out, err) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let mut reading = tokio::spawn(read_both((stdout, out.clone()), (stderr, err.clone())));
        let exit_code = match timeout_at(deadline, execution.wait()).await {
            Ok(code) => code?,
            Err(_) => {
                reading.abort();
                return Err(exceeded());
            }
        };
        let linger = deadline.min(Instant::now() + LINGER);
        if timeout_at(linger, &mut reading).await.is_err() {
            reading.abort();
        }
        let take = |bytes: &Mutex<Vec<u8>>| std::mem::take(&mut *lock(bytes));
        Ok(ExecSyncResponse { stdout: take(&out).into(), stderr: take(&err).into(), exit_code })
    }
}

/// A reading end for us and a writing end for a process.
pub(crate) fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((receiver, sender.into_blocking_fd()?))
}

/// A writing end for us and a reading end for a process.
pub(crate) fn input_pipe() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (sender, receiver) = pipe::pipe()?;
    Ok((sender, receiver.into_blocking_fd()?))
}

type Output = (pipe::Receiver, Arc<Mutex<Vec<u8>>>);

async fn read_both(stdout: Output, stderr: Output) {
    tokio::join!(read_capped(stdout), read_capped(stderr));
}

/// Reads to the end, and keeps what fits: half of the limit each.
async fn read_capped((mut pipe, kept): Output) {
    let mut buffer = vec![0; 16 << 10];
    // An error is the end, too.
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let mut kept = lock(&kept);
        let room = (OUTPUT_LIMIT / 2).saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
}
