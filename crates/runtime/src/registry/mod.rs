//! A client of image registries: the OCI distribution protocol, and Docker's before it.
//!
//! [`Session`] is one conversation about one repository. Nothing here writes to disk, and nothing
//! stays in memory or connected when a session is dropped.

mod auth;
mod blob;
mod dns;
mod error;
mod host;
mod proxy;
mod request;
mod session;
mod tls;
mod transport;

pub use auth::Credentials;
pub use blob::Blob;
pub use dns::Dns;
pub use error::{Error, chain};
pub use host::{Hosts, InvalidMirror, Mirror};
pub use proxy::Proxies;
pub use session::{Resolved, Session};

#[cfg(test)]
mod tests;
