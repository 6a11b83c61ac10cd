//! What must be unique beyond one object: the addresses and ports of Services.

pub mod bitmap;
mod claims;
mod keep;
mod measures;
pub mod range;
pub(crate) mod repair;
pub mod service;
mod spec;

pub use claims::ServiceAllocator;

#[cfg(test)]
mod tests;
