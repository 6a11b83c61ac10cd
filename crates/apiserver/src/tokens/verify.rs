//! Whose a service account token is, and whether what it is bound to is still there.

use super::jwt::{self, Claims, ObjectRef, TokenError};
use super::{Tokens, Use, legacy};
use crate::authn::AuthnError;
use crate::authn::tokens::{TokenAuthenticator, TokenUser};
use crate::context::Told;
use crate::lookup::{NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Stored};
use crate::user::UserInfo;
use async_trait::async_trait;
use jiff::Timestamp;
use schema::Map;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Seconds by which clocks may differ, and by which a deletion may lie back.
const LEEWAY: i64 = 60;

/// Judges the times of a token.
fn timely(claims: &Claims, now: i64) -> Result<(), TokenError> {
    if claims.nbf != 0 && now + LEEWAY < claims.nbf || claims.iat != 0 && now + LEEWAY < claims.iat {
        return Err(TokenError::NotYet);
    }
    if claims.exp != 0 && now - LEEWAY > claims.exp { Err(TokenError::Expired) } else { Ok(()) }
}

/// Whether an object has been deleted, though it may be waiting for its finalizers.
fn gone(object: &Map, now: i64) -> bool {
    let deleted = object.str_at(&["metadata", "deletionTimestamp"]);
    deleted.parse::<Timestamp>().is_ok_and(|at| at.as_second() < now - LEEWAY)
}

/// Looks the bound object up: it must be the one with the uid that the token was made for.
fn bound(found: Option<Arc<Map>>, reference: &ObjectRef, now: i64, what: &str, claim: &str) -> Result<(), TokenError> {
    let found = found.filter(|o| !gone(o, now));
    let found = found.ok_or_else(|| TokenError::Binding("service account token has been invalidated".into()))?;
    let uid = found.str_at(&["metadata", "uid"]);
    if uid == reference.uid {
        return Ok(());
    }
    Err(TokenError::Binding(format!(
        "{what} UID ({uid}) does not match service account {claim} ref claim ({})",
        reference.uid
    )))
}

/// Of a token that lives longer than was asked for: the seconds since it should have been replaced.
fn late(claims: &Claims, now: i64) -> Option<i64> {
    let after = claims.kubernetes.warnafter.filter(|after| *after != 0)?;
    Some(now.saturating_sub(after).max(0))
}

impl Tokens {
    pub(super) async fn find(&self, kind: Stored, namespace: &str, name: &str) -> Result<Option<Arc<Map>>, TokenError> {
        self.objects.find(kind, namespace, name).await.map_err(|e| TokenError::Binding(e.message))
    }

    /// Judges claims whose signature holds.
    async fn judge(&self, claims: &Claims, now: i64) -> Result<UserInfo, TokenError> {
        timely(claims, now)?;
        let about = &claims.kubernetes;
        let (namespace, account) = (about.namespace.as_str(), &about.serviceaccount);
        let found = self.find(SERVICE_ACCOUNTS, namespace, &account.name).await?;
        let found =
            found.ok_or_else(|| TokenError::Binding(format!("serviceaccounts {:?} not found", account.name)))?;
        if gone(&found, now) {
            return Err(TokenError::Binding(format!("service account {namespace}/{} has been deleted", account.name)));
        }
        let uid = found.str_at(&["metadata", "uid"]);
        if uid != account.uid {
            return Err(TokenError::Binding(format!(
                "service account UID ({uid}) does not match claim ({})",
                account.uid
            )));
        }
        if let Some(secret) = &about.secret {
            bound(self.find(SECRETS, namespace, &secret.name).await?, secret, now, "secret", "secret")?;
        }
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut tell = |key: &str, value: &str| {
            if !value.is_empty() {
                extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if let Some(pod) = &about.pod {
            bound(self.find(PODS, namespace, &pod.name).await?, pod, now, "pod", "pod")?;
            tell("pod-name", &pod.name);
            tell("pod-uid", &pod.uid);
        }
        if let Some(node) = &about.node {
            // With a pod, the node only says where that ran.
            if about.pod.is_none() {
                bound(self.find(NODES, "", &node.name).await?, node, now, "node", "node")?;
            }
            tell("node-name", &node.name);
            tell("node-uid", &node.uid);
        }
        if !claims.jti.is_empty() {
            tell("credential-id", &format!("JTI={}", claims.jti));
        }
        Ok(UserInfo {
            name: format!("system:serviceaccount:{namespace}:{}", account.name),
            uid: account.uid.clone(),
            groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")],
            extra,
        })
    }

    async fn verify(&self, token: &str, wanted: &[String], now: i64) -> Result<TokenUser, TokenError> {
        let claims: Claims = jwt::verify(token, &self.keys)?;
        if !self.settings.issuers.contains(&claims.iss) {
            return Err(TokenError::Binding(format!("token issuer {:?} is invalid", claims.iss)));
        }
        let meant = if claims.aud.is_empty() { &self.audiences } else { &claims.aud };
        let audiences: Vec<String> = meant.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if audiences.is_empty() {
            return Err(TokenError::Audience { token: meant.clone(), wanted: wanted.to_vec() });
        }
        let user = self.judge(&claims, now).await?;
        let mut told = Told::default();
        match late(&claims, now) {
            Some(0) => self.uses.count(Use::Valid),
            Some(seconds) => {
                let stale = format!("subject: {}, seconds after warning threshold: {seconds}", claims.sub);
                told.annotate("authentication.k8s.io/stale-token", stale);
                self.uses.count(Use::Stale);
            }
            None => {}
        }
        Ok(TokenUser { user, audiences, told })
    }
}

#[async_trait]
impl TokenAuthenticator for Tokens {
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<TokenUser>, AuthnError> {
        match jwt::claimed_issuer(token) {
            Some(issuer) if self.settings.issuers.contains(&issuer) => {}
            Some(issuer) if issuer == legacy::ISSUER => {
                let verified = self.verify_legacy(token, audiences, Timestamp::now().as_second()).await;
                return verified.map(Some).map_err(|e| AuthnError(e.to_string()));
            }
            _ => return Ok(None),
        }
        let verified = self.verify(token, audiences, Timestamp::now().as_second()).await;
        verified.map(Some).map_err(|e| AuthnError(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::KubernetesClaims;

    #[test]
    fn what_lives_longer_than_was_asked_for_is_late_in_the_end() {
        let of = |warnafter| {
            late(&Claims { kubernetes: KubernetesClaims { warnafter, ..Default::default() }, ..Claims::default() }, 100)
        };
        assert_eq!(
            [of(None), of(Some(0)), of(Some(101)), of(Some(100)), of(Some(40))],
            [None, None, Some(0), Some(0), Some(60)]
        );
    }
}
