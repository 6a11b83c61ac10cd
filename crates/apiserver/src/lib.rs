//! The Kubernetes API server: filters, the one registry of every kind, watch cache, discovery.
//!
//! # The map of this crate
//!
//! | module | what |
//! |---|---|
//! | [`request`] | [`request::RequestInfo`]: what a request asks for; routing, authorization and audit decide on it |
//! | [`user`], [`context`], [`options`] | who asks; what travels with a request; what its query asks |
//! | [`authn`], [`authz`], [`admission`] | the seams of security and what stands behind them |
//! | [`security`] | puts them together: authenticator, authorizer, admission chain and the hatches, from settings |
//! | [`tokens`], [`tls`], [`audit`] | service account tokens; certificates, live; who did what |
//! | [`flowcontrol`], [`limit`] | how much at once: priority levels and flow schemas, or two limits alone |
//! | [`bootstrap`] | the first objects: default roles, namespaces, the Services `kubernetes` and `kube-dns` |
//! | [`allocator`], [`subresources`], [`streams`] | addresses and ports of Services; binding and eviction; log, exec, attach, port-forward, proxy |
//! | `events` | what the server's own controllers tell |
//! | `component_status` | how scheduler, controller manager and store are |
//! | [`lookup`] | stored objects as decisions read them |
//! | [`measure`] | counters and histograms, as `/metrics` writes them |
//! | [`surface`] | what of the catalogue is served: feature gates and `--runtime-config` |
//! | [`registry`] | every kind's create, get, list, watch, update, patch, delete; the three escape hatches: [`registry::Subresource`], [`registry::Virtual`], [`registry::Allocator`] |
//! | [`strategy`] | what the data of a kind can't say |
//! | [`cache`] | the watch cache: the only copy of the objects, encoded once |
//! | [`encryption`] | what of the state is encrypted where it is stored, and how |
//! | [`http`], [`handlers`] | bodies, formats, shapes, streams; from a request to the registry and back |
//! | [`server`] | [`server::ApiServer`]: filters, connections, the service for clients within the process, health, metrics |
//! | [`table`], [`discovery`] | what is shown of kinds |
//!
//! A server is made so: `Registry::open(store)`, then admission and hatches made over it and
//! [`registry::Registry::install`]ed, then [`server::ApiServer::new`], then `serve` and `local_service`.

pub mod admission;
pub mod allocator;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod cache;
mod component_status;
pub mod context;
pub mod discovery;
pub mod encryption;
mod events;
pub mod flowcontrol;
pub mod handlers;
pub mod http;
pub mod limit;
pub mod lookup;
pub mod options;
pub mod registry;
pub mod request;
pub mod scheme;
pub mod security;
pub mod server;
pub mod strategy;
pub mod streams;
pub mod subresources;
pub mod surface;
pub mod table;
pub mod tls;
pub mod tokens;
pub mod user;

pub use api::measure;

#[cfg(test)]
mod test_support;
