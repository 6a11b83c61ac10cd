//! The whole cluster on this machine: starting it, stopping it, removing it.

pub mod address;
pub mod agent;
pub mod certificates;
pub mod claim;
pub mod control_plane;
mod identity;
pub mod join;
pub mod machine;
pub mod node;
pub mod peers;
mod ready;
mod remove;
mod serving;

pub use remove::{down, reset};

use crate::backend::Backend;
use crate::cli::{ClusterArgs, NodeArgs, PlaneArgs, ServerArgs};
use crate::place::Place;
use crate::progress::Progress;
use crate::supervisor::Supervisor;
use crate::{kubeconfig, lock, preflight, systemd};
use anyhow::{Context, Result};
use claim::Claim;
use control_plane::ControlPlane;
use futures::FutureExt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What all parts of one cluster are told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub args: PlaneArgs,
    /// Where state is kept.
    pub backend: Backend,
    pub place: Place,
    /// This machine's node; `None`: a control plane alone.
    pub node: Option<NodeArgs>,
    pub node_name: String,
    pub node_ip: IpAddr,
    /// Where the API server listens.
    pub api: SocketAddr,
    /// The tenth address of the service network.
    pub dns_ip: IpAddr,
    /// Names this data directory's process in elections. Only one at a time holds the directory's lock, so whoever finds it
    /// in a Lease is its own successor and need not wait for the Lease to run out.
    pub instance: String,
}

impl Settings {
    fn server_url(&self) -> String {
        let host = if self.api.ip().is_unspecified() { "127.0.0.1".to_owned() } else { self.api.ip().to_string() };
        format!("https://{host}:{}", self.api.port())
    }

    /// What this machine's node is told, if there is one.
    fn node(&self) -> Option<node::Node> {
        Some(node::Node {
            cluster: self.args.place.name().to_owned(),
            place: self.place.clone(),
            name: self.node_name.clone(),
            ip: self.node_ip,
            dns: self.dns_ip,
            cluster_domain: self.args.cluster_domain.clone(),
            pod_cidr: self.args.pod_cidr,
            service_cidr: self.args.service_cidr,
            args: self.node.clone()?,
            gates: self.args.surface.gates(),
        })
    }
}

/// Runs a whole cluster in the foreground until it is told to stop; pods go on running then.
pub fn up(args: ClusterArgs) -> Result<()> {
    let progress = Progress::start(args.plane.json);
    preflight::networks(&args.plane)?;
    preflight::node()?;
    start(args.plane, Some(args.node), None, progress)
}

/// Runs a control plane in the foreground until it is told to stop.
pub fn server(args: ServerArgs) -> Result<()> {
    let progress = Progress::start(args.plane.json);
    preflight::networks(&args.plane)?;
    start(args.plane, None, args.advertise_address, progress)
}

fn start(mut args: PlaneArgs, node: Option<NodeArgs>, advertise: Option<IpAddr>, progress: Progress) -> Result<()> {
    args.surface.check()?;
    let place = Place::new(&args.place.data_dir)?;
    let backend = Backend::choose(&args.store, &args.etcd, &place)?;
    let node_name = match node.as_ref().and_then(|n| n.node_name.clone()) {
        Some(name) => name,
        None => address::host_name()?,
    };
    let (_locks, listener) = begin(&mut args, node.as_ref(), &place)?;
    let node_ip = match advertise.or_else(address::outside) {
        Some(ip) => ip,
        None if node.is_some() => without_network(&args)?,
        None => Ipv4Addr::LOCALHOST.into(),
    };
    let settings = Arc::new(Settings {
        instance: format!("{node_name}_{}", instance(&place.data_dir.join("instance-id"))?),
        node_name,
        node_ip,
        api: listener.local_addr()?,
        dns_ip: args.service_cidr.nth(10).into(),
        backend,
        node,
        place,
        args,
    });
    let runtime = runtime()?;
    let outcome = runtime.block_on(run(settings, listener, progress));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    outcome
}

/// Takes the data directory and the port, or leaves nothing behind.
fn begin(args: &mut PlaneArgs, node: Option<&NodeArgs>, place: &Place) -> Result<(Vec<lock::Lock>, TcpListener)> {
    let networks = [args.pod_cidr, args.service_cidr];
    let networks = node.is_some().then_some(&networks[..]);
    Claim::check(place, args.place.name.as_deref(), networks)?;
    let fresh = !place.data_dir.exists();
    place.make()?;
    let mut locks = vec![lock::take(&place.lock)?];
    if node.is_some() {
        locks.push(lock::take(&place.node_lock)?);
    }
    let listening = listen(SocketAddr::new(args.bind_address, args.port), "port").and_then(|listener| match node {
        // The kubelet listens later; that it can't is better known now.
        Some(node) => {
            let kubelet = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), node::kubelet_port(node, place));
            listen(kubelet, "kubelet-port").map(|_| listener)
        }
        None => Ok(listener),
    });
    let claimed =
        listening.and_then(|listener| Ok((listener, Claim::take(place, args.place.name.as_deref(), networks)?)));
    match claimed {
        Ok((listener, claim)) => {
            args.place.name = Some(claim.name);
            Ok((locks, listener))
        }
        Err(e) => {
            if fresh {
                place.discard();
            }
            Err(e)
        }
    }
}

/// The address of a node whose machine has none but loopback, which endpoints can't have: the one that it has on the pod
/// network anyway, the first of the first block that is given to a node.
fn without_network(args: &PlaneArgs) -> Result<IpAddr> {
    let gateway = IpAddr::from(args.pod_cidr.nth(1));
    network::PodNetwork::hold_gateway(args.place.name(), gateway)
        .with_context(|| format!("this machine has no address but loopback, and can't be given {gateway}"))?;
    Ok(gateway)
}

/// The data directory's own name, made on the first start.
fn instance(file: &std::path::Path) -> Result<String> {
    if let Ok(text) = std::fs::read_to_string(file)
        && text.trim().parse::<uuid::Uuid>().is_ok()
    {
        return Ok(text.trim().to_owned());
    }
    let made = uuid::Uuid::new_v4().to_string();
    crate::pki::write_atomically(file, made.as_bytes(), 0o644)?;
    Ok(made)
}

/// The API server's threads.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads())
        .thread_name("apiserver")
        .on_thread_start(memory::keep)
        .on_thread_stop(memory::give_back)
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// Listens for the API, on the port that a flag names.
pub fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is taken by another program: stop that, or choose another port with --{flag} (0 picks a free one)"
        ),
        std::io::ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!("{} is no address of this machine: choose another with --bind-address", address.ip())
        }
        _ => anyhow::Error::new(e).context(format!("cannot listen on {address}")),
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

async fn run(settings: Arc<Settings>, listener: TcpListener, progress: Progress) -> Result<()> {
    let started = jiff::Timestamp::now();
    peers::agree(&settings.backend, &settings.place.pki, &settings.args.peers).await?;
    let pki = certificates::ensure(&settings)?;
    progress.done("certificates", &settings.place.pki.display().to_string());

    let shutdown = CancellationToken::new();
    let (dns_ready, dns_listening) = tokio::sync::watch::channel(None);
    // The node's runtime needs nothing of the control plane: both start at once.
    let mut early = Supervisor::new(shutdown.clone(), Arc::new(|_, _| {}));
    let node = settings.node();
    if let Some(node) = node.as_ref().filter(|node| node.args.runtime_endpoint.is_none()) {
        early.start("runtime", node::container_runtime(node))?;
    }
    let plan = control_plane::plan(&settings, &pki)?;
    let signal = stop_signal();
    tokio::pin!(signal);
    let plane = tokio::select! {
        plane = ControlPlane::start(plan, listener, shutdown.clone()) => Arc::new(plane?),
        name = &mut signal => {
            shutdown.cancel();
            anyhow::bail!("stopped by {name} before the API server was ready")
        }
    };
    progress.done("API server", &settings.server_url());

    let mut supervisor = Supervisor::new(shutdown.clone(), plane.failures(&settings.node_name));
    supervisor.start("controllers", control_plane::controllers(&settings, &plane, &pki)?)?;
    supervisor.start("scheduler", control_plane::scheduler(&settings, &plane))?;
    if node.is_none() {
        supervisor.start("approver", serving::approver(&plane))?;
    }
    if let Some(node) = &node {
        supervisor.start("proxy", node::service_proxy(node, plane.connect(identity::proxy(), "kube-proxy"))?)?;
    }
    supervisor.start("dns", node::dns(&settings, &plane, dns_ready))?;
    if let Some(node) = &node {
        let connect = plane.connect(identity::node(&settings.node_name), "kubelet");
        supervisor.start("kubelet", node::kubelet(node, connect, &pki)?)?;
    }

    let entry = pki.pair(certificates::ADMIN)?;
    let ca = pki.ca_pem()?;
    let entry = kubeconfig::Entry {
        name: settings.args.place.name(),
        server: settings.server_url(),
        ca_pem: &ca,
        certificate_pem: &entry.certificate,
        key_pem: &entry.key,
    };
    let file = settings.args.write_kubeconfig.clone().unwrap_or_else(|| settings.place.admin_kubeconfig.clone());
    entry.write(&file)?;
    let merged = merge(&settings, &entry, &progress);
    progress.done("kubeconfig", &file.display().to_string());

    let checks = ready::wait(&settings, &plane, dns_listening, started, &progress);
    let outcome = tokio::select! {
        outcome = checks => outcome,
        name = &mut signal => { shutdown.cancel(); Err(anyhow::anyhow!("stopped by {name} before the cluster was ready")) }
    };
    if outcome.is_ok() {
        let join = match &node {
            Some(_) => None,
            None => Some(join::prepare(&settings, &plane, &pki).await.context("how nodes join can't be published")?),
        };
        systemd::notify("READY=1");
        announce(&settings, &progress, &file, merged, join.as_ref());
        let renewal = certificates::renew(&settings, &pki, &plane, file.clone());
        tokio::select! {
            name = &mut signal => tracing::info!("stopping: {name}"),
            result = renewal => result?,
            why = plane.ended() => return Err(why),
        }
        systemd::notify("STOPPING=1");
    }
    shutdown.cancel();
    let join = tokio::task::spawn_blocking(move || {
        supervisor.join();
        early.join();
    });
    tokio::select! {
        joined = join => joined.context("stopping the components")?,
        name = stop_signal() => anyhow::bail!("ended at once by a second {name}"),
    }
    plane.stop().await;
    if outcome.is_ok() {
        progress.note(match node {
            Some(_) => {
                "\nStopped. Your pods go on running; the same command takes them up again, `pilothouse down` (with its --data-dir, if it had one) stops them."
            }
            None => "\nStopped. Pods of the nodes go on running.",
        });
    }
    outcome
}

fn merge(settings: &Settings, entry: &kubeconfig::Entry<'_>, progress: &Progress) -> bool {
    if settings.args.no_merge {
        return false;
    }
    let Some(person) = kubeconfig::Person::find() else { return false };
    match entry.merge_into(&person) {
        Ok(()) => true,
        Err(e) => {
            // The cluster works without it.
            progress.note(&format!("  ! {e:#}"));
            false
        }
    }
}

fn announce(
    settings: &Settings,
    progress: &Progress,
    kubeconfig: &std::path::Path,
    merged: bool,
    join: Option<&join::Invitation>,
) {
    let option = if merged { String::new() } else { format!("--kubeconfig {} ", kubeconfig.display()) };
    let seconds = progress.elapsed().as_secs_f64();
    let (name, what) = (settings.args.place.name(), if join.is_some() { "control plane of" } else { "cluster" });
    let mut text = format!("\nThe {what} {name:?} is ready after {seconds:.2} s.\n\n  kubectl {option}get nodes\n");
    let mut fields = serde_json::json!({
        "name": settings.args.place.name(),
        "server": settings.server_url(),
        "kubeconfig": kubeconfig,
        "node": settings.node_name,
        "nodeIP": settings.node_ip,
    });
    match join {
        None => {
            text += &format!(
                "  kubectl {option}create deployment hello --image=pilothouse.local/pilothouse --replicas=2\n\nPress ^C to stop it; your pods go on running."
            );
        }
        Some(join) => {
            text += &format!(
                "\nA node joins with (as root, on its machine):\n\n  {}\n\nPress ^C to stop it; pods of the nodes go on running.",
                join.command()
            );
            fields["join"] = join.command().into();
        }
    }
    if matches!(settings.backend, Backend::Etcd(_)) {
        text += &format!(
            "\nAnother server joins on the same etcd with the certificate key in {}.",
            settings.place.pki.join(peers::KEY_FILE).display()
        );
    }
    progress.ready(&fields, &text);
}

/// The name of the first signal that asks to stop.
pub async fn stop_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = |kind: SignalKind, name: &'static str| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
                name
            }
            Err(e) => {
                tracing::error!("cannot wait for {name}: {e}");
                std::future::pending().await
            }
        }
    };
    let all = [wait(SignalKind::interrupt(), "SIGINT").boxed(), wait(SignalKind::terminate(), "SIGTERM").boxed()];
    futures::future::select_all(all).await.0
}
