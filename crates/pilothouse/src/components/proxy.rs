//! `pilothouse proxy`: the service proxy alone, with kube-proxy's flags.

use super::config_file::ConfigFile;
use super::features::FeatureArgs;
use super::serving::{self, About};
use super::{ClientArgs, LogArgs, client};
use crate::cli::{self, Cidr};
use anyhow::{Context, Result, bail};
use clap::{ArgAction, Args};
use std::path::PathBuf;
use tokio::sync::watch;

const NAME: &str = "kube-proxy";
const HEALTH_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

#[derive(Clone, Debug, Args)]
pub struct ProxyArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1); flags come before what it says
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Networks of pods: traffic from elsewhere to Services gets this node's address as its source
    #[arg(long, value_delimiter = ',', value_name = "CIDRS")]
    cluster_cidr: Vec<Cidr>,
    /// Name of this node [default: the host's name]
    #[arg(long, value_name = "NAME", value_parser = cli::domain)]
    hostname_override: Option<String>,
    /// Give all traffic to Services this node's address as its source
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    masquerade_all: Option<bool>,
    /// Networks whose addresses of this node have node ports [default: all]
    #[arg(long, value_delimiter = ',', value_name = "CIDRS")]
    nodeport_addresses: Vec<String>,
    /// Where health is served; empty: nowhere [default: 0.0.0.0:10256]
    #[arg(long, value_name = "ADDRESS")]
    healthz_bind_address: Option<String>,
    /// Where metrics are served; empty: nowhere [default: 127.0.0.1:10249]
    #[arg(long, value_name = "ADDRESS")]
    metrics_bind_address: Option<String>,
    /// How Services are made
    #[arg(long, value_name = "MODE", value_parser = ["nftables", "iptables", "ipvs", ""])]
    proxy_mode: Option<String>,
    /// How traffic of pods is told
    #[arg(long, value_name = "MODE", value_parser = ["ClusterCIDR"])]
    detect_local_mode: Option<String>,
    /// Remove the rules and end
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_name = "BOOL")]
    cleanup: bool,
    /// Name of the cluster (ours): part of the names of its tables
    #[arg(long, default_value = "pilothouse", value_parser = cli::cluster_name, value_name = "NAME")]
    name: String,
    #[command(flatten)]
    features: FeatureArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Fields of the configuration that change nothing here.
const MEANINGLESS: &[&str] = &[
    "bindAddress",
    "bindAddressHardFail",
    "clientConnection",
    "configSyncPeriod",
    "conntrack",
    "detectLocal",
    "enableProfiling",
    "iptables",
    "ipvs",
    "linux",
    "logging",
    "nftables",
    "oomScoreAdj",
    "portRange",
    "showHiddenMetricsForVersion",
    "syncPeriod",
    "minSyncPeriod",
    "windowsRunAsService",
    "winkernel",
];

impl ProxyArgs {
    fn with_config(mut self) -> Result<Self> {
        let Some(path) = &self.config else { return Ok(self) };
        let mut file = ConfigFile::read(path, "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration")?;
        let kubeconfig = file.take("clientConnection.kubeconfig")?;
        self.hostname_override = self.hostname_override.or(file.take_text("hostnameOverride")?);
        self.healthz_bind_address = self.healthz_bind_address.or(file.take("healthzBindAddress")?);
        self.metrics_bind_address = self.metrics_bind_address.or(file.take("metricsBindAddress")?);
        self.proxy_mode = self.proxy_mode.or(file.take("mode")?);
        for section in ["nftables", "iptables", "ipvs", "linux"] {
            self.masquerade_all = self.masquerade_all.or(file.take(&format!("{section}.masqueradeAll"))?);
        }
        if let Some(list) =
            file.take::<String>("clusterCIDR")?.filter(|list| !list.is_empty() && self.cluster_cidr.is_empty())
        {
            let networks: Result<Vec<Cidr>, String> = list.split(',').map(str::parse).collect();
            self.cluster_cidr =
                networks.map_err(|e| anyhow::anyhow!("--config {}: clusterCIDR: {e}", path.display()))?;
        }
        if let Some(list) = file.take::<Vec<String>>("nodePortAddresses")?
            && self.nodeport_addresses.is_empty()
        {
            self.nodeport_addresses = list;
        }
        if let Some(mode) = file.take::<String>("detectLocalMode")?
            && !matches!(mode.as_str(), "" | "ClusterCIDR")
        {
            bail!("--config {}: detectLocalMode {mode:?} is not supported yet: it must be ClusterCIDR", path.display());
        }
        self.features.take_from(&mut file)?;
        file.finish(MEANINGLESS, &[])?;
        self.client.kubeconfig = self.client.kubeconfig.take().or(kubeconfig);
        Ok(self)
    }

    fn node_port_addresses(&self) -> Result<proxy::NodePortAddresses> {
        if self.nodeport_addresses.iter().any(|a| a == "primary") {
            bail!("--nodeport-addresses primary is not supported yet: name the networks");
        }
        if self.nodeport_addresses.is_empty() {
            return Ok(proxy::NodePortAddresses::All);
        }
        let networks: Result<Vec<network::Cidr>> = self
            .nodeport_addresses
            .iter()
            .map(|text| text.parse().with_context(|| format!("--nodeport-addresses {text:?} is not a network")))
            .collect();
        Ok(proxy::NodePortAddresses::Within(networks?))
    }
}

/// Runs the service proxy.
pub fn run(args: ProxyArgs) -> Result<()> {
    let args = args.with_config()?;
    let gates = args.features.gates()?;
    if args.cleanup {
        return proxy::kernel::reset(&args.name).context("the rules cannot be removed");
    }
    if let Some(mode) = args.proxy_mode.as_deref().filter(|mode| !matches!(*mode, "" | "nftables")) {
        tracing::warn!("--proxy-mode {mode}: Services are made with nftables here");
    }
    let at = |flag: &str, given: &Option<String>, usual: &str, port| -> Result<Option<std::net::SocketAddr>> {
        let text = given.as_deref().unwrap_or(usual);
        if text.is_empty() {
            return Ok(None);
        }
        cli::values::address(text, port).map(Some).map_err(|e| anyhow::anyhow!("--{flag}: {e}"))
    };
    let health = at("healthz-bind-address", &args.healthz_bind_address, "0.0.0.0:10256", HEALTH_PORT)?;
    let metrics = at("metrics-bind-address", &args.metrics_bind_address, "127.0.0.1:10249", METRICS_PORT)?;
    let (ready, in_sync) = watch::channel(false);
    let config = proxy::Config {
        cluster: args.name.clone(),
        node_name: match &args.hostname_override {
            Some(name) => name.clone(),
            None => crate::cluster::address::host_name()?,
        },
        cluster_cidrs: args
            .cluster_cidr
            .iter()
            .map(|c| c.to_string().parse())
            .collect::<Result<_, _>>()
            .context("--cluster-cidr")?,
        masquerade_all: args.masquerade_all.unwrap_or(false),
        node_port_addresses: args.node_port_addresses()?,
        look_every: None,
        ready: Some(ready),
    };
    super::run_alone(1, |shutdown| async move {
        let client = client::client(&client::config(&args.client, "kubeconfig").await?, NAME)?;
        let about = About { name: NAME, ready: Some(in_sync), leading: None, gates, tells: Vec::new() };
        if let Some(address) = health {
            serving::plain(address, "healthz-bind-address", about.clone(), false, shutdown.clone()).await?;
        }
        if let Some(address) = metrics {
            serving::plain(address, "metrics-bind-address", about, true, shutdown.clone()).await?;
        }
        super::announce(&super::running(NAME, None));
        proxy::run(config, client, shutdown).await.context("the service proxy ended")
    })
}
