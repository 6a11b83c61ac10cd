use crate::rules::{created, object, updated};
use crate::{check_created, check_updated};

const GROUP: &str = "apiextensions.k8s.io";
const KIND: &str = "CustomResourceDefinition";

/// A definition of one version with this schema.
fn with_schema(schema: &str) -> String {
    definition(&format!(r#""schema":{{"openAPIV3Schema":{schema}}}"#))
}

/// A definition of one version with these further fields.
fn definition(version: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"widgets.example.com"}},"spec":{{"group":"example.com","scope":"Namespaced","names":{{"plural":"widgets","kind":"Widget"}},"versions":[{{"name":"v1","served":true,"storage":true,{version}}}]}}}}"#
    )
}

const OBJECT: &str = r#"{"type":"object","properties":{"spec":{"type":"object","properties":{"size":{"type":"integer"},"colour":{"type":"string"},"deep":{"type":"object"}}}}}"#;

#[test]
fn definitions() {
    let whole = with_schema(OBJECT);
    check_created(
        GROUP,
        KIND,
        &[
            (&whole, &[]),
            (&whole.replace("widgets.example.com", "x.example.com"), &[
                r#"metadata.name: Invalid value: "x.example.com": must be spec.names.plural+"."+spec.group"#,
            ]),
            (&whole.replace(r#""group":"example.com""#, r#""group":"example""#).replace("widgets.example.com", "widgets.example"), &[
                r#"spec.group: Invalid value: "example": should be a domain with at least one dot"#,
            ]),
            (&whole.replace(r#""Namespaced""#, r#""x""#), &[
                r#"spec.scope: Unsupported value: "x": supported values: "Cluster", "Namespaced""#,
            ]),
            (&whole.replace(r#""storage":true"#, r#""storage":false"#), &[
                r#"spec.versions: Invalid value: [{"Name":"v1","Served":true,"Storage":false,"Deprecated":false,"DeprecationWarning":null,"Schema":null,"Subresources":null,"AdditionalPrinterColumns":null,"SelectableFields":null}]: must have exactly one version marked as storage version"#,
                "status.storedVersions: Invalid value: []: must have at least one stored version",
            ]),
            (&whole.replace(r#""kind":"Widget""#, r#""kind":"Widget","listKind":"Widget","shortNames":["W"]"#), &[
                "spec.names.shortNames[0]: Invalid value: \"W\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                r#"spec.names.listKind: Invalid value: "Widget": kind and listKind may not be the same"#,
            ]),
            (&definition(r#""additionalPrinterColumns":[]"#), &[
                "spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required",
            ]),
            (&whole.replace(r#""served":true"#, r#""served":true,"deprecated":true,"deprecationWarning":"ö é\\ 'e\u0301'""#), &[]),
            (&whole.replace(r#""served":true"#, r#""served":true,"deprecated":true,"deprecationWarning":"ö\u200b""#), &[
                "spec.versions[0].deprecationWarning: Invalid value: \"ö\\u200b\": must only contain printable UTF-8 characters; non-printable character found at index 2",
            ]),
            (&whole.replace(r#""served":true"#, r#""served":true,"deprecationWarning":"x""#), &[
                r#"spec.versions[0].deprecationWarning: Invalid value: "x": can only be set for deprecated versions"#,
            ]),
            (&whole.replace(r#""scope""#, r#""preserveUnknownFields":true,"scope""#), &[
                "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
            ]),
            (&whole.replace("example.com", "x.k8s.io"), &[
                "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
            ]),
            (&whole.replace(r#""schema":"#, r#""additionalPrinterColumns":[{"name":"","type":"x","format":"x","jsonPath":"a"}],"schema":"#), &[
                "spec.additionalPrinterColumns[0].name: Required value",
                r#"spec.additionalPrinterColumns[0].type: Invalid value: "x": must be one of boolean,date,integer,number,string"#,
                r#"spec.additionalPrinterColumns[0].format: Invalid value: "x": must be one of byte,date,date-time,double,float,int32,int64,password"#,
                r#"spec.additionalPrinterColumns[0].JSONPath: Invalid value: "a": must be a simple json path starting with ."#,
            ]),
            (&whole.replace(r#""schema":"#, r#""subresources":{"scale":{"specReplicasPath":".status.x","statusReplicasPath":"","labelSelectorPath":".x"}},"schema":"#), &[
                r#"spec.subresources.scale.specReplicasPath: Invalid value: ".status.x": should be a json path under .spec"#,
                "spec.subresources.scale.statusReplicasPath: Required value",
                r#"spec.subresources.scale.labelSelectorPath: Invalid value: ".x": should be a json path under either .spec or .status"#,
            ]),
            (&whole.replace(r#""schema":"#, r#""selectableFields":[{"jsonPath":".spec.colour"},{"jsonPath":".spec.colour"},{"jsonPath":".spec.none"},{"jsonPath":".spec.deep"},{"jsonPath":"spec"}],"schema":"#), &[
                r#"spec.selectableFields[1].jsonPath: Duplicate value: ".spec.colour""#,
                r#"spec.selectableFields[2].jsonPath: Invalid value: ".spec.none": is an invalid path: does not refer to a valid field"#,
                r#"spec.selectableFields[3].jsonPath: Invalid value: ".spec.deep": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."#,
                r#"spec.selectableFields[4].jsonPath: Invalid value: "spec": is an invalid path: expected [ or . but got: spec"#,
            ]),
        ],
    );
}

#[test]
fn conversions() {
    let with =
        |conversion: &str| with_schema(OBJECT).replace(r#""scope""#, &format!(r#""conversion":{conversion},"scope""#));
    check_created(
        GROUP,
        KIND,
        &[
            (
                &with(
                    r#"{"strategy":"Webhook","webhook":{"clientConfig":{"url":"https://h"},"conversionReviewVersions":["v1"]}}"#,
                ),
                &[],
            ),
            (
                &with(r#"{"strategy":"x"}"#),
                &[r#"spec.conversion.strategy: Unsupported value: "x": supported values: "None", "Webhook""#],
            ),
            (
                &with(r#"{"strategy":"Webhook"}"#),
                &[
                    "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                    "spec.conversion.conversionReviewVersions: Required value",
                ],
            ),
            (
                &with(
                    r#"{"strategy":"None","webhook":{"clientConfig":{"url":"https://h"},"conversionReviewVersions":["v1"]}}"#,
                ),
                &[
                    "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
                    "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
                ],
            ),
            (
                &with(r#"{"strategy":"Webhook","webhook":{"clientConfig":{},"conversionReviewVersions":["v7"]}}"#),
                &[
                    "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required",
                    r#"spec.conversion.conversionReviewVersions: Invalid value: ["v7"]: must include at least one of v1, v1beta1"#,
                ],
            ),
        ],
    );
}

#[test]
fn schemas() {
    let below = |property: &str| with_schema(&format!(r#"{{"type":"object","properties":{{"a":{property}}}}}"#));
    let at = "spec.validation.openAPIV3Schema";
    for (schema, expected) in [
        (with_schema("{}"), vec![format!("{at}.type: Required value: must not be empty at the root")]),
        (
            with_schema(r#"{"type":"string"}"#),
            vec![format!(r#"{at}.type: Invalid value: "string": must be object at the root"#)],
        ),
        (
            with_schema(r#"{"type":"object","nullable":true}"#),
            vec![format!("{at}.nullable: Forbidden: nullable cannot be true at the root")],
        ),
        (
            below("{}"),
            vec![format!("{at}.properties[a].type: Required value: must not be empty for specified object fields")],
        ),
        (
            below(r#"{"type":"array","items":{}}"#),
            vec![format!("{at}.properties[a].items.type: Required value: must not be empty for specified array items")],
        ),
        (
            below(r#"{"type":"strange"}"#),
            vec![format!(
                r#"{at}.properties[a].type: Unsupported value: "strange": supported values: "array", "boolean", "integer", "number", "object", "string""#
            )],
        ),
        (
            below(r##"{"type":"string","$ref":"#/x"}"##),
            vec![format!("{at}.properties[a].$ref: Forbidden: $ref is not supported")],
        ),
        (
            below(r#"{"type":"array","uniqueItems":true,"items":{"type":"string"}}"#),
            vec![format!(
                "{at}.properties[a].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
            )],
        ),
        (
            below(r#"{"type":"object","properties":{"b":{"type":"string"}},"additionalProperties":{"type":"string"}}"#),
            vec![format!(
                "{at}.properties[a].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"
            )],
        ),
        (
            below(r#"{"type":"object","x-kubernetes-preserve-unknown-fields":false}"#),
            vec![format!(
                "{at}.properties[a].x-kubernetes-preserve-unknown-fields: Invalid value: false: must be true or undefined"
            )],
        ),
        (
            below(r#"{"type":"object","x-kubernetes-embedded-resource":true}"#),
            vec![format!(
                "{at}.properties[a].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
            )],
        ),
        (
            below(r#"{"type":"string","x-kubernetes-list-type":"set","x-kubernetes-map-type":"x"}"#),
            vec![
                format!(
                    r#"{at}.properties[a].type: Invalid value: "string": must be object if x-kubernetes-map-type is specified"#
                ),
                format!(
                    r#"{at}.properties[a].x-kubernetes-map-type: Unsupported value: "x": supported values: "atomic", "granular""#
                ),
                format!(
                    r#"{at}.properties[a].type: Invalid value: "string": must be array if x-kubernetes-list-type is specified"#
                ),
            ],
        ),
        (
            below(
                r#"{"type":"array","x-kubernetes-list-type":"map","x-kubernetes-list-map-keys":["k","o"],"items":{"type":"object","properties":{"k":{"type":"string"}}}}"#,
            ),
            vec![
                format!(
                    r#"{at}.properties[a].x-kubernetes-list-map-keys: Invalid value: ["k","o"]: entries must all be names of item properties"#
                ),
                format!(
                    "{at}.properties[a].items.properties[k].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
                ),
            ],
        ),
        (
            below(r#"{"type":"array","x-kubernetes-list-type":"set","items":{"type":"object"}}"#),
            vec![format!(
                "{at}.properties[a].items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set"
            )],
        ),
        (
            with_schema(r#"{"type":"object","properties":{"metadata":{"type":"object","default":{}}}}"#),
            vec![format!("{at}.properties[metadata].default: Forbidden: must not be set in top-level metadata")],
        ),
        (
            below(
                r#"{"type":"string","x-kubernetes-validations":[{"rule":" "},{"rule":"a\nb"},{"rule":"true","reason":"x"}]}"#,
            ),
            vec![
                format!("{at}.properties[a].x-kubernetes-validations[0].rule: Required value: rule is not specified"),
                format!(
                    "{at}.properties[a].x-kubernetes-validations[1].message: Required value: message must be specified if rule contains line breaks"
                ),
                format!(
                    r#"{at}.properties[a].x-kubernetes-validations[2].reason: Unsupported value: "x": supported values: "FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired""#
                ),
            ],
        ),
    ] {
        assert_eq!(created(GROUP, "v1", KIND, &schema), expected, "{schema}");
    }
}

#[test]
fn what_versions_have_of_their_own_is_told_at_the_version() {
    let version = |name: &str, storage: bool, schema: &str| {
        format!(r#"{{"name":"{name}","served":true,"storage":{storage},"schema":{{"openAPIV3Schema":{schema}}}}}"#)
    };
    let two = with_schema(OBJECT);
    let one = version("v1", true, OBJECT);
    let start = two.find(r#"{"name":"v1""#).expect("a version");
    let end = two.rfind("]}}").expect("the end");
    let both = format!(
        "{}{one},{}{}",
        &two[..start],
        version("v2", false, r#"{"type":"object","properties":{"x":{}}}"#),
        &two[end..]
    );
    assert_eq!(
        created(GROUP, "v1", KIND, &both),
        [
            "spec.versions[1].schema.openAPIV3Schema.properties[x].type: Required value: must not be empty for specified object fields"
        ]
    );
    let same = format!("{}{one},{}{}", &two[..start], version("v2", true, OBJECT), &two[end..]);
    let found = created(GROUP, "v1", KIND, &same);
    assert!(found[0].ends_with("must have exactly one version marked as storage version"), "{found:?}");
}

#[test]
fn definitions_keep_what_objects_are_stored_by() {
    let old = with_schema(OBJECT)
        .replace(r#""spec":{"group""#, r#""status":{"storedVersions":["v1"],"conditions":[{"type":"Established","status":"True"}],"acceptedNames":{"plural":"widgets","kind":"Widget"}},"spec":{"group""#);
    check_updated(
        GROUP,
        KIND,
        "",
        &old,
        &[
            (r#""Namespaced""#, r#""Cluster""#, &[r#"spec.scope: Invalid value: "Cluster": field is immutable"#]),
            (
                r#""kind":"Widget"}"#,
                r#""kind":"Gadget"}"#,
                &[r#"spec.names.kind: Invalid value: "Gadget": field is immutable"#],
            ),
            (
                r#""name":"v1""#,
                r#""name":"v2""#,
                &[
                    r#"status.storedVersions: Invalid value: ["v1"]: must have the storage version v2"#,
                    r#"status.storedVersions[0]: Invalid value: "v1": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"#,
                ],
            ),
        ],
    );
    // What is stored already may stay as it is.
    let odd = with_schema(r#"{"type":"object","properties":{"a":{"type":"strange"}}}"#);
    assert_eq!(updated(GROUP, "v1", KIND, "", &odd, &odd), [""; 0]);
}

#[test]
fn unknown_formats_are_warned_of_once() {
    let text = with_schema(
        r#"{"type":"object","properties":{"a":{"type":"string","format":"odd"},"b":{"type":"integer","format":"int32"}}}"#,
    );
    let map = object(GROUP, "v1", KIND, &text);
    assert_eq!(
        schema::validation::warnings(GROUP, KIND, "", &map, None, Default::default()),
        [r#"unrecognized format "odd""#]
    );
    assert_eq!(schema::validation::warnings(GROUP, KIND, "", &map, Some(&map), Default::default()), [""; 0]);
}
