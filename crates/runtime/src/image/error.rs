//! What can go wrong with images, worded as containerd words it.

use std::io;

use super::{manifest::InvalidManifest, reference::InvalidReference};
use crate::{
    content::{Digest, Mismatch},
    registry,
};

/// An operation on images that failed. `Display` is one link of the chain;
/// [`registry::chain`] gives the whole sentence.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name of an image is none.
    #[error("failed to parse image reference {reference:?}")]
    Reference {
        /// What was given.
        reference: String,
        /// What is wrong with it.
        source: InvalidReference,
    },
    /// A pull that failed.
    #[error("failed to pull and unpack image {reference:?}")]
    Pull {
        /// The full reference.
        reference: String,
        /// Why.
        source: Box<Error>,
    },
    /// Archives of images that can't be read.
    #[error("failed to load images from the archive")]
    Load {
        /// Why.
        source: Box<Error>,
    },
    /// The archive is not one that holds images.
    #[error("{0}")]
    Archive(String),
    /// The registry didn't give it.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A manifest or configuration that can't be used.
    #[error(transparent)]
    Manifest(#[from] InvalidManifest),
    /// Content differs from what was promised.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// A layer could not be unpacked.
    #[error("failed to extract layer {diff_id}")]
    Extract {
        /// The uncompressed layer's digest.
        diff_id: Digest,
        /// Why.
        source: io::Error,
    },
    /// A layer's files are other than its configuration says.
    #[error("wrong diff id calculated on extraction {got:?}, expected {expected:?}")]
    DiffId {
        /// What it is.
        got: String,
        /// What it should be.
        expected: String,
    },
    /// Only the node itself makes images of this name.
    #[error("{0}: not found: the built-in registry has only pilothouse.local/pilothouse")]
    NotBuiltIn(String),
    /// The image that the node is made of can't be removed from it.
    #[error("image {0:?} is built in and can't be removed")]
    BuiltIn(String),
    /// Another process has the images.
    #[error("the images in {0:?} are in use by another process: stop it first")]
    InUse(std::path::PathBuf),
    /// The disk refused.
    #[error("failed to {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why not.
        source: io::Error,
    },
    /// The operation's thread or task is gone: the process ends.
    #[error("the operation was cancelled")]
    Cancelled,
}

impl Error {
    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }

    /// The gRPC code that containerd gives for it.
    #[must_use]
    pub fn code(&self) -> tonic::Code {
        match self {
            Self::Pull { source, .. } | Self::Load { source } => source.code(),
            Self::Reference { .. } | Self::Archive(_) => tonic::Code::InvalidArgument,
            Self::Registry(error) if error.is_not_found() => tonic::Code::NotFound,
            Self::Manifest(InvalidManifest::Platform { .. }) | Self::NotBuiltIn(_) => tonic::Code::NotFound,
            Self::Mismatch(_) | Self::DiffId { .. } | Self::BuiltIn(_) => tonic::Code::FailedPrecondition,
            Self::Io { source, .. } | Self::Extract { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                tonic::Code::ResourceExhausted
            }
            Self::Cancelled => tonic::Code::Cancelled,
            _ => tonic::Code::Unknown,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), registry::chain(&error))
    }
}
