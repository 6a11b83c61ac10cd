//! `pilothouse agent`: a node of another machine's cluster. It joins once, with a bootstrap token, and from then on has its
//! own certificate.

use super::join::{self, Told};
use super::node::{self, Connect, Node};
use super::{address, stop_signal};
use crate::cli::AgentArgs;
use crate::components::tls_bootstrap::Kept;
use crate::components::{client, kubelet};
use crate::place::Place;
use crate::progress::Progress;
use crate::supervisor::{Component, Supervisor};
use crate::{lock, pki, preflight, systemd};
use anyhow::{Context, Result, bail};
use api::features::Gates;
use futures::FutureExt;
use kube::Api;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const CONNECT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// Where an agent keeps what it was given.
struct Files {
    ca: PathBuf,
    bootstrap: PathBuf,
    kubeconfig: PathBuf,
    told: PathBuf,
    node_name: PathBuf,
    kept: Kept,
}

impl Files {
    fn of(place: &Place) -> Self {
        let below = |name: &str| place.data_dir.join("agent").join(name);
        Files {
            ca: below("ca.crt"),
            bootstrap: below("bootstrap.kubeconfig"),
            kubeconfig: below("kubelet.kubeconfig"),
            told: below("cluster.json"),
            node_name: below("node-name"),
            kept: Kept { dir: below("pki") },
        }
    }
}

/// Runs a node in the foreground until it is told to stop; its pods go on running then.
pub fn run(mut args: AgentArgs) -> Result<()> {
    let progress = Progress::start(args.json);
    let gates = args.features.gates()?;
    preflight::node()?;
    let place = Place::new(&args.place.data_dir)?;
    let files = Files::of(&place);
    let create = |directory: &std::path::Path| {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))
    };
    super::claim::Claim::check(&place, args.place.name.as_deref(), Some(&[]))?;
    create(&place.data_dir)?;
    let _lock = lock::take(&place.node_lock)?;
    args.place.name = Some(super::claim::Claim::take(&place, args.place.name.as_deref(), Some(&[]))?.name);
    create(&place.run)?;
    create(&files.kept.dir)?;
    let name = match &args.node.node_name {
        Some(name) => name.clone(),
        // The name that it joined with.
        None => match std::fs::read_to_string(&files.node_name) {
            Ok(name) => name,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => address::host_name()?,
            Err(e) => return Err(e).with_context(|| format!("cannot read {}", files.node_name.display())),
        },
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = serve(&args, &gates, &place, &files, &name, &progress) => outcome,
            stopped = stop_signal() => bail!("stopped by {stopped} before the node had joined"),
        }
    });
    let running = outcome?;
    runtime.block_on(running.wait(&progress))
}

/// The node's components.
struct Running {
    supervisor: Supervisor,
    client: kube::Client,
    node: String,
}

async fn serve(
    args: &AgentArgs,
    gates: &Gates,
    place: &Place,
    files: &Files,
    name: &str,
    progress: &Progress,
) -> Result<Running> {
    join(args, files, name, progress).await?;
    let told = told(files).await?;
    let node = Node {
        cluster: args.place.name().to_owned(),
        place: place.clone(),
        name: name.to_owned(),
        ip: args.node_ip.unwrap_or_else(address::node_ip),
        dns: told.dns,
        cluster_domain: told.domain,
        pod_cidr: told.pod_cidr,
        service_cidr: told.service_cidr,
        args: args.node.clone(),
        gates: gates.clone(),
    };
    let api = client::from_file(&files.kubeconfig).await?;
    let mut supervisor = Supervisor::new(CancellationToken::new(), Arc::new(|_, _| {}));
    if args.node.runtime_endpoint.is_none() {
        supervisor.start("runtime", node::container_runtime(&node))?;
    }
    // As this node: what it may do more than a kubelet is in the role `pilothouse:node-proxier`.
    let kubeconfig = files.kubeconfig.clone();
    let connect: Connect = Arc::new(move || {
        let kubeconfig = kubeconfig.clone();
        async move { client::client(&client::from_file(&kubeconfig).await?, "kube-proxy") }.boxed()
    });
    let proxy = node::service_proxy(&node, connect)?;
    supervisor.start("proxy", with_certificate(proxy, files.kept.current()))?;
    let config = node.kubelet_config();
    supervisor.start("kubelet", kubelet_component(config, files))?;
    Ok(Running { supervisor, client: client::client(&api, "pilothouse")?, node: name.to_owned() })
}

/// The kubelet, as a component that renews its own certificates.
fn kubelet_component(config: ::kubelet::Config, files: &Files) -> Component {
    let (kubeconfig, kept, ca) = (files.kubeconfig.clone(), files.kept.clone(), files.ca.clone());
    Arc::new(move |shutdown| {
        let (mut config, kubeconfig, kept) = (config.clone(), kubeconfig.clone(), kept.clone());
        config.client_ca = Some(::kubelet::ClientCa::File(ca.clone()));
        let rotation = kubelet::Rotation { kept, client: true, serving: true };
        async move { kubelet::run_with_rotation(config, &kubeconfig, rotation, shutdown).await }.boxed()
    })
}

/// A component that begins anew when the certificate it shows is replaced.
fn with_certificate(component: Component, certificate: PathBuf) -> Component {
    Arc::new(move |shutdown| {
        let (component, certificate) = (component.clone(), certificate.clone());
        async move {
            loop {
                let stop = shutdown.child_token();
                tokio::select! {
                    outcome = component(stop.clone()) => return outcome,
                    () = changed(&certificate) => stop.cancel(),
                }
            }
        }
        .boxed()
    })
}

/// Returns when a file has been replaced.
async fn changed(file: &std::path::Path) {
    let stamp = || std::fs::metadata(file).and_then(|m| m.modified()).ok();
    let before = stamp();
    loop {
        tokio::time::sleep(super::certificates::LOOK).await;
        if stamp() != before {
            return;
        }
    }
}

impl Running {
    /// Waits until the node is Ready, tells so, and serves until a signal asks to stop.
    async fn wait(self, progress: &Progress) -> Result<()> {
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(self.client.clone());
        let ready = async {
            loop {
                match nodes.get_opt(&self.node).await {
                    Ok(node) => {
                        let conditions = node.and_then(|n| n.status).and_then(|s| s.conditions).unwrap_or_default();
                        if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
                            return;
                        }
                    }
                    Err(e) => tracing::debug!("the node can't be read yet: {e}"),
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let mut stopped = std::pin::pin!(stop_signal());
        tokio::select! {
            () = ready => {
                progress.done("node is Ready", &self.node);
                let seconds = progress.elapsed().as_secs_f64();
                let fields = serde_json::json!({"node": self.node});
                systemd::notify("READY=1");
                progress.ready(&fields, &format!(
                    "\nThe node {:?} is Ready after {seconds:.2} s.\n\nPress ^C to stop it; its pods go on running.", self.node
                ));
                let name = stopped.await;
                tracing::info!("stopping: {name}");
            }
            name = &mut stopped => tracing::info!("stopping: {name}"),
        }
        systemd::notify("STOPPING=1");
        let supervisor = self.supervisor;
        let join = tokio::task::spawn_blocking(move || supervisor.stop());
        tokio::select! {
            joined = join => joined.context("stopping the components"),
            name = stop_signal() => bail!("ended at once by a second {name}"),
        }
    }
}

/// Makes sure that this node has a certificate of its own and knows the cluster's CA.
async fn join(args: &AgentArgs, files: &Files, name: &str, progress: &Progress) -> Result<()> {
    if files.kubeconfig.exists() && files.ca.exists() && files.kept.renewal(name).is_some() {
        // The server may have moved.
        return files.kept.write_kubeconfig(&files.kubeconfig, &args.server, &std::fs::read(&files.ca)?);
    }
    let Some(token) = &args.token else {
        bail!("--token is missing: this node has not joined yet; `pilothouse server` prints the token");
    };
    if !files.ca.exists() {
        let Some(hash) = &args.discovery_token_ca_cert_hash else {
            bail!(
                "--discovery-token-ca-cert-hash is missing: without it nothing proves that {} is the cluster's; `pilothouse server` prints it",
                args.server
            );
        };
        let ca = authority(&args.server, hash).await?;
        pki::write_atomically(&files.ca, ca.as_bytes(), 0o644)?;
        progress.done("control plane known", &args.server);
    }
    let ca = std::fs::read(&files.ca)?;
    write_bootstrap(files, &args.server, &ca, token)?;
    let asked = async {
        free(&files.bootstrap, name).await?;
        crate::components::tls_bootstrap::ensure(&files.bootstrap, &files.kubeconfig, &files.kept, name).await
    };
    let asked = asked.await;
    // The token is not needed any more, however it went.
    std::fs::remove_file(&files.bootstrap).context("cannot remove the bootstrap token")?;
    asked?;
    pki::write_atomically(&files.node_name, name.as_bytes(), 0o644)?;
    progress.done("certificate", &files.kept.current().display().to_string());
    Ok(())
}

/// Whether no other node has this name: one that is Ready is alive, and two of a name would take each other's pods.
async fn free(bootstrap: &std::path::Path, name: &str) -> Result<()> {
    let client = client::client(&client::from_file(bootstrap).await?, "pilothouse")?;
    let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(client);
    let there = nodes.get_opt(name).await.context("the control plane can't be asked for the node's name")?;
    let conditions = there.and_then(|node| node.status).and_then(|status| status.conditions).unwrap_or_default();
    if conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True") {
        bail!(
            "a Node {name:?} is Ready in the cluster already: delete it (`kubectl delete node {name}`) if it is this one, or choose another --node-name"
        );
    }
    Ok(())
}

fn write_bootstrap(files: &Files, server: &str, ca: &[u8], token: &str) -> Result<()> {
    use base64::Engine;
    let ca = base64::engine::general_purpose::STANDARD.encode(ca);
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    pki::write_atomically(&files.bootstrap, serde_saphyr::to_string(&document)?.as_bytes(), 0o600)
}

/// What the control plane tells this node: asked, or kept from the last time.
async fn told(files: &Files) -> Result<Told> {
    let api = client::from_file(&files.kubeconfig).await?;
    let client = client::client(&api, "pilothouse")?;
    loop {
        match join::read(&client).await {
            Ok(data) => {
                let told = Told::parse(&data).context("what the control plane tells nodes")?;
                pki::write_atomically(&files.told, serde_json::to_string(&data)?.as_bytes(), 0o644)?;
                return Ok(told);
            }
            Err(e) => {
                if let Ok(text) = std::fs::read_to_string(&files.told) {
                    tracing::warn!(
                        "the control plane is not reached, so this node starts with what it was told before: {e:#}"
                    );
                    let data: BTreeMap<String, String> = serde_json::from_str(&text)?;
                    return Told::parse(&data).with_context(|| files.told.display().to_string());
                }
                tracing::warn!("{e:#}; trying again");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The CA that a server shows, when its public key has the hash and it signed the server's certificate: PEM.
async fn authority(server: &str, hash: &str) -> Result<String> {
    let url: http::Uri = server.parse()?;
    let host = url.host().context("a server has a host")?.trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(443);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pinned = Arc::new(Pinned { hash: hash.to_owned(), provider: provider.clone(), found: Mutex::default() });
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(pinned.clone())
        .with_no_client_auth();
    let name = ServerName::try_from(host.clone()).with_context(|| format!("{host:?} is no name of a server"))?;
    let connect = async {
        let ip: std::net::IpAddr = match host.parse() {
            Ok(ip) => ip,
            Err(_) => {
                let found = runtime::registry::Dns::default().resolve(&host).await?;
                found.first().context("no address")?.ip()
            }
        };
        let stream = tokio::net::TcpStream::connect((ip, port)).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        Ok::<_, anyhow::Error>(())
    };
    let connected =
        tokio::time::timeout(CONNECT, connect).await.with_context(|| format!("{server} does not answer"))?;
    connected.with_context(|| format!("{server} can't be trusted or reached"))?;
    let found = pinned.found.lock().unwrap_or_else(PoisonError::into_inner).take();
    let found = found.context("a verified server has an authority")?;
    Ok(crate::components::tls_bootstrap::pem(&found))
}

/// Trusts the one authority whose public key has a hash, if it is in the chain that the server shows and signed for it.
#[derive(Debug)]
struct Pinned {
    hash: String,
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|c| join::ca_hash(c).as_deref() == Some(self.hash.as_str()));
        let Some(authority) = authority else {
            return Err(rustls::Error::General(format!(
                "the server shows no certificate authority of the hash {}: is this the right server?",
                self.hash
            )));
        };
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(authority.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
