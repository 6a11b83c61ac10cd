//! What a cluster has on a machine: what `reset` must leave nothing of.

use super::{Cluster, Fallible, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// All cgroups of a cluster, in every hierarchy.
pub fn groups_of(cluster: &str) -> Fallible<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    let mut hierarchies = vec![root.to_owned()];
    for entry in fs::read_dir(root)? {
        hierarchies.push(entry?.path());
    }
    let mut found = Vec::new();
    for hierarchy in hierarchies {
        let mut todo = vec![hierarchy.join(cluster)];
        while let Some(group) = todo.pop() {
            // Groups come and go while this looks.
            let Ok(entries) = fs::read_dir(&group) else { continue };
            todo.extend(entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()));
            found.push(group);
        }
    }
    Ok(found)
}

/// The processes that run from a cluster's directory or in its cgroups, with their command lines.
pub fn processes_of(cluster: &Cluster) -> Fallible<Vec<(Pid, String)>> {
    let (group, dir) = (format!("/{}/", cluster.name), cluster.data().display().to_string());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse() else { continue };
        let read =
            |file: &str| fs::read(entry.path().join(file)).map(|b| String::from_utf8_lossy(&b).replace('\0', " "));
        // Processes end while this looks.
        let (Ok(command), Ok(groups)) = (read("cmdline"), read("cgroup")) else { continue };
        if command.contains(&dir) || groups.contains(&group) {
            found.push((Pid::from_raw(id), command));
        }
    }
    Ok(found)
}

/// Ends all of a cluster's processes, as a loss of power does.
pub fn end_all_processes(cluster: &Cluster) -> Fallible {
    wait("all processes have ended", || {
        let left = processes_of(cluster)?;
        for (id, _) in &left {
            // It may have ended with another.
            let _ = kill(*id, Signal::SIGKILL);
        }
        Ok(left.is_empty())
    })
}

/// Everything of a cluster that can be found on this machine, in words.
pub fn of(cluster: &Cluster) -> Fallible<BTreeSet<String>> {
    let (name, dir) = (&cluster.name, cluster.data().display().to_string());
    let mut found: BTreeSet<String> = groups_of(name)?.iter().map(|g| format!("cgroup {}", g.display())).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    found.extend(mounts.lines().filter(|l| l.contains(&dir) || l.contains(&format!("/{name}-"))).map(str::to_owned));
    for entry in fs::read_dir("/run/netns")? {
        let namespace = entry?.file_name().to_string_lossy().into_owned();
        if namespace.starts_with(name.as_str()) {
            found.insert(format!("network namespace {namespace}"));
        }
    }
    found.extend(processes_of(cluster)?.into_iter().map(|(id, command)| format!("process {id} {command}")));
    for file in [cluster.data().to_owned(), PathBuf::from("/var/log/pods").join(name), PathBuf::from("/run").join(name)]
    {
        if file.exists() {
            found.insert(format!("file {}", file.display()));
        }
    }
    Ok(found)
}
