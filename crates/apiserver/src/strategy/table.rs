//! Which kind has which strategy. Most differ from the standard one in data alone: a row of [`RULES`].

use super::{
    GarbageCollection, Rules, Strategy, admitting, daemon_sets, devices, extensions, jobs, kinds, pod_certificates,
    pods, secrets, signing, trust, volumes,
};
use crate::surface::Surface;
use schema::Resource;
use std::sync::Arc;

const STANDARD: Rules = Rules::STANDARD;
/// A PUT creates.
const PUT_CREATES: Rules = Rules { create_on_update: true, ..STANDARD };
/// A PUT must say what it replaces.
const CONDITIONAL: Rules = Rules { unconditional_update: false, ..STANDARD };
/// What depends on the object outlives it.
const ORPHANING: Rules = Rules { garbage_collection: GarbageCollection::Orphan, ..STANDARD };

/// Stored group and kind (empty: all of the group).
const RULES: &[(&str, &str, Rules)] = &[
    ("", "Endpoints", PUT_CREATES),
    ("", "Event", Rules { garbage_collection: GarbageCollection::Unsupported, ..PUT_CREATES }),
    ("", "LimitRange", PUT_CREATES),
    ("", "ReplicationController", ORPHANING),
    ("", "Service", PUT_CREATES),
    ("admissionregistration.k8s.io", "", CONDITIONAL),
    ("apiextensions.k8s.io", "", CONDITIONAL),
    ("apiregistration.k8s.io", "", CONDITIONAL),
    ("batch", "Job", ORPHANING),
    ("certificates.k8s.io", "ClusterTrustBundle", CONDITIONAL),
    ("certificates.k8s.io", "PodCertificateRequest", CONDITIONAL),
    ("coordination.k8s.io", "Lease", Rules { unconditional_update: false, ..PUT_CREATES }),
    ("coordination.k8s.io", "LeaseCandidate", Rules { unconditional_update: false, ..PUT_CREATES }),
    ("internal.apiserver.k8s.io", "StorageVersion", CONDITIONAL),
    ("networking.k8s.io", "IPAddress", PUT_CREATES),
    ("node.k8s.io", "RuntimeClass", Rules { create_on_update: true, ..CONDITIONAL }),
    ("policy", "PodDisruptionBudget", CONDITIONAL),
    ("rbac.authorization.k8s.io", "", PUT_CREATES),
    ("resource.k8s.io", "ResourcePoolStatusRequest", CONDITIONAL),
    ("storage.k8s.io", "CSIDriver", CONDITIONAL),
    ("storage.k8s.io", "CSINode", CONDITIONAL),
    ("storage.k8s.io", "CSIStorageCapacity", CONDITIONAL),
    ("storage.k8s.io", "VolumeAttachment", CONDITIONAL),
    ("storagemigration.k8s.io", "StorageVersionMigration", CONDITIONAL),
];

/// The strategy of a row.
pub fn of(row: &Resource, surface: &Surface) -> Arc<dyn Strategy> {
    let stored = row.storage.as_ref();
    let group = stored.map_or(row.group.as_ref(), |s| s.group.as_ref());
    let kind = stored.map_or(row.kind.as_ref(), |s| s.kind.as_ref());
    let of = |(g, k, _): &&(&str, &str, Rules)| *g == group && (k.is_empty() || *k == kind);
    let rules = RULES.iter().find(of).map_or(STANDARD, |(.., rules)| *rules);
    match (group, kind) {
        ("", "Event") => Arc::new(kinds::Events { rules, time_to_live: surface.event_ttl }),
        ("", "Namespace") => Arc::new(kinds::Namespaces),
        ("", "Node") => Arc::new(kinds::Nodes),
        ("", "LimitRange") => Arc::new(kinds::LimitRanges(rules)),
        ("", "PersistentVolume") => Arc::new(volumes::Volumes(rules)),
        ("", "PersistentVolumeClaim") => {
            Arc::new(volumes::Claims { rules, elsewhere: surface.gates.enabled("CrossNamespaceVolumeDataSource") })
        }
        ("", "Pod") => Arc::new(pods::Pods::new(rules, &surface.gates)),
        ("", "Secret") => Arc::new(secrets::Secrets(rules)),
        ("", "ServiceAccount") => Arc::new(kinds::ServiceAccounts(rules)),
        ("admissionregistration.k8s.io", _) => {
            Arc::new(admitting::Admitting { rules, files: surface.gates.enabled(admitting::FROM_FILES) })
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => Arc::new(extensions::Definitions(rules)),
        ("apiregistration.k8s.io", "APIService") => Arc::new(extensions::ApiServices(rules)),
        ("batch", "Job") => Arc::new(jobs::Jobs(rules)),
        ("apps", "DaemonSet") => Arc::new(daemon_sets::DaemonSets),
        ("apps", "Deployment") => Arc::new(kinds::Deployments),
        ("certificates.k8s.io", "CertificateSigningRequest") => Arc::new(signing::SigningRequests),
        ("certificates.k8s.io", "ClusterTrustBundle") => Arc::new(trust::Bundles(rules)),
        ("certificates.k8s.io", "PodCertificateRequest") => Arc::new(pod_certificates::PodCertificates(rules)),
        ("discovery.k8s.io", "EndpointSlice") => Arc::new(kinds::EndpointSlices(rules)),
        ("resource.k8s.io", "DeviceTaintRule") => Arc::new(devices::TaintRules),
        ("resource.k8s.io", "ResourceClaim") => Arc::new(devices::Claims),
        ("resource.k8s.io", "ResourceSlice") => Arc::new(devices::Slices),
        ("scheduling.k8s.io", "PriorityClass") => Arc::new(kinds::PriorityClasses),
        _ => Arc::new(kinds::Standard(rules)),
    }
}
