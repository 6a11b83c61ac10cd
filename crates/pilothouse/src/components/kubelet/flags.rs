//! The kubelet's flags and KubeletConfiguration, and what they come to.

use super::super::LogArgs;
use super::super::ciphers;
use super::super::config_file::ConfigFile;
use super::super::features::FeatureArgs;
use super::super::serving::{TLS_VERSIONS, TLS13};
use crate::cli::values::{self, GoDuration, TaintFlag};
use crate::cli::{self, Cidr};
use crate::place::Place;
use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args};
use k8s_openapi::api::core::v1::Taint;
use kubelet::{ClientCa, Config, Serving, Threshold};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

#[derive(Clone, Debug, Args)]
pub struct KubeletArgs {
    /// The kubeconfig that names the API server and this node's credentials
    #[arg(long, value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Credentials to ask for this node's certificate with, when --kubeconfig's file is missing
    #[arg(long, value_name = "FILE", requires = "kubeconfig")]
    pub(super) bootstrap_kubeconfig: Option<PathBuf>,
    /// Directory of the certificates [default: ROOT/pki]
    #[arg(long, value_name = "DIR")]
    pub(super) cert_dir: Option<PathBuf>,
    /// Replace the client certificate before it ends
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) rotate_certificates: Option<bool>,
    /// Ask for the serving certificate too
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) rotate_server_certificates: Option<bool>,
    /// A KubeletConfiguration (kubelet.config.k8s.io/v1beta1); flags come before what it says
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = cli::domain)]
    hostname_override: Option<String>,
    /// Addresses of this node, the primary one first
    #[arg(long, value_delimiter = ',', value_name = "IPS")]
    node_ip: Vec<IpAddr>,
    /// Where volumes and pods' files are [default: /var/lib/kubelet, or DATA/kubelet with another --data-dir]
    #[arg(long, value_name = "DIR")]
    root_dir: Option<PathBuf>,
    /// Socket of another container runtime [default: the embedded one]
    #[arg(long, value_name = "SOCKET")]
    pub(super) container_runtime_endpoint: Option<String>,
    /// Directory of manifests of static pods
    #[arg(long, value_name = "DIR")]
    pod_manifest_path: Option<PathBuf>,
    /// Cluster DNS
    #[arg(long, value_delimiter = ',', value_name = "IPS")]
    cluster_dns: Vec<IpAddr>,
    /// Domain of cluster names
    #[arg(long, value_name = "DOMAIN", value_parser = cli::domain)]
    cluster_domain: Option<String>,
    /// The node's resolver configuration
    #[arg(long, value_name = "FILE")]
    resolv_conf: Option<PathBuf>,
    /// Make the Node object
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    register_node: Option<bool>,
    /// Labels of the Node object
    #[arg(long, value_delimiter = ',', value_parser = values::pair, value_name = "KEY=VALUE")]
    node_labels: Vec<(String, String)>,
    /// Taints of the Node object: KEY=VALUE:EFFECT
    #[arg(long, value_delimiter = ',', value_name = "TAINTS")]
    register_with_taints: Vec<TaintFlag>,
    /// Address of the node's own API [default: 0.0.0.0]
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Port of the node's own API; 0 picks one [default: 10250]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Certificate of the node's own API [default: one made at start, signed by itself]
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// The least TLS version
    #[arg(long, value_name = "VERSION", value_parser = TLS_VERSIONS)]
    tls_min_version: Option<String>,
    /// The cipher suites of TLS 1.2, by Go's names [default: all that are spoken]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    tls_cipher_suites: Option<Vec<String>>,
    /// Authorities of client certificates
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Serve requests without credentials: not supported
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    anonymous_auth: Option<bool>,
    /// Ask the API server about tokens: always so
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    authentication_token_webhook: Option<bool>,
    /// Who decides what may be asked of the node
    #[arg(long, value_parser = ["Webhook"], value_name = "MODE")]
    authorization_mode: Option<String>,
    /// Address of /healthz [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub(super) healthz_bind_address: Option<IpAddr>,
    /// Port of /healthz; 0: none [default: 10248]
    #[arg(long, value_name = "PORT")]
    pub(super) healthz_port: Option<u16>,
    /// The most pods of the node
    #[arg(long, value_name = "N")]
    max_pods: Option<u32>,
    /// The most processes of a pod; -1: no limit
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pod_max_pids: Option<i64>,
    /// The cgroup below which pods' are made
    #[arg(long, value_name = "CGROUP")]
    cgroup_root: Option<String>,
    /// Containers that don't say otherwise run with the runtime's seccomp profile
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    seccomp_default: Option<bool>,
    /// Resources kept for Kubernetes itself
    #[arg(long, value_delimiter = ',', value_parser = values::pair, value_name = "NAME=QUANTITY")]
    kube_reserved: Vec<(String, String)>,
    /// Resources kept for the system
    #[arg(long, value_delimiter = ',', value_parser = values::pair, value_name = "NAME=QUANTITY")]
    system_reserved: Vec<(String, String)>,
    /// Below what remainder pods are evicted: SIGNAL<AMOUNT
    #[arg(long, value_delimiter = ',', value_name = "THRESHOLDS")]
    eviction_hard: Vec<String>,
    /// How long a pressure condition stays after the pressure is gone
    #[arg(long, value_name = "DURATION")]
    eviction_pressure_transition_period: Option<GoDuration>,
    /// Sysctls that pods may set beside the safe ones
    #[arg(long, value_delimiter = ',', value_name = "SYSCTLS")]
    allowed_unsafe_sysctls: Vec<String>,
    /// Images are removed when this percentage of the disk is used
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_high_threshold: Option<u8>,
    /// Until at most this percentage is used
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    image_gc_low_threshold: Option<u8>,
    /// Younger images are kept
    #[arg(long, value_name = "DURATION")]
    minimum_image_ttl_duration: Option<GoDuration>,
    /// A larger container log is rotated
    #[arg(long, value_name = "QUANTITY")]
    container_log_max_size: Option<String>,
    /// How many log files of a container are kept
    #[arg(long, value_name = "N")]
    container_log_max_files: Option<usize>,
    /// Pull one image at a time
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    serialize_image_pulls: Option<bool>,
    /// Directory of everything else that is kept (ours)
    #[arg(long, default_value = crate::place::DEFAULT_DATA_DIR, value_name = "DIR")]
    pub(super) data_dir: PathBuf,
    /// Name of the cluster (ours): part of the names of cgroups and interfaces
    #[arg(long, default_value = "pilothouse", value_parser = cli::cluster_name, value_name = "NAME")]
    pub(super) name: String,
    /// Networks of pods and Services (ours, for the embedded runtime): what goes there keeps its source
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16,10.96.0.0/16", value_name = "CIDRS")]
    pub(super) cluster_networks: Vec<Cidr>,
    /// A registry to ask before another (ours, for the embedded runtime): HOST=URL
    #[arg(long, value_name = "HOST=URL", value_parser = cli::mirror)]
    pub(super) registry_mirror: Vec<(String, String)>,
    #[command(flatten)]
    pub(super) features: FeatureArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Fields of the configuration that change nothing here.
#[rustfmt::skip]
const MEANINGLESS: &[&str] = &[
    "authentication", "authorization", "cgroupDriver", "cgroupsPerQOS", "configMapAndSecretChangeDetectionStrategy",
    "containerLogMaxWorkers", "containerLogMonitorInterval", "contentType", "cpuCFSQuota", "cpuCFSQuotaPeriod",
    "cpuManagerPolicy", "cpuManagerPolicyOptions", "cpuManagerReconcilePeriod", "crashLoopBackOff",
    "enableContentionProfiling", "enableControllerAttachDetach", "enableDebugFlagsHandler",
    "enableDebuggingHandlers", "enableProfilingHandler", "enableServer", "enableSystemLogHandler",
    "enableSystemLogQuery", "enforceNodeAllocatable", "eventBurst", "eventRecordQPS",
    "evictionMaxPodGracePeriod", "evictionMinimumReclaim", "failCgroupV1", "failSwapOn",
    "fileCheckFrequency", "hairpinMode", "httpCheckFrequency", "imageMaximumGCAge", "imagePullCredentialsVerificationPolicy",
    "iptablesDropBit", "iptablesMasqueradeBit", "kernelMemcgNotification", "kubeAPIBurst", "kubeAPIQPS",
    "kubeReservedCgroup", "kubeletCgroups", "localStorageCapacityIsolation", "logging", "makeIPTablesUtilChains",
    "maxOpenFiles", "memoryManagerPolicy", "memorySwap", "memoryThrottlingFactor", "mergeDefaultEvictionSettings",
    "nodeLeaseDurationSeconds", "nodeStatusMaxImages", "nodeStatusReportFrequency", "nodeStatusUpdateFrequency",
    "oomScoreAdj", "podCIDR", "podsPerCore", "protectKernelDefaults", "providerID", "qosReserved", "readOnlyPort",
    "registryBurst", "registryPullQPS", "runOnce", "runtimeRequestTimeout", "showHiddenMetricsForVersion",
    "shutdownGracePeriod", "shutdownGracePeriodCriticalPods", "singleProcessOOMKill",
    "streamingConnectionIdleTimeout", "syncFrequency", "systemCgroups", "systemReservedCgroup", "tlsCipherSuites",
    "topologyManagerPolicy", "topologyManagerPolicyOptions", "topologyManagerScope", "tracing",
    "userNamespaces", "volumePluginDir", "volumeStatsAggPeriod",
];
/// Those without which the node would not be what was asked for.
#[rustfmt::skip]
const UNSUPPORTED: &[&str] = &[
    "evictionSoft", "evictionSoftGracePeriod", "imageServiceEndpoint", "reservedMemory", "reservedSystemCPUs",
    "shutdownGracePeriodByPodPriority", "staticPodURL", "staticPodURLHeader", "systemReservedCgroupRoot",
];

impl KubeletArgs {
    /// Fills in what the configuration file says and no flag does.
    pub(super) fn with_config(mut self) -> Result<(Self, Option<PathBuf>)> {
        let Some(path) = self.config.clone() else { return Ok((self, None)) };
        let mut file = ConfigFile::read(&path, "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration")?;
        macro_rules! fill {
            ($($flag:ident = $take:ident $field:literal),* $(,)?) => {
                $({ let said = file.$take($field)?; self.$flag = self.$flag.take().or(said); })*
            };
        }
        fill!(
            address = take "address",
            port = take "port",
            tls_cert_file = take_text "tlsCertFile",
            tls_private_key_file = take_text "tlsPrivateKeyFile",
            tls_min_version = take_text "tlsMinVersion",
            tls_cipher_suites = take "tlsCipherSuites",
            client_ca_file = take_text "authentication.x509.clientCAFile",
            anonymous_auth = take "authentication.anonymous.enabled",
            authentication_token_webhook = take "authentication.webhook.enabled",
            authorization_mode = take_text "authorization.mode",
            cluster_domain = take_text "clusterDomain",
            pod_manifest_path = take_text "staticPodPath",
            resolv_conf = take_text "resolvConf",
            register_node = take "registerNode",
            container_runtime_endpoint = take_text "containerRuntimeEndpoint",
            rotate_certificates = take "rotateCertificates",
            rotate_server_certificates = take "serverTLSBootstrap",
            healthz_bind_address = take_text "healthzBindAddress",
            healthz_port = take "healthzPort",
            max_pods = take "maxPods",
            pod_max_pids = take "podPidsLimit",
            cgroup_root = take_text "cgroupRoot",
            seccomp_default = take "seccompDefault",
            eviction_pressure_transition_period = take_text "evictionPressureTransitionPeriod",
            image_gc_high_threshold = take "imageGCHighThresholdPercent",
            image_gc_low_threshold = take "imageGCLowThresholdPercent",
            minimum_image_ttl_duration = take_text "imageMinimumGCAge",
            container_log_max_size = take_text "containerLogMaxSize",
            container_log_max_files = take "containerLogMaxFiles",
            serialize_image_pulls = take "serializeImagePulls",
        );
        let pull_limit: Option<usize> = file.take("maxParallelImagePulls")?;
        if pull_limit == Some(1) {
            self.serialize_image_pulls = self.serialize_image_pulls.or(Some(true));
        } else if pull_limit.is_some() {
            tracing::warn!("--config {}: maxParallelImagePulls has no effect yet but for 1", path.display());
        }
        let pod_logs = file.take_text("podLogsDir")?;
        let dns: Option<Vec<IpAddr>> = file.take("clusterDNS")?;
        if self.cluster_dns.is_empty() {
            self.cluster_dns = dns.unwrap_or_default();
        }
        let sysctls: Option<Vec<String>> = file.take("allowedUnsafeSysctls")?;
        if self.allowed_unsafe_sysctls.is_empty() {
            self.allowed_unsafe_sysctls = sysctls.unwrap_or_default();
        }
        let mut pairs = |field: &str| -> Result<Vec<(String, String)>> {
            Ok(file.take::<BTreeMap<String, String>>(field)?.unwrap_or_default().into_iter().collect())
        };
        let (kube, system, eviction) = (pairs("kubeReserved")?, pairs("systemReserved")?, pairs("evictionHard")?);
        if self.kube_reserved.is_empty() {
            self.kube_reserved = kube;
        }
        if self.system_reserved.is_empty() {
            self.system_reserved = system;
        }
        if self.eviction_hard.is_empty() {
            self.eviction_hard = eviction.into_iter().map(|(signal, amount)| format!("{signal}<{amount}")).collect();
        }
        let taints: Option<Vec<Taint>> = file.take("registerWithTaints")?;
        if self.register_with_taints.is_empty() {
            let flags = taints.into_iter().flatten();
            self.register_with_taints =
                flags.map(|t| TaintFlag { key: t.key, value: t.value, effect: t.effect }).collect();
        }
        self.features.take_from(&mut file)?;
        file.finish(MEANINGLESS, UNSUPPORTED)?;
        Ok((self, pod_logs))
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.anonymous_auth == Some(true) {
            bail!("--anonymous-auth=true is not supported: every request to the node must show who makes it");
        }
        if self.authentication_token_webhook == Some(false) {
            tracing::warn!(
                "--authentication-token-webhook=false has no effect: tokens are always taken to the API server"
            );
        }
        if self.authorization_mode.as_deref().is_some_and(|mode| mode != "Webhook") {
            bail!("--authorization-mode must be Webhook: the API server decides what may be asked of the node");
        }
        if self.rotate_server_certificates == Some(true) && self.tls_cert_file.is_some() {
            bail!("--rotate-server-certificates and --tls-cert-file exclude each other: leave one of them out");
        }
        if let Some(version) = self.tls_min_version.as_deref().filter(|version| !TLS_VERSIONS.contains(version)) {
            bail!("unknown tls version {version:?}");
        }
        if self.kubeconfig.is_none() {
            bail!("--kubeconfig is missing: a kubelet without an API server is not supported yet");
        }
        Ok(())
    }

    pub(super) fn kubelet_config(&self, place: &Place, pod_logs: Option<PathBuf>) -> Result<Config> {
        let name = match &self.hostname_override {
            Some(name) => name.clone(),
            None => crate::cluster::address::host_name()?,
        };
        let ips = if self.node_ip.is_empty() { vec![crate::cluster::address::node_ip()] } else { self.node_ip.clone() };
        let cri = match &self.container_runtime_endpoint {
            Some(endpoint) => endpoint.strip_prefix("unix://").unwrap_or(endpoint).into(),
            None => place.cri_socket.clone(),
        };
        let mut config = Config::new(name, ips[0], cri);
        config.node_ips = ips;
        config.cluster_name = self.name.clone();
        config.root_dir = self.root_dir.clone().unwrap_or_else(|| place.kubelet.clone());
        config.pod_log_dir = pod_logs.unwrap_or_else(|| place.pod_logs.clone());
        config.container_log_dir = place.container_logs.clone();
        config.cluster_dns = self.cluster_dns.clone();
        config.resolv_conf = self.resolv_conf.clone();
        config.bind_address = self.address.unwrap_or(config.bind_address);
        config.port = self.port.unwrap_or(config.port);
        if let (Some(cert), Some(key)) = (&self.tls_cert_file, &self.tls_private_key_file) {
            config.serving = Serving::Files { cert: cert.clone(), key: key.clone() };
        }
        config.tls13_only = self.tls_min_version.as_deref() == Some(TLS13);
        config.suites = ciphers::offered(self.tls_cipher_suites.as_deref().unwrap_or_default())?;
        config.client_ca = self.client_ca_file.clone().map(ClientCa::File);
        config.version = crate::KUBERNETES_VERSION.to_owned();
        config.cgroup_root = self.cgroup_root.clone().unwrap_or_else(|| format!("/{}", self.name));
        config.seccomp_default = self.seccomp_default.unwrap_or(config.seccomp_default);
        config.max_pods = self.max_pods.unwrap_or(config.max_pods);
        config.pod_pids_limit = self.pod_max_pids.filter(|n| *n > 0);
        config.static_pod_path = self.pod_manifest_path.clone();
        config.register_node = self.register_node.unwrap_or(true);
        config.node_labels = self.node_labels.iter().cloned().collect();
        config.register_with_taints = self
            .register_with_taints
            .iter()
            .map(|t| Taint { key: t.key.clone(), value: t.value.clone(), effect: t.effect.clone(), time_added: None })
            .collect();
        config.reserved = reserved(&self.kube_reserved, &self.system_reserved)?;
        config.allowed_unsafe_sysctls = self.allowed_unsafe_sysctls.clone();
        if self.serialize_image_pulls == Some(true) {
            config.max_parallel_image_pulls = 1;
        }
        if let Some(domain) = &self.cluster_domain {
            config.cluster_domain = domain.clone();
        }
        let gc = &mut config.image_gc;
        gc.high_percent = self.image_gc_high_threshold.unwrap_or(gc.high_percent);
        gc.low_percent = self.image_gc_low_threshold.unwrap_or(gc.low_percent);
        gc.min_age = self.minimum_image_ttl_duration.map_or(gc.min_age, |d| d.0);
        if gc.low_percent >= gc.high_percent {
            bail!(
                "--image-gc-low-threshold {} must be less than --image-gc-high-threshold {}",
                gc.low_percent,
                gc.high_percent
            );
        }
        let logs = &mut config.container_logs;
        logs.max_files = self.container_log_max_files.unwrap_or(logs.max_files);
        if let Some(size) = &self.container_log_max_size {
            logs.max_size = bytes("container-log-max-size", size)?;
        }
        if let Some(period) = self.eviction_pressure_transition_period {
            config.eviction.transition_period = period.0;
        }
        if !self.eviction_hard.is_empty() {
            // As upstream: what is not named then has no threshold.
            config.eviction = kubelet::Eviction {
                memory_available: None,
                nodefs_available: None,
                nodefs_inodes_free: None,
                imagefs_available: None,
                imagefs_inodes_free: None,
                pid_available: None,
                ..config.eviction
            };
        }
        for threshold in &self.eviction_hard {
            set_threshold(&mut config.eviction, threshold)?;
        }
        Ok(config)
    }
}

fn bytes(flag: &str, text: &str) -> Result<u64> {
    let quantity: api::Quantity =
        text.parse().map_err(|e| anyhow::anyhow!("--{flag}: {text:?} is no quantity: {e}"))?;
    u64::try_from(quantity.value()).with_context(|| format!("--{flag}: {text:?} is negative"))
}

/// Adds up what is kept for Kubernetes and for the system.
fn reserved(kube: &[(String, String)], system: &[(String, String)]) -> Result<BTreeMap<String, String>> {
    let mut sum: BTreeMap<String, api::Quantity> = BTreeMap::new();
    for (flag, list) in [("kube-reserved", kube), ("system-reserved", system)] {
        for (name, text) in list {
            let quantity: api::Quantity =
                text.parse().map_err(|e| anyhow::anyhow!("--{flag} {name}={text}: no quantity: {e}"))?;
            let total = match sum.get(name) {
                Some(before) => before.add(&quantity),
                None => quantity,
            };
            sum.insert(name.clone(), total);
        }
    }
    Ok(sum.into_iter().map(|(name, quantity)| (name, quantity.to_string())).collect())
}

fn set_threshold(eviction: &mut kubelet::Eviction, text: &str) -> Result<()> {
    let wrong = || format!("--eviction-hard {text:?} is not SIGNAL<AMOUNT, such as memory.available<100Mi");
    let (signal, amount) = text.split_once('<').with_context(wrong)?;
    let threshold = match amount.strip_suffix('%') {
        Some(percent) => {
            Threshold::Percent(percent.parse().ok().filter(|p| (0.0..=100.0).contains(p)).with_context(wrong)?)
        }
        None => Threshold::Amount(bytes("eviction-hard", amount)?),
    };
    let slot = match signal {
        "memory.available" => &mut eviction.memory_available,
        "nodefs.available" => &mut eviction.nodefs_available,
        "nodefs.inodesFree" => &mut eviction.nodefs_inodes_free,
        "imagefs.available" => &mut eviction.imagefs_available,
        "imagefs.inodesFree" => &mut eviction.imagefs_inodes_free,
        "pid.available" => &mut eviction.pid_available,
        _ => bail!("--eviction-hard: unknown eviction signal {signal:?}"),
    };
    // As upstream: nothing or everything turns the threshold off.
    let off = matches!(threshold, Threshold::Amount(0))
        || matches!(threshold, Threshold::Percent(p) if p <= 0.0 || p >= 100.0);
    *slot = (!off).then_some(threshold);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_and_named_when_wrong() {
        let mut eviction = kubelet::Eviction::default();
        set_threshold(&mut eviction, "memory.available<200Mi").expect("an amount");
        assert_eq!(eviction.memory_available, Some(Threshold::Amount(200 << 20)));
        set_threshold(&mut eviction, "nodefs.available<0%").expect("off");
        assert_eq!(eviction.nodefs_available, None);
        for bad in ["memory.available", "memory.available<x", "nonsense<5%"] {
            assert!(set_threshold(&mut eviction, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_least_tls_version_is_that_of_the_flag_or_else_of_the_file() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            kubelet: KubeletArgs,
        }
        let directory = tempfile::tempdir().expect("a directory");
        let place = Place::new(directory.path()).expect("a place");
        let file = directory.path().join("config");
        let only_13 = |said: &str, flags: &[&str]| {
            let text = format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{said}\n");
            std::fs::write(&file, text).expect("written");
            let config = format!("--config={}", file.display());
            let line = ["kubelet", "--kubeconfig=k", "--hostname-override=n", "--node-ip=192.0.2.1", &config];
            let line = <Line as clap::Parser>::try_parse_from(line.iter().chain(flags)).expect("flags");
            let (args, _) = line.kubelet.with_config().expect("a configuration");
            args.check()?;
            args.kubelet_config(&place, None).map(|config| config.tls13_only)
        };
        assert!(!only_13("", &[]).expect("a configuration"));
        assert!(only_13("tlsMinVersion: VersionTLS13", &[]).expect("a configuration"));
        assert!(only_13("", &["--tls-min-version=VersionTLS13"]).expect("a configuration"));
        let flag = ["--tls-min-version=VersionTLS12"];
        assert!(!only_13("tlsMinVersion: VersionTLS13", &flag).expect("a configuration"));
        let refused = only_13("tlsMinVersion: VersionTLS14", &[]).expect_err("refused");
        assert_eq!(refused.to_string(), "unknown tls version \"VersionTLS14\"");
        let refused = only_13("tlsCipherSuites: [BOGUS]", &[]).expect_err("refused");
        assert_eq!(refused.to_string(), "--tls-cipher-suites: Cipher suite BOGUS not supported or doesn't exist");
        let flag = ["--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"];
        assert!(!only_13("tlsCipherSuites: [BOGUS]", &flag).expect("the flag's"));
    }

    #[test]
    fn what_is_reserved_is_added_up() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let sum = reserved(&[pair("cpu", "100m")], &[pair("cpu", "200m"), pair("memory", "1Gi")]).expect("quantities");
        assert_eq!(sum.get("cpu").map(String::as_str), Some("300m"));
        assert!(reserved(&[pair("cpu", "much")], &[]).is_err());
    }
}
