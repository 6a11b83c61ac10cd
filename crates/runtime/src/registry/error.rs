//! What can go wrong between this machine and a registry, worded as containerd words it, since
//! these are the sentences that people search for.
//!
//! `Display` is one link of the chain; [`chain`] is the whole sentence.

use http::{Method, StatusCode};

use crate::content::{Digest, Mismatch};

/// A request or a conversation that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reference could not be turned into content.
    #[error("failed to resolve reference {reference:?}")]
    Resolve {
        /// The full reference.
        reference: String,
        /// Why.
        source: Box<Error>,
    },
    /// Content that the reference leads to could not be fetched.
    #[error("failed to fetch {what} {digest}")]
    Fetch {
        /// Manifest, config or layer.
        what: &'static str,
        /// Which.
        digest: Digest,
        /// Why.
        source: Box<Error>,
    },
    /// The registry has no such thing.
    #[error("{0}: not found")]
    NotFound(String),
    /// The registry wants other credentials than there are.
    #[error(
        "pull access denied, repository does not exist or may require authorization: {0}: \
         authorization failed"
    )]
    Denied(String),
    /// The registry's token service refused.
    #[error("failed to authorize: failed to fetch {kind} token")]
    Token {
        /// `anonymous` or `oauth`.
        kind: &'static str,
        /// Why.
        source: Box<Error>,
    },
    /// The token service is not one that credentials can be given to.
    #[error("failed to authorize: {0}")]
    Realm(String),
    /// An answer that is none of the expected ones.
    #[error("unexpected status from {method} request to {url}: {status}{message}")]
    Status {
        /// Of the request.
        method: Method,
        /// Without its query, which may hold a signature.
        url: String,
        /// Of the answer.
        status: StatusCode,
        /// What the registry said, behind a dash.
        message: String,
    },
    /// No answer.
    #[error("failed to do request: {} {url:?}: {reason}", capitalised(.method))]
    Request {
        /// Of the request.
        method: Method,
        /// Without its query.
        url: String,
        /// In the words of Go's network library.
        reason: String,
    },
    /// An answer that breaks the protocol.
    #[error("invalid answer from {url}: {reason}")]
    Protocol {
        /// Without its query.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Other content than was asked for.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The credentials given with the pull are no credentials.
    #[error("invalid auth config: {0}")]
    Credentials(&'static str),
}

impl Error {
    /// Whether the thing is not there, as against not reachable.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound(_) => true,
            Self::Resolve { source, .. } | Self::Fetch { source, .. } => source.is_not_found(),
            _ => false,
        }
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Request { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(*status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
            }
            _ => false,
        }
    }

    /// How much it says about the image, rather than about one of several registries: a "not
    /// found" of one tells more than the silence of another.
    pub(super) fn weight(&self) -> u8 {
        match self {
            Self::Request { .. } => 0,
            Self::NotFound(_) => 1,
            _ => 2,
        }
    }
}

fn capitalised(method: &Method) -> String {
    let mut text = method.as_str().to_ascii_lowercase();
    text[..1].make_ascii_uppercase();
    text
}

/// An error and all that caused it, joined with colons.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
