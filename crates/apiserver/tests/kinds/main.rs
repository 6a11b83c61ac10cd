//! Every kind by table: what any kind must do, done to each row of [`table::ROWS`] through the real router with the real
//! admission chain. A new kind is a new row; a kind of the catalogue without one fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../api/client.rs"]
#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod client;
#[path = "../security/cluster.rs"]
#[allow(dead_code, reason = "shared with other tests, which use more of it")]
mod cluster;
mod grow;
mod life;
mod table;
