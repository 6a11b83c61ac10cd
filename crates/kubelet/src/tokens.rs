//! Service account tokens for pods, asked for when needed and again when four fifths of their time
//! are over.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest as Request, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, Client, api::PostParams};

use crate::{spec::PodExt, volume::payload::TokenRequest};

/// No token is used longer than this, however long it is good for.
const MOST: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone)]
struct Token {
    text: String,
    expires: Timestamp,
    refresh: Timestamp,
}

/// The tokens of the node's pods.
pub(crate) struct Tokens {
    client: Client,
    cache: Mutex<HashMap<String, HashMap<TokenRequest, Token>>>,
}

impl Tokens {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, cache: Mutex::default() }
    }

    /// A token of a pod's service account: the one there is, or a new one when that is due. While
    /// the API server doesn't answer, one that is due but still good is kept.
    ///
    /// # Errors
    /// Upstream's text.
    pub(crate) async fn get(&self, pod: &Pod, request: &TokenRequest, now: Timestamp) -> Result<String, String> {
        let known = self.lock().get(pod.uid()).and_then(|tokens| tokens.get(request)).cloned();
        if let Some(token) = &known
            && now < token.refresh
        {
            return Ok(token.text.clone());
        }
        match self.fetch(pod, request, now).await {
            Ok(token) => {
                let text = token.text.clone();
                self.lock().entry(pod.uid().to_owned()).or_default().insert(request.clone(), token);
                Ok(text)
            }
            Err(error) => match known {
                Some(token) if now < token.expires => {
                    tracing::warn!(pod = pod.display(), error, "a token could not be renewed; keeping the present one");
                    Ok(token.text)
                }
                _ => Err(error),
            },
        }
    }

    async fn fetch(&self, pod: &Pod, request: &TokenRequest, now: Timestamp) -> Result<Token, String> {
        let account = pod.spec().service_account_name.as_deref().unwrap_or("default");
        let failed = |error: String| format!("failed to fetch token: {error}");
        let body = Request {
            spec: Some(TokenRequestSpec {
                audiences: Some(if request.audience.is_empty() { Vec::new() } else { vec![request.audience.clone()] }),
                expiration_seconds: Some(request.expiration_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name().to_owned()),
                    uid: Some(pod.uid().to_owned()),
                }),
            }),
            ..Request::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), pod.namespace());
        let answer: Request = api.create_subresource("token", account, &PostParams::default(), &body).await.map_err(
            |error| match error {
                kube::Error::Api(status) => failed(status.message.clone()),
                error => failed(error.to_string()),
            },
        )?;
        let parts = answer.status.and_then(|status| Some((status.token?, status.expiration_timestamp?.0)));
        let (text, expires) = parts.ok_or_else(|| failed("the answer has no token".to_owned()))?;
        Ok(Token { text, expires, refresh: refresh_at(now, expires) })
    }

    /// When the first of a pod's tokens is due.
    pub(crate) fn next_refresh(&self, pod: &str) -> Option<Timestamp> {
        self.lock().get(pod)?.values().map(|token| token.refresh).min()
    }

    pub(crate) fn forget(&self, pod: &str) {
        self.lock().remove(pod);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, HashMap<TokenRequest, Token>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refresh_at(now: Timestamp, expires: Timestamp) -> Timestamp {
    let life = expires.duration_since(now).unsigned_abs();
    now + (life * 4 / 5).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_at_four_fifths_of_their_life() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let hour = Duration::from_secs(3600);
        assert_eq!(refresh_at(now, now + hour), now + Duration::from_secs(2880));
        assert_eq!(refresh_at(now, now + hour * 24 * 365), now + MOST);
    }
}
