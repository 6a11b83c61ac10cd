//! Starting a sandbox's shim.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::Stdio,
    sync::Arc,
};

use tokio::process::Command;

use super::{
    Runtime, blocking,
    error::{Result, RuntimeError},
    shim_client::{ShimClient, socket_path},
};
use crate::shim;

/// What a shim prints, which is nothing unless it can't go on.
const LOG: &str = "shim.log";

impl Runtime {
    /// Starts the shim of the sandbox `id`, whose directory exists. It listens already when this returns.
    pub(crate) async fn spawn_shim(self: &Arc<Self>, id: &str) -> Result<ShimClient> {
        let doing = || RuntimeError::io(format!("start the shim of sandbox {id}"));
        let dir = self.layout.sandbox(id);
        let cgroup = self.layout.shim_cgroup();

        let dirs = self.cgroups.dirs(&cgroup)?;
        let runtime = Arc::clone(self);
        blocking(move || runtime.cgroups.create(&cgroup)).await?;
        // Bound here, so that it takes connections before the shim has even started.
        let handle = shim::syscalls::open_path(&dir).map_err(doing())?;
        let listener = UnixListener::bind(socket_path(&handle)).map_err(doing())?;
        let log = File::create(dir.join(LOG)).map_err(doing())?;
        let mut command = Command::new(self.executable.path());
        command
            .arg0(shim::NAME)
            .arg(&self.config.cluster)
            .arg(id)
            .arg(&dir)
            .args(dirs)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(Stdio::from(log));
        // It is reaped whenever it ends; it isn't ours to end.
        drop(command.spawn().map_err(doing())?);
        let client = ShimClient::new(dir);
        client.connect().await.map_err(RuntimeError::shim(format!("start the shim of sandbox {id}")))?;
        Ok(client)
    }

    /// The shim of a sandbox.
    pub(crate) fn shim(&self, sandbox: &str) -> ShimClient {
        ShimClient::new(self.layout.sandbox(sandbox))
    }
}
