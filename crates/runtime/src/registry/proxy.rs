//! Proxies between this machine and registries, as the environment names them.

use std::{
    future::Future,
    io,
    net::IpAddr,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tower::Service;

use super::{dns::Dns, host::is_loopback};

/// The longest answer to `CONNECT` that is read.
const MAX_ANSWER: usize = 8 * 1024;

/// Which proxy to use for which host: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, by Go's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    except: Vec<Exception>,
}

#[derive(Clone, PartialEq, Eq)]
struct Proxy {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network(IpAddr, u8),
    /// A domain, with the port if one was given; of a leading dot only what is below it.
    Domain {
        name: String,
        below_only: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// What this process's environment says.
    #[must_use]
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    pub(super) fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            let set = |name: &str| variable(name).filter(|value| !value.is_empty());
            set(name).or_else(|| set(&name.to_ascii_lowercase()))
        };
        let proxy = |name: &str| {
            let value = either(name)?;
            let parsed = Proxy::from_str(&value);
            if parsed.is_err() {
                tracing::warn!(variable = name, "ignored: it is not the URL of an HTTP proxy");
            }
            parsed.ok()
        };
        let except = either("NO_PROXY").unwrap_or_default();
        Self {
            https: proxy("HTTPS_PROXY"),
            http: proxy("HTTP_PROXY"),
            except: except.split(',').filter_map(|entry| Exception::parse(entry.trim())).collect(),
        }
    }

    fn of(&self, uri: &Uri) -> Option<&Proxy> {
        let local = is_loopback(uri.authority()?.as_str());
        let host = uri.host()?.trim_matches(['[', ']']);
        let proxy = if uri.scheme() == Some(&Scheme::HTTPS) { self.https.as_ref() } else { self.http.as_ref() };
        let except = self.except.iter().any(|exception| exception.matches(host, port(uri)));
        proxy.filter(|_| !except && !local)
    }

    /// What a request that goes through a proxy in the open has to say to it.
    pub(super) fn authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        let proxied = self.of(uri).filter(|_| uri.scheme() == Some(&Scheme::HTTP))?;
        proxied.authorization.clone()
    }
}

impl FromStr for Proxy {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = text.parse().map_err(drop)?;
        let authority = uri.authority().ok_or(())?.as_str();
        let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        if uri.scheme() != Some(&Scheme::HTTP) || host.is_empty() {
            return Err(());
        }
        let authorization = match user {
            None => None,
            Some(user) => {
                let value = format!("Basic {}", STANDARD.encode(unescape(user)));
                let mut value = HeaderValue::try_from(value).map_err(drop)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self { uri: format!("http://{host}/").parse().map_err(drop)?, authorization })
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.uri)
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Network(address, if address.is_ipv4() { 32 } else { 128 }));
        }
        if let Some((address, bits)) = text.split_once('/') {
            return Some(Self::Network(address.parse().ok()?, bits.parse().ok()?));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let name = name.strip_prefix('*').unwrap_or(name);
        let below_only = name.starts_with('.');
        let name = name.trim_start_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(Self::Domain { name, below_only, port })
    }

    fn matches(&self, host: &str, at: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, bits) => match (network, host.parse::<IpAddr>()) {
                (IpAddr::V4(network), Ok(IpAddr::V4(host))) => {
                    same(u128::from(network.to_bits()) << 96, u128::from(host.to_bits()) << 96, *bits)
                }
                (IpAddr::V6(network), Ok(IpAddr::V6(host))) => same(network.to_bits(), host.to_bits(), *bits),
                _ => false,
            },
            Self::Domain { name, below_only, port } => {
                let host = host.to_ascii_lowercase();
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'));
                port.is_none_or(|port| port == at) && (below || !below_only && host == *name)
            }
        }
    }
}

fn same(left: u128, right: u128, bits: u8) -> bool {
    (left ^ right).checked_shr(128 - u32::from(bits.min(128))).unwrap_or(0) == 0
}

fn port(uri: &Uri) -> u16 {
    let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}

/// `%41` as `A`.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        let hex = after.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => bytes.push(*first),
        }
    }
    bytes
}

/// Connects to a host, or to the proxy for it.
#[derive(Clone)]
pub(super) struct ProxyConnector {
    pub(super) direct: HttpConnector<Dns>,
    pub(super) proxies: Proxies,
}

impl Service<Uri> for ProxyConnector {
    type Response = Stream;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.of(&uri).cloned() else {
            let connecting = self.direct.call(uri);
            return Box::pin(async move { Ok(Stream { inner: connecting.await?, proxied: false }) });
        };
        let connecting = self.direct.call(proxy.uri.clone());
        Box::pin(async move {
            let mut inner = connecting.await?;
            let tunnelled = uri.scheme() == Some(&Scheme::HTTPS);
            if tunnelled {
                tunnel(inner.inner_mut(), &uri, &proxy).await?;
            }
            Ok(Stream { inner, proxied: !tunnelled })
        })
    }
}

/// Asks the proxy for a connection to the host of `uri`.
async fn tunnel(stream: &mut TcpStream, uri: &Uri, proxy: &Proxy) -> io::Result<()> {
    let target = format!("{}:{}", uri.host().unwrap_or_default(), port(uri));
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend(b"Proxy-Authorization: ");
        request.extend(authorization.as_bytes());
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    stream.write_all(&request).await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows the answer belongs to the host behind it.
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() == MAX_ANSWER {
            return Err(refused(proxy, "an endless answer"));
        }
        answer.push(stream.read_u8().await?);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    match line.split(' ').nth(1) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(()),
        _ => Err(refused(proxy, &super::auth::printable(&line))),
    }
}

fn refused(proxy: &Proxy, answer: &str) -> io::Error {
    io::Error::other(format!("proxyconnect tcp: {} answered {answer:?}", proxy.uri))
}

/// A connection, to the host itself or to a proxy that has to be told which host.
pub(super) struct Stream {
    inner: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::Proxies;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        Proxies::from_variables(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn exceptions_follow_gos_rules() {
        let except = "localnet,.sub.example, *.star.example,10.0.0.0/8,192.168.7.7,fd00::/8,port.example:8443";
        let proxies = proxies(&[("https_proxy", "p:3128"), ("HTTP_PROXY", "http://q"), ("NO_PROXY", except)]);
        for (url, proxied) in [
            ("https://quay.io/", true),
            ("http://quay.io/", true),
            ("https://localnet/", false),
            ("https://x.LocalNet/", false),
            ("https://notlocalnet/", true),
            ("https://sub.example/", true),
            ("https://a.sub.example/", false),
            ("https://a.star.example/", false),
            ("https://10.1.2.3:5000/", false),
            ("https://11.1.2.3/", true),
            ("https://192.168.7.7/", false),
            ("https://192.168.7.8/", true),
            ("https://[fd12::1]/", false),
            ("https://[2001:db8::1]/", true),
            ("https://port.example:8443/", false),
            ("https://port.example/", true),
            ("https://localhost:5000/", false),
            ("http://127.0.0.1:5000/", false),
            ("http://[::1]:5000/", false),
        ] {
            assert_eq!(proxies.of(&url.parse().unwrap()).is_some(), proxied, "{url}");
        }
        assert!(Proxies::from_variables(|_| Some("*".into())).of(&"https://x/".parse().unwrap()).is_none());
    }

    #[test]
    fn proxies_may_want_to_know_who_asks() {
        let proxies = proxies(&[("HTTP_PROXY", "http://us%40er:p%3Aw@proxy:80")]);
        let value = proxies.authorization(&"http://mirror/".parse().unwrap()).unwrap();
        assert_eq!(value, "Basic dXNAZXI6cDp3");
        assert!(!format!("{proxies:?}").contains("p:w"));
        assert!(proxies.authorization(&"https://mirror/".parse().unwrap()).is_none());
    }

    #[test]
    fn what_is_no_http_proxy_is_ignored() {
        for value in ["socks5://p:1080", "https://p:3128", "http://", "a b", ""] {
            let proxies = proxies(&[("HTTPS_PROXY", value)]);
            assert!(proxies.of(&"https://quay.io/".parse().unwrap()).is_none(), "{value}");
        }
    }
}
