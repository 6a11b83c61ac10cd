//! What a kubelet is told when it starts.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use api::features::Gates;
use k8s_openapi::api::core::v1::Taint;

/// Settings of a kubelet. [`Config::new`] gives upstream's defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the Node object.
    pub node_name: String,
    /// The node's addresses, the primary one first; pods in the host's network have them.
    pub node_ips: Vec<IpAddr>,
    /// The name of the cluster, for what tells clusters on one machine apart.
    pub cluster_name: String,
    /// Where volumes and pods' files are: `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Where containers' logs are: `/var/log/pods`.
    pub pod_log_dir: PathBuf,
    /// Where links to containers' logs are: `/var/log/containers`.
    pub container_log_dir: PathBuf,
    /// The files that `/logs/` serves: `/var/log`.
    pub node_log_dir: PathBuf,
    /// The socket of the CRI runtime; a `unix://` prefix is taken too.
    pub cri_endpoint: PathBuf,
    /// The cluster's resolvers.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain: `cluster.local`.
    pub cluster_domain: String,
    /// The node's resolver configuration; `None` finds it.
    pub resolv_conf: Option<PathBuf>,
    /// Where the node API listens.
    pub bind_address: IpAddr,
    /// The port of the node API; 0 picks one, which the Node object then tells.
    pub port: u16,
    /// The certificate of the node API.
    pub serving: Serving,
    /// Whether the node API speaks TLS 1.3 only, not 1.2.
    pub tls13_only: bool,
    /// The cipher suites that the node API offers; `None`: all.
    pub suites: Option<Vec<rustls::SupportedCipherSuite>>,
    /// Authorities of client certificates; none: clients use tokens.
    pub client_ca: Option<ClientCa>,
    /// What the Node object tells as the kubelet's version: `v1.36.0`.
    pub version: String,
    /// The cgroup below which `kubepods` is made: `/`.
    pub cgroup_root: String,
    /// Containers that don't say otherwise run with the runtime's seccomp profile.
    pub seccomp_default: bool,
    /// Resources kept for the system and for the kubelet, by name; not given to pods.
    pub reserved: BTreeMap<String, String>,
    /// The most pods the node takes.
    pub max_pods: u32,
    /// The most processes a pod may have.
    pub pod_pids_limit: Option<i64>,
    /// A directory of manifests of static pods.
    pub static_pod_path: Option<PathBuf>,
    /// Create the Node object if there is none.
    pub register_node: bool,
    /// Labels that the Node object is registered with.
    pub node_labels: BTreeMap<String, String>,
    /// Taints that the Node object is registered with.
    pub register_with_taints: Vec<Taint>,
    /// When images are removed.
    pub image_gc: ImageGc,
    /// When containers' logs are rotated.
    pub container_logs: ContainerLogs,
    /// When pods are evicted.
    pub eviction: Eviction,
    /// Sysctls that pods may set beside the safe ones; a trailing `*` stands for any rest.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// How many pulls run at a time.
    pub max_parallel_image_pulls: usize,
    /// Which features are on, as `/metrics` tells.
    pub gates: Gates,
}

impl Config {
    /// The defaults for a node of this name at this address, with its runtime at `cri_endpoint`.
    #[must_use]
    pub fn new(node_name: impl Into<String>, node_ip: IpAddr, cri_endpoint: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            node_ips: vec![node_ip],
            cluster_name: "pilothouse".to_owned(),
            root_dir: "/var/lib/kubelet".into(),
            pod_log_dir: "/var/log/pods".into(),
            container_log_dir: "/var/log/containers".into(),
            node_log_dir: "/var/log".into(),
            cri_endpoint: cri_endpoint.into(),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: None,
            bind_address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            port: 10250,
            serving: Serving::SelfSigned,
            tls13_only: false,
            suites: None,
            client_ca: None,
            version: "v1.36.0".to_owned(),
            cgroup_root: "/".to_owned(),
            seccomp_default: true,
            reserved: BTreeMap::new(),
            max_pods: 110,
            pod_pids_limit: None,
            static_pod_path: None,
            register_node: true,
            node_labels: BTreeMap::new(),
            register_with_taints: Vec::new(),
            image_gc: ImageGc::default(),
            container_logs: ContainerLogs::default(),
            eviction: Eviction::default(),
            allowed_unsafe_sysctls: Vec::new(),
            max_parallel_image_pulls: 5,
            gates: Gates::default(),
        }
    }
}

/// Where the certificate of the node API comes from.
#[derive(Clone, Debug)]
pub enum Serving {
    /// One that is asked for each handshake, so that it can be renewed live.
    Resolver(Arc<dyn rustls::server::ResolvesServerCert>),
    /// PEM files, read again when they change.
    Files {
        /// The chain, the node's own certificate first.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// A certificate made at start and signed by itself.
    SelfSigned,
}

/// The authorities whose client certificates the node API takes.
#[derive(Clone, Debug)]
pub enum ClientCa {
    /// PEM text.
    Pem(Vec<u8>),
    /// A PEM file, read at start.
    File(PathBuf),
}

/// When images are removed.
#[derive(Clone, Copy, Debug)]
pub struct ImageGc {
    /// Removal begins when this percentage of the file system is used.
    pub high_percent: u8,
    /// Removal ends when at most this percentage is used.
    pub low_percent: u8,
    /// Younger images are kept.
    pub min_age: Duration,
}

impl Default for ImageGc {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, min_age: Duration::from_secs(120) }
    }
}

/// When containers' logs are rotated.
#[derive(Clone, Copy, Debug)]
pub struct ContainerLogs {
    /// A log that is larger is rotated.
    pub max_size: u64,
    /// How many files of a container are kept, the present one included.
    pub max_files: usize,
}

impl Default for ContainerLogs {
    fn default() -> Self {
        Self { max_size: 10 << 20, max_files: 5 }
    }
}

/// An amount, or a share of what there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// So many bytes, inodes or process ids.
    Amount(u64),
    /// From 0 to 100.
    Percent(f64),
}

impl Threshold {
    /// The amount, of so much capacity.
    #[must_use]
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Threshold::Amount(amount) => amount,
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a capacity fits where the capacity does"
            )]
            Threshold::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }
}

/// Below what remainder pods are evicted at once.
#[derive(Clone, Copy, Debug)]
pub struct Eviction {
    /// `memory.available`
    pub memory_available: Option<Threshold>,
    /// `nodefs.available`
    pub nodefs_available: Option<Threshold>,
    /// `nodefs.inodesFree`
    pub nodefs_inodes_free: Option<Threshold>,
    /// `imagefs.available`
    pub imagefs_available: Option<Threshold>,
    /// `imagefs.inodesFree`
    pub imagefs_inodes_free: Option<Threshold>,
    /// `pid.available`
    pub pid_available: Option<Threshold>,
    /// How long a condition stays after the pressure is gone.
    pub transition_period: Duration,
}

impl Default for Eviction {
    fn default() -> Self {
        Self {
            memory_available: Some(Threshold::Amount(100 << 20)),
            nodefs_available: Some(Threshold::Percent(10.0)),
            nodefs_inodes_free: Some(Threshold::Percent(5.0)),
            imagefs_available: Some(Threshold::Percent(15.0)),
            imagefs_inodes_free: Some(Threshold::Percent(5.0)),
            pid_available: None,
            transition_period: Duration::from_secs(300),
        }
    }
}
