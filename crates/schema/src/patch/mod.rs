//! The three patches that need no ownership: JSON patch (RFC 6902), JSON merge patch (RFC 7386), strategic merge patch.
//!
//! All work on untyped trees: nulls and unknown fields are kept, and the result is checked against its type by
//! [`crate::normal::typed`] afterwards.

mod go;
pub mod json;
pub mod merge;
pub mod strategic;

pub use go::shown;
pub(crate) use go::{go_syntax, go_type};

use thiserror::Error;

/// Why a patch is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatchError {
    /// The patch itself is no patch: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch can't be applied to this object: 422.
    #[error("{0}")]
    Rejected(String),
    /// More operations than are allowed: 413.
    #[error("The allowed maximum operations in a JSON patch is {limit}, got {got}")]
    TooMany { limit: usize, got: usize },
    /// What upstream has no better answer for than 500.
    #[error("{0}")]
    Failed(String),
}

#[cfg(test)]
pub(crate) mod tests_support {
    use crate::tree::Value;

    /// A tree from JSON written in a test.
    pub(crate) fn value(json: &str) -> Value {
        crate::json::parse(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"))
    }
}
