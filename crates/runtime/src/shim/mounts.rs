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
    ffi::CString,
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::Mode,
};
use serde::{Deserialize, Serialize};

use super::syscalls::{self, MountAttributes};

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
    let table = parse_mount_table(&table);

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
        if !bound.is_dir() {
            prepare_file_target(rootfs, &mount.destination)?;
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
    let destination = resolve_in_image(rootfs, &mount.destination)?;
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

/// Where a path of a container leads, as far as its image says. Nobody else changes the image meanwhile.
fn resolve_in_image(rootfs: &Path, path: &Path) -> Result<PathBuf, StageError> {
    let mut rest: Vec<PathBuf> = components_reversed(path);
    let mut done = PathBuf::from("/");
    let mut links = 0;
    while let Some(component) = rest.pop() {
        if component == Path::new("..") {
            done.pop();
            continue;
        }
        let next = done.join(&component);
        let inside = next.strip_prefix("/").unwrap_or(&next);
        let Ok(target) = fs::read_link(rootfs.join(inside)) else {
            done = next;
            continue;
        };
        links += 1;
        if links > 40 {
            let error = io::Error::from_raw_os_error(libc::ELOOP);
            return Err(failed(path, "resolve")(error));
        }
        if target.is_absolute() {
            done = PathBuf::from("/");
        }
        rest.extend(components_reversed(&target));
    }
    Ok(done)
}

fn components_reversed(path: &Path) -> Vec<PathBuf> {
    path.components()
        .rev()
        .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
        .map(|c| PathBuf::from(c.as_os_str()))
        .collect()
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

/// libcontainer doesn't mount a file over a dangling link (`/etc/resolv.conf` of many images is one): makes
/// the file that the link means, inside the image.
fn prepare_file_target(rootfs: &Path, destination: &Path) -> Result<(), StageError> {
    let root = syscalls::open_path(rootfs).map_err(failed(rootfs, "open"))?;
    let inside = destination.strip_prefix("/").unwrap_or(destination);
    let metadata = match fs::symlink_metadata(rootfs.join(inside)) {
        Ok(metadata) => metadata,
        Err(_) => return Ok(()),
    };
    if !metadata.is_symlink() {
        return Ok(());
    }
    let mut current = inside.to_owned();
    // The kernel's own limit on links in a row.
    for _ in 0..40 {
        let how = |flags| {
            OpenHow::new()
                .flags(flags | OFlag::O_CLOEXEC)
                .mode(Mode::from_bits_truncate(0o644))
                .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
        };
        let open = |flags: OFlag| {
            let mut how = how(flags);
            if !flags.contains(OFlag::O_CREAT) {
                how = how.mode(Mode::empty());
            }
            openat2(std::os::fd::AsRawFd::as_raw_fd(&root), &current, how).map(|fd| drop(syscalls::own(fd)))
        };
        match open(OFlag::O_PATH) {
            Ok(()) => return Ok(()),
            Err(nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(failed(destination, "resolve")(error)),
        }
        match open(OFlag::O_CREAT | OFlag::O_WRONLY) {
            Ok(()) => return Ok(()),
            // A directory on the way is missing too.
            Err(nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(failed(destination, "create the link's target")(error)),
        }
        let Ok(target) = fs::read_link(rootfs.join(&current)) else {
            break;
        };
        let next = current.parent().unwrap_or(Path::new("")).join(target);
        current = lexical(&next);
        if let Some(parent) = current.parent() {
            make_dirs_in_root(&root, parent).map_err(failed(destination, "create a directory"))?;
        }
    }
    Ok(())
}

/// Without `.` and `..`, relative to the root.
fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// `mkdir -p` below `root`, following links only inside of it.
pub(crate) fn make_dirs_in_root(root: &OwnedFd, path: &Path) -> io::Result<()> {
    let mut current = PathBuf::new();
    for component in lexical(path).components() {
        let parent = syscalls::open_in_root(root.as_fd(), &current, libc::O_PATH | libc::O_DIRECTORY)?;
        let name = CString::new(component.as_os_str().as_bytes())?;
        match nix::sys::stat::mkdirat(
            Some(std::os::fd::AsRawFd::as_raw_fd(&parent)),
            name.as_c_str(),
            Mode::from_bits_truncate(0o755),
        ) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        current.push(component);
    }
    Ok(())
}

struct MountEntry {
    point: PathBuf,
    shared: bool,
    slave: bool,
}

fn parse_mount_table(table: &str) -> Vec<MountEntry> {
    table
        .lines()
        .filter_map(|line| {
            let (head, _) = line.split_once(" - ")?;
            let mut fields = head.split(' ').skip(4);
            let point = PathBuf::from(crate::cgroup::unescape(fields.next()?));
            let optional: Vec<_> = fields.skip(1).collect();
            Some(MountEntry {
                point,
                shared: optional.iter().any(|o| o.starts_with("shared:")),
                slave: optional.iter().any(|o| o.starts_with("master:")),
            })
        })
        .collect()
}

/// The mount that a path is on: the last of the longest, since later ones cover earlier ones.
fn mount_of<'a>(path: &Path, table: &'a [MountEntry]) -> Option<&'a MountEntry> {
    table.iter().filter(|m| path.starts_with(&m.point)).max_by_key(|m| m.point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount_of_a_path() {
        let table = parse_mount_table(
            "1 0 8:1 / / rw shared:1 - ext4 /dev/vda rw\n\
             2 1 8:2 / /data rw master:3 - ext4 /dev/vdb rw\n\
             3 1 8:2 / /data rw - ext4 /dev/vdc rw\n",
        );
        let data = mount_of(Path::new("/data/x"), &table).unwrap();
        assert!(!data.slave && !data.shared, "the later mount covers the earlier one");
        assert!(mount_of(Path::new("/database"), &table).unwrap().shared);
    }

    #[test]
    fn links_of_an_image_resolve_inside_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        let outside = dir.path().join("outside");
        std::os::unix::fs::symlink("../../../../run/stub/resolv.conf", root.join("etc/resolv.conf")).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("etc/hosts")).unwrap();
        prepare_file_target(&root, Path::new("/etc/resolv.conf")).unwrap();
        prepare_file_target(&root, Path::new("/etc/hosts")).unwrap();
        assert!(root.join("run/stub/resolv.conf").is_file());
        assert!(!outside.exists());
        assert!(root.join(outside.strip_prefix("/").unwrap()).is_file());
    }

    #[test]
    fn destinations_follow_the_images_links() {
        let dir = tempfile::tempdir().unwrap();
        let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, dir.path().join(at)).unwrap();
        fs::create_dir_all(dir.path().join("var")).unwrap();
        link("/run", "var/run");
        link("../../proc/self", "me");
        link("dev", "devices");
        link("loop", "loop");
        let at = |path: &str| resolve_in_image(dir.path(), Path::new(path));
        assert_eq!(at("/var/run/secrets").unwrap(), Path::new("/run/secrets"));
        assert_eq!(at("/devices").unwrap(), Path::new("/dev"));
        assert_eq!(at("/var/../../x").unwrap(), Path::new("/x"));
        assert!(at("/loop/x").is_err());
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
