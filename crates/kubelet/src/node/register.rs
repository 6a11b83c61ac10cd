//! Keeping the Node object true: registration, then a patch whenever something changed, and every
//! five minutes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::backoff::Backoff;
use client::watch::Event;
use cri::v1;
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, NodeSpec, NodeStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    lease,
    machine::{Machine, architecture},
    status::{self, Pressure, Runtime},
};
use crate::{
    config::Config,
    events::{Recorder, Severity},
    resources::TextList,
    rpc,
};

/// How often the status is compared with what was reported.
const COMPARE: Duration = Duration::from_secs(10);
/// How often it is reported although nothing changed.
const REPORT: Duration = Duration::from_secs(300);
/// How soon, and how late at most, a runtime that is not ready is asked again: a node waits for it.
const UNREADY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What the rest of the kubelet knows of the Node object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeView {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) allocatable: TextList,
    pub(crate) uid: String,
}

/// A handle on the node: what is known of it, and what it is to be told.
#[derive(Clone)]
pub(crate) struct NodeHandle {
    view: watch::Sender<Arc<NodeView>>,
    pressure: watch::Sender<Pressure>,
    recheck: Arc<Notify>,
}

impl NodeHandle {
    /// A node that is not registered yet.
    pub(crate) fn new(cfg: &Config, machine: &Machine) -> Self {
        let view = NodeView { labels: labels(cfg), allocatable: status::allocatable(machine, cfg), uid: String::new() };
        Self {
            view: watch::Sender::new(Arc::new(view)),
            pressure: watch::Sender::new(Pressure::default()),
            recheck: Arc::default(),
        }
    }

    pub(crate) fn view(&self) -> Arc<NodeView> {
        self.view.borrow().clone()
    }

    pub(crate) fn pressure(&self) -> Pressure {
        *self.pressure.borrow()
    }

    pub(crate) fn set_pressure(&self, new: Pressure) {
        self.pressure.send_if_modified(|old| std::mem::replace(old, new) != new);
    }

    /// Has the runtime and its images looked at again soon.
    pub(crate) fn recheck(&self) {
        self.recheck.notify_one();
    }

    /// Waits until the API server knows the node.
    pub(crate) async fn registered(&self) {
        // The sender lives as long as self.
        let _ = self.view.subscribe().wait_for(|view| !view.uid.is_empty()).await;
    }
}

/// Whether the API server lets a kubelet give its own node this label: labels that say what a
/// node is trusted with are an administrator's.
fn may_set(label: &str) -> bool {
    const OURS: [&str; 11] = [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    ];
    let Some((namespace, _)) = label.split_once('/') else {
        return true;
    };
    let within =
        |domain: &str| namespace == domain || namespace.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    let of_kubernetes = within("kubernetes.io") || within("k8s.io");
    !of_kubernetes || OURS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io")
}

/// The labels that every node carries.
fn labels(cfg: &Config) -> BTreeMap<String, String> {
    let mut labels = cfg.node_labels.clone();
    labels.retain(|label, _| {
        let may = may_set(label);
        if !may {
            tracing::warn!(label, "a kubelet may not give its node this label; left to an administrator");
        }
        may
    });
    for (key, value) in [
        ("kubernetes.io/hostname", cfg.node_name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", architecture()),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// What [`run`] works with.
pub(crate) struct Context {
    pub(crate) cfg: Arc<Config>,
    pub(crate) client: Client,
    pub(crate) cri: cri::Client,
    pub(crate) machine: Arc<Machine>,
    pub(crate) events: Recorder,
    pub(crate) handle: NodeHandle,
    /// The port at which the node API listens.
    pub(crate) port: u16,
}

/// Registers the node and keeps its status and Lease until `stop`.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let mut keeper = Keeper {
        api: Api::all(context.client.clone()),
        runtime: Runtime::default(),
        reported: None,
        reported_at: Instant::now(),
        pod_cidrs: Vec::new(),
        unschedulable: false,
        booted_as: None,
        context,
    };
    tokio::select! {
        () = keeper.run(stop.clone()) => {}
        () = stop.cancelled() => {}
    }
}

struct Keeper {
    context: Context,
    api: Api<Node>,
    runtime: Runtime,
    /// What the API server has.
    reported: Option<NodeStatus>,
    reported_at: Instant,
    pod_cidrs: Vec<String>,
    /// As events have told it.
    unschedulable: bool,
    /// The boot that the node was last registered in.
    booted_as: Option<String>,
}

/// When the runtime is looked at.
struct Looks(Backoff);

impl Looks {
    fn new() -> Self {
        Looks(Backoff::within(UNREADY.0, UNREADY.1))
    }

    /// When it is looked at next, as it is now.
    fn next(&mut self, runtime: &Runtime) -> Instant {
        let wait = if runtime.problems.is_empty() {
            *self = Self::new();
            COMPARE
        } else {
            self.0.pause()
        };
        Instant::now() + wait
    }
}

impl Keeper {
    async fn run(&mut self, stop: CancellationToken) {
        let name = self.context.cfg.node_name.clone();
        self.look(true).await;
        let node = self.register().await;
        let uid = node.metadata.uid.clone().unwrap_or_default();
        tokio::spawn(lease::run(self.context.client.clone(), name.clone(), uid, stop));
        self.context.events.node(&name, Severity::Normal, "Starting", "Starting kubelet.");
        self.saw(&node).await;
        self.tell_transitions(None);
        self.report_if(true).await;

        let config = client::watch::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = client::watch::all::<Node>(self.context.client.clone(), config);
        let mut pressure = self.context.handle.pressure.subscribe();
        let recheck = self.context.handle.recheck.clone();
        let mut looks = Looks::new();
        let mut look_at = looks.next(&self.runtime);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Apply(node) | Event::InitApply(node))) => {
                        self.saw(&node).await;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => tracing::debug!(%error, "watching the node failed; trying again"),
                    None => return,
                },
                changed = pressure.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.report_if(false).await;
                }
                () = recheck.notified() => {
                    self.look(true).await;
                    look_at = looks.next(&self.runtime);
                    self.report_if(false).await;
                }
                // Whatever else happens to the node meanwhile does not put this off.
                () = tokio::time::sleep_until(look_at) => {
                    let due = self.reported_at.elapsed() >= REPORT;
                    self.look(due).await;
                    look_at = looks.next(&self.runtime);
                    self.report_if(due).await;
                }
            }
        }
    }

    /// Asks the runtime how it does, and for its images too if wanted.
    async fn look(&mut self, images: bool) {
        let cri = &self.context.cri;
        let (mut runtime, mut image) = (cri.runtime(), cri.image());
        let status = runtime.status(v1::StatusRequest { verbose: false }).await;
        match status {
            Ok(answer) => {
                let answer = answer.into_inner();
                self.runtime.problems = status::runtime_problems(answer.status.as_ref());
                self.runtime.handlers = answer.runtime_handlers;
                self.runtime.features = answer.features;
            }
            Err(status) => {
                tracing::debug!(status = rpc::text(&status), "the runtime doesn't answer");
                self.runtime.problems = vec!["container runtime is down".to_owned()];
            }
        }
        if self.runtime.version.is_empty()
            && let Ok(version) = runtime.version(v1::VersionRequest { version: "v1".to_owned() }).await
        {
            let version = version.into_inner();
            self.runtime.version = format!("{}://{}", version.runtime_name, version.runtime_version);
        }
        if images && let Ok(list) = image.list_images(v1::ListImagesRequest::default()).await {
            self.runtime.images = list.into_inner().images;
        }
    }

    fn status(&self) -> NodeStatus {
        status::status(
            &self.context.cfg,
            &self.context.machine,
            &self.runtime,
            self.context.handle.pressure(),
            self.context.port,
            self.reported.as_ref(),
            Timestamp::now(),
        )
    }

    /// Creates the Node object, or takes over the one there is. Tries until it succeeds.
    async fn register(&mut self) -> Node {
        let mut backoff = Backoff::default();
        loop {
            match self.try_register().await {
                Ok(node) => return node,
                Err(error) => {
                    if matches!(&error, kube::Error::Api(status) if status.code < 500) {
                        tracing::warn!(%error, "the API server refuses to register the node; trying again");
                    } else {
                        tracing::debug!(%error, "the node could not be registered; trying again");
                    }
                    let wait = backoff.pause().min(Duration::from_secs(7));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    async fn try_register(&mut self) -> kube::Result<Node> {
        let cfg = self.context.cfg.clone();
        if cfg.register_node {
            let node = self.initial();
            match self.api.create(&PostParams::default(), &node).await {
                Ok(created) => {
                    tracing::info!(node = cfg.node_name, "registered the node");
                    self.reported.clone_from(&created.status);
                    self.reported_at = Instant::now();
                    return Ok(created);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error),
            }
        }
        let existing = self.api.get(&cfg.node_name).await?;
        let info = existing.status.as_ref().and_then(|status| status.node_info.as_ref());
        self.booted_as = info.map(|info| info.boot_id.clone());
        let have = existing.metadata.labels.clone().unwrap_or_default();
        let missing: BTreeMap<String, String> =
            labels(&cfg).into_iter().filter(|(key, value)| have.get(key) != Some(value)).collect();
        self.reported.clone_from(&existing.status);
        if missing.is_empty() {
            return Ok(existing);
        }
        let patch = serde_json::json!({"metadata": {"labels": missing}});
        self.api.patch(&cfg.node_name, &PatchParams::default(), &Patch::Strategic(patch)).await
    }

    fn initial(&self) -> Node {
        let cfg = &self.context.cfg;
        let annotation = ("volumes.kubernetes.io/controller-managed-attach-detach", "true");
        Node {
            metadata: ObjectMeta {
                name: Some(cfg.node_name.clone()),
                labels: Some(labels(cfg)),
                annotations: Some(BTreeMap::from([(annotation.0.to_owned(), annotation.1.to_owned())])),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                taints: (!cfg.register_with_taints.is_empty()).then(|| cfg.register_with_taints.clone()),
                ..NodeSpec::default()
            }),
            status: Some(self.status()),
        }
    }

    /// Takes in the Node object as the API server has it.
    async fn saw(&mut self, node: &Node) {
        let view = NodeView {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            allocatable: self.context.handle.view().allocatable.clone(),
            uid: node.metadata.uid.clone().unwrap_or_default(),
        };
        self.context.handle.view.send_if_modified(|old| {
            let changed = **old != view;
            *old = Arc::new(view);
            changed
        });
        if node.status.is_some() {
            self.reported.clone_from(&node.status);
        }
        let spec = node.spec.as_ref();
        let unschedulable = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        if std::mem::replace(&mut self.unschedulable, unschedulable) != unschedulable {
            self.tell_status(if unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" });
        }
        let cidrs = spec
            .and_then(|spec| spec.pod_cidrs.clone())
            .or_else(|| spec.and_then(|spec| spec.pod_cidr.clone()).map(|cidr| vec![cidr]))
            .unwrap_or_default();
        if !cidrs.is_empty() && cidrs != self.pod_cidrs {
            self.set_pod_cidrs(cidrs).await;
        }
    }

    /// Tells the runtime the addresses of the node's pods.
    async fn set_pod_cidrs(&mut self, cidrs: Vec<String>) {
        let request = v1::UpdateRuntimeConfigRequest {
            runtime_config: Some(v1::RuntimeConfig {
                network_config: Some(v1::NetworkConfig { pod_cidr: cidrs.join(",") }),
            }),
        };
        match self.context.cri.runtime().update_runtime_config(request).await {
            Ok(_) => {
                self.pod_cidrs = cidrs;
                self.look(false).await;
                self.report_if(false).await;
            }
            Err(status) => {
                tracing::warn!(status = rpc::text(&status), ?cidrs, "the runtime did not take the pod CIDR");
                // Looked at again with the next change of the node, or now.
                self.context.handle.recheck();
            }
        }
    }

    /// Reports the status if it changed, or in any case.
    async fn report_if(&mut self, always: bool) {
        let new = self.status();
        let old = self.reported.clone().unwrap_or_default();
        if !always && status::same(&old, &new) {
            return;
        }
        let patch = Patch::Strategic(status::patch(&old, &new));
        let name = &self.context.cfg.node_name;
        match self.api.patch_status(name, &PatchParams::default(), &patch).await {
            Ok(node) => {
                self.tell_transitions(Some(&old));
                self.reported = node.status;
                self.reported_at = Instant::now();
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {
                // Somebody deleted it, and it stays so until the kubelet starts again.
                tracing::warn!(node = name, "the node is gone from the API; its status is not reported");
                self.reported_at = Instant::now();
            }
            Err(error) => {
                tracing::warn!(%error, "the node's status could not be reported; trying again");
                self.context.handle.recheck();
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// An event about what the node became.
    fn tell_status(&self, reason: &'static str) {
        let name = &self.context.cfg.node_name;
        self.context.events.node(name, Severity::Normal, reason, format!("Node {name} status is now: {reason}"));
    }

    /// Events about what the node's conditions became.
    fn tell_transitions(&mut self, old: Option<&NodeStatus>) {
        let name = self.context.cfg.node_name.clone();
        let is = |status: Option<&NodeStatus>, kind: &str| {
            let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            let found = conditions.iter().find(|condition| condition.type_ == kind);
            found.map(|condition| condition.status == "True")
        };
        let new = self.status();
        let rows = [
            ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
            ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
            ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
            ("Ready", "NodeReady", "NodeNotReady"),
        ];
        for (kind, yes, no) in rows {
            let (now, before) = (is(Some(&new), kind), is(old, kind));
            // That a node which starts isn't ready yet is no news.
            let starts = kind == "Ready" && now == Some(false) && before != Some(true);
            if now != before && !starts {
                let reason = if now == Some(true) { yes } else { no };
                self.tell_status(reason);
            }
        }
        let boot = &self.context.machine.boot_id;
        if let Some(before) = self.booted_as.take()
            && !before.is_empty()
            && before != *boot
        {
            let message = format!("Node {name} has been rebooted, boot id: {boot}");
            self.context.events.node(&name, Severity::Warning, "Rebooted", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_trust_are_not_the_kubelets() {
        for (label, may) in [
            ("mine", true),
            ("example.com/disk", true),
            ("notkubernetes.io/x", true),
            ("kubernetes.io/os", true),
            ("topology.kubernetes.io/zone", true),
            ("node.kubernetes.io/anything", true),
            ("a.kubelet.kubernetes.io/x", true),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/x", false),
            ("kubernetes.io/other", false),
            ("x.k8s.io/y", false),
        ] {
            assert_eq!(may_set(label), may, "{label}");
        }
    }
}
