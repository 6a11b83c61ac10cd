//! Validation as its users meet it: JSON in, defaulted, messages out.

#[path = "support/rules.rs"]
mod rules;
mod support;

use proptest::prelude::*;
use rules::{created, object, updated};
use schema::{defaults, normal, validation};
use support::Generator;

fn pod(spec: &str) -> String {
    format!(r#"{{"metadata":{{"name":"p","namespace":"default"}},"spec":{{{spec}}}}}"#)
}

fn pod_errors(spec: &str) -> Vec<String> {
    created("", "v1", "Pod", &pod(spec))
}

/// A pod with one container of these further fields.
fn with(container: &str) -> Vec<String> {
    pod_errors(&format!(r#""containers":[{{"name":"a","image":"i",{container}}}]"#))
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

#[test]
fn pods_containers() {
    assert_eq!(pod_errors(r#""restartPolicy":"Always""#), ["spec.containers: Required value"]);
    assert_eq!(
        pod_errors(r#""containers":[{"name":"A"},{"name":"b","image":"i"},{"name":"b","image":"i"}]"#),
        [
            format!("spec.containers[0].name: Invalid value: \"A\": {LABEL}"),
            "spec.containers[0].image: Required value".to_owned(),
            "spec.containers[2].name: Duplicate value: \"b\"".to_owned(),
        ]
    );
    for (container, expected) in [
        (
            r#""imagePullPolicy":"x""#,
            r#"spec.containers[0].imagePullPolicy: Unsupported value: "x": supported values: "Always", "IfNotPresent", "Never""#,
        ),
        (r#""ports":[{"containerPort":0}]"#, "spec.containers[0].ports[0].containerPort: Required value"),
        (
            r#""ports":[{"containerPort":70000}]"#,
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            r#""ports":[{"containerPort":1,"name":"x"},{"containerPort":2,"name":"x"}]"#,
            r#"spec.containers[0].ports[1].name: Duplicate value: "x""#,
        ),
        (
            r#""ports":[{"containerPort":1,"hostPort":5},{"containerPort":2,"hostPort":5}]"#,
            r#"spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//5""#,
        ),
        (r#""env":[{"name":""}]"#, "spec.containers[0].env[0].name: Required value"),
        (
            r#""env":[{"name":"a","value":"b","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}]"#,
            r#"spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty"#,
        ),
        (
            r#""env":[{"name":"a","valueFrom":{"fieldRef":{"fieldPath":"metadata.nope"}}}]"#,
            r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "metadata.nope": error converting fieldPath: field label not supported: metadata.nope"#,
        ),
        (
            r#""envFrom":[{}]"#,
            r#"spec.containers[0].envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#,
        ),
        (
            r#""resources":{"limits":{"cpu":"1"},"requests":{"cpu":"2"}}"#,
            r#"spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1"#,
        ),
        (
            r#""resources":{"requests":{"cpu":"-1"}}"#,
            r#"spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0"#,
        ),
        (
            r#""resources":{"requests":{"example.com/gpu":"1"}}"#,
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            r#""livenessProbe":{"httpGet":{"path":"/","port":80},"exec":{"command":["a"]}}"#,
            "spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
        ),
        (r#""livenessProbe":{}"#, "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
        (
            r#""livenessProbe":{"tcpSocket":{"port":80},"successThreshold":2}"#,
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            r#""volumeMounts":[{"name":"v","mountPath":"/x"}]"#,
            r#"spec.containers[0].volumeMounts[0].name: Not found: "v""#,
        ),
        (
            r#""securityContext":{"runAsUser":-1}"#,
            "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            r#""terminationMessagePolicy":"x""#,
            r#"spec.containers[0].terminationMessagePolicy: Unsupported value: "x": supported values: "File", "FallbackToLogsOnError""#,
        ),
    ] {
        assert_eq!(with(container), [expected], "{container}");
    }
}

#[test]
fn pods_own_fields() {
    let container = r#""containers":[{"name":"a","image":"i","volumeMounts":[]}]"#;
    for (field, expected) in [
        (
            r#""restartPolicy":"x""#,
            r#"spec.restartPolicy: Unsupported value: "x": supported values: "Always", "OnFailure", "Never""#,
        ),
        (r#""dnsPolicy":"None""#, "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
        (
            r#""activeDeadlineSeconds":0"#,
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (
            r#""volumes":[{"name":"v","emptyDir":{},"hostPath":{"path":"/"}}]"#,
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            r#""volumes":[{"name":"v","hostPath":{"path":"/../x"}}]"#,
            r#"spec.volumes[0].hostPath.path: Invalid value: "/../x": must not contain '..'"#,
        ),
        (
            r#""volumes":[{"name":"v","emptyDir":{}},{"name":"v","emptyDir":{}}]"#,
            r#"spec.volumes[1].name: Duplicate value: "v""#,
        ),
        (
            r#""volumes":[{"name":"v","configMap":{"name":"c","items":[{"key":"k","path":"/a"}]}}]"#,
            r#"spec.volumes[0].configMap.items[0].path: Invalid value: "/a": must be a relative path"#,
        ),
        (
            r#""tolerations":[{"operator":"Equal"}]"#,
            r#"spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys""#,
        ),
        (
            r#""topologySpreadConstraints":[{"maxSkew":0,"topologyKey":"zone","whenUnsatisfiable":"DoNotSchedule"}]"#,
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            r#""affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[]}}}"#,
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        (r#""hostname":"A""#, &format!("spec.hostname: Invalid value: \"A\": {LABEL}")),
        (
            r#""initContainers":[{"name":"i","image":"i","livenessProbe":{"tcpSocket":{"port":1}}}]"#,
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (r#""hostUsers":false,"hostPID":true"#, "spec.HostPID: Forbidden: when `hostUsers` is false"),
        (
            r#""schedulingGates":[{"name":"g"}],"nodeName":"n""#,
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared",
        ),
    ] {
        assert_eq!(pod_errors(&format!("{container},{field}")), [expected], "{field}");
    }
}

const FULL: &str = r#""nodeName":"n","serviceAccountName":"default","priorityClassName":"high","runtimeClassName":"r",
"hostAliases":[{"ip":"10.0.0.1","hostnames":["a.b"]}],"dnsPolicy":"None","dnsConfig":{"nameservers":["1.1.1.1"],"searches":["x.y."],"options":[{"name":"ndots","value":"5"}]},
"readinessGates":[{"conditionType":"example.com/ready"}],"tolerations":[{"key":"a","operator":"Exists","effect":"NoExecute","tolerationSeconds":5}],
"securityContext":{"runAsUser":1000,"fsGroup":2000,"sysctls":[{"name":"net.ipv4.ip_forward","value":"1"}],"seccompProfile":{"type":"RuntimeDefault"}},
"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"topology.kubernetes.io/zone","whenUnsatisfiable":"DoNotSchedule","labelSelector":{"matchLabels":{"a":"b"}}}],
"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":1,"podAffinityTerm":{"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"a":"b"}}}}]}},
"volumes":[{"name":"e","emptyDir":{"medium":"Memory","sizeLimit":"1Gi"}},{"name":"c","configMap":{"name":"c","defaultMode":420}},{"name":"t","projected":{"sources":[{"serviceAccountToken":{"path":"token"}},{"configMap":{"name":"kube-root-ca.crt","items":[{"key":"ca.crt","path":"ca.crt"}]}}]}},{"name":"pvc","persistentVolumeClaim":{"claimName":"x"}},{"name":"h","hostPath":{"path":"/var","type":"Directory"}}],
"initContainers":[{"name":"side","image":"i","restartPolicy":"Always","startupProbe":{"exec":{"command":["true"]}}}],
"containers":[{"name":"a","image":"i","ports":[{"name":"http","containerPort":80}],"env":[{"name":"N","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['x']"}}},{"name":"M","valueFrom":{"resourceFieldRef":{"resource":"limits.memory","divisor":"1Mi"}}}],
"resources":{"limits":{"cpu":"1","memory":"4Gi"},"requests":{"cpu":"500m","memory":"500Mi"}},"livenessProbe":{"grpc":{"port":1}},"readinessProbe":{"httpGet":{"port":"http"}},"lifecycle":{"preStop":{"sleep":{"seconds":3}}},
"volumeMounts":[{"name":"e","mountPath":"/e","subPath":"x/y"},{"name":"t","mountPath":"/t","readOnly":true,"recursiveReadOnly":"IfPossible"}],"securityContext":{"privileged":true,"capabilities":{"add":["NET_ADMIN"]}}}]"#;

#[test]
fn whole_objects_pass() {
    assert_eq!(pod_errors(FULL), Vec::<String>::new());
    let template = r#""template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"a","image":"i"}]}}"#;
    let selector = r#""selector":{"matchLabels":{"a":"b"}}"#;
    for (group, version, kind, rest) in [
        ("apps", "v1", "Deployment", format!(r#""spec":{{{selector},{template}}}"#)),
        ("apps", "v1", "ReplicaSet", format!(r#""spec":{{{selector},{template}}}"#)),
        ("apps", "v1", "DaemonSet", format!(r#""spec":{{{selector},{template}}}"#)),
        ("apps", "v1", "StatefulSet", format!(r#""spec":{{"serviceName":"s",{selector},{template}}}"#)),
        ("", "v1", "ReplicationController", format!(r#""spec":{{"selector":{{"a":"b"}},{template}}}"#)),
        ("", "v1", "Service", r#""spec":{"selector":{"a":"b"},"ports":[{"port":80,"targetPort":"http"}]}"#.into()),
        ("", "v1", "Service", r#""spec":{"type":"NodePort","ports":[{"port":80,"nodePort":30008}]}"#.into()),
        ("", "v1", "Service", r#""spec":{"type":"ExternalName","externalName":"a.b."}"#.into()),
        ("", "v1", "Service", r#""spec":{"clusterIP":"None","clusterIPs":["None"]}"#.into()),
        ("", "v1", "Endpoints", r#""subsets":[{"addresses":[{"ip":"10.0.0.1","nodeName":"n"}],"ports":[{"port":1}]}]"#.into()),
        ("discovery.k8s.io", "v1", "EndpointSlice", r#""addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"]}],"ports":[{"name":"","port":80}]"#.into()),
        ("", "v1", "Namespace", r#""spec":{"finalizers":["kubernetes"]}"#.into()),
        ("", "v1", "Node", r#""spec":{"podCIDR":"10.0.0.0/24","podCIDRs":["10.0.0.0/24"],"taints":[{"key":"a","effect":"NoSchedule"}]},"status":{"capacity":{"cpu":"2","pods":"110"}}"#.into()),
        ("", "v1", "ConfigMap", r#""data":{"a":"b"},"binaryData":{"c":"AA=="}"#.into()),
        ("", "v1", "Secret", r#""type":"kubernetes.io/tls","data":{"tls.crt":"AA==","tls.key":"AA=="}"#.into()),
        ("", "v1", "Secret", r#""type":"kubernetes.io/dockerconfigjson","data":{".dockerconfigjson":"e30="}"#.into()),
        ("", "v1", "ServiceAccount", r#""automountServiceAccountToken":true"#.into()),
        ("", "v1", "Event", r#""involvedObject":{"namespace":"default"},"reason":"x""#.into()),
        ("coordination.k8s.io", "v1", "Lease", r#""spec":{"holderIdentity":"a","leaseDurationSeconds":40}"#.into()),
        ("rbac.authorization.k8s.io", "v1", "Role", r#""rules":[{"verbs":["get"],"apiGroups":[""],"resources":["pods"]}]"#.into()),
        ("rbac.authorization.k8s.io", "v1", "ClusterRole", r#""rules":[{"verbs":["get"],"nonResourceURLs":["/healthz"]}]"#.into()),
        ("rbac.authorization.k8s.io", "v1", "RoleBinding", r#""roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},"subjects":[{"kind":"ServiceAccount","name":"s"}]"#.into()),
        ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", r#""roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"r"},"subjects":[{"kind":"User","apiGroup":"rbac.authorization.k8s.io","name":"u"}]"#.into()),
        ("", "v1", "PersistentVolumeClaim", r#""spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}"#.into()),
        ("", "v1", "PersistentVolume", r#""spec":{"capacity":{"storage":"1Gi"},"accessModes":["ReadWriteOnce"],"hostPath":{"path":"/x"}}"#.into()),
        ("storage.k8s.io", "v1", "StorageClass", r#""provisioner":"pilothouse.io/local""#.into()),
        ("batch", "v1", "CronJob", r#""spec":{"schedule":"* * * * *","jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Never","containers":[{"name":"a","image":"i"}]}}}}}"#.into()),
    ] {
        let namespace = if matches!(kind, "Namespace" | "Node" | "ClusterRole" | "ClusterRoleBinding" | "PersistentVolume" | "StorageClass") { "" } else { r#","namespace":"default""# };
        let text = format!(r#"{{"metadata":{{"name":"x"{namespace}}},{rest}}}"#);
        assert_eq!(created(group, version, kind, &text), Vec::<String>::new(), "{kind} {rest}");
        let mut same = updated(group, version, kind, "", &text, &text);
        same.retain(|error| !error.contains("ephemeral"));
        assert_eq!(same, Vec::<String>::new(), "{kind} updated");
    }
}

#[test]
fn workloads() {
    let deployment = |selector: &str, spec: &str| {
        format!(
            r#"{{"metadata":{{"name":"d","namespace":"default"}},"spec":{{"selector":{selector},"template":{{"metadata":{{"labels":{{"app":"x"}}}},"spec":{{"containers":[{{"name":"a","image":"i"}}]{spec}}}}}}}}}"#
        )
    };
    let good = deployment(r#"{"matchLabels":{"app":"x"}}"#, "");
    assert_eq!(
        created("apps", "v1", "Deployment", &deployment(r#"{"matchLabels":{"app":"y"}}"#, "")),
        ["spec.template.metadata.labels: Invalid value: {\"app\":\"x\"}: `selector` does not match template `labels`"]
    );
    assert_eq!(
        created(
            "apps",
            "v1",
            "Deployment",
            &deployment(r#"{"matchLabels":{"app":"x"}}"#, r#","restartPolicy":"Never""#)
        ),
        ["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""]
    );
    let other = good.replace(r#""app":"x""#, r#""app":"z""#);
    assert_eq!(
        updated("apps", "v1", "Deployment", "", &other, &good),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"z\"}}: field is immutable"]
    );
    assert_eq!(
        created("apps", "v1", "Deployment", r#"{"metadata":{"name":"d","namespace":"default"},"spec":{}}"#)[0],
        "spec.selector: Required value"
    );
}

/// What is shown of a pod whose grace period changes: the JSON of upstream's internal spec.
const GRACE_CHANGED: &str = r#"--- expected
+++ got
@@ -29,21 +29,21 @@
       "TerminationMessagePolicy": "File",
       "ImagePullPolicy": "Always",
       "SecurityContext": null,
       "Stdin": false,
       "StdinOnce": false,
       "TTY": false
     }
   ],
   "EphemeralContainers": null,
   "RestartPolicy": "Always",
-  "TerminationGracePeriodSeconds": 30,
+  "TerminationGracePeriodSeconds": 31,
   "ActiveDeadlineSeconds": null,
   "DNSPolicy": "ClusterFirst",
   "NodeSelector": null,
   "ServiceAccountName": "",
   "AutomountServiceAccountToken": null,
   "NodeName": "",
   "SecurityContext": {
     "HostNetwork": false,
     "HostPID": false,
     "HostIPC": false,
"#;

#[test]
fn pods_change_little() {
    let old = pod(r#""containers":[{"name":"a","image":"i"}],"terminationGracePeriodSeconds":30"#);
    assert_eq!(
        updated("", "v1", "Pod", "", &old.replace(r#""image":"i""#, r#""image":"j""#), &old),
        Vec::<String>::new()
    );
    let errors = updated("", "v1", "Pod", "", &old.replace("30", "31"), &old);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"), "{errors:?}");
    let diff = errors[0].split_once("\n").map(|(_, diff)| diff);
    assert_eq!(diff, Some(GRACE_CHANGED));
    let two =
        pod(r#""containers":[{"name":"a","image":"i"},{"name":"b","image":"i"}],"terminationGracePeriodSeconds":30"#);
    assert_eq!(
        updated("", "v1", "Pod", "", &two, &old),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
    let resized = old.replace(r#""image":"i""#, r#""image":"i","resources":{"requests":{"cpu":"2"}}"#);
    assert_eq!(
        updated("", "v1", "Pod", "resize", &resized, &old),
        [r#"spec: Invalid value: "": Pod QOS Class may not change as a result of resizing"#]
    );
    assert_eq!(updated("", "v1", "Pod", "", &resized, &old).len(), 1);
    let debugged =
        old.replace(r#""terminationGrace"#, r#""ephemeralContainers":[{"name":"d","image":"i"}],"terminationGrace"#);
    assert_eq!(updated("", "v1", "Pod", "ephemeralcontainers", &debugged, &old), Vec::<String>::new());
    assert_eq!(
        updated("", "v1", "Pod", "ephemeralcontainers", &old, &debugged),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n"]
    );
}

#[test]
fn others() {
    let in_default = |rest: &str| format!(r#"{{"metadata":{{"name":"x","namespace":"default"}},{rest}}}"#);
    for (group, kind, rest, expected) in [
        ("", "Service", r#""spec":{"ports":[]}"#, "spec.ports: Required value"),
        (
            "",
            "Service",
            r#""spec":{"ports":[{"port":0}]}"#,
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "",
            "Service",
            r#""spec":{"ports":[{"port":1,"nodePort":30000}]}"#,
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (
            "",
            "Service",
            r#""spec":{"type":"x","ports":[{"port":1}]}"#,
            r#"spec.type: Unsupported value: "x": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#,
        ),
        (
            "",
            "Endpoints",
            r#""subsets":[{"addresses":[{"ip":"127.0.0.1"}]}]"#,
            r#"subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#,
        ),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            r#""addressType":"IPv4","endpoints":[{"addresses":[]}]"#,
            "endpoints[0].addresses: Required value: must contain at least 1 address",
        ),
        (
            "",
            "ConfigMap",
            r#""data":{"a b":"c"}"#,
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        ("", "Secret", r#""type":"kubernetes.io/ssh-auth""#, "data[ssh-privatekey]: Required value"),
        (
            "",
            "Event",
            r#""involvedObject":{"namespace":"other"}"#,
            r#"involvedObject.namespace: Invalid value: "other": does not match event.namespace"#,
        ),
        (
            "coordination.k8s.io",
            "Lease",
            r#""spec":{"leaseDurationSeconds":0}"#,
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "rbac.authorization.k8s.io",
            "Role",
            r#""rules":[{"verbs":[],"apiGroups":[""],"resources":["x"]}]"#,
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            "rbac.authorization.k8s.io",
            "RoleBinding",
            r#""roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"x","name":"r"}"#,
            r#"roleRef.kind: Unsupported value: "x": supported values: "Role", "ClusterRole""#,
        ),
    ] {
        let errors = created(group, "v1", kind, &in_default(rest));
        assert_eq!(errors.first().map(String::as_str), Some(expected), "{kind} {rest}: {errors:?}");
    }
    let binding = in_default(r#""roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"}"#);
    assert_eq!(
        updated("rbac.authorization.k8s.io", "v1", "RoleBinding", "", &binding.replace(r#""r""#, r#""s""#), &binding),
        [
            r#"roleRef: Invalid value: {"APIGroup":"rbac.authorization.k8s.io","Kind":"Role","Name":"s"}: cannot change roleRef"#
        ]
    );
    let sealed = in_default(r#""immutable":true,"data":{"a":"b"}"#);
    assert_eq!(
        updated("", "v1", "ConfigMap", "", &sealed.replace(r#""b""#, r#""c""#), &sealed),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
}

#[test]
fn warned() {
    let text = pod(
        r#""containers":[{"name":"a","image":"i","env":[{"name":"X","value":"1"},{"name":"X","value":"2"}]}],"nodeSelector":{"beta.kubernetes.io/os":"linux"}"#,
    );
    assert_eq!(
        validation::warnings("", "Pod", "", &object("", "v1", "Pod", &text), None, Default::default()),
        [
            "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.containers[0].env[1]: hides previous definition of \"X\", which may be dropped when using apply",
        ]
    );
}

const SUBRESOURCES: [&str; 6] = ["", "status", "finalize", "ephemeralcontainers", "resize", "approval"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_object_makes_the_rules_panic(n in 0usize..1000, seeds: (u64, u64), sub in 0usize..SUBRESOURCES.len()) {
        let row = support::kind(n);
        let ty = row.schema.root();
        let made = |seed| {
            let made = Generator::new(seed, 400).object(ty, &row.api_version(), &row.kind);
            let mut object = normal::typed(ty, made.into()).unwrap().object;
            defaults::apply(ty, &mut object);
            object
        };
        let (new, old) = (made(seeds.0), made(seeds.1));
        let _ = validation::create(&row.group, &row.kind, &new, Default::default());
        let _ = validation::update(&row.group, &row.kind, SUBRESOURCES[sub], &new, &old, Default::default());
        let _ = validation::warnings(&row.group, &row.kind, "", &new, None, Default::default());
        let _ = validation::warnings(&row.group, &row.kind, SUBRESOURCES[sub], &new, Some(&old), Default::default());
    }

    #[test]
    fn an_update_that_changes_nothing_finds_no_more_than_a_creation(n in 0usize..1000, seed: u64) {
        let row = support::kind(n);
        let ty = row.schema.root();
        let made = Generator::new(seed, 400).object(ty, &row.api_version(), &row.kind);
        let object = normal::typed(ty, made.into()).unwrap().object;
        let created = validation::create(&row.group, &row.kind, &object, Default::default());
        for error in validation::update(&row.group, &row.kind, "", &object, &object, Default::default()) {
            // Addresses of nodes, and of endpoints on several nodes, may repeat until they are updated.
            // A driver that is there twice is compared with its twin.
            let twins = row.kind == "CSINode" && error.field == "spec.drivers";
            let repeated = twins || error.field.starts_with("status.addresses") || error.field.ends_with(".nodeName");
            // Keys of labels that are wrong as they are looked at now are looked at as they were before.
            let keys = error.field.contains(".topologySpreadConstraints[") && error.field.contains(".matchLabelKeys[");
            let told = created.iter().any(|known| known.field == error.field);
            prop_assert!(told || repeated || keys, "{error}");
        }
    }
}
