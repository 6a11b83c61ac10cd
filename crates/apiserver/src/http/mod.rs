//! Requests and answers: bodies, formats, errors.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

mod body;

pub use ::http::Response;
pub use body::Body;

/// What may go wrong with a body on its way.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A request from the network or from within the process.
pub type Request = ::http::Request<UnsyncBoxBody<Bytes, BoxError>>;
