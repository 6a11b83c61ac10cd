//! The scheduler: queue, incremental snapshot, plugin framework.
//!
//! | file | what |
//! |---|---|
//! | `objects` | what is read of pods and nodes, compiled once |
//! | [`snapshot`] | nodes and what runs on them, kept up to date event by event |
//! | [`queue`] | pods that wait: active, backing off, unschedulable until something helps |
//! | [`framework`] | the extension points; one cycle: pod and snapshot in, node or diagnosis out |
//! | [`plugins`] | one file a plugin, one row each in [`plugins::TABLE`] |
//!
//! The core (queue, snapshot, framework, plugins) does no IO: events in, decisions out.

mod events;
pub mod framework;
mod objects;
pub mod plugins;
pub mod queue;
mod resources;
mod run;
pub mod snapshot;

pub use objects::{Node, Pod, PodInfo};
pub use run::{Config, Error, run};
