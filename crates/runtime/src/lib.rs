//! The embedded CRI server: images, snapshots, sandboxes, containers and the shim that outlives the process.

mod cgroup;
pub mod content;
mod dispatch;
pub mod image;
mod shim;

pub use dispatch::dispatch;
