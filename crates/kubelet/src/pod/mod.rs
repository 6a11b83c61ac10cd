//! Pods: what is wanted, what is there, the next step, and what is said about it.

pub(crate) mod admission;
pub(crate) mod backoff;
mod cleanup;
pub(crate) mod conditions;
mod hooks;
mod kill;
pub(crate) mod observed;
mod patch;
pub(crate) mod phase;
mod plan;
mod reader;
mod resize;
mod start;
pub(crate) mod status;
mod sync;
pub(crate) mod view;
pub(crate) mod worker;
