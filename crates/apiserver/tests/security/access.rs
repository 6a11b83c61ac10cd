//! Who may do what.

use crate::cluster::{Client, Cluster, Options, audited, pod, start, start_with};
use apiserver::audit::Mode;
use apiserver::surface::Surface;
use serde_json::json;

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

#[tokio::test]
async fn a_user_without_roles_is_refused_in_upstreams_words() {
    let cluster = start().await;
    let jane = cluster.user("jane", &["devs"]);
    let answer = jane.get("/apis/apps/v1/namespaces/default/deployments").await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.message(),
        "deployments.apps is forbidden: User \"jane\" cannot list resource \"deployments\" in API group \"apps\" in the namespace \"default\""
    );
    assert_eq!(jane.get("/version").await.code, 200, "discovery is for everybody who is known");
    assert_eq!(jane.get("/metrics").await.code, 403);
}

#[tokio::test]
async fn a_binding_counts_from_the_moment_it_is_written() {
    let cluster = start().await;
    let (admin, jane) = (cluster.admin(), cluster.user("jane", &["devs"]));
    for round in 0..20 {
        let name = format!("view-{round}");
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "devs"}]
        });
        let path = format!("{RBAC}/namespaces/default/rolebindings");
        admin.post(&path, binding).await.expect(201);
        assert_eq!(jane.get("/api/v1/namespaces/default/pods").await.code, 200);
        assert_eq!(jane.get("/api/v1/namespaces/kube-system/pods").await.code, 403);
        assert_eq!(jane.get("/api/v1/namespaces/default/secrets").await.code, 403, "viewers see no secrets");
        admin.delete(&format!("{path}/{name}")).await.expect(200);
        assert_eq!(jane.get("/api/v1/namespaces/default/pods").await.code, 403);
    }
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let cluster = start().await;
    let admin = cluster.admin();
    // Jane manages roles in a namespace, but holds little else.
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "manager"},
        "rules": [
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["get", "create", "update", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
        ]
    });
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    admin.post(&roles, role).await.expect(201);
    let bind = |name: &str, kind: &str, role: &str| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]
        })
    };
    admin.post(&bindings, bind("jane", "Role", "manager")).await.expect(201);
    let jane = cluster.user("jane", &["devs"]);
    let grant = |name: &str, verbs: &[&str]| {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]
        })
    };
    jane.post(&roles, grant("reader", &["get"])).await.expect(201);
    let refused = jane.post(&roles, grant("deleter", &["get", "delete"])).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "roles.rbac.authorization.k8s.io \"deleter\" is forbidden: user \"jane\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
    );
    assert_eq!(jane.post(&bindings, bind("up", "ClusterRole", "cluster-admin")).await.code, 403);
    let missing = jane.post(&bindings, bind("gone", "Role", "none")).await;
    assert_eq!(missing.code, 404, "{}", missing.body);
    jane.post(&bindings, bind("own", "Role", "reader")).await.expect(201);
    // The roles of the server itself, she cannot change.
    assert_eq!(
        jane.patch(
            &format!("{roles}/manager"),
            json!({"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]})
        )
        .await
        .code,
        403
    );
}

/// Lets jane do something with some resources of the default namespace, by name.
async fn allow(cluster: &Cluster, resource: &str, group: &str, verbs: &[&str], names: &[&str]) {
    let admin = cluster.admin();
    let name = format!("jane-{resource}");
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
        "rules": [{"apiGroups": [group], "resources": [resource], "verbs": verbs, "resourceNames": names}]
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]
    });
    admin.post(&format!("{RBAC}/namespaces/default/roles"), role).await.expect(201);
    admin.post(&format!("{RBAC}/namespaces/default/rolebindings"), binding).await.expect(201);
}

#[tokio::test]
async fn a_selector_that_is_given_twice_selects_what_was_authorized() {
    let cluster = start().await;
    let (admin, jane) = (cluster.admin(), cluster.user("jane", &[]));
    allow(&cluster, "secrets", "", &["list", "watch"], &["allowed"]).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["allowed", "hidden"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
        admin.post(secrets, secret).await.expect(201);
    }
    for second in ["", "metadata.name%3Dhidden", "type%3DOpaque"] {
        let path = format!("{secrets}?fieldSelector=metadata.name%3Dallowed&fieldSelector={second}");
        let list = jane.get(&path).await.expect(200);
        let names: Vec<&str> =
            list["items"].as_array().unwrap().iter().map(|s| s["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["allowed"], "{second}");
        let path = format!("{secrets}?fieldSelector={second}&fieldSelector=metadata.name%3Dallowed");
        assert_eq!(jane.get(&path).await.code, 403, "{second}");
    }
}

#[tokio::test]
async fn a_write_that_creates_needs_the_permission_to_create() {
    let cluster = start().await;
    let jane = cluster.user("jane", &[]);
    allow(&cluster, "configmaps", "", &["patch", "update", "get"], &["allowed"]).await;
    allow(&cluster, "leases", "coordination.k8s.io", &["update"], &[]).await;
    let path = "/api/v1/namespaces/default/configmaps/allowed?fieldManager=t";
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "allowed"}, "data": {"a": "1"}});
    let apply = async |client: &Client, body: &serde_json::Value| {
        client.send("PATCH", path, "application/apply-patch+yaml", Some(body.clone())).await
    };
    let refused = apply(&jane, &config).await;
    assert_eq!(refused.code, 403);
    assert_eq!(
        refused.message(),
        "configmaps \"allowed\" is forbidden: User \"jane\" cannot create resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    assert_eq!(jane.put(&format!("{leases}/l"), lease.clone()).await.code, 403);
    cluster.admin().put(&format!("{leases}/l"), lease).await.expect(201);
    // What is there, she may change.
    apply(&cluster.admin(), &config).await.expect(201);
    let mut changed = config;
    changed["metadata"]["labels"] = json!({"b": "2"});
    changed["data"] = json!({"a": "1"});
    apply(&jane, &changed).await.expect(200);
}

#[tokio::test]
async fn an_apply_writes_the_object_of_its_path() {
    let cluster = start().await;
    let admin = cluster.admin();
    let path = "/api/v1/namespaces/default/configmaps/allowed?fieldManager=t";
    for (metadata, why) in [
        (json!({"name": "evil"}), "the name of the object (evil) does not match the name on the URL (allowed)"),
        (
            json!({"name": "allowed", "namespace": "other"}),
            "the namespace of the object (other) does not match the namespace on the request (default)",
        ),
    ] {
        for there in [false, true] {
            let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata.clone()});
            let refused = admin.send("PATCH", path, "application/apply-patch+yaml", Some(config)).await;
            assert_eq!((refused.code, refused.message()), (400, why), "{there}");
            if !there {
                let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "allowed"}});
                admin.send("PATCH", path, "application/apply-patch+yaml", Some(config)).await;
            }
        }
    }
    assert_eq!(admin.get("/api/v1/namespaces/default/configmaps/evil").await.code, 404);
}

#[tokio::test]
async fn reviews_answer_what_one_may_do() {
    let cluster = start().await;
    let jane = cluster.user("jane", &["devs"]);
    let ask = |verb: &str| {
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}
        })
    };
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let answer = jane.post(path, ask("list")).await.expect(201);
    assert_eq!(answer["status"]["allowed"], false);
    let admin = cluster.admin();
    assert_eq!(admin.post(path, ask("list")).await.expect(201)["status"]["allowed"], true);
    let other = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "system:kube-scheduler", "resourceAttributes": {"verb": "create", "resource": "pods", "subresource": "binding", "namespace": "x"}}
    });
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let answer = admin.post(reviews, other).await.expect(201);
    assert_eq!(answer["status"]["allowed"], true);
    assert!(answer["status"]["reason"].as_str().is_some_and(|r| r.starts_with("RBAC: allowed by ClusterRoleBinding")));
    let bad = admin
        .post(reviews, json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {}}))
        .await;
    assert_eq!(bad.code, 422, "{}", bad.body);
    let both = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {"user": "u", "resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"path": "/"}}
    });
    assert_eq!(
        admin.post(reviews, both).await.message(),
        "SubjectAccessReview.authorization.k8s.io \"\" is invalid: spec.nonResourceAttributes: Invalid value: {\"Path\":\"/\",\"Verb\":\"\"}: cannot be specified in combination with resourceAttributes"
    );
    let bad = admin
        .post(
            reviews,
            json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {"user": "u", "resourceAttributes": {
                    "verb": "list", "resource": "pods",
                    "fieldSelector": {"rawSelector": "a=b", "requirements": [{"key": "", "operator": "In"}]},
                    "labelSelector": {"requirements": [
                        {"key": "a", "operator": "Exists", "values": ["-"]}, {"key": "b", "operator": "of-tomorrow"}
                    ]}
                }}
            }),
        )
        .await;
    let told: Vec<String> = bad.body["details"]["causes"]
        .as_array()
        .expect("causes")
        .iter()
        .map(|c| format!("{}: {}", c["field"].as_str().unwrap_or(""), c["message"].as_str().unwrap_or("")))
        .collect();
    let at = "spec.resourceAttributes";
    assert_eq!(
        told[..4],
        [
            format!(
                "{at}.fieldSelector.rawSelector: Invalid value: \"a=b\": may not specified at the same time as requirements"
            ),
            format!("{at}.fieldSelector.requirements[0].key: Required value: must be specified"),
            format!(
                "{at}.fieldSelector.requirements[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
            ),
            format!(
                "{at}.labelSelector.requirements[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            ),
        ]
    );
    assert!(
        told.len() == 5
            && told[4].starts_with(&format!(
                "{at}.labelSelector.requirements[0].values[0]: Invalid value: \"-\": a valid label"
            ))
    );
    let local = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "LocalSubjectAccessReview",
        "metadata": {"name": "x", "namespace": "default"},
        "spec": {"user": "u", "resourceAttributes": {
            "verb": "list", "resource": "pods", "namespace": "default", "labelSelector": {}
        }}
    });
    let bad = admin.post("/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews", local).await;
    assert_eq!(bad.code, 422, "{}", bad.body);
    assert!(bad.message().contains("spec.resourceAttributes.labelSelector.requirements: Required value: when spec.resourceAttributes.labelSelector is specified, requirements or rawSelector is required"));
    assert!(bad.message().contains(": must be empty except for namespace"), "{}", bad.body);
    let rules = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let answer = jane.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules).await.expect(201);
    assert!(answer["status"]["resourceRules"].as_array().is_some_and(|r| !r.is_empty()));
    let own = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = jane.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", own).await.expect(201);
    assert_eq!(answer["status"]["userInfo"]["username"], "jane");
}

#[tokio::test]
async fn a_node_reaches_itself_and_its_pods_only() {
    let cluster = start().await;
    let admin = cluster.admin();
    let node = cluster.user("system:node:n1", &["system:nodes"]);
    let made = node
        .post("/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}}))
        .await
        .expect(201);
    assert_eq!(made["spec"]["taints"][0]["key"], "node.kubernetes.io/not-ready");
    let refused =
        node.post("/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}})).await;
    assert_eq!(refused.message(), "nodes \"n2\" is forbidden: node \"n1\" is not allowed to modify node \"n2\"");
    let lease = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    node.post(leases, lease("n1")).await.expect(201);
    assert_eq!(node.post(leases, lease("n2")).await.code, 403);

    cluster.service_account("default", "default").await;
    let secret = |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"a": "b"}});
    for name in ["mine", "other"] {
        admin.post("/api/v1/namespaces/default/secrets", secret(name)).await.expect(201);
    }
    let mut own = pod("p");
    own["spec"]["volumes"] = json!([{"name": "s", "secret": {"secretName": "mine"}}]);
    admin.post("/api/v1/namespaces/default/pods", own).await.expect(201);
    assert_eq!(node.get("/api/v1/namespaces/default/secrets/mine").await.code, 403, "the pod is not bound yet");
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    admin.post("/api/v1/namespaces/default/pods/p/binding", binding).await.expect(201);
    node.get("/api/v1/namespaces/default/secrets/mine").await.expect(200);
    let refused = node.get("/api/v1/namespaces/default/secrets/other").await;
    assert_eq!(
        refused.message(),
        "secrets \"other\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" in the namespace \"default\": no relationship found between node 'n1' and this object"
    );
    node.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1").await.expect(200);
    assert_eq!(node.get("/api/v1/pods").await.code, 403);
    let status = json!({"status": {"phase": "Running"}});
    node.patch("/api/v1/namespaces/default/pods/p/status", status.clone()).await.expect(200);
    let stranger = cluster.user("system:node:n2", &["system:nodes"]);
    assert_eq!(stranger.get("/api/v1/namespaces/default/secrets/mine").await.code, 403);
    let refused = stranger.patch("/api/v1/namespaces/default/pods/p/status", status).await;
    assert_eq!(
        refused.message(),
        "pods \"p\" is forbidden: node \"n2\" can only update pod status for pods with spec.nodeName set to itself"
    );
    admin.delete("/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0").await.expect(200);
    assert_eq!(node.get("/api/v1/namespaces/default/secrets/mine").await.code, 403, "the pod is gone");
}

#[tokio::test]
async fn the_past_is_for_those_who_may_look_at_the_present() {
    let cluster = start().await;
    let (admin, jane) = (cluster.admin(), cluster.user("jane", &[]));
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = |value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"value": value}});
    let made = admin.post(secrets, secret("1")).await.expect(201);
    let then = made["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    admin.put(&format!("{secrets}/s"), secret("2")).await.expect(200);
    let one = [format!("/at/{then}{secrets}/s"), format!("/history{secrets}/s")];
    let all = format!("/at/{then}{secrets}");
    for path in one.iter().chain([&all]) {
        let refused = jane.get(path).await;
        assert_eq!(refused.code, 403, "{path}");
        assert!(refused.message().contains("User \"jane\" cannot"), "{}", refused.message());
        admin.get(path).await.expect(200);
    }
    allow(&cluster, "secrets", "", &["get"], &["s"]).await;
    assert_eq!(jane.get(&one[0]).await.expect(200)["data"]["value"], "MQ==");
    assert_eq!(jane.get(&one[1]).await.expect(200)["versions"].as_array().map(Vec::len), Some(2));
    assert_eq!(jane.get(&all).await.code, 403, "a list needs the right to list");
    assert_eq!(jane.get(&format!("/at/{then}{secrets}/other")).await.code, 403);
}

#[tokio::test]
async fn rights_in_a_namespace_reach_back_to_its_creation_only() {
    let cluster = start().await;
    let (admin, jane) = (cluster.admin(), cluster.user("jane", &[]));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}});
    admin.post("/api/v1/namespaces", namespace.clone()).await.expect(201);
    let secrets = "/api/v1/namespaces/team/secrets";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let made = admin.post(secrets, secret.clone()).await.expect(201);
    let then = made["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    admin.delete(&format!("{secrets}/s")).await.expect(200);
    // No controller runs here: what it would do at the end is done by hand.
    admin.delete("/api/v1/namespaces/team").await.expect(200);
    admin
        .put(
            "/api/v1/namespaces/team/finalize",
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}, "spec": {"finalizers": []}}),
        )
        .await
        .expect(200);
    assert_eq!(admin.get("/api/v1/namespaces/team").await.code, 404);
    admin.get(&format!("/at/{then}{secrets}/s")).await.expect(200);
    // Somebody else has a namespace of that name now, and everything in it.
    admin.post("/api/v1/namespaces", namespace).await.expect(201);
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "jane"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"}]
    });
    admin.post(&format!("{RBAC}/namespaces/team/rolebindings"), binding).await.expect(201);
    let own = jane.post(secrets, secret).await.expect(201);
    let now = own["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    jane.get(&format!("/at/{now}{secrets}/s")).await.expect(200);
    for path in [format!("/at/{then}{secrets}/s"), format!("/at/{then}{secrets}")] {
        let refused = jane.get(&path).await;
        assert_eq!(refused.code, 403, "{path}: {}", refused.body);
        assert!(refused.message().contains("was made after that moment"), "{}", refused.message());
    }
    let hers = jane.get(&format!("/history{secrets}/s")).await.expect(200);
    assert_eq!(hers["versions"].as_array().map(Vec::len), Some(1), "{hers}");
    let all = admin.get(&format!("/history{secrets}/s")).await.expect(200);
    assert_eq!(all["versions"].as_array().map(Vec::len), Some(3), "{all}");
}

#[tokio::test]
async fn one_may_act_as_somebody_for_some_requests_alone() {
    let bob = async |gates: &str| {
        let asked: api::features::Asked = gates.parse().expect("gates");
        let surface = Surface { gates: asked.gates().expect("gates").0, ..Surface::default() };
        let cluster = start_with(Options { surface, ..Options::default() }).await;
        let rule = |group: &str, resource: &str, verb: &str| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
        let rules = json!([
            rule("authentication.k8s.io", "users", "impersonate:user-info"),
            rule("", "pods", "impersonate-on:user-info:list"),
        ]);
        for (name, rules, user) in
            [("act", rules, "bob"), ("look", json!([rule("", "pods", "list"), rule("", "services", "list")]), "jane")]
        {
            let role = json!({"metadata": {"name": name}, "rules": rules});
            cluster.admin().post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
            let binding = json!({"metadata": {"name": name},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
            cluster.admin().post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
        }
        cluster
    };
    let cluster = bob("").await;
    let asks = cluster.user("bob", &[]);
    let jane = [("impersonate-user", "jane")];
    asks.send_with("GET", "/api/v1/pods", &jane, None).await.expect(200);
    let refused = asks.send_with("GET", "/api/v1/services", &jane, None).await;
    let why = "services is forbidden: User \"bob\" cannot impersonate-on:user-info:list resource \"services\" in API group \"\" at the cluster scope";
    assert_eq!((refused.code, refused.message()), (403, why));
    let refused = asks.send_with("GET", "/api/v1/pods", &[("impersonate-user", "system:node:n1")], None).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    let nobody = asks.send_with("GET", "/api/v1/pods", &[("impersonate-uid", "u")], None).await;
    assert_eq!(nobody.code, 400, "{}", nobody.body);
    let cluster = bob("ConstrainedImpersonation=false").await;
    let refused = cluster.user("bob", &[]).send_with("GET", "/api/v1/pods", &jane, None).await;
    let why = "users \"jane\" is forbidden: User \"bob\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope";
    assert_eq!((refused.code, refused.message()), (403, why));
}

#[tokio::test]
async fn what_runs_out_of_time_is_recorded() {
    let (audit, log) = audited("omitStages: [RequestReceived], rules: [{level: Metadata}]", Mode::Blocking);
    let cluster = start_with(Options { audit: Some(audit), ..Options::default() }).await;
    let admin = cluster.admin();
    // A version that does not come to be is waited for.
    let waits = "/api/v1/nodes?resourceVersion=999999999&resourceVersionMatch=NotOlderThan&timeout=20ms";
    assert_eq!(admin.get(waits).await.code, 504);
    assert_eq!(admin.get("/api/v1/nodes?timeout=never").await.code, 400);
    let recorded = log.events(2, |event| event["objectRef"]["resource"] == "nodes").await;
    let recorded: Vec<_> =
        recorded.iter().map(|event| (&event["responseStatus"], &event["user"], &event["stage"])).collect();
    let [late, refused] = &recorded[..] else { panic!("{recorded:?}") };
    assert_eq!((late.0["code"].as_u64(), late.1["username"].as_str()), (Some(504), Some("admin")));
    assert_eq!((refused.0["code"].as_u64(), refused.1), (Some(400), &serde_json::json!({})));
    assert_eq!(refused.2, "ResponseStarted");
    let why = refused.0["message"].as_str().unwrap_or_default();
    assert!(why.starts_with("invalid timeout specified in the request URL"), "{why}");
}

#[tokio::test]
async fn what_a_request_sends_is_recorded_as_it_was_understood() {
    let policy =
        "omitStages: [RequestReceived], rules: [{level: Request, resources: [{group: '', resources: [pods]}]}]";
    let (audit, log) = audited(policy, Mode::Blocking);
    let cluster = start_with(Options { audit: Some(audit), ..Options::default() }).await;
    let admin = cluster.admin();
    cluster.service_account("default", "default").await;
    let pods = "/api/v1/namespaces/default/pods";
    // What a client says of its body, and what it leaves out, hide nothing.
    let pod = serde_json::json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let headers = [("content-type", "application/yaml"), ("content-encoding", "gzip")];
    assert_eq!(admin.send_with("POST", pods, &headers, Some(pod)).await.code, 201);
    let one = format!("{pods}/p");
    assert_eq!(admin.patch(&one, serde_json::json!({"metadata": {"labels": {"a": "b"}}})).await.code, 200);
    let body = serde_json::json!({"gracePeriodSeconds": 0});
    assert_eq!(admin.send("DELETE", &one, "application/json", Some(body)).await.code, 200);
    assert_eq!(admin.send("POST", pods, "application/json", Some(serde_json::json!([1]))).await.code, 400);
    let events = log.events(4, |event| event["objectRef"]["resource"] == "pods").await;
    let sent: Vec<_> = events.iter().map(|event| &event["requestObject"]).collect();
    assert_eq!((&sent[0]["apiVersion"], &sent[0]["kind"]), (&"v1".into(), &"Pod".into()));
    assert_eq!(sent[0]["spec"]["restartPolicy"], "Always", "with its defaults");
    assert!(sent[0]["spec"]["serviceAccountName"].is_null(), "before admission: {}", sent[0]);
    assert_eq!(*sent[1], serde_json::json!({"metadata": {"labels": {"a": "b"}}}));
    assert_eq!(sent[2]["kind"], "DeleteOptions");
    assert_eq!((&sent[2]["apiVersion"], &sent[2]["gracePeriodSeconds"]), (&"meta.k8s.io/v1".into(), &0.into()));
    assert!(sent[3].is_null(), "nothing was understood: {}", sent[3]);
    assert_eq!(events[0]["objectRef"]["name"], "p");
}

#[tokio::test]
async fn nothing_is_done_that_cannot_be_recorded_where_that_is_asked_for() {
    use apiserver::audit::{Audit, Policy, Rotation, Sink};
    let full = std::path::Path::new("/dev/full");
    if !full.exists() {
        return;
    }
    let sink = Sink::open(full, Rotation::default(), Mode::BlockingStrict).expect("it opens");
    let audit = Audit::new(Policy::metadata(), sink);
    let cluster = start_with(Options { audit: Some(audit), ..Options::default() }).await;
    let refused = cluster.admin().get("/api/v1/pods?limit=1&continue=").await;
    let why = "Internal Server Error: \"/api/v1/pods?limit=1&amp;continue=\": failed to store audit event\n";
    assert_eq!((refused.code, refused.body.as_str()), (500, Some(why)));
}

#[tokio::test]
async fn what_is_recorded_is_there_when_the_log_is_closed_though_the_server_still_is() {
    use apiserver::audit::Batch;
    let hour = std::time::Duration::from_secs(3600);
    let batch = Mode::Batch(Batch { buffer: 1000, size: 1000, wait: hour, throttle: None });
    let (audit, log) = audited("omitStages: [RequestReceived], rules: [{level: Metadata}]", batch);
    let cluster = start_with(Options { audit: Some(audit), ..Options::default() }).await;
    cluster.admin().get("/api/v1/namespaces/default/configmaps").await.expect(200);
    // What is still open holds the log, and does not hold it up.
    let watch = cluster.admin().open("/api/v1/namespaces/default/configmaps?watch=1").await;
    cluster.server.close_audit().await;
    let ours = |event: &serde_json::Value| event["user"]["username"] == "admin";
    let events = log.now(ours);
    let stages: Vec<_> = events.iter().map(|event| event["stage"].as_str().unwrap_or_default()).collect();
    assert_eq!(stages, ["ResponseComplete", "ResponseStarted"]);
    drop(watch);
}

#[tokio::test]
async fn who_leaves_before_the_answer_hides_nothing_from_the_log() {
    let (audit, log) = audited("omitStages: [RequestReceived], rules: [{level: Metadata}]", Mode::Blocking);
    let cluster = start_with(Options { audit: Some(audit), ..Options::default() }).await;
    let (admin, jane) = (cluster.admin(), cluster.user("jane", &["system:masters"]));
    let all = "/api/v1/namespaces/default/configmaps";
    let mut left = 0;
    for round in 0.. {
        let (name, one) = (format!("c{round}"), format!("{all}/c{round}"));
        admin.post(all, json!({"metadata": {"name": name}})).await.expect(201);
        let mut deleted = Box::pin(jane.delete(&one));
        // What it has asked the store for is done, whoever waits for it.
        let mut gone = false;
        let waits = loop {
            if futures::poll!(&mut deleted).is_ready() {
                break false;
            }
            for _ in 0..20 {
                gone = gone || admin.get(&one).await.code == 404;
                tokio::task::yield_now().await;
            }
            if gone {
                break true;
            }
        };
        drop(deleted);
        let events =
            log.events(1, |event| event["user"]["username"] == "jane" && event["objectRef"]["name"] == *name).await;
        let (verb, stage, code) = (&events[0]["verb"], &events[0]["stage"], &events[0]["responseStatus"]["code"]);
        assert_eq!((verb, stage), (&json!("delete"), &json!("ResponseComplete")));
        assert_eq!(*code, if waits { 504 } else { 200 }, "{}", events[0]);
        left += u32::from(waits);
        if left == 3 {
            return;
        }
        assert!(round < 100, "every answer came before its object was gone");
    }
}

#[tokio::test]
async fn a_log_that_hangs_does_not_hold_requests_longer_than_they_may_take() {
    use apiserver::audit::{Audit, Policy, Rotation, Sink};
    use std::io::{BufRead, BufReader, Write};
    use std::os::fd::AsRawFd;
    let late = "Timeout: request did not complete within the allotted timeout";
    let all = "/api/v1/namespaces/default/configmaps";
    for (omitted, code) in [("", 504), ("RequestReceived", 201)] {
        let (reader, mut pipe) = std::io::pipe().expect("a pipe");
        // As much as it holds.
        pipe.write_all(&[b'\n'; 1 << 16]).expect("written");
        let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
        let sink = Sink::open(path.as_ref(), Rotation::default(), Mode::Blocking).expect("a sink");
        drop(pipe);
        let policy = format!(
            "{{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [{omitted}], rules: [{{level: Metadata, verbs: [create]}}]}}"
        );
        let audit = Audit::new(Policy::parse(policy.as_bytes()).expect("a policy"), sink);
        let cluster = start_with(Options { audit: Some(audit), ..Options::default() }).await;
        let admin = cluster.admin();
        let answer = admin.post(&format!("{all}?timeout=1s"), json!({"metadata": {"name": "c"}})).await;
        assert_eq!((answer.code, answer.message()), (504, late));
        let done = admin.get(&format!("{all}/c")).await.code;
        assert_eq!(done, if omitted.is_empty() { 404 } else { 200 }, "nothing is done unrecorded");
        let lines = std::thread::spawn(move || {
            let lines = BufReader::new(reader).lines().map(|line| line.expect("a line"));
            lines.filter(|line| !line.is_empty()).collect::<Vec<_>>()
        });
        // What was handed over is written in the end.
        cluster.server.close_audit().await;
        let events: Vec<serde_json::Value> =
            lines.join().expect("read").iter().map(|line| serde_json::from_str(line).expect("an event")).collect();
        let told: Vec<_> = events.iter().map(|event| event["stage"].as_str().expect("a stage")).collect();
        let stages: &[&str] =
            if omitted.is_empty() { &["RequestReceived", "ResponseComplete"] } else { &["ResponseComplete"] };
        assert_eq!(told, stages);
        let end = events.last().expect("its end");
        assert_eq!(end["responseStatus"]["code"], code);
    }
}

#[tokio::test]
async fn who_grants_too_much_is_told_so_before_what_else_is_wrong() {
    let cluster = start().await;
    allow(&cluster, "*", "rbac.authorization.k8s.io", &["create", "update", "get"], &[]).await;
    let jane = cluster.user("jane", &["devs"]);
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    // Without verbs a rule is none.
    let broken =
        json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}, {"resources": ["x"], "verbs": []}]);
    let role = json!({"metadata": {"name": "r"}, "rules": broken});
    assert_eq!(cluster.admin().post(roles, role.clone()).await.code, 422);
    let refused = jane.post(roles, role).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    assert!(refused.message().contains("RBAC permissions not currently held"), "{}", refused.body);
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let binding = json!({"metadata": {"name": "b"}, "subjects": [],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Nothing", "name": "r"}});
    assert_eq!(cluster.admin().post(bindings, binding.clone()).await.code, 422);
    let refused = jane.post(bindings, binding).await;
    assert_eq!((refused.code, refused.message()), (500, "unsupported role reference kind: \"Nothing\""));
}
