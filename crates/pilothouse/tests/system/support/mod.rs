//! What every scenario stands on: a cluster from the built binary on machines of its own, and kubectl.

pub mod disk;
pub mod follow;
pub mod leftovers;
pub mod machines;
pub mod registry;

use disk::Disk;
use follow::Follower;
use machines::Machines;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use registry::Registry;
use serde_json::Value;
use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub type Fallible<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

pub const BINARY: &str = env!("CARGO_BIN_EXE_pilothouse");
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// One cluster of a test, removed at its end whatever happens.
#[derive(Debug)]
pub struct Cluster {
    pub name: String,
    process: Option<Child>,
    flags: Vec<String>,
    pub registry: Option<Registry>,
    pub machines: Machines,
    /// Where a test has its own files.
    pub dir: tempfile::TempDir,
    data: PathBuf,
    pub disk: Disk,
}

impl Cluster {
    /// A cluster that does not run yet, without a registry.
    pub fn new() -> Fallible<Self> {
        Self::made("d", Machines::new)
    }

    /// The same with another data directory on its disk.
    pub fn with_data(path: &str) -> Fallible<Self> {
        Self::made(path, Machines::new)
    }

    /// The same on a machine that has no other address than loopback.
    pub fn without_network() -> Fallible<Self> {
        Self::made("d", Machines::apart)
    }

    fn made(path: &str, machines: impl FnOnce(&str) -> Fallible<Machines>) -> Fallible<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            return Err("this test runs real containers: run it as root".into());
        }
        let name = format!("p{}n{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("ph").tempdir_in("/tmp")?;
        let flags = ["--port=0", "--no-merge", "--json", "--node-name=node-1"].map(str::to_owned).to_vec();
        let disk = Disk::new()?;
        let data = disk.path().join(path);
        Ok(Cluster { machines: machines(&name)?, name, process: None, flags, registry: None, dir, data, disk })
    }

    /// A running cluster that pulls from a registry.
    pub fn running() -> Fallible<Self> {
        let mut cluster = Self::new()?;
        cluster.pull_from(Registry::start(&cluster.machines)?);
        cluster.up()?;
        Ok(cluster)
    }

    pub fn pull_from(&mut self, registry: Registry) {
        self.flags.push(registry.flag());
        self.registry = Some(registry);
    }

    /// Whether its process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let ended = self.process.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))));
        if ended {
            self.process = None;
        }
        ended
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The binary, on the cluster's node.
    pub fn pilothouse(&self, command: &str) -> Command {
        let mut run = self.machines.command(BINARY);
        run.args(command.split(' ')).arg("--data-dir").arg(self.data()).args(["--name", &self.name]);
        run.env("HOME", self.dir.path()).env_remove("KUBECONFIG").env_remove("SUDO_USER");
        run
    }

    /// Starts it and waits until it says that it is ready; gives what it said then.
    pub fn up(&mut self) -> Fallible<Value> {
        let out = self.dir.path().join("up.json");
        let errors = fs::File::options().create(true).append(true).open(self.log())?;
        let mut run = self.pilothouse("up");
        let child = run.args(&self.flags).stdout(fs::File::create(&out)?).stderr(errors).spawn()?;
        self.process = Some(child);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&out)?;
            let lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
            if let Some(ready) = lines.rev().find(|l| l["ready"] == true) {
                return Ok(ready);
            }
            let ended = self.process.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.log())?;
                return Err(format!("the cluster is not ready ({ended:?}):\n{text}\n{log}").into());
            }
            std::thread::park_timeout(LOOK / 2);
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("up.log")
    }

    /// The id of the process that runs the cluster.
    pub fn process(&self) -> Fallible<Pid> {
        let child = self.process.as_ref().ok_or("the cluster does not run")?;
        Ok(Pid::from_raw(i32::try_from(child.id())?))
    }

    pub fn stop(&mut self, signal: Signal) -> Fallible {
        if let Some(mut child) = self.process.take() {
            kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
            child.wait()?;
        }
        Ok(())
    }

    /// kubectl on the cluster's node with the arguments of a line as a shell would split it.
    pub fn kubectl(&self, line: &str) -> Command {
        let mut command = self.machines.command("timeout");
        command.args(["120", "kubectl"]).args(words(line));
        command.env("KUBECONFIG", self.data().join("admin.kubeconfig")).env("HOME", self.dir.path());
        command.current_dir(self.dir.path());
        command
    }

    /// What kubectl prints when it succeeds.
    pub fn ok(&self, line: &str) -> Fallible<String> {
        succeeded(line, &self.kubectl(line).output()?)
    }

    /// The same with something on its standard input.
    pub fn fed(&self, line: &str, input: &str) -> Fallible<String> {
        succeeded(line, &self.feed(line, input)?)
    }

    pub fn feed(&self, line: &str, input: &str) -> Fallible<Output> {
        // kubectl takes what begins with a brace for JSON; these manifests are YAML.
        let input =
            if input.starts_with('{') && line.contains("-f -") { format!("---\n{input}") } else { input.to_owned() };
        let mut command = self.kubectl(line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        Ok(child.wait_with_output()?)
    }

    pub fn apply(&self, manifest: &str) -> Fallible<String> {
        self.fed("apply -f -", manifest)
    }

    /// What kubectl says on standard error when it fails, as it must.
    pub fn refused(&self, line: &str) -> Fallible<String> {
        let output = self.kubectl(line).output()?;
        if output.status.success() {
            return Err(format!("kubectl {line} succeeded: {}", String::from_utf8_lossy(&output.stdout)).into());
        }
        Ok(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// Waits until kubectl succeeds and prints what is wanted.
    pub fn until(&self, line: &str, wanted: impl Fn(&str) -> bool) -> Fallible<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = self.ok(line);
            match outcome {
                Ok(text) if wanted(&text) => return Ok(text),
                outcome if Instant::now() > deadline => {
                    let events = self.ok("get events -A")?;
                    return Err(format!("kubectl {line} still gives {outcome:?}\n{events}").into());
                }
                _ => std::thread::park_timeout(LOOK),
            }
        }
    }

    /// kubectl that goes on, such as a watch.
    pub fn follow(&self, line: &str) -> Fallible<Follower> {
        Follower::start(self.kubectl(line))
    }

    /// kubectl on a terminal, with what is typed there, which must end it; what the terminal shows once it is as wanted.
    pub fn terminal(&self, line: &str, typed: &str, wanted: impl Fn(&str) -> bool) -> Fallible<String> {
        let mut command = self.machines.command("script");
        // `timeout` puts itself into a process group of its own unless it leads the session or is told not to; kubectl in a group
        // that is not the terminal's foreground is stopped when it makes the terminal raw. Which of the two it was hung on the
        // caller's $SHELL, as some shells replace themselves by their last command.
        command.args(["-qec", &format!("exec timeout --foreground 120 kubectl {line}"), "/dev/null"]);
        command.env("SHELL", "/bin/sh");
        command.env("KUBECONFIG", self.data().join("admin.kubeconfig")).env("HOME", self.dir.path());
        let mut shown = Follower::start(command)?;
        shown.type_in(typed)?;
        let text = shown.until(wanted).map_err(|error| format!("kubectl {line}: {error}"))?;
        if !shown.finished()? {
            return Err(format!("kubectl {line} failed:\n{text}").into());
        }
        Ok(text)
    }

    pub fn reset(&self) -> Fallible {
        let output = self.pilothouse("reset").output()?;
        if !output.status.success() {
            return Err(format!("reset: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(())
    }

    /// A pod's container as the kernel knows it: the id of its first process, seen from the host.
    pub fn container_process(&self, pod: &str) -> Fallible<Pid> {
        let id = self.ok(&format!("get pod {pod} -o jsonpath='{{.status.containerStatuses[0].containerID}}'"))?;
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        let group = leftovers::groups_of(&self.name)?
            .into_iter()
            .find(|g| g.file_name().is_some_and(|n| n.to_string_lossy().contains(&id)))
            .ok_or_else(|| format!("no cgroup of container {id}"))?;
        let first = fs::read_to_string(group.join("cgroup.procs"))?;
        let first = first.lines().next().ok_or("no process in the container")?.parse()?;
        Ok(Pid::from_raw(first))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            end(&mut child, Signal::SIGKILL);
        }
        if std::thread::panicking()
            && let Ok(log) = fs::read_to_string(self.log())
        {
            eprintln!("the cluster's log:\n{log}");
        }
        // After a failure; a test itself checks that reset leaves nothing.
        if self.data().exists()
            && let Err(e) = self.reset()
        {
            eprintln!("{e}");
        }
    }
}

/// Ends a process that was started here, and waits for it.
pub fn end(child: &mut Child, signal: Signal) {
    if let (Ok(None), Ok(id)) = (child.try_wait(), i32::try_from(child.id())) {
        // It may end by itself meanwhile.
        let _ = kill(Pid::from_raw(id), signal);
    }
    drop(child.wait());
}

fn succeeded(line: &str, output: &Output) -> Fallible<String> {
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        return Err(format!("kubectl {line}: {err}\n{out}").into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The words of a line; single quotes keep one together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in line.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Waits until something holds.
pub fn wait(what: &str, mut holds: impl FnMut() -> Fallible<bool>) -> Fallible {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            return Err(format!("still not so: {what}").into());
        }
        std::thread::park_timeout(LOOK);
    }
    Ok(())
}

/// A manifest beside the scenarios.
pub fn manifest(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/system/manifests").join(name).display().to_string()
}

/// Fails unless a text has all of these, with the text.
#[track_caller]
pub fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

/// Spaces of tables collapsed, so that column widths don't matter.
pub fn squeezed(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}
