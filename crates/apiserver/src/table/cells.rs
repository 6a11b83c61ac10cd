//! Kind → its cells, in the order of its columns.

use super::Cell::{self, Ago, By, Count, Number, Or, Path, Text};
use super::{NONE, UNKNOWN, UNSET, access, certificates, devices, events, network, pod, storage, workloads};
use super::{ago, flag, joined, maps, or, selector, selector_of_map, shown};
use jiff::Timestamp;
use schema::{Map, Value};

pub(super) const NAME: Cell = Path(&["metadata", "name"]);
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
            By(network::cluster_ip),
            By(network::external_ip),
            By(network::service_ports),
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
    ("", "Endpoints", &[NAME, By(network::endpoints), AGE]),
    ("", "Event", events::CELLS),
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
            By(|o, _| storage::quantity(o, &["spec", "capacity", "storage"])),
            By(|o, _| storage::access_modes(o, &["spec", "accessModes"]).into()),
            Path(&["spec", "persistentVolumeReclaimPolicy"]),
            By(|o, _| storage::phase(o)),
            By(storage::claim),
            By(storage::class),
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
            By(|o, _| storage::phase(o)),
            Path(&["spec", "volumeName"]),
            By(storage::claim_capacity),
            By(storage::claim_modes),
            By(storage::class),
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
    ("apiregistration.k8s.io", "APIService", &[NAME, By(api_service), By(api_available), AGE]),
    ("autoscaling", "Scale", &[NAME, Number(&["spec", "replicas"], 0), Number(&["status", "replicas"], 0), AGE]),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        &[
            NAME,
            By(workloads::scale_target),
            By(workloads::targets),
            Text(&["spec", "minReplicas"], UNSET),
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
            Or(&["spec", "signerName"], NONE),
            Path(&["spec", "username"]),
            By(certificates::requested_duration),
            By(certificates::signing_condition),
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
            By(certificates::certificate_state),
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
    (
        "discovery.k8s.io",
        "EndpointSlice",
        &[NAME, Path(&["addressType"]), By(network::slice_ports), By(network::slice_endpoints), AGE],
    ),
    (
        NETWORKING,
        "Ingress",
        &[
            NAME,
            Or(&["spec", "ingressClassName"], NONE),
            By(network::ingress_hosts),
            By(|o, _| network::load_balancer(o).into()),
            By(|o, _| if super::count(o, &["spec", "tls"]) > 0 { "80, 443" } else { "80" }.into()),
            AGE,
        ],
    ),
    (NETWORKING, "IngressClass", &[NAME, Path(&["spec", "controller"]), By(network::class_parameters), AGE]),
    (NETWORKING, "NetworkPolicy", &[NAME, By(|o, _| selector(o, &["spec", "podSelector"]).into()), AGE]),
    (NETWORKING, "IPAddress", &[NAME, By(network::parent)]),
    (NETWORKING, "ServiceCIDR", &[NAME, By(|o, _| joined(o, &["spec", "cidrs"], ",").into()), AGE]),
    ("node.k8s.io", "RuntimeClass", &[NAME, Path(&["handler"]), AGE]),
    (
        "policy",
        "PodDisruptionBudget",
        &[
            NAME,
            Text(&["spec", "minAvailable"], "N/A"),
            Text(&["spec", "maxUnavailable"], "N/A"),
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
            By(storage::storage_class),
            Path(&["provisioner"]),
            Or(&["reclaimPolicy"], "Delete"),
            Or(&["volumeBindingMode"], "Immediate"),
            By(|o, _| flag(o, &["allowVolumeExpansion"]).into()),
            AGE,
        ],
    ),
    (STORAGE, "VolumeAttributesClass", &[By(storage::attributes_class), Path(&["driverName"]), AGE]),
    (
        STORAGE,
        "CSIDriver",
        &[
            NAME,
            By(|o, _| o.at(&["spec", "attachRequired"]).and_then(Value::as_bool).unwrap_or(true).into()),
            By(|o, _| flag(o, &["spec", "podInfoOnMount"]).into()),
            By(|o, _| flag(o, &["spec", "storageCapacity"]).into()),
            By(storage::token_requests),
            By(|o, _| flag(o, &["spec", "requiresRepublish"]).into()),
            By(storage::lifecycle_modes),
            AGE,
        ],
    ),
    (STORAGE, "CSINode", &[NAME, Count(&["spec", "drivers"]), AGE]),
    (STORAGE, "CSIStorageCapacity", &[NAME, Path(&["storageClassName"]), Or(&["capacity"], UNSET)]),
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
    (ADMISSION, "ValidatingAdmissionPolicy", &[NAME, Count(&["spec", "validations"]), By(access::param_kind), AGE]),
    (ADMISSION, "MutatingAdmissionPolicy", &[NAME, Count(&["spec", "mutations"]), By(access::param_kind), AGE]),
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
            By(access::missing_level),
        ],
    ),
    (
        FLOW,
        "PriorityLevelConfiguration",
        &[
            NAME,
            Path(&["spec", "type"]),
            By(|o, _| access::level(o, &["nominalConcurrencyShares"])),
            By(|o, _| access::level(o, &["limitResponse", "queuing", "queues"])),
            By(|o, _| access::level(o, &["limitResponse", "queuing", "handSize"])),
            By(|o, _| access::level(o, &["limitResponse", "queuing", "queueLengthLimit"])),
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
            By(devices::tainted_since),
            AGE,
        ],
    ),
    (RESOURCE, "ResourceClaim", &[NAME, By(devices::claim_state), AGE]),
    (RESOURCE, "ResourceClaimTemplate", &[NAME, AGE]),
    (
        RESOURCE,
        "ResourceSlice",
        &[NAME, Path(&["spec", "nodeName"]), Path(&["spec", "driver"]), Path(&["spec", "pool", "name"]), AGE],
    ),
    (
        RESOURCE,
        "ResourcePoolStatusRequest",
        &[
            NAME,
            Path(&["spec", "driver"]),
            By(|o, _| devices::devices_of_pools(o, "totalDevices")),
            By(|o, _| devices::devices_of_pools(o, "availableDevices")),
            By(|o, _| devices::devices_of_pools(o, "allocatedDevices")),
            By(|o, _| devices::devices_of_pools(o, "unavailableDevices")),
            By(devices::pool_errors),
            Number(&["status", "poolCount"], 0),
            By(|o, _| devices::pools_condition(o).map_or("Pending", |c| c.str_at(&["type"])).into()),
            By(|o, now| {
                devices::pools_condition(o)
                    .map_or_else(|| "".into(), |c| ago(c.str_at(&["lastTransitionTime"]), now).into())
            }),
        ],
    ),
    // Upstream has a third column, and nothing for it yet.
    ("storagemigration.k8s.io", "StorageVersionMigration", &[NAME, By(migrated), By(|_, _| "".into())]),
];

const BINDING: &[Cell] = &[
    NAME,
    By(access::role),
    AGE,
    By(|o, _| access::subjects(o, "User")),
    By(|o, _| access::subjects(o, "Group")),
    By(|o, _| access::subjects(o, "ServiceAccount")),
];
const POLICY_BINDING: &[Cell] = &[NAME, Path(&["spec", "policyName"]), By(access::param_ref), AGE];

fn since_or_none(object: &Map, path: &[&str], now: Timestamp) -> Value {
    match object.str_at(path) {
        "" => NONE.into(),
        time => ago(time, now).into(),
    }
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
    roles.dedup();
    or(roles.join(","), NONE).into()
}

fn node_address(object: &Map, ty: &str) -> Value {
    let found = maps(object, &["status", "addresses"]).find(|a| a.str_at(&["type"]) == ty);
    found.map_or(NONE, |a| a.str_at(&["address"])).into()
}

/// Of all resources that are limited, how much is used, in the order of their names: those of limits, or the others.
fn quota(object: &Map, limits: bool) -> Value {
    let hard = object.at(&["status", "hard"]).and_then(Value::as_map);
    let mut all: Vec<(&str, &Value)> = hard.into_iter().flat_map(Map::iter).collect();
    all.sort_by_key(|(name, _)| *name);
    let of = |(name, hard): (&str, &Value)| {
        let used = object.at(&["status", "used", name]).map(shown).unwrap_or_default();
        format!("{name}: {}/{}", or(used, "0"), shown(hard))
    };
    let fits = |name: &str| name.starts_with("limits.") == limits;
    let list: Vec<String> = all.into_iter().filter(|(name, _)| fits(name)).map(of).collect();
    list.join(", ").into()
}

/// The first servers, each with the version that it writes.
fn storage_versions(object: &Map, _: Timestamp) -> Value {
    let of = |version: &Map| format!("{}={}", version.str_at(&["apiServerID"]), version.str_at(&["encodingVersion"]));
    network::listed(&maps(object, &["status", "storageVersions"]).map(of).collect::<Vec<_>>())
}

/// What is migrated: `resource.group`, with the dot where there is no group too.
fn migrated(object: &Map, _: Timestamp) -> Value {
    let part = |name| object.str_at(&["spec", "resource", name]);
    format!("{}.{}", part("resource"), part("group")).into()
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

fn component(object: &Map, what: &str) -> Value {
    let healthy = maps(object, &["conditions"]).find(|c| c.str_at(&["type"]) == "Healthy");
    match (healthy, what) {
        (None, "status") => "Unknown",
        (None, _) => "",
        (Some(condition), "status") if condition.str_at(&["status"]) == "True" => "Healthy",
        (Some(_), "status") => "Unhealthy",
        (Some(condition), what) => condition.str_at(&[what]),
    }
    .into()
}

/// Where an API is served.
fn api_service(object: &Map, _: Timestamp) -> Value {
    match object.at(&["spec", "service"]).and_then(Value::as_map) {
        Some(service) => format!("{}/{}", service.str_at(&["namespace"]), service.str_at(&["name"])).into(),
        None => "Local".into(),
    }
}

fn api_available(object: &Map, _: Timestamp) -> Value {
    let available = maps(object, &["status", "conditions"]).find(|c| c.str_at(&["type"]) == "Available");
    match available.map(|c| (c.str_at(&["status"]), c.str_at(&["reason"]))) {
        None => "Unknown".into(),
        Some((status, reason)) if status != "True" && !reason.is_empty() => format!("{status} ({reason})").into(),
        Some((status, _)) => status.into(),
    }
}
