//! One error for all operations, and what it is on the wire.

use std::{fmt::Display, io};

use tonic::{Code, Status};

use super::{names::Reserved, shim_client::ShimError};
use crate::{cgroup::CgroupError, shim::protocol::ErrorKind, spec::SpecError};

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuntimeError {
    /// `kind` is `sandbox`, `container` and so on.
    #[error("{kind} {id:?}: not found")]
    NotFound { kind: &'static str, id: String },
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    FailedPrecondition(String),
    #[error("{0}")]
    DeadlineExceeded(String),
    #[error("failed to reserve {kind} name: {source}")]
    Reserved { kind: &'static str, source: Reserved },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// `doing` says what was tried.
    #[error("failed to {doing}")]
    Shim {
        doing: String,
        #[source]
        source: ShimError,
    },
    #[error("failed to {doing}")]
    Io {
        doing: String,
        #[source]
        source: io::Error,
    },
    #[error("failed to {doing}")]
    Network {
        doing: &'static str,
        #[source]
        source: network::Error,
    },
    #[error("failed to {doing}: {message}")]
    Other { doing: String, message: String },
}

pub(crate) type Result<T> = std::result::Result<T, RuntimeError>;

impl RuntimeError {
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn shim(doing: impl Into<String>) -> impl FnOnce(ShimError) -> Self {
        let doing = doing.into();
        move |source| Self::Shim { doing, source }
    }

    pub(crate) fn network(doing: &'static str) -> impl FnOnce(network::Error) -> Self {
        move |source| Self::Network { doing, source }
    }

    pub(crate) fn other<E: Display>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |error| Self::Other { doing, message: error.to_string() }
    }

    fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => Code::NotFound,
            Self::InvalidArgument(_) => Code::InvalidArgument,
            Self::FailedPrecondition(_) => Code::FailedPrecondition,
            Self::DeadlineExceeded(_) => Code::DeadlineExceeded,
            Self::Spec(SpecError::Unimplemented(_)) => Code::Unimplemented,
            Self::Reserved { .. } => Code::AlreadyExists,
            Self::Spec(_) => Code::InvalidArgument,
            Self::Shim { source: ShimError::Refused { kind, .. }, .. } => match kind {
                ErrorKind::NotFound => Code::NotFound,
                ErrorKind::State => Code::FailedPrecondition,
                ErrorKind::Other => Code::Unknown,
            },
            Self::Cgroup(_) | Self::Shim { .. } | Self::Io { .. } | Self::Network { .. } | Self::Other { .. } => {
                Code::Unknown
            }
        }
    }

    /// The message with its causes, each said once.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        text
    }
}

impl From<RuntimeError> for Status {
    fn from(error: RuntimeError) -> Self {
        Self::new(error.code(), error.chain())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_gets_the_whole_chain() {
        let error = RuntimeError::io("write \"x\"")(io::Error::other("disk on fire"));
        let status = Status::from(error);
        assert_eq!(status.code(), Code::Unknown);
        assert_eq!(status.message(), "failed to write \"x\": disk on fire");
    }
}
