//! The Node object: registered once, kept true, and its Lease renewed.

mod lease;
pub(crate) mod machine;
mod register;
pub(crate) mod status;

pub(crate) use register::{Context, NodeHandle, NodeView, run};
