//! Scenario 6: kill -9 under load, another start as after a reboot, and removal that leaves nothing.

use crate::support::machines::NODE;
use crate::support::{Cluster, Fallible, PATIENCE, has, leftovers, manifest, wait};
use nix::sys::signal::{Signal, kill};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

const STARTED: &str = "get pods -o jsonpath='{range .items[*]}{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}'";

#[test]
fn kill_9_under_load_loses_nothing_and_reset_leaves_nothing() -> Fallible {
    let mut cluster = Cluster::new()?;
    let before = cluster.machines.network_state()?;
    assert_eq!(leftovers::of(&cluster)?, BTreeSet::new());
    let registry = crate::support::registry::Registry::start(&cluster.machines)?;
    cluster.pull_from(registry);
    cluster.up()?;
    cluster.ok(&format!("apply -f {} -f {}", manifest("nginx-deployment.yaml"), manifest("services.yaml")))?;
    cluster.ok("run client --image=busybox -- sh -c 'while true; do date; sleep 1; done'")?;
    cluster.ok("rollout status deployment/nginx-deployment --timeout=90s")?;
    cluster.ok("wait --for=condition=Ready pod/client --timeout=60s")?;
    let port = format!("{NODE}:30008");
    wait("the Service answers", || Ok(cluster.machines.ask(&port, "/").is_ok()))?;
    let started = cluster.ok(STARTED)?;
    let logs = cluster.ok("logs client")?;

    for round in 0..3 {
        killed_under_load(&mut cluster, round)?;
        cluster.up()?;
        let kept: BTreeSet<String> = cluster
            .ok("get configmaps -l kind=load -o jsonpath='{.items[*].metadata.name}'")?
            .split(' ')
            .map(str::to_owned)
            .collect();
        let acknowledged = std::fs::read_to_string(cluster.dir.path().join(format!("acknowledged-{round}")))?;
        let lost: Vec<&str> = acknowledged.lines().filter(|l| !kept.contains(*l)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert!(acknowledged.lines().count() > 10, "there was load: {acknowledged}");
        assert_eq!(cluster.ok(STARTED)?, started, "no container was restarted");
    }
    // Taken over for good: logs go on in one piece, and streams open.
    assert!(cluster.ok("logs client")?.starts_with(&logs));
    has(&cluster.ok("exec client -- wget -qO- http://my-service")?, &["Welcome to nginx!"]);

    // A second process is told of the first.
    let second = cluster.pilothouse("up").args(["--port=0", "--no-merge"]).output()?;
    let id = cluster.process()?;
    assert_eq!(second.status.code(), Some(1));
    has(&String::from_utf8_lossy(&second.stderr), &["already running", &format!("process {id}"), "pilothouse down"]);

    after_a_reboot(&mut cluster)?;
    down_and_up(&mut cluster)?;

    // Removed while it runs: nothing is left.
    cluster.reset()?;
    wait("the process has ended", || Ok(cluster.has_ended()))?;
    cluster.registry = None;
    assert_eq!(leftovers::of(&cluster)?, BTreeSet::new());
    assert_eq!(cluster.machines.network_state()?, before);
    let left: Vec<_> =
        std::fs::read_dir("/sys/fs/cgroup")?.flatten().filter(|e| e.path().join(&cluster.name).exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    // Nothing to remove is no error.
    cluster.reset()
}

/// Kills it in the middle of writes; what was acknowledged is noted in a file. The Service answers all the time.
fn killed_under_load(cluster: &mut Cluster, round: usize) -> Fallible {
    let id = cluster.process()?;
    let written = AtomicUsize::new(0);
    let over = AtomicBool::new(false);
    let (shared, port) = (&*cluster, format!("{NODE}:30008"));
    let acknowledged = std::thread::scope(|scope| -> Fallible<Vec<String>> {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (written, over) = (&written, &over);
                scope.spawn(move || -> Fallible<Vec<String>> {
                    let mut names = Vec::new();
                    while !over.load(Ordering::Relaxed) {
                        // Many in one call, told one by one as they are acknowledged.
                        let batch: Vec<String> =
                            (0..25).map(|n| format!("load-{round}-{writer}-{}-{n}", names.len())).collect();
                        let list: String = batch
                            .iter()
                            .map(|n| format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {n}, labels: {{kind: load}}}}, data: {{a: b}}}}\n"))
                            .collect();
                        let output = shared.feed("create -f -", &list)?;
                        let said = String::from_utf8_lossy(&output.stdout).into_owned();
                        names.extend(batch.into_iter().filter(|n| said.contains(&format!("configmap/{n} created"))));
                        written.fetch_add(said.lines().count(), Ordering::Relaxed);
                        if !output.status.success() {
                            break;
                        }
                    }
                    Ok(names)
                })
            })
            .collect();
        let deadline = Instant::now() + PATIENCE;
        while written.load(Ordering::Relaxed) < 60 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        kill(id, Signal::SIGKILL)?;
        over.store(true, Ordering::Relaxed);
        for _ in 0..20 {
            has(&shared.machines.ask(&port, "/")?, &["Welcome to nginx!"]);
        }
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.join().map_err(|_| "a writer panicked")??);
        }
        Ok(all)
    })?;
    std::fs::write(cluster.dir.path().join(format!("acknowledged-{round}")), acknowledged.join("\n"))?;
    cluster.stop(Signal::SIGKILL)
}

/// All processes are gone but the data is there, as after a loss of power: pods run again, as the same pods.
fn after_a_reboot(cluster: &mut Cluster) -> Fallible {
    let uids = "get pods -o jsonpath='{.items[*].metadata.uid}'";
    let before = cluster.ok(uids)?;
    cluster.stop(Signal::SIGKILL)?;
    leftovers::end_all_processes(cluster)?;
    cluster.up()?;
    cluster.until("get pods -o jsonpath='{.items[*].status.containerStatuses[0].restartCount}'", |t| t == "1 1 1 1")?;
    cluster.ok("wait --for=condition=Ready pods --all --timeout=60s")?;
    assert_eq!(cluster.ok(uids)?, before);
    let port = format!("{NODE}:30008");
    wait("the Service answers again", || Ok(cluster.machines.ask(&port, "/").is_ok()))?;
    cluster.until("exec client -- wget -qO- http://my-service", |t| t.contains("Welcome to nginx!")).map(drop)
}

/// `down` stops pods and cluster and keeps the data.
fn down_and_up(cluster: &mut Cluster) -> Fallible {
    let down = cluster.pilothouse("down").output()?;
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    has(&String::from_utf8_lossy(&down.stdout), &["Stopped 4 pods; the data is kept."]);
    wait("the process has ended", || Ok(cluster.has_ended()))?;
    let running: Vec<String> = leftovers::of(cluster)?.into_iter().filter(|l| l.starts_with("process")).collect();
    assert!(running.is_empty(), "{running:#?}");
    cluster.up()?;
    cluster.ok("wait --for=condition=Ready pods --all --timeout=60s").map(drop)
}
