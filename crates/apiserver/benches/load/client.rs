//! A client that does as little as it can: HTTP/2 over TLS, and no look at what comes back.

use crate::Fallible;
use base64::Engine as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How to reach the server, and as whom.
pub struct Way {
    tls: Arc<ClientConfig>,
    port: u16,
}

impl Way {
    pub fn read(kubeconfig: &Path, port: u16) -> Fallible<Self> {
        let file = serde_json::to_value(kube::config::Kubeconfig::read_from(kubeconfig)?)?;
        let decoded = |place: &str| -> Fallible<Vec<u8>> {
            let text = file.pointer(place).and_then(serde_json::Value::as_str);
            let text = text.ok_or_else(|| format!("{} has no {place}", kubeconfig.display()))?;
            Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&decoded("/clusters/0/cluster/certificate-authority-data")?) {
            roots.add(certificate?)?;
        }
        let chain = decoded("/users/0/user/client-certificate-data")?;
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&decoded("/users/0/user/client-key-data")?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut tls = tls.with_root_certificates(roots).with_client_auth_cert(chain, key)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Way { tls: Arc::new(tls), port })
    }
}

/// Connections that requests are spread over.
#[derive(Clone, Debug)]
pub struct Connections {
    all: Arc<Vec<SendRequest<Full<Bytes>>>>,
    next: Arc<AtomicUsize>,
}

impl Connections {
    pub async fn open(way: &Way, count: usize) -> Fallible<Self> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let stream = TcpStream::connect(("127.0.0.1", way.port)).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from("127.0.0.1")?;
            let stream = TlsConnector::from(way.tls.clone()).connect(name, stream).await?;
            let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(1 << 26)
                .handshake(TokioIo::new(stream))
                .await?;
            tokio::spawn(async move {
                // It ends with the server, whose end is noticed by the requests.
                drop(connection.await);
            });
            all.push(sender);
        }
        Ok(Connections { all: Arc::new(all), next: Arc::default() })
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Fallible<Response<Incoming>> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.all.len();
        let mut sender = self.all[at].clone();
        sender.ready().await?;
        Ok(sender.send_request(request).await?)
    }

    pub fn request(&self, method: &str, path: &str, kind: Option<&str>, body: Bytes) -> Fallible<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(format!("https://127.0.0.1{path}"));
        request = request.header("accept", "application/json");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        Ok(request.body(Full::new(body))?)
    }

    /// The size of what a request is answered with; an error with the answer unless that is a success.
    pub async fn done(&self, request: Request<Full<Bytes>>) -> Fallible<usize> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let response = self.send(request).await?;
        let code = response.status();
        let mut body = response.into_body();
        if !code.is_success() {
            let text = body.collect().await?.to_bytes();
            return Err(format!("{what}: {code} {}", String::from_utf8_lossy(&text)).into());
        }
        let mut size = 0;
        while let Some(frame) = body.frame().await {
            size += frame?.data_ref().map_or(0, Bytes::len);
        }
        Ok(size)
    }

    pub async fn get(&self, path: &str) -> Fallible<usize> {
        self.done(self.request("GET", path, None, Bytes::new())?).await
    }
}
