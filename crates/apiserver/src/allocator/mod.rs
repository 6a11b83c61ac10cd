//! What must be unique beyond one object: the addresses and ports of Services.

pub mod bitmap;
mod claims;
pub mod range;
pub mod service;

pub use claims::ServiceAllocator;

#[cfg(test)]
mod tests;
