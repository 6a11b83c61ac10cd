//! The Pod Security Standards, and the plugins that are off unless they are asked for.

use crate::cluster::{Cluster, Options, pod, start_with};
use apiserver::admission::config::Config;
use apiserver::admission::pod_security::Configuration;
use serde_json::{Value, json};

const NAMESPACES: &str = "/api/v1/namespaces";

async fn cluster(options: Options) -> Cluster {
    let cluster = start_with(options).await;
    cluster.service_account("default", "default").await;
    cluster
}

async fn namespace(cluster: &Cluster, name: &str, labels: Value) {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    cluster.admin().post(NAMESPACES, object).await.expect(201);
    cluster.service_account(name, "default").await;
}

fn privileged(name: &str) -> Value {
    let mut pod = pod(name);
    pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    pod
}

const REFUSAL: &str = "privileged (container \"c\" must not set securityContext.privileged=true)";

#[tokio::test]
async fn the_labels_of_a_namespace_hold_its_pods_to_a_standard() {
    let cluster = cluster(Options::default()).await;
    let admin = cluster.admin();
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted",
        "pod-security.kubernetes.io/warn-version": "v1.20"});
    namespace(&cluster, "held", labels).await;
    let refused = admin.post("/api/v1/namespaces/held/pods", privileged("p")).await;
    assert_eq!(
        (refused.code, refused.message()),
        (403, format!("pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": {REFUSAL}").as_str())
    );
    assert!(refused.warnings.is_empty(), "{:?}", refused.warnings);
    let warned = admin.post("/api/v1/namespaces/held/pods", pod("q")).await;
    assert_eq!(
        warned.warnings,
        [
            "would violate PodSecurity \"restricted:v1.20\": allowPrivilegeEscalation != false (container \"c\" must set \
             securityContext.allowPrivilegeEscalation=false), runAsNonRoot != true (pod or container \"c\" must set \
             securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set \
             securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        ]
    );
    warned.expect(201);
    let image = json!({"metadata": {"labels": {"a": "b"}}});
    let unchanged = admin.patch("/api/v1/namespaces/held/pods/q", image).await;
    assert!(unchanged.warnings.is_empty(), "labels are not checked: {:?}", unchanged.warnings);
    unchanged.expect(200);
    admin.post("/api/v1/namespaces/default/pods", privileged("p")).await.expect(201);
}

#[tokio::test]
async fn templates_are_warned_of_and_not_refused() {
    let cluster = cluster(Options::default()).await;
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "baseline"});
    namespace(&cluster, "held", labels).await;
    let mut template = privileged("p");
    template["metadata"] = json!({"labels": {"a": "b"}});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": template["metadata"], "spec": template["spec"]}}
    });
    let made = cluster.admin().post("/apis/apps/v1/namespaces/held/deployments", deployment).await;
    assert_eq!(made.warnings, [format!("would violate PodSecurity \"baseline:latest\": {REFUSAL}")]);
    made.expect(201);
}

#[tokio::test]
async fn a_stricter_label_tells_of_the_pods_that_violate_it() {
    let cluster = cluster(Options::default()).await;
    let admin = cluster.admin();
    for name in ["a", "b"] {
        admin.post("/api/v1/namespaces/default/pods", privileged(name)).await.expect(201);
    }
    let label = |level: &str| json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}});
    let told = admin.patch("/api/v1/namespaces/default", label("baseline")).await;
    assert_eq!(
        told.warnings,
        [
            "existing pods in namespace \"default\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "a (and 1 other pod): privileged"
        ]
    );
    told.expect(200);
    let refused = admin.patch("/api/v1/namespaces/default", label("lax")).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            422,
            "Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"lax\": \
             must be one of privileged, baseline, restricted"
        )
    );
}

#[tokio::test]
async fn who_is_exempt_is_let_through() {
    let configuration = Configuration {
        exempt_namespaces: vec!["free".to_owned()],
        exempt_usernames: vec!["root".to_owned()],
        ..Configuration::default()
    };
    let admission = Config { pod_security: configuration, ..Config::default() };
    let cluster = cluster(Options { admission, ..Options::default() }).await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "free", "labels": labels}});
    let told = cluster.admin().post(NAMESPACES, object).await;
    assert_eq!(
        told.warnings,
        ["namespace \"free\" is exempt from Pod Security, and the policy (enforce=restricted:latest) will be ignored"]
    );
    cluster.service_account("free", "default").await;
    cluster.admin().post("/api/v1/namespaces/free/pods", privileged("p")).await.expect(201);
    namespace(&cluster, "held", labels).await;
    let root = cluster.user("root", &["system:masters"]);
    root.post("/api/v1/namespaces/held/pods", privileged("p")).await.expect(201);
    assert_eq!(cluster.admin().post("/api/v1/namespaces/held/pods", privileged("q")).await.code, 403);
}

#[tokio::test]
async fn plugins_that_are_off_work_when_they_are_enabled() {
    let plugins = &[
        "AlwaysPullImages",
        "NamespaceAutoProvision",
        "LimitPodHardAntiAffinityTopology",
        "PodNodeSelector",
        "DenyServiceExternalIPs",
        "ExtendedResourceToleration",
    ];
    let cluster = cluster(Options { plugins, ..Options::default() }).await;
    let admin = cluster.admin();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    admin.post("/api/v1/namespaces/fresh/configmaps", map).await.expect(201);
    admin.get("/api/v1/namespaces/fresh").await.expect(200);
    let selector = json!({"metadata": {"annotations": {"scheduler.alpha.kubernetes.io/node-selector": "env=prod"}}});
    admin.patch("/api/v1/namespaces/default", selector).await.expect(200);
    let mut own = pod("p");
    own["spec"]["containers"][0]["imagePullPolicy"] = "Never".into();
    own["spec"]["containers"][0]["resources"] =
        json!({"requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "1"}});
    let made = admin.post("/api/v1/namespaces/default/pods", own).await.expect(201);
    assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(made["spec"]["nodeSelector"], json!({"env": "prod"}));
    let tolerated = made["spec"]["tolerations"].as_array().expect("tolerations");
    assert!(tolerated.iter().any(|t| t["key"] == "example.com/gpu"), "{tolerated:?}");
    let mut zonal = pod("z");
    let term = json!({"labelSelector": {}, "topologyKey": "topology.kubernetes.io/zone"});
    zonal["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    assert_eq!(
        admin.post("/api/v1/namespaces/default/pods", zonal).await.message(),
        "pods \"z\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey topology.kubernetes.io/zone \
         but only key kubernetes.io/hostname is allowed"
    );
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.7"]}});
    assert_eq!(
        admin.post("/api/v1/namespaces/default/services", service).await.message(),
        "services \"s\" is forbidden: Use of external IPs is denied by admission control"
    );
}
