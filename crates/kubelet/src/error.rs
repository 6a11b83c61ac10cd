//! Why a kubelet cannot run.

use std::{io, net::SocketAddr, path::PathBuf};

use thiserror::Error;

/// What stops a kubelet from starting. Once it runs, it goes on whatever fails.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The machine doesn't tell what it is.
    #[error("{0}")]
    Machine(String),
    /// Cgroups are missing or may not be used.
    #[error("{0}; the kubelet needs root and a mounted cgroup file system")]
    Cgroups(String),
    /// A directory that the kubelet keeps its things in cannot be made.
    #[error("cannot create directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The node API cannot listen.
    #[error("cannot listen on {address} for the node API: {source}; is another kubelet running, or the port taken?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate of the node API cannot be used.
    #[error("the node API's certificate: {0}")]
    Certificate(String),
}
