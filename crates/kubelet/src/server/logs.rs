//! Logs of containers over HTTP.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::{Body, Query, text};
use crate::{
    kubelet::Shared,
    logs::{
        line::Stream,
        read::{self, Options},
    },
    pod::view::Snapshot,
    spec::PodExt,
};

fn options(query: &Query, now: Timestamp) -> Result<Options, String> {
    let number = |name: &str| match query.get(name) {
        None => Ok(None),
        Some(value) => {
            value.parse::<u64>().map(Some).map_err(|_| format!("{name}: {value:?} must be a number, 0 or more"))
        }
    };
    let mut since = None;
    if let Some(seconds) = number("sinceSeconds")? {
        since = now.checked_sub(std::time::Duration::from_secs(seconds)).ok();
    }
    if let Some(time) = query.get("sinceTime") {
        since = Some(time.parse().map_err(|_| format!("sinceTime: {time:?} must be a time as in RFC 3339"))?);
    }
    let stream = match query.get("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        Some(other) => return Err(format!("stream: {other:?} must be All, Stdout or Stderr")),
    };
    Ok(Options {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        since,
        tail_lines: number("tailLines")?,
        limit_bytes: number("limitBytes")?,
        stream,
    })
}

/// The id of the container whose log is wanted.
///
/// # Errors
/// Upstream's texts.
fn choose(pod: &str, status: &PodStatus, name: &str, previous: bool) -> Result<String, String> {
    let lists = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let found: Option<&ContainerStatus> = lists.into_iter().flatten().flatten().find(|status| status.name == name);
    let Some(found) = found else {
        return Err(format!("container {name:?} in pod {pod:?} is not available"));
    };
    let state = found.state.clone().unwrap_or_default();
    let last = found.last_state.as_ref().and_then(|last| last.terminated.as_ref());
    let last_id = last.and_then(|last| last.container_id.clone()).filter(|id| !id.is_empty());
    let terminated = || format!("container {name:?} in pod {pod:?} is terminated");
    let full = if previous {
        last_id.ok_or_else(|| format!("previous terminated container {name:?} in pod {pod:?} not found"))?
    } else if state.running.is_some() {
        found.container_id.clone().unwrap_or_default()
    } else if let Some(ended) = state.terminated {
        ended.container_id.filter(|id| !id.is_empty()).or(last_id).ok_or_else(terminated)?
    } else if last.is_some() {
        last_id.ok_or_else(terminated)?
    } else if let Some(waiting) = state.waiting {
        let reason = waiting.reason.unwrap_or_default();
        let why = match reason.as_str() {
            "ErrImagePull" => "image can't be pulled",
            "ImagePullBackOff" => "trying and failing to pull image",
            other => other,
        };
        return Err(format!("container {name:?} in pod {pod:?} is waiting to start: {why}"));
    } else {
        return Err(format!("container {name:?} in pod {pod:?} is waiting to start - no logs yet"));
    };
    Ok(full.split_once("://").map_or(full.clone(), |(_, id)| id.to_owned()))
}

/// Where a container's log is: as the runtime tells, or by its attempt if it was removed.
fn path_of(shared: &Shared, snapshot: &Snapshot, name: &str, id: &str) -> Option<PathBuf> {
    if let Some(container) = snapshot.observed.by_id(id) {
        return Some(container.log_path.clone().into());
    }
    let pod = &snapshot.pod;
    let link = shared.cfg.log_link(pod.namespace(), pod.name(), name, id);
    std::fs::read_link(link).ok()
}

/// Answers with a log.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    namespace: &str,
    pod: &str,
    container: &str,
    query: &Query,
) -> Response<Body> {
    let options = match options(query, Timestamp::now()) {
        Ok(options) => options,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let Some(snapshot) = shared.pods.by_name(namespace, pod) else {
        return text(StatusCode::NOT_FOUND, format!("pod {pod:?} does not exist\n"));
    };
    if snapshot.pod.find_container(container).is_none() {
        return text(StatusCode::NOT_FOUND, format!("container {container:?} not found in pod {pod:?}\n"));
    }
    let id = match choose(pod, &snapshot.status, container, options.previous) {
        Ok(id) => id,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let Some(path) = path_of(shared, &snapshot, container, &id).filter(|path| path.exists()) else {
        let why = format!(
            "unable to retrieve container logs for {}",
            crate::pod::status::container_id(&shared.runtime_name(), &id)
        );
        return text(StatusCode::OK, why);
    };
    let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(16);
    let (uid, watched) = (snapshot.pod.uid().to_owned(), shared.clone());
    let running = Arc::new(move || {
        let snapshot = watched.pods.get(&uid);
        snapshot.is_some_and(|snapshot| {
            snapshot.observed.by_id(&id).is_some_and(crate::pod::observed::Container::is_running)
        })
    });
    let task = async move {
        if let Err(error) = read::send(path, options, running, sender.clone()).await {
            // Who read may have gone away.
            let _ = sender.send(Err(error)).await;
        }
    };
    tokio::spawn(shared.until_stop(task));
    let stream = ReceiverStream::new(receiver).map(|chunk| chunk.map(Frame::data));
    let mut response = Response::new(StreamBody::new(stream).boxed());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(state: Value, last: Value, previous: bool) -> Result<String, String> {
        let status: PodStatus = serde_json::from_value(json!({"containerStatuses": [{
            "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "containerID": "x://now", "state": state, "lastState": last,
        }]}))
        .unwrap();
        choose("p", &status, "c", previous)
    }

    #[test]
    fn the_right_containers_log_is_chosen() {
        let ended = |id: &str| json!({"terminated": {"exitCode": 0, "containerID": format!("x://{id}")}});
        let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
        assert_eq!(of(json!({"running": {}}), ended("last"), false), Ok("now".into()));
        assert_eq!(of(json!({"running": {}}), ended("last"), true), Ok("last".into()));
        assert_eq!(of(ended("now"), json!({}), false), Ok("now".into()));
        assert_eq!(of(waiting("CrashLoopBackOff"), ended("last"), false), Ok("last".into()));
        for (state, previous, message) in [
            (json!({"running": {}}), true, "previous terminated container \"c\" in pod \"p\" not found"),
            (
                waiting("ContainerCreating"),
                false,
                "container \"c\" in pod \"p\" is waiting to start: ContainerCreating",
            ),
            (waiting("ErrImagePull"), false, "container \"c\" in pod \"p\" is waiting to start: image can't be pulled"),
            (
                waiting("ImagePullBackOff"),
                false,
                "container \"c\" in pod \"p\" is waiting to start: trying and failing to pull image",
            ),
        ] {
            assert_eq!(of(state, json!({}), previous), Err(message.into()));
        }
    }

    #[test]
    fn options_are_read_and_checked() {
        let now = Timestamp::from_second(1_000).unwrap();
        let of = |query: &str| options(&Query::of(&format!("/?{query}").parse().unwrap()), now);
        let all = of("follow=true&tailLines=5&sinceSeconds=10&timestamps=1&stream=Stderr&limitBytes=9").unwrap();
        assert_eq!(
            all,
            Options {
                follow: true,
                previous: false,
                timestamps: true,
                since: Timestamp::from_second(990).ok(),
                tail_lines: Some(5),
                limit_bytes: Some(9),
                stream: Some(Stream::Stderr),
            }
        );
        assert!(of("tailLines=-1").is_err() && of("sinceTime=x").is_err() && of("stream=x").is_err());
    }
}
