//! Ingresses, network policies, addresses and ranges.

use crate::{check_created, check_updated, named, rules};
use schema::validation;

const GROUP: &str = "networking.k8s.io";

fn ingress(path: &str) -> String {
    named("i", &format!(r#""spec":{{"rules":[{{"host":"a.b","http":{{"paths":[{{{path}}}]}}}}]}}"#))
}

#[test]
fn ingresses() {
    const BACKEND: &str = r#""backend":{"service":{"name":"s","port":{"number":80}}}"#;
    let spec = |spec: &str| named("i", &format!(r#""spec":{{{spec}}}"#));
    let path = |kind: &str, text: &str| ingress(&format!(r#""pathType":"{kind}","path":"{text}",{BACKEND}"#));
    let at = |why: &str| format!("spec.rules[0].http.paths[0].{why}");
    for (object, expected) in [
        (path("Prefix", "/"), vec![]),
        (path("ImplementationSpecific", ""), vec![]),
        // Names of Services may begin with a digit.
        (path("Prefix", "/").replace(r#""name":"s""#, r#""name":"1-s""#), vec![]),
        (
            path("Prefix", "/").replace(r#""name":"s""#, r#""name":"s.t""#),
            vec![at("backend.service.name: Invalid value: \"s.t\": must not contain dots")],
        ),
        (
            path("Exact", "a//b"),
            vec![
                at(r#"path: Invalid value: "a//b": must be an absolute path"#),
                at(r#"path: Invalid value: "a//b": must not contain '//'"#),
            ],
        ),
        (path("Prefix", "/a/.."), vec![at(r#"path: Invalid value: "/a/..": cannot end with '/..'"#)]),
        (
            path("x", "/"),
            vec![at(
                r#"pathType: Unsupported value: "x": supported values: "Exact", "ImplementationSpecific", "Prefix""#,
            )],
        ),
        (ingress(BACKEND), vec![at("pathType: Required value: pathType must be specified")]),
        (
            ingress(r#""pathType":"Exact","path":"/","backend":{}"#),
            vec![at(r#"backend: Invalid value: "": resource or service backend is required"#)],
        ),
        (
            ingress(r#""pathType":"Exact","path":"/","backend":{"service":{"name":"s","port":{}}}"#),
            vec![at("backend: Required value: port name or number is required")],
        ),
        (
            ingress(
                r#""pathType":"Exact","path":"/","backend":{"service":{"name":"s","port":{"name":"http","number":80}}}"#,
            ),
            vec![at(r#"backend: Invalid value: "": cannot set both port name & port number"#)],
        ),
        (
            ingress(r#""pathType":"Exact","path":"/","backend":{"resource":{"kind":"","name":"a/b"}}"#),
            vec![
                at("backend.resource.kind: Required value"),
                at(r#"backend.resource.name: Invalid value: "a/b": may not contain '/'"#),
            ],
        ),
        (
            spec(r#""tls":[]"#),
            vec!["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified".to_owned()],
        ),
        (spec(r#""rules":[{"http":{"paths":[]}}]"#), vec!["spec.rules[0].http.paths: Required value".to_owned()]),
        (
            spec(r#""rules":[{"host":"10.0.0.1"}]"#),
            vec![r#"spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address"#.to_owned()],
        ),
    ] {
        assert_eq!(rules::created(GROUP, "v1", "Ingress", &object), expected, "{object}");
    }
    let classed =
        path("Prefix", "/").replace(r#""name":"i""#, r#""name":"i","annotations":{"kubernetes.io/ingress.class":"a"}"#);
    let both = classed.replace(r#"{"rules""#, r#"{"ingressClassName":"b","rules""#);
    check_created(
        GROUP,
        "Ingress",
        &[(
            &both,
            &[
                r#"annotations.kubernetes.io/ingress.class: Invalid value: "a": must match `ingressClassName` when both are specified"#,
            ],
        )],
    );
    let object = rules::object(GROUP, "v1", "Ingress", &classed);
    assert_eq!(
        validation::warnings(GROUP, "Ingress", "", &object, None, Default::default()),
        ["annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"]
    );
    let status = named("i", r#""status":{"loadBalancer":{"ingress":[{"ip":"010.0.0.1"}]}}"#);
    check_updated(
        GROUP,
        "Ingress",
        "status",
        &status,
        &[
            (r#"{"ip""#, r#"{"hostname":"a.b"},{"ip""#, &[]),
            (
                "010.0.0.1",
                "10.0.0.01",
                &[r#"status.loadBalancer.ingress[0].ip: Invalid value: "10.0.0.01": must not have leading 0s"#],
            ),
        ],
    );
}

#[test]
fn ingress_classes() {
    let class = |spec: &str| named("c", &format!(r#""spec":{{{spec}}}"#));
    let with =
        |reference: &str| class(&format!(r#""controller":"a.b/c","parameters":{{"kind":"K","name":"n"{reference}}}"#));
    check_created(
        GROUP,
        "IngressClass",
        &[
            (&with(""), &[]),
            (&class(""), &["spec.controller: Required value"]),
            (
                &class(r#""controller":"x""#),
                &[r#"spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")"#],
            ),
            (
                &with(r#","scope":"Namespace""#),
                &["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
            ),
            (
                &with(r#","scope":"Cluster","namespace":"n""#),
                &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
            ),
            (
                &with(r#","scope":"x""#),
                &[r#"spec.parameters.scope: Unsupported value: "x": supported values: "Cluster", "Namespace""#],
            ),
        ],
    );
    let cases: &[(&str, &str, &[&str])] =
        &[("a.b/c", "a.b/d", &[r#"spec.controller: Invalid value: "a.b/d": field is immutable"#])];
    check_updated(GROUP, "IngressClass", "", &with(""), cases);
}

#[test]
fn network_policies() {
    let policy = |spec: &str| named("p", &format!(r#""spec":{{"podSelector":{{}},{spec}}}"#));
    let from = |peer: &str| policy(&format!(r#""ingress":[{{"from":[{peer}]}}]"#));
    let port = |port: &str| policy(&format!(r#""egress":[{{"ports":[{{{port}}}]}}]"#));
    let at = "spec.ingress[0].from[0]";
    for (object, expected) in [
        (from(r#"{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.1.0.0/16"]}}"#), vec![]),
        (port(r#""port":1,"endPort":5"#), vec![]),
        (from("{}"), vec![format!("{at}: Required value: must specify a peer")]),
        (
            from(r#"{"podSelector":{},"ipBlock":{"cidr":"10.0.0.0/8"}}"#),
            vec![format!("{at}: Forbidden: may not specify both ipBlock and another peer")],
        ),
        (from(r#"{"ipBlock":{"cidr":""}}"#), vec![format!("{at}.ipBlock.cidr: Required value")]),
        (
            from(r#"{"ipBlock":{"cidr":"10.0.0.1/8"}}"#),
            vec![format!(
                r#"{at}.ipBlock.cidr: Invalid value: "10.0.0.1/8": must not have bits set beyond the prefix length"#
            )],
        ),
        (
            from(r#"{"ipBlock":{"cidr":"10.0.0.0/8","except":["10.0.0.0/8","11.0.0.0/16","x"]}}"#),
            vec![
                format!(r#"{at}.ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`"#),
                format!(r#"{at}.ipBlock.except[1]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`"#),
                format!(
                    r#"{at}.ipBlock.except[2]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#
                ),
            ],
        ),
        (
            port(r#""port":5,"endPort":1"#),
            vec![
                "spec.egress[0].ports[0].endPort: Invalid value: 5: must be greater than or equal to `port`".to_owned(),
            ],
        ),
        (
            port(r#""port":"http","endPort":1"#),
            vec![
                "spec.egress[0].ports[0].endPort: Invalid value: 1: may not be specified when `port` is non-numeric"
                    .to_owned(),
            ],
        ),
        (
            port(r#""endPort":1,"protocol":"x""#),
            vec![
                r#"spec.egress[0].ports[0].protocol: Unsupported value: "x": supported values: "TCP", "UDP", "SCTP""#
                    .to_owned(),
                "spec.egress[0].ports[0].endPort: Invalid value: 1: may not be specified when `port` is not specified"
                    .to_owned(),
            ],
        ),
        (
            policy(r#""policyTypes":["Sideways"]"#),
            vec![
                r#"spec.policyTypes[0]: Unsupported value: "Sideways": supported values: "Ingress", "Egress""#
                    .to_owned(),
            ],
        ),
    ] {
        assert_eq!(rules::created(GROUP, "v1", "NetworkPolicy", &object), expected, "{object}");
    }
    // A range that was there stays, wherever it goes.
    let old = from(r#"{"ipBlock":{"cidr":"010.0.0.0/8"}}"#);
    assert_eq!(rules::updated(GROUP, "v1", "NetworkPolicy", "", &old, &old), Vec::<String>::new());
    let at = "spec.ingress[0].from[0].ipBlock.cidr";
    let old = "will be considered invalid in a future Kubernetes release: use";
    for (range, expected) in [
        ("10.0.0.0/8", vec![]),
        (
            "2001:DB8::/64",
            vec![format!(
                r#"{at}: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format ("2001:db8::/64")"#
            )],
        ),
        (
            "10.1.2.3/8",
            vec![format!(
                r#"{at}: CIDR value "10.1.2.3/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.2.3/32"?)"#
            )],
        ),
        ("010.0.0.0/8", vec![format!(r#"{at}: non-standard CIDR value "010.0.0.0/8" {old} "10.0.0.0/8""#)]),
        ("10.0.0.0/08", vec![format!(r#"{at}: non-standard CIDR value "10.0.0.0/08" {old} "10.0.0.0/8""#)]),
        (
            "::ffff:10.0.0.0/104",
            vec![format!(r#"{at}: non-standard CIDR value "::ffff:10.0.0.0/104" {old} "10.0.0.0/8""#)],
        ),
    ] {
        let text = from(&format!(r#"{{"ipBlock":{{"cidr":"{range}"}}}}"#));
        let object = rules::object(GROUP, "v1", "NetworkPolicy", &text);
        assert_eq!(
            validation::warnings(GROUP, "NetworkPolicy", "", &object, None, Default::default()),
            expected,
            "{range}"
        );
    }
    // Values of labels that were wrong in the policy's own selector are wrong no more.
    let selecting = |value: &str| {
        from(r#"{"podSelector":{}}"#).replace(
            r#""podSelector":{},"#,
            &format!(r#""podSelector":{{"matchExpressions":[{{"key":"a","operator":"In","values":["{value}"]}}]}},"#),
        )
    };
    let updated = |new: &str, old: &str| rules::updated(GROUP, "v1", "NetworkPolicy", "", new, old);
    assert_eq!(updated(&selecting("-b"), &selecting("-a")), Vec::<String>::new());
    assert_eq!(updated(&selecting("-b"), &selecting("a")).len(), 2);
}

const RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// A service of a type, with annotations and further fields.
fn service(annotations: &str, kind: &str, rest: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"s","namespace":"n","annotations":{{{annotations}}}}},"spec":{{"type":"{kind}","ports":[{{"port":80}}]{rest}}}}}"#
    )
}

#[test]
fn annotations_of_services() {
    let at = format!("metadata.annotations[{RANGES}]");
    let bad = |range: &str| {
        format!(r#"{at}: Invalid value: "{range}": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#)
    };
    let elsewhere = format!("{at}: Forbidden: may only be used when `type` is 'LoadBalancer'");
    let ranges = |text: &str| format!(r#""{RANGES}":"{text}""#);
    let own = r#","loadBalancerSourceRanges":["10.0.0.0/8"]"#;
    let (mode, hints) = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints");
    let both = |a: &str, b: &str| format!(r#""{mode}":"{a}","{hints}":"{b}""#);
    let differ = format!(
        r#"metadata.annotations[{mode}]: Invalid value: "Auto": must match annotations[{hints}] when both are specified"#
    );
    for (annotations, kind, rest, expected) in [
        (ranges("10.0.0.0/8, 192.0.2.0/24"), "LoadBalancer", "", vec![]),
        (ranges(" "), "LoadBalancer", "", vec![]),
        (ranges("10.0.0.0/8,x,"), "LoadBalancer", "", vec![bad("x"), bad("")]),
        (ranges("10.0.0.0/8"), "ClusterIP", "", vec![elsewhere.clone()]),
        (ranges("x"), "NodePort", "", vec![elsewhere.clone(), bad("x")]),
        // The field goes before it.
        (ranges("x"), "LoadBalancer", own, vec![]),
        (
            String::new(),
            "NodePort",
            own,
            vec!["spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'".to_owned()],
        ),
        (both("Auto", "auto"), "ClusterIP", "", vec![differ.clone()]),
        (both("Auto", "Auto"), "ClusterIP", "", vec![]),
        (format!(r#""{mode}":"Auto""#), "ClusterIP", "", vec![]),
    ] {
        let text = service(&annotations, kind, rest);
        assert_eq!(rules::created("", "v1", "Service", &text), expected, "{text}");
    }
    // What was there before is not looked at again, but where it may be is.
    let updated = |new: &str, old: &str| rules::updated("", "v1", "Service", "", new, old);
    let old = service(&ranges("x"), "LoadBalancer", "");
    assert_eq!(updated(&old, &old), Vec::<String>::new());
    assert_eq!(updated(&service(&ranges("y"), "LoadBalancer", ""), &old), [bad("y")]);
    assert_eq!(updated(&service(&ranges("x"), "NodePort", ""), &old), [elsewhere]);
    let odd = service("", "LoadBalancer", r#","loadBalancerSourceRanges":["10.0.0.1/8"],"externalIPs":["01.2.3.4"]"#);
    assert_eq!(updated(&odd, &odd), Vec::<String>::new());
    assert_eq!(rules::created("", "v1", "Service", &odd).len(), 2);
    // The kubelet's port is as good as any.
    let kubelet = service("", "LoadBalancer", "").replace("80", "10250");
    assert_eq!(rules::created("", "v1", "Service", &kubelet), Vec::<String>::new());
}

#[test]
fn the_first_address_of_a_service_stays() {
    let of = |rest: &str| service("", "ClusterIP", rest);
    let two = of(
        r#","clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1","fd00::1"],"ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"PreferDualStack""#,
    );
    let one = |policy: &str, ip: &str| {
        of(&format!(r#","clusterIP":"{ip}","clusterIPs":["{ip}"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"{policy}""#))
    };
    let updated = |new: &str, old: &str| rules::updated("", "v1", "Service", "", new, old);
    assert_eq!(updated(&two, &one("SingleStack", "10.0.0.1")), Vec::<String>::new());
    assert_eq!(updated(&one("SingleStack", "10.0.0.1"), &two), Vec::<String>::new());
    let released = |what: &str| {
        format!(
            r#"spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be set to 'SingleStack' when releasing the secondary {what}"#
        )
    };
    assert_eq!(updated(&one("PreferDualStack", "10.0.0.1"), &two), [released("clusterIP"), released("ipFamily")]);
    assert_eq!(
        updated(&one("SingleStack", "10.0.0.2"), &two),
        [r#"spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set"#]
    );
    let second = two.replace("fd00::1", "fd00::2");
    assert_eq!(
        updated(&second, &two),
        [r#"spec.clusterIPs[1]: Invalid value: ["10.0.0.1","fd00::2"]: may not change once set"#]
    );
    let balanced = |class: &str, port: &str| {
        service("", "LoadBalancer", &format!(r#","externalTrafficPolicy":"Local","healthCheckNodePort":{port}{class}"#))
    };
    let named = r#","loadBalancerClass":"a.b/c""#;
    assert_eq!(
        updated(&balanced("", "31000"), &balanced(named, "31000")),
        [r#"spec.loadBalancerClass: Invalid value: "null": may not change once set"#]
    );
    assert_eq!(
        updated(&balanced("", "31001"), &balanced("", "31000")),
        ["spec.healthCheckNodePort: Forbidden: field is immutable"]
    );
}

#[test]
fn who_tells_where_a_service_is_reached_is_told_of_odd_addresses() {
    let text = service("", "LoadBalancer", r#","externalIPs":["192.0.2.1"]"#).replace(
        r#""spec""#,
        r#""status":{"loadBalancer":{"ingress":[{"hostname":"a"},{"ip":"2001:DB8::1"}]}},"spec""#,
    );
    let object = rules::object("", "v1", "Service", &text);
    assert_eq!(
        validation::warnings("", "Service", "status", &object, Some(&object), Default::default()),
        [
            r#"status.loadBalancer.ingress[1]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#
        ]
    );
}

#[test]
fn services_are_warned_of() {
    let service = |spec: &str| {
        let text = named("s", &format!(r#""spec":{{"ports":[{{"port":80}}],{spec}}}"#));
        let object = rules::object("", "v1", "Service", &text);
        validation::warnings("", "Service", "", &object, None, Default::default())
    };
    let ignored = |field: &str| format!("spec.{field} is ignored for headless services");
    for (spec, expected) in [
        (r#""clusterIP":"10.0.0.1","clusterIPs":["10.0.0.1"]"#, vec![]),
        (
            r#""clusterIP":"None","clusterIPs":["None"],"loadBalancerIP":"1.2.3.4","sessionAffinity":"ClientIP""#,
            vec![ignored("loadBalancerIP"), ignored("SessionAffinity")],
        ),
        (
            r#""externalIPs":["2001:DB8::1"]"#,
            vec![
                "spec.externalIPs is deprecated".to_owned(),
                r#"spec.externalIPs[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#.to_owned(),
            ],
        ),
        (
            r#""type":"LoadBalancer","loadBalancerSourceRanges":["10.1.2.3/8"]"#,
            vec![
                r#"spec.loadBalancerSourceRanges[0]: CIDR value "10.1.2.3/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.2.3/32"?)"#.to_owned(),
            ],
        ),
        (
            r#""externalName":"a.b","trafficDistribution":"PreferClose""#,
            vec![
                r#"spec.externalName is ignored when spec.type is not "ExternalName""#.to_owned(),
                r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#.to_owned(),
            ],
        ),
    ] {
        assert_eq!(service(spec), expected, "{spec}");
    }
    let text = named("s", r#""spec":{"ports":[{"port":80}]}"#)
        .replace(r#""name":"s""#, r#""name":"s","annotations":{"service.kubernetes.io/topology-aware-hints":"auto"}"#);
    let object = rules::object("", "v1", "Service", &text);
    assert_eq!(
        validation::warnings("", "Service", "", &object, None, Default::default()),
        [
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use service.kubernetes.io/topology-mode instead"
        ]
    );
}

#[test]
fn addresses_and_ranges() {
    let address = named("10.0.0.1", r#""spec":{"parentRef":{"resource":"services","name":"s","namespace":"n"}}"#);
    check_created(
        GROUP,
        "IPAddress",
        &[
            (&address, &[]),
            (&named("10.0.0.1", r#""spec":{}"#), &["spec.parentRef: Required value"]),
            (
                &named("10.0.0.1", r#""spec":{"parentRef":{"group":"A","name":"a/b"}}"#),
                &[
                    "spec.parentRef.group: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                    "spec.parentRef.resource: Required value",
                    r#"spec.parentRef.name: Invalid value: "a/b": may not contain '/'"#,
                ],
            ),
        ],
    );
    let other = r#"spec.parentRef: Invalid value: {"Group":"","Resource":"services","Namespace":"n","Name":"t"}: field is immutable"#;
    check_updated(GROUP, "IPAddress", "", &address, &[(r#""s""#, r#""t""#, &[other])]);
    let range = |list: &str| named("r", &format!(r#""spec":{{"cidrs":{list}}}"#));
    check_created(
        GROUP,
        "ServiceCIDR",
        &[
            (&range(r#"["10.0.0.0/24","2001:db8::/64"]"#), &[]),
            (&range("[]"), &["spec.cidrs: Required value: at least one CIDR required"]),
            (
                &range(r#"["10.0.0.0/24","10.1.0.0/24"]"#),
                &[
                    r#"spec.cidrs: Invalid value: {"CIDRs":["10.0.0.0/24","10.1.0.0/24"]}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#,
                ],
            ),
            (
                &range(r#"["x","10.1.0.0/24"]"#),
                &[
                    r#"spec.cidrs: Invalid value: {"CIDRs":["x","10.1.0.0/24"]}: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#,
                ],
            ),
            (
                &range(r#"["10.0.0.0/24","10.1.0.0/24","2001:db8::/64"]"#),
                &[
                    r#"spec.cidrs: Invalid value: {"CIDRs":["10.0.0.0/24","10.1.0.0/24","2001:db8::/64"]}: may only hold up to 2 values"#,
                ],
            ),
            (
                &range(r#"["2001:DB8::/64"]"#),
                &[r#"spec.cidrs[0]: Invalid value: "2001:DB8::/64": must be in canonical form ("2001:db8::/64")"#],
            ),
        ],
    );
    check_updated(
        GROUP,
        "ServiceCIDR",
        "",
        &range(r#"["10.0.0.0/24"]"#),
        &[
            (r#"24"]"#, r#"24","2001:db8::/64"]"#, &[]),
            ("10.0", "10.1", &[r#"spec.cidrs[0]: Invalid value: "10.1.0.0/24": field is immutable"#]),
            (r#"["10.0.0.0/24"]"#, "[]", &["spec.cidrs: Invalid value: null: field is immutable"]),
        ],
    );
}

#[test]
fn features_say_which_forms_of_names_and_addresses_pass() {
    const RELAXED: &str = "RelaxedServiceNameValidation=false";
    let of = |name: &str| {
        ingress(&format!(
            r#""pathType":"Exact","path":"/","backend":{{"service":{{"name":"{name}","port":{{"number":80}}}}}}"#
        ))
    };
    let made = |gates: &str, name: &str| rules::created_with(gates, GROUP, "v1", "Ingress", &of(name)).len();
    assert_eq!((made("", "1a"), made(RELAXED, "1a"), made(RELAXED, "a1"), made("", "A")), (0, 1, 0, 1));
    // What was taken while the feature was on, stays.
    let kept =
        |new: &str, old: &str| rules::updated_with(RELAXED, GROUP, "v1", "Ingress", "", &of(new), &of(old)).len();
    assert_eq!((kept("2a", "1a"), kept("2a", "a1")), (0, 1));
    const STRICT: &str = "StrictIPCIDRValidation=false";
    let policy = |cidr: &str| {
        format!(
            r#"{{"metadata":{{"name":"p","namespace":"n"}},"spec":{{"podSelector":{{}},"egress":[{{"to":[{{"ipBlock":{{"cidr":"{cidr}"}}}}]}}]}}}}"#
        )
    };
    for (cidr, strict, sloppy) in
        [("10.0.0.0/8", 0, 0), ("010.0.0.0/8", 1, 0), ("10.1.0.0/8", 1, 0), ("::ffff:10.0.0.0/104", 1, 0), ("x", 1, 1)]
    {
        for (gates, expected) in [("", strict), (STRICT, sloppy)] {
            let found = rules::created_with(gates, GROUP, "v1", "NetworkPolicy", &policy(cidr));
            assert_eq!(found.len(), expected, "{cidr} {gates}: {found:?}");
        }
    }
    // Younger kinds are strict with or without it.
    let range = r#"{"metadata":{"name":"r"},"spec":{"cidrs":["010.0.0.0/8"]}}"#;
    assert_eq!(rules::created_with(STRICT, GROUP, "v1", "ServiceCIDR", range).len(), 1);
}
