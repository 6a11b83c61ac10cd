//! Certificate requests, tokens in Secrets, bootstrap tokens.

use crate::support::{ROOT_CA, running, until, until_gone};
use apiserver::authn::tokens::TokenAuthenticator as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn request(name: &str, organization: &str, signer: &str) -> Value {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{name}"));
    let key = KeyPair::generate().expect("a key");
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": STANDARD.encode(pem), "signerName": format!("kubernetes.io/{signer}"),
            "usages": ["digital signature", "client auth"]}})
}

#[tokio::test]
async fn a_nodes_request_is_approved_and_signed_and_others_wait() {
    let running = running().await;
    let admin = running.admin();
    let bind = |name: &str, role: &str| {
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:bootstrappers"}]})
    };
    let bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    let prefix = "system:certificates.k8s.io:certificatesigningrequests";
    admin.post(bindings, bind("join", "system:node-bootstrapper")).await.expect(201);
    admin.post(bindings, bind("approve", &format!("{prefix}:nodeclient"))).await.expect(201);
    let node = running.cluster.user("system:bootstrap:abcdef", &["system:bootstrappers", "system:authenticated"]);
    node.post(REQUESTS, request("n1", "system:nodes", "kube-apiserver-client-kubelet")).await.expect(201);
    let issued = until(&admin, &format!("{REQUESTS}/n1"), |r| r["status"]["certificate"].is_string()).await;
    let condition = &issued["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("Approved"), &json!("AutoApproved")));
    assert_eq!(condition["message"], "Auto approving kubelet client certificate after SubjectAccessReview.");
    let pem = STANDARD.decode(issued["status"]["certificate"].as_str().unwrap_or("")).expect("base64");
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).expect("PEM");
    let certificate = pem.parse_x509().expect("a certificate");
    assert_eq!(certificate.subject().to_string(), "O=system:nodes, CN=system:node:n1");

    // Approved by a person, but not what its signer signs.
    node.post(REQUESTS, request("n2", "system:masters", "kube-apiserver-client-kubelet")).await.expect(201);
    let mut approved = admin.get(&format!("{REQUESTS}/n2")).await.expect(200);
    approved["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "x", "message": "x"}]);
    admin.put(&format!("{REQUESTS}/n2/approval"), approved).await.expect(200);
    let conditions = |r: &Value| r["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let failed =
        until(&admin, &format!("{REQUESTS}/n2"), |r| conditions(r).iter().any(|c| c["type"] == "Failed")).await;
    let condition = conditions(&failed).into_iter().find(|c| c["type"] == "Failed").expect("it failed");
    assert_eq!(condition["reason"], "SignerValidationFailure");
    assert_eq!(condition["message"], "subject organization is not system:nodes");
    assert!(failed["status"]["certificate"].is_null());
}

#[tokio::test]
async fn a_secret_is_filled_with_a_token_that_ends_with_it() {
    let running = running().await;
    let admin = running.admin();
    running.cluster.service_account("default", "robot").await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "robot"}}});
    admin.post(secrets, secret).await.expect(201);
    let path = format!("{secrets}/t");
    let filled = until(&admin, &path, |s| s["data"]["token"].is_string()).await;
    let data = |key: &str| {
        let bytes = STANDARD.decode(filled["data"][key].as_str().unwrap_or("")).expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    assert_eq!((data("namespace"), data("ca.crt")), ("default".to_owned(), ROOT_CA.to_owned()));
    let tokens = running.cluster.secured.tokens.clone();
    let token = data("token");
    let user = tokens.authenticate(&token, tokens.audiences()).await.expect("a good token").expect("its own token");
    assert_eq!(user.user.name, "system:serviceaccount:default:robot");
    admin.delete("/api/v1/namespaces/default/serviceaccounts/robot").await.expect(200);
    until_gone(&admin, &path).await;
    assert!(tokens.authenticate(&token, tokens.audiences()).await.is_err());
}

#[tokio::test]
async fn bootstrap_tokens_sign_the_clusters_information_and_end() {
    let running = running().await;
    let admin = running.admin();
    let info = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster-info"},
        "data": {"kubeconfig": "payload"}});
    admin.post("/api/v1/namespaces/kube-public/configmaps", info).await.expect(201);
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let token = |id: &str, expiration: &str| {
        json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"name": format!("bootstrap-token-{id}")},
            "stringData": {"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-signing": "true",
                "usage-bootstrap-authentication": "true", "expiration": expiration}})
    };
    admin.post(secrets, token("abcdef", "2999-01-01T00:00:00Z")).await.expect(201);
    admin.post(secrets, token("ghijkl", "2020-01-01T00:00:00Z")).await.expect(201);
    until_gone(&admin, &format!("{secrets}/bootstrap-token-ghijkl")).await;
    let path = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
    until(&admin, path, |map| map["data"]["jws-kubeconfig-abcdef"].is_string()).await;
    admin.delete(&format!("{secrets}/bootstrap-token-abcdef")).await.expect(200);
    let unsigned = until(&admin, path, |map| map["data"]["jws-kubeconfig-abcdef"].is_null()).await;
    assert_eq!(unsigned["data"], json!({"kubeconfig": "payload"}));
}
