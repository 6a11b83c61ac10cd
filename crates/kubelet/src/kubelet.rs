//! What all rooms of the kubelet share.

use std::sync::{Arc, OnceLock};

use cri::v1;
use k8s_openapi::api::{core::v1::Pod, node::v1::RuntimeClass};
use kube::{Api, Client};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    cgroup::Cgroups,
    config::Config,
    container::config::Machine as Limits,
    events::Recorder,
    image::Images,
    node::{NodeHandle, machine::Machine},
    objects::Objects,
    pod::view::Pods,
    services::Services,
    spec::PodExt,
    tokens::Tokens,
};

/// One kubelet's parts.
pub(crate) struct Shared {
    pub(crate) cfg: Arc<Config>,
    pub(crate) client: Client,
    pub(crate) cri: cri::Client,
    pub(crate) events: Recorder,
    pub(crate) objects: Objects,
    pub(crate) services: Services,
    pub(crate) tokens: Tokens,
    pub(crate) images: Images,
    pub(crate) cgroups: Cgroups,
    pub(crate) machine: Arc<Machine>,
    /// What of the machine shows in containers' limits.
    pub(crate) limits: Limits,
    /// The node's own resolver configuration.
    pub(crate) host_dns: v1::DnsConfig,
    pub(crate) node: NodeHandle,
    pub(crate) pods: Pods,
    pub(crate) runtime_name: OnceLock<String>,
    /// Those who do something about a pod.
    pub(crate) workers: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    /// The runtime's name, the scheme of container ids.
    pub(crate) fn runtime_name(&self) -> String {
        self.runtime_name.get().cloned().unwrap_or_default()
    }

    /// `1.36` of `v1.36.2+pilothouse.1`.
    pub(crate) fn minor_version(&self) -> &str {
        let version = self.cfg.version.trim_start_matches('v');
        let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
        &version[..end]
    }

    /// The user agent of HTTP and gRPC probes.
    pub(crate) fn probe_agent(&self) -> String {
        format!("kube-probe/{}", self.minor_version())
    }

    /// The task, until the kubelet stops.
    pub(crate) fn until_stop<F>(&self, task: F) -> futures::future::BoxFuture<'static, ()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        Box::pin(async move {
            stop.run_until_cancelled(task).await;
        })
    }

    /// The runtime's handler that a pod's runtime class names; empty for the default one.
    ///
    /// # Errors
    /// Upstream's text when there is no such class.
    pub(crate) async fn runtime_handler(&self, pod: &Pod) -> Result<String, String> {
        let Some(name) = pod.spec().runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
            return Ok(String::new());
        };
        let api: Api<RuntimeClass> = Api::all(self.client.clone());
        match api.get_opt(name).await {
            Ok(Some(class)) => Ok(class.handler),
            Ok(None) => Err(format!("failed to get sandbox runtime: runtimeclass.node.k8s.io {name:?} not found")),
            Err(error) => Err(format!("failed to get sandbox runtime: {error}")),
        }
    }
}
