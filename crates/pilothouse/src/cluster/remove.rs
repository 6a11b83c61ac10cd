//! Stopping a cluster's pods, and removing a cluster with all it made.

use super::claim::Claim;
use super::node::{Runtime, runtime_config};
use crate::cli::PlaceArgs;
use crate::place::Place;
use crate::{kubeconfig, lock};
use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a running cluster may take to stop.
const STOP: Duration = Duration::from_secs(30);
/// What pods are given to end by themselves.
const GRACE_SECONDS: i64 = 30;

#[allow(clippy::print_stdout, reason = "what a command tells its caller")]
fn say(text: &str) {
    println!("{text}");
}

fn need_root() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("this stops containers, which needs root: run it again with sudo");
    }
    Ok(())
}

/// Stops the processes that run a cluster, control plane and node, if there are any; gives the locks.
fn stop_processes(place: &Place) -> Result<Option<[lock::Lock; 2]>> {
    if !place.data_dir.exists() {
        return Ok(None);
    }
    // The node first: its last words are for the control plane.
    for lock in [&place.node_lock, &place.lock] {
        stop_process(lock)?;
    }
    Ok(Some([lock::take(&place.node_lock)?, lock::take(&place.lock)?]))
}

fn stop_process(lock: &Path) -> Result<()> {
    let Some(id) = lock::holder(lock)? else { return Ok(()) };
    kill(Pid::from_raw(id), Signal::SIGTERM).with_context(|| format!("cannot stop process {id}"))?;
    let deadline = Instant::now() + STOP;
    while lock::holder(lock)?.is_some() {
        if Instant::now() > deadline {
            bail!("process {id} did not stop in {} s: end it with `kill -9 {id}`, then run this again", STOP.as_secs());
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// Stops the pods and the cluster, keeps the data.
pub fn down(args: &PlaceArgs) -> Result<()> {
    need_root()?;
    let place = Place::new(&args.data_dir)?;
    let Some(claim) = Claim::of(&place, args.name.as_deref())? else {
        say("There is no cluster here.");
        return Ok(());
    };
    let _locks = stop_processes(&place)?;
    if claim.name.is_empty() {
        say(&format!("Stopped; {} has no pods on this machine. The data is kept.", place.data_dir.display()));
        return Ok(());
    }
    let runtime = Runtime { name: claim.name, place };
    let stopped = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(stop_pods(&runtime))
        .context("not all pods could be stopped")?;
    say(&format!("Stopped {stopped} pods; the data is kept. The command that ran the cluster starts them again."));
    Ok(())
}

/// Serves the runtime for as long as it takes to stop every pod by it.
async fn stop_pods(runtime: &Runtime) -> Result<usize> {
    let done = CancellationToken::new();
    let end = done.clone();
    let serving = runtime::serve(runtime_config(runtime), async move { end.cancelled().await });
    let work = async {
        let _done = done.drop_guard();
        let client = connect(&runtime.place.cri_socket).await?;
        let mut cri = client.runtime();
        let running = cri.list_containers(cri::v1::ListContainersRequest::default()).await?.into_inner().containers;
        for container in running.iter().filter(|c| c.state() == cri::v1::ContainerState::ContainerRunning) {
            cri.stop_container(cri::v1::StopContainerRequest {
                container_id: container.id.clone(),
                timeout: GRACE_SECONDS,
            })
            .await?;
        }
        let pods = cri.list_pod_sandbox(cri::v1::ListPodSandboxRequest::default()).await?.into_inner().items;
        let ready = pods.iter().filter(|p| p.state() == cri::v1::PodSandboxState::SandboxReady).count();
        for pod in &pods {
            cri.stop_pod_sandbox(cri::v1::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() }).await?;
        }
        Ok(ready)
    };
    let (served, worked) = tokio::join!(serving, work);
    served?;
    worked
}

async fn connect(socket: &Path) -> Result<cri::Client> {
    let deadline = tokio::time::Instant::now() + STOP;
    while tokio::net::UnixStream::connect(socket).await.is_err() {
        if tokio::time::Instant::now() > deadline {
            bail!("the runtime did not listen on {} in time", socket.display());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(cri::Client::connect(socket))
}

/// Removes every process, mount, namespace, rule, cgroup and file of a cluster.
pub fn reset(args: &PlaceArgs) -> Result<()> {
    need_root()?;
    let place = Place::new(&args.data_dir)?;
    let Some(Claim { name, found }) = Claim::of(&place, args.name.as_deref())? else {
        say("There is no cluster here.");
        return Ok(());
    };
    let held = stop_processes(&place)?;
    let mut left: Vec<String> = Vec::new();
    let mut attempt = |what: &str, outcome: Result<()>| {
        if let Err(e) = outcome {
            left.push(format!("{what}: {e:#}"));
        }
    };
    // Without a name, nothing on the machine but the directories is this cluster's.
    let named = !name.is_empty();
    if named {
        let runtime = Runtime { name: name.clone(), place: place.clone() };
        attempt("containers", runtime::reset(&runtime_config(&runtime)).map_err(Into::into));
        attempt("service rules", proxy::kernel::reset(&name).map_err(Into::into));
    }
    // Of what was there before, only the pods go.
    let pods = place.kubelet.join("pods");
    let kubelet = if found.contains(&place.kubelet) { &pods } else { &place.kubelet };
    let logs = [&place.pod_logs, &place.container_logs].into_iter().filter(|directory| !found.contains(directory));
    let directories: Vec<&PathBuf> = [kubelet, &place.run].into_iter().chain(logs).collect();
    for directory in directories.iter().copied().chain([&place.data_dir]) {
        attempt("mounts", unmount_below(directory));
    }
    if named {
        attempt("cgroups", remove_cgroups(&name));
    }
    for directory in directories {
        attempt("files", remove_directory(directory));
    }
    attempt("files", remove_data(&place.data_dir));
    if named {
        if let Some(person) = kubeconfig::Person::find() {
            attempt("kubeconfig", kubeconfig::remove_from(&person, &name));
        }
        // Last: what could not be removed can be tried again, and nobody else takes the name meanwhile.
        if left.is_empty()
            && let Err(e) = place.machine.release(&name, &place.data_dir)
        {
            left.push(format!("name: {e:#}"));
        }
    }
    drop(held);
    if left.is_empty() {
        match named {
            true => say(&format!("The cluster {name:?} is removed.")),
            false => say(&format!("{} is removed.", place.data_dir.display())),
        }
        for kept in &found {
            say(&format!("{} was there before the cluster and stays.", kept.display()));
        }
        return Ok(());
    }
    bail!("not everything could be removed:\n  {}", left.join("\n  "))
}

/// Mount points below a directory, the deepest first. The directory itself may be one: whoever gave us a file system
/// of its own keeps it.
fn mounts_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    let point = |line: &str| line.split(' ').nth(4).map(|p| PathBuf::from(unescape(p)));
    let below = |p: &PathBuf| p != directory && p.starts_with(directory);
    let mut found: Vec<PathBuf> = table.lines().filter_map(point).filter(below).collect();
    found.reverse();
    Ok(found)
}

/// `mountinfo` writes spaces and the like as octal escapes.
fn unescape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|o| u8::from_str_radix(o, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

fn unmount_below(directory: &Path) -> Result<()> {
    for mount in mounts_below(directory)? {
        umount2(&mount, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    Ok(())
}

fn remove_directory(directory: &Path) -> Result<()> {
    // Never through a mount that is still there: it may not be ours.
    if let Some(mount) = mounts_below(directory)?.first() {
        bail!("{} is still mounted", mount.display());
    }
    match fs::remove_dir_all(directory) {
        // A mount point, emptied.
        Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy && is_empty(directory) => Ok(()),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

fn remove_data(directory: &Path) -> Result<()> {
    if let Some(mount) = mounts_below(directory)?.first() {
        bail!("{} is still mounted", mount.display());
    }
    Claim::remove_directory(directory).with_context(|| format!("cannot remove {}", directory.display()))
}

/// Removes the cluster's groups in every hierarchy; whatever still runs in them is killed.
fn remove_cgroups(name: &str) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![root.to_owned()];
    for entry in fs::read_dir(root)? {
        hierarchies.push(entry?.path());
    }
    for hierarchy in hierarchies {
        let group = hierarchy.join(name);
        if group.join("cgroup.procs").exists() {
            remove_group(&group)?;
        }
    }
    Ok(())
}

fn remove_group(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group).with_context(|| format!("cannot list {}", group.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            remove_group(&path)?;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match fs::remove_dir(group) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if Instant::now() > deadline => {
                return Err(e).with_context(|| format!("cannot remove {}", group.display()));
            }
            Err(_) => {
                let processes = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                for id in processes.lines().filter_map(|l| l.parse().ok()) {
                    // Gone between reading and killing is gone all the same.
                    if let Err(e) = kill(Pid::from_raw(id), Signal::SIGKILL) {
                        tracing::debug!("process {id}: {e}");
                    }
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
    }
}
