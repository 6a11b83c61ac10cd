//! How a runtime is set up.

use std::{net::SocketAddr, path::PathBuf};

/// Everything that the composition root decides.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name: part of the names of all that is made on the machine. Letters, digits, `-`, `_`
    /// and `.`.
    pub cluster: String,
    /// Where images, sandboxes and containers are kept.
    pub data_dir: PathBuf,
    /// Where the CRI is served.
    pub socket: PathBuf,
    /// The executable that shims are copies of; it has to call [`crate::dispatch`] first. `None` is the
    /// running one.
    pub executable: Option<PathBuf>,
    /// Servers that are asked before a registry is: `HOST=URL`.
    pub registry_mirrors: Vec<String>,
    /// Address of the streaming server (exec, attach, port-forward). Only loopback addresses are taken;
    /// port 0 picks one.
    pub streaming: SocketAddr,
    /// Below which group our own processes and the pods without a parent group live; a `/` and the cluster's
    /// name when `None`.
    pub cgroup_root: Option<String>,
    /// The pod addresses of the whole cluster, which are not masqueraded. Such as `10.244.0.0/16`.
    pub cluster_cidrs: Vec<String>,
    /// The service addresses of the cluster. Such as `10.96.0.0/16`.
    pub service_cidrs: Vec<String>,
    /// The pod addresses of this node, when they are known before the kubelet tells.
    pub pod_cidr: Option<String>,
    /// What the CRI's `Version` says.
    pub version: String,
}

impl Config {
    /// The defaults for a data directory.
    pub fn new(cluster: impl Into<String>, data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            cluster: cluster.into(),
            socket: data_dir.join("cri.sock"),
            data_dir,
            executable: None,
            registry_mirrors: Vec::new(),
            streaming: SocketAddr::from(([127, 0, 0, 1], 0)),
            cgroup_root: None,
            cluster_cidrs: vec!["10.244.0.0/16".into()],
            service_cidrs: vec!["10.96.0.0/16".into()],
            pod_cidr: None,
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Checks what can be checked without doing anything.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let valid = !self.cluster.is_empty()
            && self.cluster.len() <= 63
            && self.cluster.chars().all(plain)
            && self.cluster.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !valid {
            return Err(ConfigError::Cluster(self.cluster.clone()));
        }
        if !self.data_dir.is_absolute() {
            return Err(ConfigError::DataDir(self.data_dir.clone()));
        }
        if !self.streaming.ip().is_loopback() {
            return Err(ConfigError::Streaming(self.streaming));
        }
        Ok(())
    }

    pub(crate) fn images_dir(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    pub(crate) fn cgroup_root(&self) -> String {
        match &self.cgroup_root {
            Some(root) => root.clone(),
            None => format!("/{}", self.cluster),
        }
    }
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The name would not fit into names of groups, interfaces or files.
    #[error("cluster name {0:?} must be 1 to 63 letters, digits, '-', '_' or '.', and start with a letter or digit")]
    Cluster(String),
    /// A relative directory.
    #[error("data directory {0:?} must be an absolute path")]
    DataDir(PathBuf),
    /// An address that others could reach.
    #[error("streaming address {0} must be a loopback address")]
    Streaming(SocketAddr),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_escape_are_refused() {
        for bad in ["", "a/b", "..", "-a", "ü", &"a".repeat(64)] {
            assert!(Config::new(bad, "/x").check().is_err(), "{bad}");
        }
        assert!(Config::new("pilothouse-2.x", "/x").check().is_ok());
        assert!(Config::new("a", "x").check().is_err());
        let open = Config { streaming: SocketAddr::from(([0, 0, 0, 0], 0)), ..Config::new("a", "/x") };
        assert!(open.check().is_err());
    }
}
