//! Pods: what is wanted, what is there, the next step, and what is said about it.

pub(crate) mod backoff;
pub(crate) mod conditions;
pub(crate) mod observed;
pub(crate) mod patch;
pub(crate) mod phase;
pub(crate) mod plan;
pub(crate) mod status;
