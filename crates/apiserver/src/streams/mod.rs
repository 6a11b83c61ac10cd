//! Requests that are answered by nodes, pods and services, passed on to them: log, exec, attach, port-forward, proxy.

pub mod forward;
pub mod kubelet;
pub mod pods;
pub mod proxy;
mod query;
