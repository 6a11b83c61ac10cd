//! The tree of cgroups: `kubepods`, below it one for each quality of service class, below those
//! one for each pod. Containers' own cgroups are the runtime's business.
//!
//! Version 1 (each controller its own hierarchy, hybrid too) and version 2 (one hierarchy) are
//! both handled here; nothing outside this room knows which it is, save that it may ask.

mod hierarchy;
pub(crate) mod stats;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

use self::hierarchy::Hierarchies;
use crate::resources::{self, PodLimits, QUOTA_PERIOD, Qos};

const KUBEPODS: &str = "kubepods";

/// What went wrong with a cgroup.
#[derive(Debug, Error)]
pub(crate) enum CgroupError {
    #[error("cannot find the machine's cgroups: {0}")]
    Discover(String),
    #[error("cannot create cgroup {path}: {source}")]
    Create { path: PathBuf, source: io::Error },
    #[error("cannot write {value:?} to {path}: {source}")]
    Write { path: PathBuf, value: String, source: io::Error },
    #[error("cannot remove cgroup {path}: {source}")]
    Remove { path: PathBuf, source: io::Error },
}

/// The cgroups of the pods of one kubelet.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    hierarchies: Hierarchies,
    /// The path of `kubepods` below the hierarchies' roots, e.g. `/kubepods`.
    base: String,
}

impl Cgroups {
    /// Finds the hierarchies; `root` is the cgroup below which `kubepods` is made.
    ///
    /// # Errors
    /// When no cgroup file system is mounted.
    pub(crate) fn discover(root: &str) -> Result<Self, CgroupError> {
        Ok(Self { hierarchies: Hierarchies::discover()?, base: join(root, KUBEPODS) })
    }

    pub(crate) fn is_v2(&self) -> bool {
        self.hierarchies.is_v2()
    }

    /// The sizes of huge pages that can be limited, as quantity (`2Mi`) and bytes.
    pub(crate) fn huge_pages(&self) -> Vec<(String, u64)> {
        if self.hierarchies.dir("hugetlb", "/").is_none() {
            return Vec::new();
        }
        huge_page_sizes()
    }

    fn class(&self, qos: Qos) -> String {
        match qos {
            Qos::Guaranteed => self.base.clone(),
            Qos::Burstable => join(&self.base, "burstable"),
            Qos::BestEffort => join(&self.base, "besteffort"),
        }
    }

    /// The cgroup of a pod, as the runtime is told it.
    pub(crate) fn pod(&self, qos: Qos, uid: &str) -> String {
        join(&self.class(qos), &format!("pod{uid}"))
    }

    /// Makes the cgroups above the pods', and gives all pods together no more than the node's
    /// allocatable.
    pub(crate) fn set_up(&self, cpu_milli: i64, memory: u64) -> Result<(), CgroupError> {
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            self.hierarchies.create(&self.class(qos), true)?;
        }
        let all = PodLimits {
            cpu_shares: Some(resources::cpu_shares(cpu_milli)),
            memory: i64::try_from(memory).ok(),
            ..PodLimits::default()
        };
        self.write(&self.base, &all)?;
        let least = PodLimits { cpu_shares: Some(resources::MIN_SHARES), ..PodLimits::default() };
        self.write(&self.class(Qos::BestEffort), &least)
    }

    /// Gives the burstable pods together the share that they asked for together.
    pub(crate) fn set_burstable_share(&self, cpu_milli: i64) -> Result<(), CgroupError> {
        let limits = PodLimits { cpu_shares: Some(resources::cpu_shares(cpu_milli)), ..PodLimits::default() };
        self.write(&self.class(Qos::Burstable), &limits)
    }

    /// Makes a pod's cgroup, or sets its limits anew.
    pub(crate) fn apply(&self, path: &str, limits: &PodLimits) -> Result<(), CgroupError> {
        self.hierarchies.create(path, false)?;
        self.write(path, limits)
    }

    fn write(&self, path: &str, limits: &PodLimits) -> Result<(), CgroupError> {
        let v2 = self.is_v2();
        if let Some(shares) = limits.cpu_shares {
            if v2 {
                self.set("cpu", path, "cpu.weight", cpu_weight(shares).to_string())?;
            } else {
                self.set("cpu", path, "cpu.shares", shares.to_string())?;
            }
        }
        let quota = limits.cpu_quota;
        if v2 {
            let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            self.set_if_there("cpu", path, "cpu.max", format!("{quota} {QUOTA_PERIOD}"))?;
        } else {
            self.set_if_there("cpu", path, "cpu.cfs_period_us", QUOTA_PERIOD.to_string())?;
            self.set_if_there("cpu", path, "cpu.cfs_quota_us", quota.unwrap_or(-1).to_string())?;
        }
        if let Some(memory) = limits.memory {
            let file = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
            self.set("memory", path, file, memory.to_string())?;
        }
        if let Some(pids) = limits.pids {
            self.set("pids", path, "pids.max", pids.to_string())?;
        }
        for (size, bytes) in huge_page_sizes() {
            let Some(limit) = limits.hugepages.get(&size) else { continue };
            let size = crate::container::config::page_size(bytes);
            let file = if v2 { format!("hugetlb.{size}.max") } else { format!("hugetlb.{size}.limit_in_bytes") };
            self.set_if_there("hugetlb", path, &file, limit.to_string())?;
        }
        Ok(())
    }

    fn set(&self, controller: &str, path: &str, file: &str, value: String) -> Result<(), CgroupError> {
        let Some(dir) = self.hierarchies.dir(controller, path) else {
            tracing::debug!(controller, path, "no such cgroup controller; limit not set");
            return Ok(());
        };
        let path = dir.join(file);
        fs::write(&path, &value).map_err(|source| CgroupError::Write { path, value, source })
    }

    /// As [`Self::set`], where kernels may lack the file.
    fn set_if_there(&self, controller: &str, path: &str, file: &str, value: String) -> Result<(), CgroupError> {
        match self.set(controller, path, file, value) {
            Err(CgroupError::Write { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Kills what is left in a cgroup and removes it. Blocks until it is gone, up to a second.
    pub(crate) fn remove(&self, path: &str) -> Result<(), CgroupError> {
        self.hierarchies.kill(path);
        for dir in self.hierarchies.all(path) {
            remove_tree(&dir)?;
        }
        Ok(())
    }

    /// The pods that have a cgroup: uid and path.
    pub(crate) fn pods(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let class = self.class(qos);
            for dir in self.hierarchies.all(&class) {
                let Ok(entries) = fs::read_dir(&dir) else { continue };
                for entry in entries.flatten() {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                    if let Some(uid) = name.strip_prefix("pod").filter(|_| is_dir) {
                        let pod = (uid.to_owned(), join(&class, &name));
                        if !found.contains(&pod) {
                            found.push(pod);
                        }
                    }
                }
            }
        }
        found
    }

    /// How many CPU nanoseconds and bytes of memory a cgroup used.
    pub(crate) fn usage(&self, path: &str) -> Option<stats::Usage> {
        stats::usage(&self.hierarchies, path)
    }

    /// The path of all pods together.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }
}

fn join(parent: &str, child: &str) -> String {
    format!("{}/{child}", parent.trim_end_matches('/'))
}

/// Removes a cgroup and those below it. A process that was killed leaves its cgroup a moment
/// after, so a busy one is tried again: soon first, and not for long.
fn remove_tree(dir: &Path) -> Result<(), CgroupError> {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path())?;
            }
        }
    }
    let mut wait = Duration::from_millis(1);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && wait < Duration::from_millis(600) => {
                std::thread::sleep(wait);
                wait *= 2;
            }
            Err(source) => return Err(CgroupError::Remove { path: dir.to_owned(), source }),
        }
    }
}

/// The weight of version 2 that means what shares of version 1 mean: 1024, the default, is 100.
fn cpu_weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss, reason = "shares have at most 18 bits")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10000")]
    let weight = 10f64.powf(exponent).ceil() as u64;
    weight
}

/// The sizes of huge pages that the kernel has.
pub(crate) fn huge_page_sizes() -> Vec<(String, u64)> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else {
        return Vec::new();
    };
    let mut sizes: Vec<(String, u64)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            Some((resources::binary(kib << 10).0, kib << 10))
        })
        .collect();
    sizes.sort_by_key(|(_, bytes)| *bytes);
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_the_meaning_of_shares() {
        assert_eq!(cpu_weight(2), 1);
        assert_eq!(cpu_weight(1024), 100);
        assert_eq!(cpu_weight(262_144), 10_000);
        let mut last = 0;
        for shares in 2..4096 {
            let weight = cpu_weight(shares);
            assert!(weight >= last && weight >= 1);
            last = weight;
        }
    }

    #[test]
    fn a_pods_cgroup_is_made_limited_found_and_removed() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = format!("/pilothouse-kubelet-test-{}", uuid::Uuid::new_v4());
        let cgroups = Cgroups::discover(&root).unwrap();
        cgroups.set_up(1500, 1 << 30).unwrap();
        cgroups.set_burstable_share(300).unwrap();
        let path = cgroups.pod(Qos::Burstable, "u-1");
        assert_eq!(path, format!("{root}/kubepods/burstable/podu-1"));
        let limits = PodLimits {
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            memory: Some(64 << 20),
            pids: Some(100),
            ..PodLimits::default()
        };
        cgroups.apply(&path, &limits).unwrap();
        let memory = cgroups.hierarchies.dir("memory", &path).unwrap();
        let file = if cgroups.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
        assert_eq!(fs::read_to_string(memory.join(file)).unwrap().trim(), (64u64 << 20).to_string());
        assert_eq!(cgroups.pods(), [("u-1".to_owned(), path.clone())]);
        assert!(cgroups.usage(&path).is_some());
        // A process that still lives there is killed.
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(memory.join("cgroup.procs"), child.id().to_string()).unwrap();
        let waiter = std::thread::spawn(move || child.wait().unwrap());
        cgroups.remove(&path).unwrap();
        assert!(!waiter.join().unwrap().success());
        assert!(cgroups.pods().is_empty());
        cgroups.remove(&root).unwrap();
        assert!(!memory.exists());
    }
}
