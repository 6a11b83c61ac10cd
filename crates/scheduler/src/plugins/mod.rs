//! The plugins: one file each, one row each.

mod image_locality;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources;
mod node_unschedulable;
mod scheduling_gates;
mod taint_toleration;

use crate::framework::Plugin;

/// A plugin and how much its score counts (0: it does not score).
pub struct Row {
    pub plugin: &'static dyn Plugin,
    pub weight: i64,
}

/// All plugins, in the order in which their filters are asked; the weights are upstream's.
pub const TABLE: &[Row] = &[
    Row { plugin: &scheduling_gates::SchedulingGates, weight: 0 },
    Row { plugin: &node_unschedulable::NodeUnschedulable, weight: 0 },
    Row { plugin: &node_name::NodeName, weight: 0 },
    Row { plugin: &taint_toleration::TaintToleration, weight: 3 },
    Row { plugin: &node_affinity::NodeAffinity, weight: 2 },
    Row { plugin: &node_ports::NodePorts, weight: 0 },
    Row { plugin: &node_resources::Fit, weight: 1 },
    Row { plugin: &node_resources::BalancedAllocation, weight: 1 },
    Row { plugin: &image_locality::ImageLocality, weight: 1 },
];
