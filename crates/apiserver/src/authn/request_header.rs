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
    fn first(headers: &HeaderMap, names: &[String]) -> Result<String, AuthnError> {
        for name in names {
            if let Some(value) = headers.get(name) {
                let value = read(name, value)?.trim();
                if !value.is_empty() {
                    return Ok(value.to_owned());
                }
            }
        }
        Ok(String::new())
    }

    fn user_of(&self, headers: &HeaderMap) -> Result<Option<UserInfo>, AuthnError> {
        let name = Self::first(headers, &self.user_headers)?;
        if name.is_empty() {
            return Ok(None);
        }
        let mut user = UserInfo { name, uid: Self::first(headers, &self.uid_headers)?, ..UserInfo::default() };
        for name in &self.group_headers {
            for value in headers.get_all(name) {
                user.groups.push(read(name, value)?.to_owned());
            }
        }
        for prefix in &self.extra_prefixes {
            let prefix = prefix.to_ascii_lowercase();
            for (name, value) in headers {
                if let Some(key) = name.as_str().strip_prefix(&prefix) {
                    let value = read(name.as_str(), value)?.to_owned();
                    user.extra.entry(crate::request::unescape_path(key)).or_default().push(value);
                }
            }
        }
        Ok(Some(user))
    }
}

/// The text of a header that is there. One that can't be read is an error: groups that are left out change what is allowed.
fn read<'v>(name: &str, value: &'v http::HeaderValue) -> Result<&'v str, AuthnError> {
    super::header_text(value).ok_or_else(|| AuthnError(format!("the header {name} is not valid UTF-8")))
}

#[async_trait]
impl Authenticator for RequestHeader {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
        peer: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError> {
        // Most requests name nobody, and the chain need not be looked at.
        let (Some(peer), true) = (peer, self.user_headers.iter().any(|name| request.headers.contains_key(name))) else {
            return Ok(None);
        };
        // A chain that is not a proxy's may still be a client's own: the next authenticator looks at it.
        let proxy = match self.authorities.verify(&peer.certificates) {
            Ok(Some(proxy)) => proxy,
            Ok(None) | Err(_) => return Ok(None),
        };
        let Some(user) = self.user_of(&request.headers)? else { return Ok(None) };
        if self.allowed_names.is_empty() || self.allowed_names.contains(&proxy.name) {
            Ok(Some(user))
        } else {
            Err(AuthnError(format!("x509: subject with cn={} is not in the allowed list", proxy.name)))
        }
    }
}
