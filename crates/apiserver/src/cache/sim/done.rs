//! What simulations did, counted.

store::counted! {
    /// What one simulation did.
    pub(in crate::cache) struct Done {
        revisions: i64,
        /// Boundaries at which the power could have gone.
        boundaries: u64,
        /// Ends of the store, and of the API server.
        crashes: u64,
        starts: u64,
        reads: u64,
        refused: u64,
        /// Writes through the registry that were done, and that were refused.
        writes: u64,
        denied: u64,
        /// Objects that were deleted with a collection.
        swept: u64,
        watches: u64,
        events: u64,
        bookmarks: u64,
        /// Watches that were too slow, and that lost what they followed.
        slow: u64,
        expired: u64,
        /// How often a cache had to load anew.
        reloads: u64,
        /// Values that could not be read.
        veiled: u64,
    }
}

store::counted! {
    /// What one simulation of two API servers did.
    pub(in crate::cache) struct Allotted {
        revisions: i64,
        /// Ends of the store.
        crashes: u64,
        /// Writes of Services that were done, that were refused as nothing was left, and for other reasons.
        given: u64,
        full: u64,
        denied: u64,
    }
}
