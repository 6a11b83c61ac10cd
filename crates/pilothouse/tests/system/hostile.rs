//! Attacks and accidents: what is killed, filled up, deleted too early or made to harm.

use crate::support::{Cluster, Fallible, has, leftovers, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

const IMAGE: &str = "pilothouse.local/pilothouse";

/// The processes of the cluster whose command line has a word.
fn processes(cluster: &Cluster, word: &str) -> Fallible<Vec<Pid>> {
    let all = leftovers::processes_of(cluster)?;
    Ok(all.into_iter().filter(|(_, command)| command.contains(word)).map(|(id, _)| id).collect())
}

#[test]
fn pods_survive_the_death_of_their_keepers() -> Fallible {
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    cluster.ok(&format!("run web --image={IMAGE}"))?;
    cluster.ok("wait --for=condition=Ready pod/web --timeout=60s")?;
    let restarts =
        "get pod web -o jsonpath='{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}'";
    for round in 1..=2 {
        for shim in processes(&cluster, "pilothouse-shim")? {
            kill(shim, Signal::SIGKILL)?;
        }
        cluster.until(restarts, |t| t == format!("{round} true"))?;
        let address = cluster.ok("get pod web -o jsonpath='{.status.podIP}'")? + ":8080";
        wait("it answers", || Ok(cluster.machines.ask(&address, "/").is_ok_and(|t| t.contains("Hello from"))))?;
    }
    cluster.ok("delete pod web --grace-period=1 --timeout=60s")?;
    assert_eq!(processes(&cluster, "pilothouse-shim")?, []);
    Ok(())
}

#[test]
fn two_clusters_on_one_machine_leave_each_other_alone() -> Fallible {
    let mut one = Cluster::new()?;
    one.up()?;
    one.ok(&format!("run web --image={IMAGE}"))?;
    one.ok("wait --for=condition=Ready pod/web --timeout=60s")?;
    let address = one.ok("get pod web -o jsonpath='{.status.podIP}'")? + ":8080";
    // Another one in the same network, with networks of its own.
    let two = Twin { cluster: &one, dir: one.disk.path().join("twin"), name: format!("{}b", one.name) };
    let before = one.machines.network_state()?;
    // A mistyped directory, another one of the same name, and one with the same networks.
    let twin =
        |directory: &str, name: &str| Twin { cluster: &one, dir: one.disk.path().join(directory), name: name.into() };
    let mistyped = twin("typo", &one.name);
    for command in ["down", "reset"] {
        let output = mistyped.command(command).output()?;
        has(&String::from_utf8_lossy(&output.stdout), &["There is no cluster here."]);
        assert!(!mistyped.dir.exists(), "{command} made it");
    }
    let other = format!("{}c", one.name);
    for (name, said) in [(one.name.as_str(), "choose another --name"), (&other, "choose another --pod-cidr")] {
        let output = twin("second", name).command("up").args(["--port=0", "--no-merge"]).output()?;
        assert!(!output.status.success(), "{output:?}");
        has(&String::from_utf8_lossy(&output.stderr), &[said]);
    }
    assert_eq!(one.machines.network_state()?, before);
    has(&one.machines.ask(&address, "/")?, &["Hello from"]);
    two.up()?;
    let config = two.dir.join("admin.kubeconfig").display().to_string();
    let theirs = |line: &str| one.ok(&format!("--kubeconfig {config} {line}"));
    theirs(&format!("run web --image={IMAGE}"))?;
    theirs("wait --for=condition=Ready pod/web --timeout=60s")?;
    let their_address = theirs("get pod web -o jsonpath='{.status.podIP}'")? + ":8080";
    has(&one.machines.ask(&address, "/")?, &["Hello from"]);
    has(&one.machines.ask(&their_address, "/")?, &["Hello from"]);
    two.reset()?;
    assert_eq!(one.machines.network_state()?, before);
    has(&one.machines.ask(&address, "/")?, &["Hello from"]);
    has(&one.ok("get pods")?, &["1/1"]);
    Ok(())
}

/// A second cluster on the node of a first.
struct Twin<'a> {
    cluster: &'a Cluster,
    dir: std::path::PathBuf,
    name: String,
}

impl Twin<'_> {
    fn command(&self, command: &str) -> std::process::Command {
        let mut run = self.cluster.machines.command(crate::support::BINARY);
        run.arg(command).arg("--data-dir").arg(&self.dir).args(["--name", &self.name]);
        run
    }

    fn up(&self) -> Fallible {
        let mut run = self.command("up");
        run.args(["--port=0", "--no-merge", "--node-name=node-2", "--json"]);
        run.args(["--service-cidr=10.97.0.0/16", "--pod-cidr=10.245.0.0/16"]);
        let follower = crate::support::follow::Follower::start(run)?;
        follower.until(|t| t.contains("\"ready\":true")).map(|_| std::mem::forget(follower))
    }

    fn reset(&self) -> Fallible {
        let output = self.command("reset").output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(())
    }
}

impl Drop for Twin<'_> {
    fn drop(&mut self) {
        if self.dir.exists() {
            drop(self.reset());
        }
    }
}

#[test]
fn pods_deleted_while_they_begin_leave_nothing() -> Fallible {
    let cluster = Cluster::running()?;
    // While the image is pulled, while containers are made, and at once.
    cluster.ok("create deployment brief --image=nginx:1.7.9 --replicas=4")?;
    cluster.until("get pods -l app=brief -o name", |t| t.lines().count() == 4)?;
    cluster.ok("delete deployment brief")?;
    cluster.ok("run forced --image=nginx:1.9.1")?;
    cluster.ok("delete pod forced --grace-period=0 --force")?;
    cluster.until("get pods -o name", str::is_empty)?;
    wait("no sandbox, group or mount is left", || {
        let left = leftovers::of(&cluster)?;
        Ok(!left.iter().any(|l| l.contains("/pod") || l.starts_with("network namespace") || l.contains("overlay")))
    })?;
    // The same name again, at once.
    for _ in 0..3 {
        cluster.ok("run again --image=nginx:1.7.9")?;
        cluster.ok("delete pod again --grace-period=0 --force")?;
    }
    cluster.ok("run again --image=nginx:1.7.9")?;
    cluster.ok("wait --for=condition=Ready pod/again --timeout=60s").map(drop)
}

#[test]
fn a_full_disk_is_told_and_passes() -> Fallible {
    // A data directory that is a file system.
    let mut cluster = Cluster::with_data("")?;
    cluster.up()?;
    cluster.ok("create configmap before --from-literal=a=b")?;
    let filler = cluster.disk.fill()?;
    // What the log has space for is still taken.
    let document = |n: u32| {
        format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: during-{n}}}, data: {{a: {}}}}}\n",
            "x".repeat(900_000)
        )
    };
    // The first refusal ends it: kubectl tries later ones again and again, as Retry-After tells it to.
    let mut taken = Vec::new();
    let refused = loop {
        let n = u32::try_from(taken.len())?;
        let output = cluster.feed("create -f -", &document(n))?;
        if !output.status.success() {
            break String::from_utf8_lossy(&output.stderr).into_owned();
        }
        taken.push(format!("configmap/during-{n}"));
        assert!(n < 100, "a full disk takes everything");
    };
    has(&refused, &["No space left on device"]);
    let kept = cluster.ok("get configmaps -o name")?;
    let kept: Vec<&str> = kept.lines().filter(|name| name.starts_with("configmap/during-")).collect();
    taken.sort();
    assert_eq!(kept, taken, "what was acknowledged is there, what was refused is not");
    assert_eq!(cluster.ok("get configmap before -o jsonpath='{.data.a}'")?, "b", "reads go on");
    fs::remove_file(&filler)?;
    let after = format!("create configmap after --from-literal=a={}", "x".repeat(100_000));
    cluster.until(&after, |t| t == "configmap/after created")?;
    cluster.stop(Signal::SIGKILL)?;
    cluster.up()?;
    assert_eq!(cluster.ok("get configmap after -o jsonpath='{.data.a}'")?.len(), 100_000);
    // Removal works although nothing can be written, and leaves the disk itself alone.
    cluster.disk.fill()?;
    cluster.reset()?;
    assert_eq!(fs::read_dir(cluster.disk.path())?.count(), 0);
    assert!(fs::read_to_string("/proc/self/mountinfo")?.contains(&cluster.disk.path().display().to_string()));
    Ok(())
}
