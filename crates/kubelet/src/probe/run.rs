//! The tasks that probe: one for each probe of each running container.

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, Probe};
use tokio::{sync::mpsc, task::AbortHandle};

use super::{Kind, Outcome, Results, grpc, http};
use crate::{
    container::expand::expand,
    events::Severity,
    kubelet::Shared,
    pod::{
        observed::{self, Observed, time},
        status::container_id,
        worker::Message,
    },
    spec::{PodExt, Role, is_sidecar, probes},
};

/// Errors (not failures) are tried again at once so often.
const TRIES: usize = 3;

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Success,
    /// Counts as success, but is told.
    Warning(String),
    Failure(String),
    /// The probe itself did not work.
    Error(String),
}

/// The running probes of a pod.
#[derive(Default)]
pub(crate) struct Probes {
    tasks: HashMap<(String, Kind), AbortHandle>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        for task in self.tasks.values() {
            task.abort();
        }
    }
}

/// What probes of a pod are started with.
pub(crate) struct Scene<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) pod: &'a Arc<Pod>,
    pub(crate) observed: &'a Observed,
    /// What was last reported: containers that were ready before the kubelet restarted stay so
    /// until a probe says otherwise.
    pub(crate) reported: &'a PodStatus,
    pub(crate) inbox: &'a mpsc::UnboundedSender<Message>,
    /// The pod is being taken down: only readiness matters still.
    pub(crate) terminating: bool,
}

impl Probes {
    /// Starts the probes that should run and don't, ends those that do and shouldn't.
    pub(crate) fn sync(&mut self, scene: &Scene<'_>, results: &mut Results) {
        let observed = scene.observed;
        let running = |id: &str| observed.by_id(id).is_some_and(observed::Container::is_running);
        results.retain(running);
        let mut wanted = Vec::new();
        let pod = scene.pod;
        let sidecars = pod.init_containers().iter().filter(|c| is_sidecar(c)).map(|c| (Role::Init, c));
        for (role, spec) in sidecars.chain(pod.containers().iter().map(|c| (Role::Regular, c))) {
            let Some(container) = observed.container(&spec.name).filter(|c| c.is_running()) else {
                continue;
            };
            self.seed(scene, spec, container, results);
            for (kind, probe) in probes(spec) {
                let Some(probe) = probe else { continue };
                if should_run(kind, spec, &container.id, results, scene.terminating) {
                    wanted.push((role, spec, container, kind, probe));
                }
            }
        }
        self.tasks.retain(|(id, kind), task| {
            let keep = wanted.iter().any(|(_, _, container, of, _)| container.id == *id && of == kind);
            if !keep {
                task.abort();
            }
            keep
        });
        for (role, spec, container, kind, probe) in wanted {
            let key = (container.id.clone(), kind);
            if self.tasks.contains_key(&key) {
                continue;
            }
            let prober = Prober {
                shared: scene.shared.clone(),
                pod: pod.clone(),
                role,
                spec: spec.clone(),
                probe: probe.clone(),
                kind,
                container: container.id.clone(),
                pod_ip: pod_ip(scene),
                started_at: time(container.started_at).unwrap_or_else(Timestamp::now),
                inbox: scene.inbox.clone(),
            };
            self.tasks.insert(key, tokio::spawn(prober.run()).abort_handle());
        }
    }

    /// The results a container begins with.
    fn seed(&self, scene: &Scene<'_>, spec: &Container, container: &observed::Container, results: &mut Results) {
        let id = container_id(&scene.shared.runtime_name(), &container.id);
        let reported = scene
            .reported
            .container_statuses
            .iter()
            .flatten()
            .chain(scene.reported.init_container_statuses.iter().flatten())
            .find(|status| status.name == spec.name && status.container_id.as_ref() == Some(&id));
        let mut begin = |kind, outcome| {
            if results.get(&container.id, kind).is_none() {
                results.set(&container.id, kind, outcome);
            }
        };
        if spec.startup_probe.is_some() {
            let started = reported.is_some_and(|status| status.started == Some(true));
            begin(Kind::Startup, if started { Outcome::Success } else { Outcome::Unknown });
        }
        if spec.liveness_probe.is_some() {
            begin(Kind::Liveness, Outcome::Success);
        }
        if spec.readiness_probe.is_some() {
            let ready = reported.is_some_and(|status| status.ready);
            begin(Kind::Readiness, if ready { Outcome::Success } else { Outcome::Failure });
        }
    }
}

fn pod_ip(scene: &Scene<'_>) -> String {
    let hosts = &scene.shared.cfg.node_ips;
    if scene.pod.is_host_network() {
        return hosts.first().map(ToString::to_string).unwrap_or_default();
    }
    let ips = crate::pod::status::sort_ips(scene.observed.ips(), hosts);
    ips.into_iter().next().unwrap_or_default()
}

/// The other probes wait for the startup probe; what failed for good is not asked again.
fn should_run(kind: Kind, spec: &Container, id: &str, results: &Results, terminating: bool) -> bool {
    let startup = results.get(id, Kind::Startup);
    let started = spec.startup_probe.is_none() || startup == Some(Outcome::Success);
    match kind {
        Kind::Startup => !terminating && startup == Some(Outcome::Unknown),
        Kind::Liveness => !terminating && started && results.get(id, Kind::Liveness) != Some(Outcome::Failure),
        Kind::Readiness => started,
    }
}

struct Prober {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    role: Role,
    spec: Container,
    probe: Probe,
    kind: Kind,
    container: String,
    pod_ip: String,
    started_at: Timestamp,
    inbox: mpsc::UnboundedSender<Message>,
}

impl Prober {
    async fn run(self) {
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
        };
        let first = self.started_at + seconds(self.probe.initial_delay_seconds, 0);
        let wait = first.duration_since(Timestamp::now());
        if wait.is_positive() {
            tokio::time::sleep(wait.unsigned_abs()).await;
        }
        let mut ticks = tokio::time::interval(seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut counter = Counter::new(&self.probe);
        loop {
            ticks.tick().await;
            let found = self.ask().await;
            self.tell(&found);
            let success = match found {
                Found::Success | Found::Warning(_) => true,
                Found::Failure(_) => false,
                // Says nothing about the container.
                Found::Error(_) => continue,
            };
            let Some(outcome) = counter.take(success) else { continue };
            let message = Message::Probed { container: self.container.clone(), kind: self.kind, outcome };
            if self.inbox.send(message).is_err() {
                return;
            }
        }
    }

    async fn ask(&self) -> Found {
        let mut last = Found::Error(String::new());
        for _ in 0..TRIES {
            last = self.once().await;
            if !matches!(last, Found::Error(_)) {
                return last;
            }
        }
        last
    }

    async fn once(&self) -> Found {
        let timeout =
            Duration::from_secs(self.probe.timeout_seconds.and_then(|t| u64::try_from(t).ok()).unwrap_or(1).max(1));
        let agent = self.shared.probe_agent();
        if let Some(exec) = &self.probe.exec {
            return self.exec(exec.command.as_deref().unwrap_or_default(), timeout).await;
        }
        if let Some(action) = &self.probe.http_get {
            let target = match http::Target::new(action, &self.spec, &self.pod_ip) {
                Ok(target) => target,
                Err(error) => return Found::Error(error),
            };
            return match http::get(&target, &agent, timeout).await {
                Ok(answer) => match answer.elsewhere {
                    Some(location) => Found::Warning(format!(
                        "Probe terminated redirects, Response body: {}, Location: {location}",
                        answer.body
                    )),
                    None if (200..400).contains(&answer.status) => Found::Success,
                    None => Found::Failure(format!("HTTP probe failed with statuscode: {}", answer.status)),
                },
                Err(error) => Found::Failure(error),
            };
        }
        if let Some(action) = &self.probe.tcp_socket {
            let host = action.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| self.pod_ip.clone());
            let port = match http::port(&action.port, &self.spec) {
                Ok(port) => port,
                Err(error) => return Found::Error(error),
            };
            return match tokio::time::timeout(timeout, http::dial(&host, port)).await {
                Ok(Ok(_)) => Found::Success,
                Ok(Err(error)) => Found::Failure(error),
                Err(_) => Found::Failure(format!(
                    "dial tcp {}: i/o timeout",
                    crate::container::service_env::host_port(&host, i32::from(port))
                )),
            };
        }
        if let Some(action) = &self.probe.grpc {
            let Ok(port) = u16::try_from(action.port) else {
                return Found::Error(format!("invalid port number: {}", action.port));
            };
            let service = action.service.as_deref().unwrap_or_default();
            return match grpc::check(&self.pod_ip, port, service, &agent, timeout).await {
                Ok(()) => Found::Success,
                Err(error) => Found::Failure(error),
            };
        }
        Found::Error(format!("missing probe handler for {}:{}", self.pod.display(), self.spec.name))
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Found {
        // Only variables with a plain value are known here, as upstream has it.
        let value = |name: &str| {
            let found = self.spec.env.iter().flatten().find(|env| env.name == name);
            found.and_then(|env| env.value.clone())
        };
        let command: Vec<String> = command.iter().map(|word| expand(word, value)).collect();
        let request = cri::v1::ExecSyncRequest {
            container_id: self.container.clone(),
            cmd: command.clone(),
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        };
        match self.shared.cri.runtime().exec_sync(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                if answer.exit_code == 0 {
                    return Found::Success;
                }
                let mut output = answer.stdout.to_vec();
                output.extend_from_slice(&answer.stderr);
                output.truncate(10 * 1024);
                Found::Failure(String::from_utf8_lossy(&output).into_owned())
            }
            Err(status) if status.code() == tonic::Code::DeadlineExceeded => Found::Failure(format!(
                "command timed out: {:?} timed out after {}",
                command.join(" "),
                crate::duration::go(timeout)
            )),
            Err(status) => Found::Error(crate::rpc::text(&status)),
        }
    }

    fn tell(&self, found: &Found) {
        let (reason, message) = match found {
            Found::Success => return,
            Found::Warning(output) => ("ProbeWarning", format!("{} probe warning: {output}", self.kind.title())),
            Found::Failure(output) => ("Unhealthy", format!("{} probe failed: {output}", self.kind.title())),
            Found::Error(error) => {
                ("Unhealthy", format!("{} probe errored and resulted in unknown state: {error}", self.kind.title()))
            }
        };
        self.shared.events.container(&self.pod, self.role, &self.spec.name, Severity::Warning, reason, message);
    }
}

/// Applies the thresholds.
struct Counter {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    run: u32,
}

impl Counter {
    fn new(probe: &Probe) -> Self {
        let at_least_one = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).unwrap_or(default).max(1)
        };
        Self {
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
            last: None,
            run: 0,
        }
    }

    /// The outcome, once so many agree in a row.
    fn take(&mut self, success: bool) -> Option<Outcome> {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let (threshold, outcome) = if success {
            (self.success_threshold, Outcome::Success)
        } else {
            (self.failure_threshold, Outcome::Failure)
        };
        (self.run >= threshold).then_some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_runs() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut counter = Counter::new(&probe);
        let found: Vec<Option<Outcome>> = [true, true, false, false, true, false, false, false, true, true]
            .into_iter()
            .map(|success| counter.take(success))
            .collect();
        let (s, f) = (Some(Outcome::Success), Some(Outcome::Failure));
        assert_eq!(found, [None, s, None, None, None, None, None, f, None, s]);
    }

    #[test]
    fn the_startup_probe_comes_first() {
        let spec: Container = serde_json::from_value(serde_json::json!({
            "name": "c", "startupProbe": {}, "livenessProbe": {}, "readinessProbe": {},
        }))
        .unwrap();
        let mut results = Results::default();
        let runs = |results: &Results, terminating| {
            [Kind::Startup, Kind::Liveness, Kind::Readiness]
                .map(|kind| should_run(kind, &spec, "id", results, terminating))
        };
        results.set("id", Kind::Startup, Outcome::Unknown);
        assert_eq!(runs(&results, false), [true, false, false]);
        results.set("id", Kind::Startup, Outcome::Success);
        assert_eq!(runs(&results, false), [false, true, true]);
        assert_eq!(runs(&results, true), [false, false, true]);
        results.set("id", Kind::Liveness, Outcome::Failure);
        assert_eq!(runs(&results, false), [false, false, true]);
        results.set("id", Kind::Startup, Outcome::Failure);
        assert_eq!(runs(&results, false), [false, false, false]);
    }
}
