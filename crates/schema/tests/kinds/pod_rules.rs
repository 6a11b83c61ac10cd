//! Rules of pods that depend on several of their fields, and what the pod before has to do with them.

use crate::rules;

/// A pod with one container, `a`, of these further fields, and these further ones of the pod.
fn pod(annotations: &str, container: &str, rest: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"p","namespace":"default","annotations":{{{annotations}}}}},"spec":{{"containers":[{{"name":"a","image":"i"{container}}}]{rest}}}}}"#
    )
}

/// The same as a template of a ReplicaSet.
fn set(annotations: &str, container: &str, rest: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"s","namespace":"default"}},"spec":{{"selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}},"annotations":{{{annotations}}}}},"spec":{{"containers":[{{"name":"a","image":"i"{container}}}]{rest}}}}}}}}}"#
    )
}

fn created(text: &str) -> Vec<String> {
    rules::created("", "v1", "Pod", text)
}

fn of_set(text: &str) -> Vec<String> {
    rules::created("apps", "v1", "ReplicaSet", text)
}

/// What is wrong with a pod that takes the place of one.
fn updated(new: &str, old: &str) -> Vec<String> {
    rules::updated("", "v1", "Pod", "", new, old)
}

const NONE: [&str; 0] = [];

#[test]
fn ports_of_the_hosts_network() {
    let why = "must match `containerPort` when `hostNetwork` is true";
    let at = |path: &str| format!("{path}.containers[0].ports[0].hostPort: Invalid value: 81: {why}");
    let network = r#","hostNetwork":true"#;
    let (other, unsaid) = (r#","ports":[{"containerPort":80,"hostPort":81}]"#, r#","ports":[{"containerPort":80}]"#);
    assert_eq!(created(&pod("", other, network)), [at("spec")]);
    assert_eq!(created(&pod("", other, "")), NONE);
    assert_eq!(created(&pod("", unsaid, network)), NONE, "a pod's is filled in");
    assert_eq!(of_set(&set("", unsaid, network)), NONE, "a template's may be unsaid");
    assert_eq!(of_set(&set("", other, network)), [at("spec.template.spec")]);
}

#[test]
fn annotations() {
    const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io";
    const SECCOMP: &str = "container.seccomp.security.alpha.kubernetes.io";
    const COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    const TOLERATIONS: &str = "scheduler.alpha.kubernetes.io/tolerations";
    let said = |key: &str, value: &str| format!(r#""{key}":"{value}""#);
    let cost = |value: &str| format!(r#"[{COST}]: Invalid value: "{value}": must be a 32bit integer"#);
    let cases = [
        (said(COST, "10"), vec![]),
        (said(COST, "-10"), vec![]),
        (said(COST, "0"), vec![]),
        (said(COST, "+10"), vec![cost("+10")]),
        (said(COST, "008"), vec![cost("008")]),
        (said(COST, "2147483648"), vec![cost("2147483648")]),
        (said(COST, ""), vec![cost("")]),
        (said(TOLERATIONS, r#"[{\"key\":\"a\",\"operator\":\"Exists\"}]"#), vec![]),
        (
            said(TOLERATIONS, r#"[{\"Key\":\"a\",\"operator\":\"x\"}]"#),
            vec![format!(r#".{TOLERATIONS}[0].operator: Unsupported value: "x": supported values: "Equal", "Exists""#)],
        ),
        (
            said(TOLERATIONS, "{}"),
            vec![format!(
                r#": Invalid value: "{TOLERATIONS}": json: cannot unmarshal object into Go value of type []core.Toleration"#
            )],
        ),
        (
            said(TOLERATIONS, r#"[{\"effect\":1}]"#),
            vec![format!(
                r#": Invalid value: "{TOLERATIONS}": json: cannot unmarshal number into Go struct field Toleration.Effect of type core.TaintEffect"#
            )],
        ),
        (said("seccomp.security.alpha.kubernetes.io/pod", "docker/default"), vec![]),
        (
            said("seccomp.security.alpha.kubernetes.io/pod", "x"),
            vec![
                r#".seccomp.security.alpha.kubernetes.io/pod: Invalid value: "x": must be a valid seccomp profile"#
                    .to_owned(),
            ],
        ),
        (said(&format!("{SECCOMP}/a"), "localhost/x"), vec![]),
        (
            said(&format!("{SECCOMP}/z"), "localhost/../x"),
            vec![format!(r#".{SECCOMP}/z: Invalid value: "../x": must not contain '..'"#)],
        ),
        (said(&format!("{APP_ARMOR}/a"), "runtime/default"), vec![]),
        (
            said(&format!("{APP_ARMOR}/z"), "unconfined"),
            vec![format!(r#"[{APP_ARMOR}/z]: Invalid value: "z": container not found"#)],
        ),
        (
            said(&format!("{APP_ARMOR}/a"), "x"),
            vec![format!(r#"[{APP_ARMOR}/a]: Invalid value: "x": invalid AppArmor profile name: "x""#)],
        ),
    ];
    for (annotations, expected) in cases {
        let at = |path: &str| expected.iter().map(|error| format!("{path}{error}")).collect::<Vec<_>>();
        assert_eq!(created(&pod(&annotations, "", "")), at("metadata.annotations"), "{annotations}");
        assert_eq!(of_set(&set(&annotations, "", "")), at("spec.template.annotations"), "{annotations}");
    }
    // What was wrong before may stay so.
    let (bad, worse) = (pod(&said(COST, "x"), "", ""), pod(&said(COST, "y"), "", ""));
    assert_eq!(updated(&worse, &bad), NONE);
    assert_eq!(updated(&bad, &pod("", "", "")).len(), 2, "told twice, as upstream does");
    let (bad, worse) = (set(&said(COST, "x"), "", ""), set(&said(COST, "y"), "", ""));
    assert_eq!(rules::updated("apps", "v1", "ReplicaSet", "", &worse, &bad), NONE);
    let bad = pod(&said(COST, "x"), "", "");
    assert_eq!(rules::created_with("PodDeletionCost=false", "", "v1", "Pod", &bad), NONE);

    let key = format!("{APP_ARMOR}/a");
    let at = format!("metadata.annotations[{key}]: Forbidden: may not");
    let (with, without) = (pod(&said(&key, "unconfined"), "", ""), pod("", "", ""));
    let other = pod(&said(&key, "runtime/default"), "", "");
    assert_eq!(updated(&with, &without), [format!("{at} add AppArmor annotations")]);
    for new in [&without, &other] {
        assert_eq!(updated(new, &with), [format!("{at} remove or update AppArmor annotations")]);
        let through_status = rules::updated("", "v1", "Pod", "status", new, &with);
        assert_eq!(through_status, [format!("{at} remove or update AppArmor annotations")]);
    }
    assert_eq!(updated(&with, &with), NONE);
}

#[test]
fn annotations_say_what_the_fields_do() {
    let context = |field: &str, profile: &str| format!(r#""securityContext":{{"{field}":{profile}}}"#);
    let (default, local) = (r#"{"type":"RuntimeDefault"}"#, r#"{"type":"Localhost","localhostProfile":"p"}"#);
    for (key, field, what, also) in [
        ("container.seccomp.security.alpha.kubernetes.io/a", "seccompProfile", "seccomp", &["docker/default"][..]),
        ("container.apparmor.security.beta.kubernetes.io/a", "appArmorProfile", "apparmor", &[]),
    ] {
        let kind = format!(
            "spec.containers[0].securityContext.{field}.type: Forbidden: {what} type in annotation and field must match"
        );
        let name = format!(
            "spec.containers[0].securityContext.{field}.localhostProfile: Forbidden: {what} profile in annotation and field must match"
        );
        let told = |annotation: &str, profile: &str| {
            let annotation = format!(r#""{key}":"{annotation}""#);
            created(&pod(&annotation, &format!(",{}", context(field, profile)), ""))
        };
        assert_eq!(told("runtime/default", default), NONE);
        also.iter().for_each(|annotation| assert_eq!(told(annotation, default), NONE));
        assert_eq!(told("unconfined", default), std::slice::from_ref(&kind));
        assert_eq!(told("runtime/default", r#"{"type":"Unconfined"}"#), std::slice::from_ref(&kind));
        assert_eq!(told("localhost/p", local), NONE);
        assert_eq!(told("localhost/q", local), std::slice::from_ref(&name));
        assert_eq!(told("unconfined", local), std::slice::from_ref(&kind));
    }
    // Seccomp of the pod has its own annotation, AppArmor of the pod is that of containers without one.
    let whole = |key: &str, field: &str| {
        created(&pod(&format!(r#""{key}":"unconfined""#), "", &format!(",{}", context(field, default))))
    };
    assert_eq!(
        whole("seccomp.security.alpha.kubernetes.io/pod", "seccompProfile"),
        ["spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match"]
    );
    assert_eq!(
        whole("container.apparmor.security.beta.kubernetes.io/a", "appArmorProfile"),
        [
            "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation and field must match"
        ]
    );
    let template = set(
        r#""container.seccomp.security.alpha.kubernetes.io/a":"unconfined""#,
        &format!(",{}", context("seccompProfile", default)),
        "",
    );
    assert_eq!(
        of_set(&template),
        [
            "spec.template.spec.containers[0].securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match"
        ]
    );
}

#[test]
fn users_of_a_pods_own() {
    let devices = r#","volumeDevices":[{"name":"v","devicePath":"/dev/x"}]"#;
    let claim = r#","volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"c"}}]"#;
    let own = |rest: &str| format!(r#","hostUsers":false{rest}"#);
    let why = "Forbidden: when `hostUsers` is false";
    let with = pod("", devices, &own(claim));
    assert_eq!(created(&with), [format!("spec.containers[0].volumeDevices: {why}")]);
    assert_eq!(created(&pod("", devices, claim)), NONE);
    let init = format!(r#","initContainers":[{{"name":"b","image":"i"{devices}}}]{claim}"#);
    assert_eq!(created(&pod("", "", &own(&init))), [format!("spec.initContainers[0].volumeDevices: {why}")]);
    assert_eq!(updated(&with.replace(r#""i""#, r#""j""#), &with), NONE, "what is stored stays changeable");
    let shared = pod("", "", &own(r#","hostNetwork":true,"hostPID":true,"hostIPC":true"#));
    let fields = ["hostNetwork", "HostPID", "HostIPC"].map(|field| format!("spec.{field}: {why}"));
    assert_eq!(created(&shared), fields);
    let gates = "UserNamespacesHostNetworkSupport=true";
    assert_eq!(rules::created_with(gates, "", "v1", "Pod", &shared), fields[1..]);
    let network = pod("", "", &own(r#","hostNetwork":true"#));
    assert_eq!(updated(&network, &network), NONE, "the gate may have been on");
}

#[test]
fn windows() {
    let options = |options: &str| format!(r#","securityContext":{{"windowsOptions":{{{options}}}}}"#);
    let user = |name: &str| created(&pod("", &options(&format!(r#""runAsUserName":"{name}""#)), ""));
    let at = "spec.containers[0].securityContext.windowsOptions";
    let refused = |name: &str, why: &str| {
        let name: String = serde_json::from_str(&format!(r#""{name}""#)).expect("a text");
        format!("{at}.runAsUserName: Invalid value: {}: {why}", api::field::go_quote(&name))
    };
    let domain = "runAsUserName's Domain doesn't match the NetBios nor the DNS format";
    let characters = r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#;
    let long_domain = format!(r"{}\\u", "d".repeat(256));
    let (longest, too_long) = ("u".repeat(104), "u".repeat(105));
    for (name, expected) in [
        ("user", vec![]),
        (r"DOMAIN\\user", vec![]),
        (r"d o m\\user", vec![]),
        (r"dns-of.more.than-15-characters\\user", vec![]),
        (longest.as_str(), vec![]),
        ("", vec!["runAsUserName cannot be an empty string"]),
        (r"a\u0007", vec!["runAsUserName cannot contain control characters"]),
        (r"a\\b\\c", vec!["runAsUserName cannot contain more than one backslash"]),
        (r"\\user", vec![domain]),
        (r".d\\user", vec![domain]),
        (r"a_name_of_more_than_15\\user", vec![domain]),
        (long_domain.as_str(), vec!["runAsUserName's Domain length must be under 256 characters", domain]),
        (r"d\\", vec!["runAsUserName's User cannot be empty"]),
        (too_long.as_str(), vec!["runAsUserName's User length must not be longer than 104 characters"]),
        (". .", vec!["runAsUserName's User cannot contain only periods or spaces"]),
        ("a@b", vec![characters]),
    ] {
        let expected: Vec<String> = expected.into_iter().map(|why| refused(name, why)).collect();
        assert_eq!(user(name), expected, "{name}");
    }
    let credentials = created(&pod("", &options(r#""gmsaCredentialSpecName":"A""#), ""));
    assert!(
        credentials[0].starts_with(&format!(
            r#"{at}.gmsaCredentialSpecName: Invalid value: "A": a lowercase RFC 1123 subdomain"#
        ))
    );

    let process = |host: bool| options(&format!(r#""hostProcess":{host}"#));
    let two = |container: &str| format!(r#","initContainers":[{{"name":"b","image":"i"{container}}}]"#);
    let network = r#","hostNetwork":true"#;
    let all = "spec: Invalid value: \"\": If pod contains any hostProcess containers then all containers must be HostProcess containers";
    let alone =
        "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers";
    let differs = "spec.containers[0].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value must be identical if both are specified, was true";
    for (container, rest, expected) in [
        (process(true), network.to_owned(), vec![]),
        (process(false), String::new(), vec![]),
        (process(true), String::new(), vec![alone]),
        (process(true), format!("{network}{}", two("")), vec![all]),
        (process(true), format!("{network}{}", two(&process(true))), vec![]),
        // A container is as its pod, unless it says what it is.
        (String::new(), format!("{network}{}{}", two(""), process(true)), vec![]),
        (process(false), format!("{network}{}{}", two(""), process(true)), vec![differs, all]),
    ] {
        assert_eq!(created(&pod("", &container, &rest)), expected, "{container} {rest}");
    }

    // What is of the other system.
    let of = |os: &str, context: &str, container: &str| {
        created(&pod("", container, &format!(r#","os":{{"name":"{os}"}}{context}"#)))
    };
    assert_eq!(
        of("linux", &options(r#""runAsUserName":"u""#), &options(r#""runAsUserName":"u""#)),
        ["spec", "spec.containers[0]"].map(|path| format!(
            "{path}.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"
        ))
    );
    let context = r#","hostUsers":false,"securityContext":{"seLinuxChangePolicy":"Recursive","runAsUser":1},"resources":{"limits":{"cpu":"1"}}"#;
    let refused = |path: &str| format!("spec.{path}: Forbidden: cannot be set for a windows pod");
    assert_eq!(
        of("windows", context, r#","securityContext":{"privileged":true}"#),
        [
            "spec.resources: Forbidden: may not be set for a windows pod".to_owned(),
            refused("hostUsers"),
            refused("securityContext.runAsUser"),
            refused("securityContext.seLinuxChangePolicy"),
            refused("containers[0].securityContext.privileged"),
        ]
    );
    assert_eq!(of("x", "", ""), [r#"spec.os: Unsupported value: "x": supported values: "linux", "windows""#]);
}

#[test]
fn resources_of_a_pod_as_a_whole() {
    let container = |resources: &str| format!(r#","resources":{{{resources}}}"#);
    let at = "spec.resources";
    let why = |path: &str, value: &str, why: &str| format!(r#"{at}.{path}: Invalid value: "{value}": {why}"#);
    for (whole, own, expected) in [
        (r#""limits":{"cpu":"2"},"requests":{"cpu":"1"}"#, r#""requests":{"cpu":"1"}"#, vec![]),
        (
            r#""limits":{"cpu":"3"},"requests":{"cpu":"1"}"#,
            r#""requests":{"cpu":"2"}"#,
            vec![why("requests[cpu]", "1", "must be greater than or equal to aggregate container requests of 2")],
        ),
        (
            r#""limits":{"cpu":"1"}"#,
            r#""limits":{"cpu":"2"},"requests":{"cpu":"1"}"#,
            vec![why("containers[0][cpu].limits", "2", "must be less than or equal to pod limits of 1")],
        ),
        (
            r#""limits":{"memory":"1Gi","hugepages-2Mi":"2Mi"},"requests":{"memory":"1Gi","hugepages-2Mi":"2Mi"}"#,
            r#""limits":{"memory":"1Gi","hugepages-2Mi":"4Mi"}"#,
            vec![
                why(
                    "requests[hugepages-2Mi]",
                    "2Mi",
                    "must be greater than or equal to aggregate container requests of 4Mi",
                ),
                why(
                    "limits[hugepages-2Mi]",
                    "2Mi",
                    "must be greater than or equal to aggregate container limits of 4Mi",
                ),
                why("containers[0][hugepages-2Mi].limits", "4Mi", "must be less than or equal to pod limits of 2Mi"),
            ],
        ),
        (
            r#""limits":{"ephemeral-storage":"1Gi"}"#,
            "",
            vec![format!(
                r#"{at}.limits[ephemeral-storage]: Unsupported value: "ephemeral-storage": supported values: "cpu", "hugepages-", "memory""#
            )],
        ),
        (
            r#""limits":{"hugepages-2Mi":"3Mi"},"requests":{"hugepages-2Mi":"3Mi"}"#,
            "",
            vec![
                why("limits[hugepages-2Mi]", "3Mi", "3Mi is not positive integer multiple of hugepages-2Mi"),
                why("requests[hugepages-2Mi]", "3Mi", "3Mi is not positive integer multiple of hugepages-2Mi"),
                format!("{at}: Forbidden: HugePages require cpu or memory"),
            ],
        ),
        (
            r#""requests":{"hugepages-2Mi":"2Mi","cpu":"1"}"#,
            "",
            vec![format!("{at}.limits: Required value: Limit must be set for non overcommitable resources")],
        ),
        (
            r#""limits":{"cpu":"1"},"claims":[{"name":"c"}]"#,
            "",
            vec![
                format!("{at}.claims: Forbidden: claims may not be set for Resources at pod-level"),
                format!(
                    r#"{at}.claims[0].name: Not found: "c": must be one of the names in pod.spec.resourceClaims which is empty"#
                ),
            ],
        ),
    ] {
        let text = pod("", &container(own), &format!(r#","resources":{{{whole}}}"#));
        assert_eq!(created(&text), expected, "{text}");
    }
    // Pages were once allowed to be parts, and what is stored may be so.
    let part = pod("", &container(r#""limits":{"cpu":"1","hugepages-2Mi":"3Mi"}"#), "");
    assert_eq!(created(&part).len(), 2);
    assert_eq!(updated(&part.replace(r#""i""#, r#""j""#), &part), NONE);
    // What the pod itself takes is judged as limits.
    assert_eq!(
        created(&pod("", "", r#","overhead":{"x":"1"}"#)),
        [
            r#"spec.overhead.limits[x]: Invalid value: "x": must be a standard resource type or fully qualified"#,
            r#"spec.overhead.limits[x]: Invalid value: "x": must be a standard resource for containers"#
        ]
    );
}

#[test]
fn keys_of_labels() {
    const MERGED: &str = r#"{"matchLabels":{"k":"x"},"matchExpressions":[{"key":"k","operator":"In","values":["y"]}]}"#;
    const PLAIN: &str = r#"{"matchLabels":{"k":"x"}}"#;
    let affinity = |keys: &str, selector: &str| {
        let term = format!(r#"{{"topologyKey":"t",{keys}"labelSelector":{selector}}}"#);
        pod(
            "",
            "",
            &format!(r#","affinity":{{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{term}]}}}}"#),
        )
    };
    let at = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
    let in_both = "exists in both matchLabelKeys and mismatchLabelKeys";
    let in_selector = "exists in both matchLabelKeys and labelSelector";
    for (keys, selector, expected) in [
        (r#""matchLabelKeys":["k"],"#, "{}", vec![]),
        // What the server has not merged yet is not held against it.
        (r#""matchLabelKeys":["k"],"#, PLAIN, vec![]),
        (r#""matchLabelKeys":["j","k"],"#, MERGED, vec![format!(r#"{at}[1]: Invalid value: "k": {in_selector}"#)]),
        (r#""mismatchLabelKeys":["k"],"#, MERGED, vec![]),
        (
            r#""matchLabelKeys":["j","k"],"mismatchLabelKeys":["k"],"#,
            "{}",
            vec![format!(r#"{at}.matchLabelKeys[1]: Invalid value: "k": {in_both}"#)],
        ),
        (
            r#""matchLabelKeys":["k"],"#,
            "null",
            vec![format!("{at}.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set")],
        ),
    ] {
        assert_eq!(created(&affinity(keys, selector)), expected, "{keys} {selector}");
    }
    let spread = |selector: &str| {
        let constraint = format!(
            r#"{{"maxSkew":1,"topologyKey":"t y","whenUnsatisfiable":"DoNotSchedule","matchLabelKeys":["k"],"labelSelector":{selector}}}"#
        );
        pod("", "", &format!(r#","topologySpreadConstraints":[{constraint}]"#))
    };
    let off = "MatchLabelKeysInPodTopologySpreadSelectorMerge=false";
    let at = "spec.topologySpreadConstraints[0]";
    let merged = [format!(r#"{at}[0]: Invalid value: "k": {in_selector}"#)];
    let beside = [format!(r#"{at}.matchLabelKeys[0]: Invalid value: "k": {in_selector}"#)];
    assert_eq!(created(&spread(MERGED)), merged);
    assert_eq!(created(&spread(PLAIN)), NONE, "the key of a topology may be any, too");
    let without = |text: &str| rules::created_with(off, "", "v1", "Pod", text);
    assert_eq!(without(&spread(PLAIN)), beside);
    assert_eq!(without(&spread("{}")), NONE);
    // A pod that was made when the gate was otherwise stays changeable.
    let changed = |gates: &str, selector: &str| {
        let old = spread(selector);
        rules::updated_with(gates, "", "v1", "Pod", "", &old.replace(r#""i""#, r#""j""#), &old)
    };
    let one = r#"{"matchExpressions":[{"key":"k","operator":"In","values":["y"]}]}"#;
    assert_eq!(changed("", one), NONE);
    assert_eq!(changed(off, one), NONE);
    assert_eq!(without(&spread(one)), beside);
}

#[test]
fn what_was_allowed_before_may_stay() {
    let again = |old: &str| updated(&old.replace(r#""i""#, r#""j""#), old);
    let bad = r#"{"matchExpressions":[{"key":"a","operator":"In","values":["-"]}]}"#;
    let term = format!(r#"{{"topologyKey":"t","labelSelector":{bad}}}"#);
    for rest in [
        format!(r#","affinity":{{"podAntiAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{term}]}}}}"#),
        format!(
            r#","affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{bad}]}}}}}}"#
        ),
        format!(
            r#","topologySpreadConstraints":[{{"maxSkew":1,"topologyKey":"t","whenUnsatisfiable":"DoNotSchedule","labelSelector":{bad}}}]"#
        ),
        r#","hostNetwork":true,"securityContext":{"sysctls":[{"name":"net.ipv4.ip_forward","value":"1"}]}"#.to_owned(),
        r#","tolerations":[{"key":"a","operator":"Lt","value":"1"}]"#.to_owned(),
        r#","serviceAccountName":"s","volumes":[{"name":"v","projected":{"sources":[{"serviceAccountToken":{"path":"../t"}}]}}]"#.to_owned(),
    ] {
        let text = pod("", "", &rest);
        assert_eq!(created(&text).len(), 1, "{rest}");
        assert_eq!(again(&text), NONE, "{rest}");
    }
}

#[test]
fn tolerations_may_compare_numbers() {
    let told = |gates: &str, value: &str| {
        let text = pod("", "", &format!(r#","tolerations":[{{"key":"a","operator":"Gt","value":"{value}"}}]"#));
        rules::created_with(gates, "", "v1", "Pod", &text)
    };
    assert_eq!(
        told("", "1"),
        [r#"spec.tolerations[0].operator: Unsupported value: "Gt": supported values: "Equal", "Exists", "Lt", "Gt""#]
    );
    let at = "spec.tolerations[0].value: Invalid value:";
    let form = "must be a valid decimal integer in canonical form";
    for (value, expected) in [
        ("-12", vec![]),
        ("0", vec![]),
        ("012", vec![form.to_owned()]),
        ("x", vec![form.to_owned(), r#"strconv.ParseInt: parsing "x": invalid syntax"#.to_owned()]),
        (
            "9223372036854775808",
            vec![r#"strconv.ParseInt: parsing "9223372036854775808": value out of range"#.to_owned()],
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(|why| format!(r#"{at} "{value}": {why}"#)).collect();
        assert_eq!(told("TaintTolerationComparisonOperators=true", value), expected);
    }
}

#[test]
fn init_containers_may_say_how_they_are_resized() {
    let init = r#","initContainers":[{"name":"b","image":"i","resizePolicy":[{"resourceName":"cpu","restartPolicy":"NotRequired"}]}]"#;
    assert_eq!(created(&pod("", "", init)), NONE);
}

#[test]
fn files_of_variables_are_in_volumes_that_begin_empty() {
    let var = r#","env":[{"name":"V","valueFrom":{"fileKeyRef":{"volumeName":"v","path":"f","key":"K"}}}]"#;
    let at = "spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName";
    assert_eq!(created(&pod("", var, r#","volumes":[{"name":"v","emptyDir":{}}]"#)), NONE);
    assert_eq!(created(&pod("", var, "")), [format!(r#"{at}: Not found: "v""#)]);
    assert_eq!(
        created(&pod("", var, r#","volumes":[{"name":"v","configMap":{"name":"c"}}]"#)),
        [format!(r#"{at}: Invalid value: "v": referenced volume must be of type emptyDir"#)]
    );
}

#[test]
fn which_image_a_volume_is_may_be_said_later() {
    let volume = r#","volumes":[{"name":"v","image":{}}]"#;
    assert_eq!(created(&pod("", "", volume)), ["spec.volumes[0].image.reference: Required value"]);
    assert_eq!(of_set(&set("", "", volume)), NONE);
    assert_eq!(created(&pod("", "", r#","volumes":[{"name":"v","image":{"reference":"i"}}]"#)), NONE);
}

#[test]
fn gates_go_and_do_not_come() {
    let gated = |gates: &str| pod("", "", &format!(r#","schedulingGates":[{gates}]"#));
    let (one, two) = (gated(r#"{"name":"a"}"#), gated(r#"{"name":"a"},{"name":"b"}"#));
    assert_eq!(updated(&one, &two), NONE);
    assert_eq!(
        updated(&two, &one),
        ["spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'b'"]
    );
}

#[test]
fn health_of_resources() {
    let old = pod("", r#","resources":{"requests":{"cpu":"1"}}"#, "");
    let told = |statuses: &str| {
        let status = format!(
            r#""status":{{"containerStatuses":[{{"name":"a","ready":true,"restartCount":0,"image":"i","imageID":"","allocatedResourcesStatus":[{statuses}]}}]}},"spec""#
        );
        rules::updated("", "v1", "Pod", "status", &old.replacen(r#""spec""#, &status, 1), &old)
    };
    let at = "status.containerStatuses[0].allocatedResourcesStatus[0]";
    assert_eq!(told(r#"{"name":"cpu","resources":[{"resourceID":"a","health":"Healthy"}]}"#), NONE);
    assert_eq!(
        told(r#"{"name":"memory"}"#),
        [format!(r#"{at}.name: Invalid value: "memory": must match one of the container's resource requests"#)]
    );
    assert_eq!(
        told(r#"{"name":"claim:c","resources":[{"resourceID":"a","health":"x"},{"resourceID":"a"}]}"#),
        [
            format!(
                r#"{at}.name: Invalid value: "claim:c": must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty"#
            ),
            format!(
                r#"{at}.resources[0].health: Unsupported value: "x": supported values: "Healthy", "Unhealthy", "Unknown""#
            ),
            format!(
                r#"{at}.resources[1].health: Unsupported value: "": supported values: "Healthy", "Unhealthy", "Unknown""#
            ),
            format!(r#"{at}.resources[1].resourceID: Duplicate value: "a""#),
        ]
    );
}

#[test]
fn volumes_of_several_sources() {
    const AT: &str = "spec.volumes[0].projected";
    const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let bundle = format!("{AT}.sources[0].clusterTrustBundle");
    let certificate = format!("{AT}.sources[0].podCertificate");
    let of = |rest: &str| format!(r#"{{"podCertificate":{{"signerName":"e.org/s","keyType":"ED25519"{rest}}}}}"#);
    let twice = |file: &str| format!("{AT}: Invalid value: {file:?}: conflicting duplicate paths");
    for (sources, expected) in [
        (r#"{"serviceAccountToken":{"path":""}}"#.to_owned(), vec![format!("{AT}.path: Required value")]),
        (
            r#"{"serviceAccountToken":{"path":"/t"}}"#.to_owned(),
            vec![format!(r#"{AT}.path: Invalid value: "/t": must be a relative path"#)],
        ),
        (r#"{"serviceAccountToken":{"path":"t"}},{"serviceAccountToken":{"path":"t"}}"#.to_owned(), vec![]),
        (
            r#"{"secret":{"name":"s"},"configMap":{"name":"m"}}"#.to_owned(),
            vec![format!("{AT}.sources[0]: Forbidden: may not specify more than 1 volume type per source")],
        ),
        (r#"{"clusterTrustBundle":{"name":"e.org:s:b","path":"b"}}"#.to_owned(), vec![]),
        (
            r#"{"clusterTrustBundle":{"path":"b"}}"#.to_owned(),
            vec![format!("{bundle}: Required value: either name or signerName must be specified")],
        ),
        (
            r#"{"clusterTrustBundle":{"name":"a","signerName":"e.org/s","path":"b"}}"#.to_owned(),
            vec![format!(
                r#"{bundle}: Invalid value: {{"Name":"a","SignerName":"e.org/s","LabelSelector":null,"Optional":null,"Path":"b"}}: only one of name and signerName may be used"#
            )],
        ),
        (
            r#"{"clusterTrustBundle":{"name":"e.org:s:B","labelSelector":{},"path":""}}"#.to_owned(),
            vec![
                format!(r#"{bundle}.name: Invalid value: "e.org:s:B": not a valid clustertrustbundlename: {SUBDOMAIN}"#),
                format!("{bundle}.labelSelector: Invalid value: {{}}: labelSelector must be unset if name is specified"),
                format!("{bundle}.path: Required value"),
            ],
        ),
        (
            r#"{"clusterTrustBundle":{"name":"","path":"b"}}"#.to_owned(),
            vec![
                format!("{bundle}.name: Required value: must be a valid object name"),
                format!(r#"{bundle}.name: Invalid value: "": not a valid clustertrustbundlename: {SUBDOMAIN}"#),
            ],
        ),
        (
            r#"{"clusterTrustBundle":{"signerName":"","path":"b"}}"#.to_owned(),
            vec![
                format!("{bundle}.signerName: Required value: must be a valid signer name"),
                format!("{bundle}.signerName: Required value"),
            ],
        ),
        (
            r#"{"clusterTrustBundle":{"signerName":"s","path":"b","labelSelector":{"matchExpressions":[{"key":"a","operator":"In"}]}}}"#.to_owned(),
            vec![
                format!(
                    r#"{bundle}.signerName: Invalid value: "s": must be a fully qualified domain and path of the form 'example.com/signer-name'"#
                ),
                format!(
                    "{bundle}.labelSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
                ),
            ],
        ),
        (
            of(r#","maxExpirationSeconds":86401"#).replace("e.org", "kubernetes.io").replace("ED25519", "x"),
            vec![
                format!(
                    r#"{certificate}.keyType: Unsupported value: "x": supported values: "RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519""#
                ),
                format!(
                    "{certificate}.maxExpirationSeconds: Invalid value: 86401: if provided, maxExpirationSeconds must be <= 86400"
                ),
                format!(
                    "{certificate}: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath"
                ),
            ],
        ),
        (of(r#","keyPath":"k","maxExpirationSeconds":86401"#), vec![]),
        (of(r#","keyPath":"k","certificateChainPath":"k""#), vec![twice("k")]),
        (
            format!(r#"{},{{"configMap":{{"name":"m","items":[{{"key":"k","path":"k"}}]}}}}"#, of(r#","keyPath":"k""#)),
            vec![twice("m")],
        ),
    ] {
        let text = pod("", "", &format!(r#","serviceAccountName":"s","volumes":[{{"name":"v","projected":{{"sources":[{sources}]}}}}]"#));
        assert_eq!(created(&text), expected, "{sources}");
    }
}

#[test]
fn claims_of_devices() {
    let at = "spec.resourceClaims[0]";
    let both = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
    for (rest, expected) in [
        (
            "",
            format!(
                r#"{at}: Invalid value: {{"Name":"c","ResourceClaimName":null,"ResourceClaimTemplateName":null}}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"#
            ),
        ),
        (
            r#","resourceClaimName":"a","resourceClaimTemplateName":"b""#,
            format!(
                r#"{at}: Invalid value: {{"Name":"c","ResourceClaimName":"a","ResourceClaimTemplateName":"b"}}: {both}"#
            ),
        ),
    ] {
        let text = pod("", "", &format!(r#","resourceClaims":[{{"name":"c"{rest}}}]"#));
        assert_eq!(created(&text), [expected]);
        let mirror = text.replacen(r#""annotations":{"#, r#""annotations":{"kubernetes.io/config.mirror":"x""#, 1);
        let told = created(&mirror);
        assert!(told.contains(&"[]: Forbidden: static pods do not support resource claims".to_owned()), "{told:?}");
        assert!(!told.iter().any(|why| why.starts_with(at)), "{told:?}");
    }
}

#[test]
fn values_are_shown_as_upstream_holds_them() {
    let context = r#","securityContext":{"privileged":true,"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"seLinuxOptions":{"level":"l"}}"#;
    assert_eq!(
        created(&pod("", context, "")),
        [concat!(
            r#"spec.containers[0].securityContext: Invalid value: {"Capabilities":{"Add":null,"Drop":["ALL"]},"Privileged":true,"#,
            r#""SELinuxOptions":{"User":"","Role":"","Type":"","Level":"l"},"WindowsOptions":null,"RunAsUser":null,"RunAsGroup":null,"#,
            r#""RunAsNonRoot":null,"ReadOnlyRootFilesystem":null,"AllowPrivilegeEscalation":false,"ProcMount":null,"#,
            r#""SeccompProfile":null,"AppArmorProfile":null}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true"#
        )]
    );
    let profile = r#","securityContext":{"seccompProfile":{"type":"Unconfined","localhostProfile":"p"}}"#;
    assert_eq!(
        created(&pod("", profile, "")),
        [
            r#"spec.containers[0].securityContext.seccompProfile.localhostProfile: Invalid value: {"Type":"Unconfined","LocalhostProfile":"p"}: can only be set when seccomp type is Localhost"#
        ]
    );
    let taint = r#"{"key":"a","effect":"NoSchedule"}"#;
    let node = format!(r#"{{"metadata":{{"name":"n"}},"spec":{{"taints":[{taint},{taint}]}}}}"#);
    assert_eq!(
        rules::created("", "v1", "Node", &node),
        [
            r#"metadata.taints[1]: Duplicate value: {"Key":"a","Value":"","Effect":"NoSchedule","TimeAdded":null}: taints must be unique by key and effect pair"#
        ]
    );
    let address = r#"{"type":"InternalIP","address":"10.0.0.1"}"#;
    let node = format!(r#"{{"metadata":{{"name":"n"}},"status":{{"addresses":[{address},{address}]}}}}"#);
    assert_eq!(
        rules::updated("", "v1", "Node", "status", &node, &node),
        [r#"status.addresses[1]: Duplicate value: {"Type":"InternalIP","Address":"10.0.0.1"}"#]
    );
}
