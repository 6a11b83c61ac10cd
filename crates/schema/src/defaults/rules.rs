//! The defaults of every GA kind (upstream's `pkg/apis/*/v1/defaults.go`).

use super::{Computed, Constant, Constants, Deciding, conversion, kinds, pod};
use crate::tree::{Map, Value};
use Constant::{Bool, Empty, Int, Str};

const MODE: (&str, Constant) = ("defaultMode", Int(420));

pub(super) const CONSTANTS: Constants = &[
    (
        "api.admissionregistration.v1.MatchResources",
        &[("matchPolicy", Str("Equivalent")), ("namespaceSelector", Empty), ("objectSelector", Empty)],
    ),
    ("api.admissionregistration.v1.MutatingAdmissionPolicySpec", &[("failurePolicy", Str("Fail"))]),
    (
        "api.admissionregistration.v1.MutatingWebhook",
        &[
            ("failurePolicy", Str("Fail")),
            ("matchPolicy", Str("Equivalent")),
            ("namespaceSelector", Empty),
            ("objectSelector", Empty),
            ("reinvocationPolicy", Str("Never")),
            ("timeoutSeconds", Int(10)),
        ],
    ),
    ("api.admissionregistration.v1.NamedRuleWithOperations", &[("scope", Str("*"))]),
    ("api.admissionregistration.v1.RuleWithOperations", &[("scope", Str("*"))]),
    ("api.admissionregistration.v1.ServiceReference", &[("port", Int(443))]),
    ("api.admissionregistration.v1.ValidatingAdmissionPolicySpec", &[("failurePolicy", Str("Fail"))]),
    (
        "api.admissionregistration.v1.ValidatingWebhook",
        &[
            ("failurePolicy", Str("Fail")),
            ("matchPolicy", Str("Equivalent")),
            ("namespaceSelector", Empty),
            ("objectSelector", Empty),
            ("timeoutSeconds", Int(10)),
        ],
    ),
    ("api.apps.v1.DaemonSetSpec", &[("revisionHistoryLimit", Int(10))]),
    (
        "api.apps.v1.DeploymentSpec",
        &[
            ("progressDeadlineSeconds", Int(600)),
            ("replicas", Int(1)),
            ("revisionHistoryLimit", Int(10)),
            ("strategy", Empty),
        ],
    ),
    ("api.apps.v1.ReplicaSetSpec", &[("replicas", Int(1))]),
    (
        "api.apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy",
        &[("whenDeleted", Str("Retain")), ("whenScaled", Str("Retain"))],
    ),
    (
        "api.apps.v1.StatefulSetSpec",
        &[
            ("persistentVolumeClaimRetentionPolicy", Empty),
            ("podManagementPolicy", Str("OrderedReady")),
            ("replicas", Int(1)),
            ("revisionHistoryLimit", Int(10)),
            ("updateStrategy", Empty),
        ],
    ),
    ("api.autoscaling.v1.HorizontalPodAutoscalerSpec", &[("minReplicas", Int(1))]),
    ("api.autoscaling.v2.HorizontalPodAutoscalerSpec", &[("minReplicas", Int(1))]),
    (
        "api.batch.v1.CronJobSpec",
        &[
            ("concurrencyPolicy", Str("Allow")),
            ("failedJobsHistoryLimit", Int(1)),
            ("successfulJobsHistoryLimit", Int(3)),
            ("suspend", Bool(false)),
        ],
    ),
    ("api.certificates.v1beta1.PodCertificateRequestSpec", &[("maxExpirationSeconds", Int(86400))]),
    (
        "api.core.v1.AzureDiskVolumeSource",
        &[
            ("cachingMode", Str("ReadWrite")),
            ("fsType", Str("ext4")),
            ("kind", Str("Shared")),
            ("readOnly", Bool(false)),
        ],
    ),
    ("api.core.v1.ConfigMapVolumeSource", &[MODE]),
    (
        "api.core.v1.Container",
        &[("terminationMessagePath", Str("/dev/termination-log")), ("terminationMessagePolicy", Str("File"))],
    ),
    ("api.core.v1.ContainerPort", &[("protocol", Str("TCP"))]),
    ("api.core.v1.DownwardAPIVolumeSource", &[MODE]),
    ("api.core.v1.EndpointPort", &[("protocol", Str("TCP"))]),
    (
        "api.core.v1.EphemeralContainer",
        &[("terminationMessagePath", Str("/dev/termination-log")), ("terminationMessagePolicy", Str("File"))],
    ),
    ("api.core.v1.GRPCAction", &[("service", Str(""))]),
    ("api.core.v1.HTTPGetAction", &[("path", Str("/")), ("scheme", Str("HTTP"))]),
    ("api.core.v1.HostPathVolumeSource", &[("type", Str(""))]),
    ("api.core.v1.ISCSIPersistentVolumeSource", &[("iscsiInterface", Str("default"))]),
    ("api.core.v1.ISCSIVolumeSource", &[("iscsiInterface", Str("default"))]),
    ("api.core.v1.NamespaceStatus", &[("phase", Str("Active"))]),
    ("api.core.v1.ObjectFieldSelector", &[("apiVersion", Str("v1"))]),
    ("api.core.v1.PersistentVolumeClaimSpec", &[("volumeMode", Str("Filesystem"))]),
    ("api.core.v1.PersistentVolumeClaimStatus", &[("phase", Str("Pending"))]),
    (
        "api.core.v1.PersistentVolumeSpec",
        &[("persistentVolumeReclaimPolicy", Str("Retain")), ("volumeMode", Str("Filesystem"))],
    ),
    ("api.core.v1.PersistentVolumeStatus", &[("phase", Str("Pending"))]),
    (
        "api.core.v1.PodSpec",
        &[
            ("dnsPolicy", Str("ClusterFirst")),
            ("restartPolicy", Str("Always")),
            ("schedulerName", Str("default-scheduler")),
            ("securityContext", Empty),
            ("terminationGracePeriodSeconds", Int(30)),
        ],
    ),
    (
        "api.core.v1.Probe",
        &[
            ("failureThreshold", Int(3)),
            ("periodSeconds", Int(10)),
            ("successThreshold", Int(1)),
            ("timeoutSeconds", Int(1)),
        ],
    ),
    ("api.core.v1.ProjectedVolumeSource", &[MODE]),
    (
        "api.core.v1.RBDPersistentVolumeSource",
        &[("keyring", Str("/etc/ceph/keyring")), ("pool", Str("rbd")), ("user", Str("admin"))],
    ),
    (
        "api.core.v1.RBDVolumeSource",
        &[("keyring", Str("/etc/ceph/keyring")), ("pool", Str("rbd")), ("user", Str("admin"))],
    ),
    ("api.core.v1.ReplicationControllerSpec", &[("replicas", Int(1))]),
    ("api.core.v1.ScaleIOPersistentVolumeSource", &[("fsType", Str("xfs")), ("storageMode", Str("ThinProvisioned"))]),
    ("api.core.v1.ScaleIOVolumeSource", &[("fsType", Str("xfs")), ("storageMode", Str("ThinProvisioned"))]),
    ("api.core.v1.Secret", &[("type", Str("Opaque"))]),
    ("api.core.v1.SecretVolumeSource", &[MODE]),
    ("api.core.v1.ServiceAccountTokenProjection", &[("expirationSeconds", Int(3600))]),
    ("api.core.v1.ServicePort", &[("protocol", Str("TCP"))]),
    ("api.core.v1.ServiceSpec", &[("sessionAffinity", Str("None")), ("type", Str("ClusterIP"))]),
    ("api.discovery.v1.EndpointPort", &[("name", Str("")), ("protocol", Str("TCP"))]),
    (
        "api.flowcontrol.v1.ExemptPriorityLevelConfiguration",
        &[("lendablePercent", Int(0)), ("nominalConcurrencyShares", Int(0))],
    ),
    (
        "api.flowcontrol.v1.LimitedPriorityLevelConfiguration",
        &[("lendablePercent", Int(0)), ("nominalConcurrencyShares", Int(30))],
    ),
    ("api.networking.v1.IngressClassParametersReference", &[("scope", Str("Cluster"))]),
    ("api.networking.v1.NetworkPolicyPort", &[("protocol", Str("TCP"))]),
    ("api.rbac.v1.RoleRef", &[("apiGroup", Str("rbac.authorization.k8s.io"))]),
    ("api.resource.v1.DeviceToleration", &[("operator", Str("Equal"))]),
    ("api.resource.v1alpha3.ResourcePoolStatusRequestSpec", &[("limit", Int(100))]),
    ("api.scheduling.v1.PriorityClass", &[("preemptionPolicy", Str("PreemptLowerPriority"))]),
    ("api.scheduling.v1alpha2.PodGroupSpec", &[("disruptionMode", Str("Pod"))]),
    (
        "api.storage.v1.CSIDriverSpec",
        &[
            ("attachRequired", Bool(true)),
            ("fsGroupPolicy", Str("ReadWriteOnceWithFSType")),
            ("podInfoOnMount", Bool(false)),
            ("requiresRepublish", Bool(false)),
            ("seLinuxMount", Bool(false)),
            ("storageCapacity", Bool(false)),
        ],
    ),
    ("api.storage.v1.StorageClass", &[("reclaimPolicy", Str("Delete")), ("volumeBindingMode", Str("Immediate"))]),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.ServiceReference", &[("port", Int(443))]),
    ("kube-aggregator.pkg.apis.apiregistration.v1.ServiceReference", &[("port", Int(443))]),
];

pub(super) const COMPUTED: Computed = &[
    ("api.apps.v1.DaemonSetUpdateStrategy", daemon_set_strategy),
    ("api.apps.v1.Deployment", conversion::deployment),
    ("api.apps.v1.DeploymentStrategy", deployment_strategy),
    ("api.apps.v1.StatefulSetSpec", kinds::stateful_set),
    ("api.apps.v1.StatefulSetUpdateStrategy", stateful_set_strategy),
    ("api.autoscaling.v2.HorizontalPodAutoscalerSpec", kinds::autoscaler),
    ("api.batch.v1.Job", kinds::job),
    ("api.core.v1.Container", container),
    ("api.core.v1.EphemeralContainer", container),
    ("api.core.v1.ImageVolumeSource", image_volume),
    ("api.core.v1.LimitRangeItem", kinds::limit_range_item),
    ("api.core.v1.Namespace", namespace),
    ("api.core.v1.NodeStatus", node_status),
    ("api.core.v1.PersistentVolume", kinds::pending),
    ("api.core.v1.PersistentVolumeClaim", kinds::pending),
    ("api.core.v1.Pod", conversion::pod),
    ("api.core.v1.PodTemplateSpec", conversion::pod),
    ("api.core.v1.ReplicationController", kinds::replication_controller),
    ("api.core.v1.ServicePort", service_port),
    ("api.core.v1.ServiceSpec", service),
    ("api.core.v1.Volume", volume),
    ("api.flowcontrol.v1.FlowSchemaSpec", flow_schema),
    ("api.flowcontrol.v1.QueuingConfiguration", queuing),
    ("api.networking.v1.NetworkPolicySpec", network_policy),
    ("api.policy.v1.PodDisruptionBudgetSpec", kinds::disruption_budget),
    ("api.rbac.v1.Subject", subject),
    ("api.resource.v1.DeviceSubRequest", device_request),
    ("api.resource.v1.ExactDeviceRequest", device_request),
    ("api.resource.v1beta1.DeviceRequest", flat_device_request),
    ("api.storage.v1.CSIDriverSpec", csi_driver),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition", definition),
    ("apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionSpec", definition_spec),
];

pub(super) const AFTER: Deciding =
    &[("api.core.v1.Pod", &["spec"], pod::pod), ("api.core.v1.Service", &["spec", "status"], service_status)];

pub(super) fn set(map: &mut Map, key: &'static str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key, value);
    }
}

fn str_of<'m>(map: &'m Map, key: &str) -> &'m str {
    map.get(key).and_then(Value::as_str).unwrap_or("")
}

fn set_type(map: &mut Map, ty: &'static str) {
    if str_of(map, "type").is_empty() {
        map.insert("type", ty);
    }
}

fn deployment_strategy(map: &mut Map) {
    set_type(map, "RollingUpdate");
    if str_of(map, "type") == "RollingUpdate"
        && let Value::Map(rolling) = map.entry("rollingUpdate", || Value::Map(Map::new()))
    {
        set(rolling, "maxUnavailable", "25%");
        set(rolling, "maxSurge", "25%");
    }
}

fn daemon_set_strategy(map: &mut Map) {
    set_type(map, "RollingUpdate");
    if str_of(map, "type") == "RollingUpdate"
        && let Value::Map(rolling) = map.entry("rollingUpdate", || Value::Map(Map::new()))
    {
        set(rolling, "maxUnavailable", 1);
        set(rolling, "maxSurge", 0);
    }
}

fn stateful_set_strategy(map: &mut Map) {
    // Who says the type says all of it.
    if str_of(map, "type").is_empty() {
        map.insert("type", "RollingUpdate");
        set(map, "rollingUpdate", Map::new());
    }
    if str_of(map, "type") == "RollingUpdate"
        && let Some(rolling) = map.get_mut("rollingUpdate").and_then(Value::as_map_mut)
    {
        set(rolling, "partition", 0);
    }
}

/// When an image is fetched, by its tag.
fn pull(map: &mut Map, image: &str, policy: &'static str) {
    if str_of(map, policy).is_empty() {
        map.insert(policy, if super::image::is_latest(str_of(map, image)) { "Always" } else { "IfNotPresent" });
    }
}

fn container(map: &mut Map) {
    pull(map, "image", "imagePullPolicy");
}

fn image_volume(map: &mut Map) {
    pull(map, "reference", "pullPolicy");
}

fn namespace(map: &mut Map) {
    let name = map.str_at(&["metadata", "name"]).to_owned();
    if !name.is_empty() {
        map.set_at(&["metadata", "labels", "kubernetes.io/metadata.name"], name);
    }
}

fn node_status(map: &mut Map) {
    if let Some(capacity) = map.get("capacity").cloned()
        && !map.contains_key("allocatable")
    {
        map.insert("allocatable", capacity);
    }
}

fn service_port(map: &mut Map) {
    let unset = match map.get("targetPort") {
        None | Some(Value::Null) => true,
        Some(Value::Int(0)) => true,
        Some(Value::Str(s)) => s.is_empty(),
        Some(_) => false,
    };
    if unset && let Some(port) = map.get("port").cloned() {
        map.insert("targetPort", port);
    }
}

fn service(map: &mut Map) {
    if str_of(map, "sessionAffinity") == "ClientIP" {
        if map.at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"]).is_none() {
            map.set_at(&["sessionAffinityConfig", "clientIP", "timeoutSeconds"], 10_800);
        }
    } else if str_of(map, "sessionAffinity") == "None" {
        map.remove("sessionAffinityConfig");
    }
    let ty = str_of(map, "type").to_owned();
    let external_ips = map.get("externalIPs").and_then(Value::as_list).is_some_and(|l| !l.is_empty());
    if matches!(ty.as_str(), "NodePort" | "LoadBalancer") || ty == "ClusterIP" && external_ips {
        set(map, "externalTrafficPolicy", "Cluster");
    }
    if matches!(ty.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        set(map, "internalTrafficPolicy", "Cluster");
    }
    if ty == "LoadBalancer" {
        set(map, "allocateLoadBalancerNodePorts", true);
    }
}

/// The addresses of a load balancer are its own, unless it is said that they are a proxy's.
fn service_status(map: &mut Map) {
    if map.str_at(&["spec", "type"]) != "LoadBalancer" {
        return;
    }
    let list = map.at_mut(&["status", "loadBalancer", "ingress"]).and_then(Value::as_list_mut);
    for one in list.into_iter().flatten().filter_map(Value::as_map_mut) {
        if !str_of(one, "ip").is_empty() {
            set(one, "ipMode", "VIP");
        }
    }
}

fn volume(map: &mut Map) {
    if map.iter().all(|(key, value)| key == "name" || value.is_null()) {
        map.insert("emptyDir", Value::Map(Map::new()));
    }
}

fn network_policy(map: &mut Map) {
    if map.get("policyTypes").and_then(Value::as_list).is_none_or(<[Value]>::is_empty) {
        let mut types = vec![Value::from("Ingress")];
        if map.get("egress").and_then(Value::as_list).is_some_and(|l| !l.is_empty()) {
            types.push(Value::from("Egress"));
        }
        map.insert("policyTypes", types);
    }
}

fn subject(map: &mut Map) {
    if str_of(map, "apiGroup").is_empty() && matches!(str_of(map, "kind"), "User" | "Group") {
        map.insert("apiGroup", "rbac.authorization.k8s.io");
    }
}

fn csi_driver(map: &mut Map) {
    if map.get("volumeLifecycleModes").and_then(Value::as_list).is_none_or(<[Value]>::is_empty) {
        map.insert("volumeLifecycleModes", vec![Value::from("Persistent")]);
    }
}

/// A number that is as good as absent when it is zero.
fn set_number(map: &mut Map, key: &'static str, value: i64) {
    if map.get(key).and_then(Value::as_i64).unwrap_or(0) == 0 {
        map.insert(key, value);
    }
}

fn flow_schema(map: &mut Map) {
    set_number(map, "matchingPrecedence", 1000);
}

fn queuing(map: &mut Map) {
    set_number(map, "handSize", 8);
    set_number(map, "queues", 64);
    set_number(map, "queueLengthLimit", 50);
}

fn device_request(map: &mut Map) {
    if str_of(map, "allocationMode").is_empty() {
        map.insert("allocationMode", "ExactCount");
    }
    if str_of(map, "allocationMode") == "ExactCount" {
        set_number(map, "count", 1);
    }
}

/// A request that names a class is one for exact devices.
fn flat_device_request(map: &mut Map) {
    if !str_of(map, "deviceClassName").is_empty() {
        device_request(map);
    }
}

/// The storage version is one that objects are stored in.
fn definition(map: &mut Map) {
    let stored = map.at(&["status", "storedVersions"]).and_then(Value::as_list);
    if stored.is_some_and(|stored| !stored.is_empty()) {
        return;
    }
    let versions = map.at(&["spec", "versions"]).and_then(Value::as_list).unwrap_or_default();
    let storage = versions
        .iter()
        .filter_map(Value::as_map)
        .find(|version| version.get("storage").and_then(Value::as_bool) == Some(true));
    if let Some(name) = storage.map(|version| version.str_at(&["name"]).to_owned()) {
        map.set_at(&["status", "storedVersions"], vec![Value::from(name)]);
    }
}

fn definition_spec(map: &mut Map) {
    let kind = map.str_at(&["names", "kind"]).to_owned();
    if map.str_at(&["names", "singular"]).is_empty() && !kind.is_empty() {
        map.set_at(&["names", "singular"], kind.to_lowercase());
    }
    if map.str_at(&["names", "listKind"]).is_empty() && !kind.is_empty() {
        map.set_at(&["names", "listKind"], format!("{kind}List"));
    }
    if map.get("conversion").is_none_or(Value::is_null) {
        map.set_at(&["conversion", "strategy"], "None");
    }
}
