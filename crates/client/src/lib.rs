//! What components share as clients of the API.

pub mod backoff;
pub mod events;
#[cfg(feature = "testing")]
pub mod testing;
pub mod watch;
