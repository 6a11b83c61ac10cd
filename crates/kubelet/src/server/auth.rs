//! Who asks, and whether they may: client certificates here, tokens and permissions by asking the
//! API server, whose answers are remembered a while.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, header};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use rustls_pki_types::CertificateDer;

const TOKENS: Duration = Duration::from_secs(120);
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
/// More answers than this are not remembered.
const REMEMBERED: usize = 1024;

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

/// The user that a client certificate names.
pub(super) fn user_of_certificate(certificate: &CertificateDer<'_>) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|organization| organization.as_str().ok())
        .map(ToOwned::to_owned)
        .collect();
    groups.push("system:authenticated".to_owned());
    Some(User { name, uid: String::new(), groups, extra: BTreeMap::new() })
}

/// Whether a request may be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Denied { verb: &'static str, resource: String },
}

type Remembered<K, V> = Mutex<HashMap<K, (Instant, V)>>;

/// Asks the API server about users and permissions.
pub(super) struct Auth {
    client: Client,
    node: String,
    users: Remembered<Vec<u8>, Option<User>>,
    permissions: Remembered<(User, &'static str, String), bool>,
}

/// The subresources of the node that a path belongs to; any of them suffices.
fn subresources(path: &str) -> Vec<&'static str> {
    let below = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    if below("/stats") {
        vec!["stats"]
    } else if below("/metrics") {
        vec!["metrics"]
    } else if below("/logs") {
        vec!["log"]
    } else if below("/checkpoint") {
        vec!["checkpoint"]
    } else if below("/pods") || below("/runningpods") {
        vec!["pods", "proxy"]
    } else if below("/healthz") {
        vec!["healthz", "proxy"]
    } else if below("/configz") {
        vec!["configz", "proxy"]
    } else {
        vec!["proxy"]
    }
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

impl Auth {
    pub(super) fn new(client: Client, node: String) -> Self {
        Self { client, node, users: Mutex::default(), permissions: Mutex::default() }
    }

    /// Who sends these headers; `None` for nobody known.
    pub(super) async fn authenticate(&self, headers: &HeaderMap, peer: Option<&User>) -> Result<Option<User>, String> {
        if let Some(peer) = peer {
            return Ok(Some(peer.clone()));
        }
        let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(token) = authorization.and_then(|value| value.strip_prefix("Bearer ")).map(str::trim) else {
            return Ok(None);
        };
        // The token itself is not kept.
        let key = ring::digest::digest(&ring::digest::SHA256, token.as_bytes()).as_ref().to_vec();
        if let Some(known) = recall(&self.users, &key) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(|error| error.to_string())?;
        let status = answer.status.unwrap_or_default();
        let user = (status.authenticated == Some(true)).then(|| {
            let info = status.user.unwrap_or_default();
            User {
                name: info.username.unwrap_or_default(),
                uid: info.uid.unwrap_or_default(),
                groups: info.groups.unwrap_or_default(),
                extra: info.extra.unwrap_or_default().into_iter().collect(),
            }
        });
        let keep = if user.is_some() { TOKENS } else { DENIED };
        remember(&self.users, key, user.clone(), keep);
        Ok(user)
    }

    /// Whether a user may ask this.
    pub(super) async fn authorize(&self, user: &User, method: &Method, path: &str) -> Result<Verdict, String> {
        let verb = verb(method);
        let candidates = subresources(path);
        for subresource in &candidates {
            if self.may(user, verb, subresource).await? {
                return Ok(Verdict::Allowed);
            }
        }
        Ok(Verdict::Denied { verb, resource: format!("[{}]", candidates.join(" ")) })
    }

    async fn may(&self, user: &User, verb: &'static str, subresource: &str) -> Result<bool, String> {
        let key = (user.clone(), verb, subresource.to_owned());
        if let Some(known) = recall(&self.permissions, &key) {
            return Ok(known);
        }
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.name.clone()),
                uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone().into_iter().collect()),
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    version: Some("v1".to_owned()),
                    resource: Some("nodes".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    name: Some(self.node.clone()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await.map_err(|error| error.to_string())?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        remember(&self.permissions, key, allowed, if allowed { ALLOWED } else { DENIED });
        Ok(allowed)
    }
}

fn recall<K: Eq + std::hash::Hash, V: Clone>(memory: &Remembered<K, V>, key: &K) -> Option<V> {
    let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    let (until, value) = memory.get(key)?;
    (*until > Instant::now()).then(|| value.clone())
}

fn remember<K: Eq + std::hash::Hash, V>(memory: &Remembered<K, V>, key: K, value: V, keep: Duration) {
    let mut memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    if memory.len() >= REMEMBERED {
        memory.retain(|_, (until, _)| *until > now);
    }
    if memory.len() < REMEMBERED {
        memory.insert(key, (now + keep, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_belong_to_subresources() {
        for (path, expected) in [
            ("/stats/summary", &["stats"][..]),
            ("/metrics", &["metrics"]),
            ("/metrics/cadvisor", &["metrics"]),
            ("/metricsx", &["proxy"]),
            ("/logs/syslog", &["log"]),
            ("/pods", &["pods", "proxy"]),
            ("/healthz/ping", &["healthz", "proxy"]),
            ("/exec/ns/p/c", &["proxy"]),
            ("/containerLogs/ns/p/c", &["proxy"]),
        ] {
            assert_eq!(subresources(path), expected, "{path}");
        }
    }

    #[test]
    fn a_certificate_names_a_user() {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "kube-apiserver");
        parameters.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let user = user_of_certificate(certificate.der()).unwrap();
        assert_eq!(user.name, "kube-apiserver");
        assert_eq!(user.groups, ["system:masters", "system:authenticated"]);
    }
}
