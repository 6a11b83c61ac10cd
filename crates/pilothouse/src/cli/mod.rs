//! The command line: what can be asked of the one binary.

pub mod flags;
pub mod image;
pub mod store;
pub mod undo;
pub mod upstream;
pub mod values;

use crate::components;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;

/// Kubernetes in one binary: a whole cluster in one command, or one component at a time.
#[derive(Debug, Parser)]
#[command(name = "pilothouse", version = crate::VERSION, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a whole cluster on this machine, in the foreground
    Up(Box<ClusterArgs>),
    /// Runs a control plane without a node, and tells how nodes join it
    Server(Box<ServerArgs>),
    /// Runs a node of another machine's cluster
    Agent(Box<AgentArgs>),
    /// Runs the API server alone, with its store
    Apiserver(Box<components::apiserver::ApiserverArgs>),
    /// Runs the scheduler alone
    Scheduler(Box<components::scheduler::SchedulerArgs>),
    /// Runs the controllers alone
    ControllerManager(Box<components::controller_manager::ManagerArgs>),
    /// Runs the kubelet alone
    Kubelet(Box<components::kubelet::KubeletArgs>),
    /// Runs the service proxy alone
    Proxy(Box<components::proxy::ProxyArgs>),
    /// Runs cluster DNS alone
    Dns(Box<components::dns::DnsArgs>),
    /// Stops the pods and the cluster, keeps the data
    Down(PlaceArgs),
    /// Removes every process, mount, namespace, rule, cgroup and file of a cluster
    Reset(ResetArgs),
    /// Manages images of the embedded runtime
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Looks after the store: status, snapshots, verification, compaction; shows and restores the past of objects
    Store(Box<store::StoreArgs>),
    /// A tiny web server, for a first deployment
    DemoServer(DemoServerArgs),
}

impl Cli {
    /// Reads the command line, with what is to be said of flags that have no meaning here. Ends the process with a message
    /// when it is wrong.
    pub fn read() -> (Self, upstream::Findings) {
        let mut command = upstream::extend(Cli::command());
        let matches = command.get_matches_mut();
        let findings = upstream::look(&matches);
        let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.format(&mut command).exit());
        (cli, findings)
    }

    /// The detail of the log that the command line asks for.
    pub fn verbosity(&self) -> Option<u8> {
        match &self.command {
            Command::Apiserver(args) => args.log.verbosity,
            Command::Scheduler(args) => args.log.verbosity,
            Command::ControllerManager(args) => args.log.verbosity,
            Command::Kubelet(args) => args.log.verbosity,
            Command::Proxy(args) => args.log.verbosity,
            Command::Dns(args) => args.log.verbosity,
            _ => None,
        }
    }
}

/// Where a cluster lives and what it is called.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Directory of everything the cluster keeps
    #[arg(long, default_value = crate::place::DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Name of the cluster, and of its kubeconfig context [default: what the data directory says, else "pilothouse"]
    #[arg(long, value_parser = cluster_name)]
    pub name: Option<String>,
}

impl PlaceArgs {
    /// The cluster's name, once its claim to the data directory has been asked.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(crate::cluster::claim::DEFAULT_NAME)
    }
}

/// A control plane and this machine's node.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    #[command(flatten)]
    pub plane: PlaneArgs,
    #[command(flatten)]
    pub node: NodeArgs,
}

/// A control plane.
#[derive(Clone, Debug, Args)]
pub struct PlaneArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where to write the cluster's own kubeconfig [default: DATA/admin.kubeconfig]
    #[arg(long, value_name = "FILE")]
    pub write_kubeconfig: Option<PathBuf>,
    /// Leave $KUBECONFIG and ~/.kube/config alone
    #[arg(long)]
    pub no_merge: bool,
    /// Address the API server listens on
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port of the API server; 0 picks a free one and prints it
    #[arg(long, default_value_t = 6443)]
    pub port: u16,
    /// Addresses of Services
    #[arg(long, default_value = "10.96.0.0/16", value_name = "CIDR")]
    pub service_cidr: Cidr,
    /// Addresses of pods
    #[arg(long, default_value = "10.244.0.0/16", value_name = "CIDR")]
    pub pod_cidr: Cidr,
    /// Domain of cluster names
    #[arg(long, default_value = "cluster.local", value_parser = domain)]
    pub cluster_domain: String,
    /// Where state is kept: "embedded", or members of an etcd cluster: http(s)://HOST:PORT,…
    #[arg(long, default_value = "embedded", value_name = "STORE")]
    pub store: String,
    #[command(flatten)]
    pub surface: components::features::SurfaceArgs,
    #[command(flatten)]
    pub etcd: crate::backend::EtcdArgs,
    #[command(flatten)]
    pub face: crate::backend::FaceArgs,
    #[command(flatten)]
    pub peers: crate::cluster::peers::PeerArgs,
    #[command(flatten)]
    pub encryption: crate::backend::EncryptionArgs,
    #[command(flatten)]
    pub undo: crate::backend::UndoArgs,
    /// Progress as lines of JSON
    #[arg(long)]
    pub json: bool,
}

/// This machine's node.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Name of this node [default: the host's name]
    #[arg(long, value_parser = domain)]
    pub node_name: Option<String>,
    /// Socket of another container runtime [default: the embedded one]
    #[arg(long, value_name = "SOCKET")]
    pub runtime_endpoint: Option<String>,
    /// A registry to ask before another: HOST=URL (repeatable)
    #[arg(long, value_name = "HOST=URL", value_parser = mirror)]
    pub registry_mirror: Vec<(String, String)>,
    /// Port of the node's own API [default: 10250, or a free one for another data directory]
    #[arg(long)]
    pub kubelet_port: Option<u16>,
}

#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    #[command(flatten)]
    pub plane: PlaneArgs,
    /// Address that nodes reach this machine at [default: that of its default route]
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<IpAddr>,
}

#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The control plane, as `pilothouse server` prints it: https://HOST:PORT
    #[arg(long, value_name = "URL", value_parser = server_url)]
    pub server: String,
    /// The bootstrap token that `pilothouse server` prints; not needed once this node has joined
    #[arg(long, value_name = "TOKEN", env = "PILOTHOUSE_TOKEN", hide_env_values = true, value_parser = token)]
    pub token: Option<String>,
    /// SHA-256 of the public key of the cluster's CA, as `pilothouse server` prints it: sha256:HEX
    #[arg(long, value_name = "HASH", value_parser = ca_hash)]
    pub discovery_token_ca_cert_hash: Option<String>,
    /// Address of this node [default: that of the default route]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    pub features: components::features::FeatureArgs,
    /// Progress as lines of JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ResetArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
}

#[derive(Debug, Args)]
pub struct DemoServerArgs {
    /// Port to listen on
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
}

/// An IPv4 network: `10.96.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: std::net::Ipv4Addr,
    pub prefix: u8,
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an IPv4 network such as 10.96.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: std::net::Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(8..=28).contains(&prefix) {
            return Err(format!("the prefix of {text} must be between /8 and /28"));
        }
        let network = Cidr { address: std::net::Ipv4Addr::from(u32::from(address) & mask(prefix)), prefix };
        if network.address != address {
            return Err(format!("{text} has bits beyond its prefix: did you mean {network}?"));
        }
        Ok(network)
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Cidr {
    /// The n-th address of the network.
    pub fn nth(&self, n: u32) -> std::net::Ipv4Addr {
        std::net::Ipv4Addr::from(u32::from(self.address) + n)
    }

    pub fn overlaps(&self, other: &Cidr) -> bool {
        let prefix = self.prefix.min(other.prefix);
        u32::from(self.address) & mask(prefix) == u32::from(other.address) & mask(prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

pub fn cluster_name(text: &str) -> Result<String, String> {
    match api::names::dns1123_label(text).into_iter().next() {
        None if text.len() <= 40 => Ok(text.to_owned()),
        None => Err("must be no more than 40 bytes".to_owned()),
        Some(problem) => Err(problem),
    }
}

pub fn domain(text: &str) -> Result<String, String> {
    match api::names::dns1123_subdomain(text).into_iter().next() {
        None => Ok(text.to_owned()),
        Some(problem) => Err(problem),
    }
}

pub fn mirror(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((host, url)) if !host.is_empty() && (url.starts_with("http://") || url.starts_with("https://")) => {
            Ok((host.to_owned(), url.trim_end_matches('/').to_owned()))
        }
        _ => Err(format!("{text:?} is not HOST=URL, such as docker.io=http://127.0.0.1:5000")),
    }
}

fn server_url(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is not https://HOST:PORT");
    let url: http::Uri = text.parse().map_err(|_| wrong())?;
    match (url.scheme_str(), url.host(), url.path()) {
        (Some("https"), Some(_), "" | "/") => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(wrong()),
    }
}

fn token(text: &str) -> Result<String, String> {
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    match text.split_once('.') {
        Some((id, secret)) if id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret) => Ok(text.to_owned()),
        // The token itself is a secret, even a mistyped one.
        _ => Err("it must be of the form abcdef.0123456789abcdef".to_owned()),
    }
}

fn ca_hash(text: &str) -> Result<String, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!("{text:?} is not sha256: and 64 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_checked() {
        assert_eq!("10.96.0.0/16".parse::<Cidr>().map(|c| c.nth(10).to_string()).as_deref(), Ok("10.96.0.10"));
        for bad in ["", "10.96.0.0", "10.96.0.1/16", "10.96.0.0/33", "::/64", "10.0.0.0/30"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        let overlap = |a: &str, b: &str| Ok::<_, String>(a.parse::<Cidr>()?.overlaps(&b.parse()?));
        assert_eq!(overlap("10.0.0.0/8", "10.96.0.0/16"), Ok(true));
        assert_eq!(overlap("10.96.0.0/16", "10.244.0.0/16"), Ok(false));
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_about_the_store_says_how_etcd_is_reached() -> Result<(), clap::Error> {
        for line in [&["status"][..], &["verify"], &["compact"], &["snapshot", "save"]] {
            let mut command = &mut Cli::command();
            // Arguments of a command are those of its own when it is built.
            command.build();
            for name in ["store"].iter().chain(line) {
                command = command.find_subcommand_mut(name).expect("a command");
            }
            let help = command.render_long_help().to_string();
            for flag in ["--etcd-cafile", "--etcd-certfile", "--etcd-keyfile", "--etcd-prefix"] {
                assert!(help.contains(flag), "{line:?}: {help}");
            }
        }
        let line = "pilothouse store status --store=https://h:1 --etcd-cafile=a --etcd-certfile=b --etcd-keyfile=c";
        Cli::try_parse_from(line.split(' '))?;
        Ok(())
    }

    #[test]
    fn a_node_takes_feature_gates() {
        let gates = |said: &str| {
            let server = ["agent", "--server", "https://127.0.0.1:6443", "--feature-gates", said];
            let cli = Cli::try_parse_from(["pilothouse"].into_iter().chain(server)).map_err(|e| e.to_string())?;
            let Command::Agent(args) = cli.command else { return Err("another command".to_owned()) };
            args.features.gates().map_err(|e| format!("{e:#}"))
        };
        assert_eq!(gates("ContainerStopSignals=true").map(|gates| gates.enabled("ContainerStopSignals")), Ok(true));
        assert_eq!(gates("ContainerStopSignals=false").map(|gates| gates.enabled("ContainerStopSignals")), Ok(false));
        assert!(gates("NoSuchGate=true").is_err_and(|why| why.contains("NoSuchGate")));
    }
}
