//! Where things are: directories of sandboxes and containers, network namespaces, groups.

use std::path::{Path, PathBuf};

use super::config::Config;

/// Paths of one runtime. Everything about a sandbox or container follows from its id, so that what a crash
/// left half-made can be found and removed.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    cluster: String,
    root: PathBuf,
    bin: PathBuf,
    cgroup_root: String,
}

/// Where network namespaces are mounted, as other tools expect.
pub(crate) const NETNS_DIR: &str = "/run/netns";

impl Layout {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            cluster: config.cluster.clone(),
            root: config.data_dir.join("runtime"),
            bin: config.data_dir.join("bin"),
            cgroup_root: config.cgroup_root(),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Copies of the executable.
    pub(crate) fn bin(&self) -> &Path {
        &self.bin
    }

    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.root.join("sandboxes")
    }

    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn network(&self) -> PathBuf {
        self.root.join("network")
    }

    pub(crate) fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    pub(crate) fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// Names of our network namespaces start with this.
    pub(crate) fn netns_prefix(&self) -> String {
        format!("{}-", self.cluster)
    }

    pub(crate) fn netns(&self, sandbox: &str) -> PathBuf {
        Path::new(NETNS_DIR).join(format!("{}{sandbox}", self.netns_prefix()))
    }

    /// The group of shims: outside of all pods, so that no pod's limits hold for them.
    pub(crate) fn shim_cgroup(&self) -> String {
        format!("{}/shims", self.cgroup_root)
    }

    /// The group of a sandbox or container; without a parent from the kubelet, below our own.
    pub(crate) fn cgroup(&self, parent: &str, id: &str) -> String {
        let parent = parent.trim_end_matches('/');
        if parent.is_empty() {
            format!("{}/pods/{id}", self.cgroup_root)
        } else {
            format!("/{}/{id}", parent.trim_start_matches('/'))
        }
    }

    pub(crate) fn cgroup_root(&self) -> &str {
        &self.cgroup_root
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_below_their_parents() {
        let layout = Layout::new(&Config::new("c", "/d"));
        assert_eq!(layout.cgroup("/kubepods/pod1/", "x"), "/kubepods/pod1/x");
        assert_eq!(layout.cgroup("kubepods", "x"), "/kubepods/x");
        assert_eq!(layout.cgroup("", "x"), "/c/pods/x");
        assert_eq!(layout.shim_cgroup(), "/c/shims");
    }
}
