//! The way to a node's kubelet: where it listens, and the TLS that proves who is who.

use crate::lookup::{Lookup, NODES};
use crate::tls::{Identity, TlsError, certificates};
use api::{GroupResource, Status};
use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use schema::{Map, Value};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Finds the addresses of a host's name.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Upstream's default port.
const PORT: u16 = 10250;

/// How the server shows itself to kubelets, and which it believes.
#[derive(Clone)]
pub struct KubeletTls {
    /// The client certificate.
    pub identity: Identity,
    /// PEM of the authorities of kubelets' serving certificates; empty: any certificate is believed, as upstream does
    /// without `--kubelet-certificate-authority`.
    pub authorities: Vec<u8>,
}

/// Connects to kubelets.
pub struct Kubelets {
    objects: Arc<dyn Lookup>,
    tls: ArcSwap<Configs>,
    /// Which addresses of a node are tried, first to last: `InternalIP`, `Hostname`, ….
    preferred: Vec<String>,
    resolve: Option<Resolve>,
}

struct Configs {
    verifying: Arc<ClientConfig>,
    believing: Arc<ClientConfig>,
}

/// Where something listens that a request is passed on to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub address: SocketAddr,
    /// The name or address that the certificate must have, and the configuration; `None`: no TLS.
    pub tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

impl Kubelets {
    /// `resolve` finds addresses for host names; without it only nodes with an IP address can be reached.
    ///
    /// # Errors
    /// The certificate, key or authorities cannot be used.
    pub fn new(
        objects: Arc<dyn Lookup>,
        tls: &KubeletTls,
        preferred: Vec<String>,
        resolve: Option<Resolve>,
    ) -> Result<Self, TlsError> {
        Ok(Kubelets { objects, tls: ArcSwap::from_pointee(Configs::new(tls)?), preferred, resolve })
    }

    /// Shows another certificate, and believes other authorities, from now on.
    ///
    /// # Errors
    /// They cannot be used; the present ones stay.
    pub fn replace(&self, tls: &KubeletTls) -> Result<(), TlsError> {
        self.tls.store(Arc::new(Configs::new(tls)?));
        Ok(())
    }

    /// The kubelet of a node. With `believing`, its certificate is not verified.
    ///
    /// # Errors
    /// 404 when there is no such node, 500 when it tells no address.
    pub async fn of(&self, node: &str, believing: bool) -> Result<Endpoint, Status> {
        let found = self.objects.find(NODES, "", node).await?;
        let found = found.ok_or_else(|| Status::not_found(&GroupResource::new("", "nodes"), node))?;
        let (host, address) = self.address_of(&found).await?;
        let port = found.at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_i64);
        let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0).unwrap_or(PORT);
        let configs = self.tls.load();
        let config = if believing { &configs.believing } else { &configs.verifying };
        let name =
            ServerName::try_from(host).map_err(|e| Status::internal(format!("the address of node {node}: {e}")))?;
        Ok(Endpoint { address: SocketAddr::new(address, port), tls: Some((name, config.clone())) })
    }

    /// TLS to pods and services that asked for it by `https:`: nobody has certified those, so they are believed, and are
    /// not shown the server's certificate.
    pub fn anonymous_tls(&self) -> Arc<ClientConfig> {
        let crypto = Arc::new(provider::default_provider());
        // Every version that the provider has: building cannot fail.
        let builder = ClientConfig::builder_with_provider(crypto.clone()).with_safe_default_protocol_versions();
        let config = builder
            .map(|b| b.dangerous().with_custom_certificate_verifier(Arc::new(Believing(crypto))).with_no_client_auth());
        Arc::new(config.unwrap_or_else(|e| unreachable!("the default versions are supported: {e}")))
    }

    async fn address_of(&self, node: &Map) -> Result<(String, IpAddr), Status> {
        let listed = node.at(&["status", "addresses"]).and_then(Value::as_list).unwrap_or_default();
        let listed: Vec<(&str, &str)> =
            listed.iter().filter_map(Value::as_map).map(|a| (a.str_at(&["type"]), a.str_at(&["address"]))).collect();
        for wanted in &self.preferred {
            for (_, address) in listed.iter().filter(|(kind, _)| kind == wanted) {
                if let Ok(ip) = address.parse() {
                    return Ok(((*address).to_owned(), ip));
                }
                if let Some(resolve) = &self.resolve {
                    match resolve((*address).to_owned()).await {
                        Ok(found) => {
                            if let Some(ip) = found.first() {
                                return Ok(((*address).to_owned(), *ip));
                            }
                        }
                        Err(error) => tracing::debug!(host = address, %error, "a node's name has no address"),
                    }
                }
            }
        }
        let known: Vec<String> = listed.iter().map(|(kind, address)| format!("{{{kind} {address}}}")).collect();
        Err(Status::internal(format!("no preferred addresses found; known addresses: [{}]", known.join(" "))))
    }
}

impl Configs {
    fn new(tls: &KubeletTls) -> Result<Self, TlsError> {
        let crypto = Arc::new(provider::default_provider());
        let chain = certificates("kubelet client certificate", &tls.identity.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&tls.identity.key)
            .map_err(|e| TlsError::Pem { what: "kubelet client key", why: e.to_string() })?;
        let builder = || ClientConfig::builder_with_provider(crypto.clone()).with_safe_default_protocol_versions();
        let http1 = |mut config: ClientConfig| {
            // Upgrades need HTTP/1.1.
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            Arc::new(config)
        };
        let believing = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Believing(crypto.clone())))
            .with_client_auth_cert(chain.clone(), key.clone_key())?;
        let believing = http1(believing);
        if tls.authorities.is_empty() {
            return Ok(Configs { verifying: believing.clone(), believing });
        }
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates("kubelet CA bundle", &tls.authorities)? {
            roots.add(certificate)?;
        }
        let verifying = builder()?.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        Ok(Configs { verifying: http1(verifying), believing })
    }
}

/// Believes any certificate; that its key is held is still proved.
#[derive(Debug)]
struct Believing(Arc<CryptoProvider>);

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
