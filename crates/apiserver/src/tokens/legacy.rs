//! Tokens that live in Secrets of the type `kubernetes.io/service-account-token`: they never end by themselves, and die with
//! their Secret and account.

use super::jwt::{self, TokenError};
use super::{Tokens, Use};
use crate::authn::tokens::TokenUser;
use crate::context::Told;
use crate::lookup::{SECRETS, SERVICE_ACCOUNTS};
use crate::user::UserInfo;
use api::field::go_quote;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use schema::{Map, Value};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who such tokens say has issued them.
pub(super) const ISSUER: &str = "kubernetes/serviceaccount";
/// Since when nobody has used a token for long, as the cleaner says: it is not good until the label is removed.
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// What upstream tells everybody whose token lies in a Secret that the service account lists: those were made by controllers.
const AUTO_GENERATED: &str = "Use tokens from the TokenRequest API or manually created secret-based tokens instead of auto-generated secret-based tokens.";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Claims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    account_uid: String,
    sub: String,
}

fn subject(namespace: &str, account: &str) -> String {
    format!("system:serviceaccount:{namespace}:{account}")
}

impl Tokens {
    /// Makes the token that a Secret is to hold for a service account.
    ///
    /// # Errors
    /// There is no key to sign with.
    pub fn issue_legacy(
        &self,
        namespace: &str,
        account: &str,
        account_uid: &str,
        secret: &str,
    ) -> Result<String, TokenError> {
        self.sign(&Claims {
            iss: ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.to_owned(),
            account_uid: account_uid.to_owned(),
            sub: subject(namespace, account),
        })
    }

    /// Whose such a token is: its Secret must still hold it, and its account must be the one it was made for.
    pub(super) async fn verify_legacy(
        &self,
        token: &str,
        wanted: &[String],
        now: i64,
    ) -> Result<TokenUser, TokenError> {
        let claims: Claims = jwt::verify(token, &self.keys)?;
        let invalid = |why: &str| TokenError::Binding(why.to_owned());
        for (claim, said) in [
            ("sub", &claims.sub),
            ("namespace", &claims.namespace),
            ("secretName", &claims.secret),
            ("serviceAccountName", &claims.account),
            ("serviceAccountUID", &claims.account_uid),
        ] {
            if said.is_empty() {
                return Err(TokenError::Binding(format!("{claim} claim is missing")));
            }
        }
        if claims.sub != subject(&claims.namespace, &claims.account) {
            return Err(invalid("sub claim is invalid"));
        }
        // It is for the API server and for nobody else.
        let audiences: Vec<String> = self.audiences.iter().filter(|a| wanted.contains(a)).cloned().collect();
        if audiences.is_empty() {
            return Err(TokenError::Audience { token: self.audiences.clone(), wanted: wanted.to_vec() });
        }
        // Deleted is deleted, whatever waits for it to go: of these tokens upstream knows no leeway.
        let deleted = |object: &Map| object.at(&["metadata", "deletionTimestamp"]).is_some();
        let (namespace, account_name) = (&claims.namespace, &claims.account);
        let secret = self.find(SECRETS, namespace, &claims.secret).await?;
        let secret = secret.filter(|s| !deleted(s)).ok_or_else(|| invalid("Token has been invalidated"))?;
        let held = STANDARD.decode(secret.str_at(&["data", "token"])).unwrap_or_default();
        if held != token.as_bytes() {
            return Err(invalid("Token does not match server's copy"));
        }
        let account = self.find(SERVICE_ACCOUNTS, namespace, account_name).await?;
        let account = account
            .ok_or_else(|| TokenError::Binding(format!("serviceaccounts {} not found", go_quote(account_name))))?;
        if deleted(&account) {
            return Err(TokenError::Binding(format!("ServiceAccount {namespace}/{account_name} has been deleted")));
        }
        let uid = account.str_at(&["metadata", "uid"]);
        if uid != claims.account_uid {
            return Err(TokenError::Binding(format!(
                "ServiceAccount UID ({uid}) does not match claim ({})",
                claims.account_uid
            )));
        }
        // Who still uses a token that was marked shall be found, too.
        self.note(&secret, now).await;
        let listed = account.at(&["secrets"]).and_then(Value::as_list).unwrap_or_default();
        let generated = listed.iter().filter_map(Value::as_map).any(|listed| listed.str_at(&["name"]) == claims.secret);
        if !secret.str_at(&["metadata", "labels", INVALID_SINCE]).is_empty() {
            self.uses.count(Use::Invalid);
            return Err(TokenError::Binding(format!(
                "the token in secret {namespace}/{} for service account {namespace}/{account_name} has been marked invalid. Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to temporarily allow use of this token",
                claims.secret
            )));
        }
        let mut told = Told::default();
        self.uses.count(Use::Legacy);
        self.uses.count(if generated { Use::Generated } else { Use::Manual });
        if generated {
            told.warn(AUTO_GENERATED);
            told.annotate("authentication.k8s.io/legacy-token-autogenerated-secret", claims.secret.as_str());
        } else {
            told.annotate("authentication.k8s.io/legacy-token-manual-secret", claims.secret.as_str());
        }
        let user = UserInfo {
            name: claims.sub,
            uid: claims.account_uid,
            groups: vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{}", claims.namespace)],
            extra: BTreeMap::new(),
        };
        Ok(TokenUser { user, audiences, told })
    }

    /// Notes the day of a use; once a day is enough.
    async fn note(&self, secret: &Map, now: i64) {
        const LABEL: &str = "kubernetes.io/legacy-token-last-used";
        let Some(noted) = self.noted.get() else { return };
        let day = |seconds: i64| Timestamp::from_second(seconds).map(|t| t.strftime("%Y-%m-%d").to_string());
        let (Ok(today), Ok(tomorrow)) = (day(now), day(now + 24 * 60 * 60)) else { return };
        let last = secret.str_at(&["metadata", "labels", LABEL]);
        // The clock of another server may be ahead.
        if last != today && last != tomorrow {
            noted.note(secret, LABEL, &today).await;
        }
    }
}
