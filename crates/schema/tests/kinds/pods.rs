//! Pods through their subresources, and templates of pods.

use crate::{check_created, check_updated, rules};

fn pod(container: &str, rest: &str, status: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"p","namespace":"default"}},"spec":{{"containers":[{{"name":"a","image":"i"{container}}}]{rest}}},"status":{{{status}}}}}"#
    )
}

#[test]
fn resizes() {
    let old = pod(r#","resources":{"requests":{"cpu":"1","memory":"1Gi"}}"#, "", "");
    check_updated(
        "",
        "Pod",
        "resize",
        &old,
        &[
            (r#""cpu":"1""#, r#""cpu":"2""#, &[]),
            (r#""memory":"1Gi""#, r#""memory":"512Mi""#, &[]),
            (
                r#""cpu":"1","#,
                "",
                &["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"],
            ),
            (
                r#""requests":{"cpu":"1","memory":"1Gi"}"#,
                r#""limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"1","memory":"1Gi"}"#,
                &["spec: Invalid value: \"\": Pod QOS Class may not change as a result of resizing"],
            ),
            (
                r#""cpu":"1","#,
                r#""cpu":"1","ephemeral-storage":"1Gi","#,
                &["spec: Forbidden: only cpu and memory resources are mutable"],
            ),
            (r#""image":"i""#, r#""image":"j""#, &["spec: Forbidden: only cpu and memory resources are mutable"]),
        ],
    );
    let running = |resources: &str| {
        let status = format!(
            r#""containerStatuses":[{{"name":"a","ready":true,"restartCount":0,"image":"i","imageID":"","state":{{"running":{{}}}}{resources}}}]"#
        );
        pod(r#","resources":{"requests":{"cpu":"1"}}"#, "", &status)
    };
    let deaf = running("");
    let why = "spec: Forbidden: Pod running on node without support for resize";
    check_updated("", "Pod", "resize", &deaf, &[(r#""cpu":"1""#, r#""cpu":"2""#, &[why])]);
    let able = running(r#","resources":{"requests":{"cpu":"1"}}"#);
    assert_eq!(
        rules::updated("", "v1", "Pod", "resize", &able.replacen(r#""cpu":"1""#, r#""cpu":"2""#, 1), &able),
        Vec::<String>::new()
    );
    let mirror = old.replace(r#""name":"p""#, r#""name":"p","annotations":{"kubernetes.io/config.mirror":"x"}"#);
    assert_eq!(
        rules::updated("", "v1", "Pod", "resize", &mirror, &mirror),
        ["[]: Forbidden: static pods cannot be resized"]
    );
}

#[test]
fn statuses() {
    let ip = r#""podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}],"qosClass":"BestEffort""#;
    let old = pod(
        "",
        r#","restartPolicy":"Never""#,
        &format!(
            r#"{ip},"containerStatuses":[{{"name":"a","ready":false,"restartCount":0,"image":"i","imageID":"","state":{{"terminated":{{"exitCode":1}}}}}}]"#
        ),
    );
    check_updated(
        "",
        "Pod",
        "status",
        &old,
        &[
            (
                r#"{"terminated":{"exitCode":1}}"#,
                r#"{"running":{}}"#,
                &["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"],
            ),
            ("BestEffort", "Burstable", &[r#"status.qosClass: Invalid value: "Burstable": field is immutable"#]),
            (
                r#"[{"ip":"10.0.0.1"}]"#,
                r#"[{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]"#,
                &[
                    r#"status.podIPs: Invalid value: [{"IP":"10.0.0.1"},{"IP":"10.0.0.2"}]: may specify no more than one IP for each IP family"#,
                ],
            ),
            (r#"[{"ip":"10.0.0.1"}]"#, r#"[{"ip":"10.0.0.1"},{"ip":"2001:db8::1"}]"#, &[]),
            (
                r#""podIP":"#,
                r#""hostIP":"1.1.1.1","hostIPs":[{"ip":"2.2.2.2"}],"podIP":"#,
                &[r#"status.hostIPs[0].ip: Invalid value: "2.2.2.2": must be equal to `hostIP`"#],
            ),
            (
                r#""podIP":"#,
                r#""resourceClaimStatuses":[{"name":"x"}],"podIP":"#,
                &[
                    r#"status.resourceClaimStatuses[0].name: Invalid value: "x": must match the name of an entry in `spec.resourceClaims`"#,
                ],
            ),
            (r#""spec":{"#, r#""spec":{"nodeName":"n","#, &["status.nodeName: Forbidden: may not be changed directly"]),
            (
                r#""podIP":"#,
                r#""nominatedNodeName":"-","conditions":[{"type":"/","status":"True"}],"podIP":"#,
                &[
                    "metadata.conditions[0].Type: Invalid value: \"/\": prefix part must be non-empty",
                    "metadata.conditions[0].Type: Invalid value: \"/\": name part must be non-empty",
                    "metadata.conditions[0].Type: Invalid value: \"/\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                    "status.nominatedNodeName: Invalid value: \"-\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                ],
            ),
        ],
    );
}

#[test]
fn gated_pods_can_be_narrowed() {
    let term = |expressions: &str| {
        format!(
            r#","affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{expressions}]}}}}}}"#
        )
    };
    const ONE: &str = r#"{"matchExpressions":[{"key":"a","operator":"Exists"}]}"#;
    const TWO: &str = r#"{"matchExpressions":[{"key":"a","operator":"Exists"},{"key":"b","operator":"Exists"}]}"#;
    let gated = |affinity: &str| pod("", &format!(r#","schedulingGates":[{{"name":"g"}}]{affinity}"#), "");
    let terms = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let check = |new: &str, old: &str, expected: &[String]| {
        assert_eq!(rules::updated("", "v1", "Pod", "", &gated(new), &gated(old)), expected, "{new} ← {old}");
    };
    check(&term(ONE), "", &[]);
    check(&term(TWO), &term(ONE), &[]);
    check(
        &term(ONE),
        &term(TWO),
        &[format!("{terms}[0]: Invalid value: {ONE}: only additions are allowed (no mutations or deletions)")],
    );
    let both = format!("{ONE},{ONE}");
    check(
        &term(&both),
        &term(ONE),
        &[format!(
            "{terms}: Invalid value: [{both}]: no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        )],
    );
}

#[test]
fn ephemeral_containers_come_later() {
    let debugged = pod("", r#","ephemeralContainers":[{"name":"d","image":"i"}]"#, "");
    check_created("", "Pod", &[(&debugged, &["spec.ephemeralContainers: Forbidden: cannot be set on create"])]);
    let mirror = debugged.replace(r#""name":"p""#, r#""name":"p","annotations":{"kubernetes.io/config.mirror":"x"}"#);
    assert_eq!(
        rules::updated("", "v1", "Pod", "ephemeralcontainers", &mirror, &mirror),
        ["[]: Forbidden: static pods do not support ephemeral containers"]
    );
    let with = |field: &str| debugged.replace(r#""name":"d""#, &format!(r#""name":"d","{field}":{{}}"#));
    let told = |new: &str| rules::updated("", "v1", "Pod", "ephemeralcontainers", new, &pod("", "", ""));
    assert_eq!(told(&with("resources")), [""; 0]);
    assert_eq!(
        told(&with("lifecycle")),
        ["spec.ephemeralContainers[0].lifecycle: Forbidden: cannot be set for an Ephemeral Container"]
    );
}

#[test]
fn templates() {
    let template = r#"{"metadata":{"name":"t"},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}"#;
    check_created(
        "",
        "PodTemplate",
        &[
            (template, &[]),
            (r#"{"metadata":{"name":"t"}}"#, &["template.spec.containers: Required value"]),
            (
                &template.replace(r#""image":"i""#, r#""image":"""#),
                &["template.spec.containers[0].image: Required value"],
            ),
        ],
    );
}

#[test]
fn stop_signals() {
    let asks = |signal: &str, os: &str| {
        let os = if os.is_empty() { String::new() } else { format!(r#","os":{{"name":"{os}"}}"#) };
        rules::created("", "v1", "Pod", &pod(&format!(r#","lifecycle":{{"stopSignal":"{signal}"}}"#), &os, ""))
    };
    assert!(asks("SIGRTMIN+3", "linux").is_empty() && asks("SIGKILL", "windows").is_empty());
    let at = "spec.containers[0].lifecycle.stopSignal";
    let why = "may not be set for containers with empty `spec.os.name`";
    assert_eq!(asks("SIGTERM", ""), [format!("{at}: Forbidden: {why}")]);
    let why = r#"supported values: "SIGKILL", "SIGTERM""#;
    assert_eq!(asks("SIGHUP", "windows"), [format!(r#"{at}: Unsupported value: "SIGHUP": {why}"#)]);
    let told = asks("SIGTERMS", "linux").join("\n");
    assert!(
        told.starts_with(&format!(r#"{at}: Unsupported value: "SIGTERMS": supported values: "SIGABRT", "#)),
        "{told}"
    );
}

#[test]
fn host_names_of_their_own() {
    let asks = |name: &str, rest: &str| {
        rules::created("", "v1", "Pod", &pod("", &format!(r#","hostnameOverride":"{name}"{rest}"#), ""))
    };
    assert!(asks("a.b", r#","hostNetwork":false,"setHostnameAsFQDN":false"#).is_empty());
    let long = asks(&"a".repeat(65), "").join("\n");
    assert!(long.starts_with("spec.hostnameOverride: Too long: may not be more than 64 bytes"), "{long}");
    assert!(
        asks("A", "")[0].starts_with(r#"spec.hostnameOverride: Invalid value: "A": a lowercase RFC 1123 subdomain"#)
    );
    assert_eq!(
        asks("a", r#","hostNetwork":true,"setHostnameAsFQDN":true"#),
        [
            "spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
            "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true"
        ]
    );
}

#[test]
fn certificates_and_groups_of_pods() {
    let of = |rest: &str| {
        let certificate =
            format!(r#"{{"signerName":"example.com/s","keyType":"ED25519","credentialBundlePath":"c"{rest}}}"#);
        format!(
            r#"{{"metadata":{{"name":"p","namespace":"n"}},"spec":{{"restartPolicy":"Always","dnsPolicy":"ClusterFirst","terminationGracePeriodSeconds":30,"containers":[{{"name":"c","image":"i","imagePullPolicy":"Always","terminationMessagePolicy":"File"}}],"volumes":[{{"name":"v","projected":{{"sources":[{{"podCertificate":{certificate}}}]}}}}]}}}}"#
        )
    };
    let at = "spec.volumes[0].projected.sources[0].podCertificate";
    for (pod, expected) in [
        (of(r#","maxExpirationSeconds":3600,"userAnnotations":{"example.com/a":"b"}"#), vec![]),
        (
            of(r#","maxExpirationSeconds":60"#),
            vec![format!(
                "{at}.maxExpirationSeconds: Invalid value: 60: if provided, maxExpirationSeconds must be >= 3600"
            )],
        ),
        (
            of(r#","maxExpirationSeconds":7862401"#),
            vec![format!(
                "{at}.maxExpirationSeconds: Invalid value: 7862401: if provided, maxExpirationSeconds must be <= 7862400"
            )],
        ),
        (
            of(r#","userAnnotations":{"a":"b"}"#),
            vec![format!(
                r#"{at}.userAnnotations: Invalid value: "a": must be a domain-prefixed key (such as "acme.io/foo")"#
            )],
        ),
        (
            of("").replace("example.com/s", "s"),
            vec![format!(
                r#"{at}.signerName: Invalid value: "s": must be a fully qualified domain and path of the form 'example.com/signer-name'"#
            )],
        ),
        (of("").replace(r#""dnsPolicy""#, r#""schedulingGroup":{"podGroupName":"g"},"dnsPolicy""#), vec![]),
        (
            of("").replace(r#""dnsPolicy""#, r#""schedulingGroup":{"podGroupName":"A"},"dnsPolicy""#),
            vec![format!(
                r#"spec.schedulingGroup.podGroupName: Invalid value: "A": {}"#,
                api::names::dns1123_subdomain("A")[0]
            )],
        ),
        (
            of("").replace(r#""dnsPolicy""#, r#""schedulingGroup":{},"dnsPolicy""#),
            vec![r#"spec.schedulingGroup: Invalid value: "": must specify one of: `podGroupName`"#.to_owned()],
        ),
    ] {
        assert_eq!(rules::created("", "v1", "Pod", &pod), expected, "{pod}");
    }
}
