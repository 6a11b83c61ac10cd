//! What components share as clients of the API.

pub mod backoff;
pub mod events;
pub mod watch;
