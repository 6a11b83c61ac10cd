//! The server: a request's way from the wire, or from within the process, to its answer.
//!
//! | file | what |
//! |---|---|
//! | `chain` | the filters: request info, authentication, impersonation, limits, authorization, then the answer |
//! | `paths` | what is no resource: discovery, documents, version |
//! | `health`, `metrics`, `profile`, `zpages`, `debug_flags` | how it is, and what of it can be changed |
//! | `serve`, `corked`, `unread` | connections, how what they write is held together, what nobody read of a request |
//! | `local` | the service for clients within the process |

mod chain;
mod corked;
mod debug_flags;
mod health;
mod local;
pub mod metrics;
mod paths;
mod profile;
mod serve;
mod unread;
mod zpages;

pub use debug_flags::SetVerbosity;
pub use health::{Check, Health, Of};
pub use local::LocalService;

use crate::audit::Audit;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::flowcontrol::Limit;
use crate::registry::Registry;
use crate::user::UserInfo;
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What the server says of itself, and how it is tuned.
#[derive(Clone, Debug)]
pub struct Config {
    /// `v1.36.0+pilothouse.0.1.0`.
    pub git_version: String,
    pub git_commit: String,
    /// RFC 3339.
    pub build_date: String,
    /// `host:port`, told to clients of `/api`.
    pub advertised: String,
    /// A watch lasts between this and twice this, unless its client says how long.
    pub min_watch: Duration,
    /// How long any other request may take.
    pub request_timeout: Duration,
    /// Whether `/debug/pprof/` and `/debug/flags/` are served.
    pub profiling: bool,
    /// Changes how much is logged, for `/debug/flags/v`; `None`: that is not served.
    pub set_verbosity: Option<SetVerbosity>,
    /// The server's flags and what holds of each, by name, for `/flagz`.
    pub flags: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            git_version: concat!("v1.36.0+pilothouse.", env!("CARGO_PKG_VERSION")).to_owned(),
            git_commit: String::new(),
            build_date: "1970-01-01T00:00:00Z".to_owned(),
            advertised: String::new(),
            min_watch: Duration::from_secs(1800),
            request_timeout: Duration::from_secs(60),
            profiling: true,
            set_verbosity: None,
            flags: BTreeMap::new(),
        }
    }
}

/// What decides who may do what, how much at once, and what is told of it.
pub struct Security {
    pub authenticator: Arc<dyn Authenticator>,
    pub authorizer: Arc<dyn Authorizer>,
    pub audit: Option<Audit>,
    pub limit: Limit,
}

/// A document at a path that is no resource's: `/openid/v1/jwks`.
#[derive(Clone)]
pub struct Document {
    pub path: &'static str,
    pub content_type: &'static str,
    pub make: Arc<dyn Fn() -> Bytes + Send + Sync>,
}

/// How long the audit log may take at the end.
const AUDIT_FAREWELL: Duration = Duration::from_secs(5);

/// The API server.
pub struct ApiServer {
    config: Config,
    registry: Arc<Registry>,
    security: Security,
    documents: Vec<Document>,
    pub health: Health,
    pub metrics: metrics::Metrics,
    shown: paths::Shown,
    websockets: crate::http::websocket::Open,
    /// Since when it is there.
    started: Timestamp,
    /// Whether answers are compressed for who asks for it.
    compresses: bool,
    /// Whether acting as somebody else may be allowed for some requests alone.
    constrains: bool,
}

impl ApiServer {
    /// A server over a registry, whose hooks are [installed](Registry::install).
    pub fn new(config: Config, registry: Arc<Registry>, security: Security, documents: Vec<Document>) -> Arc<Self> {
        Arc::new(ApiServer {
            health: Health::new(&registry),
            metrics: metrics::Metrics::default(),
            started: Timestamp::now(),
            shown: paths::Shown::default(),
            websockets: crate::http::websocket::Open::default(),
            compresses: registry.gates().enabled("APIResponseCompression"),
            constrains: registry.gates().enabled("ConstrainedImpersonation"),
            config,
            registry,
            security,
            documents,
        })
    }

    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Waits until the audit log has all that was recorded, but not longer than [`AUDIT_FAREWELL`]. To be called when the server
    /// has ended, and those within the process who ask it have: what is asked later is not recorded.
    pub async fn close_audit(&self) {
        if let Some(audit) = &self.security.audit {
            audit.close(AUDIT_FAREWELL).await;
        }
    }

    /// A service that answers as the server does, for a client within the process. Its identity is `user`, whatever the
    /// request says; authorization, admission and audit are those of everybody.
    pub fn local_service(self: &Arc<Self>, user: UserInfo) -> LocalService {
        LocalService::new(self.clone(), user)
    }
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiServer({:?})", self.registry)
    }
}
