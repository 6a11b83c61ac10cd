//! A kubelet's certificates, asked for by CertificateSigningRequests: the first client certificate with a bootstrap token's
//! rights, each later one with the certificate before it. Files are named as upstream's are (`kubelet-client-current.pem`,
//! `kubelet-server-current.pem`), each with its key.

use super::client;
use crate::pki::write_atomically;
use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use x509_parser::extensions::GeneralName;

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
/// How long a request may wait to be approved and signed, as upstream's kubelet waits.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// After how long it is said what is waited for.
const SAY: Duration = Duration::from_secs(10);
/// A certificate is replaced after this part of its life.
const RENEW: f64 = 0.8;

/// Where a kubelet keeps its certificates.
#[derive(Clone, Debug)]
pub struct Kept {
    pub dir: PathBuf,
}

impl Kept {
    /// Client certificate and key in one file.
    pub fn current(&self) -> PathBuf {
        self.dir.join("kubelet-client-current.pem")
    }

    /// Serving certificate and key in one file.
    pub fn serving(&self) -> PathBuf {
        self.dir.join("kubelet-server-current.pem")
    }

    /// When the client certificate is to be replaced; `None` when there is none that can be used.
    pub fn renewal(&self, node: &str) -> Option<SystemTime> {
        renewal(&self.current(), node, &[])
    }

    /// The same of the serving certificate, which must have the node's addresses.
    pub fn serving_renewal(&self, node: &str, addresses: &[IpAddr]) -> Option<SystemTime> {
        renewal(&self.serving(), node, addresses)
    }

    /// Asks for a client certificate and keeps it.
    ///
    /// # Errors
    /// The request is refused, denied, or not answered in time.
    pub async fn request(&self, client: &Client, node: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        let request = params(node).serialize_request(&key)?.pem()?;
        let certificate = ask(client, request, CLIENT_SIGNER, "client auth").await?;
        self.keep(&self.current(), &certificate, &key.serialize_pem())
    }

    /// Asks for a serving certificate and keeps it.
    ///
    /// # Errors
    /// The request is refused, denied, or not answered in time.
    pub async fn request_serving(&self, client: &Client, node: &str, addresses: &[IpAddr]) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = params(node);
        params.subject_alt_names.push(SanType::DnsName(node.try_into()?));
        params.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        let request = params.serialize_request(&key)?.pem()?;
        let certificate = ask(client, request, SERVING_SIGNER, "server auth").await?;
        self.keep(&self.serving(), &certificate, &key.serialize_pem())
    }

    fn keep(&self, file: &Path, certificate: &str, key: &str) -> Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        write_atomically(file, format!("{}\n{key}", certificate.trim_end()).as_bytes(), 0o600)
    }

    /// Writes the kubeconfig that uses the certificate.
    pub fn write_kubeconfig(&self, file: &Path, server: &str, ca_pem: &[u8]) -> Result<()> {
        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
        let current = self.current();
        let document = serde_json::json!({
            "apiVersion": "v1", "kind": "Config",
            "clusters": [{"name": "default-cluster", "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [{"name": "default-auth", "user": {"client-certificate": current, "client-key": current}}],
            "contexts": [{"name": "default-context", "context": {"cluster": "default-cluster", "user": "default-auth"}}],
            "current-context": "default-context",
        });
        if let Some(parent) = file.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        write_atomically(file, serde_saphyr::to_string(&document)?.as_bytes(), 0o600)
    }
}

/// A request of a node.
fn params(node: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "system:nodes");
    name.push(DnType::CommonName, format!("system:node:{node}"));
    params.distinguished_name = name;
    params
}

fn renewal(file: &Path, node: &str, addresses: &[IpAddr]) -> Option<SystemTime> {
    let pem = std::fs::read(file).ok()?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    if name != format!("system:node:{node}") {
        return None;
    }
    if !addresses.is_empty() {
        let names = certificate.subject_alternative_name().ok()??;
        let has = |ip: &IpAddr| {
            let octets = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            names.value.general_names.iter().any(|n| matches!(n, GeneralName::IPAddress(bytes) if **bytes == octets))
        };
        if !addresses.iter().all(has) {
            return None;
        }
    }
    let second = |time: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap_or(0));
    let (from, to) =
        (second(certificate.validity().not_before.timestamp()), second(certificate.validity().not_after.timestamp()));
    (to > SystemTime::now()).then(|| from + to.duration_since(from).unwrap_or_default().mul_f64(RENEW))
}

/// Makes sure that there is a kubeconfig with a certificate, by the rights of `bootstrap`'s credentials.
pub async fn ensure(bootstrap: &Path, kubeconfig: &Path, kept: &Kept, node: &str) -> Result<()> {
    if kubeconfig.exists() && (kept.renewal(node).is_some() || !uses(kubeconfig, &kept.current())) {
        return Ok(());
    }
    let config = client::from_file(bootstrap)
        .await
        .with_context(|| format!("--bootstrap-kubeconfig {}", bootstrap.display()))?;
    let asking = client::client(&config, "kubelet")?;
    if kept.renewal(node).is_none() {
        kept.request(&asking, node).await.context("this node got no certificate")?;
    }
    let ca = match &config.root_cert {
        Some(list) => list.iter().map(|der| pem(der)).collect::<String>(),
        None => String::new(),
    };
    kept.write_kubeconfig(kubeconfig, config.cluster_url.to_string().trim_end_matches('/'), ca.as_bytes())
}

/// Whether a kubeconfig refers to a certificate file.
fn uses(kubeconfig: &Path, certificate: &Path) -> bool {
    std::fs::read_to_string(kubeconfig).is_ok_and(|text| text.contains(&*certificate.to_string_lossy()))
}

pub fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn ended() -> impl Condition<CertificateSigningRequest> {
    |request: Option<&CertificateSigningRequest>| {
        let status = request.and_then(|r| r.status.as_ref());
        status.is_some_and(|status| {
            let failed = status.conditions.iter().flatten().any(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
            failed || status.certificate.as_ref().is_some_and(|c| !c.0.is_empty())
        })
    }
}

/// Sends a request and waits until it is signed; gives the certificate as PEM.
async fn ask(client: &Client, request: String, signer: &str, usage: &str) -> Result<String> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let object = CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: signer.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), usage.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let made = requests.create(&PostParams::default(), &object).await.context("the request was not taken")?;
    let name = made.metadata.name.context("a request has a name")?;
    let waiting = await_condition(requests.clone(), &name, ended());
    tokio::pin!(waiting);
    let answered = tokio::select! {
        answered = &mut waiting => answered,
        () = tokio::time::sleep(SAY) => {
            tracing::warn!(
                "the certificate signing request {name} waits to be approved (`kubectl certificate approve {name}`) and signed by a controller of signer {signer}"
            );
            tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| {
                anyhow::anyhow!("the certificate signing request {name} was not approved and signed in time")
            })?
        }
    };
    let status = answered.with_context(|| format!("waiting for {name}"))?.and_then(|r| r.status).unwrap_or_default();
    for condition in status.conditions.into_iter().flatten() {
        if matches!(condition.type_.as_str(), "Denied" | "Failed") {
            bail!(
                "the certificate signing request {name} is {}: {}: {}",
                condition.type_,
                condition.reason.unwrap_or_default(),
                condition.message.unwrap_or_default()
            );
        }
    }
    let certificate = status.certificate.context("a signed request has a certificate")?;
    String::from_utf8(certificate.0).context("the certificate is not PEM")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_certificate_is_for_its_node_and_replaced_before_its_end() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let kept = Kept { dir: dir.path().join("pki") };
        assert_eq!(kept.renewal("a"), None, "there is none");
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "system:node:a");
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(50)).into();
        params.not_after = (now + Duration::from_secs(950)).into();
        kept.keep(&kept.current(), &params.self_signed(&key)?.pem(), &key.serialize_pem())?;
        let renewal = kept.renewal("a").context("usable")?;
        let in_seconds = renewal.duration_since(now)?.as_secs();
        assert!((745..755).contains(&in_seconds), "{in_seconds}");
        assert_eq!(kept.renewal("b"), None, "another node's");
        let file = dir.path().join("kubelet.conf");
        kept.write_kubeconfig(&file, "https://127.0.0.1:1", b"CA")?;
        assert!(uses(&file, &kept.current()));
        Ok(())
    }
}
