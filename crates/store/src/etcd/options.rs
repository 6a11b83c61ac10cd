//! Where etcd is and how it is reached, as given by an administrator, checked before anything is dialled.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;

/// How to reach etcd. Times are upstream's.
#[derive(Clone, Debug)]
pub struct Options {
    /// At least one; all of one cluster.
    pub endpoints: Vec<Endpoint>,
    /// For `https` endpoints.
    pub tls: Option<Tls>,
    /// What stands for `/registry` in etcd's keys.
    pub prefix: String,
    /// History older than one to two of these is compacted, by one of the servers that share an etcd; `None`: by somebody
    /// else.
    pub compaction_interval: Option<Duration>,
}

/// Files, read anew for each connection, so that certificates can be renewed under a running server.
#[derive(Clone, Debug)]
pub struct Tls {
    pub ca_file: PathBuf,
    /// Certificate and key of the client.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Http { host: String, port: u16 },
    Https { host: String, port: u16 },
    Unix(PathBuf),
}

impl Options {
    /// Takes `http(s)://host:port` or `unix:///path`, separated by commas, and the files that `https` needs. The scheme
    /// `etcd` stands for `https` when there is a certificate authority, else for `http`.
    pub fn parse(
        servers: &str,
        ca_file: Option<&Path>,
        cert_file: Option<&Path>,
        key_file: Option<&Path>,
    ) -> Result<Self, Error> {
        let endpoint = |word: &str| match word.strip_prefix("etcd://") {
            Some(rest) if ca_file.is_some() => Endpoint::parse(&format!("https://{rest}")),
            Some(rest) => Endpoint::parse(&format!("http://{rest}")),
            None => Endpoint::parse(word),
        };
        let endpoints = servers.split(',').map(|word| endpoint(word.trim())).collect::<Result<Vec<_>, _>>()?;
        let client = match (cert_file, key_file) {
            (Some(certificate), Some(key)) => Some((certificate.to_owned(), key.to_owned())),
            (None, None) => None,
            (Some(_), None) => return Err(invalid("etcd-keyfile", "is needed with --etcd-certfile")),
            (None, Some(_)) => return Err(invalid("etcd-certfile", "is needed with --etcd-keyfile")),
        };
        let secure = endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Https { .. }));
        let tls = match ca_file {
            Some(ca_file) => Some(Tls { ca_file: ca_file.to_owned(), client }),
            None if secure => return Err(invalid("etcd-cafile", "is needed for https endpoints")),
            None if client.is_some() => return Err(invalid("etcd-cafile", "is needed with --etcd-certfile")),
            None => None,
        };
        Ok(Self { endpoints, tls, prefix: "/registry".into(), compaction_interval: Some(Duration::from_secs(300)) })
    }

    /// The same with another prefix in place of `/registry`.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self, Error> {
        let prefix = prefix.trim_end_matches('/');
        if !prefix.starts_with('/') || prefix.len() < 2 {
            return Err(invalid("etcd-prefix", "must begin with / and name something, as /registry does"));
        }
        self.prefix = prefix.to_owned();
        Ok(self)
    }
}

impl Endpoint {
    fn parse(word: &str) -> Result<Self, Error> {
        let malformed = |reason: &str| Error::Invalid {
            option: "etcd endpoint".into(),
            reason: format!("{word:?} {reason}; write http://host:port or https://host:port"),
        };
        if let Some(path) = word.strip_prefix("unix://") {
            if path.is_empty() {
                return Err(malformed("names no socket"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let uri: tonic::transport::Uri = word.parse().map_err(|_| malformed("is no URL"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| malformed("names no host"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(malformed("has more than a host and a port"));
        }
        let (host, port) = (host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(2379));
        match uri.scheme_str() {
            Some("http") => Ok(Self::Http { host, port }),
            Some("https") => Ok(Self::Https { host, port }),
            _ => Err(malformed("has no scheme that is known")),
        }
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bracketed = |host: &str| if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        match self {
            Self::Http { host, port } => write!(f, "http://{}:{port}", bracketed(host)),
            Self::Https { host, port } => write!(f, "https://{}:{port}", bracketed(host)),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

fn invalid(option: &str, reason: &str) -> Error {
    Error::Invalid { option: format!("--{option}"), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(servers: &str) -> Result<Options, Error> {
        Options::parse(servers, Some(Path::new("ca")), None, None)
    }

    #[test]
    fn several_endpoints_of_all_kinds() {
        let options = parse("http://a:1, https://[::1]:2,unix:///run/e.sock,http://b,etcd://c").expect("parsed");
        let told: Vec<String> = options.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["http://a:1", "https://[::1]:2", "unix:///run/e.sock", "http://b:2379", "https://c:2379"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (servers, wrong) in [
            ("", "\"\""),
            ("a:1", "\"a:1\""),
            ("http://a:1,ftp://b:1", "\"ftp://b:1\""),
            ("http://a:1/x", "\"http://a:1/x\""),
            ("unix://", "\"unix://\""),
        ] {
            let told = parse(servers).expect_err("refused").to_string();
            assert!(told.contains(wrong), "{told}");
        }
        let told = Options::parse("https://a:1", None, None, None).expect_err("refused").to_string();
        assert!(told.contains("--etcd-cafile"), "{told}");
        let told = Options::parse("http://a:1", None, Some(Path::new("c")), None).expect_err("refused").to_string();
        assert!(told.contains("--etcd-keyfile"), "{told}");
        assert!(parse("http://a:1").expect("parsed").with_prefix("registry").is_err());
    }
}
