//! How nodes join: what a control plane publishes for them, and what a node needs to trust it.
//!
//! The control plane shows its CA in its TLS handshake; a new node knows it by the hash that `pilothouse server` prints, and
//! shows a bootstrap token, with which it may ask for a certificate of its own and nothing else.

use super::Settings;
use super::control_plane::ControlPlane;
use super::node::{apply, resource};
use crate::cli::Cidr;
use crate::pki::Pki;
use anyhow::{Context, Result};
use apiserver::user::UserInfo;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ListParams;
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const NAMESPACE: &str = "kube-system";
const GROUP: &str = "system:bootstrappers:pilothouse:default-node-token";
const DESCRIPTION: &str = "for nodes that join by `pilothouse agent`";
/// As long as kubeadm's.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// A token that ends sooner is not given to anybody any more.
const LEFT: Duration = Duration::from_secs(3600);
/// The ConfigMap that tells nodes of the cluster.
const CONFIG: &str = "pilothouse";

/// What a new node is given.
#[derive(Clone, Debug)]
pub struct Invitation {
    server: SocketAddr,
    token: String,
    ca_hash: String,
}

impl Invitation {
    /// What to type on the node's machine.
    pub fn command(&self) -> String {
        format!(
            "pilothouse agent --server https://{} --token {} --discovery-token-ca-cert-hash {}",
            self.server, self.token, self.ca_hash
        )
    }
}

/// The hash of a CA's public key, as kubeadm writes it.
pub fn ca_hash(der: &[u8]) -> Option<String> {
    use std::fmt::Write;
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate.public_key().raw);
    let mut text = "sha256:".to_owned();
    for byte in digest.as_ref() {
        write!(text, "{byte:02x}").ok()?;
    }
    Some(text)
}

/// Publishes what nodes need, and gives what to tell them.
pub async fn prepare(settings: &Settings, plane: &ControlPlane, pki: &Pki) -> Result<Invitation> {
    let client = plane.client(UserInfo::apiserver(), "pilothouse");
    rights(&client).await?;
    publish(&client, settings).await?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(pki.ca_pem()?.as_bytes()).context("the CA's certificate")?;
    Ok(Invitation {
        server: SocketAddr::new(settings.node_ip, settings.api.port()),
        token: token(&client).await?,
        ca_hash: ca_hash(&pem.contents).context("the CA's certificate")?,
    })
}

/// Roles that let the holder of a token ask for a node's certificate, and nodes read what they need.
async fn rights(client: &Client) -> Result<()> {
    let rbac = "rbac.authorization.k8s.io";
    let group = |name: &str| json!([{"kind": "Group", "apiGroup": rbac, "name": name}]);
    let cluster_roles = resource(rbac, "v1", "ClusterRole", "clusterroles");
    let role = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "pilothouse:node-proxier"},
        "rules": [
            {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    });
    apply(client, &cluster_roles, None, "pilothouse:node-proxier", &role).await?;
    // A node that joins looks whether its name is free, as kubeadm's do.
    let role = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "pilothouse:get-nodes"},
        "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
    });
    apply(client, &cluster_roles, None, "pilothouse:get-nodes", &role).await?;
    let approver = "pilothouse:serving-approver";
    let role = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": approver},
        "rules": [
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
            {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
             "resourceNames": ["kubernetes.io/kubelet-serving"], "verbs": ["approve"]},
        ],
    });
    apply(client, &cluster_roles, None, approver, &role).await?;
    let binding = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": approver},
        "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": approver},
        "subjects": [{"kind": "ServiceAccount", "name": "certificate-controller", "namespace": NAMESPACE}],
    });
    apply(client, &resource(rbac, "v1", "ClusterRoleBinding", "clusterrolebindings"), None, approver, &binding).await?;
    let bindings = resource(rbac, "v1", "ClusterRoleBinding", "clusterrolebindings");
    let signing = "system:certificates.k8s.io:certificatesigningrequests";
    for (name, role, subject) in [
        ("pilothouse:kubelet-bootstrap", "system:node-bootstrapper".to_owned(), GROUP),
        ("pilothouse:get-nodes", "pilothouse:get-nodes".to_owned(), GROUP),
        ("pilothouse:node-autoapprove-bootstrap", format!("{signing}:nodeclient"), GROUP),
        ("pilothouse:node-autoapprove-certificate-rotation", format!("{signing}:selfnodeclient"), "system:nodes"),
        ("pilothouse:node-proxier", "pilothouse:node-proxier".to_owned(), "system:nodes"),
    ] {
        let binding = json!({
            "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": group(subject),
        });
        apply(client, &bindings, None, name, &binding).await?;
    }
    let name = "pilothouse:node-config";
    let role = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": name, "namespace": NAMESPACE},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [CONFIG], "verbs": ["get"]}],
    });
    apply(client, &resource(rbac, "v1", "Role", "roles"), Some(NAMESPACE), name, &role).await?;
    let binding = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": name, "namespace": NAMESPACE},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        "subjects": group("system:nodes"),
    });
    apply(client, &resource(rbac, "v1", "RoleBinding", "rolebindings"), Some(NAMESPACE), name, &binding).await
}

/// What a node is told of its cluster.
#[derive(Clone, Debug)]
pub struct Told {
    pub dns: IpAddr,
    pub domain: String,
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
}

impl Told {
    /// Reads what [`publish`] wrote, or a node kept of it.
    ///
    /// # Errors
    /// The field that is missing or wrong.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self> {
        let field = |name: &str| data.get(name).with_context(|| format!("{name} is missing"));
        let cidr = |name: &str| -> Result<Cidr> { field(name)?.parse().map_err(|e| anyhow::anyhow!("{name}: {e}")) };
        Ok(Told {
            dns: field("clusterDNS")?.parse().context("clusterDNS")?,
            domain: field("clusterDomain")?.clone(),
            pod_cidr: cidr("podCIDR")?,
            service_cidr: cidr("serviceCIDR")?,
        })
    }
}

async fn publish(client: &Client, settings: &Settings) -> Result<()> {
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG, "namespace": NAMESPACE},
        "data": {
            "clusterDNS": settings.dns_ip.to_string(),
            "clusterDomain": settings.args.cluster_domain,
            "podCIDR": settings.args.pod_cidr.to_string(),
            "serviceCIDR": settings.args.service_cidr.to_string(),
        },
    });
    apply(client, &resource("", "v1", "ConfigMap", "configmaps"), Some(NAMESPACE), CONFIG, &config).await
}

/// Reads what the control plane published.
pub async fn read(client: &Client) -> Result<BTreeMap<String, String>> {
    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let config = configs.get(CONFIG).await.context("what the control plane tells nodes can't be read")?;
    Ok(config.data.unwrap_or_default())
}

/// A bootstrap token that is good for a while: one that is there, or a new one.
async fn token(client: &Client) -> Result<String> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let now = jiff::Timestamp::now();
    let there = secrets.list(&ListParams::default().fields("type=bootstrap.kubernetes.io/token")).await?;
    for secret in there {
        let data = secret.data.unwrap_or_default();
        let text = |key: &str| data.get(key).and_then(|v| String::from_utf8(v.0.clone()).ok()).unwrap_or_default();
        let until = text("expiration").parse::<jiff::Timestamp>();
        if text("description") == DESCRIPTION && until.is_ok_and(|until| until > now + LEFT) {
            return Ok(format!("{}.{}", text("token-id"), text("token-secret")));
        }
    }
    let (id, secret) = (random(6), random(16));
    let until = jiff::Timestamp::from_second((now + LIFE).as_second())?.to_string();
    let base64 = |text: &str| STANDARD.encode(text);
    let name = format!("bootstrap-token-{id}");
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {
            "token-id": base64(&id),
            "token-secret": base64(&secret),
            "expiration": base64(&until),
            "description": base64(DESCRIPTION),
            "usage-bootstrap-authentication": base64("true"),
            "auth-extra-groups": base64(GROUP),
        },
    });
    apply(client, &resource("", "v1", "Secret", "secrets"), Some(NAMESPACE), &name, &object).await?;
    Ok(format!("{id}.{secret}"))
}

/// Random lower-case letters and digits.
fn random(length: usize) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::with_capacity(length);
    while text.len() < length {
        // Seven multiples of 36 fit into a byte: what is above would favour some letters. The fixed bits of a UUID, in two
        // of its bytes, are left out.
        let bytes = uuid::Uuid::new_v4().into_bytes();
        let fair = bytes.iter().enumerate().filter(|(at, byte)| !matches!(at, 6 | 8) && **byte < 252);
        text.extend(fair.map(|(_, byte)| char::from(LETTERS[usize::from(byte % 36)])).take(length - text.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_of_the_form_and_never_the_same() {
        let (a, b) = (random(16), random(16));
        assert_ne!(a, b);
        assert!(a.len() == 16 && a.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{a}");
    }

    #[test]
    fn what_a_node_is_told_is_checked() {
        let mut data: BTreeMap<String, String> = [
            ("clusterDNS", "10.96.0.10"),
            ("clusterDomain", "cluster.local"),
            ("podCIDR", "10.244.0.0/16"),
            ("serviceCIDR", "10.96.0.0/16"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        assert!(Told::parse(&data).is_ok());
        data.insert("podCIDR".into(), "10.244.0.1/16".into());
        let error = Told::parse(&data).expect_err("wrong").to_string();
        assert!(error.contains("podCIDR"), "{error}");
    }
}
