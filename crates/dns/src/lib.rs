//! Cluster DNS: Services and Pods to records to the protocol.
//!
//! ```text
//! watches ──▶ Records ──answer──▶ Answer ──▶ message
//!                                   └─ other names ──▶ Forwarder ──▶ the resolvers of the node
//! ```
//!
//! [`records::Records`] has what was observed; [`answer::answer`] decides, without IO, what a question is
//! answered with; [`message`] is the wire; [`server`] listens and [`forward`] asks elsewhere. Names,
//! records and codes are those of CoreDNS with the configuration of a kubeadm cluster.

pub mod answer;
mod cache;
pub mod forward;
pub mod message;
pub mod objects;
pub mod records;
mod resolv_conf;
mod run;
pub mod server;

pub use forward::Upstreams;
pub use run::{Config, Error, run};
pub use server::Clients;
