//! Asking the runtime about a pod.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Seek as _},
    path::Path,
};

use cri::v1;
use futures::future::try_join_all;

use super::observed::{Container, Observed, State, label};
use crate::rpc;

/// The most bytes of a termination message, and of log lines that stand in for one.
const MOST_MESSAGE: u64 = 4096;
const MOST_LOG: u64 = 2048;
const MOST_LOG_LINES: usize = 80;

fn selector(uid: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(label::POD_UID.to_owned(), uid.to_owned())])
}

/// All that the runtime knows of a pod.
///
/// # Errors
/// The runtime's.
pub(crate) async fn read(cri: &cri::Client, uid: &str) -> Result<Observed, tonic::Status> {
    let sandboxes = async {
        let request = v1::ListPodSandboxRequest {
            filter: Some(v1::PodSandboxFilter { label_selector: selector(uid), ..Default::default() }),
        };
        let list = cri.runtime().list_pod_sandbox(request).await?.into_inner().items;
        let status = |item: v1::PodSandbox| async move { sandbox(cri, &item.id).await };
        try_join_all(list.into_iter().map(status)).await
    };
    let containers = async {
        let request = v1::ListContainersRequest {
            filter: Some(v1::ContainerFilter { label_selector: selector(uid), ..Default::default() }),
        };
        let list = cri.runtime().list_containers(request).await?.into_inner().containers;
        let status = |item: v1::Container| async move { container(cri, &item.id).await };
        try_join_all(list.into_iter().map(status)).await
    };
    let (sandboxes, containers) = futures::try_join!(sandboxes, containers)?;
    let sandboxes: Vec<_> = sandboxes.into_iter().flatten().collect();
    let containers: Vec<_> = containers.into_iter().flatten().collect();
    Ok(Observed::new(&sandboxes, &containers))
}

/// A sandbox's status; `None` for one that is gone.
pub(crate) async fn sandbox(cri: &cri::Client, id: &str) -> Result<Option<v1::PodSandboxStatus>, tonic::Status> {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    match cri.runtime().pod_sandbox_status(request).await {
        Ok(answer) => Ok(answer.into_inner().status),
        Err(status) if rpc::is_not_found(&status) => Ok(None),
        Err(status) => Err(status),
    }
}

/// A container's status; `None` for one that is gone.
pub(crate) async fn container(cri: &cri::Client, id: &str) -> Result<Option<v1::ContainerStatus>, tonic::Status> {
    let request = v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    match cri.runtime().container_status(request).await {
        Ok(answer) => Ok(answer.into_inner().status),
        Err(status) if rpc::is_not_found(&status) => Ok(None),
        Err(status) => Err(status),
    }
}

/// Reads the last words of a container that exited, once.
pub(crate) fn last_words(container: &mut Container) {
    if container.state != State::Exited || container.termination.read {
        return;
    }
    container.termination.read = true;
    if container.reason.is_empty() {
        container.reason = if container.exit_code == 0 { "Completed" } else { "Error" }.to_owned();
    }
    let mut message = String::new();
    if let Some(file) = &container.termination.file {
        message = match head(Path::new(file)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => format!("Error on reading termination log {file}: {error}"),
        };
    }
    let failed = container.exit_code != 0 || container.reason == "OOMKilled";
    if message.is_empty() && container.termination.fallback_to_logs && failed {
        message = tail_of_log(Path::new(&container.log_path))
            .unwrap_or_else(|error| format!("Error on reading termination message from logs: {error}"));
    }
    if !message.is_empty() {
        container.message = message;
    }
}

fn head(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MOST_MESSAGE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a log, without times and streams.
fn tail_of_log(path: &Path) -> io::Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    // Each line carries a time and a stream beside its text.
    let window = MOST_LOG * 4;
    file.seek(io::SeekFrom::Start(length.saturating_sub(window)))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<&str> = text.lines().collect();
    if length > window && !lines.is_empty() {
        lines.remove(0);
    }
    let skip = lines.len().saturating_sub(MOST_LOG_LINES);
    let mut out = String::new();
    for line in &lines[skip..] {
        let mut parts = line.splitn(4, ' ');
        let (tag, text) = (parts.nth(2), parts.next());
        out.push_str(text.unwrap_or_default());
        if tag != Some("P") {
            out.push('\n');
        }
    }
    let mut start = out.len().saturating_sub(usize::try_from(MOST_LOG).unwrap_or(usize::MAX));
    while !out.is_char_boundary(start) {
        start += 1;
    }
    Ok(out[start..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::observed::testing::exited, *};

    #[test]
    fn last_words_come_from_the_file_or_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("message"), dir.path().join("0.log"));
        fs::write(&file, "x".repeat(5000)).unwrap();
        fs::write(
            &log,
            "2024-01-01T00:00:00Z stdout F one\n2024-01-01T00:00:01Z stderr P tw\n2024-01-01T00:00:01Z stderr F o\n",
        )
        .unwrap();
        let mut container = exited("c", 0, 1);
        container.log_path = log.display().to_string();
        container.termination.file = Some(file.display().to_string());
        container.termination.fallback_to_logs = true;
        let mut first = container.clone();
        last_words(&mut first);
        assert_eq!(first.message.len(), 4096);
        fs::write(&file, "").unwrap();
        let mut second = container.clone();
        last_words(&mut second);
        assert_eq!(second.message, "one\ntwo\n");
        let mut third = container.clone();
        third.exit_code = 0;
        last_words(&mut third);
        assert_eq!(third.message, "", "success needs no explanation");
        fs::write(&file, "late").unwrap();
        last_words(&mut second);
        assert_eq!(second.message, "one\ntwo\n", "read once");
    }
}
