//! Requests and answers: bodies, formats, shapes, streams.
//!
//! | file | what |
//! |---|---|
//! | `body` | what is answered |
//! | `media` | which format and shape a client wants, and sends |
//! | `receive` | reading bodies and decoding them |
//! | `answer` | objects, lists, refusals as bytes |
//! | `stream` | watches as bytes |
//! | `websocket` | watches as messages of a WebSocket |
//! | `yaml`, `metadata` | formats that need more than the catalogue has |

pub mod answer;
mod body;
mod fit;
pub mod media;
mod metadata;
pub mod receive;
pub mod stream;
pub mod websocket;
mod yaml;

use ::http::HeaderValue;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

pub use ::http::Response;
pub use body::{Body, Witness};

/// How every answer may be kept that says nothing else of that.
pub(crate) const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache, private");

/// What may go wrong with a body on its way.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// A request from the network or from within the process.
pub type Request = ::http::Request<RequestBody>;
