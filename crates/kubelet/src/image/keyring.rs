//! Credentials for registries, from pull secrets and from the node's own files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose};
use cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::{name, records::ImagePullSecret};

const DEFAULT_REGISTRY: &str = "index.docker.io";

#[derive(Deserialize)]
struct DockerConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Clone, Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

impl Entry {
    fn into_auth(mut self) -> AuthConfig {
        if !self.auth.is_empty()
            && let Some((user, password)) = decode(&self.auth)
        {
            (self.username, self.password) = (user, password);
        }
        AuthConfig {
            username: self.username,
            password: self.password,
            identity_token: self.identity_token,
            registry_token: self.registry_token,
            ..AuthConfig::default()
        }
    }
}

fn decode(auth: &str) -> Option<(String, String)> {
    let trimmed = auth.trim().trim_end_matches('=');
    let bytes = general_purpose::STANDARD_NO_PAD.decode(trimmed).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Whose credentials they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The node's, or none at all: what can be pulled so is for all pods of the node.
    Everybody,
    /// A pull secret's.
    Secret(ImagePullSecret),
}

/// Credentials by the registries and paths they are for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keyring {
    /// The more specific first.
    entries: Vec<(String, AuthConfig, Source)>,
}

impl Keyring {
    /// Reads pull secrets; those of another type or without sense are skipped.
    pub(crate) fn new(secrets: &[Arc<Secret>]) -> Self {
        let mut entries = Vec::new();
        for secret in secrets {
            for (location, entry) in read(secret) {
                let auth = entry.into_auth();
                let source = Source::Secret(ImagePullSecret {
                    uid: secret.metadata.uid.clone().unwrap_or_default(),
                    namespace: secret.metadata.namespace.clone().unwrap_or_default(),
                    name: secret.metadata.name.clone().unwrap_or_default(),
                    credential_hash: hash(&auth),
                });
                entries.push((key(&location), auth, source));
            }
        }
        entries.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        Self { entries }
    }

    /// Adds the node's own, which come after those of pull secrets. A file that says nothing is skipped.
    pub(crate) fn with_files(mut self, files: &[PathBuf]) -> Self {
        let mut entries = Vec::new();
        for file in files {
            for (location, entry) in read_file(file) {
                entries.push((key(&location), entry.into_auth(), Source::Everybody));
            }
        }
        entries.sort_by(|(a, ..), (b, ..)| b.cmp(a));
        self.entries.extend(entries);
        self
    }

    /// The credentials to try for an image, in order, with whose they are.
    pub(crate) fn lookup(&self, image: &str) -> Vec<(AuthConfig, Source)> {
        let Ok(parsed) = name::parse(image) else {
            return Vec::new();
        };
        let (registry, path) = name::registry_and_path(parsed.repository);
        let default = matches!(registry, None | Some("docker.io" | "index.docker.io"));
        let target = match registry {
            Some(registry) if !default => format!("{registry}/{path}"),
            _ => format!("{DEFAULT_REGISTRY}/{path}"),
        };
        self.entries
            .iter()
            .filter(|(key, ..)| matches(key, &target) || (default && key == DEFAULT_REGISTRY))
            .map(|(_, auth, source)| (auth.clone(), source.clone()))
            .collect()
    }
}

/// Where the node's own credentials are, the first that says something counting alone as upstream has it:
/// beside the kubelet's directory, in root's home, and at the root.
pub(crate) fn node_files(root_dir: &Path) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker/config.json"));
    let places = [Some(root_dir.join("config.json")), home, Some("/.docker/config.json".into())];
    places.into_iter().flatten().find(|file| !read_file(file).is_empty()).into_iter().collect()
}

fn read_file(file: &Path) -> BTreeMap<String, Entry> {
    let Ok(text) = std::fs::read(file) else { return BTreeMap::new() };
    match serde_json::from_slice::<DockerConfigJson>(&text) {
        Ok(config) => config.auths,
        Err(error) => {
            // Its text may be in the error; the place says enough.
            let (line, column) = (error.line(), error.column());
            tracing::warn!(file = %file.display(), line, column, "the registry credentials cannot be read");
            BTreeMap::new()
        }
    }
}

/// Tells whether credentials are the same without telling them.
fn hash(auth: &AuthConfig) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [&auth.username, &auth.password, &auth.identity_token, &auth.registry_token] {
        context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(secret: &Secret) -> BTreeMap<String, Entry> {
    let data = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| &bytes.0);
    match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson")
            .and_then(|bytes| serde_json::from_slice::<DockerConfigJson>(bytes).ok())
            .map(|config| config.auths)
            .unwrap_or_default(),
        Some("kubernetes.io/dockercfg") => {
            data(".dockercfg").and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
        }
        _ => BTreeMap::new(),
    }
}

/// `https://index.docker.io/v1/` as `index.docker.io`.
fn key(location: &str) -> String {
    let bare = location.split_once("://").map_or(location, |(_, bare)| bare);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let path = path.strip_prefix("v1/").or(path.strip_prefix("v2/")).unwrap_or(path);
    let path = path.trim_end_matches('/');
    let host = if host == "docker.io" { DEFAULT_REGISTRY } else { host };
    if path.is_empty() || path == "v1" || path == "v2" { host.to_owned() } else { format!("{host}/{path}") }
}

/// Whether credentials for `key` are good for `target`: the same host, part by part and with `*`
/// for any, the same port, and a path below.
fn matches(key: &str, target: &str) -> bool {
    let split = |text: &str| {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let (host, port) = host.split_once(':').unwrap_or((host, ""));
        (host.to_owned(), port.to_owned(), path.to_owned())
    };
    let ((key_host, key_port, key_path), (host, port, path)) = (split(key), split(target));
    let (key_parts, parts): (Vec<_>, Vec<_>) = (key_host.split('.').collect(), host.split('.').collect());
    key_port == port
        && key_parts.len() == parts.len()
        && key_parts.iter().zip(&parts).all(|(pattern, part)| glob(pattern, part))
        && path.starts_with(&key_path)
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text
            .strip_prefix(before)
            .is_some_and(|rest| (0..=rest.len()).any(|at| rest.get(at..).is_some_and(|tail| glob(after, tail)))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keyring(auths: serde_json::Value) -> Keyring {
        let config = general_purpose::STANDARD.encode(json!({"auths": auths}).to_string());
        let secret = json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config}});
        Keyring::new(&[Arc::new(serde_json::from_value(secret).unwrap())])
    }

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        keyring.lookup(image).into_iter().map(|(auth, _)| auth.username).collect()
    }

    #[test]
    fn the_nodes_own_come_last_and_are_everybodys() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let own = json!({"auths": {"r.example/team": {"username": "node", "password": "x"}}});
        std::fs::write(&file, own.to_string()).unwrap();
        assert_eq!(node_files(dir.path()), std::slice::from_ref(&file));
        let ring = keyring(json!({"r.example": {"username": "secret", "password": "x"}})).with_files(&[file]);
        let found = ring.lookup("r.example/team/app:1");
        assert_eq!(found.iter().map(|(auth, _)| auth.username.as_str()).collect::<Vec<_>>(), ["secret", "node"]);
        assert!(matches!(found[0].1, Source::Secret(_)));
        assert_eq!(found[1].1, Source::Everybody);
    }

    #[test]
    fn the_most_specific_credentials_come_first() {
        let ring = keyring(json!({
            "https://index.docker.io/v1/": {"auth": general_purpose::STANDARD.encode("hub:p:w")},
            "registry.example.com": {"username": "whole", "password": "x"},
            "registry.example.com/team": {"username": "team", "password": "x"},
            "*.cloud.example": {"username": "star", "password": "x"},
            "localhost:5000": {"username": "port", "password": "x"},
        }));
        assert_eq!(users(&ring, "nginx"), ["hub"]);
        assert_eq!(ring.lookup("nginx")[0].0.password, "p:w");
        assert_eq!(users(&ring, "docker.io/library/nginx:1"), ["hub"]);
        assert_eq!(users(&ring, "registry.example.com/team/app:v1"), ["team", "whole"]);
        assert_eq!(users(&ring, "registry.example.com/other/app"), ["whole"]);
        assert_eq!(users(&ring, "eu.cloud.example/a"), ["star"]);
        assert!(users(&ring, "a.eu.cloud.example/a").is_empty());
        assert_eq!(users(&ring, "localhost:5000/a"), ["port"]);
        assert!(users(&ring, "localhost:5001/a").is_empty());
    }
}
