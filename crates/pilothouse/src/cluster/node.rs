//! The node: container runtime, kubelet, service proxy, DNS.

use super::control_plane::ControlPlane;
use super::{Settings, certificates, identity};
use crate::cli::{Cidr, NodeArgs};
use crate::pki::Pki;
use crate::place::Place;
use crate::supervisor::Component;
use anyhow::{Context, Result};
use api::features::Gates;
use apiserver::user::UserInfo;
use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::ApiResource;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// Who answers for cluster names (as kubeadm names it).
const DNS_ACCOUNT: &str = "coredns";
const DNS_ROLE: &str = "system:coredns";

/// Makes a component's client, on the runtime that uses it.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, Result<Client>> + Send + Sync>;

/// What the runtime of a cluster is found by.
#[derive(Clone, Debug)]
pub struct Runtime {
    pub name: String,
    pub place: Place,
}

/// What a node is told.
#[derive(Clone, Debug)]
pub struct Node {
    /// The cluster's.
    pub cluster: String,
    pub place: Place,
    pub name: String,
    pub ip: IpAddr,
    pub dns: IpAddr,
    pub cluster_domain: String,
    pub pod_cidr: Cidr,
    pub service_cidr: Cidr,
    pub args: NodeArgs,
    /// Which features are on.
    pub gates: Gates,
}

impl Node {
    /// What the CRI is reached at: the embedded runtime's socket or the one given.
    fn cri_endpoint(&self) -> PathBuf {
        match &self.args.runtime_endpoint {
            Some(endpoint) => endpoint.strip_prefix("unix://").unwrap_or(endpoint).into(),
            None => self.place.cri_socket.clone(),
        }
    }

    /// How the kubelet is set up, but for its certificates.
    pub fn kubelet_config(&self) -> kubelet::Config {
        let mut config = kubelet::Config::new(self.name.clone(), self.ip, self.cri_endpoint());
        config.cluster_name = self.cluster.clone();
        config.root_dir = self.place.kubelet.clone();
        config.pod_log_dir = self.place.pod_logs.clone();
        config.container_log_dir = self.place.container_logs.clone();
        config.cluster_dns = vec![self.dns];
        config.cluster_domain = self.cluster_domain.clone();
        config.port = kubelet_port(&self.args, &self.place);
        config.version = crate::KUBERNETES_VERSION.to_owned();
        config.gates = self.gates.clone();
        // Everything of this cluster is below it.
        config.cgroup_root = format!("/{}", self.cluster);
        config
    }
}

/// How the embedded runtime is set up; also what `down` and `reset` work on.
pub fn runtime_config(settings: &Runtime) -> runtime::Config {
    let mut config = runtime::Config::new(settings.name.clone(), settings.place.runtime.clone());
    config.socket = settings.place.cri_socket.clone();
    config.cgroup_root = Some(format!("/{}", settings.name));
    config.version = crate::VERSION.to_owned();
    config
}

/// The embedded runtime of a node, as a component.
pub fn container_runtime(node: &Node) -> Component {
    let mut config = runtime_config(&Runtime { name: node.cluster.clone(), place: node.place.clone() });
    config.registry_mirrors = node.args.registry_mirror.iter().map(|(host, url)| format!("{host}={url}")).collect();
    config.cluster_cidrs = vec![node.pod_cidr.to_string()];
    config.service_cidrs = vec![node.service_cidr.to_string()];
    runtime_component(config)
}

/// The embedded runtime, as a component.
pub fn runtime_component(config: runtime::Config) -> Component {
    Arc::new(move |shutdown| {
        let config = config.clone();
        async move { Ok(runtime::serve(config, async move { shutdown.cancelled().await }).await?) }.boxed()
    })
}

/// Where the node's own API listens; 0 for a free port.
pub fn kubelet_port(args: &NodeArgs, place: &Place) -> u16 {
    args.kubelet_port.unwrap_or(if place.default { 10250 } else { 0 })
}

/// The kubelet, as a component.
pub fn kubelet(node: &Node, connect: Connect, pki: &Pki) -> Result<Component> {
    let mut config = node.kubelet_config();
    config.serving = kubelet::Serving::Files {
        cert: pki.certificate_path(certificates::KUBELET),
        key: pki.key_path(certificates::KUBELET),
    };
    config.client_ca = Some(kubelet::ClientCa::Pem(pki.ca_pem()?.into_bytes()));
    Ok(Arc::new(move |shutdown| {
        let (config, connect) = (config.clone(), connect.clone());
        async move { Ok(kubelet::run(config, connect().await?, shutdown).await?) }.boxed()
    }))
}

/// The service proxy, as a component.
pub fn service_proxy(node: &Node, connect: Connect) -> Result<Component> {
    let config = proxy::Config {
        cluster: node.cluster.clone(),
        node_name: node.name.clone(),
        cluster_cidrs: vec![node.pod_cidr.to_string().parse().context("the pod network")?],
        masquerade_all: false,
        node_port_addresses: proxy::NodePortAddresses::All,
        look_every: None,
        ready: None,
    };
    Ok(Arc::new(move |shutdown| {
        let (config, connect) = (config.clone(), connect.clone());
        async move { Ok(proxy::run(config, connect().await?, shutdown).await?) }.boxed()
    }))
}

/// Cluster DNS, as a component: on a port of the node's address, to which `kube-dns` leads. Port 53 of the host is not touched.
pub fn dns(settings: &Settings, plane: &Arc<ControlPlane>, ready: watch::Sender<Option<Vec<SocketAddr>>>) -> Component {
    let (plane, domain, ip) = (plane.clone(), settings.args.cluster_domain.clone(), settings.node_ip);
    let remembered = settings.place.data_dir.join("dns-port");
    let node = settings.node.is_some().then(|| settings.node_name.clone());
    let pods = settings.args.pod_cidr;
    let mut clients = vec![(pods.address.into(), pods.prefix), (ip, 32), (IpAddr::from([127, 0, 0, 0]), 8)];
    if settings.node.is_none() {
        // Pods of other machines ask with their machine's address.
        clients.extend(super::address::network_of(ip));
    }
    Arc::new(move |shutdown| {
        let clients = clients.clone();
        let (plane, domain, ready, remembered, node) =
            (plane.clone(), domain.clone(), ready.clone(), remembered.clone(), node.clone());
        async move {
            allow(&plane.client(UserInfo::apiserver(), "pilothouse"))
                .await
                .context("cannot give cluster DNS its rights")?;
            // The port of before, so that rules that lead there stay true over a restart.
            let before = std::fs::read_to_string(&remembered).ok().and_then(|t| t.trim().parse::<u16>().ok());
            let port = before.filter(|p| {
                std::net::UdpSocket::bind((ip, *p)).is_ok() && std::net::TcpListener::bind((ip, *p)).is_ok()
            });
            let mut config = dns::Config::new(vec![SocketAddr::new(ip, port.unwrap_or(0))], domain);
            // Pods and this node only: no open resolver for the network around.
            config.clients = dns::server::Clients::Within(clients.clone());
            let (listening, mut told) = watch::channel(None);
            config.ready = Some(listening);
            let tell = async {
                let addresses = told.wait_for(Option::is_some).await.map(|a| a.clone().unwrap_or_default());
                let Ok(addresses) = addresses else { return std::future::pending().await };
                if let Some(port) = addresses.first().map(SocketAddr::port) {
                    crate::pki::write_atomically(&remembered, port.to_string().as_bytes(), 0o644)?;
                    publish(&plane.client(UserInfo::apiserver(), "pilothouse"), ip, port, node.as_deref())
                        .await
                        .context("cannot publish where DNS is")?;
                }
                ready.send_replace(Some(addresses));
                std::future::pending::<Result<()>>().await
            };
            let client = plane.client(identity::service_account(DNS_ACCOUNT), "coredns");
            tokio::select! {
                outcome = dns::run(config, client, shutdown) => Ok(outcome?),
                outcome = tell => outcome,
            }
        }
        .boxed()
    })
}

pub async fn apply(
    client: &Client,
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
    object: &serde_json::Value,
) -> Result<()> {
    let api: kube::Api<DynamicObject> = match namespace {
        Some(namespace) => kube::Api::namespaced_with(client.clone(), namespace, resource),
        None => kube::Api::all_with(client.clone(), resource),
    };
    api.patch(name, &PatchParams::apply("pilothouse").force(), &Patch::Apply(object)).await?;
    Ok(())
}

pub fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") },
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// The role of cluster DNS: to read what it answers with.
async fn allow(client: &Client) -> Result<()> {
    let role = serde_json::json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": DNS_ROLE},
        "rules": [
            {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        ],
    });
    apply(client, &resource("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles"), None, DNS_ROLE, &role)
        .await?;
    let binding = serde_json::json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": DNS_ROLE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": DNS_ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": DNS_ACCOUNT, "namespace": "kube-system"}],
    });
    let bindings = resource("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings");
    apply(client, &bindings, None, DNS_ROLE, &binding).await
}

/// Says where the Service `kube-dns` leads.
async fn publish(client: &Client, ip: IpAddr, port: u16, node: Option<&str>) -> Result<()> {
    let slice = apiserver::bootstrap::dns_endpoint_slice(&[ip], port, node);
    let object: serde_json::Value = serde_json::from_str(&schema::json::to_string(&slice))?;
    let name = object["metadata"]["name"].as_str().context("the slice has a name")?.to_owned();
    apply(
        client,
        &resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices"),
        Some("kube-system"),
        &name,
        &object,
    )
    .await
}
