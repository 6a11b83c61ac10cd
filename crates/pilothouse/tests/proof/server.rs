//! The API server under attack: a process of the built binary, and clients of it.

use crate::Fallible;
use crate::arena::PATIENCE;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at whether it is ready.
const LOOK: Duration = Duration::from_millis(5);

pub fn binary() -> PathBuf {
    std::env::var_os("PILOTHOUSE_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_pilothouse").into(), PathBuf::from)
}

/// An API server with a data directory; its log is beside it.
#[derive(Debug)]
pub struct Server {
    data: PathBuf,
    log: PathBuf,
    port: u16,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// One that does not run yet.
    pub fn new(data: &Path, log: &Path, port: u16, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Server { data: data.to_owned(), log: log.to_owned(), port, flags, child: None }
    }

    /// Starts it, and does not wait.
    pub fn start(&mut self) -> Fallible {
        let log = || File::options().create(true).append(true).open(&self.log);
        let child = Command::new(binary())
            .arg("apiserver")
            .arg(format!("--data-dir={}", self.data.display()))
            .arg(format!("--secure-port={}", self.port))
            .args(["--bind-address=127.0.0.1", "--authorization-mode=Node,RBAC"])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log()?)
            .stderr(log()?)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts it; how long it took until it said that it is ready.
    pub async fn up(&mut self) -> Fallible<Duration> {
        let begun = Instant::now();
        self.start()?;
        self.answers("/readyz").await?;
        Ok(begun.elapsed())
    }

    /// Waits until a health check of the server that has just been started is well.
    pub async fn answers(&mut self, path: &str) -> Fallible {
        let begun = Instant::now();
        let mut last: Box<dyn std::error::Error + Send + Sync> = "no kubeconfig".into();
        loop {
            let ended = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                return Err(format!("{path} is never well ({ended:?}): {last}\n{}", self.log()).into());
            }
            match self.ask(path).await {
                Ok((200, _)) => return Ok(()),
                Ok((code, text)) => last = format!("{code} {text}").into(),
                Err(e) => last = e,
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts it, though it must refuse; why it did.
    pub fn refused(&mut self) -> Fallible<String> {
        self.start()?;
        let mut child = self.child.take().ok_or("it does not run")?;
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                return Err("it was not refused".into());
            }
            std::thread::park_timeout(LOOK);
        }
        Ok(self.log())
    }

    /// What a path answers: the code and the text.
    pub async fn ask(&self, path: &str) -> Fallible<(u16, String)> {
        use http_body_util::BodyExt;
        let request = http::Request::get(path).body(kube::client::Body::empty())?;
        let answer = self.client().await?.send(request).await?;
        let code = answer.status().as_u16();
        let text = answer.into_body().collect().await?.to_bytes();
        Ok((code, String::from_utf8_lossy(&text).into_owned()))
    }

    /// A client with the administrator's credentials and connections of its own.
    pub async fn client(&self) -> Fallible<Client> {
        Ok(Client::try_from(self.config(&self.data).await?)?)
    }

    /// The way to this server as the kubeconfig of one that shares its authority has it.
    pub async fn config(&self, data: &Path) -> Fallible<Config> {
        let file = Kubeconfig::read_from(data.join("admin.kubeconfig"))?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.cluster_url = format!("https://127.0.0.1:{}", self.port).parse()?;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(PATIENCE);
        // A write whose fate is unknown must not be tried again behind our back.
        config.default_retry = false;
        Ok(config)
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The end of what it has logged, without what every look at its health adds.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.contains("z check failed")).collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Ends it by a signal, and waits until it has ended.
    pub fn end(&mut self, signal: Signal) -> Fallible {
        if let Some(mut child) = self.child.take() {
            kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
            let status = child.wait()?;
            if signal == Signal::SIGTERM && !status.success() {
                return Err(format!("it ended badly: {status}\n{}", self.log()).into());
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill().and_then(|()| child.wait()));
        }
    }
}
