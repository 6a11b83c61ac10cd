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
use std::sync::Arc;

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
    pub certificates: Arc<[CertificateDer<'static>]>,
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
