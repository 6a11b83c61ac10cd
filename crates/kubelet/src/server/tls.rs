//! The TLS side of the node API.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject as _};

use crate::{
    config::{ClientCa, Config, Serving},
    error::Error,
};

fn bad(error: impl ToString) -> Error {
    Error::Certificate(error.to_string())
}

/// The configuration: the node's certificate, and client certificates of the given authorities,
/// which clients may leave out.
pub(super) fn config(cfg: &Config) -> Result<ServerConfig, Error> {
    let mut provider = ring::default_provider();
    if let Some(suites) = &cfg.suites {
        provider.cipher_suites.clone_from(suites);
    }
    let provider = Arc::new(provider);
    let versions = if cfg.tls13_only { &[&rustls::version::TLS13][..] } else { rustls::DEFAULT_VERSIONS };
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).map_err(bad)?;
    let builder = match &cfg.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider)
                .allow_unauthenticated()
                .build()
                .map_err(bad)?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let resolver: Arc<dyn ResolvesServerCert> = match &cfg.serving {
        Serving::Resolver(resolver) => resolver.clone(),
        Serving::Files { cert, key } => Arc::new(Files::new(cert, key)?),
        Serving::SelfSigned => Arc::new(Fixed(self_signed(cfg)?)),
    };
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(ca: &ClientCa) -> Result<RootCertStore, Error> {
    let pem = match ca {
        ClientCa::Pem(pem) => pem.clone(),
        ClientCa::File(path) => fs::read(path).map_err(|error| bad(format!("{}: {error}", path.display())))?,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots.add(certificate.map_err(bad)?).map_err(bad)?;
    }
    if roots.is_empty() {
        return Err(bad("the client CA has no certificate"));
    }
    Ok(roots)
}

fn certified(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<CertifiedKey, Error> {
    let key = ring::sign::any_supported_type(&key).map_err(bad)?;
    Ok(CertifiedKey::new(chain, key))
}

fn self_signed(cfg: &Config) -> Result<Arc<CertifiedKey>, Error> {
    let mut names = vec![cfg.node_name.clone()];
    names.extend(cfg.node_ips.iter().map(ToString::to_string));
    let made = rcgen::generate_simple_self_signed(names).map_err(bad)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    certified(vec![made.cert.der().clone()], key).map(Arc::new)
}

#[derive(Debug)]
struct Fixed(Arc<CertifiedKey>);

impl ResolvesServerCert for Fixed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A certificate from files, read again when they change.
#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    loaded: Mutex<(Option<SystemTime>, Arc<CertifiedKey>)>,
}

impl Files {
    fn new(cert: &Path, key: &Path) -> Result<Self, Error> {
        let loaded = (modified(cert), load(cert, key)?);
        Ok(Self { cert: cert.to_owned(), key: key.to_owned(), loaded: Mutex::new(loaded) })
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn load(cert: &Path, key: &Path) -> Result<Arc<CertifiedKey>, Error> {
    let of = |path: &Path, error: String| bad(format!("{}: {error}", path.display()));
    let chain = CertificateDer::pem_file_iter(cert)
        .map_err(|error| of(cert, error.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| of(cert, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| of(key, error.to_string()))?;
    certified(chain, key).map(Arc::new)
}

impl ResolvesServerCert for Files {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let now = modified(&self.cert);
        if now != loaded.0 {
            match load(&self.cert, &self.key) {
                Ok(new) => *loaded = (now, new),
                // Half written, perhaps; the present one serves until it is whole.
                Err(error) => tracing::warn!(%error, "the node API's new certificate cannot be used yet"),
            }
        }
        Some(loaded.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{
        ClientConfig, ClientConnection, ProtocolVersion, ServerConnection, SupportedProtocolVersion, version,
    };

    /// The version that the node API and a client of one version agree on.
    fn agreed(cfg: &Config, certificate: &Path, of: &'static SupportedProtocolVersion) -> Option<ProtocolVersion> {
        let roots = roots(&ClientCa::File(certificate.to_owned())).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[of])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut client = ClientConnection::new(Arc::new(client), "n".try_into().unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::new(config(cfg).unwrap())).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut sent = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut sent).unwrap();
            }
            server.read_tls(&mut sent.as_slice()).unwrap();
            server.process_new_packets().ok()?;
            let mut answered = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut answered).unwrap();
            }
            client.read_tls(&mut answered.as_slice()).unwrap();
            client.process_new_packets().ok()?;
        }
        server.protocol_version()
    }

    #[test]
    fn the_least_version_is_kept_to() {
        let directory = tempfile::tempdir().unwrap();
        let (cert, key) = (directory.path().join("c"), directory.path().join("k"));
        let made = rcgen::generate_simple_self_signed(["n".to_owned()]).unwrap();
        fs::write(&cert, made.cert.pem()).unwrap();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut cfg = Config::new("n", [127, 0, 0, 1].into(), "/none");
        cfg.serving = Serving::Files { cert: cert.clone(), key };
        assert_eq!(agreed(&cfg, &cert, &version::TLS12), Some(ProtocolVersion::TLSv1_2));
        assert_eq!(agreed(&cfg, &cert, &version::TLS13), Some(ProtocolVersion::TLSv1_3));
        let all = ring::default_provider().cipher_suites;
        cfg.suites = Some(all.iter().filter(|suite| suite.tls13().is_some()).copied().collect());
        assert_eq!(agreed(&cfg, &cert, &version::TLS12), None, "there is no suite for it");
        assert_eq!(agreed(&cfg, &cert, &version::TLS13), Some(ProtocolVersion::TLSv1_3));
        cfg.suites = Some(all);
        assert_eq!(agreed(&cfg, &cert, &version::TLS12), Some(ProtocolVersion::TLSv1_2));
        cfg.tls13_only = true;
        assert_eq!(agreed(&cfg, &cert, &version::TLS12), None);
        assert_eq!(agreed(&cfg, &cert, &version::TLS13), Some(ProtocolVersion::TLSv1_3));
    }
}
