//! Netlink and nftables: pod networks, routes, rule sets.
//!
//! Everything here speaks netlink itself; no external program is ever run. Encoding has no IO: a
//! [`netlink::Batch`] is bytes and the words for each request in it, and only [`netlink::Socket`] talks to
//! the kernel. All calls block and act in the network namespace of the calling thread, so asynchronous
//! callers wrap them in `spawn_blocking`.
//!
//! - [`pod`] attaches sandboxes to the cluster network.
//! - [`nft`] builds and applies nftables transactions; the service proxy writes its rule set with it.
//! - [`rtnl`] manages links, addresses, routes and neighbours.
//! - [`conntrack`] finds and deletes connection tracking entries.
//! - [`netns`] makes, enters and deletes network namespaces.

mod cidr;
pub mod conntrack;
mod error;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod pod;
pub mod rtnl;
pub mod sysctl;

pub use cidr::{Cidr, CidrError};
pub use error::{Error, Result};
pub use pod::{PodNetwork, Protocol, is_pod_network_label};
