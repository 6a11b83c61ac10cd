//! Telling the API the status of a pod: what differs, one request at a time, tried again when it
//! fails.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::{kubelet::Shared, pod::patch::patch, spec::PodExt};

/// Waits between attempts grow to this.
const LAST_WAIT: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_millis(50);

/// How a request went.
pub(super) enum Answer {
    /// The version the pod has now.
    Done(u64),
    /// The pod is gone or another one: no status of ours is wanted.
    Gone,
    Failed,
}

struct Flight {
    task: JoinHandle<Answer>,
    status: PodStatus,
}

/// What the API has, and what is on the way there.
pub(super) struct Report {
    base: PodStatus,
    version: u64,
    flight: Option<Flight>,
    wait: Duration,
    wake_at: Option<Timestamp>,
    gone: bool,
}

/// The part of the answer that matters.
#[derive(Deserialize)]
struct Versioned {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    resource_version: String,
}

impl Report {
    pub(super) fn new(pod: &Pod) -> Self {
        let mut report =
            Self { base: PodStatus::default(), version: 0, flight: None, wait: FIRST_WAIT, wake_at: None, gone: false };
        if !pod.is_static() {
            report.saw(pod);
        }
        report
    }

    /// Takes in what the API has, unless it is older than what we made it.
    pub(super) fn saw(&mut self, pod: &Pod) {
        let version = pod.metadata.resource_version.as_deref().unwrap_or_default();
        let version = version.parse().unwrap_or(u64::MAX);
        if version >= self.version {
            self.version = version;
            self.base = pod.status.clone().unwrap_or_default();
            self.gone = false;
        }
    }

    /// True when the API has this status.
    pub(super) fn is_settled(&self, status: &PodStatus) -> bool {
        self.gone || (self.flight.is_none() && patch("", &self.base, status).is_none())
    }

    /// Sends what differs, unless something is on its way, or must wait.
    pub(super) fn send(&mut self, shared: &Arc<Shared>, target: &Pod, status: &PodStatus, hold: Option<Duration>) {
        if self.flight.is_some() || self.gone {
            return;
        }
        if self.base == *status {
            self.wake_at = None;
            return;
        }
        let Some(body) = patch(target.uid(), &self.base, status) else {
            self.wake_at = None;
            return;
        };
        let now = Timestamp::now();
        if let Some(at) = self.wake_at
            && at > now
        {
            return;
        }
        // The first word about a pod never waits.
        if let Some(hold) = hold
            && self.base.phase.is_some()
            && self.base.start_time.is_some()
        {
            self.wake_at = Some(now + hold);
            return;
        }
        self.wake_at = None;
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", target.namespace(), target.name());
        let client = shared.client.clone();
        self.flight = Some(Flight {
            task: tokio::spawn(async move { request(client, &path, &body).await }),
            status: status.clone(),
        });
    }

    /// Waits for the answer to what was sent; for ever if nothing was.
    pub(super) async fn answered(&mut self) -> Answer {
        match &mut self.flight {
            Some(flight) => (&mut flight.task).await.unwrap_or(Answer::Failed),
            None => std::future::pending().await,
        }
    }

    pub(super) fn take(&mut self, answer: Answer, pod: &Pod) {
        let Some(flight) = self.flight.take() else { return };
        match answer {
            Answer::Done(version) => {
                self.wait = FIRST_WAIT;
                if version >= self.version {
                    self.version = version;
                    self.base = flight.status;
                }
            }
            Answer::Gone => {
                tracing::debug!(pod = pod.display(), "the pod is gone from the API; its status is not reported");
                self.gone = true;
            }
            Answer::Failed => {
                self.wake_at = Some(Timestamp::now() + self.wait);
                self.wait = (self.wait * 2).min(LAST_WAIT);
            }
        }
    }

    /// When something that waits is due.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.wake_at.filter(|_| self.flight.is_none())
    }
}

async fn request(client: kube::Client, path: &str, body: &serde_json::Value) -> Answer {
    let request = http::Request::patch(path)
        .header(http::header::CONTENT_TYPE, "application/strategic-merge-patch+json")
        .header(http::header::ACCEPT, "application/json")
        .body(body.to_string().into_bytes());
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(path, %error, "a status could not be sent");
            return Answer::Failed;
        }
    };
    match client.request::<Versioned>(request).await {
        Ok(answer) => Answer::Done(answer.metadata.resource_version.parse().unwrap_or_default()),
        // Another uid is told as a conflict.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Answer::Gone,
        Err(error) => {
            tracing::debug!(path, %error, "a status could not be sent; trying again");
            Answer::Failed
        }
    }
}
