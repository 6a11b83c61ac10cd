use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::backoff::RESTARTS, super::observed::testing::*, *};

struct World {
    pod: Pod,
    observed: Observed,
    probes: Results,
    restarts: BackOff,
    now: Timestamp,
}

impl World {
    fn new(spec: Value) -> Self {
        Self {
            pod: serde_json::from_value(
                json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec}),
            )
            .unwrap(),
            observed: Observed { sandboxes: vec![sandbox(0, true)], containers: Vec::new() },
            probes: Results::default(),
            restarts: BackOff::new(RESTARTS),
            now: Timestamp::from_second(1_700_000_100).unwrap(),
        }
    }

    fn with(mut self, containers: impl IntoIterator<Item = Container>) -> Self {
        for mut container in containers {
            container.hash = self.pod.find_container(&container.name).map(|(_, spec)| container_hash(&spec));
            self.observed.merge_container(container);
        }
        self
    }

    fn plan(&self) -> Plan {
        plan(&Input {
            pod: &self.pod,
            observed: &self.observed,
            probes: &self.probes,
            restarts: &self.restarts,
            now: self.now,
        })
    }

    /// The names to start, in order.
    fn starts(&self) -> Vec<String> {
        let plan = self.plan();
        plan.starts.iter().map(|start| spec_of(&self.pod, *start).unwrap().name).collect()
    }
}

fn two(policy: &str) -> World {
    World::new(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}))
}

fn with_init(policy: &str) -> World {
    World::new(json!({
        "restartPolicy": policy,
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}],
        "containers": [{"name": "a"}],
    }))
}

#[test]
fn a_new_pod_gets_a_sandbox_and_its_first_containers() {
    let mut world = two("Always");
    world.observed = Observed::default();
    let plan = world.plan();
    assert!(plan.create_sandbox && plan.kill_pod);
    assert_eq!((plan.attempt, plan.sandbox.as_deref()), (0, None));
    assert_eq!(world.starts(), ["a", "b"]);

    let mut world = with_init("Always");
    world.observed = Observed::default();
    assert_eq!(world.starts(), ["i"]);
}

#[test]
fn a_running_pod_is_left_alone() {
    let world = two("Always").with([container("a", 0, State::Running), container("b", 3, State::Running)]);
    let plan = world.plan();
    assert!(plan.is_idle(&world.observed), "{plan:?}");
    assert_eq!(plan.sandbox.as_deref(), Some("sandbox-0"));
}

#[test]
fn restart_policies_decide_about_the_dead() {
    let cases: [(&str, i32, &[&str]); 6] = [
        ("Always", 0, &["a"]),
        ("Always", 1, &["a"]),
        ("OnFailure", 0, &[]),
        ("OnFailure", 1, &["a"]),
        ("Never", 0, &[]),
        ("Never", 1, &[]),
    ];
    for (policy, code, expected) in cases {
        let world = two(policy).with([exited("a", 0, code), container("b", 0, State::Running)]);
        assert_eq!(world.starts(), expected, "{policy} {code}");
        assert!(!world.plan().kill_pod);
    }
}

#[test]
fn a_finished_pod_is_taken_down() {
    let world = two("Never").with([exited("a", 0, 0), exited("b", 0, 1)]);
    let plan = world.plan();
    assert!(plan.kill_pod && !plan.create_sandbox && plan.starts.is_empty());
    assert!(!plan.is_idle(&world.observed));
}

#[test]
fn a_containers_rules_come_before_its_policy_and_the_pods() {
    let spec = json!({"restartPolicy": "Never", "containers": [
        {"name": "a", "restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]},
        {"name": "b"},
    ]});
    for (code, expected) in [(42, vec!["a"]), (1, vec![]), (0, vec![])] {
        let world = World::new(spec.clone()).with([exited("a", 0, code), container("b", 0, State::Running)]);
        assert_eq!(world.starts(), expected, "{code}");
    }
}

#[test]
fn one_containers_end_can_have_all_begin_anew() {
    let spec = json!({"restartPolicy": "Always", "initContainers": [{"name": "i"}], "containers": [
        {"name": "a", "restartPolicy": "Always", "restartPolicyRules": [
            {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]},
        {"name": "b"},
    ]});
    let ended = |code| {
        World::new(spec.clone()).with([
            container("i", 0, State::Exited),
            exited("a", 0, code),
            container("b", 0, State::Running),
        ])
    };
    assert_eq!(ended(1).starts(), ["a"]);
    let mut world = ended(42);
    let plan = world.plan();
    assert_eq!(plan.restart_all.as_deref(), Some("a"));
    assert!(plan.starts.is_empty() && plan.kills.is_empty() && !plan.is_idle(&world.observed));
    world.now = time(world.observed.container("a").unwrap().finished_at).unwrap();
    world.restarts.next("a", world.now, world.now);
    let plan = world.plan();
    assert!(plan.restart_all.is_none() && plan.is_idle(&world.observed) && plan.waits.len() == 1);
    // With all traces gone it begins at the beginning.
    assert_eq!(World::new(spec.clone()).starts(), ["i"]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let i = |state| container("i", 0, state);
    let s = |state| container("s", 0, state);
    let j = |state| container("j", 0, state);
    let cases: Vec<(Vec<Container>, Vec<&str>)> = vec![
        (vec![], vec!["i"]),
        (vec![i(State::Running)], vec![]),
        (vec![i(State::Created)], vec!["i"]),
        (vec![i(State::Exited)], vec!["s"]),
        (vec![exited("i", 0, 1)], vec!["i"]),
        (vec![i(State::Exited), s(State::Running)], vec!["j"]),
        (vec![i(State::Exited), s(State::Running), j(State::Running)], vec![]),
        (vec![i(State::Exited), s(State::Running), j(State::Exited)], vec!["a"]),
        // The sidecar died while j ran: it comes back, and j goes on.
        (vec![i(State::Exited), s(State::Exited), j(State::Running)], vec!["s"]),
        (vec![i(State::Exited), s(State::Exited), j(State::Exited)], vec!["s", "a"]),
        // All went well long ago, and the traces were removed.
        (vec![s(State::Running), container("a", 0, State::Running)], vec![]),
        (vec![container("a", 0, State::Running)], vec!["s"]),
    ];
    for (containers, expected) in cases {
        let world = with_init("Always").with(containers.clone());
        assert_eq!(world.starts(), expected, "{containers:?}");
        assert!(!world.plan().kill_pod);
    }
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let world = with_init("Never").with([exited("i", 0, 1)]);
    let plan = world.plan();
    assert!(plan.kill_pod && plan.starts.is_empty(), "{plan:?}");
}

#[test]
fn a_sidecar_that_has_not_started_up_holds_back_the_rest() {
    let spec = json!({
        "initContainers": [{"name": "s", "restartPolicy": "Always",
            "startupProbe": {"tcpSocket": {"port": 1}}, "livenessProbe": {"tcpSocket": {"port": 1}}}],
        "containers": [{"name": "a"}],
    });
    let mut world = World::new(spec).with([container("s", 0, State::Running)]);
    assert!(world.starts().is_empty());
    world.probes.set("s-0", Kind::Startup, Outcome::Unknown);
    assert!(world.starts().is_empty());
    world.probes.set("s-0", Kind::Startup, Outcome::Success);
    assert_eq!(world.starts(), ["a"]);
    world.probes.set("s-0", Kind::Liveness, Outcome::Failure);
    let plan = world.plan();
    assert_eq!(plan.kills[0].message, "Init container s failed liveness probe");
    assert_eq!(world.starts(), ["s", "a"]);
    world.probes.set("s-0", Kind::Startup, Outcome::Failure);
    let plan = world.plan();
    assert_eq!(plan.kills[0].message, "Init container s failed startup probe");
    assert_eq!(world.starts(), ["s"]);
}

#[test]
fn failed_probes_and_changed_definitions_kill() {
    let running = || [container("a", 0, State::Running), container("b", 0, State::Running)];
    let cases: [(&str, Kind, &str, &[&str]); 4] = [
        ("Always", Kind::Liveness, "Container a failed liveness probe, will be restarted", &["a"]),
        ("OnFailure", Kind::Startup, "Container a failed startup probe, will be restarted", &["a"]),
        ("Never", Kind::Liveness, "Container a failed liveness probe", &[]),
        ("Never", Kind::Startup, "Container a failed startup probe", &[]),
    ];
    for (policy, kind, message, starts) in cases {
        let mut world = two(policy).with(running());
        world.probes.set("a-0", kind, Outcome::Failure);
        let plan = world.plan();
        assert_eq!(plan.kills.len(), 1);
        assert_eq!((plan.kills[0].id.as_str(), plan.kills[0].message.as_str()), ("a-0", message));
        assert_eq!(world.starts(), starts);
    }
    let mut world = two("Never").with(running());
    world.probes.set("a-0", Kind::Readiness, Outcome::Failure);
    assert!(world.plan().is_idle(&world.observed), "readiness kills nothing");
    world.observed.containers.iter_mut().find(|c| c.name == "b").unwrap().hash = Some(1);
    let plan = world.plan();
    assert_eq!(plan.kills[0].message, "Container b definition changed, will be restarted");
    assert_eq!(world.starts(), ["b"]);
}

#[test]
fn containers_that_crash_wait_longer_each_time() {
    let mut world = two("Always").with([exited("a", 1, 1), container("b", 0, State::Running)]);
    let finished = time(world.observed.container("a").unwrap().finished_at).unwrap();
    world.now = finished + std::time::Duration::from_secs(1);
    assert_eq!(world.starts(), ["a"], "the first restart is at once");
    world.restarts.next("a", finished, world.now);
    let plan = world.plan();
    assert!(plan.starts.is_empty());
    let until = finished + std::time::Duration::from_secs(10);
    assert_eq!(plan.wake_at(), Some(until));
    assert_eq!(plan.waits[0].message, "back-off 10s restarting failed container=a pod=p_ns(u)");
    world.now = until;
    assert_eq!(world.starts(), ["a"]);
}

#[test]
fn an_init_container_in_back_off_holds_back_what_follows() {
    let mut world = with_init("Always").with([exited("i", 0, 1)]);
    let finished = time(world.observed.container("i").unwrap().finished_at).unwrap();
    world.now = finished;
    world.restarts.next("i", finished, world.now);
    assert!(world.starts().is_empty());
    // A sidecar that waits doesn't hold back the others.
    let mut world = with_init("Always").with([
        exited("s", 0, 1),
        container("i", 0, State::Exited),
        container("j", 0, State::Exited),
    ]);
    world.now = finished;
    world.restarts.next("s", finished, world.now);
    assert_eq!(world.starts(), ["a"]);
    assert_eq!(world.plan().waits[0].name, "s");
}

#[test]
fn a_lost_sandbox_is_made_again_unless_the_pod_is_done() {
    let dead = |policy: &str, code| {
        let mut world = two(policy).with([exited("a", 0, code), exited("b", 0, code)]);
        world.observed.sandboxes = vec![sandbox(0, false)];
        world
    };
    for (policy, code, create) in
        [("Always", 0, true), ("Always", 1, true), ("OnFailure", 1, true), ("OnFailure", 0, false), ("Never", 1, false)]
    {
        let world = dead(policy, code);
        let plan = world.plan();
        assert_eq!(plan.create_sandbox, create, "{policy} {code}");
        assert!(plan.kill_pod);
        assert_eq!(plan.attempt, 1);
        assert_eq!(plan.sandbox.as_deref(), Some("sandbox-0"));
    }
    // Nothing was ever made in the first sandbox: made again even if it never restarts.
    let mut world = two("Never");
    world.observed.sandboxes = vec![sandbox(0, false)];
    assert!(world.plan().create_sandbox);
    // A sandbox that lost its address is no use.
    let mut world = two("Always");
    world.observed.sandboxes[0].ips.clear();
    assert!(world.plan().create_sandbox);
    // With the host's network it has none.
    let mut world = World::new(json!({"hostNetwork": true, "containers": [{"name": "a"}]}));
    world.observed.sandboxes[0].ips.clear();
    world.observed.sandboxes[0].host_network = true;
    assert!(!world.plan().create_sandbox);
}

#[test]
fn ephemeral_containers_start_once_and_at_any_time() {
    let spec = json!({
        "initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}],
        "ephemeralContainers": [{"name": "e"}],
    });
    let world = World::new(spec.clone()).with([container("i", 0, State::Running)]);
    assert_eq!(world.starts(), ["e"]);
    let world = World::new(spec).with([container("i", 0, State::Running), exited("e", 0, 1)]);
    assert!(world.starts().is_empty());
}

#[test]
fn a_container_in_doubt_is_killed_before_it_is_started_again() {
    let world = two("Always").with([container("a", 0, State::Unknown), container("b", 0, State::Running)]);
    let plan = world.plan();
    assert_eq!(plan.kills[0].message, "Container is in \"unknown\" state, try killing it before restart");
    assert_eq!(world.starts(), ["a"]);
}

fn any_state() -> impl Strategy<Value = Option<(State, i32)>> {
    prop_oneof![
        Just(None),
        Just(Some((State::Created, 0))),
        Just(Some((State::Running, 0))),
        (0..3i32).prop_map(|code| Some((State::Exited, code))),
        Just(Some((State::Unknown, 0))),
    ]
}

proptest! {
    /// Whatever the runtime shows, a plan starts each container at most once, none that runs
    /// unless it kills it too, and nothing at all of a pod that it takes down for good.
    #[test]
    fn plans_are_consistent(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        states in proptest::collection::vec(any_state(), 5),
        sandbox_ready in any::<bool>(),
        liveness in any::<bool>(),
    ) {
        let names = ["i", "s", "j", "a", "b"];
        let world = World::new(json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}],
            "containers": [{"name": "a"}, {"name": "b"}],
        }));
        let containers: Vec<Container> = names.iter().zip(&states).filter_map(|(name, state)| {
            state.map(|(state, code)| Container { exit_code: code, ..container(name, 0, state) })
        }).collect();
        let mut world = world.with(containers);
        world.observed.sandboxes[0].ready = sandbox_ready;
        if liveness {
            world.probes.set("a-0", Kind::Liveness, Outcome::Failure);
        }
        let plan = world.plan();
        let starts = world.starts();
        let mut unique = starts.clone();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(unique.len(), starts.len());
        prop_assert_eq!(plan.create_sandbox, plan.create_sandbox && !sandbox_ready);
        for name in &starts {
            let running = world.observed.container(name).is_some_and(Container::is_running);
            let killed = plan.kill_pod || plan.kills.iter().any(|kill| &kill.name == name);
            prop_assert!(!running || killed, "{} runs and is started again: {:?}", name, plan);
        }
        if plan.kill_pod && !plan.create_sandbox {
            prop_assert!(starts.is_empty(), "{:?}", plan);
        }
        // Regular containers never start before the init containers are through.
        let regular = starts.iter().any(|name| name == "a" || name == "b");
        if regular && sandbox_ready {
            let through = |name| world.observed.container(name)
                .is_some_and(|c: &Container| c.state == State::Exited && c.exit_code == 0);
            let active = any_regular_active(&world.pod, &world.observed);
            prop_assert!(active || through("j"), "{:?}", plan);
        }
    }
}
