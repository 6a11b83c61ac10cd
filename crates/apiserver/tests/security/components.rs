//! `componentstatuses`, and what is told of kinds that go away.

use crate::cluster::{Options, eventually, start, start_with};
use apiserver::surface::Surface;
use serde_json::{Value, json};

#[tokio::test]
async fn components_are_healthy_as_long_as_they_lead() {
    let cluster = start().await;
    let admin = cluster.admin();
    let lease = |name: &str, renewed: jiff::Timestamp| {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": renewed.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()}
        })
    };
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let now = jiff::Timestamp::now();
    admin.post(leases, lease("kube-scheduler", now)).await.expect(201);
    let long_ago = now - jiff::SignedDuration::from_mins(5);
    admin.post(leases, lease("kube-controller-manager", long_ago)).await.expect(201);
    let told = eventually(async || {
        let answer = admin.get("/api/v1/componentstatuses").await;
        assert_eq!(answer.warnings, ["v1 ComponentStatus is deprecated in v1.19+"]);
        let list = answer.expect(200);
        assert_eq!(list["kind"], "ComponentStatusList");
        let rows: Vec<(String, Value)> = list["items"]
            .as_array()?
            .iter()
            .map(|item| (item["metadata"]["name"].as_str().unwrap_or_default().to_owned(), item["conditions"].clone()))
            .collect();
        // The caches may be a moment behind the writes.
        rows.iter()
            .any(|(_, conditions)| conditions[0]["message"].as_str().is_some_and(|m| m.contains("run out")))
            .then_some(rows)
    })
    .await;
    let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
    let late = "the lease kube-system/kube-controller-manager of a has run out";
    let late = json!([{"type": "Healthy", "status": "False", "message": late}]);
    let wanted = [("controller-manager", late), ("scheduler", healthy.clone()), ("etcd-0", healthy)];
    assert_eq!(told, wanted.map(|(name, conditions)| (name.to_owned(), conditions)));
    let one = admin.get("/api/v1/componentstatuses/etcd-0").await.expect(200);
    assert_eq!((&one["kind"], &one["apiVersion"]), (&json!("ComponentStatus"), &json!("v1")));
    let none = admin.get("/api/v1/componentstatuses/etcd-1").await;
    assert_eq!((none.code, none.message()), (500, "Component not found: etcd-1"));
    let named = admin.get("/api/v1/componentstatuses?fieldSelector=metadata.name%3Dscheduler").await.expect(200);
    assert_eq!(named["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(admin.delete("/api/v1/componentstatuses/etcd-0").await.code, 405);
}

#[tokio::test]
async fn what_is_done_at_a_start_is_told_by_upstreams_names() {
    let cluster = start().await;
    let admin = cluster.admin();
    for hook in [
        "rbac/bootstrap-roles",
        "scheduling/bootstrap-system-priority-classes",
        "start-apiserver-admission-initializer",
        "start-kubernetes-service-cidr-controller",
        "bootstrap-controller",
        "crd-informer-synced",
        "start-kube-apiserver-identity-lease-controller",
        "start-kube-apiserver-identity-lease-garbage-collector",
    ] {
        for root in ["livez", "readyz", "healthz"] {
            let told = admin.get(&format!("/{root}/poststarthook/{hook}")).await;
            assert_eq!((told.code, told.body), (200, json!("ok")), "{root} {hook}");
        }
    }
}

#[tokio::test]
async fn a_server_is_known_by_its_lease() {
    let cluster = start().await;
    let admin = cluster.admin();
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases?labelSelector=apiserver.kubernetes.io/identity%3Dkube-apiserver";
    let lease = eventually(async || {
        let list = admin.get(path).await.expect(200);
        list["items"].as_array()?.first().cloned()
    })
    .await;
    let name = lease["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("apiserver-") && name.len() == 36, "{name}");
    assert_eq!(lease["metadata"]["labels"]["kubernetes.io/hostname"], "host");
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 3600);
    assert!(lease["spec"]["holderIdentity"].as_str().unwrap().starts_with(&format!("{name}_")), "{lease}");
    assert!(lease["spec"]["renewTime"].is_string(), "{lease}");
}

#[tokio::test]
async fn who_uses_what_goes_away_is_told() {
    let cluster = start().await;
    let admin = cluster.admin();
    let told = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
    assert_eq!(admin.get("/api/v1/endpoints").await.warnings, [told]);
    assert!(admin.get("/api/v1/pods").await.warnings.is_empty());
    assert_eq!(admin.get("/api/v1/componentstatuses/nothing").await.code, 500);
    admin.get("/api/v1/endpoints/x/nothing").await;
    cluster.user("nobody", &[]).get("/apis/resource.k8s.io/v1/resourceclaims").await.expect(403);
    let metrics = admin.get("/metrics").await.expect(200);
    let told: Vec<&str> = metrics
        .as_str()
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with("apiserver_requested_deprecated_apis"))
        .collect();
    let series = |resource: &str| {
        format!(
            "apiserver_requested_deprecated_apis{{group=\"\",removed_release=\"\",resource=\"{resource}\",subresource=\"\",version=\"v1\"}} 1"
        )
    };
    assert_eq!(told, [series("componentstatuses"), series("endpoints")]);
}

#[tokio::test]
async fn who_makes_what_nothing_comes_of_sees_what_upstream_shows() {
    let surface = Surface { whole: true, ..Surface::default() };
    let cluster = start_with(Options { surface, ..Options::default() }).await;
    let admin = cluster.admin();
    let policy = json!({"metadata": {"name": "deny"}, "spec": {"podSelector": {}}});
    let made = admin.post("/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", policy).await;
    assert_eq!((made.code, made.warnings.as_slice()), (201, &[][..]));
    let webhooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let made = admin.post(webhooks, json!({"metadata": {"name": "none"}})).await;
    assert_eq!((made.code, made.warnings.as_slice()), (201, &[][..]));
}

#[tokio::test]
async fn names_of_what_comes_of_files_are_reserved() {
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let object = json!({"metadata": {"name": "a.static.k8s.io"}});
    for on in [false, true] {
        let asked: api::features::Asked = format!("ManifestBasedAdmissionControlConfig={on}").parse().expect("gates");
        let surface = Surface { gates: asked.gates().expect("gates").0, ..Surface::default() };
        let cluster = start_with(Options { surface, ..Options::default() }).await;
        let admin = cluster.admin();
        let made = admin.post(path, object.clone()).await;
        if on {
            assert_eq!(
                (made.code, made.message()),
                (
                    422,
                    "MutatingWebhookConfiguration.admissionregistration.k8s.io \"a.static.k8s.io\" is invalid: metadata.name: Invalid value: \"a.static.k8s.io\": names ending with \".static.k8s.io\" are reserved for static manifest-based configurations and cannot be managed via the API"
                )
            );
            continue;
        }
        let told = "metadata.name: names ending with \".static.k8s.io\" will be reserved for static manifest-based configurations when the ManifestBasedAdmissionControlConfig feature gate is enabled";
        assert_eq!(made.code, 201, "{}", made.body);
        assert!(made.warnings.iter().any(|warning| warning == told), "{:?}", made.warnings);
        let change = json!({"metadata": {"labels": {"a": "b"}}});
        let changed = admin.patch(&format!("{path}/a.static.k8s.io"), change).await;
        assert_eq!((changed.code, changed.warnings.as_slice()), (200, &[told.to_owned()][..]));
    }
}

#[tokio::test]
async fn what_is_measured_is_named_as_upstream_does() {
    let cluster = start().await;
    let admin = cluster.admin();
    cluster.service_account("default", "default").await;
    let labels =
        json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"});
    admin.patch("/api/v1/namespaces/default", json!({"metadata": {"labels": labels}})).await.expect(200);
    let pods = "/api/v1/namespaces/default/pods";
    admin.post(pods, crate::cluster::pod("a")).await.expect(201);
    let mut privileged = crate::cluster::pod("b");
    privileged["spec"]["hostNetwork"] = json!(true);
    assert_eq!(admin.post(pods, privileged).await.code, 403);
    admin.get(pods).await.expect(200);
    let node = cluster.user("system:node:n1", &["system:nodes"]);
    node.get("/api/v1/services").await.expect(200);
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let any = json!({"type": "NodePort", "ports": [{"port": 80}]});
    admin.post(services, service("any", any)).await.expect(201);
    let own = json!({"type": "NodePort", "clusterIP": "10.96.7.7", "ports": [{"port": 80, "nodePort": 30_777}]});
    admin.post(services, service("own", own.clone())).await.expect(201);
    assert_eq!(admin.post(services, service("taken", own)).await.code, 422);
    // Once memory knows of all of them.
    let claimed = admin.get("/apis/networking.k8s.io/v1/ipaddresses").await.expect(200);
    let claimed = claimed["items"].as_array().unwrap().len();
    assert!(claimed >= 2, "{claimed}");
    let metrics = admin.get("/metrics").await.expect(200);
    let text = metrics.as_str().unwrap();
    let (addresses, ports) = ("kube_apiserver_clusterip_allocator_", "kube_apiserver_nodeport_allocator_");
    let dynamic = "cidr=\"10.96.0.0/16\",scope=\"dynamic\"";
    for line in [
        format!("{addresses}allocated_ips{{cidr=\"10.96.0.0/16\"}} {claimed}"),
        format!("{addresses}available_ips{{cidr=\"10.96.0.0/16\"}} {}", 65_534 - claimed),
        format!("{addresses}allocation_total{{cidr=\"10.96.0.0/16\",scope=\"static\"}} 1"),
        format!("{addresses}allocation_errors_total{{cidr=\"10.96.0.0/16\",scope=\"static\"}} 1"),
        format!("{ports}allocated_ports 2"),
        format!("{ports}available_ports {}", 2768 - 2),
        format!("{ports}allocation_total{{scope=\"dynamic\"}} 1"),
        format!("{ports}allocation_total{{scope=\"static\"}} 1"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    assert!(text.contains(&format!("{addresses}allocation_total{{{dynamic}}} ")));
    let asked = "request_operation=\"create\",resource=\"pod\",subresource=\"\"";
    for line in [
        format!("pod_security_evaluations_total{{decision=\"allow\",mode=\"enforce\",policy_level=\"baseline\",policy_version=\"latest\",{asked}}} 1"),
        format!("pod_security_evaluations_total{{decision=\"deny\",mode=\"enforce\",policy_level=\"baseline\",policy_version=\"latest\",{asked}}} 1"),
        format!("pod_security_evaluations_total{{decision=\"deny\",mode=\"warn\",policy_level=\"restricted\",policy_version=\"latest\",{asked}}} 1"),
        "apiserver_authorization_decisions_total{decision=\"allowed\",name=\"node\",type=\"Node\"} 1".to_owned(),
        "apiserver_request_body_size_bytes_count{resource=\"pods\",verb=\"create\"} 2".to_owned(),
        "apiserver_request_body_size_bytes_count{resource=\"namespaces\",verb=\"patch\"} 1".to_owned(),
        "apiserver_request_body_size_bytes_bucket{resource=\"pods\",verb=\"create\",le=\"1.05e+06\"} 2".to_owned(),
        "apiserver_watch_cache_consistent_read_total{fallback=\"false\",group=\"\",resource=\"pods\",success=\"true\"} 1".to_owned(),
        "apiserver_watch_cache_read_wait_seconds_count{group=\"\",resource=\"pods\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    for begin in [
        "apiserver_storage_events_received_total{group=\"\",resource=\"pods\"} ",
        "apiserver_request_filter_duration_seconds_count{filter=\"authorization\"} ",
        "apiserver_request_filter_duration_seconds_count{filter=\"priorityandfairness\"} ",
    ] {
        assert!(text.lines().any(|found| found.starts_with(begin)), "{begin}");
    }
    for name in ["apiserver_selfrequest_total", "apiserver_storage_decode_errors_total", "pod_security_errors_total"] {
        assert!(text.contains(&format!("# TYPE {name} counter")), "{name}");
    }
    assert!(text.contains("go_version=\"go1."), "the version that /version tells");
    // Only plugins that upstream has, and the sides that they have.
    let times = "apiserver_admission_controller_admission_duration_seconds_count{name=\"";
    let told: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(times)).collect();
    assert!(told.iter().any(|line| line.starts_with("NodeRestriction\"") && line.contains("type=\"admit\"")));
    assert!(told.iter().any(|line| line.starts_with("PodSecurity\"") && line.contains("type=\"validate\"")));
    for (name, side) in [
        ("NodeRestriction", "validate"),
        ("NamespaceLifecycle", "validate"),
        ("PodSecurity", "admit"),
        ("ResourceQuota", "admit"),
    ] {
        assert!(
            !told
                .iter()
                .any(|line| line.starts_with(&format!("{name}\"")) && line.contains(&format!("type=\"{side}\""))),
            "{name} {side}"
        );
    }
    for own in ["RBACEscalation", "PodCertificateSigning", "ClaimStatus", "AdminAccess"] {
        assert!(!told.iter().any(|line| line.starts_with(own)), "{own}");
    }
}
