//! `pilothouse dns`: cluster DNS alone. Its flags are ours: upstream's DNS is another project.

use super::serving::{self, About, ServingArgs};
use super::{ClientArgs, LogArgs, client};
use crate::cli::{self, Cidr};
use anyhow::{Context, Result};
use clap::Args;
use std::net::{IpAddr, SocketAddr};
use tokio::sync::watch;

const NAME: &str = "coredns";

#[derive(Clone, Debug, Args)]
pub struct DnsArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Addresses to answer on [default: this machine's]
    #[arg(long, value_delimiter = ',', value_name = "IPS")]
    listen: Vec<IpAddr>,
    /// Port to answer on, UDP and TCP; 0 picks one and prints it
    #[arg(long, default_value_t = 53, value_name = "PORT")]
    port: u16,
    /// Domain of cluster names
    #[arg(long, default_value = "cluster.local", value_parser = cli::domain, value_name = "DOMAIN")]
    cluster_domain: String,
    /// Networks that may ask, beside this machine; none: everybody who reaches the port
    #[arg(long, value_delimiter = ',', value_name = "CIDRS")]
    allow: Vec<Cidr>,
    /// Resolvers for other names [default: those of /etc/resolv.conf]
    #[arg(long, value_delimiter = ',', value_name = "ADDRESSES")]
    forward: Vec<String>,
    #[command(flatten)]
    serving: ServingArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Runs cluster DNS.
pub fn run(args: DnsArgs) -> Result<()> {
    let addresses = if args.listen.is_empty() { vec![crate::cluster::address::node_ip()] } else { args.listen.clone() };
    let mut config = dns::Config::new(
        addresses.iter().map(|ip| SocketAddr::new(*ip, args.port)).collect(),
        args.cluster_domain.clone(),
    );
    if !args.allow.is_empty() {
        let mut networks: Vec<(IpAddr, u8)> = args.allow.iter().map(|c| (c.address.into(), c.prefix)).collect();
        networks.extend(addresses.iter().map(|ip| (*ip, if ip.is_ipv4() { 32 } else { 128 })));
        config.clients = dns::server::Clients::Within(networks);
    }
    if !args.forward.is_empty() {
        let servers: Result<Vec<SocketAddr>> = args
            .forward
            .iter()
            .map(|text| cli::values::address(text, 53).map_err(|e| anyhow::anyhow!("--forward: {e}")))
            .collect();
        config.upstreams = dns::Upstreams::Servers(servers?);
    }
    super::run_alone(1, |shutdown| async move {
        let client = client::client(&client::config(&args.client, "kubeconfig").await?, NAME)?;
        let (listening, mut told) = watch::channel(None);
        config.ready = Some(listening);
        let (ready, is_ready) = watch::channel(false);
        let about = About {
            name: NAME,
            ready: Some(is_ready),
            leading: None,
            gates: api::features::Gates::default(),
            tells: Vec::new(),
        };
        // No port but the one for questions, unless it is asked for.
        serving::secure(&args.serving, 0, &args.client, about, shutdown.clone()).await?;
        let tell = async {
            let addresses = told.wait_for(Option::is_some).await.map(|a| a.clone().unwrap_or_default());
            let Ok(addresses) = addresses else { return std::future::pending().await };
            let text: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            super::announce(&format!("dns answers at {}", text.join(", ")));
            ready.send_replace(true);
            std::future::pending::<Result<()>>().await
        };
        tokio::select! {
            outcome = dns::run(config, client, shutdown) => outcome.context("cluster DNS ended"),
            outcome = tell => outcome,
        }
    })
}
