//! A front proxy that proved itself by its certificate says in headers whom it speaks for.

use super::x509::ClientCertificates;
use super::{Authenticator, AuthnError, Peer};
use crate::user::UserInfo;
use async_trait::async_trait;
use http::HeaderMap;

/// What the proxy is known by, and where it writes.
pub struct RequestHeader {
    /// The proxy's own authorities; these are not those of clients.
    pub authorities: ClientCertificates,
    /// Common names that may speak for others; empty: any of the authorities.
    pub allowed_names: Vec<String>,
    /// `X-Remote-User`, and so on: the first that is there counts.
    pub user_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    pub extra_prefixes: Vec<String>,
}

impl RequestHeader {
    fn first(&self, headers: &HeaderMap, names: &[String]) -> String {
        let found = names.iter().filter_map(|n| headers.get(n)).filter_map(|v| v.to_str().ok());
        found.map(str::trim).find(|v| !v.is_empty()).unwrap_or_default().to_owned()
    }

    fn user_of(&self, headers: &HeaderMap) -> Option<UserInfo> {
        let name = self.first(headers, &self.user_headers);
        if name.is_empty() {
            return None;
        }
        let mut user = UserInfo { name, uid: self.first(headers, &self.uid_headers), ..UserInfo::default() };
        for name in &self.group_headers {
            user.groups.extend(headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned));
        }
        for prefix in &self.extra_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for (name, value) in headers {
                if let (Some(key), Ok(value)) = (name.as_str().strip_prefix(&prefix), value.to_str()) {
                    let key = crate::request::unescape_path(key);
                    user.extra.entry(key).or_default().push(value.to_owned());
                }
            }
        }
        Some(user)
    }
}

#[async_trait]
impl Authenticator for RequestHeader {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
        peer: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError> {
        let Some(user) = self.user_of(&request.headers) else { return Ok(None) };
        let chain = peer.map(|p| &*p.certificates).unwrap_or_default();
        // A chain that is not a proxy's may still be a client's own: the next authenticator looks at it.
        let proxy = match self.authorities.verify(chain) {
            Ok(Some(proxy)) => proxy,
            Ok(None) | Err(_) => return Ok(None),
        };
        if self.allowed_names.is_empty() || self.allowed_names.contains(&proxy.name) {
            Ok(Some(user))
        } else {
            Err(AuthnError(format!("x509: subject with cn={} is not in the allowed list", proxy.name)))
        }
    }
}
