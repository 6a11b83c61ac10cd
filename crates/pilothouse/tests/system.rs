//! A whole cluster, through the built binary and an unmodified kubectl: real containers, Services, kill -9, removal.
//!
//! Needs root and a `kubectl` on the path. One test, as each step builds on the one before; the image is the built-in one,
//! so that no registry is needed.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

type Fallible<T> = Result<T, Box<dyn Error>>;

const BINARY: &str = env!("CARGO_BIN_EXE_pilothouse");
const PATIENCE: Duration = Duration::from_secs(120);

/// One cluster of this test, removed at its end whatever happens.
struct Cluster {
    name: String,
    dir: tempfile::TempDir,
    process: Option<Child>,
}

impl Cluster {
    fn new() -> Fallible<Self> {
        let dir = tempfile::Builder::new().prefix("ph").tempdir_in("/tmp")?;
        Ok(Cluster { name: format!("t{}", std::process::id()), dir, process: None })
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("d")
    }

    fn pilothouse(&self, command: &str) -> Command {
        let mut run = Command::new(BINARY);
        run.arg(command).arg("--data-dir").arg(self.data()).args(["--name", &self.name]);
        run
    }

    /// Starts it and waits until it says that it is ready; gives what it said then.
    fn up(&mut self) -> Fallible<serde_json::Value> {
        let out = self.dir.path().join("up.json");
        let errors = fs::File::create(self.dir.path().join("up.log"))?;
        let mut run = self.pilothouse("up");
        run.args([
            "--port",
            "0",
            "--no-merge",
            "--json",
            "--service-cidr",
            "10.97.0.0/16",
            "--pod-cidr",
            "10.245.0.0/16",
        ]);
        let child = run.stdin(Stdio::null()).stdout(fs::File::create(&out)?).stderr(errors).spawn()?;
        self.process = Some(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&out)?;
            let lines = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
            if let Some(ready) = lines.rev().find(|l| l["ready"] == true) {
                return Ok(ready);
            }
            let ended = self.process.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.path().join("up.log"))?;
                return Err(format!("the cluster is not ready ({ended:?}):\n{text}\n{log}").into());
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn kubectl(&self, args: &[&str]) -> Fallible<Output> {
        let config = self.data().join("admin.kubeconfig");
        Ok(Command::new("kubectl").arg("--kubeconfig").arg(config).args(args).stdin(Stdio::null()).output()?)
    }

    /// What kubectl prints, when it succeeds.
    fn get(&self, args: &[&str]) -> Fallible<String> {
        let output = self.kubectl(args)?;
        if !output.status.success() {
            return Err(format!("kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Waits until kubectl prints what is wanted.
    fn until(&self, args: &[&str], wanted: impl Fn(&str) -> bool) -> Fallible<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.get(args)?;
            if wanted(&text) {
                return Ok(text);
            }
            if Instant::now() > deadline {
                let events = self.get(&["get", "events", "-A"])?;
                return Err(format!("kubectl {args:?} still prints {text:?}\n{events}").into());
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    fn stop(&mut self, signal: nix::sys::signal::Signal) -> Fallible<()> {
        if let Some(mut child) = self.process.take() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id())?), signal)?;
            child.wait()?;
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let ended = child.kill().and_then(|()| child.wait());
            drop(ended);
        }
        // Best effort after a failure; the test itself checks that reset leaves nothing.
        drop(self.pilothouse("reset").output());
    }
}

/// Asks a web server for a path; the body of its answer.
fn ask(address: &str, path: &str) -> Fallible<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&address.parse()?, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// Lines of a file that name a thing.
fn lines_with(file: &str, name: &str) -> Fallible<Vec<String>> {
    Ok(fs::read_to_string(file)?.lines().filter(|l| l.contains(name)).map(str::to_owned).collect())
}

fn groups_named(name: &str) -> Fallible<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/fs/cgroup")? {
        let path = entry?.path().join(name);
        if path.exists() {
            found.push(path);
        }
    }
    Ok(found)
}

#[test]
fn a_cluster_runs_containers_survives_kill_9_and_leaves_nothing() -> Fallible<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err("this test runs real containers: run it as root".into());
    }
    let mut cluster = Cluster::new()?;
    cluster.up()?;
    assert!(cluster.get(&["get", "nodes"])?.contains(" Ready "));

    // A deployment behind a Service, reached through its address.
    cluster.get(&["create", "deployment", "hello", "--image=pilothouse.local/pilothouse", "--replicas=2"])?;
    cluster.get(&["rollout", "status", "deployment/hello", "--timeout=120s"])?;
    cluster.get(&["expose", "deployment", "hello", "--port=80", "--target-port=8080"])?;
    let ip = cluster.get(&["get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}"])?;
    let slices = [
        "get",
        "endpointslices",
        "-l",
        "kubernetes.io/service-name=hello",
        "-o",
        "jsonpath={.items[*].endpoints[*].conditions.ready}",
    ];
    cluster.until(&slices, |t| t == "true true")?;
    let service = format!("{ip}:80");
    let deadline = Instant::now() + PATIENCE;
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 2 {
        if let Ok(host) = ask(&service, "/hostname") {
            answered.insert(host.trim().to_owned());
        }
        assert!(Instant::now() < deadline, "only {answered:?} answered");
    }
    let pods = cluster.get(&["get", "pods", "-o", "jsonpath={.items[*].metadata.name}"])?;
    assert_eq!(answered, pods.split(' ').map(str::to_owned).collect(), "every replica answers through the Service");
    assert!(cluster.get(&["logs", "deployment/hello"])?.contains("listening on port 8080"));

    // What is wrong is named, and changes nothing.
    let refused = cluster.kubectl(&["create", "deployment", "Bad_Name", "--image=x"])?;
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("metadata.name: Invalid value"), "{refused:?}");
    let twice = cluster.pilothouse("up").args(["--port", "0", "--no-merge"]).output()?;
    assert!(!twice.status.success() && String::from_utf8_lossy(&twice.stderr).contains("already running"), "{twice:?}");

    // A deleted pod is replaced.
    let first = pods.split(' ').next().unwrap_or_default().to_owned();
    cluster.get(&["delete", "pod", &first, "--grace-period=1"])?;
    let ready = ["get", "deployment", "hello", "-o", "jsonpath={.status.readyReplicas}"];
    cluster.until(&ready, |t| t == "2")?;

    // kill -9: Services go on answering; nothing acknowledged is lost; no container is restarted.
    cluster.get(&["create", "configmap", "kept", "--from-literal=a=b"])?;
    let started = [
        "get",
        "pods",
        "-o",
        "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}",
    ];
    let before = cluster.get(&started)?;
    cluster.stop(nix::sys::signal::Signal::SIGKILL)?;
    assert!(ask(&service, "/").is_ok_and(|b| b.contains("Hello from")), "the Service answers without us");
    cluster.up()?;
    assert_eq!(cluster.get(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"])?, "b");
    assert_eq!(cluster.get(&started)?, before);
    assert!(ask(&service, "/").is_ok_and(|b| b.contains("Hello from")));

    // A namespace goes with all that is in it; owned objects go with their owner.
    cluster.get(&["create", "namespace", "gone"])?;
    cluster.get(&["-n", "gone", "create", "configmap", "x"])?;
    cluster.get(&["delete", "namespace", "gone", "--timeout=60s"])?;
    cluster.get(&["delete", "deployment", "hello", "--timeout=60s"])?;
    cluster.until(&["get", "pods,replicasets", "-o", "name"], str::is_empty)?;

    // Removal leaves no mount, rule, group, namespace or file.
    cluster.stop(nix::sys::signal::Signal::SIGTERM)?;
    let reset = cluster.pilothouse("reset").output()?;
    assert!(reset.status.success(), "{}", String::from_utf8_lossy(&reset.stderr));
    assert!(!cluster.data().exists());
    let path = cluster.dir.path().display().to_string();
    assert_eq!(lines_with("/proc/self/mountinfo", &path)?, Vec::<String>::new());
    assert_eq!(groups_named(&cluster.name)?, Vec::<PathBuf>::new());
    if Path::new("/run/netns").exists() {
        let left: Vec<_> = fs::read_dir("/run/netns")?
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().contains(&cluster.name))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
    let rules = Command::new("nft").args(["list", "tables"]).output()?;
    assert!(
        !String::from_utf8_lossy(&rules.stdout).contains(&cluster.name),
        "{}",
        String::from_utf8_lossy(&rules.stdout)
    );
    Ok(())
}
