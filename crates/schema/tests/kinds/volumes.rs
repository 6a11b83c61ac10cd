//! PersistentVolumes and their claims.

use crate::{check_created, check_updated, named, rules};
use schema::validation;

fn claim(rest: &str) -> String {
    named(
        "c",
        &format!(r#""spec":{{"accessModes":["ReadWriteOnce"],"resources":{{"requests":{{"storage":"2Gi"}}}}{rest}}}"#),
    )
}

#[test]
fn claims() {
    for (rest, expected) in [
        ("", &[][..]),
        (
            r#","volumeMode":"x""#,
            &[r#"spec.volumeMode: Unsupported value: "x": supported values: "Block", "Filesystem""#],
        ),
        (
            r#","dataSource":{"kind":"Book","name":""}"#,
            &[
                "spec.dataSource.name: Required value",
                r#"spec.dataSource: Invalid value: "Book": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#,
            ],
        ),
        (
            r#","dataSource":{"kind":"PersistentVolumeClaim","name":"a"},"dataSourceRef":{"kind":"PersistentVolumeClaim","name":"b"}"#,
            &["spec: Invalid value: {}: must match dataSourceRef"],
        ),
        (
            r#","dataSource":{"kind":"PersistentVolumeClaim","name":"a"},"dataSourceRef":{"kind":"PersistentVolumeClaim","name":"a","namespace":"b"}"#,
            &["spec: Invalid value: {}: may not be specified when dataSourceRef.namespace is specified"],
        ),
    ] {
        check_created("", "PersistentVolumeClaim", &[(&claim(rest), expected)]);
    }
    check_created(
        "",
        "PersistentVolumeClaim",
        &[
            (
                &named("c", r#""spec":{}"#),
                &[
                    "spec.accessModes: Required value: at least 1 access mode is required",
                    "spec.resources[storage]: Required value",
                ],
            ),
            (
                &named(
                    "c",
                    r#""spec":{"accessModes":["x","ReadWriteOncePod","ReadOnlyMany"],"resources":{"requests":{"storage":"0"}}}"#,
                ),
                &[
                    r#"spec.accessModes: Unsupported value: "x": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod""#,
                    "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                    r#"spec.resources[storage]: Invalid value: "0": must be greater than zero"#,
                ],
            ),
        ],
    );
}

#[test]
fn claims_grow() {
    let bound = claim(r#","volumeName":"v","volumeAttributesClassName":"gold""#)
        .replace(r#","spec""#, r#","status":{"phase":"Bound","capacity":{"storage":"1Gi"}},"spec""#);
    check_updated(
        "",
        "PersistentVolumeClaim",
        "",
        &bound,
        &[
            ("2Gi", "3Gi", &[]),
            // Down to what there is, so that a failed growth can be taken back.
            ("2Gi", "1536Mi", &[]),
            ("2Gi", "1Gi", &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"]),
            (r#""gold""#, r#""silver""#, &[]),
            // A class that no volume has had yet can be taken back.
            (r#","volumeAttributesClassName":"gold""#, "", &[]),
        ],
    );
    let applied = bound.replace(r#""phase""#, r#""currentVolumeAttributesClassName":"gold","phase""#);
    let why = |none: &str| {
        format!(
            "spec.volumeAttributesClassName: Forbidden: update to {none} is forbidden when status.currentVolumeAttributesClassName is not nil"
        )
    };
    check_updated(
        "",
        "PersistentVolumeClaim",
        "",
        &applied,
        &[
            (r#""volumeAttributesClassName":"gold"}"#, r#""volumeAttributesClassName":"silver"}"#, &[]),
            (r#","volumeAttributesClassName":"gold"}"#, "}", &[&why("nil")]),
            (r#""volumeAttributesClassName":"gold"}"#, r#""volumeAttributesClassName":""}"#, &[&why("empty string")]),
        ],
    );
    let found = rules::updated("", "v1", "PersistentVolumeClaim", "", &bound.replace(r#""v""#, r#""w""#), &bound);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("spec: Forbidden: spec is immutable after creation except"), "{found:?}");
    // What older servers stored said only once what a claim is made from.
    let source = r#"{"kind":"PersistentVolumeClaim","name":"a"}"#;
    let both = claim(&format!(r#","dataSource":{source},"dataSourceRef":{source}"#));
    for field in ["dataSource", "dataSourceRef"] {
        let once = claim(&format!(r#","{field}":{source}"#));
        assert_eq!(rules::updated("", "v1", "PersistentVolumeClaim", "", &both, &once), Vec::<String>::new());
    }
    let selecting = |value: &str| {
        claim(&format!(r#","selector":{{"matchExpressions":[{{"key":"a","operator":"In","values":["{value}"]}}]}}"#))
    };
    let wrong = selecting("-a");
    assert_eq!(rules::created("", "v1", "PersistentVolumeClaim", &wrong).len(), 1);
    assert_eq!(rules::updated("", "v1", "PersistentVolumeClaim", "", &wrong, &wrong), Vec::<String>::new());
    let pending = claim("");
    check_updated(
        "",
        "PersistentVolumeClaim",
        "",
        &pending,
        &[
            (r#"{"accessModes""#, r#"{"volumeName":"v","accessModes""#, &[]),
            (r#"{"accessModes""#, r#"{"storageClassName":"fast","accessModes""#, &[]),
        ],
    );
    let found = rules::updated("", "v1", "PersistentVolumeClaim", "", &pending.replace("2Gi", "3Gi"), &pending);
    assert_eq!(found.len(), 1, "{found:?}");
    let annotated = pending
        .replace(r#""name":"c""#, r#""name":"c","annotations":{"volume.beta.kubernetes.io/storage-class":"slow"}"#);
    check_updated(
        "",
        "PersistentVolumeClaim",
        "",
        &annotated,
        &[
            (r#"{"accessModes""#, r#"{"storageClassName":"slow","accessModes""#, &[]),
            (
                r#""slow""#,
                r#""fast""#,
                &[
                    r#"metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: "fast": field is immutable"#,
                ],
            ),
        ],
    );
    let object = rules::object("", "v1", "PersistentVolumeClaim", &annotated.replace("2Gi", "500m"));
    for old in [None, Some(&object)] {
        assert_eq!(
            validation::warnings("", "PersistentVolumeClaim", "", &object, old, Default::default()),
            [
                "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
                "spec.resources.requests[storage]: fractional byte value \"500m\" is invalid, must be an integer",
            ]
        );
    }
}

#[test]
fn statuses_of_claims() {
    let old = claim("")
        .replace(r#","spec""#, r#","status":{"allocatedResourceStatuses":{"storage":"NodeResizePending"}},"spec""#);
    check_updated(
        "",
        "PersistentVolumeClaim",
        "status",
        &old,
        &[
            (
                "NodeResizePending",
                "x",
                &[
                    r#"status.allocatedResourceStatus: Unsupported value: "storage": supported values: "ControllerResizeInProgress", "ControllerResizeInfeasible", "NodeResizeInProgress", "NodeResizeInfeasible", "NodeResizePending""#,
                ],
            ),
            (
                r#""allocatedResourceStatuses":{"storage":"NodeResizePending"}"#,
                r#""capacity":{"storage":"-1"},"allocatedResources":{"cpu":"1"}"#,
                &[
                    "status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
                    r#"status.allocatedResources: Unsupported value: "cpu": supported values: "storage""#,
                ],
            ),
        ],
    );
}

fn volume(rest: &str) -> String {
    named("v", &format!(r#""spec":{{"capacity":{{"storage":"1Gi"}},"accessModes":["ReadWriteOnce"],{rest}}}"#))
}

#[test]
fn volumes() {
    for (rest, expected) in [
        (r#""hostPath":{"path":"/d"}"#, &[][..]),
        (r#""storageClassName":"s""#, &["spec: Required value: must specify a volume type"]),
        (
            r#""hostPath":{"path":"/d"},"nfs":{"server":"s","path":"/"}"#,
            &["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            r#""hostPath":{"path":"/.."},"persistentVolumeReclaimPolicy":"Recycle""#,
            &[
                r#"spec.hostPath.path: Invalid value: "/..": must not contain '..'"#,
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            ],
        ),
        (r#""local":{"path":"/d"}"#, &["spec.nodeAffinity: Required value: Local volume requires node affinity"]),
        (
            r#""hostPath":{"path":"/d"},"nodeAffinity":{}"#,
            &["spec.nodeAffinity.required: Required value: must specify required node constraints"],
        ),
        (
            r#""hostPath":{"path":"/d"},"volumeAttributesClassName":"gold""#,
            &["spec.csi: Required value: has to be specified when using volumeAttributesClassName"],
        ),
        (
            r#""csi":{"driver":"","volumeHandle":"","nodePublishSecretRef":{"name":"s"}}"#,
            &[
                "spec.csi.driver: Required value",
                "spec.csi.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                "spec.csi.volumeHandle: Required value",
                "spec.csi.nodePublishSecretRef.namespace: Required value",
            ],
        ),
        (r#""fc":{"targetWWNs":["w"]}"#, &["spec.fc.lun: Required value: lun is required if targetWWNs is specified"]),
        (
            r#""iscsi":{"targetPortal":"p","iqn":"iqn.x","lun":300,"chapAuthSession":true}"#,
            &[
                r#"spec.iscsi.iqn: Invalid value: "iqn.x": must be valid format"#,
                "spec.iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive",
                "spec.iscsi.secretRef: Required value",
            ],
        ),
        (r#""iscsi":{"targetPortal":"p","iqn":"iqn.2015-02.example.com:test","lun":1}"#, &[]),
        (
            r#""iscsi":{"targetPortal":"0123456789012345678901234567890123456789012345678901234567890.de","iqn":"iqn.2015-02.example.com:test","initiatorName":"iqn.2015-02.example.com:init"}"#,
            &[
                r#"spec.iscsi.targetportal: Invalid value: "0123456789012345678901234567890123456789012345678901234567890.de": Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."#,
            ],
        ),
        (
            r#""flexVolume":{"driver":"d","options":{"a.k8s.io/b":"c"}}"#,
            &[
                r#"spec.flexVolume.options[a.k8s.io/b]: Invalid value: "a.k8s.io/b": kubernetes.io and k8s.io namespaces are reserved"#,
            ],
        ),
    ] {
        check_created("", "PersistentVolume", &[(&volume(rest), expected)]);
    }
    let with_options = |source: &str| {
        volume(source)
            .replace(r#""name":"v""#, r#""name":"v","annotations":{"volume.beta.kubernetes.io/mount-options":"ro"}"#)
    };
    check_created(
        "",
        "PersistentVolume",
        &[
            (&with_options(r#""nfs":{"server":"s","path":"/"}"#), &[]),
            (
                &with_options(r#""hostPath":{"path":"/d"}"#),
                &[
                    "metadata.annotations.volume.beta.kubernetes.io/mount-options: Forbidden: may not specify mount options for this volume type",
                ],
            ),
        ],
    );
    check_created(
        "",
        "PersistentVolume",
        &[(
            &named("v", r#""spec":{"hostPath":{"path":"/d"},"capacity":{"cpu":"0"}}"#),
            &[
                "spec.accessModes: Required value",
                r#"spec.capacity: Unsupported value: {"cpu":"0"}: supported values: "storage""#,
                r#"spec.capacity[cpu]: Invalid value: "0": must be greater than zero"#,
            ],
        )],
    );
}

#[test]
fn nodes_that_were_selected_by_any_values_may_stay() {
    let of = |value: &str, class: &str| {
        volume(&format!(
            r#""csi":{{"driver":"d","volumeHandle":"h"}},"storageClassName":"{class}","nodeAffinity":{{"required":{{"nodeSelectorTerms":[{{"matchExpressions":[{{"key":"k","operator":"In","values":["{value}"]}}]}}]}}}}"#
        ))
    };
    let updated = |new: &str, old: &str| rules::updated("", "v1", "PersistentVolume", "", new, old);
    assert_eq!(rules::created("", "v1", "PersistentVolume", &of("-", "c")).len(), 1);
    assert_eq!(updated(&of("-", "d"), &of("-", "c")), [""; 0]);
    let [first, ..] = &updated(&of("-", "c"), &of("a", "c"))[..] else { panic!("it is refused") };
    assert!(
        first.starts_with("spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].values[0]: Invalid")
    );
}

#[test]
fn volumes_stay() {
    let node = |key: &str| {
        format!(
            r#""nodeAffinity":{{"required":{{"nodeSelectorTerms":[{{"matchExpressions":[{{"key":"{key}","operator":"Exists"}}]}}]}}}}"#
        )
    };
    let zone = "failure-domain.beta.kubernetes.io/zone";
    let old = volume(&format!(r#""csi":{{"driver":"d","volumeHandle":"h"}},{}"#, node(zone)));
    let found = rules::updated("", "v1", "PersistentVolume", "", &old.replace(r#""h""#, r#""i""#), &old);
    assert_eq!(found.len(), 1, "{found:?}");
    let begin = "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation\n";
    assert!(found[0].starts_with(begin), "{found:?}");
    check_updated(
        "",
        "PersistentVolume",
        "",
        &old,
        &[
            (r#""h""#, r#""h","controllerExpandSecretRef":{"name":"s","namespace":"n"}"#, &[]),
            // Labels may get their final names.
            (zone, "topology.kubernetes.io/zone", &[]),
            (
                zone,
                "zone",
                &[
                    r#"nodeAffinity: Invalid value: {"Required":{"NodeSelectorTerms":[{"MatchExpressions":[{"Key":"zone","Operator":"Exists","Values":null}],"MatchFields":null}]}}: field is immutable, except for updating from beta label to GA"#,
                ],
            ),
            (
                r#""accessModes""#,
                r#""volumeMode":"Block","accessModes""#,
                &[r#"volumeMode: Invalid value: "Block": field is immutable"#],
            ),
        ],
    );
    let elsewhere = old.replace(zone, "zone");
    let features = rules::features("MutablePVNodeAffinity=true");
    let [new, was] = [&elsewhere, &old].map(|text| rules::object("", "v1", "PersistentVolume", text));
    assert_eq!(validation::update("", "PersistentVolume", "", &new, &was, features), []);
    let object = rules::object(
        "",
        "v1",
        "PersistentVolume",
        &old.replace(r#""accessModes""#, r#""persistentVolumeReclaimPolicy":"Recycle","accessModes""#),
    );
    assert_eq!(
        validation::warnings("", "PersistentVolume", "", &object, None, Default::default()),
        [
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.".to_owned(),
            format!("spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: {zone} is deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"),
        ]
    );
}
