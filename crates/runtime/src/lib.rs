//! The embedded CRI server: images, snapshots, sandboxes, containers and the shim that outlives the process.
