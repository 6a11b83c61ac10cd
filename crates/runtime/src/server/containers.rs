//! Operations on containers that exist.

use std::{fs, sync::Arc, time::Duration};

use cri::v1::{ContainerEventType, ContainerFilter, ContainerState, LinuxContainerResources, Mount};

use super::{
    Runtime, blocking,
    error::{Result, RuntimeError},
    images::volume_name,
    names::container_name,
    record::{self, Finished, Status},
    shim_client::ShimError,
    state::{Container, lock, selects},
};
use crate::{
    shim::{
        now_nanos,
        process::ProcessSpec,
        protocol::{ContainerPlan, ErrorKind, Exit, Request, Response},
    },
    spec,
};

/// The plan, in a container's directory.
pub(super) const PLAN: &str = "plan.json";

/// Reasons, as everybody spells them.
pub(crate) const COMPLETED: &str = "Completed";
pub(crate) const ERROR: &str = "Error";
pub(crate) const OOM_KILLED: &str = "OOMKilled";
pub(crate) const START_ERROR: &str = "StartError";
pub(crate) const UNKNOWN: &str = "Unknown";

/// Exit codes for those that never ran, and for those whose end nobody saw.
const START_ERROR_CODE: i32 = 128;
pub(crate) const UNKNOWN_CODE: i32 = 255;

/// How long dying processes may take before the kill counts as failed.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Runtime {
    /// Starts a created container. One that can't be started ends with a reason, and with an error here.
    pub(crate) async fn start_container(self: Arc<Self>, id: String) -> Result<()> {
        let container = self.containers.get(&id)?;
        let sandbox = self.sandboxes.get(&container.sandbox)?;
        let _existing = sandbox.operation.read().await;
        let _exclusive = container.operation.lock().await;
        let state = container.state();
        if state != ContainerState::ContainerCreated {
            return Err(RuntimeError::FailedPrecondition(format!("container is in {} state", state.as_str_name())));
        }
        self.ready_shim(&sandbox)?;
        match self.launch(&container).await {
            Ok((pid, started_at)) => {
                {
                    // Once it is noted as running its end can be, by whom the shim tells; that is told after this.
                    let _saving = lock(&container.saving);
                    self.save_status_locked(&container, |status| {
                        status.pid = Some(pid);
                        status.started_at = Some(started_at);
                    })?;
                    self.tell(&container.id, &sandbox.id, ContainerEventType::ContainerStartedEvent);
                }
                // Its end may have been told before its start was noted.
                self.take_exit_record(&container);
                Ok(())
            }
            Err(error) => {
                let now = now_nanos();
                self.save_status(&container, |status| {
                    status.finished = Some(Finished {
                        at: now,
                        exit_code: START_ERROR_CODE,
                        reason: START_ERROR.into(),
                        message: error.chain(),
                    });
                })?;
                Err(error)
            }
        }
    }

    /// Starts it; its process, and when that started.
    async fn launch(self: &Arc<Self>, container: &Arc<Container>) -> Result<(i32, i64)> {
        let (runtime, prepared) = (Arc::clone(self), container.clone());
        let plan = blocking(move || runtime.prepare_launch(&prepared)).await?;
        let cgroup_dirs = plan.cgroup_dirs.clone();
        let request = Request::Start(Box::new(plan));
        let answer = self.shim(&container.sandbox).call_patiently(&request).await;
        match answer {
            Ok(Response::Started { pid, started_at }) => Ok((pid, started_at)),
            Ok(_) => Err(RuntimeError::Shim { doing: "start container".into(), source: ShimError::Unexpected }),
            Err(source) => {
                blocking(move || super::recovery::kill_and_remove_cgroup(&cgroup_dirs))
                    .await
                    .map_err(RuntimeError::io("remove the cgroup"))?;
                Err(RuntimeError::Shim {
                    doing: "create shim task: OCI runtime create failed: unable to start container process".into(),
                    source,
                })
            }
        }
    }

    fn prepare_launch(&self, container: &Container) -> Result<ContainerPlan> {
        let id = &container.id;
        let saved = self.read_plan(id)?;
        self.images.mount(id)?;
        for (number, mount) in container.config.mounts.iter().enumerate() {
            if is_image(mount) {
                self.images.mount(&volume_name(id, number))?;
            }
        }
        let cgroup = &saved.plan.cgroup;
        self.cgroups.create(cgroup)?;
        self.cgroups.restrict_devices(cgroup, &saved.device_rules)?;
        // Updates may have come since it was planned.
        let resources = spec::convert_resources(&lock(&container.resources));
        self.cgroups.apply(cgroup, &resources)?;
        Ok(saved.plan)
    }

    fn read_plan(&self, id: &str) -> Result<SavedPlan> {
        let path = self.layout.container(id).join(PLAN);
        let json = fs::read(path).map_err(RuntimeError::io(format!("read the plan of container {id}")))?;
        serde_json::from_slice(&json).map_err(RuntimeError::other(format!("read the plan of container {id}")))
    }

    /// The process that a running container runs, to derive executed ones from.
    pub(crate) fn container_process(&self, id: &str) -> Result<ProcessSpec> {
        Ok(self.read_plan(id)?.plan.process)
    }

    /// Changes a container's status, on disk first.
    pub(crate) fn save_status(&self, container: &Container, change: impl FnOnce(&mut Status)) -> Result<()> {
        let _saving = lock(&container.saving);
        self.save_status_locked(container, change)
    }

    fn save_status_locked(&self, container: &Container, change: impl FnOnce(&mut Status)) -> Result<()> {
        let mut record = container.record();
        change(&mut record.status);
        let dir = self.layout.container(&container.id);
        record::write_state(&dir, &record).map_err(RuntimeError::io(format!("save container {}", container.id)))?;
        container.update(|r| r.status = record.status);
        Ok(())
    }

    /// A container has ended, says its shim.
    pub(crate) fn container_exited(&self, container: &Container, exit: &Exit) {
        let reason = match exit {
            Exit { oom_killed: true, .. } => OOM_KILLED,
            Exit { code: 0, .. } => COMPLETED,
            _ => ERROR,
        };
        self.finish(
            container,
            Finished { at: exit.finished_at, exit_code: exit.code, reason: reason.into(), message: String::new() },
        );
    }

    /// Notes the end of a container that was running, and tells of it.
    pub(crate) fn finish(&self, container: &Container, finished: Finished) {
        {
            let _saving = lock(&container.saving);
            if container.state() != ContainerState::ContainerRunning {
                return;
            }
            let saved = self.save_status_locked(container, |status| {
                status.pid = None;
                status.finished = Some(finished.clone());
            });
            if let Err(error) = saved {
                let error = error.chain();
                tracing::error!(container = container.id, error, "the end of a container is not saved");
                container.update(|r| r.status.finished = Some(finished));
            }
        }
        self.tell(&container.id, &container.sandbox, ContainerEventType::ContainerStoppedEvent);
    }

    /// Stops a container: its signal first, SIGKILL to all after `grace`. One that is gone is fine.
    pub(crate) async fn stop_container(self: Arc<Self>, id: String, grace: Duration) -> Result<()> {
        let Some(container) = self.containers.find(&id)? else {
            return Ok(());
        };
        // Not exclusive while waiting: a second stop may shorten the first one's grace.
        if container.state() == ContainerState::ContainerRunning && !grace.is_zero() {
            let signal = container.record().stop_signal;
            self.signal_container(&container, signal, false).await?;
            if tokio::time::timeout(grace, container.ended()).await.is_ok() {
                return Ok(());
            }
        }
        let _exclusive = container.operation.lock().await;
        self.stop_container_locked(&container, Duration::ZERO).await
    }

    pub(crate) async fn stop_container_locked(
        self: &Arc<Self>,
        container: &Arc<Container>,
        grace: Duration,
    ) -> Result<()> {
        if container.state() != ContainerState::ContainerRunning {
            return Ok(());
        }
        if !grace.is_zero() {
            let signal = container.record().stop_signal;
            self.signal_container(container, signal, false).await?;
            if tokio::time::timeout(grace, container.ended()).await.is_ok() {
                return Ok(());
            }
        }
        self.signal_container(container, libc::SIGKILL, true).await?;
        match tokio::time::timeout(KILL_PATIENCE, container.ended()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(RuntimeError::DeadlineExceeded(format!(
                "container {} did not end after it was killed",
                container.id
            ))),
        }
    }

    async fn signal_container(&self, container: &Container, signal: i32, all: bool) -> Result<()> {
        let request = Request::Kill { container: container.id.clone(), signal, all };
        match self.shim(&container.sandbox).call(&request).await {
            // It has ended by itself, or its shim has, which counts as its end too.
            Ok(_)
            | Err(ShimError::Refused { kind: ErrorKind::NotFound | ErrorKind::State, .. } | ShimError::Gone(_)) => {
                Ok(())
            }
            Err(source) => Err(RuntimeError::Shim { doing: format!("kill container {}", container.id), source }),
        }
    }

    /// Removes a container, stopping it first when it runs. One that is gone is fine.
    pub(crate) async fn remove_container(self: Arc<Self>, id: String) -> Result<()> {
        let Some(container) = self.containers.find(&id)? else {
            return Ok(());
        };
        let _exclusive = container.operation.lock().await;
        if self.containers.find(&container.id)?.is_none() {
            return Ok(());
        }
        self.remove_container_locked(&container).await
    }

    pub(crate) async fn remove_container_locked(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        self.stop_container_locked(container, Duration::ZERO).await?;
        let id = &container.id;
        let request = Request::Delete { container: id.clone() };
        match self.shim(&container.sandbox).call(&request).await {
            Ok(_) | Err(ShimError::Gone(_) | ShimError::Refused { kind: ErrorKind::NotFound, .. }) => {}
            Err(source) => {
                return Err(RuntimeError::Shim { doing: format!("remove container {id}"), source });
            }
        }
        let (runtime, doomed) = (Arc::clone(self), id.clone());
        blocking(move || {
            record::forget_state(&runtime.layout.container(&doomed))
                .map_err(RuntimeError::io(format!("forget container {doomed}")))?;
            runtime.remove_container_remains(&doomed)
        })
        .await?;
        self.containers.remove(id);
        let pod = self.sandboxes.find(&container.sandbox)?;
        if let (Some(metadata), Some(pod)) = (&container.config.metadata, pod)
            && let Some(pod) = &pod.config.metadata
        {
            self.names.release(&container_name(metadata, pod));
        }
        self.tell(id, &container.sandbox, ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    /// Removes whatever there is of a container that isn't, or is no longer, in the table. Blocks.
    pub(crate) fn remove_container_remains(&self, id: &str) -> Result<()> {
        let dir = self.layout.container(id);
        if let Ok(saved) = self.read_plan(id) {
            super::recovery::kill_and_remove_cgroup(&saved.plan.cgroup_dirs)
                .map_err(RuntimeError::io(format!("remove the cgroup of container {id}")))?;
        }
        self.images.remove(id)?;
        super::recovery::remove_dir(&dir).map_err(RuntimeError::io(format!("remove the directory of container {id}")))
    }

    /// Changes a container's limits, at once when it runs.
    pub(crate) async fn update_container(self: Arc<Self>, id: String, asked: LinuxContainerResources) -> Result<()> {
        let container = self.containers.get(&id)?;
        let _exclusive = container.operation.lock().await;
        let state = container.state();
        if state == ContainerState::ContainerExited {
            return Err(RuntimeError::FailedPrecondition(format!(
                "failed to update resources: container {id:?} is in {} state",
                state.as_str_name()
            )));
        }
        if state == ContainerState::ContainerRunning {
            let resources = spec::convert_resources(&asked);
            let cgroup = container.record().cgroup;
            let runtime = Arc::clone(&self);
            blocking(move || runtime.cgroups.apply(&cgroup, &resources)).await?;
        }
        let merged = {
            let mut resources = lock(&container.resources);
            *resources = spec::merge_resources(&resources, &asked);
            resources.clone()
        };
        // So that a later server, or a later start, knows them too.
        let mut config = container.config.clone();
        config.linux.get_or_insert_default().resources = Some(merged);
        record::write_config(&self.layout.container(&container.id), &config)
            .map_err(RuntimeError::io(format!("save container {}", container.id)))
    }

    /// Has a container's log go on in a new file.
    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.containers.get(id)?;
        if container.state() != ContainerState::ContainerRunning {
            return Err(RuntimeError::FailedPrecondition("container is not running".into()));
        }
        self.shim(&container.sandbox)
            .call(&Request::ReopenLog { container: container.id.clone() })
            .await
            .map_err(RuntimeError::shim(format!("reopen the log of container {id}")))?;
        Ok(())
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let mut all = self.containers.all();
        all.retain(|c| c.sandbox == sandbox);
        all
    }

    /// The containers that a filter lets through.
    pub(crate) fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Arc<Container>>> {
        let filter = filter.unwrap_or_default();
        let candidates = if filter.id.is_empty() {
            self.containers.all()
        } else {
            self.containers.find(&filter.id)?.into_iter().collect()
        };
        let sandbox = if filter.pod_sandbox_id.is_empty() {
            None
        } else {
            match self.sandboxes.find(&filter.pod_sandbox_id)? {
                Some(sandbox) => Some(sandbox.id.clone()),
                None => return Ok(Vec::new()),
            }
        };
        let state = filter.state.map(|s| s.state);
        Ok(candidates
            .into_iter()
            .filter(|c| {
                state.is_none_or(|state| state == c.state() as i32)
                    && sandbox.as_ref().is_none_or(|s| *s == c.sandbox)
                    && selects(&filter.label_selector, &c.config.labels)
            })
            .collect())
    }
}

/// What a start needs besides the record.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct SavedPlan {
    pub(super) plan: ContainerPlan,
    pub(super) resources: crate::cgroup::Resources,
    pub(super) device_rules: Vec<crate::cgroup::DeviceRule>,
}

/// Whether a mount is of an image.
pub(super) fn is_image(mount: &Mount) -> bool {
    mount.image.as_ref().is_some_and(|i| !i.image.is_empty())
}
