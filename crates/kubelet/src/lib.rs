//! The kubelet: pod state machine, probes, volumes, resources, node status and the node HTTP API.
//!
//! It is given a [`kube::Client`] and the socket of a CRI runtime, and nothing else of the
//! cluster. The runtime's containers are the truth: a kubelet that starts takes over what runs.
//! One worker a pod (`pod::worker`) decides purely (`pod::plan`, `pod::status`) and acts in steps;
//! everything sleeps until something happens.

mod cgroup;
mod config;
mod container;
mod disk;
mod duration;
mod error;
mod events;
mod evict;
mod image;
mod inotify;
mod kubelet;
mod logs;
mod node;
mod objects;
mod paths;
mod pod;
mod probe;
mod resources;
mod rpc;
mod run;
mod server;
mod services;
mod spec;
mod static_pods;
mod tokens;
mod volume;

pub use config::{ClientCa, Config, ContainerLogs, Eviction, ImageGc, Serving, Threshold};
pub use error::Error;
pub use run::{run, run_until};
