//! What tests of any crate use to judge a store.

pub mod clock;
pub mod disk;
pub mod etcd;
pub mod fiber;
pub mod history;
pub mod random;
pub mod sim;
