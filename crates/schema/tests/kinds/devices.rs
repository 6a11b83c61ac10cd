use crate::{check_created, check_updated, named};

const GROUP: &str = "resource.k8s.io";

fn claim(devices: &str) -> String {
    named("c", &format!(r#""spec":{{"devices":{{{devices}}}}}"#))
}

const REQUEST: &str = r#""requests":[{"name":"r","exactly":{"deviceClassName":"c"}}]"#;

#[test]
fn claims() {
    let exactly =
        |rest: &str| claim(&format!(r#""requests":[{{"name":"r","exactly":{{"deviceClassName":"c",{rest}}}}}]"#));
    check_created(
        GROUP,
        "ResourceClaim",
        &[
            (&claim(REQUEST), &[]),
            (
                &claim(
                    r#""requests":[{"name":"r","firstAvailable":[{"name":"a","deviceClassName":"c"},{"name":"b","deviceClassName":"c"}]}],"constraints":[{"requests":["r","r/a"],"matchAttribute":"d.example.com/x"}]"#,
                ),
                &[],
            ),
            (
                &claim(r#""requests":[{"name":"r"},{"name":"r","exactly":{"deviceClassName":""}}]"#),
                &[
                    "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
                    "spec.devices.requests[1].exactly.deviceClassName: Required value",
                    r#"spec.devices.requests[1]: Duplicate value: "r""#,
                ],
            ),
            (
                &exactly(r#""allocationMode":"All","count":1"#),
                &[
                    "spec.devices.requests[0].exactly.count: Invalid value: 1: must not be specified when allocationMode is 'All'",
                ],
            ),
            (
                &exactly(r#""count":-1"#),
                &["spec.devices.requests[0].exactly.count: Invalid value: -1: must be greater than zero"],
            ),
            (
                &exactly(r#""allocationMode":"x""#),
                &[
                    r#"spec.devices.requests[0].exactly.allocationMode: Unsupported value: "x": supported values: "All", "ExactCount""#,
                ],
            ),
            (&exactly(r#""selectors":[{}]"#), &["spec.devices.requests[0].exactly.selectors[0].cel: Required value"]),
            (
                &exactly(
                    r#""tolerations":[{"key":"a","operator":"Exists","value":"v"},{"operator":"x"},{"effect":"x"}]"#,
                ),
                &[
                    r#"spec.devices.requests[0].exactly.tolerations[0].value: Invalid value: "v": must be empty for operator `Exists`"#,
                    r#"spec.devices.requests[0].exactly.tolerations[1].operator: Unsupported value: "x": supported values: "Equal", "Exists""#,
                    r#"spec.devices.requests[0].exactly.tolerations[2].effect: Unsupported value: "x": supported values: "NoExecute", "NoSchedule", "None""#,
                ],
            ),
            (
                &claim(&format!(r#"{REQUEST},"constraints":[{{"requests":["x"],"matchAttribute":"a"}},{{}}]"#)),
                &[
                    r#"spec.devices.constraints[0].requests[0]: Invalid value: "x": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"#,
                    r#"spec.devices.constraints[0].matchAttribute: Invalid value: "a": a fully qualified name must be a domain and a name separated by a slash"#,
                    "spec.devices.constraints[1]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
                ],
            ),
            (
                &claim(&format!(r#"{REQUEST},"config":[{{}},{{"opaque":{{"driver":"","parameters":[]}}}}]"#)),
                &[
                    "spec.devices.config[0].opaque: Required value",
                    "spec.devices.config[1].opaque.driver: Required value",
                    "spec.devices.config[1].opaque.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                    r#"spec.devices.config[1].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object"#,
                ],
            ),
        ],
    );
    let found =
        crate::rules::updated(GROUP, "v1", "ResourceClaim", "", &exactly(r#""count":2"#), &exactly(r#""count":1"#));
    assert!(
        found.len() == 1
            && found[0].starts_with("spec: Invalid value: {")
            && found[0].ends_with(": field is immutable")
    );
}

#[test]
fn claims_are_given_devices() {
    let old = claim(REQUEST);
    let result = r#"{"request":"r","driver":"d.example.com","pool":"p","device":"a"}"#;
    let allocated =
        |rest: &str| format!(r#""status":{{"allocation":{{"devices":{{"results":[{result}]}}}}{rest}}},"spec""#);
    check_updated(
        GROUP,
        "ResourceClaim",
        "status",
        &old,
        &[
            (r#""spec""#, &allocated(r#","reservedFor":[{"resource":"pods","name":"p","uid":"1"}]"#), &[]),
            (
                r#""spec""#,
                r#""status":{"reservedFor":[{"resource":"pods","name":"p","uid":""}]},"spec""#,
                &[
                    "status.reservedFor[0].uid: Required value",
                    "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
                ],
            ),
            (
                r#""spec""#,
                &allocated("").replace(r#""request":"r""#, r#""request":"x""#).replace(r#""pool":"p""#, r#""pool":"""#),
                &[
                    r#"status.allocation.devices.results[0].request: Invalid value: "x": must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"#,
                    "status.allocation.devices.results[0].pool: Required value",
                ],
            ),
            (
                r#""spec""#,
                &allocated(
                    r#","devices":[{"driver":"d.example.com","pool":"p","device":"b","networkData":{"ips":["10.0.0.1","10.0.0.1/24"]}}]"#,
                ),
                &[
                    r#"status.devices[0]: Invalid value: "d.example.com/p/b": must be an allocated device in the claim"#,
                    r#"status.devices[0].networkData.ips[0]: Invalid value: "10.0.0.1": must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"#,
                ],
            ),
        ],
    );
}

#[test]
fn classes() {
    let class = |spec: &str| named("c", &format!(r#""spec":{{{spec}}}"#));
    check_created(
        GROUP,
        "DeviceClass",
        &[
            (&class(r#""selectors":[{"cel":{"expression":"true"}}],"extendedResourceName":"example.com/gpu""#), &[]),
            (
                &class(r#""selectors":[{}],"config":[{}],"extendedResourceName":"cpu""#),
                &[
                    "spec.selectors[0].cel: Required value",
                    "spec.config[0].opaque: Required value",
                    r#"spec.extendedResourceName: Invalid value: "cpu": must be a valid extended resource name"#,
                ],
            ),
        ],
    );
}

#[test]
fn slices() {
    let slice = |rest: &str| {
        named(
            "s",
            &format!(
                r#""spec":{{"driver":"d.example.com","pool":{{"name":"p","generation":1,"resourceSliceCount":1}},{rest}}}"#
            ),
        )
    };
    let device = |rest: &str| slice(&format!(r#""nodeName":"n","devices":[{{"name":"a",{rest}}}]"#));
    const ONE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    check_created(
        GROUP,
        "ResourceSlice",
        &[
            (
                &device(
                    r#""attributes":{"x":{"string":"a"},"e.com/y":{"version":"1.2.3"}},"capacity":{"mem":{"value":"1Gi"}}"#,
                ),
                &[],
            ),
            (&slice(r#""devices":null"#), &[&format!("spec: Required value: {ONE}")]),
            (
                &slice(r#""nodeName":"n","allNodes":true"#),
                &[&format!(r#"spec: Invalid value: "{{`nodeName`, `allNodes`}}": {ONE}, but multiple fields are set"#)],
            ),
            (
                &slice(r#""nodeName":"n","devices":[{"name":"a"},{"name":"a"}]"#),
                &[r#"spec.devices[1]: Duplicate value: "a""#],
            ),
            (
                &device(r#""attributes":{"x":{},"y":{"int":1,"bool":true},"z/a/b":{"int":1},"v":{"version":"1"}}"#),
                &[
                    r#"spec.devices[0].attributes[v].version: Invalid value: "1": must be a string compatible with semver.org spec 2.0.0"#,
                    r#"spec.devices[0].attributes[x]: Invalid value: "": exactly one value must be specified"#,
                    r#"spec.devices[0].attributes[y]: Invalid value: {"bool":true,"int":1}: exactly one value must be specified"#,
                ],
            ),
            (
                &device(r#""capacity":{"m":{"value":"10","requestPolicy":{"default":"1"}}}"#),
                &["spec.devices[0].capacity[m].requestPolicy: Forbidden: allowMultipleAllocations must be true"],
            ),
            (
                &device(
                    r#""allowMultipleAllocations":true,"capacity":{"m":{"value":"10","requestPolicy":{"default":"3","validValues":["2","1","20"]}}}"#,
                ),
                &[
                    r#"spec.devices[0].capacity[m].requestPolicy.validValues[1]: Invalid value: "1": values must be sorted in ascending order"#,
                    r#"spec.devices[0].capacity[m].requestPolicy.validValues[2]: Invalid value: "20": option is larger than capacity value: 10"#,
                    r#"spec.devices[0].capacity[m].requestPolicy.validValues: Invalid value: "3": default value is not valid according to the requestPolicy"#,
                ],
            ),
            (
                &device(
                    r#""allowMultipleAllocations":true,"capacity":{"m":{"value":"10","requestPolicy":{"default":"3","validRange":{"min":"2","max":"8","step":"2"}}}}"#,
                ),
                &[
                    r#"spec.devices[0].capacity[m].requestPolicy.validRange.step: Invalid value: "3": value is not a multiple of a given step (2) from (2)"#,
                ],
            ),
            (
                &device(
                    r#""allowMultipleAllocations":true,"capacity":{"m":{"value":"10","requestPolicy":{"default":"1","validRange":{"min":"2"}}},"n":{"value":"10","requestPolicy":{"default":"5","validRange":{"min":"2","max":"4"}}}}"#,
                ),
                &[
                    r#"spec.devices[0].capacity[m].requestPolicy.validRange.min: Invalid value: "1": default is less than min: 2"#,
                    r#"spec.devices[0].capacity[n].requestPolicy.validRange.max: Invalid value: "5": default is more than max: 4"#,
                ],
            ),
            (
                &device(&format!(
                    r#""attributes":{{"a":{{"string":"x"}},"b":{{"ints":[{}]}}}}"#,
                    vec!["1"; 48].join(",")
                )),
                &["spec.devices[0]: Invalid value: 49: the total number of attribute values must not exceed 48"],
            ),
            (
                &device(
                    r#""capacity":{"mem":{"value":"1Gi"}},"nodeAllocatableResourceMappings":{"memory":{"capacityKey":"mem"},"cpu":{"allocationMultiplier":"2"},"a.b/c":{},"hugepages-2Mi":{"allocationMultiplier":"0","capacityKey":""},"pods":{"capacityKey":"x"}}"#,
                ),
                &[
                    r#"spec.devices[0].nodeAllocatableResourceMappings[a.b/c]: Invalid value: "a.b/c": must be a node allocatable resource name"#,
                    r#"spec.devices[0].nodeAllocatableResourceMappings[a.b/c]: Invalid value: "": at least one of allocationMultiplier or capacityKey must be set"#,
                    r#"spec.devices[0].nodeAllocatableResourceMappings[hugepages-2Mi].allocationMultiplier: Invalid value: "0": must be positive"#,
                    r#"spec.devices[0].nodeAllocatableResourceMappings[hugepages-2Mi].capacityKey: Invalid value: "": capacityKey must not be an empty string"#,
                    r#"spec.devices[0].nodeAllocatableResourceMappings[pods].capacityKey: Not found: "x""#,
                ],
            ),
            (
                &device(r#""taints":[{"key":"","effect":"x"}]"#),
                &[
                    "spec.devices[0].taints[0].key: Invalid value: \"\": name part must be non-empty",
                    "spec.devices[0].taints[0].key: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                    r#"spec.devices[0].taints[0].effect: Unsupported value: "x": supported values: "NoExecute", "NoSchedule", "None""#,
                ],
            ),
            (
                &device(r#""nodeName":"n""#),
                &[
                    r#"spec.devices[0]: Invalid value: "null": `nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec"#,
                ],
            ),
            (
                &device(r#""bindingConditions":["a"]"#),
                &[
                    "spec.devices[0].bindingFailureConditions: Invalid value: []: bindingFailureConditions are required to use bindingConditions",
                ],
            ),
            (
                &device(r#""consumesCounters":[{"counterSet":"","counters":{}}]"#),
                &[
                    "spec.devices[0].consumesCounters[0].counterSet: Required value",
                    "spec.devices[0].consumesCounters[0].counters: Required value",
                ],
            ),
            (
                &slice(
                    r#""nodeName":"n","sharedCounters":[{"name":"a","counters":{"x":{"value":"1"}}},{"name":"a","counters":{"x":{"value":"1"}}}]"#,
                ),
                &[r#"spec.sharedCounters[1]: Duplicate value: "a""#],
            ),
        ],
    );
    check_updated(
        GROUP,
        "ResourceSlice",
        "",
        &device(r#""bindsToNode":true"#),
        &[
            (r#""name":"p""#, r#""name":"q""#, &[r#"spec.pool.name: Invalid value: "q": field is immutable"#]),
            (r#""nodeName":"n""#, r#""nodeName":"m""#, &[r#"spec.nodeName: Invalid value: "m": field is immutable"#]),
        ],
    );
}

#[test]
fn taint_rules() {
    let rule = |spec: &str| named("r", &format!(r#""spec":{{{spec}}}"#));
    let created = |spec: &str| crate::rules::created(GROUP, "v1alpha3", "DeviceTaintRule", &rule(spec));
    assert!(created(r#""deviceSelector":{"driver":"d.example.com","pool":"p/q","device":"a"},"taint":{"key":"e.com/k","value":"v","effect":"NoExecute"}"#).is_empty());
    assert!(created(r#""taint":{"key":"k","effect":"None"}"#).is_empty());
    let found = created(r#""deviceSelector":{"driver":"","pool":"","device":"A"},"taint":{"key":"","value":"-"}"#);
    let starts = [
        "spec.deviceSelector.driver: Required value",
        "spec.deviceSelector.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain",
        "spec.deviceSelector.pool: Required value",
        "spec.deviceSelector.device: Invalid value: \"A\": a lowercase RFC 1123 label",
        "spec.taint.key: Invalid value: \"\": name part must be non-empty",
        "spec.taint.key: Invalid value: \"\": name part must consist",
        "spec.taint.value: Invalid value: \"-\": a valid label",
        "spec.taint.effect: Required value",
    ];
    assert!(
        found.len() == starts.len() && found.iter().zip(starts).all(|(told, start)| told.starts_with(start)),
        "{found:#?}"
    );
    let update =
        |sub: &str, new: &str, old: &str| crate::rules::updated(GROUP, "v1alpha3", "DeviceTaintRule", sub, new, old);
    let old = rule(r#""taint":{"key":"k","effect":"OfTomorrow"}"#);
    assert!(update("", &old.replace(r#""k""#, r#""l""#), &old).is_empty(), "what is stored is not judged again");
    assert_eq!(
        update("", &old.replace("Tomorrow", "Yesterday"), &old),
        [r#"spec.taint.effect: Unsupported value: "OfYesterday": supported values: "NoExecute", "NoSchedule", "None""#]
    );
    let conditions: Vec<String> = (0..9)
        .map(|i| format!(r#"{{"type":"T{i}","status":"True","reason":"r","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}}"#))
        .collect();
    let told = old.replace(r#""spec""#, &format!(r#""status":{{"conditions":[{}]}},"spec""#, conditions.join(",")));
    assert_eq!(update("status", &told, &old), ["status.conditions: Too many: 9: must have at most 8 items"]);
}

#[test]
fn what_is_left_of_pools_is_told_once() {
    let request = |spec: &str, status: &str| format!(r#"{{"metadata":{{"name":"r"}},"spec":{spec}{status}}}"#);
    let kind = "ResourcePoolStatusRequest";
    let created = |spec: &str| crate::rules::created(GROUP, "v1alpha3", kind, &request(spec, ""));
    assert_eq!(created(r#"{"driver":"d.example.com","poolName":"a/b"}"#), [""; 0]);
    assert_eq!(
        created(r#"{"driver":"","poolName":"","limit":0}"#),
        [
            "spec.driver: Required value",
            "spec.poolName: Required value",
            "spec.limit: Invalid value: 0: must be greater than or equal to 1"
        ]
    );
    assert_eq!(
        created(r#"{"driver":"d.example.com","limit":1001}"#),
        ["spec.limit: Invalid value: 1001: must be less than or equal to 1000"]
    );
    let good = r#"{"driver":"d.example.com"}"#;
    let updated = |sub: &str, new: &str, old: &str| crate::rules::updated(GROUP, "v1alpha3", kind, sub, new, old);
    assert_eq!(
        updated("", &request(r#"{"driver":"e.example.com"}"#, ""), &request(good, "")),
        [r#"spec: Invalid value: "null": field is immutable"#]
    );
    let with = |status: &str| request(good, &format!(r#","status":{status}"#));
    let answer = |status: &str| updated("status", &with(status), &request(good, ""));
    let told = r#"{"poolCount":1,"pools":[{"driver":"d.example.com","poolName":"p","generation":1,"totalDevices":2}]}"#;
    assert_eq!(answer(told), [""; 0]);
    assert_eq!(
        answer(r#"{"pools":[{"driver":"d.example.com","poolName":"p","resourceSliceCount":0,"totalDevices":-1}]}"#),
        [
            "status.poolCount: Required value",
            "status.pools[0].generation: Required value",
            "status.pools[0].resourceSliceCount: Invalid value: 0: must be greater than or equal to 1",
            "status.pools[0].totalDevices: Invalid value: -1: must be greater than or equal to 0",
        ]
    );
    assert_eq!(
        updated("status", &with(r#"{"poolCount":2}"#), &with(told)),
        [r#"status: Invalid value: {"PoolCount":2,"Pools":null,"Conditions":null}: field is immutable"#]
    );
}
