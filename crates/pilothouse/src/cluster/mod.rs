//! The whole cluster on this machine: starting it, stopping it, removing it.

mod address;
mod certificates;
mod control_plane;
mod identity;
mod node;
mod ready;
mod remove;

pub use remove::{down, reset};

use crate::backend::Backend;
use crate::cli::ClusterArgs;
use crate::place::Place;
use crate::progress::Progress;
use crate::supervisor::{OnFailure, Supervisor};
use crate::{kubeconfig, lock, preflight, systemd};
use anyhow::{Context, Result};
use control_plane::ControlPlane;
use futures::FutureExt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What all parts of one cluster are told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub args: ClusterArgs,
    pub place: Place,
    pub node_name: String,
    pub node_ip: IpAddr,
    /// Where state is kept.
    pub backend: Backend,
    /// Where the API server listens.
    pub api: SocketAddr,
    /// The tenth address of the service network.
    pub dns_ip: IpAddr,
}

impl Settings {
    /// The cgroup that everything of this cluster is below.
    pub fn cgroup_root(&self) -> String {
        format!("/{}", self.args.place.name)
    }

    fn server_url(&self) -> String {
        let host = if self.api.ip().is_unspecified() { "127.0.0.1".to_owned() } else { self.api.ip().to_string() };
        format!("https://{host}:{}", self.api.port())
    }

    /// What the CRI is reached at: the embedded runtime's socket or the one given.
    pub fn cri_endpoint(&self) -> PathBuf {
        match &self.args.runtime_endpoint {
            Some(endpoint) => endpoint.strip_prefix("unix://").unwrap_or(endpoint).into(),
            None => self.place.cri_socket.clone(),
        }
    }
}

/// Runs a whole cluster in the foreground until it is told to stop; pods go on running then.
pub fn up(args: ClusterArgs) -> Result<()> {
    let progress = Progress::start(args.json);
    preflight::check(&args)?;
    let place = Place::new(&args.place.data_dir)?;
    let backend = Backend::choose(&args.store, &args.etcd, &place.store)?;
    let node_name = match &args.node_name {
        Some(name) => name.clone(),
        None => address::host_name()?,
    };
    let (_lock, listener) = begin(&args, &place)?;
    let settings = Arc::new(Settings {
        node_name,
        node_ip: address::node_ip(),
        api: listener.local_addr()?,
        dns_ip: args.service_cidr.nth(10).into(),
        backend,
        place,
        args,
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8))
        .thread_name("apiserver")
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let outcome = runtime.block_on(run(settings, listener, progress));
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    outcome
}

/// Takes the data directory and the port, or leaves nothing behind.
fn begin(args: &ClusterArgs, place: &Place) -> Result<(lock::Lock, TcpListener)> {
    let fresh = !place.data_dir.exists();
    place.make()?;
    let lock = lock::take(&place.lock)?;
    let listening = listen(SocketAddr::new(args.bind_address, args.port), "--port").and_then(|listener| {
        // The kubelet listens later; that it can't is better known now.
        let kubelet = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), node::kubelet_port(args, place));
        listen(kubelet, "--kubelet-port").map(|_| listener)
    });
    match listening {
        Ok(listener) => Ok((lock, listener)),
        Err(e) => {
            if fresh {
                place.discard();
            }
            Err(e)
        }
    }
}

fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "{address} is taken by another program: stop that, or choose another port with {flag} (0 picks a free one)"
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
    let pki = certificates::ensure(&settings)?;
    progress.done("certificates", &settings.place.pki.display().to_string());

    let shutdown = CancellationToken::new();
    let (dns_ready, dns_listening) = tokio::sync::watch::channel(None);
    // The node's runtime needs nothing of the control plane: both start at once.
    let mut early = Supervisor::new(shutdown.clone(), Arc::new(|_, _| {}));
    if settings.args.runtime_endpoint.is_none() {
        early.start("runtime", node::container_runtime(&settings))?;
    }
    let plane = Arc::new(ControlPlane::start(&settings, &pki, listener, shutdown.clone()).await?);
    progress.done("API server", &settings.server_url());

    let told = plane.clone();
    let handle = tokio::runtime::Handle::current();
    let node_name = settings.node_name.clone();
    let on_failure: OnFailure = Arc::new(move |component: &str, why: &str| {
        let (plane, node, component, why) = (told.clone(), node_name.clone(), component.to_owned(), why.to_owned());
        handle.spawn(async move { plane.tell_failure(&node, &component, &why).await });
    });
    let mut supervisor = Supervisor::new(shutdown.clone(), on_failure);
    supervisor.start("controllers", control_plane::controllers(&settings, &plane, &pki)?)?;
    supervisor.start("scheduler", control_plane::scheduler(&settings, &plane))?;
    supervisor.start("proxy", node::service_proxy(&settings, &plane)?)?;
    supervisor.start("dns", node::dns(&settings, &plane, dns_ready))?;
    supervisor.start("kubelet", node::kubelet(&settings, &plane, &pki)?)?;

    let entry = pki.pair(certificates::ADMIN)?;
    let ca = pki.ca_pem()?;
    let entry = kubeconfig::Entry {
        name: &settings.args.place.name,
        server: settings.server_url(),
        ca_pem: &ca,
        certificate_pem: &entry.certificate,
        key_pem: &entry.key,
    };
    let file = settings.args.write_kubeconfig.clone().unwrap_or_else(|| settings.place.admin_kubeconfig.clone());
    entry.write(&file)?;
    let merged = merge(&settings, &entry, &progress);
    progress.done("kubeconfig", &file.display().to_string());

    let signal = stop_signal();
    tokio::pin!(signal);
    let checks = ready::wait(&settings, &plane, dns_listening, started, &progress);
    let outcome = tokio::select! {
        outcome = checks => outcome,
        name = &mut signal => { shutdown.cancel(); Err(anyhow::anyhow!("stopped by {name} before the cluster was ready")) }
    };
    if outcome.is_ok() {
        systemd::notify("READY=1");
        announce(&settings, &progress, &file, merged);
        let renewal = certificates::renew(&settings, &pki, &plane, file.clone());
        tokio::select! {
            name = &mut signal => tracing::info!("stopping: {name}"),
            result = renewal => result?,
            () = plane.ended() => anyhow::bail!("the API server ended by itself"),
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
        progress.note(
            "\nStopped. Your pods go on running; `pilothouse up` takes them up again, `pilothouse down` stops them.",
        );
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

fn announce(settings: &Settings, progress: &Progress, kubeconfig: &std::path::Path, merged: bool) {
    let option = if merged { String::new() } else { format!("--kubeconfig {} ", kubeconfig.display()) };
    let seconds = progress.elapsed().as_secs_f64();
    let text = format!(
        "\nThe cluster {:?} is ready after {seconds:.2} s.\n\n  kubectl {option}get nodes\n  kubectl {option}create deployment hello --image=pilothouse.local/pilothouse --replicas=2\n\nPress ^C to stop it; your pods go on running.",
        settings.args.place.name
    );
    let fields = serde_json::json!({
        "name": settings.args.place.name,
        "server": settings.server_url(),
        "kubeconfig": kubeconfig,
        "node": settings.node_name,
        "nodeIP": settings.node_ip,
    });
    progress.ready(&fields, &text);
}

/// The name of the first signal that asks to stop.
async fn stop_signal() -> &'static str {
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
