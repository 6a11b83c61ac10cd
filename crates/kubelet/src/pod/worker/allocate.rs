//! Resizing: from what the pod asks for to what its containers have.

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{
    Life, Worker,
    steps::{Done, StepKind},
};
use crate::{
    events::Severity,
    pod::{
        plan::{Kill, KillReason, Plan, Start},
        resize::{self, Change, Verdict},
        view::Snapshot,
    },
    resources, rpc,
    spec::{PodExt, Role},
};

/// A runtime that doesn't do what it is told is not told for ever.
const TRIES: u32 = 3;

impl Worker {
    /// Allocates what the pod asks for, if the node has it, and settles what the pod is to have.
    pub(super) fn allocate(&mut self) {
        let asked = resize::asked(&self.wanted);
        if resize::same(&asked, &self.allocation) || self.life != Life::Running {
            self.pending = None;
        } else if self.observed.containers.is_empty() {
            // Nothing runs yet that would have to be changed.
            self.allocation = asked;
            self.pending = None;
        } else {
            let verdict = self.judge();
            match &verdict {
                Verdict::Accepted => {
                    self.allocation = asked;
                    self.pending = None;
                    let message = format!("Pod resize started: {}", self.wish());
                    self.shared.events.pod(&self.wanted, Severity::Normal, "ResizeStarted", message);
                    self.resizing = Some(0);
                }
                Verdict::Deferred(why) | Verdict::Infeasible(why) => {
                    if self.pending.as_ref() != Some(&verdict) {
                        let (reason, word) = match verdict {
                            Verdict::Deferred(_) => ("ResizeDeferred", "Deferred"),
                            _ => ("ResizeInfeasible", "Infeasible"),
                        };
                        let message = format!("Pod resize {word}: {}: {why}", self.wish());
                        self.shared.events.pod(&self.wanted, Severity::Warning, reason, message);
                    }
                    self.pending = Some(verdict);
                }
            }
        }
        self.pod = resize::allocated(&self.wanted, &self.allocation);
    }

    fn judge(&self) -> Verdict {
        let others: Vec<Snapshot> =
            self.shared.pods.all().into_iter().filter(|other| !other.finished && other.pod.uid() != self.uid).collect();
        let others: Vec<&Pod> = others.iter().map(|other| &*other.pod).collect();
        resize::admit(&self.wanted, &self.shared.node.view().allocatable, &others)
    }

    /// What is asked for, as events tell it.
    fn wish(&self) -> String {
        let containers: Vec<_> = resize::asked(&self.wanted)
            .into_iter()
            .map(|(name, resources)| json!({"name": name, "resources": resources}))
            .collect();
        json!({"containers": containers, "generation": self.wanted.metadata.generation}).to_string()
    }

    /// The containers that must be started anew to get what they were allocated, as additions to a
    /// plan that has nothing else to do.
    pub(super) fn restart_resized(&self, plan: &mut Plan) {
        if self.resizing.is_none() {
            return;
        }
        let changes = resize::changes(&self.pod, &self.observed, &self.shared.limits);
        for change in changes.into_iter().filter(|change| change.restart) {
            let place = |specs: &[Container]| specs.iter().position(|spec| spec.name == change.name);
            let regular = place(self.pod.containers()).map(|index| Start { role: Role::Regular, index });
            let init = || place(self.pod.init_containers()).map(|index| Start { role: Role::Init, index });
            plan.starts.extend(regular.or_else(init));
            plan.kills.push(Kill {
                message: format!("Container {} resize requires restart", change.name),
                id: change.id,
                name: change.name,
                reason: KillReason::Resize,
            });
        }
    }

    /// Gives containers what they were allocated; returns whether there was something to do.
    pub(super) fn begin_resize(&mut self) -> bool {
        let Some(tries) = self.resizing else {
            // Containers may differ because the runtime rounds; nobody asked for a change.
            return false;
        };
        let changes = resize::changes(&self.pod, &self.observed, &self.shared.limits);
        if changes.is_empty() {
            self.resizing = None;
            let message = format!("Pod resize completed: {}", self.wish());
            self.shared.events.pod(&self.wanted, Severity::Normal, "ResizeCompleted", message);
            return false;
        }
        if tries >= TRIES {
            self.resizing = None;
            let message = format!("Pod resize error: the runtime does not give what it was asked for: {}", self.wish());
            self.shared.events.pod(&self.wanted, Severity::Warning, "ResizeError", message);
            return false;
        }
        self.resizing = Some(tries + 1);
        let (shared, pod) = (self.shared.clone(), self.pod.clone());
        let resize = async move {
            let path = shared.cgroups.pod(resources::qos(&pod), pod.uid());
            let limits = resources::pod_cgroup(&pod, shared.cfg.pod_pids_limit);
            // Room is made before it is used; a pod's limit that shrinks may have to wait for its
            // containers'.
            let early = shared.cgroups.apply(&path, &limits);
            for change in changes {
                if let Err(why) = update(&shared.cri, change).await {
                    return Done::Resized(Err(why));
                }
            }
            let settled = early.or_else(|_| shared.cgroups.apply(&path, &limits));
            Done::Resized(settled.map_err(|error| error.to_string()))
        };
        self.begin(StepKind::Resize, resize, CancellationToken::new());
        true
    }
}

async fn update(cri: &cri::Client, change: Change) -> Result<(), String> {
    let request = cri::v1::UpdateContainerResourcesRequest {
        container_id: change.id,
        linux: Some(change.limits),
        ..cri::v1::UpdateContainerResourcesRequest::default()
    };
    match cri.runtime().update_container_resources(request).await {
        Ok(_) => Ok(()),
        Err(status) => Err(format!("container {}: {}", change.name, rpc::text(&status))),
    }
}
