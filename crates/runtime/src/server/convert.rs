//! What is known, in the CRI's words.

use cri::v1::{
    self, ContainerResources, ContainerStatus, ContainerUser, ImageSpec, LinuxContainerUser, LinuxPodSandboxStatus,
    Namespace, PodIp, PodSandbox, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};

use super::state::{Container, Sandbox, lock};

fn sandbox_state(ready: bool) -> i32 {
    if ready { PodSandboxState::SandboxReady.into() } else { PodSandboxState::SandboxNotready.into() }
}

pub(crate) fn sandbox(sandbox: &Sandbox) -> PodSandbox {
    let record = sandbox.record();
    PodSandbox {
        id: record.id,
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(record.ready),
        created_at: record.created_at,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.runtime_handler,
    }
}

pub(crate) fn sandbox_status(sandbox: &Sandbox) -> PodSandboxStatus {
    let record = sandbox.record();
    // A stopped pod has given its addresses back.
    let ips = if record.ready { &record.ips[..] } else { &[] };
    let mut ips = ips.iter().map(ToString::to_string);
    let network = PodSandboxNetworkStatus {
        ip: ips.next().unwrap_or_default(),
        additional_ips: ips.map(|ip| PodIp { ip }).collect(),
    };
    let namespaces = sandbox
        .config
        .linux
        .as_ref()
        .and_then(|l| l.security_context.as_ref())
        .and_then(|c| c.namespace_options.clone());
    PodSandboxStatus {
        id: record.id,
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(record.ready),
        created_at: record.created_at,
        network: Some(network),
        linux: Some(LinuxPodSandboxStatus {
            namespaces: Some(Namespace { options: Some(namespaces.unwrap_or_default()) }),
        }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.runtime_handler,
    }
}

fn image_spec(config: &v1::ContainerConfig) -> ImageSpec {
    let spec = config.image.clone().unwrap_or_default();
    let image =
        if spec.user_specified_image.is_empty() { spec.image.clone() } else { spec.user_specified_image.clone() };
    ImageSpec { image, ..spec }
}

pub(crate) fn container(container: &Container) -> v1::Container {
    let record = container.record();
    v1::Container {
        id: record.id,
        pod_sandbox_id: record.sandbox,
        metadata: container.config.metadata.clone(),
        image: Some(image_spec(&container.config)),
        image_ref: record.image_ref,
        state: record.status.state().into(),
        created_at: record.created_at,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        image_id: record.image_id,
    }
}

pub(crate) fn container_status(container: &Container) -> ContainerStatus {
    let record = container.record();
    let state = record.status.state();
    let finished = record.status.finished;
    let config = &container.config;
    ContainerStatus {
        id: record.id,
        metadata: Some(config.metadata.clone().unwrap_or_default()),
        state: state.into(),
        created_at: record.created_at,
        started_at: record.status.started_at.unwrap_or(0),
        finished_at: finished.as_ref().map_or(0, |f| f.at),
        exit_code: finished.as_ref().map_or(0, |f| f.exit_code),
        image: Some(image_spec(config)),
        image_ref: record.image_ref,
        reason: finished.as_ref().map(|f| f.reason.clone()).unwrap_or_default(),
        message: finished.map(|f| f.message).unwrap_or_default(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: record.log_path.map(|p| p.display().to_string()).unwrap_or_default(),
        resources: Some(ContainerResources { linux: Some(lock(&container.resources).clone()), windows: None }),
        image_id: record.image_id,
        user: Some(ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: i64::from(record.uid),
                gid: i64::from(record.gid),
                supplemental_groups: record.groups.iter().map(|g| i64::from(*g)).collect(),
            }),
        }),
        stop_signal: super::signals::to_cri(record.stop_signal).into(),
    }
}
