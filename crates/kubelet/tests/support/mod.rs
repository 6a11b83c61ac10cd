//! A kubelet between an API and a runtime that are both invented, so that tests decide what
//! happens there and see what the kubelet does.

pub mod api;
pub mod cri;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub use self::{api::Api, cri::Runtime};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node: API, runtime, kubelet, and its directories.
pub struct Node {
    pub api: Api,
    pub runtime: Arc<Runtime>,
    pub dir: tempfile::TempDir,
    cgroup_root: String,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<Result<(), kubelet::Error>>>,
}

/// True if the tests may do what kubelets do; says so if not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        tracing::warn!("not root: a test that needs cgroups and mounts is skipped");
    }
    root
}

impl Node {
    /// Waits until the runtime was called like this so often.
    pub async fn wait_calls(&self, call: &str, times: usize) {
        let count = || self.runtime.calls().iter().filter(|made| made.starts_with(call)).count();
        let waiting = async {
            while count() < times {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("timed out waiting for {call:?} × {times}; calls were {:#?}", self.runtime.calls());
        }
    }

    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts a node whose kubelet is set differently.
    pub async fn start_with(change: impl Fn(&mut kubelet::Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cri.sock");
        let mut node = Self {
            api: Api::new(),
            runtime: Runtime::serve(&socket).await,
            cgroup_root: format!("/pilothouse-test-{}", uuid::Uuid::new_v4()),
            dir,
            stop: CancellationToken::new(),
            task: None,
        };
        node.api.put(
            "/api/v1/namespaces/default/services/kubernetes",
            json!({"spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "protocol": "TCP"}]}}),
        );
        node.start_kubelet(change);
        node.api.wait("/api/v1/nodes/n1", |node| !node.is_null()).await;
        node
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.path("kubelet/pods").join(uid)
    }

    pub fn start_kubelet(&mut self, change: impl Fn(&mut kubelet::Config)) {
        let mut config = kubelet::Config::new("n1", "192.0.2.1".parse().unwrap(), self.path("cri.sock"));
        config.root_dir = self.path("kubelet");
        config.pod_log_dir = self.path("logs");
        config.container_log_dir = self.path("links");
        config.bind_address = "127.0.0.1".parse().unwrap();
        config.port = 0;
        config.cgroup_root.clone_from(&self.cgroup_root);
        config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
        config.resolv_conf = Some("/dev/null".into());
        // How full this machine is is not the tests' business.
        config.eviction.memory_available = None;
        config.eviction.nodefs_available = None;
        config.eviction.nodefs_inodes_free = None;
        config.eviction.imagefs_available = None;
        config.eviction.imagefs_inodes_free = None;
        change(&mut config);
        self.stop = CancellationToken::new();
        self.task = Some(tokio::spawn(kubelet::run(config, self.api.client(), self.stop.clone())));
    }

    pub async fn stop_kubelet(&mut self) {
        self.stop.cancel();
        if let Some(task) = self.task.take() {
            task.await.unwrap().unwrap();
        }
    }

    /// Creates a pod in `default`, bound to the node; returns its path.
    pub fn create_pod(&self, name: &str, spec: Value) -> String {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        let defaults = [
            ("restartPolicy", json!("Always")),
            ("dnsPolicy", json!("ClusterFirst")),
            ("enableServiceLinks", json!(true)),
            ("terminationGracePeriodSeconds", json!(30)),
        ];
        for (key, value) in defaults {
            if spec[key].is_null() {
                spec[key] = value;
            }
        }
        let path = format!("/api/v1/namespaces/default/pods/{name}");
        self.api.put(
            &path,
            json!({"metadata": {"uid": format!("uid-{name}"), "generation": 1}, "spec": spec, "status": {"phase": "Pending"}}),
        );
        path
    }

    /// Waits until the pod's status is as wanted, and returns the pod.
    pub async fn wait_pod(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.api.wait(path, |pod| wanted(&pod["status"])).await
    }

    pub async fn wait_running(&self, path: &str) -> Value {
        self.wait_pod(path, |status| status["phase"] == "Running").await
    }

    /// The texts of the events about an object, as `reason: message`.
    pub fn events(&self, name: &str) -> Vec<String> {
        let mut events = self.api.list("/api/v1/namespaces/default/events");
        events.retain(|event| event["involvedObject"]["name"] == name);
        events.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap());
        let text = |event: Value| {
            let part = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            format!("{}: {}", part("reason"), part("message"))
        };
        events.into_iter().map(text).collect()
    }

    /// Waits for an event about an object.
    pub async fn wait_event(&self, name: &str, wanted: &str) {
        until(&format!("event {wanted:?} about {name}"), || {
            self.events(name).iter().any(|event| event.contains(wanted))
        })
        .await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        unmount_below(self.dir.path());
        for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            remove_cgroup(&controller.path().join(self.cgroup_root.trim_start_matches('/')));
        }
        remove_cgroup(Path::new(&format!("/sys/fs/cgroup{}", self.cgroup_root)));
    }
}

fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|mount| Path::new(mount).starts_with(dir))
        .collect();
    for mount in below.into_iter().rev() {
        // What is gone already is what we want.
        let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
    }
}

fn remove_cgroup(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    // Most controllers have none.
    let _ = std::fs::remove_dir(dir);
}

/// Waits until something is so.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "timed out waiting for {what}");
}
