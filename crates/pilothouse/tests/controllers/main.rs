//! The controllers against the real API server, in one process: no node runs here, so pods are what tests make of them.

#[path = "../../../apiserver/tests/security/cluster.rs"]
#[allow(dead_code, reason = "other tests use the rest of it")]
mod cluster;
mod policy;
mod security;
mod support;
mod workloads;
