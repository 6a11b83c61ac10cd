//! What tests of any crate use to judge a store.

pub mod etcd;
pub mod history;
