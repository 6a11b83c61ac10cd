//! Kind → its cells, in the order of its columns.

use super::Cell::{self, Ago, By, Count, Number, Or, Path};
use super::{NONE, UNKNOWN, UNSET, ago, flag, int, joined, maps, or, pod, selector, selector_of_map, shown, workloads};
use jiff::Timestamp;
use schema::{Map, Value};

const NAME: Cell = Path(&["metadata", "name"]);
const AGE: Cell = Ago(&["metadata", "creationTimestamp"]);

/// The cells of a kind; `None` for those that show only name and creation.
pub(super) fn of(group: &str, kind: &str) -> Option<&'static [Cell]> {
    TABLE.iter().find(|(g, k, _)| *g == group && *k == kind).map(|(_, _, cells)| *cells)
}

const ADMISSION: &str = "admissionregistration.k8s.io";
const RBAC: &str = "rbac.authorization.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const STORAGE: &str = "storage.k8s.io";
const FLOW: &str = "flowcontrol.apiserver.k8s.io";
const RESOURCE: &str = "resource.k8s.io";

static TABLE: &[(&str, &str, &[Cell])] = &[
    (
        "",
        "Pod",
        &[
            NAME,
            By(pod::ready),
            By(pod::status),
            By(pod::restarts),
            AGE,
            By(pod::ip),
            Or(&["spec", "nodeName"], NONE),
            Or(&["status", "nominatedNodeName"], NONE),
            By(pod::gates),
        ],
    ),
    (
        "",
        "Service",
        &[
            NAME,
            Path(&["spec", "type"]),
            By(cluster_ip),
            By(external_ip),
            By(service_ports),
            AGE,
            By(|o, _| selector_of_map(o, &["spec", "selector"]).into()),
        ],
    ),
    (
        "",
        "Node",
        &[
            NAME,
            By(node_status),
            By(node_roles),
            AGE,
            Path(&["status", "nodeInfo", "kubeletVersion"]),
            By(|o, _| node_address(o, "InternalIP")),
            By(|o, _| node_address(o, "ExternalIP")),
            Or(&["status", "nodeInfo", "osImage"], UNKNOWN),
            Or(&["status", "nodeInfo", "kernelVersion"], UNKNOWN),
            Or(&["status", "nodeInfo", "containerRuntimeVersion"], UNKNOWN),
        ],
    ),
    ("", "Namespace", &[NAME, Path(&["status", "phase"]), AGE]),
    (
        "",
        "ConfigMap",
        &[NAME, By(|o, _| Value::Int(super::count(o, &["data"]) + super::count(o, &["binaryData"]))), AGE],
    ),
    ("", "Secret", &[NAME, Path(&["type"]), Count(&["data"]), AGE]),
    ("", "ServiceAccount", &[NAME, AGE]),
    ("", "Endpoints", &[NAME, By(endpoints), AGE]),
    ("", "Event", EVENT),
    ("events.k8s.io", "Event", EVENT_NEW),
    (
        "",
        "ReplicationController",
        &[
            NAME,
            Number(&["spec", "replicas"], 0),
            Number(&["status", "replicas"], 0),
            Number(&["status", "readyReplicas"], 0),
            AGE,
            By(workloads::containers),
            By(workloads::images),
            By(|o, _| selector_of_map(o, &["spec", "selector"]).into()),
        ],
    ),
    ("", "ResourceQuota", &[NAME, By(|o, _| quota(o, false)), By(|o, _| quota(o, true)), AGE]),
    (
        "",
        "PodTemplate",
        &[
            NAME,
            By(|o, _| workloads::names_of(o, &["template", "spec", "containers"], "name")),
            By(|o, _| workloads::names_of(o, &["template", "spec", "containers"], "image")),
            By(|o, _| selector_of_map(o, &["template", "metadata", "labels"]).into()),
        ],
    ),
    (
        "",
        "PersistentVolume",
        &[
            NAME,
            By(|o, _| o.at(&["spec", "capacity", "storage"]).map(shown).unwrap_or_default().into()),
            By(|o, _| access_modes(o, &["spec", "accessModes"]).into()),
            Path(&["spec", "persistentVolumeReclaimPolicy"]),
            By(|o, _| phase(o)),
            By(claim),
            Path(&["spec", "storageClassName"]),
            Or(&["spec", "volumeAttributesClassName"], UNSET),
            Path(&["status", "reason"]),
            AGE,
            Or(&["spec", "volumeMode"], UNSET),
        ],
    ),
    (
        "",
        "PersistentVolumeClaim",
        &[
            NAME,
            By(|o, _| phase(o)),
            Path(&["spec", "volumeName"]),
            By(claim_capacity),
            By(claim_modes),
            By(claim_class),
            Or(&["spec", "volumeAttributesClassName"], UNSET),
            AGE,
            Or(&["spec", "volumeMode"], UNSET),
        ],
    ),
    (
        "",
        "ComponentStatus",
        &[
            NAME,
            By(|o, _| component(o, "status")),
            By(|o, _| component(o, "message")),
            By(|o, _| component(o, "error")),
        ],
    ),
    (
        "apps",
        "Deployment",
        &[
            NAME,
            By(workloads::deployment_ready),
            Number(&["status", "updatedReplicas"], 0),
            Number(&["status", "availableReplicas"], 0),
            AGE,
            By(workloads::containers),
            By(workloads::images),
            By(|o, _| selector(o, &["spec", "selector"]).into()),
        ],
    ),
    (
        "apps",
        "ReplicaSet",
        &[
            NAME,
            Number(&["spec", "replicas"], 0),
            Number(&["status", "replicas"], 0),
            Number(&["status", "readyReplicas"], 0),
            AGE,
            By(workloads::containers),
            By(workloads::images),
            By(|o, _| selector(o, &["spec", "selector"]).into()),
        ],
    ),
    (
        "apps",
        "StatefulSet",
        &[NAME, By(workloads::deployment_ready), AGE, By(workloads::containers), By(workloads::images)],
    ),
    (
        "apps",
        "DaemonSet",
        &[
            NAME,
            Number(&["status", "desiredNumberScheduled"], 0),
            Number(&["status", "currentNumberScheduled"], 0),
            Number(&["status", "numberReady"], 0),
            Number(&["status", "updatedNumberScheduled"], 0),
            Number(&["status", "numberAvailable"], 0),
            By(|o, _| selector_of_map(o, &["spec", "template", "spec", "nodeSelector"]).into()),
            AGE,
            By(workloads::containers),
            By(workloads::images),
            By(|o, _| selector(o, &["spec", "selector"]).into()),
        ],
    ),
    ("apps", "ControllerRevision", &[NAME, By(workloads::controller), Number(&["revision"], 0), AGE]),
    ("autoscaling", "Scale", &[NAME, Number(&["spec", "replicas"], 0), Number(&["status", "replicas"], 0), AGE]),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        &[
            NAME,
            By(workloads::scale_target),
            By(workloads::targets),
            Or(&["spec", "minReplicas"], UNSET),
            Number(&["spec", "maxReplicas"], 0),
            Number(&["status", "currentReplicas"], 0),
            AGE,
        ],
    ),
    (
        "batch",
        "Job",
        &[
            NAME,
            By(workloads::job_status),
            By(workloads::completions),
            By(workloads::job_duration),
            AGE,
            By(workloads::containers),
            By(workloads::images),
            By(|o, _| selector(o, &["spec", "selector"]).into()),
        ],
    ),
    (
        "batch",
        "CronJob",
        &[
            NAME,
            Path(&["spec", "schedule"]),
            Or(&["spec", "timeZone"], NONE),
            By(|o, _| if flag(o, &["spec", "suspend"]) { "True" } else { "False" }.into()),
            Count(&["status", "active"]),
            By(|o, now| since_or_none(o, &["status", "lastScheduleTime"], now)),
            AGE,
            By(|o, _| {
                workloads::names_of(o, &["spec", "jobTemplate", "spec", "template", "spec", "containers"], "name")
            }),
            By(|o, _| {
                workloads::names_of(o, &["spec", "jobTemplate", "spec", "template", "spec", "containers"], "image")
            }),
            By(|o, _| selector(o, &["spec", "jobTemplate", "spec", "selector"]).into()),
        ],
    ),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        &[
            NAME,
            AGE,
            Path(&["spec", "signerName"]),
            Path(&["spec", "username"]),
            By(requested_duration),
            By(signing_condition),
        ],
    ),
    ("certificates.k8s.io", "ClusterTrustBundle", &[NAME, Or(&["spec", "signerName"], NONE)]),
    (
        "certificates.k8s.io",
        "PodCertificateRequest",
        &[
            NAME,
            Path(&["spec", "podName"]),
            Path(&["spec", "serviceAccountName"]),
            Path(&["spec", "nodeName"]),
            Path(&["spec", "signerName"]),
            By(certificate_state),
            By(|o, _| selector_of_map(o, &["spec", "unverifiedUserAnnotations"]).into()),
        ],
    ),
    ("coordination.k8s.io", "Lease", &[NAME, Path(&["spec", "holderIdentity"]), AGE]),
    (
        "coordination.k8s.io",
        "LeaseCandidate",
        &[
            NAME,
            Path(&["spec", "leaseName"]),
            Path(&["spec", "binaryVersion"]),
            Path(&["spec", "emulationVersion"]),
            AGE,
        ],
    ),
    (
        "internal.apiserver.k8s.io",
        "StorageVersion",
        &[NAME, Or(&["status", "commonEncodingVersion"], UNSET), By(storage_versions), AGE],
    ),
    ("discovery.k8s.io", "EndpointSlice", &[NAME, Path(&["addressType"]), By(slice_ports), By(slice_endpoints), AGE]),
    (
        NETWORKING,
        "Ingress",
        &[
            NAME,
            Or(&["spec", "ingressClassName"], NONE),
            By(ingress_hosts),
            By(|o, _| load_balancer(o).into()),
            By(|o, _| if super::count(o, &["spec", "tls"]) > 0 { "80, 443" } else { "80" }.into()),
            AGE,
        ],
    ),
    (NETWORKING, "IngressClass", &[NAME, Path(&["spec", "controller"]), By(class_parameters), AGE]),
    (NETWORKING, "NetworkPolicy", &[NAME, By(|o, _| selector(o, &["spec", "podSelector"]).into()), AGE]),
    (NETWORKING, "IPAddress", &[NAME, By(parent)]),
    (NETWORKING, "ServiceCIDR", &[NAME, By(|o, _| joined(o, &["spec", "cidrs"], ",").into()), AGE]),
    ("node.k8s.io", "RuntimeClass", &[NAME, Path(&["handler"]), AGE]),
    (
        "policy",
        "PodDisruptionBudget",
        &[
            NAME,
            Or(&["spec", "minAvailable"], "N/A"),
            Or(&["spec", "maxUnavailable"], "N/A"),
            Number(&["status", "disruptionsAllowed"], 0),
            AGE,
        ],
    ),
    (RBAC, "ClusterRoleBinding", BINDING),
    (RBAC, "RoleBinding", BINDING),
    (
        "scheduling.k8s.io",
        "PriorityClass",
        &[
            NAME,
            Number(&["value"], 0),
            By(|o, _| flag(o, &["globalDefault"]).into()),
            AGE,
            Or(&["preemptionPolicy"], "PreemptLowerPriority"),
        ],
    ),
    (
        "scheduling.k8s.io",
        "PodGroup",
        &[
            NAME,
            By(group_policy),
            Or(&["spec", "podGroupTemplateRef", "workload", "workloadName"], NONE),
            By(group_status),
            AGE,
        ],
    ),
    ("scheduling.k8s.io", "Workload", &[NAME, AGE]),
    (
        STORAGE,
        "StorageClass",
        &[
            By(storage_class),
            Path(&["provisioner"]),
            Or(&["reclaimPolicy"], "Delete"),
            Or(&["volumeBindingMode"], "Immediate"),
            By(|o, _| flag(o, &["allowVolumeExpansion"]).into()),
            AGE,
        ],
    ),
    (STORAGE, "VolumeAttributesClass", &[NAME, Path(&["driverName"]), AGE]),
    (
        STORAGE,
        "CSIDriver",
        &[
            NAME,
            By(|o, _| o.at(&["spec", "attachRequired"]).and_then(Value::as_bool).unwrap_or(true).into()),
            By(|o, _| flag(o, &["spec", "podInfoOnMount"]).into()),
            By(|o, _| flag(o, &["spec", "storageCapacity"]).into()),
        ],
    ),
    (STORAGE, "CSINode", &[NAME, Count(&["spec", "drivers"]), AGE]),
    (STORAGE, "CSIStorageCapacity", &[NAME, Path(&["storageClassName"]), Path(&["capacity"])]),
    (
        STORAGE,
        "VolumeAttachment",
        &[
            NAME,
            Path(&["spec", "attacher"]),
            Path(&["spec", "source", "persistentVolumeName"]),
            Path(&["spec", "nodeName"]),
            By(|o, _| flag(o, &["status", "attached"]).into()),
            AGE,
        ],
    ),
    (ADMISSION, "MutatingWebhookConfiguration", &[NAME, Count(&["webhooks"]), AGE]),
    (ADMISSION, "ValidatingWebhookConfiguration", &[NAME, Count(&["webhooks"]), AGE]),
    (ADMISSION, "ValidatingAdmissionPolicy", &[NAME, Count(&["spec", "validations"]), By(param_kind), AGE]),
    (ADMISSION, "MutatingAdmissionPolicy", &[NAME, Count(&["spec", "mutations"]), By(param_kind), AGE]),
    (ADMISSION, "ValidatingAdmissionPolicyBinding", POLICY_BINDING),
    (ADMISSION, "MutatingAdmissionPolicyBinding", POLICY_BINDING),
    (
        FLOW,
        "FlowSchema",
        &[
            NAME,
            Path(&["spec", "priorityLevelConfiguration", "name"]),
            Number(&["spec", "matchingPrecedence"], 0),
            Or(&["spec", "distinguisherMethod", "type"], NONE),
            AGE,
            By(missing_level),
        ],
    ),
    (
        FLOW,
        "PriorityLevelConfiguration",
        &[
            NAME,
            Path(&["spec", "type"]),
            By(|o, _| level(o, &["nominalConcurrencyShares"])),
            By(|o, _| level(o, &["limitResponse", "queuing", "queues"])),
            By(|o, _| level(o, &["limitResponse", "queuing", "handSize"])),
            By(|o, _| level(o, &["limitResponse", "queuing", "queueLengthLimit"])),
            AGE,
        ],
    ),
    (RESOURCE, "DeviceClass", &[NAME, AGE]),
    (
        RESOURCE,
        "DeviceTaintRule",
        &[
            NAME,
            Path(&["spec", "taint", "key"]),
            Path(&["spec", "taint", "value"]),
            Path(&["spec", "taint", "effect"]),
            By(tainted_since),
            AGE,
        ],
    ),
    (RESOURCE, "ResourceClaim", &[NAME, By(claim_state), AGE]),
    (RESOURCE, "ResourceClaimTemplate", &[NAME, AGE]),
    (
        RESOURCE,
        "ResourceSlice",
        &[NAME, By(slice_node), Path(&["spec", "driver"]), Path(&["spec", "pool", "name"]), AGE],
    ),
    (
        RESOURCE,
        "ResourcePoolStatusRequest",
        &[
            NAME,
            Path(&["spec", "driver"]),
            By(|o, _| devices_of_pools(o, "totalDevices")),
            By(|o, _| devices_of_pools(o, "availableDevices")),
            By(|o, _| devices_of_pools(o, "allocatedDevices")),
            By(|o, _| devices_of_pools(o, "unavailableDevices")),
            By(pool_errors),
            Number(&["status", "poolCount"], 0),
            By(|o, _| pools_condition(o).map_or("Pending", |c| c.str_at(&["type"])).into()),
            By(|o, now| {
                pools_condition(o).map_or_else(|| "".into(), |c| ago(c.str_at(&["lastTransitionTime"]), now).into())
            }),
        ],
    ),
    // Upstream has a third column, and nothing for it yet.
    ("storagemigration.k8s.io", "StorageVersionMigration", &[NAME, By(migrated), By(|_, _| "".into())]),
];

const BINDING: &[Cell] = &[
    NAME,
    By(role),
    AGE,
    By(|o, _| subjects(o, "User")),
    By(|o, _| subjects(o, "Group")),
    By(|o, _| subjects(o, "ServiceAccount")),
];
const POLICY_BINDING: &[Cell] = &[NAME, Path(&["spec", "policyName"]), Or(&["spec", "paramRef", "name"], NONE), AGE];

const EVENT: &[Cell] = &[
    By(|o, now| ago(event_times(o).1, now).into()),
    Path(&["type"]),
    Path(&["reason"]),
    By(|o, _| event_object(o, &["involvedObject"])),
    Path(&["involvedObject", "fieldPath"]),
    By(|o, _| event_source(o)),
    By(|o, _| o.str_at(&["message"]).trim().into()),
    By(|o, now| ago(event_times(o).0, now).into()),
    By(event_count),
    NAME,
];
const EVENT_NEW: &[Cell] = &[
    By(|o, now| ago(event_times(o).1, now).into()),
    Path(&["type"]),
    Path(&["reason"]),
    By(|o, _| event_object(o, &["regarding"])),
    Path(&["regarding", "fieldPath"]),
    By(|o, _| event_source(o)),
    By(|o, _| o.str_at(&["note"]).trim().into()),
    By(|o, now| ago(event_times(o).0, now).into()),
    By(event_count),
    NAME,
];

/// First and last time of an event of either group.
fn event_times(object: &Map) -> (&str, &str) {
    let pick = |paths: &[&[&str]]| paths.iter().map(|p| object.str_at(p)).find(|t| !t.is_empty());
    let first = pick(&[&["firstTimestamp"], &["deprecatedFirstTimestamp"], &["eventTime"]]).unwrap_or("");
    let last =
        pick(&[&["series", "lastObservedTime"], &["lastTimestamp"], &["deprecatedLastTimestamp"]]).unwrap_or(first);
    (first, last)
}

fn event_object(object: &Map, path: &[&str]) -> Value {
    let involved = object.at(path).and_then(Value::as_map);
    let (kind, name) = involved.map_or(("", ""), |i| (i.str_at(&["kind"]), i.str_at(&["name"])));
    let kind = kind.to_lowercase();
    if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() }
}

fn event_source(object: &Map) -> Value {
    let pick =
        |paths: &[&[&str]]| paths.iter().map(|p| object.str_at(p)).find(|t| !t.is_empty()).unwrap_or("").to_owned();
    let component = pick(&[
        &["source", "component"],
        &["deprecatedSource", "component"],
        &["reportingComponent"],
        &["reportingController"],
    ]);
    let host = pick(&[&["source", "host"], &["deprecatedSource", "host"], &["reportingInstance"]]);
    if host.is_empty() { component.into() } else { format!("{component}, {host}").into() }
}

fn event_count(object: &Map, _: Timestamp) -> Value {
    let count = [int(object, &["series", "count"]), int(object, &["count"]), int(object, &["deprecatedCount"])];
    Value::Int(count.into_iter().find(|c| *c > 0).unwrap_or(1))
}

fn since_or_none(object: &Map, path: &[&str], now: Timestamp) -> Value {
    match object.str_at(path) {
        "" => NONE.into(),
        time => ago(time, now).into(),
    }
}

fn cluster_ip(object: &Map, _: Timestamp) -> Value {
    or(object.str_at(&["spec", "clusterIP"]).to_owned(), NONE).into()
}

fn load_balancer(object: &Map) -> String {
    let of =
        |i: &Map| [i.str_at(&["ip"]), i.str_at(&["hostname"])].into_iter().find(|a| !a.is_empty()).map(str::to_owned);
    maps(object, &["status", "loadBalancer", "ingress"]).filter_map(of).collect::<Vec<_>>().join(",")
}

fn external_ip(object: &Map, _: Timestamp) -> Value {
    let own = joined(object, &["spec", "externalIPs"], ",");
    match object.str_at(&["spec", "type"]) {
        "ExternalName" => or(object.str_at(&["spec", "externalName"]).to_owned(), NONE).into(),
        "LoadBalancer" => {
            let balancer = load_balancer(object);
            let all: Vec<String> = [balancer, own].into_iter().filter(|s| !s.is_empty()).collect();
            or(all.join(","), "<pending>").into()
        }
        _ => or(own, NONE).into(),
    }
}

fn service_ports(object: &Map, _: Timestamp) -> Value {
    let of = |p: &Map| {
        let (port, node) = (int(p, &["port"]), int(p, &["nodePort"]));
        let protocol = p.str_at(&["protocol"]);
        if node > 0 { format!("{port}:{node}/{protocol}") } else { format!("{port}/{protocol}") }
    };
    or(maps(object, &["spec", "ports"]).map(of).collect::<Vec<_>>().join(","), NONE).into()
}

fn node_status(object: &Map, _: Timestamp) -> Value {
    let ready = maps(object, &["status", "conditions"]).find(|c| c.str_at(&["type"]) == "Ready");
    let mut status = match ready.map(|c| c.str_at(&["status"])) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if flag(object, &["spec", "unschedulable"]) {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn node_roles(object: &Map, _: Timestamp) -> Value {
    let labels = object.at(&["metadata", "labels"]).and_then(Value::as_map);
    let mut roles: Vec<&str> = labels
        .into_iter()
        .flat_map(Map::iter)
        .filter_map(|(k, v)| match k.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None if k == "kubernetes.io/role" => v.as_str(),
            None => None,
        })
        .filter(|r| !r.is_empty())
        .collect();
    roles.sort_unstable();
    or(roles.join(","), NONE).into()
}

fn node_address(object: &Map, ty: &str) -> Value {
    let found = maps(object, &["status", "addresses"]).find(|a| a.str_at(&["type"]) == ty);
    found.map_or(NONE, |a| a.str_at(&["address"])).into()
}

fn endpoints(object: &Map, _: Timestamp) -> Value {
    let mut list = Vec::new();
    for subset in maps(object, &["subsets"]) {
        let ports: Vec<i64> = maps(subset, &["ports"]).map(|p| int(p, &["port"])).collect();
        for address in maps(subset, &["addresses"]) {
            let ip = address.str_at(&["ip"]);
            if ports.is_empty() {
                list.push(ip.to_owned());
            }
            list.extend(
                ports.iter().map(|p| if ip.contains(':') { format!("[{ip}]:{p}") } else { format!("{ip}:{p}") }),
            );
        }
    }
    more(list)
}

/// At most three, and how many more there are.
fn more(list: Vec<String>) -> Value {
    let rest = list.len().saturating_sub(3);
    let mut text = or(list.into_iter().take(3).collect::<Vec<_>>().join(","), NONE);
    if rest > 0 {
        text.push_str(&format!(" + {rest} more..."));
    }
    text.into()
}

fn slice_ports(object: &Map, _: Timestamp) -> Value {
    let list: Vec<String> = maps(object, &["ports"])
        .map(|p| match p.at(&["port"]) {
            Some(port) => shown(port),
            None => "*".to_owned(),
        })
        .collect();
    if list.is_empty() { UNSET.into() } else { more(list) }
}

fn slice_endpoints(object: &Map, _: Timestamp) -> Value {
    let list: Vec<String> = maps(object, &["endpoints"])
        .filter_map(|e| e.at(&["addresses"])?.as_list()?.first()?.as_str().map(str::to_owned))
        .collect();
    if list.is_empty() { UNSET.into() } else { more(list) }
}

fn quota(object: &Map, limits: bool) -> Value {
    let hard = object.at(&["status", "hard"]).or_else(|| object.at(&["spec", "hard"])).and_then(Value::as_map);
    let of = |(key, value): (&str, &Value)| {
        let used = object.at(&["status", "used", key]).map(shown).unwrap_or_default();
        format!("{key}: {}/{}", or(used, "0"), shown(value))
    };
    let fits = |key: &str| key.starts_with("limits") == limits;
    let list: Vec<String> = hard.into_iter().flat_map(Map::iter).filter(|(k, _)| fits(k)).map(of).collect();
    list.join(", ").into()
}

fn phase(object: &Map) -> Value {
    if object.at(&["metadata", "deletionTimestamp"]).is_some() {
        "Terminating".into()
    } else {
        object.str_at(&["status", "phase"]).into()
    }
}

fn access_modes(object: &Map, path: &[&str]) -> String {
    let modes = object.at(path).and_then(Value::as_list).unwrap_or(&[]);
    let mut short: Vec<&str> = Vec::new();
    for (long, abbreviation) in
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")]
    {
        if modes.iter().any(|m| m.as_str() == Some(long)) {
            short.push(abbreviation);
        }
    }
    short.join(",")
}

fn claim(object: &Map, _: Timestamp) -> Value {
    match object.at(&["spec", "claimRef"]).and_then(Value::as_map) {
        Some(claim) => format!("{}/{}", claim.str_at(&["namespace"]), claim.str_at(&["name"])).into(),
        None => "".into(),
    }
}

fn is_bound(object: &Map) -> bool {
    !object.str_at(&["spec", "volumeName"]).is_empty()
}

fn claim_capacity(object: &Map, _: Timestamp) -> Value {
    let capacity = object.at(&["status", "capacity", "storage"]).filter(|_| is_bound(object));
    capacity.map(shown).unwrap_or_default().into()
}

fn claim_modes(object: &Map, _: Timestamp) -> Value {
    if is_bound(object) { access_modes(object, &["status", "accessModes"]).into() } else { "".into() }
}

fn claim_class(object: &Map, _: Timestamp) -> Value {
    let annotated = object.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    if annotated.is_empty() { object.str_at(&["spec", "storageClassName"]).into() } else { annotated.into() }
}

/// The first servers, each with the version that it writes.
fn storage_versions(object: &Map, _: Timestamp) -> Value {
    const SHOWN: usize = 3;
    let all: Vec<String> = maps(object, &["status", "storageVersions"])
        .map(|of| format!("{}={}", of.str_at(&["apiServerID"]), of.str_at(&["encodingVersion"])))
        .collect();
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    let more = all.len().saturating_sub(SHOWN);
    if more > 0 { format!("{shown} + {more} more...").into() } else { shown.into() }
}

/// What is migrated: `resource.group`, with the dot where there is no group too.
fn migrated(object: &Map, _: Timestamp) -> Value {
    let part = |name| object.str_at(&["spec", "resource", name]);
    format!("{}.{}", part("resource"), part("group")).into()
}

/// Which of the conditions that end a request it has.
fn certificate_state(object: &Map, _: Timestamp) -> Value {
    let mut types = maps(object, &["status", "conditions"]).map(|c| c.str_at(&["type"]));
    types.find(|ty| matches!(*ty, "Issued" | "Denied" | "Failed")).unwrap_or("Pending").into()
}

fn group_policy(object: &Map, _: Timestamp) -> Value {
    let policies = [("basic", "Basic"), ("gang", "Gang")];
    let named = policies.iter().find(|(key, _)| object.at(&["spec", "schedulingPolicy", key]).is_some());
    named.map_or(NONE, |(_, shown)| *shown).into()
}

/// Whether a group of pods has been scheduled, or why not.
fn group_status(object: &Map, _: Timestamp) -> Value {
    let scheduled = maps(object, &["status", "conditions"]).find(|c| c.str_at(&["type"]) == "PodGroupScheduled");
    match scheduled.map(|c| (c.str_at(&["status"]), c.str_at(&["reason"]))) {
        Some(("True", _)) => "Scheduled",
        Some((_, reason)) if !reason.is_empty() => reason,
        _ => "Pending",
    }
    .into()
}

/// Devices of all pools that are told, of one sort; nothing as long as nothing is told.
fn devices_of_pools(object: &Map, sort: &str) -> Value {
    if object.at(&["status"]).is_none() {
        return "".into();
    }
    maps(object, &["status", "pools"]).map(|pool| int(pool, &[sort])).sum::<i64>().to_string().into()
}

fn pool_errors(object: &Map, _: Timestamp) -> Value {
    if object.at(&["status"]).is_none() {
        return "".into();
    }
    let errors = maps(object, &["status", "pools"]).filter(|pool| !pool.str_at(&["validationError"]).is_empty());
    errors.count().to_string().into()
}

/// The condition that says how a request for the state of pools has ended.
fn pools_condition(object: &Map) -> Option<&Map> {
    let ended = |c: &&Map| matches!(c.str_at(&["type"]), "Complete" | "Failed") && c.str_at(&["status"]) == "True";
    maps(object, &["status", "conditions"]).find(ended)
}

fn tainted_since(object: &Map, now: Timestamp) -> Value {
    match object.str_at(&["spec", "taint", "timeAdded"]) {
        "" => "".into(),
        added => ago(added, now).into(),
    }
}

fn component(object: &Map, what: &str) -> Value {
    let healthy = maps(object, &["conditions"]).find(|c| c.str_at(&["type"]) == "Healthy");
    let Some(condition) = healthy else { return if what == "status" { "Unknown" } else { "" }.into() };
    match what {
        "status" => match condition.str_at(&["status"]) {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        }
        .into(),
        other => condition.str_at(&[other]).into(),
    }
}

fn requested_duration(object: &Map, _: Timestamp) -> Value {
    match object.at(&["spec", "expirationSeconds"]).and_then(Value::as_i64) {
        Some(seconds) => api::duration::human(seconds).into(),
        None => NONE.into(),
    }
}

fn signing_condition(object: &Map, _: Timestamp) -> Value {
    let has = |ty: &str| maps(object, &["status", "conditions"]).any(|c| c.str_at(&["type"]) == ty);
    let mut state = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !object.str_at(&["status", "certificate"]).is_empty() {
        state.push_str(",Issued");
    }
    state.into()
}

fn ingress_hosts(object: &Map, _: Timestamp) -> Value {
    let hosts: Vec<String> =
        maps(object, &["spec", "rules"]).map(|r| r.str_at(&["host"]).to_owned()).filter(|h| !h.is_empty()).collect();
    if hosts.is_empty() { "*".into() } else { more(hosts) }
}

fn class_parameters(object: &Map, _: Timestamp) -> Value {
    let Some(parameters) = object.at(&["spec", "parameters"]).and_then(Value::as_map) else { return NONE.into() };
    let (group, kind, name) =
        (parameters.str_at(&["apiGroup"]), parameters.str_at(&["kind"]), parameters.str_at(&["name"]));
    if group.is_empty() { format!("{kind}/{name}").into() } else { format!("{kind}.{group}/{name}").into() }
}

fn parent(object: &Map, _: Timestamp) -> Value {
    let Some(parent) = object.at(&["spec", "parentRef"]).and_then(Value::as_map) else { return NONE.into() };
    let parts = ["resource", "namespace", "name"].map(|k| parent.str_at(&[k]));
    let mut text = parts[0].to_owned();
    let group = parent.str_at(&["group"]);
    if !group.is_empty() {
        text = format!("{text}.{group}");
    }
    for part in &parts[1..] {
        if !part.is_empty() {
            text = format!("{text}/{part}");
        }
    }
    text.into()
}

fn role(object: &Map, _: Timestamp) -> Value {
    format!("{}/{}", object.str_at(&["roleRef", "kind"]), object.str_at(&["roleRef", "name"])).into()
}

fn subjects(object: &Map, kind: &str) -> Value {
    let of = |s: &Map| {
        let (namespace, name) = (s.str_at(&["namespace"]), s.str_at(&["name"]));
        if kind == "ServiceAccount" { format!("{namespace}/{name}") } else { name.to_owned() }
    };
    maps(object, &["subjects"]).filter(|s| s.str_at(&["kind"]) == kind).map(of).collect::<Vec<_>>().join(", ").into()
}

fn storage_class(object: &Map, _: Timestamp) -> Value {
    let name = object.str_at(&["metadata", "name"]);
    let default = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"]
        .iter()
        .any(|a| object.str_at(&["metadata", "annotations", a]) == "true");
    if default { format!("{name} (default)").into() } else { name.into() }
}

fn param_kind(object: &Map, _: Timestamp) -> Value {
    match object.at(&["spec", "paramKind"]).and_then(Value::as_map) {
        Some(kind) => format!("{}/{}", kind.str_at(&["apiVersion"]), kind.str_at(&["kind"])).into(),
        None => UNSET.into(),
    }
}

fn missing_level(object: &Map, _: Timestamp) -> Value {
    let dangling = maps(object, &["status", "conditions"]).find(|c| c.str_at(&["type"]) == "Dangling");
    match dangling.map(|c| c.str_at(&["status"])) {
        Some("True") => "True",
        Some("False") => "False",
        _ => "?",
    }
    .into()
}

fn level(object: &Map, path: &[&str]) -> Value {
    for section in ["limited", "exempt"] {
        let mut full = vec!["spec", section];
        full.extend(path);
        if let Some(value) = object.at(&full) {
            return shown(value).into();
        }
    }
    NONE.into()
}

fn claim_state(object: &Map, _: Timestamp) -> Value {
    let mut states = Vec::new();
    if object.at(&["metadata", "deletionTimestamp"]).is_some() {
        states.push("deleted");
    }
    if object.at(&["status", "allocation"]).is_some() {
        states.push("allocated");
        if super::count(object, &["status", "reservedFor"]) > 0 {
            states.push("reserved");
        }
    }
    if states.is_empty() {
        states.push("pending");
    }
    states.join(",").into()
}

fn slice_node(object: &Map, _: Timestamp) -> Value {
    if flag(object, &["spec", "allNodes"]) { "<all>".into() } else { object.str_at(&["spec", "nodeName"]).into() }
}
