//! Whether the node takes a pod that was bound to it. The scheduler has looked before, but its
//! knowledge may have been old, and some pods never pass it.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Toleration};

use crate::{
    container::sandbox::dotted,
    node::NodeView,
    resources::{self, PODS},
    spec::{PodExt, is_sidecar},
};

/// Why a pod was rejected, as its status tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reason: String,
    pub(crate) message: String,
}

fn rejection(reason: impl Into<String>, message: impl Into<String>) -> Rejection {
    Rejection { reason: reason.into(), message: message.into() }
}

/// The node, as admission sees it.
pub(crate) struct Node<'a> {
    pub(crate) name: &'a str,
    pub(crate) view: &'a NodeView,
    pub(crate) pressure: crate::node::status::Pressure,
    /// The pods that run here already.
    pub(crate) others: &'a [&'a Pod],
    pub(crate) unsafe_sysctls: &'a [String],
}

/// Decides about a pod.
///
/// # Errors
/// The reason and message, upstream's.
pub(crate) fn admit(pod: &Pod, node: &Node<'_>) -> Result<(), Rejection> {
    pressure(pod, node)?;
    sysctls(pod, node.unsafe_sysctls)?;
    if pod.spec().os.as_ref().is_some_and(|os| os.name != "linux") {
        let message = "Failed to admit pod as the OS doesn't match node label";
        return Err(rejection("PodOSNotSupported", message));
    }
    fits(pod, node)?;
    selected(pod, node)?;
    ports(pod, node)?;
    apparmor(pod)
}

/// Static pods and those that the system cannot do without are let in whatever the node suffers.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    pod.is_static() || pod.is_mirror() || pod.spec().priority.unwrap_or_default() >= 2_000_000_000
}

fn pressure(pod: &Pod, node: &Node<'_>) -> Result<(), Rejection> {
    let found: Vec<&str> = [
        ("MemoryPressure", node.pressure.memory),
        ("DiskPressure", node.pressure.disk),
        ("PIDPressure", node.pressure.pids),
    ]
    .into_iter()
    .filter_map(|(name, is)| is.then_some(name))
    .collect();
    if found.is_empty() || is_critical(pod) {
        return Ok(());
    }
    if found == ["MemoryPressure"] {
        let tolerates = pod
            .spec()
            .tolerations
            .iter()
            .flatten()
            .any(|toleration| tolerates(toleration, "node.kubernetes.io/memory-pressure", "", "NoSchedule"));
        if resources::qos(pod) != resources::Qos::BestEffort || tolerates {
            return Ok(());
        }
    }
    let message = format!("The node had condition: [{}]. ", found.join(" "));
    Err(rejection("Evicted", message))
}

/// Sysctls that are the pod's own business.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn sysctls(pod: &Pod, allowed: &[String]) -> Result<(), Rejection> {
    let spec = pod.spec();
    let asked = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    for sysctl in asked {
        let name = dotted(&sysctl.name);
        let listed = SAFE_SYSCTLS.contains(&name.as_str())
            || allowed.iter().any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => *pattern == name,
            });
        let forbidden = if !listed {
            Some("not allowlisted")
        } else if spec.host_network == Some(true) && name.starts_with("net.") {
            Some("not allowed with host net enabled")
        } else if spec.host_ipc == Some(true) && (name.starts_with("kernel.") || name.starts_with("fs.mqueue.")) {
            Some("not allowed with host ipc enabled")
        } else {
            None
        };
        if let Some(why) = forbidden {
            return Err(rejection("SysctlForbidden", format!("forbidden sysctl: {:?} {why}", sysctl.name)));
        }
    }
    Ok(())
}

fn fits(pod: &Pod, node: &Node<'_>) -> Result<(), Rejection> {
    let out_of = |name: &str, requested: i64, used: i64, capacity: i64| {
        rejection(
            format!("OutOf{name}"),
            format!(
                "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        )
    };
    let allocatable = |name: &str| resources::get(Some(&node.view.allocatable), name);
    let number = |quantity: &Quantity, name: &str| {
        if name == resources::CPU { quantity.milli_value() } else { quantity.value() }
    };
    let count = i64::try_from(node.others.len()).unwrap_or(i64::MAX);
    if count + 1 > allocatable(PODS).value() {
        return Err(out_of(PODS, 1, count, allocatable(PODS).value()));
    }
    let mut used: BTreeMap<String, Quantity> = BTreeMap::new();
    for other in node.others {
        for (name, quantity) in resources::pod_requests(other) {
            let sum = used.get(&name).copied().unwrap_or(Quantity::ZERO).add(&quantity);
            used.insert(name, sum);
        }
    }
    for (name, wanted) in resources::pod_requests(pod) {
        if wanted.is_zero() {
            continue;
        }
        let (have, capacity) = (used.get(&name).copied().unwrap_or(Quantity::ZERO), allocatable(&name));
        // Resources that the node doesn't have are none of its business.
        let unknown = !node.view.allocatable.contains_key(&name);
        if unknown && name != resources::CPU && name != resources::MEMORY && !name.starts_with(resources::HUGE_PAGES) {
            continue;
        }
        if wanted.add(&have) > capacity {
            return Err(out_of(&name, number(&wanted, &name), number(&have, &name), number(&capacity, &name)));
        }
    }
    Ok(())
}

/// The pod's node selector and required affinity match the node.
fn selected(pod: &Pod, node: &Node<'_>) -> Result<(), Rejection> {
    let refused = || {
        rejection("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
    };
    let labels = &node.view.labels;
    let selector = pod.spec().node_selector.iter().flatten();
    if selector.into_iter().any(|(key, value)| labels.get(key) != Some(value)) {
        return Err(refused());
    }
    let required = pod
        .spec()
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    match required {
        Some(required) if !required.node_selector_terms.iter().any(|term| matches(term, node)) => Err(refused()),
        _ => Ok(()),
    }
}

fn matches(term: &NodeSelectorTerm, node: &Node<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let label = |requirement: &NodeSelectorRequirement| {
        holds(requirement, node.view.labels.get(&requirement.key).map(String::as_str))
    };
    let field = |requirement: &NodeSelectorRequirement| {
        requirement.key == "metadata.name" && holds(requirement, Some(node.name))
    };
    expressions.iter().all(label) && fields.iter().all(field)
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|listed| listed == value));
    let compared = || {
        let own: i64 = value?.parse().ok()?;
        let [bound] = values else { return None };
        Some(own.cmp(&bound.parse().ok()?))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared() == Some(std::cmp::Ordering::Greater),
        "Lt" => compared() == Some(std::cmp::Ordering::Less),
        _ => false,
    }
}

/// The ports of the node that a pod takes: protocol, address, port.
pub(crate) fn host_ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let host = pod.is_host_network();
    let sidecars = pod.init_containers().iter().filter(|c| is_sidecar(c));
    let all = sidecars.chain(pod.containers()).flat_map(|c| c.ports.iter().flatten());
    all.filter_map(|port| {
        let number = if host { Some(port.container_port) } else { port.host_port };
        let number = number.filter(|number| *number > 0)?;
        let ip = port.host_ip.clone().filter(|ip| !ip.is_empty());
        Some((
            port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            ip.unwrap_or_else(|| "0.0.0.0".to_owned()),
            number,
        ))
    })
    .collect()
}

fn ports(pod: &Pod, node: &Node<'_>) -> Result<(), Rejection> {
    let taken: Vec<_> = node.others.iter().flat_map(|other| host_ports(other)).collect();
    let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
    for (protocol, ip, port) in host_ports(pod) {
        let conflict = taken.iter().any(|(other, other_ip, other_port)| {
            *other == protocol && *other_port == port && (*other_ip == ip || any(other_ip) || any(&ip))
        });
        if conflict {
            let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
            return Err(rejection("NodePorts", message));
        }
    }
    Ok(())
}

fn apparmor(pod: &Pod) -> Result<(), Rejection> {
    let wants = |profile: Option<&k8s_openapi::api::core::v1::AppArmorProfile>| {
        profile.is_some_and(|profile| profile.type_ == "Localhost")
    };
    let of_pod = pod.spec().security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    let of_containers = pod
        .containers()
        .iter()
        .chain(pod.init_containers())
        .any(|c| wants(c.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref())));
    let enabled =
        || std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'));
    if (wants(of_pod) || of_containers) && !enabled() {
        let message = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        return Err(rejection("AppArmor", message));
    }
    Ok(())
}

fn tolerates(toleration: &Toleration, key: &str, value: &str, effect: &str) -> bool {
    let effect_ok = toleration.effect.as_deref().is_none_or(|own| own.is_empty() || own == effect);
    let own_key = toleration.key.as_deref().unwrap_or_default();
    let key_ok = own_key.is_empty() || own_key == key;
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value_ok = exists || toleration.value.as_deref().unwrap_or_default() == value;
    effect_ok && key_ok && value_ok && (exists || !own_key.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::node::status::Pressure;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})).unwrap()
    }

    fn view() -> NodeView {
        let text = |text: &str| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.into());
        NodeView {
            labels: BTreeMap::from([("disk".into(), "ssd".into()), ("gen".into(), "5".into())]),
            allocatable: BTreeMap::from([
                ("cpu".into(), text("2")),
                ("memory".into(), text("4Gi")),
                ("pods".into(), text("3")),
            ]),
            uid: "u".into(),
        }
    }

    fn verdict(spec: Value, others: &[Pod], pressure: Pressure) -> String {
        let view = view();
        let others: Vec<&Pod> = others.iter().collect();
        let node =
            Node { name: "n", view: &view, pressure, others: &others, unsafe_sysctls: &["net.core.*".to_owned()] };
        match admit(&pod(spec), &node) {
            Ok(()) => String::new(),
            Err(rejection) => format!("{}: {}", rejection.reason, rejection.message),
        }
    }

    fn asks(resources: Value) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": resources}}]})
    }

    #[test]
    fn what_does_not_fit_is_rejected() {
        let ok = |spec: Value, others: &[Pod]| verdict(spec, others, Pressure::default());
        assert_eq!(ok(asks(json!({"cpu": "2", "memory": "4Gi", "example.com/x": "1"})), &[]), "");
        assert_eq!(
            ok(asks(json!({"cpu": "1500m"})), &[pod(asks(json!({"cpu": "600m"})))]),
            "OutOfcpu: Node didn't have enough resource: cpu, requested: 1500, used: 600, capacity: 2000"
        );
        assert_eq!(
            ok(asks(json!({"memory": "5Gi"})), &[]),
            "OutOfmemory: Node didn't have enough resource: memory, requested: 5368709120, used: 0, capacity: 4294967296"
        );
        let three = [pod(asks(json!({}))), pod(asks(json!({}))), pod(asks(json!({})))];
        assert_eq!(
            ok(asks(json!({})), &three),
            "OutOfpods: Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"
        );
    }

    #[test]
    fn selectors_and_ports_are_checked() {
        let ok = |spec: Value, others: &[Pod]| verdict(spec, others, Pressure::default());
        let affinity = "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        assert_eq!(ok(json!({"containers": [], "nodeSelector": {"disk": "ssd"}}), &[]), "");
        assert_eq!(ok(json!({"containers": [], "nodeSelector": {"disk": "hdd"}}), &[]), affinity);
        let term = |term: Value| {
            json!({"containers": [], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [term]}}}})
        };
        for (expression, matched) in [
            (json!({"matchExpressions": [{"key": "gen", "operator": "Gt", "values": ["4"]}]}), true),
            (json!({"matchExpressions": [{"key": "gen", "operator": "Lt", "values": ["4"]}]}), false),
            (json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}), false),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}), true),
            (json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["m"]}]}), false),
            (json!({}), false),
        ] {
            assert_eq!(ok(term(expression.clone()), &[]).is_empty(), matched, "{expression}");
        }
        let port = |port: Value| json!({"containers": [{"name": "c", "ports": [port]}]});
        let other = [pod(port(json!({"containerPort": 80, "hostPort": 8080})))];
        let taken = "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        assert_eq!(ok(port(json!({"containerPort": 1, "hostPort": 8080})), &other), taken);
        assert_eq!(ok(port(json!({"containerPort": 1, "hostPort": 8080, "hostIP": "127.0.0.1"})), &other), taken);
        assert_eq!(ok(port(json!({"containerPort": 1, "hostPort": 8080, "protocol": "UDP"})), &other), "");
    }

    #[test]
    fn pressure_and_sysctls_keep_pods_out() {
        let memory = Pressure { memory: true, ..Pressure::default() };
        assert_eq!(verdict(asks(json!({})), &[], memory), "Evicted: The node had condition: [MemoryPressure]. ");
        assert_eq!(verdict(asks(json!({"cpu": "1"})), &[], memory), "");
        let disk = Pressure { disk: true, ..Pressure::default() };
        assert_eq!(verdict(asks(json!({"cpu": "1"})), &[], disk), "Evicted: The node had condition: [DiskPressure]. ");
        assert_eq!(verdict(json!({"containers": [], "priority": 2_000_000_001}), &[], disk), "");
        let sysctl = |name: &str, host: bool| {
            verdict(
                json!({"containers": [], "hostNetwork": host, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}}),
                &[],
                Pressure::default(),
            )
        };
        assert_eq!(
            sysctl("kernel.msgmax", false),
            "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted"
        );
        assert_eq!(sysctl("net.core.somaxconn", false), "");
        assert_eq!(
            sysctl("net.ipv4.tcp_syncookies", true),
            "SysctlForbidden: forbidden sysctl: \"net.ipv4.tcp_syncookies\" not allowed with host net enabled"
        );
    }
}
