//! Starting to serve, and ending.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use cri::RuntimeServiceServer;
use network::pod::{PodNetwork, PodNetworkConfig};
use tokio::time::timeout;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;

use super::{
    Runtime, blocking,
    config::{Config, ConfigError},
    events::Events,
    executable::{SealedExecutable, settle},
    images::RootFilesystems,
    layout::Layout,
    names::Names,
    service::Service,
    state::Table,
    streams::Streams,
};
use crate::{
    cgroup::{CgroupError, Cgroups},
    image::{ImageServer, Images, Options},
    registry::InvalidMirror,
    seccomp, streaming,
};

/// How often to look whether the pod network's rules are still there. Firewall services flush all tables when
/// they are reloaded; the kernel could tell, but only together with every change that anybody makes.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A server that was killed while it began a process may have left its lock with that, until it becomes what it is to be.
const LOCK_LINGERS: Duration = Duration::from_secs(1);

/// How long requests that are under way may take when the server ends.
const GRACE: Duration = Duration::from_secs(2);

/// Why the runtime can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Namespaces, mounts and groups need it.
    #[error("the container runtime must run as root")]
    NotRoot,
    /// Another one serves.
    #[error("another container runtime serves {0}; end it first, or use another data directory")]
    InUse(PathBuf),
    /// Something of the machine or the disk; says what.
    #[error("cannot {doing}")]
    Io {
        /// What was tried.
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// No usable control groups.
    #[error("control groups are not usable: {0}")]
    Cgroups(String),
    /// A mirror's description is wrong.
    #[error(transparent)]
    Mirror(#[from] InvalidMirror),
    /// The images can't be used.
    #[error("{0}")]
    Images(String),
    /// What an earlier server left can't be read.
    #[error("cannot take up earlier sandboxes: {0}")]
    Recovery(String),
    /// Pods that could not be stopped, and why.
    #[error("not all pods were stopped: {0}")]
    Pods(String),
    /// The transport failed.
    #[error("cannot serve the CRI")]
    Transport(#[from] tonic::transport::Error),
}

fn io_error(doing: impl Into<String>) -> impl FnOnce(io::Error) -> ServeError {
    let doing = doing.into();
    move |source| ServeError::Io { doing, source }
}

/// How the pod network is set up.
pub(crate) fn network_config(config: &Config) -> io::Result<PodNetworkConfig> {
    let layout = Layout::new(config);
    let parse = |cidrs: &[String]| -> io::Result<Vec<network::Cidr>> {
        let one =
            |cidr: &String| cidr.parse().map_err(|e: network::CidrError| io::Error::other(format!("{cidr}: {e}")));
        cidrs.iter().map(one).collect()
    };
    Ok(PodNetworkConfig {
        cluster: config.cluster.clone(),
        state_dir: layout.network(),
        cluster_cidrs: parse(&config.cluster_cidrs)?,
        service_cidrs: parse(&config.service_cidrs)?,
        mtu: None,
    })
}

/// Serves the CRI until `shutdown` resolves. Containers go on running after that, and a later call takes them
/// up again. When this returns the socket is gone.
///
/// # Errors
/// When it can't start; nothing is left behind then.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), ServeError> {
    config.check()?;
    if !nix::unistd::geteuid().is_root() {
        return Err(ServeError::NotRoot);
    }
    let socket = config.socket.clone();
    // Held to the end: two servers of one data directory would take each other's containers for leftovers.
    let _lock = lock_data_dir(&config)?;
    let listener = listen(&socket).await?;
    let result = serve_on(config, listener, shutdown).await;
    // It is ours as long as the lock is.
    let _ = fs::remove_file(&socket);
    result
}

async fn serve_on(
    config: Config,
    listener: UnixListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let (runtime, images) = open(config).await?;
    runtime.recover().await.map_err(|e| ServeError::Recovery(e.chain()))?;
    runtime.serve_streams().await.map_err(io_error("listen for streams"))?;
    runtime.spawn(look_after_network(runtime.clone()));
    let listener = tokio::net::UnixListener::from_std(listener).map_err(io_error("listen on the CRI socket"))?;
    let service = Service::new(runtime.clone());
    let ending = runtime.ending.clone();
    let server = Server::builder()
        .add_service(
            RuntimeServiceServer::new(service)
                .max_decoding_message_size(cri::MAX_MESSAGE_SIZE)
                .max_encoding_message_size(cri::MAX_MESSAGE_SIZE),
        )
        .add_service(images.cri())
        .add_service(images.own())
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), ending.clone().cancelled_owned());
    tokio::pin!(server);
    let result = tokio::select! {
        result = &mut server => result,
        () = shutdown => {
            ending.cancel();
            // What is under way may end well; what doesn't is taken up by the next start.
            timeout(GRACE, server).await.unwrap_or(Ok(()))
        }
    };
    runtime.end().await;
    Ok(result?)
}

async fn open(config: Config) -> Result<(Arc<Runtime>, ImageServer), ServeError> {
    let layout = Layout::new(&config);
    for dir in [layout.sandboxes(), layout.containers(), layout.network()] {
        fs::create_dir_all(&dir).map_err(io_error(format!("make {}", dir.display())))?;
    }
    // Nobody but root looks at containers' and images' files, among which are keys and setuid executables;
    // containers themselves see mounts, not paths.
    let images = config.images_dir();
    fs::create_dir_all(&images).map_err(io_error(format!("make {}", images.display())))?;
    for dir in [layout.root(), &images] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .map_err(io_error(format!("protect {}", dir.display())))?;
    }
    let cgroups = Cgroups::detect().map_err(|e: CgroupError| ServeError::Cgroups(e.to_string()))?;
    let of_network = config.clone();
    let network = blocking(move || {
        let network = PodNetwork::new(network_config(&of_network)?).map_err(io::Error::other)?;
        if let Some(cidr) = &of_network.pod_cidr {
            network.set_pod_cidr(cidr).map_err(io::Error::other)?;
        }
        Ok(network)
    });
    let (images_config, bin) = (config.clone(), layout.bin().to_owned());
    let executable = blocking(move || open_images(&images_config, &bin));
    let (network, executable) = tokio::join!(network, executable);
    let network = network.map_err(io_error("open the pod network"))?;
    let (executable, images) = executable?;
    let copy = executable.file.clone();
    // Nobody waits for it.
    drop(tokio::task::spawn_blocking(move || {
        if let Err(error) = settle(&copy) {
            tracing::warn!(%error, "the copy of the executable is not safe on disk");
        }
    }));
    let ready = network.gateway().is_some();
    let runtime = Arc::new(Runtime {
        layout,
        cgroups,
        network,
        images: RootFilesystems::new(images.clone()),
        sandboxes: Table::new("sandbox"),
        containers: Table::new("container"),
        names: Names::default(),
        events: Events::default(),
        streams: Streams::default(),
        executable,
        filters: seccomp::Filters::default(),
        network_ready: AtomicBool::new(ready),
        ending: CancellationToken::new(),
        background: TaskTracker::new(),
        config,
    });
    Ok((runtime, ImageServer::new(images)))
}

/// Copies the executable for shims and opens the images, one of which is made of the same copy.
fn open_images(config: &Config, bin: &Path) -> Result<(SealedExecutable, Images), ServeError> {
    let source = match &config.executable {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(io_error("find this executable"))?,
    };
    let executable = SealedExecutable::prepare(&source, bin).map_err(io_error("copy the executable for shims"))?;
    let mut options = Options { executable: Some(executable.file.clone()), ..Options::default() };
    for mirror in &config.registry_mirrors {
        options.hosts.mirrors.push(mirror.parse()?);
    }
    let images =
        Images::open(&config.images_dir(), options).map_err(|e| ServeError::Images(crate::registry::chain(&e)))?;
    Ok((executable, images))
}

/// Writes the pod network's rules anew when somebody deleted them: without them pods reach services bound to
/// the node's loopback, and nothing outside.
async fn look_after_network(runtime: Arc<Runtime>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while runtime.ending.run_until_cancelled(look.tick()).await.is_some() {
        let owner = runtime.clone();
        match blocking(move || owner.network.repair()).await {
            Ok(true) => tracing::warn!("somebody deleted the rules of the pod network; they are written anew"),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "cannot look for the rules of the pod network"),
        }
    }
}

fn lock_data_dir(config: &Config) -> Result<fs::File, ServeError> {
    let dir = config.data_dir.join("runtime");
    fs::create_dir_all(&dir).map_err(io_error(format!("make {}", dir.display())))?;
    let path = dir.join("lock");
    let file = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error(format!("open {}", path.display())))?;
    let until = Instant::now() + LOCK_LINGERS;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_LINGERS / 100),
            Err(fs::TryLockError::WouldBlock) => return Err(ServeError::InUse(config.data_dir.clone())),
            Err(fs::TryLockError::Error(error)) => return Err(io_error(format!("lock {}", path.display()))(error)),
        }
    }
}

/// Listens on the socket, replacing one that nobody serves any more.
async fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    if tokio::net::UnixStream::connect(path).await.is_ok() {
        return Err(ServeError::InUse(path.to_owned()));
    }
    let doing = || io_error(format!("listen on {}", path.display()));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(doing())?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(doing()(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(doing())?;
    // Whoever may talk to it is root on this machine.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(doing())?;
    listener.set_nonblocking(true).map_err(doing())?;
    Ok(listener)
}

impl Runtime {
    /// Listens for those who have a ticket.
    async fn serve_streams(self: &Arc<Self>) -> io::Result<()> {
        let listener = tokio::net::TcpListener::bind(self.config.streaming).await?;
        self.streams.set_address(listener.local_addr()?);
        self.spawn(streaming::serve(self.clone(), listener));
        Ok(())
    }

    /// Ends everything in the background.
    async fn end(&self) {
        self.ending.cancel();
        self.background.close();
        self.background.wait().await;
    }
}

/// Stops all pods of a runtime that isn't served: each container gets its stop signal and `grace` to end, all
/// at the same time. How many pods were stopped.
///
/// # Errors
/// When the runtime is being served, or when pods could not be stopped; the others are.
pub async fn stop_all_pods(config: Config, grace: Duration) -> Result<usize, ServeError> {
    config.check()?;
    let _lock = lock_data_dir(&config)?;
    let (runtime, _images) = open(config).await?;
    runtime.recover().await.map_err(|e| ServeError::Recovery(e.chain()))?;
    let mut stopping = tokio::task::JoinSet::new();
    for sandbox in runtime.sandboxes.all() {
        if sandbox.record().ready {
            let runtime = runtime.clone();
            stopping.spawn(async move { stop_pod(&runtime, &sandbox.id, grace).await });
        }
    }
    let mut stopped = 0;
    let mut failed = Vec::new();
    while let Some(result) = stopping.join_next().await {
        match result {
            Ok(Ok(())) => stopped += 1,
            Ok(Err(error)) => failed.push(error.chain()),
            Err(error) => failed.push(error.to_string()),
        }
    }
    runtime.end().await;
    if failed.is_empty() { Ok(stopped) } else { Err(ServeError::Pods(failed.join("; "))) }
}

async fn stop_pod(runtime: &Arc<Runtime>, sandbox: &str, grace: Duration) -> Result<(), super::error::RuntimeError> {
    let stops = runtime
        .containers_of(sandbox)
        .into_iter()
        .map(|container| runtime.clone().stop_container(container.id.clone(), grace));
    for result in futures::future::join_all(stops).await {
        result?;
    }
    runtime.clone().stop_sandbox(sandbox.to_owned()).await
}
