//! What the machine is: read once, when the kubelet starts.

use std::{fs, io, path::Path};

use k8s_openapi::api::core::v1::{NodeSwapStatus, NodeSystemInfo};
use thiserror::Error;

/// Facts about the machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) cpus: u64,
    /// Bytes of memory.
    pub(crate) memory: u64,
    pub(crate) swap: u64,
    /// Bytes of the file system that the kubelet's directory is on.
    pub(crate) storage: u64,
    /// Huge pages: size as `2Mi`, and bytes set aside for it.
    pub(crate) huge_pages: Vec<(String, u64)>,
    pub(crate) machine_id: String,
    pub(crate) system_uuid: String,
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) os_image: String,
}

/// A fact that could not be read.
#[derive(Debug, Error)]
#[error("cannot read {path}, which tells {what}: {source}")]
pub(crate) struct MachineError {
    path: String,
    what: &'static str,
    source: io::Error,
}

/// The architecture as Go names it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Machine {
    /// Reads the facts; `root` is the kubelet's directory.
    ///
    /// # Errors
    /// When `/proc` doesn't tell how much memory there is.
    pub(crate) fn read(root: &Path) -> Result<Self, MachineError> {
        let path = "/proc/meminfo";
        let meminfo = fs::read_to_string(path).map_err(|source| MachineError {
            path: path.to_owned(),
            what: "how much memory there is",
            source,
        })?;
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let machine_id = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
            .into_iter()
            .map(text)
            .find(|id| !id.is_empty())
            .unwrap_or_default();
        let uuid = text("/sys/class/dmi/id/product_uuid");
        let kernel =
            nix::sys::utsname::uname().map(|uname| uname.release().to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory: meminfo_bytes(&meminfo, "MemTotal:"),
            swap: meminfo_bytes(&meminfo, "SwapTotal:"),
            storage: file_system(root).map_or(0, |fs| fs.capacity),
            huge_pages: huge_pages(),
            system_uuid: if uuid.is_empty() { machine_id.clone() } else { uuid },
            machine_id,
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            kernel,
            os_image: os_image(&text("/etc/os-release")),
        })
    }

    /// The facts as the Node object tells them.
    pub(crate) fn system_info(&self, kubelet_version: &str, runtime_version: &str) -> NodeSystemInfo {
        NodeSystemInfo {
            architecture: architecture().to_owned(),
            boot_id: self.boot_id.clone(),
            container_runtime_version: runtime_version.to_owned(),
            kernel_version: self.kernel.clone(),
            // Deprecated, and empty since 1.33.
            kube_proxy_version: String::new(),
            kubelet_version: kubelet_version.to_owned(),
            machine_id: self.machine_id.clone(),
            operating_system: "linux".to_owned(),
            os_image: self.os_image.clone(),
            swap: (self.swap > 0).then(|| NodeSwapStatus { capacity: i64::try_from(self.swap).ok() }),
            system_uuid: self.system_uuid.clone(),
        }
    }
}

/// Kilobytes of a line of `/proc/meminfo`, as bytes.
pub(crate) fn meminfo_bytes(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}

fn os_image(release: &str) -> String {
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "Unknown".to_owned(), |name| name.trim_matches(['"', '\'']).to_owned())
}

fn huge_pages() -> Vec<(String, u64)> {
    crate::cgroup::huge_page_sizes()
        .into_iter()
        .map(|(size, bytes)| {
            let file = format!("/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", bytes >> 10);
            let pages: u64 =
                fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default();
            (size, pages * bytes)
        })
        .collect()
}

/// The room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSystem {
    pub(crate) capacity: u64,
    pub(crate) available: u64,
    /// What is used and what is available together: the capacity without what the file system keeps
    /// for itself, which can be most of it, and which no removal makes available.
    pub(crate) usable: u64,
    pub(crate) inodes: u64,
    pub(crate) inodes_free: u64,
    /// Tells file systems apart.
    pub(crate) id: u64,
}

/// The file system that a path is on, or that its nearest existing parent is on.
pub(crate) fn file_system(path: &Path) -> Option<FileSystem> {
    use std::os::unix::fs::MetadataExt as _;
    let existing = path.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(existing).ok()?;
    let unit = stat.fragment_size();
    Some(FileSystem {
        capacity: stat.blocks() * unit,
        available: stat.blocks_available() * unit,
        usable: (stat.blocks() - stat.blocks_free() + stat.blocks_available()) * unit,
        inodes: stat.files(),
        inodes_free: stat.files_free(),
        id: fs::metadata(existing).ok()?.dev(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_read() {
        let machine = Machine::read(Path::new("/var/lib/kubelet")).unwrap();
        assert!(machine.cpus > 0 && machine.memory > 0 && machine.storage > 0);
        assert!(!machine.kernel.is_empty() && !machine.boot_id.is_empty());
        assert_eq!(os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n"), "Debian GNU/Linux 13 (trixie)");
        assert_eq!(meminfo_bytes("MemTotal:       16 kB\n", "MemTotal:"), 16384);
    }
}
