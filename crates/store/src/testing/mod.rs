//! What tests of any crate use to judge a store: a history of what clients saw, real etcd members, and a simulated machine.

pub mod clock;
pub mod disk;
pub mod etcd;
pub mod fiber;
pub mod history;
pub mod random;
pub mod sim;
