use crate::{check_created, check_updated, named};

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const RULE: &str = r#"{"subjects":[{"kind":"User","user":{"name":"u"}}],"resourceRules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"],"namespaces":["*"]}]}"#;

fn schema(name: &str, rest: &str) -> String {
    named(name, &format!(r#""spec":{{"priorityLevelConfiguration":{{"name":"l"}},{rest}}}"#))
}

#[test]
fn schemas() {
    let whole = schema("s", &format!(r#""rules":[{RULE}]"#));
    let subject = |kind: &str| whole.replace(r#"{"kind":"User","user":{"name":"u"}}"#, kind);
    check_created(
        GROUP,
        "FlowSchema",
        &[
            (&whole, &[]),
            (
                &schema("s", r#""matchingPrecedence":1"#),
                &[
                    "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
                ],
            ),
            (
                &schema("s", r#""matchingPrecedence":10001,"distinguisherMethod":{"type":"x"}"#),
                &[
                    "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000",
                    r#"spec.distinguisherMethod.type: Unsupported value: {"Type":"x"}: supported values: "ByNamespace", "ByUser""#,
                ],
            ),
            (
                &named("s", r#""spec":{"priorityLevelConfiguration":{"name":""}}"#),
                &["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"],
            ),
            (
                &schema("s", r#""rules":[{"subjects":[]}]"#),
                &[
                    "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                    "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
                ],
            ),
            (
                &subject(r#"{"kind":"x"}"#),
                &[
                    r#"spec.rules[0].subjects[0].kind: Unsupported value: "x": supported values: "Group", "ServiceAccount", "User""#,
                ],
            ),
            (
                &subject(r#"{"kind":"Group","user":{"name":"u"}}"#),
                &[
                    "spec.rules[0].subjects[0].group: Required value: group is required when subject kind is 'Group'",
                    "spec.rules[0].subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
                ],
            ),
            (
                &subject(r#"{"kind":"ServiceAccount","serviceAccount":{"name":"*","namespace":""}}"#),
                &[
                    "spec.rules[0].subjects[0].serviceAccount.namespace: Required value: must specify namespace for service account",
                ],
            ),
            (
                &whole.replace(r#"["get"]"#, r#"["*","get"]"#).replace(r#"["pods"]"#, "[]"),
                &[
                    r#"spec.rules[0].resourceRules[0].verbs: Invalid value: ["*","get"]: if '*' is present, must not specify other verbs"#,
                    "spec.rules[0].resourceRules[0].resources: Required value: resource rules must supply at least one resource",
                ],
            ),
            (
                &whole.replace(r#"["get"]"#, r#"["x"]"#).replace(r#","namespaces":["*"]"#, r#","namespaces":[]"#),
                &[
                    r#"spec.rules[0].resourceRules[0].verbs: Unsupported value: ["x"]: supported values: "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch""#,
                    "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
                ],
            ),
            (
                &schema(
                    "s",
                    r#""rules":[{"subjects":[{"kind":"User","user":{"name":""}}],"nonResourceRules":[{"verbs":["get"],"nonResourceURLs":["","x","/a b","/a//b","/a*","/a/*","/"]}]}]"#,
                ),
                &[
                    "spec.rules[0].subjects[0].user.name: Required value",
                    r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: "": must not be empty"#,
                    r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[1]: Invalid value: "x": must start with slash"#,
                    r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[2]: Invalid value: "/a b": must not contain white-space"#,
                    r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[3]: Invalid value: "/a//b": must not contain double slash"#,
                    r#"spec.rules[0].nonResourceRules[0].nonResourceURLs[4]: Invalid value: "/a*": wildcard can only do suffix matching"#,
                ],
            ),
        ],
    );
}

const EXEMPT: &str = r#""spec":{"matchingPrecedence":1,"priorityLevelConfiguration":{"name":"exempt"},"rules":[{"subjects":[{"kind":"Group","group":{"name":"system:masters"}}],"resourceRules":[{"verbs":["*"],"apiGroups":["*"],"resources":["*"],"clusterScope":true,"namespaces":["*"]}],"nonResourceRules":[{"verbs":["*"],"nonResourceURLs":["*"]}]}]}"#;

#[test]
fn what_every_server_has_stays_as_it_is() {
    let exempt = named("exempt", EXEMPT);
    check_created(GROUP, "FlowSchema", &[(&exempt, &[])]);
    let new = exempt.replace("system:masters", "others");
    let found = crate::rules::updated(GROUP, "v1", "FlowSchema", "", &new, &exempt);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with("spec of 'exempt' must equal the fixed value"), "{found:?}");
    let level = named("exempt", r#""spec":{"type":"Exempt","exempt":{"lendablePercent":50}}"#);
    check_created(GROUP, "PriorityLevelConfiguration", &[(&level, &[])]);
    let limited =
        r#""spec":{"type":"Limited","limited":{"nominalConcurrencyShares":5,"limitResponse":{"type":"Reject"}}}"#;
    check_created(GROUP, "PriorityLevelConfiguration", &[(&named("catch-all", limited), &[])]);
    let found = crate::rules::created(
        GROUP,
        "v1",
        "PriorityLevelConfiguration",
        &named("catch-all", &limited.replace('5', "6")),
    );
    assert!(found.len() == 1 && found[0].ends_with("spec of 'catch-all' must equal the fixed value"), "{found:?}");
}

#[test]
fn levels() {
    let limited = |rest: &str| named("l", &format!(r#""spec":{{"type":"Limited","limited":{{{rest}}}}}"#));
    let queue = |rest: &str| limited(&format!(r#""limitResponse":{{"type":"Queue","queuing":{{{rest}}}}}"#));
    check_created(
        GROUP,
        "PriorityLevelConfiguration",
        &[
            (&queue(""), &[]),
            (&limited(r#""nominalConcurrencyShares":0,"limitResponse":{"type":"Reject"}"#), &[]),
            (
                &named("l", r#""spec":{"type":"Exempt"}"#),
                &[r#"spec.type: Invalid value: "Exempt": type must be 'Exempt' if and only if name is 'exempt'"#],
            ),
            (
                &named("l", r#""spec":{"type":"Limited"}"#),
                &["spec.limited: Required value: must not be empty when type is Limited"],
            ),
            (
                &named("l", r#""spec":{"type":"x"}"#),
                &[r#"spec.type: Unsupported value: "x": supported values: "Exempt", "Limited""#],
            ),
            (
                &limited(
                    r#""nominalConcurrencyShares":-1,"lendablePercent":101,"borrowingLimitPercent":-1,"limitResponse":{"type":"x"}"#,
                ),
                &[
                    "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                    r#"spec.limited.limitResponse.type: Unsupported value: "x": supported values: "Queue", "Reject""#,
                    "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                    "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
                ],
            ),
            (
                &limited(r#""limitResponse":{"type":"Queue"}"#),
                &[
                    "spec.limited.limitResponse.queuing: Required value: must not be empty if limited.limitResponse.type is Limited",
                ],
            ),
            (
                &limited(r#""limitResponse":{"type":"Reject","queuing":{}}"#),
                &[
                    "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
                ],
            ),
            (
                &queue(r#""queues":-1,"queueLengthLimit":-1,"handSize":-1"#),
                &[
                    "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
                    "spec.limited.limitResponse.queuing.queues: Invalid value: -1: must be positive",
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: -1: must be positive",
                ],
            ),
            (
                &queue(r#""queues":4,"handSize":8"#),
                &[
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (4)",
                ],
            ),
            (
                &queue(r#""queues":512,"handSize":8"#),
                &[
                    "spec.limited.limitResponse.queuing.handSize: Invalid value: 8: required entropy bits of deckSize 512 and handSize 8 should not be greater than 60",
                ],
            ),
        ],
    );
    check_updated(
        GROUP,
        "PriorityLevelConfiguration",
        "status",
        &queue(""),
        &[(
            r#""spec""#,
            r#""status":{"conditions":[{"type":"a"},{"type":"a"},{}]},"spec""#,
            &[
                r#"status.conditions[1].type: Duplicate value: "a""#,
                "status.conditions[2].type: Required value: must not be empty",
            ],
        )],
    );
}
