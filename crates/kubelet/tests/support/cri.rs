//! A runtime that runs nothing: it remembers what it was told, and tests tell it what happens.

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
};

use cri::{ImageService, ImageServiceServer, RuntimeService, RuntimeServiceServer, v1};
use tokio::{net::UnixListener, sync::broadcast};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};
use tonic::{Request, Response, Status, transport::Server};

type Answer<T> = Result<Response<T>, Status>;
/// Whether a command succeeds: its exit code, for a container's name and the command.
type Exec = Box<dyn Fn(&str, &[String]) -> i32 + Send>;

fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap()
}

fn unserved<T>() -> Answer<T> {
    Err(Status::unimplemented("not in this runtime"))
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, (v1::PodSandboxStatus, v1::PodSandboxConfig)>,
    containers: BTreeMap<String, (v1::ContainerStatus, v1::ContainerConfig, String)>,
    images: HashSet<String>,
    pullable: HashSet<String>,
    refuse_start: HashSet<String>,
    calls: Vec<String>,
    exec: Option<Exec>,
}

pub struct Runtime {
    state: Mutex<State>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
}

impl Runtime {
    /// Serves at a socket until the test ends.
    pub async fn serve(socket: &Path) -> Arc<Self> {
        let runtime = Arc::new(Self { state: Mutex::default(), events: broadcast::channel(1024).0 });
        runtime.state.lock().unwrap().images.insert("image:1".into());
        let listener = UnixListener::bind(socket).unwrap();
        let served = Served(runtime.clone());
        tokio::spawn(async move {
            Server::builder()
                .add_service(RuntimeServiceServer::new(served.clone()))
                .add_service(ImageServiceServer::new(served))
                .serve_with_incoming(UnixListenerStream::new(listener))
                .await
                .unwrap();
        });
        runtime
    }

    /// What was asked for, but for questions.
    pub fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    pub fn make_pullable(&self, image: &str) {
        self.state.lock().unwrap().pullable.insert(image.into());
    }

    /// Containers of this name cannot be started.
    pub fn refuse_start(&self, name: &str) {
        self.state.lock().unwrap().refuse_start.insert(name.into());
    }

    pub fn on_exec(&self, exec: impl Fn(&str, &[String]) -> i32 + Send + 'static) {
        self.state.lock().unwrap().exec = Some(Box::new(exec));
    }

    /// The configuration of the newest container of this name.
    pub fn config(&self, name: &str) -> v1::ContainerConfig {
        let state = self.state.lock().unwrap();
        let found = state.containers.values().rev().find(|(status, ..)| status.metadata.as_ref().unwrap().name == name);
        found.unwrap().1.clone()
    }

    pub fn sandbox_configs(&self) -> Vec<v1::PodSandboxConfig> {
        self.state.lock().unwrap().sandboxes.values().map(|(_, config)| config.clone()).collect()
    }

    pub fn counts(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.sandboxes.len(), state.containers.len())
    }

    /// The newest container of this name exits.
    pub fn exit(&self, name: &str, code: i32, reason: &str) {
        let mut state = self.state.lock().unwrap();
        let id = state
            .containers
            .iter()
            .rev()
            .find(|(_, (status, ..))| status.metadata.as_ref().unwrap().name == name)
            .map(|(id, _)| id.clone())
            .unwrap();
        self.end(&mut state, &id, code, reason);
    }

    /// The sandbox dies, and its containers with it.
    pub fn kill_sandboxes(&self) {
        let mut state = self.state.lock().unwrap();
        let running: Vec<String> = state.containers.keys().cloned().collect();
        for id in running {
            self.end(&mut state, &id, 137, "Error");
        }
        let ids: Vec<String> = state.sandboxes.keys().cloned().collect();
        for id in ids {
            state.sandboxes.get_mut(&id).unwrap().0.state = v1::PodSandboxState::SandboxNotready as i32;
            self.tell(&state, &id, &id, v1::ContainerEventType::ContainerStoppedEvent);
        }
    }

    fn end(&self, state: &mut State, id: &str, code: i32, reason: &str) {
        let Some((status, _, sandbox)) = state.containers.get_mut(id) else { return };
        if status.state != v1::ContainerState::ContainerRunning as i32 {
            return;
        }
        status.state = v1::ContainerState::ContainerExited as i32;
        status.finished_at = now();
        status.exit_code = code;
        reason.clone_into(&mut status.reason);
        let sandbox = sandbox.clone();
        self.tell(state, id, &sandbox, v1::ContainerEventType::ContainerStoppedEvent);
    }

    fn tell(&self, state: &State, id: &str, sandbox: &str, kind: v1::ContainerEventType) {
        let event = v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind as i32,
            created_at: now(),
            pod_sandbox_status: state.sandboxes.get(sandbox).map(|(status, _)| status.clone()),
            containers_statuses: state
                .containers
                .values()
                .filter(|(.., of)| of == sandbox)
                .map(|(status, ..)| status.clone())
                .collect(),
        };
        // Nobody may be listening.
        let _ = self.events.send(event);
    }
}

#[derive(Clone)]
struct Served(Arc<Runtime>);

fn matches(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[tonic::async_trait]
impl RuntimeService for Served {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1.0".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let condition = |kind: &str| v1::RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        Ok(Response::new(v1::StatusResponse {
            status: Some(v1::RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] }),
            ..Default::default()
        }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Answer<v1::UpdateRuntimeConfigResponse> {
        let cidr = request.into_inner().runtime_config.unwrap().network_config.unwrap().pod_cidr;
        self.0.state.lock().unwrap().calls.push(format!("cidr {cidr}"));
        Ok(Response::new(Default::default()))
    }

    async fn run_pod_sandbox(&self, request: Request<v1::RunPodSandboxRequest>) -> Answer<v1::RunPodSandboxResponse> {
        let config = request.into_inner().config.unwrap();
        let mut state = self.0.state.lock().unwrap();
        state.next += 1;
        let id = format!("sandbox{:04}", state.next);
        let options = config.linux.as_ref().unwrap().security_context.as_ref().unwrap().namespace_options.clone();
        let host = options.as_ref().unwrap().network == v1::NamespaceMode::Node as i32;
        let metadata = config.metadata.clone().unwrap();
        state.calls.push(format!("run {} {}", metadata.name, metadata.attempt));
        let ip = if host { String::new() } else { format!("10.244.0.{}", state.next) };
        let status = v1::PodSandboxStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: v1::PodSandboxState::SandboxReady as i32,
            created_at: now(),
            network: Some(v1::PodSandboxNetworkStatus { ip, additional_ips: vec![] }),
            linux: Some(v1::LinuxPodSandboxStatus { namespaces: Some(v1::Namespace { options }) }),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            runtime_handler: String::new(),
        };
        state.sandboxes.insert(id.clone(), (status, config));
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.0.state.lock().unwrap();
        state.calls.push("stop sandbox".into());
        if let Some((status, _)) = state.sandboxes.get_mut(&id) {
            status.state = v1::PodSandboxState::SandboxNotready as i32;
        }
        self.0.tell(&state, &id, &id, v1::ContainerEventType::ContainerStoppedEvent);
        Ok(Response::new(Default::default()))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.0.state.lock().unwrap();
        state.sandboxes.remove(&id);
        state.containers.retain(|_, (.., sandbox)| *sandbox != id);
        Ok(Response::new(Default::default()))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let state = self.0.state.lock().unwrap();
        let (status, _) = state.sandboxes.get(&id).ok_or_else(|| Status::not_found("no such sandbox"))?;
        Ok(Response::new(v1::PodSandboxStatusResponse { status: Some(status.clone()), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let selector = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.0.state.lock().unwrap();
        let items = state
            .sandboxes
            .values()
            .filter(|(status, _)| matches(&status.labels, &selector))
            .map(|(status, _)| v1::PodSandbox {
                id: status.id.clone(),
                metadata: status.metadata.clone(),
                state: status.state,
                created_at: status.created_at,
                labels: status.labels.clone(),
                ..Default::default()
            })
            .collect();
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap();
        let mut state = self.0.state.lock().unwrap();
        state.next += 1;
        let id = format!("container{:04}", state.next);
        let log_dir = request.sandbox_config.unwrap().log_directory;
        let status = v1::ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: v1::ContainerState::ContainerCreated as i32,
            created_at: now(),
            image: config.image.clone(),
            image_ref: "image@sha256:1".into(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            resources: Some(v1::ContainerResources {
                linux: config.linux.clone().and_then(|linux| linux.resources),
                ..Default::default()
            }),
            mounts: config.mounts.clone(),
            log_path: format!("{log_dir}/{}", config.log_path),
            ..Default::default()
        };
        state.containers.insert(id.clone(), (status, config, request.pod_sandbox_id));
        Ok(Response::new(v1::CreateContainerResponse { container_id: id }))
    }

    async fn start_container(&self, request: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.0.state.lock().unwrap();
        let refused = state.refuse_start.clone();
        let (status, _, sandbox) = state.containers.get_mut(&id).unwrap();
        let metadata = status.metadata.clone().unwrap();
        if refused.contains(&metadata.name) {
            return Err(Status::unknown("exec: \"nope\": executable file not found in $PATH"));
        }
        status.state = v1::ContainerState::ContainerRunning as i32;
        status.started_at = now();
        let sandbox = sandbox.clone();
        state.calls.push(format!("start {} {}", metadata.name, metadata.attempt));
        self.0.tell(&state, &id, &sandbox, v1::ContainerEventType::ContainerStartedEvent);
        Ok(Response::new(Default::default()))
    }

    async fn stop_container(&self, request: Request<v1::StopContainerRequest>) -> Answer<v1::StopContainerResponse> {
        let request = request.into_inner();
        let mut state = self.0.state.lock().unwrap();
        let name = state.containers[&request.container_id].0.metadata.clone().unwrap().name;
        state.calls.push(format!("stop {name} {}", request.timeout));
        self.0.end(&mut state, &request.container_id, 143, "Error");
        Ok(Response::new(Default::default()))
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        self.0.state.lock().unwrap().containers.remove(&id);
        Ok(Response::new(Default::default()))
    }

    async fn list_containers(&self, request: Request<v1::ListContainersRequest>) -> Answer<v1::ListContainersResponse> {
        let selector = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.0.state.lock().unwrap();
        let containers = state
            .containers
            .values()
            .filter(|(status, ..)| matches(&status.labels, &selector))
            .map(|(status, ..)| v1::Container {
                id: status.id.clone(),
                metadata: status.metadata.clone(),
                state: status.state,
                labels: status.labels.clone(),
                ..Default::default()
            })
            .collect();
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let state = self.0.state.lock().unwrap();
        let (status, ..) = state.containers.get(&id).ok_or_else(|| Status::not_found("no such container"))?;
        Ok(Response::new(v1::ContainerStatusResponse { status: Some(status.clone()), ..Default::default() }))
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let request = request.into_inner();
        let mut state = self.0.state.lock().unwrap();
        let name = state.containers[&request.container_id].0.metadata.clone().unwrap().name;
        state.calls.push(format!("exec {name} {}", request.cmd.join(" ")));
        let exit_code = state.exec.as_ref().map_or(0, |exec| exec(&name, &request.cmd));
        Ok(Response::new(v1::ExecSyncResponse { stdout: "output".into(), stderr: "".into(), exit_code }))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let mut state = self.0.state.lock().unwrap();
        let (status, ..) = state.containers.get_mut(&request.container_id).unwrap();
        let linux = request.linux.unwrap();
        let call = format!(
            "update {} {} {}",
            status.metadata.as_ref().unwrap().name,
            linux.cpu_quota,
            linux.memory_limit_in_bytes
        );
        status.resources = Some(v1::ContainerResources { linux: Some(linux), ..Default::default() });
        state.calls.push(call);
        Ok(Response::new(Default::default()))
    }

    async fn reopen_container_log(
        &self,
        _: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        self.0.state.lock().unwrap().calls.push("reopen".into());
        Ok(Response::new(Default::default()))
    }

    type GetContainerEventsStream = Pin<Box<dyn Stream<Item = Result<v1::ContainerEventResponse, Status>> + Send>>;

    async fn get_container_events(&self, _: Request<v1::GetEventsRequest>) -> Answer<Self::GetContainerEventsStream> {
        let receiver = self.0.events.subscribe();
        let stream = tokio_stream::wrappers::BroadcastStream::new(receiver).filter_map(|event| event.ok().map(Ok));
        Ok(Response::new(Box::pin(stream)))
    }

    async fn runtime_config(&self, _: Request<v1::RuntimeConfigRequest>) -> Answer<v1::RuntimeConfigResponse> {
        unserved()
    }
    async fn update_pod_sandbox_resources(
        &self,
        _: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        unserved()
    }
    async fn checkpoint_container(
        &self,
        _: Request<v1::CheckpointContainerRequest>,
    ) -> Answer<v1::CheckpointContainerResponse> {
        unserved()
    }
    async fn exec(&self, _: Request<v1::ExecRequest>) -> Answer<v1::ExecResponse> {
        unserved()
    }
    async fn attach(&self, _: Request<v1::AttachRequest>) -> Answer<v1::AttachResponse> {
        unserved()
    }
    async fn port_forward(&self, _: Request<v1::PortForwardRequest>) -> Answer<v1::PortForwardResponse> {
        unserved()
    }
    async fn container_stats(&self, _: Request<v1::ContainerStatsRequest>) -> Answer<v1::ContainerStatsResponse> {
        unserved()
    }
    async fn list_container_stats(
        &self,
        _: Request<v1::ListContainerStatsRequest>,
    ) -> Answer<v1::ListContainerStatsResponse> {
        unserved()
    }
    async fn pod_sandbox_stats(&self, _: Request<v1::PodSandboxStatsRequest>) -> Answer<v1::PodSandboxStatsResponse> {
        unserved()
    }
    async fn list_pod_sandbox_stats(
        &self,
        _: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Answer<v1::ListPodSandboxStatsResponse> {
        unserved()
    }
    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Answer<v1::ListMetricDescriptorsResponse> {
        unserved()
    }
    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Answer<v1::ListPodSandboxMetricsResponse> {
        unserved()
    }
    type StreamPodSandboxesStream = tokio_stream::Empty<Result<v1::StreamPodSandboxesResponse, Status>>;
    async fn stream_pod_sandboxes(
        &self,
        _: Request<v1::StreamPodSandboxesRequest>,
    ) -> Answer<Self::StreamPodSandboxesStream> {
        unserved()
    }
    type StreamContainersStream = tokio_stream::Empty<Result<v1::StreamContainersResponse, Status>>;
    async fn stream_containers(&self, _: Request<v1::StreamContainersRequest>) -> Answer<Self::StreamContainersStream> {
        unserved()
    }
    type StreamContainerStatsStream = tokio_stream::Empty<Result<v1::StreamContainerStatsResponse, Status>>;
    async fn stream_container_stats(
        &self,
        _: Request<v1::StreamContainerStatsRequest>,
    ) -> Answer<Self::StreamContainerStatsStream> {
        unserved()
    }
    type StreamPodSandboxStatsStream = tokio_stream::Empty<Result<v1::StreamPodSandboxStatsResponse, Status>>;
    async fn stream_pod_sandbox_stats(
        &self,
        _: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Answer<Self::StreamPodSandboxStatsStream> {
        unserved()
    }
    type StreamPodSandboxMetricsStream = tokio_stream::Empty<Result<v1::StreamPodSandboxMetricsResponse, Status>>;
    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Answer<Self::StreamPodSandboxMetricsStream> {
        unserved()
    }
}

#[tonic::async_trait]
impl ImageService for Served {
    async fn list_images(&self, _: Request<v1::ListImagesRequest>) -> Answer<v1::ListImagesResponse> {
        let state = self.0.state.lock().unwrap();
        let images = state
            .images
            .iter()
            .map(|name| v1::Image { id: name.clone(), repo_tags: vec![name.clone()], size: 1000, ..Default::default() })
            .collect();
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    type StreamImagesStream = tokio_stream::Empty<Result<v1::StreamImagesResponse, Status>>;

    async fn stream_images(&self, _: Request<v1::StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        unserved()
    }

    async fn image_status(&self, request: Request<v1::ImageStatusRequest>) -> Answer<v1::ImageStatusResponse> {
        let name = request.into_inner().image.unwrap().image;
        let there = self.0.state.lock().unwrap().images.contains(&name);
        let image = there.then(|| v1::Image { id: format!("sha256:{name}"), size: 1000, ..Default::default() });
        Ok(Response::new(v1::ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, request: Request<v1::PullImageRequest>) -> Answer<v1::PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.unwrap().image;
        let mut state = self.0.state.lock().unwrap();
        let user = request.auth.map_or(String::new(), |auth| auth.username);
        state.calls.push(format!("pull {name} {user}"));
        if !state.pullable.contains(&name) {
            return Err(Status::not_found(format!("{name}: not found")));
        }
        state.images.insert(name.clone());
        Ok(Response::new(v1::PullImageResponse { image_ref: name }))
    }

    async fn remove_image(&self, request: Request<v1::RemoveImageRequest>) -> Answer<v1::RemoveImageResponse> {
        let name = request.into_inner().image.unwrap().image;
        self.0.state.lock().unwrap().images.remove(&name);
        Ok(Response::new(Default::default()))
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Answer<v1::ImageFsInfoResponse> {
        Ok(Response::new(Default::default()))
    }
}
