//! Giving back what a pod had: on the node, in the API, in the runtime.

use std::{fs, io, path::Path, sync::Arc};

use cri::v1;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DeleteParams, Preconditions},
};

use super::observed::{Container, Observed};
use crate::{kubelet::Shared, resources::Qos, rpc, spec::PodExt, volume};

/// Unmounts and removes the pod's volumes and its cgroup. Returns whether all is gone.
pub(crate) async fn node(shared: &Arc<Shared>, uid: &str) -> bool {
    let (shared, uid) = (shared.clone(), uid.to_owned());
    let work = move || {
        let mut all = true;
        if let Err(error) = volume::tear_down(&shared.cfg, &uid) {
            tracing::warn!(uid, %error, "a pod's volumes could not be removed; trying again");
            all = false;
        }
        for qos in [Qos::Guaranteed, Qos::Burstable, Qos::BestEffort] {
            let path = shared.cgroups.pod(qos, &uid);
            if let Err(error) = shared.cgroups.remove(&path) {
                tracing::warn!(uid, %error, "a pod's cgroup could not be removed; trying again");
                all = false;
            }
        }
        all
    };
    tokio::task::spawn_blocking(work).await.unwrap_or(false)
}

/// Deletes a pod whose grace is over from the API. Returns whether it is gone.
pub(crate) async fn delete_from_api(client: kube::Client, pod: &Pod) -> bool {
    let api: Api<Pod> = Api::namespaced(client, pod.namespace());
    let parameters = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: Some(pod.uid().to_owned()), resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(pod.name(), &parameters).await {
        Ok(_) => true,
        // Gone already, or another pod of the name.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
        Err(error) => {
            tracing::debug!(pod = pod.display(), %error, "a pod could not be deleted from the API; trying again");
            false
        }
    }
}

/// Removes the pod's containers and sandboxes from the runtime, and its logs. Returns whether all
/// is gone.
pub(crate) async fn runtime(shared: &Shared, pod: &Pod, observed: &Observed) -> bool {
    let mut all = true;
    let mut runtime = shared.cri.runtime();
    // Removing a sandbox removes its containers too.
    for sandbox in &observed.sandboxes {
        let request = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
        if let Err(status) = runtime.remove_pod_sandbox(request).await
            && !rpc::is_not_found(&status)
        {
            tracing::warn!(
                pod = pod.display(),
                sandbox = sandbox.id,
                status = rpc::text(&status),
                "a sandbox could not be removed; trying again"
            );
            all = false;
        }
    }
    if observed.sandboxes.is_empty() {
        for container in &observed.containers {
            all &= remove(shared, &container.id).await;
        }
    }
    for container in &observed.containers {
        remove_link(shared, pod, container);
    }
    let logs = shared.cfg.logs_dir(pod.namespace(), pod.name(), pod.uid());
    let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(logs)).await;
    if let Ok(Err(error)) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(pod = pod.display(), %error, "a pod's logs could not be removed");
    }
    all
}

async fn remove(shared: &Shared, id: &str) -> bool {
    let request = v1::RemoveContainerRequest { container_id: id.to_owned() };
    match shared.cri.runtime().remove_container(request).await {
        Err(status) if !rpc::is_not_found(&status) => {
            tracing::warn!(container = id, status = rpc::text(&status), "a container could not be removed");
            false
        }
        _ => true,
    }
}

/// What becomes of a removed container's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logs {
    /// It stays, and counts as a trace of the run.
    Keep,
    Remove,
}

/// Removes a dead container.
pub(crate) async fn container(shared: &Shared, pod: &Pod, container: &Container, logs: Logs) {
    if !remove(shared, &container.id).await || logs == Logs::Keep {
        return;
    }
    remove_link(shared, pod, container);
    let log = Path::new(&container.log_path);
    let Some((dir, name)) = log.parent().zip(log.file_name()) else {
        return;
    };
    // Rotated files are named after the log.
    let name = name.to_string_lossy().into_owned();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&name)
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::debug!(path = %entry.path().display(), %error, "a log could not be removed");
        }
    }
}

fn remove_link(shared: &Shared, pod: &Pod, container: &Container) {
    let link = shared.cfg.log_link(pod.namespace(), pod.name(), &container.name, &container.id);
    if let Err(error) = fs::remove_file(&link)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(link = %link.display(), %error, "a link to a log could not be removed");
    }
}
