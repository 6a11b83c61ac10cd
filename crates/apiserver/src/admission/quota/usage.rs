//! What an object uses of the resources that quotas bound.

use super::amounts::{self, Amounts, amounts as list};
use crate::admission::walk;
use api::Quantity;
use api::quantity::Format;
use schema::{Map, Value};

const CLAIM_SUFFIX: &str = ".storageclass.storage.k8s.io/";

fn count(n: usize) -> Quantity {
    Quantity::from_units(i64::try_from(n).unwrap_or(i64::MAX), Format::DecimalSi)
}

/// The name that objects of any kind are counted by: `count/deployments.apps`.
pub(super) fn count_name(group: &str, plural: &str) -> String {
    if group.is_empty() { format!("count/{plural}") } else { format!("count/{plural}.{group}") }
}

/// Whether quotas look at updates of the kind; of others they only count the objects.
pub(super) fn weighs_updates(group: &str, plural: &str) -> bool {
    group.is_empty() && matches!(plural, "pods" | "services" | "persistentvolumeclaims")
}

/// Everything that an object uses, by the names of quotas.
pub(super) fn of(group: &str, plural: &str, object: &Map) -> Amounts {
    let mut used = Amounts::from([(count_name(group, plural), count(1))]);
    match (group, plural) {
        ("", "pods") => pod(object, &mut used),
        ("", "services") => service(object, &mut used),
        ("", "persistentvolumeclaims") => claim(object, &mut used),
        ("", "configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            used.insert(plural.to_owned(), count(1));
        }
        _ => {}
    }
    used
}

fn pod(pod: &Map, used: &mut Amounts) {
    if matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed") {
        return;
    }
    used.insert("pods".into(), count(1));
    let overhead = list(pod, &["spec", "overhead"]);
    let mut requests = amounts::of_pod(pod, "requests");
    let mut limits = amounts::of_pod(pod, "limits");
    amounts::add(&mut requests, &overhead);
    if !limits.is_empty() {
        amounts::add(&mut limits, &overhead);
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

fn service(service: &Map, used: &mut Amounts) {
    used.insert("services".into(), count(1));
    let ports = || walk::items(service, &["spec", "ports"]);
    let numbered = || ports().filter(|p| p.get("nodePort").and_then(Value::as_i64).unwrap_or(0) != 0).count();
    let (node_ports, balancers) = match service.str_at(&["spec", "type"]) {
        "NodePort" => (ports().count(), 0),
        "LoadBalancer" => {
            let given = service.at(&["spec", "allocateLoadBalancerNodePorts"]).and_then(Value::as_bool).unwrap_or(true);
            (if given { ports().count() } else { numbered() }, 1)
        }
        _ => (0, 0),
    };
    used.insert("services.nodeports".into(), count(node_ports));
    used.insert("services.loadbalancers".into(), count(balancers));
}

fn claim(claim: &Map, used: &mut Amounts) {
    used.insert("persistentvolumeclaims".into(), count(1));
    let class = match claim.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]) {
        "" => claim.str_at(&["spec", "storageClassName"]),
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

/// Where a quota bounds compute resources, every container must say what it needs of them; the refusal's words.
pub(super) fn check_said(pod: &Map, bounded: &Amounts) -> Result<(), String> {
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
        let containers = ["containers", "initContainers"].into_iter().flat_map(|l| walk::items(pod, &["spec", l]));
        let silent = containers.filter(|c| c.at(&["resources", which, resource]).is_none());
        let mut silent: Vec<&str> = silent.map(|c| c.str_at(&["name"])).collect();
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
    use super::*;
    use crate::test_support::map;

    fn shown(group: &str, plural: &str, object: &str) -> String {
        amounts::shown(&of(group, plural, &map(object)))
    }

    #[test]
    fn kinds_use_what_upstream_counts() {
        assert_eq!(
            shown(
                "",
                "pods",
                "{spec: {containers: [{resources: {requests: {cpu: 100m, example.com/gpu: '1'}, limits: {memory: 1Gi}}}]}}"
            ),
            "count/pods=1,cpu=100m,limits.memory=1Gi,pods=1,requests.cpu=100m,requests.example.com/gpu=1"
        );
        assert_eq!(shown("", "pods", "{spec: {}, status: {phase: Succeeded}}"), "count/pods=1");
        assert_eq!(
            shown("", "services", "{spec: {type: LoadBalancer, ports: [{port: 1}, {port: 2}]}}"),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
        );
        assert_eq!(
            shown(
                "",
                "persistentvolumeclaims",
                "{spec: {storageClassName: fast, resources: {requests: {storage: 1Gi}}}}"
            ),
            "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
             fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
        assert_eq!(shown("apps", "deployments", "{}"), "count/deployments.apps=1");
    }

    #[test]
    fn containers_must_say_what_is_bounded() {
        let bounded = Amounts::from([("cpu".to_owned(), Quantity::ZERO), ("limits.memory".to_owned(), Quantity::ZERO)]);
        let pod = map("{spec: {containers: [{name: b}, {name: a, resources: {requests: {cpu: 1}}}]}}");
        assert_eq!(check_said(&pod, &bounded), Err("must specify cpu for: b; limits.memory for: a,b".into()));
    }
}
