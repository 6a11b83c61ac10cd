//! What strings of a closed set may be: upstream's types marked `+enum` in `k8s.io/api`, with what it says of each value.
//!
//! Upstream publishes the values as `enum`, and adds them to the descriptions of fields that hold one of them (not of
//! those that hold a list or a map of them).

use crate::types::Struct;
use std::collections::HashMap;
use std::sync::LazyLock;

/// One `+enum` type.
pub(super) struct Enum {
    /// Value, and what is said of it (maybe nothing); sorted by value.
    pub(super) values: &'static [(&'static str, &'static str)],
    /// The fields of the type, of a pointer to it, or of a list or map of it: `core.v1.Container.imagePullPolicy`.
    fields: &'static [&'static str],
}

impl Enum {
    /// What follows in the description of a field.
    pub(super) fn description(&self) -> String {
        let mut text = "\n\nPossible enum values:".to_owned();
        for (value, what) in self.values {
            text.push_str("\n - `\"");
            text.push_str(value);
            text.push_str("\"`");
            if !what.is_empty() {
                text.push(' ');
                text.push_str(what);
            }
        }
        text
    }
}

static BY_FIELD: LazyLock<HashMap<&str, &Enum>> =
    LazyLock::new(|| ENUMS.iter().flat_map(|e| e.fields.iter().map(move |field| (*field, e))).collect());

/// The values of a field of a v1 type (`core.v1.Lifecycle.stopSignal`); none: it is no enumeration.
pub(crate) fn values(field: &str) -> impl Iterator<Item = &'static str> + use<> {
    BY_FIELD.get(field).into_iter().flat_map(|of| of.values.iter().map(|(value, _)| *value))
}

/// The enumeration that a field holds.
pub(super) fn of_field(of: Struct<'_>, name: &str) -> Option<&'static Enum> {
    // Versions whose shape is that of v1 have no rows of their own.
    let of = of.ruled_as();
    BY_FIELD.get(format!("{}.{name}", of.strip_prefix("io.k8s.api.")?).as_str()).copied()
}

static ENUMS: [Enum; 66] = [
    // FailurePolicyType
    Enum {
        values: &[
            ("Fail", "means that an error calling the webhook causes the admission to fail."),
            ("Ignore", "means that an error calling the webhook is ignored."),
        ],
        fields: &[
            "admissionregistration.v1.MutatingAdmissionPolicySpec.failurePolicy",
            "admissionregistration.v1.MutatingWebhook.failurePolicy",
            "admissionregistration.v1.ValidatingAdmissionPolicySpec.failurePolicy",
            "admissionregistration.v1.ValidatingWebhook.failurePolicy",
        ],
    },
    // MatchPolicyType
    Enum {
        values: &[
            (
                "Equivalent",
                "means requests should be sent to the webhook if they modify a resource listed in rules via another API group or version.",
            ),
            ("Exact", "means requests should only be sent to the webhook if they exactly match a given rule."),
        ],
        fields: &[
            "admissionregistration.v1.MatchResources.matchPolicy",
            "admissionregistration.v1.MutatingWebhook.matchPolicy",
            "admissionregistration.v1.ValidatingWebhook.matchPolicy",
        ],
    },
    // OperationType
    Enum {
        values: &[("*", ""), ("CONNECT", ""), ("CREATE", ""), ("DELETE", ""), ("UPDATE", "")],
        fields: &[
            "admissionregistration.v1.NamedRuleWithOperations.operations",
            "admissionregistration.v1.RuleWithOperations.operations",
        ],
    },
    // PatchType
    Enum {
        values: &[
            (
                "ApplyConfiguration",
                "ApplyConfiguration indicates that the mutation is using apply configuration to mutate the object.",
            ),
            ("JSONPatch", "JSONPatch indicates that the object is mutated through JSON Patch."),
        ],
        fields: &["admissionregistration.v1.Mutation.patchType"],
    },
    // ReinvocationPolicyType
    Enum {
        values: &[
            (
                "IfNeeded",
                "indicates that the webhook may be called at least one additional time as part of the admission evaluation if the object being admitted is modified by other admission plugins after the initial webhook call.",
            ),
            ("Never", "indicates that the webhook must not be called more than once in a single admission evaluation."),
        ],
        fields: &[
            "admissionregistration.v1.MutatingAdmissionPolicySpec.reinvocationPolicy",
            "admissionregistration.v1.MutatingWebhook.reinvocationPolicy",
        ],
    },
    // ScopeType
    Enum {
        values: &[
            ("*", "means that all scopes are included."),
            ("Cluster", "means that scope is limited to cluster-scoped objects. Namespace objects are cluster-scoped."),
            ("Namespaced", "means that scope is limited to namespaced objects."),
        ],
        fields: &[
            "admissionregistration.v1.NamedRuleWithOperations.scope",
            "admissionregistration.v1.RuleWithOperations.scope",
        ],
    },
    // SideEffectClass
    Enum {
        values: &[
            ("None", "means that calling the webhook will have no side effects."),
            (
                "NoneOnDryRun",
                "means that calling the webhook will possibly have side effects, but if the request being reviewed has the dry-run attribute, the side effects will be suppressed.",
            ),
            (
                "Some",
                "means that calling the webhook will possibly have side effects. If a request with the dry-run attribute would trigger a call to this webhook, the request will instead fail.",
            ),
            (
                "Unknown",
                "means that no information is known about the side effects of calling the webhook. If a request with the dry-run attribute would trigger a call to this webhook, the request will instead fail.",
            ),
        ],
        fields: &[
            "admissionregistration.v1.MutatingWebhook.sideEffects",
            "admissionregistration.v1.ValidatingWebhook.sideEffects",
        ],
    },
    // ValidationAction
    Enum {
        values: &[("Audit", ""), ("Deny", ""), ("Warn", "")],
        fields: &["admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec.validationActions"],
    },
    // DaemonSetUpdateStrategyType
    Enum {
        values: &[
            ("OnDelete", "Replace the old daemons only when it's killed"),
            (
                "RollingUpdate",
                "Replace the old daemons by new ones using rolling update i.e replace them on each node one after the other.",
            ),
        ],
        fields: &["apps.v1.DaemonSetUpdateStrategy.type"],
    },
    // DeploymentStrategyType
    Enum {
        values: &[
            ("Recreate", "Kill all existing pods before creating new ones."),
            (
                "RollingUpdate",
                "Replace the old ReplicaSets by new one using rolling update i.e gradually scale down the old ReplicaSets and scale up the new one.",
            ),
        ],
        fields: &["apps.v1.DeploymentStrategy.type"],
    },
    // PodManagementPolicyType
    Enum {
        values: &[
            (
                "OrderedReady",
                "will create pods in strictly increasing order on scale up and strictly decreasing order on scale down, progressing only when the previous pod is ready or terminated. At most one pod will be changed at any time.",
            ),
            (
                "Parallel",
                "will create and delete pods as soon as the stateful set replica count is changed, and will not wait for pods to be ready or complete termination.",
            ),
        ],
        fields: &["apps.v1.StatefulSetSpec.podManagementPolicy"],
    },
    // StatefulSetUpdateStrategyType
    Enum {
        values: &[
            (
                "OnDelete",
                "triggers the legacy behavior. Version tracking and ordered rolling restarts are disabled. Pods are recreated from the StatefulSetSpec when they are manually deleted. When a scale operation is performed with this strategy,specification version indicated by the StatefulSet's currentRevision.",
            ),
            (
                "RollingUpdate",
                "indicates that update will be applied to all Pods in the StatefulSet with respect to the StatefulSet ordering constraints. When a scale operation is performed with this strategy, new Pods will be created from the specification version indicated by the StatefulSet's updateRevision.",
            ),
        ],
        fields: &["apps.v1.StatefulSetUpdateStrategy.type"],
    },
    // CompletionMode
    Enum {
        values: &[
            (
                "Indexed",
                "is a Job completion mode. In this mode, the Pods of a Job get an associated completion index from 0 to (.spec.completions - 1). The Job is considered complete when a Pod completes for each completion index.",
            ),
            (
                "NonIndexed",
                "is a Job completion mode. In this mode, the Job is considered complete when there have been .spec.completions successfully completed Pods. Pod completions are homologous to each other.",
            ),
        ],
        fields: &["batch.v1.JobSpec.completionMode"],
    },
    // ConcurrencyPolicy
    Enum {
        values: &[
            ("Allow", "allows CronJobs to run concurrently."),
            ("Forbid", "forbids concurrent runs, skipping next run if previous hasn't finished yet."),
            ("Replace", "cancels currently running job and replaces it with a new one."),
        ],
        fields: &["batch.v1.CronJobSpec.concurrencyPolicy"],
    },
    // PodFailurePolicyAction
    Enum {
        values: &[
            (
                "Count",
                "This is an action which might be taken on a pod failure - the pod failure is handled in the default way - the counter towards .backoffLimit, represented by the job's .status.failed field, is incremented.",
            ),
            (
                "FailIndex",
                "This is an action which might be taken on a pod failure - mark the Job's index as failed to avoid restarts within this index. This action can only be used when backoffLimitPerIndex is set.",
            ),
            (
                "FailJob",
                "This is an action which might be taken on a pod failure - mark the pod's job as Failed and terminate all running pods.",
            ),
            (
                "Ignore",
                "This is an action which might be taken on a pod failure - the counter towards .backoffLimit, represented by the job's .status.failed field, is not incremented and a replacement pod is created.",
            ),
        ],
        fields: &["batch.v1.PodFailurePolicyRule.action"],
    },
    // PodFailurePolicyOnExitCodesOperator
    Enum {
        values: &[("In", ""), ("NotIn", "")],
        fields: &["batch.v1.PodFailurePolicyOnExitCodesRequirement.operator"],
    },
    // PodReplacementPolicy
    Enum {
        values: &[
            (
                "Failed",
                "means to wait until a previously created Pod is fully terminated (has phase Failed or Succeeded) before creating a replacement Pod.",
            ),
            (
                "TerminatingOrFailed",
                "means that we recreate pods when they are terminating (has a metadata.deletionTimestamp) or failed.",
            ),
        ],
        fields: &["batch.v1.JobSpec.podReplacementPolicy"],
    },
    // KeyUsage
    Enum {
        values: &[
            ("any", ""),
            ("cert sign", ""),
            ("client auth", ""),
            ("code signing", ""),
            ("content commitment", ""),
            ("crl sign", ""),
            ("data encipherment", ""),
            ("decipher only", ""),
            ("digital signature", ""),
            ("email protection", ""),
            ("encipher only", ""),
            ("ipsec end system", ""),
            ("ipsec tunnel", ""),
            ("ipsec user", ""),
            ("key agreement", ""),
            ("key encipherment", ""),
            ("microsoft sgc", ""),
            ("netscape sgc", ""),
            ("ocsp signing", ""),
            ("s/mime", ""),
            ("server auth", ""),
            ("signing", ""),
            ("timestamping", ""),
        ],
        fields: &["certificates.v1.CertificateSigningRequestSpec.usages"],
    },
    // AppArmorProfileType
    Enum {
        values: &[
            ("Localhost", "indicates that a profile pre-loaded on the node should be used."),
            ("RuntimeDefault", "indicates that the container runtime's default AppArmor profile should be used."),
            ("Unconfined", "indicates that no AppArmor profile should be enforced."),
        ],
        fields: &["core.v1.AppArmorProfile.type"],
    },
    // AzureDataDiskCachingMode
    Enum {
        values: &[("None", ""), ("ReadOnly", ""), ("ReadWrite", "")],
        fields: &["core.v1.AzureDiskVolumeSource.cachingMode"],
    },
    // AzureDataDiskKind
    Enum {
        values: &[("Dedicated", ""), ("Managed", ""), ("Shared", "")],
        fields: &["core.v1.AzureDiskVolumeSource.kind"],
    },
    // ClaimResourceStatus
    Enum {
        values: &[
            ("ControllerResizeInProgress", ""),
            ("ControllerResizeInfeasible", ""),
            ("NodeResizeInProgress", ""),
            ("NodeResizeInfeasible", ""),
            ("NodeResizePending", ""),
        ],
        fields: &["core.v1.PersistentVolumeClaimStatus.allocatedResourceStatuses"],
    },
    // DNSPolicy
    Enum {
        values: &[
            (
                "ClusterFirst",
                "indicates that the pod should use cluster DNS first unless hostNetwork is true, if it is available, then fall back on the default (as determined by kubelet) DNS settings.",
            ),
            (
                "ClusterFirstWithHostNet",
                "indicates that the pod should use cluster DNS first, if it is available, then fall back on the default (as determined by kubelet) DNS settings.",
            ),
            ("Default", "indicates that the pod should use the default (as determined by kubelet) DNS settings."),
            (
                "None",
                "indicates that the pod should use empty DNS settings. DNS parameters such as nameservers and search paths should be defined via DNSConfig.",
            ),
        ],
        fields: &["core.v1.PodSpec.dnsPolicy"],
    },
    // HostPathType
    Enum {
        values: &[
            ("", "For backwards compatible, leave it empty if unset"),
            ("BlockDevice", "A block device must exist at the given path"),
            ("CharDevice", "A character device must exist at the given path"),
            ("Directory", "A directory must exist at the given path"),
            (
                "DirectoryOrCreate",
                "If nothing exists at the given path, an empty directory will be created there as needed with file mode 0755, having the same group and ownership with Kubelet.",
            ),
            ("File", "A file must exist at the given path"),
            (
                "FileOrCreate",
                "If nothing exists at the given path, an empty file will be created there as needed with file mode 0644, having the same group and ownership with Kubelet.",
            ),
            ("Socket", "A UNIX socket must exist at the given path"),
        ],
        fields: &["core.v1.HostPathVolumeSource.type"],
    },
    // IPFamily
    Enum { values: &[("", ""), ("IPv4", ""), ("IPv6", "")], fields: &["core.v1.ServiceSpec.ipFamilies"] },
    // IPFamilyPolicy
    Enum {
        values: &[
            (
                "PreferDualStack",
                "indicates that this service prefers dual-stack when the cluster is configured for dual-stack. If the cluster is not configured for dual-stack the service will be assigned a single IPFamily. If the IPFamily is not set in service.spec.ipFamilies then the service will be assigned the default IPFamily configured on the cluster",
            ),
            (
                "RequireDualStack",
                "indicates that this service requires dual-stack. Using IPFamilyPolicyRequireDualStack on a single stack cluster will result in validation errors. The IPFamilies (and their order) assigned to this service is based on service.spec.ipFamilies. If service.spec.ipFamilies was not provided then it will be assigned according to how they are configured on the cluster. If service.spec.ipFamilies has only one entry then the alternative IPFamily will be added by apiserver",
            ),
            (
                "SingleStack",
                "indicates that this service is required to have a single IPFamily. The IPFamily assigned is based on the default IPFamily used by the cluster or as identified by service.spec.ipFamilies field",
            ),
        ],
        fields: &["core.v1.ServiceSpec.ipFamilyPolicy"],
    },
    // MountPropagationMode
    Enum {
        values: &[
            (
                "Bidirectional",
                "means that the volume in a container will receive new mounts from the host or other containers, and its own mounts will be propagated from the container to the host or other containers. Note that this mode is recursively applied to all mounts in the volume (\"rshared\" in Linux terminology).",
            ),
            (
                "HostToContainer",
                "means that the volume in a container will receive new mounts from the host or other containers, but filesystems mounted inside the container won't be propagated to the host or other containers. Note that this mode is recursively applied to all mounts in the volume (\"rslave\" in Linux terminology).",
            ),
            (
                "None",
                "means that the volume in a container will not receive new mounts from the host or other containers, and filesystems mounted inside the container won't be propagated to the host or other containers. Note that this mode corresponds to \"private\" in Linux terminology.",
            ),
        ],
        fields: &["core.v1.VolumeMount.mountPropagation"],
    },
    // NamespacePhase
    Enum {
        values: &[
            ("Active", "means the namespace is available for use in the system"),
            ("Terminating", "means the namespace is undergoing graceful termination"),
        ],
        fields: &["core.v1.NamespaceStatus.phase"],
    },
    // NodeInclusionPolicy
    Enum {
        values: &[
            ("Honor", "means use this scheduling directive when calculating pod topology spread skew."),
            ("Ignore", "means ignore this scheduling directive when calculating pod topology spread skew."),
        ],
        fields: &[
            "core.v1.TopologySpreadConstraint.nodeAffinityPolicy",
            "core.v1.TopologySpreadConstraint.nodeTaintsPolicy",
        ],
    },
    // NodePhase
    Enum {
        values: &[
            ("Pending", "means the node has been created/added by the system, but not configured."),
            ("Running", "means the node has been configured and has Kubernetes components running."),
            ("Terminated", "means the node has been removed from the cluster."),
        ],
        fields: &["core.v1.NodeStatus.phase"],
    },
    // NodeSelectorOperator
    Enum {
        values: &[("DoesNotExist", ""), ("Exists", ""), ("Gt", ""), ("In", ""), ("Lt", ""), ("NotIn", "")],
        fields: &["core.v1.NodeSelectorRequirement.operator"],
    },
    // PersistentVolumeAccessMode
    Enum {
        values: &[("ReadOnlyMany", ""), ("ReadWriteMany", ""), ("ReadWriteOnce", ""), ("ReadWriteOncePod", "")],
        fields: &[
            "core.v1.PersistentVolumeClaimSpec.accessModes",
            "core.v1.PersistentVolumeClaimStatus.accessModes",
            "core.v1.PersistentVolumeSpec.accessModes",
        ],
    },
    // PersistentVolumeClaimModifyVolumeStatus
    Enum {
        values: &[
            ("InProgress", "InProgress indicates that the volume is being modified"),
            (
                "Infeasible",
                "Infeasible indicates that the request has been rejected as invalid by the CSI driver. To resolve the error, a valid VolumeAttributesClass needs to be specified",
            ),
            (
                "Pending",
                "Pending indicates that the PersistentVolumeClaim cannot be modified due to unmet requirements, such as the specified VolumeAttributesClass not existing",
            ),
        ],
        fields: &["core.v1.ModifyVolumeStatus.status"],
    },
    // PersistentVolumeClaimPhase
    Enum {
        values: &[
            ("Bound", "used for PersistentVolumeClaims that are bound"),
            (
                "Lost",
                "used for PersistentVolumeClaims that lost their underlying PersistentVolume. The claim was bound to a PersistentVolume and this volume does not exist any longer and all data on it was lost.",
            ),
            ("Pending", "used for PersistentVolumeClaims that are not yet bound"),
        ],
        fields: &["core.v1.PersistentVolumeClaimStatus.phase"],
    },
    // PersistentVolumeMode
    Enum {
        values: &[
            ("Block", "means the volume will not be formatted with a filesystem and will remain a raw block device."),
            ("Filesystem", "means the volume will be or is formatted with a filesystem."),
        ],
        fields: &["core.v1.PersistentVolumeClaimSpec.volumeMode", "core.v1.PersistentVolumeSpec.volumeMode"],
    },
    // PersistentVolumePhase
    Enum {
        values: &[
            (
                "Available",
                "used for PersistentVolumes that are not yet bound Available volumes are held by the binder and matched to PersistentVolumeClaims",
            ),
            ("Bound", "used for PersistentVolumes that are bound"),
            (
                "Failed",
                "used for PersistentVolumes that failed to be correctly recycled or deleted after being released from a claim",
            ),
            ("Pending", "used for PersistentVolumes that are not available"),
            (
                "Released",
                "used for PersistentVolumes where the bound PersistentVolumeClaim was deleted released volumes must be recycled before becoming available again this phase is used by the persistent volume claim binder to signal to another process to reclaim the resource",
            ),
        ],
        fields: &["core.v1.PersistentVolumeStatus.phase"],
    },
    // PersistentVolumeReclaimPolicy
    Enum {
        values: &[
            (
                "Delete",
                "means the volume will be deleted from Kubernetes on release from its claim. The volume plugin must support Deletion.",
            ),
            (
                "Recycle",
                "means the volume will be recycled back into the pool of unbound persistent volumes on release from its claim. The volume plugin must support Recycling.",
            ),
            (
                "Retain",
                "means the volume will be left in its current phase (Released) for manual reclamation by the administrator. The default policy is Retain.",
            ),
        ],
        fields: &[
            "core.v1.PersistentVolumeSpec.persistentVolumeReclaimPolicy",
            "storage.v1.StorageClass.reclaimPolicy",
        ],
    },
    // PodFSGroupChangePolicy
    Enum {
        values: &[
            (
                "Always",
                "indicates that volume's ownership and permissions should always be changed whenever volume is mounted inside a Pod. This the default behavior.",
            ),
            (
                "OnRootMismatch",
                "indicates that volume's ownership and permissions will be changed only when permission and ownership of root directory does not match with expected permissions on the volume. This can help shorten the time it takes to change ownership and permissions of a volume.",
            ),
        ],
        fields: &["core.v1.PodSecurityContext.fsGroupChangePolicy"],
    },
    // PodPhase
    Enum {
        values: &[
            (
                "Failed",
                "means that all containers in the pod have terminated, and at least one container has terminated in a failure (exited with a non-zero exit code or was stopped by the system).",
            ),
            (
                "Pending",
                "means the pod has been accepted by the system, but one or more of the containers has not been started. This includes time before being bound to a node, as well as time spent pulling images onto the host.",
            ),
            (
                "Running",
                "means the pod has been bound to a node and all of the containers have been started. At least one container is still running or is in the process of being restarted.",
            ),
            (
                "Succeeded",
                "means that all containers in the pod have voluntarily terminated with a container exit code of 0, and the system is not going to restart any of these containers.",
            ),
            (
                "Unknown",
                "means that for some reason the state of the pod could not be obtained, typically due to an error in communicating with the host of the pod. Deprecated: It isn't being set since 2015 (74da3b14b0c0f658b3bb8d2def5094686d0e9095)",
            ),
        ],
        fields: &["core.v1.PodStatus.phase"],
    },
    // PodQOSClass
    Enum {
        values: &[
            ("BestEffort", "is the BestEffort qos class."),
            ("Burstable", "is the Burstable qos class."),
            ("Guaranteed", "is the Guaranteed qos class."),
        ],
        fields: &["core.v1.PodStatus.qosClass"],
    },
    // PreemptionPolicy
    Enum {
        values: &[
            ("Never", "means that pod never preempts other pods with lower priority."),
            ("PreemptLowerPriority", "means that pod can preempt other pods with lower priority."),
        ],
        fields: &["core.v1.PodSpec.preemptionPolicy", "scheduling.v1.PriorityClass.preemptionPolicy"],
    },
    // ProcMountType
    Enum {
        values: &[
            (
                "Default",
                "uses the container runtime defaults for readonly and masked paths for /proc. Most container runtimes mask certain paths in /proc to avoid accidental security exposure of special devices or information.",
            ),
            (
                "Unmasked",
                "bypasses the default masking behavior of the container runtime and ensures the newly created /proc the container stays in tact with no modifications.",
            ),
        ],
        fields: &["core.v1.SecurityContext.procMount"],
    },
    // Protocol
    Enum {
        values: &[("SCTP", "is the SCTP protocol."), ("TCP", "is the TCP protocol."), ("UDP", "is the UDP protocol.")],
        fields: &[
            "core.v1.ContainerPort.protocol",
            "core.v1.EndpointPort.protocol",
            "core.v1.PortStatus.protocol",
            "core.v1.ServicePort.protocol",
            "discovery.v1.EndpointPort.protocol",
            "networking.v1.IngressPortStatus.protocol",
            "networking.v1.NetworkPolicyPort.protocol",
        ],
    },
    // PullPolicy
    Enum {
        values: &[
            (
                "Always",
                "means that kubelet always attempts to pull the latest image. Container will fail If the pull fails.",
            ),
            (
                "IfNotPresent",
                "means that kubelet pulls if the image isn't present on disk. Container will fail if the image isn't present and the pull fails.",
            ),
            (
                "Never",
                "means that kubelet never pulls an image, but only uses a local image. Container will fail if the image isn't present",
            ),
        ],
        fields: &[
            "core.v1.Container.imagePullPolicy",
            "core.v1.EphemeralContainer.imagePullPolicy",
            "core.v1.ImageVolumeSource.pullPolicy",
        ],
    },
    // ResourceQuotaScope
    Enum {
        values: &[
            ("BestEffort", "Match all pod objects that have best effort quality of service"),
            (
                "CrossNamespacePodAffinity",
                "Match all pod objects that have cross-namespace pod (anti)affinity mentioned.",
            ),
            ("NotBestEffort", "Match all pod objects that do not have best effort quality of service"),
            ("NotTerminating", "Match all pod objects where spec.activeDeadlineSeconds is nil"),
            ("PriorityClass", "Match all pod objects that have priority class mentioned"),
            ("Terminating", "Match all pod objects where spec.activeDeadlineSeconds >=0"),
            ("VolumeAttributesClass", "Match all pvc objects that have volume attributes class mentioned."),
        ],
        fields: &["core.v1.ResourceQuotaSpec.scopes", "core.v1.ScopedResourceSelectorRequirement.scopeName"],
    },
    // RestartPolicy
    Enum { values: &[("Always", ""), ("Never", ""), ("OnFailure", "")], fields: &["core.v1.PodSpec.restartPolicy"] },
    // ScopeSelectorOperator
    Enum {
        values: &[("DoesNotExist", ""), ("Exists", ""), ("In", ""), ("NotIn", "")],
        fields: &["core.v1.ScopedResourceSelectorRequirement.operator"],
    },
    // SeccompProfileType
    Enum {
        values: &[
            (
                "Localhost",
                "indicates a profile defined in a file on the node should be used. The file's location relative to <kubelet-root-dir>/seccomp.",
            ),
            ("RuntimeDefault", "represents the default container runtime seccomp profile."),
            ("Unconfined", "indicates no seccomp profile is applied (A.K.A. unconfined)."),
        ],
        fields: &["core.v1.SeccompProfile.type"],
    },
    // ServiceAffinity
    Enum {
        values: &[("ClientIP", "is the Client IP based."), ("None", "- no session affinity.")],
        fields: &["core.v1.ServiceSpec.sessionAffinity"],
    },
    // ServiceExternalTrafficPolicy
    Enum {
        values: &[
            ("Cluster", "routes traffic to all endpoints."),
            (
                "Local",
                "preserves the source IP of the traffic by routing only to endpoints on the same node as the traffic was received on (dropping the traffic if there are no local endpoints).",
            ),
        ],
        fields: &["core.v1.ServiceSpec.externalTrafficPolicy"],
    },
    // ServiceInternalTrafficPolicy
    Enum {
        values: &[
            ("Cluster", "routes traffic to all endpoints."),
            (
                "Local",
                "routes traffic only to endpoints on the same node as the client pod (dropping the traffic if there are no local endpoints).",
            ),
        ],
        fields: &["core.v1.ServiceSpec.internalTrafficPolicy"],
    },
    // ServiceType
    Enum {
        values: &[
            ("ClusterIP", "means a service will only be accessible inside the cluster, via the cluster IP."),
            (
                "ExternalName",
                "means a service consists of only a reference to an external name that kubedns or equivalent will return as a CNAME record, with no exposing or proxying of any pods involved.",
            ),
            (
                "LoadBalancer",
                "means a service will be exposed via an external load balancer (if the cloud provider supports it), in addition to 'NodePort' type.",
            ),
            ("NodePort", "means a service will be exposed on one port of every node, in addition to 'ClusterIP' type."),
        ],
        fields: &["core.v1.ServiceSpec.type"],
    },
    // Signal
    Enum {
        values: &[
            ("SIGABRT", ""),
            ("SIGALRM", ""),
            ("SIGBUS", ""),
            ("SIGCHLD", ""),
            ("SIGCLD", ""),
            ("SIGCONT", ""),
            ("SIGFPE", ""),
            ("SIGHUP", ""),
            ("SIGILL", ""),
            ("SIGINT", ""),
            ("SIGIO", ""),
            ("SIGIOT", ""),
            ("SIGKILL", ""),
            ("SIGPIPE", ""),
            ("SIGPOLL", ""),
            ("SIGPROF", ""),
            ("SIGPWR", ""),
            ("SIGQUIT", ""),
            ("SIGRTMAX", ""),
            ("SIGRTMAX-1", ""),
            ("SIGRTMAX-10", ""),
            ("SIGRTMAX-11", ""),
            ("SIGRTMAX-12", ""),
            ("SIGRTMAX-13", ""),
            ("SIGRTMAX-14", ""),
            ("SIGRTMAX-2", ""),
            ("SIGRTMAX-3", ""),
            ("SIGRTMAX-4", ""),
            ("SIGRTMAX-5", ""),
            ("SIGRTMAX-6", ""),
            ("SIGRTMAX-7", ""),
            ("SIGRTMAX-8", ""),
            ("SIGRTMAX-9", ""),
            ("SIGRTMIN", ""),
            ("SIGRTMIN+1", ""),
            ("SIGRTMIN+10", ""),
            ("SIGRTMIN+11", ""),
            ("SIGRTMIN+12", ""),
            ("SIGRTMIN+13", ""),
            ("SIGRTMIN+14", ""),
            ("SIGRTMIN+15", ""),
            ("SIGRTMIN+2", ""),
            ("SIGRTMIN+3", ""),
            ("SIGRTMIN+4", ""),
            ("SIGRTMIN+5", ""),
            ("SIGRTMIN+6", ""),
            ("SIGRTMIN+7", ""),
            ("SIGRTMIN+8", ""),
            ("SIGRTMIN+9", ""),
            ("SIGSEGV", ""),
            ("SIGSTKFLT", ""),
            ("SIGSTOP", ""),
            ("SIGSYS", ""),
            ("SIGTERM", ""),
            ("SIGTRAP", ""),
            ("SIGTSTP", ""),
            ("SIGTTIN", ""),
            ("SIGTTOU", ""),
            ("SIGURG", ""),
            ("SIGUSR1", ""),
            ("SIGUSR2", ""),
            ("SIGVTALRM", ""),
            ("SIGWINCH", ""),
            ("SIGXCPU", ""),
            ("SIGXFSZ", ""),
        ],
        fields: &["core.v1.ContainerStatus.stopSignal", "core.v1.Lifecycle.stopSignal"],
    },
    // SupplementalGroupsPolicy
    Enum {
        values: &[
            (
                "Merge",
                "means that the container's provided SupplementalGroups and FsGroup (specified in SecurityContext) will be merged with the primary user's groups as defined in the container image (in /etc/group).",
            ),
            (
                "Strict",
                "means that the container's provided SupplementalGroups and FsGroup (specified in SecurityContext) will be used instead of any groups defined in the container image.",
            ),
        ],
        fields: &["core.v1.PodSecurityContext.supplementalGroupsPolicy"],
    },
    // TaintEffect
    Enum {
        values: &[
            (
                "NoExecute",
                "Evict any already-running pods that do not tolerate the taint. Currently enforced by NodeController.",
            ),
            (
                "NoSchedule",
                "Do not allow new pods to schedule onto the node unless they tolerate the taint, but allow all pods submitted to Kubelet without going through the scheduler to start, and allow all already-running pods to continue running. Enforced by the scheduler.",
            ),
            (
                "PreferNoSchedule",
                "Like TaintEffectNoSchedule, but the scheduler tries not to schedule new pods onto the node, rather than prohibiting new pods from scheduling onto the node entirely. Enforced by the scheduler.",
            ),
        ],
        fields: &["core.v1.Taint.effect", "core.v1.Toleration.effect"],
    },
    // TerminationMessagePolicy
    Enum {
        values: &[
            (
                "FallbackToLogsOnError",
                "will read the most recent contents of the container logs for the container status message when the container exits with an error and the terminationMessagePath has no contents.",
            ),
            (
                "File",
                "is the default behavior and will set the container status message to the contents of the container's terminationMessagePath when the container exits.",
            ),
        ],
        fields: &["core.v1.Container.terminationMessagePolicy", "core.v1.EphemeralContainer.terminationMessagePolicy"],
    },
    // TolerationOperator
    Enum { values: &[("Equal", ""), ("Exists", ""), ("Gt", ""), ("Lt", "")], fields: &["core.v1.Toleration.operator"] },
    // URIScheme
    Enum {
        values: &[
            ("HTTP", "means that the scheme used will be http://"),
            ("HTTPS", "means that the scheme used will be https://"),
        ],
        fields: &["core.v1.HTTPGetAction.scheme"],
    },
    // UnsatisfiableConstraintAction
    Enum {
        values: &[
            ("DoNotSchedule", "instructs the scheduler not to schedule the pod when constraints are not satisfied."),
            ("ScheduleAnyway", "instructs the scheduler to schedule the pod even if constraints are not satisfied."),
        ],
        fields: &["core.v1.TopologySpreadConstraint.whenUnsatisfiable"],
    },
    // AddressType
    Enum {
        values: &[
            ("FQDN", "represents a FQDN."),
            ("IPv4", "represents an IPv4 Address."),
            ("IPv6", "represents an IPv6 Address."),
        ],
        fields: &["discovery.v1.EndpointSlice.addressType"],
    },
    // PathType
    Enum {
        values: &[
            ("Exact", "matches the URL path exactly and with case sensitivity."),
            (
                "ImplementationSpecific",
                "matching is up to the IngressClass. Implementations can treat this as a separate PathType or treat it identically to Prefix or Exact path types.",
            ),
            (
                "Prefix",
                "matches based on a URL path prefix split by '/'. Matching is case sensitive and done on a path element by element basis. A path element refers to the list of labels in the path split by the '/' separator. A request is a match for path p if every p is an element-wise prefix of p of the request path. Note that if the last element of the path is a substring of the last element in request path, it is not a match (e.g. /foo/bar matches /foo/bar/baz, but does not match /foo/barbaz). If multiple matching paths exist in an Ingress spec, the longest matching path is given priority. Examples: - /foo/bar does not match requests to /foo/barbaz - /foo/bar matches request to /foo/bar and /foo/bar/baz - /foo and /foo/ both match requests to /foo and /foo/. If both paths are present in an Ingress spec, the longest matching path (/foo/) is given priority.",
            ),
        ],
        fields: &["networking.v1.HTTPIngressPath.pathType"],
    },
    // PolicyType
    Enum { values: &[("Egress", ""), ("Ingress", "")], fields: &["networking.v1.NetworkPolicySpec.policyTypes"] },
    // UnhealthyPodEvictionPolicyType
    Enum {
        values: &[
            (
                "AlwaysAllow",
                "policy means that all running pods (status.phase=\"Running\"), but not yet healthy are considered disrupted and can be evicted regardless of whether the criteria in a PDB is met. This means perspective running pods of a disrupted application might not get a chance to become healthy. Healthy pods will be subject to the PDB for eviction.",
            ),
            (
                "IfHealthyBudget",
                "policy means that running pods (status.phase=\"Running\"), but not yet healthy can be evicted only if the guarded application is not disrupted (status.currentHealthy is at least equal to status.desiredHealthy). Healthy pods will be subject to the PDB for eviction.",
            ),
        ],
        fields: &["policy.v1.PodDisruptionBudgetSpec.unhealthyPodEvictionPolicy"],
    },
    // DeviceTaintEffect
    Enum {
        values: &[
            ("NoExecute", "Evict any already-running pods that do not tolerate the device taint."),
            (
                "NoSchedule",
                "Do not allow new pods to schedule which use a tainted device unless they tolerate the taint, but allow all pods submitted to Kubelet without going through the scheduler to start, and allow all already-running pods to continue running.",
            ),
            ("None", "No effect, the taint is purely informational."),
        ],
        fields: &["resource.v1.DeviceTaint.effect", "resource.v1.DeviceToleration.effect"],
    },
    // DeviceTolerationOperator
    Enum { values: &[("Equal", ""), ("Exists", "")], fields: &["resource.v1.DeviceToleration.operator"] },
    // VolumeBindingMode
    Enum {
        values: &[
            (
                "Immediate",
                "indicates that PersistentVolumeClaims should be immediately provisioned and bound. This is the default mode.",
            ),
            (
                "WaitForFirstConsumer",
                "indicates that PersistentVolumeClaims should not be provisioned and bound until the first Pod is created that references the PeristentVolumeClaim. The volume provisioning and binding will occur during Pod scheduing.",
            ),
        ],
        fields: &["storage.v1.StorageClass.volumeBindingMode"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Kind, find};

    #[test]
    fn every_row_names_fields_that_hold_strings() {
        for row in &ENUMS {
            assert!(row.values.is_sorted_by_key(|(value, _)| value), "{:?}", row.fields);
            for path in row.fields {
                let (of, name) = path.rsplit_once('.').expect(path);
                let of = find(&format!("io.k8s.api.{of}")).and_then(|ty| ty.as_struct()).expect(path);
                let ty = of.field(name).expect(path).ty();
                let ty = match ty.kind() {
                    Kind::List(of) | Kind::Map(of) => of,
                    _ => ty,
                };
                assert!(matches!(ty.kind(), Kind::String), "{path}");
                let found = of_field(of, name).expect(path);
                assert!(std::ptr::eq(found, row), "{path} is there twice");
            }
        }
    }

    #[test]
    fn other_versions_have_the_values_of_v1() {
        let of = |name| find(name).and_then(|ty| ty.as_struct()).expect(name);
        assert!(of_field(of("io.k8s.api.resource.v1beta2.DeviceTaint"), "effect").is_some());
        assert!(of_field(of("io.k8s.api.core.v1.Container"), "image").is_none());
    }
}
