//! Kernel parameters of a pod: only those that its own namespaces have.

use std::collections::BTreeMap;

use super::SpecError;

/// Parameters of the IPC namespace besides `fs.mqueue`.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Checks the parameters and turns their names to paths below `/proc/sys`.
pub(crate) fn plan(
    asked: &BTreeMap<String, String>,
    own_network: bool,
    own_ipc: bool,
) -> Result<Vec<(String, String)>, SpecError> {
    let mut out = Vec::new();
    for (name, value) in asked {
        let bad = |why| SpecError::Sysctl(name.clone(), why);
        let path = path(name).ok_or_else(|| bad("the name is not valid"))?;
        if path.starts_with("net/") {
            if !own_network {
                return Err(bad("it is not allowed in pods that use the host's network"));
            }
        } else if path.starts_with("fs/mqueue/") || IPC.contains(&path.as_str()) {
            if !own_ipc {
                return Err(bad("it is not allowed in pods that use the host's IPC"));
            }
        } else {
            return Err(bad("it is not in a namespace of the pod"));
        }
        out.push((path, value.clone()));
    }
    out.sort();
    Ok(out)
}

/// With dots for separators, or with slashes when the first separator is one.
fn path(name: &str) -> Option<String> {
    let first = name.find(['.', '/'])?;
    let path = if name.as_bytes()[first] == b'/' {
        name.to_owned()
    } else {
        name.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect()
    };
    let plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    plain.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, own_network: bool, own_ipc: bool) -> Result<String, SpecError> {
        let asked = BTreeMap::from([(name.to_owned(), "1".to_owned())]);
        plan(&asked, own_network, own_ipc).map(|p| p[0].0.clone())
    }

    #[test]
    fn names_become_paths() {
        assert_eq!(one("net.ipv4.ip_forward", true, true).unwrap(), "net/ipv4/ip_forward");
        assert_eq!(one("net.ipv4.conf.eth0/1.rp_filter", true, true).unwrap(), "net/ipv4/conf/eth0.1/rp_filter");
        assert_eq!(one("kernel/shmmax", true, true).unwrap(), "kernel/shmmax");
    }

    #[test]
    fn the_machine_is_never_changed() {
        for (name, network, ipc) in [
            ("net.ipv4.ip_forward", false, true),
            ("kernel.shmmax", true, false),
            ("kernel.panic", true, true),
            ("vm.swappiness", true, true),
            ("net..ipv4", true, true),
            ("net/../kernel/panic", true, true),
            ("net", true, true),
        ] {
            assert!(one(name, network, ipc).is_err(), "{name}");
        }
    }
}
