use serde_json::{Value, json};

use super::{super::observed::testing::*, *};

fn pod(value: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 2}});
    pod.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    serde_json::from_value(pod).unwrap()
}

struct World {
    pod: Pod,
    observed: Observed,
    old: PodStatus,
    reasons: Reasons,
    probes: Results,
    terminal: bool,
}

impl World {
    fn new(value: Value) -> Self {
        Self {
            pod: pod(value),
            observed: Observed { sandboxes: vec![sandbox(0, true)], containers: Vec::new() },
            old: PodStatus::default(),
            reasons: Reasons::new(),
            probes: Results::default(),
            terminal: false,
        }
    }

    fn status(&self) -> PodStatus {
        generate(&Input {
            pod: &self.pod,
            observed: &self.observed,
            old: &self.old,
            reasons: &self.reasons,
            probes: &self.probes,
            runtime: "pilothouse",
            host_ips: &["192.168.0.1".parse().unwrap()],
            stopping: self.terminal,
            terminal: self.terminal,
            resize: &[],
            now: Timestamp::from_second(1_800_000_000).unwrap(),
        })
    }

    fn json(&self) -> Value {
        serde_json::to_value(self.status()).unwrap()
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == kind).unwrap()
}

#[test]
fn a_pod_that_was_just_bound_is_creating_its_containers() {
    let mut world =
        World::new(json!({"spec": {"containers": [{"name": "b", "image": "x"}, {"name": "a", "image": "y"}]}}));
    world.observed = Observed::default();
    let status = world.json();
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["hostIP"], "192.168.0.1");
    assert_eq!(status["hostIPs"], json!([{"ip": "192.168.0.1"}]));
    assert_eq!(status["observedGeneration"], 2);
    assert_eq!(status["qosClass"], "BestEffort");
    assert_eq!(status["startTime"], "2027-01-15T08:00:00Z");
    let statuses = &status["containerStatuses"];
    assert_eq!(statuses[0]["name"], "a", "sorted");
    assert_eq!(statuses[0]["state"], json!({"waiting": {"reason": "ContainerCreating"}}));
    assert_eq!((&statuses[0]["ready"], &statuses[0]["started"]), (&json!(false), &json!(false)));
    let ready = condition(&status, "Ready");
    assert_eq!(ready["reason"], "ContainersNotReady");
    assert_eq!(ready["message"], "containers with unready status: [b a]");
    assert_eq!(ready["observedGeneration"], 2);
    assert_eq!(condition(&status, "PodReadyToStartContainers")["status"], "False");
    assert_eq!(condition(&status, "Initialized")["status"], "True");
    assert_eq!(condition(&status, "PodScheduled")["status"], "True");
}

#[test]
fn a_running_pod_is_ready_when_its_probes_say_so() {
    let mut world = World::new(json!({"spec": {"containers": [
        {"name": "a", "image": "x", "readinessProbe": {"tcpSocket": {"port": 80}}},
        {"name": "b", "image": "x"},
    ]}}));
    world.observed.merge_container(container("a", 0, State::Running));
    world.observed.merge_container(container("b", 0, State::Running));
    let status = world.json();
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], "10.244.0.5");
    assert_eq!(status["podIPs"], json!([{"ip": "10.244.0.5"}]));
    assert_eq!(status["containerStatuses"][0]["containerID"], "pilothouse://a-0");
    assert_eq!(status["containerStatuses"][0]["ready"], false);
    assert_eq!(status["containerStatuses"][0]["started"], true);
    assert_eq!(status["containerStatuses"][1]["ready"], true);
    assert_eq!(condition(&status, "ContainersReady")["message"], "containers with unready status: [a]");
    world.probes.set("a-0", Kind::Readiness, Outcome::Success);
    let status = world.json();
    assert_eq!(condition(&status, "Ready")["status"], "True");
}

#[test]
fn readiness_gates_and_foreign_conditions_are_respected() {
    let mut world = World::new(json!({
        "spec": {"readinessGates": [{"conditionType": "example.com/lb"}], "containers": [{"name": "a", "image": "x"}]},
        "status": {"conditions": [{"type": "example.com/lb", "status": "False"}, {"type": "Ready", "status": "Unknown"}]},
    }));
    world.observed.merge_container(container("a", 0, State::Running));
    let status = world.json();
    assert_eq!(condition(&status, "example.com/lb")["status"], "False");
    let ready = condition(&status, "Ready");
    assert_eq!(ready["reason"], "ReadinessGatesNotReady");
    assert_eq!(ready["message"], "the status of pod readiness gate \"example.com/lb\" is not \"True\", but False");
    assert_eq!(condition(&status, "ContainersReady")["status"], "True");
}

#[test]
fn transition_times_stay_while_a_status_stays() {
    let mut world = World::new(json!({"spec": {"containers": [{"name": "a", "image": "x"}]}}));
    world.old = serde_json::from_value(json!({"conditions": [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"},
    ]}))
    .unwrap();
    let status = world.json();
    assert_eq!(condition(&status, "PodScheduled")["lastTransitionTime"], "2020-01-01T00:00:00Z");
    assert_eq!(condition(&status, "Ready")["lastTransitionTime"], "2027-01-15T08:00:00Z");
}

#[test]
fn a_crashing_container_waits_and_tells_how_it_ended() {
    let mut world = World::new(json!({"spec": {"containers": [{"name": "a", "image": "x"}]}}));
    world.observed.merge_container(exited("a", 1, 1));
    world.observed.merge_container(exited("a", 2, 3));
    world.reasons.insert("a".into(), Reason { reason: "CrashLoopBackOff".into(), message: "back-off 10s".into() });
    let status = world.json();
    assert_eq!(status["phase"], "Running");
    let a = &status["containerStatuses"][0];
    assert_eq!(a["state"], json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}));
    assert_eq!(a["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(a["restartCount"], 2);
    world.reasons.clear();
    let a = &world.json()["containerStatuses"][0];
    assert_eq!(a["state"]["terminated"]["exitCode"], 3);
    assert_eq!(a["lastState"]["terminated"]["exitCode"], 1);
}

#[test]
fn a_container_that_vanished_counts_as_a_restart() {
    let mut world = World::new(json!({"spec": {"containers": [{"name": "a", "image": "x"}]}}));
    world.old = serde_json::from_value(json!({"phase": "Running", "containerStatuses": [
        {"name": "a", "image": "x", "imageID": "", "ready": true, "restartCount": 4,
         "state": {"running": {}}, "lastState": {}},
    ]}))
    .unwrap();
    let a = &world.json()["containerStatuses"][0];
    assert_eq!(a["restartCount"], 5);
    assert_eq!(a["lastState"]["terminated"]["reason"], "ContainerStatusUnknown");
    assert_eq!(a["lastState"]["terminated"]["exitCode"], 137);
}

#[test]
fn terminal_phases_are_final_and_held_back_while_containers_run() {
    let mut world = World::new(json!({
        "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]},
    }));
    world.observed.merge_container(exited("a", 0, 0));
    let mut status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    let ready = status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!(ready.reason.as_deref(), Some("PodCompleted"));
    let old = PodStatus { phase: Some("Running".into()), ..PodStatus::default() };
    hold_terminal_phase(&mut status, &old);
    assert_eq!(status.phase.as_deref(), Some("Running"));

    world.pod.status =
        Some(PodStatus { phase: Some("Failed".into()), reason: Some("Evicted".into()), ..PodStatus::default() });
    world.old = world.pod.status.clone().unwrap();
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
}

#[test]
fn the_last_status_leaves_nothing_open() {
    let mut world =
        World::new(json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "x"}]}}));
    world.terminal = true;
    world.observed.merge_container(exited("a", 0, 143));
    let mut status = world.status();
    finish(&world.pod, &mut status);
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    let b = &status.container_statuses.as_ref().unwrap()[1];
    let end = b.state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(end.reason.as_deref(), Some("ContainerStatusUnknown"));

    // A pod that never started anything fails without inventing ends.
    let mut world = World::new(json!({"spec": {"containers": [{"name": "a", "image": "x"}]}}));
    world.observed = Observed::default();
    world.terminal = true;
    let mut status = world.status();
    finish(&world.pod, &mut status);
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert!(status.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap().waiting.is_some());
}

#[test]
fn addresses_of_the_nodes_family_come_first() {
    let ips = ["fd00::5".to_owned(), "10.0.0.5".to_owned(), "10.0.0.6".to_owned()];
    let four: IpAddr = "192.168.0.1".parse().unwrap();
    let six: IpAddr = "fd00::1".parse().unwrap();
    assert_eq!(sort_ips(&ips, &[four]), ["10.0.0.5", "fd00::5"]);
    assert_eq!(sort_ips(&ips, &[six]), ["fd00::5", "10.0.0.5"]);
}

/// Clients compute with both times of an end; one that never began has the beginning of all.
#[test]
fn a_container_that_could_not_start_has_both_times() {
    let mut world =
        World::new(json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]}}));
    let mut failed = container("a", 0, State::Exited);
    (failed.started_at, failed.exit_code, failed.reason) = (0, 128, "StartError".to_owned());
    world.observed.merge_container(failed);
    let terminated = &world.json()["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(
        (&terminated["reason"], &terminated["startedAt"]),
        (&json!("StartError"), &json!("1970-01-01T00:00:00Z"))
    );
    assert!(terminated["finishedAt"].as_str().is_some_and(|at| !at.starts_with("1970")), "{terminated}");
}
