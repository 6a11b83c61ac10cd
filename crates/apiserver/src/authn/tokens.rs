//! Bearer tokens: where a request carries one, who may know it, and the memory of those that were good.

use super::{Authenticator, AuthnError, Peer};
use crate::context::{Notes, Told};
use crate::user::UserInfo;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The sub-protocol that a browser's WebSocket carries a token in, base64 after the dot.
pub const WEBSOCKET_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// A token's holder.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenUser {
    pub user: UserInfo,
    /// Which of the audiences asked for the token is meant for; empty when its kind has none.
    pub audiences: Vec<String>,
    /// What is to be told whenever the token is used.
    pub told: Told,
}

/// Knows the tokens of one kind.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync + 'static {
    /// The holder of a token that is good for one of the audiences; `None` when it is not of a kind known here.
    ///
    /// # Errors
    /// Why a token of the kind known here is bad.
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<TokenUser>, AuthnError>;
}

/// Several kinds of tokens: the first that knows one decides.
pub struct TokenUnion(pub Vec<Arc<dyn TokenAuthenticator>>);

#[async_trait]
impl TokenAuthenticator for TokenUnion {
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<TokenUser>, AuthnError> {
        let mut errors: Vec<String> = Vec::new();
        for kind in &self.0 {
            match kind.authenticate(token, audiences).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        if errors.is_empty() { Ok(None) } else { Err(AuthnError(errors.join(", "))) }
    }
}

/// How long a good token is good without being looked at again.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Above this many, the memory forgets everything rather than grow.
const MOST: usize = 4096;

/// Remembers good tokens for a moment, by their digest. Bad ones are always looked at again.
pub struct Remembering<T> {
    inner: T,
    known: Mutex<HashMap<[u8; 32], (Instant, TokenUser)>>,
}

impl<T> Remembering<T> {
    pub fn new(inner: T) -> Self {
        Remembering { inner, known: Mutex::default() }
    }

    fn digest(token: &str, audiences: &[String]) -> [u8; 32] {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for part in audiences.iter().map(String::as_str).chain([token]) {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let mut out = [0; 32];
        out.copy_from_slice(digest.finish().as_ref());
        out
    }
}

#[async_trait]
impl<T: TokenAuthenticator> TokenAuthenticator for Remembering<T> {
    async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Option<TokenUser>, AuthnError> {
        let digest = Self::digest(token, audiences);
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, user)) = known.get(&digest)
                && at.elapsed() < REMEMBERED
            {
                return Ok(Some(user.clone()));
            }
        }
        let found = self.inner.authenticate(token, audiences).await?;
        if let Some(user) = &found {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MOST {
                known.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
                if known.len() >= MOST {
                    known.clear();
                }
            }
            known.insert(digest, (Instant::now(), user.clone()));
        }
        Ok(found)
    }
}

/// The bearer token of a request: of its `Authorization` header, or of a WebSocket's protocols.
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()) {
        let (scheme, token) = value.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    let mut found = None;
    for value in headers.get_all(SEC_WEBSOCKET_PROTOCOL) {
        for protocol in value.to_str().ok()?.split(',').map(str::trim) {
            if let Some(encoded) = protocol.strip_prefix(WEBSOCKET_PREFIX) {
                if found.is_some() {
                    // Two tokens are a mistake of the client or an attack; neither is used.
                    return None;
                }
                found = URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|b| String::from_utf8(b).ok());
            }
        }
    }
    found
}

/// Authenticates requests by their bearer token, for the server's own audiences.
pub struct Bearer {
    pub tokens: Arc<dyn TokenAuthenticator>,
    pub audiences: Vec<String>,
}

#[async_trait]
impl Authenticator for Bearer {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
        _peer: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError> {
        let Some(token) = bearer(&request.headers) else { return Ok(None) };
        match self.tokens.authenticate(&token, &self.audiences).await? {
            Some(found) => {
                if let Some(notes) = request.extensions.get::<Notes>() {
                    notes.tell(&found.told);
                }
                Ok(Some(found.user))
            }
            None => Err(AuthnError("invalid bearer token".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counting(AtomicUsize);

    #[async_trait]
    impl TokenAuthenticator for Counting {
        async fn authenticate(&self, token: &str, _audiences: &[String]) -> Result<Option<TokenUser>, AuthnError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            let user = || TokenUser { user: UserInfo::new(token, ["g"]), audiences: Vec::new(), told: Told::default() };
            Ok((token != "bad").then(user))
        }
    }

    #[tokio::test]
    async fn good_tokens_are_remembered_and_bad_ones_are_not() {
        let tokens = Remembering::new(Counting(AtomicUsize::new(0)));
        for _ in 0..3 {
            assert!(tokens.authenticate("good", &[]).await.is_ok_and(|u| u.is_some()));
            assert_eq!(tokens.authenticate("bad", &[]).await.ok(), Some(None));
        }
        assert_eq!(tokens.inner.0.load(Ordering::Relaxed), 4);
        let other = ["other".to_owned()];
        assert!(tokens.authenticate("good", &other).await.is_ok());
        assert_eq!(tokens.inner.0.load(Ordering::Relaxed), 5, "another audience is another question");
    }

    #[tokio::test]
    async fn what_is_to_be_told_of_a_token_is_told_of_every_request() {
        struct Old;
        #[async_trait]
        impl TokenAuthenticator for Old {
            async fn authenticate(&self, token: &str, _audiences: &[String]) -> Result<Option<TokenUser>, AuthnError> {
                let mut told = Told::default();
                told.warn("old");
                Ok(Some(TokenUser { user: UserInfo::new(token, ["g"]), audiences: Vec::new(), told }))
            }
        }
        let bearer = Bearer { tokens: Arc::new(Remembering::new(Old)), audiences: Vec::new() };
        for _ in 0..2 {
            let notes = Notes::default();
            let request = http::Request::get("/api").header(AUTHORIZATION, "Bearer t").extension(notes.clone());
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            let user = bearer.authenticate(&parts, None).await.expect("good").expect("known");
            let cx = crate::context::Context::noting(Arc::new(user), "", jiff::Timestamp::now(), notes);
            assert_eq!(cx.warnings(), ["old"]);
        }
    }

    #[test]
    fn tokens_are_found_in_both_places() {
        let headers = |name: http::header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            bearer(&headers)
        };
        assert_eq!(headers(AUTHORIZATION, "Bearer  abc "), Some("abc".into()));
        assert_eq!(headers(AUTHORIZATION, "bearer abc"), Some("abc".into()));
        assert_eq!(headers(AUTHORIZATION, "Basic abc"), None);
        assert_eq!(headers(AUTHORIZATION, "Bearer"), None);
        let encoded = URL_SAFE_NO_PAD.encode("abc");
        let protocols = format!("v5.channel.k8s.io, {WEBSOCKET_PREFIX}{encoded}");
        assert_eq!(headers(SEC_WEBSOCKET_PROTOCOL, &protocols), Some("abc".into()));
        let twice = format!("{WEBSOCKET_PREFIX}{encoded}, {WEBSOCKET_PREFIX}{encoded}");
        assert_eq!(headers(SEC_WEBSOCKET_PROTOCOL, &twice), None);
    }
}
