//! A registry that does as a test says: challenges, redirects, cut connections, lies.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

use super::{Content, TestImage};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Asked {
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.target.contains("/blobs/")
    }
}

/// An answer to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// The connection breaks after so many bytes of the body.
    pub(crate) cut: Option<usize>,
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self { status: StatusCode::from_u16(status).unwrap(), ..Self::default() }
    }

    pub(crate) fn body(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub(crate) fn cut(self, after: usize) -> Self {
        Self { cut: Some(after), ..self }
    }
}

type Behaviour = dyn Fn(&Asked) -> Option<Reply> + Send + Sync;

/// A running one; it ends with the test's runtime.
pub(crate) struct FakeRegistry {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeRegistry {
    /// Serves `images` under any repository, by digest and as any tag the first; what `behaviour`
    /// answers goes before that.
    pub(crate) async fn start(
        images: &[&TestImage],
        behaviour: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(images, None, behaviour).await
    }

    /// The same over TLS.
    pub(crate) async fn start_with(
        images: &[&TestImage],
        tls: Option<Arc<rustls::ServerConfig>>,
        behaviour: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let mut contents: HashMap<String, Content> = HashMap::new();
        for image in images {
            for content in image.blobs().chain([&image.manifest]) {
                contents.insert(content.digest().to_string(), content.clone());
            }
        }
        let first = images.first().map(|image| image.manifest.clone());
        let serve = move |asked: &Asked| {
            if let Some(reply) = behaviour(asked) {
                return Some(reply);
            }
            let path = asked.target.split('?').next().unwrap_or_default();
            let version = path.rsplit('/').next().unwrap_or_default();
            let is_tag = path.contains("/manifests/") && !version.contains(':');
            let content = contents.get(version).or(first.as_ref().filter(|_| is_tag))?;
            Some(reply_with(asked, content))
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(accept(listener, tls, asked.clone(), Arc::new(serve)));
        Self { address, asked }
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Everything that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often something like it was asked.
    pub(crate) fn count(&self, like: impl Fn(&Asked) -> bool) -> usize {
        self.asked().iter().filter(|asked| like(asked)).count()
    }
}

/// Content as a registry gives it, ranges included.
pub(crate) fn reply_with(asked: &Asked, content: &Content) -> Reply {
    let reply = Reply::body(content.bytes.clone())
        .with("content-type", content.media_type)
        .with("docker-content-digest", content.digest().to_string());
    let range = asked
        .header(header::RANGE)
        .map(|range| range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse::<usize>().unwrap());
    match range {
        None => reply,
        Some(start) => {
            let last = content.bytes.len() - 1;
            let range = format!("bytes {start}-{last}/{}", content.bytes.len());
            Reply {
                status: StatusCode::PARTIAL_CONTENT,
                body: reply.body.slice(start..),
                ..reply.with("content-range", range)
            }
        }
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    behaviour: Arc<Behaviour>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, asked, behaviour) = (tls.clone(), asked.clone(), behaviour.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(request, asked.clone(), behaviour.clone()));
            let builder = auto::Builder::new(TokioExecutor::new());
            // Clients that hang up are what some tests are about.
            match tls {
                None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await {
                        drop(builder.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

type Body = StreamBody<futures::stream::BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>>;

async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<Asked>>>,
    behaviour: Arc<Behaviour>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let asked = Asked {
        method: head.method,
        target: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: head.headers,
        body: body.collect().await.map(|body| body.to_bytes()).unwrap_or_default(),
    };
    log.lock().unwrap().push(asked.clone());
    let reply = behaviour(&asked).unwrap_or_else(|| Reply::status(404));
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(name, value);
    }
    if reply.headers.iter().all(|(name, _)| name != "content-length") {
        response = response.header(header::CONTENT_LENGTH, reply.body.len());
    }
    let mut pieces: Vec<Result<Frame<Bytes>, std::io::Error>> = Vec::new();
    if asked.method != Method::HEAD {
        let sent = reply.cut.unwrap_or(reply.body.len()).min(reply.body.len());
        pieces.push(Ok(Frame::data(reply.body.slice(..sent))));
        if reply.cut.is_some() {
            pieces.push(Err(std::io::Error::other("cut")));
        }
    }
    // The server sends what it has whenever the next piece is not ready: so the first one is on its
    // way before the second breaks the connection.
    let pieces = futures::stream::iter(pieces).then(|piece| async {
        tokio::task::yield_now().await;
        piece
    });
    Ok(response.body(StreamBody::new(pieces.boxed())).unwrap())
}
