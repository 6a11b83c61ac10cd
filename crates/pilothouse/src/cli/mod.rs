//! The command line: what can be asked of the one binary.

pub mod image;
pub mod store;

use clap::{Args, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;

/// Kubernetes in one binary.
#[derive(Debug, Parser)]
#[command(name = "pilothouse", version = crate::VERSION, about, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a whole cluster on this machine, in the foreground
    Up(Box<ClusterArgs>),
    /// Stops the pods and the cluster, keeps the data
    Down(PlaceArgs),
    /// Removes every process, mount, namespace, rule, cgroup and file of a cluster
    Reset(ResetArgs),
    /// Manages images of the embedded runtime
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Looks after the store: status, snapshots, verification, compaction
    Store(store::StoreArgs),
    /// A tiny web server, for a first deployment
    DemoServer(DemoServerArgs),
}

/// Where a cluster lives and what it is called.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Directory of everything the cluster keeps
    #[arg(long, default_value = crate::place::DEFAULT_DATA_DIR, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Name of the cluster, and of its kubeconfig context
    #[arg(long, default_value = "pilothouse", value_parser = cluster_name)]
    pub name: String,
}

#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
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
    /// Name of this node [default: the host's name]
    #[arg(long, value_parser = domain)]
    pub node_name: Option<String>,
    /// Where state is kept: "embedded", or members of an etcd cluster: http(s)://HOST:PORT,…
    #[arg(long, default_value = "embedded", value_name = "STORE")]
    pub store: String,
    #[command(flatten)]
    pub etcd: crate::backend::EtcdArgs,
    #[command(flatten)]
    pub face: crate::backend::FaceArgs,
    /// Socket of another container runtime [default: the embedded one]
    #[arg(long, value_name = "SOCKET")]
    pub runtime_endpoint: Option<String>,
    /// A registry to ask before another: HOST=URL (repeatable)
    #[arg(long, value_name = "HOST=URL", value_parser = mirror)]
    pub registry_mirror: Vec<(String, String)>,
    /// Port of the node's own API [default: 10250, or a free one for another data directory]
    #[arg(long)]
    pub kubelet_port: Option<u16>,
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

fn cluster_name(text: &str) -> Result<String, String> {
    match api::names::dns1123_label(text).into_iter().next() {
        None if text.len() <= 40 => Ok(text.to_owned()),
        None => Err("must be no more than 40 bytes".to_owned()),
        Some(problem) => Err(problem),
    }
}

fn domain(text: &str) -> Result<String, String> {
    match api::names::dns1123_subdomain(text).into_iter().next() {
        None => Ok(text.to_owned()),
        Some(problem) => Err(problem),
    }
}

fn mirror(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((host, url)) if !host.is_empty() && (url.starts_with("http://") || url.starts_with("https://")) => {
            Ok((host.to_owned(), url.trim_end_matches('/').to_owned()))
        }
        _ => Err(format!("{text:?} is not HOST=URL, such as docker.io=http://127.0.0.1:5000")),
    }
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
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
