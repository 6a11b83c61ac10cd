//! `nodes/proxy`, `pods/proxy` and `services/proxy`: any request, passed on to what they name.

use super::forward::forward;
use super::kubelet::{Endpoint, Kubelets};
use crate::admission::walk;
use crate::context::Context;
use crate::http::{Body, Request, Response};
use crate::lookup::{ENDPOINT_SLICES, Lookup, PODS, SERVICES};
use crate::registry::{Registry, Subresource, Target};
use api::{GroupResource, Status};
use async_trait::async_trait;
use http::{HeaderValue, Method, StatusCode};
use rustls::pki_types::ServerName;
use schema::{Map, Value};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};

/// What is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Node,
    Pod,
    Service,
}

/// The subresource `proxy` of a kind.
pub struct Proxy {
    pub kind: Kind,
    pub objects: Arc<dyn Lookup>,
    pub kubelets: Arc<Kubelets>,
    pub registry: Weak<Registry>,
}

/// `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

fn split(id: &str) -> Option<Named<'_>> {
    let parts: Vec<&str> = id.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] if matches!(*scheme, "" | "http" | "https") => (*scheme, *name, *port),
        _ => return None,
    };
    (!name.is_empty()).then_some(Named { scheme, name, port })
}

/// An address that a client may be let through to: not this machine's own, nor one that means many.
fn proxyable(address: &str) -> Result<IpAddr, Status> {
    let refuse = || Status::bad_request("address not allowed");
    // An IPv4 address written as IPv6 leads to the same place.
    let ip = address.parse::<IpAddr>().map_err(|_| refuse())?.to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local { Err(refuse()) } else { Ok(ip) }
}

/// Port `port` of a pod: given as a number, or its first container's first.
fn pod_port(pod: &Map, port: &str) -> Result<u16, Status> {
    if !port.is_empty() {
        return port.parse().map_err(|_| Status::bad_request(format!("invalid port {port:?} in the proxy request")));
    }
    let first = walk::items(pod, &["spec", "containers"])
        .find_map(|c| walk::items(c, &["ports"]).next().and_then(|p| p.get("containerPort").and_then(Value::as_i64)));
    Ok(first.and_then(|p| u16::try_from(p).ok()).unwrap_or(80))
}

/// An address that answers for port `port` (a number, or a name; empty: the only one) of a service.
fn service_address(service: &Map, slices: &[Arc<Map>], port: &str, random: usize) -> Result<(IpAddr, u16), Status> {
    let name = service.str_at(&["metadata", "name"]);
    let numbered = |p: &Map| p.get("port").and_then(Value::as_i64).unwrap_or(0).to_string();
    let ports: Vec<&Map> = walk::items(service, &["spec", "ports"]).collect();
    let wanted = match (ports.as_slice(), port) {
        ([one], "") => one.str_at(&["name"]),
        (several, port) => several
            .iter()
            .find(|p| p.str_at(&["name"]) == port || numbered(p) == port)
            .map(|p| p.str_at(&["name"]))
            .ok_or_else(|| {
                Status::service_unavailable(format!("no service port {port:?} found for service {name:?}"))
            })?,
    };
    let mut candidates: Vec<(IpAddr, u16)> = Vec::new();
    for slice in slices {
        let number = walk::items(slice, &["ports"]).find(|p| p.str_at(&["name"]) == wanted);
        let number = number.and_then(|p| p.get("port").and_then(Value::as_i64)).and_then(|p| u16::try_from(p).ok());
        let Some(number) = number else { continue };
        for endpoint in walk::items(slice, &["endpoints"]) {
            let ready = endpoint.at(&["conditions", "ready"]).and_then(Value::as_bool).unwrap_or(true);
            let addresses = endpoint.get("addresses").and_then(Value::as_list).unwrap_or_default();
            if ready {
                candidates.extend(
                    addresses.iter().filter_map(Value::as_str).filter_map(|a| a.parse().ok()).map(|ip| (ip, number)),
                );
            }
        }
    }
    if candidates.is_empty() {
        return Err(Status::service_unavailable(format!("no endpoints available for service {name:?}")));
    }
    Ok(candidates[random % candidates.len()])
}

/// Where a redirect of what is proxied leads through this server; `None`: elsewhere, or there already.
fn rewritten(location: &str, prefix: &str, own: &[Option<String>]) -> Option<String> {
    let (host, rest) = match location.split_once("://") {
        Some((_, rest)) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
        None => match location.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", location),
        },
    };
    let ours = host.is_empty() || own.iter().flatten().any(|name| name == host);
    if !ours || !rest.starts_with('/') {
        return None;
    }
    Some(if rest.starts_with(prefix) { rest.to_owned() } else { format!("{prefix}{rest}") })
}

impl Proxy {
    fn plain(&self, scheme: &str, address: IpAddr, port: u16) -> Endpoint {
        let tls = (scheme == "https").then(|| (ServerName::IpAddress(address.into()), self.kubelets.anonymous_tls()));
        Endpoint { address: SocketAddr::new(address, port), tls }
    }

    async fn endpoint(&self, target: &Target) -> Result<Endpoint, Status> {
        let invalid =
            || Status::bad_request(format!("invalid {} request {:?}", target.served.resource.singular, target.name));
        let named = split(&target.name).ok_or_else(invalid)?;
        let missing = |plural: &'static str| Status::not_found(&GroupResource::new("", plural), named.name);
        match self.kind {
            Kind::Node => {
                let mut kubelet = self.kubelets.of(named.name, false).await?;
                if named.port.is_empty() || named.port == kubelet.address.port().to_string() {
                    return Ok(kubelet);
                }
                let port = named.port.parse().map_err(|_| invalid())?;
                let address = proxyable(&kubelet.address.ip().to_string())?;
                kubelet = self.plain(named.scheme, address, port);
                Ok(kubelet)
            }
            Kind::Pod => {
                let pod =
                    self.objects.find(PODS, &target.namespace, named.name).await?.ok_or_else(|| missing("pods"))?;
                let port = pod_port(&pod, named.port)?;
                Ok(self.plain(named.scheme, proxyable(pod.str_at(&["status", "podIP"]))?, port))
            }
            Kind::Service => {
                let service = self.objects.find(SERVICES, &target.namespace, named.name).await?;
                let service = service.ok_or_else(|| missing("services"))?;
                let own = |slice: &Arc<Map>| {
                    slice.str_at(&["metadata", "labels", "kubernetes.io/service-name"]) == named.name
                };
                let mut slices = self.objects.list(ENDPOINT_SLICES, Some(&target.namespace))?;
                slices.retain(own);
                let random = uuid::Uuid::new_v4().as_u64_pair().1;
                let (address, port) =
                    service_address(&service, &slices, named.port, usize::try_from(random >> 1).unwrap_or(0))?;
                Ok(self.plain(named.scheme, proxyable(&address.to_string())?, port))
            }
        }
    }
}

#[async_trait]
impl Subresource for Proxy {
    fn connects(&self) -> bool {
        true
    }

    async fn connect(&self, cx: &Context, target: &Target, mut request: Request) -> Result<Response<Body>, Status> {
        let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
        let path = request.uri().path().to_owned();
        if target.rest.is_empty() && !path.ends_with('/') && matches!(*request.method(), Method::GET | Method::HEAD) {
            // Relative links of what is shown must lead below it.
            let mut moved = Response::new(Body::empty());
            *moved.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let location = HeaderValue::from_str(&format!("{path}/{query}")).map_err(Status::internal)?;
            moved.headers_mut().insert(http::header::LOCATION, location);
            return Ok(moved);
        }
        let kind = match self.kind {
            Kind::Node => "NodeProxyOptions",
            Kind::Pod => "PodProxyOptions",
            Kind::Service => "ServiceProxyOptions",
        };
        let mut options = Map::new();
        options.insert("apiVersion", "v1");
        options.insert("kind", kind);
        options.insert("path", format!("/{}", target.rest));
        let registry =
            self.registry.upgrade().ok_or_else(|| Status::service_unavailable("the server is shutting down"))?;
        registry.admit_connect(cx, target, options).await?;
        let to = self.endpoint(target).await?;
        for (name, value) in [("x-forwarded-uri", path.as_str()), ("x-forwarded-proto", "https")] {
            if let Ok(value) = HeaderValue::from_str(value) {
                request.headers_mut().insert(name, value);
            }
        }
        let asked = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let answer = forward(&to, request, &format!("/{}{query}", target.rest)).await;
        let mut answer =
            answer.map_err(|e| Status::service_unavailable(format!("error trying to reach service: {e}")))?;
        // What is shown below the proxy's path leads on below it.
        let prefix = path.strip_suffix(target.rest.as_str()).unwrap_or(&path).trim_end_matches('/');
        let own = [Some(to.address.to_string()), asked];
        if let Some(location) = answer.headers().get(http::header::LOCATION).and_then(|value| value.to_str().ok())
            && let Some(moved) = rewritten(location, prefix, &own)
        {
            answer
                .headers_mut()
                .insert(http::header::LOCATION, HeaderValue::from_str(&moved).map_err(Status::internal)?);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::map;

    #[test]
    fn names_have_schemes_and_ports() {
        assert_eq!(split("a"), Some(Named { scheme: "", name: "a", port: "" }));
        assert_eq!(split("a:80"), Some(Named { scheme: "", name: "a", port: "80" }));
        assert_eq!(split("https:a:"), Some(Named { scheme: "https", name: "a", port: "" }));
        for bad in ["", "ftp:a:1", "a:b:c:d", "http::80"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }

    #[test]
    fn redirects_lead_on_below_the_proxy() {
        let own = [Some("10.0.0.1:80".to_owned()), Some("api:6443".to_owned())];
        let to = |location: &str| rewritten(location, "/p/proxy", &own);
        assert_eq!(to("/login?x=1").as_deref(), Some("/p/proxy/login?x=1"));
        assert_eq!(to("http://10.0.0.1:80/a/").as_deref(), Some("/p/proxy/a/"));
        assert_eq!(to("https://api:6443/p/proxy/a").as_deref(), Some("/p/proxy/a"));
        for elsewhere in ["http://example.com/", "//example.com/", "other", "http://10.0.0.1:80"] {
            assert_eq!(to(elsewhere), None, "{elsewhere}");
        }
    }

    #[test]
    fn own_addresses_are_out_of_reach() {
        for bad in
            ["127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "::1", "fe80::1", "::ffff:127.0.0.1", "x", ""]
        {
            assert!(proxyable(bad).is_err(), "{bad}");
        }
        assert!(proxyable("10.1.2.3").is_ok());
    }

    #[test]
    fn a_service_is_answered_by_a_ready_endpoint_of_the_port() {
        let service = map("{metadata: {name: s}, spec: {ports: [{name: web, port: 80}, {name: admin, port: 81}]}}");
        let slice = Arc::new(map(
            "{ports: [{name: web, port: 8080}], endpoints: [{addresses: [10.0.0.1], conditions: {ready: false}}, {addresses: [10.0.0.2], conditions: {ready: true}}]}",
        ));
        let ask = |port: &str| service_address(&service, std::slice::from_ref(&slice), port, 0);
        assert_eq!(ask("80").expect("an address"), ("10.0.0.2".parse().expect("an address"), 8080));
        assert_eq!(ask("web").expect("an address").1, 8080);
        assert_eq!(ask("admin").expect_err("none").message, "no endpoints available for service \"s\"");
        assert_eq!(ask("x").expect_err("none").message, "no service port \"x\" found for service \"s\"");
    }
}
