//! Who a request is from.

pub mod bootstrap_token;
pub mod impersonation;
pub mod request_header;
pub mod token_file;
pub mod tokens;
pub mod union;
pub mod x509;

use crate::user::UserInfo;
use async_trait::async_trait;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

/// The text of a header: Go takes its bytes as they are, and names are often beyond ASCII.
fn header_text(value: &http::HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// The other end of a connection. An extension of every request that came over the network.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The chain that the client proved to hold the key of, its own certificate first. TLS has verified it
    /// against the client authorities; empty when the client showed none.
    pub certificates: Chain,
}

/// Certificates that the other end of a connection showed, its own first; cheap to clone. Known by a digest, which is made once
/// for a connection and not for each of its requests.
#[derive(Clone, Debug, Default)]
pub struct Chain(Arc<ChainInner>);

#[derive(Debug, Default)]
struct ChainInner {
    certificates: Vec<CertificateDer<'static>>,
    digest: OnceLock<[u8; 32]>,
}

impl Chain {
    /// SHA-256 of all certificates, each after its length.
    fn digest(&self) -> &[u8; 32] {
        self.0.digest.get_or_init(|| {
            let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
            for certificate in &self.0.certificates {
                digest.update(&(certificate.len() as u64).to_be_bytes());
                digest.update(certificate);
            }
            let mut out = [0; 32];
            out.copy_from_slice(digest.finish().as_ref());
            out
        })
    }
}

impl Deref for Chain {
    type Target = [CertificateDer<'static>];

    fn deref(&self) -> &Self::Target {
        &self.0.certificates
    }
}

impl FromIterator<CertificateDer<'static>> for Chain {
    fn from_iter<T: IntoIterator<Item = CertificateDer<'static>>>(certificates: T) -> Self {
        Chain(Arc::new(ChainInner { certificates: certificates.into_iter().collect(), digest: OnceLock::new() }))
    }
}

/// Finds out who a request is from.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The user whose credentials the request carries, `None` when it carries none that this one knows.
    ///
    /// # Errors
    /// Why credentials of the kind that this one knows are bad. The request is then refused (401), even where
    /// anonymous ones are served.
    async fn authenticate(
        &self,
        request: &http::request::Parts,
        peer: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError>;
}

/// Why credentials are refused. It is logged, never told to the client.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct AuthnError(pub String);
