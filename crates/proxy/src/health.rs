//! Health check node ports: where load balancers ask whether this node has endpoints of a Service.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::state::ServiceName;

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// The servers of all health check node ports.
#[derive(Default)]
pub struct HealthServers {
    servers: BTreeMap<u16, Server>,
}

struct Server {
    service: ServiceName,
    local: Arc<AtomicUsize>,
    _stop: DropGuard,
}

/// A port that could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on the health check node port {port} of {service}: {source}")]
pub struct PortError {
    port: u16,
    service: ServiceName,
    source: std::io::Error,
}

impl HealthServers {
    /// Serves these ports, for these Services with so many endpoints on this node, and no others. The
    /// errors are of ports that are not served; the next call tries them again.
    pub async fn serve(&mut self, wanted: BTreeMap<u16, (ServiceName, usize)>) -> Vec<PortError> {
        self.servers.retain(|port, server| wanted.get(port).is_some_and(|(service, _)| *service == server.service));
        let mut errors = Vec::new();
        for (port, (service, local)) in wanted {
            if let Some(server) = self.servers.get(&port) {
                server.local.store(local, Ordering::Relaxed);
                continue;
            }
            match Server::start(port, &service, local).await {
                Ok(server) => drop(self.servers.insert(port, server)),
                Err(source) => errors.push(PortError { port, service, source }),
            }
        }
        errors
    }
}

impl Server {
    async fn start(port: u16, service: &ServiceName, local: usize) -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await?;
        let stop = CancellationToken::new();
        let local = Arc::new(AtomicUsize::new(local));
        let answers = accept(listener, service.clone(), local.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(answers));
        Ok(Self { service: service.clone(), local, _stop: stop.drop_guard() })
    }
}

async fn accept(listener: TcpListener, service: ServiceName, local: Arc<AtomicUsize>) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: accepting at once again would only spin.
                tracing::warn!(%service, %error, "cannot accept a health check");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (service, local) = (service.clone(), local.clone());
        tokio::spawn(async move {
            let respond = service_fn(move |_| {
                let response = answer(&service, local.load(Ordering::Relaxed));
                async move { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
            if let Err(error) = server.serve_connection(TokioIo::new(stream), respond).await {
                tracing::debug!(%error, "a health check broke off");
            }
        });
    }
}

/// What upstream answers: 200 when there are endpoints on this node and 503 when not.
fn answer(service: &ServiceName, local: usize) -> Response<Full<Bytes>> {
    let body = serde_json::json!({
        "service": { "namespace": service.namespace, "name": service.name },
        "localEndpoints": local,
        "serviceProxyHealthy": true,
    });
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = if local > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = response.headers_mut();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", http::HeaderValue::from(local));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn ask(port: u16) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: node\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn tells_whether_this_node_has_endpoints() {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let service = ServiceName { namespace: "default".into(), name: "web".into() };
        let mut servers = HealthServers::default();
        assert!(servers.serve(BTreeMap::from([(port, (service.clone(), 2))])).await.is_empty());
        let answer = ask(port).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("x-load-balancing-endpoint-weight: 2"), "{answer}");
        assert!(answer.contains("\"localEndpoints\":2") && answer.contains("\"name\":\"web\""), "{answer}");

        servers.serve(BTreeMap::from([(port, (service, 0))])).await;
        assert!(ask(port).await.starts_with("HTTP/1.1 503 Service Unavailable"));

        servers.serve(BTreeMap::new()).await;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
