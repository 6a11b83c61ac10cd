//! What the controllers read of each kind: projections, so that memory holds no more than that.

use crate::informer::Object;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Declares a projection of a kind.
macro_rules! projection {
    ($(#[$doc:meta])* $name:ident of $kind:path { $($fields:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize, Resource)]
        #[resource(inherit = $kind)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            pub metadata: ObjectMeta,
            $($fields)*
        }
    };
}

projection! {
    /// Of a pod: where it is, whether it is ready, whose it is.
    Pod of k8s_openapi::api::core::v1::Pod {
        #[serde(default)]
        pub spec: PodSpec,
        #[serde(default)]
        pub status: PodStatus,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub node_name: String,
    pub hostname: String,
    pub subdomain: String,
    pub host_network: bool,
    pub service_account_name: String,
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub tolerations: Vec<core::Toleration>,
    pub termination_grace_period_seconds: Option<i64>,
    pub volumes: Vec<Volume>,
    /// The one node that the pod's affinity names, as daemons' do.
    #[serde(rename = "affinity", deserialize_with = "pinned_to")]
    pub pinned_to: Option<String>,
    pub scheduling_group: Option<SchedulingGroup>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SchedulingGroup {
    pub pod_group_name: Option<String>,
}

/// The node that a required node affinity names by its name in every term.
fn pinned_to<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let affinity = Option::<core::Affinity>::deserialize(from)?;
    let required = affinity.and_then(|a| a.node_affinity?.required_during_scheduling_ignored_during_execution);
    let terms = required.map(|r| r.node_selector_terms).unwrap_or_default();
    let mut names = terms.into_iter().filter_map(|term| {
        let field = term.match_fields?.into_iter().find(|f| f.key == "metadata.name" && f.operator == "In")?;
        field.values?.into_iter().next()
    });
    Ok(names.next())
}

/// Of a pod's volume: the claim behind it, if there is one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimSource>,
    pub ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource {
    pub claim_name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub ports: Vec<ContainerPort>,
    pub restart_policy: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    pub name: String,
    pub container_port: i32,
    pub protocol: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    pub phase: String,
    pub reason: String,
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    #[serde(rename = "podIPs")]
    pub pod_ips: Vec<core::PodIP>,
    pub conditions: Vec<PodCondition>,
    pub container_statuses: Vec<ContainerStatus>,
    pub init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCondition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    pub last_transition_time: Option<Time>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub restart_count: i32,
    pub state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    pub terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    pub exit_code: i32,
    pub finished_at: Option<Time>,
}

impl Object for Pod {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.spec.volumes.retain(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some());
    }
}

projection! {
    /// A ReplicaSet whole, but for its template, which is kept as it was written.
    ReplicaSet of k8s_openapi::api::apps::v1::ReplicaSet {
        #[serde(default)]
        pub spec: ReplicaSetSpec,
        #[serde(default)]
        pub status: ReplicaSetStatus,
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetSpec {
    pub replicas: Option<i32>,
    #[serde(skip_serializing_if = "is_zero")]
    pub min_ready_seconds: i32,
    pub selector: LabelSelector,
    pub template: Value,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetStatus {
    pub replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub fully_labeled_replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub ready_replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub available_replicas: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i32>,
    #[serde(skip_serializing_if = "is_zero_long")]
    pub observed_generation: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// A condition as ReplicaSets and Deployments have it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    #[serde(rename = "type")]
    pub type_: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<Time>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero(n: &i32) -> bool {
    *n == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
fn is_zero_long(n: &i64) -> bool {
    *n == 0
}

impl Object for ReplicaSet {}

projection! {
    /// The same as a ReplicaSet, with a plain map for selector.
    ReplicationController of k8s_openapi::api::core::v1::ReplicationController {
        #[serde(default, deserialize_with = "with_plain_selector")]
        pub spec: ReplicaSetSpec,
        #[serde(default)]
        pub status: ReplicaSetStatus,
    }
}

impl Object for ReplicationController {}

fn with_plain_selector<'de, D: serde::Deserializer<'de>>(from: D) -> Result<ReplicaSetSpec, D::Error> {
    let mut spec = Value::deserialize(from)?;
    if let Some(selector) = spec.get_mut("selector") {
        *selector = serde_json::json!({"matchLabels": selector.take()});
    }
    serde_json::from_value(spec).map_err(serde::de::Error::custom)
}

projection! {
    Deployment of k8s_openapi::api::apps::v1::Deployment {
        #[serde(default)]
        pub spec: DeploymentSpec,
        #[serde(default)]
        pub status: DeploymentStatus,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentSpec {
    pub replicas: Option<i32>,
    pub min_ready_seconds: i32,
    pub paused: bool,
    pub progress_deadline_seconds: Option<i32>,
    pub revision_history_limit: Option<i32>,
    pub selector: LabelSelector,
    pub strategy: DeploymentStrategy,
    pub template: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStrategy {
    #[serde(rename = "type")]
    pub type_: String,
    pub rolling_update: Option<RollingUpdate>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    pub max_surge: Option<IntOrString>,
    pub max_unavailable: Option<IntOrString>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStatus {
    #[serde(skip_serializing_if = "is_zero_long")]
    pub observed_generation: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub updated_replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub ready_replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub available_replicas: i32,
    #[serde(skip_serializing_if = "is_zero")]
    pub unavailable_replicas: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating_replicas: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl Object for Deployment {}

impl Deployment {
    /// The replicas asked for (the API server's default is 1).
    pub fn wanted(&self) -> i32 {
        self.spec.replicas.unwrap_or(1)
    }
}

projection! {
    Service of k8s_openapi::api::core::v1::Service {
        #[serde(default)]
        pub spec: ServiceSpec,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    #[serde(rename = "type")]
    pub type_: String,
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    pub selector: Option<BTreeMap<String, String>>,
    pub ports: Vec<ServicePort>,
    pub ip_families: Vec<String>,
    pub publish_not_ready_addresses: bool,
    pub traffic_distribution: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    pub name: String,
    pub protocol: String,
    pub port: i32,
    pub target_port: Option<IntOrString>,
    pub app_protocol: Option<String>,
}

impl Object for Service {}

impl Object for k8s_openapi::api::discovery::v1::EndpointSlice {}

projection! {
    Endpoints of k8s_openapi::api::core::v1::Endpoints {
        #[serde(default)]
        pub subsets: Vec<core::EndpointSubset>,
    }
}

impl Object for Endpoints {}

projection! {
    Namespace of k8s_openapi::api::core::v1::Namespace {
        #[serde(default)]
        pub spec: NamespaceSpec,
        #[serde(default)]
        pub status: NamespaceStatus,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceSpec {
    pub finalizers: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceStatus {
    pub phase: String,
    pub conditions: Vec<core::NamespaceCondition>,
}

impl Object for Namespace {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
    }
}

projection! {
    ServiceAccount of k8s_openapi::api::core::v1::ServiceAccount {
        #[serde(default)]
        pub secrets: Vec<SecretReference>,
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct SecretReference {
    pub name: String,
}

impl Object for ServiceAccount {}

projection! {
    Secret of k8s_openapi::api::core::v1::Secret {
        #[serde(default, rename = "type")]
        pub type_: String,
        /// Kept only of the types that this crate keeps.
        #[serde(default)]
        pub data: BTreeMap<String, k8s_openapi::ByteString>,
    }
}

impl Object for Secret {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        if !matches!(self.type_.as_str(), crate::service_account_token::TYPE | crate::bootstrap_token::TYPE) {
            self.data.clear();
            self.metadata.annotations = None;
            self.metadata.labels = None;
        }
    }
}

projection! {
    ConfigMap of k8s_openapi::api::core::v1::ConfigMap {
        /// Kept only for those that this crate writes.
        #[serde(default)]
        pub data: BTreeMap<String, String>,
    }
}

impl Object for ConfigMap {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        let ours = [crate::service_account::ROOT_CA, crate::bootstrap_token::CLUSTER_INFO];
        if !self.metadata.name.as_deref().is_some_and(|name| ours.contains(&name)) {
            self.data.clear();
        }
    }
}

projection! {
    Node of k8s_openapi::api::core::v1::Node {
        #[serde(default)]
        pub spec: NodeSpec,
        #[serde(default)]
        pub status: NodeStatus,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
    pub taints: Vec<core::Taint>,
    pub unschedulable: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    pub conditions: Vec<core::NodeCondition>,
}

impl Object for Node {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
    }
}

impl Object for k8s_openapi::api::coordination::v1::Lease {}

projection! {
    ClusterRole of k8s_openapi::api::rbac::v1::ClusterRole {
        #[serde(default)]
        pub rules: Option<Vec<Value>>,
        #[serde(default, rename = "aggregationRule")]
        pub aggregation_rule: Option<AggregationRule>,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AggregationRule {
    pub cluster_role_selectors: Vec<LabelSelector>,
}

impl Object for ClusterRole {}

projection! {
    Job of k8s_openapi::api::batch::v1::Job {
        #[serde(default)]
        pub spec: JobSpec,
        #[serde(default)]
        pub status: k8s_openapi::api::batch::v1::JobStatus,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JobSpec {
    pub active_deadline_seconds: Option<i64>,
    pub backoff_limit: Option<i32>,
    pub backoff_limit_per_index: Option<i32>,
    pub completion_mode: String,
    pub completions: Option<i32>,
    pub managed_by: Option<String>,
    pub max_failed_indexes: Option<i32>,
    pub parallelism: Option<i32>,
    pub pod_failure_policy: Option<k8s_openapi::api::batch::v1::PodFailurePolicy>,
    pub pod_replacement_policy: String,
    pub selector: LabelSelector,
    pub success_policy: Option<k8s_openapi::api::batch::v1::SuccessPolicy>,
    pub suspend: bool,
    pub template: Value,
    pub ttl_seconds_after_finished: Option<i32>,
}

impl Object for Job {}

projection! {
    /// As it is written: the rules of quotas read it.
    ResourceQuota of k8s_openapi::api::core::v1::ResourceQuota {
        #[serde(default)]
        pub spec: Value,
        #[serde(default)]
        pub status: Value,
    }
}

impl Object for ResourceQuota {}

projection! {
    PodGroup of k8s_openapi::api::scheduling::v1alpha2::PodGroup {}
}

impl Object for PodGroup {}

projection! {
    PersistentVolumeClaim of k8s_openapi::api::core::v1::PersistentVolumeClaim {}
}

impl Object for PersistentVolumeClaim {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.metadata.labels = None;
    }
}

projection! {
    PersistentVolume of k8s_openapi::api::core::v1::PersistentVolume {
        #[serde(default)]
        pub status: Phase,
    }
}

/// A status of which the phase alone is read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Phase {
    pub phase: String,
}

impl Object for PersistentVolume {
    fn slim(&mut self) {
        self.metadata.managed_fields = None;
        self.metadata.annotations = None;
        self.metadata.labels = None;
    }
}

impl Object for k8s_openapi::api::certificates::v1::CertificateSigningRequest {}

impl Object for k8s_openapi::api::policy::v1::PodDisruptionBudget {}

projection! {
    CronJob of k8s_openapi::api::batch::v1::CronJob {
        #[serde(default)]
        pub spec: CronJobSpec,
        #[serde(default)]
        pub status: CronJobStatus,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobSpec {
    pub schedule: String,
    pub time_zone: Option<String>,
    pub starting_deadline_seconds: Option<i64>,
    pub concurrency_policy: String,
    pub suspend: bool,
    pub successful_jobs_history_limit: Option<i32>,
    pub failed_jobs_history_limit: Option<i32>,
    pub job_template: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CronJobStatus {
    pub active: Vec<core::ObjectReference>,
    pub last_schedule_time: Option<Time>,
    pub last_successful_time: Option<Time>,
}

impl Object for CronJob {}

projection! {
    StatefulSet of k8s_openapi::api::apps::v1::StatefulSet {
        #[serde(default)]
        pub spec: StatefulSetSpec,
        #[serde(default)]
        pub status: StatefulSetStatus,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetSpec {
    pub replicas: Option<i32>,
    pub min_ready_seconds: i32,
    pub selector: LabelSelector,
    pub service_name: String,
    pub template: Value,
    pub volume_claim_templates: Vec<Value>,
    pub pod_management_policy: String,
    pub update_strategy: StatefulSetStrategy,
    pub revision_history_limit: Option<i32>,
    pub ordinals: Option<Ordinals>,
    pub persistent_volume_claim_retention_policy: Option<ClaimRetention>,
}

/// What becomes of the claims of a StatefulSet: `Retain` or `Delete`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimRetention {
    pub when_deleted: String,
    pub when_scaled: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Ordinals {
    pub start: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStrategy {
    #[serde(rename = "type")]
    pub type_: String,
    pub rolling_update: Option<Partition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Partition {
    pub partition: Option<i32>,
    /// Only where the feature MaxUnavailableStatefulSet is on: otherwise the API server drops it.
    pub max_unavailable: Option<IntOrString>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct StatefulSetStatus {
    pub observed_generation: i64,
    pub replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub current_replicas: i32,
    pub updated_replicas: i32,
    pub current_revision: String,
    pub update_revision: String,
    pub collision_count: Option<i32>,
}

impl Object for StatefulSet {}

projection! {
    DaemonSet of k8s_openapi::api::apps::v1::DaemonSet {
        #[serde(default)]
        pub spec: DaemonSetSpec,
        #[serde(default)]
        pub status: DaemonSetStatus,
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetSpec {
    pub min_ready_seconds: i32,
    pub selector: LabelSelector,
    pub template: Value,
    pub update_strategy: DeploymentStrategy,
    pub revision_history_limit: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct DaemonSetStatus {
    pub observed_generation: i64,
    pub desired_number_scheduled: i32,
    pub current_number_scheduled: i32,
    pub number_misscheduled: i32,
    pub number_ready: i32,
    pub updated_number_scheduled: i32,
    pub number_available: i32,
    pub number_unavailable: i32,
    pub collision_count: Option<i32>,
}

impl Object for DaemonSet {}
