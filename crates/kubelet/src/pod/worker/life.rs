//! Where the pod is in its life, what is said about it, and when to look again.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{Eviction, Life, Worker, steps::StepKind};
use crate::{
    events::Severity,
    pod::{
        conditions,
        phase::{FAILED, SUCCEEDED},
        plan::{self, Plan},
        resize, status,
        view::Snapshot,
    },
    probe::run::Scene,
    spec::PodExt,
};

/// While containers are being started, the status waits this long, so that one report tells of
/// all that start together.
const GATHER: Duration = Duration::from_millis(150);

impl Worker {
    /// Decides the next step and what is to be said, after anything happened.
    pub(super) fn advance(&mut self) {
        self.settle_life();
        self.sync_probes();
        self.make_status();
        if self.life == Life::Running && matches!(self.computed_phase.as_str(), FAILED | SUCCEEDED) {
            self.terminate();
        }
        if self.life == Life::Terminating && self.read && self.step.is_none() && !self.observed.is_alive() {
            self.life = Life::Terminated;
            self.make_status();
        }
        let now = Timestamp::now();
        if self.step.is_none() && self.retry_at.is_none_or(|at| at <= now) {
            self.retry_at = None;
            self.next_step(now);
        }
        self.publish();
        self.tell_api();
    }

    fn settle_life(&mut self) {
        if self.life != Life::Running {
            return;
        }
        if self.rejected.is_some() {
            // Nothing of it ever was here.
            self.life = Life::Terminated;
            self.cleaned = true;
            return;
        }
        let now = Timestamp::now();
        if self.evicted.is_none() && self.deadline().is_some_and(|deadline| deadline <= now) {
            let message = "Pod was active on the node longer than the specified deadline";
            self.shared.events.pod(&self.pod, Severity::Normal, "DeadlineExceeded", message);
            self.evicted = Some(Eviction {
                reason: "DeadlineExceeded".to_owned(),
                message: message.to_owned(),
                grace: None,
                condition: None,
            });
        }
        if self.removed || self.evicted.is_some() || self.pod.is_deleted() || self.pod.is_terminal() {
            self.terminate();
        }
    }

    fn terminate(&mut self) {
        self.life = Life::Terminating;
        self.retry_at = None;
        if let Some(step) = &self.step
            && matches!(step.kind, StepKind::Sync | StepKind::Refresh)
        {
            step.cancel.cancel();
        }
    }

    /// When the pod has been active as long as it may be.
    fn deadline(&self) -> Option<Timestamp> {
        let seconds = u64::try_from(self.pod.spec().active_deadline_seconds?).ok()?;
        let start = self.status.start_time.as_ref()?.0;
        Some(start + Duration::from_secs(seconds))
    }

    fn sync_probes(&mut self) {
        let scene = Scene {
            shared: &self.shared,
            pod: &self.pod,
            observed: &self.observed,
            reported: &self.status,
            inbox: &self.own,
            terminating: self.life != Life::Running,
        };
        self.probes.sync(&scene, &mut self.results);
    }

    pub(super) fn plan(&self) -> Plan {
        plan::plan(&plan::Input {
            pod: &self.pod,
            observed: &self.observed,
            probes: &self.results,
            restarts: &self.restarts,
            now: Timestamp::now(),
        })
    }

    fn make_status(&mut self) {
        let now = Timestamp::now();
        if let Some(rejected) = &self.rejected {
            let of_api = self.pod.status.clone().unwrap_or_default();
            self.status = k8s_openapi::api::core::v1::PodStatus {
                phase: Some(FAILED.to_owned()),
                reason: Some(rejected.reason.clone()),
                message: Some(format!("Pod was rejected: {}", rejected.message)),
                qos_class: Some(crate::resources::qos(&self.pod).as_str().to_owned()),
                start_time: of_api.start_time.clone().or(self.status.start_time.clone()),
                observed_generation: self.pod.metadata.generation,
                ..of_api
            };
            if self.status.start_time.is_none() {
                self.status.start_time =
                    Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(status::seconds(now)));
            }
            return;
        }
        let starting = self.step.as_ref().is_some_and(|step| step.kind == StepKind::Sync);
        if self.life == Life::Running && !starting {
            self.explain_waits();
        }
        let runtime = self.shared.runtime_name();
        let mut new = status::generate(&status::Input {
            pod: &self.pod,
            observed: &self.observed,
            old: &self.status,
            reasons: &self.reasons,
            probes: &self.results,
            runtime: &runtime,
            host_ips: &self.shared.cfg.node_ips,
            stopping: self.life != Life::Running,
            terminal: self.life == Life::Terminated,
            resize: &resize::conditions(self.pod.metadata.generation, self.pending.as_ref(), self.resizing.is_some()),
            now,
        });
        if let Some(evicted) = &self.evicted {
            new.phase = Some(FAILED.to_owned());
            new.reason = Some(evicted.reason.clone());
            new.message = Some(evicted.message.clone());
            if let Some(condition) = &evicted.condition {
                let list = new.conditions.get_or_insert_default();
                if conditions::find(list, &condition.type_).is_none() {
                    list.push(condition.clone());
                }
            }
        }
        self.computed_phase = new.phase.clone().unwrap_or_default();
        if self.life == Life::Terminated {
            status::finish(&self.pod, &mut new);
        } else {
            status::hold_terminal_phase(&mut new, &self.status);
        }
        self.status = new;
    }

    /// Containers that wait after a crash say so.
    fn explain_waits(&mut self) {
        for wait in self.plan().waits {
            if self.told_waits.insert((wait.name.clone(), wait.until)) {
                let message =
                    format!("Back-off restarting failed container {} in pod {}", wait.name, self.pod.display());
                self.shared.events.container(&self.pod, wait.role, &wait.name, Severity::Warning, "BackOff", message);
            }
            let reason = status::Reason { reason: "CrashLoopBackOff".to_owned(), message: wait.message };
            self.reasons.insert(wait.name, reason);
        }
        let now = Timestamp::now();
        self.told_waits.retain(|(_, until)| *until > now);
    }

    fn publish(&self) {
        self.shared.pods.publish(Snapshot {
            pod: self.pod.clone(),
            status: self.status.clone().into(),
            observed: self.observed.clone().into(),
            finished: self.life == Life::Terminated,
        });
    }

    /// The pod in the API that the status is told of, if there is one.
    fn told(&self) -> Option<&Arc<Pod>> {
        match &self.mirror {
            Some(mirror) => Some(mirror),
            None if self.pod.is_static() || self.removed => None,
            None => Some(&self.pod),
        }
    }

    fn tell_api(&mut self) {
        let Some(target) = self.told().cloned() else { return };
        let starting = self.step.as_ref().is_some_and(|step| step.kind == StepKind::Sync);
        let hold = starting.then(|| GATHER.saturating_sub(self.step_began.elapsed()));
        self.report.send(&self.shared, &target, &self.status, hold);
    }

    /// When to look again although nothing happens.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        let mut wakes = Vec::new();
        if self.step.is_none() {
            wakes.extend(self.retry_at);
            if self.life == Life::Running && self.retry_at.is_none() {
                wakes.extend(self.plan().wake_at());
                let token = self.shared.tokens.next_refresh(&self.uid);
                wakes.extend(token.filter(|_| self.volumes.is_some()));
            }
        }
        if self.life == Life::Running {
            wakes.extend(self.deadline());
        }
        // A report that nobody is to have any more must not wake us: it would for ever.
        wakes.extend(self.report.wake_at().filter(|_| self.told().is_some()));
        wakes.into_iter().min()
    }
}
