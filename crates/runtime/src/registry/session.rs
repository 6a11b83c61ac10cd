//! A conversation with the servers of one repository.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::Mutex;

use super::{
    auth::{self, Credentials},
    blob::Blob,
    error::Error,
    host::{Hosts, Server},
    request::{body, fail},
    transport::{Transport, shown},
};
use crate::{
    content::{Digest, verify},
    image::{ACCEPT, Descriptor, MAX_MANIFEST, Reference, Version},
};

const MAX_REDIRECTS: usize = 10;
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What is needed to fetch the images of one repository: its servers, connections to them, and
/// the right to read.
pub struct Session {
    repository: String,
    credentials: Credentials,
    endpoints: Vec<Endpoint>,
}

pub(super) struct Endpoint {
    server: Server,
    transport: Transport,
    authorization: Mutex<Option<HeaderValue>>,
    /// Could not be reached lately: asked last.
    silent: AtomicBool,
}

/// A reference's content: what it is, and the bytes if they had to be read to know.
#[derive(Debug)]
pub struct Resolved {
    /// What the reference points to at this moment.
    pub descriptor: Descriptor,
    /// Its bytes, when the registry told no digest without them.
    pub content: Option<Bytes>,
}

impl Session {
    /// Prepares to talk about the repository of `reference`; sends nothing yet.
    ///
    /// # Errors
    ///
    /// When a certificate authority that was put there for one of the servers is unreadable.
    pub fn new(hosts: &Hosts, reference: &Reference, credentials: Credentials) -> Result<Self, Error> {
        let endpoint = |server: Server| {
            let transport = Transport::new(hosts, &server.authority)?;
            let (authorization, silent) = (Mutex::default(), AtomicBool::new(false));
            Ok(Endpoint { server, transport, authorization, silent })
        };
        let servers = hosts.servers(reference.domain());
        let endpoints = servers.into_iter().map(endpoint).collect::<Result<_, Error>>()?;
        Ok(Self { repository: reference.path().into(), credentials, endpoints })
    }

    /// Finds out what `reference`, of this session's repository, points to.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, Error> {
        let (version, expected) = match reference.version() {
            Version::Tag(tag) => (tag.as_str(), None),
            Version::Digest(digest) => (digest.as_str(), Some(digest)),
        };
        let path = format!("manifests/{version}");
        let name = reference.to_string();
        let mut attempts = self.attempts(&name);
        while let Some(endpoint) = attempts.next() {
            let answer = self.resolve_at(endpoint, &path, expected).await;
            if let Some(resolved) = attempts.judge(endpoint, answer) {
                return Ok(resolved);
            }
        }
        let source = Box::new(attempts.failure());
        Err(Error::Resolve { reference: name, source })
    }

    /// The bytes of a manifest, an index or (with `is_blob`) a configuration, verified.
    pub async fn document(&self, what: &'static str, descriptor: &Descriptor, is_blob: bool) -> Result<Bytes, Error> {
        let digest = &descriptor.digest;
        let wrap = |source| Error::Fetch { what, digest: digest.clone(), source: Box::new(source) };
        if descriptor.size > MAX_MANIFEST {
            let reason = format!("it is {} bytes long, over the {MAX_MANIFEST} that are read", descriptor.size);
            return Err(wrap(Error::Protocol { url: digest.to_string(), reason }));
        }
        let kind = if is_blob { "blobs" } else { "manifests" };
        let path = format!("{kind}/{digest}");
        let mut attempts = self.attempts(digest.as_str());
        while let Some(endpoint) = attempts.next() {
            let answer = self.document_at(endpoint, &path, descriptor).await;
            if let Some(bytes) = attempts.judge(endpoint, answer) {
                return Ok(bytes);
            }
        }
        Err(wrap(attempts.failure()))
    }

    /// A layer, to be read piece by piece.
    #[must_use]
    pub fn blob<'a>(&'a self, descriptor: &'a Descriptor) -> Blob<'a> {
        Blob::new(self, descriptor)
    }

    /// Opens a blob at `offset`: the answer, and where in the blob it starts.
    pub(super) async fn open_blob(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> Result<(Uri, Response<Incoming>, u64), Error> {
        let path = format!("blobs/{digest}");
        let mut attempts = self.attempts(digest.as_str());
        while let Some(endpoint) = attempts.next() {
            let answer = self.open_blob_at(endpoint, &path, offset).await;
            if let Some(open) = attempts.judge(endpoint, answer) {
                return Ok(open);
            }
        }
        Err(attempts.failure())
    }

    async fn document_at(&self, endpoint: &Endpoint, path: &str, descriptor: &Descriptor) -> Result<Bytes, Error> {
        let (uri, response) = self.get(endpoint, Method::GET, path, accept()).await?;
        let bytes = body(&Method::GET, &uri, response, MAX_MANIFEST).await?;
        verify(&bytes, &descriptor.digest, Some(descriptor.size))?;
        Ok(bytes)
    }

    async fn open_blob_at(
        &self,
        endpoint: &Endpoint,
        path: &str,
        offset: u64,
    ) -> Result<(Uri, Response<Incoming>, u64), Error> {
        let mut headers = HeaderMap::new();
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            headers.extend(range.ok().map(|range| (header::RANGE, range)));
        }
        let (uri, response) = self.get(endpoint, Method::GET, path, headers).await?;
        let start = match response.status() {
            StatusCode::PARTIAL_CONTENT => range_start(response.headers()).ok_or_else(|| {
                let reason = "partial content without a valid Content-Range".into();
                Error::Protocol { url: shown(&uri), reason }
            })?,
            // No ranges here: it starts over.
            _ => 0,
        };
        if start > offset {
            let reason = format!("asked for bytes from {offset}, it sends from {start}");
            return Err(Error::Protocol { url: shown(&uri), reason });
        }
        Ok((uri, response, start))
    }

    async fn resolve_at(&self, endpoint: &Endpoint, path: &str, expected: Option<&Digest>) -> Result<Resolved, Error> {
        let (uri, response) = match self.get(endpoint, Method::HEAD, path, accept()).await {
            // Some proxies know no HEAD.
            Err(Error::Status { status: StatusCode::METHOD_NOT_ALLOWED, .. }) => {
                return self.resolve_by_content(endpoint, path, expected).await;
            }
            other => other?,
        };
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let digest = header(CONTENT_DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
        let size = header(header::CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
        let (Some(digest), Some(size)) = (digest, size) else {
            return self.resolve_by_content(endpoint, path, expected).await;
        };
        if expected.is_some_and(|expected| *expected != digest) {
            let reason = format!("it has the digest {digest}");
            return Err(Error::Protocol { url: shown(&uri), reason });
        }
        let media_type = header(header::CONTENT_TYPE.as_str()).unwrap_or_default().into();
        Ok(Resolved { descriptor: descriptor(media_type, digest, size), content: None })
    }

    async fn resolve_by_content(
        &self,
        endpoint: &Endpoint,
        path: &str,
        expected: Option<&Digest>,
    ) -> Result<Resolved, Error> {
        let (uri, response) = self.get(endpoint, Method::GET, path, accept()).await?;
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let content = body(&Method::GET, &uri, response, MAX_MANIFEST).await?;
        let digest = match expected {
            Some(expected) => {
                verify(&content, expected, None)?;
                expected.clone()
            }
            None => Digest::of(&content),
        };
        let size = content.len() as u64;
        Ok(Resolved { descriptor: descriptor(media_type, digest, size), content: Some(content) })
    }

    fn attempts<'a>(&'a self, what: &'a str) -> Attempts<'a> {
        let mut endpoints: Vec<_> = self.endpoints.iter().collect();
        endpoints.sort_by_key(|endpoint| endpoint.silent.load(Ordering::Relaxed));
        Attempts { endpoints: endpoints.into_iter(), what, worst: None }
    }

    /// One successful answer: authenticates when asked to, and follows redirects.
    async fn get(
        &self,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<(Uri, Response<Incoming>), Error> {
        let start = endpoint.server.url(&self.repository, path);
        let start: Uri =
            start.parse().map_err(|_| Error::Protocol { url: start.clone(), reason: "it is not a URL".into() })?;
        let mut uri = start.clone();
        let mut redirects = 0;
        let mut authorized = false;
        loop {
            // A token is for the registry, not for the storage that it sends its clients to.
            let at_home = uri.authority() == start.authority() && uri.scheme() == start.scheme();
            let authorization = if at_home { endpoint.authorization.lock().await.clone() } else { None };
            let mut request = Request::builder().method(&method).uri(&uri);
            if let Some(all) = request.headers_mut() {
                all.extend(headers.clone());
                all.extend(authorization.clone().map(|value| (header::AUTHORIZATION, value)));
            }
            let request = request.body(Full::<Bytes>::default());
            let request = request.map_err(|error| Error::Protocol { url: shown(&uri), reason: error.to_string() })?;
            let response = endpoint.transport.send(request).await?;
            match response.status() {
                status if status.is_success() => return Ok((uri, response)),
                StatusCode::UNAUTHORIZED if at_home && !authorized => {
                    self.authorize(endpoint, authorization, &response).await?;
                    authorized = true;
                }
                StatusCode::UNAUTHORIZED if at_home => {
                    let challenges = auth::challenges(response.headers());
                    let said = challenges.iter().find_map(|challenge| challenge.parameters.get("error"));
                    let said = said.map_or("invalid credentials", String::as_str);
                    return Err(Error::Denied(format!("server message: {}", auth::printable(said))));
                }
                status if status.is_redirection() && response.headers().contains_key(header::LOCATION) => {
                    redirects += 1;
                    if redirects > MAX_REDIRECTS {
                        let reason = "stopped after 10 redirects".into();
                        return Err(Error::Protocol { url: shown(&uri), reason });
                    }
                    let next = redirect(&uri, response.headers());
                    uri = next.ok_or_else(|| Error::Protocol {
                        url: shown(&uri),
                        reason: "it redirects to what is not a URL".into(),
                    })?;
                }
                _ => return Err(fail(&method, &uri, response).await),
            }
        }
    }

    /// Gets the right to read from whoever gives it, unless another request just did.
    async fn authorize(
        &self,
        endpoint: &Endpoint,
        used: Option<HeaderValue>,
        response: &Response<Incoming>,
    ) -> Result<(), Error> {
        let mut current = endpoint.authorization.lock().await;
        if *current != used {
            return Ok(());
        }
        let challenges = auth::challenges(response.headers());
        let private = endpoint.server.is_private();
        let fresh = auth::authorize(&endpoint.transport, &challenges, &self.credentials, &self.repository, private);
        *current = Some(fresh.await?);
        Ok(())
    }
}

/// The servers to ask, one after the other. Of several failures the one that says most about the
/// image is kept.
struct Attempts<'a> {
    endpoints: std::vec::IntoIter<&'a Endpoint>,
    what: &'a str,
    worst: Option<Error>,
}

impl<'a> Attempts<'a> {
    fn next(&mut self) -> Option<&'a Endpoint> {
        self.endpoints.next()
    }

    fn judge<T>(&mut self, endpoint: &Endpoint, answer: Result<T, Error>) -> Option<T> {
        let error = match answer {
            Ok(found) => {
                endpoint.silent.store(false, Ordering::Relaxed);
                return Some(found);
            }
            Err(Error::Status { status: StatusCode::NOT_FOUND, .. }) => Error::NotFound(self.what.into()),
            Err(error) => error,
        };
        tracing::debug!(server = %endpoint.server.authority, %error, "image not had here");
        if matches!(error, Error::Request { .. }) {
            endpoint.silent.store(true, Ordering::Relaxed);
        }
        if self.worst.as_ref().is_none_or(|worst| error.weight() > worst.weight()) {
            self.worst = Some(error);
        }
        None
    }

    fn failure(self) -> Error {
        self.worst.unwrap_or_else(|| Error::NotFound(self.what.into()))
    }
}

fn descriptor(media_type: String, digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type, digest, size, platform: None, annotations: Default::default() }
}

fn accept() -> HeaderMap {
    HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(ACCEPT))])
}

/// The first byte of `Content-Range: bytes FIRST-LAST/LENGTH`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Where a redirect from `uri` leads.
fn redirect(uri: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let absolute = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.contains("://") {
        location.to_owned()
    } else {
        let directory = uri.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    let next: Uri = absolute.parse().ok()?;
    let usable = matches!(next.scheme_str(), Some("http" | "https")) && next.authority().is_some();
    usable.then_some(next)
}
