//! Where the face listens. Nobody gets in unauthenticated: a socket is its owner's, a port demands a client certificate.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::Error;

const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// A failing accept (too many open files, say) is tried again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// Where to listen, as an administrator writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    Https(SocketAddr),
}

/// Files of a port: the server's pair, and the authority whose certificates may come in.
#[derive(Clone, Debug)]
pub struct Tls {
    pub cert_file: PathBuf,
    pub key_file: PathBuf,
    pub client_ca_file: PathBuf,
}

impl std::str::FromStr for Address {
    type Err = String;

    /// Takes `unix:///path` or `https://ip:port`.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let port = text.strip_prefix("https://").map(|rest| rest.trim_end_matches('/').parse());
        match port {
            Some(Ok(address)) => Ok(Self::Https(address)),
            _ => Err(format!("{text:?} is neither unix:///PATH nor https://IP:PORT")),
        }
    }
}

/// A place that is listened at.
pub struct Listener {
    socket: Socket,
}

enum Socket {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener, SocketAddr, TlsAcceptor),
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            // Gone already when somebody cleaned up.
            drop(fs::remove_file(path));
        }
    }
}

/// A socket that its owner alone may connect to, from the first moment on: its mode is that of the socket before it has a name.
fn private(path: &Path) -> io::Result<UnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(std::os::fd::OwnedFd::from(socket).into())
}

impl Listener {
    /// Begins to listen. To be called on a runtime.
    pub async fn bind(address: &Address, tls: Option<&Tls>) -> Result<Self, Error> {
        let place = match address {
            Address::Unix(path) => path.clone(),
            Address::Https(address) => address.to_string().into(),
        };
        let fail = |doing| Error::io(doing, &place);
        let socket = match address {
            Address::Unix(path) => {
                // What a killed process left; a socket that somebody serves is not taken from him.
                let left = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
                if left && UnixStream::connect(path).await.is_err() {
                    fs::remove_file(path).map_err(fail("remove"))?;
                }
                let listener = private(path).map_err(fail("listen on"))?;
                Socket::Unix(listener, path.clone())
            }
            Address::Https(address) => {
                let tls = tls.ok_or_else(|| Error::Invalid {
                    option: format!("https://{address}"),
                    reason: "needs a certificate, its key and the authority of its clients".into(),
                })?;
                let acceptor = TlsAcceptor::from(Arc::new(tls.config()?));
                let listener = TcpListener::bind(address).await.map_err(fail("listen on"))?;
                let bound = listener.local_addr().map_err(fail("listen on"))?;
                Socket::Tcp(listener, bound, acceptor)
            }
        };
        Ok(Self { socket })
    }

    /// What clients are given to reach it.
    pub fn url(&self) -> String {
        match &self.socket {
            Socket::Unix(_, path) => format!("unix://{}", path.display()),
            Socket::Tcp(_, address, _) => format!("https://{address}"),
        }
    }

    /// Connections that have shown who they are, until `ended`.
    pub(super) fn connections(self, mut ended: watch::Receiver<bool>) -> ReceiverStream<io::Result<Connection>> {
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    // Also when the other end was dropped.
                    _ = ended.changed() => return,
                    () = sender.closed() => return,
                    accepted = self.accept(&sender) => accepted,
                };
                if let Err(error) = accepted {
                    tracing::warn!(%error, "the etcd face cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    async fn accept(&self, sender: &mpsc::Sender<io::Result<Connection>>) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                drop(sender.send(Ok(Connection::Unix(stream))).await);
            }
            Socket::Tcp(listener, _, acceptor) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                // Beside accepting, so that a slow handshake holds up nobody.
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE_PATIENCE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(sender.send(Ok(Connection::Tls(Box::new(stream)))).await),
                        Ok(Err(error)) => tracing::info!(%peer, %error, "a client of the etcd face was refused"),
                        Err(_) => tracing::info!(%peer, "a client of the etcd face did not finish its handshake"),
                    }
                });
            }
        }
        Ok(())
    }
}

impl Tls {
    fn config(&self) -> Result<ServerConfig, Error> {
        let invalid = |path: &PathBuf, reason: String| Error::Invalid { option: path.display().to_string(), reason };
        let read = |path: &PathBuf| {
            CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| invalid(path, error.to_string()))
        };
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for authority in read(&self.client_ca_file)? {
            roots.add(authority).map_err(|error| invalid(&self.client_ca_file, error.to_string()))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| invalid(&self.client_ca_file, error.to_string()))?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key_file).map_err(|error| invalid(&self.key_file, error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(&self.cert_file, error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(read(&self.cert_file)?, key)
            .map_err(|error| invalid(&self.cert_file, error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// One client.
pub(super) enum Connection {
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(context, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
