//! The service proxy: Services and EndpointSlices to a pure rule set to nftables.
//!
//! ```text
//! watches ──▶ State ──plan──▶ RuleSet ──▶ Delta ──▶ nftables transaction
//! ```
//!
//! [`state::State`] has what was observed; [`plan`] decides, without IO, what each port of a service asks
//! of the kernel; [`ruleset::RuleSet`] holds that for all services and says which elements of the table
//! change when one service does; [`kernel`] carries it out. See [`layout`] for the table and
//! [`class`] for the chains that choose an endpoint.
//!
//! The rules stay when the proxy stops, and a start takes them over in one transaction.

pub mod class;
pub mod health;
pub mod kernel;
pub mod layout;
pub mod objects;
pub mod plan;
pub mod ruleset;
mod run;
pub mod state;

pub use run::{Config, Error, NodePortAddresses, run};
