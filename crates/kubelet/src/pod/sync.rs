//! Carrying out a plan: kill, prepare, make the sandbox, start.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, sync::Arc};

use cri::v1;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    cleanup::{self, Logs},
    kill::{Killer, Stopped},
    observed::{Observed, Sandbox},
    plan::{Plan, spec_of},
    reader,
    start::Starter,
    status::Reason,
    worker::Message,
};
use crate::{
    container::sandbox,
    events::Severity,
    kubelet::Shared,
    objects::References,
    resources, rpc,
    spec::{PodExt, Role, is_sidecar},
    volume::{self, Surroundings, Volumes},
};

/// One plan to carry out.
pub(crate) struct Job {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) plan: Plan,
    pub(crate) observed: Observed,
    /// The volumes, if they are ready.
    pub(crate) volumes: Option<Volumes>,
    pub(crate) references: Arc<References>,
    pub(crate) hooked: Stopped,
    pub(crate) cancel: CancellationToken,
    pub(crate) inbox: mpsc::UnboundedSender<Message>,
}

/// How it went.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The volumes, once they are ready.
    pub(crate) volumes: Option<Volumes>,
    /// When to try again what failed; `None` if nothing did or only an event can help.
    pub(crate) retry: Retry,
}

/// When to try again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Nothing failed.
    #[default]
    No,
    /// With growing waits.
    BackOff,
    /// At this time.
    At(Timestamp),
}

impl Retry {
    /// The sooner of two known times; a failure without one counts as later.
    fn and(self, other: Retry) -> Retry {
        match (self, other) {
            (Retry::At(a), Retry::At(b)) => Retry::At(a.min(b)),
            (Retry::No, other) => other,
            (own, Retry::No) => own,
            (Retry::BackOff, _) | (_, Retry::BackOff) => Retry::BackOff,
        }
    }
}

impl Job {
    fn say(&self, message: Message) {
        // A worker that is gone needs no answer.
        let _ = self.inbox.send(message);
    }

    fn warn(&self, reason: &'static str, message: String) {
        self.shared.events.pod(&self.pod, Severity::Warning, reason, message);
    }

    /// Carries the plan out.
    pub(crate) async fn run(mut self) -> Outcome {
        let mut outcome = Outcome::default();
        let killer = Killer {
            shared: &self.shared,
            pod: &self.pod,
            observed: &self.observed,
            grace: None,
            hooked: &self.hooked,
            cancel: &self.cancel,
        };
        if self.plan.kill_pod {
            let replaced = self.plan.create_sandbox && self.plan.sandbox.is_some();
            if replaced {
                let message = "Pod sandbox changed, it will be killed and re-created.";
                self.shared.events.pod(&self.pod, Severity::Normal, "SandboxChanged", message);
            }
            if self.observed.is_alive() {
                if !killer.pod().await {
                    outcome.retry = Retry::BackOff;
                    return outcome;
                }
                self.look_again().await;
            }
            if replaced {
                // In a new sandbox the init containers run again, so the traces of those before
                // must go.
                self.remove_containers(|pod, name| pod.init_containers().iter().any(|spec| spec.name == name)).await;
            }
        } else if self.plan.restart_all.is_some() {
            if !killer.containers().await {
                outcome.retry = Retry::BackOff;
                return outcome;
            }
            self.look_again().await;
            self.remove_containers(|_, _| true).await;
            return outcome;
        } else {
            for kill in &self.plan.kills {
                if !killer.container(&kill.id, &kill.message, kill.reason).await {
                    outcome.retry = Retry::BackOff;
                    return outcome;
                }
            }
        }
        if self.plan.kill_pod && !self.plan.create_sandbox {
            return outcome;
        }
        if self.cancel.is_cancelled() || (self.plan.starts.is_empty() && !self.plan.create_sandbox) {
            return outcome;
        }
        let began = std::time::Instant::now();
        let prepared = self.prepare().await;
        tracing::debug!(pod = self.pod.display(), took = ?began.elapsed(), "prepared the pod's cgroup and volumes");
        match prepared {
            Ok(volumes) => outcome.volumes = Some(volumes),
            Err(retry) => {
                outcome.retry = retry;
                return outcome;
            }
        }
        if self.cancel.is_cancelled() {
            return outcome;
        }
        let volumes = outcome.volumes.clone().unwrap_or_default();
        outcome.retry = self.start_all(&volumes).await;
        outcome
    }

    /// Removes containers of some names and tells the worker.
    async fn remove_containers(&mut self, which: impl Fn(&Pod, &str) -> bool) {
        let mut gone = Vec::new();
        for container in &self.observed.containers {
            if which(&self.pod, &container.name) {
                cleanup::container(&self.shared, &self.pod, container, Logs::Keep).await;
                gone.push(container.id.clone());
            }
        }
        for id in &gone {
            self.observed.remove_container(id);
        }
        if !gone.is_empty() {
            self.say(Message::RemovedContainers(gone));
        }
    }

    /// Reads the runtime's view anew and tells the worker.
    async fn look_again(&mut self) {
        match reader::read(&self.shared.cri, self.pod.uid()).await {
            Ok(observed) => {
                self.observed = observed.clone();
                self.say(Message::Read(Box::new(observed)));
            }
            Err(status) => tracing::debug!(status = rpc::text(&status), "the runtime could not be read"),
        }
    }

    /// Directories, cgroup and volumes.
    async fn prepare(&self) -> Result<Volumes, Retry> {
        let (shared, pod) = (&self.shared, &self.pod);
        let fresh = self.plan.create_sandbox || self.volumes.is_none();
        if fresh {
            if let Err(error) = make_dirs(shared, pod) {
                let message = format!("error making pod data directories: {error}");
                self.warn("Failed", message);
                return Err(Retry::BackOff);
            }
            let path = shared.cgroups.pod(resources::qos(pod), pod.uid());
            let limits = resources::pod_cgroup(pod, shared.cfg.pod_pids_limit);
            if let Err(error) = shared.cgroups.apply(&path, &limits) {
                self.warn("FailedCreatePodContainer", format!("unable to ensure pod container exists: {error}"));
                return Err(Retry::BackOff);
            }
        }
        if let Some(volumes) = &self.volumes
            && !fresh
        {
            return Ok(volumes.clone());
        }
        let objects = shared.objects.snapshot(pod.namespace(), &self.references).await;
        let node = shared.node.view();
        let around = Surroundings {
            cfg: &shared.cfg,
            client: &shared.client,
            tokens: &shared.tokens,
            objects: &objects,
            allocatable: &node.allocatable,
            pod_ips: self.observed.ips(),
            now: Timestamp::now(),
        };
        let (volumes, failures) = volume::set_up(pod, &around, false).await;
        if failures.is_empty() {
            return Ok(volumes);
        }
        for failure in failures {
            self.warn("FailedMount", failure.event());
        }
        Err(Retry::BackOff)
    }

    /// The sandbox, if it is to be made, and the containers.
    async fn start_all(&mut self, volumes: &Volumes) -> Retry {
        let shared = self.shared.clone();
        let pod = self.pod.clone();
        let parent = shared.cgroups.pod(resources::qos(&pod), pod.uid());
        let made = sandbox::config(&pod, self.plan.attempt, &shared.cfg, &shared.host_dns, parent);
        let (config, warnings) = match made {
            Ok(made) => made,
            Err(why) => {
                self.warn("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {why}"));
                return Retry::BackOff;
            }
        };
        for (reason, message) in warnings {
            self.warn(reason, message);
        }
        if self.plan.create_sandbox
            && let Err(retry) = self.make_sandbox(&config).await
        {
            return retry;
        }
        let Some(sandbox) = self.plan.sandbox.clone() else {
            return Retry::BackOff;
        };
        let objects = shared.objects.snapshot(pod.namespace(), &self.references).await;
        let pod_ips = if pod.is_host_network() {
            shared.cfg.node_ips.iter().map(ToString::to_string).collect()
        } else {
            super::status::sort_ips(self.observed.ips(), &shared.cfg.node_ips)
        };
        let starter = Starter {
            shared: &shared,
            pod: &pod,
            observed: &self.observed,
            sandbox: &sandbox,
            sandbox_config: &config,
            pod_ips: &pod_ips,
            volumes,
            objects: &objects,
            cancel: &self.cancel,
        };
        let mut retry = Retry::No;
        for start in &self.plan.starts {
            if self.cancel.is_cancelled() {
                return retry;
            }
            let Some(spec) = spec_of(&pod, *start) else { continue };
            let target = (start.role == Role::Ephemeral)
                .then(|| pod.ephemeral_containers()[start.index].target_container_name.as_deref())
                .flatten()
                .filter(|target| !target.is_empty());
            match starter.start(start.role, &spec, target).await {
                Ok(seen) => self.say(Message::Started { name: spec.name.clone(), container: seen.map(Box::new) }),
                Err(failure) => {
                    retry = retry.and(failure.retry_at.map_or(Retry::BackOff, Retry::At));
                    self.say(Message::NotStarted {
                        name: spec.name.clone(),
                        reason: Reason { reason: failure.reason, message: failure.message },
                    });
                    if start.role == Role::Init && !is_sidecar(&spec) {
                        break;
                    }
                }
            }
        }
        retry
    }

    async fn make_sandbox(&mut self, config: &v1::PodSandboxConfig) -> Result<(), Retry> {
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        let handler = match shared.runtime_handler(&pod).await {
            Ok(handler) => handler,
            Err(why) => {
                self.warn("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {why}"));
                return Err(Retry::BackOff);
            }
        };
        if let Err(error) = fs::create_dir_all(&config.log_directory) {
            let message = format!(
                "Failed to create pod sandbox: create pod log directory for pod {:?} failed: {error}",
                pod.display()
            );
            self.warn("FailedCreatePodSandBox", message);
            return Err(Retry::BackOff);
        }
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: handler };
        let began = std::time::Instant::now();
        let answer = shared.cri.runtime().run_pod_sandbox(request).await;
        tracing::debug!(pod = pod.display(), took = ?began.elapsed(), "the runtime made a sandbox");
        let id = match answer {
            Ok(answer) => answer.into_inner().pod_sandbox_id,
            Err(status) => {
                if !self.cancel.is_cancelled() {
                    let message = format!("Failed to create pod sandbox: {}", rpc::text(&status));
                    self.warn("FailedCreatePodSandBox", message);
                }
                return Err(Retry::BackOff);
            }
        };
        match reader::sandbox(&shared.cri, &id).await {
            Ok(Some(status)) => {
                let sandbox = Sandbox::from_cri(&status);
                self.observed.merge_sandbox(sandbox.clone());
                self.say(Message::MadeSandbox(Box::new(sandbox)));
            }
            Ok(None) => return Err(Retry::BackOff),
            Err(status) => {
                let message = format!("Unable to get pod sandbox status: {}", rpc::text(&status));
                self.warn("FailedPodSandBoxStatus", message);
                return Err(Retry::BackOff);
            }
        }
        self.plan.sandbox = Some(id);
        Ok(())
    }
}

fn make_dirs(shared: &Shared, pod: &Pod) -> io::Result<()> {
    let dir = shared.cfg.pod_dir(pod.uid());
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o750);
    builder.create(dir.join("volumes"))?;
    builder.create(dir.join("plugins"))
}
