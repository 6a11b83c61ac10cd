//! Ways of authentication in a row, and what every request gets on top.

use super::{Authenticator, AuthnError, Peer};
use crate::user::{self, UserInfo};
use async_trait::async_trait;
use std::sync::Arc;

/// Asks each way until one knows the user; then anonymous access, where the path allows it.
pub struct Union {
    /// Front proxy, certificates, tokens: upstream's order.
    pub ways: Vec<Arc<dyn Authenticator>>,
    pub anonymous: Anonymous,
}

/// Which paths are served without credentials.
#[derive(Clone, Debug)]
pub enum Anonymous {
    Never,
    /// Only these paths (and, below them, their own parts).
    On(Vec<String>),
    /// Everywhere: authorization alone decides.
    Always,
}

impl Anonymous {
    /// Health and version, which tell nothing that is worth hiding.
    pub fn health() -> Self {
        Anonymous::On(["/livez", "/readyz", "/healthz", "/version"].map(str::to_owned).to_vec())
    }

    fn serves(&self, path: &str) -> bool {
        match self {
            Anonymous::Never => false,
            Anonymous::On(paths) => paths
                .iter()
                .any(|p| path.strip_prefix(p.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))),
            Anonymous::Always => true,
        }
    }
}

#[async_trait]
impl Authenticator for Union {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
        peer: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError> {
        let mut errors: Vec<String> = Vec::new();
        for way in &self.ways {
            match way.authenticate(request, peer).await {
                Ok(Some(mut user)) => {
                    if user.name == user::ANONYMOUS || user.in_group(user::UNAUTHENTICATED) {
                        return Ok(Some(user));
                    }
                    if !user.in_group(user::AUTHENTICATED) {
                        user.groups.push(user::AUTHENTICATED.to_owned());
                    }
                    return Ok(Some(user));
                }
                Ok(None) => {}
                Err(error) => errors.push(error.0),
            }
        }
        if !errors.is_empty() {
            return Err(AuthnError(errors.join(", ")));
        }
        Ok(self.anonymous.serves(request.uri.path()).then(UserInfo::anonymous))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Knows(Result<Option<UserInfo>, AuthnError>);

    #[async_trait]
    impl Authenticator for Knows {
        async fn authenticate(
            &self,
            _: &http::request::Parts,
            _: Option<&Peer>,
        ) -> Result<Option<UserInfo>, AuthnError> {
            self.0.clone()
        }
    }

    async fn ask(ways: Vec<Knows>, path: &str) -> Result<Option<UserInfo>, AuthnError> {
        let ways = ways.into_iter().map(|w| Arc::new(w) as Arc<dyn Authenticator>).collect();
        let union = Union { ways, anonymous: Anonymous::health() };
        let (parts, ()) = http::Request::builder().uri(path).body(()).expect("a request").into_parts();
        union.authenticate(&parts, None).await
    }

    #[tokio::test]
    async fn the_first_that_knows_decides_and_bad_credentials_are_never_anonymous() {
        let jane = || Knows(Ok(Some(UserInfo::new("jane", ["g"]))));
        let bad = || Knows(Err(AuthnError("bad".into())));
        let user = ask(vec![Knows(Ok(None)), jane()], "/api").await.expect("known").expect("a user");
        assert_eq!(user.groups, ["g", user::AUTHENTICATED]);
        assert!(ask(vec![bad(), jane()], "/api").await.is_ok_and(|u| u.is_some()), "good ones outweigh bad ones");
        assert!(ask(vec![bad()], "/healthz").await.is_err());
        assert_eq!(ask(vec![], "/healthz").await.expect("served"), Some(UserInfo::anonymous()));
        assert_eq!(ask(vec![], "/livez/ping").await.expect("served"), Some(UserInfo::anonymous()));
        assert_eq!(ask(vec![], "/healthzz").await.expect("no error"), None);
        assert_eq!(ask(vec![], "/api").await.expect("no error"), None);
    }
}
