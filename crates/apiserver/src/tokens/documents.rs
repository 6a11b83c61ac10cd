//! OpenID Connect discovery: what others need to verify our tokens.

use super::Tokens;
use super::keys::jwks;
use serde::Serialize;

impl Tokens {
    /// `/.well-known/openid-configuration`, of type `application/json`.
    pub fn discovery_document(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Document<'a> {
            issuer: &'a str,
            jwks_uri: &'a str,
            response_types_supported: [&'static str; 1],
            subject_types_supported: [&'static str; 1],
            id_token_signing_alg_values_supported: Vec<&'static str>,
        }
        let mut algorithms: Vec<&'static str> = self.keys.iter().map(|k| k.algorithm().name()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        let document = Document {
            issuer: self.issuer(),
            jwks_uri: &self.settings.jwks_uri,
            response_types_supported: ["id_token"],
            subject_types_supported: ["public"],
            id_token_signing_alg_values_supported: algorithms,
        };
        serde_json::to_vec(&document).unwrap_or_else(|e| unreachable!("strings are always serializable: {e}"))
    }

    /// `/openid/v1/jwks`, of type `application/jwk-set+json`.
    pub fn key_set(&self) -> Vec<u8> {
        jwks(&self.keys)
    }
}
