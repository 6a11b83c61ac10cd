//! Certificates of pods: a node asks, and who may sign for the signer answers.

use crate::cluster::{Cluster, Options, start_with};
use apiserver::surface::Surface;
use serde_json::{Value, json};

const REQUESTS: &str = "/apis/certificates.k8s.io/v1beta1/namespaces/default/podcertificaterequests";
const CSR: &str = "MIHqMIGRAgEAMC8xFTATBgNVBAoMDHN5c3RlbTpub2RlczEWMBQGA1UEAwwNc3lzdGVtOm5vZGU6YTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABLF7nBGV8ZiPFeyWXo7WHQsr8BUy8EqD19yDt1RZ0sC9RR1aUOJa9Cc4qI40s8yAawP0ta0UOMypBYyQtmqXXhqgADAKBggqhkjOPQQDAgNIADBFAiEA1rF1m6iW/335ZLDF1ViN6A58CsiQ3Trfokgvi6IEI74CID0C6mMFbzoTpeMwy5QLollpBvCx5w29a/NeGYK4/g8k";

async fn open() -> Cluster {
    let asked: api::features::Asked = "PodCertificateRequest=true".parse().unwrap();
    let runtime = "certificates.k8s.io/v1beta1=true".parse().unwrap();
    let surface = Surface { gates: asked.gates().unwrap().0, runtime, ..Surface::default() };
    start_with(Options { surface, ..Options::default() }).await
}

fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap()
}

/// A pod on the node n1, and what asks for a certificate of it.
async fn running(cluster: &Cluster) -> Value {
    let admin = cluster.admin();
    let account = cluster.service_account("default", "default").await;
    let node = admin.post("/api/v1/nodes", json!({"metadata": {"name": "n1"}})).await.expect(201);
    let pod =
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    let pod = admin.post("/api/v1/namespaces/default/pods", pod).await.expect(201);
    json!({"metadata": {"name": "r"}, "spec": {"signerName": "example.com/s", "podName": "p", "podUID": uid(&pod),
        "serviceAccountName": "default", "serviceAccountUID": uid(&account), "nodeName": "n1", "nodeUID": uid(&node),
        "stubPKCS10Request": CSR}})
}

#[tokio::test]
async fn a_node_asks_for_pods_that_run_on_it() {
    let cluster = open().await;
    let request = running(&cluster).await;
    let other = cluster.user("system:node:n2", &["system:nodes"]);
    let refused = other.post(REQUESTS, request.clone()).await;
    let why = "podcertificaterequests.certificates.k8s.io \"r\" is forbidden: PodCertificateRequest.Spec.NodeName=\"n1\", which is not the requesting node \"n2\"";
    assert_eq!((refused.code, refused.message()), (403, why));
    let node = cluster.user("system:node:n1", &["system:nodes"]);
    let mut stale = request.clone();
    stale["spec"]["podUID"] = json!("x");
    let refused = node.post(REQUESTS, stale).await;
    // It may be the server that is behind: what is no refusal is tried again.
    assert_eq!(refused.code, 500, "{}", refused.body);
    assert!(refused.message().contains("contains pod UID (\"x\") which differs"), "{}", refused.body);
    let made = node.post(REQUESTS, request).await.expect(201);
    assert_eq!((&made["spec"]["maxExpirationSeconds"], &made["status"]), (&json!(86400), &json!({})));
    let one = format!("{REQUESTS}/r");
    node.get(&one).await.expect(200);
    assert_eq!(other.get(&one).await.code, 403);
    node.get("/apis/certificates.k8s.io/v1beta1/podcertificaterequests?fieldSelector=spec.nodeName%3Dn1")
        .await
        .expect(200);
    assert_eq!(node.delete(&one).await.code, 403);
    assert_eq!(node.put(&format!("{one}/status"), made.clone()).await.code, 403);
    // Nothing of what was asked for changes.
    let changed = cluster.admin().patch(&one, json!({"spec": {"podName": "q"}})).await;
    assert_eq!(changed.code, 422, "{}", changed.body);
}

#[tokio::test]
async fn who_may_sign_for_the_signer_denies_and_issues() {
    let cluster = open().await;
    let admin = cluster.admin();
    let request = running(&cluster).await;
    admin.post(REQUESTS, request).await.expect(201);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "status"}, "rules": [{"apiGroups": ["certificates.k8s.io"],
        "resources": ["podcertificaterequests/status"], "verbs": ["update", "patch"]}]});
    admin.post(&format!("{rbac}/clusterroles"), role).await.expect(201);
    let signs = json!({"metadata": {"name": "signs"}, "rules": [{"apiGroups": ["certificates.k8s.io"],
        "resources": ["signers"], "resourceNames": ["example.com/*"], "verbs": ["sign"]}]});
    admin.post(&format!("{rbac}/clusterroles"), signs).await.expect(201);
    let bind = async |role: &str, user: &str| {
        let binding = json!({"metadata": {"name": format!("{role}-{user}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]});
        admin.post(&format!("{rbac}/clusterrolebindings"), binding).await.expect(201);
    };
    bind("status", "jane").await;
    bind("status", "signer").await;
    bind("signs", "signer").await;
    let now = jiff::Timestamp::now();
    let shown = |at: jiff::Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition =
        |kind: &str| json!([{"type": kind, "status": "True", "reason": "Because", "lastTransitionTime": shown(now)}]);
    let status = format!("{REQUESTS}/r/status");
    let issued = json!({"status": {"certificateChain": "none", "conditions": condition("Issued")}});
    let refused = cluster.user("signer", &[]).patch(&status, issued).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    // To end a request without a certificate is the signer's, too.
    let denied = json!({"status": {"conditions": condition("Denied")}});
    let refused = cluster.user("jane", &[]).patch(&status, denied).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    let may_not = "spec.signerName: Forbidden: User \"jane\" is not permitted to \"sign\" for signer \"example.com/s\"";
    assert!(refused.message().contains(may_not), "{}", refused.body);
    // Since when a condition is so is for whoever sets it to say.
    let undated = json!({"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "Because"}]}});
    let refused = cluster.user("signer", &[]).patch(&status, undated).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    // A chain that would do: for the key that was asked for, valid for as long as was allowed.
    let issuer =
        rcgen::CertifiedIssuer::self_signed(rcgen::CertificateParams::default(), rcgen::KeyPair::generate().unwrap())
            .unwrap();
    let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, CSR).unwrap();
    let mut csr = rcgen::CertificateSigningRequestParams::from_der(&der.into()).unwrap();
    let begin = jiff::Timestamp::from_second(now.as_second()).unwrap();
    let time = |at: jiff::Timestamp| {
        rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(at.as_second().cast_unsigned())
    };
    let end = begin + jiff::SignedDuration::from_hours(2);
    (csr.params.not_before, csr.params.not_after) = (time(begin), time(end));
    let chain = csr.signed_by(&issuer).unwrap().pem();
    let issued = json!({"status": {"certificateChain": chain, "conditions": condition("Issued"), "notBefore": shown(begin),
        "notAfter": shown(end), "beginRefreshAt": shown(begin + jiff::SignedDuration::from_hours(1))}});
    let refused = cluster.user("jane", &[]).patch(&status, issued.clone()).await;
    assert_eq!(refused.code, 422, "{}", refused.body);
    assert!(refused.message().contains(may_not), "{}", refused.body);
    let done = cluster.user("signer", &[]).patch(&status, issued).await.expect(200);
    assert_eq!(done["status"]["certificateChain"], chain);
    // What is decided stays decided.
    let denied = json!({"status": {"conditions": condition("Denied")}});
    assert_eq!(admin.patch(&status, denied).await.code, 422);
    let table = admin
        .get("/apis/certificates.k8s.io/v1beta1/podcertificaterequests?fieldSelector=spec.podName%3Dp")
        .await
        .expect(200);
    assert_eq!(table["items"].as_array().map(Vec::len), Some(1));
}

/// A request for a kubelet's certificate, in PEM.
fn of_kubelet(name: &str, common_name: &str, signer: &str) -> Value {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pem);
    json!({"metadata": {"name": name}, "spec": {"request": request, "signerName": signer,
        "usages": ["digital signature", "client auth"]}})
}

#[tokio::test]
async fn a_node_asks_for_kubelet_certificates_of_itself_only() {
    const SIGNING: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    const CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
    let cluster = start_with(Options::default()).await;
    let node = cluster.user("system:node:n1", &["system:nodes"]);
    let why = "is forbidden: can only create a node CSR with CN=system:node:n1";
    for (number, signer) in [CLIENT, "kubernetes.io/kubelet-serving"].into_iter().enumerate() {
        for other in ["system:node:other", "jane", "", "system:node:n1 "] {
            let refused = node.post(SIGNING, of_kubelet("r", other, signer)).await;
            assert_eq!(refused.code, 403, "{other}: {}", refused.body);
            assert!(refused.message().ends_with(why), "{other}: {}", refused.body);
        }
        node.post(SIGNING, of_kubelet(&format!("own-{number}"), "system:node:n1", signer)).await.expect(201);
    }
    // It is told before the rules of the kind are asked.
    let mut broken = of_kubelet("r", "system:node:n1", CLIENT);
    broken["spec"]["request"] = json!("eA==");
    let refused = node.post(SIGNING, broken).await;
    assert_eq!(refused.code, 403, "{}", refused.body);
    let why = "is forbidden: unable to parse csr: PEM block type must be CERTIFICATE REQUEST";
    assert!(refused.message().ends_with(why), "{}", refused.body);
    // Other signers certify others, and others ask for whom they like.
    node.post(SIGNING, of_kubelet("any", "jane", "example.com/s")).await.expect(201);
    cluster.admin().post(SIGNING, of_kubelet("other", "system:node:other", CLIENT)).await.expect(201);
    let asked: api::features::Asked = "AllowInsecureKubeletCertificateSigningRequests=true".parse().unwrap();
    let surface = Surface { gates: asked.gates().unwrap().0, ..Surface::default() };
    let open = start_with(Options { surface, ..Options::default() }).await;
    let node = open.user("system:node:n1", &["system:nodes"]);
    node.post(SIGNING, of_kubelet("r", "system:node:other", CLIENT)).await.expect(201);
}
