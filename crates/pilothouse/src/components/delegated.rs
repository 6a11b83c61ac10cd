//! Who may use a component's port, by delegation: the API server is asked who a token's holder is and what a user may do; the
//! authorities of client certificates come from a file or from what the API server publishes.

use apiserver::authn::request_header::RequestHeader;
use apiserver::authn::tokens::{Bearer, Remembering, TokenAuthenticator, TokenUser};
use apiserver::authn::union::{Anonymous, Union};
use apiserver::authn::x509::ClientCertificates;
use apiserver::authn::{Authenticator, AuthnError, Peer};
use apiserver::context::Told;
use apiserver::user::UserInfo;
use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Upstream's times for remembering decisions.
const ALLOWED: Duration = Duration::from_secs(10);
const DENIED: Duration = Duration::from_secs(10);
const MOST: usize = 1024;
/// How often published authorities are looked up again.
const LOOK: Duration = Duration::from_secs(60);
/// The same while they have not been found.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Asks the API server about tokens.
struct Reviewed(Client);

#[async_trait]
impl TokenAuthenticator for Reviewed {
    async fn authenticate(&self, token: &str, _: &[String]) -> Result<Option<TokenUser>, AuthnError> {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: None };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = Api::<TokenReview>::all(self.0.clone()).create(&PostParams::default(), &review).await;
        let status = answer.map_err(|e| AuthnError(e.to_string()))?.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return match status.error.filter(|e| !e.is_empty()) {
                Some(error) => Err(AuthnError(error)),
                None => Ok(None),
            };
        }
        let info = status.user.unwrap_or_default();
        let user = UserInfo {
            name: info.username.unwrap_or_default(),
            uid: info.uid.unwrap_or_default(),
            groups: info.groups.unwrap_or_default(),
            extra: info.extra.unwrap_or_default().into_iter().collect(),
        };
        Ok(Some(TokenUser { user, audiences: Vec::new(), told: Told::default() }))
    }
}

/// Where client certificates' authorities come from, followed while the component runs.
struct Published {
    client: Client,
    found: std::sync::RwLock<Option<Union>>,
}

fn list(data: &std::collections::BTreeMap<String, String>, key: &str) -> Vec<String> {
    data.get(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

impl Published {
    /// Reads `kube-system/extension-apiserver-authentication` until it is there, then now and then.
    async fn follow(self: Arc<Self>) {
        let configs: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let mut last = None;
        while Arc::strong_count(&self) > 1 {
            let wait = match configs.get("extension-apiserver-authentication").await {
                Ok(config) => {
                    let data = config.data.unwrap_or_default();
                    if last.as_ref() != Some(&data) {
                        match ways(&data) {
                            Ok(ways) => {
                                let union = Union { ways, anonymous: Anonymous::Never };
                                *self.found.write().unwrap_or_else(PoisonError::into_inner) = Some(union);
                            }
                            Err(e) => tracing::warn!("the published client authorities cannot be used: {e}"),
                        }
                        last = Some(data);
                    }
                    LOOK
                }
                Err(e) => {
                    tracing::warn!(
                        "the published client authorities cannot be read, so client certificates are not known: {e}"
                    );
                    if last.is_some() { LOOK } else { FIRST_LOOK }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }
}

fn ways(
    data: &std::collections::BTreeMap<String, String>,
) -> Result<Vec<Arc<dyn Authenticator>>, apiserver::tls::TlsError> {
    let mut ways: Vec<Arc<dyn Authenticator>> = Vec::new();
    if let Some(ca) = data.get("requestheader-client-ca-file").filter(|ca| !ca.is_empty()) {
        ways.push(Arc::new(RequestHeader {
            authorities: ClientCertificates::new(ca.as_bytes())?,
            allowed_names: list(data, "requestheader-allowed-names"),
            user_headers: list(data, "requestheader-username-headers"),
            uid_headers: list(data, "requestheader-uid-headers"),
            group_headers: list(data, "requestheader-group-headers"),
            extra_prefixes: list(data, "requestheader-extra-headers-prefix"),
        }));
    }
    if let Some(ca) = data.get("client-ca-file").filter(|ca| !ca.is_empty()) {
        ways.push(Arc::new(ClientCertificates::new(ca.as_bytes())?));
    }
    Ok(ways)
}

/// An authenticator of what is published at the moment.
struct Following(Arc<Published>);

#[async_trait]
impl Authenticator for Following {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
        peer: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError> {
        let ways = {
            let found = self.0.found.read().unwrap_or_else(PoisonError::into_inner);
            found.as_ref().map(|union| union.ways.clone()).unwrap_or_default()
        };
        for way in ways {
            if let Some(user) = way.authenticate(request, peer).await? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }
}

/// What a request comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    Unauthorized,
    /// With what is told.
    Forbidden(String),
}

/// Decides on requests.
pub struct Delegated {
    who: Union,
    client: Client,
    decided: Mutex<HashMap<(UserInfo, String, String), (Instant, bool)>>,
}

impl Delegated {
    /// Asks by these clients; `client_ca` is PEM and used instead of what the API server publishes.
    ///
    /// # Errors
    /// Authorities that are no certificates.
    pub fn new(authn: Client, authz: Client, client_ca: Option<&[u8]>) -> Result<Self, apiserver::tls::TlsError> {
        let mut ways: Vec<Arc<dyn Authenticator>> = Vec::new();
        match client_ca {
            Some(ca) => ways.push(Arc::new(ClientCertificates::new(ca)?)),
            None => {
                let published = Arc::new(Published { client: authn.clone(), found: std::sync::RwLock::default() });
                tokio::spawn(published.clone().follow());
                ways.push(Arc::new(Following(published)));
            }
        }
        ways.push(Arc::new(Bearer { tokens: Arc::new(Remembering::new(Reviewed(authn))), audiences: Vec::new() }));
        Ok(Delegated { who: Union { ways, anonymous: Anonymous::Always }, client: authz, decided: Mutex::default() })
    }

    /// Whether a request for a path may be served.
    pub async fn decide(&self, request: &http::request::Parts, peer: &Peer) -> Verdict {
        let user = match self.who.authenticate(request, Some(peer)).await {
            Ok(Some(user)) => user,
            Ok(None) => return Verdict::Unauthorized,
            Err(e) => {
                tracing::debug!("credentials are refused: {e}");
                return Verdict::Unauthorized;
            }
        };
        let (verb, path) = (request.method.as_str().to_ascii_lowercase(), request.uri.path().to_owned());
        match self.may(&user, &verb, &path).await {
            Ok(true) => Verdict::Allowed,
            Ok(false) => Verdict::Forbidden(format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name)),
            Err(e) => {
                tracing::warn!("the API server cannot be asked who may {verb} {path}: {e}");
                Verdict::Forbidden(format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name))
            }
        }
    }

    async fn may(&self, user: &UserInfo, verb: &str, path: &str) -> Result<bool, kube::Error> {
        let key = (user.clone(), verb.to_owned(), path.to_owned());
        {
            let decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((until, allowed)) = decided.get(&key)
                && *until > Instant::now()
            {
                return Ok(*allowed);
            }
        }
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone().into_iter().collect()),
            non_resource_attributes: Some(NonResourceAttributes {
                verb: Some(verb.to_owned()),
                path: Some(path.to_owned()),
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let answer =
            Api::<SubjectAccessReview>::all(self.client.clone()).create(&PostParams::default(), &review).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        if decided.len() >= MOST {
            decided.clear();
        }
        decided.insert(key, (Instant::now() + if allowed { ALLOWED } else { DENIED }, allowed));
        Ok(allowed)
    }
}
