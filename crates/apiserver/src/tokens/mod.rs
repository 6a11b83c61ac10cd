//! Service account tokens: signed here, bound to what they are for, verified here.
//!
//! A token names its service account and what it is bound to (a pod, secret or node) by name and uid, and dies with them.

mod der;
mod documents;
mod jwt;
mod keys;
mod legacy;
mod request;
mod uses;
mod verify;

pub use jwt::{Claims, KubernetesClaims, ObjectRef, TokenError};
pub use keys::{KeyError, SigningKey, VerifyingKey};
pub use request::TokenRequest;
pub use uses::{Use, Uses};

use crate::lookup::Lookup;
use async_trait::async_trait;
use schema::Map;
use std::sync::{Arc, OnceLock};

/// How tokens are made and judged.
pub struct TokenSettings {
    /// Signs; without it no token is issued.
    pub signing: Option<SigningKey>,
    /// Verify, beside the public half of the signing key.
    pub verifying: Vec<VerifyingKey>,
    /// The first is written into tokens; those after it are accepted.
    pub issuers: Vec<String>,
    /// What the API server answers to; empty: the issuers.
    pub audiences: Vec<String>,
    /// Where the key set is found, as the discovery document tells it.
    pub jwks_uri: String,
    /// The longest life of a token, in seconds.
    pub max_seconds: Option<i64>,
    /// Gives tokens of the automatic mount a year, so that clients that never read them again go on for now.
    pub extend: bool,
}

/// The service account tokens of a cluster.
pub struct Tokens {
    settings: TokenSettings,
    keys: Vec<VerifyingKey>,
    audiences: Vec<String>,
    objects: Arc<dyn Lookup>,
    /// Where uses of tokens in Secrets are noted.
    noted: OnceLock<Arc<dyn LegacyUse>>,
    uses: Arc<Uses>,
}

/// Notes that the token of a Secret was used.
#[async_trait]
pub trait LegacyUse: Send + Sync + 'static {
    /// Gives the Secret a label. Failures are the log's: the token is good all the same.
    async fn note(&self, secret: &Map, label: &'static str, value: &str);
}

impl Tokens {
    /// `settings` must name an issuer.
    pub fn new(settings: TokenSettings, objects: Arc<dyn Lookup>) -> Arc<Self> {
        let mut keys: Vec<VerifyingKey> = settings.signing.iter().map(|k| k.public().clone()).collect();
        for key in &settings.verifying {
            if keys.iter().all(|k| k.id() != key.id()) {
                keys.push(key.clone());
            }
        }
        let audiences =
            if settings.audiences.is_empty() { settings.issuers.clone() } else { settings.audiences.clone() };
        Arc::new(Tokens { settings, keys, audiences, objects, noted: OnceLock::new(), uses: Arc::default() })
    }

    /// From now on uses of tokens in Secrets are noted there. Only the first call counts.
    pub fn note_legacy_uses(&self, noted: Arc<dyn LegacyUse>) {
        self.noted.get_or_init(|| noted);
    }

    /// How often tokens were used.
    pub fn uses(&self) -> Arc<Uses> {
        self.uses.clone()
    }

    /// The audiences of the API server itself.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    fn issuer(&self) -> &str {
        self.settings.issuers.first().map_or("", String::as_str)
    }

    fn sign(&self, claims: &impl serde::Serialize) -> Result<String, TokenError> {
        jwt::sign(self.settings.signing.as_ref().ok_or(TokenError::Signing)?, claims)
    }
}
