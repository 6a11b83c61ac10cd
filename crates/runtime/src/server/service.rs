//! The CRI runtime service: requests in, operations called, answers out.

use std::{pin::Pin, sync::Arc, time::Duration};

use cri::v1::{runtime_service_server::RuntimeService, *};
use futures::Stream;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status, async_trait};

use super::{
    Runtime, blocking, convert,
    error::RuntimeError,
    streams::{Ticket, Wanted},
    to_the_end,
};
use crate::shim::now_nanos;

/// Serves a runtime.
#[derive(Clone)]
pub(crate) struct Service {
    runtime: Arc<Runtime>,
}

type Answer<T> = Result<Response<T>, Status>;
type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    pub(crate) fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }

    fn runtime(&self) -> Arc<Runtime> {
        self.runtime.clone()
    }
}

/// A stream of one answer: lists are small here.
fn once<T: Send + 'static>(item: T) -> Items<T> {
    Box::pin(tokio_stream::once(Ok(item)))
}

fn seconds(n: i64) -> Duration {
    Duration::from_secs(u64::try_from(n).unwrap_or(0))
}

#[async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "pilothouse".into(),
            runtime_version: self.runtime.config.version.clone(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Answer<StatusResponse> {
        let network = self.runtime.network_ready();
        let condition = |kind: &str, status, reason: &str, message: &str| RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: reason.into(),
            message: message.into(),
        };
        let network_condition = if network {
            condition("NetworkReady", true, "", "")
        } else {
            condition("NetworkReady", false, "NetworkPluginNotReady", "the pod CIDR of this node is not known yet")
        };
        let mut info = std::collections::BTreeMap::new();
        if request.get_ref().verbose {
            let config = serde_json::json!({
                "cluster": self.runtime.config.cluster,
                "dataDir": self.runtime.config.data_dir,
                "cgroupRoot": self.runtime.layout.cgroup_root(),
                "registryMirrors": self.runtime.config.registry_mirrors,
            });
            info.insert("config".to_owned(), config.to_string());
            let runtime = self.runtime();
            let warnings = blocking(move || runtime.network.warnings()).await;
            let warnings = warnings.map_err(RuntimeError::network("look at the machine's firewall"))?;
            if !warnings.is_empty() {
                info.insert("networkWarnings".to_owned(), warnings.join("\n"));
            }
        }
        let handler = |name: &str| RuntimeHandler {
            name: name.into(),
            features: Some(RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false }),
        };
        Ok(Response::new(StatusResponse {
            status: Some(RuntimeStatus {
                conditions: vec![condition("RuntimeReady", true, "", ""), network_condition],
            }),
            info,
            runtime_handlers: vec![handler(""), handler("pilothouse")],
            features: Some(RuntimeFeatures { supplemental_groups_policy: true, user_namespaces_host_network: false }),
        }))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        Ok(Response::new(RuntimeConfigResponse {
            linux: Some(LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() }),
        }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let cidr =
            request.into_inner().runtime_config.and_then(|c| c.network_config).map(|n| n.pod_cidr).unwrap_or_default();
        // Of a dual-stack node the IPv4 part is what the pod network can use.
        let ipv4 = cidr.split(',').map(str::trim).find(|c| c.contains('.'));
        if let Some(cidr) = ipv4.map(str::to_owned) {
            let runtime = self.runtime();
            to_the_end(async move {
                let network = runtime.clone();
                blocking(move || network.network.set_pod_cidr(&cidr))
                    .await
                    .map_err(RuntimeError::network("set the pod CIDR"))?;
                runtime.set_network_ready();
                Ok::<(), RuntimeError>(())
            })
            .await?;
        }
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap_or_default();
        let made = self.runtime().run_sandbox(config, request.runtime_handler);
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: to_the_end(made).await? }))
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        to_the_end(self.runtime().stop_sandbox(id)).await?;
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        to_the_end(self.runtime().remove_sandbox(id)).await?;
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.runtime.sandboxes.get(&request.pod_sandbox_id)?;
        let mut info = std::collections::BTreeMap::new();
        if request.verbose {
            let record = serde_json::to_string(&sandbox.record()).map_err(|e| Status::internal(e.to_string()))?;
            info.insert("info".to_owned(), record);
        }
        let containers = self.runtime.containers_of(&sandbox.id);
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(convert::sandbox_status(&sandbox)),
            info,
            containers_statuses: containers.iter().map(|c| convert::container_status(c)).collect(),
            timestamp: now_nanos(),
        }))
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let sandboxes = self.runtime.list_sandboxes(request.into_inner().filter)?;
        Ok(Response::new(ListPodSandboxResponse { items: sandboxes.iter().map(|s| convert::sandbox(s)).collect() }))
    }

    type StreamPodSandboxesStream = Items<StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        let sandboxes = self.runtime.list_sandboxes(request.into_inner().filter)?;
        Ok(Response::new(once(StreamPodSandboxesResponse {
            pod_sandboxes: sandboxes.iter().map(|s| convert::sandbox(s)).collect(),
        })))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        // The kubelet has changed the pod's group itself; the sandbox has no other limits.
        self.runtime.sandboxes.get(&request.into_inner().pod_sandbox_id)?;
        Ok(Response::new(UpdatePodSandboxResourcesResponse {}))
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let made = self.runtime().create_container(request.into_inner());
        Ok(Response::new(CreateContainerResponse { container_id: to_the_end(made).await? }))
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        to_the_end(self.runtime().start_container(id)).await?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let stopped = self.runtime().stop_container(request.container_id, seconds(request.timeout));
        to_the_end(stopped).await?;
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        to_the_end(self.runtime().remove_container(id)).await?;
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let containers = self.runtime.list_containers(request.into_inner().filter)?;
        Ok(Response::new(ListContainersResponse {
            containers: containers.iter().map(|c| convert::container(c)).collect(),
        }))
    }

    type StreamContainersStream = Items<StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Answer<Self::StreamContainersStream> {
        let containers = self.runtime.list_containers(request.into_inner().filter)?;
        Ok(Response::new(once(StreamContainersResponse {
            containers: containers.iter().map(|c| convert::container(c)).collect(),
        })))
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.runtime.containers.get(&request.container_id)?;
        let mut info = std::collections::BTreeMap::new();
        if request.verbose {
            let record = serde_json::to_string(&container.record()).map_err(|e| Status::internal(e.to_string()))?;
            info.insert("info".to_owned(), record);
        }
        Ok(Response::new(ContainerStatusResponse { status: Some(convert::container_status(&container)), info }))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let updated = self.runtime().update_container(request.container_id, request.linux.unwrap_or_default());
        to_the_end(updated).await?;
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        self.runtime.reopen_log(&request.into_inner().container_id).await?;
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Answer<CheckpointContainerResponse> {
        Err(Status::unimplemented("checkpointing containers is not supported by this runtime"))
    }

    type GetContainerEventsStream = Items<ContainerEventResponse>;

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let receiver = self.runtime.events.subscribe();
        let events = futures::stream::unfold(Some(receiver), |receiver| async move {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(event) => Some((Ok(event), Some(receiver))),
                Err(RecvError::Closed) => None,
                // The listener has to list anew: it must not believe that it knows everything.
                Err(RecvError::Lagged(missed)) => {
                    let status = Status::data_loss(format!("{missed} events were missed"));
                    Some((Err(status), None))
                }
            }
        });
        let ending = self.runtime.ending.clone();
        let events = futures::StreamExt::take_until(events, ending.cancelled_owned());
        Ok(Response::new(Box::pin(events)))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        let limit = seconds(request.timeout);
        let response = self.runtime.exec_sync(&request.container_id, request.cmd, limit).await?;
        Ok(Response::new(response))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let request = request.into_inner();
        let container = self.runtime.containers.get(&request.container_id)?;
        if container.state() != ContainerState::ContainerRunning {
            let state = container.state().as_str_name();
            return Err(Status::failed_precondition(format!("container is in {state} state")));
        }
        let streams = Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        let url = self.runtime.streams.issue(Ticket::Exec {
            container: container.id.clone(),
            command: request.cmd,
            terminal: request.tty,
            streams: streams.check(request.tty)?,
        })?;
        Ok(Response::new(ExecResponse { url }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let request = request.into_inner();
        let container = self.runtime.containers.get(&request.container_id)?;
        if container.state() != ContainerState::ContainerRunning {
            let state = container.state().as_str_name();
            return Err(Status::failed_precondition(format!("container is in {state} state")));
        }
        let streams = Wanted { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr };
        let url = self.runtime.streams.issue(Ticket::Attach {
            container: container.id.clone(),
            terminal: request.tty,
            streams: streams.check(request.tty)?,
        })?;
        Ok(Response::new(AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let request = request.into_inner();
        let sandbox = self.runtime.sandboxes.get(&request.pod_sandbox_id)?;
        self.runtime.ready_shim(&sandbox)?;
        let mut ports = Vec::new();
        for port in request.port {
            let port = u16::try_from(port)
                .ok()
                .filter(|p| *p > 0)
                .ok_or_else(|| Status::invalid_argument(format!("{port} is not a port")))?;
            ports.push(port);
        }
        let url = self.runtime.streams.issue(Ticket::PortForward { sandbox: sandbox.id.clone(), ports })?;
        Ok(Response::new(PortForwardResponse { url }))
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let container = self.runtime.containers.get(&request.into_inner().container_id)?;
        let runtime = self.runtime();
        let stats = blocking(move || runtime.container_stats(&container)).await;
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let runtime = self.runtime();
        let filter = request.into_inner().filter;
        let stats = blocking(move || runtime.list_container_stats(filter)).await?;
        Ok(Response::new(ListContainerStatsResponse { stats }))
    }

    type StreamContainerStatsStream = Items<StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        let runtime = self.runtime();
        let filter = request.into_inner().filter;
        let container_stats = blocking(move || runtime.list_container_stats(filter)).await?;
        Ok(Response::new(once(StreamContainerStatsResponse { container_stats })))
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let sandbox = self.runtime.sandboxes.get(&request.into_inner().pod_sandbox_id)?;
        let runtime = self.runtime();
        let stats = blocking(move || runtime.sandbox_stats(&sandbox)).await?;
        Ok(Response::new(PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let runtime = self.runtime();
        let filter = request.into_inner().filter;
        let stats = blocking(move || runtime.list_sandbox_stats(filter)).await?;
        Ok(Response::new(ListPodSandboxStatsResponse { stats }))
    }

    type StreamPodSandboxStatsStream = Items<StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        let runtime = self.runtime();
        let filter = request.into_inner().filter;
        let pod_sandbox_stats = blocking(move || runtime.list_sandbox_stats(filter)).await?;
        Ok(Response::new(once(StreamPodSandboxStatsResponse { pod_sandbox_stats })))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<ListMetricDescriptorsRequest>,
    ) -> Answer<ListMetricDescriptorsResponse> {
        Ok(Response::new(ListMetricDescriptorsResponse { descriptors: super::metrics::descriptors() }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<ListPodSandboxMetricsRequest>,
    ) -> Answer<ListPodSandboxMetricsResponse> {
        let runtime = self.runtime();
        let stats = blocking(move || runtime.list_sandbox_stats(None)).await?;
        Ok(Response::new(ListPodSandboxMetricsResponse {
            pod_metrics: stats.iter().map(super::metrics::of_pod).collect(),
        }))
    }

    type StreamPodSandboxMetricsStream = Items<StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        let runtime = self.runtime();
        let stats = blocking(move || runtime.list_sandbox_stats(None)).await?;
        Ok(Response::new(once(StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics: stats.iter().map(super::metrics::of_pod).collect(),
        })))
    }
}
