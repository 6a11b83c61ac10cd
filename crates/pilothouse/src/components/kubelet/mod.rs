//! `pilothouse kubelet`: the kubelet alone, with upstream's flags and KubeletConfiguration. Without
//! `--container-runtime-endpoint` the embedded runtime runs beside it in the process.

mod flags;

pub use flags::KubeletArgs;

use super::client;
use super::serving::{self, About};
use super::tls_bootstrap::{self, Kept};
use crate::cluster::claim::Claim;
use crate::cluster::node::{Runtime, runtime_config};
use crate::lock;
use crate::place::Place;
use anyhow::{Context, Result, bail};
use kube::Client;
use kubelet::{Config, Serving};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// The wait before a certificate is asked for again.
const AGAIN: Duration = Duration::from_secs(60);

/// Runs the kubelet, and the embedded runtime unless another is named.
pub fn run(args: KubeletArgs) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("running containers needs root: run it again with sudo");
    }
    let (args, pod_logs) = args.with_config()?;
    args.check()?;
    let place = Place::new(&args.data_dir)?;
    for directory in [&place.data_dir, &place.run] {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let _lock = lock::take(&place.node_lock)?;
    Claim::take_for(&place, Some(&args.name))?;
    let config = args.kubelet_config(&place, pod_logs)?;
    let mut early = crate::supervisor::Supervisor::new(CancellationToken::new(), std::sync::Arc::new(|_, _| {}));
    if args.container_runtime_endpoint.is_none() {
        let mut runtime = runtime_config(&Runtime { name: args.name.clone(), place: place.clone() });
        runtime.registry_mirrors = args.registry_mirror.iter().map(|(host, url)| format!("{host}={url}")).collect();
        runtime.cluster_cidrs = args.cluster_networks.iter().map(ToString::to_string).collect();
        early.start("runtime", crate::cluster::node::runtime_component(runtime))?;
    }
    let outcome = super::run_alone(1, |shutdown| alone(args, config, shutdown));
    early.stop();
    outcome
}

async fn alone(args: KubeletArgs, mut config: Config, shutdown: CancellationToken) -> Result<()> {
    let gates = args.features.gates()?;
    config.gates = gates.clone();
    let port = args.healthz_port.unwrap_or(10248);
    if port != 0 {
        let address = SocketAddr::new(args.healthz_bind_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port);
        let about = About { name: "kubelet", ready: None, leading: None, gates, tells: Vec::new() };
        serving::plain(address, "healthz-port", about, false, shutdown.clone()).await?;
    }
    let kubeconfig = args.kubeconfig.clone().context("--kubeconfig is checked")?;
    let kept = Kept { dir: args.cert_dir.clone().unwrap_or_else(|| config.root_dir.join("pki")) };
    if let Some(bootstrap) = &args.bootstrap_kubeconfig {
        tokio::select! {
            outcome = tls_bootstrap::ensure(bootstrap, &kubeconfig, &kept, &config.node_name) => outcome?,
            () = shutdown.cancelled() => return Ok(()),
        }
    }
    super::announce(&format!("kubelet of node {} is running", config.node_name));
    let rotation = Rotation {
        kept,
        client: args.rotate_certificates.unwrap_or(false),
        serving: args.rotate_server_certificates.unwrap_or(false),
    };
    run_with_rotation(config, &kubeconfig, rotation, shutdown).await
}

/// Which certificates a kubelet asks for, and where it keeps them.
#[derive(Clone, Debug)]
pub struct Rotation {
    pub kept: Kept,
    pub client: bool,
    pub serving: bool,
}

/// Runs a kubelet with its kubeconfig's credentials. When the client certificate is renewed, or the first serving certificate
/// comes, it starts again with it; pods do not notice.
pub async fn run_with_rotation(
    mut config: Config,
    kubeconfig: &Path,
    rotation: Rotation,
    shutdown: CancellationToken,
) -> Result<()> {
    let file = rotation.kept.serving();
    loop {
        let api =
            client::from_file(kubeconfig).await.with_context(|| format!("--kubeconfig {}", kubeconfig.display()))?;
        let client = client::client(&api, "kubelet")?;
        if rotation.serving && rotation.kept.serving_renewal(&config.node_name, &config.node_ips).is_some() {
            config.serving = Serving::Files { cert: file.clone(), key: file.clone() };
        }
        let stop = shutdown.child_token();
        let running = kubelet::run_until(config.clone(), client.clone(), stop.clone(), shutdown.clone());
        tokio::pin!(running);
        tokio::select! {
            outcome = &mut running => return outcome.context("the kubelet ended"),
            () = renewed(&config, &client, &rotation) => {}
        }
        tracing::info!("the kubelet starts again with a new certificate");
        stop.cancel();
        running.await.context("the kubelet ended")?;
    }
}

/// Renews certificates; returns when the kubelet must start again to show a new one.
async fn renewed(config: &Config, client: &Client, rotation: &Rotation) {
    let (kept, node, ips) = (&rotation.kept, &config.node_name, &config.node_ips);
    let serves = matches!(&config.serving, Serving::Files { cert, .. } if *cert == kept.serving());
    let of_client = async {
        loop {
            match kept.renewal(node).filter(|_| rotation.client) {
                None => std::future::pending().await,
                Some(renewal) if due(renewal).await => match kept.request(client, node).await {
                    Ok(()) => return,
                    Err(e) => tracing::warn!("the client certificate cannot be renewed yet: {e:#}"),
                },
                Some(_) => continue,
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
    let of_serving = async {
        loop {
            if !rotation.serving {
                std::future::pending::<()>().await;
            }
            if let Some(renewal) = kept.serving_renewal(node, ips)
                && !due(renewal).await
            {
                continue;
            }
            match kept.request_serving(client, node, ips).await {
                // Its file is read again by itself, but the first has to be begun with.
                Ok(()) if serves => {}
                Ok(()) => return,
                Err(e) => {
                    tracing::warn!("there is no serving certificate yet, so one signed by itself serves: {e:#}");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    };
    tokio::select! {
        () = of_client => {}
        () = of_serving => {}
    }
}

/// Waits for a time, or an hour, so that a clock that jumps is noticed; gives whether the time has come.
async fn due(time: SystemTime) -> bool {
    let wait = time.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(wait.min(Duration::from_secs(3600))).await;
    SystemTime::now() >= time
}
