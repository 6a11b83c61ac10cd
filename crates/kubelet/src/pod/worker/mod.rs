//! One task for each pod: takes in what happens, decides the next step, has it carried out, and
//! reports. It sleeps until something happens or a wait is over.

mod allocate;
mod life;
mod report;
mod steps;

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, PoisonError},
};

use client::backoff::Backoff;
use cri::v1;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use tokio::{sync::mpsc, time::Instant};

use self::steps::{Step, StepKind};
use super::{
    admission::Rejection,
    backoff::{BackOff, MOUNTS, RESTARTS},
    kill::Stopped,
    observed::{Container, Observed, Sandbox},
    reader,
    resize::{self, Allocation, Verdict},
    status::{Reason, Reasons},
    view::Snapshot,
};
use crate::{
    kubelet::Shared,
    objects::{Notify, References, references},
    probe::{self, Kind, Results, run::Probes},
    rpc,
    spec::PodExt,
    volume::Volumes,
};

/// How many removed containers are remembered: a pod that restarts for months removes many.
const MOST_GONE: usize = 64;

/// What a worker is told.
pub(crate) enum Message {
    /// The pod as its source has it now.
    Update(Arc<Pod>),
    /// Its mirror in the API, for a static pod; `None` if it has none.
    Mirror(Option<Arc<Pod>>),
    /// The source no longer has it.
    Removed,
    /// The node cannot keep it.
    Evict(Eviction),
    /// The runtime reports.
    Event(Box<v1::ContainerEventResponse>),
    /// Reports may have been missed.
    Relist,
    /// Another pod gave back what it had.
    RoomMade,
    /// The runtime's whole view.
    Read(Box<Observed>),
    /// An object that the pod refers to changed.
    ObjectsChanged,
    /// A probe concluded.
    Probed { container: String, kind: Kind, outcome: probe::Outcome },
    /// The sandbox is there.
    MadeSandbox(Box<Sandbox>),
    /// A container was started.
    Started { name: String, container: Option<Box<Container>> },
    /// A container was not started.
    NotStarted { name: String, reason: Reason },
    /// These containers were removed.
    RemovedContainers(Vec<String>),
}

/// Why and how a pod must go.
#[derive(Clone, Debug)]
pub(crate) struct Eviction {
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Seconds, in place of the pod's own.
    pub(crate) grace: Option<i64>,
    pub(crate) condition: Option<PodCondition>,
}

/// Where a pod is in its life here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// It is being stopped.
    Terminating,
    /// Nothing of it runs.
    Terminated,
}

/// What is told about a pod when its worker begins.
pub(crate) struct Beginning {
    pub(crate) pod: Arc<Pod>,
    /// Refused by admission.
    pub(crate) rejected: Option<Rejection>,
    /// The runtime has something of it already.
    pub(crate) known_to_runtime: bool,
    /// No source has it: it is only to be removed.
    pub(crate) orphan: bool,
}

pub(crate) struct Worker {
    shared: Arc<Shared>,
    uid: String,
    /// The pod as its source has it.
    wanted: Arc<Pod>,
    /// The pod with what it was allocated.
    pod: Arc<Pod>,
    allocation: Allocation,
    /// Why what is asked for is not allocated.
    pending: Option<Verdict>,
    /// How often the runtime was told of a resize that isn't complete.
    resizing: Option<u32>,
    mirror: Option<Arc<Pod>>,
    inbox: mpsc::UnboundedReceiver<Message>,
    own: mpsc::UnboundedSender<Message>,
    observed: Observed,
    /// The runtime was asked since the last doubt.
    read: bool,
    read_again: Backoff,
    /// Containers that were removed last; reports about them come late.
    gone: VecDeque<String>,
    results: Results,
    probes: Probes,
    reasons: Reasons,
    restarts: BackOff,
    told_waits: HashSet<(String, Timestamp)>,
    references: Arc<References>,
    volumes: Option<Volumes>,
    stale_volumes: bool,
    hooked: Stopped,
    life: Life,
    removed: bool,
    rejected: Option<Rejection>,
    evicted: Option<Eviction>,
    grace: Option<i64>,
    step: Option<Step>,
    step_began: Instant,
    retries: BackOff,
    retry_at: Option<Timestamp>,
    status: PodStatus,
    /// The phase before it was held back.
    computed_phase: String,
    report: report::Report,
    cleaned: bool,
    deleted: bool,
    purged: bool,
}

impl Worker {
    /// Begins a worker; it ends when the pod is gone from the source and from the node.
    pub(crate) fn spawn(shared: &Arc<Shared>, beginning: Beginning, ended: mpsc::UnboundedSender<String>) {
        let (own, inbox) = mpsc::unbounded_channel();
        let pod = beginning.pod;
        let status = pod.status.clone().unwrap_or_default();
        // One that was refused takes no room of the next.
        let finished = beginning.rejected.is_some();
        shared.pods.insert(
            Snapshot { pod: pod.clone(), status: Arc::new(status.clone()), observed: Arc::default(), finished },
            own.clone(),
        );
        let allocation = if beginning.known_to_runtime && !beginning.orphan {
            resize::remembered(&pod, &status)
        } else {
            resize::asked(&pod)
        };
        let worker = Self {
            wanted: pod.clone(),
            pending: None,
            resizing: None,
            uid: pod.uid().to_owned(),
            report: report::Report::new(&pod),
            shared: shared.clone(),
            mirror: None,
            inbox,
            own,
            observed: Observed::default(),
            read: !beginning.known_to_runtime,
            read_again: Backoff::default(),
            gone: VecDeque::new(),
            results: Results::default(),
            probes: Probes::default(),
            reasons: Reasons::new(),
            restarts: BackOff::new(RESTARTS),
            told_waits: HashSet::new(),
            references: Arc::default(),
            volumes: None,
            stale_volumes: false,
            hooked: Stopped::default(),
            life: Life::Running,
            removed: beginning.orphan,
            rejected: beginning.rejected,
            evicted: None,
            grace: None,
            step: None,
            step_began: Instant::now(),
            retries: BackOff::new(MOUNTS),
            retry_at: None,
            status,
            computed_phase: String::new(),
            cleaned: false,
            deleted: false,
            purged: false,
            pod: resize::allocated(&pod, &allocation),
            allocation,
        };
        shared.workers.spawn(async move {
            let uid = worker.uid.clone();
            worker.run().await;
            // The kubelet may be stopping.
            let _ = ended.send(uid);
        });
    }

    async fn run(mut self) {
        if !self.removed && self.rejected.is_none() {
            self.refer();
        }
        let stop = self.shared.stop.clone();
        loop {
            if !self.read {
                self.read_runtime().await;
            }
            self.advance();
            if self.purged {
                break;
            }
            let wake = self.wake_at();
            tokio::select! {
                message = self.inbox.recv() => {
                    let Some(message) = message else { break };
                    self.take(message);
                }
                done = steps::finished(&mut self.step) => self.ended(done),
                answer = self.report.answered() => self.report.take(answer, &self.pod),
                () = sleep_until(wake) => {}
                () = stop.cancelled() => break,
            }
            // What a step reported before it ended counts before the next one is chosen.
            while let Ok(message) = self.inbox.try_recv() {
                self.take(message);
            }
        }
        if self.purged {
            self.shared.pods.remove(&self.uid);
        }
        self.shared.objects.release(&self.uid);
        self.shared.tokens.forget(&self.uid);
        self.shared.images.forget_pod(&self.uid);
        if let Some(step) = self.step.take() {
            // What the runtime was asked to do, it does. A kubelet that starts after this one must find it done.
            step.cancel.cancel();
            if let Err(error) = step.task.await {
                tracing::error!(uid = self.uid, %error, "the last step of a pod broke off");
            }
        }
    }

    /// Watches the objects that the pod refers to.
    fn refer(&mut self) {
        let references = references(&self.pod);
        if *self.references == references {
            return;
        }
        let own = self.own.clone();
        let notify: Notify = Arc::new(move || {
            // A worker that ended needs to hear nothing.
            let _ = own.send(Message::ObjectsChanged);
        });
        self.shared.objects.acquire(&self.uid, self.pod.namespace(), &references, &notify);
        self.references = Arc::new(references);
    }

    async fn read_runtime(&mut self) {
        match reader::read(&self.shared.cri, &self.uid).await {
            Ok(observed) => {
                self.replace(observed);
                self.read = true;
                self.read_again = Backoff::default();
            }
            Err(status) => {
                let (pod, status) = (self.pod.display(), rpc::text(&status));
                tracing::debug!(pod, status, "the runtime could not be read; trying again");
                tokio::select! {
                    () = tokio::time::sleep(self.read_again.pause()) => {}
                    () = self.shared.stop.cancelled() => {}
                }
            }
        }
    }

    /// Takes the runtime's whole view in place of ours.
    fn replace(&mut self, new: Observed) {
        let known = std::mem::take(&mut self.observed);
        for sandbox in new.sandboxes {
            if let Some(old) = known.sandboxes.iter().find(|old| old.id == sandbox.id) {
                self.observed.merge_sandbox(old.clone());
            }
            self.observed.merge_sandbox(sandbox);
        }
        for container in new.containers {
            if let Some(old) = known.by_id(&container.id) {
                self.observed.merge_container(old.clone());
            }
            self.see(container);
        }
    }

    fn see(&mut self, mut container: Container) {
        if self.gone.iter().any(|gone| *gone == container.id) {
            return;
        }
        if self.observed.by_id(&container.id).is_none_or(|old| old.state != container.state) {
            reader::last_words(&mut container);
        }
        self.observed.merge_container(container);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Update(pod) => self.update(pod),
            Message::Mirror(mirror) => {
                if let Some(mirror) = &mirror {
                    self.report.saw(mirror);
                    if self.mirror.is_none() && self.status.phase.is_none() {
                        self.status = mirror.status.clone().unwrap_or_default();
                    }
                }
                self.mirror = mirror;
            }
            Message::Removed => self.removed = true,
            Message::Evict(eviction) => {
                if self.evicted.is_none() {
                    self.grace = eviction.grace;
                    self.evicted = Some(eviction);
                }
            }
            Message::Event(event) => self.event(&event),
            Message::Relist => self.read = false,
            Message::RoomMade => {
                if matches!(self.pending, Some(Verdict::Deferred(_))) {
                    self.allocate();
                }
            }
            Message::Read(observed) => self.replace(*observed),
            Message::ObjectsChanged => {
                self.stale_volumes = true;
                // What was missing may be there now.
                self.retry_at = None;
            }
            Message::Probed { container, kind, outcome } => {
                self.results.set(&container, kind, outcome);
            }
            Message::MadeSandbox(sandbox) => {
                self.observed.merge_sandbox(*sandbox);
            }
            Message::Started { name, container } => {
                self.reasons.remove(&name);
                match container {
                    Some(container) => self.see(*container),
                    // It must be seen before it is decided what is missing.
                    None => self.read = false,
                }
            }
            Message::NotStarted { name, reason } => {
                self.reasons.insert(name, reason);
                // One that was made but not started is in the runtime.
                self.read = false;
            }
            Message::RemovedContainers(ids) => {
                for id in ids {
                    self.forget(&id);
                }
            }
        }
    }

    fn update(&mut self, pod: Arc<Pod>) {
        if !pod.is_static() {
            self.report.saw(&pod);
        }
        let shown = |pod: &Pod| (pod.metadata.labels.clone(), pod.metadata.annotations.clone());
        if shown(&self.wanted) != shown(&pod) {
            self.stale_volumes = true;
        }
        let grace = |pod: &Pod| pod.metadata.deletion_grace_period_seconds;
        let shortened = match (grace(&self.wanted), grace(&pod)) {
            (Some(old), Some(new)) => new < old,
            _ => false,
        };
        let respecified = self.wanted.spec != pod.spec;
        self.wanted = pod;
        self.allocate();
        if respecified && self.life == Life::Running {
            self.refer();
            self.retry_at = None;
        }
        if shortened && let Some(step) = self.step.as_ref().filter(|step| step.kind == StepKind::Kill) {
            // Begun again with less time.
            step.cancel.cancel();
        }
    }

    fn event(&mut self, event: &v1::ContainerEventResponse) {
        let kind = v1::ContainerEventType::try_from(event.container_event_type);
        if let Some(sandbox) = &event.pod_sandbox_status {
            self.observed.merge_sandbox(Sandbox::from_cri(sandbox));
        }
        for status in &event.containers_statuses {
            if let Some(container) = Container::from_cri(status) {
                self.see(container);
            }
        }
        if kind == Ok(v1::ContainerEventType::ContainerDeletedEvent) {
            self.forget(&event.container_id);
        } else if event.containers_statuses.iter().all(|status| status.id != event.container_id)
            && event.pod_sandbox_status.as_ref().is_none_or(|sandbox| sandbox.id != event.container_id)
        {
            // The report doesn't tell the state; ask.
            self.read = false;
        }
    }

    fn forget(&mut self, id: &str) {
        if self.gone.len() == MOST_GONE {
            self.gone.pop_front();
        }
        self.gone.push_back(id.to_owned());
        self.hooked.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.observed.remove_container(id);
        self.observed.sandboxes.retain(|sandbox| sandbox.id != id);
    }
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let wait = at.duration_since(Timestamp::now());
            if wait.is_positive() {
                tokio::time::sleep(wait.unsigned_abs()).await;
            } else {
                // All pods share one thread: whoever is late lets the others go on too.
                tokio::task::yield_now().await;
            }
        }
        None => std::future::pending().await,
    }
}
