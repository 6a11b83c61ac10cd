//! Starting a kubelet, and giving what happens to those whom it concerns.

use std::{
    collections::{HashMap, HashSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use client::backoff::Backoff;
use client::watch::{self, Event, all};
use cri::v1;
use futures::StreamExt as _;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Client;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cgroup::Cgroups,
    config::Config,
    container::{config::Machine as Limits, dns},
    error::Error,
    events::{Recorder, Severity},
    evict,
    image::{self, Images},
    kubelet::Shared,
    logs,
    node::{self, NodeHandle, machine::Machine},
    objects::Objects,
    pod::{
        admission::{self, Rejection},
        observed::label,
        view::{Pods, Snapshot},
        worker::{Beginning, Message, Worker},
    },
    resources::{self, CPU, MEMORY, Qos},
    rpc, server,
    services::Services,
    spec::PodExt,
    static_pods,
    tokens::Tokens,
    volume,
};

/// How often the runtime is looked at although it reports what happens.
const RELIST: Duration = Duration::from_secs(300);
/// The same for runtimes that don't report.
const RELIST_OFTEN: Duration = Duration::from_secs(1);
/// How long the process' end waits for what the runtime was asked to do.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs a kubelet until `shutdown`. Its pods go on running when it ends, and the next one takes
/// them over.
///
/// # Errors
/// When it cannot start: no cgroups, a port that is taken, a bad certificate, no directory.
pub async fn run(cfg: Config, client: Client, shutdown: CancellationToken) -> Result<(), Error> {
    run_until(cfg, client, shutdown.clone(), shutdown).await
}

/// The same until `stop`, in a process that goes on until `shutdown`: so long it waits for what the runtime was asked to do.
///
/// # Errors
/// As of [`run`].
pub async fn run_until(
    cfg: Config,
    client: Client,
    stop: CancellationToken,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let stop = stop.child_token();
    // Whatever way this ends, what it began ends too.
    let _guard = stop.clone().drop_guard();
    let shared = prepare(cfg, client, stop.clone()).await?;
    let port = server::serve(&shared).await?;
    let context = node::Context {
        cfg: shared.cfg.clone(),
        client: shared.client.clone(),
        cri: shared.cri.clone(),
        machine: shared.machine.clone(),
        events: shared.events.clone(),
        handle: shared.node.clone(),
        port,
    };
    tokio::spawn(node::run(context, stop.clone()));
    tokio::spawn(shared.services.clone().run(shared.client.clone(), stop.clone()));
    let follow = follow_runtime(shared.clone());
    let tasks = [
        shared.until_stop(follow),
        shared.until_stop(evict::run(shared.clone())),
        shared.until_stop(logs::rotate::run(shared.clone())),
        shared.until_stop(image::gc::run(shared.clone())),
    ];
    for task in tasks {
        tokio::spawn(task);
    }
    tokio::select! {
        () = Dispatcher::new(shared.clone()).run() => {}
        () = stop.cancelled() => {}
    }
    // Whoever starts again must not meet a step of ours that is still on its way: it would do the same beside it.
    stop.cancel();
    shared.workers.close();
    let patience = async {
        shutdown.cancelled().await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::select! {
        () = shared.workers.wait() => {}
        () = patience => tracing::warn!(
            pods = shared.workers.len(),
            "the runtime has not done in time what it was asked for these pods"
        ),
    }
    Ok(())
}

async fn prepare(cfg: Config, client: Client, stop: CancellationToken) -> Result<Arc<Shared>, Error> {
    let cfg = Arc::new(cfg);
    make_dirs(&cfg)?;
    protect_self();
    let machine = Machine::read(&cfg.root_dir).map_err(|error| Error::Machine(error.to_string()))?;
    let cgroups = Cgroups::discover(&cfg.cgroup_root).map_err(|error| Error::Cgroups(error.to_string()))?;
    enforce(&cfg, &machine, &cgroups)?;
    let (events, sending) = Recorder::new(client.clone(), &cfg.node_name, stop.clone());
    tokio::spawn(sending);
    let cri = cri::Client::connect(&cfg.cri_endpoint);
    let node = NodeHandle::new(&cfg, &machine);
    Ok(Arc::new(Shared {
        objects: Objects::new(&client),
        services: Services::new(),
        tokens: Tokens::new(client.clone()),
        images: Images::open(cri.clone(), events.clone(), cfg.max_parallel_image_pulls, &cfg.root_dir)
            .map_err(|source| Error::Directory { path: cfg.root_dir.join("image_manager"), source })?,
        limits: Limits { memory: machine.memory, huge_pages: cgroups.huge_pages(), cgroup_v2: cgroups.is_v2() },
        host_dns: dns::parse(&fs::read_to_string(resolv_conf(&cfg)).unwrap_or_default()),
        pods: Pods::default(),
        workers: TaskTracker::new(),
        runtime_name: OnceLock::new(),
        machine: Arc::new(machine),
        cgroups,
        cri,
        events,
        node,
        client,
        cfg,
        stop,
    }))
}

fn make_dirs(cfg: &Config) -> Result<(), Error> {
    let of_root = ["pods", "plugins", "plugins_registry", "seccomp"].map(|name| cfg.root_dir.join(name));
    let others = [cfg.pod_log_dir.clone(), cfg.container_log_dir.clone()];
    for path in of_root.into_iter().chain(others) {
        fs::create_dir_all(&path).map_err(|source| Error::Directory { path, source })?;
    }
    // Pods' volumes are writable for everybody who gets there; pods themselves see mounts, not paths.
    let path = cfg.pods_dir();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o750))
        .map_err(|source| Error::Directory { path, source })?;
    Ok(())
}

/// Has the kernel kill pods rather than the kubelet when memory runs out. Containers are given
/// their own scores.
fn protect_self() {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", "-999") {
        tracing::info!(%error, "the kubelet cannot be protected from the OOM killer");
    }
}

/// Makes the cgroups of pods, with what the node has for all of them.
fn enforce(cfg: &Config, machine: &Machine, cgroups: &Cgroups) -> Result<(), Error> {
    // What eviction keeps free is no hard limit.
    let mut without_thresholds = cfg.clone();
    without_thresholds.eviction.memory_available = None;
    let list = node::status::allocatable(machine, &without_thresholds);
    let cpu = resources::get(Some(&list), CPU).milli_value();
    let memory = u64::try_from(resources::get(Some(&list), MEMORY).value()).unwrap_or(machine.memory);
    cgroups.set_up(cpu, memory).map_err(|error| Error::Cgroups(error.to_string()))
}

/// The file that names real resolvers: with systemd-resolved, `/etc/resolv.conf` names only its
/// stub, which pods cannot reach.
fn resolv_conf(cfg: &Config) -> PathBuf {
    if let Some(path) = &cfg.resolv_conf {
        return path.clone();
    }
    let usual = PathBuf::from("/etc/resolv.conf");
    let behind_stub = PathBuf::from("/run/systemd/resolve/resolv.conf");
    let text = fs::read_to_string(&usual).unwrap_or_default();
    if dns::parse(&text).servers == ["127.0.0.53"] && behind_stub.exists() {
        return behind_stub;
    }
    usual
}

/// A pod that only the runtime knows: enough of it to stop it.
fn orphan(sandbox: &v1::PodSandbox) -> Option<Pod> {
    let metadata = sandbox.metadata.as_ref()?;
    Some(Pod {
        metadata: ObjectMeta {
            name: Some(metadata.name.clone()),
            namespace: Some(metadata.namespace.clone()),
            uid: Some(metadata.uid.clone()),
            ..ObjectMeta::default()
        },
        ..Pod::default()
    })
}

/// Gives each pod's news to its worker.
struct Dispatcher {
    shared: Arc<Shared>,
    /// Pods that the runtime had when the kubelet started.
    in_runtime: HashMap<String, v1::PodSandbox>,
    ended: mpsc::UnboundedSender<String>,
    ends: Option<mpsc::UnboundedReceiver<String>>,
    statics: static_pods::Statics,
    share: Option<i64>,
}

impl Dispatcher {
    fn new(shared: Arc<Shared>) -> Self {
        let (ended, ends) = mpsc::unbounded_channel();
        Self {
            statics: static_pods::Statics::new(shared.clone()),
            shared,
            in_runtime: HashMap::new(),
            ended,
            ends: Some(ends),
            share: None,
        }
    }

    async fn run(mut self) {
        let shared = self.shared.clone();
        let Some(mut ends) = self.ends.take() else { return };
        self.meet_runtime().await;
        let mut manifests = static_pods::watch(&shared);
        let config = watch::Config::default().fields(&format!("spec.nodeName={}", shared.cfg.node_name));
        let mut pods = all::<Pod>(shared.client.clone(), config);
        let mut listed: HashSet<String> = HashSet::new();
        let mut first = true;
        loop {
            tokio::select! {
                event = pods.next() => match event {
                    Some(Ok(Event::Init)) => listed.clear(),
                    Some(Ok(Event::InitApply(pod))) => {
                        listed.insert(pod.uid().to_owned());
                        self.update(pod);
                    }
                    Some(Ok(Event::InitDone)) => {
                        self.forget_unlisted(&listed);
                        if std::mem::take(&mut first) {
                            self.remove_orphans();
                        }
                        self.adjust_share();
                    }
                    Some(Ok(Event::Apply(pod))) => {
                        self.update(pod);
                        self.adjust_share();
                    }
                    Some(Ok(Event::Delete(pod))) => self.delete(&pod),
                    Some(Err(error)) => tracing::debug!(%error, "watching pods failed; trying again"),
                    None => return,
                },
                Some(change) = manifests.recv() => {
                    for effect in self.statics.changed(change) {
                        self.apply_static(effect);
                    }
                }
                Some(uid) = ends.recv() => {
                    tracing::debug!(uid, "a pod is gone");
                    self.shared.pods.tell_all(|| Message::RoomMade);
                    self.adjust_share();
                }
            }
        }
    }

    /// Learns the runtime's name and what it runs. Waits until it answers.
    async fn meet_runtime(&mut self) {
        let mut backoff = Backoff::default();
        let cri = &self.shared.cri;
        loop {
            let mut runtime = cri.runtime();
            let met = async {
                let version = v1::VersionRequest { version: "v1".to_owned() };
                let name = runtime.version(version).await?.into_inner().runtime_name;
                let request = v1::ListPodSandboxRequest::default();
                let sandboxes = runtime.list_pod_sandbox(request).await?.into_inner().items;
                Ok::<_, tonic::Status>((name, sandboxes))
            };
            match met.await {
                Ok((name, sandboxes)) => {
                    self.shared.runtime_name.get_or_init(|| name);
                    for sandbox in sandboxes.into_iter().filter(|s| s.labels.contains_key(label::POD_UID)) {
                        let uid = sandbox.metadata.as_ref().map(|metadata| metadata.uid.clone());
                        self.in_runtime.insert(uid.unwrap_or_default(), sandbox);
                    }
                    return;
                }
                Err(status) => {
                    tracing::debug!(status = rpc::text(&status), "the runtime doesn't answer yet");
                    tokio::time::sleep(backoff.pause().min(RELIST_OFTEN)).await;
                }
            }
        }
    }

    fn update(&mut self, mut pod: Pod) {
        pod.metadata.managed_fields = None;
        if pod.is_mirror() {
            for effect in self.statics.mirror(Arc::new(pod)) {
                self.apply_static(effect);
            }
            return;
        }
        if self.shared.pods.contains(pod.uid()) {
            let uid = pod.uid().to_owned();
            self.shared.pods.tell(&uid, Message::Update(Arc::new(pod)));
            return;
        }
        self.begin(Arc::new(pod));
    }

    fn begin(&mut self, pod: Arc<Pod>) {
        let known_to_runtime = self.in_runtime.remove(pod.uid()).is_some();
        let rejected =
            if known_to_runtime || pod.is_terminal() || pod.is_deleted() { None } else { self.admit(&pod).err() };
        if let Some(rejected) = &rejected {
            // Reasons of rejections are few, and events want them to live long.
            let reason = static_reason(&rejected.reason);
            self.shared.events.pod(&pod, Severity::Warning, reason, rejected.message.clone());
        }
        let beginning = Beginning { pod, rejected, known_to_runtime, orphan: false };
        Worker::spawn(&self.shared, beginning, self.ended.clone());
    }

    fn admit(&self, pod: &Pod) -> Result<(), Rejection> {
        let others: Vec<Snapshot> = self.shared.pods.all().into_iter().filter(|other| !other.finished).collect();
        let others: Vec<&Pod> = others.iter().map(|other| &*other.pod).collect();
        let view = self.shared.node.view();
        admission::admit(
            pod,
            &admission::Node {
                name: &self.shared.cfg.node_name,
                view: &view,
                pressure: self.shared.node.pressure(),
                others: &others,
                unsafe_sysctls: &self.shared.cfg.allowed_unsafe_sysctls,
            },
        )
    }

    fn delete(&mut self, pod: &Pod) {
        if pod.is_mirror() {
            for effect in self.statics.mirror_gone(pod) {
                self.apply_static(effect);
            }
            return;
        }
        self.shared.pods.tell(pod.uid(), Message::Removed);
    }

    fn apply_static(&mut self, effect: static_pods::Effect) {
        match effect {
            static_pods::Effect::Run(pod) => {
                if self.shared.pods.contains(pod.uid()) {
                    let uid = pod.uid().to_owned();
                    self.shared.pods.tell(&uid, Message::Update(pod));
                } else {
                    self.begin(pod);
                }
            }
            static_pods::Effect::Stop(uid) => {
                self.shared.pods.tell(&uid, Message::Removed);
            }
            static_pods::Effect::Mirror(uid, mirror) => {
                self.shared.pods.tell(&uid, Message::Mirror(mirror));
            }
        }
    }

    /// Pods that a new list doesn't have were deleted while nobody listened.
    fn forget_unlisted(&mut self, listed: &HashSet<String>) {
        for snapshot in self.shared.pods.all() {
            let uid = snapshot.pod.uid();
            if !snapshot.pod.is_static() && !listed.contains(uid) {
                self.shared.pods.tell(uid, Message::Removed);
            }
        }
        for effect in self.statics.listed(listed) {
            self.apply_static(effect);
        }
    }

    /// Removes what no pod of any source owns: sandboxes, cgroups, directories.
    fn remove_orphans(&mut self) {
        let statics = self.statics.uids();
        for (uid, sandbox) in std::mem::take(&mut self.in_runtime) {
            if statics.contains(&uid) {
                self.in_runtime.insert(uid, sandbox);
                continue;
            }
            let Some(pod) = orphan(&sandbox) else { continue };
            tracing::info!(pod = pod.display(), "stopping a pod that was deleted while the kubelet was away");
            let beginning = Beginning { pod: Arc::new(pod), rejected: None, known_to_runtime: true, orphan: true };
            Worker::spawn(&self.shared, beginning, self.ended.clone());
        }
        let shared = self.shared.clone();
        tokio::task::spawn_blocking(move || {
            let known = |uid: &str| shared.pods.contains(uid) || statics.contains(uid);
            for uid in volume::known_pods(&shared.cfg).into_iter().filter(|uid| !known(uid)) {
                if let Err(error) = volume::tear_down(&shared.cfg, &uid) {
                    tracing::warn!(uid, %error, "an orphaned pod directory could not be removed");
                }
            }
            for (uid, path) in shared.cgroups.pods().into_iter().filter(|(uid, _)| !known(uid)) {
                if let Err(error) = shared.cgroups.remove(&path) {
                    tracing::warn!(uid, %error, "an orphaned pod cgroup could not be removed");
                }
            }
        });
    }

    /// The burstable pods have together the CPU share that they asked for.
    fn adjust_share(&mut self) {
        let asked = self
            .shared
            .pods
            .all()
            .iter()
            .filter(|other| !other.finished && resources::qos(&other.pod) == Qos::Burstable)
            .filter_map(|other| resources::pod_requests(&other.pod).get(CPU).map(api::quantity::Quantity::milli_value))
            .sum();
        if self.share != Some(asked) {
            self.share = Some(asked);
            if let Err(error) = self.shared.cgroups.set_burstable_share(asked) {
                tracing::warn!(%error, "the CPU share of burstable pods could not be set");
            }
        }
    }
}

/// The reasons of rejections, as long-lived texts.
fn static_reason(reason: &str) -> &'static str {
    match reason {
        "OutOfcpu" => "OutOfcpu",
        "OutOfmemory" => "OutOfmemory",
        "OutOfpods" => "OutOfpods",
        "OutOfephemeral-storage" => "OutOfephemeral-storage",
        "NodeAffinity" => "NodeAffinity",
        "NodePorts" => "NodePorts",
        "Evicted" => "Evicted",
        "SysctlForbidden" => "SysctlForbidden",
        "PodOSNotSupported" => "PodOSNotSupported",
        "AppArmor" => "AppArmor",
        _ => "UnexpectedAdmissionError",
    }
}

/// Passes the runtime's reports to the workers; after each break, and now and then, they look for
/// themselves.
async fn follow_runtime(shared: Arc<Shared>) {
    let mut backoff = Backoff::default();
    let mut relist = tokio::time::interval_at(tokio::time::Instant::now() + RELIST, RELIST);
    let mut before = false;
    loop {
        match shared.cri.runtime().get_container_events(v1::GetEventsRequest {}).await {
            Ok(answer) => {
                let mut events = answer.into_inner();
                if std::mem::replace(&mut before, true) {
                    shared.pods.tell_all(|| Message::Relist);
                }
                shared.node.recheck();
                backoff = Backoff::default();
                loop {
                    tokio::select! {
                        event = events.message() => match event {
                            Ok(Some(event)) => pass_on(&shared, event),
                            Ok(None) => break,
                            Err(status) => {
                                tracing::debug!(status = rpc::text(&status), "the runtime's reports broke off");
                                break;
                            }
                        },
                        _ = relist.tick() => shared.pods.tell_all(|| Message::Relist),
                    }
                }
                shared.node.recheck();
            }
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                tracing::warn!("the runtime doesn't report what happens; looking every second");
                let mut often = tokio::time::interval(RELIST_OFTEN);
                loop {
                    often.tick().await;
                    shared.pods.tell_all(|| Message::Relist);
                }
            }
            Err(_) => {}
        }
        tokio::time::sleep(backoff.pause().min(RELIST_OFTEN)).await;
    }
}

fn pass_on(shared: &Shared, event: v1::ContainerEventResponse) {
    let of_sandbox = event.pod_sandbox_status.as_ref().and_then(|sandbox| sandbox.metadata.as_ref());
    let of_labels = || {
        let labels = event.containers_statuses.first().map(|status| &status.labels);
        labels.and_then(|labels| labels.get(label::POD_UID)).cloned()
    };
    let known = || {
        let all = shared.pods.all();
        let owner = all.iter().find(|snapshot| {
            snapshot.observed.by_id(&event.container_id).is_some()
                || snapshot.observed.sandboxes.iter().any(|sandbox| sandbox.id == event.container_id)
        });
        owner.map(|snapshot| snapshot.pod.uid().to_owned())
    };
    match of_sandbox.map(|metadata| metadata.uid.clone()).or_else(of_labels).or_else(known) {
        Some(uid) => {
            shared.pods.tell(&uid, Message::Event(Box::new(event)));
        }
        // Whose it is, we must find out.
        None => shared.pods.tell_all(|| Message::Relist),
    }
}
