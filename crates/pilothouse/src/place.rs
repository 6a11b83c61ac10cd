//! Where the parts of a cluster live on this machine.
//!
//! The default cluster keeps upstream's places, because CSI drivers and log shippers mount them;
//! a cluster in another data directory has all of them below it.

use crate::cluster::machine::Machine;
use anyhow::Context;
use std::path::{Path, PathBuf};

pub const DEFAULT_DATA_DIR: &str = "/var/lib/pilothouse";

/// The longest path of a unix socket (`sun_path`, with its end).
const SOCKET_PATH_MAX: usize = 107;

/// Every path of one cluster.
#[derive(Clone, Debug)]
pub struct Place {
    pub data_dir: PathBuf,
    pub store: PathBuf,
    /// Where the embedded store is served as etcd if nothing else is said.
    pub store_socket: PathBuf,
    pub pki: PathBuf,
    pub runtime: PathBuf,
    pub kubelet: PathBuf,
    pub pod_logs: PathBuf,
    pub container_logs: PathBuf,
    pub cri_socket: PathBuf,
    /// Directory of sockets and other things that do not outlive a boot.
    pub run: PathBuf,
    pub admin_kubeconfig: PathBuf,
    /// Held by the process that has the control plane; tells its id.
    pub lock: PathBuf,
    /// Held by the process that has the node.
    pub node_lock: PathBuf,
    /// Whether this is the machine's default cluster.
    pub default: bool,
    /// The machine's clusters, of which this is one.
    pub machine: Machine,
}

impl Place {
    /// # Errors
    /// When the data directory's path is so long that a socket below it has no valid path.
    pub fn new(data_dir: &Path) -> anyhow::Result<Self> {
        let data_dir = std::path::absolute(data_dir)?;
        let default = data_dir == Path::new(DEFAULT_DATA_DIR);
        let below = |path: &str| data_dir.join(path);
        let run = if default { PathBuf::from("/run/pilothouse") } else { below("run") };
        let cri_socket = run.join("cri.sock");
        // The longest socket is a shim's, in a directory beside.
        if cri_socket.as_os_str().len() + 24 > SOCKET_PATH_MAX {
            anyhow::bail!(
                "the path of the data directory {} is too long for the sockets below it: choose one of at most {} bytes",
                data_dir.display(),
                SOCKET_PATH_MAX - 24 - "/run/cri.sock".len(),
            );
        }
        Ok(Place {
            store: below("store"),
            store_socket: below("store.sock"),
            pki: below("pki"),
            runtime: below("runtime"),
            kubelet: if default { "/var/lib/kubelet".into() } else { below("kubelet") },
            pod_logs: if default { "/var/log/pods".into() } else { below("log/pods") },
            container_logs: if default { "/var/log/containers".into() } else { below("log/containers") },
            admin_kubeconfig: below("admin.kubeconfig"),
            lock: below("pilothouse.lock"),
            node_lock: below("node.lock"),
            run,
            cri_socket,
            data_dir,
            default,
            machine: Machine::default(),
        })
    }

    /// Makes the directories that a start needs at once.
    ///
    /// # Errors
    /// When one can't be made, or is none.
    pub fn make(&self) -> anyhow::Result<()> {
        for directory in [&self.data_dir, &self.run] {
            if directory.exists() && !directory.is_dir() {
                anyhow::bail!("{} is not a directory: choose another with --data-dir", directory.display());
            }
            std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        }
        Ok(())
    }

    /// Undoes [`Place::make`] and the lock, when nothing else was begun. What others have put there stays.
    pub fn discard(&self) {
        let removed = [
            std::fs::remove_file(&self.lock),
            std::fs::remove_file(&self.node_lock),
            std::fs::remove_dir(&self.run),
            std::fs::remove_dir(&self.data_dir),
        ];
        for e in removed.into_iter().filter_map(Result::err) {
            tracing::debug!("left of what was begun: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_cluster_uses_the_machines_places() -> anyhow::Result<()> {
        assert_eq!(Place::new(Path::new(DEFAULT_DATA_DIR))?.kubelet, Path::new("/var/lib/kubelet"));
        let other = Place::new(Path::new("/srv/two"))?;
        for path in [&other.kubelet, &other.pod_logs, &other.container_logs, &other.cri_socket, &other.run] {
            assert!(path.starts_with("/srv/two"), "{}", path.display());
        }
        assert!(Place::new(Path::new(&format!("/{}", "x".repeat(100)))).is_err());
        Ok(())
    }
}
