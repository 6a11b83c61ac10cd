//! What decoding returns, whatever the format: the tree, the strict problems found on the way, or why there is no tree.

use crate::tree::Map;
use std::fmt;

/// A decoded object. Unknown and duplicate fields are not in the tree: the caller decides what they mean (`fieldValidation`).
#[derive(Debug, Default, PartialEq)]
pub struct Decoded {
    pub object: Map,
    pub problems: Vec<Problem>,
}

/// What strict field validation complains about; `Display` is upstream's wording, e.g. `unknown field "spec.containers[0].imagee"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    Unknown(String),
    Duplicate(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unknown(path) => write!(f, "unknown field {path:?}"),
            Problem::Duplicate(path) => write!(f, "duplicate field {path:?}"),
        }
    }
}

/// Why bytes are not an object of the asked type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{message} at offset {offset}")]
    Syntax { message: String, offset: usize },
    /// A value of the wrong type, or one that cannot be read as it.
    #[error("{path}: {message}")]
    Type { path: String, message: String },
    #[error("exceeded max depth of {limit}")]
    TooDeep { limit: usize },
}
