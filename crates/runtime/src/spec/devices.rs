//! Device nodes and the rules that allow their use.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use cri::v1::Device;

use super::SpecError;
use crate::{
    cgroup::{DeviceKind, DeviceRule},
    shim::protocol::DevicePlan,
};

/// Nodes to make, and what may be used at all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    pub(crate) nodes: Vec<DevicePlan>,
    pub(crate) rules: Vec<DeviceRule>,
}

/// What every container may use: any node may be made, but only harmless ones opened. libcontainer makes the
/// nodes of these.
fn default_rules() -> Vec<DeviceRule> {
    use DeviceKind::{Block, Char};
    let make = |kind| DeviceRule { read: false, write: false, ..DeviceRule::any(kind) };
    let mut rules = vec![make(Char), make(Block)];
    // null, zero, full, random, urandom, tty, console, ptmx
    for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
        rules.push(DeviceRule::full(Char, major, minor));
    }
    rules.push(DeviceRule { major: Some(136), ..DeviceRule::any(Char) });
    rules
}

/// The devices of a request. A privileged container has all of the machine's.
pub(crate) fn plan(asked: &[Device], privileged: bool) -> Result<Devices, SpecError> {
    let mut devices = Devices::default();
    if privileged {
        devices.rules = vec![DeviceRule::any(DeviceKind::Char), DeviceRule::any(DeviceKind::Block)];
        walk(Path::new("/dev"), Path::new("/dev"), &mut devices.nodes)
            .map_err(|e| SpecError::Device("/dev".into(), e))?;
    } else {
        devices.rules = default_rules();
    }
    for device in asked {
        add(device, privileged, &mut devices).map_err(|e| SpecError::Device(device.host_path.clone(), e))?;
    }
    Ok(devices)
}

fn add(device: &Device, privileged: bool, devices: &mut Devices) -> io::Result<()> {
    let host = Path::new(&device.host_path);
    let container = if device.container_path.is_empty() { host } else { Path::new(&device.container_path) };
    if !container.starts_with("/dev") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("its path in the container, {}, must be below /dev", container.display()),
        ));
    }
    let resolved = fs::canonicalize(host)?;
    let mut nodes = Vec::new();
    if resolved.is_dir() {
        walk(&resolved, container, &mut nodes)?;
    } else {
        let node = node(&resolved, container)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is not a device"))?;
        nodes.push(node);
    }
    let access = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
    if let Some(bad) = access.chars().find(|c| !"rwm".contains(*c)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("permission {bad:?} is none of r, w and m")));
    }
    for node in nodes {
        if !privileged {
            devices.rules.push(DeviceRule {
                kind: if node.block { DeviceKind::Block } else { DeviceKind::Char },
                major: Some(node.major),
                minor: Some(node.minor),
                read: access.contains('r'),
                write: access.contains('w'),
                mknod: access.contains('m'),
            });
        }
        devices.nodes.retain(|n| n.path != node.path);
        devices.nodes.push(node);
    }
    Ok(())
}

/// Every device below a directory, except those that belong to mounts of their own.
fn walk(host: &Path, container: &Path, nodes: &mut Vec<DevicePlan>) -> io::Result<()> {
    const NOT_DEVICES: [&str; 6] = ["pts", "shm", "fd", "mqueue", ".udev", "console"];
    for entry in fs::read_dir(host)? {
        let entry = entry?;
        let name = entry.file_name();
        if NOT_DEVICES.iter().any(|n| name == *n) || name == "ptmx" {
            continue;
        }
        let (host, container) = (host.join(&name), container.join(&name));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&host, &container, nodes)?;
        } else if let Some(node) = node(&host, &container)? {
            nodes.push(node);
        }
    }
    Ok(())
}

fn node(host: &Path, container: &Path) -> io::Result<Option<DevicePlan>> {
    let metadata = match fs::symlink_metadata(host) {
        Ok(metadata) => metadata,
        // Unplugged meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = metadata.file_type();
    if !kind.is_block_device() && !kind.is_char_device() {
        return Ok(None);
    }
    Ok(Some(DevicePlan {
        path: PathBuf::from(container),
        block: kind.is_block_device(),
        major: libc::major(metadata.rdev()),
        minor: libc::minor(metadata.rdev()),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(host: &str, container: &str, permissions: &str) -> Device {
        Device { host_path: host.into(), container_path: container.into(), permissions: permissions.into() }
    }

    #[test]
    fn a_device_brings_node_and_rule() {
        let devices = plan(&[device("/dev/zero", "/dev/nothing", "r")], false).unwrap();
        assert_eq!(devices.nodes[0].path, Path::new("/dev/nothing"));
        assert_eq!((devices.nodes[0].major, devices.nodes[0].minor), (1, 5));
        let rule = devices.rules.last().unwrap();
        assert!(rule.read && !rule.write && !rule.mknod);
    }

    #[test]
    fn what_is_no_device_is_refused() {
        for bad in [
            device("/etc/passwd", "/dev/x", "rw"),
            device("/dev/none-such", "/dev/x", "rw"),
            device("/dev/zero", "/etc/zero", "rw"),
            device("/dev/zero", "/dev/zero", "x"),
        ] {
            assert!(plan(std::slice::from_ref(&bad), false).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn privileged_means_all() {
        let devices = plan(&[], true).unwrap();
        assert!(devices.nodes.iter().any(|n| n.path == Path::new("/dev/null")));
        assert!(!devices.nodes.iter().any(|n| n.path.starts_with("/dev/pts")));
        assert_eq!(devices.rules.len(), 2);
    }
}
