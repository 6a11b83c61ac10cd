//! What the server and a shim say to each other over the shim's unix socket.
//!
//! A message is a length (four bytes, big endian) and that many bytes of JSON. Descriptors travel as
//! `SCM_RIGHTS` beside the message's first byte; [`Frame::fds`] says how many. A request has an id that its
//! response repeats. Shims outlive the server that started them, so a server meets shims of older versions:
//! fields may only be added, with a default, and [`VERSION`] rises when that doesn't suffice.

use std::{collections::VecDeque, os::fd::OwnedFd, path::PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{mounts::MountPlan, process::ProcessSpec};

/// Version of the messages.
pub(crate) const VERSION: u32 = 1;

/// A longer message is refused: the peer is broken.
pub(crate) const MAX_MESSAGE: usize = 8 << 20;

/// What surrounds every message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Frame<T> {
    /// Chosen by the client; a response repeats it, an event has 0.
    pub(crate) id: u64,
    /// How many descriptors came with it.
    #[serde(default)]
    pub(crate) fds: u8,
    pub(crate) body: T,
}

/// What the server asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// First on every connection; answered by [`Response::Hello`].
    Hello { version: u32 },
    /// Makes the sandbox's namespaces; once per shim.
    CreateSandbox(SandboxPlan),
    /// Creates and starts a container.
    Start(Box<ContainerPlan>),
    /// Sends a signal to a container's first process, or to all of its processes.
    Kill { container: String, signal: i32, all: bool },
    /// Forgets a container that has exited.
    Delete { container: String },
    /// Runs a process in a container; descriptors: stdin, stdout, stderr, those that
    /// [`ExecPlan`] announces. It is killed when this connection closes.
    Exec(Box<ExecPlan>),
    /// Copies a container's output to the descriptors that come along (stdout, stderr as announced); the
    /// response brings its stdin when asked for.
    Attach { container: String, stdin: bool, stdout: bool, stderr: bool },
    /// Sets the size of a container's terminal.
    Resize { container: String, width: u16, height: u16 },
    /// Opens the log file anew, after it was renamed.
    ReopenLog { container: String },
    /// Asks for all containers, and for events on this connection from now on.
    Subscribe,
    /// Kills what is left and ends the shim.
    Shutdown,
}

/// What the shim answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Hello {
        version: u32,
        pid: i32,
    },
    Done,
    /// The sandbox is made; the first process of its process id namespace, when it has one.
    Sandbox {
        pause: Option<i32>,
    },
    /// A container runs, since then (nanoseconds since 1970).
    Started {
        pid: i32,
        started_at: i64,
    },
    /// An executed process runs; with a terminal, its master side comes along.
    Executing {
        pid: i32,
    },
    /// Attached; brings a descriptor when stdin was asked for.
    Attached {
        terminal: bool,
        stdin_once: bool,
    },
    State {
        containers: Vec<ContainerState>,
    },
    Error {
        kind: ErrorKind,
        message: String,
    },
}

/// What the shim tells unasked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// A container's first process has ended; its output is in the log.
    Exited { container: String, exit: Exit },
    /// The process that this connection's [`Request::Exec`] started has ended.
    ExecExited { code: i32 },
}

/// Everything that a shim sends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromShim {
    Response(Response),
    Event(Event),
}

/// Kinds of refusal that the server treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ErrorKind {
    NotFound,
    /// The container or process is not in a state that allows this.
    State,
    Other,
}

/// A container as its shim knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerState {
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// Nanoseconds since 1970.
    #[serde(default)]
    pub(crate) started_at: i64,
    pub(crate) exit: Option<Exit>,
}

/// How a container ended. Also written to `exit.json` in the container's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    /// The exit code, or 128 plus the signal's number.
    pub(crate) code: i32,
    /// Nanoseconds since 1970.
    pub(crate) finished_at: i64,
    /// A process of the container was killed for want of memory.
    pub(crate) oom_killed: bool,
}

/// Where a container's namespace of one type comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Share {
    /// That of the sandbox.
    Pod,
    /// One of its own.
    Container,
    /// That of the machine.
    Node,
    /// That of another container (process ids only); its first process.
    Target(i32),
}

/// The namespaces and limits of a sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SandboxPlan {
    /// `None` leaves the machine's host name (and its UTS namespace).
    pub(crate) hostname: Option<String>,
    /// Whether the pod has an IPC namespace of its own.
    pub(crate) ipc: bool,
    /// Whether all containers share one process id namespace, held by the pause process.
    pub(crate) pid: bool,
    /// The network namespace; `None` is the machine's.
    pub(crate) network: Option<PathBuf>,
    /// Kernel parameters of these namespaces.
    pub(crate) sysctls: Vec<(String, String)>,
    /// Directories of the pause process's group.
    pub(crate) pause_cgroup: Vec<PathBuf>,
}

/// A container to start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ContainerPlan {
    pub(crate) id: String,
    /// The container's directory: state, bundle and exit record go there.
    pub(crate) dir: PathBuf,
    /// Where its root file system is mounted.
    pub(crate) rootfs: PathBuf,
    pub(crate) readonly_rootfs: bool,
    pub(crate) process: ProcessSpec,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) devices: Vec<DevicePlan>,
    pub(crate) masked_paths: Vec<String>,
    pub(crate) readonly_paths: Vec<String>,
    /// Container annotations, for the OCI state.
    pub(crate) annotations: Vec<(String, String)>,
    pub(crate) pid: Share,
    pub(crate) ipc: Share,
    pub(crate) network: Share,
    /// A cgroup namespace of its own.
    pub(crate) cgroup_namespace: bool,
    /// Its group, below the hierarchies' roots, and the directories of it.
    pub(crate) cgroup: String,
    pub(crate) cgroup_dirs: Vec<PathBuf>,
    /// Whether stdin is kept open for attaching clients, and closed with the first of them.
    pub(crate) stdin: bool,
    pub(crate) stdin_once: bool,
    /// `None` writes no log.
    pub(crate) log_path: Option<PathBuf>,
}

/// A device node to make below `/dev`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevicePlan {
    pub(crate) path: PathBuf,
    pub(crate) block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// A process to run in a running container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecPlan {
    pub(crate) container: String,
    pub(crate) process: ProcessSpec,
    /// Which of the three descriptors come along; the others are `/dev/null`. With a terminal none does.
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// Gathers bytes and descriptors from a socket into messages.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

/// Bytes that are no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("message of {0} bytes is longer than {MAX_MESSAGE}")]
    TooLong(usize),
    #[error("message is not understood")]
    Malformed(#[from] serde_json::Error),
    #[error("message lacks descriptors: {announced} announced, {received} received")]
    Descriptors { announced: u8, received: usize },
}

impl Decoder {
    /// Takes in what one `recvmsg` brought.
    pub(crate) fn feed(&mut self, bytes: &[u8], fds: impl IntoIterator<Item = OwnedFd>) {
        self.bytes.extend_from_slice(bytes);
        self.fds.extend(fds);
    }

    /// The next whole message with its descriptors, or `None` until more arrives.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(Frame<T>, Vec<OwnedFd>)>, DecodeError> {
        let Some(head) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head) as usize;
        if length > MAX_MESSAGE {
            return Err(DecodeError::TooLong(length));
        }
        let Some(body) = self.bytes.get(4..4 + length) else {
            return Ok(None);
        };
        let frame: Frame<T> = serde_json::from_slice(body)?;
        self.bytes.drain(..4 + length);
        if self.bytes.is_empty() {
            // A shim lives for months and must stay small.
            self.bytes = Vec::new();
        }
        if self.fds.len() < usize::from(frame.fds) {
            return Err(DecodeError::Descriptors { announced: frame.fds, received: self.fds.len() });
        }
        let fds = self.fds.drain(..usize::from(frame.fds)).collect();
        Ok(Some((frame, fds)))
    }
}

/// The bytes of a message.
pub(crate) fn encode<T: Serialize>(id: u64, fds: usize, body: &T) -> Vec<u8> {
    #[derive(Serialize)]
    struct Out<'a, T> {
        id: u64,
        fds: u8,
        body: &'a T,
    }
    let mut out = vec![0; 4];
    let frame = Out { id, fds: fds as u8, body };
    // Writing to memory fails only for maps whose keys aren't strings; the messages have none.
    if serde_json::to_writer(&mut out, &frame).is_err() {
        out.truncate(4);
    }
    let length = (out.len() - 4) as u32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_survive_any_cutting(
            ids in proptest::collection::vec(any::<u64>(), 1..6),
            cuts in proptest::collection::vec(1usize..40, 1..40),
        ) {
            let bytes: Vec<u8> = ids
                .iter()
                .flat_map(|id| encode(*id, 0, &Request::Delete { container: "é\n\"x".repeat(3) }))
                .collect();
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                decoder.feed(now, []);
                while let Some((frame, _)) = decoder.next::<Request>().unwrap() {
                    seen.push(frame.id);
                }
            }
            prop_assert_eq!(seen, ids);
        }

        #[test]
        fn rubbish_is_refused_or_waited_for(bytes: Vec<u8>) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes, []);
            let _ = decoder.next::<Request>();
        }
    }

    #[test]
    fn missing_descriptors_are_noticed() {
        let mut decoder = Decoder::default();
        decoder.feed(&encode(1, 2, &Request::Subscribe), []);
        assert!(matches!(decoder.next::<Request>(), Err(DecodeError::Descriptors { announced: 2, received: 0 })));
    }
}
