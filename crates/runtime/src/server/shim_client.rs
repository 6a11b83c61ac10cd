//! The server's side of a shim's socket.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{io::Interest, net::UnixStream};

use crate::shim::{
    self,
    protocol::{ContainerState, DecodeError, Decoder, ErrorKind, Event, FromShim, Request, Response, VERSION, encode},
    syscalls,
};

/// Name of the socket in a sandbox's directory.
pub(crate) const SOCKET: &str = "shim.sock";

/// A shim that doesn't answer within this time is taken for dead; it does nothing that blocks.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a shim didn't do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShimError {
    /// There is no shim behind the socket.
    #[error("the pod's shim is gone")]
    Gone(#[source] io::Error),
    #[error("the pod's shim does not answer")]
    Silent,
    #[error("the pod's shim sent something unexpected")]
    Unexpected,
    #[error("the pod's shim sent something that is not understood")]
    Decode(#[from] DecodeError),
    /// It refused; the message says why.
    #[error("{message}")]
    Refused { kind: ErrorKind, message: String },
}

/// Knows where a shim listens. Each call is a connection of its own, which costs little and leaves no state.
#[derive(Clone, Debug)]
pub(crate) struct ShimClient {
    dir: PathBuf,
}

impl ShimClient {
    /// For the shim of the sandbox with this directory.
    pub(crate) fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    pub(crate) async fn connect(&self) -> Result<Channel, ShimError> {
        let dir = syscalls::open_path(&self.dir).map_err(ShimError::Gone)?;
        let stream = UnixStream::connect(socket_path(&dir)).await.map_err(ShimError::Gone)?;
        let mut channel = Channel { stream, decoder: Decoder::default(), next: 0 };
        let hello = Request::Hello { version: VERSION };
        match channel.call_within(PATIENCE, &hello, &[]).await? {
            (Response::Hello { .. }, _) => Ok(channel),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// One request that is answered at once.
    pub(crate) async fn call(&self, request: &Request) -> Result<Response, ShimError> {
        let mut channel = self.connect().await?;
        let (response, _) = channel.call_within(PATIENCE, request, &[]).await?;
        Ok(response)
    }

    /// One request that takes as long as it takes.
    pub(crate) async fn call_patiently(&self, request: &Request) -> Result<Response, ShimError> {
        let mut channel = self.connect().await?;
        let (response, _) = channel.call(request, &[]).await?;
        Ok(response)
    }
}

/// A path to the socket that fits into a socket address however deep the directory is.
pub(crate) fn socket_path(dir: &OwnedFd) -> PathBuf {
    Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(SOCKET)
}

/// An open connection.
pub(crate) struct Channel {
    stream: UnixStream,
    decoder: Decoder,
    next: u64,
}

impl Channel {
    /// Sends a request and waits for its response.
    pub(crate) async fn call(
        &mut self,
        request: &Request,
        fds: &[OwnedFd],
    ) -> Result<(Response, Vec<OwnedFd>), ShimError> {
        self.next += 1;
        self.send(&encode(self.next, fds.len(), request), fds).await.map_err(ShimError::Gone)?;
        match self.receive().await? {
            (id, FromShim::Response(response), fds) if id == self.next => match response {
                Response::Error { kind, message } => Err(ShimError::Refused { kind, message }),
                response => Ok((response, fds)),
            },
            // Nothing else is asked on this connection yet.
            _ => Err(ShimError::Unexpected),
        }
    }

    async fn call_within(
        &mut self,
        time: Duration,
        request: &Request,
        fds: &[OwnedFd],
    ) -> Result<(Response, Vec<OwnedFd>), ShimError> {
        tokio::time::timeout(time, self.call(request, fds)).await.map_err(|_| ShimError::Silent)?
    }

    /// Asks for all containers and for events from now on.
    pub(crate) async fn subscribe(&mut self) -> Result<Vec<ContainerState>, ShimError> {
        match self.call_within(PATIENCE, &Request::Subscribe, &[]).await? {
            (Response::State { containers }, _) => Ok(containers),
            _ => Err(ShimError::Unexpected),
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// [`ShimError::Gone`] when the shim ends.
    pub(crate) async fn event(&mut self) -> Result<Event, ShimError> {
        match self.receive().await? {
            (_, FromShim::Event(event), _) => Ok(event),
            _ => Err(ShimError::Unexpected),
        }
    }

    async fn send(&self, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
        let mut sent = 0;
        while sent < bytes.len() {
            // Descriptors go with the first byte.
            let with = if sent == 0 { fds } else { &[] };
            sent += self.stream.async_io(Interest::WRITABLE, || shim::send(&self.stream, &bytes[sent..], with)).await?;
        }
        Ok(())
    }

    async fn receive(&mut self) -> Result<(u64, FromShim, Vec<OwnedFd>), ShimError> {
        loop {
            if let Some((frame, fds)) = self.decoder.next::<FromShim>()? {
                return Ok((frame.id, frame.body, fds));
            }
            let (bytes, fds) = self
                .stream
                .async_io(Interest::READABLE, || shim::receive(&self.stream))
                .await
                .map_err(ShimError::Gone)?;
            if bytes.is_empty() {
                return Err(ShimError::Gone(io::ErrorKind::UnexpectedEof.into()));
            }
            self.decoder.feed(&bytes, fds);
        }
    }
}
