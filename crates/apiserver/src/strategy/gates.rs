//! Fields of features that are off: they are dropped, unless the stored object has them from a time when the feature was on.

use api::features::Gates;
use schema::{Map, Resource, Value};

/// Where a field is; `*` is any element of a list or value of a map.
type At = &'static [&'static str];
/// A kind, by group and name, and where in it something is.
type Place = (&'static str, &'static str, At);

/// Where kinds have the spec of a pod.
const POD_SPECS: &[Place] = &[
    ("", "Pod", &["spec"]),
    ("", "PodTemplate", &["template", "spec"]),
    ("", "ReplicationController", &["spec", "template", "spec"]),
    ("apps", "DaemonSet", &["spec", "template", "spec"]),
    ("apps", "Deployment", &["spec", "template", "spec"]),
    ("apps", "ReplicaSet", &["spec", "template", "spec"]),
    ("apps", "StatefulSet", &["spec", "template", "spec"]),
    ("batch", "CronJob", &["spec", "jobTemplate", "spec", "template", "spec"]),
    ("batch", "Job", &["spec", "template", "spec"]),
];

/// Where kinds have the claims of devices.
const DEVICE_CLAIMS: &[Place] = &[
    ("resource.k8s.io", "ResourceClaim", &["spec", "devices"]),
    ("resource.k8s.io", "ResourceClaimTemplate", &["spec", "spec", "devices"]),
];

/// Groups of pods, and what they are made from.
const POD_GROUPS: &[Place] = &[
    ("scheduling.k8s.io", "PodGroup", &["spec"]),
    ("scheduling.k8s.io", "Workload", &["spec", "podGroupTemplates", "*"]),
];
const WORKLOADS: &[Place] = &[("scheduling.k8s.io", "Workload", &["spec", "podGroupTemplates", "*"])];

const SLICE: &[Place] = &[("resource.k8s.io", "ResourceSlice", &["spec"])];
const POD_STATUS: &[Place] = &[("", "Pod", &["status"])];

/// The gate, where the kinds have it, and the fields that go with it from there.
#[rustfmt::skip]
const GATED: &[(&str, &[Place], &[At])] = &[
    ("GenericWorkload", POD_SPECS, &[&["schedulingGroup"]]),
    ("PodLevelResources", POD_SPECS, &[&["resources"]]),
    ("HostnameOverride", POD_SPECS, &[&["hostnameOverride"]]),
    ("ContainerRestartRules", POD_SPECS, &[
        &["containers", "*", "restartPolicyRules"], &["initContainers", "*", "restartPolicyRules"],
        &["containers", "*", "restartPolicy"],
    ]),
    ("ContainerStopSignals", POD_SPECS, &[
        &["containers", "*", "lifecycle", "stopSignal"], &["initContainers", "*", "lifecycle", "stopSignal"],
        &["ephemeralContainers", "*", "lifecycle", "stopSignal"],
    ]),
    ("EnvFiles", POD_SPECS, &[
        &["containers", "*", "env", "*", "valueFrom", "fileKeyRef"],
        &["initContainers", "*", "env", "*", "valueFrom", "fileKeyRef"],
        &["ephemeralContainers", "*", "env", "*", "valueFrom", "fileKeyRef"],
    ]),
    ("MatchLabelKeysInPodTopologySpread", POD_SPECS, &[&["topologySpreadConstraints", "*", "matchLabelKeys"]]),
    ("ClusterTrustBundleProjection", POD_SPECS, &[&["volumes", "*", "projected", "sources", "*", "clusterTrustBundle"]]),
    ("PodCertificateRequest", POD_SPECS, &[&["volumes", "*", "projected", "sources", "*", "podCertificate"]]),
    ("InPlacePodLevelResourcesVerticalScaling", POD_STATUS, &[&["resources"], &["allocatedResources"]]),
    ("ResourceHealthStatus", POD_STATUS, &[
        &["containerStatuses", "*", "allocatedResourcesStatus"],
        &["initContainerStatuses", "*", "allocatedResourcesStatus"],
        &["ephemeralContainerStatuses", "*", "allocatedResourcesStatus"],
    ]),
    ("ContainerStopSignals", POD_STATUS, &[
        &["containerStatuses", "*", "stopSignal"], &["initContainerStatuses", "*", "stopSignal"],
        &["ephemeralContainerStatuses", "*", "stopSignal"],
    ]),
    ("DRAExtendedResource", POD_STATUS, &[&["extendedResourceClaimStatus"]]),
    ("DRANodeAllocatableResources", POD_STATUS, &[&["nodeAllocatableResourceClaimStatuses"]]),
    ("DynamicKubeletConfig", &[("", "Node", &[])], &[&["spec", "configSource"]]),
    ("NodeDeclaredFeatures", &[("", "Node", &[])], &[&["status", "declaredFeatures"]]),
    ("DeploymentReplicaSetTerminatingReplicas", &[("apps", "Deployment", &[]), ("apps", "ReplicaSet", &[])], &[
        &["status", "terminatingReplicas"],
    ]),
    ("MaxUnavailableStatefulSet", &[("apps", "StatefulSet", &[])], &[
        &["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"],
    ]),
    ("HPAConfigurableTolerance", &[("autoscaling", "HorizontalPodAutoscaler", &["spec", "behavior"])], &[
        &["scaleUp", "tolerance"], &["scaleDown", "tolerance"],
    ]),
    ("CoordinatedLeaderElection", &[("coordination.k8s.io", "Lease", &["spec"])], &[&["strategy"], &["preferredHolder"]]),
    ("DRAExtendedResource", &[("resource.k8s.io", "DeviceClass", &[])], &[&["spec", "extendedResourceName"]]),
    ("DRADeviceTaints", DEVICE_CLAIMS, &[
        &["requests", "*", "exactly", "tolerations"], &["requests", "*", "firstAvailable", "*", "tolerations"],
    ]),
    ("DRAConsumableCapacity", DEVICE_CLAIMS, &[
        &["requests", "*", "exactly", "capacity"], &["requests", "*", "firstAvailable", "*", "capacity"],
        &["constraints", "*", "distinctAttribute"],
    ]),
    ("DRAResourceClaimDeviceStatus", &[("resource.k8s.io", "ResourceClaim", &[])], &[&["status", "devices"]]),
    ("DRADeviceTaints", SLICE, &[&["devices", "*", "taints"]]),
    ("DRAPartitionableDevices", SLICE, &[
        &["sharedCounters"], &["perDeviceNodeSelection"], &["devices", "*", "consumesCounters"],
        &["devices", "*", "nodeName"], &["devices", "*", "nodeSelector"], &["devices", "*", "allNodes"],
    ]),
    ("DRADeviceBindingConditions", SLICE, &[
        &["devices", "*", "bindsToNode"], &["devices", "*", "bindingConditions"],
        &["devices", "*", "bindingFailureConditions"],
    ]),
    ("DRAConsumableCapacity", SLICE, &[
        &["devices", "*", "allowMultipleAllocations"], &["devices", "*", "capacity", "*", "requestPolicy"],
    ]),
    ("DRAListTypeAttributes", SLICE, &[
        &["devices", "*", "attributes", "*", "bools"], &["devices", "*", "attributes", "*", "ints"],
        &["devices", "*", "attributes", "*", "strings"], &["devices", "*", "attributes", "*", "versions"],
    ]),
    ("DRANodeAllocatableResources", SLICE, &[&["devices", "*", "nodeAllocatableResourceMappings"]]),
    ("TopologyAwareWorkloadScheduling", POD_GROUPS, &[&["schedulingConstraints"]]),
    ("DRAWorkloadResourceClaims", &[("scheduling.k8s.io", "PodGroup", &[])], &[
        &["spec", "resourceClaims"], &["status", "resourceClaimStatuses"],
    ]),
    ("DRAWorkloadResourceClaims", WORKLOADS, &[&["resourceClaims"]]),
    ("WorkloadAwarePreemption", POD_GROUPS, &[&["disruptionMode"]]),
    ("WorkloadAwarePreemption", POD_GROUPS, &[&["priorityClassName"]]),
    ("WorkloadAwarePreemption", POD_GROUPS, &[&["priority"]]),
    ("VolumeLimitScaling", &[("storage.k8s.io", "CSIDriver", &[])], &[&["spec", "preventPodSchedulingIfMissing"]]),
];

/// What one kind does not have, because its features are off: for each of them its fields.
#[derive(Clone, Debug, Default)]
pub struct Closed(Vec<Vec<Vec<&'static str>>>);

impl Closed {
    /// Of the objects of a row, which are in the version that is stored.
    pub fn of(row: &Resource, gates: &Gates) -> Self {
        let (group, kind) = match &row.storage {
            Some(stored) => (&stored.group, &stored.kind),
            None => (&row.group, &row.kind),
        };
        let mut closed = Vec::new();
        for (gate, places, fields) in GATED {
            let place = places.iter().find(|(g, k, _)| g == group && k == kind);
            if let Some((.., at)) = place.filter(|_| !gates.enabled(gate)) {
                closed.push(fields.iter().map(|field| [*at, *field].concat()).collect());
            }
        }
        Closed(closed)
    }

    /// Drops from a new or updated object what belongs to features that are off and that the old one does not use.
    pub fn drop_from(&self, object: &mut Map, old: Option<&Map>) {
        for fields in &self.0 {
            // What is as it was needs no look.
            let untouched = |old: &Map| fields.iter().all(|at| at.first().is_some_and(|key| object.shares(old, key)));
            if old.is_some_and(untouched) {
                continue;
            }
            let used = |map: &Map| fields.iter().any(|at| uses(map, at));
            if used(object) && !old.is_some_and(used) {
                fields.iter().for_each(|at| remove(object, at));
            }
        }
    }
}

fn uses(map: &Map, at: &[&str]) -> bool {
    let Some((first, rest)) = at.split_first() else { return false };
    map.get(first).is_some_and(|value| uses_value(value, rest))
}

fn uses_value(value: &Value, at: &[&str]) -> bool {
    match (value, at) {
        (value, []) => !value.is_null(),
        (Value::Map(map), ["*", rest @ ..]) => map.iter().any(|(_, value)| uses_value(value, rest)),
        (Value::List(list), ["*", rest @ ..]) => list.iter().any(|value| uses_value(value, rest)),
        (Value::Map(map), at) => uses(map, at),
        _ => false,
    }
}

fn remove(map: &mut Map, at: &[&str]) {
    match at {
        [] => {}
        [last] => {
            map.remove(last);
        }
        [first, rest @ ..] => {
            if let Some(value) = map.get_mut(first) {
                remove_below(value, rest);
            }
        }
    }
}

fn remove_below(value: &mut Value, at: &[&str]) {
    match (value, at) {
        (Value::Map(map), ["*", rest @ ..]) => map.iter_mut().for_each(|(_, value)| remove_below(value, rest)),
        (Value::List(list), ["*", rest @ ..]) => list.iter_mut().for_each(|value| remove_below(value, rest)),
        (Value::Map(map), at) => remove(map, at),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Map {
        match schema::json::parse(text.as_bytes()) {
            Ok(Value::Map(map)) => map,
            other => panic!("{other:?}"),
        }
    }

    fn closed(group: &str, kind: &str, gates: &str) -> Closed {
        let row = schema::resource::of_kind(group, "v1", kind).expect("a row");
        let asked: api::features::Asked = gates.parse().expect(gates);
        Closed::of(row, &asked.gates().expect(gates).0)
    }

    #[test]
    fn unused_fields_of_features_that_are_off_are_dropped() {
        let slices = closed("resource.k8s.io", "ResourceSlice", "");
        let given = r#"{"spec":{"devices":[{"name":"a","attributes":{"x":{"ints":[1]},"y":{"int":1}}}]}}"#;
        let mut object = map(given);
        slices.drop_from(&mut object, None);
        assert_eq!(object, map(r#"{"spec":{"devices":[{"name":"a","attributes":{"x":{},"y":{"int":1}}}]}}"#));
        let mut object = map(given);
        slices.drop_from(&mut object, Some(&map(given)));
        assert_eq!(object, map(given));
    }

    #[test]
    fn gates_open_and_close_fields_wherever_a_pod_is_described() {
        let given = r#"{"spec":{"template":{"spec":{"hostnameOverride":"a","containers":[{"name":"c","lifecycle":{"stopSignal":"SIGINT"}}]}}}}"#;
        let after = |gates: &str| {
            let mut object = map(given);
            closed("apps", "Deployment", gates).drop_from(&mut object, None);
            object
        };
        let usual =
            r#"{"spec":{"template":{"spec":{"hostnameOverride":"a","containers":[{"name":"c","lifecycle":{}}]}}}}"#;
        assert_eq!(after(""), map(usual));
        assert_eq!(after("ContainerStopSignals=true"), map(given));
        let less = r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","lifecycle":{}}]}}}}"#;
        assert_eq!(after("HostnameOverride=false"), map(less));
    }

    #[test]
    fn the_table_names_fields_that_exist() {
        for (gate, places, fields) in GATED {
            for (group, kind, place) in *places {
                let mut rows = schema::resource::all().iter().chain(schema::resource::optional());
                let row = rows.find(|row| row.group == *group && row.kind == *kind).unwrap_or_else(|| panic!("{kind}"));
                for at in *fields {
                    let mut ty = row.schema.root();
                    for name in place.iter().chain(*at) {
                        ty = match ty.kind() {
                            schema::Kind::Struct(s) => s.field(name).unwrap_or_else(|| panic!("{gate}: {at:?}")).ty(),
                            schema::Kind::List(of) | schema::Kind::Map(of) => of,
                            _ => panic!("{gate}: {at:?}"),
                        };
                    }
                }
            }
        }
    }
}
