//! Finding again what an earlier server left: running shims, ended containers, half-made directories.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cri::v1::{ContainerConfig, ContainerEventType, ContainerState, PodSandboxConfig};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use tokio::sync::oneshot;

use super::{
    Runtime, blocking,
    containers::{UNKNOWN, UNKNOWN_CODE},
    error::{Result, RuntimeError},
    names::{container_name, sandbox_name},
    record::{self, ContainerRecord, Finished, SandboxRecord},
    shim_client::{Channel, ShimError},
    state::{Container, Sandbox},
};
use crate::{
    cgroup,
    shim::{
        self,
        container::EXIT_FILE,
        now_nanos,
        protocol::{Event, Exit, Request},
    },
};

/// How long a shim may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

impl Runtime {
    /// Reads all directories, takes up living shims and removes what is half-made.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        let runtime = Arc::clone(self);
        let remains = blocking(move || runtime.load()).await?;
        for id in remains.containers {
            let (runtime, doomed) = (Arc::clone(self), id.clone());
            report(&id, blocking(move || runtime.remove_container_remains(&doomed)).await);
        }
        for id in remains.sandboxes {
            report(&id, self.remove_sandbox_remains(&id).await);
        }
        let mut following = Vec::new();
        for sandbox in self.sandboxes.all() {
            if sandbox.record().ready {
                following.push(self.follow_shim(sandbox));
            } else {
                self.lose_containers(&sandbox.id);
            }
        }
        for synchronized in following {
            // An error means that the shim is gone, and that this has been noted.
            let _ = synchronized.await;
        }
        let runtime = Arc::clone(self);
        blocking(move || runtime.reconcile()).await
    }

    fn load(&self) -> Result<Remains> {
        let mut remains = Remains::default();
        for id in list(&self.layout.sandboxes())? {
            let dir = self.layout.sandbox(&id);
            match record::read::<PodSandboxConfig, SandboxRecord>(&dir) {
                Some((config, record)) => {
                    if let Some(metadata) = &config.metadata
                        && let Ok(name) = self.names.reserve(&sandbox_name(metadata), &id)
                    {
                        name.keep();
                    }
                    let sandbox = Arc::new(Sandbox::new(config, record));
                    self.sandboxes.insert(&id, sandbox);
                }
                None => remains.sandboxes.push(id),
            }
        }
        for id in list(&self.layout.containers())? {
            let dir = self.layout.container(&id);
            let read = record::read::<ContainerConfig, ContainerRecord>(&dir);
            let found = read.and_then(|(config, record)| {
                let sandbox = self.sandboxes.find(&record.sandbox).ok().flatten()?;
                Some((config, record, sandbox))
            });
            match found {
                Some((config, record, sandbox)) => {
                    if let (Some(metadata), Some(pod)) = (&config.metadata, &sandbox.config.metadata)
                        && let Ok(name) = self.names.reserve(&container_name(metadata, pod), &id)
                    {
                        name.keep();
                    }
                    let container = Arc::new(Container::new(config, record));
                    self.containers.insert(&id, container);
                }
                None => remains.containers.push(id),
            }
        }
        Ok(remains)
    }

    /// Brings the rest of the machine in line with what was found.
    fn reconcile(&self) -> Result<()> {
        let containers: Vec<String> = self.containers.all().iter().map(|c| c.id.clone()).collect();
        self.images.retain(&containers)?;
        let sandboxes = self.sandboxes.all();
        let attached = sandboxes.iter().filter(|s| s.record().ready).map(|s| s.id.clone()).collect();
        self.network.reconcile(&attached).map_err(RuntimeError::network("bring the pod network in order"))?;
        let mut used: Vec<String> = sandboxes.iter().map(|s| s.record().executable).collect();
        used.push(self.executable.hash.clone());
        super::executable::remove_others(self.layout.bin(), &used)
            .map_err(RuntimeError::io("remove old copies of the executable"))
    }

    /// Follows a sandbox's shim for as long as it lives. The receiver resolves when the containers are in
    /// line with what the shim says.
    pub(crate) fn follow_shim(self: &Arc<Self>, sandbox: Arc<Sandbox>) -> oneshot::Receiver<()> {
        let runtime = Arc::clone(self);
        let (synchronized, receiver) = oneshot::channel();
        // Those that are made from now on may be made, and even started, after the shim says what it has.
        let known = self.containers_of(&sandbox.id);
        self.spawn(async move {
            let client = runtime.shim(&sandbox.id);
            let mut synchronized = Some(synchronized);
            let error = match client.connect().await {
                Ok(channel) => runtime.listen(&known, channel, &mut synchronized).await,
                Err(error) => error,
            };
            // A stop ends the shim on purpose, and waits for this lock to be free or holds it.
            let _exclusive = sandbox.operation.write().await;
            if !sandbox.record().ready {
                return;
            }
            tracing::warn!(sandbox = sandbox.id, %error, "the pod's shim is lost");
            runtime.lose_sandbox(&sandbox).await;
        });
        receiver
    }

    async fn listen(
        &self,
        known: &[Arc<Container>],
        mut channel: Channel,
        synchronized: &mut Option<oneshot::Sender<()>>,
    ) -> ShimError {
        match channel.subscribe().await {
            Ok(states) => {
                for state in &states {
                    let Ok(Some(container)) = self.containers.find(&state.id) else {
                        continue;
                    };
                    self.adopt(&container, state.pid, state.started_at);
                    if let Some(exit) = &state.exit {
                        self.container_exited(&container, exit);
                    }
                }
                // What the shim doesn't know any more has ended, or never ran.
                for container in known {
                    if !states.iter().any(|s| s.id == container.id) {
                        self.take_exit_record(container);
                        self.lose_container(container);
                    }
                }
            }
            Err(error) => return error,
        }
        if let Some(synchronized) = synchronized.take() {
            // Only a start waits for it.
            let _ = synchronized.send(());
        }
        loop {
            match channel.event().await {
                Ok(Event::Exited { container, exit }) => {
                    if let Ok(Some(container)) = self.containers.find(&container) {
                        self.container_exited(&container, &exit);
                    }
                }
                Ok(Event::ExecExited { .. }) => {}
                Err(error) => return error,
            }
        }
    }

    /// A container runs of which an earlier server didn't note that it was started.
    fn adopt(&self, container: &Container, pid: i32, started_at: i64) {
        // While a start is under way, it is the one to note it.
        let Ok(_exclusive) = container.operation.try_lock() else {
            return;
        };
        if container.state() == ContainerState::ContainerCreated && pid > 0 {
            let saved = self.save_status(container, |status| {
                status.pid = Some(pid);
                status.started_at = Some(started_at);
            });
            report(&container.id, saved);
        }
    }

    /// Takes note of an end that was recorded while nobody listened.
    pub(crate) fn take_exit_record(&self, container: &Container) {
        if container.state() != ContainerState::ContainerRunning {
            return;
        }
        let path = self.layout.container(&container.id).join(EXIT_FILE);
        let exit = fs::read(path).ok().and_then(|json| serde_json::from_slice::<Exit>(&json).ok());
        if let Some(exit) = exit {
            self.container_exited(container, &exit);
        }
    }

    /// A container whose shim is gone without having recorded its end.
    fn lose_container(&self, container: &Container) {
        self.finish(
            container,
            Finished {
                at: now_nanos(),
                exit_code: UNKNOWN_CODE,
                reason: UNKNOWN.into(),
                message: "the end of the container was not seen".into(),
            },
        );
    }

    fn lose_containers(&self, sandbox: &str) {
        for container in self.containers_of(sandbox) {
            self.take_exit_record(&container);
            self.lose_container(&container);
        }
    }

    /// The shim is dead: nothing holds the pod together any more, so its processes are ended.
    async fn lose_sandbox(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        for container in self.containers_of(&sandbox.id) {
            let Ok(dirs) = self.cgroups.dirs(&container.record().cgroup) else {
                continue;
            };
            let killed = blocking(move || kill_and_remove_cgroup(&dirs)).await;
            report(&container.id, killed.map_err(RuntimeError::io("end its processes")));
        }
        self.lose_containers(&sandbox.id);
        let record = sandbox.update(|r| r.ready = false);
        let saved = record::write_state(&self.layout.sandbox(&sandbox.id), &record);
        report(&sandbox.id, saved.map_err(RuntimeError::io("save it")));
        self.tell(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
    }

    /// Ends a sandbox's shim with all that it runs. One that is gone is fine.
    pub(crate) async fn end_shim(self: &Arc<Self>, id: &str) -> Result<()> {
        let shim = self.shim(id);
        match tokio::time::timeout(PATIENCE, shim.call_patiently(&Request::Shutdown)).await {
            Ok(Ok(_) | Err(ShimError::Gone(_))) => Ok(()),
            // It hangs, or talks another language: by force then.
            Ok(Err(_)) | Err(_) => {
                let dir = self.layout.sandbox(id);
                blocking(move || kill_shim(&dir))
                    .await
                    .map_err(RuntimeError::io(format!("kill the shim of sandbox {id}")))
            }
        }
    }
}

/// Directories that don't count.
#[derive(Default)]
struct Remains {
    sandboxes: Vec<String>,
    containers: Vec<String>,
}

/// Cleaning goes on with the next when one fails; what is left is tried again at the next start.
fn report(id: &str, result: Result<()>) {
    if let Err(error) = result {
        let error = error.chain();
        tracing::warn!(id, error, "could not bring this in order");
    }
}

/// The names in a directory.
pub(crate) fn list(dir: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.map_err(RuntimeError::io(format!("read {}", dir.display()))),
    }
}

/// Removes a directory that need not exist.
pub(crate) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Kills a shim by the number that it wrote down, if that is still its own.
pub(crate) fn kill_shim(dir: &Path) -> io::Result<()> {
    let Ok(text) = fs::read_to_string(dir.join(shim::PID_FILE)) else {
        return Ok(());
    };
    let mut fields = text.split_whitespace();
    let (Some(pid), Some(started)) = (fields.next(), fields.next()) else {
        return Ok(());
    };
    let (Ok(pid), Ok(started)) = (pid.parse::<i32>(), started.parse::<u64>()) else {
        return Ok(());
    };
    if shim::start_time(pid).ok() != Some(started) {
        return Ok(());
    }
    let pidfd = shim::syscalls::pidfd_open(pid)?;
    match kill(Pid::from_raw(pid), Signal::SIGKILL) {
        Ok(()) => wait_readable(&pidfd),
        Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a process has ended.
fn wait_readable(pidfd: &std::os::fd::OwnedFd) -> io::Result<()> {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout)? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Kills what is in a group and removes it.
pub(crate) fn kill_and_remove_cgroup(dirs: &[PathBuf]) -> io::Result<()> {
    cgroup::kill_all(dirs)?;
    remove_cgroup(dirs)
}

/// Removes a group whose processes are dying. The kernel doesn't tell when the last one is gone from all
/// hierarchies, so this looks again, for a while.
pub(crate) fn remove_cgroup(dirs: &[PathBuf]) -> io::Result<()> {
    let mut pause = Duration::from_millis(1);
    loop {
        match cgroup::remove(dirs) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && pause < PATIENCE / 4 => {
                cgroup::kill_all(dirs)?;
                std::thread::sleep(pause);
                pause *= 2;
            }
            result => return result,
        }
    }
}
