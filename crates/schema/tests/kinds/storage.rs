use crate::{check_created, check_updated, named};

const GROUP: &str = "storage.k8s.io";

#[test]
fn storage_classes() {
    let whole = named(
        "c",
        r#""provisioner":"Example.com/p","parameters":{"a":"b"},"allowedTopologies":[{"matchLabelExpressions":[{"key":"zone","values":["a","b"]}]}]"#,
    );
    check_created(
        GROUP,
        "StorageClass",
        &[
            (&whole, &[]),
            (&named("c", r#""provisioner":"""#), &["provisioner: Required value"]),
            (
                &named("c", r#""provisioner":"p","reclaimPolicy":"Recycle""#),
                &[r#"reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain""#],
            ),
            (
                &named("c", r#""provisioner":"p","volumeBindingMode":"x""#),
                &[
                    r#"volumeBindingMode: Unsupported value: "x": supported values: "Immediate", "WaitForFirstConsumer""#,
                ],
            ),
            (
                &named("c", r#""provisioner":"p","parameters":{"":"b"}"#),
                &[r#"parameters: Invalid value: "": field can not be empty."#],
            ),
            (
                &named(
                    "c",
                    r#""provisioner":"p","allowedTopologies":[{"matchLabelExpressions":[{"key":"zone","values":["a","a"]},{"key":"zone","values":[]}]},{"matchLabelExpressions":[{"key":"x","values":["a"]}]},{"matchLabelExpressions":[{"key":"x","values":["a"]}]}]"#,
                ),
                &[
                    r#"allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: "a""#,
                    "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
                    r#"allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: "zone""#,
                    r#"allowedTopologies[2].matchLabelExpressions: Duplicate value: """#,
                ],
            ),
            (
                &named("c", r#""provisioner":"p","allowedTopologies":[{}]"#),
                &[r#"allowedTopologies[0].matchLabelExpressions: Duplicate value: """#],
            ),
        ],
    );
    check_updated(
        GROUP,
        "StorageClass",
        "",
        &whole,
        &[
            (r#""a":"b""#, r#""a":"c""#, &["parameters: Forbidden: updates to parameters are forbidden."]),
            ("Example.com/p", "q", &["provisioner: Forbidden: updates to provisioner are forbidden."]),
            (
                r#""parameters""#,
                r#""reclaimPolicy":"Retain","parameters""#,
                &["reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."],
            ),
            (
                r#""parameters""#,
                r#""volumeBindingMode":"WaitForFirstConsumer","parameters""#,
                &[r#"volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable"#],
            ),
            (r#""parameters""#, r#""allowVolumeExpansion":true,"mountOptions":["ro"],"parameters""#, &[]),
            (r#"["a","b"]"#, "[]", &["allowedTopologies[0].matchLabelExpressions[0].values: Required value"]),
        ],
    );
}

#[test]
fn volume_attributes_classes() {
    let whole = named("c", r#""driverName":"d.example.com","parameters":{"iops":"1"}"#);
    check_created(
        GROUP,
        "VolumeAttributesClass",
        &[
            (&whole, &[]),
            (
                &named("c", r#""driverName":"d""#),
                &["parameters: Required value: must contain at least one key/value pair"],
            ),
            (&named("c", r#""driverName":"","parameters":{"a":"b"}"#), &["driverName: Required value"]),
        ],
    );
    check_updated(
        GROUP,
        "VolumeAttributesClass",
        "",
        &whole,
        &[
            ("d.example.com", "e", &["driverName: Forbidden: updates to driverName are forbidden."]),
            (r#""1""#, r#""2""#, &["parameters: Forbidden: updates to parameters are forbidden."]),
            (
                r#"{"iops":"1"}"#,
                "{}",
                &[
                    "parameters: Required value: must contain at least one key/value pair",
                    "parameters: Forbidden: updates to parameters are forbidden.",
                ],
            ),
        ],
    );
}

#[test]
fn drivers() {
    let whole = named(
        "d",
        r#""spec":{"attachRequired":true,"tokenRequests":[{"audience":"a"}],"serviceAccountTokenInSecrets":true}"#,
    );
    check_created(
        GROUP,
        "CSIDriver",
        &[
            (&named("d", r#""spec":{}"#), &[]),
            (&whole, &[]),
            (
                &named("d", r#""spec":{"fsGroupPolicy":"x","volumeLifecycleModes":["x"]}"#),
                &[
                    r#"spec.fsGroupPolicy: Unsupported value: "x": supported values: "File", "None", "ReadWriteOnceWithFSType""#,
                    r#"spec.volumeLifecycleModes: Unsupported value: "x": supported values: "Persistent", "Ephemeral""#,
                ],
            ),
            (
                &named(
                    "d",
                    r#""spec":{"tokenRequests":[{"audience":"a","expirationSeconds":1},{"audience":"a"},{"audience":"b","expirationSeconds":4294967297}]}"#,
                ),
                &[
                    "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
                    r#"spec.tokenRequests[1].audience: Duplicate value: "a""#,
                    "spec.tokenRequests[2].expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
                ],
            ),
            (
                &named("d", r#""spec":{"nodeAllocatableUpdatePeriodSeconds":5,"serviceAccountTokenInSecrets":false}"#),
                &[
                    "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 5: must be greater than or equal to 10 seconds",
                    "spec.serviceAccountTokenInSecrets: Invalid value: false: serviceAccountTokenInSecrets is set but no tokenRequests are specified",
                ],
            ),
        ],
    );
    check_updated(
        GROUP,
        "CSIDriver",
        "",
        &whole,
        &[
            (
                r#""attachRequired":true"#,
                r#""attachRequired":false"#,
                &["spec.attachedRequired: Invalid value: false: field is immutable"],
            ),
            (
                r#""attachRequired":true"#,
                r#""volumeLifecycleModes":["Ephemeral"]"#,
                &[r#"spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable"#],
            ),
            (r#""attachRequired":true"#, r#""podInfoOnMount":true"#, &[]),
        ],
    );
}

#[test]
fn nodes() {
    let long = "i".repeat(257);
    let whole = named(
        "n",
        r#""spec":{"drivers":[{"name":"d","nodeID":"i","topologyKeys":["zone"],"allocatable":{"count":3}}]}"#,
    );
    check_created(
        GROUP,
        "CSINode",
        &[
            (&whole, &[]),
            (
                &named(
                    "n",
                    r#""spec":{"drivers":[{"name":"d","nodeID":"","topologyKeys":["a","a"],"allocatable":{"count":-1}},{"name":"d","nodeID":"i","topologyKeys":null}]}"#,
                ),
                &[
                    "spec.drivers[0].nodeID: Required value",
                    "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                    r#"spec.drivers[0]: Duplicate value: "a""#,
                    r#"spec.drivers[1].name: Duplicate value: "d""#,
                ],
            ),
            (
                &named("n", &format!(r#""spec":{{"drivers":[{{"name":"d","nodeID":"{long}","topologyKeys":null}}]}}"#)),
                &[&format!(r#"spec.drivers[0].nodeID: Invalid value: "{long}": must be 256 characters or less"#)],
            ),
        ],
    );
    check_updated(
        GROUP,
        "CSINode",
        "",
        &whole,
        &[
            (r#""count":3"#, r#""count":4"#, &[]),
            (
                r#""nodeID":"i""#,
                r#""nodeID":"j""#,
                &[
                    r#"spec.drivers: Invalid value: {"Name":"d","NodeID":"j","TopologyKeys":["zone"],"Allocatable":null}: field is immutable"#,
                ],
            ),
            (r#""name":"d""#, r#""name":"e""#, &[]),
        ],
    );
}

#[test]
fn capacities() {
    let whole = named("c", r#""storageClassName":"s","capacity":"1Gi","nodeTopology":{"matchLabels":{"a":"b"}}"#);
    check_created(
        GROUP,
        "CSIStorageCapacity",
        &[
            (&whole, &[]),
            (
                &named("c", r#""storageClassName":"s","capacity":"-1""#),
                &[r#"capacity: Invalid value: "-1": must be greater than or equal to 0"#],
            ),
            (
                &named(
                    "c",
                    r#""storageClassName":"s","nodeTopology":{"matchExpressions":[{"key":"a","operator":"In"}]}"#,
                ),
                &[
                    "nodeTopology.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                ],
            ),
        ],
    );
    check_updated(
        GROUP,
        "CSIStorageCapacity",
        "",
        &whole,
        &[
            (r#""s""#, r#""t""#, &[r#"storageClassName: Invalid value: "t": field is immutable"#]),
            (r#""1Gi""#, r#""2Gi""#, &[]),
            (r#""1Gi""#, r#""-1""#, &[r#"capacity: Invalid value: "-1": must be greater than or equal to 0"#]),
            (
                r#""a":"b""#,
                r#""a":"c""#,
                &[r#"nodeTopology: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable"#],
            ),
        ],
    );
}

#[test]
fn attachments() {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let whole =
        named("a", r#""spec":{"attacher":"d.example.com","nodeName":"n","source":{"persistentVolumeName":"v"}}"#);
    let inline = r#""spec":{"attacher":"d","nodeName":"n","source":{"inlineVolumeSpec":{"accessModes":["ReadWriteOnce"],"csi":{"driver":"d","volumeHandle":"h"}}}}"#;
    check_created(
        GROUP,
        "VolumeAttachment",
        &[
            (&whole, &[]),
            (&named("a", inline), &[]),
            (
                &named(
                    "a",
                    &inline.replace(r#""csi":{"#, r#""storageClassName":"s","capacity":{"storage":"1"},"csi":{"#),
                ),
                &[
                    "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
                    "spec.source.inlineVolumeSpec.storageClassName: Forbidden: may not be specified in the context of inline volumes",
                ],
            ),
            (
                &named("a", r#""spec":{"attacher":"d","nodeName":"n","source":{}}"#),
                &[&format!("spec.source: Required value: {ONE}")],
            ),
            (
                &named("a", r#""spec":{"attacher":"d","nodeName":"n","source":{"persistentVolumeName":""}}"#)[..],
                &[
                    "spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName",
                    "spec.source.persistentVolumeName: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
        ],
    );
    check_updated(
        GROUP,
        "VolumeAttachment",
        "",
        &whole,
        &[(
            r#""n""#,
            r#""m""#,
            &[
                r#"spec: Invalid value: {"Attacher":"d.example.com","Source":{"PersistentVolumeName":"v","InlineVolumeSpec":null},"NodeName":"m"}: field is immutable"#,
            ],
        )],
    );
    check_updated(
        GROUP,
        "VolumeAttachment",
        "status",
        &whole,
        &[(
            r#""spec""#,
            r#""status":{"attached":true,"attachError":{"errorCode":-1}},"spec""#,
            &["status.attachError.errorCode: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
        )],
    );
}

#[test]
fn migrations() {
    let migration = |resource: &str| named("m", &format!(r#""spec":{{"resource":{{{resource}}}}}"#));
    let (group, version, kind) = ("storagemigration.k8s.io", "v1beta1", "StorageVersionMigration");
    let created = |resource: &str| crate::rules::created(group, version, kind, &migration(resource));
    assert!(created(r#""group":"","resource":"secrets""#).is_empty());
    assert_eq!(created(""), ["spec.resource.resource: Required value: resource is required to be set"]);
    let found = created(r#""group":"A","resource":"pods/status""#);
    assert!(
        found.len() == 2
            && found[0].starts_with(r#"spec.resource.resource: Invalid value: "pods/status": a DNS-1035 label"#),
        "{found:?}"
    );
    assert!(
        found[1].starts_with(r#"spec.resource.group: Invalid value: "A": a lowercase RFC 1123 subdomain"#),
        "{found:?}"
    );
    let updated = |sub: &str, new: &str, old: &str| crate::rules::updated(group, version, kind, sub, new, old);
    let old = migration(r#""group":"apps","resource":"deployments""#);
    assert_eq!(
        updated("", &old.replace("deployments", "daemonsets"), &old),
        [r#"spec: Invalid value: {"Resource":{"group":"apps","resource":"daemonsets"}}: field is immutable"#]
    );
    let status = |version: &str, conditions: &[&str]| {
        let condition = |kind: &&str| {
            let (kind, status) = kind.split_once('=').expect("a status");
            format!(
                r#"{{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"","reason":"r","status":"{status}","type":"{kind}"}}"#
            )
        };
        let list: Vec<String> = conditions.iter().map(condition).collect();
        old.replace(
            r#""spec""#,
            &format!(r#""status":{{"conditions":[{}],"resourceVersion":"{version}"}},"spec""#, list.join(",")),
        )
    };
    assert!(updated("status", &status("7", &["Running=True"]), &old).is_empty());
    for bad in ["x", "07", "-1"] {
        assert_eq!(
            updated("status", &status(bad, &[]), &old),
            [format!(r#"status.resourceVersion: Invalid value: "{bad}": resource version is not well formed: {bad}"#)]
        );
    }
    assert_eq!(
        updated("status", &status("8", &[]), &status("7", &[])),
        [r#"status.resourceVersion: Invalid value: "8": field is immutable"#]
    );
    for (new, was, why) in [
        (
            &["Succeeded=True", "Failed=True"][..],
            &[][..],
            "Both success and failed conditions cannot be true at the same time",
        ),
        (&["Succeeded=False"], &["Succeeded=True"], "Success condition cannot be set to false once it is true"),
        (&["Failed=Unknown"], &["Failed=True"], "Failed condition cannot be set to false once it is true"),
    ] {
        let told = updated("status", &status("7", new), &status("7", was));
        assert!(
            told.len() == 1 && told[0].starts_with("status.conditions: Invalid value: [{") && told[0].ends_with(why),
            "{told:?}"
        );
    }
}
