//! Removing everything that a runtime has made, whether one runs or not.

use std::{fs, io, path::Path};

use network::pod::PodNetwork;
use nix::mount::{MntFlags, umount2};

use super::{
    config::{Config, ConfigError},
    layout::{Layout, NETNS_DIR},
    lifecycle::network_config,
    record,
    recovery::{kill_and_remove_cgroup, kill_shim, list, remove_dir},
};
use crate::cgroup::{self, Cgroups};

/// Something could not be removed; everything else was.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The configuration names nothing that could be reset.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What is left, and why.
    #[error("not everything could be removed: {}", .0.join("; "))]
    Left(Vec<String>),
}

/// Ends every shim and container of the cluster and removes mounts, groups, namespaces and files: all of the
/// runtime's part of the data directory. No server may run meanwhile. Goes on when something fails. Blocks.
///
/// # Errors
/// Lists what is left.
pub fn reset(config: &Config) -> Result<(), ResetError> {
    config.check()?;
    let layout = Layout::new(config);
    let mut left = Vec::new();
    let mut attempt = |what: String, result: io::Result<()>| {
        if let Err(error) = result {
            left.push(format!("{what}: {error}"));
        }
    };
    let ids = |dir: &Path| list(dir).unwrap_or_default();

    for id in ids(&layout.sandboxes()) {
        attempt(format!("shim of sandbox {id}"), kill_shim(&layout.sandbox(&id)));
    }
    match Cgroups::detect() {
        Ok(cgroups) => remove_groups(&cgroups, &layout, &mut attempt),
        Err(error) => attempt("cgroups".into(), Err(io::Error::other(error))),
    }
    attempt("mounts".into(), unmount_below(layout.root()));
    let images = config.images_dir();
    attempt("mounts".into(), unmount_below(&images));
    let prefix = layout.netns_prefix();
    for name in ids(Path::new(NETNS_DIR)) {
        if name.starts_with(&prefix) {
            let path = Path::new(NETNS_DIR).join(&name);
            let deleted = network::netns::delete(&path).map_err(io::Error::other);
            attempt(format!("network namespace {name}"), deleted);
        }
    }
    let released = network::netns::release(Path::new(NETNS_DIR)).map_err(io::Error::other);
    attempt(NETNS_DIR.to_owned(), released);
    attempt(
        "pod network".into(),
        network_config(config).and_then(|network| PodNetwork::remove(&network).map_err(io::Error::other)),
    );
    for dir in [layout.root(), layout.bin(), &images] {
        attempt(dir.display().to_string(), remove_dir(dir));
    }
    attempt(config.socket.display().to_string(), remove_file(&config.socket));
    if left.is_empty() { Ok(()) } else { Err(ResetError::Left(left)) }
}

fn remove_groups(cgroups: &Cgroups, layout: &Layout, attempt: &mut impl FnMut(String, io::Result<()>)) {
    let mut groups = Vec::new();
    for id in list(&layout.containers()).unwrap_or_default() {
        let dir = layout.container(&id);
        let read = record::read::<cri::v1::ContainerConfig, record::ContainerRecord>(&dir);
        if let Some((_, record)) = read {
            groups.push(record.cgroup);
        }
    }
    for id in list(&layout.sandboxes()).unwrap_or_default() {
        let config: Option<cri::v1::PodSandboxConfig> = record::read_config(&layout.sandbox(&id));
        let parent = config.and_then(|c| c.linux).map(|l| l.cgroup_parent);
        groups.push(layout.cgroup(&parent.unwrap_or_default(), &id));
    }
    groups.push(format!("{}/pods", layout.cgroup_root()));
    groups.push(layout.shim_cgroup());
    for group in groups {
        let removed = cgroups.dirs(&group).map_err(io::Error::other).and_then(|dirs| kill_and_remove_cgroup(&dirs));
        attempt(format!("cgroup {group}"), removed);
    }
    // Others may have groups below our root: only when it is empty.
    if let Ok(dirs) = cgroups.dirs(layout.cgroup_root())
        && cgroup::is_empty(&dirs).unwrap_or(false)
    {
        for dir in dirs {
            let _ = fs::remove_dir(dir);
        }
    }
}

/// Unmounts everything at and below a directory, the innermost first.
fn unmount_below(dir: &Path) -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut points: Vec<_> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|field| std::path::PathBuf::from(cgroup::unescape(field)))
        .filter(|point| point.starts_with(dir))
        .collect();
    points.reverse();
    for point in points {
        umount2(&point, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
