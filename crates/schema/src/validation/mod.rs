//! Validation of the built-in kinds: what is wrong with an object, field by field, in upstream's words and order.
//!
//! One table says which kind has which rules; rules are functions over typed views of the tree. They see objects of the
//! version that is stored, decoded (so every value is of its type) and defaulted.
//! An object's own metadata is checked where names and namespaces are known, by the registry.

mod admission;
mod api_service;
mod apps;
mod autoscaling;
mod batch;
mod certificates;
mod claim;
mod classes;
mod cluster;
mod conditions;
mod config;
mod crd;
mod device;
mod difference;
mod disruption;
mod endpoints;
mod events;
mod fields;
mod flowcontrol;
mod internal;
mod leader;
mod limits;
mod metadata;
mod networking;
mod pod;
mod pod_certificates;
mod pod_groups;
mod policies;
mod quota;
mod rbac;
mod service;
mod shown;
mod storage;
mod storage_version;
mod volume;
mod volume_source;
mod warnings;
mod webhook;

pub use classes::SYSTEM_CLASSES as SYSTEM_PRIORITY_CLASSES;
pub use pod_certificates::issues as issues_certificate;

use crate::tree::{Map, Value};
use api::features::Gates;
use api::{FieldError, Path};
pub use warnings::Told;
use warnings::Warnings;

/// Features that change what is allowed; when nobody says, as they are by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// `HPAScaleToZero`: autoscalers may scale to nothing.
    pub scale_to_zero: bool,
    /// `MutablePVNodeAffinity`: to which nodes a volume belongs may change.
    pub volume_affinity: bool,
    /// `TopologyAwareWorkloadScheduling`: groups of pods may be held together by the topology.
    pub workload_topology: bool,
    /// `WorkloadAwarePreemption`: groups of pods have a priority, and are disturbed one by one or as one.
    pub workload_preemption: bool,
    /// `RelaxedServiceNameValidation`: names of services may begin with a digit.
    pub relaxed_service_names: bool,
    /// `StrictIPCIDRValidation`: addresses and ranges that tools read differently are refused.
    pub strict_addresses: bool,
    /// `MutableSchedulingDirectivesForSuspendedJobs`: where its pods are to run may change of a job that ran before, too.
    pub suspended_directives: bool,
    /// `MutablePodResourcesForSuspendedJobs`: what its pods ask for may change of a job that is suspended.
    pub suspended_resources: bool,
    /// `PodDeletionCost`: what the deletion of a pod costs is a number.
    pub deletion_cost: bool,
    /// `UserNamespacesHostNetworkSupport`: pods with users of their own may be in the host's network.
    pub user_namespaces_host_network: bool,
    /// `TaintTolerationComparisonOperators`: tolerations may compare numbers.
    pub taint_comparisons: bool,
    /// `MatchLabelKeysInPodTopologySpread`: spreads may have keys of labels.
    pub spread_keys: bool,
    /// `MatchLabelKeysInPodTopologySpreadSelectorMerge`: such keys become part of the selector when a pod is made.
    pub merged_spread_keys: bool,
    /// `GitRepoVolumeDriver`: volumes that are cloned still work.
    pub git_repo_volumes: bool,
}

impl Features {
    /// As gates say.
    pub fn of(gates: &Gates) -> Self {
        Features {
            scale_to_zero: gates.enabled("HPAScaleToZero"),
            volume_affinity: gates.enabled("MutablePVNodeAffinity"),
            workload_topology: gates.enabled("TopologyAwareWorkloadScheduling"),
            workload_preemption: gates.enabled("WorkloadAwarePreemption"),
            relaxed_service_names: gates.enabled("RelaxedServiceNameValidation"),
            strict_addresses: gates.enabled("StrictIPCIDRValidation"),
            suspended_directives: gates.enabled("MutableSchedulingDirectivesForSuspendedJobs"),
            suspended_resources: gates.enabled("MutablePodResourcesForSuspendedJobs"),
            deletion_cost: gates.enabled("PodDeletionCost"),
            user_namespaces_host_network: gates.enabled("UserNamespacesHostNetworkSupport"),
            taint_comparisons: gates.enabled("TaintTolerationComparisonOperators"),
            spread_keys: gates.enabled("MatchLabelKeysInPodTopologySpread"),
            merged_spread_keys: gates.enabled("MatchLabelKeysInPodTopologySpread")
                && gates.enabled("MatchLabelKeysInPodTopologySpreadSelectorMerge"),
            git_repo_volumes: gates.enabled("GitRepoVolumeDriver"),
        }
    }
}

impl Default for Features {
    fn default() -> Self {
        Features::of(&Gates::default())
    }
}

/// The rules of a kind.
struct Rules {
    create: fn(&Map, Features) -> Vec<FieldError>,
    /// Takes the subresource (empty for the object itself), the new and the old object.
    update: fn(&str, &Map, &Map, Features) -> Vec<FieldError>,
    /// Takes the same; the old object is none for a new one.
    warnings: fn(&str, &Map, Option<&Map>, Features) -> Warnings,
}

fn no_warnings(_: &str, _: &Map, _: Option<&Map>, _: Features) -> Warnings {
    Warnings::new()
}

/// Warnings of an object that is written itself, or scaled: who writes another part of it is told nothing of the rest.
fn of_itself<W: Into<Warnings>>(subresource: &str, warnings: impl FnOnce() -> W) -> Warnings {
    if matches!(subresource, "" | "scale") { warnings().into() } else { Warnings::new() }
}

/// A kind whose update is checked as its creation.
macro_rules! rules {
    ($create:path) => {
        Rules { create: |new, _| $create(new), update: |_, new, _, _| $create(new), warnings: no_warnings }
    };
    ($create:path, $update:path) => {
        Rules {
            create: |new, _| $create(new),
            update: |subresource, new, old, _| $update(subresource, new, old),
            warnings: no_warnings,
        }
    };
    ($create:path, $update:path, $warnings:path) => {
        Rules {
            create: |new, _| $create(new),
            update: |subresource, new, old, _| $update(subresource, new, old),
            warnings: |subresource, new, old, _| of_itself(subresource, || $warnings(new, old)),
        }
    };
}

/// A kind with a template of pods, which features and the template before have to do with.
macro_rules! with_pods {
    ($create:path, $update:path, $warnings:path) => {
        Rules {
            create: |new, features| $create(new, None, features),
            update: $update,
            warnings: |subresource, new, old, features| of_itself(subresource, || $warnings(new, old, features)),
        }
    };
}

fn of(group: &str, kind: &str) -> Option<Rules> {
    Some(match (group, kind) {
        ("", "ConfigMap") => rules!(config::config_map, config::config_map_update),
        ("", "Endpoints") => rules!(endpoints::endpoints, endpoints::endpoints_update, warnings::endpoints),
        ("", "Event") => rules!(events::legacy, events::legacy_update),
        ("", "LimitRange") => rules!(limits::create),
        ("", "Namespace") => rules!(cluster::namespace, cluster::namespace_update),
        ("", "Node") => rules!(cluster::node, cluster::node_update, warnings::node),
        ("", "PersistentVolume") => {
            let warnings = |subresource: &str, new: &Map, old: Option<&Map>, _| {
                of_itself(subresource, || volume::warnings(new, old))
            };
            Rules { create: |new, _| volume::create(new), update: volume::update, warnings }
        }
        ("", "PersistentVolumeClaim") => rules!(claim::create, claim::update, claim::warnings),
        ("", "Pod") => Rules { create: pod::create, update: pod::update, warnings: pod::warnings },
        ("", "PodTemplate") => {
            with_pods!(pod::pod_template, pod::pod_template_update, pod::pod_template_warnings)
        }
        ("", "ReplicationController") => {
            with_pods!(apps::replication_controller, apps::replication_controller_update, apps::warnings)
        }
        ("", "ResourceQuota") => rules!(quota::create, quota::update),
        ("", "Secret") => rules!(config::secret, config::secret_update),
        ("", "Service") => Rules {
            create: |new, _| service::create(new, None),
            update: |subresource, new, old, _| service::update(subresource, new, old),
            warnings: |subresource, new, _, _| service::warnings(subresource, new),
        },
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy") => {
            rules!(policies::mutating, policies::mutating_update)
        }
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding") => rules!(policies::mutating_binding),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration") => {
            rules!(admission::mutating, admission::mutating_update)
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy") => {
            rules!(policies::validating, policies::validating_update)
        }
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding") => rules!(policies::validating_binding),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration") => {
            rules!(admission::validating, admission::validating_update)
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => rules!(crd::create, crd::update, crd::warnings),
        ("apiregistration.k8s.io", "APIService") => rules!(api_service::create, api_service::update),
        ("apps", "ControllerRevision") => rules!(apps::revision, apps::revision_update),
        ("apps", "DaemonSet") => with_pods!(apps::daemon_set, apps::daemon_set_update, apps::daemon_set_warnings),
        ("apps", "Deployment") => {
            with_pods!(apps::deployment, apps::deployment_update, apps::deployment_warnings)
        }
        ("apps", "ReplicaSet") => with_pods!(apps::replica_set, apps::replica_set_update, apps::warnings),
        ("apps", "StatefulSet") => {
            with_pods!(apps::stateful_set, apps::stateful_set_update, apps::stateful_set_warnings)
        }
        ("autoscaling", "HorizontalPodAutoscaler") => {
            Rules { create: autoscaling::create, update: autoscaling::update, warnings: no_warnings }
        }
        ("batch", "CronJob") => with_pods!(batch::cron_job, batch::cron_job_update, batch::cron_job_warnings),
        ("batch", "Job") => {
            with_pods!(batch::job, batch::job_update, batch::warnings)
        }
        ("certificates.k8s.io", "CertificateSigningRequest") => rules!(certificates::create, certificates::update),
        ("certificates.k8s.io", "ClusterTrustBundle") => rules!(certificates::bundle, certificates::bundle_update),
        ("certificates.k8s.io", "PodCertificateRequest") => rules!(pod_certificates::create, pod_certificates::update),
        ("coordination.k8s.io", "Lease") => rules!(cluster::lease),
        ("coordination.k8s.io", "LeaseCandidate") => rules!(leader::candidate, leader::candidate_update),
        ("discovery.k8s.io", "EndpointSlice") => {
            rules!(endpoints::slice, endpoints::slice_update, warnings::endpoint_slice)
        }
        ("events.k8s.io", "Event") => rules!(events::strict, events::strict_update),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema") => rules!(flowcontrol::schema, flowcontrol::schema_update),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration") => {
            rules!(flowcontrol::level, flowcontrol::level_update)
        }
        ("internal.apiserver.k8s.io", "StorageVersion") => {
            rules!(storage_version::create, storage_version::update)
        }
        ("networking.k8s.io", "IPAddress") => rules!(networking::address, networking::address_update),
        ("networking.k8s.io", "Ingress") => {
            let (create, update) = (networking::ingress, networking::ingress_update);
            let warnings = |subresource: &str, new: &Map, old: Option<&Map>, _| {
                of_itself(subresource, || networking::ingress_warnings(new, old))
            };
            Rules { create, update, warnings }
        }
        ("networking.k8s.io", "IngressClass") => rules!(networking::class, networking::class_update),
        ("networking.k8s.io", "NetworkPolicy") => {
            rules!(networking::policy, networking::policy_update, networking::policy_warnings)
        }
        ("networking.k8s.io", "ServiceCIDR") => rules!(networking::service_cidr, networking::service_cidr_update),
        ("node.k8s.io", "RuntimeClass") => rules!(classes::runtime, classes::runtime_update, warnings::runtime_class),
        ("policy", "PodDisruptionBudget") => rules!(disruption::create, disruption::update),
        ("rbac.authorization.k8s.io", "ClusterRole") => rules!(rbac::cluster_role),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding") => {
            rules!(rbac::cluster_role_binding, rbac::cluster_role_binding_update)
        }
        ("rbac.authorization.k8s.io", "Role") => rules!(rbac::role),
        ("rbac.authorization.k8s.io", "RoleBinding") => rules!(rbac::role_binding, rbac::role_binding_update),
        ("resource.k8s.io", "DeviceClass") => rules!(device::class, device::class_update),
        ("resource.k8s.io", "DeviceTaintRule") => rules!(device::taint_rule, device::taint_rule_update),
        ("resource.k8s.io", "ResourceClaim") => rules!(device::claim, device::claim_update),
        ("resource.k8s.io", "ResourceClaimTemplate") => rules!(device::template, device::template_update),
        ("resource.k8s.io", "ResourcePoolStatusRequest") => rules!(device::pools, device::pools_update),
        ("resource.k8s.io", "ResourceSlice") => rules!(device::slice, device::slice_update, device::slice_warnings),
        ("scheduling.k8s.io", "PodGroup") => {
            Rules { create: pod_groups::group, update: pod_groups::group_update, warnings: no_warnings }
        }
        ("scheduling.k8s.io", "PriorityClass") => rules!(classes::priority, classes::priority_update),
        ("scheduling.k8s.io", "Workload") => {
            Rules { create: pod_groups::workload, update: pod_groups::workload_update, warnings: no_warnings }
        }
        ("storage.k8s.io", "CSIDriver") => rules!(storage::driver, storage::driver_update),
        ("storage.k8s.io", "CSINode") => rules!(storage::node, storage::node_update),
        ("storage.k8s.io", "CSIStorageCapacity") => {
            rules!(storage::capacity, storage::capacity_update, warnings::storage_capacity)
        }
        ("storage.k8s.io", "StorageClass") => rules!(storage::class, storage::class_update, warnings::storage_class),
        ("storage.k8s.io", "VolumeAttachment") => rules!(storage::attachment, storage::attachment_update),
        ("storage.k8s.io", "VolumeAttributesClass") => {
            rules!(storage::attributes_class, storage::attributes_class_update)
        }
        ("storagemigration.k8s.io", "StorageVersionMigration") => {
            rules!(storage_version::migration, storage_version::migration_update)
        }
        _ => return None,
    })
}

/// What is wrong with a new object; nothing for kinds without rules.
pub fn create(group: &str, kind: &str, object: &Map, features: Features) -> Vec<FieldError> {
    let mut errors = finalizers(group, object);
    errors.extend(of(group, kind).map(|rules| (rules.create)(object, features)).unwrap_or_default());
    judged(errors, kind, features)
}

/// What is wrong with an update through a subresource (empty: the object itself). `old` has its quantities written as `new` writes
/// those of the same value ([`crate::semantic::reworded`]).
pub fn update(group: &str, kind: &str, subresource: &str, new: &Map, old: &Map, features: Features) -> Vec<FieldError> {
    let mut errors = finalizers(group, new);
    errors.extend(of(group, kind).map(|rules| (rules.update)(subresource, new, old, features)).unwrap_or_default());
    judged(errors, kind, features)
}

/// Without what is refused by a feature alone that is off. Kinds that are younger than it are strict with or without it.
fn judged(mut errors: Vec<FieldError>, kind: &str, features: Features) -> Vec<FieldError> {
    if !features.strict_addresses && !matches!(kind, "IPAddress" | "ServiceCIDR" | "ResourceClaim") {
        errors.retain(|error| !fields::STRICT.contains(&error.detail.as_str()));
    }
    errors
}

/// What the client should know of an object that is allowed, written through a subresource (empty: the object itself);
/// `old` is none for a new one. They end where no client would be told more: [`Told`].
pub fn warnings(
    group: &str,
    kind: &str,
    subresource: &str,
    new: &Map,
    old: Option<&Map>,
    features: Features,
) -> Vec<String> {
    of(group, kind).map(|rules| (rules.warnings)(subresource, new, old, features)).unwrap_or_default().into_list()
}

/// Finalizers of core kinds are upstream's own or have a domain.
fn finalizers(group: &str, object: &Map) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if group.is_empty() {
        let metadata = Path::root("metadata");
        let path = metadata.child("finalizers");
        let list = object.at(&["metadata", "finalizers"]).and_then(Value::as_list).unwrap_or_default();
        for (i, name) in list.iter().filter_map(Value::as_str).enumerate().filter(|(_, name)| !name.contains('/')) {
            cluster::finalizer(&mut errors, &path.index(i), name);
        }
    }
    errors
}
