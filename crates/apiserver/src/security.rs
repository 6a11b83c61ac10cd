//! The parts of security put together: from settings to what a server and its registry are given.

use crate::admission::certificates::PodCertificateSigning;
use crate::admission::config::Config;
use crate::admission::devices::{AdminAccess, ClaimStatus};
use crate::admission::namespace::NamespaceMaker;
use crate::admission::plugins::{self, Needs, PluginError};
use crate::admission::quota::QuotaWriter;
use crate::allocator::ServiceAllocator;
use crate::allocator::range::{AddressRange, PortRange};
use crate::allocator::repair;
use crate::audit::Audit;
use crate::authn::bootstrap_token::BootstrapTokens;
use crate::authn::request_header::RequestHeader;
use crate::authn::token_file::TokenFile;
use crate::authn::tokens::{Bearer, Remembering, TokenAuthenticator, TokenUnion};
use crate::authn::union::{self, Anonymous};
use crate::authn::x509::ClientCertificates;
use crate::authn::{Authenticator, AuthnError, Peer};
use crate::authz::node::Node;
use crate::authz::rbac::escalation::Escalation;
use crate::authz::rbac::rule::PolicyRule;
use crate::authz::rbac::{self, Rbac};
use crate::authz::reviews::{AccessReview, SelfSubjectReview, SelfSubjectRulesReview, TokenReview, Whose};
use crate::authz::{Authorizer, Counted, Decisions, Union};
use crate::bootstrap::{self, BootstrapError, FrontProxy, Presence};
use crate::cache::{Cacher, Chain, Change, ChangeKind, Observer};
use crate::component_status::ComponentStatuses;
use crate::context::Context;
use crate::flowcontrol::{self, Limit};
use crate::lookup::{FromCaches, Lookup};
use crate::options::Options;
use crate::registry::{Hooks, Place, Registry, mutation};
use crate::server::{Document, Security};
use crate::streams::kubelet::{KubeletTls, Kubelets, Resolve};
use crate::streams::pods::{Kind as Stream, PodStream, PodStreams};
use crate::streams::proxy::{Kind as Proxied, Proxy};
use crate::subresources::{Binding, Eviction};
use crate::tls::TlsError;
use crate::tokens::{LegacyUse, TokenRequest, TokenSettings, Tokens};
use crate::user::UserInfo;
use api::{GroupResource, Status};
use async_trait::async_trait;
use schema::Map;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::sync::watch;

/// Who may do what, where addresses come from, and how kubelets are reached.
pub struct Settings {
    /// PEM of the authorities of client certificates.
    pub client_ca: Vec<u8>,
    pub front_proxy: Option<FrontProxy>,
    pub token_file: Option<TokenFile>,
    /// `--enable-bootstrap-token-auth`
    pub bootstrap_tokens: bool,
    pub tokens: TokenSettings,
    pub anonymous: Anonymous,
    pub authorization: Vec<Mode>,
    pub enabled_plugins: Vec<String>,
    pub disabled_plugins: Vec<String>,
    /// What the plugins are told.
    pub admission: Config,
    /// The default family's first.
    pub service_ranges: Vec<AddressRange>,
    pub node_ports: PortRange,
    /// How kubelets are talked to; `None`: streams and proxies are not served.
    pub kubelets: Option<KubeletSettings>,
    pub audit: Option<Audit>,
    pub limit: flowcontrol::Settings,
    pub bootstrap: bootstrap::Settings,
}

/// How kubelets are reached.
pub struct KubeletSettings {
    pub tls: KubeletTls,
    /// `--kubelet-preferred-address-types`; empty: addresses before names.
    pub preferred: Vec<String>,
    pub resolve: Option<Resolve>,
}

/// `--authorization-mode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Node,
    Rbac,
    AlwaysAllow,
    AlwaysDeny,
}

impl Mode {
    /// The mode of upstream's name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Node" => Some(Mode::Node),
            "RBAC" => Some(Mode::Rbac),
            "AlwaysAllow" => Some(Mode::AlwaysAllow),
            "AlwaysDeny" => Some(Mode::AlwaysDeny),
            _ => None,
        }
    }
}

#[derive(Debug, Error)]
pub enum SecurityError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Plugins(#[from] PluginError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
}

/// What a server is made with, and the handles to change it while it runs.
pub struct Secured {
    pub security: Security,
    pub documents: Vec<Document>,
    pub tokens: Arc<Tokens>,
    /// Takes other client authorities: [`ClientCertificates::replace`].
    pub clients: Arc<ClientCertificates>,
    /// Takes another client certificate: [`Kubelets::replace`].
    pub kubelets: Option<Arc<Kubelets>>,
    /// This server among those that the Service `kubernetes` leads to: [`Presence::withdraw`] at its end.
    pub presence: Option<Arc<Presence>>,
    /// How many of the first objects had to be written.
    pub written: usize,
}

/// Makes the first objects, installs admission, allocation and the hatches in the registry, and gives what the server needs.
///
/// Authorization follows the stored roles, bindings and pods from here on, in step with every write.
///
/// # Errors
/// A certificate or plugin name that cannot be used, or a store that does not take the first objects.
pub async fn secure(registry: &Arc<Registry>, settings: Settings) -> Result<Secured, SecurityError> {
    let objects: Arc<dyn Lookup> = Arc::new(FromCaches::new(registry.caches().clone()));
    let presence = match settings.bootstrap.advertised.clone() {
        Some(advertised) => Some(Presence::begin(advertised, registry.store()).await.map_err(BootstrapError::from)?),
        None => None,
    };
    let first = first_hooks(&settings.bootstrap);
    let host = settings.bootstrap.host.clone();
    let servers = presence.as_ref().map(|presence| presence.servers());
    let known = servers.as_ref().map_or_else(Vec::new, |servers| servers.borrow().clone());
    for hook in &first {
        registry.started().begun(hook);
        if *hook == BEFORE_REPAIR && !settings.service_ranges.is_empty() {
            registry.started().begun(repair::HOOK);
        }
    }
    let ensured =
        bootstrap::ensure(&**registry.store(), registry.caches(), &settings.bootstrap, registry.gates(), &known).await;
    let written = match ensured {
        Ok(written) => {
            first.iter().for_each(|hook| registry.started().done(hook));
            Some(written)
        }
        // The server is there meanwhile, and its health tells what it waits for.
        Err(error) if error.may_pass() => {
            tracing::warn!(error = %Chain(&error), "the first objects can't be made yet: it is tried again");
            None
        }
        Err(error) => return Err(error.into()),
    };
    keep_first_objects(registry, settings.bootstrap.clone(), servers, written.map_or(first, |_| Vec::new()));
    let written = written.unwrap_or(0);
    let (rbac, authorizer) = authorizer(registry, &objects, &settings.authorization);
    let tokens = Tokens::new(settings.tokens, objects.clone());
    tokens.note_legacy_uses(Arc::new(SecretLabels(Arc::downgrade(registry))));
    registry.measures().tell_of(tokens.uses());
    let bearer: Arc<dyn TokenAuthenticator> = {
        let mut kinds: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
        if let Some(file) = settings.token_file {
            kinds.push(Arc::new(file));
        }
        kinds.push(tokens.clone());
        if settings.bootstrap_tokens {
            kinds.push(Arc::new(BootstrapTokens { objects: objects.clone() }));
        }
        Arc::new(Remembering::new(TokenUnion(kinds)))
    };
    let clients = Arc::new(ClientCertificates::new(&settings.client_ca)?);
    registry.measures().tell_of(clients.clone());
    let mut ways: Vec<Arc<dyn Authenticator>> = Vec::new();
    if let Some(proxy) = &settings.front_proxy {
        ways.push(Arc::new(request_header(proxy)?));
    }
    ways.push(Arc::new(Shared(clients.clone())));
    ways.push(Arc::new(Bearer { tokens: bearer.clone(), audiences: tokens.audiences().to_vec() }));
    let authenticator = Arc::new(union::Union { ways, anonymous: settings.anonymous });

    let quotas: Arc<dyn QuotaWriter> = Arc::new(StatusWriter(Arc::downgrade(registry)));
    let needs = Needs {
        objects: objects.clone(),
        authorizer: authorizer.clone(),
        quotas,
        namespaces: Arc::new(Namespaces(Arc::downgrade(registry))),
        config: settings.admission,
        gates: registry.gates().clone(),
    };
    let mut admission = plugins::chain(&needs, &settings.enabled_plugins, &settings.disabled_plugins)?;
    admission.0.iter().filter_map(|plugin| plugin.tells()).for_each(|told| registry.measures().tell_of(told));
    if registry.gates().enabled("DRAResourceClaimGranularStatusAuthorization") {
        admission.0.insert(0, Arc::new(ClaimStatus { authorizer: authorizer.clone() }));
    }
    admission.0.insert(0, Arc::new(AdminAccess { objects: objects.clone() }));
    admission.0.insert(0, Arc::new(PodCertificateSigning { authorizer: authorizer.clone() }));
    admission.0.push(Arc::new(Escalation { rbac, authorizer: authorizer.clone() }));
    let kubelets = match settings.kubelets {
        Some(kubelets) => {
            let preferred = if kubelets.preferred.is_empty() {
                ["InternalIP", "ExternalIP", "Hostname", "InternalDNS", "ExternalDNS"].map(str::to_owned).into()
            } else {
                kubelets.preferred
            };
            Some(Arc::new(Kubelets::new(objects.clone(), &kubelets.tls, preferred, kubelets.resolve)?))
        }
        None => None,
    };
    let mut hooks = Hooks { admission, authorizer: Some(authorizer.clone()), ..Hooks::default() };
    let (repairs, ranges) = (!settings.service_ranges.is_empty(), settings.service_ranges);
    let allocator =
        Arc::new(ServiceAllocator::new(registry.store().clone(), objects.clone(), ranges, settings.node_ports));
    registry.measures().tell_of(allocator.clone());
    hooks.allocators.push(("", "services", allocator.clone()));
    reviews(&mut hooks, &authorizer, bearer, tokens.audiences());
    let weak = || Arc::downgrade(registry);
    let checks_uid = registry.gates().enabled("TokenRequestServiceAccountUIDValidation");
    let token = TokenRequest { tokens: tokens.clone(), checks_uid };
    hooks.subresources.push(("", "serviceaccounts", "token", Arc::new(token)));
    hooks.subresources.push(("", "pods", "binding", Arc::new(Binding { registry: weak() })));
    hooks.subresources.push((
        "",
        "pods",
        "eviction",
        Arc::new(Eviction { registry: weak(), objects: objects.clone() }),
    ));
    hooks.virtuals.push(("", "bindings", Arc::new(Binding { registry: weak() })));
    let components = ComponentStatuses { objects: objects.clone(), store: registry.store().clone() };
    hooks.virtuals.push(("", "componentstatuses", Arc::new(components)));
    if let Some(kubelets) = &kubelets {
        streams(&mut hooks, registry, &objects, kubelets, &authorizer);
    }
    registry.install(hooks);
    registry.started().done(ADMISSION_HOOK);
    if repairs {
        repair::begin(registry, &allocator, host.as_deref().unwrap_or_default());
        registry.started().done(repair::HOOK);
    }
    if let Some(host) = host.filter(|_| registry.gates().enabled("APIServerIdentity")) {
        bootstrap::identity::keep(registry, host);
        IDENTITY_HOOKS.into_iter().for_each(|hook| registry.started().done(hook));
    }
    let documents = documents(&tokens);
    let limit = Limit::new(settings.limit, registry);
    let security = Security { authenticator, authorizer, audit: settings.audit, limit };
    Ok(Secured { security, documents, tokens, clients, kubelets, presence, written })
}

const IDENTITY_HOOKS: [&str; 2] = [
    "poststarthook/start-kube-apiserver-identity-lease-controller",
    "poststarthook/start-kube-apiserver-identity-lease-garbage-collector",
];
const ADMISSION_HOOK: &str = "poststarthook/start-apiserver-admission-initializer";

/// The hook that upstream lists before that of the repairs.
const BEFORE_REPAIR: &str = "poststarthook/start-legacy-token-tracking-controller";

/// What is done when the first objects are there.
fn first_hooks(settings: &bootstrap::Settings) -> Vec<&'static str> {
    let mut hooks = vec![
        "poststarthook/start-system-namespaces-controller",
        "poststarthook/start-cluster-authentication-info-controller",
        BEFORE_REPAIR,
        "poststarthook/rbac/bootstrap-roles",
        "poststarthook/scheduling/bootstrap-system-priority-classes",
        "poststarthook/priority-and-fairness-config-producer",
    ];
    if settings.advertised.is_some() {
        hooks.push("poststarthook/bootstrap-controller");
    }
    if !settings.service_ranges.is_empty() {
        hooks.push("poststarthook/start-kubernetes-service-cidr-controller");
    }
    hooks
}

/// Between two times that the first objects are mended.
const MEND_AGAIN: Duration = Duration::from_secs(1);
/// When what is wrong with them is told again, if it could not be.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Mends the first objects when somebody takes from them what the cluster lives by, and when servers come and go. `left`: hooks
/// that are done when all of them have been made for the first time.
fn keep_first_objects(
    registry: &Arc<Registry>,
    settings: bootstrap::Settings,
    mut servers: Option<watch::Receiver<Vec<SocketAddr>>>,
    mut left: Vec<&'static str>,
) {
    let notify = Arc::new(tokio::sync::Notify::new());
    if !left.is_empty() {
        notify.notify_one();
    }
    for (group, plural) in [
        ("", "services"),
        ("", "endpoints"),
        ("discovery.k8s.io", "endpointslices"),
        ("", "configmaps"),
        (flowcontrol::GROUP, "flowschemas"),
        (flowcontrol::GROUP, "prioritylevelconfigurations"),
        ("networking.k8s.io", "servicecidrs"),
    ] {
        registry.observe(group, plural, Arc::new(FirstObjects { group, notify: notify.clone() }));
    }
    let registry = Arc::downgrade(registry);
    tokio::spawn(async move {
        let mut problems = bootstrap::RangeProblems::new();
        // What is about to be mended is no problem.
        let mut mended = left.is_empty();
        loop {
            let mut told = true;
            if mended && let Some(registry) = registry.upgrade() {
                told = problems.look(&registry, &settings.service_ranges).await;
            }
            let untold = async {
                if told {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(TELL_AGAIN).await;
            };
            let others = async {
                let changed = match &mut servers {
                    Some(servers) => servers.changed().await.is_ok(),
                    None => false,
                };
                if !changed {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = notify.notified() => {}
                () = others => {}
                () = untold => continue,
            }
            let Some(registry) = registry.upgrade() else { return };
            let known = servers.as_mut().map_or_else(Vec::new, |servers| servers.borrow_and_update().clone());
            let (store, caches, gates) = (registry.store(), registry.caches(), registry.gates());
            let ensured = bootstrap::ensure(&**store, caches, &settings, gates, &known).await;
            mended = ensured.is_ok();
            match ensured {
                Ok(_) => left.drain(..).for_each(|hook| registry.started().done(hook)),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "the first objects could not be mended: it is tried again");
                    problems.not_mended(&registry, &settings.service_ranges, &error).await;
                    notify.notify_one();
                }
            }
            drop(registry);
            // Who disagrees with another writer must not write against it as fast as it can.
            tokio::time::sleep(MEND_AGAIN).await;
        }
    });
}

/// Tells when one of the first objects was changed or removed.
struct FirstObjects {
    group: &'static str,
    notify: Arc<tokio::sync::Notify>,
}

impl Observer for FirstObjects {
    fn changed(&self, cacher: &Cacher, change: &Change) {
        let first = matches!(
            change.entry.key(),
            // The last is the ServiceCIDR.
            "default/kubernetes"
                | "kube-system/kube-dns"
                | "kube-system/extension-apiserver-authentication"
                | "kubernetes"
        );
        let flow_control = || {
            let after = (change.kind != ChangeKind::Deleted).then(|| cacher.decode(&change.entry).ok()).flatten();
            let before = change.previous.as_ref().and_then(|entry| cacher.decode(entry).ok());
            bootstrap::flow_control_differs(before.as_ref(), after.as_ref())
        };
        if change.kind != ChangeKind::Added && (first || self.group == flowcontrol::GROUP && flow_control()) {
            self.notify.notify_one();
        }
    }
}

fn request_header(proxy: &FrontProxy) -> Result<RequestHeader, TlsError> {
    Ok(RequestHeader {
        authorities: ClientCertificates::new(proxy.authorities.as_bytes())?,
        allowed_names: proxy.allowed_names.clone(),
        user_headers: proxy.user_headers.clone(),
        uid_headers: proxy.uid_headers.clone(),
        group_headers: proxy.group_headers.clone(),
        extra_prefixes: proxy.extra_prefixes.clone(),
    })
}

/// An authenticator that others hold, too.
struct Shared<A>(Arc<A>);

#[async_trait]
impl<A: Authenticator> Authenticator for Shared<A> {
    async fn authenticate(
        &self,
        request: &http::request::Parts,
        peer: Option<&Peer>,
    ) -> Result<Option<UserInfo>, AuthnError> {
        self.0.authenticate(request, peer).await
    }
}

/// The authorizers of the modes, following the registry. RBAC's index is kept in any case: reviews and escalation ask it.
fn authorizer(registry: &Registry, objects: &Arc<dyn Lookup>, modes: &[Mode]) -> (Arc<Rbac>, Arc<dyn Authorizer>) {
    let rbac = Arc::new(Rbac::default());
    for plural in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
        registry.observe(rbac::GROUP, plural, Arc::new(Follows { plural, into: rbac.clone() }));
    }
    let mut all: Vec<Arc<Counted>> = Vec::new();
    let mut add = |kind, inner| all.push(Arc::new(Counted::new(kind, inner)));
    for mode in modes {
        match mode {
            Mode::Rbac => add("RBAC", rbac.clone()),
            Mode::AlwaysAllow => add("AlwaysAllow", Arc::new(Always(true))),
            Mode::AlwaysDeny => add("AlwaysDeny", Arc::new(Always(false))),
            Mode::Node => {
                let roles = bootstrap::rbac::defaults(registry.gates());
                let role = roles.iter().find(|d| d.resource == "clusterroles" && d.name == "system:node");
                let rules = role.map(|r| PolicyRule::list_of(&r.object)).unwrap_or_default();
                let node = Arc::new(Node::new(rules, objects.clone(), registry.gates()));
                for (group, plural) in [
                    ("", "pods"),
                    ("", "persistentvolumes"),
                    ("storage.k8s.io", "volumeattachments"),
                    ("resource.k8s.io", "resourceslices"),
                    ("certificates.k8s.io", "podcertificaterequests"),
                ] {
                    registry.observe(group, plural, Arc::new(Follows { plural, into: node.clone() }));
                }
                add("Node", node);
            }
        }
    }
    registry.measures().tell_of(Arc::new(Decisions(all.clone())));
    (rbac, Arc::new(Union(all.into_iter().map(|counted| counted as Arc<dyn Authorizer>).collect())))
}

/// Decides the same of everything.
struct Always(bool);

#[async_trait]
impl Authorizer for Always {
    async fn authorize(&self, _: &crate::authz::Attributes<'_>) -> crate::authz::Decision {
        if self.0 {
            crate::authz::Decision::Allow(String::new())
        } else {
            crate::authz::Decision::NoOpinion("Everything is forbidden.".into())
        }
    }
    async fn rules_for(&self, _: &UserInfo, _: &str) -> crate::authz::Rules {
        let all = || vec!["*".to_owned()];
        if !self.0 {
            return crate::authz::Rules::default();
        }
        crate::authz::Rules {
            resources: vec![crate::authz::ResourceRule {
                verbs: all(),
                groups: all(),
                resources: all(),
                names: Vec::new(),
            }],
            paths: vec![crate::authz::PathRule { verbs: all(), paths: all() }],
            ..crate::authz::Rules::default()
        }
    }
}

/// Something that keeps a projection of stored objects.
trait Projection: Send + Sync + 'static {
    fn apply(&self, plural: &str, namespace: &str, name: &str, object: Option<&Map>);

    /// Takes in what an object has become without having it decoded, if it can.
    fn noted(&self, _plural: &str, _cacher: &Cacher, _change: &Change) -> bool {
        false
    }
}

impl Projection for Rbac {
    fn apply(&self, plural: &str, namespace: &str, name: &str, object: Option<&Map>) {
        Rbac::apply(self, plural, namespace, name, object);
    }
}

impl Projection for Node {
    fn apply(&self, plural: &str, namespace: &str, name: &str, object: Option<&Map>) {
        Node::apply(self, plural, namespace, name, object);
    }

    /// Most changes of a pod are of its status. What it refers to is settled when it gets its node, but for ephemeral
    /// containers and claims, which show in its text.
    fn noted(&self, plural: &str, cacher: &Cacher, change: &Change) -> bool {
        let (entry, paths) = (&change.entry, cacher.paths());
        let Some(field) = paths.position("spec.nodeName").filter(|_| plural == "pods") else { return false };
        let node = entry.field(paths, field);
        let grows = [&b"\"ephemeralContainers\""[..], b"ResourceClaim", b"resourceClaimStatuses"];
        let settled = change.previous.as_ref().is_some_and(|previous| {
            previous.field(paths, field) == node
                && previous.uid() == entry.uid()
                && (node.is_empty() || !grows.iter().any(|word| memchr::memmem::find(entry.item(), word).is_some()))
        });
        if !settled && (!node.is_empty() || change.previous.is_some()) {
            self.note_pod(entry.namespace(), entry.name(), node, entry.uid());
        }
        true
    }
}

/// Brings the changes of one resource into a projection.
struct Follows<P> {
    plural: &'static str,
    into: Arc<P>,
}

impl<P: Projection> Observer for Follows<P> {
    fn changed(&self, cacher: &Cacher, change: &Change) {
        let (namespace, name) = (change.entry.namespace(), change.entry.name());
        if change.kind == ChangeKind::Deleted {
            return self.into.apply(self.plural, namespace, name, None);
        }
        if self.into.noted(self.plural, cacher, change) {
            return;
        }
        match cacher.decode(&change.entry) {
            Ok(object) => self.into.apply(self.plural, namespace, name, Some(&object)),
            Err(error) => {
                // What cannot be read gives nothing.
                tracing::error!(key = change.entry.key(), %error, "a stored object cannot be read");
                self.into.apply(self.plural, namespace, name, None);
            }
        }
    }
}

fn reviews(
    hooks: &mut Hooks,
    authorizer: &Arc<dyn Authorizer>,
    tokens: Arc<dyn TokenAuthenticator>,
    audiences: &[String],
) {
    let group = "authorization.k8s.io";
    for (plural, whose) in [
        ("subjectaccessreviews", Whose::Anyones),
        ("selfsubjectaccessreviews", Whose::Own),
        ("localsubjectaccessreviews", Whose::InNamespace),
    ] {
        hooks.virtuals.push((group, plural, Arc::new(AccessReview { whose, authorizer: authorizer.clone() })));
    }
    let rules = SelfSubjectRulesReview { authorizer: authorizer.clone() };
    hooks.virtuals.push((group, "selfsubjectrulesreviews", Arc::new(rules)));
    let group = "authentication.k8s.io";
    hooks.virtuals.push((group, "tokenreviews", Arc::new(TokenReview { tokens, audiences: audiences.to_vec() })));
    hooks.virtuals.push((group, "selfsubjectreviews", Arc::new(SelfSubjectReview)));
}

fn streams(
    hooks: &mut Hooks,
    registry: &Arc<Registry>,
    objects: &Arc<dyn Lookup>,
    kubelets: &Arc<Kubelets>,
    authorizer: &Arc<dyn Authorizer>,
) {
    let upgrades_create = registry.gates().enabled("AuthorizePodWebsocketUpgradeCreatePermission");
    let splits_logs = registry.gates().enabled("PodLogsQuerySplitStreams");
    let registry = Arc::downgrade(registry);
    let streams = PodStreams {
        objects: objects.clone(),
        kubelets: kubelets.clone(),
        authorizer: authorizer.clone(),
        registry: registry.clone(),
        upgrades_create,
        splits_logs,
    };
    for (name, kind) in
        [("log", Stream::Log), ("exec", Stream::Exec), ("attach", Stream::Attach), ("portforward", Stream::PortForward)]
    {
        hooks.subresources.push(("", "pods", name, Arc::new(PodStream { kind, streams: streams.clone() })));
    }
    for (plural, kind) in [("nodes", Proxied::Node), ("pods", Proxied::Pod), ("services", Proxied::Service)] {
        let proxy = Proxy { kind, objects: objects.clone(), kubelets: kubelets.clone(), registry: registry.clone() };
        hooks.subresources.push(("", plural, "proxy", Arc::new(proxy)));
    }
}

/// What others need to verify the cluster's tokens.
fn documents(tokens: &Arc<Tokens>) -> Vec<Document> {
    let (discovery, keys) = (tokens.clone(), tokens.clone());
    vec![
        Document {
            path: "/.well-known/openid-configuration",
            content_type: "application/json",
            make: Arc::new(move || discovery.discovery_document().into()),
        },
        Document {
            path: "/openid/v1/jwks",
            content_type: "application/jwk-set+json",
            make: Arc::new(move || keys.key_set().into()),
        },
    ]
}

/// Writes the status of quotas through the registry.
struct StatusWriter(std::sync::Weak<Registry>);

#[async_trait]
impl QuotaWriter for StatusWriter {
    async fn write_status(&self, quota: &Map) -> Result<(), Status> {
        let registry = self.0.upgrade().ok_or_else(|| Status::service_unavailable("the server is shutting down"))?;
        let resource = || GroupResource::new("", "resourcequotas");
        let served = registry.preferred("", "resourcequotas").ok_or_else(|| Status::not_found(&resource(), ""))?;
        let place = Place {
            namespace: quota.str_at(&["metadata", "namespace"]),
            name: quota.str_at(&["metadata", "name"]),
            subresource: "status",
        };
        let replace = mutation::Replace(quota.clone());
        registry.update(&Context::internal(), &served, place, &replace, &Options::default()).await.map(|_| ())
    }
}

/// Labels Secrets through the registry.
struct SecretLabels(std::sync::Weak<Registry>);

#[async_trait]
impl LegacyUse for SecretLabels {
    async fn note(&self, secret: &Map, label: &'static str, value: &str) {
        let Some(registry) = self.0.upgrade() else { return };
        let Some(served) = registry.preferred("", "secrets") else { return };
        let mut labelled = secret.clone();
        labelled.set_at(&["metadata", "labels", label], value);
        let place = Place {
            namespace: secret.str_at(&["metadata", "namespace"]),
            name: secret.str_at(&["metadata", "name"]),
            subresource: "",
        };
        let replace = mutation::Replace(labelled);
        let written = registry.update(&Context::internal(), &served, place, &replace, &Options::default()).await;
        if let Err(status) = written {
            tracing::warn!(secret = place.name, why = status.message, "the use of a token could not be noted");
        }
    }
}

/// Makes namespaces that are named before they are there.
struct Namespaces(std::sync::Weak<Registry>);

#[async_trait]
impl NamespaceMaker for Namespaces {
    async fn make(&self, name: &str) -> Result<(), Status> {
        let registry = self.0.upgrade().ok_or_else(|| Status::service_unavailable("the server is shutting down"))?;
        let resource = GroupResource::new("", "namespaces");
        let served = registry.preferred("", "namespaces").ok_or_else(|| Status::not_found(&resource, name))?;
        let mut object = Map::new();
        object.set_at(&["metadata", "name"], name);
        registry.create(&Context::internal(), &served, "", object, &Options::default()).await.map(|_| ())
    }
}
