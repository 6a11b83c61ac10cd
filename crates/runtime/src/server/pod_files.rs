//! Files of a sandbox that its containers see: host name, hosts, resolver configuration, shared memory.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use cri::v1::DnsConfig;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Size of a pod's `/dev/shm`, as everywhere.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

/// Writes the files into a sandbox's directory.
pub(crate) fn write(dir: &Path, hostname: &str, dns: Option<&DnsConfig>) -> io::Result<()> {
    write_readable(&dir.join("hostname"), &format!("{hostname}\n"))?;
    let hosts = fs::read_to_string("/etc/hosts").or_else(none_if_missing)?;
    write_readable(&dir.join("hosts"), &hosts)?;
    let resolver = match dns {
        Some(dns) if !is_empty(dns) => resolv_conf(dns),
        _ => fs::read_to_string("/etc/resolv.conf").or_else(none_if_missing)?,
    };
    write_readable(&dir.join("resolv.conf"), &resolver)
}

fn none_if_missing(error: io::Error) -> io::Result<String> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(String::new()),
        _ => Err(error),
    }
}

fn write_readable(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

fn is_empty(dns: &DnsConfig) -> bool {
    dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty()
}

fn resolv_conf(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text += &format!("search {}\n", dns.searches.join(" "));
    }
    for server in &dns.servers {
        text += &format!("nameserver {server}\n");
    }
    if !dns.options.is_empty() {
        text += &format!("options {}\n", dns.options.join(" "));
    }
    text
}

fn shm(dir: &Path) -> PathBuf {
    dir.join("shm")
}

/// Mounts the pod's shared memory.
pub(crate) fn mount_shm(dir: &Path) -> io::Result<()> {
    let path = shm(dir);
    fs::create_dir(&path)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("shm"), &path, Some("tmpfs"), flags, Some(SHM_OPTIONS))?)
}

/// Unmounts it; it need not be mounted.
pub(crate) fn unmount_shm(dir: &Path) -> io::Result<()> {
    use nix::errno::Errno;
    match umount2(&shm(dir), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Where containers see them: `(container path, host path)`.
pub(crate) fn mounts(dir: &Path, own_ipc: bool) -> Vec<(PathBuf, PathBuf)> {
    let shm = if own_ipc { shm(dir) } else { "/dev/shm".into() };
    let mut mounts: Vec<(PathBuf, PathBuf)> = ["hostname", "hosts", "resolv.conf"]
        .iter()
        .map(|name| (Path::new("/etc").join(name), dir.join(name)))
        .collect();
    mounts.push(("/dev/shm".into(), shm));
    mounts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_is_told_what_the_pod_says() {
        let dns = DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["a.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        };
        assert_eq!(resolv_conf(&dns), "search a.svc svc\nnameserver 10.96.0.10\noptions ndots:5\n");
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "pod-1", Some(&dns)).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("hostname")).unwrap(), "pod-1\n");
        unmount_shm(dir.path()).unwrap();
    }
}
