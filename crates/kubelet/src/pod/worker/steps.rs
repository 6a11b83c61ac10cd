//! The steps of a pod: one at a time, each a task that the worker waits for while it goes on
//! listening.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Life, Worker};
use crate::{
    events::Severity,
    pod::{
        cleanup,
        kill::Killer,
        observed::{State, time},
        plan::spec_of,
        status::{RESTARTING_ALL, RESTARTING_ALL_MESSAGE, Reason},
        sync::{Job, Outcome, Retry},
    },
    spec::PodExt,
    volume::{self, Surroundings, Volumes},
};

/// A step that is being carried out.
pub(super) struct Step {
    pub(super) task: JoinHandle<Done>,
    pub(super) cancel: CancellationToken,
    pub(super) kind: StepKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepKind {
    /// Carries out a plan.
    Sync,
    /// Brings the content of volumes up to date.
    Refresh,
    /// Gives containers what they were allocated.
    Resize,
    /// Stops the pod.
    Kill,
    /// Gives back what it had on the node.
    CleanUp,
    /// Deletes it from the API.
    Delete,
    /// Removes its last traces.
    Purge,
}

/// How a step ended.
pub(super) enum Done {
    Synced(Outcome),
    Refreshed(Option<Volumes>, Vec<volume::Failure>),
    Resized(Result<(), String>),
    Killed(bool),
    CleanedUp(bool),
    Deleted(bool),
    Purged(bool),
}

/// Waits for the step; for ever if there is none. `None`: it panicked.
pub(super) async fn finished(step: &mut Option<Step>) -> Option<Done> {
    match step {
        Some(step) => (&mut step.task).await.ok(),
        None => std::future::pending().await,
    }
}

impl Worker {
    pub(super) fn begin(
        &mut self,
        kind: StepKind,
        task: impl Future<Output = Done> + Send + 'static,
        cancel: CancellationToken,
    ) {
        self.step_began = Instant::now();
        self.step = Some(Step { task: tokio::spawn(task), cancel, kind });
    }

    /// Begins what is to be done next, if anything.
    pub(super) fn next_step(&mut self, now: Timestamp) {
        if !self.read {
            return;
        }
        match self.life {
            Life::Running => self.next_running(now),
            Life::Terminating => self.begin_kill(),
            Life::Terminated if !self.cleaned => self.begin_clean_up(),
            Life::Terminated if self.removed => self.begin_purge(),
            Life::Terminated => {
                let due = self.pod.is_deleted() && !self.pod.is_static() && !self.deleted;
                if due && self.report.is_settled(&self.status) {
                    self.begin_delete();
                }
            }
        }
    }

    fn next_running(&mut self, now: Timestamp) {
        let mut plan = self.plan();
        if plan.is_idle(&self.observed) {
            self.restart_resized(&mut plan);
        }
        if !plan.is_idle(&self.observed) {
            if let Some(cause) = &plan.restart_all {
                self.say_restarting_all(cause.clone(), now);
            }
            for start in &plan.starts {
                let Some(spec) = spec_of(&self.pod, *start) else { continue };
                let mut dead = self.observed.containers.iter();
                let dead = dead.find(|c| c.name == spec.name && c.state == State::Exited);
                if let Some(finished) = dead.and_then(|dead| time(dead.finished_at)) {
                    self.restarts.next(&spec.name, finished, now);
                }
            }
            let cancel = CancellationToken::new();
            let job = Job {
                shared: self.shared.clone(),
                pod: self.pod.clone(),
                plan,
                observed: self.observed.clone(),
                volumes: self.volumes.clone(),
                references: self.references.clone(),
                hooked: self.hooked.clone(),
                cancel: cancel.clone(),
                inbox: self.own.clone(),
            };
            self.begin(StepKind::Sync, async move { Done::Synced(job.run().await) }, cancel);
            return;
        }
        self.forget_old_containers();
        if self.begin_resize() {
            return;
        }
        let due = self.shared.tokens.next_refresh(&self.uid).is_some_and(|at| at <= now);
        let unknown = self.volumes.is_none() && self.observed.running().next().is_some();
        if unknown || ((self.stale_volumes || due) && self.volumes.is_some()) {
            self.stale_volumes = false;
            self.begin_refresh(unknown);
        }
    }

    /// All containers wait to begin anew, and the one that was the cause waits longer each time.
    fn say_restarting_all(&mut self, cause: String, now: Timestamp) {
        self.restarts.next(&cause, now, now);
        let inits = self.pod.init_containers().iter();
        for spec in inits.chain(self.pod.containers()) {
            let reason = Reason { reason: RESTARTING_ALL.to_owned(), message: RESTARTING_ALL_MESSAGE.to_owned() };
            self.reasons.insert(spec.name.clone(), reason);
        }
    }

    fn begin_refresh(&mut self, all: bool) {
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        let (references, ips) = (self.references.clone(), self.observed.ips().to_vec());
        let refresh = async move {
            let objects = shared.objects.snapshot(pod.namespace(), &references).await;
            let node = shared.node.view();
            let around = Surroundings {
                cfg: &shared.cfg,
                client: &shared.client,
                tokens: &shared.tokens,
                objects: &objects,
                allocatable: &node.allocatable,
                pod_ips: &ips,
                now: Timestamp::now(),
            };
            let (volumes, failures) = volume::set_up(&pod, &around, !all).await;
            Done::Refreshed(all.then_some(volumes), failures)
        };
        self.begin(StepKind::Refresh, refresh, CancellationToken::new());
    }

    fn begin_kill(&mut self) {
        if !self.observed.is_alive() {
            return;
        }
        let cancel = CancellationToken::new();
        let (shared, pod, observed) = (self.shared.clone(), self.pod.clone(), self.observed.clone());
        let (hooked, grace, token) = (self.hooked.clone(), self.grace, cancel.clone());
        let kill = async move {
            let killer =
                Killer { shared: &shared, pod: &pod, observed: &observed, grace, hooked: &hooked, cancel: &token };
            let killed = killer.pod().await;
            Done::Killed(killed || token.is_cancelled())
        };
        self.begin(StepKind::Kill, kill, cancel);
    }

    fn begin_clean_up(&mut self) {
        let (shared, uid) = (self.shared.clone(), self.uid.clone());
        let clean = async move { Done::CleanedUp(cleanup::node(&shared, &uid).await) };
        self.begin(StepKind::CleanUp, clean, CancellationToken::new());
    }

    fn begin_delete(&mut self) {
        let (client, pod) = (self.shared.client.clone(), self.pod.clone());
        let delete = async move { Done::Deleted(cleanup::delete_from_api(client, &pod).await) };
        self.begin(StepKind::Delete, delete, CancellationToken::new());
    }

    fn begin_purge(&mut self) {
        let (shared, pod, observed) = (self.shared.clone(), self.pod.clone(), self.observed.clone());
        let purge = async move { Done::Purged(cleanup::runtime(&shared, &pod, &observed).await) };
        self.begin(StepKind::Purge, purge, CancellationToken::new());
    }

    /// Of each container's dead instances only the last is kept.
    fn forget_old_containers(&mut self) {
        let mut seen = std::collections::HashSet::new();
        let mut old = Vec::new();
        for container in self.observed.containers.iter().filter(|c| c.state == State::Exited) {
            if !seen.insert(container.name.clone()) {
                old.push(container.clone());
            }
        }
        if old.is_empty() {
            return;
        }
        for container in &old {
            self.forget(&container.id);
        }
        let (shared, pod) = (self.shared.clone(), Arc::clone(&self.pod));
        tokio::spawn(async move {
            for container in old {
                cleanup::container(&shared, &pod, &container, cleanup::Logs::Remove).await;
            }
        });
    }

    /// Takes in how a step ended.
    pub(super) fn ended(&mut self, done: Option<Done>) {
        let kind = self.step.take().map(|step| step.kind);
        let mut again = false;
        match done {
            Some(Done::Synced(outcome)) => {
                if outcome.volumes.is_some() {
                    self.volumes = outcome.volumes;
                }
                match outcome.retry {
                    Retry::No => self.retries.forget(""),
                    Retry::At(at) => self.retry_at = Some(at),
                    Retry::BackOff => again = true,
                }
            }
            Some(Done::Refreshed(volumes, failures)) => {
                for failure in &failures {
                    self.shared.events.pod(&self.pod, Severity::Warning, "FailedMount", failure.event());
                }
                if failures.is_empty() {
                    self.volumes = volumes.or(self.volumes.take());
                } else {
                    self.stale_volumes = true;
                    again = true;
                }
            }
            Some(Done::Resized(result)) => {
                // What the containers have now, the runtime tells.
                self.read = false;
                if let Err(why) = result {
                    self.shared.events.pod(&self.pod, Severity::Warning, "ResizeError", why);
                    again = true;
                }
            }
            Some(Done::Killed(all)) => {
                // The runtime knows best what is left.
                self.read = false;
                again = !all;
            }
            Some(Done::CleanedUp(all)) => {
                self.cleaned = all;
                again = !all;
            }
            Some(Done::Deleted(all)) => {
                self.deleted = all;
                again = !all;
            }
            Some(Done::Purged(all)) => {
                self.purged = all;
                again = !all;
            }
            None => {
                tracing::error!(pod = self.pod.display(), ?kind, "a step of the pod broke off; trying again");
                self.read = false;
                again = true;
            }
        }
        if again {
            let now = Timestamp::now();
            self.retries.next("", now, now);
            self.retry_at = Some(now + self.retries.wait("").min(Duration::from_secs(10)));
        }
    }
}
