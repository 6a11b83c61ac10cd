//! The kubelet: pod state machine, probes, volumes, resources, node status and the node HTTP API.

mod duration;
mod pod;
mod probe;
mod resources;
mod spec;
