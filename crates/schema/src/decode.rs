//! What decoding returns, whatever the format: the tree, the strict problems found on the way, or why there is no tree.

use crate::tree::Map;
use std::fmt;

/// How deep an object may be nested.
///
/// Upstream stops at 10,000; a tree that deep could not even be dropped on a thread's stack, so that the limit here is
/// one that every walk of a tree can recurse to.
pub const MAX_DEPTH: usize = 1000;

/// More strict problems than these are not collected, as upstream.
pub(crate) const MAX_PROBLEMS: usize = 100;

/// How [`Problem::Repeated`] begins.
pub const REPEATED: &str = "yaml: unmarshal errors:";

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
    /// All keys that a YAML document repeats, each in a line of its own: `line 5: key "a" already set in map`.
    Repeated(Vec<String>),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Unknown(path) => write!(f, "unknown field \"{path}\""),
            Problem::Duplicate(path) => write!(f, "duplicate field \"{path}\""),
            Problem::Repeated(keys) => {
                f.write_str(REPEATED)?;
                keys.iter().try_for_each(|key| write!(f, "\n  {key}"))
            }
        }
    }
}

/// Why bytes are not an object of the asked type. `Display` is upstream's wording, to be put behind
/// `Pod in version "v1" cannot be handled as a Pod: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not well-formed.
    #[error("{message}")]
    Syntax { message: String, offset: usize },
    /// A value of the wrong type, or one that cannot be read as it. The message names the field; `path` has the indexes too.
    #[error("{message}")]
    Type { path: String, message: String },
    #[error("exceeded max depth of {MAX_DEPTH}")]
    TooDeep,
}

impl DecodeError {
    pub(crate) fn syntax(message: impl Into<String>, offset: usize) -> DecodeError {
        DecodeError::Syntax { message: message.into(), offset }
    }
}
