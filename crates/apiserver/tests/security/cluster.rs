//! A server for tests: its store lies in a directory that goes with it.

use apiserver::allocator::range::{AddressRange, PortRange};
use apiserver::authn::union::Anonymous;
use apiserver::bootstrap;
use apiserver::encryption::{Encryption, Sealed};
use apiserver::registry::Registry;
use apiserver::security::{KubeletSettings, Mode, Secured, Settings, secure};
use apiserver::server::{ApiServer, Config, LocalService};
use apiserver::tokens::{SigningKey, TokenSettings};
use apiserver::user::UserInfo;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::testing::disk::{MemoryDisk, Platter};
use tower::Service;

pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub struct Cluster {
    pub server: Arc<ApiServer>,
    pub secured: Parts,
    directory: tempfile::TempDir,
}

/// What is left of [`Secured`] when the server has taken its own.
pub struct Parts {
    pub tokens: Arc<apiserver::tokens::Tokens>,
    pub written: usize,
}

/// What a test may set otherwise.
pub struct Options {
    pub client_ca: Vec<u8>,
    pub kubelets: Option<KubeletSettings>,
    pub service_range: &'static str,
    pub node_ports: &'static str,
    pub token_file: &'static str,
    pub plugins: &'static [&'static str],
    pub surface: apiserver::surface::Surface,
    pub admission: apiserver::admission::config::Config,
    pub audit: Option<apiserver::audit::Audit>,
    pub limit: apiserver::flowcontrol::Settings,
    /// The providers that encrypt everything; the configuration is read again when it changes.
    pub providers: &'static str,
    /// Where the store is, if not in a directory.
    pub disk: Option<Arc<Platter>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            client_ca: Vec::new(),
            kubelets: None,
            service_range: "10.96.0.0/16",
            node_ports: "30000-32767",
            token_file: "",
            plugins: &[],
            surface: apiserver::surface::Surface::default(),
            admission: apiserver::admission::config::Config::default(),
            audit: None,
            limit: apiserver::flowcontrol::Settings::default(),
            providers: "",
            disk: None,
        }
    }
}

const ENCRYPTION: &str = "encryption.yaml";

fn encrypt(file: &std::path::Path, providers: &str) {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: ['*.*']\n  providers: [{providers}]\n"
    );
    let new = file.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(new, file).expect("renamed");
}

pub async fn start() -> Cluster {
    start_with(Options::default()).await
}

pub async fn start_with(options: Options) -> Cluster {
    let directory = tempfile::tempdir().expect("a directory");
    let undo = store::embedded::Undo { horizon: Duration::from_secs(3600), bytes: 1 << 30, except: Vec::new() };
    let keeping = store::embedded::Options { undo: Some(undo), ..store::embedded::Options::default() };
    let store = match &options.disk {
        Some(disk) => {
            let clock = Arc::new(store::embedded::SystemClock::default());
            store::Embedded::open_on(Arc::new(MemoryDisk::new(disk)), clock, keeping)
        }
        None => store::Embedded::open(directory.path(), keeping),
    };
    let store = store.expect("a store");
    let registry = if options.providers.is_empty() {
        Registry::open_as(store, None, options.surface).await
    } else {
        let file = directory.path().join(ENCRYPTION);
        encrypt(&file, options.providers);
        let encryption = Encryption::open(file, true, "/registry").await.expect("an encryption");
        let sealed = Sealed::new(store, encryption);
        Registry::open_as(sealed.clone(), Some(sealed), options.surface).await
    };
    let registry = registry.expect("a registry");
    let range = AddressRange::parse(options.service_range).expect("a range");
    let key = rcgen::KeyPair::generate().expect("a key");
    let settings = Settings {
        client_ca: options.client_ca,
        front_proxy: None,
        token_file: Some(apiserver::authn::token_file::TokenFile::parse(options.token_file).expect("a token file")),
        bootstrap_tokens: true,
        tokens: TokenSettings {
            signing: Some(SigningKey::from_pem(key.serialize_pem().as_bytes()).expect("a signing key")),
            verifying: Vec::new(),
            issuers: vec![ISSUER.to_owned()],
            audiences: Vec::new(),
            jwks_uri: "https://192.0.2.1:6443/openid/v1/jwks".to_owned(),
            max_seconds: None,
            extend: true,
        },
        anonymous: Anonymous::health(),
        authorization: vec![Mode::Node, Mode::Rbac],
        enabled_plugins: options.plugins.iter().map(|p| (*p).to_owned()).collect(),
        disabled_plugins: Vec::new(),
        admission: options.admission,
        bootstrap: bootstrap::Settings {
            advertised: Some(bootstrap::Advertised {
                address: "192.0.2.1".parse().expect("an address"),
                port: 6443,
                cluster_ip: range.nth(1).expect("an address"),
                shared: false,
            }),
            service_ranges: vec![range.as_str().to_owned()],
            dns: range.nth(10),
            client_ca: String::new(),
            front_proxy: None,
            host: Some("host".into()),
        },
        service_ranges: vec![range],
        node_ports: PortRange::parse(options.node_ports).expect("a range"),
        kubelets: options.kubelets,
        audit: options.audit,
        limit: options.limit,
    };
    let Secured { security, documents, tokens, written, .. } = secure(&registry, settings).await.expect("secured");
    let server = ApiServer::new(Config::default(), registry, security, documents);
    Cluster { server, secured: Parts { tokens, written }, directory }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub code: u16,
    pub body: Value,
    /// The texts of the `Warning` headers.
    pub warnings: Vec<String>,
    pub headers: http::HeaderMap,
}

impl Answer {
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
    /// The object, when the code is as it should be.
    #[track_caller]
    pub fn expect(self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", self.body);
        self.body
    }
}

/// Somebody who asks.
#[derive(Clone)]
pub struct Client(LocalService);

impl Cluster {
    /// Everything is encrypted by others.
    pub fn encrypt(&self, providers: &str) {
        encrypt(&self.directory.path().join(ENCRYPTION), providers);
    }

    pub fn admin(&self) -> Client {
        self.user("admin", &["system:masters"])
    }

    pub fn user(&self, name: &str, groups: &[&str]) -> Client {
        self.as_user(UserInfo::new(name, groups.iter().copied()))
    }

    pub fn as_user(&self, user: UserInfo) -> Client {
        Client(self.server.local_service(user))
    }

    /// A service account in the namespace, made here because no controller runs.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Value {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        self.admin().post(&format!("/api/v1/namespaces/{namespace}/serviceaccounts"), object).await.expect(201)
    }
}

impl Client {
    pub async fn send(&self, method: &str, path: &str, content_type: &str, body: Option<Value>) -> Answer {
        self.send_with(method, path, &[("content-type", content_type)], body).await
    }

    pub async fn send_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let bytes = body.map(|b| Bytes::from(b.to_string())).unwrap_or_default();
        let mut request = http::Request::builder().method(method).uri(path).header(http::header::USER_AGENT, "test/1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(bytes)).expect("a request");
        let response = self.0.clone().call(request).await.expect("an answer");
        let code = response.status().as_u16();
        let headers = response.headers().clone();
        let warnings = response.headers().get_all(http::header::WARNING).iter();
        let text = |w: &http::HeaderValue| {
            let quoted = w.to_str().unwrap_or_default().strip_prefix("299 - ").unwrap_or_default();
            serde_json::from_str(quoted).unwrap_or_else(|_| quoted.to_owned())
        };
        let warnings = warnings.map(text).collect();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        Answer { code, body: serde_json::from_slice(&bytes).unwrap_or_else(|_| text()), warnings, headers }
    }

    /// An answer whose body is not read.
    pub async fn open(&self, path: &str) -> http::Response<apiserver::http::Body> {
        let request = http::Request::builder().uri(path).body(Full::<Bytes>::default()).expect("a request");
        self.0.clone().call(request).await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", None).await
    }
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, "application/json", Some(body)).await
    }
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send("PUT", path, "application/json", Some(body)).await
    }
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send("PATCH", path, "application/merge-patch+json", Some(body)).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "application/json", None).await
    }
}

/// Waits until something holds.
pub async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it never came to be");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Where the events of an [`apiserver::audit::Audit`] are found.
pub struct AuditLog {
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

/// What records by this policy, in YAML's flow style without its head, and where.
pub fn audited(policy: &str, mode: apiserver::audit::Mode) -> (apiserver::audit::Audit, AuditLog) {
    use apiserver::audit::{Audit, Policy, Rotation, Sink};
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("audit.log");
    let policy = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, {policy}}}");
    let policy = Policy::parse(policy.as_bytes()).expect("a policy");
    let sink = Sink::open(&path, Rotation::default(), mode).expect("a sink");
    (Audit::new(policy, sink), AuditLog { path, _directory: directory })
}

impl AuditLog {
    /// Its events, once there are so many that are asked for.
    pub async fn events(&self, wanted: usize, which: impl Fn(&Value) -> bool) -> Vec<Value> {
        eventually(async || {
            let found = self.now(&which);
            (found.len() == wanted).then_some(found)
        })
        .await
    }

    /// Those of its events that are there.
    pub fn now(&self, which: impl Fn(&Value) -> bool) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.path).expect("the log");
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| which(event)).collect()
    }
}

/// A pod with one container.
pub fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]}
    })
}
