//! Volumes: made before a pod's containers, kept up to date while they run, removed after them.

pub(crate) mod atomic;
mod claim;
mod host_path;
mod mount;
mod ownership;
pub(crate) mod payload;
mod subpath;

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, Pod, Volume, VolumeMount};

use self::payload::{Sources, TokenRequest};
use crate::{
    config::Config,
    container::fields::Context,
    objects::Snapshot,
    resources::{self, MEMORY, TextList},
    spec::{PodExt, ephemeral_as_container},
    tokens::Tokens,
};

/// A volume that is ready to be mounted into containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ready {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

/// A pod's volumes by name.
pub(crate) type Volumes = BTreeMap<String, Ready>;

/// A volume that could not be made ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) volume: String,
    pub(crate) message: String,
}

impl Failure {
    /// The text of the `FailedMount` event.
    pub(crate) fn event(&self) -> String {
        format!("MountVolume.SetUp failed for volume {:?} : {}", self.volume, self.message)
    }
}

/// What volumes are made from, beside the pod.
pub(crate) struct Surroundings<'a> {
    pub(crate) cfg: &'a Arc<Config>,
    pub(crate) client: &'a kube::Client,
    pub(crate) tokens: &'a Tokens,
    pub(crate) objects: &'a Snapshot,
    pub(crate) allocatable: &'a TextList,
    pub(crate) pod_ips: &'a [String],
    pub(crate) now: Timestamp,
}

/// The volumes that the pod's containers mount; others are not made.
fn wanted(pod: &Pod) -> Vec<&Volume> {
    let ephemeral: Vec<_> = pod.ephemeral_containers().iter().map(ephemeral_as_container).collect();
    let mounted: Vec<String> = pod
        .containers()
        .iter()
        .chain(pod.init_containers())
        .chain(&ephemeral)
        .flat_map(|c| {
            let mounts = c.volume_mounts.iter().flatten().map(|mount| mount.name.clone());
            mounts.chain(c.volume_devices.iter().flatten().map(|device| device.name.clone()))
        })
        .collect();
    let all = pod.spec().volumes.iter().flatten();
    all.filter(|volume| mounted.contains(&volume.name)).collect()
}

/// True if a volume's content follows objects or the pod's metadata.
fn follows(volume: &Volume) -> bool {
    payload::plugin(volume).is_some()
}

/// Makes all of a pod's volumes ready; what is ready stays so. With `refresh`, only those whose
/// content may have changed are looked at.
///
/// Returns those that are ready and those that are not, and why.
pub(crate) async fn set_up(pod: &Arc<Pod>, around: &Surroundings<'_>, refresh: bool) -> (Volumes, Vec<Failure>) {
    let (mut ready, mut failures) = (Volumes::new(), Vec::new());
    let volumes: Vec<&Volume> = wanted(pod).into_iter().filter(|volume| !refresh || follows(volume)).collect();
    let mut tokens: HashMap<TokenRequest, Result<String, String>> = HashMap::new();
    for request in volumes.iter().flat_map(|volume| payload::tokens(volume)) {
        if let std::collections::hash_map::Entry::Vacant(unknown) = tokens.entry(request) {
            let token = around.tokens.get(pod, unknown.key(), around.now).await;
            unknown.insert(token);
        }
    }
    let token = |request: &TokenRequest| {
        tokens.get(request).cloned().unwrap_or_else(|| Err("no token was asked for".to_owned()))
    };
    let context =
        Context { pod, pod_ips: around.pod_ips, host_ips: &around.cfg.node_ips, allocatable: around.allocatable };
    let sources = Sources { context: &context, objects: around.objects, token: &token };
    let mut tasks: Vec<(String, Task)> = Vec::new();
    for volume in volumes {
        match task(pod, volume, around, &sources).await {
            Ok(task) => tasks.push((volume.name.clone(), task)),
            Err(message) => failures.push(Failure { volume: volume.name.clone(), message }),
        }
    }
    let now = around.now;
    let worked = tokio::task::spawn_blocking(move || {
        let work = |(name, task): (String, Task)| {
            let result = task.run(now);
            (name, result)
        };
        tasks.into_iter().map(work).collect::<Vec<_>>()
    })
    .await;
    match worked {
        Ok(results) => {
            for (volume, result) in results {
                match result {
                    Ok(volume_ready) => drop(ready.insert(volume, volume_ready)),
                    Err(message) => failures.push(Failure { volume, message }),
                }
            }
        }
        Err(error) => failures.push(Failure { volume: String::new(), message: error.to_string() }),
    }
    (ready, failures)
}

/// What is to be done for one volume, decided before any file is touched.
enum Task {
    Files { dir: PathBuf, in_memory: bool, payload: atomic::Payload, group: Option<u32> },
    Empty { dir: PathBuf, medium: Medium, group: Option<u32> },
    HostPath { path: PathBuf, kind: String },
    Resolved(Ready),
}

enum Medium {
    Disk,
    Memory { size: Option<u64> },
    HugePages { page_size: u64, size: Option<u64> },
}

async fn task(pod: &Pod, volume: &Volume, around: &Surroundings<'_>, sources: &Sources<'_>) -> Result<Task, String> {
    let group = payload::fs_group(pod);
    let dir = |plugin: &str| around.cfg.volume_dir(pod.uid(), plugin, &volume.name);
    if let Some(plugin) = payload::plugin(volume) {
        return Ok(Task::Files {
            dir: dir(plugin),
            in_memory: volume.config_map.is_none(),
            payload: payload::payload(volume, sources)?,
            group,
        });
    }
    if let Some(source) = &volume.empty_dir {
        return Ok(Task::Empty {
            dir: dir("kubernetes.io~empty-dir"),
            medium: medium(pod, source, around.allocatable)?,
            group,
        });
    }
    if let Some(source) = &volume.host_path {
        return Ok(Task::HostPath {
            path: PathBuf::from(&source.path),
            kind: source.type_.clone().unwrap_or_default(),
        });
    }
    if let Some(source) = &volume.persistent_volume_claim {
        let (path, read_only) = claim::resolve(around.client, pod, &source.claim_name).await?;
        let read_only = read_only || source.read_only == Some(true);
        return Ok(Task::Resolved(Ready { path, read_only }));
    }
    if volume.ephemeral.is_some() {
        let claim = format!("{}-{}", pod.name(), volume.name);
        let (path, read_only) = claim::resolve(around.client, pod, &claim).await?;
        return Ok(Task::Resolved(Ready { path, read_only }));
    }
    if volume.image.is_some() {
        // The runtime mounts the image itself.
        return Ok(Task::Resolved(Ready { path: PathBuf::new(), read_only: true }));
    }
    let kind = match &volume.csi {
        Some(csi) => format!("CSI driver {}", csi.driver),
        None => "this type of volume".to_owned(),
    };
    Err(format!("{kind} is not supported by this kubelet"))
}

fn medium(pod: &Pod, source: &EmptyDirVolumeSource, allocatable: &TextList) -> Result<Medium, String> {
    let limit = source.size_limit.as_ref().map(|limit| resources::parse(limit).value());
    let limit = limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    let kind = source.medium.as_deref().unwrap_or_default();
    match kind {
        "" => Ok(Medium::Disk),
        "Memory" => {
            // What is written there counts as the pod's memory, so more than that is no use.
            let of_pod = resources::pod_cgroup(pod, None).memory.and_then(|bytes| u64::try_from(bytes).ok());
            let of_node = u64::try_from(resources::get(Some(allocatable), MEMORY).value()).ok();
            let bounds = [limit, of_pod, of_node];
            Ok(Medium::Memory { size: bounds.into_iter().flatten().filter(|bytes| *bytes > 0).min() })
        }
        _ if kind == "HugePages" || kind.starts_with("HugePages-") => {
            let sizes = crate::cgroup::huge_page_sizes();
            let wanted = kind.strip_prefix("HugePages-");
            let asked: Vec<u64> = sizes
                .iter()
                .filter(|(size, _)| match wanted {
                    Some(wanted) => size == wanted,
                    None => resources::pod_limits(pod).contains_key(&format!("{}{size}", resources::HUGE_PAGES)),
                })
                .map(|(_, bytes)| *bytes)
                .collect();
            match asked[..] {
                [page_size] => Ok(Medium::HugePages { page_size, size: limit }),
                [] => Err(format!("medium {kind}: no such page size, or none requested by the pod")),
                _ => Err("medium HugePages can be used only if all containers request one page size".to_owned()),
            }
        }
        other => Err(format!("unknown storage medium {other:?}")),
    }
}

impl Task {
    /// Blocks.
    fn run(self, now: Timestamp) -> Result<Ready, String> {
        match self {
            Task::Files { dir, in_memory, payload, group } => {
                files(&dir, in_memory, &payload, group, now).map_err(|error| error.to_string())?;
                Ok(Ready { path: dir, read_only: true })
            }
            Task::Empty { dir, medium, group } => {
                empty(&dir, &medium, group).map_err(|error| error.to_string())?;
                Ok(Ready { path: dir, read_only: false })
            }
            Task::HostPath { path, kind } => {
                host_path::check(&path, &kind)?;
                Ok(Ready { path, read_only: false })
            }
            Task::Resolved(ready) => Ok(ready),
        }
    }
}

fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

fn files(dir: &Path, in_memory: bool, payload: &atomic::Payload, group: Option<u32>, now: Timestamp) -> io::Result<()> {
    if !dir.exists() || (in_memory && !mount::is_mounted(dir)?) {
        make_dir(dir, 0o777)?;
        if in_memory {
            mount::tmpfs(dir, None)?;
        }
    }
    let finish = |new: &Path| match group {
        Some(group) => ownership::set_group(new, group, true),
        None => Ok(()),
    };
    let written = atomic::write(dir, payload, now, finish)?;
    if let (true, Some(group)) = (written, group) {
        ownership::set_group(dir, group, true)?;
    }
    Ok(())
}

fn empty(dir: &Path, medium: &Medium, group: Option<u32>) -> io::Result<()> {
    let there = match medium {
        Medium::Disk => dir.exists(),
        _ => dir.exists() && mount::is_mounted(dir)?,
    };
    if there {
        // Its content is the pod's.
        return Ok(());
    }
    // It gets its name once it is as it should be: after a crash nobody could tell what is still to be done.
    let unready = unready(dir)?;
    mount::unmount(&unready)?;
    match fs::remove_dir(&unready) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    make_dir(&unready, 0o777)?;
    match medium {
        Medium::Disk => {}
        Medium::Memory { size } => mount::tmpfs(&unready, *size)?,
        Medium::HugePages { page_size, size } => mount::hugetlbfs(&unready, *page_size, *size)?,
    }
    if !matches!(medium, Medium::Disk) {
        fs::set_permissions(&unready, fs::Permissions::from_mode(0o777))?;
    }
    if let Some(group) = group {
        ownership::set_group(&unready, group, false)?;
    }
    if matches!(medium, Medium::Disk) {
        return fs::rename(&unready, dir);
    }
    make_dir(dir, 0o777)?;
    mount::relocate(&unready, dir)?;
    fs::remove_dir(&unready)
}

/// Where a volume is made: beside its place, under a name that no volume can have.
fn unready(dir: &Path) -> io::Result<PathBuf> {
    let name = dir.file_name().ok_or_else(|| io::Error::other("a volume without a name"))?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    Ok(dir.with_file_name(hidden))
}

/// The directory or file that is mounted for a `subPath`, made ready. Blocks.
///
/// # Errors
/// Upstream's texts, which tell nothing about the node's files.
pub(crate) fn sub_path(
    cfg: &Config,
    pod: &Pod,
    container: &str,
    index: usize,
    mount: &VolumeMount,
    volume: &Path,
    sub: &str,
) -> Result<PathBuf, String> {
    let path = Path::new(sub);
    if path.is_absolute() {
        return Err(format!("error SubPath `{sub}` must not be an absolute path"));
    }
    if path.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
        return Err(format!("unable to provision SubPath `{sub}`: must not contain '..'"));
    }
    let target = cfg.subpaths_dir(pod.uid()).join(&mount.name).join(container).join(index.to_string());
    subpath::prepare(volume, sub, &target).map_err(|error| {
        tracing::warn!(pod = pod.display(), container, volume = mount.name, sub, %error, "a subPath could not be mounted");
        format!("failed to prepare subPath for volumeMount {:?} of container {container:?}", mount.name)
    })?;
    Ok(target)
}

/// Unmounts and removes all that a pod has on the node but its logs. Blocks.
pub(crate) fn tear_down(cfg: &Config, uid: &str) -> io::Result<()> {
    let dir = cfg.pod_dir(uid);
    if !dir.exists() {
        return Ok(());
    }
    // Mounts are listed by their real path.
    let real = dir.canonicalize()?;
    mount::unmount_below(&real)?;
    if let Some(left) = mount::below(&real)?.first() {
        return Err(io::Error::other(format!("{} is still mounted", left.display())));
    }
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The uids of the pods that have a directory.
pub(crate) fn known_pods(cfg: &Config) -> Vec<String> {
    let entries = fs::read_dir(cfg.pods_dir()).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    /// A kubelet that is killed in between leaves no directory under the volume's name that only looks ready.
    #[test]
    fn an_empty_directory_has_its_name_once_it_has_its_group() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let place = tempfile::tempdir().unwrap();
        let place = place.path().canonicalize().unwrap();
        for (name, medium) in [("disk", Medium::Disk), ("memory", Medium::Memory { size: Some(1 << 20) })] {
            let dir = place.join(name);
            // As after a crash, with the mount or before it.
            fs::create_dir(unready(&dir).unwrap()).unwrap();
            empty(&dir, &medium, Some(4711)).unwrap();
            let metadata = fs::metadata(&dir).unwrap();
            assert_eq!((metadata.gid(), metadata.mode() & 0o7777), (4711, 0o2777), "{name}");
            assert!(!unready(&dir).unwrap().exists());
            assert_eq!(mount::is_mounted(&dir).unwrap(), name == "memory");
            // Again, as for the next container: its content is the pod's.
            fs::write(dir.join("f"), "x").unwrap();
            empty(&dir, &medium, Some(4712)).unwrap();
            assert_eq!((fs::metadata(&dir).unwrap().gid(), dir.join("f").exists()), (4711, true));
        }
        mount::unmount_below(&place).unwrap();
    }
}
