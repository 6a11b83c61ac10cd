//! Field ownership and server-side apply (KEP-555): who owns which field, what an apply changes, and what it conflicts with.
//!
//! | file | what |
//! |---|---|
//! | [`path`] | path elements, as `fieldsV1` spells them |
//! | [`set`] | sets of paths, and their algebra |
//! | [`walk`] | the set of an object, and what differs between two |
//! | [`merge`] | merging an applied configuration in, and taking out what was given up |
//! | [`typed`] | whether a configuration is of its type, so that it can be applied |
//! | [`versions`] | what a write does, as other versions show it |
//! | [`manager`] | `metadata.managedFields`: reading, updating and writing it |

pub mod manager;
pub mod merge;
pub mod path;
pub mod set;
pub mod typed;
pub mod versions;
pub mod walk;

pub use manager::{Conflict, Manager, Window, apply, track};
pub use path::Element;
pub use set::Set;
pub use versions::{OneShape, Versions};
