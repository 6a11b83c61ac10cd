//! The control plane: store, API server, controllers, scheduler.

use super::node::Connect;
use super::{Settings, certificates, identity};
use crate::backend::{self, Backend, EncryptionArgs, FaceArgs, Opened, UndoArgs};
use crate::election::{self, Election};
use crate::pki::Pki;
use crate::supervisor::{Component, OnFailure};
use anyhow::{Context, Result};
use apiserver::allocator::range::{AddressRange, PortRange};
use apiserver::authn::union::Anonymous;
use apiserver::bootstrap::{self, Advertised, Presence};
use apiserver::flowcontrol;
use apiserver::registry::Registry;
use apiserver::security::{self, KubeletSettings, Mode};
use apiserver::server::{ApiServer, Config};
use apiserver::streams::kubelet::{KubeletTls, Kubelets};
use apiserver::surface::Surface;
use apiserver::tls::{Identity, ServerTls, TlsSettings};
use apiserver::tokens::SigningKey;
use apiserver::tokens::{TokenSettings, Tokens};
use apiserver::user::UserInfo;
use controllers::Clients;
use controllers::events::{Kind, Recorder, Source};
use futures::FutureExt;
use http::header::{HeaderValue, USER_AGENT};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::client::Body;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;

/// How long the store may take at the end to be told that this server is gone.
const WITHDRAWAL: Duration = Duration::from_secs(2);

/// What an API server is started with.
pub struct Plan {
    pub backend: Backend,
    /// Whether the store is also served as etcd.
    pub face: FaceArgs,
    pub encryption: EncryptionArgs,
    /// How much of the past the embedded store keeps.
    pub undo: UndoArgs,
    pub security: security::Settings,
    pub surface: Surface,
    pub config: Config,
    pub tls: TlsSettings,
    /// Certificate and key of `tls`, when they are files that are followed.
    pub files: Option<(PathBuf, PathBuf)>,
}

/// The running API server and its store.
pub struct ControlPlane {
    server: Arc<ApiServer>,
    kubelets: Option<Arc<Kubelets>>,
    presence: Option<Arc<Presence>>,
    tokens: Arc<Tokens>,
    /// PEM of the authorities that kubelets' certificates are of.
    kubelet_authorities: Vec<u8>,
    serving: Mutex<Option<JoinHandle<()>>>,
    ended: CancellationToken,
    /// Why the store made the server end, if it did.
    failed: Arc<OnceLock<String>>,
    store: Mutex<Option<Opened>>,
}

/// The API server of a cluster that makes its own certificates.
pub fn plan(settings: &Settings, pki: &Pki) -> Result<Plan> {
    let ca = pki.ca_pem()?;
    let range = settings.args.service_cidr.to_string();
    let issuer = format!("https://kubernetes.default.svc.{}", settings.args.cluster_domain);
    let advertised = Advertised {
        address: settings.node_ip,
        port: settings.api.port(),
        cluster_ip: settings.args.service_cidr.nth(1).into(),
        shared: settings.backend.is_shared(),
    };
    let security = security::Settings {
        client_ca: ca.clone().into_bytes(),
        front_proxy: None,
        token_file: None,
        bootstrap_tokens: true,
        tokens: TokenSettings {
            signing: Some(SigningKey::from_pem(pki.token_key_pem()?.as_bytes()).context("the token key is damaged")?),
            verifying: Vec::new(),
            issuers: vec![issuer],
            audiences: Vec::new(),
            jwks_uri: format!("https://{}:{}/openid/v1/jwks", settings.node_ip, settings.api.port()),
            max_seconds: None,
            extend: true,
        },
        anonymous: Anonymous::health(),
        authorization: vec![Mode::Node, Mode::Rbac],
        enabled_plugins: Vec::new(),
        disabled_plugins: Vec::new(),
        admission: apiserver::admission::config::Config::default(),
        service_ranges: vec![AddressRange::parse(&range).context("the service network")?],
        node_ports: PortRange::default(),
        kubelets: Some(KubeletSettings { tls: kubelet_client(pki)?, preferred: Vec::new(), resolve: None }),
        audit: None,
        limit: flowcontrol::Settings::default(),
        bootstrap: bootstrap::Settings {
            advertised: Some(advertised),
            service_ranges: vec![range],
            dns: Some(settings.dns_ip),
            client_ca: ca.clone(),
            front_proxy: None,
            host: super::address::machine_name(),
        },
    };
    let pair = pki.pair(certificates::API_SERVER)?;
    Ok(Plan {
        backend: settings.backend.clone(),
        face: settings.args.face.clone(),
        encryption: settings.args.encryption.clone(),
        undo: settings.args.undo.clone(),
        security,
        surface: Surface { whole: true, ..settings.args.surface.surface()? },
        config: Config {
            git_version: crate::KUBERNETES_VERSION.to_owned(),
            advertised: format!("{}:{}", settings.node_ip, settings.api.port()),
            flags: crate::cli::flags::all(),
            ..Config::default()
        },
        tls: TlsSettings {
            default: Identity { certificate: pair.certificate.into_bytes(), key: pair.key.into_bytes() },
            by_name: Vec::new(),
            client_authorities: ca.into_bytes(),
            tls13_only: false,
            suites: None,
        },
        files: Some((pki.certificate_path(certificates::API_SERVER), pki.key_path(certificates::API_SERVER))),
    })
}

impl ControlPlane {
    /// Opens the store, makes the first objects, and serves.
    pub async fn start(plan: Plan, listener: TcpListener, shutdown: CancellationToken) -> Result<Self> {
        let kubelets = plan.security.kubelets.as_ref();
        let kubelet_authorities = kubelets.map(|k| k.tls.authorities.clone()).unwrap_or_default();
        let opened = plan.backend.open(&plan.undo).await?;
        plan.face.serve(&opened, shutdown.clone()).await?;
        let sealed = plan.encryption.seal(opened.store.clone(), plan.backend.prefix()).await?;
        let store = match &sealed {
            Some(sealed) => sealed.clone(),
            None => opened.store.clone(),
        };
        let registry = Registry::open_as(store, sealed, plan.surface).await.map_err(|error| {
            opened.close();
            backend::unreadable(error)
        })?;
        let secured = security::secure(&registry, plan.security).await.context("the first objects can't be made")?;
        let server = ApiServer::new(plan.config, registry, secured.security, secured.documents);
        let serving = ServerTls::new(&plan.tls).context("the API server's certificate")?;
        if let Some((certificate, key)) = plan.files {
            tokio::spawn(serving.clone().follow(plan.tls, certificate, key));
        }
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let ended = CancellationToken::new();
        let (told, handle, held) = (ended.clone(), server.clone(), opened.clone());
        let failed = Arc::new(OnceLock::new());
        let reason = failed.clone();
        let serving = tokio::spawn(async move {
            let _told = told.drop_guard();
            tokio::select! {
                () = handle.serve(listener, serving, shutdown) => {}
                // All that was acknowledged is on disk, and a process that begins anew has a whole store again: better than one
                // that refuses everything until somebody looks at its health.
                why = held.failed() => drop(reason.set(why)),
            }
        });
        Ok(ControlPlane {
            server,
            kubelets: secured.kubelets,
            presence: secured.presence,
            tokens: secured.tokens,
            kubelet_authorities,
            serving: Mutex::new(Some(serving)),
            ended,
            failed,
            store: Mutex::new(Some(opened)),
        })
    }

    /// A client within the process, as someone, with the name by which its writes are noted. To be made on the runtime
    /// that uses it.
    pub fn client(&self, user: UserInfo, agent: &'static str) -> Client {
        let agent = HeaderValue::from_static(agent);
        let named = move |mut request: http::Request<Body>| {
            request.headers_mut().insert(USER_AGENT, agent.clone());
            request
        };
        Client::new(MapRequest::new(self.server.local_service(user), named), "default")
    }

    /// Makes such clients.
    pub fn connect(self: &Arc<Self>, user: UserInfo, agent: &'static str) -> Connect {
        let plane = self.clone();
        Arc::new(move || {
            let client = plane.client(user.clone(), agent);
            async move { Ok(client) }.boxed()
        })
    }

    /// Waits until the server has ended by itself; tells why.
    pub async fn ended(&self) -> anyhow::Error {
        self.ended.cancelled().await;
        match self.failed.get() {
            Some(why) => anyhow::anyhow!("the store has failed, and is whole again after a new start: {why}"),
            None => anyhow::anyhow!("the API server ended by itself"),
        }
    }

    /// Takes the server from the Service `kubernetes`, waits for open requests, then closes the audit log and the store.
    pub async fn stop(&self) {
        if let Some(presence) = &self.presence {
            // Without the store, the lease ends by itself.
            let withdrawn = presence.withdraw(&**self.server.registry().store());
            if tokio::time::timeout(WITHDRAWAL, withdrawn).await.is_err() {
                tracing::warn!("the store does not answer: other servers still count this one for a while");
            }
        }
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(serving) = serving
            && let Err(e) = serving.await
        {
            tracing::error!("the API server ended badly: {e}");
        }
        self.server.close_audit().await;
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(store) = store {
            store.close();
        }
    }

    /// Shows kubelets the renewed certificate.
    pub fn replace_kubelet_client(&self, pki: &Pki) -> Result<()> {
        let Some(kubelets) = &self.kubelets else { return Ok(()) };
        let tls = KubeletTls { authorities: self.kubelet_authorities.clone(), ..kubelet_client(pki)? };
        kubelets.replace(&tls).context("the renewed client certificate for kubelets")
    }

    /// Who tells in events about this node that a component failed and is started again. To be made on a runtime that stays.
    pub fn failures(&self, node: &str) -> OnFailure {
        let client = self.client(UserInfo::apiserver(), "pilothouse");
        let recorder = Recorder::of(client, Source { component: "pilothouse".to_owned(), host: node.to_owned() });
        let mut about = Node::default();
        about.metadata.name = Some(node.to_owned());
        // Events of nodes are found by this.
        about.metadata.uid = Some(node.to_owned());
        Arc::new(move |component, why| {
            let message = format!("The {component} failed and is started again: {why}");
            recorder.event(&about, Kind::Warning, "ComponentRestarted", message);
        })
    }
}

fn kubelet_client(pki: &Pki) -> Result<KubeletTls> {
    let pair = pki.pair(certificates::KUBELET_CLIENT)?;
    Ok(KubeletTls {
        identity: Identity { certificate: pair.certificate.into_bytes(), key: pair.key.into_bytes() },
        authorities: pki.ca_pem()?.into_bytes(),
    })
}

struct Identities(Arc<ControlPlane>);

impl Clients for Identities {
    fn manager(&self) -> Client {
        self.0.client(identity::manager(), "kube-controller-manager")
    }
    fn service_account(&self, name: &str) -> Client {
        self.0.client(identity::service_account(name), "kube-controller-manager")
    }
}

/// Makes the tokens that Secrets hold, with the API server's own key.
struct SecretTokens(Arc<Tokens>);

impl std::fmt::Debug for SecretTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretTokens")
    }
}

impl controllers::service_account_token::TokenIssuer for SecretTokens {
    fn issue(&self, namespace: &str, account: &str, uid: &str, secret: &str) -> Result<String, String> {
        self.0.issue_legacy(namespace, account, uid, secret).map_err(|e| e.to_string())
    }
}

/// The controllers, as a component.
pub fn controllers(settings: &Settings, plane: &Arc<ControlPlane>, pki: &Pki) -> Result<Component> {
    let config = controllers::Config {
        controllers: vec!["*".to_owned()],
        root_ca: pki.ca_pem()?,
        cluster_cidr: Some((settings.args.pod_cidr.address, settings.args.pod_cidr.prefix, 24)),
        node_monitor_grace: Duration::from_secs(50),
        legacy_token_clean_up: Duration::from_hours(365 * 24),
        authority: Some(Arc::new(pki.clone())),
        signing_duration: Duration::from_hours(365 * 24),
        tokens: Some(Arc::new(SecretTokens(plane.tokens.clone()))),
        gates: settings.args.surface.gates(),
        queues: controllers::queue::Queues::default(),
    };
    // They have no port of their own here.
    plane.server.registry().measures().tell_of(Arc::new(config.queues.clone()));
    let election = Election::new("kube-system", "kube-controller-manager", &settings.instance, election::MANAGER);
    let plane = plane.clone();
    Ok(Arc::new(move |shutdown| {
        let (config, clients) = (config.clone(), Arc::new(Identities(plane.clone())));
        let (election, manager) = (election.clone(), clients.manager());
        election::lead(manager, election, shutdown, async |leading| {
            Ok(controllers::run(config, clients, leading).await?)
        })
        .boxed()
    }))
}

/// The scheduler, as a component.
pub fn scheduler(settings: &Settings, plane: &Arc<ControlPlane>) -> Component {
    let config = scheduler::Config { identity: settings.node_name.clone() };
    let election = Election::new("kube-system", "kube-scheduler", &settings.instance, election::SCHEDULER);
    let plane = plane.clone();
    Arc::new(move |shutdown| {
        let (config, election) = (config.clone(), election.clone());
        let client = plane.client(identity::scheduler(), "kube-scheduler");
        election::lead(client.clone(), election, shutdown, async |leading| {
            Ok(scheduler::run(config, client, leading).await?)
        })
        .boxed()
    })
}
