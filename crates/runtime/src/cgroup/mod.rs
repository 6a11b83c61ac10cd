//! Control groups: where a group's directories are, its limits, its figures and its end.
//!
//! One [`Cgroups`] is detected per process and serves both layouts: version 1 (also the hybrid one, whose
//! version 2 hierarchy has no controllers worth using) and version 2. A group is named by its path below the
//! hierarchies' roots, such as `/kubepods/burstable/pod…/<container>`. Nothing here is asynchronous: all of it
//! is short writes and reads of kernel files, used by the shim and by the server's blocking threads.

mod device_filter;
mod kill;
mod mounts;
mod resources;
mod stats;
mod v1;
mod v2;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub(crate) use kill::{is_empty, kill_all, oom_kills, remove};
pub(crate) use resources::{DeviceKind, DeviceRule, HugepageLimit, Resources};
pub(crate) use stats::{CpuStats, MemoryStats, Stats};

use mounts::Mount;
pub(crate) use mounts::unescape;

/// What went wrong with a group.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CgroupError {
    /// No hierarchy of either version is mounted.
    #[error("no cgroup hierarchy is mounted; mount cgroup2 at /sys/fs/cgroup")]
    NotMounted,
    /// A file of a group could not be read or written.
    #[error("cgroup file {path}: cannot {action} {value:?}")]
    File {
        /// `read`, `write` or `create`.
        action: &'static str,
        path: PathBuf,
        value: String,
        #[source]
        source: io::Error,
    },
    /// A limit was asked for whose controller the kernel doesn't have.
    #[error("the cgroup controller {0:?} is needed for this limit but is not available on this node")]
    NoController(&'static str),
    /// A group's path that would leave the hierarchy.
    #[error("cgroup path {0:?} must be absolute and must not contain '..'")]
    Path(String),
    /// The device filter of version 2.
    #[error("cannot attach the device filter to {path}")]
    DeviceFilter {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A `unified` key on version 1, or one that isn't a file name.
    #[error("unified resource {0:?} cannot be set: {1}")]
    Unified(String, &'static str),
}

pub(crate) type Result<T> = std::result::Result<T, CgroupError>;

/// Which version the controllers are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The hierarchies of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Cgroups {
    version: Version,
    /// Version 1: one per mounted set of controllers. Version 2: exactly one.
    hierarchies: Vec<Hierarchy>,
}

#[derive(Clone, Debug)]
struct Hierarchy {
    root: PathBuf,
    controllers: Vec<String>,
}

impl Cgroups {
    /// Reads the mount table of this process.
    pub(crate) fn detect() -> Result<Self> {
        let path = Path::new("/proc/self/mountinfo");
        let table = fs::read_to_string(path).map_err(|source| CgroupError::File {
            action: "read",
            path: path.into(),
            value: String::new(),
            source,
        })?;
        Self::from_mounts(mounts::parse(&table))
    }

    fn from_mounts(mounts: Vec<Mount>) -> Result<Self> {
        let mut v1 = Vec::<Hierarchy>::new();
        let mut unified = None;
        for mount in mounts {
            match mount {
                Mount::V1 { root, controllers } if !controllers.is_empty() => {
                    if !v1.iter().any(|h| h.controllers == controllers) {
                        v1.push(Hierarchy { root, controllers });
                    }
                }
                Mount::V1 { .. } => {}
                Mount::V2 { root } => unified = unified.or(Some(root)),
            }
        }
        if !v1.is_empty() {
            return Ok(Self { version: Version::V1, hierarchies: v1 });
        }
        let root = unified.ok_or(CgroupError::NotMounted)?;
        Ok(Self { version: Version::V2, hierarchies: vec![Hierarchy { root, controllers: Vec::new() }] })
    }

    /// The version that has the controllers.
    pub(crate) fn version(&self) -> Version {
        self.version
    }

    /// The group's directory in every hierarchy.
    pub(crate) fn dirs(&self, path: &str) -> Result<Vec<PathBuf>> {
        let relative = relative(path)?;
        Ok(self.hierarchies.iter().map(|h| h.root.join(relative)).collect())
    }

    /// `(controllers, directory)` of a group in each version 1 hierarchy, named as its mount point is.
    pub(crate) fn named_dirs(&self, path: &str) -> Result<Vec<(String, PathBuf)>> {
        let relative = relative(path)?;
        Ok(self
            .hierarchies
            .iter()
            .filter_map(|h| {
                let name = h.root.file_name()?.to_str()?.to_owned();
                Some((name, h.root.join(relative)))
            })
            .collect())
    }

    /// Makes the group everywhere, ready to take processes.
    pub(crate) fn create(&self, path: &str) -> Result<()> {
        let relative = relative(path)?;
        match self.version {
            Version::V1 => v1::create(&self.hierarchies, relative),
            Version::V2 => v2::create(&self.hierarchies[0].root, relative),
        }
    }

    /// Applies the limits that are set in `resources`; those that are `None` stay as they are.
    ///
    /// Device rules are only applied by [`Cgroups::restrict_devices`], since an update never changes them.
    pub(crate) fn apply(&self, path: &str, resources: &Resources) -> Result<()> {
        let relative = relative(path)?;
        match self.version {
            Version::V1 => v1::apply(&self.hierarchies, relative, resources),
            Version::V2 => v2::apply(&self.hierarchies[0].root.join(relative), resources),
        }
    }

    /// Lets the group use only the devices of `rules`. To be called once, before the group has processes.
    pub(crate) fn restrict_devices(&self, path: &str, rules: &[DeviceRule]) -> Result<()> {
        let relative = relative(path)?;
        match self.version {
            Version::V1 => v1::restrict_devices(&self.hierarchies, relative, rules),
            Version::V2 => {
                let dir = self.hierarchies[0].root.join(relative);
                device_filter::attach(&dir, rules).map_err(|source| CgroupError::DeviceFilter { path: dir, source })
            }
        }
    }

    /// What the group has used so far.
    pub(crate) fn stats(&self, path: &str) -> Result<Stats> {
        let relative = relative(path)?;
        match self.version {
            Version::V1 => stats::v1(&self.hierarchies, relative),
            Version::V2 => stats::v2(&self.hierarchies[0].root.join(relative)),
        }
    }
}

/// Moves the calling process into every one of `dirs`.
pub(crate) fn join(dirs: &[PathBuf]) -> io::Result<()> {
    for dir in dirs {
        fs::write(dir.join("cgroup.procs"), "0")?;
    }
    Ok(())
}

fn relative(path: &str) -> Result<&Path> {
    let bad = || CgroupError::Path(path.to_owned());
    let relative = path.strip_prefix('/').ok_or_else(bad)?;
    let relative = Path::new(relative);
    let plain = relative.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if !plain || relative.as_os_str().is_empty() {
        return Err(bad());
    }
    Ok(relative)
}

fn hierarchy_of<'a>(hierarchies: &'a [Hierarchy], controller: &str) -> Option<&'a Hierarchy> {
    hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == controller))
}

fn write(path: PathBuf, value: impl ToString) -> Result<()> {
    let value = value.to_string();
    fs::write(&path, &value).map_err(|source| CgroupError::File { action: "write", path, value, source })
}

fn read(path: PathBuf) -> Result<String> {
    fs::read_to_string(&path).map_err(|source| CgroupError::File { action: "read", path, value: String::new(), source })
}

fn mkdir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(|source| CgroupError::File {
        action: "create",
        path: path.to_owned(),
        value: String::new(),
        source,
    })
}

#[cfg(test)]
mod tests;
