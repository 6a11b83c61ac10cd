//! Telling the API the status of a pod: what differs, one request at a time, tried again when it
//! fails.

use std::{sync::Arc, time::Duration};

use client::backoff::Backoff;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::{kubelet::Shared, pod::patch::patch, spec::PodExt};

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
    backoff: Backoff,
    /// After a failure, when to try again.
    retry_at: Option<Timestamp>,
    /// Until when a report waits for others that are about to come.
    held_until: Option<Timestamp>,
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
        let mut report = Self {
            base: PodStatus::default(),
            version: 0,
            flight: None,
            backoff: Backoff::default(),
            retry_at: None,
            held_until: None,
            gone: false,
        };
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

    /// Sends what differs, unless something is on its way, or must wait: after a failure, or for `hold`, in
    /// which more to tell is expected.
    pub(super) fn send(&mut self, shared: &Arc<Shared>, target: &Pod, status: &PodStatus, hold: Option<Duration>) {
        if self.flight.is_some() || self.gone {
            return;
        }
        let body = if self.base == *status { None } else { patch(target.uid(), &self.base, status) };
        let Some(body) = body else {
            self.retry_at = None;
            self.held_until = None;
            return;
        };
        if !self.is_due(Timestamp::now(), hold) {
            return;
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", target.namespace(), target.name());
        let client = shared.client.clone();
        self.flight = Some(Flight {
            task: tokio::spawn(async move { request(client, &path, &body).await }),
            status: status.clone(),
        });
    }

    /// Whether what differs is told now; else it is known when.
    fn is_due(&mut self, now: Timestamp, hold: Option<Duration>) -> bool {
        self.held_until = None;
        if self.retry_at.is_some_and(|at| at > now) {
            return false;
        }
        self.retry_at = None;
        // The first word about a pod never waits.
        let first = self.base.phase.is_none() || self.base.start_time.is_none();
        if let Some(hold) = hold.filter(|hold| !hold.is_zero() && !first) {
            self.held_until = Some(now + hold);
            return false;
        }
        true
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
                self.backoff = Backoff::default();
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
                self.retry_at = Some(Timestamp::now() + self.backoff.pause());
            }
        }
    }

    /// When something that waits is due.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.retry_at.max(self.held_until).filter(|_| self.flight.is_none())
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

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    const HOLD: Option<Duration> = Some(Duration::from_millis(150));

    fn told_before() -> Report {
        let mut report = Report::new(&Pod::default());
        report.base.phase = Some("Pending".to_owned());
        report.base.start_time = Some(Time(Timestamp::UNIX_EPOCH));
        report
    }

    #[test]
    fn a_held_report_goes_as_soon_as_nothing_more_is_expected() {
        let (mut report, now) = (told_before(), Timestamp::now());
        assert!(!report.is_due(now, HOLD));
        assert_eq!(report.wake_at(), Some(now + HOLD.unwrap()));
        assert!(report.is_due(now, None));
        assert_eq!(report.wake_at(), None);
    }

    #[test]
    fn the_first_word_is_not_held() {
        assert!(Report::new(&Pod::default()).is_due(Timestamp::now(), HOLD));
    }

    #[test]
    fn after_a_failure_nothing_goes_before_its_time() {
        let (mut report, now) = (told_before(), Timestamp::now());
        let later = now + report.backoff.pause();
        report.retry_at = Some(later);
        assert!(!report.is_due(now, None));
        assert_eq!(report.wake_at(), Some(later));
        assert!(report.is_due(later, None));
    }
}
