//! Where the cgroup file systems are mounted.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::CgroupError;

/// The controllers of version 1 in which pods' cgroups are made; in the others the runtime makes
/// what it needs.
const OURS: [&str; 4] = ["cpu", "memory", "pids", "hugetlb"];

/// The mounted hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hierarchies {
    /// Controller to mount point; controllers mounted together have the same.
    V1(BTreeMap<String, PathBuf>),
    V2(PathBuf),
}

impl Hierarchies {
    pub(crate) fn discover() -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")
            .map_err(|error| CgroupError::Discover(format!("/proc/self/mountinfo: {error}")))?;
        Self::from_mountinfo(&mounts).ok_or_else(|| {
            CgroupError::Discover("neither cgroup (v1) nor cgroup2 is mounted; mount one at /sys/fs/cgroup".to_owned())
        })
    }

    fn from_mountinfo(text: &str) -> Option<Self> {
        const CONTROLLERS: [&str; 13] = [
            "cpu",
            "cpuacct",
            "cpuset",
            "memory",
            "devices",
            "freezer",
            "blkio",
            "pids",
            "hugetlb",
            "net_cls",
            "net_prio",
            "perf_event",
            "name=systemd",
        ];
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for line in text.lines() {
            let (front, back) = line.split_once(" - ")?;
            let mount: PathBuf = front.split(' ').nth(4)?.into();
            let mut back = back.split(' ');
            match back.next()? {
                "cgroup" => {
                    for option in back.nth(1).unwrap_or_default().split(',') {
                        if CONTROLLERS.contains(&option) {
                            v1.entry(option.to_owned()).or_insert_with(|| mount.clone());
                        }
                    }
                }
                "cgroup2" => v2 = v2.or(Some(mount)),
                _ => {}
            }
        }
        // In the hybrid layout version 2 is mounted too, but has no controllers.
        if v1.contains_key("memory") || v1.contains_key("cpu") {
            return Some(Self::V1(v1));
        }
        v2.map(Self::V2)
    }

    pub(crate) fn is_v2(&self) -> bool {
        matches!(self, Self::V2(_))
    }

    /// The directory of a cgroup in the hierarchy of a controller.
    pub(crate) fn dir(&self, controller: &str, path: &str) -> Option<PathBuf> {
        match self {
            Self::V1(mounts) => Some(below(mounts.get(controller)?, path)),
            Self::V2(mount) => {
                if controller == "hugetlb" && !controllers(mount).iter().any(|c| c == "hugetlb") {
                    return None;
                }
                Some(below(mount, path))
            }
        }
    }

    /// The directories of a cgroup in all hierarchies, whether they are there or not.
    pub(crate) fn all(&self, path: &str) -> Vec<PathBuf> {
        match self {
            Self::V1(mounts) => {
                let mut dirs: Vec<PathBuf> = mounts.values().map(|mount| below(mount, path)).collect();
                dirs.sort();
                dirs.dedup();
                dirs
            }
            Self::V2(mount) => vec![below(mount, path)],
        }
    }

    /// Makes a cgroup, and those above it; `inner` says that more will be made below it.
    pub(crate) fn create(&self, path: &str, inner: bool) -> Result<(), CgroupError> {
        let make = |dir: &Path| match fs::create_dir_all(dir) {
            Ok(()) => Ok(()),
            Err(source) => Err(CgroupError::Create { path: dir.to_owned(), source }),
        };
        match self {
            Self::V1(_) => {
                for dir in OURS.iter().filter_map(|controller| self.dir(controller, path)) {
                    make(&dir)?;
                }
                Ok(())
            }
            Self::V2(mount) => {
                let dir = below(mount, path);
                make(&dir)?;
                // A controller works in a cgroup if all those above hand it down.
                let mut above: Vec<&Path> =
                    dir.ancestors().skip(usize::from(!inner)).take_while(|a| a.starts_with(mount)).collect();
                above.reverse();
                for dir in above.iter().chain(std::iter::once(&dir.as_path())) {
                    delegate(dir)?;
                }
                Ok(())
            }
        }
    }

    /// Kills all processes in a cgroup and below it.
    pub(crate) fn kill(&self, path: &str) {
        if let Self::V2(mount) = self
            && fs::write(below(mount, path).join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for dir in self.all(path) {
            kill_tree(&dir);
        }
    }
}

fn kill_tree(dir: &Path) {
    for pid in fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse() {
            // One that is gone already is what we want.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill_tree(&entry.path());
        }
    }
}

fn controllers(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

/// Hands down what pods are limited by to the cgroups below.
fn delegate(dir: &Path) -> Result<(), CgroupError> {
    const WANTED: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];
    let file = dir.join("cgroup.subtree_control");
    let have = fs::read_to_string(&file).unwrap_or_default();
    let have: Vec<&str> = have.split_whitespace().collect();
    let missing: Vec<String> =
        controllers(dir).into_iter().filter(|c| WANTED.contains(&c.as_str()) && !have.contains(&c.as_str())).collect();
    for controller in missing {
        let value = format!("+{controller}");
        match fs::write(&file, &value) {
            Ok(()) => {}
            // Some controllers cannot be handed down where processes are, or are missing.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOENT | libc::EOPNOTSUPP)) => {}
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(CgroupError::Write { path: file, value, source }),
        }
    }
    Ok(())
}

fn below(mount: &Path, path: &str) -> PathBuf {
    mount.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_recognised() {
        let v1 = "30 1 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                  31 1 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n\
                  32 1 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::from_mountinfo(v1).unwrap();
        assert!(!found.is_v2());
        assert_eq!(found.dir("cpu", "/a/b").unwrap(), Path::new("/sys/fs/cgroup/cpu,cpuacct/a/b"));
        assert_eq!(found.dir("pids", "/a"), None);
        assert_eq!(found.all("/a").len(), 2);
        let v2 = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(Hierarchies::from_mountinfo(v2), Some(Hierarchies::V2("/sys/fs/cgroup".into())));
        assert_eq!(Hierarchies::from_mountinfo(""), None);
    }
}
