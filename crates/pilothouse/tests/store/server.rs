//! An API server alone with its embedded store, which is also served as etcd, and kubectl.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_pilothouse");
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until something is there.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "still not so: {what}");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

/// What succeeded, as text.
#[track_caller]
pub fn said(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}\n{out}");
    out.trim_end().to_owned()
}

/// What failed, as it must, as text.
#[track_caller]
pub fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "it succeeded: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).trim_end().to_owned()
}

/// A running API server, ended with the test.
pub struct Server {
    child: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts on a directory, which keeps its state from one start to the next.
    pub fn start(directory: &Path, flags: &[&str]) -> Self {
        let face = format!("--serve-etcd=unix://{}", directory.join("e").display());
        Self::start_plain(directory, &[&[&face[..]], flags].concat())
    }

    /// The same, with its store served where it is if nothing is said.
    pub fn start_plain(directory: &Path, flags: &[&str]) -> Self {
        let log = fs::File::create(directory.join("log")).expect("a log");
        Self::start_telling(directory, flags, log.into())
    }

    /// The same, with its log somewhere else.
    pub fn start_telling(directory: &Path, flags: &[&str], log: Stdio) -> Self {
        let out = directory.join("out");
        let mut command = Command::new(BINARY);
        command.current_dir(directory).args(["apiserver", "--secure-port=0", "--bind-address=127.0.0.1"]);
        command.args(["--data-dir=data", "--authorization-mode=RBAC"]).args(flags);
        let child = command.stdin(Stdio::null()).stdout(fs::File::create(&out).expect("a file")).stderr(log).spawn();
        let mut server = Server { child: child.expect("it starts"), directory: directory.to_owned() };
        until("the API server runs", || {
            let ended = server.child.try_wait().expect("waited for");
            assert!(ended.is_none(), "{}", fs::read_to_string(directory.join("log")).unwrap_or_default());
            fs::read_to_string(&out).ok().filter(|text| text.contains("is running at"))
        });
        server
    }

    /// Ends it and waits.
    pub fn stop(mut self) {
        let id = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("an id"));
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).expect("told to end");
        self.child.wait().expect("ended");
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("data/admin.kubeconfig")
    }

    pub fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("kubectl");
        command.args(["--kubeconfig"]).arg(self.kubeconfig()).args(arguments);
        command.env("HOME", &self.directory).current_dir(&self.directory).stdin(Stdio::null());
        command.output().expect("kubectl runs")
    }

    /// kubectl with something on its standard input.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Output {
        fs::write(self.directory.join("input"), input).expect("written");
        let mut command = Command::new("kubectl");
        command.args(["--kubeconfig"]).arg(self.kubeconfig()).args(arguments).env("HOME", &self.directory);
        command.stdin(fs::File::open(self.directory.join("input")).expect("the input"));
        command.output().expect("kubectl runs")
    }

    /// The raw value of a key, by etcdctl.
    pub fn stored(&self, key: &str) -> Vec<u8> {
        let mut command = Command::new("etcdctl");
        command.current_dir(&self.directory).env("ETCDCTL_API", "3");
        let output = command.args(["--endpoints=unix://e", "get", "--print-value-only", key]).output();
        let output = output.expect("etcdctl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.directory.join("log")).unwrap_or_default());
        }
    }
}
