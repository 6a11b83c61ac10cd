//! What must be unique beyond one object: the addresses and ports of Services.

pub mod bitmap;
pub mod range;
pub mod service;

#[cfg(test)]
mod tests;
