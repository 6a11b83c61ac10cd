//! The server's process: started, measured, ended.

use crate::Fallible;
use crate::client::{Connections, Way};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// A running API server; it is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    binary: PathBuf,
    data: PathBuf,
    child: Child,
    port: u16,
    /// From its start to its first `/readyz` that is well.
    pub ready_ms: f64,
}

impl Server {
    pub async fn start(binary: &Path, data: &Path) -> Fallible<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = spawn(binary, data, port)?;
        let mut server = Server { binary: binary.into(), data: data.into(), child, port, ready_ms: 0.0 };
        server.ready(Instant::now()).await?;
        // What a controller would have made, and pods need.
        let account = r#"{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"default"}}"#;
        let connections = server.connections(1).await?;
        let path = "/api/v1/namespaces/default/serviceaccounts";
        connections.done(connections.request("POST", path, Some("application/json"), account.into())?).await?;
        Ok(server)
    }

    /// Ends it by SIGKILL and starts it on what is there.
    pub async fn restart(&mut self) -> Fallible {
        self.child.kill()?;
        self.child.wait()?;
        self.start_again().await
    }

    /// Starts it, after it has ended, on what is there.
    pub async fn start_again(&mut self) -> Fallible {
        let begun = Instant::now();
        self.child = spawn(&self.binary, &self.data, self.port)?;
        self.ready(begun).await
    }

    async fn ready(&mut self, begun: Instant) -> Fallible {
        loop {
            let answer = match self.connections(1).await {
                Ok(connections) => connections.get("/readyz").await,
                Err(e) => Err(e),
            };
            if answer.is_ok() {
                self.ready_ms = begun.elapsed().as_secs_f64() * 1e3;
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the API server ended ({status}): see {}.log", self.data.display()).into());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("the API server does not get ready: {answer:?}").into());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Connections with the administrator's certificate.
    pub async fn connections(&self, count: usize) -> Fallible<Connections> {
        let way = Way::read(&self.data.join("admin.kubeconfig"), self.port)?;
        Connections::open(&way, count).await
    }

    /// CPU that it has used, by user and kernel.
    pub fn cpu(&self) -> Fallible<Duration> {
        // Per thread and in nanoseconds, where `stat` counts in hundredths of seconds; threads live as long as the server.
        let mut nanoseconds = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            nanoseconds += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Bytes of memory that are resident.
    pub fn resident(&self) -> Fallible<f64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find(|l| l.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse()?;
        Ok(kib * 1024.0)
    }

    /// Asks it to end, and waits for that: a build that counts what runs writes down what it counted.
    pub fn end(&mut self) -> Fallible {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        signal::kill(pid, Signal::SIGTERM)?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended needs nothing more.
        drop(self.child.kill().and_then(|()| self.child.wait()));
    }
}

fn spawn(binary: &Path, data: &Path, port: u16) -> Fallible<Child> {
    let log = File::options().create(true).append(true).open(data.with_extension("log"))?;
    let child = Command::new(binary)
        .arg("apiserver")
        .arg(format!("--data-dir={}", data.display()))
        .arg(format!("--secure-port={port}"))
        .args(["--bind-address=127.0.0.1", "--authorization-mode=Node,RBAC"])
        // The load is one user's, on purpose.
        .args(["--max-requests-inflight=20000", "--max-mutating-requests-inflight=20000"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|e| format!("{} can't be run: {e}", binary.display()))?;
    Ok(child)
}
