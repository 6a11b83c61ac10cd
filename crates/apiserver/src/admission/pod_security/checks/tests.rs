//! What each check refuses, in upstream's words, and from which version on.

use super::super::policy::{Level, Standard, Version};
use super::{CHECKS, Pod, run};
use crate::test_support::map;
use schema::Map;

fn standard(text: &str) -> Standard {
    let (level, version) = text.split_once(':').expect("level:version");
    Standard { level: Level::parse(level).expect("a level"), version: Version::parse(version).expect("a version") }
}

/// `reason (detail)` of everything that is refused.
fn refused(of: &str, metadata: &str, spec: &str) -> Vec<String> {
    let (metadata, spec): (Map, Map) = (map(metadata), map(spec));
    let found = run(standard(of), &Pod { metadata: &metadata, spec: &spec });
    found.into_iter().map(|r| format!("{} ({})", r.reason, r.detail)).collect()
}

fn baseline(spec: &str) -> Vec<String> {
    refused("baseline:latest", "{}", spec)
}

const HARDENED: &str = "runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}";

fn hardened(pod: &str, context: &str) -> Vec<String> {
    refused(
        "restricted:latest",
        "{}",
        &format!("{{{pod} containers: [{{name: a, securityContext: {{{HARDENED}{context}}}}}]}}"),
    )
}

#[test]
fn rows_are_in_the_order_of_upstreams_messages() {
    for level in [Level::Baseline, Level::Restricted] {
        let ids: Vec<&str> = CHECKS.iter().filter(|c| c.level == level).map(|c| c.id).collect();
        assert!(ids.is_sorted(), "{ids:?}");
    }
    for check in CHECKS {
        assert!(check.versions.is_sorted_by(|a, b| a.0 < b.0), "{}", check.id);
        assert!(check.overrides.is_empty() || CHECKS.iter().any(|c| c.id == check.overrides));
    }
}

#[test]
fn the_baseline_names_what_is_wrong() {
    assert!(baseline("{containers: [{name: a}]}").is_empty());
    let cases = [
        ("{hostNetwork: true, hostIPC: true}", "host namespaces (hostNetwork=true, hostIPC=true)"),
        ("{volumes: [{name: v, hostPath: {path: /}}]}", "hostPath volumes (volume \"v\")"),
        (
            "{containers: [{name: a, ports: [{hostPort: 80}]}, {name: b, ports: [{hostPort: 9}]}]}",
            "hostPort (containers \"a\", \"b\" use hostPorts 80, 9)",
        ),
        (
            "{initContainers: [{name: i, securityContext: {privileged: true}}]}",
            "privileged (container \"i\" must not set securityContext.privileged=true)",
        ),
        (
            "{containers: [{name: a, securityContext: {capabilities: {add: [NET_RAW, CHOWN]}}}]}",
            "non-default capabilities (container \"a\" must not include \"NET_RAW\" in securityContext.capabilities.add)",
        ),
        (
            "{containers: [{name: a, livenessProbe: {httpGet: {host: x}}}]}",
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"x\")",
        ),
        (
            "{containers: [{name: a, securityContext: {procMount: Unmasked}}]}",
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            "{securityContext: {seLinuxOptions: {type: x, user: u}}, containers: [{name: a, securityContext: {seLinuxOptions: {role: r}}}]}",
            "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set; role may not be set)",
        ),
        (
            "{containers: [{name: a, securityContext: {seccompProfile: {type: Unconfined}}}]}",
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            "{securityContext: {sysctls: [{name: kernel.a}, {name: kernel.b}]}}",
            "forbidden sysctls (kernel.a, kernel.b)",
        ),
        (
            "{securityContext: {windowsOptions: {hostProcess: true}}}",
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            "{securityContext: {appArmorProfile: {type: Unconfined}}}",
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
    ];
    for (spec, wanted) in cases {
        assert_eq!(baseline(spec), [wanted], "{spec}");
    }
}

#[test]
fn a_plain_pod_is_refused_as_restricted_in_upstreams_words() {
    assert_eq!(
        refused("restricted:latest", "{}", "{containers: [{name: a}]}").join(", "),
        "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert!(hardened("", "").is_empty());
    assert_eq!(
        hardened("volumes: [{name: v, hostPath: {path: /}}, {name: w, nfs: {}}],", ""),
        ["restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")"]
    );
    assert_eq!(hardened("", ", runAsUser: 0"), ["runAsUser=0 (container \"a\" must not set runAsUser=0)"]);
}

#[test]
fn versions_decide_which_checks_there_are() {
    let bare = "{containers: [{name: a}]}";
    assert_eq!(refused("restricted:v1.7", "{}", bare).len(), 1, "only runAsNonRoot");
    assert_eq!(refused("restricted:v1.21", "{}", bare).len(), 3, "no capabilities yet");
    let windows = "{os: {name: windows}, containers: [{name: a}]}";
    assert_eq!(refused("restricted:v1.24", "{}", windows).len(), 4);
    assert_eq!(refused("restricted:v1.25", "{}", windows).len(), 1);
    let probe = "{containers: [{name: a, livenessProbe: {tcpSocket: {host: x}}}]}";
    assert!(refused("baseline:v1.33", "{}", probe).is_empty());
    assert_eq!(refused("baseline:v1.34", "{}", probe).len(), 1);
    let sysctl = "{securityContext: {sysctls: [{name: net.ipv4.tcp_rmem}]}}";
    assert_eq!(refused("baseline:v1.31", "{}", sysctl).len(), 1);
    assert!(refused("baseline:v1.32", "{}", sysctl).is_empty());
    let users = "{hostUsers: false, containers: [{name: a, securityContext: {procMount: Unmasked}}]}";
    assert_eq!(refused("baseline:v1.34", "{}", users).len(), 1);
    assert!(refused("baseline:v1.35", "{}", users).is_empty());
    let annotated = "{annotations: {seccomp.security.alpha.kubernetes.io/pod: unconfined}}";
    assert_eq!(
        refused("baseline:v1.18", annotated, bare),
        ["seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")"]
    );
    assert!(refused("baseline:v1.19", annotated, bare).is_empty());
}
