//! The TLS of the serving port: certificates by name, client certificates asked for, everything replaceable while it runs.
//!
//! A client certificate is *asked for* here, and its possession proved; whether it is of an accepted authority is judged by
//! [`crate::authn`], because upstream answers a foreign certificate with 401 and not with a broken handshake.
//! Replacing the certificates makes a new configuration for new connections; open ones go on with what they began with.

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring as provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// How often certificate files are looked at for change.
const FILE_CHECK: Duration = Duration::from_secs(60);

#[derive(Debug, Error)]
pub enum TlsError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the {what} is not PEM: {why}")]
    Pem { what: &'static str, why: String },
    #[error("the {what} is empty: it needs at least one certificate")]
    Empty { what: &'static str },
    #[error("the certificate and the private key cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// A certificate chain with its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate: Vec<u8>,
    pub key: Vec<u8>,
}

impl Identity {
    fn certified(&self) -> Result<CertifiedKey, TlsError> {
        let chain = certificates("serving certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|e| TlsError::Pem { what: "private key", why: e.to_string() })?;
        Ok(CertifiedKey::from_der(chain, key, &provider::default_provider())?)
    }
}

/// What the port serves with.
#[derive(Clone)]
pub struct TlsSettings {
    /// Served where no entry of `by_name` fits.
    pub default: Identity,
    /// Further certificates, each for the names it has itself.
    pub by_name: Vec<Identity>,
    /// PEM of the authorities named to clients as those whose certificates are wanted.
    pub client_authorities: Vec<u8>,
    /// Whether nothing older than TLS 1.3 is spoken.
    pub tls13_only: bool,
    /// The cipher suites that are offered; `None`: all.
    pub suites: Option<Vec<SupportedCipherSuite>>,
}

/// Every certificate of a PEM bundle; at least one.
pub fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::Pem { what, why: e.to_string() })?;
    if list.is_empty() { Err(TlsError::Empty { what }) } else { Ok(list) }
}

/// The live TLS configuration of a serving port.
pub struct ServerTls {
    config: ArcSwap<ServerConfig>,
}

impl ServerTls {
    /// Fails when a certificate or key cannot be used.
    pub fn new(settings: &TlsSettings) -> Result<Arc<Self>, TlsError> {
        Ok(Arc::new(ServerTls { config: ArcSwap::from(configuration(settings)?) }))
    }

    /// Serves new connections with other certificates; on failure the present ones stay.
    pub fn replace(&self, settings: &TlsSettings) -> Result<(), TlsError> {
        self.config.store(configuration(settings)?);
        Ok(())
    }

    /// Accepts one connection with the certificates of this moment.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.load_full())
    }

    /// Follows a certificate kept in files, until the handle is dropped by everyone else.
    ///
    /// The files are read again when one of their times or sizes changes; a pair that does not fit together yet (one file
    /// already written, the other not) is tried again at the next look.
    pub async fn follow(self: Arc<Self>, mut settings: TlsSettings, certificate: PathBuf, key: PathBuf) {
        let stamp = |path: &Path| std::fs::metadata(path).and_then(|m| Ok((m.modified()?, m.len()))).ok();
        let mut served: Option<[(SystemTime, u64); 2]> = stamp(&certificate).zip(stamp(&key)).map(|(c, k)| [c, k]);
        while Arc::strong_count(&self) > 1 {
            tokio::time::sleep(FILE_CHECK).await;
            let now = stamp(&certificate).zip(stamp(&key)).map(|(c, k)| [c, k]);
            if now.is_none() || now == served {
                continue;
            }
            let read = read_file(&certificate).and_then(|c| Ok(Identity { certificate: c, key: read_file(&key)? }));
            match read.and_then(|identity| {
                settings.default = identity;
                self.replace(&settings)
            }) {
                Ok(()) => {
                    served = now;
                    tracing::info!(certificate = %certificate.display(), "serving with the renewed certificate");
                }
                Err(error) => {
                    tracing::warn!(certificate = %certificate.display(), %error, "the renewed certificate is not usable yet")
                }
            }
        }
    }
}

/// Reads a file of PEM, naming it when that fails.
pub fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn configuration(settings: &TlsSettings) -> Result<Arc<ServerConfig>, TlsError> {
    let mut crypto = provider::default_provider();
    if let Some(suites) = &settings.suites {
        crypto.cipher_suites.clone_from(suites);
    }
    let crypto = Arc::new(crypto);
    let by_name = settings.by_name.iter().map(NamedKey::new).collect::<Result<_, _>>()?;
    let resolver = Resolver { default: Arc::new(settings.default.certified()?), by_name };
    let versions = if settings.tls13_only { &[&rustls::version::TLS13][..] } else { rustls::DEFAULT_VERSIONS };
    let mut config = ServerConfig::builder_with_provider(crypto.clone())
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(Arc::new(Asking::new(&settings.client_authorities, &crypto)?))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct NamedKey {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl NamedKey {
    fn new(identity: &Identity) -> Result<Self, TlsError> {
        let key = Arc::new(identity.certified()?);
        let names = key.cert.first().map(|c| dns_names(c)).unwrap_or_default();
        Ok(NamedKey { names, key })
    }
    fn serves(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(domain)),
            None => name.eq_ignore_ascii_case(host),
        })
    }
}

/// The DNS names that a certificate is for: its alternative names, or else its common name.
fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return Vec::new() };
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        for name in &alternative.value.general_names {
            if let GeneralName::DNSName(dns) = name {
                names.push((*dns).to_owned());
            }
        }
    }
    if names.is_empty() {
        names.extend(parsed.subject().iter_common_name().filter_map(|cn| cn.as_str().ok()).map(str::to_owned));
    }
    names
}

#[derive(Debug)]
struct Resolver {
    default: Arc<CertifiedKey>,
    by_name: Vec<NamedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|host| self.by_name.iter().find(|n| n.serves(host)));
        Some(named.map_or_else(|| self.default.clone(), |n| n.key.clone()))
    }
}

/// Asks for a client certificate, takes any, and checks only that the client holds its key.
#[derive(Debug)]
struct Asking {
    wanted: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Asking {
    fn new(authorities: &[u8], crypto: &CryptoProvider) -> Result<Self, TlsError> {
        let mut roots = rustls::RootCertStore::empty();
        if !authorities.is_empty() {
            for certificate in certificates("client CA bundle", authorities)? {
                roots.add(certificate)?;
            }
        }
        Ok(Asking { wanted: roots.subjects(), algorithms: crypto.signature_verification_algorithms })
    }
}

impl ClientCertVerifier for Asking {
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.wanted
    }
    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::ServerName;
    use tokio_rustls::TlsConnector;

    fn identity(name: &str) -> Identity {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        Identity { certificate: made.cert.pem().into_bytes(), key: made.signing_key.serialize_pem().into_bytes() }
    }

    /// Connects over memory; gives the certificate served and the protocol agreed on.
    async fn served(tls: &ServerTls, trusted: &Identity, host: &str) -> Result<Vec<u8>, std::io::Error> {
        let (near, far) = tokio::io::duplex(16 * 1024);
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates("root", &trusted.certificate).expect("PEM") {
            roots.add(certificate).expect("a root");
        }
        let mut client = rustls::ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let connector = TlsConnector::from(Arc::new(client));
        let (server, client) = tokio::join!(tls.acceptor().accept(far), connector.connect(name, near));
        let (_server, client) = (server, client?);
        let (_, session) = client.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        Ok(session.peer_certificates().expect("certificates")[0].to_vec())
    }

    #[tokio::test]
    async fn a_replaced_certificate_serves_new_connections() {
        let (first, second) = (identity("one.test"), identity("one.test"));
        let mut settings = TlsSettings {
            default: first.clone(),
            by_name: Vec::new(),
            client_authorities: Vec::new(),
            tls13_only: false,
            suites: None,
        };
        let tls = ServerTls::new(&settings).expect("a configuration");
        assert!(served(&tls, &first, "one.test").await.is_ok());
        settings.default = second.clone();
        tls.replace(&settings).expect("the second certificate");
        assert!(served(&tls, &first, "one.test").await.is_err(), "the old certificate is no longer served");
        assert!(served(&tls, &second, "one.test").await.is_ok());
    }

    #[tokio::test]
    async fn certificates_are_chosen_by_the_name_asked_for() {
        let (plain, wild) = (identity("plain.test"), identity("*.wild.test"));
        let settings = TlsSettings {
            default: plain.clone(),
            by_name: vec![wild.clone()],
            client_authorities: Vec::new(),
            tls13_only: false,
            suites: None,
        };
        let tls = ServerTls::new(&settings).expect("a configuration");
        assert!(served(&tls, &wild, "a.wild.test").await.is_ok());
        assert!(served(&tls, &plain, "plain.test").await.is_ok());
    }

    #[test]
    fn only_the_suites_that_are_asked_for_are_offered() {
        let all = provider::default_provider().cipher_suites;
        let offered = |suites: Option<Vec<SupportedCipherSuite>>| {
            let default = identity("a.test");
            let (by_name, client_authorities) = (Vec::new(), Vec::new());
            let settings = TlsSettings { default, by_name, client_authorities, tls13_only: false, suites };
            ServerTls::new(&settings).expect("a configuration").config.load().crypto_provider().cipher_suites.clone()
        };
        assert_eq!(offered(None), all);
        assert_eq!(offered(Some(vec![all[0]])), [all[0]]);
    }

    #[test]
    fn a_key_that_is_not_the_certificates_own_is_refused() {
        let mixed = Identity { key: identity("a.test").key, ..identity("b.test") };
        let settings = TlsSettings {
            default: mixed,
            by_name: Vec::new(),
            client_authorities: Vec::new(),
            tls13_only: false,
            suites: None,
        };
        assert!(ServerTls::new(&settings).is_err());
    }
}
