//! The embedded CRI server: images, snapshots, sandboxes, containers and the shim that outlives the process.

mod capabilities;
mod cgroup;
pub mod content;
mod dispatch;
pub mod image;
pub mod registry;
mod seccomp;
mod server;
mod shim;
pub mod snapshot;
mod spec;
mod streaming;

pub use dispatch::dispatch;
pub use server::{Config, ConfigError, ResetError, ServeError, reset, serve, stop_all_pods};
