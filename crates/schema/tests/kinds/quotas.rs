//! ResourceQuotas and LimitRanges.

use crate::{check_created, check_updated, named};

fn quota(spec: &str) -> String {
    named("q", &format!(r#""spec":{{{spec}}}"#))
}

#[test]
fn quotas() {
    let only =
        |scope: &str| quota(&format!(r#""hard":{{"pods":"1"}},"scopeSelector":{{"matchExpressions":[{scope}]}}"#));
    check_created(
        "",
        "ResourceQuota",
        &[
            (
                &quota(
                    r#""hard":{"cpu":"1","pods":"2","services.nodeports":"1","count/deployments.apps":"3","requests.example.com/gpu":"1","gold.storageclass.storage.k8s.io/requests.storage":"1Gi","requests.hugepages-2Mi":"2Mi"}"#,
                ),
                &[],
            ),
            (
                &quota(r#""hard":{"gpu":"1","pods":"500m","memory":"-1"}"#),
                &[
                    r#"spec.hard[gpu]: Invalid value: "gpu": must be a standard resource type or fully qualified"#,
                    r#"spec.hard[gpu]: Invalid value: "gpu": must be a standard resource for quota"#,
                    r#"spec.hard[memory]: Invalid value: "-1": must be greater than or equal to 0"#,
                    r#"spec.hard[pods]: Invalid value: "500m": must be an integer"#,
                ],
            ),
            (
                &quota(r#""hard":{"storage":"1Gi"}"#),
                &[r#"spec.hard[storage]: Invalid value: "storage": must be a standard resource for quota"#],
            ),
            (
                &quota(r#""hard":{"cpu":"1"},"scopes":["BestEffort","NotBestEffort","x"]"#),
                &[
                    r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: unsupported scope applied to resource"#,
                    r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: unsupported scope"#,
                    r#"spec.scopes: Invalid value: ["BestEffort","NotBestEffort","x"]: conflicting scopes"#,
                ],
            ),
            (&only(r#"{"scopeName":"PriorityClass","operator":"In","values":["high"]}"#), &[]),
            (
                &quota(
                    r#""hard":{"memory":"1"},"scopeSelector":{"matchExpressions":[{"scopeName":"BestEffort","operator":"Exists"}]}"#,
                ),
                &[
                    r#"spec.scopeSelector.matchExpressions: Invalid value: {"MatchExpressions":[{"ScopeName":"BestEffort","Operator":"Exists","Values":null}]}: unsupported scope applied to resource"#,
                ],
            ),
            (
                &only(r#"{"scopeName":"PriorityClass","operator":"In"}"#),
                &[
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
            (
                &only(r#"{"scopeName":"Terminating","operator":"DoesNotExist","values":["a"]}"#),
                &[
                    r#"spec.scopeSelector.matchExpressions.operator: Invalid value: "DoesNotExist": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"#,
                    r#"spec.scopeSelector.matchExpressions.values: Invalid value: ["a"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"#,
                ],
            ),
        ],
    );
    check_updated(
        "",
        "ResourceQuota",
        "",
        &quota(r#""hard":{"pods":"1"},"scopes":["Terminating"]"#),
        &[
            (r#""1""#, r#""2""#, &[]),
            (
                r#"["Terminating"]"#,
                r#"["NotTerminating"]"#,
                &[r#"spec.scopes: Invalid value: ["NotTerminating"]: field is immutable"#],
            ),
        ],
    );
    let status = named("q", r#""status":{"used":{"pods":"1"}}"#);
    let why = r#"status.used[pods]: Invalid value: "-1": must be greater than or equal to 0"#;
    check_updated("", "ResourceQuota", "status", &status, &[(r#""1""#, r#""-1""#, &[why])]);
}

#[test]
fn limit_ranges() {
    let limit = |limit: &str| named("l", &format!(r#""spec":{{"limits":[{{{limit}}}]}}"#));
    check_created(
        "",
        "LimitRange",
        &[
            (
                &limit(
                    r#""type":"Container","max":{"cpu":"2"},"min":{"cpu":"100m"},"default":{"cpu":"1"},"maxLimitRequestRatio":{"cpu":"10"}"#,
                ),
                &[],
            ),
            (
                &limit(r#""type":"x""#),
                &[r#"spec.limits[0].type: Invalid value: "x": must be a standard limit type or fully qualified"#],
            ),
            (
                &limit(r#""type":"Pod","max":{"storage":"1Gi"},"default":{"cpu":"1"}"#),
                &[
                    r#"spec.limits[0].max[storage]: Invalid value: "storage": must be a standard resource for containers"#,
                    "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                ],
            ),
            (
                &limit(r#""type":"PersistentVolumeClaim","default":{"storage":"1Gi"}"#),
                &[
                    "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (
                &limit(
                    r#""type":"Container","max":{"cpu":"1"},"min":{"cpu":"2"},"default":{"cpu":"3"},"defaultRequest":{"cpu":"4"}"#,
                ),
                &[
                    r#"spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1"#,
                    r#"spec.limits[0].defaultRequest[cpu]: Invalid value: "4": default request value 4 is greater than max value 1"#,
                    r#"spec.limits[0].defaultRequest[cpu]: Invalid value: "4": default request value 4 is greater than default limit value 3"#,
                    r#"spec.limits[0].default[cpu]: Invalid value: "1": default value 3 is greater than max value 1"#,
                ],
            ),
            (
                &limit(
                    r#""type":"Pod","max":{"cpu":"2"},"min":{"cpu":"1"},"maxLimitRequestRatio":{"cpu":"3","memory":"500m"}"#,
                ),
                &[
                    r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000"#,
                    r#"spec.limits[0].maxLimitRequestRatio[memory]: Invalid value: "500m": ratio 500m is less than 1"#,
                ],
            ),
        ],
    );
    let twice = named("l", r#""spec":{"limits":[{"type":"Pod"},{"type":"Pod"}]}"#);
    check_created("", "LimitRange", &[(&twice, &[r#"spec.limits[1].type: Duplicate value: "Pod""#])]);
}
