//! Which servers are asked for an image, and in which order.

use std::{net::IpAddr, path::PathBuf, str::FromStr};

use http::{Uri, uri::Scheme};

use super::proxy::Proxies;
use crate::image::Reference;

/// `HOST=URL`: a server that is asked before the registry HOST is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    host: String,
    server: Server,
}

/// Where registries are and whom to trust; the same for every image.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// Asked before the registries that they mirror, in this order.
    pub mirrors: Vec<Mirror>,
    /// Directories with a folder per registry (`HOST` or `HOST:PORT`) of `*.crt` files, each an
    /// authority that this registry's certificate may come from.
    pub certificates: Vec<PathBuf>,
    /// Between this machine and servers.
    pub proxies: Proxies,
}

/// No mirrors, Docker's directory of certificates, and the proxies that the environment names.
impl Default for Hosts {
    fn default() -> Self {
        Self { mirrors: Vec::new(), certificates: vec!["/etc/docker/certs.d".into()], proxies: Proxies::from_env() }
    }
}

/// What was wrong with a mirror's description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid registry mirror {text:?}: {reason}; expected HOST=URL, as docker.io=https://mirror.example")]
pub struct InvalidMirror {
    text: String,
    reason: &'static str,
}

/// One server that speaks the distribution protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) scheme: Scheme,
    pub(super) authority: String,
    /// What comes before the repository in paths; `/v2` unless a mirror has it elsewhere.
    pub(super) prefix: String,
    /// The registry that it stands for, when it is not that itself.
    pub(super) namespace: Option<String>,
}

impl FromStr for Mirror {
    type Err = InvalidMirror;

    fn from_str(text: &str) -> Result<Self, InvalidMirror> {
        let invalid = |reason| InvalidMirror { text: text.into(), reason };
        let (host, url) = text.split_once('=').ok_or_else(|| invalid("there is no \"=\""))?;
        let known = host == "*" || format!("{host}/x").parse::<Reference>().is_ok_and(|r| r.domain() == host);
        if !known {
            return Err(invalid("the part before \"=\" is not a registry's host"));
        }
        let uri: Uri = url.parse().map_err(|_| invalid("the part after \"=\" is not a URL"))?;
        let scheme = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => scheme.clone(),
            _ => return Err(invalid("the URL has to start with http:// or https://")),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| invalid("the URL has no host"))?;
        if authority.as_str().contains('@') {
            return Err(invalid("the URL must not contain credentials"));
        }
        if uri.query().is_some() {
            return Err(invalid("the URL must not have a query"));
        }
        let path = uri.path().trim_end_matches('/');
        let prefix = match path {
            path if path == "/v2" || path.starts_with("/v2/") || path.ends_with("/v2") => path.into(),
            path => format!("{path}/v2"),
        };
        let server = Server { scheme, authority: authority.to_string(), prefix, namespace: None };
        Ok(Self { host: host.into(), server })
    }
}

impl Hosts {
    /// The servers to ask for images of the registry `domain`: its mirrors, then itself.
    pub(super) fn servers(&self, domain: &str) -> Vec<Server> {
        let mut servers: Vec<Server> = self
            .mirrors
            .iter()
            .filter(|mirror| mirror.host == domain || mirror.host == "*")
            .map(|mirror| Server { namespace: Some(domain.into()), ..mirror.server.clone() })
            .collect();
        let authority = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        let own = |scheme| Server { scheme, authority: authority.into(), prefix: "/v2".into(), namespace: None };
        servers.push(own(Scheme::HTTPS));
        // A registry on this machine may do without certificates.
        if is_loopback(authority) && !authority.ends_with(":443") {
            servers.push(own(Scheme::HTTP));
        }
        // A mirror that is the registry itself, under the scheme it is to be asked with.
        let mut unique: Vec<Server> = Vec::new();
        for mut server in servers {
            if server.authority == authority {
                server.namespace = None;
            }
            if !unique.contains(&server) {
                unique.push(server);
            }
        }
        unique
    }
}

impl Server {
    /// Whether what is said to it stays private: encrypted, or on this machine.
    pub(super) fn is_private(&self) -> bool {
        self.scheme == Scheme::HTTPS || is_loopback(&self.authority)
    }

    /// The URL of `path` under `repository`.
    pub(super) fn url(&self, repository: &str, path: &str) -> String {
        let Self { scheme, authority, prefix, namespace } = self;
        match namespace {
            Some(namespace) => format!("{scheme}://{authority}{prefix}/{repository}/{path}?ns={namespace}"),
            None => format!("{scheme}://{authority}{prefix}/{repository}/{path}"),
        }
    }
}

/// Whether an authority (`host[:port]`) names this machine.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{Hosts, Mirror, Proxies};

    fn urls(mirrors: &[&str], domain: &str) -> Vec<String> {
        let mirrors = mirrors.iter().map(|text| text.parse().unwrap()).collect();
        let hosts = Hosts { mirrors, certificates: Vec::new(), proxies: Proxies::default() };
        hosts.servers(domain).iter().map(|server| server.url("a/b", "manifests/c")).collect()
    }

    #[test]
    fn mirrors_come_first_and_the_registry_last() {
        assert_eq!(urls(&[], "docker.io"), ["https://registry-1.docker.io/v2/a/b/manifests/c"]);
        assert_eq!(
            urls(&["docker.io=http://10.0.0.1:5000", "quay.io=https://q", "*=https://all/"], "docker.io"),
            [
                "http://10.0.0.1:5000/v2/a/b/manifests/c?ns=docker.io",
                "https://all/v2/a/b/manifests/c?ns=docker.io",
                "https://registry-1.docker.io/v2/a/b/manifests/c",
            ]
        );
        assert_eq!(
            urls(&["ghcr.io=https://h.example/v2/proxy"], "ghcr.io")[0],
            "https://h.example/v2/proxy/a/b/manifests/c?ns=ghcr.io"
        );
    }

    #[test]
    fn only_this_machine_and_mirrors_may_be_unencrypted() {
        assert_eq!(urls(&[], "registry.example:5000"), ["https://registry.example:5000/v2/a/b/manifests/c"]);
        for local in ["localhost:5000", "127.0.0.1:5000", "[::1]:5000"] {
            assert_eq!(
                urls(&[], local),
                [format!("https://{local}/v2/a/b/manifests/c"), format!("http://{local}/v2/a/b/manifests/c")]
            );
        }
        assert_eq!(
            urls(&["registry.example=http://registry.example"], "registry.example"),
            ["http://registry.example/v2/a/b/manifests/c", "https://registry.example/v2/a/b/manifests/c"]
        );
    }

    #[test]
    fn a_wrong_mirror_says_what_is_wrong() {
        for (text, reason) in [
            ("docker.io", "no \"=\""),
            ("=http://x", "registry's host"),
            ("a b=http://x", "registry's host"),
            ("docker.io=x", "http://"),
            ("docker.io=ftp://x", "http://"),
            ("docker.io=http://", "not a URL"),
            ("docker.io=http://u:p@x", "credentials"),
            ("docker.io=http://x/?y", "query"),
        ] {
            let error = text.parse::<Mirror>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("HOST=URL"), "{error}");
        }
    }
}
