//! What makers of pods and of templates are told, and who is told nothing.

use crate::rules;
use schema::validation;

/// Specs as pods and as templates are told the same, but for the path.
fn told(spec: &str) -> Vec<String> {
    let pod = format!(r#"{{"metadata":{{"name":"p","namespace":"n"}},"spec":{{{spec}}}}}"#);
    let of_pod = of("", "Pod", "", &pod, None, "");
    let template = format!(r#"{{"metadata":{{"name":"t","namespace":"n"}},"template":{{"spec":{{{spec}}}}}}}"#);
    let of_template: Vec<String> = of("", "PodTemplate", "", &template, None, "");
    let without: Vec<String> = of_template.iter().map(|warning| warning.replace("template.spec.", "spec.")).collect();
    assert_eq!(of_pod, without);
    of_pod
}

fn of(group: &str, kind: &str, subresource: &str, new: &str, old: Option<&str>, gates: &str) -> Vec<String> {
    let object = |text: &str| rules::object(group, "v1", kind, text);
    let old = old.map(object);
    validation::warnings(group, kind, subresource, &object(new), old.as_ref(), rules::features(gates))
}

/// One container, `a`, of these further fields.
fn container(rest: &str) -> String {
    format!(r#""containers":[{{"name":"a","image":"i"{rest}}}]"#)
}

const NONE: [&str; 0] = [];

#[test]
fn what_is_of_old() {
    let volume = |source: &str| told(&format!(r#"{},"volumes":[{{"name":"v",{source}}}]"#, container("")));
    for (source, expected) in [
        (
            r#""photonPersistentDisk":{"pdID":"p"}"#,
            "photonPersistentDisk: deprecated in v1.11, non-functional in v1.16+",
        ),
        (r#""storageos":{"volumeName":"v"}"#, "storageOS: deprecated in v1.22, non-functional in v1.25+"),
        (r#""gitRepo":{"repository":"r"}"#, "gitRepo: deprecated in v1.11, and disabled by default in v1.33+"),
        (
            r#""ephemeral":{"volumeClaimTemplate":{"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1m"}}}}}"#,
            r#"ephemeral.volumeClaimTemplate.spec.resources.requests[storage]: fractional byte value "1m" is invalid, must be an integer"#,
        ),
    ] {
        assert_eq!(volume(source), [format!("spec.volumes[0].{expected}")]);
    }
    assert_eq!(volume(r#""emptyDir":{"sizeLimit":"1m"}"#), NONE, "upstream does not look at it");
    let cloned = format!(
        r#"{{"metadata":{{"name":"p","namespace":"n"}},"spec":{{{},"volumes":[{{"name":"v","gitRepo":{{"repository":"r"}}}}]}}}}"#,
        container("")
    );
    let gates = "GitRepoVolumeDriver=true";
    assert_eq!(of("", "Pod", "", &cloned, None, gates), ["spec.volumes[0].gitRepo: deprecated in v1.11"]);

    let label = "beta.kubernetes.io/os";
    let why = r#"deprecated since v1.14; use "kubernetes.io/os" instead"#;
    let expression =
        |values: &str| format!(r#"{{"matchExpressions":[{{"key":"{label}","operator":"In","values":[{values}]}}]}}"#);
    let preferred = format!(
        r#"{},"affinity":{{"nodeAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":1,"preference":{}}}]}}}}"#,
        container(""),
        expression(r#""-1""#)
    );
    let at =
        "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0]";
    let all = told(&preferred);
    assert_eq!(all[0], format!("{at}.key: {label} is {why}"));
    assert!(
        all[1].starts_with(&format!("{at}.values[0]: -1 is invalid, a valid label must be an empty string")),
        "{all:?}"
    );
    assert_eq!(all.len(), 2);
    let required = format!(
        r#"{},"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{}]}}}}}}"#,
        container(""),
        expression(r#""-1""#)
    );
    assert_eq!(
        told(&required),
        [format!(
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: {label} is {why}"
        )]
    );
}

#[test]
fn selectors_that_pick_nothing() {
    let why = "labelSelector: a null labelSelector results in matching no pod";
    let spread =
        r#","topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"t","whenUnsatisfiable":"DoNotSchedule"}]"#;
    assert_eq!(told(&format!("{}{spread}", container(""))), [format!("spec.topologySpreadConstraints[0].{why}")]);
    for field in ["podAffinity", "podAntiAffinity"] {
        let terms = r#"{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"t","labelSelector":{}},{"topologyKey":"t"}],"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"podAffinityTerm":{"topologyKey":"t"}}]}"#;
        let spec = format!(r#"{},"affinity":{{"{field}":{terms}}}"#, container(""));
        assert_eq!(
            told(&spec),
            [
                format!("spec.affinity.{field}.requiredDuringSchedulingIgnoredDuringExecution[1].{why}"),
                format!(
                    "spec.affinity.{field}.preferredDuringSchedulingIgnoredDuringExecution[0].podAffinityTerm.{why}"
                ),
            ]
        );
    }
}

#[test]
fn what_is_there_twice() {
    let spec = format!(
        r#"{},"hostAliases":[{{"ip":"1.1.1.1"}},{{"ip":"1.1.1.1"}}],"imagePullSecrets":[{{"name":"a"}},{{"name":""}},{{"name":"a"}}]"#,
        container("")
    );
    assert_eq!(
        told(&spec),
        [
            r#"spec.hostAliases[1].ip: duplicate ip "1.1.1.1""#,
            r#"spec.imagePullSecrets[2].name: duplicate name "a""#,
            r#"spec.imagePullSecrets[1].name: invalid empty name """#,
        ]
    );
    let hides = |i: usize| {
        format!(
            r#"spec.containers[0].env[{i}]: hides previous definition of "b", which may be dropped when using apply"#
        )
    };
    let env = r#","env":[{"name":"b","value":"b"},{"name":"b","value":"other"},{"name":"b","value":"$(b)"},{"name":"b","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}},{"name":"b","value":"$(b) $(b)"}]"#;
    assert_eq!(told(&container(env)), [hides(1), hides(2), hides(3)]);
}

#[test]
fn ports() {
    let ports = |first: &str, second: &str| {
        told(&format!(
            r#""initContainers":[{{"name":"a","image":"i","restartPolicy":"Always","ports":[{first}]}}],"containers":[{{"name":"b","image":"i","ports":[{second}]}}]"#
        ))
    };
    let at = |what: &str| {
        format!("spec.containers[0].ports[0]: {what} port definition with spec.initContainers[0].ports[0]")
    };
    let plain = r#"{"containerPort":80}"#;
    assert_eq!(ports(plain, plain), [at("duplicate")]);
    assert_eq!(ports(plain, r#"{"containerPort":80,"protocol":"UDP"}"#), NONE);
    assert_eq!(ports(plain, r#"{"containerPort":80,"hostPort":80}"#), [at("overlapping")]);
    assert_eq!(
        ports(r#"{"containerPort":80,"hostPort":80}"#, r#"{"containerPort":80,"hostPort":80,"hostIP":"10.0.0.1"}"#),
        [at("dangerously ambiguous")]
    );
    assert_eq!(ports(r#"{"containerPort":80,"hostPort":80}"#, r#"{"containerPort":80,"hostPort":81}"#), NONE);
    assert_eq!(
        ports(r#"{"containerPort":80,"name":"p","hostIP":"10.0.0.1"}"#, r#"{"containerPort":81,"name":"p"}"#),
        [
            "spec.initContainers[0].ports[0]: hostIP set without hostPort: {Name:p HostPort:0 ContainerPort:80 Protocol:TCP HostIP:10.0.0.1}",
            r#"spec.containers[0].ports[0]: duplicate port name "p" with spec.initContainers[0].ports[0], services and probes that select ports by name will use spec.initContainers[0].ports[0]"#,
        ]
    );
}

#[test]
fn files_in_each_others_place() {
    let volume = |source: &str| told(&format!(r#"{},"volumes":[{{"name":"v",{source}}}]"#, container("")));
    let items = |paths: &[&str]| {
        let items: Vec<String> = paths.iter().map(|path| format!(r#"{{"key":"k","path":"{path}"}}"#)).collect();
        format!(r#""items":[{}]"#, items.join(","))
    };
    let fields =
        |path: &str| format!(r#"{{"items":[{{"path":"{path}","fieldRef":{{"fieldPath":"metadata.name"}}}}]}}"#);
    for (source, expected) in [
        (format!(r#""configMap":{{"name":"m",{}}}"#, items(&["a", "ab", "b/"])), vec![]),
        (
            format!(r#""configMap":{{"name":"m",{}}}"#, items(&["a/b", "a", "a/"])),
            vec![
                r#"volume "v" (ConfigMap "m"): overlapping paths: "a" with "a/b""#,
                r#"volume "v" (ConfigMap "m"): overlapping paths: "a" with "a""#,
            ],
        ),
        (
            format!(r#""secret":{{"secretName":"s",{}}}"#, items(&["a", "a"])),
            vec![r#"volume "v" (Secret "s"): overlapping paths: "a" with "a""#],
        ),
        (
            format!(
                r#""projected":{{"sources":[{{"configMap":{{"name":"m",{}}}}},{{"secret":{{"name":"s"}}}},{{"downwardAPI":{}}},{{"serviceAccountToken":{{"path":"a/b"}}}},{{}}]}}"#,
                items(&["a"]),
                fields("c")
            ),
            vec![
                r#"volume "v" (Projected) has no sources provided"#,
                r#"volume "v" (Projected): overlapping paths: "a/b" (ServiceAccountToken) with "a" (ConfigMap "m")"#,
            ],
        ),
        (
            r#""projected":{"sources":[{"clusterTrustBundle":{"signerName":"s","path":"a"}},{"podCertificate":{"signerName":"x/y","keyType":"ED25519","keyPath":"a","certificateChainPath":"b"}}]}"#.to_owned(),
            vec![
                r#"volume "v" (Projected): overlapping paths: "a" (PodCertificate key) with "a" (ClusterTrustBundle "s")"#,
            ],
        ),
    ] {
        assert_eq!(volume(&source), expected, "{source}");
    }
}

#[test]
fn addresses_and_amounts() {
    let spec = format!(
        r#"{},"dnsConfig":{{"nameservers":["1.2.3.4","05.06.07.08"]}},"hostAliases":[{{"ip":"::ffff:1.2.3.4"}}],"overhead":{{"memory":"1m"}},"terminationGracePeriodSeconds":-1"#,
        container(r#","resources":{"limits":{"memory":"1m","cpu":"1m"},"requests":{"memory":"1m"}}"#)
    );
    let whole = r#"fractional byte value "1m" is invalid, must be an integer"#;
    let form = "will be considered invalid in a future Kubernetes release: use";
    assert_eq!(
        told(&spec),
        [
            format!("spec.overhead[memory]: {whole}"),
            format!("spec.containers[0].resources.limits[memory]: {whole}"),
            format!("spec.containers[0].resources.requests[memory]: {whole}"),
            "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
                .to_owned(),
            format!(r#"spec.dnsConfig.nameservers[1]: non-standard IP address "05.06.07.08" {form} "5.6.7.8""#),
            format!(r#"spec.hostAliases[0].ip: non-standard IP address "::ffff:1.2.3.4" {form} "1.2.3.4""#),
        ]
    );
}

#[test]
fn annotations() {
    let seccomp = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
    let app_armor = r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;
    let pod = |key: &str, rest: &str| {
        format!(
            r#"{{"metadata":{{"name":"p","namespace":"n","annotations":{{"{key}":"runtime/default"}}}},"spec":{{"containers":[{{"name":"a","image":"i"{rest}}}]}}}}"#
        )
    };
    let template = |key: &str, rest: &str, whole: &str| {
        format!(
            r#"{{"metadata":{{"name":"t","namespace":"n"}},"template":{{"metadata":{{"annotations":{{"{key}":"runtime/default"}}}},"spec":{{"containers":[{{"name":"a","image":"i"{rest}}}]{whole}}}}}}}"#
        )
    };
    let of_pod = |key: &str, rest: &str| of("", "Pod", "", &pod(key, rest), None, "");
    let of_template =
        |key: &str, rest: &str, whole: &str| of("", "PodTemplate", "", &template(key, rest, whole), None, "");
    let context = |field: &str| format!(r#","securityContext":{{"{field}":{{"type":"RuntimeDefault"}}}}"#);
    for (key, why) in [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
        ),
        ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
        ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
        ("seccomp.security.alpha.kubernetes.io/pod", seccomp),
        ("container.seccomp.security.alpha.kubernetes.io/a", seccomp),
    ] {
        assert_eq!(of_pod(key, ""), [format!("metadata.annotations[{key}]: {why}")]);
        assert_eq!(of_template(key, "", ""), [format!("template.metadata.annotations[{key}]: {why}")]);
    }
    // Where there is the field, or no such container, there is nothing to tell.
    let key = "container.seccomp.security.alpha.kubernetes.io/a";
    assert_eq!(of_pod(key, &context("seccompProfile")), NONE);
    assert_eq!(of_pod("container.seccomp.security.alpha.kubernetes.io/z", ""), NONE);
    assert_eq!(of_template("seccomp.security.alpha.kubernetes.io/pod", "", &context("seccompProfile")), NONE);
    // AppArmor is told of here only for templates.
    let key = "container.apparmor.security.beta.kubernetes.io/a";
    assert_eq!(of_pod(key, ""), NONE);
    assert_eq!(of_template(key, "", ""), [format!("template.metadata.annotations[{key}]: {app_armor}")]);
    assert_eq!(of_template(key, &context("appArmorProfile"), ""), NONE);
    assert_eq!(of_template(key, "", &context("appArmorProfile")), NONE);
    assert_eq!(of_template("container.apparmor.security.beta.kubernetes.io/z", "", ""), NONE);
}

/// Who changes a pod is told nothing of it, but of odd addresses in a status; who writes another part of anything neither.
#[test]
fn who_is_told_nothing() {
    let pod = format!(
        r#"{{"metadata":{{"name":"p.x","namespace":"n"}},"spec":{{{},"nodeSelector":{{"beta.kubernetes.io/os":"linux"}}}},"status":{{"podIPs":[{{"ip":"2001:DB8::1"}}],"hostIPs":[{{"ip":"01.2.3.4"}}]}}}}"#,
        container("")
    );
    assert_eq!(of("", "Pod", "", &pod, None, "").len(), 2);
    let changed = pod.replace(r#""i""#, r#""j""#);
    for subresource in ["", "ephemeralcontainers", "resize"] {
        assert_eq!(of("", "Pod", subresource, &changed, Some(&pod), ""), NONE);
    }
    assert_eq!(
        of("", "Pod", "status", &pod, Some(&pod), ""),
        [
            r#"status.podIPs[0].ip: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#,
            r#"status.hostIPs[0].ip: non-standard IP address "01.2.3.4" will be considered invalid in a future Kubernetes release: use "1.2.3.4""#,
        ]
    );
    let set = |image: &str| {
        format!(
            r#"{{"metadata":{{"name":"s","namespace":"n"}},"spec":{{"selector":{{"matchLabels":{{"a":"b"}}}},"template":{{"metadata":{{"labels":{{"a":"b"}}}},"spec":{{"containers":[{{"name":"a","image":"{image}"}}],"nodeSelector":{{"beta.kubernetes.io/os":"linux"}}}}}}}}}}"#
        )
    };
    for (subresource, told) in [("", 1), ("scale", 1), ("status", 0)] {
        assert_eq!(of("apps", "ReplicaSet", subresource, &set("j"), Some(&set("i")), "").len(), told, "{subresource}");
    }
}
