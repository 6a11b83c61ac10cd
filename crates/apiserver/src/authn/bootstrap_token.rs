//! Bootstrap tokens: `abcdef.0123456789abcdef`, kept as secrets of `kube-system`, with which new nodes make themselves known.

use super::AuthnError;
use super::tokens::{TokenAuthenticator, TokenUser};
use crate::context::Told;
use crate::lookup::{Lookup, SECRETS};
use crate::user::UserInfo;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use schema::Map;
use std::sync::Arc;

const GROUP: &str = "system:bootstrappers";

pub struct BootstrapTokens {
    pub objects: Arc<dyn Lookup>,
}

/// Identifier and secret of a token, when it has the form of one.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |s: &str| s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Whom the secret admits with a token at a time; `Err` says why it does not.
fn admitted(object: &Map, id: &str, secret: &str, now: Timestamp) -> Result<UserInfo, &'static str> {
    let data = |key| {
        STANDARD.decode(object.str_at(&["data", key])).ok().and_then(|b| String::from_utf8(b).ok()).unwrap_or_default()
    };
    if object.at(&["metadata", "deletionTimestamp"]).is_some() {
        return Err("its secret is being deleted");
    }
    if object.str_at(&["type"]) != "bootstrap.kubernetes.io/token" {
        return Err("its secret is of another type");
    }
    let kept = data("token-secret");
    // Compared by digest, so that the time taken tells nothing of the secret.
    let digest = |s: &str| ring::digest::digest(&ring::digest::SHA256, s.as_bytes());
    if kept.is_empty() || digest(&kept).as_ref() != digest(secret).as_ref() {
        return Err("the secret differs");
    }
    if data("token-id") != id {
        return Err("the identifier differs");
    }
    let expiration = data("expiration");
    if !expiration.is_empty() {
        let until: Timestamp = expiration.parse().map_err(|_| "its expiration cannot be read")?;
        if until < now {
            return Err("it has expired");
        }
    }
    if data("usage-bootstrap-authentication") != "true" {
        return Err("it is not for authentication");
    }
    let mut user = UserInfo::new(format!("system:bootstrap:{id}"), [GROUP]);
    for group in data("auth-extra-groups").split(',').map(str::trim).filter(|g| !g.is_empty()) {
        let named = group.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
            !rest.is_empty()
                && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b':' | b'-'))
        });
        if !named {
            return Err("it has a group that no bootstrap token may have");
        }
        user.groups.push(group.to_owned());
    }
    Ok(user)
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate(&self, token: &str, _audiences: &[String]) -> Result<Option<TokenUser>, AuthnError> {
        let Some((id, secret)) = split(token) else { return Ok(None) };
        let name = format!("bootstrap-token-{id}");
        let stored = self.objects.get(SECRETS, "kube-system", &name).map_err(|error| AuthnError(error.message))?;
        let Some(object) = stored else { return Ok(None) };
        match admitted(&object, id, secret, Timestamp::now()) {
            Ok(user) => Ok(Some(TokenUser { user, audiences: Vec::new(), told: Told::default() })),
            Err(why) => {
                tracing::debug!(token = id, why, "a bootstrap token is not accepted");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    fn secret(expiration: &str, usage: &str, groups: &str) -> Map {
        let b64 = |s: &str| STANDARD.encode(s);
        map(&format!(
            "{{type: bootstrap.kubernetes.io/token, data: {{token-id: '{}', token-secret: '{}', expiration: '{}', \
             usage-bootstrap-authentication: '{}', auth-extra-groups: '{}'}}}}",
            b64("abcdef"),
            b64("0123456789abcdef"),
            b64(expiration),
            b64(usage),
            b64(groups)
        ))
    }

    #[test]
    fn only_a_whole_valid_token_admits() {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().expect("a time");
        let (id, key) = split("abcdef.0123456789abcdef").expect("a token");
        let good = secret("2026-06-02T00:00:00Z", "true", "system:bootstrappers:kubeadm:default-node-token");
        let user = admitted(&good, id, key, now).expect("a user");
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(user.groups, [GROUP, "system:bootstrappers:kubeadm:default-node-token"]);
        assert_eq!(admitted(&good, id, "0123456789abcdee", now), Err("the secret differs"));
        assert_eq!(admitted(&secret("2026-05-01T00:00:00Z", "true", ""), id, key, now), Err("it has expired"));
        assert_eq!(admitted(&secret("", "false", ""), id, key, now), Err("it is not for authentication"));
        assert!(admitted(&secret("", "true", "system:masters"), id, key, now).is_err());
    }

    #[test]
    fn other_texts_are_not_tokens_of_this_kind() {
        for text in ["", "abcdef", "abcdef.", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde", "a.b.c"] {
            assert!(split(text).is_none(), "{text}");
        }
    }
}
