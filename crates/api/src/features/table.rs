//! The gates of v1.36, by stage.

use super::Stage;

/// Gates of one stage, which are on or off when nobody says, and may be closed to whoever says otherwise.
pub(super) struct Block {
    pub(super) stage: Stage,
    pub(super) on: bool,
    pub(super) locked: bool,
    pub(super) names: &'static [&'static str],
}

const fn block(stage: Stage, on: bool, locked: bool, names: &'static [&'static str]) -> Block {
    Block { stage, on, locked, names }
}

#[rustfmt::skip]
pub(super) const BLOCKS: &[Block] = &[
    block(Stage::Alpha, false, false, &[
        "AllAlpha",
        "APIServingWithRoutine", "AllowUnsafeMalformedObjectDeletion", "CBORServingAndStorage",
        "CPUManagerPolicyAlphaOptions", "CRIListStreaming", "CSIVolumeHealth", "ClientsAllowCBOR", "ClientsPreferCBOR",
        "CloudControllerManagerWatchBasedRoutesReconciliation", "CloudControllerManagerWebhook", "ContainerStopSignals",
        "ControllerManagerReleaseLeaderElectionLockOnExit", "CrossNamespaceVolumeDataSource", "CustomCPUCFSQuotaPeriod",
        "DRAListTypeAttributes", "DRANodeAllocatableResources", "DRAResourcePoolStatus", "DRAWorkloadResourceClaims",
        "EventedPLEG", "GangScheduling", "GenericWorkload", "HPAScaleToZero", "ImageVolumeWithDigest",
        "InPlacePodVerticalScalingExclusiveCPUs", "InPlacePodVerticalScalingExclusiveMemory", "KubeletInUserNamespace",
        "LoggingAlphaOptions", "ManifestBasedAdmissionControlConfig", "MemoryQoS", "MutablePVNodeAffinity",
        "NativeHistograms", "PersistentVolumeClaimUnusedSinceTime", "PodAndContainerStatsFromCRI",
        "PodLevelResourceManagers", "PodLogsQuerySplitStreams", "PodsAPI", "QOSReserved",
        "ReduceDefaultCrashLoopBackOffDecay", "RuntimeClassInImageCriApi", "ShardedListAndWatch",
        "StorageCapacityScoring", "StorageVersionAPI", "TaintTolerationComparisonOperators",
        "TopologyAwareWorkloadScheduling", "TopologyManagerPolicyAlphaOptions", "UserNamespacesHostNetworkSupport",
        "VolumeLimitScaling", "WindowsCPUAndMemoryAffinity", "WorkloadAwarePreemption", "WorkloadWithJob",
    ]),
    block(Stage::Beta, true, false, &[
        "APIResponseCompression", "APIServerIdentity", "AllowParsingUserUIDFromCertAuth", "AtomicFIFO",
        "AuthorizePodWebsocketUpgradeCreatePermission", "CPUManagerPolicyBetaOptions",
        "ClearingNominatedNodeNameAfterBinding", "ComponentFlagz", "ComponentStatusz", "ConstrainedImpersonation",
        "ContainerCheckpoint", "ContainerRestartRules", "ContextualLogging", "DRAConsumableCapacity",
        "DRADeviceBindingConditions", "DRADeviceTaints", "DRAExtendedResource", "DRAPartitionableDevices",
        "DRAResourceClaimDeviceStatus", "DRAResourceClaimGranularStatusAuthorization", "DRASchedulerFilterTimeout",
        "DeclarativeValidationBeta", "DeploymentReplicaSetTerminatingReplicas", "DetectCacheInconsistency",
        "DisableCPUQuotaWithExclusiveCPUs", "EnvFiles", "ExtendWebSocketsToKubelet", "GracefulNodeShutdown",
        "GracefulNodeShutdownBasedOnPodPriority", "HPAConfigurableTolerance", "HostnameOverride", "InOrderInformers",
        "InOrderInformersBatchProcess", "InPlacePodLevelResourcesVerticalScaling", "KubeletCrashLoopBackOffMax",
        "KubeletEnsureSecretPulledImages", "KubeletSeparateDiskGC", "KubeletServiceAccountTokenForCredentialProviders",
        "ListFromCacheSnapshot", "LoggingBetaOptions", "MatchLabelKeysInPodTopologySpread",
        "MatchLabelKeysInPodTopologySpreadSelectorMerge", "MutablePodResourcesForSuspendedJobs",
        "MutableSchedulingDirectivesForSuspendedJobs", "NodeDeclaredFeatures", "NominatedNodeNameForExpectation",
        "OpenAPIEnums", "OpportunisticBatching", "PodDeletionCost", "PodLevelResources",
        "PodReadyToStartContainersCondition", "PodTopologyLabelsAdmission", "PortForwardWebsockets",
        "PreventStaticPodAPIReferences", "RelaxedServiceNameValidation", "ReloadKubeletServerCertificateFile",
        "RemoteRequestHeaderUID", "ResourceHealthStatus", "ResourceHealthStatusMessage",
        "RestartAllContainersOnContainerExits", "RotateKubeletServerCertificate", "SchedulerAsyncPreemption",
        "SchedulerPopFromBackoffQ", "ServiceAccountNodeAudienceRestriction", "SizeBasedListCostEstimate",
        "StaleControllerConsistencyDaemonSet", "StaleControllerConsistencyJob", "StaleControllerConsistencyReplicaSet",
        "StaleControllerConsistencyStatefulSet", "StatefulSetSemanticRevisionComparison", "StorageVersionHash",
        "StrictIPCIDRValidation", "StructuredAuthenticationConfigurationEgressSelector",
        "StructuredAuthenticationConfigurationJWKSMetrics", "TokenRequestServiceAccountUIDValidation",
        "TopologyManagerPolicyBetaOptions", "TranslateStreamCloseWebsocketRequests",
        "UnauthenticatedHTTP2DOSMitigation", "UnknownVersionInteroperabilityProxy", "UnlockWhileProcessingFIFO",
        "WatchCacheInitializationPostStartHook", "WatchList", "WatchListClient", "WindowsGracefulNodeShutdown",
    ]),
    block(Stage::Beta, false, false, &[
        "AllBeta",
        "CRDObservedGenerationTracking", "ClusterTrustBundle", "ClusterTrustBundleProjection",
        "ConcurrentWatchObjectDecode", "CoordinatedLeaderElection", "DRADeviceTaintRules",
        "LocalStorageCapacityIsolationFSQuotaMonitoring", "MaxUnavailableStatefulSet", "PodCertificateRequest",
        "SELinuxMount", "SchedulerAsyncAPICalls", "StorageVersionMigrator",
    ]),
    block(Stage::Ga, true, false, &["InformerResourceVersion"]),
    block(Stage::Ga, true, true, &[
        "APIServerTracing", "AnonymousAuthConfigurableEndpoints", "AnyVolumeDataSource", "AuthorizeNodeWithSelectors",
        "AuthorizeWithSelectors", "BtreeWatchCache", "CPUManagerPolicyOptions", "CRDValidationRatcheting",
        "CSIServiceAccountTokenSecrets", "ConsistentListFromCache", "CustomResourceFieldSelectors", "DRAAdminAccess",
        "DRAPrioritizedList", "DeclarativeValidation", "DisableAllocatorDualWrite", "DynamicResourceAllocation",
        "ExecProbeTimeout", "ExternalServiceAccountTokenSigner", "HonorPVReclaimPolicy", "ImageMaximumGCAge",
        "ImageVolume", "InPlacePodVerticalScaling", "JobBackoffLimitPerIndex", "JobManagedBy",
        "JobPodReplacementPolicy", "JobSuccessPolicy", "KubeletCgroupDriverFromCRI", "KubeletFineGrainedAuthz",
        "KubeletPSI", "KubeletPodResourcesDynamicResources", "KubeletPodResourcesGet", "KubeletTracing",
        "LogarithmicScaleDown", "MatchLabelKeysInPodAffinity", "MultiCIDRServiceAllocator",
        "MutableCSINodeAllocatableCount", "MutatingAdmissionPolicy", "NFTablesProxyMode",
        "NodeInclusionPolicyInPodTopologySpread", "NodeLogQuery", "NodeSwap", "OrderedNamespaceDeletion",
        "PodLifecycleSleepAction", "PodLifecycleSleepActionAllowZero", "PodObservedGenerationTracking",
        "PodSchedulingReadiness", "PreferSameTrafficDistribution", "ProcMountType", "RecoverVolumeExpansionFailure",
        "RecursiveReadOnlyMounts", "RelaxedDNSSearchValidation", "RelaxedEnvironmentVariableValidation",
        "ResilientWatchCacheInitialization", "RetryGenerateName", "SELinuxChangePolicy", "SELinuxMountReadWriteOncePod",
        "SchedulerQueueingHints", "SeparateTaintEvictionController", "ServiceAccountTokenJTI",
        "ServiceAccountTokenNodeBinding", "ServiceAccountTokenNodeBindingValidation", "ServiceAccountTokenPodNodeInfo",
        "SidecarContainers", "StreamingCollectionEncodingToJSON", "StreamingCollectionEncodingToProtobuf",
        "StructuredAuthenticationConfiguration", "SupplementalGroupsPolicy", "SystemdWatchdog",
        "TopologyManagerPolicyOptions", "UserNamespacesSupport", "VolumeAttributesClass", "WinDSR", "WinOverlay",
    ]),
    block(Stage::Deprecated, true, true, &["AggregatedDiscoveryRemoveBetaType"]),
    block(Stage::Deprecated, false, true, &["AllowOverwriteTerminationGracePeriodSeconds"]),
    block(Stage::Deprecated, true, false, &[
        "DisableNodeKubeProxyVersion", "KubeletPodResourcesListUseActivePods", "StorageNamespaceIndex",
    ]),
    block(Stage::Deprecated, false, false, &[
        "AllowDNSOnlyNodeCSR", "AllowInsecureKubeletCertificateSigningRequests", "ChangeContainerStatusOnKubeletRestart",
        "DeclarativeValidationTakeover", "GitRepoVolumeDriver", "InPlacePodVerticalScalingAllocatedStatus", "KMSv1",
        "KubeletRegistrationGetOnExistsOnly", "SeparateCacheWatchRPC", "WatchFromStorageWithoutResourceVersion",
        "WindowsHostNetwork",
    ]),
];

/// What a gate needs, where that is not locked.
pub(super) const NEEDS: &[(&str, &[&str])] = &[
    ("ClusterTrustBundleProjection", &["ClusterTrustBundle"]),
    ("DRADeviceBindingConditions", &["DRAResourceClaimDeviceStatus"]),
    ("DRADeviceTaintRules", &["DRADeviceTaints"]),
    ("GangScheduling", &["GenericWorkload"]),
    ("GracefulNodeShutdownBasedOnPodPriority", &["GracefulNodeShutdown"]),
    ("InPlacePodLevelResourcesVerticalScaling", &["NodeDeclaredFeatures", "PodLevelResources"]),
    ("MatchLabelKeysInPodTopologySpreadSelectorMerge", &["MatchLabelKeysInPodTopologySpread"]),
    ("ResourceHealthStatusMessage", &["ResourceHealthStatus"]),
    ("RestartAllContainersOnContainerExits", &["ContainerRestartRules", "NodeDeclaredFeatures"]),
    ("StorageVersionAPI", &["APIServerIdentity"]),
    ("TopologyAwareWorkloadScheduling", &["GenericWorkload"]),
    ("UnknownVersionInteroperabilityProxy", &["APIServerIdentity"]),
    ("WindowsGracefulNodeShutdown", &["GracefulNodeShutdown"]),
    ("WorkloadAwarePreemption", &["GangScheduling"]),
    ("WorkloadWithJob", &["GenericWorkload"]),
];

/// The gates that something here asks for, by component; of the others a change is taken, but changes nothing.
#[rustfmt::skip]
pub(super) const ASKED: &[&str] = &[
    "APIResponseCompression", "APIServerIdentity", "AllAlpha", "AllBeta", "AuthorizePodWebsocketUpgradeCreatePermission",
    "ClearingNominatedNodeNameAfterBinding", "ClusterTrustBundle", "ClusterTrustBundleProjection", "ComponentFlagz",
    "ComponentStatusz", "ConstrainedImpersonation", "ContainerRestartRules", "ContainerStopSignals",
    "CoordinatedLeaderElection", "CrossNamespaceVolumeDataSource", "DRAConsumableCapacity",
    "DRADeviceBindingConditions", "DRADeviceTaintRules", "DRADeviceTaints", "DRAExtendedResource",
    "DRAListTypeAttributes", "DRANodeAllocatableResources", "DRAPartitionableDevices", "DRAResourceClaimDeviceStatus",
    "DRAResourceClaimGranularStatusAuthorization", "DRAResourcePoolStatus", "DRAWorkloadResourceClaims",
    "DeploymentReplicaSetTerminatingReplicas", "EnvFiles", "GenericWorkload", "GitRepoVolumeDriver", "HPAConfigurableTolerance",
    "HPAScaleToZero", "HostnameOverride", "InPlacePodLevelResourcesVerticalScaling",
    "ManifestBasedAdmissionControlConfig", "MatchLabelKeysInPodTopologySpread",
    "MatchLabelKeysInPodTopologySpreadSelectorMerge", "MaxUnavailableStatefulSet", "MutablePVNodeAffinity",
    "MutablePodResourcesForSuspendedJobs", "MutableSchedulingDirectivesForSuspendedJobs", "NodeDeclaredFeatures",
    "OpenAPIEnums", "PodCertificateRequest", "PodDeletionCost", "PodLevelResources", "PodLogsQuerySplitStreams",
    "PodTopologyLabelsAdmission", "RelaxedServiceNameValidation", "ResourceHealthStatus",
    "ServiceAccountNodeAudienceRestriction", "SizeBasedListCostEstimate", "StorageVersionAPI", "StorageVersionHash", "StorageVersionMigrator",
    "StrictIPCIDRValidation", "TaintTolerationComparisonOperators", "TokenRequestServiceAccountUIDValidation", "TopologyAwareWorkloadScheduling",
    "UserNamespacesHostNetworkSupport", "VolumeLimitScaling", "WorkloadAwarePreemption",
];

/// The gates that are on by themselves, may be turned off, and that nothing here asks for: why not.
#[cfg(test)]
#[rustfmt::skip]
pub(super) const UNASKED: &[(&str, &[&str])] = &[
    ("what they stand for is how this server works, with or without them", &[
        "AllowParsingUserUIDFromCertAuth", "DeclarativeValidationBeta", "ExtendWebSocketsToKubelet",
        "ListFromCacheSnapshot", "PortForwardWebsockets", "RemoteRequestHeaderUID",
        "RestartAllContainersOnContainerExits", "StorageNamespaceIndex",
        "TranslateStreamCloseWebsocketRequests", "WatchCacheInitializationPostStartHook", "WatchList",
    ]),
    ("of the API server: what they stand for is not here (yet)", &[
        "DetectCacheInconsistency",
        "StructuredAuthenticationConfigurationEgressSelector", "StructuredAuthenticationConfigurationJWKSMetrics",
        "UnauthenticatedHTTP2DOSMitigation", "UnknownVersionInteroperabilityProxy",
    ]),
    ("of libraries and logs that are not here", &[
        "AtomicFIFO", "ContextualLogging", "InOrderInformers", "InOrderInformersBatchProcess", "InformerResourceVersion",
        "LoggingBetaOptions", "UnlockWhileProcessingFIFO", "WatchListClient",
    ]),
    ("of the kubelet", &[
        "CPUManagerPolicyBetaOptions", "ContainerCheckpoint", "DisableCPUQuotaWithExclusiveCPUs",
        "DisableNodeKubeProxyVersion", "GracefulNodeShutdown", "GracefulNodeShutdownBasedOnPodPriority",
        "KubeletCrashLoopBackOffMax", "KubeletEnsureSecretPulledImages", "KubeletPodResourcesListUseActivePods",
        "KubeletSeparateDiskGC", "KubeletServiceAccountTokenForCredentialProviders",
        "PodReadyToStartContainersCondition", "PreventStaticPodAPIReferences", "ReloadKubeletServerCertificateFile",
        "ResourceHealthStatusMessage", "RotateKubeletServerCertificate", "TopologyManagerPolicyBetaOptions",
        "WindowsGracefulNodeShutdown",
    ]),
    ("of the scheduler", &[
        "DRASchedulerFilterTimeout", "NominatedNodeNameForExpectation", "OpportunisticBatching",
        "SchedulerAsyncPreemption", "SchedulerPopFromBackoffQ",
    ]),
    ("of controllers", &[
        "StaleControllerConsistencyDaemonSet", "StaleControllerConsistencyJob",
        "StaleControllerConsistencyReplicaSet", "StaleControllerConsistencyStatefulSet",
        "StatefulSetSemanticRevisionComparison",
    ]),
];
