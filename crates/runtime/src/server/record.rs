//! What is kept on disk about sandboxes and containers.
//!
//! Each has a directory with `config.pb`, the CRI request, and `state.json`, written last: a directory without
//! it is half-made, or half-removed, and is cleaned up at the next start.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use prost::Message;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::executable::replace;

const CONFIG: &str = "config.pb";
const STATE: &str = "state.json";

/// A sandbox's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    pub(crate) ready: bool,
    pub(crate) runtime_handler: String,
    /// `None` when the pod uses the machine's network.
    pub(crate) netns: Option<PathBuf>,
    pub(crate) ips: Vec<IpAddr>,
    /// The node's end of its veth pair.
    pub(crate) host_interface: Option<String>,
    /// Which copy of the executable its shim runs.
    pub(crate) executable: String,
    pub(crate) pause: Option<i32>,
}

/// A container's state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) created_at: i64,
    pub(crate) image_id: String,
    pub(crate) image_ref: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) stop_signal: i32,
    pub(crate) cgroup: String,
    pub(crate) log_path: Option<PathBuf>,
    pub(crate) status: Status,
}

/// How far a container has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) pid: Option<i32>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished: Option<Finished>,
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finished {
    pub(crate) at: i64,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// Writes the request of a new sandbox or container.
pub(crate) fn write_config(dir: &Path, config: &impl Message) -> io::Result<()> {
    fs::write(dir.join(CONFIG), config.encode_to_vec())
}

/// Reads the request even of a half-made directory.
pub(crate) fn read_config<C: Message + Default>(dir: &Path) -> Option<C> {
    C::decode(fs::read(dir.join(CONFIG)).ok()?.as_slice()).ok()
}

/// Writes the state; from the first time on the directory counts.
pub(crate) fn write_state(dir: &Path, state: &impl Serialize) -> io::Result<()> {
    replace(&dir.join(STATE), &serde_json::to_vec(state)?)
}

/// From now on the directory is rubbish.
pub(crate) fn forget_state(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(STATE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a directory; `None` when it is half-made.
pub(crate) fn read<C: Message + Default, S: DeserializeOwned>(dir: &Path) -> Option<(C, S)> {
    let state = fs::read(dir.join(STATE)).ok()?;
    let config = fs::read(dir.join(CONFIG)).ok()?;
    let state = serde_json::from_slice(&state);
    let config = C::decode(config.as_slice());
    match (config, state) {
        (Ok(config), Ok(state)) => Some((config, state)),
        (config, state) => {
            let errors = (config.err(), state.err());
            tracing::warn!(dir = %dir.display(), ?errors, "unreadable state, taken for half-made");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use cri::v1::PodSandboxMetadata;

    use super::*;

    #[test]
    fn only_whole_directories_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let config = PodSandboxMetadata { name: "a".into(), ..Default::default() };
        let load = || read::<PodSandboxMetadata, Status>(dir.path());
        assert!(load().is_none());
        write_config(dir.path(), &config).unwrap();
        assert!(load().is_none());
        write_state(dir.path(), &Status::default()).unwrap();
        assert_eq!(load().unwrap(), (config, Status::default()));
        forget_state(dir.path()).unwrap();
        forget_state(dir.path()).unwrap();
        assert!(load().is_none());
        fs::write(dir.path().join(STATE), "{").unwrap();
        assert!(load().is_none());
    }
}
