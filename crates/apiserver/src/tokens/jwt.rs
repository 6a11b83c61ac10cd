//! JSON Web Tokens in compact form: signing one, and reading one whose signature holds.

use super::keys::{SigningKey, VerifyingKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// No token that this server signs comes near this; longer ones are not even looked at.
const MAX_LENGTH: usize = 64 * 1024;

/// Why a token with a known issuer is not accepted.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("the token is malformed")]
    Malformed,
    #[error("invalid signature, no keys found")]
    UnknownKey,
    #[error("the signature of the token is invalid")]
    Signature,
    #[error("token audiences {token:?} is invalid for the target audiences {wanted:?}")]
    Audience { token: Vec<String>, wanted: Vec<String> },
    #[error("service account token has expired")]
    Expired,
    #[error("service account token is not valid yet")]
    NotYet,
    #[error("{0}")]
    Binding(String),
    #[error("the token could not be signed")]
    Signing,
}

/// An object a token is bound to: it dies with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The claims about the service account, under `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    #[serde(default)]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectRef>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectRef>,
    #[serde(default)]
    pub serviceaccount: ObjectRef,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// What a service account token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(default, deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Seconds since 1970, as all times here.
    #[serde(default)]
    pub exp: i64,
    #[serde(default)]
    pub iat: i64,
    #[serde(default)]
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(default, rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    #[serde(default)]
    pub nbf: i64,
    #[serde(default)]
    pub sub: String,
}

/// RFC 7519 lets an audience of one be written without a list.
fn one_or_many<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Form::deserialize(from)? {
        Form::One(audience) => vec![audience],
        Form::Many(audiences) => audiences,
    })
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
}

/// Signs claims into a token in compact form.
pub fn sign(key: &SigningKey, claims: &impl Serialize) -> Result<String, TokenError> {
    let header = format!(r#"{{"alg":"{}","kid":"{}"}}"#, key.public().algorithm().name(), key.public().id());
    let body = serde_json::to_vec(claims).map_err(|_| TokenError::Signing)?;
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(body, &mut token);
    let signature = key.sign(token.as_bytes()).map_err(|_| TokenError::Signing)?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// The issuer that a token *claims*, unverified: it only tells which authenticator should look at it.
///
/// `None` when the text is not a token in compact form.
pub fn claimed_issuer(token: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Issuer {
        #[serde(default)]
        iss: String,
    }
    let [_, body, _] = parts(token)?;
    let body = URL_SAFE_NO_PAD.decode(body).ok()?;
    Some(serde_json::from_slice::<Issuer>(&body).ok()?.iss)
}

/// Reads a token's claims if one of the keys signed it; times and audiences are the caller's to judge.
///
/// A key is used only with its own algorithm, whatever the token's header says.
pub fn verify<C: serde::de::DeserializeOwned>(token: &str, keys: &[VerifyingKey]) -> Result<C, TokenError> {
    let [header, body, signature] = parts(token).ok_or(TokenError::Malformed)?;
    let signed = &token[..header.len() + 1 + body.len()];
    let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
    let parsed: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
    let signature = decode(signature)?;
    let mut candidates = keys.iter().filter(|k| parsed.kid.is_empty() || k.id() == parsed.kid).peekable();
    if candidates.peek().is_none() {
        return Err(TokenError::UnknownKey);
    }
    if !candidates.any(|k| k.algorithm().name() == parsed.alg && k.verifies(signed.as_bytes(), &signature)) {
        return Err(TokenError::Signature);
    }
    serde_json::from_slice(&decode(body)?).map_err(|_| TokenError::Malformed)
}

fn parts(token: &str) -> Option<[&str; 3]> {
    if token.len() > MAX_LENGTH {
        return None;
    }
    let mut parts = token.split('.');
    let three = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(three)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        let pair = rcgen::KeyPair::generate().expect("a key");
        SigningKey::from_pem(pair.serialize_pem().as_bytes()).expect("PKCS#8")
    }

    fn claims() -> Claims {
        Claims {
            aud: vec!["https://kubernetes.default.svc".into()],
            exp: 2_000,
            iat: 1_000,
            iss: "https://kubernetes.default.svc".into(),
            jti: "a".into(),
            kubernetes: KubernetesClaims {
                namespace: "default".into(),
                pod: Some(ObjectRef { name: "p".into(), uid: "1".into() }),
                ..KubernetesClaims::default()
            },
            nbf: 1_000,
            sub: "system:serviceaccount:default:x".into(),
        }
    }

    #[test]
    fn a_signed_token_is_read_back() {
        let key = key();
        let token = sign(&key, &claims()).expect("a token");
        assert_eq!(claimed_issuer(&token).as_deref(), Some("https://kubernetes.default.svc"));
        assert_eq!(verify::<Claims>(&token, &[key.public().clone()]), Ok(claims()));
    }

    #[test]
    fn foreign_keys_changed_bodies_and_other_algorithms_are_refused() {
        let (own, other) = (key(), key());
        let token = sign(&own, &claims()).expect("a token");
        assert_eq!(verify::<Claims>(&token, &[other.public().clone()]), Err(TokenError::UnknownKey));
        let [header, _, signature] = parts(&token).expect("three parts");
        let changed = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&Claims { exp: 9_000, ..claims() }).expect("JSON"));
        let forged = format!("{header}.{changed}.{signature}");
        assert_eq!(verify::<Claims>(&forged, &[own.public().clone()]), Err(TokenError::Signature));
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let body = parts(&token).expect("three parts")[1];
        assert_eq!(verify::<Claims>(&format!("{none}.{body}."), &[own.public().clone()]), Err(TokenError::Signature));
    }

    #[test]
    fn a_single_audience_may_be_a_string() {
        let read: Claims = serde_json::from_str(r#"{"aud":"x"}"#).expect("claims");
        assert_eq!(read.aud, ["x"]);
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "[ -~]{0,80}(\\.[A-Za-z0-9_-]{0,40}){0,4}") {
            let _ = claimed_issuer(&text);
            prop_assert!(verify::<Claims>(&text, &[]).is_err());
        }
    }
}
