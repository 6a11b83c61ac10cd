//! A container's mounts, staged so that what was asked for is what is applied.
//!
//! libcontainer 0.7 ignores the propagation of bind mounts. So each source is cloned here first, in a mount
//! namespace of the helper that starts the container: as a detached tree it gets its propagation and its
//! flags, then it is attached to a private staging directory, from where libcontainer only has to clone it
//! once more into the container (which keeps both).
//!
//! `/dev` is special too: libcontainer always fills it, replacing `/dev/ptmx`. A bind mount of the machine's
//! `/dev` therefore must not be there yet, it is put in place afterwards by [`super::hook`].

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::{Deserialize, Serialize};

use super::{
    image_paths,
    mount_table::{self, MountEntry, mount_of},
    syscalls::{self, MountAttributes},
};

/// One mount of a container, in the order in which they are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MountPlan {
    /// Absolute, in the container.
    pub(crate) destination: PathBuf,
    pub(crate) kind: MountKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MountKind {
    /// A new file system; options as `mount(8)` takes them.
    Fs { typ: String, source: String, options: Vec<String> },
    /// A part of the host's tree.
    Bind(Bind),
    /// The container's own groups of a version 1 machine, read-only unless said otherwise:
    /// `(name, directory)` of each hierarchy.
    CgroupV1 { dirs: Vec<(String, PathBuf)>, writable: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    /// With the mounts below the source.
    pub(crate) recursive: bool,
    pub(crate) readonly: bool,
    /// The mounts below are read-only too.
    pub(crate) recursive_readonly: bool,
    pub(crate) propagation: Propagation,
    /// `nosuid`, `nodev` and `noexec`.
    pub(crate) hardened: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Propagation {
    Private,
    /// Mounts of the host appear in the container.
    FromHost,
    /// And the container's on the host.
    Both,
}

/// What staging yields for libcontainer.
pub(crate) struct Staged {
    pub(crate) mounts: Vec<StagedMount>,
    /// Mounts at and below a bind mount of `/dev`: `(staged source, destination)`.
    pub(crate) deferred: Vec<(PathBuf, PathBuf)>,
    /// Some mount goes both ways, so the container's root must not be made a slave.
    pub(crate) shared: bool,
}

/// One mount as libcontainer shall make it.
pub(crate) struct StagedMount {
    pub(crate) destination: PathBuf,
    pub(crate) typ: String,
    pub(crate) source: String,
    pub(crate) options: Vec<String>,
}

/// Why a mount can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error("mount {path}: cannot {action}: {source}")]
    Mount { path: PathBuf, action: &'static str, source: io::Error },
    #[error("path {path:?} is mounted on {mount:?} but it is not a shared mount")]
    NotShared { path: PathBuf, mount: PathBuf },
    #[error("path {path:?} is mounted on {mount:?} but it is not a shared or slave mount")]
    NotSlave { path: PathBuf, mount: PathBuf },
    #[error("mount {0}: {0:?} cannot be mounted because it is inside /proc")]
    InsideProc(PathBuf),
    #[error("the image's {0} is not a directory; it must not be a symbolic link or a file")]
    NotDirectory(PathBuf),
}

fn failed<E: Into<io::Error>>(path: &Path, action: &'static str) -> impl FnOnce(E) -> StageError {
    move |error| StageError::Mount { path: path.to_owned(), action, source: error.into() }
}

/// Enters a mount namespace of its own and stages `plan` at `staging` (an existing empty directory).
pub(crate) fn stage(plan: &[MountPlan], rootfs: &Path, staging: &Path) -> Result<Staged, StageError> {
    check_rootfs(rootfs)?;
    let plan: Vec<MountPlan> = plan.iter().map(|mount| resolve_destination(rootfs, mount)).collect::<Result<_, _>>()?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(failed(staging, "make a mount namespace"))?;
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed(staging, "read mounts"))?;
    let table = mount_table::parse(&table);

    // All sources first: making the staging directory's mount private would cut off those that lie on it.
    let mut sources = Vec::new();
    for mount in &plan {
        sources.push(match &mount.kind {
            MountKind::Bind(bind) => Some(clone_source(bind, &table)?),
            _ => None,
        });
    }
    let parent = mount_of(staging, &table).map_or(Path::new("/"), |m| &m.point);
    let none = None::<&str>;
    mount(none, parent, none, MsFlags::MS_PRIVATE, none).map_err(failed(parent, "make private"))?;
    let tmpfs = Some("tmpfs");
    mount(tmpfs, staging, tmpfs, MsFlags::empty(), Some("mode=0700"))
        .map_err(failed(staging, "mount the staging directory"))?;
    mount(none, staging, none, MsFlags::MS_PRIVATE, none).map_err(failed(staging, "make private"))?;

    let device_bind = plan.iter().any(|m| m.destination == Path::new("/dev") && matches!(m.kind, MountKind::Bind(_)));
    let mut staged = Staged { mounts: Vec::new(), deferred: Vec::new(), shared: false };
    for (number, (mount, source)) in plan.iter().zip(sources).enumerate() {
        let at = staging.join(number.to_string());
        let bound = match &mount.kind {
            MountKind::Fs { typ, source, options } => {
                staged.mounts.push(StagedMount {
                    destination: mount.destination.clone(),
                    typ: typ.clone(),
                    source: source.clone(),
                    options: options.clone(),
                });
                continue;
            }
            MountKind::Bind(bind) => {
                staged.shared |= bind.propagation == Propagation::Both;
                if let Some(source) = source {
                    attach(source.as_fd(), &at)?;
                }
                at
            }
            MountKind::CgroupV1 { dirs, writable } => {
                stage_cgroups(dirs, *writable, &at)?;
                at
            }
        };
        let inside_dev = mount.destination.starts_with("/dev");
        if device_bind && inside_dev && matches!(mount.kind, MountKind::Bind(_)) {
            staged.deferred.push((bound, mount.destination.clone()));
            continue;
        }
        staged.mounts.push(StagedMount {
            destination: mount.destination.clone(),
            typ: "bind".into(),
            source: bound.display().to_string(),
            options: vec!["rbind".into()],
        });
    }
    Ok(staged)
}

/// Follows the links of the image in a destination, so that what is decided by it is decided by where it
/// really is, and refuses those below `/proc`: libcontainer checks only mounts of procfs itself.
fn resolve_destination(rootfs: &Path, mount: &MountPlan) -> Result<MountPlan, StageError> {
    // What lxcfs emulates.
    const ALLOWED: [&str; 10] = [
        "/proc/cpuinfo",
        "/proc/diskstats",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/swaps",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/slabinfo",
        "/proc/sys/kernel/ns_last_pid",
        "/proc/sys/crypto/fips_enabled",
    ];
    let destination =
        image_paths::resolve(rootfs, &mount.destination).map_err(failed(&mount.destination, "resolve"))?;
    let proc = Path::new("/proc");
    let refused = match &mount.kind {
        MountKind::Bind(bind) if destination == proc => !is_procfs(&bind.source),
        _ => {
            destination.starts_with(proc) && destination != proc && !ALLOWED.iter().any(|a| destination == Path::new(a))
        }
    };
    if refused {
        return Err(StageError::InsideProc(mount.destination.clone()));
    }
    Ok(MountPlan { destination, kind: mount.kind.clone() })
}

fn is_procfs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|s| s.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

/// libcontainer makes links and nodes at `rootfs/dev/…` by plain paths before the root is changed: were `dev`
/// itself a link, they would land on the host.
fn check_rootfs(rootfs: &Path) -> Result<(), StageError> {
    for name in ["dev", "proc", "sys"] {
        let path = rootfs.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_dir() => {
                return Err(StageError::NotDirectory(Path::new("/").join(name)));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&path, "inspect")(error)),
        }
    }
    Ok(())
}

fn clone_source(bind: &Bind, table: &[MountEntry]) -> Result<OwnedFd, StageError> {
    let path = fs::canonicalize(&bind.source).map_err(failed(&bind.source, "find the source"))?;
    let entry = mount_of(&path, table);
    match (bind.propagation, entry) {
        (Propagation::Both, Some(entry)) if !entry.shared => {
            return Err(StageError::NotShared { path: bind.source.clone(), mount: entry.point.clone() });
        }
        (Propagation::FromHost, Some(entry)) if !entry.shared && !entry.slave => {
            return Err(StageError::NotSlave { path: bind.source.clone(), mount: entry.point.clone() });
        }
        _ => {}
    }
    let tree = syscalls::open_tree(&path, bind.recursive).map_err(failed(&path, "clone"))?;
    let propagation = match bind.propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::FromHost => libc::MS_SLAVE,
        Propagation::Both => 0,
    };
    if propagation != 0 {
        let attributes = MountAttributes { propagation, ..Default::default() };
        syscalls::mount_setattr(tree.as_fd(), true, attributes).map_err(failed(&path, "set the propagation"))?;
    }
    let mut set = 0;
    if bind.readonly {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if bind.hardened {
        set |= libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    }
    if set != 0 {
        let attributes = MountAttributes { set, ..Default::default() };
        syscalls::mount_setattr(tree.as_fd(), bind.recursive_readonly, attributes)
            .map_err(failed(&path, "set the flags"))?;
    }
    Ok(tree)
}

/// Makes a place of the right kind at `at` and attaches the tree there.
fn attach(tree: BorrowedFd<'_>, at: &Path) -> Result<(), StageError> {
    let kind = syscalls::is_dir(tree).map_err(failed(at, "inspect"))?;
    if kind {
        fs::create_dir(at).map_err(failed(at, "create"))?;
    } else {
        fs::File::create(at).map_err(failed(at, "create"))?;
    }
    syscalls::move_mount(tree, at).map_err(failed(at, "attach"))
}

/// A small tree with the container's directory of each hierarchy.
fn stage_cgroups(dirs: &[(String, PathBuf)], writable: bool, at: &Path) -> Result<(), StageError> {
    fs::create_dir(at).map_err(failed(at, "create"))?;
    let tmpfs = Some("tmpfs");
    mount(tmpfs, at, tmpfs, MsFlags::empty(), Some("mode=0755")).map_err(failed(at, "mount the cgroup directory"))?;
    for (name, dir) in dirs {
        let tree = syscalls::open_tree(dir, false).map_err(failed(dir, "clone"))?;
        let private = MountAttributes { propagation: libc::MS_PRIVATE, ..Default::default() };
        syscalls::mount_setattr(tree.as_fd(), true, private).map_err(failed(dir, "set the propagation"))?;
        attach(tree.as_fd(), &at.join(name))?;
        // Controllers that are mounted together are also found by their single names.
        if name.contains(',') {
            for single in name.split(',') {
                std::os::unix::fs::symlink(name, at.join(single)).map_err(failed(at, "link a controller"))?;
            }
        }
    }
    let mut set = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    if !writable {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    let attributes = MountAttributes { set, ..Default::default() };
    let whole = syscalls::open_path(at).map_err(failed(at, "open"))?;
    syscalls::mount_setattr(whole.as_fd(), true, attributes).map_err(failed(at, "set the flags"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_mounted_inside_proc() {
        let dir = tempfile::tempdir().unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, dir.path().join(at)).unwrap();
        fs::create_dir_all(dir.path().join("var")).unwrap();
        link("/run", "var/run");
        link("../../proc/self", "me");
        let bind = |destination: &str| MountPlan {
            destination: destination.into(),
            kind: MountKind::Bind(Bind {
                source: "/tmp".into(),
                recursive: true,
                readonly: false,
                recursive_readonly: false,
                propagation: Propagation::Private,
                hardened: false,
            }),
        };
        for bad in ["/proc", "/proc/sys", "/me/attr", "/x/../proc/1"] {
            assert!(resolve_destination(dir.path(), &bind(bad)).is_err(), "{bad}");
        }
        for good in ["/proc/cpuinfo", "/procs", "/var/run"] {
            assert!(resolve_destination(dir.path(), &bind(good)).is_ok(), "{good}");
        }
    }

    #[test]
    fn an_image_whose_dev_is_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("dev")).unwrap();
        assert!(matches!(
            check_rootfs(dir.path()),
            Err(StageError::NotDirectory(path)) if path == Path::new("/dev")
        ));
    }
}
