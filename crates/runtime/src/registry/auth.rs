//! How a registry is told who asks: challenges, credentials and tokens.

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cri::v1::AuthConfig;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use serde::Deserialize;

use super::{
    error::Error,
    request::{body, fail},
    transport::{Transport, shown},
};

const MAX_TOKEN: u64 = 1024 * 1024;

/// Who asks for an image.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Nobody in particular.
    #[default]
    Anonymous,
    /// A name and what proves it.
    Password {
        /// The name.
        username: String,
        /// The proof.
        password: String,
    },
    /// A token that the registry's token service gives others for.
    Identity(String),
    /// A token for the registry itself.
    Token(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Password { username, .. } => write!(f, "Password({username:?}, [redacted])"),
            Self::Identity(_) => f.write_str("Identity([redacted])"),
            Self::Token(_) => f.write_str("Token([redacted])"),
        }
    }
}

impl Credentials {
    /// What a CRI client gave for an image of the registry `domain`. Credentials that are meant
    /// for another server are left out.
    ///
    /// # Errors
    ///
    /// When `auth` is not the base64 of `name:password`.
    pub fn from_cri(auth: Option<&AuthConfig>, domain: &str) -> Result<Self, Error> {
        let Some(auth) = auth else { return Ok(Self::Anonymous) };
        if !auth.server_address.is_empty() && canonical(&auth.server_address) != canonical(domain) {
            return Ok(Self::Anonymous);
        }
        if !auth.registry_token.is_empty() {
            return Ok(Self::Token(auth.registry_token.clone()));
        }
        if !auth.identity_token.is_empty() {
            return Ok(Self::Identity(auth.identity_token.clone()));
        }
        if !auth.username.is_empty() {
            let (username, password) = (auth.username.clone(), auth.password.clone());
            return Ok(Self::Password { username, password });
        }
        if auth.auth.is_empty() {
            return Ok(Self::Anonymous);
        }
        let decoded = STANDARD.decode(auth.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or(Error::Credentials("auth is not base64"))?;
        let (username, password) = decoded.split_once(':').ok_or(Error::Credentials("auth is not NAME:PASSWORD"))?;
        let password = password.trim_matches('\0');
        Ok(Self::Password { username: username.into(), password: password.into() })
    }
}

/// The host that an address names, all of Docker Hub's being one.
fn canonical(address: &str) -> &str {
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    match address.split('/').next().unwrap_or(address) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

/// One way in that a registry offers with 401.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    pub(super) scheme: String,
    pub(super) parameters: HashMap<String, String>,
}

/// Reads `WWW-Authenticate`, leniently: what is not understood is skipped.
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    values.filter_map(|value| challenge(std::str::from_utf8(value.as_bytes()).ok()?)).collect()
}

fn challenge(text: &str) -> Option<Challenge> {
    let text = text.trim();
    let (scheme, mut rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let mut parameters = HashMap::new();
    while let Some((key, after)) = rest.split_once('=') {
        let key = key.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let value;
        if let Some(quoted) = after.strip_prefix('"') {
            let mut text = String::new();
            let mut characters = quoted.char_indices();
            let mut end = None;
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        end = Some(at + 1);
                        break;
                    }
                    '\\' => text.extend(characters.next().map(|(_, next)| next)),
                    other => text.push(other),
                }
            }
            rest = &quoted[end?..];
            value = text;
        } else {
            let (token, next) = after.split_once(',').unwrap_or((after, ""));
            rest = next;
            value = token.trim().into();
        }
        parameters.insert(key, value);
    }
    (!scheme.is_empty()).then(|| Challenge { scheme: scheme.to_ascii_lowercase(), parameters })
}

/// The `Authorization` that answers the challenges of one registry for pulling `repository`.
///
/// `private` tells whether the registry is spoken to in private; what is not private is given no
/// secret, and a registry in private may not send its clients to a token service in the open.
pub(super) async fn authorize(
    transport: &Transport,
    challenges: &[Challenge],
    credentials: &Credentials,
    repository: &str,
    private: bool,
) -> Result<HeaderValue, Error> {
    let said = challenges.iter().find_map(|challenge| challenge.parameters.get("error"));
    let denied = |reason: &str| match said {
        Some(said) => Error::Denied(format!("server message: {}", printable(said))),
        None => Error::Denied(reason.into()),
    };
    if *credentials != Credentials::Anonymous && !private {
        return Err(Error::Realm("credentials are not sent over an unencrypted connection".into()));
    }
    if let Credentials::Token(token) = credentials {
        return secret(format!("Bearer {token}"));
    }
    if let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") {
        let token = token(transport, bearer, credentials, repository, private).await?;
        return secret(format!("Bearer {token}"));
    }
    if challenges.iter().any(|challenge| challenge.scheme == "basic") {
        return match credentials {
            Credentials::Password { username, password } => basic(username, password),
            _ => Err(denied("no basic auth credentials")),
        };
    }
    Err(denied("the registry names no way to authenticate"))
}

async fn token(
    transport: &Transport,
    challenge: &Challenge,
    credentials: &Credentials,
    repository: &str,
    private: bool,
) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
    }
    let get = |key: &str| challenge.parameters.get(key).map(String::as_str);
    let realm = get("realm").unwrap_or_default();
    let uri: Uri = realm.parse().map_err(|_| Error::Realm(format!("invalid token service {:?}", printable(realm))))?;
    let encrypted = uri.scheme_str() == Some("https");
    let local = uri.authority().is_some_and(|authority| super::host::is_loopback(authority.as_str()));
    if uri.authority().is_none() || !(encrypted || uri.scheme_str() == Some("http")) {
        return Err(Error::Realm(format!("invalid token service {:?}", printable(realm))));
    }
    if private && !encrypted && !local && *credentials != Credentials::Anonymous {
        return Err(Error::Realm(format!("token service {:?} is not encrypted", shown(&uri))));
    }
    let scope = match get("scope") {
        Some(scope) if !scope.is_empty() => scope.to_owned(),
        _ => format!("repository:{repository}:pull"),
    };
    let mut query: Vec<(&str, &str)> = Vec::new();
    query.extend(get("service").map(|service| ("service", service)));
    query.extend(scope.split(' ').map(|scope| ("scope", scope)));
    let (kind, request) = match credentials {
        Credentials::Identity(identity) => {
            query = vec![("grant_type", "refresh_token"), ("refresh_token", identity), ("scope", &scope)];
            query.extend(get("service").map(|service| ("service", service)));
            query.push(("client_id", "pilothouse"));
            let request = Request::post(uri.clone())
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::new(Bytes::from(encode(&query))));
            ("oauth", request)
        }
        _ => {
            let separator = if uri.query().is_some() { '&' } else { '?' };
            let mut request = Request::get(format!("{uri}{separator}{}", encode(&query)));
            let mut kind = "anonymous";
            if let Credentials::Password { username, password } = credentials {
                request = request.header(header::AUTHORIZATION, basic(username, password)?);
                kind = "oauth";
            }
            (kind, request.body(Full::default()))
        }
    };
    let wrap = |source: Error| Error::Token { kind, source: Box::new(source) };
    let invalid = |reason: &str| wrap(Error::Protocol { url: shown(&uri), reason: reason.into() });
    let request = request.map_err(|_| invalid("it can't be asked"))?;
    let method = request.method().clone();
    let response = transport.send(request).await.map_err(wrap)?;
    if !response.status().is_success() {
        return Err(wrap(fail(&method, &uri, response).await));
    }
    let bytes = body(&Method::GET, &uri, response, MAX_TOKEN).await.map_err(wrap)?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| invalid(&format!("no token: {error}")))?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
    token
        .filter(|token| !token.is_empty())
        .ok_or_else(|| invalid("authorization server did not include a token in the response"))
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, Error> {
    secret(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

fn secret(text: String) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(text).map_err(|_| Error::Credentials("they contain what no header can"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// `application/x-www-form-urlencoded`, for queries and forms.
fn encode(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        let mut escaped = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    escaped.push(byte.into());
                }
                other => escaped.push_str(&format!("%{other:02X}")),
            }
        }
        escaped
    };
    let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect();
    pairs.join("&")
}

/// A server's words, fit for one line of a message.
pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use cri::v1::AuthConfig;
    use http::{HeaderMap, HeaderValue, header};
    use proptest::prelude::*;

    use super::{Credentials, challenges, encode};

    fn parsed(text: &str) -> Vec<(String, Vec<(String, String)>)> {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.append(header::WWW_AUTHENTICATE, value);
        }
        let sorted = |challenge: super::Challenge| {
            let mut parameters: Vec<_> = challenge.parameters.into_iter().collect();
            parameters.sort();
            (challenge.scheme, parameters)
        };
        challenges(&headers).into_iter().map(sorted).collect()
    }

    #[test]
    fn challenges_of_real_registries_are_understood() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            parsed(
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#
            ),
            [(
                "bearer".into(),
                vec![
                    pair("realm", "https://auth.docker.io/token"),
                    pair("scope", "repository:a/b:pull,push"),
                    pair("service", "registry.docker.io"),
                ]
            )]
        );
        assert_eq!(
            parsed(r#"BASIC Realm="a \"b\"" , charset=UTF-8"#),
            [("basic".into(), vec![pair("charset", "UTF-8"), pair("realm", "a \"b\"")])]
        );
        assert_eq!(parsed("Negotiate"), [("negotiate".into(), vec![])]);
        assert!(parsed(r#"Bearer realm="unfinished"#).is_empty());
    }

    #[test]
    fn credentials_come_in_every_form_that_cri_has() {
        let of = |auth: AuthConfig| Credentials::from_cri(Some(&auth), "docker.io").unwrap();
        let password = Credentials::Password { username: "u".into(), password: "p:w".into() };
        let plain = AuthConfig { username: "u".into(), password: "p:w".into(), ..Default::default() };
        assert_eq!(of(plain.clone()), password);
        assert_eq!(of(AuthConfig { auth: "dTpwOnc=".into(), ..Default::default() }), password);
        assert_eq!(of(AuthConfig { identity_token: "i".into(), ..plain.clone() }), Credentials::Identity("i".into()));
        assert_eq!(of(AuthConfig { registry_token: "r".into(), ..Default::default() }), Credentials::Token("r".into()));
        assert_eq!(of(AuthConfig::default()), Credentials::Anonymous);
        for (address, matches) in
            [("https://index.docker.io/v1/", true), ("docker.io", true), ("https://quay.io", false)]
        {
            let auth = AuthConfig { server_address: address.into(), ..plain.clone() };
            assert_eq!(of(auth) == password, matches, "{address}");
        }
        let bad = AuthConfig { auth: "%".into(), ..Default::default() };
        assert!(Credentials::from_cri(Some(&bad), "docker.io").is_err());
    }

    #[test]
    fn secrets_are_not_shown_and_queries_are_escaped() {
        let shown = format!("{:?}", Credentials::Password { username: "u".into(), password: "pw".into() });
        assert!(!shown.contains("pw"), "{shown}");
        assert_eq!(
            encode(&[("scope", "repository:a/b:pull"), ("x", "&=")]),
            "scope=repository%3Aa%2Fb%3Apull&x=%26%3D"
        );
    }

    proptest! {
        #[test]
        fn any_challenge_is_survived(text in "[ -~]{0,120}") {
            drop(parsed(&text));
        }
    }
}
