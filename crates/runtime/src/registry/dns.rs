//! Host names for registries, without libc: the executable is static, and libc's resolver would
//! load modules that it can't.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use hickory_resolver::TokioResolver;
use hyper_util::client::legacy::connect::dns::Name;

/// Resolves as `/etc/hosts` and `/etc/resolv.conf` say at the first lookup.
#[derive(Clone, Default)]
pub struct Dns(Arc<OnceLock<TokioResolver>>);

impl Dns {
    /// The addresses of a host; their port is 0.
    ///
    /// # Errors
    /// It has none, or nobody could be asked.
    pub async fn resolve(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        self.clone().lookup(host.to_owned()).await
    }

    async fn lookup(self, host: String) -> io::Result<Vec<SocketAddr>> {
        let fail = |reason: String| io::Error::new(io::ErrorKind::NotFound, format!("lookup {host}: {reason}"));
        let plain = host.trim_end_matches('.');
        if plain == "localhost" || plain.ends_with(".localhost") {
            let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(loopback.map(|ip| SocketAddr::new(ip, 0)).into());
        }
        let resolver = match self.0.get() {
            Some(resolver) => resolver,
            None => {
                let built = TokioResolver::builder_tokio().and_then(|builder| builder.build());
                let built = built.map_err(|error| fail(format!("/etc/resolv.conf: {error}")))?;
                self.0.get_or_init(|| built)
            }
        };
        let found = resolver.lookup_ip(host.as_str()).await.map_err(|error| {
            fail(if error.is_no_records_found() { "no such host".into() } else { error.to_string() })
        })?;
        Ok(found.iter().map(|ip| SocketAddr::new(ip, 0)).collect())
    }
}

impl tower::Service<Name> for Dns {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let dns = self.clone();
        Box::pin(async move { Ok(dns.lookup(name.as_str().to_owned()).await?.into_iter()) })
    }
}
