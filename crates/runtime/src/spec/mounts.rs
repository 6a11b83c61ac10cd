//! A container's mounts: those that every container has, those of the pod, those asked for.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use cri::v1::{Mount, MountPropagation};

use super::SpecError;
use crate::{
    cgroup::Version,
    shim::mounts::{Bind, MountKind, MountPlan, Propagation},
};

/// What the mounts depend on besides the request.
#[derive(Debug)]
pub(crate) struct MountContext<'a> {
    pub(crate) privileged: bool,
    pub(crate) readonly_rootfs: bool,
    /// The pod's `/dev/shm`, `/etc/hostname` and so on: `(container path, host path)`.
    pub(crate) pod_files: &'a [(PathBuf, PathBuf)],
    /// Where images that are volumes are mounted, by the number of the mount.
    pub(crate) image_volumes: &'a BTreeMap<usize, PathBuf>,
    pub(crate) cgroup_version: Version,
    /// `(name, directory)` of the container's groups, of version 1.
    pub(crate) cgroup_dirs: Vec<(String, PathBuf)>,
}

/// All mounts, outer ones first.
pub(crate) fn plan(asked: &[Mount], context: &MountContext<'_>) -> Result<Vec<MountPlan>, SpecError> {
    let mut requested = Vec::new();
    for (number, mount) in asked.iter().enumerate() {
        requested.push(convert(mount, context.image_volumes.get(&number))?);
    }
    for (container, host) in context.pod_files {
        if !requested.iter().any(|m| m.destination == *container) {
            requested.push(MountPlan {
                destination: container.clone(),
                kind: MountKind::Bind(Bind {
                    source: host.clone(),
                    recursive: true,
                    readonly: context.readonly_rootfs && !container.starts_with("/dev"),
                    recursive_readonly: false,
                    propagation: Propagation::Private,
                    hardened: container.starts_with("/dev"),
                }),
            });
        }
    }
    let own_dev = requested.iter().any(|m| m.destination == Path::new("/dev"));
    let mut mounts: Vec<MountPlan> = defaults(context)
        .into_iter()
        .filter(|d| {
            let below_dev = d.destination.starts_with("/dev") && d.destination != Path::new("/dev");
            // A /dev that is asked for covers the default one, which libcontainer fills.
            let replaced =
                requested.iter().any(|m| m.destination == d.destination) && d.destination != Path::new("/dev");
            !(replaced || own_dev && below_dev)
        })
        .collect();
    mounts.extend(requested);
    // Stable: of two at one place the later covers the earlier.
    mounts.sort_by_key(|m| m.destination.components().count());
    Ok(mounts)
}

fn defaults(context: &MountContext<'_>) -> Vec<MountPlan> {
    let fs = |destination: &str, typ: &str, source: &str, options: &[&str]| MountPlan {
        destination: destination.into(),
        kind: MountKind::Fs {
            typ: typ.into(),
            source: source.into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        },
    };
    let sys: &[&str] =
        if context.privileged { &["nosuid", "noexec", "nodev", "rw"] } else { &["nosuid", "noexec", "nodev", "ro"] };
    let cgroup = match context.cgroup_version {
        Version::V1 => MountPlan {
            destination: "/sys/fs/cgroup".into(),
            kind: MountKind::CgroupV1 { dirs: context.cgroup_dirs.clone(), writable: context.privileged },
        },
        Version::V2 => {
            let access = if context.privileged { "rw" } else { "ro" };
            fs("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", access])
        }
    };
    vec![
        fs("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        fs("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        fs("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        fs("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        fs("/sys", "sysfs", "sysfs", sys),
        cgroup,
    ]
}

fn convert(mount: &Mount, image: Option<&PathBuf>) -> Result<MountPlan, SpecError> {
    let path = &mount.container_path;
    let bad = |why: &'static str| SpecError::Mount(path.clone(), why);
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(SpecError::Unimplemented(format!(
            "mount {path:?}: mapped user ids are not supported by this runtime"
        )));
    }
    let destination = normal(Path::new(path)).ok_or_else(|| bad("its path in the container must be absolute"))?;
    if destination == Path::new("/") {
        return Err(bad("the container's root can't be mounted over"));
    }
    if let Some(root) = image {
        return image_volume(mount, destination, root);
    }
    if !Path::new(&mount.host_path).is_absolute() {
        return Err(bad("its path on the host must be absolute"));
    }
    let propagation = match MountPropagation::try_from(mount.propagation) {
        Ok(MountPropagation::PropagationPrivate) => Propagation::Private,
        Ok(MountPropagation::PropagationHostToContainer) => Propagation::FromHost,
        Ok(MountPropagation::PropagationBidirectional) => Propagation::Both,
        Err(_) => return Err(bad("its propagation is unknown")),
    };
    if mount.recursive_read_only {
        if !mount.readonly {
            return Err(bad("recursive read-only needs read-only"));
        }
        if propagation != Propagation::Private {
            return Err(bad("recursive read-only needs private propagation"));
        }
    }
    Ok(MountPlan {
        destination,
        kind: MountKind::Bind(Bind {
            source: PathBuf::from(&mount.host_path),
            recursive: true,
            readonly: mount.readonly,
            recursive_readonly: mount.recursive_read_only,
            propagation,
            hardened: false,
        }),
    })
}

/// An image as a volume: read-only, nothing in it is executable with more rights.
fn image_volume(mount: &Mount, destination: PathBuf, root: &Path) -> Result<MountPlan, SpecError> {
    let bad = |why: &'static str| SpecError::Mount(mount.container_path.clone(), why);
    let below = Path::new(&mount.image_sub_path);
    let plain = below.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain {
        return Err(bad("the path inside its image must be relative, without '..'"));
    }
    // Links of the image must not lead out of it.
    let mut source = root.to_owned();
    for component in below.components() {
        source.push(component);
        match source.symlink_metadata() {
            Ok(metadata) if metadata.is_symlink() => {
                return Err(bad("the path inside its image must not contain symbolic links"));
            }
            Ok(_) => {}
            Err(_) => return Err(bad("the path inside its image does not exist")),
        }
    }
    Ok(MountPlan {
        destination,
        kind: MountKind::Bind(Bind {
            source,
            recursive: true,
            readonly: true,
            recursive_readonly: true,
            propagation: Propagation::Private,
            hardened: false,
        }),
    })
}

/// Without `.`, `..` and doubled slashes; `None` unless absolute.
fn normal(path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() {
        return None;
    }
    let mut out = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    static NONE: BTreeMap<usize, PathBuf> = BTreeMap::new();

    fn context() -> MountContext<'static> {
        MountContext {
            privileged: false,
            readonly_rootfs: false,
            pod_files: &[],
            image_volumes: &NONE,
            cgroup_version: Version::V2,
            cgroup_dirs: vec![],
        }
    }

    fn bind(host: &str, container: &str) -> Mount {
        Mount { host_path: host.into(), container_path: container.into(), ..Default::default() }
    }

    fn places(mounts: &[MountPlan]) -> Vec<&str> {
        mounts.iter().map(|m| m.destination.to_str().unwrap()).collect()
    }

    #[test]
    fn outer_mounts_come_first_and_defaults_give_way() {
        let asked = [bind("/a", "/x/y/z"), bind("/b", "/x"), bind("/s", "/sys")];
        let mounts = plan(&asked, &context()).unwrap();
        assert_eq!(
            places(&mounts),
            ["/proc", "/dev", "/x", "/sys", "/dev/pts", "/dev/mqueue", "/sys/fs/cgroup", "/x/y/z"]
        );
        assert!(matches!(mounts[3].kind, MountKind::Bind(_)));
    }

    #[test]
    fn a_dev_of_its_own_covers_the_default() {
        let asked = [bind("/log", "/dev/termination-log"), bind("/dev", "/dev/")];
        let mounts = plan(&asked, &context()).unwrap();
        assert_eq!(places(&mounts), ["/proc", "/dev", "/sys", "/dev", "/dev/termination-log", "/sys/fs/cgroup"]);
    }

    #[test]
    fn images_as_volumes_stay_inside_and_read_only() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        let volumes = BTreeMap::from([(0, dir.path().to_owned())]);
        let context = MountContext { image_volumes: &volumes, ..context() };
        let planned = |below: &str| {
            let mount = Mount { image_sub_path: below.into(), ..bind("", "/volume") };
            plan(&[mount], &context)
        };
        let mounts = planned("data").unwrap();
        let MountKind::Bind(bind) = &mounts[3].kind else { panic!("{mounts:?}") };
        assert!(bind.readonly && bind.source == dir.path().join("data"));
        for bad in ["../x", "/etc", "link", "none"] {
            assert!(planned(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_applied_is_refused() {
        let mapped = Mount { uid_mappings: vec![cri::v1::IdMapping::default()], ..bind("/a", "/b") };
        let recursive = Mount { recursive_read_only: true, ..bind("/a", "/b") };
        for bad in [mapped, recursive, bind("/a", "b"), bind("a", "/b"), bind("/a", "/x/..")] {
            assert!(plan(std::slice::from_ref(&bad), &context()).is_err(), "{bad:?}");
        }
    }
}
