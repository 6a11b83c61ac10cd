//! Logs of containers: read, followed and rotated. The runtime writes them.

pub(crate) mod line;
pub(crate) mod read;
pub(crate) mod rotate;
