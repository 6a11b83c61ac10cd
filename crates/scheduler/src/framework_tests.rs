use super::*;
use crate::objects::{Node, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

fn pod(spec: Value) -> PodInfo {
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
            .unwrap_or_else(|e| panic!("{e}"));
    PodInfo::new(&pod)
}

fn cluster(nodes: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        let mut node = node.clone();
        if node["status"]["allocatable"].is_null() {
            node["status"]["allocatable"] = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        }
        let node: Node = serde_json::from_value(node).unwrap_or_else(|e| panic!("{e}"));
        snapshot.set_node(&node);
    }
    snapshot
}

fn named(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}})
}

fn wants(cpu: &str) -> Value {
    json!({"containers": [{"image": "i", "resources": {"requests": {"cpu": cpu}}}]})
}

#[test]
fn what_is_lacking_is_said_by_groups_of_nodes() {
    let mut cordoned = named("b");
    cordoned["spec"]["unschedulable"] = true.into();
    let mut tainted = named("c");
    tainted["spec"]["taints"] = json!([{"key": "x", "effect": "NoSchedule"}]);
    let snapshot = cluster(&[named("a"), cordoned, tainted, named("d")]);
    let diagnosis = Scheduler::new(1).schedule(&pod(wants("8")), &snapshot).err().unwrap_or_default();
    assert_eq!(
        diagnosis.message(),
        "0/4 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, 2 Insufficient cpu. \
         no new claims to deallocate, preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
    );
    assert_eq!(
        Scheduler::new(1).schedule(&pod(wants("1")), &Snapshot::default()).err().unwrap_or_default().message(),
        "no nodes available to schedule pods"
    );
}

#[test]
fn selectors_affinity_names_and_tolerations() {
    let mut labelled = named("ssd");
    labelled["metadata"]["labels"]["disk"] = "ssd".into();
    let mut tainted = named("tainted");
    tainted["spec"]["taints"] = json!([{"key": "x", "value": "1", "effect": "NoSchedule"}]);
    let snapshot = cluster(&[named("a"), labelled, tainted]);
    let place = |spec: Value| Scheduler::new(1).schedule(&pod(spec), &snapshot).map_err(|d| d.message());
    assert_eq!(place(json!({"nodeSelector": {"disk": "ssd"}})).as_deref(), Ok("ssd"));
    let affinity = |term: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}});
    assert_eq!(
        place(affinity(json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}))).as_deref(),
        Ok("ssd")
    );
    assert_eq!(
        place(affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]})))
            .as_deref(),
        Ok("a")
    );
    assert_eq!(
        place(affinity(json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": ["hdd"]}]}))),
        Err("0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector. \
             no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
            .into())
    );
    let elsewhere = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["tainted"]}]});
    let refused = place(affinity(elsewhere)).expect_err("tainted");
    let said = "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. ";
    assert!(refused.starts_with(said), "{refused}");
    let preferred = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 10, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}}]}}});
    assert_eq!(place(preferred).as_deref(), Ok("ssd"));
    let tolerating = json!({"nodeSelector": {"kubernetes.io/hostname": "tainted"}, "tolerations": [{"key": "x", "operator": "Equal", "value": "1"}]});
    assert_eq!(place(tolerating).as_deref(), Ok("tainted"));
}

#[test]
fn the_least_allocated_node_is_taken() {
    let mut snapshot = cluster(&[named("a"), named("b")]);
    let mut busy = pod(wants("2"));
    busy.node_name = "a".into();
    busy.uid = "busy".into();
    snapshot.add_pod(Arc::new(busy), false);
    assert_eq!(Scheduler::new(7).schedule(&pod(wants("1")), &snapshot).as_deref(), Ok("b"));
}

#[test]
fn host_ports_are_taken_once() {
    let port = |ip: &str| json!({"containers": [{"image": "i", "ports": [{"hostPort": 80, "hostIP": ip}]}]});
    let mut snapshot = cluster(&[named("a")]);
    let mut holder = pod(port("1.2.3.4"));
    holder.node_name = "a".into();
    snapshot.add_pod(Arc::new(holder), true);
    let place = |ip: &str| Scheduler::new(1).schedule(&pod(port(ip)), &snapshot).map_err(|d| d.message());
    let refused =
        Err("0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. \
             no new claims to deallocate, preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
            .to_owned());
    assert_eq!(place("1.2.3.4"), refused);
    assert_eq!(place(""), refused);
    assert_eq!(place("5.6.7.8").as_deref(), Ok("a"));
}

#[test]
fn whether_other_pods_might_make_room_is_said() {
    let mut snapshot = cluster(&[named("a")]);
    for (uid, cpu, priority) in [("low", "1", 0), ("high", "3", 10)] {
        let mut busy = pod(wants(cpu));
        (busy.node_name, busy.uid, busy.priority) = ("a".into(), uid.into(), priority);
        snapshot.add_pod(Arc::new(busy), false);
    }
    let said = |cpu: &str, priority: i32, never: bool| {
        let mut waits = pod(wants(cpu));
        (waits.priority, waits.never_preempts) = (priority, never);
        let message = Scheduler::new(1).schedule(&waits, &snapshot).expect_err("full").message();
        message.strip_prefix("0/1 nodes are available: 1 Insufficient cpu.").expect("the filter's part").to_owned()
    };
    let preemption = |why: &str| format!(" no new claims to deallocate, preemption: {why}");
    let of_one = |why: &str| preemption(&format!("0/1 nodes are available: 1 {why}."));
    assert_eq!(said("1", 0, false), of_one("No preemption victims found for incoming pod"));
    assert_eq!(said("2", 5, false), of_one("Insufficient cpu"));
    assert_eq!(said("1", 5, false), "", "the lower one might go");
    assert_eq!(said("8", 20, false), of_one("Preemption is not helpful for scheduling"));
    assert_eq!(said("1", 5, true), preemption("not eligible due to preemptionPolicy=Never."));
}

#[test]
fn only_changes_that_can_help_wake_a_pod() {
    let waiting = pod(wants("8"));
    let snapshot = cluster(&[
        named("a"),
        json!({"metadata": {"name": "big"}, "status": {"allocatable": {"cpu": "16", "memory": "1Gi", "pods": "10"}}}),
    ]);
    let (Some(small), Some(big)) = (snapshot.get("a"), snapshot.get("big")) else { panic!("both are there") };
    let fit = &["NodeResourcesFit"];
    assert!(!may_help(fit, &waiting, &Change::NodeAdded(small)));
    assert!(may_help(fit, &waiting, &Change::NodeAdded(big)));
    assert!(may_help(fit, &waiting, &Change::PodRemoved(&waiting)));
    assert!(may_help(fit, &waiting, &Change::PodShrank));
    assert!(!may_help(&["TaintToleration"], &waiting, &Change::PodRemoved(&waiting)));
    assert!(may_help(&["SchedulingGates"], &waiting, &Change::PodUpdated));
    assert!(!may_help(&["SchedulingGates"], &waiting, &Change::NodeAdded(big)));
}

#[test]
fn large_clusters_are_searched_in_part_and_in_turn() {
    assert_eq!([enough(50), enough(1000), enough(5000), enough(20_000)], [50, 420, 500, 1000]);
}

proptest! {
    /// However pods come, no node is promised more than it has.
    #[test]
    fn nothing_is_overcommitted(pods in proptest::collection::vec(1u32..3000, 1..60), nodes in 1usize..6) {
        let names: Vec<Value> = (0..nodes).map(|i| named(&format!("n{i}"))).collect();
        let mut snapshot = cluster(&names);
        let mut scheduler = Scheduler::new(42);
        for (i, milli) in pods.iter().enumerate() {
            let mut next = pod(wants(&format!("{milli}m")));
            next.uid = format!("u{i}").into();
            match scheduler.schedule(&next, &snapshot) {
                Ok(node) => {
                    next.node_name = node;
                    snapshot.add_pod(Arc::new(next), true);
                }
                Err(_) => {
                    let room = snapshot.nodes().iter().any(|n| n.requested.cpu_milli + i64::from(*milli) <= 4000);
                    prop_assert!(!room, "a node had room");
                }
            }
        }
        for node in snapshot.nodes() {
            prop_assert!(node.requested.cpu_milli <= 4000);
        }
    }
}
