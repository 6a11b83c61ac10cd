//! The Kubernetes API server: filters, the one registry of every kind, watch cache, discovery.
//!
//! # The map of this crate
//!
//! | module | what |
//! |---|---|
//! | [`request`] | [`request::RequestInfo`]: what a request asks for; routing, authorization and audit decide on it |
//! | [`user`], [`context`], [`options`] | who asks; what travels with a request; what its query asks |
//! | [`authn`], [`authz`], [`admission`] | the seams of security and what stands behind them |
//! | [`registry`] | every kind's create, get, list, watch, update, patch, delete; the three escape hatches: [`registry::Subresource`], [`registry::Virtual`], [`registry::Allocator`] |
//! | [`strategy`] | what the data of a kind can't say |
//! | [`http`] | bodies, formats, errors |

pub mod admission;
pub mod allocator;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod cache;
pub mod context;
pub mod http;
pub mod lookup;
pub mod options;
pub mod registry;
pub mod request;
pub mod strategy;
pub mod tls;
pub mod tokens;
pub mod user;

#[cfg(test)]
mod test_support;
