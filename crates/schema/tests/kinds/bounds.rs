//! Objects as large as a request may be, of which nothing may be done for each of something with each of another; and
//! objects of a time when less was looked at, which stay changeable.

use crate::rules;
use proptest::prelude::*;
use schema::validation::{self, Told};

const NONE: [&str; 0] = [];
const MANY: usize = 30_000;

fn list(n: usize, one: impl Fn(usize) -> String) -> String {
    (0..n).map(one).collect::<Vec<_>>().join(",")
}

/// A pod with a container `a` of these further fields, and these further ones of its own.
fn pod(container: &str, rest: &str) -> String {
    format!(
        r#"{{"metadata":{{"name":"p","namespace":"n"}},"spec":{{"serviceAccountName":"s","containers":[{{"name":"a","image":"i"{container}}}]{rest}}}}}"#
    )
}

fn warned(text: &str) -> Vec<String> {
    validation::warnings("", "Pod", "", &rules::object("", "v1", "Pod", text), None, Default::default())
}

/// There are warnings, and not many more than a client is told.
fn bounded(warnings: &[String]) {
    let mut told = Told::default();
    assert!(warnings.iter().all(|warning| told.takes(warning)), "{} warnings", warnings.len());
    assert!(told.is_full(), "{warnings:?}");
}

fn ports(ports: &str) -> String {
    pod(&format!(r#","ports":[{ports}]"#), "")
}

#[test]
fn many_ports() {
    let told = warned(&ports(&list(MANY, |_| r#"{"containerPort":1}"#.to_owned())));
    bounded(&told);
    let at = |i: usize| format!("spec.containers[0].ports[{i}]");
    for (told, (this, other)) in told.iter().zip([(1, 0), (2, 0), (2, 1), (3, 0)]) {
        assert_eq!(*told, format!("{}: duplicate port definition with {}", at(this), at(other)));
    }
    let address = |i: usize| format!("10.{}.{}.{}", i >> 16, i >> 8 & 255, i & 255);
    let apart = list(MANY, |i| format!(r#"{{"containerPort":1,"hostPort":5,"hostIP":"{}"}}"#, address(i)));
    assert_eq!(warned(&ports(&apart)), NONE);
    let names = ports(&list(MANY, |i| format!(r#"{{"containerPort":{i},"name":"x"}}"#)));
    bounded(&warned(&names));
}

fn files(items: &str) -> String {
    pod("", &format!(r#","volumes":[{{"name":"v","configMap":{{"name":"c","items":[{items}]}}}}]"#))
}

fn item(path: &str) -> String {
    format!(r#"{{"key":"k","path":"{path}"}}"#)
}

#[test]
fn many_files() {
    let with = |a: &str, b: &str| format!(r#"volume "v" (ConfigMap "c"): overlapping paths: "{a}" with "{b}""#);
    assert_eq!(warned(&files(&list(MANY, |_| item("f")))), [with("f", "f")]);
    assert_eq!(warned(&files(&list(MANY, |i| item(&format!("d/{i}"))))), NONE);
    let in_turn = list(MANY, |i| item(["f", "g", "f/h", "i"][i % 4]));
    assert_eq!(
        warned(&files(&in_turn)),
        [with("f/h", "f"), with("f", "f"), with("f", "f/h"), with("g", "g"), with("f/h", "f/h"), with("i", "i")]
    );
    bounded(&warned(&files(&format!("{},{}", list(MANY, |i| item(&format!("d/{i}"))), item("d")))));
    bounded(&warned(&files(&format!("{},{}", item("d"), list(MANY, |i| item(&format!("d/{i}")))))));
}

#[test]
fn many_keys_of_labels() {
    let keys = |prefix: &str| list(MANY, |i| format!(r#""{prefix}{i}""#));
    let expressions = list(MANY, |i| format!(r#"{{"key":"e{i}","operator":"Exists"}}"#));
    let term = format!(
        r#"{{"topologyKey":"t","labelSelector":{{"matchExpressions":[{expressions}]}},"matchLabelKeys":[{}],"mismatchLabelKeys":[{}]}}"#,
        keys("k"),
        keys("m")
    );
    let affinity =
        format!(r#","affinity":{{"podAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":[{term}]}}}}"#);
    assert_eq!(rules::created("", "v1", "Pod", &pod("", &affinity)), NONE);
    let spread = format!(
        r#","topologySpreadConstraints":[{{"maxSkew":1,"topologyKey":"t","whenUnsatisfiable":"DoNotSchedule","labelSelector":{{"matchExpressions":[{expressions}]}},"matchLabelKeys":[{}]}}]"#,
        keys("k")
    );
    let beside = "MatchLabelKeysInPodTopologySpreadSelectorMerge=false";
    for gates in ["", beside] {
        assert_eq!(rules::created_with(gates, "", "v1", "Pod", &pod("", &spread)), NONE, "{gates}");
    }
}

#[test]
fn many_parts_of_a_pod_that_is_changed() {
    let n = 10_000;
    let spread = list(n, |i| {
        format!(
            r#"{{"maxSkew":1,"topologyKey":"t{i}","whenUnsatisfiable":"DoNotSchedule","labelSelector":{{"matchLabels":{{"a":"b"}}}},"matchLabelKeys":["k"]}}"#
        )
    });
    let tokens = list(n, |_| r#"{"serviceAccountToken":{"path":"t"}}"#.to_owned());
    let text = pod(
        "",
        &format!(
            r#","topologySpreadConstraints":[{spread}],"volumes":[{{"name":"v","projected":{{"sources":[{tokens}]}}}}]"#
        ),
    );
    let new = text.replace(r#""i""#, r#""j""#);
    assert_eq!(rules::updated("", "v1", "Pod", "", &new, &text), NONE);
}

#[test]
fn many_containers_and_what_names_them() {
    let n = 10_000;
    let annotations = list(n, |i| format!(r#""container.apparmor.security.beta.kubernetes.io/c{i}":"unconfined""#));
    let containers = list(n, |i| format!(r#"{{"name":"c{i}","image":"i"}}"#));
    let text = format!(
        r#"{{"metadata":{{"name":"p","namespace":"n","annotations":{{{annotations}}}}},"spec":{{"containers":[{containers}]}}}}"#
    );
    assert_eq!(rules::created("", "v1", "Pod", &text), NONE);
    let vars = list(n, |i| {
        format!(r#"{{"name":"V{i}","valueFrom":{{"fileKeyRef":{{"volumeName":"v{i}","path":"f","key":"K"}}}}}}"#)
    });
    let volumes = list(n, |i| format!(r#"{{"name":"v{i}","emptyDir":{{}}}}"#));
    let text = pod(&format!(r#","env":[{vars}]"#), &format!(r#","volumes":[{volumes}]"#));
    assert_eq!(rules::created("", "v1", "Pod", &text), NONE);
}

proptest! {
    /// Each with each, told once.
    #[test]
    fn files_overlap_as_by_all_pairs(paths in prop::collection::vec("[ab/-]{0,4}", 0..9)) {
        let bare: Vec<&str> = paths.iter().map(|path| path.trim_end_matches('/')).collect();
        let below = |inner: &str, outer: &str| format!("{inner}/").starts_with(&format!("{outer}/"));
        let mut expected = Vec::new();
        for (i, a) in bare.iter().enumerate().filter(|(_, a)| !a.is_empty()) {
            for b in bare[..i].iter().filter(|b| !b.is_empty() && (below(a, b) || below(b, a))) {
                let told = format!(r#"volume "v" (ConfigMap "c"): overlapping paths: "{a}" with "{b}""#);
                if !expected.contains(&told) {
                    expected.push(told);
                }
            }
        }
        let items: Vec<String> = paths.iter().map(|path| item(path)).collect();
        prop_assert_eq!(warned(&files(&items.join(","))), expected);
    }

    #[test]
    fn ports_clash_as_by_all_pairs(all in prop::collection::vec((1..3, 0..3, 0..3usize), 0..8)) {
        let mut expected = Vec::new();
        let address = |n: usize| ["", "10.0.0.1", "10.0.0.2"][n];
        let at = |i: usize| format!("spec.containers[0].ports[{i}]");
        for (i, (number, host, ip)) in all.iter().enumerate() {
            if *ip > 0 && *host == 0 {
                let ip = address(*ip);
                expected.push(format!(
                    "{}: hostIP set without hostPort: {{Name: HostPort:0 ContainerPort:{number} Protocol:TCP HostIP:{ip}}}",
                    at(i)
                ));
            }
            for (j, (_, host_before, ip_before)) in all[..i].iter().enumerate().filter(|(_, (n, ..))| n == number) {
                let what = if (host, ip) == (host_before, ip_before) {
                    "duplicate"
                } else if *host == 0 || *host_before == 0 {
                    "overlapping"
                } else if host == host_before && (*ip == 0) != (*ip_before == 0) {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                expected.push(format!("{}: {what} port definition with {}", at(i), at(j)));
            }
        }
        let list = list(all.len(), |i| {
            let (number, host, ip) = all[i];
            let ip = if ip == 0 { String::new() } else { format!(r#","hostIP":"{}""#, address(ip)) };
            format!(r#"{{"containerPort":{number},"hostPort":{host}{ip}}}"#)
        });
        prop_assert_eq!(warned(&ports(&list)), expected);
    }
}

const STORED: [(&str, &str, &str); 8] = [
    (r#""container.apparmor.security.beta.kubernetes.io/z":"unconfined""#, "", ""),
    (r#""seccomp.security.alpha.kubernetes.io/pod":"x""#, "", ""),
    (r#""scheduler.alpha.kubernetes.io/tolerations":"{}""#, "", ""),
    (
        r#""container.seccomp.security.alpha.kubernetes.io/a":"unconfined""#,
        r#","securityContext":{"seccompProfile":{"type":"RuntimeDefault"}}"#,
        "",
    ),
    ("", r#","securityContext":{"windowsOptions":{"runAsUserName":""}}"#, ""),
    ("", r#","securityContext":{"windowsOptions":{"hostProcess":true}}"#, ""),
    ("", r#","resources":{"requests":{"cpu":"2"}}"#, r#","resources":{"requests":{"cpu":"1"}}"#),
    (
        "",
        r#","env":[{"name":"V","valueFrom":{"fileKeyRef":{"volumeName":"w","path":"f","key":"K"}}}]"#,
        r#","volumes":[{"name":"v","projected":{"sources":[{"clusterTrustBundle":{"path":"../f","name":"x"}},{"podCertificate":{"signerName":"x"}}]}}]"#,
    ),
];

/// What is stored may be of a time when less was looked at. Who writes its metadata or its status can't help it.
#[test]
fn what_is_stored_stays_changeable() {
    let finalizers = r#""finalizers":["example.com/f"],"#;
    for (annotations, container, rest) in STORED {
        let metadata = format!(r#""name":"p","namespace":"n",{finalizers}"labels":{{"a":"b"}}"#);
        let spec = format!(r#"{{"containers":[{{"name":"a","image":"i"{container}}}]{rest}}}"#);
        let pod = format!(r#"{{"metadata":{{{metadata},"annotations":{{{annotations}}}}},"spec":{spec}}}"#);
        let template =
            format!(r#"{{"metadata":{{"labels":{{"a":"b"}},"annotations":{{{annotations}}}}},"spec":{spec}}}"#);
        let selected = format!(r#""selector":{{"matchLabels":{{"a":"b"}}}},"template":{template}"#);
        let set = format!(r#"{{"metadata":{{{metadata}}},"spec":{{{selected}}}}}"#);
        for (group, kind, text) in [
            ("", "Pod", &pod),
            ("apps", "Deployment", &set),
            ("apps", "DaemonSet", &set),
            ("apps", "ReplicaSet", &set),
            ("apps", "StatefulSet", &set),
        ] {
            assert_ne!(rules::created(group, "v1", kind, text), NONE, "{kind} {text}");
            let updated = |sub: &str, new: &str| rules::updated(group, "v1", kind, sub, new, text);
            let unfinished = text.replace(finalizers, "");
            assert_ne!(unfinished, *text);
            assert_eq!(updated("", &unfinished), NONE, "{kind} {text}");
            assert_eq!(updated("", &text.replacen(r#""a":"b""#, r#""a":"b","c":"d""#, 1)), NONE, "{kind} {text}");
            assert_eq!(updated("status", text), NONE, "{kind} {text}");
        }
        // What is changed is looked at: annotations beside other containers, fields beside others.
        let image = set.replace(r#""image":"i""#, r#""image":"j""#);
        let name = set.replace(r#"{"name":"a","#, r#"{"name":"y","#);
        let refused = |new: &str| !rules::updated("apps", "v1", "Deployment", "", new, &set).is_empty();
        assert!(refused(&image) || refused(&name), "{set}");
    }
    let mode = r#""service.kubernetes.io/topology-mode":"Auto","service.kubernetes.io/topology-aware-hints":"auto""#;
    let ranges = r#""service.beta.kubernetes.io/load-balancer-source-ranges":"10.0.0.0/8""#;
    for annotations in [mode, ranges] {
        let text = format!(
            r#"{{"metadata":{{"name":"s","namespace":"n",{finalizers}"annotations":{{{annotations}}}}},"spec":{{"ports":[{{"port":80}}]}}}}"#
        );
        assert_ne!(rules::created("", "v1", "Service", &text), NONE, "{text}");
        let unfinished = text.replace(finalizers, "");
        assert_eq!(rules::updated("", "v1", "Service", "", &unfinished, &text), NONE, "{text}");
        assert_eq!(rules::updated("", "v1", "Service", "status", &text, &text), NONE, "{text}");
    }
}
