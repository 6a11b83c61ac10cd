use crate::{check_created, check_updated, named};

const GROUP: &str = "admissionregistration.k8s.io";

fn hook(rest: &str) -> String {
    named(
        "c",
        &format!(
            r#""webhooks":[{{"name":"a.example.com","sideEffects":"None","admissionReviewVersions":["v1"],"clientConfig":{{"url":"https://h/p"}}{rest}}}]"#
        ),
    )
}

#[test]
fn webhooks() {
    let whole =
        hook(r#","rules":[{"operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"]}]"#);
    let config = |config: &str| whole.replace(r#"{"url":"https://h/p"}"#, config);
    let url = |url: &str| config(&format!(r#"{{"url":"{url}"}}"#));
    for kind in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
        check_created(
            GROUP,
            kind,
            &[
                (&whole, &[]),
                (
                    &whole.replace("a.example.com", "a.b"),
                    &[
                        r#"webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots"#,
                    ],
                ),
                (
                    &whole.replace(r#""sideEffects":"None","#, ""),
                    &["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
                ),
                (
                    &whole.replace(r#""sideEffects":"None""#, r#""sideEffects":"Some""#),
                    &[
                        r#"webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun""#,
                    ],
                ),
                (
                    &whole.replace(r#"ions":["v1"],"cl"#, r#"ions":[],"cl"#),
                    &["webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"],
                ),
                (
                    &whole.replace(r#"ions":["v1"],"cl"#, r#"ions":["v2","v2"],"cl"#),
                    &[
                        r#"webhooks[0].admissionReviewVersions[1]: Invalid value: "v2": duplicate version"#,
                        r#"webhooks[0].admissionReviewVersions: Invalid value: ["v2","v2"]: must include at least one of v1, v1beta1"#,
                    ],
                ),
                (
                    &hook(r#","timeoutSeconds":31,"failurePolicy":"x","matchPolicy":"x""#),
                    &[
                        r#"webhooks[0].failurePolicy: Unsupported value: "x": supported values: "Fail", "Ignore""#,
                        r#"webhooks[0].matchPolicy: Unsupported value: "x": supported values: "Equivalent", "Exact""#,
                        "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
                    ],
                ),
                (
                    &config("{}"),
                    &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
                ),
                (
                    &url("http://h"),
                    &[
                        r#"webhooks[0].clientConfig.url: Invalid value: "http": 'https' is the only allowed URL scheme; desired format: https://host[/path]"#,
                    ],
                ),
                (
                    &url("https://u@h?q#f"),
                    &[
                        r#"webhooks[0].clientConfig.url: Invalid value: "u": user information is not permitted in the URL"#,
                        r#"webhooks[0].clientConfig.url: Invalid value: "f": fragments are not permitted in the URL"#,
                        r#"webhooks[0].clientConfig.url: Invalid value: "q": query parameters are not permitted in the URL"#,
                    ],
                ),
                (
                    &config(r#"{"service":{"name":"n","namespace":"","path":"x/","port":0}}"#),
                    &[
                        "webhooks[0].clientConfig.service.name: Required value: service name is required",
                        "webhooks[0].clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                        r#"webhooks[0].clientConfig.service.path: Invalid value: "x/": must start with a '/'"#,
                        r#"webhooks[0].clientConfig.service.path: Invalid value: "x/": segment[0] may not be empty"#,
                    ],
                ),
                (
                    &whole.replace(r#"["pods"]"#, r#"["pods/*","pods/log","*","*/status","nodes/status","nodes"]"#),
                    &[
                        r#"webhooks[0].rules[0].resources[1]: Invalid value: "pods/log": if 'pods/*' is present, must not specify pods/log"#,
                        r#"webhooks[0].rules[0].resources[4]: Invalid value: "nodes/status": if '*/status' is present, must not specify nodes/status"#,
                        r#"webhooks[0].rules[0].resources: Invalid value: ["pods/*","pods/log","*","*/status","nodes/status","nodes"]: if '*' is present, must not specify other resources without subresources"#,
                    ],
                ),
                (
                    &whole.replace(r#"["CREATE"]"#, r#"["*","x"]"#).replace(r#"[""]"#, "[]"),
                    &[
                        r#"webhooks[0].rules[0].operations: Invalid value: ["*","x"]: if '*' is present, must not specify other operations"#,
                        r#"webhooks[0].rules[0].operations[1]: Unsupported value: "x": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE""#,
                        "webhooks[0].rules[0].apiGroups: Required value",
                    ],
                ),
                (
                    &hook(
                        r#","matchConditions":[{"name":"a/b/c","expression":" "},{"name":"","expression":"true"},{"name":"x","expression":"true"},{"name":"x","expression":"true"}]"#,
                    ),
                    &[
                        "webhooks[0].matchConditions[0].expression: Required value",
                        "webhooks[0].matchConditions[0].name: Invalid value: \"a/b/c\": a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                        "webhooks[0].matchConditions[1].name: Required value",
                        r#"webhooks[0].matchConditions[3].name: Duplicate value: "x""#,
                    ],
                ),
            ],
        );
    }
    check_created(
        GROUP,
        "MutatingWebhookConfiguration",
        &[(
            &hook(r#","reinvocationPolicy":"x""#),
            &[r#"webhooks[0].reinvocationPolicy: Unsupported value: "x": supported values: "IfNeeded", "Never""#],
        )],
    );
}

#[test]
fn values_of_selectors_that_were_taken_once_are_taken_again() {
    let selector = |value: &str| {
        hook(&format!(
            r#","objectSelector":{{"matchExpressions":[{{"key":"a","operator":"In","values":["{value}"]}}]}}"#
        ))
    };
    let path = "webhooks[0].objectSelector.matchExpressions[0]";
    let bad = format!(
        "{path}.values[0]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    );
    let kind = "ValidatingWebhookConfiguration";
    check_created(GROUP, kind, &[(&selector("-"), &[&bad])]);
    check_updated(GROUP, kind, "", &selector("x"), &[(r#"["x"]"#, r#"["-"]"#, &[&bad])]);
    let unknown = format!("{path}.operator: Invalid value: \"x\": not a valid selector operator");
    check_updated(
        GROUP,
        kind,
        "",
        &selector("-"),
        &[(r#"["-"]"#, r#"["-","+"]"#, &[]), (r#""In""#, r#""x""#, &[&unknown])],
    );
}

#[test]
fn an_update_of_webhooks_demands_no_more_than_what_was() {
    let old = hook("").replace(r#""sideEffects":"None""#, r#""sideEffects":"Some""#).replace(r#"["v1"]"#, r#"["v9"]"#);
    check_updated(
        GROUP,
        "ValidatingWebhookConfiguration",
        "",
        &old,
        &[
            ("https://h/p", "https://h/q", &[]),
            (
                r#""Some""#,
                r#""Other""#,
                &[
                    r#"webhooks[0].sideEffects: Unsupported value: "Other": supported values: "None", "NoneOnDryRun", "Some", "Unknown""#,
                ],
            ),
        ],
    );
}

const RULES: &str = r#""matchConstraints":{"resourceRules":[{"operations":["CREATE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"]}]}"#;

fn policy(rest: &str) -> String {
    named("p", &format!(r#""spec":{{{RULES},{rest}}}"#))
}

#[test]
fn validating_policies() {
    const NONE: &str = "Required value: validations or auditAnnotations must contain at least one item";
    check_created(
        GROUP,
        "ValidatingAdmissionPolicy",
        &[
            (&policy(r#""validations":[{"expression":"true"}]"#), &[]),
            (
                &named("p", r#""spec":{}"#),
                &[
                    "spec.matchConstraints: Required value",
                    &format!("spec.validations: {NONE}"),
                    &format!("spec.auditAnnotations: {NONE}"),
                ],
            ),
            (
                &policy(
                    r#""validations":[{"expression":" ","message":" ","messageExpression":" ","reason":"x"},{"expression":"true","message":"a\nb"}]"#,
                ),
                &[
                    "spec.validations[0].expression: Required value: expression is not specified",
                    r#"spec.validations[0].messageExpression: Invalid value: " ": must be non-empty if specified"#,
                    r#"spec.validations[0].message: Invalid value: " ": must be non-empty if specified"#,
                    r#"spec.validations[0].reason: Unsupported value: "x": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge""#,
                    r#"spec.validations[1].message: Invalid value: "a\nb": must not contain line breaks"#,
                ],
            ),
            (
                &policy(
                    r#""validations":[{"expression":"true"}],"variables":[{"name":"for","expression":""},{"name":"","expression":"1"}]"#,
                ),
                &[
                    r#"spec.variables[0].name: Invalid value: "for": must be a valid CEL identifier"#,
                    "spec.variables[0].expression: Required value: expression is not specified",
                    "spec.variables[1].name: Required value: name is not specified",
                ],
            ),
            (
                &policy(r#""auditAnnotations":[{"key":"a","valueExpression":"''"},{"key":"a","valueExpression":""}]"#),
                &[
                    "spec.auditAnnotations[1].valueExpression: Required value: valueExpression is not specified",
                    r#"spec.auditAnnotations[1].key: Duplicate value: "a""#,
                ],
            ),
            (
                &policy(r#""validations":[{"expression":"true"}],"paramKind":{"apiVersion":"a/b/c","kind":""}"#),
                &[
                    r#"spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
                    "spec.paramKind.kind: Required value",
                ],
            ),
            (
                &named(
                    "p",
                    r#""spec":{"failurePolicy":"x","matchConstraints":{"matchPolicy":"x"},"validations":[{"expression":"true"}]}"#,
                ),
                &[
                    r#"spec.failurePolicy: Unsupported value: "x": supported values: "Fail", "Ignore""#,
                    r#"spec.matchConstraints.matchPolicy: Unsupported value: "x": supported values: "Equivalent", "Exact""#,
                    "spec.matchConstraints.resourceRules: Required value",
                ],
            ),
        ],
    );
    check_updated(
        GROUP,
        "ValidatingAdmissionPolicy",
        "status",
        &policy(r#""validations":[{"expression":"true"}]"#),
        &[(
            r#""spec""#,
            r#""status":{"conditions":[{"type":"T","status":"x","reason":"","message":"","lastTransitionTime":null}],"typeChecking":{"expressionWarnings":[{"fieldRef":"","warning":""}]}},"spec""#,
            &[
                "status.typeChecking.expressionWarnings[0].warning: Required value",
                "status.typeChecking.expressionWarnings[0].fieldRef: Required value",
                r#"status.conditions[0].status: Unsupported value: "x": supported values: "False", "True", "Unknown""#,
                "status.conditions[0].lastTransitionTime: Required value: must be set",
                "status.conditions[0].reason: Required value: must be set",
            ],
        )],
    );
}

#[test]
fn mutating_policies() {
    let mutation =
        r#""reinvocationPolicy":"Never","mutations":[{"patchType":"JSONPatch","jsonPatch":{"expression":"[]"}}]"#;
    check_created(
        GROUP,
        "MutatingAdmissionPolicy",
        &[
            (&policy(mutation), &[]),
            (
                &policy(r#""mutations":[]"#),
                &[
                    "spec.mutations: Required value: mutations must contain at least one item",
                    "spec.reinvocationPolicy: Required value",
                ],
            ),
            (
                &policy(
                    &mutation
                        .replace(r#""jsonPatch":{"expression":"[]"}"#, r#""applyConfiguration":{"expression":"x"}"#),
                ),
                &[
                    "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch",
                    r#"spec.mutations[0].applyConfiguration: Invalid value: "{applyConfiguration}": must not be specified when patchType is JSONPatch"#,
                ],
            ),
            (
                &policy(&mutation.replace(r#""JSONPatch""#, r#""x""#)),
                &[
                    r#"spec.mutations[0].patchType: Unsupported value: "x": supported values: "ApplyConfiguration", "JSONPatch""#,
                ],
            ),
            (
                &policy(mutation).replace("CREATE", "DELETE"),
                &[
                    r#"spec.matchConstraints.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE""#,
                ],
            ),
        ],
    );
}

#[test]
fn bindings() {
    let binding = |rest: &str| named("b", &format!(r#""spec":{{"policyName":"p"{rest}}}"#));
    check_created(
        GROUP,
        "ValidatingAdmissionPolicyBinding",
        &[
            (&binding(r#","validationActions":["Deny","Audit"]"#), &[]),
            (
                &binding(r#","validationActions":["Deny","Warn","Warn","x"]"#),
                &[
                    r#"spec.validationActions[2]: Duplicate value: "Warn""#,
                    r#"spec.validationActions[3]: Unsupported value: "x": supported values: "Audit", "Deny", "Warn""#,
                    r#"spec.validationActions: Invalid value: ["Deny","Warn","Warn","x"]: must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"#,
                ],
            ),
            (&binding(""), &["spec.validationActions: Required value: at least one validation action is required"]),
            (
                &binding(r#","validationActions":["Deny"],"paramRef":{"name":"a","selector":{}}"#),
                &[
                    "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
                    "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
                    "spec.paramRef.parameterNotFoundAction: Required value",
                ],
            ),
            (
                &binding(r#","validationActions":["Deny"],"paramRef":{"parameterNotFoundAction":"x"}"#),
                &[
                    "spec.paramRef: Required value: one of name or selector must be specified",
                    r#"spec.paramRef.parameterNotFoundAction: Unsupported value: "x": supported values: "Deny", "Allow""#,
                ],
            ),
        ],
    );
    check_created(
        GROUP,
        "MutatingAdmissionPolicyBinding",
        &[
            (&binding(""), &[]),
            (&named("b", r#""spec":{}"#), &["spec.policyName: Required value"]),
            (
                &binding(
                    r#","matchResources":{"resourceRules":[{"operations":["DELETE"],"apiGroups":[""],"apiVersions":["v1"],"resources":["pods"]}]}"#,
                ),
                &[
                    r#"spec.matchResources.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE""#,
                ],
            ),
            (
                &binding(r#","matchResources":{"matchPolicy":"x"}"#),
                &[
                    r#"spec.matchResources.matchPolicy: Unsupported value: "x": supported values: "Equivalent", "Exact""#,
                ],
            ),
        ],
    );
}
