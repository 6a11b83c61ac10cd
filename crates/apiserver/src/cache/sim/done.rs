//! What simulations did, counted.

/// What one simulation did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cache) struct Done {
    pub(in crate::cache) revisions: i64,
    /// Ends of the store, and of the API server.
    pub(in crate::cache) crashes: u64,
    pub(in crate::cache) starts: u64,
    pub(in crate::cache) reads: u64,
    pub(in crate::cache) refused: u64,
    pub(in crate::cache) watches: u64,
    pub(in crate::cache) events: u64,
    pub(in crate::cache) bookmarks: u64,
    /// Watches that were too slow, and that lost what they followed.
    pub(in crate::cache) slow: u64,
    pub(in crate::cache) expired: u64,
    /// How often a cache had to load anew.
    pub(in crate::cache) reloads: u64,
    /// Values that could not be read.
    pub(in crate::cache) veiled: u64,
}

impl std::ops::AddAssign for Done {
    fn add_assign(&mut self, other: Self) {
        self.revisions += other.revisions;
        self.crashes += other.crashes;
        self.starts += other.starts;
        self.reads += other.reads;
        self.refused += other.refused;
        self.watches += other.watches;
        self.events += other.events;
        self.bookmarks += other.bookmarks;
        self.slow += other.slow;
        self.expired += other.expired;
        self.reloads += other.reloads;
        self.veiled += other.veiled;
    }
}
