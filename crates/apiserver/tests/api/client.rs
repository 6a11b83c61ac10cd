//! A server of its own for each test, and a client that speaks to it within the process.

use apiserver::audit::Audit;
use apiserver::authn::{Authenticator, AuthnError, Peer};
use apiserver::authz::{Attributes, Authorizer, Decision, Rules};
use apiserver::limit::MaxInFlight;
use apiserver::registry::Registry;
use apiserver::server::{ApiServer, Config, LocalService, Security};
use apiserver::surface::Surface;
use apiserver::user::UserInfo;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use std::sync::Arc;
use tower::Service;

struct Nobody;

#[async_trait]
impl Authenticator for Nobody {
    async fn authenticate(&self, _: &http::request::Parts, _: Option<&Peer>) -> Result<Option<UserInfo>, AuthnError> {
        Ok(None)
    }
}

/// Who shows a certificate that TLS has verified is let in.
pub struct Certified;

#[async_trait]
impl Authenticator for Certified {
    async fn authenticate(
        &self,
        _: &http::request::Parts,
        peer: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError> {
        let certified = peer.is_some_and(|peer| !peer.certificates.is_empty());
        Ok(certified.then(|| UserInfo::new("certified", ["system:masters"])))
    }
}

struct Everything;

#[async_trait]
impl Authorizer for Everything {
    async fn authorize(&self, _: &Attributes<'_>) -> Decision {
        Decision::Allow(String::new())
    }
    async fn rules_for(&self, _: &UserInfo, _: &str) -> Rules {
        Rules::default()
    }
}

/// A server on a store in a directory of its own.
pub struct Server {
    pub api: Arc<ApiServer>,
    pub store: Arc<store::Embedded>,
    _directory: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Arc::new(Nobody)).await
    }

    /// With feature gates and a `--runtime-config`.
    pub async fn start_as(gates: &str, runtime: &str) -> Self {
        let asked: api::features::Asked = gates.parse().unwrap();
        let surface =
            Surface { gates: asked.gates().unwrap().0, runtime: runtime.parse().unwrap(), ..Surface::default() };
        Self::start_over(Arc::new(Nobody), surface).await
    }

    pub async fn start_with(authenticator: Arc<dyn Authenticator>) -> Self {
        Self::start_over(authenticator, Surface::default()).await
    }

    /// On a store that keeps history beyond its compaction mark (but of Leases), with a clock that is set.
    pub async fn start_keeping(clock: Arc<dyn store::embedded::Clock>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Arc::new(store::embedded::OsDisk::new(directory.path()));
        let undo = store::embedded::Undo {
            horizon: std::time::Duration::from_secs(3600),
            bytes: 1 << 30,
            except: vec![Bytes::from_static(b"/registry/leases/")],
        };
        let options = store::embedded::Options { undo: Some(undo), ..store::embedded::Options::default() };
        let store = store::Embedded::open_on(disk, clock, options).unwrap();
        Self::start_on(directory, store, Arc::new(Nobody), Surface::default()).await
    }

    async fn start_over(authenticator: Arc<dyn Authenticator>, surface: Surface) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = store::Embedded::open(directory.path(), store::embedded::Options::default()).unwrap();
        Self::start_on(directory, store, authenticator, surface).await
    }

    async fn start_on(
        directory: tempfile::TempDir,
        store: Arc<store::Embedded>,
        authenticator: Arc<dyn Authenticator>,
        surface: Surface,
    ) -> Self {
        let security = Security {
            authenticator,
            authorizer: Arc::new(Everything),
            audit: None,
            limit: MaxInFlight::default().into(),
        };
        Self::start_secured(directory, store, surface, security).await
    }

    /// With an authorizer and an audit log of its own.
    pub async fn start_audited(authorizer: Arc<dyn Authorizer>, audit: Audit) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = store::Embedded::open(directory.path(), store::embedded::Options::default()).unwrap();
        let limit = MaxInFlight::default().into();
        let security = Security { authenticator: Arc::new(Nobody), authorizer, audit: Some(audit), limit };
        Self::start_secured(directory, store, Surface::default(), security).await
    }

    async fn start_secured(
        directory: tempfile::TempDir,
        store: Arc<store::Embedded>,
        surface: Surface,
        security: Security,
    ) -> Self {
        let registry = Registry::open_as(store.clone(), None, surface).await.unwrap();
        let api = ApiServer::new(Config::default(), registry, security, Vec::new());
        Server { api, store, _directory: directory }
    }

    /// A client of another server on the same store, which begins when the past is compacted: it knows none.
    pub async fn forgetful(&self) -> Client {
        use store::Store as _;
        let now = self.store.status().await.unwrap().revision;
        self.store.compact(now).await.unwrap();
        self.restarted().await
    }

    /// A client of another server on the same store, which begins now.
    pub async fn restarted(&self) -> Client {
        Self::client_on(self.store.clone()).await
    }

    /// A client of a server on some store, which begins now.
    pub async fn client_on(store: Arc<dyn store::Store>) -> Client {
        let registry = Registry::open(store).await.unwrap();
        let security = Security {
            authenticator: Arc::new(Nobody),
            authorizer: Arc::new(Everything),
            audit: None,
            limit: MaxInFlight::default().into(),
        };
        let api = ApiServer::new(Config::default(), registry, security, Vec::new());
        Client::of(api.local_service(UserInfo::new("tester", ["system:masters"])))
    }

    pub fn client(&self) -> Client {
        Client::of(self.api.local_service(UserInfo::new("tester", ["system:masters"])))
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.code.is_success(), "{}: {}", self.code, self.text());
        self.json()
    }
    #[track_caller]
    pub fn refused(self, code: u16) -> Value {
        assert_eq!(self.code.as_u16(), code, "{}", self.text());
        self.json()
    }
}

#[derive(Clone)]
pub struct Client {
    service: LocalService,
}

impl Client {
    pub fn of(service: LocalService) -> Self {
        Client { service }
    }

    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<apiserver::http::Body> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.service.clone().call(request).await.unwrap()
    }

    pub async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let response = self.send(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { code: parts.status, headers: parts.headers, bytes }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.raw(Method::GET, path, &[], Bytes::new()).await
    }
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.raw(Method::POST, path, &[("content-type", "application/json")], body.to_string()).await
    }
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.raw(Method::PUT, path, &[("content-type", "application/json")], body.to_string()).await
    }
    pub async fn patch(&self, path: &str, kind: &str, body: &str) -> Answer {
        self.raw(Method::PATCH, path, &[("content-type", kind)], body.to_owned()).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.raw(Method::DELETE, path, &[], Bytes::new()).await
    }

    /// A watch, to be read event by event.
    pub async fn watch(&self, path: &str) -> Events {
        self.watch_as(path, "application/json").await
    }

    /// The same in a form that is asked for.
    pub async fn watch_as(&self, path: &str, accept: &str) -> Events {
        let response = self.send(Method::GET, path, &[("accept", accept)], Bytes::new()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Events { body: response.into_body(), buffer: Vec::new() }
    }
}

/// The events of a watch.
pub struct Events {
    body: apiserver::http::Body,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the stream has ended.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            match self.body.frame().await {
                Some(frame) => self.buffer.extend_from_slice(&frame.unwrap().into_data().unwrap()),
                None => return None,
            }
        }
    }

    /// Type, name and resourceVersion of the next event.
    pub async fn told(&mut self) -> (String, String, u64) {
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), self.next()).await;
        let event = waited.expect("an event comes in time").expect("the stream goes on");
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let metadata = &event["object"]["metadata"];
        (text(&event["type"]), text(&metadata["name"]), text(&metadata["resourceVersion"]).parse().unwrap_or(0))
    }
}
