//! The state of a cluster through the built binary: snapshots, and encryption at rest.
//!
//! Needs Debian's `etcd-server` and `etcd-client`, and a `kubectl` on the path.

mod encryption;
mod running;
mod server;
mod snapshots;
mod undo;
