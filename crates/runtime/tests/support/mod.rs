//! A server of its own for each test, on a data directory and pod network of its own, and an image of busybox.
//!
//! These tests start real containers and need root.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod image;
pub mod stream;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use cri::{Client, v1::*};

/// Waits until `condition` yields something; a test that waits longer than this has failed.
pub async fn eventually<T, F: AsyncFnMut() -> Option<T>>(what: &str, mut condition: F) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A running server.
pub struct Server {
    pub dir: tempfile::TempDir,
    pub cluster: String,
    pod_cidr: String,
    process: Option<Child>,
    /// Runs instead of the usual one, as after an upgrade.
    pub executable: Option<PathBuf>,
    pub client: Client,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Server {
    /// Starts one; ready when this returns.
    pub async fn start() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make containers and must run as root");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let dir = tempfile::Builder::new().prefix("cri-").tempdir().unwrap();
        let client = Client::connect(dir.path().join("cri.sock"));
        let mut server = Self {
            cluster: format!("t{pid}-{number}"),
            // Somewhere that no other test process uses.
            pod_cidr: format!("10.{}.{}.0/24", 128 + pid % 120, (pid / 120 + number * 50) % 256),
            dir,
            process: None,
            executable: None,
            client,
        };
        server.launch().await;
        server.load(image::archive()).await;
        server
    }

    /// Loads images of an archive.
    pub async fn load(&self, archive: Vec<u8>) {
        let pieces: Vec<_> =
            archive.chunks(1 << 20).map(|c| cri::images::LoadRequest { data: c.to_vec().into() }).collect();
        self.client.images().load(tokio_stream::iter(pieces)).await.unwrap();
    }

    fn arguments(&self) -> Vec<String> {
        vec![
            self.dir.path().display().to_string(),
            format!("cluster={}", self.cluster),
            format!("pod-cidr={}", self.pod_cidr),
        ]
    }

    /// Starts the server process, again after a kill.
    pub async fn launch(&mut self) {
        let log = fs::File::options().create(true).append(true).open(self.dir.path().join("server.log")).unwrap();
        let usual = PathBuf::from(env!("CARGO_BIN_EXE_cri-server"));
        let child = Command::new(self.executable.as_ref().unwrap_or(&usual))
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(child);
        let client = self.client.clone();
        eventually("the start of the server", async || client.runtime().version(VersionRequest::default()).await.ok())
            .await;
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub fn reset(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        let status =
            Command::new(env!("CARGO_BIN_EXE_cri-server")).arg("--reset").args(self.arguments()).status().unwrap();
        assert!(status.success(), "reset failed");
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// A pod without special wishes.
    pub fn pod(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: format!("{name}-uid"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.path("logs").join(name).display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(NamespaceOption {
                        pid: NamespaceMode::Container.into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub async fn run_pod(&self, config: PodSandboxConfig) -> Pod {
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let response = self.client.runtime().run_pod_sandbox(request).await.unwrap();
        Pod { id: response.into_inner().pod_sandbox_id, config, client: self.client.clone() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("server.log")).unwrap_or_default();
            #[allow(clippy::print_stderr, reason = "helps whoever reads the failed test")]
            {
                eprintln!("--- the server's log:\n{log}");
            }
        }
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let status = Command::new(env!("CARGO_BIN_EXE_cri-server")).arg("--reset").args(self.arguments()).status();
        if !std::thread::panicking() {
            assert!(status.unwrap().success(), "reset failed");
        }
    }
}

/// A sandbox that runs.
pub struct Pod {
    pub id: String,
    pub config: PodSandboxConfig,
    client: Client,
}

/// A container that runs a shell command as what an ordinary pod's container is.
pub fn shell(name: &str, script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(ImageSpec { image: "busybox".into(), ..Default::default() }),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        log_path: format!("{name}.log"),
        linux: Some(LinuxContainerConfig {
            resources: None,
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(NamespaceOption { pid: NamespaceMode::Container.into(), ..Default::default() }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

/// The security context of a container from [`shell`].
pub fn context(config: &mut ContainerConfig) -> &mut LinuxContainerSecurityContext {
    config.linux.as_mut().unwrap().security_context.as_mut().unwrap()
}

impl Pod {
    pub async fn create(&self, config: ContainerConfig) -> Result<Ctr, tonic::Status> {
        let log = Path::new(&self.config.log_directory).join(&config.log_path);
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let response = self.client.runtime().create_container(request).await?;
        Ok(Ctr { id: response.into_inner().container_id, log, client: self.client.clone() })
    }

    /// Creates and starts.
    pub async fn run(&self, config: ContainerConfig) -> Ctr {
        let container = self.create(config).await.unwrap();
        container.start().await.unwrap();
        container
    }

    /// Runs a script to its end; what it printed and its exit code.
    pub async fn script(&self, name: &str, script: &str) -> (String, i32) {
        self.finished(shell(name, script)).await
    }

    /// Runs a container to its end; what it printed and its exit code.
    pub async fn finished(&self, config: ContainerConfig) -> (String, i32) {
        let container = self.run(config).await;
        let status = container.ended().await;
        (container.output(), status.exit_code)
    }

    pub async fn status(&self) -> PodSandboxStatus {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        let response = self.client.runtime().pod_sandbox_status(request).await;
        response.unwrap().into_inner().status.unwrap()
    }

    pub async fn stop(&self) {
        let request = StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.client.runtime().stop_pod_sandbox(request).await.unwrap();
    }

    pub async fn remove(&self) {
        let request = RemovePodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.client.runtime().remove_pod_sandbox(request).await.unwrap();
    }
}

/// A container.
pub struct Ctr {
    pub id: String,
    pub log: PathBuf,
    client: Client,
}

impl Ctr {
    pub async fn start(&self) -> Result<(), tonic::Status> {
        let request = StartContainerRequest { container_id: self.id.clone() };
        self.client.runtime().start_container(request).await.map(drop)
    }

    pub async fn stop(&self, timeout: i64) {
        let request = StopContainerRequest { container_id: self.id.clone(), timeout };
        self.client.runtime().stop_container(request).await.unwrap();
    }

    pub async fn remove(&self) {
        let request = RemoveContainerRequest { container_id: self.id.clone() };
        self.client.runtime().remove_container(request).await.unwrap();
    }

    pub async fn status(&self) -> ContainerStatus {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: true };
        let response = self.client.runtime().container_status(request).await;
        response.unwrap().into_inner().status.unwrap()
    }

    /// Its first process, as the machine sees it.
    pub async fn pid(&self) -> i32 {
        let request = ContainerStatusRequest { container_id: self.id.clone(), verbose: true };
        let response = self.client.runtime().container_status(request).await;
        let info = response.unwrap().into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        info["status"]["pid"].as_i64().unwrap() as i32
    }

    pub async fn ended(&self) -> ContainerStatus {
        eventually("the container's end", async || {
            let status = self.status().await;
            (status.state == ContainerState::ContainerExited as i32).then_some(status)
        })
        .await
    }

    /// The log's texts of both streams.
    pub fn output(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let mut out = String::new();
        for line in log.lines() {
            let mut fields = line.splitn(4, ' ');
            let tag = fields.nth(2).unwrap();
            out += fields.next().unwrap_or_default();
            if tag == "F" {
                out.push('\n');
            }
        }
        out
    }

    /// Waits until the container has printed this.
    pub async fn prints(&self, text: &str) {
        eventually(&format!("{text:?} in the log"), async || self.output().contains(text).then_some(())).await;
    }

    /// Runs a command in it: stdout, stderr, exit code.
    pub async fn exec(&self, command: &[&str]) -> Result<(String, String, i32), tonic::Status> {
        self.exec_within(command, 20).await
    }

    pub async fn exec_within(&self, command: &[&str], timeout: i64) -> Result<(String, String, i32), tonic::Status> {
        let request = ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: command.iter().map(|s| (*s).to_owned()).collect(),
            timeout,
        };
        let response = self.client.runtime().exec_sync(request).await?.into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&response.stdout), text(&response.stderr), response.exit_code))
    }
}
