//! Taking part in a container's own streams.

use std::{os::fd::OwnedFd, sync::Arc};

use cri::v1::ContainerState;

use super::{
    Runtime,
    error::{Result, RuntimeError},
    shim_client::{ShimClient, ShimError},
    state::Container,
};
use crate::shim::protocol::{Request, Response};

/// A client's part in a container's streams.
pub(crate) struct Attachment {
    container: Arc<Container>,
    shim: ShimClient,
    /// The container has a terminal.
    pub(crate) terminal: bool,
}

impl Attachment {
    /// Returns when the container has ended.
    pub(crate) async fn container_ended(&mut self) {
        self.container.ended().await;
    }

    /// Sets the size of the container's terminal.
    pub(crate) async fn resize(&self, width: u16, height: u16) -> Result<()> {
        let request = Request::Resize { container: self.container.id.clone(), width, height };
        self.shim.call(&request).await.map_err(RuntimeError::shim("resize the terminal"))?;
        Ok(())
    }
}

impl Runtime {
    /// Copies a running container's output to the descriptors given; its input, when asked for and when the
    /// container has one.
    pub(crate) async fn attach(
        &self,
        id: &str,
        stdin: bool,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) -> Result<(Attachment, Option<OwnedFd>)> {
        let container = self.containers.get(id)?;
        let state = container.state();
        if state != ContainerState::ContainerRunning {
            return Err(RuntimeError::FailedPrecondition(format!("container is in {} state", state.as_str_name())));
        }
        let shim = self.shim(&container.sandbox);
        let request = Request::Attach {
            container: container.id.clone(),
            stdin,
            stdout: stdout.is_some(),
            stderr: stderr.is_some(),
        };
        let fds: Vec<OwnedFd> = [stdout, stderr].into_iter().flatten().collect();
        let failed = || RuntimeError::shim("attach to the container");
        let mut channel = shim.connect().await.map_err(failed())?;
        match channel.call(&request, &fds).await.map_err(failed())? {
            (Response::Attached { terminal, .. }, fds) => {
                Ok((Attachment { container, shim, terminal }, fds.into_iter().next()))
            }
            _ => Err(failed()(ShimError::Unexpected)),
        }
    }
}
