//! Who may do what.

use crate::cluster::{pod, start};
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
