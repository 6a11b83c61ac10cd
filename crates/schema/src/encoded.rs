//! The bytes of an object with a place for its resourceVersion, so that it is encoded once, before its revision is known.

use bytes::Bytes;

/// An encoded object without resourceVersion: `head`, `"resourceVersion":"N",` (or without the comma), `tail`.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub bytes: Bytes,
    /// Where the resourceVersion is spliced in, in `metadata`.
    pub at: usize,
}
