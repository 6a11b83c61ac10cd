//! Real etcd members with a directory of their own.

use std::ops::{Deref, DerefMut};

use crate::testing::etcd;

/// A cluster and its directory, which ends after it.
pub(super) struct Cluster {
    members: etcd::Cluster,
    _directory: tempfile::TempDir,
}

impl Cluster {
    pub(super) fn start(size: usize) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { members: etcd::Cluster::start(directory.path(), size), _directory: directory }
    }
}

impl Deref for Cluster {
    type Target = etcd::Cluster;

    fn deref(&self) -> &etcd::Cluster {
        &self.members
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut etcd::Cluster {
        &mut self.members
    }
}
