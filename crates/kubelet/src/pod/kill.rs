//! Stopping containers: the preStop hook, then the stop signal, then the kill, all within the
//! grace period; sidecars after the containers they serve.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use cri::v1;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container as Spec, LifecycleHandler, Pod};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    hooks,
    observed::{Container, Observed, State},
    plan::KillReason,
};
use crate::{
    events::Severity,
    kubelet::Shared,
    rpc,
    spec::{PodExt, Role, grace_period, is_sidecar},
};

/// However short the grace, a container gets this long before it is killed, so that few are.
const LEAST_GRACE: i64 = 2;

/// The hooks that were run, so that a stop that is begun again doesn't run them again.
pub(crate) type Stopped = Arc<Mutex<HashSet<String>>>;

/// What is to be stopped, and how.
pub(crate) struct Killer<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) pod: &'a Pod,
    pub(crate) observed: &'a Observed,
    /// Seconds, in place of what the pod says.
    pub(crate) grace: Option<i64>,
    pub(crate) hooked: &'a Stopped,
    /// Stops the waiting, not the containers.
    pub(crate) cancel: &'a CancellationToken,
}

/// The seconds a container has to stop in.
fn grace(pod: &Pod, spec: Option<&Spec>, container: &Container, reason: Option<KillReason>) -> i64 {
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        return grace;
    }
    let of_probe = |probe: Option<&k8s_openapi::api::core::v1::Probe>| {
        probe.and_then(|probe| probe.termination_grace_period_seconds)
    };
    let own = match reason {
        Some(KillReason::Startup) => of_probe(spec.and_then(|spec| spec.startup_probe.as_ref())),
        Some(KillReason::Liveness) => of_probe(spec.and_then(|spec| spec.liveness_probe.as_ref())),
        _ => None,
    };
    own.unwrap_or_else(|| if pod.spec.is_some() { grace_period(pod) } else { container.grace.unwrap_or(LEAST_GRACE) })
}

impl Killer<'_> {
    /// Stops one container. Returns whether it is stopped.
    pub(crate) async fn container(&self, id: &str, message: &str, reason: KillReason) -> bool {
        let Some(container) = self.observed.by_id(id) else { return true };
        self.stop(container, message, Some(reason), None).await
    }

    /// Stops all containers, sidecars last. Returns whether all are stopped.
    pub(crate) async fn containers(&self) -> bool {
        let alive: Vec<&Container> =
            self.observed.containers.iter().filter(|c| matches!(c.state, State::Running | State::Unknown)).collect();
        let order = Order::new(self.pod, &alive);
        let stops = alive.iter().map(|container| {
            let order = &order;
            async move {
                let stopped = self.stop(container, "", None, Some(order)).await;
                order.stopped(&container.name);
                stopped
            }
        });
        join_all(stops).await.into_iter().all(|stopped| stopped)
    }

    /// Stops all containers and then the sandboxes. Returns whether all of it is stopped.
    pub(crate) async fn pod(&self) -> bool {
        let mut all = self.containers().await;
        if self.cancel.is_cancelled() {
            return false;
        }
        for sandbox in self.observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
            let request = v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            match self.shared.cri.runtime().stop_pod_sandbox(request).await {
                Err(status) if !rpc::is_not_found(&status) => {
                    tracing::warn!(
                        pod = self.pod.display(),
                        sandbox = sandbox.id,
                        status = rpc::text(&status),
                        "a sandbox could not be stopped"
                    );
                    let message = format!(
                        "error killing pod: failed to \"KillPodSandbox\" for {:?} with KillPodSandboxError: {:?}",
                        self.pod.uid(),
                        rpc::text(&status)
                    );
                    self.shared.events.pod(self.pod, Severity::Warning, "FailedKillPod", message);
                    all = false;
                }
                _ => {}
            }
        }
        all
    }

    async fn stop(
        &self,
        container: &Container,
        message: &str,
        reason: Option<KillReason>,
        order: Option<&Order>,
    ) -> bool {
        let found = self.pod.find_container(&container.name);
        let (role, spec) = match &found {
            Some((role, spec)) => (*role, Some(spec)),
            None => (Role::Regular, None),
        };
        let mut left = self.grace.unwrap_or_else(|| grace(self.pod, spec, container, reason));
        let default = format!("Stopping container {}", container.name);
        let message = if message.is_empty() { default.as_str() } else { message };
        let first = lock(self.hooked).insert(container.id.clone());
        if first {
            self.shared.events.container(self.pod, role, &container.name, Severity::Normal, "Killing", message);
        }
        if left > 0
            && first
            && let Some(hook) = pre_stop(spec, container)
        {
            left -= self.pre_stop(&hook, spec, container, role, left).await;
        }
        if left > 0
            && let Some(order) = order
        {
            let started = Instant::now();
            let turn = tokio::time::timeout(seconds(left), order.turn(&container.name));
            tokio::select! {
                _ = turn => {}
                () = self.cancel.cancelled() => return false,
            }
            left -= whole_seconds(started.elapsed());
        }
        let request = v1::StopContainerRequest { container_id: container.id.clone(), timeout: left.max(LEAST_GRACE) };
        let mut runtime = self.shared.cri.runtime();
        let stopping = runtime.stop_container(request);
        let result = tokio::select! {
            result = stopping => result,
            () = self.cancel.cancelled() => return false,
        };
        match result {
            Err(status) if !rpc::is_not_found(&status) => {
                tracing::warn!(
                    pod = self.pod.display(),
                    container = container.id,
                    status = rpc::text(&status),
                    "a container could not be stopped"
                );
                false
            }
            _ => true,
        }
    }

    /// Runs a preStop hook within `left` seconds; returns how many it took.
    async fn pre_stop(
        &self,
        hook: &LifecycleHandler,
        spec: Option<&Spec>,
        container: &Container,
        role: Role,
        left: i64,
    ) -> i64 {
        let started = Instant::now();
        let unknown = Spec { name: container.name.clone(), ..Spec::default() };
        let ip = self.observed.ips().first().cloned().unwrap_or_default();
        let run = hooks::run(self.shared, hook, spec.unwrap_or(&unknown), &container.id, &ip);
        let result = tokio::select! {
            result = tokio::time::timeout(seconds(left), run) => result,
            () = self.cancel.cancelled() => return left,
        };
        match result {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(pod = self.pod.display(), container = container.name, error, "a preStop hook failed");
                self.shared.events.container(
                    self.pod,
                    role,
                    &container.name,
                    Severity::Warning,
                    "FailedPreStopHook",
                    "PreStopHook failed",
                );
            }
            Err(_) => {
                tracing::info!(
                    pod = self.pod.display(),
                    container = container.name,
                    "a preStop hook did not end within the grace period"
                );
            }
        }
        whole_seconds(started.elapsed())
    }
}

fn pre_stop(spec: Option<&Spec>, container: &Container) -> Option<LifecycleHandler> {
    match spec {
        Some(spec) => spec.lifecycle.as_ref()?.pre_stop.clone(),
        None => serde_json::from_str(container.pre_stop.as_deref()?).ok(),
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who stops after whom: each sidecar after all regular containers and the sidecars behind it.
struct Order {
    /// A container, and those it waits for.
    after: Vec<(String, Vec<String>)>,
    gone: watch::Sender<HashSet<String>>,
}

impl Order {
    fn new(pod: &Pod, alive: &[&Container]) -> Self {
        let is_alive = |name: &str| alive.iter().any(|container| container.name == name);
        let mut later: Vec<String> =
            pod.containers().iter().map(|spec| spec.name.clone()).filter(|name| is_alive(name)).collect();
        let mut after = Vec::new();
        for spec in pod.init_containers().iter().rev().filter(|spec| is_sidecar(spec)) {
            if is_alive(&spec.name) {
                after.push((spec.name.clone(), later.clone()));
                later.push(spec.name.clone());
            }
        }
        Self { after, gone: watch::Sender::new(HashSet::new()) }
    }

    async fn turn(&self, name: &str) {
        let Some((_, waits_for)) = self.after.iter().find(|(own, _)| own == name) else {
            return;
        };
        let mut gone = self.gone.subscribe();
        // The sender lives as long as self.
        let _ = gone.wait_for(|gone| waits_for.iter().all(|name| gone.contains(name))).await;
    }

    fn stopped(&self, name: &str) {
        self.gone.send_modify(|gone| {
            gone.insert(name.to_owned());
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::observed::testing::container, *};

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {
                "terminationGracePeriodSeconds": 20,
                "initContainers": [{"name": "i"}, {"name": "s1", "restartPolicy": "Always"}, {"name": "s2", "restartPolicy": "Always"}],
                "containers": [{"name": "a", "livenessProbe": {"terminationGracePeriodSeconds": 3}}, {"name": "b"}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_grace_period_comes_from_the_deletion_the_probe_or_the_pod() {
        let mut pod = pod();
        let spec = pod.containers()[0].clone();
        let c = Container { grace: Some(7), ..container("a", 0, State::Running) };
        assert_eq!(grace(&pod, Some(&spec), &c, None), 20);
        assert_eq!(grace(&pod, Some(&spec), &c, Some(KillReason::Liveness)), 3);
        assert_eq!(grace(&pod, Some(&spec), &c, Some(KillReason::Startup)), 20);
        pod.metadata.deletion_grace_period_seconds = Some(5);
        assert_eq!(grace(&pod, Some(&spec), &c, Some(KillReason::Liveness)), 5);
        // Nothing but the runtime knows the pod any more.
        assert_eq!(grace(&Pod::default(), None, &c, None), 7);
    }

    #[tokio::test]
    async fn sidecars_stop_last_to_first_after_the_others() {
        let names = ["a", "s1", "s2"];
        let all: Vec<Container> = names.map(|name| container(name, 0, State::Running)).into();
        let order = Order::new(&pod(), &all.iter().collect::<Vec<_>>());
        let ready = |name: &'static str| {
            let order = &order;
            async move { tokio::time::timeout(Duration::from_millis(1), order.turn(name)).await.is_ok() }
        };
        assert!(ready("a").await && !ready("s2").await && !ready("s1").await);
        // b does not run, so nobody waits for it.
        order.stopped("a");
        assert!(ready("s2").await && !ready("s1").await);
        order.stopped("s2");
        assert!(ready("s1").await);
    }
}
