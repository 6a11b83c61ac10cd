//! Real etcd members, on unix sockets in a directory of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::etcd::{Endpoint, Options};
use crate::suite::PATIENCE;

/// A cluster of Debian's etcd, which ends with it.
#[derive(Debug)]
pub struct Cluster {
    directory: PathBuf,
    size: usize,
    members: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts one of `size` members, which have their data, logs and sockets in a directory.
    pub fn start(directory: &Path, size: usize) -> Self {
        let mut cluster = Self { directory: directory.to_owned(), size, members: (0..size).map(|_| None).collect() };
        for member in 0..size {
            cluster.run(member);
        }
        cluster
    }

    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Where a member listens to clients.
    pub fn socket(&self, member: usize) -> PathBuf {
        self.path().join(format!("c{member}:1"))
    }

    /// Starts a member that does not run.
    pub fn run(&mut self, member: usize) {
        let peers: Vec<String> = (0..self.size).map(|peer| format!("m{peer}=unix://p{peer}:1")).collect();
        for socket in [self.socket(member), self.path().join(format!("p{member}:1"))] {
            drop(std::fs::remove_file(socket));
        }
        let log = std::fs::File::create(self.path().join(format!("log{member}"))).expect("a log");
        // Elections must not take long, nor begin because the machine is busy.
        let (heartbeat, election) = if self.size == 1 { ("10", "100") } else { ("50", "500") };
        let child = Command::new("/usr/bin/etcd")
            .current_dir(self.path())
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .args(["--name", &format!("m{member}"), "--data-dir", &format!("d{member}")])
            .args(["--listen-client-urls", &format!("unix://c{member}:1")])
            .args(["--advertise-client-urls", &format!("unix://c{member}:1")])
            .args(["--listen-peer-urls", &format!("unix://p{member}:1")])
            .args(["--initial-advertise-peer-urls", &format!("unix://p{member}:1")])
            .args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"])
            // What tells clusters apart.
            .args(["--initial-cluster-token", &self.path().display().to_string()])
            .args(["--heartbeat-interval", heartbeat, "--election-timeout", election])
            .args(["--log-level", "error"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd starts (Debian's package etcd-server)");
        self.members[member] = Some(child);
    }

    /// How all members are reached.
    pub fn options(&self) -> Options {
        self.options_of(&(0..self.size).collect::<Vec<_>>())
    }

    /// How some of the members are reached.
    pub fn options_of(&self, members: &[usize]) -> Options {
        Options {
            endpoints: members.iter().map(|member| Endpoint::Unix(self.socket(*member))).collect(),
            tls: None,
            prefix: "/registry".into(),
            compaction_interval: None,
        }
    }

    /// Kills a member at once, as a power failure does.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].take() {
            child.kill().expect("killed");
            child.wait().expect("waited for");
        }
    }

    /// Stops a member without its connections noticing.
    pub fn pause(&self, member: usize) {
        self.signal(member, Signal::STOP);
    }

    /// Lets a paused member go on.
    pub fn resume(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    fn signal(&self, member: usize, signal: Signal) {
        let child = self.members[member].as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("signalled");
    }

    /// The member that leads.
    pub async fn leader(&self) -> usize {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            for member in (0..self.size).filter(|member| self.members[*member].is_some()) {
                let members = crate::etcd::members::Members::new(&self.options_of(&[member]));
                if let Ok(status) = members.all()[0].status().await
                    && status.leader != 0
                    && status.header.is_some_and(|header| header.member_id == status.leader)
                {
                    return member;
                }
            }
            assert!(std::time::Instant::now() < deadline, "a leader is elected");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in 0..self.size {
            self.kill(member);
        }
    }
}
