//! Service account tokens: made, verified, and dead with what they are bound to.

use crate::cluster::{ISSUER, Options, pod, start, start_with};
use apiserver::authn::tokens::TokenAuthenticator;
use apiserver::surface::Surface;
use serde_json::{Value, json};

#[tokio::test]
async fn a_token_lives_as_long_as_its_pod_and_account() {
    let cluster = start().await;
    let admin = cluster.admin();
    cluster.service_account("default", "default").await;
    let made = admin.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": 3607, "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": made["metadata"]["uid"]}}
    });
    let answer = admin.post(path, request).await.expect(201);
    let token = answer["status"]["token"].as_str().expect("a token").to_owned();
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    let own = [ISSUER.to_owned()];
    let tokens = &cluster.secured.tokens;
    let found = tokens.authenticate(&token, &own).await.expect("good").expect("a user");
    assert_eq!(found.user.name, "system:serviceaccount:default:default");
    assert_eq!(found.user.groups, ["system:serviceaccounts", "system:serviceaccounts:default"]);
    assert_eq!(found.user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
    let other = tokens.authenticate(&token, &["another".to_owned()]).await.expect_err("another audience");
    assert!(other.to_string().contains("is invalid for the target audiences"), "{other}");

    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let answer = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await.expect(201);
    assert_eq!(answer["status"]["authenticated"], true);
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:default:default");
    let bad = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "nonsense"}});
    let answer = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", bad).await.expect(201);
    assert_eq!(answer["status"]["error"], "invalid bearer token");

    admin.delete("/api/v1/namespaces/default/pods/p?gracePeriodSeconds=0").await.expect(200);
    let refused = tokens.authenticate(&token, &own).await.expect_err("the pod is gone");
    assert_eq!(refused.to_string(), "service account token has been invalidated");
    // A pod of the same name is another pod.
    admin.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    assert!(tokens.authenticate(&token, &own).await.is_err());

    let plain = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = admin.post(path, plain).await.expect(201);
    assert_eq!(answer["spec"]["expirationSeconds"], 3600);
    let token = answer["status"]["token"].as_str().expect("a token").to_owned();
    assert!(tokens.authenticate(&token, &own).await.is_ok_and(|u| u.is_some()));
    admin.delete("/api/v1/namespaces/default/serviceaccounts/default").await.expect(200);
    assert!(tokens.authenticate(&token, &own).await.is_err());
    cluster.service_account("default", "default").await;
    let refused = tokens.authenticate(&token, &own).await.expect_err("another account");
    assert!(refused.to_string().contains("does not match claim"), "{refused}");
}

#[tokio::test]
async fn requests_for_tokens_are_checked() {
    let cluster = start().await;
    let admin = cluster.admin();
    cluster.service_account("default", "sa").await;
    let path = "/api/v1/namespaces/default/serviceaccounts/sa/token";
    let ask = |spec: Value| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    let short = admin.post(path, ask(json!({"expirationSeconds": 60}))).await;
    assert_eq!(short.code, 422);
    assert_eq!(
        short.message(),
        "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes"
    );
    let missing = admin.post("/api/v1/namespaces/default/serviceaccounts/none/token", ask(json!({}))).await;
    assert_eq!((missing.code, missing.message()), (404, "serviceaccounts \"none\" not found"));
    let unknown =
        admin.post(path, ask(json!({"boundObjectRef": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}}))).await;
    assert_eq!(unknown.message(), "cannot bind token to object of type /v1, Kind=ConfigMap");
    let mut other = ask(json!({"expirationSeconds": 60}));
    other["metadata"] = json!({"name": "other"});
    let refused = admin.post("/api/v1/namespaces/default/serviceaccounts/none/token", other).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            422,
            "TokenRequest.authentication.k8s.io \"none\" is invalid: metadata.name: Invalid value: \"other\": must match the service account name if specified"
        )
    );
    let uid = admin.get("/api/v1/namespaces/default/serviceaccounts/sa").await.expect(200)["metadata"]["uid"].clone();
    let mut stale = ask(json!({}));
    stale["metadata"] = json!({"uid": "x"});
    let refused = admin.post(path, stale.clone()).await;
    let why = "the UID in the token request (x) does not match the UID of the service account";
    let uid_text = uid.as_str().expect("a uid");
    assert_eq!(
        (refused.code, refused.message()),
        (
            409,
            format!("Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"sa\": {why} ({uid_text})")
                .as_str()
        )
    );
    stale["metadata"] = json!({"uid": uid});
    assert_eq!(admin.post(path, stale).await.expect(201)["metadata"]["uid"], uid);
    assert_eq!(admin.post(path, ask(json!({}))).await.expect(201)["metadata"]["uid"], uid);
    let foreign = ask(json!({"boundObjectRef": {"kind": "Pod", "name": "p"}}));
    cluster.service_account("default", "default").await;
    admin.post("/api/v1/namespaces/default/pods", pod("p")).await.expect(201);
    let refused = admin.post(path, foreign).await;
    assert_eq!(
        refused.message(),
        "cannot bind token for serviceaccount \"sa\" to pod running with different serviceaccount name."
    );
}

#[tokio::test]
async fn the_use_of_a_token_in_a_secret_is_noted() {
    use base64::Engine as _;
    let cluster = start().await;
    let admin = cluster.admin();
    let account = cluster.service_account("default", "old").await;
    let uid = account["metadata"]["uid"].as_str().unwrap_or_default();
    let tokens = &cluster.secured.tokens;
    let token = tokens.issue_legacy("default", "old", uid, "old-token").expect("a token");
    let data = json!({"token": base64::engine::general_purpose::STANDARD.encode(&token)});
    let secret = json!({"metadata": {"name": "old-token", "annotations": {"kubernetes.io/service-account.name": "old",
        "kubernetes.io/service-account.uid": uid}}, "type": "kubernetes.io/service-account-token", "data": data});
    admin.post("/api/v1/namespaces/default/secrets", secret).await.expect(201);
    let map = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";
    let since = admin.get(map).await.expect(200)["data"]["since"].clone();
    let own = tokens.audiences().to_vec();
    let user = tokens.authenticate(&token, &own).await.expect("good").expect("known").user;
    assert_eq!(user.name, "system:serviceaccount:default:old");
    let noted = admin.get("/api/v1/namespaces/default/secrets/old-token").await.expect(200);
    let used = noted["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].as_str().unwrap_or_default();
    let (used, since): (jiff::civil::Date, jiff::civil::Date) =
        (used.parse().expect("a day"), since.as_str().unwrap_or_default().parse().expect("a day"));
    // Midnight may have passed between.
    assert!(used == since || since.tomorrow().is_ok_and(|next| used == next), "{used} {since}");
    // One that a controller made is told of; whether it is one, the account says.
    let told = || async { tokens.authenticate(&token, &own).await.expect("good").expect("known").told };
    let by_hand = told().await;
    let noted_as = |kind: &str| vec![(format!("authentication.k8s.io/legacy-token-{kind}"), "old-token".to_owned())];
    assert_eq!((by_hand.warnings.len(), by_hand.annotations), (0, noted_as("manual-secret")));
    let accounts = "/api/v1/namespaces/default/serviceaccounts/old";
    admin.patch(accounts, json!({"secrets": [{"name": "old-token"}]})).await.expect(200);
    assert_eq!(told().await.annotations, noted_as("autogenerated-secret"));
    let review = json!({"spec": {"token": token}});
    assert_eq!(
        admin.post("/apis/authentication.k8s.io/v1/tokenreviews", review).await.warnings,
        [
            "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens."
        ]
    );
    let secret = "/api/v1/namespaces/default/secrets/old-token";
    let label = |since: Value| json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": since}}});
    admin.patch(secret, label(json!("2026-01-01"))).await.expect(200);
    assert_eq!(
        tokens.authenticate(&token, &own).await.expect_err("marked").to_string(),
        "the token in secret default/old-token for service account default/old has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the 'kubernetes.io/legacy-token-invalid-since' label from the secret to temporarily allow use of this token"
    );
    let metrics = admin.get("/metrics").await.expect(200);
    let counted = |name: &str| {
        let line = metrics.as_str().unwrap_or_default().lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit_once(' ')).map(|(_, count)| count.to_owned())
    };
    for (name, count) in [
        ("legacy_tokens_total", "4"),
        ("legacy_manual_token_uses_total", "2"),
        ("legacy_auto_token_uses_total", "2"),
        ("invalid_legacy_auto_token_uses_total", "1"),
    ] {
        assert_eq!(counted(&format!("serviceaccount_{name}")).as_deref(), Some(count), "{name}");
    }
    admin.patch(secret, label(Value::Null)).await.expect(200);
    let version = admin.get(secret).await.expect(200)["metadata"]["resourceVersion"].clone();
    tokens.authenticate(&token, &own).await.expect("good");
    let again = admin.get("/api/v1/namespaces/default/secrets/old-token").await.expect(200);
    assert!(again["metadata"]["resourceVersion"] == version || used != since, "once a day is enough");
}

#[tokio::test]
async fn others_can_verify_tokens_by_the_published_keys() {
    let cluster = start().await;
    // Service accounts may read the documents, as upstream's default roles say.
    let account = cluster.user("system:serviceaccount:default:x", &["system:serviceaccounts"]);
    let document = account.get("/.well-known/openid-configuration").await.expect(200);
    assert_eq!(document["issuer"], ISSUER);
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let keys = account.get("/openid/v1/jwks").await.expect(200);
    assert_eq!(keys["keys"][0]["kty"], "EC");
}

#[tokio::test]
async fn a_node_asks_for_audiences_of_its_pods_alone() {
    let cluster = start().await;
    let admin = cluster.admin();
    cluster.service_account("default", "default").await;
    admin.post("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.expect(201);
    let claim = json!({"metadata": {"name": "claim"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "v",
        "resources": {"requests": {"storage": "1Gi"}}}});
    admin.post("/api/v1/namespaces/default/persistentvolumeclaims", claim).await.expect(201);
    let volume = |driver: &str| {
        json!({"metadata": {"name": "v"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": driver, "volumeHandle": "h"}}})
    };
    admin.post("/api/v1/persistentvolumes", volume("claimed.example.com")).await.expect(201);
    let driver = |name: &str, audience: &str| json!({"metadata": {"name": name}, "spec": {"tokenRequests": [{"audience": audience}]}});
    for (name, audience) in [("inline.example.com", "for-inline"), ("claimed.example.com", "for-claimed")] {
        admin.post("/apis/storage.k8s.io/v1/csidrivers", driver(name, audience)).await.expect(201);
    }
    let mut runs = pod("p");
    runs["spec"]["nodeName"] = json!("n1");
    runs["spec"]["volumes"] = json!([
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "projected"}}]}},
        {"name": "i", "csi": {"driver": "inline.example.com"}},
        {"name": "c", "persistentVolumeClaim": {"claimName": "claim"}},
    ]);
    let pod = admin.post("/api/v1/namespaces/default/pods", runs).await.expect(201);
    let node = cluster.user("system:node:n1", &["system:nodes", "system:authenticated"]);
    let path = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let ask = |audiences: Value| {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": audiences,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}}})
    };
    // The token of the account itself is projected by admission.
    for own in [json!([]), json!(["projected"]), json!(["for-inline"]), json!(["for-claimed"])] {
        node.post(path, ask(own)).await.expect(201);
    }
    let refused = node.post(path, ask(json!(["a", "b"]))).await;
    let why = "serviceaccounts \"default\" is forbidden: node may only request 0 or 1 audiences";
    assert_eq!((refused.code, refused.message()), (403, why));
    let refused = node.post(path, ask(json!(["registry"]))).await;
    let why = "serviceaccounts \"default\" is forbidden: audience \"registry\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience";
    assert_eq!((refused.code, refused.message()), (403, why));
    admin.delete("/apis/storage.k8s.io/v1/csidrivers/inline.example.com").await.expect(200);
    let refused = node.post(path, ask(json!(["for-inline"]))).await;
    let why = "serviceaccounts \"default\" is forbidden: error validating audience \"for-inline\": csidriver.storage.k8s.io \"inline.example.com\" not found";
    assert_eq!((refused.code, refused.message()), (403, why));
    admin.post("/apis/storage.k8s.io/v1/csidrivers", driver("inline.example.com", "x")).await.expect(201);
    let role = json!({"metadata": {"name": "pull"}, "rules": [{"apiGroups": [""], "resources": ["registry"],
        "resourceNames": ["default"], "verbs": ["request-serviceaccounts-token-audience"]}]});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", role).await.expect(201);
    let binding = json!({"metadata": {"name": "pull"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "pull"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}]});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding).await.expect(201);
    node.post(path, ask(json!(["registry"]))).await.expect(201);
    // Others ask for what they like.
    admin.post(path, ask(json!(["anything"]))).await.expect(201);
}

#[tokio::test]
async fn without_the_gate_another_uid_is_warned_of() {
    let asked: api::features::Asked = "TokenRequestServiceAccountUIDValidation=false".parse().expect("gates");
    let surface = Surface { gates: asked.gates().expect("gates").0, ..Surface::default() };
    let cluster = start_with(Options { surface, ..Options::default() }).await;
    cluster.service_account("default", "sa").await;
    let request = json!({"metadata": {"uid": "x"}, "spec": {}});
    let made = cluster.admin().post("/api/v1/namespaces/default/serviceaccounts/sa/token", request).await;
    assert_eq!((made.code, &made.body["metadata"]["uid"]), (201, &json!("x")));
    assert!(made.warnings[0].starts_with("the UID in the token request (x) does not match"), "{:?}", made.warnings);
}

#[tokio::test]
async fn without_the_gate_nodes_ask_for_any_audience() {
    let asked: api::features::Asked = "ServiceAccountNodeAudienceRestriction=false".parse().expect("gates");
    let surface = Surface { gates: asked.gates().expect("gates").0, ..Surface::default() };
    let cluster = start_with(Options { surface, ..Options::default() }).await;
    cluster.service_account("default", "default").await;
    let mut runs = pod("p");
    runs["spec"]["nodeName"] = json!("n1");
    let pod = cluster.admin().post("/api/v1/namespaces/default/pods", runs).await.expect(201);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["any"],
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}}});
    let node = cluster.user("system:node:n1", &["system:nodes"]);
    node.post("/api/v1/namespaces/default/serviceaccounts/default/token", request).await.expect(201);
}
