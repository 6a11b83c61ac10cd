//! The sessions behind the protocols: a process, a container's streams, connections into a pod.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    net::{TcpSocket, TcpStream, unix::pipe},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use super::{
    port_forward::{ForwardCommand, ForwardEvent, ForwardId},
    remote_command::{ClientEvent, Outcome, ToClient},
};
use crate::{
    server::{Attachment, ExecStdio, Execution, Runtime, RuntimeError, Wanted, blocking, input_pipe, output_pipe},
    shim::terminal,
};

/// How long a client may take to open its streams.
const STREAM_PATIENCE: Duration = Duration::from_secs(30);

/// How long output is still waited for when the process has ended but something holds its output open.
const LINGER: Duration = Duration::from_secs(10);

const CHUNK: usize = 32 << 10;

/// What a client sends goes here.
enum Input {
    Pipe(pipe::Sender),
    Terminal(Arc<AsyncFd<OwnedFd>>),
    None,
}

impl Input {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Pipe(pipe) => pipe.write_all(bytes).await,
            Self::Terminal(fd) => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let mut ready = fd.writable().await?;
                    let result = ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), rest)?));
                    match result {
                        Ok(written) => rest = &rest[written?..],
                        Err(_would_block) => {}
                    }
                }
                Ok(())
            }
            Self::None => Ok(()),
        }
    }
}

/// Copies a pipe to the client, to its end.
async fn copy_pipe(mut pipe: pipe::Receiver, to: mpsc::Sender<ToClient>, wrap: fn(Bytes) -> ToClient) {
    let mut buffer = vec![0; CHUNK];
    // An error is the end, too.
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        if to.send(wrap(bytes)).await.is_err() {
            return;
        }
    }
}

/// Copies a terminal to the client, until its last user has gone.
async fn copy_terminal(fd: Arc<AsyncFd<OwnedFd>>, to: mpsc::Sender<ToClient>) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(mut ready) = fd.readable().await {
        let result = ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref().as_raw_fd(), &mut buffer)?));
        match result {
            Ok(Ok(length @ 1..)) => {
                let bytes = Bytes::copy_from_slice(&buffer[..length]);
                if to.send(ToClient::Stdout(bytes)).await.is_err() {
                    return;
                }
            }
            Ok(_) => return,
            Err(_would_block) => {}
        }
    }
}

/// Waits until the client has opened its streams.
async fn ready(events: &mut mpsc::Receiver<ClientEvent>) -> bool {
    let first = timeout(STREAM_PATIENCE, events.recv()).await;
    matches!(first, Ok(Some(ClientEvent::Ready)))
}

/// Runs a command for a client. When the client leaves early, the process loses its terminal or its pipes,
/// and goes on.
pub(crate) async fn exec(
    runtime: Arc<Runtime>,
    container: String,
    command: Vec<String>,
    with_terminal: bool,
    wanted: Wanted,
    mut events: mpsc::Receiver<ClientEvent>,
    to: mpsc::Sender<ToClient>,
) {
    if !ready(&mut events).await {
        return;
    }
    let started = start(&runtime, &container, &command, with_terminal, wanted, &to).await;
    let (mut execution, mut input, mut copies) = match started {
        Ok(started) => started,
        Err(error) => {
            let outcome = Outcome::Failure(error.chain());
            let _ = to.send(ToClient::Finish(outcome)).await;
            return;
        }
    };
    let terminal = execution.terminal_fd();
    let code = loop {
        tokio::select! {
            code = execution.wait() => break code,
            event = events.recv() => match event {
                Some(ClientEvent::Stdin(bytes)) => {
                    // A process that doesn't read any more must not end the session: it may still write.
                    if input.write(&bytes).await.is_err() {
                        input = Input::None;
                    }
                }
                Some(ClientEvent::StdinClosed) => {
                    if matches!(input, Input::Pipe(_)) {
                        input = Input::None;
                    }
                }
                Some(ClientEvent::Resize { width, height }) => {
                    if let Some(fd) = &terminal
                        && let Err(error) = terminal::resize(fd.as_raw_fd(), width, height)
                    {
                        tracing::debug!(%error, "a terminal was not resized");
                    }
                }
                Some(ClientEvent::Ready) => {}
                None => {
                    copies.abort_all();
                    drop((input, terminal));
                    execution.close_terminal();
                    // Dropping it now would end the process.
                    runtime.spawn(async move {
                        // How it ends interests nobody any more.
                        let _ = execution.wait().await;
                    });
                    return;
                }
            },
        }
    };
    drop(input);
    let drained = timeout(LINGER, async { while copies.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        copies.abort_all();
    }
    let outcome = match code {
        Ok(0) => Outcome::Success,
        Ok(code) => Outcome::ExitCode { code, command },
        Err(error) => Outcome::Failure(error.chain()),
    };
    let _ = to.send(ToClient::Finish(outcome)).await;
}

async fn start(
    runtime: &Runtime,
    container: &str,
    command: &[String],
    with_terminal: bool,
    wanted: Wanted,
    to: &mpsc::Sender<ToClient>,
) -> Result<(TerminalExecution, Input, JoinSet<()>), RuntimeError> {
    let pipe_error = || RuntimeError::io("make a pipe");
    let mut copies = JoinSet::new();
    let mut input = Input::None;
    let mut stdio = ExecStdio::default();
    let mut readers = Vec::new();
    if !with_terminal {
        if wanted.stdin {
            let (ours, theirs) = input_pipe().map_err(pipe_error())?;
            input = Input::Pipe(ours);
            stdio.stdin = Some(theirs);
        }
        if wanted.stdout {
            let (ours, theirs) = output_pipe().map_err(pipe_error())?;
            readers.push((ours, ToClient::Stdout as fn(Bytes) -> ToClient));
            stdio.stdout = Some(theirs);
        }
        if wanted.stderr {
            let (ours, theirs) = output_pipe().map_err(pipe_error())?;
            readers.push((ours, ToClient::Stderr as fn(Bytes) -> ToClient));
            stdio.stderr = Some(theirs);
        }
    }
    let mut execution = runtime.exec(container, command.to_vec(), with_terminal, stdio).await?;
    for (pipe, wrap) in readers {
        copies.spawn(copy_pipe(pipe, to.clone(), wrap));
    }
    let mut terminal = None;
    if let Some(fd) = execution.terminal.take() {
        let fd = async_terminal(fd).map_err(RuntimeError::io("use the terminal"))?;
        if wanted.stdout {
            copies.spawn(copy_terminal(fd.clone(), to.clone()));
        }
        if wanted.stdin {
            input = Input::Terminal(fd.clone());
        }
        terminal = Some(fd);
    }
    let execution = TerminalExecution { execution, terminal };
    Ok((execution, input, copies))
}

/// A process with its terminal's master side.
struct TerminalExecution {
    execution: Execution,
    terminal: Option<Arc<AsyncFd<OwnedFd>>>,
}

impl TerminalExecution {
    async fn wait(&mut self) -> Result<i32, RuntimeError> {
        self.execution.wait().await
    }

    fn terminal_fd(&self) -> Option<Arc<AsyncFd<OwnedFd>>> {
        self.terminal.clone()
    }

    fn close_terminal(&mut self) {
        self.terminal = None;
    }
}

#[allow(unsafe_code, reason = "the reactor is told of a descriptor")]
fn async_terminal(fd: OwnedFd) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
    crate::shim::set_nonblocking(&fd)?;
    // SAFETY: an owned descriptor stays the same and open until it is dropped with its registration.
    Ok(Arc::new(unsafe { AsyncFd::register(fd) }?))
}

/// Connects a client with a container's own streams until the container ends or the client leaves.
pub(crate) async fn attach(
    runtime: Arc<Runtime>,
    container: String,
    wanted: Wanted,
    mut events: mpsc::Receiver<ClientEvent>,
    to: mpsc::Sender<ToClient>,
) {
    if !ready(&mut events).await {
        return;
    }
    let attached = connect_streams(&runtime, &container, wanted, &to).await;
    let (mut attachment, mut input, mut copies) = match attached {
        Ok(attached) => attached,
        Err(error) => {
            let outcome = Outcome::Failure(error.chain());
            let _ = to.send(ToClient::Finish(outcome)).await;
            return;
        }
    };
    let has_output = !copies.is_empty();
    loop {
        tokio::select! {
            ended = copies.join_next(), if has_output => {
                if ended.is_none() {
                    break;
                }
            }
            () = attachment.container_ended(), if !has_output => break,
            event = events.recv() => match event {
                Some(ClientEvent::Stdin(bytes)) => {
                    if input.write(&bytes).await.is_err() {
                        input = Input::None;
                    }
                }
                Some(ClientEvent::StdinClosed) => {
                    // With stdin-once this was the container's only one, so it sees the end.
                    if matches!(input, Input::Pipe(_)) {
                        input = Input::None;
                    }
                    if !has_output {
                        break;
                    }
                }
                Some(ClientEvent::Resize { width, height }) => {
                    if let Err(error) = attachment.resize(width, height).await {
                        let error = error.chain();
                        tracing::debug!(error, "a terminal was not resized");
                    }
                }
                Some(ClientEvent::Ready) => {}
                None => return,
            },
        }
    }
    let _ = to.send(ToClient::Finish(Outcome::Success)).await;
}

async fn connect_streams(
    runtime: &Arc<Runtime>,
    container: &str,
    wanted: Wanted,
    to: &mpsc::Sender<ToClient>,
) -> Result<(Attachment, Input, JoinSet<()>), RuntimeError> {
    let pipe_error = || RuntimeError::io("make a pipe");
    let mut copies = JoinSet::new();
    let mut pipe = |asked: bool, wrap: fn(Bytes) -> ToClient| {
        if !asked {
            return Ok(None);
        }
        let (ours, theirs) = output_pipe().map_err(pipe_error())?;
        copies.spawn(copy_pipe(ours, to.clone(), wrap));
        Ok::<_, RuntimeError>(Some(theirs))
    };
    let stdout = pipe(wanted.stdout, ToClient::Stdout)?;
    let stderr = pipe(wanted.stderr, ToClient::Stderr)?;
    let (attachment, stdin) = runtime.attach(container, wanted.stdin, stdout, stderr).await?;
    let input = match stdin {
        Some(fd) if attachment.terminal => {
            Input::Terminal(async_terminal(fd).map_err(RuntimeError::io("use the terminal"))?)
        }
        Some(fd) => {
            let pipe = pipe::Sender::from_owned_fd(fd).map_err(pipe_error())?;
            Input::Pipe(pipe)
        }
        None => Input::None,
    };
    Ok((attachment, input, copies))
}

/// Connects a client with ports of a pod for as long as it stays.
pub(crate) async fn port_forward(
    netns: Option<PathBuf>,
    sandbox: String,
    mut events: mpsc::Receiver<ForwardEvent>,
    to: mpsc::Sender<ForwardCommand>,
) {
    let mut connections: HashMap<ForwardId, mpsc::Sender<Bytes>> = HashMap::new();
    let mut tasks = JoinSet::new();
    while let Some(event) = events.recv().await {
        match event {
            ForwardEvent::Open { id, port } => {
                let (sender, receiver) = mpsc::channel(16);
                connections.insert(id, sender);
                let (netns, sandbox, to) = (netns.clone(), sandbox.clone(), to.clone());
                tasks.spawn(forward(id, port, netns, sandbox, receiver, to));
            }
            ForwardEvent::Data { id, bytes } => {
                if let Some(connection) = connections.get(&id) {
                    // One that has ended takes no more.
                    let _ = connection.send(bytes).await;
                }
            }
            ForwardEvent::Ended { id } | ForwardEvent::Reset { id } => {
                connections.remove(&id);
            }
        }
        while tasks.try_join_next().is_some() {}
    }
}

async fn forward(
    id: ForwardId,
    port: u16,
    netns: Option<PathBuf>,
    sandbox: String,
    mut from_client: mpsc::Receiver<Bytes>,
    to: mpsc::Sender<ForwardCommand>,
) {
    let stream = match dial(netns.clone(), port).await {
        Ok(stream) => stream,
        Err(error) => {
            let place = netns.map_or_else(|| "host".to_owned(), |p| p.display().to_string());
            let message = format!(
                "error forwarding port {port} to pod {sandbox}, uid : failed to connect to localhost:{port} \
                 inside namespace {place:?}: {error}"
            );
            let _ = to.send(ForwardCommand::Fail { id, message }).await;
            return;
        }
    };
    let (mut reader, mut writer) = stream.into_split();
    let sending = async {
        while let Some(bytes) = from_client.recv().await {
            if writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // Only this direction: the answer may still be under way.
        let _ = writer.shutdown().await;
    };
    let receiving = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            let bytes = Bytes::copy_from_slice(&buffer[..length]);
            if to.send(ForwardCommand::Data { id, bytes }).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(sending, receiving);
    // The pod's end is the end; the client's is not.
    let mut sent = false;
    loop {
        tokio::select! {
            () = &mut sending, if !sent => sent = true,
            () = &mut receiving => break,
        }
    }
    let _ = to.send(ForwardCommand::Close { id }).await;
}

/// Connects to a port of a pod's loopback interface, IPv4 first.
async fn dial(netns: Option<PathBuf>, port: u16) -> io::Result<TcpStream> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    match connect(netns.clone(), v4).await {
        Ok(stream) => Ok(stream),
        Err(first) => {
            connect(netns, v6).await.map_err(|second| io::Error::other(format!("IPv4: {first}, IPv6: {second}")))
        }
    }
}

async fn connect(netns: Option<PathBuf>, address: SocketAddr) -> io::Result<TcpStream> {
    // A socket belongs to the namespace that it was made in, wherever it is used.
    let socket = blocking(move || match netns {
        None => new_socket(address),
        Some(path) => {
            let namespace = network::netns::Namespace::open(&path).map_err(io::Error::other)?;
            namespace.run(|| new_socket(address)).map_err(io::Error::other)?
        }
    })
    .await?;
    socket.connect(address).await
}

fn new_socket(address: SocketAddr) -> io::Result<TcpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(family, SockType::Stream, flags, None)?;
    Ok(TcpSocket::from_std_stream(StdTcpStream::from(fd)))
}
