use crate::rules::object;
use crate::{check_created, check_updated, named, rules};
use schema::validation;

#[test]
fn runtime_classes() {
    let whole =
        named("r", r#""handler":"runc","overhead":{"podFixed":{"cpu":"1"}},"scheduling":{"nodeSelector":{"a":"b"}}"#);
    check_created(
        "node.k8s.io",
        "RuntimeClass",
        &[
            (&whole, &[]),
            (&named("r", r#""handler":"a.b""#), &[r#"handler: Invalid value: "a.b": must not contain dots"#]),
            (
                &named(
                    "r",
                    r#""handler":"h","scheduling":{"tolerations":[{"key":"a","operator":"Exists"},{"key":"b","operator":"Exists"},{"key":"a","operator":"Exists","effect":""}]}"#,
                ),
                &[
                    r#"scheduling.tolerations[2]: Duplicate value: {"Key":"a","Operator":"Exists","Value":"","Effect":"","TolerationSeconds":null}"#,
                ],
            ),
            (
                &named(
                    "r",
                    r#""handler":"h","overhead":{"podFixed":{"cpu":"-1"}},"scheduling":{"tolerations":[{"operator":"Equal"}]}"#,
                ),
                &[
                    r#"overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
                    r#"scheduling.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys""#,
                ],
            ),
        ],
    );
    check_updated(
        "node.k8s.io",
        "RuntimeClass",
        "",
        &whole,
        &[
            ("runc", "crun", &[r#"handler: Invalid value: "crun": field is immutable"#]),
            (r#""a":"b""#, r#""a":"c""#, &[]),
            (
                r#""cpu":"1""#,
                r#""cpu":"-1""#,
                &[r#"overhead.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0"#],
            ),
        ],
    );
}

#[test]
fn priority_classes() {
    const PREFIX: &str =
        "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error:";
    let whole = named("p", r#""value":1000"#);
    check_created(
        "scheduling.k8s.io",
        "PriorityClass",
        &[
            (&whole, &[]),
            (&named("system-node-critical", r#""value":2000001000"#), &[]),
            (&named("system-x", r#""value":1"#), &[&format!("{PREFIX} system-x is not a known system priority class")]),
            (
                &named("system-node-critical", r#""value":1"#),
                &[&format!("{PREFIX} value of system-node-critical PriorityClass must be 2000001000")],
            ),
            (
                &named("p", r#""value":1000000001,"preemptionPolicy":"x""#),
                &[
                    "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
                    r#"preemptionPolicy: Unsupported value: "x": supported values: "PreemptLowerPriority", "Never""#,
                ],
            ),
        ],
    );
    check_updated(
        "scheduling.k8s.io",
        "PriorityClass",
        "",
        &whole,
        &[
            ("1000", "2000", &["value: Forbidden: may not be changed in an update."]),
            (
                r#""value""#,
                r#""preemptionPolicy":"Never","value""#,
                &[r#"preemptionPolicy: Invalid value: "Never": field is immutable"#],
            ),
            (r#""value""#, r#""description":"d","globalDefault":true,"value""#, &[]),
        ],
    );
}

#[test]
fn api_services() {
    let whole = named(
        "v1.e.com",
        r#""spec":{"group":"e.com","version":"v1","groupPriorityMinimum":1,"versionPriority":1,"service":{"name":"n","namespace":"s"}}"#,
    );
    check_created(
        "apiregistration.k8s.io",
        "APIService",
        &[
            (&whole, &[]),
            (
                &whole.replace("v1.e.com", "x"),
                &[r#"metadata.name: Invalid value: "x": must be `spec.version+"."+spec.group`: "v1.e.com""#],
            ),
            (
                &whole
                    .replace(r#""groupPriorityMinimum":1"#, r#""groupPriorityMinimum":20001"#)
                    .replace(r#""versionPriority":1"#, r#""versionPriority":0"#),
                &[
                    "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                    "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
                ],
            ),
            (
                &whole.replace(r#"{"name":"n","namespace":"s"}"#, r#"{"port":0}"#),
                &[
                    "spec.service.namespace: Required value",
                    "spec.service.name: Required value",
                    "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                &whole.replace(
                    r#""service":{"name":"n","namespace":"s"}"#,
                    r#""caBundle":"AAAA","insecureSkipTLSVerify":true"#,
                ),
                &[
                    r#"spec.caBundle: Invalid value: "3 bytes": local APIServices may not have a caBundle"#,
                    "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
                ],
            ),
            (
                &whole.replace(r#""service""#, r#""caBundle":"AAAA","insecureSkipTLSVerify":true,"service""#),
                &["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"],
            ),
        ],
    );
    check_updated(
        "apiregistration.k8s.io",
        "APIService",
        "status",
        &whole,
        &[(
            r#""spec""#,
            r#""status":{"conditions":[{"type":"Available","status":"x"}]},"spec""#,
            &[r#"status.conditions[0].status: Unsupported value: "x": supported values: "True", "False", "Unknown""#],
        )],
    );
}

#[test]
fn endpoint_slices() {
    let hinted = |hints: &str| {
        named("s", &format!(r#""addressType":"IPv4","endpoints":[{{"addresses":["10.0.0.1"],"hints":{{{hints}}}}}]"#))
    };
    let many = |n: usize| (0..n).map(|i| format!(r#"{{"name":"n{i}"}}"#)).collect::<Vec<_>>().join(",");
    check_created(
        "discovery.k8s.io",
        "EndpointSlice",
        &[
            (&hinted(r#""forZones":[{"name":"a"}],"forNodes":[{"name":"n"}]"#), &[]),
            (
                &hinted(r#""forZones":[{"name":"a"},{"name":"a"}],"forNodes":[{"name":"n"},{"name":"n"}]"#),
                &[
                    r#"endpoints[0].hints.forZones[1].name: Duplicate value: "a""#,
                    r#"endpoints[0].hints.forNodes[1].name: Duplicate value: "n""#,
                ],
            ),
            (&hinted(&format!(r#""forNodes":[{}]"#, many(8))), &[]),
            (
                &hinted(&format!(r#""forNodes":[{}]"#, many(9))),
                &["endpoints[0].hints.forNodes: Too many: 9: must have at most 8 items"],
            ),
            (
                &hinted(&format!(r#""forZones":[{}],"forNodes":[{}]"#, many(9), many(9))),
                &["endpoints[0].hints.forZones: Too many: 9: must have at most 8 items"],
            ),
            (
                &hinted(r#""forNodes":[{"name":"A"}]"#),
                &[
                    r#"endpoints[0].hints.forNodes[0].name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#,
                ],
            ),
        ],
    );
}

#[test]
fn leases() {
    let lease = |spec: &str| named("l", &format!(r#""spec":{{{spec}}}"#));
    check_created(
        "coordination.k8s.io",
        "Lease",
        &[
            (
                &lease(r#""leaseDurationSeconds":0,"leaseTransitions":-1"#),
                &[
                    "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                    "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                &lease(r#""strategy":"x""#),
                &[r#"spec.strategy.strategy: Unsupported value: "x": supported values: "OldestEmulationVersion""#],
            ),
            (
                &lease(r#""preferredHolder":"a""#),
                &["spec.preferredHolder: Forbidden: may only be specified if `strategy` is defined"],
            ),
        ],
    );
}

#[test]
fn candidates_of_leases() {
    let candidate = |spec: &str| named("c", &format!(r#""spec":{{{spec}}}"#));
    let good = candidate(
        r#""leaseName":"l","binaryVersion":"1.36.0","emulationVersion":"1.35.0","strategy":"OldestEmulationVersion""#,
    );
    let cases: &[(&str, &[&str])] = &[
        (&good, &[]),
        (
            &candidate(""),
            &["spec.leaseName: Required value", "spec.binaryVersion: Required value", "spec.strategy: Required value"],
        ),
        (
            &candidate(r#""leaseName":"l","binaryVersion":"v1","emulationVersion":"1.35","strategy":"x""#),
            &[
                r#"spec.emulationVersion: Invalid value: "1.35": must be a valid semantic version"#,
                r#"spec.binaryVersion: Invalid value: "v1": must be a valid semantic version"#,
                r#"spec.strategy.strategy: Unsupported value: "x": supported values: "OldestEmulationVersion""#,
            ],
        ),
        (
            &candidate(r#""leaseName":"l","binaryVersion":"1.35.0","emulationVersion":"1.36.0","strategy":"a.b/c""#),
            &[r#"spec.binaryVersion: Invalid value: "1.35.0": must be greater than or equal to `emulationVersion`"#],
        ),
        (
            &candidate(r#""leaseName":"l","binaryVersion":"1.35.0","strategy":"OldestEmulationVersion""#),
            &["spec.emulationVersion: Required value: must be specified when `strategy` is 'OldestEmulationVersion'"],
        ),
    ];
    let group = "coordination.k8s.io";
    for (object, expected) in cases {
        assert_eq!(rules::created(group, "v1beta1", "LeaseCandidate", object), *expected, "{object}");
    }
    let moved = good.replace(r#""leaseName":"l""#, r#""leaseName":"m""#);
    assert_eq!(
        rules::updated(group, "v1beta1", "LeaseCandidate", "", &moved, &good),
        [r#"spec.leaseName: Invalid value: "m": field is immutable"#]
    );
}

#[test]
fn storage_versions() {
    let version = |status: &str| named("apps.deployments", &format!(r#""spec":{{}},"status":{{{status}}}"#));
    let server = |id: &str, encoding: &str, more: &str| {
        format!(r#"{{"apiServerID":"{id}","encodingVersion":"{encoding}","decodableVersions":["{encoding}"]{more}}}"#)
    };
    let servers = |list: &[String], rest: &str| version(&format!(r#""storageVersions":[{}]{rest}"#, list.join(",")));
    let (a, b) = (server("a", "apps/v1", ""), server("b", "apps/v2", ""));
    let disagree = "should be nil if servers do not agree on the same encoding version, or if there is no server reporting the supported versions yet";
    let condition = r#","conditions":[{"type":"X","status":"True","reason":"","message":""}]"#;
    let cases: &[(&str, &[&str])] = &[
        (&servers(std::slice::from_ref(&a), r#","commonEncodingVersion":"apps/v1""#), &[]),
        (&servers(&[a.clone(), b.clone()], ""), &[]),
        (
            &servers(std::slice::from_ref(&a), ""),
            &["status.commonEncodingVersion: Invalid value: null: the common encoding version is apps/v1"],
        ),
        (
            &servers(&[a.clone(), b], r#","commonEncodingVersion":"apps/v1""#),
            &[&format!(r#"status.commonEncodingVersion: Invalid value: "apps/v1": {disagree}"#)],
        ),
        (
            &servers(std::slice::from_ref(&a), r#","commonEncodingVersion":"apps/v2""#),
            &[
                r#"status.commonEncodingVersion: Invalid value: "apps/v2": the actual common encoding version is apps/v1"#,
            ],
        ),
        (
            &servers(&[server("a", "apps/", "")], r#","commonEncodingVersion":"apps/""#),
            &[
                r#"status.storageVersions[0].encodingVersion: Invalid value: "apps/": version part: must be non-empty"#,
                r#"status.storageVersions[0].decodableVersions[0]: Invalid value: "apps/": version part: must be non-empty"#,
            ],
        ),
        (
            &servers(&[a], &format!(r#","commonEncodingVersion":"apps/v1"{condition}"#)),
            &[
                "status[0].reason: Required value: reason cannot be empty",
                "status[0].message: Required value: message cannot be empty",
            ],
        ),
    ];
    let (group, api) = ("internal.apiserver.k8s.io", "v1alpha1");
    for (object, expected) in cases {
        assert_eq!(rules::created(group, api, "StorageVersion", object), *expected, "{object}");
        let before = version("");
        assert_eq!(rules::updated(group, api, "StorageVersion", "status", object, &before), *expected, "{object}");
        assert!(rules::updated(group, api, "StorageVersion", "", object, &before).is_empty());
    }
}

#[test]
fn what_is_old_is_warned_of() {
    const ARCH: &str = r#"deprecated since v1.14; use "kubernetes.io/arch" instead"#;
    let created: &[(&str, &str, &str, &[&str])] = &[
        (
            "",
            "Node",
            r#""spec":{"externalID":"a"}"#,
            &["spec.externalID: this field is deprecated, and is unused by Kubernetes"],
        ),
        (
            "storage.k8s.io",
            "StorageClass",
            r#""allowedTopologies":[{"matchLabelExpressions":[{"key":"a"},{"key":"beta.kubernetes.io/arch"}]}]"#,
            &[&format!("allowedTopologies[0].matchLabelExpressions[1].key: {ARCH}")],
        ),
        (
            "storage.k8s.io",
            "CSIStorageCapacity",
            r#""nodeTopology":{"matchLabels":{"beta.kubernetes.io/arch":"a"},"matchExpressions":[{"key":"beta.kubernetes.io/arch"}]}"#,
            &[
                &format!("nodeTopology.matchExpressions[0].key: beta.kubernetes.io/arch is {ARCH}"),
                &format!("nodeTopology.matchLabels.beta.kubernetes.io/arch: {ARCH}"),
            ],
        ),
        (
            "node.k8s.io",
            "RuntimeClass",
            r#""scheduling":{"nodeSelector":{"beta.kubernetes.io/arch":"a"}}"#,
            &[&format!("scheduling.nodeSelector: {ARCH}")],
        ),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            r#""addressType":"FQDN""#,
            &["spec.addressType: FQDN endpoints are deprecated"],
        ),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            r#""endpoints":[{"addresses":["10.0.0.1","010.0.0.1"]},{"addresses":["::ffff:10.0.0.1","2001:DB8:0::1","2001:db8::1"]}]"#,
            &[
                r#"endpoints[0].addresses[1]: non-standard IP address "010.0.0.1" will be considered invalid in a future Kubernetes release: use "10.0.0.1""#,
                r#"endpoints[1].addresses[0]: non-standard IP address "::ffff:10.0.0.1" will be considered invalid in a future Kubernetes release: use "10.0.0.1""#,
                r#"endpoints[1].addresses[1]: IPv6 address "2001:DB8:0::1" should be in RFC 5952 canonical format ("2001:db8::1")"#,
            ],
        ),
        (
            "",
            "Endpoints",
            r#""subsets":[{"notReadyAddresses":[{"ip":"01.2.3.4"}]}]"#,
            &[
                r#"subsets[0].notReadyAddresses[0].ip: non-standard IP address "01.2.3.4" will be considered invalid in a future Kubernetes release: use "1.2.3.4""#,
            ],
        ),
    ];
    for (group, kind, rest, expected) in created {
        let object = object(group, "v1", kind, &named("n", rest));
        assert_eq!(
            validation::warnings(group, kind, "", &object, None, Default::default()),
            *expected,
            "{kind} {rest}"
        );
    }
    let fqdn = object("discovery.k8s.io", "v1", "EndpointSlice", &named("n", r#""addressType":"FQDN""#));
    assert!(
        validation::warnings("discovery.k8s.io", "EndpointSlice", "", &fqdn, Some(&fqdn), Default::default())
            .is_empty()
    );
}

/// An event in the shape that both groups store.
fn event(rest: &str) -> schema::Map {
    let text = format!(
        r#"{{"metadata":{{"name":"e","namespace":"default"}},"involvedObject":{{"namespace":"default"}}{rest}}}"#
    );
    object("", "v1", "Event", &text)
}

fn shown(errors: &[api::FieldError]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

const NEW: &str = r#","eventTime":"2024-01-01T00:00:00.000000Z","type":"Normal","reason":"R","action":"A","reportingComponent":"e.com/c","reportingInstance":"i""#;

#[test]
fn events_of_the_newer_group_are_held_to_more() {
    let old = event(r#","reason":"R","count":3,"source":{"component":"c"}"#);
    assert_eq!(shown(&validation::create("", "Event", &old, Default::default())), [""; 0]);
    assert_eq!(
        shown(&validation::create("events.k8s.io", "Event", &old, Default::default())),
        [
            "eventTime: Required value",
            r#"type: Invalid value: "": has invalid value: "#,
            r#"count: Invalid value: "": needs to be unset"#,
            r#"source: Invalid value: "": needs to be unset"#,
        ]
    );
    let new = event(NEW);
    assert_eq!(shown(&validation::create("events.k8s.io", "Event", &new, Default::default())), [""; 0]);
    let series = event(&format!(r#"{NEW},"series":{{"count":1}}"#));
    assert_eq!(
        shown(&validation::create("events.k8s.io", "Event", &series, Default::default())),
        [r#"series.count: Invalid value: "": should be at least 2"#, "series.lastObservedTime: Required value"]
    );
    let long = event(&NEW.replace(r#""A""#, &format!(r#""{}""#, "a".repeat(129))));
    assert_eq!(
        shown(&validation::create("", "Event", &long, Default::default())),
        [r#"action: Invalid value: "": can have at most 128 characters"#]
    );
}

#[test]
fn events_of_the_newer_group_change_in_their_series_alone() {
    let old = event(NEW);
    let series = event(&format!(r#"{NEW},"series":{{"count":2,"lastObservedTime":"2024-01-01T00:00:01.000000Z"}}"#));
    assert_eq!(shown(&validation::update("events.k8s.io", "Event", "", &series, &old, Default::default())), [""; 0]);
    let other = event(&NEW.replace(r#""R""#, r#""S""#).replace("e.com/c", "e.com/d"));
    assert_eq!(shown(&validation::update("", "Event", "", &other, &old, Default::default())), [""; 0]);
    assert_eq!(
        shown(&validation::update("events.k8s.io", "Event", "", &other, &old, Default::default())),
        [
            r#"reason: Invalid value: "S": field is immutable"#,
            r#"reportingController: Invalid value: "e.com/d": field is immutable"#,
        ]
    );
}
