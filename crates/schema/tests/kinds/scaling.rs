//! HorizontalPodAutoscalers and PodDisruptionBudgets.

use crate::{check_created, check_updated, named, rules};
use schema::validation;

const TARGET: &str = r#""scaleTargetRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"d"}"#;

fn scaler(rest: &str) -> String {
    named("h", &format!(r#""spec":{{{TARGET},"maxReplicas":5{rest}}}"#))
}

fn check(object: &str, expected: &[&str]) {
    assert_eq!(rules::created("autoscaling", "v2", "HorizontalPodAutoscaler", object), expected, "{object}");
}

fn changed(new: &str, old: &str, expected: &[&str]) {
    let found = rules::updated("autoscaling", "v2", "HorizontalPodAutoscaler", "", new, old);
    assert_eq!(found, expected, "{new}");
}

#[test]
fn targets_and_bounds() {
    check(&scaler(""), &[]);
    let zero = scaler(r#","minReplicas":0"#);
    check(
        &zero,
        &[
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
            "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
        ],
    );
    check(
        &scaler(r#","minReplicas":6"#),
        &["spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"],
    );
    check(
        &named("h", r#""spec":{"scaleTargetRef":{"apiVersion":"apps/v1","kind":"","name":"a/b"},"maxReplicas":0}"#),
        &[
            "spec.maxReplicas: Invalid value: 0: must be greater than 0",
            "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            "spec.scaleTargetRef.kind: Required value",
            r#"spec.scaleTargetRef.name: Invalid value: "a/b": may not contain '/'"#,
        ],
    );
    let bare = scaler("").replace("apps/v1", "v1");
    let why = r#"spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group"#;
    check(&bare, &[why]);
    check(&bare.replace("Deployment", "ReplicationController"), &[]);
    changed(&bare, &scaler(""), &[why]);
    changed(&bare, &bare, &[]);
    // Who could scale to nothing may go on to, and anybody may where that is allowed.
    let metrics = "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas";
    changed(&zero, &zero, &[metrics]);
    let object = rules::object("autoscaling", "v2", "HorizontalPodAutoscaler", &zero);
    let features = rules::features("HPAScaleToZero=true");
    let found = validation::create("autoscaling", "HorizontalPodAutoscaler", &object, features);
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [metrics]);
}

#[test]
fn metrics() {
    let metric = |metric: &str| scaler(&format!(r#","metrics":[{metric}]"#));
    const POPULATE: &str = "Required value: must populate information for the given metric source";
    for (text, expected) in [
        (r#"{"type":"Resource","resource":{"name":"cpu","target":{"type":"Utilization","averageUtilization":50}}}"#, vec![]),
        (
            r#"{"type":"x"}"#,
            vec![
                r#"spec.metrics[0].type: Unsupported value: "x": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#.to_owned(),
                r#"spec.metrics[0].type: Unsupported value: "x": supported values: "ContainerResource", "External", "Object", "Pods", "Resource""#.to_owned(),
            ],
        ),
        (r#"{"type":"Pods"}"#, vec![format!("spec.metrics[0].pods: {POPULATE}")]),
        (
            r#"{"type":"Resource","resource":{"name":"cpu","target":{"type":"Value","averageValue":"-1","averageUtilization":0}}}"#,
            vec![
                r#"spec.metrics[0].resource.target.averageValue: Invalid value: "-1": must be positive"#.to_owned(),
                "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0".to_owned(),
                "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization".to_owned(),
            ],
        ),
        (
            r#"{"type":"External","external":{"metric":{"name":"q"},"target":{"type":"Value"}},"pods":{"metric":{"name":"q"},"target":{"type":"Value"}}}"#,
            vec![
                "spec.metrics[0].external.target.averageValue: Required value: must set either a target value for metric or a per-pod target".to_owned(),
                "spec.metrics[0].pods: Forbidden: must populate the given metric source only".to_owned(),
            ],
        ),
        (
            r#"{"type":"Object","object":{"describedObject":{"apiVersion":"a/b/c","kind":"Service","name":"s"},"metric":{"name":""},"target":{"type":"x","value":"1"}}}"#,
            vec![
                r#"spec.metrics[0].object.describedObject.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#.to_owned(),
                "spec.metrics[0].object.metric.name: Required value: must specify a metric name".to_owned(),
                r#"spec.metrics[0].object.target.type: Invalid value: "x": must be either Utilization, Value, or AverageValue"#.to_owned(),
            ],
        ),
        (
            r#"{"type":"ContainerResource","containerResource":{"name":"gpu","target":{"type":"Utilization","averageUtilization":5}}}"#,
            vec![
                r#"spec.metrics[0].containerResource.name: Invalid value: "gpu": must be a standard resource type or fully qualified"#.to_owned(),
                r#"spec.metrics[0].containerResource.name: Invalid value: "gpu": must be a standard resource for containers"#.to_owned(),
                "spec.metrics[0].containerResource.container: Required value: must specify a container".to_owned(),
            ],
        ),
    ] {
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        check(&metric(text), &expected);
    }
}

#[test]
fn behavior() {
    let up = |rules: &str| scaler(&format!(r#","behavior":{{"scaleUp":{{{rules}}}}}"#));
    check(&up(r#""tolerance":"0.1""#), &[]);
    check(
        &up(
            r#""stabilizationWindowSeconds":3601,"selectPolicy":"x","policies":[{"type":"x","value":0,"periodSeconds":1801}],"tolerance":"-1""#,
        ),
        &[
            "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
            r#"spec.behavior.scaleUp.selectPolicy: Unsupported value: "x": supported values: "Disabled", "Max", "Min""#,
            r#"spec.behavior.scaleUp.policies[0].type: Unsupported value: "x": supported values: "Percent", "Pods""#,
            "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
            "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            r#"spec.behavior.scaleUp.tolerance: Invalid value: "-1": must be greater than or equal to 0"#,
        ],
    );
}

#[test]
fn disruption_budgets() {
    let budget = |spec: &str| named("b", &format!(r#""spec":{{{spec}}}"#));
    check_created(
        "policy",
        "PodDisruptionBudget",
        &[
            (&budget(r#""minAvailable":"50%","selector":{}"#), &[]),
            (
                &budget(r#""minAvailable":1,"maxUnavailable":"101%""#),
                &[
                    r#"spec: Invalid value: {"MinAvailable":1,"Selector":null,"MaxUnavailable":"101%","UnhealthyPodEvictionPolicy":null}: minAvailable and maxUnavailable cannot be both set"#,
                    r#"spec.maxUnavailable: Invalid value: "101%": must not be greater than 100%"#,
                ],
            ),
            (
                &budget(r#""unhealthyPodEvictionPolicy":"x""#),
                &[
                    r#"spec.unhealthyPodEvictionPolicy: Unsupported value: "x": supported values: "AlwaysAllow", "IfHealthyBudget""#,
                ],
            ),
        ],
    );
    let selecting = |value: &str| {
        budget(&format!(r#""selector":{{"matchExpressions":[{{"key":"a","operator":"In","values":["{value}"]}}]}}"#))
    };
    let updated = |new: &str, old: &str| rules::updated("policy", "v1", "PodDisruptionBudget", "", new, old);
    assert_eq!(updated(&selecting("-b"), &selecting("-a")), Vec::<String>::new());
    assert_eq!(updated(&selecting("-b"), &selecting("a")).len(), 1);
    let old = named("b", r#""status":{"currentHealthy":1}"#);
    check_updated(
        "policy",
        "PodDisruptionBudget",
        "status",
        &old,
        &[
            (":1", ":-1", &["status.currentHealthy: Invalid value: -1: must be greater than or equal to 0"]),
            (
                r#""currentHealthy":1"#,
                r#""conditions":[{"type":"A","status":"Maybe","lastTransitionTime":"2026-01-01T00:00:00Z","reason":"R"}]"#,
                &[
                    r#"status.conditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown""#,
                ],
            ),
        ],
    );
}
