//! Where the kubelet keeps what belongs to a pod. The names are upstream's, because drivers and
//! log shippers rely on them.

use std::path::PathBuf;

use crate::config::Config;

impl Config {
    pub(crate) fn pods_dir(&self) -> PathBuf {
        self.root_dir.join("pods")
    }

    pub(crate) fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }

    /// The directory of a volume; `plugin` is e.g. `kubernetes.io~empty-dir`.
    pub(crate) fn volume_dir(&self, uid: &str, plugin: &str, name: &str) -> PathBuf {
        self.pod_dir(uid).join("volumes").join(plugin).join(name)
    }

    /// Below this are the mounts of single files and directories of volumes.
    pub(crate) fn subpaths_dir(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("volume-subpaths")
    }

    /// The directory of a container's termination messages.
    pub(crate) fn container_dir(&self, uid: &str, name: &str) -> PathBuf {
        self.pod_dir(uid).join("containers").join(name)
    }

    pub(crate) fn etc_hosts(&self, uid: &str) -> PathBuf {
        self.pod_dir(uid).join("etc-hosts")
    }

    /// The directory of a pod's logs.
    pub(crate) fn logs_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.pod_log_dir.join(format!("{namespace}_{name}_{uid}"))
    }

    /// The link to a container's log.
    pub(crate) fn log_link(&self, namespace: &str, pod: &str, container: &str, id: &str) -> PathBuf {
        // File names have at most 255 bytes, and the id must stay whole.
        let mut name = format!("{pod}_{namespace}_{container}");
        let most = 255 - id.len().min(200) - ".log".len() - 1;
        while name.len() > most {
            name.pop();
        }
        self.container_log_dir.join(format!("{name}-{id}.log"))
    }
}
