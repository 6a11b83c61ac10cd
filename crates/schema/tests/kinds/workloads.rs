//! Controllers of pods.

use crate::{check_created, check_updated, named, rules};
use schema::validation;

const SELECTOR: &str = r#""selector":{"matchLabels":{"a":"b"}}"#;
const TEMPLATE: &str =
    r#""template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
const MISMATCH: &str =
    r#"spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#;

fn spec(rest: &str) -> String {
    named("x", &format!(r#""spec":{{{SELECTOR},{TEMPLATE}{rest}}}"#))
}

/// What a kind says of a spec with these further fields.
fn check(kind: &str, cases: &[(&str, &[&str])]) {
    for (rest, expected) in cases {
        check_created("apps", kind, &[(&spec(rest), expected)]);
    }
}

#[test]
fn all_of_them() {
    for kind in ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"] {
        check(kind, &[("", &[])]);
        let other = spec("").replace(r#""matchLabels":{"a":"b"}"#, r#""matchLabels":{"a":"c"}"#);
        check_created("apps", kind, &[(&other, &[MISMATCH])]);
        let never =
            spec("").replace(r#""containers""#, r#""restartPolicy":"Never","activeDeadlineSeconds":5,"containers""#);
        let whose = if kind == "Deployment" { "ReplicaSet" } else { kind };
        let expected = [
            r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#.to_owned(),
            format!(
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in {whose} is not Supported"
            ),
        ];
        assert_eq!(rules::created("apps", "v1", kind, &never), expected, "{kind}");
    }
    let without = named("x", &format!(r#""spec":{{{TEMPLATE}}}"#));
    for kind in ["Deployment", "ReplicaSet", "StatefulSet"] {
        check_created("apps", kind, &[(&without, &["spec.selector: Required value", MISMATCH])]);
        let empty = spec("").replace(r#"{"matchLabels":{"a":"b"}}"#, "{}");
        let name = if kind == "StatefulSet" { "statefulset" } else { "deployment" };
        let why = format!("spec.selector: Invalid value: {{}}: empty selector is invalid for {name}");
        check_created("apps", kind, &[(&empty, &[&why])]);
    }
    check_created("apps", "DaemonSet", &[(&without, &[MISMATCH])]);
    let bad = spec("").replace(r#""matchLabels":{"a":"b"}"#, r#""matchExpressions":[{"key":"a","operator":"Is"}]"#);
    check_created(
        "apps",
        "Deployment",
        &[(
            &bad,
            &[
                r#"spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator"#,
                r#"spec.selector: Invalid value: {"matchExpressions":[{"key":"a","operator":"Is"}]}: invalid label selector"#,
            ],
        )],
    );
}

#[test]
fn deployments() {
    check(
        "Deployment",
        &[
            (r#","replicas":-1"#, &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
            (
                r#","strategy":{"type":"x"}"#,
                &[
                    r#"spec.strategy: Unsupported value: {"Type":"x","RollingUpdate":null}: supported values: "Recreate", "RollingUpdate""#,
                ],
            ),
            (
                r#","strategy":{"rollingUpdate":{"maxUnavailable":0,"maxSurge":"0%"}}"#,
                &["spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0"],
            ),
            (
                r#","strategy":{"type":"Recreate","rollingUpdate":{"maxSurge":1}}"#,
                &["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
            ),
            (
                r#","minReadySeconds":600"#,
                &["spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds"],
            ),
        ],
    );
    let old = named("x", r#""status":{"replicas":3,"readyReplicas":2,"availableReplicas":1,"collisionCount":2}"#);
    check_updated(
        "apps",
        "Deployment",
        "status",
        &old,
        &[
            (
                r#""readyReplicas":2"#,
                r#""readyReplicas":4"#,
                &["status.readyReplicas: Invalid value: 4: cannot be greater than status.replicas"],
            ),
            (
                r#""availableReplicas":1"#,
                r#""availableReplicas":3"#,
                &["status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas"],
            ),
            (
                r#""replicas":3"#,
                r#""replicas":3,"terminatingReplicas":-1"#,
                &["status.terminatingReplicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                r#""collisionCount":2"#,
                r#""collisionCount":1"#,
                &["status.collisionCount: Invalid value: 1: cannot be decremented"],
            ),
            (r#","collisionCount":2"#, "", &["status.collisionCount: Invalid value: 0: cannot be decremented"]),
        ],
    );
}

#[test]
fn selectors_stay() {
    for kind in ["Deployment", "ReplicaSet", "DaemonSet"] {
        let old = spec("");
        let new = old.replace(r#""a":"b""#, r#""a":"c""#);
        assert_eq!(
            rules::updated("apps", "v1", kind, "", &new, &old),
            [r#"spec.selector: Invalid value: {"matchLabels":{"a":"c"}}: field is immutable"#],
            "{kind}"
        );
    }
}

#[test]
fn stateful_sets() {
    check(
        "StatefulSet",
        &[
            (
                r#","podManagementPolicy":"x""#,
                &[r#"spec.podManagementPolicy: Invalid value: "x": must be 'OrderedReady' or 'Parallel'"#],
            ),
            (
                r#","updateStrategy":{"type":"x"}"#,
                &[
                    r#"spec.updateStrategy: Invalid value: {"Type":"x","RollingUpdate":null}: must be 'RollingUpdate' or 'OnDelete'"#,
                ],
            ),
            (
                r#","updateStrategy":{"type":"OnDelete","rollingUpdate":{"partition":1}}"#,
                &[
                    r#"spec.updateStrategy.rollingUpdate: Invalid value: {"Partition":1,"MaxUnavailable":null}: only allowed for updateStrategy 'RollingUpdate'"#,
                ],
            ),
            (
                r#","updateStrategy":{"rollingUpdate":{"partition":-1,"maxUnavailable":0}}"#,
                &[
                    "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                    "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
                ],
            ),
            (
                r#","persistentVolumeClaimRetentionPolicy":{"whenDeleted":"x"}"#,
                &[
                    r#"spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "x": supported values: "Retain", "Delete""#,
                ],
            ),
            (
                r#","ordinals":{"start":-1}"#,
                &["spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"],
            ),
            // How much is kept is a matter of a warning.
            (r#","revisionHistoryLimit":-1"#, &[]),
            (r#","serviceName":"s.t""#, &["spec.serviceName: Invalid value: \"s.t\": must not contain dots"]),
            (
                r#","volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"resources":{"requests":{"storage":"1Gi"}}}}]"#,
                &["spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required"],
            ),
        ],
    );
    // The pods have the volumes that claims make, instead of those of the same name.
    const CLAIM: &str = r#","volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}]"#;
    let mount =
        |text: &str| text.replace(r#""image":"i""#, r#""image":"i","volumeMounts":[{"name":"data","mountPath":"/d"}]"#);
    let replaced = mount(&spec(CLAIM))
        .replace(r#""containers""#, r#""volumes":[{"name":"data","hostPath":{"path":""}}],"containers""#);
    let unmounted = r#"spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data""#;
    check_created(
        "apps",
        "StatefulSet",
        &[(&mount(&spec(CLAIM)), &[]), (&replaced, &[]), (&mount(&spec("")), &[unmounted])],
    );
    // What was wrong before it was looked at may stay; what was right may not become wrong.
    let scaled = |text: &str| text.replace(r#""selector""#, r#""replicas":5,"selector""#);
    let updated = |new: &str, old: &str| rules::updated("apps", "v1", "StatefulSet", "", new, old);
    let old = mount(&spec(r#","serviceName":"s.t","volumeClaimTemplates":[{"metadata":{"name":"other"},"spec":{}}]"#));
    assert_eq!(updated(&scaled(&old), &old), Vec::<String>::new());
    assert_eq!(updated(&mount(&spec("")), &spec("")), [unmounted]);
    let why = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    check_updated(
        "apps",
        "StatefulSet",
        "",
        &spec(r#","serviceName":"s""#),
        &[
            (r#""serviceName":"s""#, r#""serviceName":"t""#, &[why]),
            (r#""serviceName":"s""#, r#""serviceName":"s","podManagementPolicy":"Parallel""#, &[why]),
            (r#""serviceName":"s""#, r#""serviceName":"s","replicas":5,"minReadySeconds":3"#, &[]),
            (r#""image":"i""#, r#""image":"j""#, &[]),
        ],
    );
    let warned = rules::object("apps", "v1", "StatefulSet", &spec(r#","revisionHistoryLimit":-1"#));
    assert_eq!(
        validation::warnings("apps", "StatefulSet", "", &warned, None, Default::default()),
        ["spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"]
    );
}

/// Pods are told about again with each change that makes a generation, whatever it changes.
#[test]
fn templates_warn_with_every_generation() {
    let scheduled = |rest: &str| {
        spec(rest).replace("\"containers\"", "\"nodeSelector\":{\"beta.kubernetes.io/os\":\"linux\"},\"containers\"")
    };
    let annotated = |text: &str| text.replacen("\"name\":\"x\"", "\"name\":\"x\",\"annotations\":{\"a\":\"b\"}", 1);
    for (kind, of_annotations) in [("Deployment", 1), ("ReplicaSet", 0), ("StatefulSet", 0), ("DaemonSet", 0)] {
        let object = |text: &str| rules::object("apps", "v1", kind, text);
        let old = object(&scheduled(r#","minReadySeconds":1"#));
        let told = |new: &str, old| validation::warnings("apps", kind, "", &object(new), old, Default::default()).len();
        assert_eq!(told(&scheduled(""), None), 1, "{kind}");
        assert_eq!(told(&scheduled(""), Some(&old)), 1, "{kind}");
        assert_eq!(told(&scheduled(r#","minReadySeconds":1"#), Some(&old)), 0, "{kind}");
        assert_eq!(told(&annotated(&scheduled(r#","minReadySeconds":1"#)), Some(&old)), of_annotations, "{kind}");
    }
}

#[test]
fn daemon_sets() {
    check(
        "DaemonSet",
        &[
            (
                r#","updateStrategy":{"type":"x"}"#,
                &[
                    r#"spec.updateStrategy: Unsupported value: {"Type":"x","RollingUpdate":null}: supported values: "RollingUpdate", "OnDelete""#,
                ],
            ),
            (
                r#","updateStrategy":{"rollingUpdate":{"maxUnavailable":0,"maxSurge":0}}"#,
                &["spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"],
            ),
            (
                r#","updateStrategy":{"rollingUpdate":{"maxUnavailable":1,"maxSurge":"101%"}}"#,
                &[
                    r#"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": must not be greater than 100%"#,
                    r#"spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "101%": may not be set when maxUnavailable is non-zero"#,
                ],
            ),
        ],
    );
    let old = named("x", r#""status":{"numberReady":1}"#);
    let why = "status.numberReady: Invalid value: -1: must be greater than or equal to 0";
    check_updated("apps", "DaemonSet", "status", &old, &[(":1", ":-1", &[why])]);
}

#[test]
fn templates_and_selectors_of_before_may_stay() {
    let bad = r#"{"matchExpressions":[{"key":"a","operator":"In","values":["-"]}]}"#;
    let template = format!(
        r#""template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"c","image":"i"}}],"affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{{"topologyKey":"t","labelSelector":{bad}}}]}}}}}}}}"#
    );
    let set = |selector: &str, image: &str| {
        named("x", &format!(r#""spec":{{{selector},{}}}"#, template.replace(r#""i""#, &format!("{image:?}"))))
    };
    let updated = |kind: &str, new: &str, old: &str| rules::updated("apps", "v1", kind, "", new, old);
    for kind in ["DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"] {
        let old = set(SELECTOR, "i");
        assert_eq!(rules::created("apps", "v1", kind, &old).len(), 1, "{kind}");
        assert_eq!(updated(kind, &set(SELECTOR, "j"), &old), [""; 0], "{kind}");
    }
    // Of these, the selector of a DaemonSet alone could be bad at all.
    let selector = format!(r#""selector":{bad}"#);
    for (kind, refused) in [("DaemonSet", false), ("Deployment", true), ("ReplicaSet", true), ("StatefulSet", true)] {
        let found = updated(kind, &set(&selector, "j"), &set(&selector, "i"));
        assert_eq!(!found.is_empty(), refused, "{kind}: {found:?}");
    }
}

#[test]
fn replication_controllers() {
    let spec = |selector: &str| named("x", &format!(r#""spec":{{"selector":{selector},{TEMPLATE}}}"#));
    check_created(
        "",
        "ReplicationController",
        &[
            (&spec(r#"{"a":"b"}"#), &[]),
            (&spec("{}"), &[]),
            (&spec(r#"{"a":"c"}"#), &[MISMATCH]),
            (
                &named("x", r#""spec":{"replicas":-1}"#),
                &[
                    "spec.selector: Required value",
                    "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                    "spec.template: Required value",
                ],
            ),
        ],
    );
}

#[test]
fn controller_revisions() {
    let whole = named("x", r#""revision":1,"data":{"a":1}"#);
    check_created(
        "apps",
        "ControllerRevision",
        &[
            (&whole, &[]),
            (
                &named("x", r#""revision":-1"#),
                &[
                    "data: Required value: data is mandatory",
                    "revision: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
        ],
    );
    let cases: &[(&str, &str, &[&str])] = &[
        (r#""a":1"#, r#""a":2"#, &[r#"data: Invalid value: {"a":2}: field is immutable"#]),
        (r#""revision":1"#, r#""revision":2"#, &[]),
    ];
    check_updated("apps", "ControllerRevision", "", &whole, cases);
}

#[test]
fn a_controller_keeps_what_its_annotations_say_cannot_be_converted() {
    let of = |app: &str, annotations: &str| {
        format!(
            r#"{{"metadata":{{"name":"r","namespace":"n","annotations":{{{annotations}}}}},"spec":{{"replicas":1,"selector":{{"app":"{app}"}},"template":{{"metadata":{{"labels":{{"app":"{app}"}}}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
        )
    };
    let updated = |new: &str, old: &str| rules::updated("", "v1", "ReplicationController", "", new, old);
    const SELECTOR: &str = r#""non-convertible.kubernetes.io/spec.selector":"x""#;
    assert_eq!(updated(&of("b", ""), &of("a", "")), [""; 0]);
    assert_eq!(updated(&of("a", ""), &of("a", SELECTOR)), [""; 0]);
    assert_eq!(
        updated(&of("b", ""), &of("a", SELECTOR)),
        [r#"spec.selector: Invalid value: {"app":"b"}: cannot update non-convertible selector"#]
    );
    assert_eq!(
        updated(
            &of("a", ""),
            &of("a", r#""non-convertible.kubernetes.io/other":"y","non-convertible.kubernetes.io":"z""#)
        ),
        [r#"other: Not found: "y": unknown non-convertible field"#]
    );
    // What is wrong with the rest is looked at twice.
    let bad = of("a", "").replace(r#""replicas":1"#, r#""replicas":-1"#);
    let why = "spec.replicas: Invalid value: -1: must be greater than or equal to 0";
    assert_eq!(updated(&bad, &of("a", "")), [why, why]);
}
