//! Connections to one member: TCP, TLS with a client certificate, or a unix socket; HTTP/2 with keep-alive.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::{Channel, Uri};

use super::options::{Endpoint, Tls};
use crate::Error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// etcd ends connections that ping more often than every five seconds, or while nothing is under way.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// A connection could not be made, so nothing that was to be sent on it has been.
#[derive(Debug)]
pub(super) struct NotConnected {
    endpoint: String,
    source: io::Error,
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dial {}: {}", self.endpoint, self.source)
    }
}

impl std::error::Error for NotConnected {}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A channel to a member. It is connected by the first call, and again by the next one after it broke.
pub(super) fn channel(endpoint: &Endpoint, tls: Option<&Tls>) -> Channel {
    let (target, tls) = (Arc::new(endpoint.clone()), tls.cloned().map(Arc::new));
    let connector = tower::service_fn(move |_: Uri| {
        let (target, tls) = (Arc::clone(&target), tls.clone());
        async move {
            let dialled = tokio::time::timeout(CONNECT_TIMEOUT, dial(&target, tls.as_deref())).await;
            let dialled = dialled.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            dialled.map(TokioIo::new).map_err(|source| NotConnected { endpoint: target.to_string(), source })
        }
    });
    tonic::transport::Endpoint::from_static("http://etcd")
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .connect_with_connector_lazy(connector)
}

async fn dial(endpoint: &Endpoint, tls: Option<&Tls>) -> io::Result<Box<dyn Io>> {
    match endpoint {
        Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Endpoint::Http { host, port } => Ok(Box::new(connect(host, *port).await?)),
        Endpoint::Https { host, port } => {
            let tls = tls.ok_or_else(|| io::Error::other("https without a certificate authority"))?.clone();
            let config = tokio::task::spawn_blocking(move || tls.config()).await.map_err(io::Error::other)?;
            let config = config.map_err(|error| io::Error::other(error.to_string()))?;
            let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
            let stream = connect(host, *port).await?;
            Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
        }
    }
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("lookup {host}: no such host"));
    for address in resolve(host).await? {
        match TcpStream::connect((address, port)).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Without libc, whose resolver a static executable can't load.
async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host == "localhost" {
        return Ok(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1])]);
    }
    let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build()).map_err(io::Error::other)?;
    let found = resolver.lookup_ip(host).await.map_err(|error| io::Error::other(format!("lookup {host}: {error}")))?;
    Ok(found.iter().collect())
}

impl Tls {
    /// Reads the files.
    pub(super) fn config(&self) -> Result<ClientConfig, Error> {
        let invalid = |option: &str, path: &std::path::Path, reason: String| Error::Invalid {
            option: format!("--{option} {}", path.display()),
            reason,
        };
        let certificates = |option: &str, path: &std::path::Path| {
            let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            match read {
                Ok(none) if none.is_empty() => Err(invalid(option, path, "has no certificate".into())),
                Ok(some) => Ok(some),
                Err(error) => Err(invalid(option, path, error.to_string())),
            }
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("etcd-cafile", &self.ca_file)? {
            roots.add(certificate).map_err(|error| invalid("etcd-cafile", &self.ca_file, error.to_string()))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid("etcd-cafile", &self.ca_file, error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates("etcd-certfile", certificate)?;
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| invalid("etcd-keyfile", key, error.to_string()))?;
                builder
                    .with_client_auth_cert(chain, private)
                    .map_err(|error| invalid("etcd-certfile", certificate, error.to_string()))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}
