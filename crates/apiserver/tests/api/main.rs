//! The API through the real router, on the real embedded store in a temporary directory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod client;
mod crud;
mod documents;
mod lists;
mod lost;
mod names;
mod panics;
mod past;
mod quantities;
mod refusals;
mod rules;
mod surface;
mod validated;
mod versions;
mod watches;
mod wire;
mod writes;
