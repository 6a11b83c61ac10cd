//! What each sandbox was given, on disk and in memory.
//!
//! One file a sandbox, replaced by renaming. Files are not synced to the disk: what they describe does not
//! outlive the kernel either, and the page cache outlives the process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Attachment, PortMapping};
use crate::{Cidr, Error, Result};

/// A sandbox on the network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Sandbox {
    pub(super) sandbox: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) ips: Vec<IpAddr>,
    pub(super) interface: String,
    #[serde(default)]
    pub(super) ports: Vec<PortMapping>,
}

impl Sandbox {
    pub(super) fn attachment(&self) -> Attachment {
        Attachment { ips: self.ips.clone(), host_interface: self.interface.clone() }
    }
}

#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
    sandboxes: BTreeMap<String, Sandbox>,
}

const CURSOR: &str = "last-address";
const POD_CIDR: &str = "pod-cidr";
const SANDBOXES: &str = "sandboxes";
const TEMPORARY: &str = "new";

impl Records {
    /// Reads what an earlier run left. A file that a crash of the machine cut short describes nothing that
    /// still exists, so it is removed with a warning.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let sandboxes = directory.join(SANDBOXES);
        fs::create_dir_all(&sandboxes).map_err(Error::file("create", &sandboxes))?;
        let mut records = Self { directory: directory.into(), sandboxes: BTreeMap::new() };
        for entry in fs::read_dir(&sandboxes).map_err(Error::file("read", &sandboxes))? {
            let path = entry.map_err(Error::file("read", &sandboxes))?.path();
            let text = fs::read(&path).map_err(Error::file("read", &path))?;
            match serde_json::from_slice::<Sandbox>(&text) {
                Ok(sandbox) => {
                    records.sandboxes.insert(sandbox.sandbox.clone(), sandbox);
                }
                Err(error) => {
                    tracing::warn!(?path, %error, "removing an unreadable record of a sandbox's network");
                    remove(&path)?;
                }
            }
        }
        Ok(records)
    }

    pub(super) fn get(&self, sandbox: &str) -> Option<&Sandbox> {
        self.sandboxes.get(sandbox)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &String> {
        self.sandboxes.keys()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Sandbox> {
        self.sandboxes.values()
    }

    pub(super) fn uses(&self, address: IpAddr) -> bool {
        self.all().any(|sandbox| sandbox.ips.contains(&address))
    }

    /// Whether all ports are free.
    pub(super) fn check_ports(&self, ports: &[PortMapping]) -> Result<()> {
        for port in ports {
            for other in self.all() {
                if other.ports.iter().any(|taken| overlaps(port, taken)) {
                    let owner = other.sandbox.clone();
                    return Err(Error::PortTaken { port: port.host_port, protocol: port.protocol.name(), owner });
                }
            }
        }
        Ok(())
    }

    /// Keeps a sandbox; `cursor` is the address it was given.
    pub(super) fn insert(&mut self, sandbox: Sandbox, cursor: IpAddr) -> Result<()> {
        let path = self.path(&sandbox.sandbox);
        let text = serde_json::to_vec(&sandbox).map_err(|e| Error::file("encode", &path)(e.into()))?;
        self.write(&path, &text)?;
        self.write(&self.directory.join(CURSOR), cursor.to_string().as_bytes())?;
        self.sandboxes.insert(sandbox.sandbox.clone(), sandbox);
        Ok(())
    }

    pub(super) fn remove(&mut self, sandbox: &str) -> Result<()> {
        remove(&self.path(sandbox))?;
        self.sandboxes.remove(sandbox);
        Ok(())
    }

    /// The address that was handed out last. What cannot be read only costs an address its rest.
    pub(super) fn cursor(&self) -> Option<IpAddr> {
        fs::read_to_string(self.directory.join(CURSOR)).ok()?.parse().ok()
    }

    /// The pod CIDR of the last run; none when a crash of the machine damaged it.
    pub(super) fn pod_cidr(&self) -> Result<Option<Cidr>> {
        let path = self.directory.join(POD_CIDR);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.parse().ok()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { operation: "read", path, source }),
        }
    }

    pub(super) fn set_pod_cidr(&self, cidr: Cidr) -> Result<()> {
        self.write(&self.directory.join(POD_CIDR), cidr.to_string().as_bytes())
    }

    fn path(&self, sandbox: &str) -> PathBuf {
        self.directory.join(SANDBOXES).join(sandbox)
    }

    fn write(&self, path: &Path, text: &[u8]) -> Result<()> {
        let temporary = self.directory.join(TEMPORARY);
        fs::write(&temporary, text).map_err(Error::file("write", &temporary))?;
        fs::rename(&temporary, path).map_err(Error::file("replace", path))
    }
}

/// Removes the directory with all that is in it.
pub(super) fn clear(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { operation: "remove", path: directory.into(), source })
        }
        _ => Ok(()),
    }
}

/// Refuses an id that could name a file elsewhere.
pub(super) fn check_id(sandbox: &str) -> Result<()> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if sandbox.is_empty() || sandbox.len() > 200 || sandbox.starts_with('.') || !sandbox.bytes().all(fine) {
        return Err(Error::BadSandboxId(sandbox.to_owned()));
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { operation: "remove", path: path.into(), source })
        }
        _ => Ok(()),
    }
}

/// Whether two mappings want the same port of the same address; no address means all of them.
fn overlaps(one: &PortMapping, other: &PortMapping) -> bool {
    let any = |port: &PortMapping| specific_address(port).is_none();
    one.host_port == other.host_port
        && one.protocol == other.protocol
        && (any(one) || any(other) || one.host_ip == other.host_ip)
}

/// The address of the node that a mapping is for, unless it is for all.
pub(super) fn specific_address(port: &PortMapping) -> Option<IpAddr> {
    port.host_ip.filter(|address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;

    fn sandbox(id: &str, ip: &str, ports: Vec<PortMapping>) -> Sandbox {
        Sandbox {
            sandbox: id.into(),
            namespace: "default".into(),
            name: "web".into(),
            uid: "1".into(),
            ips: vec![ip.parse().unwrap()],
            interface: "pod0".into(),
            ports,
        }
    }

    fn port(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> PortMapping {
        PortMapping { host_ip: host_ip.map(|ip| ip.parse().unwrap()), host_port, container_port: 80, protocol }
    }

    #[test]
    fn survives_a_restart_and_forgets_damage() {
        let directory = tempfile::tempdir().unwrap();
        let mut records = Records::open(directory.path()).unwrap();
        let one = sandbox("a1", "10.1.0.2", vec![port(None, 8080, Protocol::Tcp)]);
        records.insert(one.clone(), one.ips[0]).unwrap();
        records.insert(sandbox("b2", "10.1.0.3", vec![]), "10.1.0.3".parse().unwrap()).unwrap();
        records.set_pod_cidr("10.1.0.0/24".parse().unwrap()).unwrap();
        records.remove("b2").unwrap();
        records.remove("b2").unwrap();
        fs::write(directory.path().join("sandboxes/c3"), "{\"sandbox\":").unwrap();

        let again = Records::open(directory.path()).unwrap();
        assert_eq!(again.all().collect::<Vec<_>>(), [&one]);
        assert_eq!(again.cursor(), Some("10.1.0.3".parse().unwrap()));
        assert_eq!(again.pod_cidr().unwrap(), Some("10.1.0.0/24".parse().unwrap()));
        assert!(again.uses("10.1.0.2".parse().unwrap()));
        assert!(!directory.path().join("sandboxes/c3").exists());
    }

    #[test]
    fn ports_clash_only_when_packets_would() {
        let directory = tempfile::tempdir().unwrap();
        let mut records = Records::open(directory.path()).unwrap();
        let one = sandbox("a1", "10.1.0.2", vec![port(Some("192.0.2.1"), 8080, Protocol::Tcp)]);
        records.insert(one.clone(), one.ips[0]).unwrap();
        let free = |p| records.check_ports(&[p]).is_ok();
        assert!(free(port(None, 8080, Protocol::Udp)));
        assert!(free(port(None, 8081, Protocol::Tcp)));
        assert!(free(port(Some("192.0.2.2"), 8080, Protocol::Tcp)));
        assert!(!free(port(Some("192.0.2.1"), 8080, Protocol::Tcp)));
        assert!(!free(port(Some("0.0.0.0"), 8080, Protocol::Tcp)));
        assert!(!free(port(None, 8080, Protocol::Tcp)));
    }

    #[test]
    fn ids_are_file_names() {
        for id in ["", "../x", "a/b", ".hidden", "a b", "a\0"] {
            assert!(check_id(id).is_err(), "{id:?}");
        }
        assert!(check_id("0f3c-9d_2.1").is_ok());
    }
}
