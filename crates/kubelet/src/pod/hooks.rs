//! Lifecycle hooks: what runs after a container starts and before it stops.

use std::time::Duration;

use cri::v1;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::{kubelet::Shared, probe::http, rpc};

/// How long an HTTP hook may take where nothing else bounds it.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Runs a hook.
///
/// # Errors
/// What the hook said, or why it could not be run.
pub(crate) async fn run(
    shared: &Shared,
    handler: &LifecycleHandler,
    container: &Container,
    id: &str,
    pod_ip: &str,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let request = v1::ExecSyncRequest { container_id: id.to_owned(), cmd: command.clone(), timeout: 0 };
        return match shared.cri.runtime().exec_sync(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                if answer.exit_code == 0 {
                    return Ok(());
                }
                let mut output = answer.stdout.to_vec();
                output.extend_from_slice(&answer.stderr);
                Err(format!(
                    "Exec lifecycle hook ({command:?}) for Container {:?} failed - error: command '{}' exited with {}: {}, message: {:?}",
                    container.name,
                    command.join(" "),
                    answer.exit_code,
                    String::from_utf8_lossy(&output),
                    String::from_utf8_lossy(&output),
                ))
            }
            Err(status) => Err(format!(
                "Exec lifecycle hook ({command:?}) for Container {:?} failed - error: {}",
                container.name,
                rpc::text(&status)
            )),
        };
    }
    if let Some(action) = &handler.http_get {
        let mut target = http::Target::new(action, container, pod_ip)?;
        let agent = "kube-lifecycle/".to_owned() + shared.minor_version();
        let mut result = http::get(&target, &agent, HTTP_TIMEOUT).await;
        if target.https && result.is_err() {
            // Hooks written when https was not looked at still work.
            target.https = false;
            result = http::get(&target, &agent, HTTP_TIMEOUT).await.or(result);
        }
        return match result {
            Ok(answer) if answer.status < 400 => Ok(()),
            Ok(answer) => Err(format!(
                "HTTP lifecycle hook ({}) for Container {:?} failed - error: {}, message: {:?}",
                target.path, container.name, answer.status, answer.body
            )),
            Err(error) => Err(format!(
                "HTTP lifecycle hook ({}) for Container {:?} failed - error: {error}",
                target.path, container.name
            )),
        };
    }
    if let Some(action) = &handler.sleep {
        let seconds = u64::try_from(action.seconds).unwrap_or_default();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        return Ok(());
    }
    Err("invalid handler: it names nothing to do".to_owned())
}
