//! What an object uses of the resources that quotas bound.

use super::{Amounts, View, add, amounts as list, count, of_pod};
use jiff::{SignedDuration, Timestamp};

const CLAIM_SUFFIX: &str = ".storageclass.storage.k8s.io/";
/// The most devices that one request is given, which is what "all" counts as.
const ALL_DEVICES: i64 = 32;

/// The name that objects of any kind are counted by: `count/deployments.apps`.
pub fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Group and plural of the kind that an amount of this name is counted from.
pub fn counted_from(name: &str) -> Option<(&str, &str)> {
    if let Some(resource) = name.strip_prefix("count/") {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        return Some((group, plural));
    }
    match name {
        "services" | "services.nodeports" | "services.loadbalancers" => return Some(("", "services")),
        "persistentvolumeclaims" | "requests.storage" => return Some(("", "persistentvolumeclaims")),
        "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas" => return Some(("", name)),
        "pods" | "cpu" | "memory" | "ephemeral-storage" => return Some(("", "pods")),
        _ => {}
    }
    if name.contains(CLAIM_SUFFIX) {
        return Some(("", "persistentvolumeclaims"));
    }
    if name.ends_with(".deviceclass.resource.k8s.io/devices") {
        return Some(("resource.k8s.io", "resourceclaims"));
    }
    let of_pods = ["requests.", "limits.", "hugepages-"].iter().any(|prefix| name.starts_with(prefix));
    of_pods.then_some(("", "pods"))
}

/// Whether quotas look at updates of the kind; of others they only count the objects.
pub fn weighs_updates(group: &str, plural: &str) -> bool {
    group.is_empty() && matches!(plural, "pods" | "services" | "persistentvolumeclaims")
        || group == "resource.k8s.io" && plural == "resourceclaims"
}

/// Everything that an object uses at a moment, by the names of quotas.
pub fn of<'a, V: View<'a>>(group: &str, plural: &str, object: V, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([(count_name(group, plural), count(1))]);
    match (group, plural) {
        ("", "pods") => pod(object, &mut used, now),
        ("", "services") => service(object, &mut used),
        ("", "persistentvolumeclaims") => claim(object, &mut used),
        ("resource.k8s.io", "resourceclaims") => devices(object, &mut used),
        ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            used.insert(plural.to_owned(), count(1));
        }
        _ => {}
    }
    used
}

fn pod<'a, V: View<'a>>(pod: V, used: &mut Amounts, now: Timestamp) {
    if matches!(pod.text_at(&["status", "phase"]), "Succeeded" | "Failed") || is_stuck(pod, now) {
        return;
    }
    used.insert("pods".into(), count(1));
    let overhead = list(pod, &["spec", "overhead"]);
    let mut requests = of_pod(pod, "requests");
    let mut limits = of_pod(pod, "limits");
    add(&mut requests, &overhead);
    if !limits.is_empty() {
        add(&mut limits, &overhead);
    }
    for (name, value) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if plain {
            used.insert(name.clone(), value);
        }
        if plain || name.contains('/') {
            used.insert(format!("requests.{name}"), value);
        }
    }
    for (name, value) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), value);
        }
    }
}

/// Whether the pod should have ended by now. Of a lost node nobody says that it has, and it must not keep others from beginning.
fn is_stuck<'a, V: View<'a>>(pod: V, now: Timestamp) -> bool {
    let asked = pod.text_at(&["metadata", "deletionTimestamp"]).parse::<Timestamp>().ok();
    let grace = pod.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(V::int);
    let (Some(asked), Some(grace)) = (asked, grace) else { return false };
    asked.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now > end)
}

fn service<'a, V: View<'a>>(service: V, used: &mut Amounts) {
    used.insert("services".into(), count(1));
    let ports = || service.items_at(&["spec", "ports"]);
    let numbered = || ports().filter(|p| p.get("nodePort").and_then(V::int).unwrap_or(0) != 0).count();
    let (node_ports, balancers) = match service.text_at(&["spec", "type"]) {
        "NodePort" => (ports().count(), 0),
        "LoadBalancer" => {
            let given = service.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(V::flag).unwrap_or(true);
            (if given { ports().count() } else { numbered() }, 1)
        }
        _ => (0, 0),
    };
    used.insert("services.nodeports".into(), count(node_ports));
    used.insert("services.loadbalancers".into(), count(balancers));
}

fn claim<'a, V: View<'a>>(claim: V, used: &mut Amounts) {
    used.insert("persistentvolumeclaims".into(), count(1));
    let class = match claim.text_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        "" => claim.text_at(&["spec", "storageClassName"]),
        beta => beta,
    };
    if !class.is_empty() {
        used.insert(format!("{class}{CLAIM_SUFFIX}persistentvolumeclaims"), count(1));
    }
    let Some(asked) = list(claim, &["spec", "resources", "requests"]).remove("storage") else { return };
    // What has been given counts where it is more than what is asked for.
    let given = list(claim, &["status", "allocatedResources"]).remove("storage");
    let asked = given.map_or(asked, |given| asked.max(given));
    used.insert("requests.storage".into(), asked);
    if !class.is_empty() {
        used.insert(format!("{class}{CLAIM_SUFFIX}requests.storage"), asked);
    }
}

/// Devices by their class. A request with alternatives counts as the largest of them, for each class.
fn devices<'a, V: View<'a>>(claim: V, used: &mut Amounts) {
    let asked = |exact: V| {
        let devices = if exact.text_at(&["allocationMode"]) == "All" {
            ALL_DEVICES
        } else {
            exact.get("count").and_then(V::int).unwrap_or(1)
        };
        let name = format!("{}.deviceclass.resource.k8s.io/devices", exact.text_at(&["deviceClassName"]));
        (name, count(usize::try_from(devices).unwrap_or(0)))
    };
    for request in claim.items_at(&["spec", "devices", "requests"]) {
        let mut most = Amounts::new();
        let exactly = request.get("exactly").into_iter();
        for (name, devices) in exactly.chain(request.items_at(&["firstAvailable"])).map(asked) {
            let entry = most.entry(name).or_insert(devices);
            *entry = (*entry).max(devices);
        }
        add(used, &most);
    }
}

/// Where a quota bounds compute resources, every container must say what it needs of them; the refusal's words.
pub fn check_said<'a, V: View<'a>>(pod: V, bounded: &Amounts) -> Result<(), String> {
    const REQUIRED: [(&str, &str, &str); 6] = [
        ("cpu", "requests", "cpu"),
        ("limits.cpu", "limits", "cpu"),
        ("limits.memory", "limits", "memory"),
        ("memory", "requests", "memory"),
        ("requests.cpu", "requests", "cpu"),
        ("requests.memory", "requests", "memory"),
    ];
    let mut missing: Vec<String> = Vec::new();
    for (name, which, resource) in REQUIRED.iter().filter(|(name, ..)| bounded.contains_key(*name)) {
        // What is said for the pod as a whole is said for its containers.
        if pod.at(&["spec", "resources", which, resource]).is_some() {
            continue;
        }
        let containers =
            ["containers", "initContainers"].into_iter().flat_map(|l| pod.at(&["spec", l])).flat_map(V::items);
        let silent = containers.filter(|c| c.at(&["resources", which, resource]).is_none());
        let mut silent: Vec<&str> = silent.map(|c| c.text_at(&["name"])).collect();
        silent.sort_unstable();
        silent.dedup();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(format!("must specify {}", missing.join("; "))) }
}

#[cfg(test)]
mod tests {
    use super::super::shown as text;
    use super::*;
    use crate::Quantity;
    use serde_json::{Value, json};

    fn shown(group: &str, plural: &str, object: &Value) -> String {
        text(&of(group, plural, object, Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn a_pod_that_should_have_ended_is_only_there() {
        let pod = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30},
            "spec": {}, "status": {"phase": "Running"}});
        let used = |now: &str| text(&of("", "pods", &pod, now.parse().expect("a time")));
        assert_eq!(used("2026-01-01T00:00:30Z"), "count/pods=1,pods=1");
        assert_eq!(used("2026-01-01T00:00:31Z"), "count/pods=1");
    }

    #[test]
    fn kinds_use_what_upstream_counts() {
        assert_eq!(
            shown(
                "",
                "pods",
                &json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "100m", "example.com/gpu": "1"}, "limits": {"memory": "1Gi"}}}]}})
            ),
            "count/pods=1,cpu=100m,limits.memory=1Gi,pods=1,requests.cpu=100m,requests.example.com/gpu=1"
        );
        assert_eq!(shown("", "pods", &json!({"spec": {}, "status": {"phase": "Succeeded"}})), "count/pods=1");
        assert_eq!(
            shown("", "services", &json!({"spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]}})),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
        );
        assert_eq!(
            shown(
                "",
                "persistentvolumeclaims",
                &json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}})
            ),
            "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
        let claim = json!({"spec": {"devices": {"requests": [
            {"exactly": {"deviceClassName": "gpu", "count": 2}},
            {"firstAvailable": [{"deviceClassName": "gpu"}, {"deviceClassName": "fpga", "allocationMode": "All"}]}]}}});
        assert_eq!(
            shown("resource.k8s.io", "resourceclaims", &claim),
            "count/resourceclaims.resource.k8s.io=1,fpga.deviceclass.resource.k8s.io/devices=32,\
             gpu.deviceclass.resource.k8s.io/devices=3"
        );
        assert_eq!(shown("apps", "deployments", &json!({})), "count/deployments.apps=1");
    }

    #[test]
    fn names_tell_what_is_counted() {
        for (name, kind) in [
            ("count/deployments.apps", Some(("apps", "deployments"))),
            ("count/pods", Some(("", "pods"))),
            ("requests.example.com/gpu", Some(("", "pods"))),
            ("requests.storage", Some(("", "persistentvolumeclaims"))),
            ("fast.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims"))),
            ("nonsense", None),
        ] {
            assert_eq!(counted_from(name), kind, "{name}");
        }
    }

    #[test]
    fn containers_must_say_what_is_bounded() {
        let bounded = Amounts::from([("cpu".to_owned(), Quantity::ZERO), ("limits.memory".to_owned(), Quantity::ZERO)]);
        let pod =
            json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": 1}}}]}});
        assert_eq!(check_said(&pod, &bounded), Err("must specify cpu for: b; limits.memory for: a,b".into()));
    }
}
