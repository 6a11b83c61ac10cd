//! Workloads and groups of pods.

use crate::rules::{created_with, updated_with};

const GROUP: &str = "scheduling.k8s.io";
const ALL: &str = "GenericWorkload=true,GangScheduling=true,TopologyAwareWorkloadScheduling=true,WorkloadAwarePreemption=true,DRAWorkloadResourceClaims=true";

fn object(spec: &str) -> String {
    format!(r#"{{"metadata":{{"name":"w","namespace":"n"}},"spec":{spec}}}"#)
}

fn made(gates: &str, kind: &str, spec: &str) -> Vec<String> {
    created_with(gates, GROUP, "v1alpha2", kind, &object(spec))
}

#[test]
fn the_templates_of_a_workload_are_few_named_and_of_one_policy() {
    let of = |template: &str| format!(r#"{{"podGroupTemplates":[{template}]}}"#);
    let good = r#"{"name":"a","schedulingPolicy":{"gang":{"minCount":2}},"schedulingConstraints":{"topology":[{"key":"zone"}]},
        "resourceClaims":[{"name":"c","resourceClaimName":"x"}],"disruptionMode":"PodGroup","priorityClassName":"high","priority":5}"#;
    assert_eq!(made(ALL, "Workload", &of(good)), [""; 0]);
    let path = "spec.podGroupTemplates[0]";
    for (template, expected) in [
        (
            r#"{"schedulingPolicy":{}}"#,
            vec![
                format!("{path}.name: Required value"),
                format!(r#"{path}.schedulingPolicy: Invalid value: "": must specify one of: `basic`, `gang`"#),
            ],
        ),
        (
            r#"{"name":"a","schedulingPolicy":{"basic":{},"gang":{}}}"#,
            vec![
                format!(
                    r#"{path}.schedulingPolicy: Invalid value: "{{basic, gang}}": must specify exactly one of: `basic`, `gang`"#
                ),
                format!("{path}.schedulingPolicy.gang.minCount: Required value"),
            ],
        ),
        (
            r#"{"name":"a","schedulingPolicy":{"gang":{"minCount":-1}},"priority":1000000001,"disruptionMode":"None",
                "schedulingConstraints":{"topology":[{"key":""}]},"priorityClassName":"A"}"#,
            vec![
                format!(
                    "{path}.schedulingPolicy.gang.minCount: Invalid value: -1: must be greater than or equal to 1"
                ),
                format!("{path}.schedulingConstraints.topology[0].key: Required value"),
                format!(r#"{path}.disruptionMode: Unsupported value: "None": supported values: "Pod", "PodGroup""#),
                format!(
                    r#"{path}.priorityClassName: Invalid value: "A": {}"#,
                    api::names::dns1123_subdomain("A")[0]
                ),
                format!("{path}.priority: Invalid value: 1000000001: must be less than or equal to 1000000000"),
            ],
        ),
        (
            r#"{"name":"a","schedulingPolicy":{"basic":{}}},{"name":"a","schedulingPolicy":{"basic":{}}}"#,
            vec![
                r#"spec.podGroupTemplates[1]: Duplicate value: {"name":"a","schedulingPolicy":{"basic":{}},"schedulingConstraints":null}"#
                    .to_owned(),
            ],
        ),
        (
            r#"{"name":"a","schedulingPolicy":{"basic":{}},"resourceClaims":[{"name":"c"},{"name":"c","resourceClaimName":"x"}]}"#,
            vec![
                format!(
                    r#"{path}.resourceClaims[1]: Duplicate value: {{"name":"c","resourceClaimName":"x"}}"#
                ),
                format!(
                    r#"{path}.resourceClaims[0]: Invalid value: "": must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"#
                ),
            ],
        ),
    ] {
        assert_eq!(made(ALL, "Workload", &of(template)), expected, "{template}");
    }
    let none = vec!["spec.podGroupTemplates: Required value"];
    assert_eq!(made("", "Workload", r#"{"podGroupTemplates":[]}"#), none);
    let many: Vec<String> =
        (0..9).map(|n| format!(r#"{{"name":"a{n}","schedulingPolicy":{{"basic":{{}}}}}}"#)).collect();
    let told = ["spec.podGroupTemplates: Too many: 9: must have at most 8 items"];
    assert_eq!(made("", "Workload", &of(&many.join(","))), told);
    let owner = |reference: &str| {
        format!(
            r#"{{"controllerRef":{reference},"podGroupTemplates":[{{"name":"a","schedulingPolicy":{{"basic":{{}}}}}}]}}"#
        )
    };
    assert_eq!(
        made("", "Workload", &owner(r#"{"apiGroup":"","kind":"a/b"}"#)),
        [
            "spec.controllerRef.kind: Invalid value: \"a/b\": may not contain '/'",
            "spec.controllerRef.name: Required value"
        ]
    );
}

#[test]
fn workloads_and_groups_stay_as_they_were_made() {
    let was = object(r#"{"podGroupTemplates":[{"name":"a","schedulingPolicy":{"basic":{}}}]}"#);
    let update = |kind: &str, new: &str, old: &str| updated_with(ALL, GROUP, "v1alpha2", kind, "", new, old);
    assert_eq!(update("Workload", &was, &was), [""; 0]);
    let now = object(r#"{"controllerRef":{"kind":"Job","name":"j"},"podGroupTemplates":[]}"#);
    assert_eq!(
        update("Workload", &now, &was),
        [
            r#"spec.controllerRef: Invalid value: "null": field is immutable"#,
            r#"spec.podGroupTemplates: Invalid value: "null": field is immutable"#,
            "spec.podGroupTemplates: Required value",
        ]
    );
    let was = object(r#"{"schedulingPolicy":{"gang":{"minCount":2}}}"#);
    let now = object(r#"{"schedulingPolicy":{"gang":{"minCount":3}},"disruptionMode":"PodGroup","priority":7}"#);
    let changed = |field: &str| format!(r#"spec.{field}: Invalid value: "null": field is immutable"#);
    assert_eq!(update("PodGroup", &now, &was), ["schedulingPolicy", "disruptionMode", "priority"].map(changed));
    // Where the feature is off, what belongs to it is only let go.
    let off = |new: &str, old: &str| updated_with("", GROUP, "v1alpha2", "PodGroup", "", new, old);
    let had = object(r#"{"schedulingPolicy":{"basic":{}},"priority":7}"#);
    assert_eq!(off(&had, &had), [""; 0]);
    assert_eq!(off(&object(r#"{"schedulingPolicy":{"basic":{}},"priority":8}"#), &had), ["spec.priority: Forbidden"]);
    assert_eq!(off(&object(r#"{"schedulingPolicy":{"basic":{}}}"#), &had), [""; 0]);
}

#[test]
fn a_group_is_made_from_a_workloads_template_or_alone() {
    assert_eq!(made(ALL, "PodGroup", r#"{"schedulingPolicy":{"basic":{}}}"#), [""; 0]);
    let from =
        |reference: &str| format!(r#"{{"schedulingPolicy":{{"basic":{{}}}},"podGroupTemplateRef":{reference}}}"#);
    assert_eq!(
        made(ALL, "PodGroup", &from("{}")),
        [r#"spec.podGroupTemplateRef: Invalid value: "": must specify one of: `workload`"#]
    );
    assert_eq!(
        made(ALL, "PodGroup", &from(r#"{"workload":{"podGroupTemplateName":"A"}}"#)),
        [
            "spec.podGroupTemplateRef.workload.workloadName: Required value".to_owned(),
            format!(
                r#"spec.podGroupTemplateRef.workload.podGroupTemplateName: Invalid value: "A": {}"#,
                api::names::dns1123_label("A")[0]
            ),
        ]
    );
    let with = |status: &str| {
        format!(
            r#"{{"metadata":{{"name":"g"}},"spec":{{"schedulingPolicy":{{"basic":{{}}}},"resourceClaims":[{{"name":"c","resourceClaimName":"x"}}]}},"status":{status}}}"#
        )
    };
    let update = |status: &str| updated_with(ALL, GROUP, "v1alpha2", "PodGroup", "status", &with(status), &with("{}"));
    assert_eq!(update(r#"{"resourceClaimStatuses":[{"name":"c","resourceClaimName":"x"}]}"#), [""; 0]);
    assert_eq!(
        update(
            r#"{"conditions":[{"type":"A","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}],
            "resourceClaimStatuses":[{"name":"d"},{"name":"d"}]}"#
        ),
        [
            "status.conditions[0].reason: Required value: must be set",
            "status.resourceClaimStatuses[0].name: Invalid value: \"d\": must match the name of an entry in `spec.resourceClaims`",
            "status.resourceClaimStatuses[1].name: Invalid value: \"d\": must match the name of an entry in `spec.resourceClaims`",
            "status.resourceClaimStatuses[1]: Duplicate value: {\"name\":\"d\"}",
        ]
    );
}
