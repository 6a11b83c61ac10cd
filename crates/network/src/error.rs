//! The errors of this crate.

use std::io;
use std::path::PathBuf;

use crate::cidr::CidrError;

/// The result of anything here that talks to the kernel or the disk.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between this crate and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel answered a request with an error.
    #[error("the kernel refused to {operation}: {}{}", errno_text(*errno), detail.as_ref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Refused {
        /// What was asked for, as words that follow "refused to".
        operation: String,
        /// The positive error number.
        errno: i32,
        /// The kernel's own explanation (extended ACK), when it gave one.
        detail: Option<String>,
    },
    /// A netlink socket could not be opened, written or read.
    #[error("cannot {operation}: {source}")]
    Socket {
        /// What was being done.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The kernel sent something that is not a netlink message of the expected shape.
    #[error("cannot understand the kernel's answer to {0}")]
    Malformed(&'static str),
    /// A file, namespace or setting could not be read or written.
    #[error("cannot {operation} {path:?}: {source}")]
    File {
        /// What was being done, such as "read".
        operation: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A link that should exist does not.
    #[error("there is no network interface {0:?}")]
    NoSuchLink(String),
    /// An address range is not one.
    #[error(transparent)]
    Cidr(#[from] CidrError),
    /// No pod CIDR was assigned to this node yet.
    #[error("the node has no pod CIDR yet, so a pod cannot get an address")]
    NoPodCidr,
    /// Every address of the pod CIDR is in use.
    #[error("no free address is left in the pod CIDR {0}")]
    Exhausted(crate::Cidr),
    /// The pod CIDR has no room for a gateway and a pod.
    #[error("the pod CIDR {0} is too small: it needs room for a gateway and at least one pod")]
    TooSmall(crate::Cidr),
    /// A host port is already given to another sandbox.
    #[error("host port {port}/{protocol} is already used by sandbox {owner}")]
    PortTaken {
        /// The host port.
        port: u16,
        /// Its protocol.
        protocol: &'static str,
        /// The sandbox that has it.
        owner: String,
    },
    /// A sandbox id cannot be the name of a file.
    #[error("{0:?} cannot be a sandbox id: letters, digits, '-', '_' and '.' are allowed")]
    BadSandboxId(String),
}

impl Error {
    /// The kernel's error number, when the kernel or the system gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { errno, .. } => Some(*errno),
            Error::Socket { source, .. } | Error::File { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Whether the kernel says that the thing is not there (any more).
    pub fn is_not_found(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::ENXIO | libc::EADDRNOTAVAIL))
            || matches!(self, Error::NoSuchLink(_))
    }

    /// Whether the kernel says that the thing is there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { operation, path, source }
    }
}

fn errno_text(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}
